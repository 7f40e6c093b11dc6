//! Direct links through NATs: which pairs meet, how fast, and what people are told where they do not.

use std::time::Duration;

use super::world::{ALICE, BOB, Site, World};
use crate::endpoint::{OutboxState, PeerView, Request};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::paths::{CandidateKind, CandidateState, Mapping, Ports};

/// One way, by relay and directly: 50 ms round trips.
const DELAY: Duration = Duration::from_millis(25);

/// A millisecond, the step in which progress is looked for.
const STEP: Duration = Duration::from_millis(1);

/// Sends the first message; gives how long after it was stored both sides were direct, if they were.
fn time_to_direct(world: &mut World) -> Option<Duration> {
    world.send(ALICE, BOB, "hi");
    let mut stored = None;
    for ms in 0..15_000 {
        world.pass(STEP);
        let now = Duration::from_millis(ms);
        stored = stored.or((!world.inbox(BOB).is_empty()).then_some(now));
        if world.is_direct(ALICE, BOB) {
            return Some(now - stored.expect("the relay is no slower"));
        }
    }
    assert_eq!(world.inbox(BOB), ["hi"]);
    None
}

fn view(world: &World, of: usize, peer: usize) -> PeerView {
    world.endpoint(of).peer_views().into_iter().find(|view| view.peer == world.id(peer)).unwrap()
}

#[test]
fn every_pair_of_nats_meets_but_two_that_give_every_destination_another_port() {
    for a in Site::NATS {
        for b in Site::NATS {
            let mut world = World::behind([a, b], DELAY);
            let direct = time_to_direct(&mut world);
            let meets = [a, b] != [Site::Symmetric; 2];
            assert_eq!(direct.is_some(), meets, "{a:?} × {b:?}: {direct:?}");
            assert_eq!(world.sockets_open.concat(), [0; 0], "{a:?} × {b:?}: none is left open");
        }
    }
}

#[test]
fn a_birthday_punch_takes_less_than_half_a_second_on_short_paths() {
    for sites in [[Site::PortRestricted, Site::Symmetric], [Site::Symmetric, Site::PortRestricted]] {
        let mut world = World::behind(sites, Duration::from_millis(5));
        let before = world.datagrams;
        let direct = time_to_direct(&mut world).expect("they meet");
        assert!(direct <= Duration::from_millis(500), "{sites:?}: {direct:?}");
        assert!(world.datagrams - before > 100, "ports were guessed");
    }
}

#[test]
fn cones_guess_nothing() {
    for site in [Site::Open, Site::FullCone, Site::AddressRestricted] {
        let mut world = World::behind([site, Site::Symmetric], DELAY);
        let before = world.datagrams;
        assert!(time_to_direct(&mut world).is_some());
        assert!(world.datagrams - before < 50, "{site:?}: {}", world.datagrams - before);
    }
}

#[test]
fn ports_are_guessed_once_a_minute_and_at_a_bounded_pace() {
    let mut world = World::behind([Site::PortRestricted, Site::Symmetric], DELAY);
    world.guesses_miss = true;
    let mut busiest = 0;
    let mut per_second = Vec::new();
    world.send(ALICE, BOB, "hi");
    for second in 0..180 {
        world.ask(ALICE, Request::Connect(world.id(BOB)));
        let before = world.datagrams;
        world.pass(Duration::from_secs(1));
        busiest = busiest.max(world.datagrams - before);
        per_second.push((second, world.datagrams - before));
    }
    assert!(!world.is_direct(ALICE, BOB));
    assert!(busiest < 4_000 + 2_000, "{busiest} in one second, by both sides");
    let bursts: Vec<u64> =
        per_second.iter().filter(|(_, sent)| *sent > 1_000).map(|(second, _)| *second).collect();
    assert!(bursts.len() <= 3 * 3, "{bursts:?}");
    assert_eq!(world.sockets_open.concat().len(), 0);
}

#[test]
fn cones_are_direct_within_three_and_a_half_round_trips_of_the_first_message() {
    let cones = [Site::Open, Site::FullCone, Site::AddressRestricted, Site::PortRestricted];
    for a in cones {
        for b in cones {
            let mut world = World::behind([a, b], DELAY);
            let direct = time_to_direct(&mut world).expect("they meet");
            assert!(direct <= Duration::from_millis(175), "{a:?} × {b:?}: {direct:?}");
        }
    }
}

#[test]
fn a_third_of_all_datagrams_may_be_lost() {
    for every in [2, 3] {
        let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], DELAY);
        world.lose_every = Some(every);
        let direct = time_to_direct(&mut world).expect("they meet");
        assert!(direct <= Duration::from_millis(600), "{direct:?}");
    }
}

#[test]
fn two_offers_at_once_through_nats_end_in_one_link() {
    let mut world = World::behind([Site::PortRestricted, Site::AddressRestricted], DELAY);
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world.ask(BOB, Request::Connect(world.id(ALICE)));
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!((world.links_made, world.links_open()), (1, 1));
}

#[test]
fn a_node_knows_its_nat_before_anyone_asks() {
    let network = |site| World::behind([site, Site::Open], DELAY).endpoint(ALICE).network_view();
    let cone = network(Site::PortRestricted);
    assert_eq!((cone.nat.mapping, cone.nat.ports), (Mapping::EndpointIndependent, Ports::Preserving));
    let kinds: Vec<_> = cone.candidates.iter().map(|candidate| candidate.kind).collect();
    assert_eq!(kinds, [CandidateKind::Reflexive, CandidateKind::Host]);
    assert!(cone.servers.iter().all(|server| server.rtt_us == Some(50_000)));

    let hard = network(Site::Symmetric).nat;
    assert_eq!((hard.mapping, hard.ports), (Mapping::AddressAndPortDependent, Ports::Random));
    assert_eq!(network(Site::Open).nat.mapping, Mapping::Open);
}

#[test]
fn who_stays_on_the_relay_is_told_what_was_tried_and_what_stands_between() {
    let mut world = World::behind([Site::PortRestricted, Site::Symmetric], DELAY);
    world.guesses_miss = true;
    assert_eq!(time_to_direct(&mut world), None);
    let view = view(&world, ALICE, BOB);
    assert_eq!(
        view.why_not_direct.as_deref(),
        Some(
            "no answer from reflexive 203.0.113.2:20000, reflexive 203.0.113.2:27919, \
             reflexive 203.0.113.2:35838, 1 more nor from guessed ports; \
             here is an endpoint-independent NAT; there is an address- and port-dependent NAT"
        )
    );
    let checks = view.checks.unwrap();
    assert_eq!(checks.peer_nat.mapping, Mapping::AddressAndPortDependent);
    assert!(checks.candidates.iter().all(|row| row.state == CandidateState::Silent));
}

#[test]
fn blocked_udp_is_named_on_both_sides_and_the_relay_carries_on() {
    let mut world = World::behind([Site::Blocked, Site::Open], DELAY);
    world.pass(Duration::from_secs(5));
    assert_eq!(time_to_direct(&mut world), None);
    assert_eq!(world.endpoint(ALICE).network_view().nat.mapping, Mapping::Blocked);
    let why = |of, peer| view(&world, of, peer).why_not_direct.unwrap_or_default();
    assert!(why(ALICE, BOB).starts_with("UDP does not get out of this network"), "{}", why(ALICE, BOB));
    assert!(why(BOB, ALICE).starts_with("UDP does not get out of the peer's network"), "{}", why(BOB, ALICE));
    let id = world.send(ALICE, BOB, "still here");
    world.settle();
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_symmetric_nats_port_is_learned_from_its_check() {
    let mut world = World::behind([Site::FullCone, Site::Symmetric], DELAY);
    assert!(time_to_direct(&mut world).is_some());
    let checks = view(&world, ALICE, BOB).checks.unwrap();
    let proven: Vec<_> = checks.candidates.iter().filter(|row| row.state == CandidateState::Proven).collect();
    assert_eq!(proven.len(), 1);
    assert_eq!(proven[0].kind, CandidateKind::PeerReflexive);
}

#[test]
fn an_idle_node_sends_nothing() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], DELAY);
    let before = world.datagrams;
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.datagrams, before);
}

#[test]
fn an_address_that_changed_since_the_last_offer_is_told_when_it_is_known() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], DELAY);
    world.renumber_outside(BOB);
    world.pass(Duration::from_secs(60));
    assert!(time_to_direct(&mut world).is_some());
}

#[test]
fn an_address_that_changed_a_moment_ago_is_asked_for_where_nothing_answers() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], DELAY);
    world.renumber_outside(BOB);
    let direct = time_to_direct(&mut world).expect("they meet");
    assert!(direct <= Duration::from_millis(600), "{direct:?}");
}

#[test]
fn an_attempt_under_way_follows_its_node_to_another_network() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], DELAY);
    world.ask(ALICE, Request::Connect(world.id(BOB)));
    world.pass(Duration::from_millis(60));
    world.renumber(ALICE);
    world.pass(HANDSHAKE_TIMEOUT);
    assert!(world.is_direct(ALICE, BOB));
}
