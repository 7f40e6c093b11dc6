//! A diagram says what happened, in order, and is one that Mermaid takes.

use std::path::Path;
use std::time::Duration;

use super::Diagram;
use crate::scenario::Scenario;
use crate::watch::{Lens, Seen};
use crate::world::{Options, run, watched};

const OPTIONS: Options = Options { seed: 7, crash_at: None, mutant: None, at_least: Duration::ZERO };

fn scenario(name: &str) -> Scenario {
    let fast = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/fast");
    Scenario::read(&fast.join(name).with_extension("toml")).expect("a scenario")
}

fn seen(name: &str, lens: Lens) -> Vec<Seen> {
    watched(&scenario(name), OPTIONS, lens).1
}

/// Every line is a participant, an arrow or a note, and names declared participants only.
#[track_caller]
fn assert_well_formed(diagram: &str) {
    let mut lines = diagram.lines();
    assert_eq!(lines.next(), Some("sequenceDiagram"));
    let mut declared = Vec::new();
    for line in lines {
        let line = line.strip_prefix("    ").expect("all are indented");
        if let Some(participant) = line.strip_prefix("participant ") {
            declared.push(participant.split(' ').next().expect("a name").to_owned());
            continue;
        }
        let (head, text) = line.split_once(": ").expect("a text follows");
        assert!(!text.contains([';', '#', '\n']), "{line}");
        let hosts = match head.strip_prefix("Note over ") {
            Some(over) => over.split(','),
            None => {
                let (from, to) = head.split_once("->>").or_else(|| head.split_once("-x")).expect("an arrow");
                for host in [from, to] {
                    assert!(declared.contains(&host.to_owned()), "{line}");
                }
                continue;
            }
        };
        for host in hosts {
            assert!(declared.contains(&host.to_owned()), "{line}");
        }
    }
}

#[test]
fn a_messages_way_is_drawn_from_hand_to_reader() {
    let seen = seen("calm", Lens { most: 80, around: None, message: Some(3) });
    let diagram = Diagram(&seen).to_string();
    assert_well_formed(&diagram);
    let mut rest = diagram.as_str();
    for step in [
        "is handed message 3",
        "commit of 1 Outbox",
        "acknowledges message 3",
        ", message 3\n",
        "Inbox",
        "message 3 stored\n",
        "says message 3 is stored",
        "says message 3 is surfaced",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step} comes in its turn:\n{diagram}"));
        rest = &rest[at + step.len()..];
    }
}

#[test]
fn foul_weather_is_drawn_around_an_instant_with_its_faults() {
    let around = Duration::from_secs(100);
    let seen = seen("foul_weather", Lens { most: 2_000, around: Some(around), message: None });
    assert_eq!(seen.len(), 2_000);
    let before = seen.iter().filter(|seen| seen.at <= around).count();
    assert_eq!(before, 1_000);
    assert!(seen.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let diagram = Diagram(&seen).to_string();
    assert_well_formed(&diagram);
    for word in [" begins\n", "is down\n", "starts\n", "-x", "->>C: ", "C->>"] {
        assert!(diagram.contains(word), "{word} in\n{diagram}");
    }
}

#[test]
fn the_last_happenings_are_drawn_and_looking_changes_nothing() {
    let lens = Lens { most: 10, around: None, message: None };
    let (outcome, seen) = watched(&scenario("calm"), OPTIONS, lens);
    assert_eq!(seen.len(), 10);
    assert_eq!(outcome.verdict.trace, run(&scenario("calm"), OPTIONS).verdict.trace);
}
