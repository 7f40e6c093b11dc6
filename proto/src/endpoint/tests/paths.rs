//! Direct links: made by the first message, bound to identities, preferred while they hold.

use std::time::Duration;

use super::world::{ALICE, BOB, CAROL, Direct, World};
use crate::endpoint::{OutboxState, PathKind, Request};
use crate::limits::{DIRECT_IDLE_MAX, DIRECT_LIFE_MAX};
use crate::wire::OnLink;

#[test]
fn the_first_message_goes_by_relay_at_once_and_the_next_ones_directly_in_the_same_bytes() {
    let mut world = World::new(2, Direct::Works);
    let first = world.send(ALICE, BOB, "first");
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    let second = world.send(ALICE, BOB, "second");
    world.settle();

    let paths: Vec<_> = world.nodes[BOB].disk.readable().iter().map(|row| row.path).collect();
    assert_eq!(paths, [PathKind::Relay, PathKind::Direct]);
    assert_eq!(world.carried(first).len(), 1);
    assert_eq!(world.carried(second).len(), 1);
    assert_eq!(world.state(ALICE, second, BOB), OutboxState::Stored);
    let view =
        world.endpoint(ALICE).peer_views().into_iter().find(|view| view.peer == world.id(BOB)).unwrap();
    assert_eq!((view.path, view.why_not_direct), (Some(PathKind::Direct), None));
}

#[test]
fn two_simultaneous_offers_end_in_one_link() {
    let mut world = World::new(2, Direct::Works);
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world.ask(BOB, Request::Connect(world.id(ALICE)));
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!((world.links_made, world.links_open()), (1, 1));
}

#[test]
fn asking_for_a_link_that_is_there_leaves_it_alone() {
    let mut world = World::new(2, Direct::Works);
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world.settle();
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!((world.links_made, world.links_open()), (1, 1));
}

#[test]
fn messages_while_a_link_is_being_bound_start_no_second_one() {
    let mut world = World::new(2, Direct::Works);
    for n in 0..100 {
        world.send(ALICE, BOB, &n.to_string());
        world.send(BOB, ALICE, &n.to_string());
        world.pass(Duration::from_millis(1));
    }
    world.settle();
    assert_eq!((world.links_made, world.links_open()), (1, 1));
}

#[test]
fn a_link_with_someone_between_is_refused_and_the_relay_goes_on() {
    let mut world = World::new(2, Direct::Works);
    world.exporter_of_dialler = [1; 32];
    let id = world.send(ALICE, BOB, "hi");
    world.settle();

    assert!(!world.is_direct(ALICE, BOB));
    assert_eq!(world.links_open(), 0);
    assert_eq!(world.linked, []);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    let view =
        world.endpoint(BOB).peer_views().into_iter().find(|view| view.peer == world.id(ALICE)).unwrap();
    assert_eq!(view.why_not_direct.as_deref(), Some("the exporters differ"));
}

#[test]
fn a_bound_link_carries_only_its_peers_mail() {
    let mut world = World::new(3, Direct::Works);
    world.send(ALICE, BOB, "makes a link");
    let from_carol = world.send(CAROL, BOB, "hers");
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    world.cut_direct();
    world.settle();
    world.send(ALICE, BOB, "makes another");
    world.settle();
    let envelope = world.carried(from_carol)[0].clone();
    let made = world.links_made;
    world.inject_on_link(BOB, &OnLink::Envelope { envelope });
    world.settle();
    assert_eq!(world.links_made, made + 1, "another's envelope ended the link, and its peer made another");
}

#[test]
fn garbage_on_a_link_ends_it_and_nothing_else() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "hi");
    world.settle();
    world.inject_on_link(BOB, &OnLink::Envelope { envelope: bytes::Bytes::from_static(b"garbage") });
    world.settle();
    assert_eq!(
        (world.links_made, world.links_open()),
        (2, 1),
        "its peer, who said no such thing, made another"
    );
    let id = world.send(ALICE, BOB, "still here");
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_link_that_falls_silent_loses_nothing() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "makes a link");
    world.settle();
    world.direct = Direct::Silent;
    let id = world.send(ALICE, BOB, "copied to the relay");
    world.pass(Duration::from_millis(1_200));
    assert_eq!(world.inbox(BOB), ["makes a link", "copied to the relay"]);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    let copies = world.carried(id);
    assert_eq!(copies.len(), 2);
    assert_eq!(copies[0], copies[1]);
}

#[test]
fn a_link_that_fell_silent_is_passed_by_until_it_speaks_again() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "makes a link");
    world.settle();
    world.direct = Direct::Silent;
    world.send(ALICE, BOB, "raises the suspicion");
    world.pass(Duration::from_millis(1_200));
    let id = world.send(ALICE, BOB, "does not wait for it");
    world.pass(Duration::from_millis(200));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);

    world.direct = Direct::Works;
    world.send(BOB, ALICE, "speaks");
    world.settle();
    let direct = world.send(ALICE, BOB, "direct again");
    world.settle();
    assert_eq!(world.linked.last().map(|(id, _)| *id), Some(direct));
}

#[test]
fn a_silent_link_without_a_coordinator_is_waited_for_without_spinning() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "makes a link");
    world.settle();
    world.coordinator_down();
    world.direct = Direct::Silent;
    let id = world.send(ALICE, BOB, "swallowed");
    let before = world.nodes[ALICE].batches;
    world.pass(Duration::from_secs(60));
    assert!(world.nodes[ALICE].batches - before < 50, "{}", world.nodes[ALICE].batches - before);

    world.coordinator_up = true;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_link_alone_carries_mail_and_receipts_while_the_coordinator_is_away() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "makes a link");
    world.settle();
    world.coordinator_down();
    world.settle();
    let id = world.send(ALICE, BOB, "direct only");
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    world.read_all(BOB);
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Surfaced);
}

#[test]
fn idle_and_old_links_are_closed_and_made_anew_by_the_next_message() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "one");
    world.settle();
    world.pass(DIRECT_IDLE_MAX);
    assert_eq!(world.links_open(), 0);
    world.send(ALICE, BOB, "two");
    world.settle();
    assert!(world.is_direct(ALICE, BOB));

    let minutes = DIRECT_LIFE_MAX.as_secs() / 60;
    for _ in 0..=minutes {
        world.send(ALICE, BOB, "busy");
        world.pass(Duration::from_secs(60));
    }
    world.settle();
    assert_eq!(world.links_made, 3);
    assert!(world.is_direct(ALICE, BOB));
}

#[test]
fn a_peer_that_cannot_be_dialled_is_rested_longer_each_time_and_the_reason_is_kept() {
    let mut world = World::new(2, Direct::Blocked);
    for _ in 0..60 {
        world.send(ALICE, BOB, "hi");
        world.pass(Duration::from_secs(1));
    }
    world.settle();
    let view =
        world.endpoint(ALICE).peer_views().into_iter().find(|view| view.peer == world.id(BOB)).unwrap();
    let why = "no answer from host 127.0.0.1:7001";
    assert_eq!((view.path, view.why_not_direct.as_deref()), (Some(PathKind::Relay), Some(why)));
    let signals = world.coordinator.carried.len() - 60;
    assert!(signals <= 2 * 7, "an offer and an answer for each of few attempts, not {signals}");
}

#[test]
fn a_restarted_peer_is_met_again_over_a_new_link() {
    let mut world = World::new(2, Direct::Works);
    world.send(ALICE, BOB, "one");
    world.settle();
    world.restart(BOB);
    world.settle();
    world.send(ALICE, BOB, "two");
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!(world.inbox(BOB), ["one", "two"]);
}
