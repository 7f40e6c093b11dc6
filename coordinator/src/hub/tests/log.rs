//! The mesh log: places, races, revocations.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{Revoke, RevokeKind, Role, SignedRevoke};

use super::world::{Disk, Node, World, newcomer};
use crate::hub::SocketId;

fn append(world: &mut World, socket: SocketId, request: u64, entry: Vec<u8>) {
    world.frame(socket, ToCoordinator::LogAppend { request, entry: entry.into() });
}

fn admission(world: &World, author: &Node, name: &str) -> Vec<u8> {
    world.roster.member_add(&author.key, newcomer(name, Role::Member), world.now.wall).encode()
}

fn revocation(world: &World, author: &Node, target: &Node) -> Vec<u8> {
    let revoke = Revoke {
        mesh: world.mesh(),
        kind: RevokeKind::Member,
        target: target.id(),
        reason: 0,
        ts: world.now.wall,
        author: author.id(),
        head: world.roster.head(),
    };
    let revoke = SignedRevoke::sign(&author.key, revoke);
    world.roster.revoke_entry(&author.key, &revoke, world.now.wall).encode()
}

fn appended(frames: &[ToNode], wanted: u64) -> Option<Bytes> {
    frames.iter().find_map(|frame| match frame {
        ToNode::Appended { request, entry } if *request == wanted => Some(entry.clone()),
        _ => None,
    })
}

#[test]
fn an_entry_gets_its_place_and_everybody_online_is_told() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.disk = Disk::WhenTold;
    let entry = admission(&world, &alice, "dora");
    append(&mut world, of_alice, 1, entry);
    assert!(appended(&world.sent_to(of_alice), 1).is_none(), "no place before the commit");
    world.sent_to(of_bob);

    world.commit();

    let entry = appended(&world.sent_to(of_alice), 1).expect("a place");
    assert_eq!(world.sent_to(of_bob), [ToNode::Entries { from: 4, entries: vec![entry.clone()], size: 5 }]);
    world.learn(&entry);
    assert!(world.roster.by_handle("dora").is_some());
    world.disk = Disk::AtOnce;
    world.frame(of_bob, ToCoordinator::LogGet { from: 3 });
    let frames = world.sent_to(of_bob);
    assert!(matches!(&frames[..], [ToNode::Entries { from: 3, entries, size: 5 }] if entries[1] == entry));
}

#[test]
fn who_loses_the_race_gets_the_next_place_kept_for_two_seconds() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let (first, second) = (admission(&world, &alice, "dora"), admission(&world, &alice, "emil"));
    append(&mut world, of_alice, 1, first);
    let entry = appended(&world.sent_to(of_alice), 1).expect("a place");
    world.sent_to(of_bob);

    // Bob carries alice's other entry, which was signed on the old head.
    append(&mut world, of_bob, 2, second);
    assert_eq!(world.sent_to(of_bob), [ToNode::Conflict { request: 2, size: 5, reserved_ms: 2_000 }]);
    world.learn(&entry);

    let third = admission(&world, &alice, "fritz");
    append(&mut world, of_alice, 3, third.clone());
    assert_eq!(
        world.sent_to(of_alice),
        [ToNode::Conflict { request: 3, size: 5, reserved_ms: 0 }],
        "the place is bob's for now"
    );
    world.pass(Duration::from_secs(2));
    append(&mut world, of_alice, 4, third);
    assert!(appended(&world.sent_to(of_alice), 4).is_some(), "a reservation ends");
}

#[test]
fn entries_that_come_while_one_is_being_written_are_judged_on_the_new_head() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    world.disk = Disk::WhenTold;
    let (first, second) = (admission(&world, &alice, "dora"), admission(&world, &alice, "emil"));
    append(&mut world, of_alice, 1, first);
    world.sent_to(of_bob);
    append(&mut world, of_bob, 2, second);
    assert!(world.sent_to(of_bob).is_empty());
    world.commit();
    let frames = world.sent_to(of_bob);
    assert!(frames.contains(&ToNode::Conflict { request: 2, size: 5, reserved_ms: 2_000 }), "{frames:?}");
}

#[test]
fn a_revocation_waits_for_no_reservation() {
    let mut world = World::new();
    let (mut alice, mut bob, carol) = (Node::named("alice"), Node::named("bob"), Node::named("carol"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let (first, stale) = (admission(&world, &alice, "dora"), admission(&world, &alice, "emil"));
    append(&mut world, of_alice, 1, first);
    let entry = appended(&world.sent_to(of_alice), 1).expect("a place");
    append(&mut world, of_bob, 2, stale);
    world.learn(&entry);
    let revoke = revocation(&world, &alice, &carol);
    append(&mut world, of_alice, 3, revoke);
    assert!(appended(&world.sent_to(of_alice), 3).is_some());
}

#[test]
fn what_does_not_replay_and_what_is_from_another_time_gets_no_place() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let by_bob = admission(&world, &bob, "dora");
    append(&mut world, of_bob, 1, by_bob);
    let frames = world.sent_to(of_bob);
    assert!(
        matches!(frames.last(), Some(ToNode::Failed { request: 1, code, .. }) if code == "log-authority")
    );

    let taken = admission(&world, &alice, "bob");
    append(&mut world, of_alice, 2, taken);
    let frames = world.sent_to(of_alice);
    assert!(matches!(frames.last(), Some(ToNode::Failed { request: 2, .. })), "{frames:?}");

    let old = admission(&world, &alice, "dora");
    world.pass(Duration::from_secs(30));
    world.frame(of_alice, ToCoordinator::Pong { nonce: 0 });
    world.now.wall = world.now.wall.plus(Duration::from_secs(301));
    append(&mut world, of_alice, 3, old);
    let frames = world.sent_to(of_alice);
    assert!(
        matches!(frames.last(), Some(ToNode::Failed { request: 3, code, .. }) if code == "skew"),
        "{frames:?}"
    );
    append(&mut world, of_alice, 4, vec![0x80]);
    let frames = world.sent_to(of_alice);
    assert!(matches!(frames.last(), Some(ToNode::Failed { request: 4, .. })), "{frames:?}");
    assert_eq!(world.store.log[&world.mesh()].len(), 4);
}

#[test]
fn a_revoked_member_is_cut_off_and_its_senders_are_told() {
    let mut world = World::new();
    let (mut alice, mut bob, mut carol) = (Node::named("alice"), Node::named("bob"), Node::named("carol"));
    let (of_alice, of_bob) = (world.join(&mut alice), world.join(&mut bob));
    let (waiting, from_away) = (world.envelope(&alice, &carol), world.envelope(&bob, &carol));
    world.put(of_alice, &waiting);
    world.put(of_bob, &from_away);
    world.input(crate::hub::Input::Closed { socket: of_bob });
    let of_carol = world.greet(&mut carol);
    world.sent_to(of_alice);

    let revoke = revocation(&world, &alice, &carol);
    append(&mut world, of_alice, 1, revoke);

    assert!(world.closed.contains(&of_carol));
    assert!(matches!(world.sent_to(of_carol).last(), Some(ToNode::Error { code, .. }) if code == "revoked"));
    let frames = world.sent_to(of_alice);
    let told = ToNode::Refused { env_hash: waiting.env_hash(), code: "revoked".to_owned(), retry_ms: 0 };
    assert!(frames.contains(&told), "{frames:?}");
    assert!(world.store.mail.values().all(|row| row.to == bob.id()), "carol's queue is empty");
    let of_bob = world.join(&mut bob);
    let frames = world.sent_to(of_bob);
    let ended = |frame: &ToNode| matches!(frame, ToNode::Expired { env_hash, .. } if *env_hash == from_away.env_hash());
    assert!(frames.iter().any(ended), "{frames:?}");

    let late = world.envelope(&alice, &carol);
    world.put(of_alice, &late);
    let frames = world.sent_to(of_alice);
    assert!(matches!(frames.last(), Some(ToNode::Refused { code, retry_ms: 0, .. }) if code == "revoked"));
    let again = world.greet(&mut carol);
    assert!(matches!(world.sent_to(again).last(), Some(ToNode::Error { code, .. }) if code == "revoked"));
}

#[test]
fn a_log_is_replayed_from_the_disk_after_a_restart() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let of_alice = world.join(&mut alice);
    for name in ["d-1", "d-2", "d-3"] {
        let entry = admission(&world, &alice, name);
        append(&mut world, of_alice, 1, entry);
        let entry = appended(&world.sent_to(of_alice), 1).expect("a place");
        world.learn(&entry);
    }
    world.restart();
    let of_alice = world.join(&mut alice);
    let entry = admission(&world, &alice, "d-4");
    append(&mut world, of_alice, 9, entry);
    assert!(appended(&world.sent_to(of_alice), 9).is_some());
}
