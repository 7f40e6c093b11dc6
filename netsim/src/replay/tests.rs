//! The suite: every fast scenario with fixed seeds, and what makes a run one run.

use std::path::{Path, PathBuf};

use super::{Report, drive};
use crate::mutant::Mutant;
use crate::scenario::Scenario;
use crate::simulate::files_in;

/// Seeds of every change; the swarm draws others.
const SEEDS: [u64; 2] = [0x7, 0x5f3c_9e17];

fn fast() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/fast")
}

fn driven(name: &str, seed: u64, mutant: Option<Mutant>) -> Report {
    let scenario = Scenario::read(&fast().join(name).with_extension("toml")).expect("a scenario");
    drive(&scenario, seed, None, mutant)
}

#[test]
fn every_fast_scenario_holds_with_every_fixed_seed() {
    let files = files_in(&fast());
    assert!(files.len() >= 12, "the walk finds the scenarios: {}", files.len());
    for file in files {
        let scenario = Scenario::read(&file).expect("a scenario");
        for seed in SEEDS {
            let report = drive(&scenario, seed, None, None);
            assert!(!report.failed(), "{}", report.text(&file, &scenario.about));
        }
    }
}

#[test]
fn a_run_is_a_function_of_scenario_and_seed() {
    let trace = |seed| driven("foul_weather", seed, None).outcome.verdict.trace;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

#[test]
fn a_sweep_crashes_at_every_commit() {
    let report = driven("crash_at_every_commit_of_the_recipient_before", 3, None);
    assert!(report.runs > 10, "{} runs", report.runs);
    assert_eq!(report.options.crash_at, Some(report.runs - 1));
    assert_eq!(report.outcome.verdict.crashes, 1);
}

#[test]
fn a_pair_that_is_owed_a_direct_link_and_has_none_is_named() {
    let file = fast().join("udp_blocked.toml");
    let text = std::fs::read_to_string(&file).expect("a scenario");
    let text = text.replace("pairs_met_min = 1", "");
    let barred = "[[fault]]\nkind = \"no_direct\"\nwhen = { at_s = 0 }\nfor_s = 130\n";
    let scenario = Scenario::parse("barred.toml", &format!("{text}{barred}")).expect("a scenario");
    let report = drive(&scenario, 7, None, None);
    let said: Vec<&str> = report.outcome.violations.iter().map(|violation| violation.what.as_str()).collect();
    assert_eq!(said, ["nodes 2 and 3 are owed a direct link and had none"]);
}

#[test]
fn a_report_for_programs_names_its_seed_and_its_failures() {
    let scenario = Scenario::read(&fast().join("calm.toml")).expect("a scenario");
    let mut scenario = scenario;
    scenario.expect.crashes_min = 1;
    let report = drive(&scenario, 0x10, None, None);
    let json = report.json(Path::new("calm.toml")).expect("it encodes");
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!((json["schema_version"].as_u64(), json["ok"].as_bool()), (Some(1), Some(false)));
    assert_eq!(json["violations"][0]["invariant"], "expect");
    assert_eq!(json["replay"], "replay: netsim run calm.toml --seed 0x10");
    assert!(report.text(Path::new("calm.toml"), "").ends_with("replay: netsim run calm.toml --seed 0x10"));
}

/// Planted faults, each with a scenario in which the named checker sees it.
#[cfg(feature = "mutants")]
mod mutants {
    use std::path::Path;
    use std::process::Command;

    use super::{Mutant, Report, driven};

    #[track_caller]
    fn caught(mutant: Mutant, scenario: &str, invariant: &str) {
        let mut reports = (1..=8).map(|seed| driven(scenario, seed, Some(mutant)));
        let catches = |report: &Report| {
            report.outcome.violations.iter().any(|violation| violation.invariant == invariant)
        };
        let report = reports.find(catches);
        let report = report.unwrap_or_else(|| panic!("{mutant:?} goes unseen by {invariant} in {scenario}"));
        let said = said_outside(&report);
        let violations = said["violations"].as_array().expect("a verdict lists violations");
        let seen = violations.iter().any(|violation| violation["invariant"] == invariant);
        assert!(seen, "{mutant:?} goes unseen outside: {said}");
    }

    /// What the checker that shares no code with this one says of the same run.
    fn said_outside(report: &Report) -> serde_json::Value {
        let history = tempfile::NamedTempFile::new().expect("a temporary file");
        report.write_history(Path::new("a scenario"), history.path()).expect("it can be written");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/history/check.py");
        let said = Command::new("python3").arg("-B").arg(script).arg("--json").arg(history.path()).output();
        serde_json::from_slice(&said.expect("python3 is here").stdout).expect("a verdict")
    }

    #[test]
    fn a_sender_that_acts_before_the_sync_forgets_what_it_acknowledged() {
        caught(Mutant::SkipsSync, "crash_during_every_commit_of_the_sender", "no_loss");
    }

    #[test]
    fn a_recipient_that_acts_before_the_sync_forgets_what_it_said_was_stored() {
        caught(Mutant::SkipsSync, "crash_during_every_commit_of_the_recipient", "word_follows_fact");
    }

    #[test]
    fn a_coordinator_that_acts_before_the_sync_loses_mail() {
        caught(Mutant::SkipsSync, "crash_during_every_commit_of_the_coordinator", "no_loss");
    }

    #[test]
    fn a_sender_that_trusts_a_torn_record_acknowledges_what_it_cannot_send() {
        caught(Mutant::TrustsTornRecord, "crash_during_every_commit_of_the_sender", "no_loss");
    }

    #[test]
    fn a_recipient_that_trusts_a_torn_record_keeps_what_nobody_sent() {
        caught(Mutant::TrustsTornRecord, "crash_during_every_commit_of_the_recipient", "at_most_once");
    }

    #[test]
    fn a_coordinator_that_trusts_a_torn_record_never_drains() {
        caught(Mutant::TrustsTornRecord, "crash_during_every_commit_of_the_coordinator", "drains");
    }

    #[test]
    fn a_node_that_acts_before_its_commit_says_what_is_not_so() {
        caught(Mutant::ActsEarly, "crash_at_every_commit_of_the_recipient_before", "word_follows_fact");
    }

    #[test]
    fn a_node_that_forgets_what_it_has_seen_shows_it_again() {
        caught(Mutant::ForgetsDedupe, "crash_at_every_commit_of_the_recipient_after", "at_most_once");
    }

    #[test]
    fn a_reader_that_does_not_wait_for_gaps_sees_disorder() {
        caught(Mutant::IgnoresOrder, "late_but_still_taken", "in_order");
    }

    #[test]
    fn a_store_that_loses_a_log_entry_is_seen_at_the_next_start() {
        caught(Mutant::LosesLogEntry, "revoked_while_mail_is_queued", "head_grows");
    }

    #[test]
    fn a_store_that_loses_a_revocation_lets_the_revoked_in_again() {
        caught(Mutant::LosesLogEntry, "a_revoked_member_goes_on", "revoked_stays_out");
    }

    #[test]
    fn a_node_that_skips_revocations_keeps_what_is_not_authentic() {
        caught(Mutant::SkipsRevocations, "revoked_while_mail_is_queued", "authentic");
    }

    #[test]
    fn a_node_that_dedupes_by_bare_id_acknowledges_what_it_does_not_have() {
        caught(Mutant::DedupesByBareId, "another_member_reuses_a_seen_id", "word_follows_fact");
    }

    #[test]
    fn a_node_that_forgets_its_floor_takes_old_mail_again() {
        caught(Mutant::ForgetsFloor, "replay_before_and_after_dedupe_rows_are_dropped", "at_most_once");
    }

    #[test]
    fn a_node_that_believes_receipts_of_anyone_says_what_is_not_so() {
        caught(Mutant::BelievesAnyReceipt, "receipts_for_what_a_member_never_got", "word_follows_fact");
    }

    #[test]
    fn a_node_that_passes_over_a_fork_is_seen() {
        caught(Mutant::IgnoresForks, "coordinator_forks", "forks_raise_evidence");
    }

    #[test]
    fn a_node_that_leaves_what_its_machine_wants_is_seen_to_grow() {
        caught(Mutant::LeavesOutputs, "foul_weather", "bounded_memory");
    }

    #[test]
    fn a_coordinator_without_bounds_is_seen() {
        caught(Mutant::ForgetsBound, "queue_full", "bounded_queues");
    }

    #[test]
    fn a_coordinator_that_goes_on_when_its_store_was_taken_over_is_seen() {
        caught(Mutant::ForgetsFence, "two_coordinators_on_one_database", "no_loss");
    }

    #[test]
    fn a_coordinator_whose_runs_have_one_name_loses_what_it_accepted() {
        caught(Mutant::ForgetsRun, "coordinator_restored_from_backup", "no_loss");
    }

    #[test]
    fn a_node_that_forgets_how_far_the_coordinator_had_got_loses_what_was_accepted() {
        caught(Mutant::ForgetsMark, "coordinator_restored_from_backup", "no_loss");
    }

    #[test]
    fn a_coordinator_that_deletes_nothing_never_drains() {
        caught(Mutant::KeepsMail, "both_ends_offline_in_turn", "drains");
    }
}
