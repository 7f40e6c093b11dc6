//! A disk that does not take what it is given.

use std::time::Duration;

use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{Role, UnverifiedEnvelope};

use super::world::{Disk, Node, World, newcomer};
use crate::hub::{CommitFailure, Input};
use crate::store::MailKind;

fn accepted(world: &World, envelope: &UnverifiedEnvelope) -> ToNode {
    let commit = world.store.runs.current.commit;
    ToNode::Accepted { env_hashes: vec![envelope.env_hash()], commit }
}

#[test]
fn what_was_not_written_is_not_accepted_and_can_be_put_again() {
    let mut world = World::new();
    let (mut alice, bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    world.sent_to(from_alice);
    world.disk = Disk::WhenTold;
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);

    world.fail(CommitFailure::Nothing);
    let refused =
        ToNode::Refused { env_hash: envelope.env_hash(), code: "store".to_owned(), retry_ms: 5_000 };
    assert_eq!(world.sent_to(from_alice), std::slice::from_ref(&refused));
    world.put(from_alice, &envelope);
    assert_eq!(world.sent_to(from_alice), [refused], "the disk is left alone for a moment");

    world.pass(Duration::from_secs(2));
    world.put(from_alice, &envelope);
    world.commit();
    assert_eq!(world.sent_to(from_alice), [accepted(&world, &envelope)]);
    assert_eq!(world.hub.counters().mail_queued, 1);
}

#[test]
fn a_receipt_is_written_again_after_a_failure_until_it_is_durable() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let claim = world.delivered(to_bob)[0].0;
    world.disk = Disk::WhenTold;
    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(to_bob, &receipt, vec![claim]);

    world.fail(CommitFailure::Nothing);
    assert!(world.writing.is_none(), "not at once");
    assert!(world.store.mail.contains_key(&claim));
    world.disk = Disk::AtOnce;
    world.pass(Duration::from_secs(2));
    let kinds: Vec<_> = world.store.mail.values().map(|row| row.kind).collect();
    assert_eq!(kinds, [MailKind::Receipt]);
    assert!(world.delivered(to_bob).is_empty());
}

#[test]
fn on_a_full_disk_receipts_get_through_and_mail_does_not() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let (first, second, busy) =
        (world.envelope(&alice, &bob), world.envelope(&alice, &bob), world.envelope(&bob, &alice));
    world.put(from_alice, &first);
    let claim = world.delivered(to_bob)[0].0;
    world.disk = Disk::WhenTold;
    // One batch is under way, so that receipt and mail share the next.
    world.put(to_bob, &busy);
    let receipt = world.receipt(&bob, &alice, &[&first]);
    world.send_receipt(to_bob, &receipt, vec![claim]);
    world.put(from_alice, &second);
    world.commit();
    world.sent_to(from_alice);

    world.fail(CommitFailure::FullButSettled);

    let frames = world.sent_to(from_alice);
    assert!(matches!(&frames[..], [ToNode::Refused { code, env_hash, .. }]
        if code == "store" && *env_hash == second.env_hash()));
    assert!(!world.store.mail.contains_key(&claim));
    assert!(world.store.mail.values().any(|row| row.kind == MailKind::Receipt));
}

#[test]
fn a_message_receipted_while_its_commit_failed_is_accepted_all_the_same() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.sent_to(from_alice);
    world.disk = Disk::WhenTold;
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let claim = world.delivered(to_bob)[0].0;
    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(to_bob, &receipt, vec![claim]);
    world.fail(CommitFailure::Nothing);
    let frames = world.sent_to(from_alice);
    assert!(frames.contains(&accepted(&world, &envelope)), "{frames:?}");
}

#[test]
fn mail_that_could_not_be_read_is_read_a_moment_later() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let to_bob = world.greet(&mut bob);
    world.unreadable = true;
    world.frame(to_bob, ToCoordinator::Claim { messages: 8, bytes: 1 << 20 });
    assert!(world.delivered(to_bob).is_empty());
    world.unreadable = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.delivered(to_bob).len(), 1);
}

#[test]
fn an_entry_that_was_not_written_has_no_place_and_the_log_goes_on() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let of_alice = world.join(&mut alice);
    world.sent_to(of_alice);
    world.disk = Disk::WhenTold;
    let entry = world.roster.member_add(&alice.key, newcomer("dora", Role::Member), world.now.wall).encode();
    world.frame(of_alice, ToCoordinator::LogAppend { request: 1, entry: entry.clone().into() });
    world.fail(CommitFailure::Nothing);
    let frames = world.sent_to(of_alice);
    assert!(
        matches!(&frames[..], [ToNode::Failed { request: 1, code, .. }] if code == "store"),
        "{frames:?}"
    );
    world.frame(of_alice, ToCoordinator::LogAppend { request: 2, entry: entry.into() });
    world.pass(Duration::from_secs(2));
    world.commit();
    let frames = world.sent_to(of_alice);
    assert!(frames.iter().any(|frame| matches!(frame, ToNode::Appended { request: 2, .. })), "{frames:?}");
}

#[test]
fn what_ended_before_it_could_be_written_again_leaves_no_deadline_behind() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.sent_to(from_alice);
    world.disk = Disk::WhenTold;
    let direct = world.envelope(&alice, &bob);
    let receipt = world.receipt(&bob, &alice, &[&direct]);
    world.send_receipt(to_bob, &receipt, vec![0]);
    let told = world.sent_to(from_alice);
    let [ToNode::Receipt { claim, .. }] = told[..] else { panic!("a receipt, not {told:?}") };
    world.fail(CommitFailure::Nothing);

    world.frame(from_alice, ToCoordinator::Settle { claims: vec![claim] });
    world.now.monotonic = world.now.monotonic + Duration::from_millis(1_500);
    world.input(Input::Timeout);

    assert!(!world.hub.is_writing(), "there is nothing to write");
    assert!(world.hub.poll_timeout() > Some(world.now.monotonic), "the host may sleep");
}
