//! What a node's owner wants of the ways to others holds, peer by peer.

use std::time::Duration;

use super::world::{ALICE, BOB, CAROL, Direct, Site, World};
use crate::endpoint::{OutboxState, PathKind, PeerView, Request};
use crate::id::MessageId;
use crate::paths::{PathPolicies, PathPolicy};

/// Alice's policy for one peer.
fn alice_wants(world: &mut World, policy: PathPolicy, of: usize) {
    let peer = world.id(of);
    let handle = world.endpoint(ALICE).roster().member(&peer).unwrap().handle.clone();
    let named = [(handle, policy)].into();
    world.nodes[ALICE].endpoint.policies = PathPolicies { named, ..PathPolicies::default() };
}

fn was_relayed(world: &World, id: MessageId) -> bool {
    world.coordinator.carried.iter().any(|(carried, _)| *carried == id)
}

fn view(world: &World, peer: usize) -> PeerView {
    world.endpoint(ALICE).peer_views().into_iter().find(|view| view.peer == world.id(peer)).unwrap()
}

#[test]
fn with_relay_only_no_link_is_offered_or_taken_and_no_address_is_told() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], Duration::from_millis(25));
    alice_wants(&mut world, PathPolicy::RelayOnly, BOB);
    let before = world.datagrams;
    world.send(ALICE, BOB, "there");
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world.settle();
    let why = view(&world, BOB).why_not_direct;
    assert_eq!(why.as_deref(), Some("the configuration here keeps this peer on the relay"));
    world.send(BOB, ALICE, "and back");
    world.pass(Duration::from_secs(60));
    assert_eq!(
        (world.inbox(BOB), world.inbox(ALICE)),
        (vec!["there".to_owned()], vec!["and back".to_owned()])
    );
    assert_eq!((world.links_made, world.datagrams), (0, before));
}

#[test]
fn relay_only_for_one_peer_leaves_the_others_direct() {
    let mut world = World::new(3, Direct::Works);
    alice_wants(&mut world, PathPolicy::RelayOnly, BOB);
    for peer in [BOB, CAROL] {
        world.send(ALICE, peer, "hi");
    }
    world.settle();
    assert_eq!((world.is_direct(ALICE, BOB), world.is_direct(ALICE, CAROL)), (false, true));
}

#[test]
fn with_direct_only_a_message_waits_for_a_link_and_never_passes_the_coordinator() {
    let mut world = World::new(2, Direct::Blocked);
    alice_wants(&mut world, PathPolicy::DirectOnly, BOB);
    let id = world.send(ALICE, BOB, "only directly");
    world.pass(Duration::from_secs(300));
    assert_eq!((world.state(ALICE, id, BOB), view(&world, BOB).path), (OutboxState::Pending, None));
    assert!(view(&world, BOB).why_not_direct.is_some());

    world.direct = Direct::Works;
    world.pass(Duration::from_secs(70));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.nodes[BOB].disk.readable().last().unwrap().path, PathKind::Direct);
    assert!(!was_relayed(&world, id));
}

#[test]
fn with_direct_only_what_a_silent_link_keeps_is_not_copied_to_the_relay() {
    let mut world = World::new(2, Direct::Works);
    alice_wants(&mut world, PathPolicy::DirectOnly, BOB);
    let mut sent = vec![world.send(ALICE, BOB, "makes a link")];
    world.settle();
    world.direct = Direct::Silent;
    for n in 0..50 {
        sent.push(world.send(ALICE, BOB, &n.to_string()));
        world.pass(Duration::from_millis(100));
    }
    world.direct = Direct::Works;
    world.pass(Duration::from_secs(70));
    for id in sent {
        assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
        assert!(!was_relayed(&world, id));
    }
}
