//! The endpoint among others: what a send leads to, whatever path, fault or liar it meets.

mod coordinator;
mod disk;
mod failover;
mod faults;
mod ids;
mod membership;
mod mesh;
mod order;
mod paths;
mod policy;
mod prekeys;
mod punch;
mod random;
mod uplink;
mod webrtc;
mod world;

use std::time::Duration;

use crate::endpoint::{Event, OutboxState, PathKind, Reply, Request, Send};
use crate::limits::SIGNAL_LIFE;
use world::{ALICE, BOB, CAROL, Direct, World};

/// Longer than any pause of an uplink or a link.
const A_WHILE: Duration = Duration::from_secs(70);

#[test]
fn a_message_arrives_and_its_sender_learns_that_it_is_stored_and_then_read() {
    let mut world = World::new(2, Direct::Blocked);

    let id = world.send(ALICE, BOB, "hi");
    world.settle();
    world.read_all(BOB);
    world.settle();

    assert_eq!(world.inbox(BOB), ["hi"]);
    assert_eq!(
        world.announced(ALICE, id),
        [OutboxState::Accepted, OutboxState::Stored, OutboxState::Surfaced]
    );
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Surfaced);
    assert_eq!(world.carried(id).len(), 1);
}

#[test]
fn a_message_for_an_absent_member_is_accepted_and_then_stored_when_it_comes_up() {
    let mut world = World::new(2, Direct::Works);
    world.stop(BOB);

    let id = world.send(ALICE, BOB, "when you are back");
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Accepted);
    assert_eq!(world.endpoint(ALICE).outbox_counts().accepted, 1);

    world.start(BOB);
    world.settle();
    assert_eq!(world.inbox(BOB), ["when you are back"]);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.nodes[BOB].disk.readable()[0].path, PathKind::Queue);
}

#[test]
fn mail_and_receipts_wait_for_whoever_is_away_even_if_they_are_never_there_together() {
    let mut world = World::new(2, Direct::Works);
    world.stop(BOB);
    let id = world.send(ALICE, BOB, "hi");
    world.settle();
    world.stop(ALICE);

    world.start(BOB);
    world.settle();
    assert_eq!(world.inbox(BOB), ["hi"]);
    world.stop(BOB);

    world.start(ALICE);
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn one_send_to_several_is_one_id_and_one_row_each() {
    let mut world = World::new(3, Direct::Blocked);
    world.stop(CAROL);

    let id = world.fresh_message_id();
    let send = world.message(Some(id), &[CAROL, BOB, CAROL], "both of you");
    let Some(Reply::Sent { recipients, repeated, .. }) = world.request(ALICE, Request::Send(send)) else {
        panic!("the send is taken")
    };
    world.settle();

    assert_eq!((recipients.len(), repeated), (2, false));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.state(ALICE, id, CAROL), OutboxState::Accepted);
}

#[test]
fn a_message_that_nobody_fetched_in_time_is_expired_and_says_so() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(BOB);

    let send = Send { life: Duration::from_secs(60), ..world.message(None, &[BOB], "soon") };
    let Some(Reply::Sent { id, .. }) = world.request(ALICE, Request::Send(send)) else { panic!("taken") };
    world.pass(Duration::from_secs(61));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Expired("expired-in-queue".to_owned()));

    world.start(BOB);
    world.settle();
    assert_eq!(world.inbox(BOB), [""; 0]);
}

#[test]
fn a_message_that_never_left_expires_here() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.settle();

    let send = Send { life: Duration::from_secs(60), ..world.message(None, &[BOB], "soon") };
    let Some(Reply::Sent { id, .. }) = world.request(ALICE, Request::Send(send)) else { panic!("taken") };
    world.pass(Duration::from_secs(59));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Pending);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Expired("expired".to_owned()));
}

#[test]
fn what_no_transport_saw_can_be_aborted_and_what_one_saw_cannot() {
    let mut world = World::new(2, Direct::Blocked);
    let sent = world.send(ALICE, BOB, "gone");
    world.coordinator_down();
    world.settle();
    let waiting = world.send(ALICE, BOB, "still here");

    assert!(matches!(world.request(ALICE, Request::Abort(waiting)), Some(Reply::Done)));
    assert!(matches!(world.request(ALICE, Request::Abort(sent)), Some(Reply::Refused(_))));
    world.coordinator_up = true;
    world.pass(A_WHILE);

    assert_eq!(world.state(ALICE, waiting, BOB), OutboxState::Aborted);
    assert_eq!(world.carried(waiting).len(), 0);
    assert_eq!(world.inbox(BOB), ["gone"]);
}

#[test]
fn a_message_that_may_have_left_before_a_restart_cannot_be_aborted() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(BOB);
    world.coordinator.full.insert(world.id(BOB));
    let id = world.send(ALICE, BOB, "perhaps out");
    world.settle();
    world.restart(ALICE);

    assert!(matches!(world.request(ALICE, Request::Abort(id)), Some(Reply::Refused(_))));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Pending);
}

#[test]
fn a_full_mailbox_pauses_one_recipient_only_and_is_tried_again() {
    let mut world = World::new(3, Direct::Blocked);
    world.coordinator.full.insert(world.id(BOB));

    let to_bob = world.send(ALICE, BOB, "no room yet");
    world.settle();
    let to_carol = world.send(ALICE, CAROL, "hi");
    world.settle();
    assert_eq!(world.state(ALICE, to_bob, BOB), OutboxState::Pending);
    assert_eq!(world.state(ALICE, to_carol, CAROL), OutboxState::Stored);

    world.coordinator.full.clear();
    world.pass(Duration::from_secs(6));
    assert_eq!(world.state(ALICE, to_bob, BOB), OutboxState::Stored);
}

#[test]
fn an_outbox_beyond_the_memory_budget_is_read_back_from_the_store() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.settle();
    let texts: Vec<String> = (0..40).map(|n| format!("{n} {}", "x".repeat(1_000))).collect();
    world.nodes[ALICE].endpoint.delivery.held_bytes_max = 5_000;
    for text in &texts {
        world.send(ALICE, BOB, text);
    }
    assert!(world.endpoint(ALICE).delivery.held_bytes() <= 5_000);

    world.coordinator_up = true;
    world.pass(A_WHILE);

    assert_eq!(world.inbox(BOB), texts);
    assert_eq!(world.endpoint(ALICE).delivery.held_bytes(), 0);
}

#[test]
fn what_is_too_large_to_keep_is_sent_from_the_batch_that_writes_it() {
    let mut world = World::new(2, Direct::Blocked);
    world.settle();
    world.nodes[ALICE].endpoint.delivery.held_bytes_max = 0;

    let id = world.send(ALICE, BOB, "no room in memory");

    assert_eq!(world.nodes[ALICE].disk.loads, 0, "the store does not have it yet");
    assert!(!world.endpoint(ALICE).delivery.waits_for_store());
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn an_outbox_with_too_many_bytes_takes_no_more() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.settle();
    world.nodes[ALICE].endpoint.delivery.unaccepted_bytes_max = 10_000;
    world.send(ALICE, BOB, &"x".repeat(9_000));

    let send = world.message(None, &[BOB], &"x".repeat(1_000));
    assert!(matches!(world.request(ALICE, Request::Send(send)), Some(Reply::Refused(_))));
    world.coordinator_up = true;
    world.pass(A_WHILE);
    world.send(ALICE, BOB, &"y".repeat(1_000));
}

#[test]
fn the_largest_message_arrives_and_one_byte_more_is_refused() {
    let mut world = World::new(2, Direct::Works);
    let limit = crate::limits::BODY_BYTES_MAX;
    let id = world.send(ALICE, BOB, &"x".repeat(limit));
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);

    let send = world.message(None, &[BOB], &"x".repeat(limit + 1));
    assert!(matches!(world.request(ALICE, Request::Send(send)), Some(Reply::Refused(_))));
}

#[test]
fn a_signal_is_worth_nothing_after_a_minute() {
    let mut world = World::new(2, Direct::Works);
    world.stop(BOB);
    world.request(ALICE, Request::Connect(world.id(BOB)));
    world.settle();
    assert_eq!(world.coordinator.waiting(&world.id(BOB)), 1);
    world.pass(SIGNAL_LIFE);
    assert_eq!(world.coordinator.waiting(&world.id(BOB)), 0);
}

#[test]
fn a_ping_measures_the_relay_and_the_direct_link() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "hi");
    world.settle();

    let token = world.ask(ALICE, Request::Ping(world.id(BOB)));
    world.settle();
    let Some(Reply::Pong(samples)) = world.answer(ALICE, token) else { panic!("a pong") };
    let rtts: Vec<_> = samples.iter().map(|sample| (sample.path, sample.rtt_us)).collect();
    assert_eq!(rtts, [(PathKind::Relay, Some(40_000)), (PathKind::Direct, Some(4_000))]);
}

#[test]
fn a_nodes_prekeys_rotate_and_mail_to_the_one_before_still_opens() {
    let mut world = World::new(2, Direct::Blocked);
    world.send(ALICE, BOB, "first");
    world.settle();
    world.stop(BOB);
    let late = world.send(ALICE, BOB, "sealed to the old key");
    world.pass(Duration::from_secs(6 * 86_400 + 3_600));
    world.start(BOB);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.state(ALICE, late, BOB), OutboxState::Stored);
    let prekeys = world.nodes[BOB].disk.prekeys();
    assert_eq!(prekeys.iter().filter(|prekey| prekey.signed.is_some()).count(), 2);

    world.send(ALICE, BOB, "sealed to the new one");
    world.settle();
    assert_eq!(world.inbox(BOB).len(), 3);
    let rejected = world.nodes[BOB].events.iter().any(|event| matches!(event, Event::Rejected { .. }));
    assert!(!rejected, "every key was held");
}
