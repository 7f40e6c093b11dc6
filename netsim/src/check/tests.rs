//! Each checker against histories made by hand: a good one passes all, and one that is wrong in a single
//! way fails exactly that checker.

use std::time::Duration;

use peerloom_proto::endpoint::{Holding, OutboxState, PathKind};
use peerloom_proto::{EntryHash, Head, MessageId, PeerId};

use super::all;
use crate::model::{Fact, History, Planned, Proof, Standing};
use crate::network::Place;

const FIRST: usize = 0;
const SECOND: usize = 1;

/// Two messages of node 0 to node 1.
fn history(facts: Vec<Fact>) -> History {
    let mut history = History::of(vec![PeerId([1; 32]), PeerId([2; 32])]);
    for number in [1, 2] {
        let (text, id) = (number.to_string(), MessageId([number; 16]));
        let number = usize::from(number);
        history.messages.push(Planned { at: Duration::ZERO, number, id, from: 0, to: 1, text });
    }
    for (at, fact) in (0..).zip(facts) {
        history.note(Duration::from_secs(at), fact);
    }
    history
}

fn sent(message: usize) -> [Fact; 2] {
    [Fact::Submitted { message }, Fact::Acknowledged { message }]
}

fn kept(message: usize) -> Fact {
    proven(message, Proof { holds: true, head: log(3, 1), standing: Standing::Member, at_head: None })
}

fn proven(message: usize, proof: Proof) -> Fact {
    Fact::Kept { node: 1, message, path: PathKind::Relay, proof }
}

fn shown(message: usize) -> Fact {
    Fact::Shown { node: 1, message }
}

fn told(message: usize, state: OutboxState) -> Fact {
    Fact::Told { message, state }
}

fn head(node: usize, size: u64, hash: u8) -> Fact {
    Fact::Head { node, head: log(size, hash) }
}

fn log(size: u64, hash: u8) -> Head {
    Head { size, hash: EntryHash([hash; 32]) }
}

#[track_caller]
fn fails(invariant: &str, facts: Vec<Fact>) {
    let found: Vec<_> = all(&history(facts)).into_iter().map(|violation| violation.invariant).collect();
    assert_eq!(found, [invariant]);
}

fn good() -> Vec<Fact> {
    let mut facts = vec![head(0, 3, 1), head(1, 3, 1)];
    facts.extend(sent(FIRST));
    facts.extend(sent(SECOND));
    facts.extend([kept(SECOND), kept(FIRST), shown(FIRST), shown(SECOND)]);
    facts.extend([told(FIRST, OutboxState::Stored), told(FIRST, OutboxState::Surfaced), head(0, 4, 2)]);
    facts
}

#[test]
fn a_good_history_passes() {
    assert_eq!(all(&history(good())), []);
}

#[test]
fn a_failure_that_was_told_is_no_loss() {
    let mut facts = sent(FIRST).to_vec();
    facts.push(told(FIRST, OutboxState::Expired("expired".to_owned())));
    assert_eq!(all(&history(facts)), []);
}

#[test]
fn an_acknowledged_message_that_nobody_saw_is_lost() {
    let mut facts = sent(FIRST).to_vec();
    facts.push(kept(FIRST));
    fails("no_loss", facts);
}

#[test]
fn stored_before_it_was_kept_is_a_word_ahead_of_the_fact() {
    let mut facts = sent(FIRST).to_vec();
    facts.extend([told(FIRST, OutboxState::Stored), kept(FIRST), shown(FIRST)]);
    fails("word_follows_fact", facts);
}

#[test]
fn surfaced_before_it_was_shown_is_a_word_ahead_of_the_fact() {
    let mut facts = sent(FIRST).to_vec();
    facts.extend([kept(FIRST), told(FIRST, OutboxState::Surfaced), shown(FIRST)]);
    fails("word_follows_fact", facts);
}

#[test]
fn shown_twice_or_kept_twice_is_too_often() {
    let mut facts = good();
    facts.push(shown(FIRST));
    fails("at_most_once", facts);
    let mut facts = good();
    facts.push(kept(FIRST));
    fails("at_most_once", facts);
}

#[test]
fn what_nobody_sent_and_what_a_store_refuses_is_an_effect_too_many() {
    let mut facts = good();
    facts.push(Fact::Strange { node: 1, what: "a stranger's".to_owned() });
    fails("at_most_once", facts);
    let mut facts = good();
    facts.push(Fact::Broke { at: Place::Node(1), what: "the same row".to_owned() });
    fails("at_most_once", facts);
}

#[test]
fn a_later_message_shown_first_is_out_of_order() {
    let mut facts = sent(FIRST).to_vec();
    facts.extend(sent(SECOND));
    facts.extend([kept(FIRST), kept(SECOND), shown(SECOND), shown(FIRST)]);
    fails("in_order", facts);
}

#[test]
fn messages_handed_over_together_have_no_order() {
    let mut facts = vec![Fact::Submitted { message: FIRST }, Fact::Submitted { message: SECOND }];
    facts.extend([Fact::Acknowledged { message: FIRST }, Fact::Acknowledged { message: SECOND }]);
    facts.extend([kept(FIRST), kept(SECOND), shown(SECOND), shown(FIRST)]);
    assert_eq!(all(&history(facts)), []);
}

#[test]
fn mail_kept_after_its_senders_revocation_was_learned_is_refused_too_late() {
    let mut facts = sent(FIRST).to_vec();
    facts.extend([Fact::Learned { node: 1, revoked: PeerId([1; 32]) }, kept(FIRST), shown(FIRST)]);
    fails("revoked_stays_out", facts);
}

#[test]
fn a_log_that_shrinks_or_forks_is_seen() {
    fails("head_grows", vec![head(0, 4, 1), head(0, 3, 2)]);
    fails("head_grows", vec![head(0, 4, 1), head(1, 4, 2)]);
}

#[test]
fn logs_that_the_coordinator_forked_may_differ_from_there_on() {
    let facts = vec![Fact::Forked { size: 4 }, head(0, 4, 1), head(1, 4, 2), head(0, 5, 3), head(1, 5, 4)];
    assert_eq!(all(&history(facts)), []);
    fails("head_grows", vec![Fact::Forked { size: 4 }, head(0, 3, 1), head(1, 3, 2)]);
}

#[test]
fn mail_signed_under_another_log_must_alarm_its_recipient() {
    let standing = Standing::Member;
    let proof = Proof { holds: true, head: log(4, 2), standing, at_head: None };
    let mut facts = vec![Fact::Forked { size: 4 }, head(1, 4, 1)];
    facts.extend(sent(FIRST));
    facts.extend([proven(FIRST, proof), shown(FIRST)]);
    fails("forks_raise_evidence", facts.clone());
    facts.push(Fact::Alarmed { node: 1, what: "another log".to_owned() });
    assert_eq!(all(&history(facts)), []);
}

#[test]
fn mail_that_does_not_verify_where_it_says_is_not_authentic() {
    let good = Proof { holds: true, head: log(3, 1), standing: Standing::Member, at_head: None };
    for bad in [
        Proof { holds: false, ..good },
        Proof { standing: Standing::Stranger, ..good },
        Proof { standing: Standing::Revoked, ..good },
        Proof { at_head: Some(Standing::Stranger), ..good },
    ] {
        let mut facts = sent(FIRST).to_vec();
        facts.extend([proven(FIRST, bad), shown(FIRST)]);
        fails("authentic", facts);
    }
}

#[test]
fn a_queue_over_its_bound_is_seen() {
    let depth = |count| Fact::Depth { what: "queued envelopes", at: Place::Node(1), count, limit: 10 };
    assert_eq!(all(&history(vec![depth(10)])), []);
    fails("bounded_queues", vec![depth(11)]);
}

#[test]
fn a_machine_that_holds_more_than_it_may_is_seen() {
    let holds = |count| {
        let holding = Holding { what: "inbound conversations", count, most: 10 };
        Fact::Holds { node: 1, holding }
    };
    assert_eq!(all(&history(vec![holds(10)])), []);
    fails("bounded_memory", vec![holds(11)]);
}

#[test]
fn what_is_left_at_the_end_has_not_drained() {
    let mut history = history(good());
    history.left.push("a row".to_owned());
    let found: Vec<_> = all(&history).into_iter().map(|violation| violation.invariant).collect();
    assert_eq!(found, ["drains"]);
}
