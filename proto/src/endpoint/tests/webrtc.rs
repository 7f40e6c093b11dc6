//! The same attempts over WebRTC: beside QUIC, in its place, or not at all.

use std::time::Duration;

use super::mesh::cert;
use super::world::{ALICE, BOB, Direct, World};
use crate::bind::BindTransport;
use crate::endpoint::{OutboxState, Request, WebRtcAct};
use crate::ice::IceCredentials;
use crate::signal::{Means, WebRtcMeans};

/// What a node makes links with.
fn means(node: usize, quic: bool, webrtc: bool) -> Means {
    let cert = cert(node);
    Means { quic: quic.then_some(cert), webrtc: webrtc.then_some(WebRtcMeans { cert, ice: None }) }
}

/// Two nodes, each with its means, and a wish of Alice's for a link.
fn world(alice: Means, bob: Means) -> World {
    let mut world = World::asleep(2, Direct::Works);
    for (node, means) in [(ALICE, alice), (BOB, bob)] {
        world.nodes[node].means = means;
        world.start(node);
    }
    world.settle();
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world
}

fn transport(world: &World, of: usize, peer: usize) -> Option<BindTransport> {
    let views = world.endpoint(of).peer_views();
    views.into_iter().find(|view| view.peer == world.id(peer)).and_then(|view| view.transport)
}

fn dials(world: &World) -> usize {
    world.webrtc.iter().filter(|(_, act)| matches!(act, WebRtcAct::Dial(_))).count()
}

#[test]
fn where_quic_works_webrtc_is_expected_and_never_dialled() {
    let mut world = world(means(ALICE, true, true), means(BOB, true, true));
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!(transport(&world, ALICE, BOB), Some(BindTransport::Quic));
    assert_eq!((world.webrtc.len(), dials(&world)), (1, 0));
    // Nobody waits for what lost.
    assert_eq!(world.expected(BOB), 0);
}

#[test]
fn where_quic_is_swallowed_webrtc_takes_over_after_its_head_start() {
    let mut world = world(means(ALICE, true, true), means(BOB, true, true));
    world.quic_blocked = true;
    world.pass(Duration::from_millis(900));
    assert!(!world.is_direct(ALICE, BOB));
    world.pass(Duration::from_millis(300));
    assert!(world.is_direct(ALICE, BOB));
    for (of, peer) in [(ALICE, BOB), (BOB, ALICE)] {
        assert_eq!(transport(&world, of, peer), Some(BindTransport::Dtls));
    }
    let id = world.send(BOB, ALICE, "over a data channel");
    world.settle();
    assert_eq!(world.state(BOB, id, ALICE), OutboxState::Stored);
    assert_eq!(world.linked.iter().filter(|(linked, _)| *linked == id).count(), 1);
    assert_eq!((world.links_made, world.links_open()), (1, 1));
}

#[test]
fn a_peer_that_makes_nothing_else_is_dialled_at_once() {
    for (alice, bob) in [((true, true), (false, true)), ((false, true), (true, true))] {
        let mut world = world(means(ALICE, alice.0, alice.1), means(BOB, bob.0, bob.1));
        world.pass(Duration::from_millis(200));
        assert!(world.is_direct(ALICE, BOB));
        assert_eq!(transport(&world, ALICE, BOB), Some(BindTransport::Dtls));
    }
}

#[test]
fn peers_that_share_no_transport_stay_on_the_relay() {
    let mut world = world(means(ALICE, true, false), means(BOB, false, true));
    let id = world.send(ALICE, BOB, "by relay");
    world.settle();
    assert!(!world.is_direct(ALICE, BOB));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    assert_eq!(world.webrtc, []);
    let views = world.endpoint(ALICE).peer_views();
    let view = views.into_iter().find(|view| view.peer == world.id(BOB)).unwrap();
    assert_eq!(view.why_not_direct.as_deref(), Some("the peer makes no direct links"));
}

#[test]
fn credentials_that_a_peer_chose_reach_the_host_with_its_addresses() {
    let chosen = IceCredentials::chosen("abcd", &"p".repeat(24));
    let browser_of =
        |node| Means { quic: None, webrtc: Some(WebRtcMeans { cert: cert(node), ice: chosen.clone() }) };
    // Dialled by us …
    let mut dialled = world(means(ALICE, true, true), browser_of(BOB));
    dialled.settle();
    let Some((_, WebRtcAct::Dial(peer))) = dialled.webrtc.iter().find(|(node, _)| *node == ALICE) else {
        panic!("{:?}", dialled.webrtc)
    };
    assert_eq!((&peer.ice, peer.candidates.len()), (&chosen, 1));
    // … and expected by us: its checks are answered by ours.
    let mut expected = World::asleep(2, Direct::Works);
    expected.nodes[ALICE].means = browser_of(ALICE);
    expected.nodes[BOB].means = means(BOB, true, true);
    (0..2).for_each(|node| expected.start(node));
    expected.settle();
    expected.ask(ALICE, Request::Connect(expected.id(BOB)));
    expected.settle();
    let Some((_, WebRtcAct::Expect(peer))) = expected.webrtc.iter().find(|(node, _)| *node == BOB) else {
        panic!("{:?}", expected.webrtc)
    };
    assert_eq!((&peer.ice, peer.candidates.len()), (&chosen, 1));
}

#[test]
fn an_attempt_that_nothing_answers_ends_with_a_reason() {
    let mut world = world(means(ALICE, true, true), means(BOB, true, true));
    world.direct = Direct::Blocked;
    world.pass(Duration::from_secs(20));
    assert!(!world.is_direct(ALICE, BOB));
    assert_eq!(world.expected(BOB), 0);
    let views = world.endpoint(ALICE).peer_views();
    let view = views.into_iter().find(|view| view.peer == world.id(BOB)).unwrap();
    assert!(view.why_not_direct.is_some());
}
