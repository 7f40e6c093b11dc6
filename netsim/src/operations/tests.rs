//! The fuzzer's way into the simulator, on any toolchain: what it keeps holds, and so do scripts at random.

use std::path::Path;

use super::{run, scenario_text};
use crate::chance::Chance;
use crate::scenario::Scenario;

#[test]
fn what_the_fuzzer_keeps_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/operations");
    let files: Vec<_> = std::fs::read_dir(corpus).expect("the corpus").flatten().collect();
    assert!(files.len() >= 10, "the walk finds the corpus: {}", files.len());
    for file in files {
        run(&std::fs::read(file.path()).expect("a file of the corpus"));
    }
}

#[test]
fn scripts_at_random_hold() {
    let mut chance = Chance::new(1, "operations", "bytes");
    for _ in 0..24 {
        let bytes: [u8; 97] = chance.bytes();
        run(&bytes);
    }
}

#[test]
fn any_bytes_are_a_scenario_and_every_operation_has_some() {
    let mut kinds = std::collections::BTreeSet::new();
    for what in 0..16 {
        for who in [1, 0x81] {
            let text = scenario_text(&[2, what, 1, who, 0xc5, what, 0]);
            let scenario = Scenario::parse("operations.toml", &text).expect("a scenario");
            kinds.extend(scenario.faults.iter().map(|fault| fault.name()));
            kinds.extend((scenario.workload.listed().count() > 0).then_some("message"));
        }
    }
    let wanted = [
        "clock_jump",
        "crash_at_commit",
        "cut_links",
        "cut_uplink",
        "disk_full",
        "evil",
        "kill",
        "message",
        "no_direct",
        "partition",
        "revoke",
        "stop",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), wanted);
    assert!(Scenario::parse("empty", &scenario_text(&[])).is_ok());
}
