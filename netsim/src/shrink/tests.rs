//! What becomes smaller, and what must stay.

use std::path::{Path, PathBuf};

use super::candidate::Candidate;
use super::{ShrinkError, least, shrink};
use crate::replay::{Report, drive};
use crate::scenario::Scenario;
use crate::world::{Options, run};

fn fast(name: &str) -> (PathBuf, String, Scenario) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/fast").join(name).with_extension("toml");
    let text = std::fs::read_to_string(&path).expect("a file");
    let scenario = Scenario::parse(name, &text).expect("a scenario");
    (path, text, scenario)
}

fn shrunk(text: &str, scenario: &Scenario, report: &Report) -> Result<super::Shrunk, ShrinkError> {
    shrink("it", text, scenario, report, &|| true)
}

#[test]
fn the_least_part_that_fails_is_found() {
    let mut runs = 0;
    let found = least((0..100).collect(), |items: &[u32]| {
        runs += 1;
        [17, 18, 93].iter().all(|needed| items.contains(needed))
    });
    assert_eq!(found, [17, 18, 93]);
    assert!(runs < 100, "{runs} runs");
}

#[test]
fn what_fails_with_nothing_needs_nothing() {
    assert!(least(vec![1, 2, 3], |_| true).is_empty());
    assert_eq!(least(vec![1, 2, 3], |items| items.len() == 3), [1, 2, 3]);
}

#[test]
fn a_scenario_with_every_draw_written_down_is_the_same_run() {
    let (_, text, scenario) = fast("foul_weather");
    let options = Options { seed: 7, crash_at: None, mutant: None, at_least: std::time::Duration::ZERO };
    let drawn = run(&scenario, options);
    let written = Candidate::draw(&text, &scenario, options.seed, None).expect("a table");
    let written = run(&written.scenario().expect("a scenario"), options);
    assert_eq!(format!("{:?}", drawn.history.facts), format!("{:?}", written.history.facts));
    assert_eq!(drawn.verdict.events, written.verdict.events);
}

#[test]
fn nodes_that_stay_keep_their_nats_under_their_numbers() {
    let (_, text, scenario) = fast("double_nat");
    let drawn = Candidate::draw(&text, &scenario, 7, None).expect("a table");
    let named = |message: &&toml::Table| {
        ["from", "to"].iter().all(|end| matches!(message[*end].as_integer(), Some(2 | 5)))
    };
    let messages: Vec<_> = drawn.messages.iter().filter(named).cloned().collect();
    let fewer = drawn.with_messages(&messages).fewer_nodes(false);
    let fewer: toml::Table = fewer.text().parse().expect("a table");
    let nats = fewer["topology"]["nat"].as_array().expect("a list");
    let kept: Vec<_> = nats.iter().map(|nat| (nat["kind"].as_str(), nat["nodes"].to_string())).collect();
    assert_eq!(kept, [(Some("cgnat"), "[0]".to_owned()), (Some("symmetric"), "[1]".to_owned())]);
}

#[test]
fn what_holds_and_what_only_was_expected_is_not_shrunk() {
    let (_, text, mut scenario) = fast("calm");
    let report = drive(&scenario, 7, None, None);
    assert!(matches!(shrunk(&text, &scenario, &report), Err(ShrinkError::Holds)));
    scenario.expect.crashes_min = 1;
    let report = drive(&scenario, 7, None, None);
    assert!(matches!(shrunk(&text, &scenario, &report), Err(ShrinkError::OnlyExpectation)));
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::{Report, Scenario, drive, fast, shrunk};
    use crate::mutant::Mutant;

    /// Shrinks the first failure among a few seeds; gives how many faults and messages are left.
    #[track_caller]
    fn shrinks(name: &str, mutant: Mutant, invariant: &str) -> (usize, usize) {
        let (_, text, scenario) = fast(name);
        let fails = |report: &Report| {
            let mut violations = report.outcome.violations.iter();
            violations.find(|violation| violation.invariant != "expect").map(|first| first.invariant)
                == Some(invariant)
        };
        let reports = (1..=5).map(|seed| drive(&scenario, seed, None, Some(mutant)));
        let report = reports.into_iter().find(fails).expect("a seed that fails");
        let shrunk = shrunk(&text, &scenario, &report).expect("it shrinks");
        let anew = Scenario::parse("shrunk.toml", &shrunk.text).expect("what is written is a scenario");
        let anew = drive(&anew, report.options.seed, None, Some(mutant));
        assert!(
            anew.outcome.violations.iter().any(|violation| violation.invariant == invariant),
            "{}",
            shrunk.text
        );
        let holds = Scenario::parse("shrunk.toml", &shrunk.text).expect("a scenario");
        assert!(!drive(&holds, report.options.seed, None, None).failed(), "it is the planted fault's doing");
        (shrunk.after.faults, shrunk.after.messages)
    }

    #[test]
    fn a_lost_commit_in_foul_weather_shrinks_to_a_crash_and_few_messages() {
        let (faults, messages) = shrinks("foul_weather", Mutant::SkipsSync, "no_loss");
        assert!(faults <= 3 && messages <= 5, "{faults} faults, {messages} messages");
    }

    #[test]
    fn a_sweeps_failure_becomes_one_crash_at_its_instant() {
        let name = "crash_during_every_commit_of_the_sender";
        let (faults, messages) = shrinks(name, Mutant::SkipsSync, "no_loss");
        // The crash, and the partition without which the message would have left before it.
        assert!(faults == 2 && messages <= 3, "{faults} faults, {messages} messages");
    }
}
