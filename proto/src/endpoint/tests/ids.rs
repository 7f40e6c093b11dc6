//! One id, one message: repeats, conflicts, keys that changed.

use std::time::Duration;

use bytes::Bytes;

use super::A_WHILE;
use super::mesh::key;
use super::world::{ALICE, BOB, CAROL, Crash, Direct, World};
use crate::body::{Body, Message, Place};
use crate::endpoint::{Event, OutboxState, Refusal, Reply, Request, RequeueRow, Send};
use crate::envelope::{Channel, Header, Priority, Recipient, Suite};
use crate::id::{Fingerprint, Generation, Kid, MessageId};
use crate::key::BoxSecretKey;
use crate::limits::{GENERATIONS_PER_SENDER_MAX, MESSAGE_LIFE_MAX};
use crate::seal::{SenderBox, seal};
use crate::wire::{OnLink, ToNode};

const SENT_ONCE: [&str; 1] = ["hi"];

fn sent(reply: Option<Reply>) -> (OutboxState, bool) {
    match reply {
        Some(Reply::Sent { recipients, repeated, .. }) => (recipients[0].1.clone(), repeated),
        other => panic!("{other:?}"),
    }
}

fn is_conflict(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Refused(Refusal::Conflict(_))))
}

#[test]
fn the_same_id_with_the_same_content_is_sent_once_and_answered_with_its_state() {
    let mut world = World::new(2, Direct::Blocked);
    let id = world.send(ALICE, BOB, "hi");
    world.settle();

    let again = world.message(Some(id), &[BOB], "hi");
    assert_eq!(sent(world.request(ALICE, Request::Send(again.clone()))), (OutboxState::Stored, true));
    world.restart(ALICE);
    assert_eq!(sent(world.request(ALICE, Request::Send(again))), (OutboxState::Stored, true));
    world.settle();
    assert_eq!(world.inbox(BOB), SENT_ONCE);
    assert_eq!(world.carried(id).len(), 1);
}

#[test]
fn the_same_id_with_other_content_or_recipients_is_a_conflict() {
    let mut world = World::new(3, Direct::Blocked);
    let id = world.send(ALICE, BOB, "hi");
    let mut other_type = world.message(Some(id), &[BOB], "hi");
    other_type.message.content_type = "text/html".to_owned();
    for other in [
        world.message(Some(id), &[BOB], "ho"),
        world.message(Some(id), &[CAROL], "hi"),
        world.message(Some(id), &[BOB, CAROL], "hi"),
        other_type,
    ] {
        assert!(is_conflict(world.request(ALICE, Request::Send(other.clone()))), "{other:?}");
        world.restart(ALICE);
        assert!(is_conflict(world.request(ALICE, Request::Send(other))), "after a restart");
    }
    world.pass(A_WHILE);
    assert_eq!(world.inbox(BOB), SENT_ONCE);
    assert_eq!(world.inbox(CAROL), [""; 0]);
}

#[test]
fn an_id_used_twice_in_one_batch_is_judged_as_if_the_first_were_stored() {
    let mut world = World::new(2, Direct::Blocked);
    let id = world.fresh_message_id();
    let ask = |world: &mut World, text: &str| {
        let send = world.message(Some(id), &[BOB], text);
        world.ask(ALICE, Request::Send(send))
    };
    let (first, same, other) = (ask(&mut world, "hi"), ask(&mut world, "hi"), ask(&mut world, "ho"));
    world.settle();

    assert_eq!(sent(world.answer(ALICE, first)), (OutboxState::Pending, false));
    assert_eq!(sent(world.answer(ALICE, same)), (OutboxState::Pending, true));
    assert!(is_conflict(world.answer(ALICE, other)));
    assert_eq!(world.inbox(BOB), SENT_ONCE);
}

#[test]
fn a_send_to_several_is_taken_for_all_or_for_none() {
    let mut world = World::new(2, Direct::Blocked);
    let id = world.fresh_message_id();
    let mut send = world.message(Some(id), &[BOB], "hi");
    send.to.push(key(150).id());
    let refused = world.request(ALICE, Request::Send(send.clone()));
    assert!(matches!(refused, Some(Reply::Refused(Refusal::UnknownPeer(_)))));
    assert_eq!(world.nodes[ALICE].disk.state(id, world.id(BOB)), None);
    let retried = world.message(Some(id), &[BOB], "hi");
    assert_eq!(sent(world.request(ALICE, Request::Send(retried))), (OutboxState::Pending, false));
}

#[test]
fn a_recipient_that_lost_its_key_gets_the_message_sealed_again_under_the_same_id() {
    let mut world = World::new(2, Direct::Blocked);
    world.send(ALICE, BOB, "teaches keys");
    world.settle();
    world.stop(BOB);
    let id = world.send(ALICE, BOB, "sealed to the weekly key");
    world.settle();
    let before = world.nodes[ALICE].disk.sealed(id);
    world.nodes[BOB].disk.forget_weekly_prekeys();
    world.start(BOB);
    world.settle();

    let after = world.nodes[ALICE].disk.sealed(id);
    assert_eq!(world.inbox(BOB), ["teaches keys", "sealed to the weekly key"]);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(before.0, after.0, "the same fingerprint");
    assert_ne!(before.1, after.1, "other bytes");
    assert_eq!(after.2, 2);
}

#[test]
fn a_message_sealed_again_survives_a_restart_of_its_sender() {
    let mut world = World::new(2, Direct::Blocked);
    world.send(ALICE, BOB, "teaches keys");
    world.settle();
    world.stop(BOB);
    let id = world.send(ALICE, BOB, "later");
    world.settle();
    world.restart(ALICE);
    world.nodes[BOB].disk.forget_weekly_prekeys();
    world.start(BOB);
    world.settle();
    assert_eq!(world.inbox(BOB), ["teaches keys", "later"]);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_restart_between_sealing_again_and_sending_again_forgets_neither() {
    for batches in 0..6 {
        let mut world = World::new(2, Direct::Blocked);
        world.send(ALICE, BOB, "teaches keys");
        world.settle();
        world.stop(BOB);
        let id = world.send(ALICE, BOB, "later");
        world.settle();
        world.nodes[BOB].disk.forget_weekly_prekeys();
        world.nodes[ALICE].crash_at = Some((world.nodes[ALICE].batches + batches, Crash::AfterCommit));
        world.start(BOB);
        world.pass(A_WHILE);
        assert_eq!(world.inbox(BOB), ["teaches keys", "later"]);
        assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    }
}

#[test]
fn requeue_sends_under_a_fresh_id_and_retires_the_old_one_for_ever() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(BOB);
    let send = Send { life: Duration::from_secs(60), ..world.message(None, &[BOB], "hi") };
    let Some(Reply::Sent { id: old, .. }) = world.request(ALICE, Request::Send(send)) else {
        panic!("taken")
    };
    world.pass(Duration::from_secs(61));
    let row = *world.nodes[ALICE].disk.outbox.first_key_value().unwrap().0;
    let message = world.nodes[ALICE].disk.outbox[&row].message.clone();
    let again = || RequeueRow {
        row,
        id: old,
        to: key(1).id(),
        message: message.clone(),
        priority: Priority::Next,
        life: MESSAGE_LIFE_MAX,
    };

    let Some(Reply::Requeued(fresh)) = world.request(ALICE, Request::Requeue(vec![again()])) else {
        panic!("requeued")
    };
    let twice = world.request(ALICE, Request::Requeue(vec![again()]));
    assert!(matches!(twice, Some(Reply::Refused(_))), "{twice:?}");
    world.start(BOB);
    world.settle();

    assert_ne!(fresh[0], old);
    assert_eq!(world.inbox(BOB), SENT_ONCE);
    assert_eq!(world.state(ALICE, fresh[0], BOB), OutboxState::Stored);
    let reuse = world.message(Some(old), &[BOB], "hi");
    assert!(is_conflict(world.request(ALICE, Request::Send(reuse.clone()))));
    world.restart(ALICE);
    assert!(is_conflict(world.request(ALICE, Request::Send(reuse))));
}

/// A dm as a member might craft it by hand.
fn crafted(world: &World, from: usize, to: usize, id: MessageId, text: &str, place: Place) -> Bytes {
    let now = world.now(from).wall;
    let content = Bytes::copy_from_slice(text.as_bytes());
    let message = Message { content_type: "text/plain".to_owned(), content, reply_to: None };
    let body = Body { message, place: Some(place), prekey: None }.encode();
    let header = Header {
        suite: Suite::Box,
        mesh: world.coordinator.roster.mesh_id(),
        channel: Channel::Dm,
        from: world.id(from),
        auth: None,
        to: Recipient::Peer(world.id(to)),
        id,
        ts: now,
        exp: now.plus(MESSAGE_LIFE_MAX),
        fp: Fingerprint(crate::transcript::sha256(text.as_bytes())),
        head: world.coordinator.roster.head(),
        spk: None,
        kid: Kid([0; 16]),
        nonce: [0; 24],
        priority: Priority::Next,
        stream: None,
        rpc: None,
        group: None,
    };
    let recipient = world.coordinator.roster.member(&world.id(to)).unwrap().prekey.unwrap();
    let sender = SenderBox::new(&BoxSecretKey::from_bytes([77; 32]), &recipient);
    seal(header, &body, &sender, &[5; 32], &world.nodes[from].key).unwrap().wire
}

fn place(seq: u64, lowest: u64) -> Place {
    Place { generation: Generation([1; 8]), seq, lowest }
}

/// Bob gets this many messages of Alice, each of another life of her counters and each, but for the first
/// of them, behind a gap.
fn lives(world: &mut World, count: u16) {
    for life in 0..count {
        let mut generation = [9; 8];
        generation[..2].copy_from_slice(&life.to_be_bytes());
        let mut id = [7; 16];
        id[..2].copy_from_slice(&life.to_be_bytes());
        let place = Place { generation: Generation(generation), seq: u64::from(life != 0), lowest: 0 };
        let envelope = crafted(world, ALICE, BOB, MessageId(id), &life.to_string(), place);
        world.inject(BOB, &ToNode::Deliver { claim: 2_000 + u64::from(life), queued: false, envelope });
        world.settle();
    }
}

#[test]
fn a_member_that_makes_up_lives_of_its_counters_takes_no_memory_with_them() {
    let mut world = World::new(2, Direct::Blocked);
    lives(&mut world, 40);
    let held = |world: &World| {
        let holdings = world.endpoint(BOB).holdings();
        holdings.into_iter().find(|held| held.what == "inbound conversations").expect("it is counted").count
    };
    assert_eq!(held(&world), GENERATIONS_PER_SENDER_MAX);
    // The first had nothing to wait for and went first; each that followed it out was shown then.
    let shown = world.inbox(BOB).len();
    assert_eq!(shown, 40 - GENERATIONS_PER_SENDER_MAX);
    world.restart(BOB);
    assert_eq!(held(&world), GENERATIONS_PER_SENDER_MAX);
    assert_eq!(world.inbox(BOB).len(), shown);
}

#[test]
fn a_member_that_uses_an_id_for_two_messages_is_refused_the_second_with_an_alarm() {
    let mut world = World::new(2, Direct::Blocked);
    let id = MessageId([3; 16]);
    for (claim, text) in [(901, "first"), (902, "second"), (903, "first")] {
        let envelope = crafted(&world, ALICE, BOB, id, text, place(0, 0));
        world.inject(BOB, &ToNode::Deliver { claim, queued: false, envelope });
        world.settle();
    }
    assert_eq!(world.inbox(BOB), ["first"]);
    assert_eq!(world.alarms(BOB).len(), 1);

    world.restart(BOB);
    world.settle();
    let envelope = crafted(&world, ALICE, BOB, id, "third", place(0, 0));
    world.inject(BOB, &ToNode::Deliver { claim: 904, queued: true, envelope });
    world.settle();
    assert_eq!(world.inbox(BOB), ["first"], "the row is the last guard");
}

#[test]
fn a_member_cannot_stop_anothers_conversation_by_its_numbers() {
    let mut world = World::new(3, Direct::Blocked);
    let last = i64::MAX.cast_unsigned();
    for (claim, seq, lowest) in [(901, last, last), (902, 5, 9), (903, 5, 0), (904, last, 0)] {
        let id = MessageId([u8::try_from(claim - 900).unwrap(); 16]);
        let envelope = crafted(&world, ALICE, BOB, id, "odd", place(seq, lowest));
        world.inject(BOB, &ToNode::Deliver { claim, queued: false, envelope });
        world.settle();
    }
    let id = world.send(CAROL, BOB, "hi");
    world.settle();
    assert_eq!(world.state(CAROL, id, BOB), OutboxState::Stored);
    assert_eq!(world.inbox(BOB).iter().filter(|text| *text == "hi").count(), 1);
    world.restart(BOB);
    world.settle();
}

#[test]
fn what_arrives_by_two_paths_is_shown_once_and_receipted_on_both() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "makes a link");
    world.settle();
    let id = world.send(ALICE, BOB, "once");
    world.settle();
    let [envelope] = world.carried(id).try_into().unwrap();

    let receipts = |world: &World| {
        world.nodes[ALICE].events.iter().filter(|e| matches!(e, Event::Outbox { .. })).count()
    };
    let before = receipts(&world);
    world.inject(BOB, &ToNode::Deliver { claim: 900, queued: false, envelope: envelope.clone() });
    world.inject_on_link(BOB, &OnLink::Envelope { envelope });
    world.settle();

    assert_eq!(world.inbox(BOB), ["makes a link", "once"]);
    assert_eq!(receipts(&world), before, "a receipt for what is settled changes nothing");
    assert!(world.is_direct(ALICE, BOB));
}

#[test]
fn a_strangers_mail_is_dropped_without_an_answer() {
    let mut world = World::new(2, Direct::Blocked);
    let stranger = key(150);
    let mut envelope = crafted(&world, ALICE, BOB, MessageId([3; 16]), "x", place(0, 0));
    let parsed = crate::envelope::UnverifiedEnvelope::parse(envelope).unwrap();
    let header = Header {
        from: stranger.id(),
        head: crate::roster::Head { size: 1, hash: crate::id::EntryHash([1; 32]) },
        ..parsed.header().clone()
    };
    let recipient = world.coordinator.roster.member(&world.id(BOB)).unwrap().prekey.unwrap();
    let sender = SenderBox::new(&BoxSecretKey::from_bytes([77; 32]), &recipient);
    envelope = seal(header, b"", &sender, &[5; 32], &stranger).unwrap().wire;
    world.inject(BOB, &ToNode::Deliver { claim: 900, queued: false, envelope });
    world.settle();

    let reasons = world.nodes[BOB].events.iter().filter_map(|event| {
        if let Event::Rejected { reason, .. } = event { Some(reason.as_str()) } else { None }
    });
    assert_eq!(reasons.collect::<Vec<_>>(), ["not-a-member"]);
    assert_eq!(world.alarms(BOB), [""; 0], "a stranger's head proves nothing");
}

#[test]
fn a_clock_that_jumps_forward_and_back_opens_nothing_twice() {
    let mut world = World::new(2, Direct::Blocked);
    let id = world.send(ALICE, BOB, "hi");
    world.settle();
    let [envelope] = world.carried(id).try_into().unwrap();
    // Everybody's clock is wrong by ten days for an hour, and then right again.
    for ahead in [Duration::from_secs(10 * 86_400), Duration::ZERO] {
        world.coordinator.ahead = ahead;
        world.nodes.iter_mut().for_each(|node| node.ahead = ahead);
        world.coordinator_down();
        world.pass(Duration::from_secs(3_600));
        world.coordinator_up = true;
        world.pass(A_WHILE);
    }
    world.restart(BOB);
    world.settle();
    world.inject(BOB, &ToNode::Deliver { claim: 900, queued: true, envelope });
    world.settle();
    assert_eq!(world.inbox(BOB), SENT_ONCE);
    let refused = |event: &Event| matches!(event, Event::Rejected { reason, .. } if reason == "stale");
    assert!(world.nodes[BOB].events.iter().any(refused));
}
