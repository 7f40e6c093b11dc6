//! What holds behind real NATs: the daemons in network namespaces, by `netsim lab`.
//!
//! A machine that refuses namespaces, or has not the tools, skips these; CI must not.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use peerloom_tests::source::root;
use peerloom_tests::{program, skip};
use serde_json::Value;

/// `netsim lab` with these words: whether it was content, and its one JSON document.
fn lab(words: &[&str]) -> (bool, Value) {
    let output = Command::new(program("netsim")).arg("lab").args(words).arg("--json").output();
    let output = output.expect("netsim can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("lab {words:?} printed no JSON ({error}): {said}\n{complained}"));
    (output.status.success(), document)
}

/// The findings of `lab check`, made once; none if this machine cannot play, which is said loudly.
///
/// # Panics
/// When CI cannot play, or the lab is not what it says.
fn admitted() -> Option<&'static Value> {
    static CHECKED: OnceLock<(bool, Value)> = OnceLock::new();
    let (ok, document) = CHECKED.get_or_init(|| lab(&["check"]));
    if *ok {
        return Some(document);
    }
    let findings = document["findings"].as_array().expect("findings is a list");
    let wrong: Vec<&Value> = findings.iter().filter(|finding| finding["ok"] == false).collect();
    let was_entered = findings.iter().any(|finding| finding["what"] == "wire");
    assert!(!was_entered, "the lab is not what it says: {wrong:?}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have a lab: {wrong:?}");
    skip(&format!("no lab: {wrong:?}"));
    None
}

#[test]
fn every_nat_of_the_lab_is_what_its_name_says_and_the_wire_keeps_its_time() {
    let Some(document) = admitted() else { return };
    let findings = document["findings"].as_array().expect("findings is a list");
    let says = |what: &str| {
        let found = findings.iter().find(|finding| finding["what"] == what);
        found.and_then(|finding| finding["says"].as_str()).unwrap_or_else(|| panic!("nothing of {what}"))
    };
    assert_eq!(says("full_cone"), "one mapping, open to everybody");
    assert_eq!(says("port_restricted"), "one mapping, open to ports sent to");
    assert_eq!(says("symmetric"), "a mapping for each destination");
    assert_eq!(says("udp_blocked"), "no UDP");
    assert!(says("wire").starts_with("50 ms programmed, 5"), "{}", says("wire"));
}

/// Whether a node behind the first must come to talk directly with one behind the second, in every run.
fn is_owed(from: &str, to: &str) -> bool {
    let is_blocked = [from, to].contains(&"udp_blocked");
    // A birthday punch hits with high probability and no certainty; where both NATs are symmetric
    // there is none.
    let needs_luck = |nat| ["port_restricted", "symmetric"].contains(&nat);
    let by_chance = [from, to].contains(&"symmetric") && needs_luck(from) && needs_luck(to);
    !is_blocked && !by_chance
}

#[test]
fn every_pair_of_nats_talks_by_the_path_it_is_owed_and_nothing_is_lost() {
    if admitted().is_none() {
        return;
    }
    let (whole, table) = lab(&["matrix", "--patience", "4"]);
    assert!(whole, "something was lost, doubled or reordered: {table}");
    let cells = table["cells"].as_array().expect("cells is a list");
    assert_eq!(cells.len(), 36);
    let mut wrong = Vec::new();
    for cell in cells {
        let (from, to) = (cell["from"].as_str().expect("a word"), cell["to"].as_str().expect("a word"));
        if is_owed(from, to) && cell["path"] != "direct" {
            wrong.push(cell);
        }
        let is_blocked = [from, to].contains(&"udp_blocked");
        if is_blocked && cell["path"] != "relay" {
            wrong.push(cell);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_conversation_survives_whatever_comes_over_it() {
    if admitted().is_none() {
        return;
    }
    for what in ["cut", "rebind", "link", "suspend", "coordinator"] {
        let (whole, report) = lab(&["cuts", "--what", what, "--count", "2", "--nat", "port_restricted,none"]);
        assert!(whole, "something was lost, doubled or reordered: {report}");
        assert_eq!(report["never_again"], 0, "not direct again: {report}");
        assert!(report["sent"].as_u64() > Some(20), "{report}");
    }
}

#[test]
fn a_scenario_has_the_same_outcome_with_real_daemons_as_in_virtual_time() {
    if admitted().is_none() {
        return;
    }
    let mut seen = BTreeSet::new();
    for scenario in lab_scenarios() {
        let (ok, comparison) = lab(&["run", &scenario]);
        let pairs = comparison["pairs"].as_array().expect("pairs is a list");
        for pair in pairs {
            let whole = ["lost", "doubled", "reordered"].map(|count| pair[count].as_u64());
            assert_eq!(whole, [Some(0); 3], "{scenario}: {pair:#}");
            let [real, virtual_] = ["lab", "simulator"].map(|side| pair[side]["last"].as_str());
            assert!(real == virtual_ || pair["by_luck"] == true, "{scenario}: {pair:#}");
            seen.insert(real.expect("a path").to_owned());
        }
        assert!(ok && !pairs.is_empty(), "{scenario}: {comparison:#}");
    }
    assert_eq!(seen, ["direct", "queue", "relay"].map(str::to_owned).into(), "every path was taken");
}

/// The scenarios that are played in both.
fn lab_scenarios() -> Vec<String> {
    let dir = root().join("netsim/scenarios/lab");
    let entries = std::fs::read_dir(&dir).expect("a directory of scenarios");
    let mut files: Vec<String> =
        entries.map(|entry| entry.expect("an entry").path().display().to_string()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    files
}

#[test]
fn what_the_lab_cannot_play_is_refused_by_name() {
    let scenario = root().join("netsim/scenarios/fast/full_disks.toml");
    let output = Command::new(program("netsim")).args(["lab", "run"]).arg(scenario).output();
    let output = output.expect("netsim can be started");
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{complained}");
    assert!(complained.starts_with("the lab cannot play fault 1, disk_full"), "{complained}");
}
