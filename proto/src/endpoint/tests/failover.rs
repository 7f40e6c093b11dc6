//! Direct links that fall silent, end, grow old or are overtaken by a change of network: the
//! conversation does not notice, and what was direct is direct again soon.

use std::time::Duration;

use super::world::{ALICE, BOB, Direct, Site, World};
use crate::endpoint::{Event, OutboxState, PathKind, UplinkStatus};
use crate::limits::{DIRECT_IDLE_MAX, DIRECT_LIFE_MAX};

/// How long a message on a dead link may be held up.
const STALL_MAX: Duration = Duration::from_millis(300);

/// How long after the network's return both are direct again.
const BACK_WITHIN: Duration = Duration::from_secs(5);

fn linked(world: &mut World) {
    world.send(ALICE, BOB, "makes a link");
    world.settle();
    assert!(world.is_direct(ALICE, BOB));
}

fn linked_world() -> World {
    let mut world = World::new(2, Direct::Works);
    linked(&mut world);
    world
}

#[test]
fn a_message_on_a_dead_link_is_stored_by_relay_within_300_ms() {
    let mut world = linked_world();
    for n in 0..20 {
        world.send(ALICE, BOB, &n.to_string());
        world.pass(Duration::from_millis(20));
    }
    world.direct = Direct::Silent;
    let id = world.send(ALICE, BOB, "swallowed");
    world.pass(STALL_MAX);
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    let next = world.send(ALICE, BOB, "does not try the dead link");
    world.pass(Duration::from_millis(50));
    assert_eq!(world.state(ALICE, next, BOB), OutboxState::Stored);
    assert_eq!(world.carried(next).len(), 1);
}

#[test]
fn a_link_that_answers_late_but_answers_is_not_left() {
    let mut world = linked_world();
    world.link_delay = Duration::from_millis(60);
    for n in 0..50 {
        world.send(ALICE, BOB, &n.to_string());
        world.pass(Duration::from_millis(20));
    }
    world.settle();
    let copies = world.coordinator.carried.len();
    for n in 50..100 {
        world.send(ALICE, BOB, &n.to_string());
        world.pass(Duration::from_millis(20));
    }
    world.settle();
    assert_eq!(world.coordinator.carried.len(), copies, "nothing went by relay");
}

#[test]
fn a_link_that_stays_silent_is_given_up_and_is_there_again_soon_after_the_network_is() {
    let mut world = linked_world();
    for cut in [1, 4, 9, 17, 40] {
        world.direct = Direct::Silent;
        let id = world.send(ALICE, BOB, "swallowed");
        world.pass(Duration::from_secs(cut));
        assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
        assert!(cut < 4 || !world.is_direct(ALICE, BOB), "a status word has evidence");
        world.direct = Direct::Works;
        world.pass(BACK_WITHIN);
        assert!(world.is_direct(ALICE, BOB), "after {cut} s");
        let id = world.send(ALICE, BOB, "direct");
        world.pass(Duration::from_millis(50));
        assert_eq!(world.nodes[BOB].disk.readable().last().unwrap().path, PathKind::Direct, "{cut} s");
        assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
    }
}

#[test]
fn a_link_that_broke_in_use_is_made_again_without_waiting_for_a_message() {
    let mut world = linked_world();
    world.cut_direct();
    world.pass(Duration::from_secs(1));
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!(world.links_made, 2);
}

#[test]
fn a_link_that_broke_long_after_its_last_message_is_not_made_again() {
    let mut world = linked_world();
    world.pass(Duration::from_secs(120));
    world.cut_direct();
    world.pass(Duration::from_secs(600));
    assert_eq!((world.links_made, world.links_open()), (1, 0));
}

#[test]
fn what_cannot_be_made_again_is_not_tried_for_ever() {
    let mut world = linked_world();
    world.direct = Direct::Blocked;
    world.cut_direct();
    world.pass(DIRECT_IDLE_MAX + Duration::from_secs(30));
    let (signals, datagrams) = (world.coordinator.carried.len(), world.datagrams);
    assert!(signals < 200, "{signals} in five minutes");
    world.pass(Duration::from_secs(3_600));
    assert_eq!((world.coordinator.carried.len(), world.datagrams), (signals, datagrams));
}

#[test]
fn a_conversation_in_use_sees_its_link_renewed_without_a_gap() {
    let mut world = linked_world();
    world.nodes[ALICE].events.clear();
    for _ in 0..=2 * DIRECT_LIFE_MAX.as_secs() / 60 {
        world.send(ALICE, BOB, "busy");
        world.pass(Duration::from_secs(60));
    }
    let gaps = world.nodes[ALICE].events.iter();
    let gaps = gaps.filter(|event| matches!(event, Event::Path { path: None, .. })).count();
    assert_eq!(gaps, 0);
    assert_eq!((world.links_made, world.links_open()), (3, 1));
    let relayed = world.nodes[BOB].disk.readable().iter().filter(|row| row.path == PathKind::Relay).count();
    assert_eq!(relayed, 1, "the first message alone");
}

#[test]
fn a_machine_that_slept_finds_out_that_its_link_died_without_sending_anything() {
    let mut world = linked_world();
    world.direct = Direct::Silent;
    world.pass(Duration::from_secs(30));
    world.wake(ALICE);
    world.pass(Duration::from_secs(4));
    assert!(!world.is_direct(ALICE, BOB));
    world.direct = Direct::Works;
    world.pass(BACK_WITHIN);
    assert!(world.is_direct(ALICE, BOB));
}

#[test]
fn a_link_that_outlives_a_change_of_network_is_kept_where_no_better_one_is_found() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], Duration::from_millis(25));
    linked(&mut world);
    let datagrams = world.datagrams;
    world.renumber(ALICE);
    world.pass(Duration::from_secs(30));
    assert!(world.datagrams > datagrams, "better ways were looked for");
    assert_eq!((world.links_made, world.links_open()), (1, 1));
    let view = world.endpoint(ALICE).peer_views().remove(0);
    assert_eq!((view.path, view.why_not_direct), (Some(PathKind::Direct), None));
}

#[test]
fn a_link_that_a_change_of_network_killed_is_made_again_from_there() {
    let mut world = World::behind([Site::PortRestricted, Site::AddressRestricted], Duration::from_millis(25));
    linked(&mut world);
    world.renumber(BOB);
    world.cut_direct();
    world.pass(BACK_WITHIN);
    assert!(world.is_direct(ALICE, BOB));
    assert_eq!(world.links_made, 2);
}

#[test]
fn a_link_that_ends_because_a_nat_began_anew_is_made_again_where_the_nat_is_seen_by_then() {
    let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], Duration::from_millis(25));
    linked(&mut world);
    world.renumber_outside(BOB);
    world.cut_direct();
    world.pass(Duration::from_millis(300));
    assert!(world.is_direct(ALICE, BOB));
}

#[test]
fn a_router_that_begins_anew_holds_a_conversation_up_for_300_ms_and_its_direct_path_for_a_second() {
    for victim in [ALICE, BOB] {
        let mut world = World::behind([Site::PortRestricted, Site::PortRestricted], Duration::from_millis(5));
        linked(&mut world);
        let mut sent = Vec::new();
        for n in 0..150 {
            if n == 50 {
                world.strand(victim);
            }
            sent.push(world.send(ALICE, BOB, &n.to_string()));
            world.pass(Duration::from_millis(20));
            if let Some(due) = sent.len().checked_sub(STALL_MAX.as_millis() as usize / 20) {
                let late: Vec<_> = sent[..due]
                    .iter()
                    .filter(|id| world.state(ALICE, **id, BOB) != OutboxState::Stored)
                    .collect();
                assert!(late.is_empty(), "{victim}: {} late at {n}", late.len());
            }
            assert!(n < 100 || world.is_direct(ALICE, BOB), "{victim}: not direct at {n}");
        }
        let path = world.nodes[BOB].disk.readable().last().unwrap().path;
        assert_eq!((path, world.links_made), (PathKind::Direct, 2), "{victim}");
    }
}

#[test]
fn a_flow_that_ends_leaves_its_link_and_its_uplink_alone() {
    let mut world = linked_world();
    for n in 0..20 {
        world.send(ALICE, BOB, &n.to_string());
        world.pass(Duration::from_millis(20));
    }
    let carried = world.coordinator.carried.len();
    world.nodes[BOB].events.clear();
    world.pass(Duration::from_secs(20));
    assert_eq!((world.links_made, world.links_open()), (1, 1));
    assert_eq!((world.coordinator.carried.len(), world.nodes[BOB].events.len()), (carried, 0));
}

#[test]
fn an_uplink_that_does_not_answer_after_a_wake_is_given_up_within_five_seconds() {
    let mut world = linked_world();
    world.coordinator_up = false;
    world.wake(ALICE);
    world.pass(Duration::from_millis(4_900));
    assert_eq!(world.endpoint(ALICE).uplink_status(), &UplinkStatus::Connected);
    world.pass(Duration::from_millis(200));
    assert_ne!(world.endpoint(ALICE).uplink_status(), &UplinkStatus::Connected);
}

#[test]
fn an_offer_that_went_with_a_dead_uplink_is_made_again_when_there_is_another() {
    for victim in [ALICE, BOB] {
        let mut world =
            World::behind([Site::PortRestricted, Site::PortRestricted], Duration::from_millis(25));
        linked(&mut world);
        world.coordinator_up = false;
        world.cut_direct();
        world.pass(Duration::from_secs(3));
        world.wake(victim);
        world.pass(Duration::from_millis(5_100));
        world.coordinator_up = true;
        world.pass(Duration::from_secs(1));
        assert!(world.is_direct(ALICE, BOB), "{victim}");
    }
}
