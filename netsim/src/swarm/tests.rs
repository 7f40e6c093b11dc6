//! A swarm is the same swarm on any number of threads.

use super::*;

fn scenarios(expect: &str) -> Vec<Named> {
    let least = "duration_s = 5\n[topology]\nnodes = 2\n[workload]\nmessages = 2\n";
    let calm = format!("about = \"calm\"\n{least}");
    let other = format!("about = \"not so\"\n{least}{expect}");
    [("calm.toml", calm), ("other.toml", other)]
        .map(|(name, text)| (PathBuf::from(name), Scenario::parse(name, &text).expect("a scenario")))
        .into()
}

fn plan(scenarios: &[Named], seeds: u64) -> Plan<'_> {
    Plan {
        scenarios,
        first: 1,
        seeds: Some(seeds),
        until: None,
        at_least: Duration::from_secs(600),
        next: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    }
}

#[test]
fn every_seed_runs_once_for_as_long_as_was_asked() {
    let scenarios = scenarios("");
    for jobs in [1, 3] {
        let plan = plan(&scenarios, 8);
        let tally = plan.run(jobs);
        assert!(tally.failed.is_none());
        assert_eq!((tally.all().seeds, tally.all().runs), (8, 8));
        assert!(tally.of.iter().all(|sum| sum.seeds > 0), "both scenarios are drawn");
        assert!(tally.least_ms >= 600_000, "{} ms", tally.least_ms);
    }
}

#[test]
fn the_first_failure_is_told_with_its_replay_line_whoever_met_it() {
    let scenarios = scenarios("[expect]\ncrashes_min = 1\n");
    let failures: Vec<String> = [1, 3]
        .into_iter()
        .map(|jobs| {
            let plan = plan(&scenarios, 50);
            let tally = plan.run(jobs);
            plan.failure(tally.failed.as_ref().expect("a failure"))
        })
        .collect();
    assert_eq!(failures[0], failures[1]);
    assert!(failures[0].contains("replay: netsim run other.toml --seed 0x"), "{}", failures[0]);
    assert!(failures[0].ends_with(" --at-least 600s"), "{}", failures[0]);
}
