//! What an observer finds, and that honest runs show it nothing.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use peerloom_proto::hex_of;

use super::{CANARY_BYTES, Contents, HEAD_BYTES, Outside};
use crate::mutant::Mutant;
use crate::network::{Purpose, StreamId};
use crate::queue::Carried;
use crate::replay::{Report, drive};
use crate::scenario::Scenario;
use crate::world::{Options, observed};

fn observer() -> Outside {
    Outside::new(1, Contents::Ones)
}

fn canary() -> String {
    observer().text(5, 64)[HEAD_BYTES..HEAD_BYTES + CANARY_BYTES].to_owned()
}

/// What an observer finds in a frame of these bytes.
fn found(frame: &[u8]) -> Vec<String> {
    let mut outside = observer();
    let carried = Carried::Frame(Bytes::copy_from_slice(frame));
    outside.passes(Duration::ZERO, StreamId(1), 0, &Purpose::Uplink, &carried);
    outside.leaks().iter().map(|(_, what)| what.clone()).collect()
}

#[test]
fn content_is_found_in_every_spelling_and_nothing_is_found_where_there_is_none() {
    let canary = canary();
    let backwards: String = canary.chars().rev().collect();
    for (text, spelling) in [
        (canary.clone(), "plain text"),
        (backwards, "reverse"),
        (hex_of(canary.as_bytes()), "hexadecimal"),
        (hex_of(canary.as_bytes()).to_uppercase(), "upper-case hexadecimal"),
    ] {
        let leak = format!("a frame, unreadable holds content in {spelling}");
        assert_eq!(found(format!("before {text} after").as_bytes()), [leak]);
    }
    for before in ["", "a", "ab", "abc"] {
        let text = URL_SAFE_NO_PAD.encode(format!("{before}{canary}and more"));
        assert!(found(text.as_bytes()).iter().any(|leak| leak.ends_with("base64")), "{before}");
    }
    assert_eq!(found(&canary.as_bytes()[1..]), [""; 0]);
}

#[test]
fn both_runs_say_as_much_and_not_the_same() {
    let [one, other] = [Contents::Ones, Contents::Others].map(|contents| Outside::new(1, contents));
    for bytes in [3, 20, 26, 64, 1_000] {
        let texts = [&one, &other].map(|outside| outside.text(9, bytes));
        assert_eq!(texts.clone().map(|text| text.len()), [bytes; 2]);
        assert_ne!(texts[0], texts[1]);
    }
    assert_ne!(one.text(1, 64)[..6], one.text(2, 64)[..6]);
}

/// Scenarios with every kind of fault among them; `netsim run --taint` takes any.
const LOOKED_AT: [&str; 7] = [
    "calm",
    "foul_weather",
    "coordinator_lies",
    "coordinator_replays",
    "expiry_while_queued",
    "queue_full",
    "revoked_while_mail_is_queued",
];

fn looked_at(name: &str, mutant: Option<Mutant>) -> Report {
    let fast = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/fast");
    let scenario = Scenario::read(&fast.join(name).with_extension("toml")).expect("a scenario");
    let mut report = drive(&scenario, 7, None, mutant);
    report.look_from_outside(&scenario);
    report
}

#[test]
fn an_outsider_sees_the_same_whatever_is_said() {
    for name in LOOKED_AT {
        assert_eq!(looked_at(name, None).outcome.violations, [], "{name}");
    }
}

#[test]
fn an_observer_sees_every_frame_and_every_row_of_the_coordinator() {
    let scenario = Scenario::parse("pair", PAIR).expect("a scenario");
    let seen = observed(
        &scenario,
        Options { seed: 7, crash_at: None, mutant: None, at_least: Duration::ZERO },
        Contents::Ones,
    );
    for word in
        ["is dialled", "is accepted", "bind: ", "put: Header {", "deliver: claim ", "receipt: claims "]
    {
        assert!(seen.seen().iter().any(|(_, what)| what.contains(word)), "{word}");
    }
    let rows = seen.seen().iter().filter(|(_, what)| what.contains("stores") && what.contains("PutMail"));
    assert!(rows.count() > 2);
}

const PAIR: &str = "about = \"x\"\nduration_s = 20\n[topology]\nnodes = 2\n[workload]\nmessages = 4\n";

#[cfg(feature = "mutants")]
mod mutants {
    use super::looked_at;
    use crate::mutant::Mutant;

    /// What the checker says of the first place where the runs part.
    #[track_caller]
    fn caught(mutant: Mutant) -> String {
        let report = looked_at("calm", Some(mutant));
        let mut violations = report.outcome.violations.iter();
        let found = violations.find(|violation| violation.invariant == "no_plaintext_outside");
        found.unwrap_or_else(|| panic!("{mutant:?} goes unseen")).what.clone()
    }

    #[test]
    fn content_that_chooses_the_priority_is_seen() {
        let what = caught(Mutant::ContentPicksPriority);
        assert!(what.contains("priority: "), "{what}");
    }

    #[test]
    fn content_in_the_number_of_a_ping_is_seen() {
        let what = caught(Mutant::ContentInPing);
        assert!(what.contains("ping: "), "{what}");
    }

    #[test]
    fn content_that_decides_when_a_frame_leaves_is_seen() {
        caught(Mutant::ContentDelays);
    }
}
