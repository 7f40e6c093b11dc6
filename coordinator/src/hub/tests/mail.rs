//! Mail: queued, handed out, ended.

use std::time::Duration;

use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{Priority, Receipt, ReceiptRow, ReceiptStatus, SignedReceipt};

use super::world::{Disk, Node, World};
use crate::store::MailKind;

fn accepted(frames: &[ToNode]) -> usize {
    let count = |frame: &ToNode| match frame {
        ToNode::Accepted { env_hashes, .. } => env_hashes.len(),
        _ => 0,
    };
    frames.iter().map(count).sum()
}

#[test]
fn a_message_for_an_absent_member_waits_and_is_deleted_only_by_its_signed_receipt() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelope = world.envelope(&alice, &bob);

    world.put(from_alice, &envelope);
    assert_eq!(accepted(&world.sent_to(from_alice)), 1);

    let to_bob = world.join(&mut bob);
    let delivered = world.delivered(to_bob);
    assert_eq!(delivered.len(), 1);
    let (claim, queued, env_hash) = delivered[0];
    assert!(queued);
    assert_eq!(env_hash, envelope.env_hash());
    assert_eq!(world.store.mail.len(), 1, "delivery alone deletes nothing");

    let other = world.envelope(&alice, &bob);
    let wrong = world.receipt(&bob, &alice, &[&other]);
    world.send_receipt(to_bob, &wrong, vec![claim]);
    assert!(world.store.mail.contains_key(&claim), "a receipt for another envelope deletes nothing");

    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(to_bob, &receipt, vec![claim]);
    assert!(!world.store.mail.contains_key(&claim));
}

#[test]
fn accepted_is_said_after_the_commit_although_the_message_is_delivered_before() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.sent_to(from_alice);
    world.disk = Disk::WhenTold;
    let envelope = world.envelope(&alice, &bob);

    world.put(from_alice, &envelope);

    let delivered = world.delivered(to_bob);
    assert!(matches!(delivered[..], [(_, false, hash)] if hash == envelope.env_hash()));
    assert_eq!(accepted(&world.sent_to(from_alice)), 0);
    world.put(from_alice, &envelope);
    assert_eq!(accepted(&world.sent_to(from_alice)), 0, "a repeat is no reason to say it early");

    world.commit();
    assert_eq!(accepted(&world.sent_to(from_alice)), 1);
}

#[test]
fn a_repeated_put_is_accepted_again_and_queued_once() {
    let mut world = World::new();
    let (mut alice, bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelope = world.envelope(&alice, &bob);
    for _ in 0..3 {
        world.put(from_alice, &envelope);
    }
    assert_eq!(accepted(&world.sent_to(from_alice)), 3);
    assert_eq!(world.store.mail.len(), 1);
}

#[test]
fn a_claim_that_is_not_receipted_in_time_is_offered_again() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let first = world.delivered(to_bob);

    world.pass(Duration::from_secs(29));
    assert!(world.delivered(to_bob).is_empty());
    world.frame(to_bob, ToCoordinator::Pong { nonce: 0 });
    world.pass(Duration::from_secs(3));

    let again = world.delivered(to_bob);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].0, again[0].2), (first[0].0, first[0].2), "under the same claim");
    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(to_bob, &receipt, vec![first[0].0]);
    world.pass(Duration::from_secs(40));
    assert!(world.delivered(to_bob).is_empty());
}

#[test]
fn a_receipt_for_a_claim_of_the_connection_before_still_counts() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let claim = world.delivered(to_bob)[0].0;
    world.input(crate::hub::Input::Closed { socket: to_bob });

    let to_bob = world.greet(&mut bob);
    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(to_bob, &receipt, vec![claim]);
    assert!(!world.store.mail.contains_key(&claim));
    world.frame(to_bob, ToCoordinator::Claim { messages: 8, bytes: 1 << 20 });
    assert!(world.delivered(to_bob).is_empty());
}

#[test]
fn a_receipt_that_outruns_the_commit_ends_the_message_without_a_row() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.sent_to(from_alice);
    world.disk = Disk::WhenTold;
    // One batch is under way, so that the next is still open when the receipt comes.
    let (before, envelope) = (world.envelope(&alice, &bob), world.envelope(&alice, &bob));
    world.put(from_alice, &before);
    world.put(from_alice, &envelope);
    let delivered = world.delivered(to_bob);
    assert_eq!(delivered.len(), 2);

    let receipt = world.receipt(&bob, &alice, &[&before, &envelope]);
    world.send_receipt(to_bob, &receipt, vec![delivered[0].0, delivered[1].0]);

    let frames = world.sent_to(from_alice);
    assert!(
        frames.iter().any(
            |frame| matches!(frame, ToNode::Accepted { env_hashes, .. } if *env_hashes == [envelope.env_hash()])
        ),
        "what was not on its way to the disk is receipted and needs none: {frames:?}"
    );
    assert!(frames.iter().any(|frame| matches!(frame, ToNode::Receipt { .. })));
    world.commit();
    assert_eq!(accepted(&world.sent_to(from_alice)), 1, "the one under way is accepted when it is written");
    world.commit();
    let envelopes = world.store.mail.values().filter(|row| row.kind == MailKind::Envelope).count();
    assert_eq!(envelopes, 0);
    world.disk = Disk::AtOnce;
    world.pass(Duration::from_secs(40));
    assert!(world.delivered(to_bob).is_empty(), "nothing is delivered twice");
}

#[test]
fn a_receipt_waits_for_an_absent_sender_until_it_settles_it() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let claim = world.delivered(to_bob)[0].0;
    world.input(crate::hub::Input::Closed { socket: from_alice });
    let receipt = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(to_bob, &receipt, vec![claim]);

    let from_alice = world.join(&mut alice);
    let frames = world.sent_to(from_alice);
    let claims: Vec<u64> = frames
        .iter()
        .filter_map(|frame| match frame {
            ToNode::Receipt { claim, receipt: got } if got.stmt == *receipt.stmt() => Some(*claim),
            _ => None,
        })
        .collect();
    assert_eq!(claims.len(), 1, "{frames:?}");
    assert_eq!(world.store.mail.len(), 1);
    world.frame(from_alice, ToCoordinator::Settle { claims });
    assert!(world.store.mail.is_empty());
}

#[test]
fn mail_that_its_recipient_cannot_receipt_leaves_the_mailbox_when_it_lets_go() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let signal = world.envelope(&alice, &bob);
    world.put(from_alice, &signal);
    let claims = vec![world.delivered(to_bob)[0].0];
    assert_eq!(world.store.mail.len(), 1);

    world.frame(from_alice, ToCoordinator::Settle { claims: claims.clone() });
    assert_eq!(world.store.mail.len(), 1, "nobody lets go for another");
    world.frame(to_bob, ToCoordinator::Settle { claims });
    assert!(world.store.mail.is_empty());
}

#[test]
fn nobody_can_receipt_for_another() {
    let mut world = World::new();
    let (mut alice, mut bob, mut carol) = (Node::named("alice"), Node::named("bob"), Node::named("carol"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let of_carol = world.join(&mut carol);
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let claim = world.delivered(to_bob)[0].0;

    let forged = world.receipt(&carol, &alice, &[&envelope]);
    world.send_receipt(of_carol, &forged, vec![claim]);
    assert!(world.store.mail.contains_key(&claim));
    let stolen = world.receipt(&bob, &alice, &[&envelope]);
    world.send_receipt(of_carol, &stolen, vec![claim]);
    assert!(world.store.mail.contains_key(&claim));
    assert!(world.closed.contains(&of_carol));
    assert!(!world.closed.contains(&to_bob));
}

#[test]
fn a_node_gets_no_more_at_once_than_it_claims() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelopes: Vec<_> = (0..10).map(|_| world.envelope(&alice, &bob)).collect();
    for envelope in &envelopes {
        world.put(from_alice, envelope);
    }
    let to_bob = world.greet(&mut bob);
    assert!(world.delivered(to_bob).is_empty(), "nothing before a claim");
    world.frame(to_bob, ToCoordinator::Claim { messages: 4, bytes: 1 << 20 });
    let mut got = world.delivered(to_bob);
    assert_eq!(got.len(), 4);
    let mut order = Vec::new();
    while !got.is_empty() {
        for (claim, _, hash) in std::mem::take(&mut got) {
            order.push(hash);
            let envelope = envelopes.iter().find(|envelope| envelope.env_hash() == hash).unwrap();
            let receipt = world.receipt(&bob, &alice, &[envelope]);
            world.send_receipt(to_bob, &receipt, vec![claim]);
            got.extend(world.delivered(to_bob));
        }
    }
    assert_eq!(
        order,
        envelopes.iter().map(|envelope| envelope.env_hash()).collect::<Vec<_>>(),
        "oldest first"
    );
}

#[test]
fn urgent_mail_is_claimed_first() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let low = world.envelope_with(&alice, &bob, |header| header.priority = Priority::Low);
    let next = world.envelope(&alice, &bob);
    let now = world.envelope_with(&alice, &bob, |header| header.priority = Priority::Now);
    for envelope in [&low, &next, &now] {
        world.put(from_alice, envelope);
    }
    let to_bob = world.join(&mut bob);
    let order: Vec<_> = world.delivered(to_bob).into_iter().map(|(_, _, hash)| hash).collect();
    assert_eq!(order, [now.env_hash(), next.env_hash(), low.env_hash()]);
}

#[test]
fn a_full_queue_is_told_to_the_sender_and_not_for_ever() {
    let mut world = World::with(|config| config.mailbox_messages_max = 2);
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelopes: Vec<_> = (0..3).map(|_| world.envelope(&alice, &bob)).collect();
    for envelope in &envelopes {
        world.put(from_alice, envelope);
    }
    let frames = world.sent_to(from_alice);
    assert_eq!(accepted(&frames), 2);
    assert!(frames.contains(&ToNode::Refused {
        env_hash: envelopes[2].env_hash(),
        code: "recipient-full".to_owned(),
        retry_ms: 30_000
    }));

    let to_bob = world.join(&mut bob);
    let claim = world.delivered(to_bob)[0].0;
    let receipt = world.receipt(&bob, &alice, &[&envelopes[0]]);
    world.send_receipt(to_bob, &receipt, vec![claim]);
    world.sent_to(from_alice);
    world.put(from_alice, &envelopes[2]);
    assert_eq!(accepted(&world.sent_to(from_alice)), 1);
}

#[test]
fn a_sender_that_is_too_fast_is_told_when_to_go_on_and_a_repeat_costs_nothing() {
    let mut world = World::with(|config| config.member_messages = crate::rate::Allowance::sustained(1));
    let (mut alice, bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelopes: Vec<_> = (0..3).map(|_| world.envelope(&alice, &bob)).collect();
    world.put(from_alice, &envelopes[0]);
    world.put(from_alice, &envelopes[0]);
    world.put(from_alice, &envelopes[1]);
    assert_eq!(accepted(&world.sent_to(from_alice)), 3);
    world.put(from_alice, &envelopes[2]);
    let frames = world.sent_to(from_alice);
    let [ToNode::Refused { code, retry_ms, .. }] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((code.as_str(), *retry_ms), ("rate", 1_001));
    world.pass(Duration::from_millis(*retry_ms));
    world.put(from_alice, &envelopes[2]);
    assert_eq!(accepted(&world.sent_to(from_alice)), 1);
}

#[test]
fn mail_that_expires_unread_is_told_to_its_sender() {
    let mut world = World::new();
    let (mut alice, bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let ends = world.now.wall.plus(Duration::from_secs(60));
    let envelope = world.envelope_with(&alice, &bob, |header| header.exp = ends);
    world.put(from_alice, &envelope);
    world.input(crate::hub::Input::Closed { socket: from_alice });

    world.pass(Duration::from_secs(60 + 5 * 60 + 60));
    assert!(world.store.mail.values().all(|row| row.kind == MailKind::Expired), "the envelope is gone");
    assert_eq!(world.hub.counters().mail_queued, 1, "only the notice counts");
    let from_alice = world.join(&mut alice);
    let notice = world.sent_to(from_alice).into_iter().find_map(|frame| match frame {
        ToNode::Expired { claim, env_hash } if env_hash == envelope.env_hash() => Some(claim),
        _ => None,
    });
    world.frame(from_alice, ToCoordinator::Settle { claims: vec![notice.expect("a notice")] });
    assert!(world.store.mail.is_empty());
}

#[test]
fn what_waited_is_delivered_after_a_restart() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let from_alice = world.join(&mut alice);
    let envelopes: Vec<_> = (0..3).map(|_| world.envelope(&alice, &bob)).collect();
    for envelope in &envelopes {
        world.put(from_alice, envelope);
    }
    world.restart();
    let to_bob = world.join(&mut bob);
    let delivered = world.delivered(to_bob);
    assert_eq!(delivered.len(), 3);
    assert!(delivered.iter().all(|(_, queued, _)| *queued));
    let all: Vec<_> = envelopes.iter().collect();
    let receipt = world.receipt(&bob, &alice, &all);
    world.send_receipt(to_bob, &receipt, delivered.iter().map(|(claim, ..)| *claim).collect());
    assert_eq!(world.store.mail.values().filter(|row| row.kind == MailKind::Envelope).count(), 0);
    assert_eq!(world.hub.counters().mail_queued, 1, "the receipt waits for alice");
}

#[test]
fn mail_to_strangers_and_worthless_mail_is_refused_for_good() {
    let mut world = World::new();
    let (mut alice, bob, mallory) = (Node::named("alice"), Node::named("bob"), Node::named("mallory"));
    let from_alice = world.join(&mut alice);
    let now = world.now.wall;
    let week = Duration::from_secs(7 * 24 * 60 * 60 + 1);
    let cases = [
        (world.envelope(&alice, &mallory), "not-a-member"),
        (world.envelope(&bob, &alice), "signature"),
        (world.envelope_with(&alice, &bob, |header| header.exp = now), "stale"),
        (world.envelope_with(&alice, &bob, |header| header.exp = now.plus(week)), "ttl"),
        (world.envelope_with(&alice, &bob, |header| header.mesh.0[0] ^= 1), "mesh"),
    ];
    world.sent_to(from_alice);
    for (envelope, want) in cases {
        world.put(from_alice, &envelope);
        let frames = world.sent_to(from_alice);
        let [ToNode::Refused { code, retry_ms: 0, env_hash }] = &frames[..] else {
            panic!("{want}: {frames:?}")
        };
        assert_eq!((code.as_str(), *env_hash), (want, envelope.env_hash()));
    }
    assert!(world.store.mail.is_empty());
}

#[test]
fn a_receipt_is_not_for_more_rows_than_it_has_claims() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (from_alice, to_bob) = (world.join(&mut alice), world.join(&mut bob));
    let envelope = world.envelope(&alice, &bob);
    world.put(from_alice, &envelope);
    let row = ReceiptRow {
        env_hash: envelope.env_hash(),
        id: envelope.header().id,
        status: ReceiptStatus::Stored,
        code: None,
    };
    let receipt = Receipt {
        mesh: world.mesh(),
        by: bob.id(),
        to: alice.id(),
        rows: vec![row.clone(), row],
        ts: world.now.wall,
        head: super::world::nowhere(),
    };
    world.send_receipt(to_bob, &SignedReceipt::sign(&bob.key, receipt), vec![1]);
    assert!(world.closed.contains(&to_bob));
}
