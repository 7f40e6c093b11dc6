//! Histories, of the simulator and of real daemons, judged by a checker that shares no code with either.
//! Histories made by hand prove the checker: tests/history/good holds, each of tests/history/bad is wrong
//! in one invariant, whose name its own begins with, and tests/history/unusable is no history.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peerloom_tests::history::judge;
use peerloom_tests::{program, run, source};
use serde_json::Value;

fn by_hand(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("history").join(kind);
    let listed = fs::read_dir(dir).expect("the directory can be read");
    let files: Vec<PathBuf> = listed.map(|entry| entry.expect("a listed file").path()).collect();
    assert!(files.len() >= 5, "the walk finds the histories: {files:?}");
    files
}

/// The invariants that a verdict names, each once.
fn violated(said: &Value) -> Vec<&str> {
    let violations = said["violations"].as_array().expect("a verdict lists violations");
    let mut names: Vec<&str> =
        violations.iter().map(|violation| violation["invariant"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn good_histories_pass() {
    for file in by_hand("good") {
        let (code, said) = judge(&file);
        assert_eq!((code, &said["ok"]), (0, &Value::Bool(true)), "{}: {said}", file.display());
    }
}

#[test]
fn a_history_wrong_in_one_way_fails_exactly_that_invariant() {
    let mut seen = std::collections::BTreeSet::new();
    for file in by_hand("bad") {
        let name = file.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let invariant = name.split('-').next().expect("a name has a first part").to_owned();
        let (code, said) = judge(&file);
        assert_eq!(code, 1, "{name}: {said}");
        assert_eq!(violated(&said), [invariant.as_str()], "{name}: {said}");
        seen.insert(invariant);
    }
    assert_eq!(seen.len(), 10, "every invariant has a history that violates it: {seen:?}");
}

#[test]
fn what_is_no_history_is_refused_and_never_called_good() {
    for file in by_hand("unusable") {
        let (code, said) = judge(&file);
        let text = said.as_str().unwrap_or_default();
        assert!(code == 2 && text.contains("is no history: "), "{}: {code} {said}", file.display());
    }
}

#[test]
fn runs_of_the_simulator_hold_for_a_checker_that_shares_no_code_with_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for scenario in [
        "foul_weather",
        "revoked_while_mail_is_queued",
        "queue_full",
        "expiry_while_queued",
        "coordinator_forks",
    ] {
        let history = dir.path().join(scenario);
        let mut command = Command::new(program("netsim"));
        let file = source::root().join("netsim/scenarios/fast").join(scenario).with_extension("toml");
        command.arg("run").arg(file).args(["--seed", "0x5f3c9e17", "--json", "--history"]).arg(&history);
        let verdict = run(command, b"").ok().json();
        let (code, said) = judge(&history);
        assert_eq!(code, 0, "{scenario}: {said}");
        for figure in ["messages", "acknowledged", "shown", "refused"] {
            assert_eq!(said["figures"][figure], verdict[figure], "{scenario}: {figure}");
        }
        assert_eq!(said["unjudged"], serde_json::json!({}), "{scenario}");
    }
}
