//! A store that was put back to an older copy: the log gets its end again, and until then nothing gets a
//! place that may be taken.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{MeshId, Role, WireEntry};

use super::world::{Disk, Node, World, newcomer};
use crate::hub::{CommitFailure, SocketId};

/// Appends an admission as alice, whose log has it then.
fn admits(world: &mut World, alice: &Node, of_alice: SocketId, name: &str) -> Bytes {
    let entry = world.roster.member_add(&alice.key, newcomer(name, Role::Member), world.now.wall).encode();
    world.frame(of_alice, ToCoordinator::LogAppend { request: 1, entry: entry.into() });
    let sequenced = world.sent_to(of_alice).into_iter().find_map(|frame| match frame {
        ToNode::Appended { entry, .. } => Some(entry),
        _ => None,
    });
    let sequenced = sequenced.expect("a place");
    world.learn(&sequenced);
    sequenced
}

/// A mesh in which dora and emil were admitted after the copy was made that the store is put back to.
fn put_back() -> (World, Vec<Bytes>) {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let of_alice = world.join(&mut alice);
    let copy = world.store.log.clone();
    let lost = ["dora", "emil"].map(|name| admits(&mut world, &alice, of_alice, name));
    world.store.log = copy;
    world.restart();
    (world, lost.to_vec())
}

fn wanted(frames: &[ToNode]) -> Option<u64> {
    frames.iter().find_map(|frame| match frame {
        ToNode::LogWanted { from, .. } => Some(*from),
        _ => None,
    })
}

fn is_welcomed(frames: &[ToNode]) -> bool {
    frames.iter().any(|frame| matches!(frame, ToNode::Welcome { .. }))
}

fn code_of(frames: &[ToNode]) -> Option<&str> {
    frames.iter().find_map(|frame| match frame {
        ToNode::Error { code, .. } | ToNode::Failed { code, .. } => Some(code.as_str()),
        _ => None,
    })
}

fn returns(world: &mut World, socket: SocketId, from: u64, entries: &[Bytes]) -> Vec<ToNode> {
    world.frame(socket, ToCoordinator::LogReturn { from, entries: entries.to_vec() });
    world.sent_to(socket)
}

#[test]
fn what_a_log_lost_is_given_back_written_and_told_to_everybody() {
    let (mut world, lost) = put_back();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    // Bob was away when they were admitted.
    let whole = world.roster.clone();
    world.roster = world.roster_of(&world.store.log[&whole.mesh_id()].clone());
    let of_bob = world.join(&mut bob);
    world.sent_to(of_bob);
    world.roster = whole;

    let of_alice = world.greet(&mut alice);
    assert_eq!(wanted(&world.sent_to(of_alice)), Some(4));
    let frames = returns(&mut world, of_alice, 4, &lost);

    assert!(is_welcomed(&frames), "{frames:?}");
    assert_eq!(world.store.log[&world.mesh()][4..], lost[..]);
    let told = |(index, entry): (u64, &Bytes)| ToNode::Entries {
        from: index,
        entries: vec![entry.clone()],
        size: index + 1,
    };
    assert_eq!(world.sent_to(of_bob)[..2], [told((4, &lost[0])), told((5, &lost[1]))]);
    assert_eq!(world.hub.counters().log_regained, 2);
    world.restart();
    let again = world.greet(&mut alice);
    assert!(is_welcomed(&world.sent_to(again)), "it is on the disk");
}

#[test]
fn a_member_whose_admission_was_lost_brings_it_itself() {
    let (mut world, lost) = put_back();
    let mut emil = Node::named("emil");
    let socket = world.greet(&mut emil);
    assert_eq!(wanted(&world.sent_to(socket)), Some(4));
    assert!(is_welcomed(&returns(&mut world, socket, 4, &lost)));
}

#[test]
fn a_log_comes_back_in_parts_and_from_several_at_once() {
    let (mut world, lost) = put_back();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    world.disk = Disk::WhenTold;
    let (of_alice, of_bob) = (world.greet(&mut alice), world.greet(&mut bob));
    assert_eq!(wanted(&world.sent_to(of_bob)), Some(4));
    assert!(!is_welcomed(&returns(&mut world, of_alice, 4, &lost[..1])));
    assert_eq!(returns(&mut world, of_bob, 4, &lost), []);

    world.commit();

    assert_eq!(wanted(&world.sent_to(of_alice)), Some(5), "the rest is asked for");
    assert_eq!(wanted(&world.sent_to(of_bob)), Some(5));
    returns(&mut world, of_bob, 5, &lost[1..]);
    world.commit();
    assert!(is_welcomed(&world.sent_to(of_bob)));
    assert!(is_welcomed(&returns(&mut world, of_alice, 5, &lost[1..])));
    assert_eq!(world.store.log[&world.mesh()].len(), 6);
}

#[test]
fn what_the_coordinator_did_not_sequence_is_not_taken() {
    let (mut world, lost) = put_back();
    let mut alice = Node::named("alice");
    let of_alice = world.greet(&mut alice);
    world.sent_to(of_alice);
    let mut forged = WireEntry::parse(&lost[0]).expect("an entry");
    forged.seq = forged.seq.map(|mut seq| {
        seq.0[0] ^= 1;
        seq
    });
    let frames = returns(&mut world, of_alice, 4, &[forged.encode().into()]);
    assert!(is_welcomed(&frames), "it is a member by the log that is there: {frames:?}");
    assert_eq!(world.store.log[&world.mesh()].len(), 4);
    let frames = returns(&mut world, of_alice, 4, &lost);
    assert_eq!(code_of(&frames), Some("malformed"), "nobody asked again");

    let mut bob = Node::named("bob");
    let of_bob = world.greet(&mut bob);
    assert_eq!(wanted(&world.sent_to(of_bob)), Some(4));
    assert_eq!(code_of(&returns(&mut world, of_bob, 3, &lost)), Some("malformed"), "it was asked from 4 on");
}

#[test]
fn what_could_not_be_written_is_given_back_again() {
    let (mut world, lost) = put_back();
    let mut alice = Node::named("alice");
    let of_alice = world.greet(&mut alice);
    world.disk = Disk::WhenTold;
    returns(&mut world, of_alice, 4, &lost);
    world.fail(CommitFailure::Nothing);
    assert_eq!(code_of(&world.sent_to(of_alice)), Some("store"));
    world.disk = Disk::AtOnce;
    world.pass(Duration::from_secs(2));
    let of_alice = world.greet(&mut alice);
    assert!(is_welcomed(&returns(&mut world, of_alice, 4, &lost)));
}

#[test]
fn a_mesh_that_was_lost_whole_comes_back_by_its_places_and_not_by_its_genesis() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let mesh = world.mesh();
    let log = world.store.log[&mesh].clone();
    world.store.log.clear();
    world.restart();

    let socket = world.greet(&mut alice);
    assert_eq!(wanted(&world.sent_to(socket)), Some(0));
    assert_eq!(
        code_of(&returns(&mut world, socket, 0, &log[..1])),
        Some("mesh"),
        "anyone can write a genesis"
    );
    let socket = world.greet(&mut alice);
    world.sent_to(socket);
    let unplaced: Vec<Bytes> = world.beginning.clone();
    assert_eq!(code_of(&returns(&mut world, socket, 0, &unplaced)), Some("mesh"));
    assert_eq!(world.store.log.get(&mesh), None);

    let socket = world.greet(&mut alice);
    world.sent_to(socket);
    assert!(is_welcomed(&returns(&mut world, socket, 0, &log)));
    assert_eq!(world.store.log[&mesh], log);
    world.restart();
    let socket = world.greet(&mut alice);
    assert!(is_welcomed(&world.sent_to(socket)));
}

#[test]
fn nobody_is_let_into_a_lost_mesh_before_it_is_on_the_disk_and_its_entries_wait_then() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    let mesh = world.mesh();
    let log = world.store.log[&mesh].clone();
    world.store.log.clear();
    world.restart();
    // It began long ago, and whatever was doubted then is settled.
    world.pass(Duration::from_secs(7_200));

    world.disk = Disk::WhenTold;
    let (of_alice, of_bob) = (world.greet(&mut alice), world.greet(&mut bob));
    assert_eq!(wanted(&returns(&mut world, of_alice, 0, &log)), Some(0), "and nothing after that");
    returns(&mut world, of_bob, 0, &log);
    world.fail(CommitFailure::Nothing);
    for socket in [of_alice, of_bob] {
        assert_eq!(code_of(&world.sent_to(socket)), Some("store"));
    }
    world.pass(Duration::from_secs(2));
    let (of_alice, of_bob) = (world.greet(&mut alice), world.greet(&mut bob));
    returns(&mut world, of_alice, 0, &log);
    returns(&mut world, of_bob, 0, &log);
    world.commit();

    world.disk = Disk::AtOnce;
    for socket in [of_alice, of_bob] {
        assert!(is_welcomed(&world.sent_to(socket)));
    }
    assert_eq!(world.store.log[&mesh], log);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice).as_deref(), Some("comparing"));
    world.pass(Duration::from_secs(46));
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
}

/// Alice asks for a place.
fn asks_for_a_place(world: &mut World, by: &Node, socket: SocketId) -> Option<String> {
    let name = format!("n{}", world.roster.size());
    let entry = world.roster.member_add(&by.key, newcomer(&name, Role::Member), world.now.wall).encode();
    world.frame(socket, ToCoordinator::LogAppend { request: 1, entry: entry.into() });
    let frames = world.sent_to(socket);
    for frame in &frames {
        if let ToNode::Appended { entry, .. } = frame {
            world.learn(entry);
        }
    }
    code_of(&frames).map(str::to_owned)
}

#[test]
fn after_a_long_silence_entries_wait_for_an_admin_and_for_who_was_connected() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    world.store.silence = Some(Duration::from_secs(3_600));
    world.restart();
    let of_bob = world.join(&mut bob);
    assert_eq!(asks_for_a_place(&mut world, &bob, of_bob).as_deref(), Some("comparing"));
    let of_alice = world.join(&mut alice);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice).as_deref(), Some("comparing"));
    world.pass(Duration::from_secs(46));
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
}

#[test]
fn an_hour_without_an_admin_is_enough_and_a_short_restart_needs_none_of_it() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    world.store.silence = Some(Duration::from_secs(3_600));
    world.restart();
    world.pass(Duration::from_secs(3_599));
    let of_bob = world.join(&mut bob);
    assert_eq!(asks_for_a_place(&mut world, &bob, of_bob).as_deref(), Some("comparing"));
    world.pass(Duration::from_secs(2));
    assert_eq!(asks_for_a_place(&mut world, &bob, of_bob).as_deref(), Some("log-authority"));

    world.store.silence = Some(Duration::from_secs(30));
    world.restart();
    let of_alice = world.join(&mut alice);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
}

#[test]
fn a_node_that_knows_a_later_state_makes_entries_wait_once_a_run() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Node::named("alice"), Node::named("bob"));
    world.restart();
    let of_alice = world.join(&mut alice);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
    let mut later = world.store.runs.current;
    later.commit += 100;
    bob.mark = Some(later);
    world.join(&mut bob);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice).as_deref(), Some("comparing"));
    assert_eq!(world.hub.counters().marks_lost, 1);
    world.pass(Duration::from_secs(46));
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
    // It says so again and again: that is no reason to wait for ever.
    world.join(&mut bob);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
}

#[test]
fn a_mesh_that_began_in_this_run_waits_for_nothing() {
    let mut world = World::new();
    let mut alice = Node::named("alice");
    let _: MeshId = world.mesh();
    let mut later = world.store.runs.current;
    later.commit += 100;
    alice.mark = Some(later);
    let of_alice = world.join(&mut alice);
    assert_eq!(asks_for_a_place(&mut world, &alice, of_alice), None);
}
