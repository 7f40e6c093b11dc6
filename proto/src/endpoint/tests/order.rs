//! Order: messages surface as they were sent, and nothing waits for what will never come.

use std::time::Duration;

use super::A_WHILE;
use super::world::{ALICE, BOB, Direct, World};
use crate::endpoint::{OutboxState, Reply, Request, Send};

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn messages_that_overtake_each_other_between_relay_and_link_surface_in_the_order_sent() {
    let mut world = World::new(2, Direct::Works);
    for n in 0..30 {
        world.send(ALICE, BOB, &n.to_string());
        world.pass(Duration::from_millis(3));
    }
    world.settle();
    assert_eq!(world.inbox(BOB), numbered(0..30));
    assert!(world.linked.len() > 10, "most went over the link");
}

#[test]
fn order_holds_while_the_path_moves_to_the_link_and_back_with_a_cut_at_every_step() {
    for step in 0..40 {
        let mut world = World::new(2, Direct::Works);
        for n in 0..40 {
            if n == step || n == step + 7 {
                world.cut_direct();
            }
            world.send(ALICE, BOB, &n.to_string());
            world.pass(Duration::from_millis(5));
        }
        world.settle();
        assert_eq!(world.inbox(BOB), numbered(0..40), "cut at step {step}");
    }
}

#[test]
fn an_aborted_message_holds_nobody_up() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.settle();
    let first = world.send(ALICE, BOB, "aborted");
    world.send(ALICE, BOB, "second");
    world.request(ALICE, Request::Abort(first));
    world.coordinator_up = true;
    world.pass(A_WHILE);
    assert_eq!(world.inbox(BOB), ["second"]);
}

#[test]
fn an_expired_message_holds_nobody_up_even_if_its_sender_restarts() {
    let mut world = World::new(2, Direct::Blocked);
    world.coordinator_down();
    world.settle();
    let short = Send { life: Duration::from_secs(10), ..world.message(None, &[BOB], "short") };
    world.request(ALICE, Request::Send(short));
    world.send(ALICE, BOB, "long");
    world.pass(Duration::from_secs(11));
    world.restart(ALICE);
    world.coordinator_up = true;
    world.pass(A_WHILE);
    assert_eq!(world.inbox(BOB), ["long"]);
}

#[test]
fn a_message_that_expired_in_the_queue_of_an_absent_member_holds_nobody_up() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(BOB);
    let short = Send { life: Duration::from_secs(10), ..world.message(None, &[BOB], "short") };
    let Some(Reply::Sent { id, .. }) = world.request(ALICE, Request::Send(short)) else { panic!("taken") };
    world.send(ALICE, BOB, "long");
    world.pass(Duration::from_secs(300));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Expired("expired-in-queue".to_owned()));
    world.start(BOB);
    world.settle();
    assert_eq!(world.inbox(BOB), ["long"]);
}

#[test]
fn a_hole_behind_an_unsettled_message_is_told_once_that_one_is_stored() {
    let mut world = World::new(2, Direct::Blocked);
    world.stop(BOB);
    world.send(ALICE, BOB, "first");
    let short = Send { life: Duration::from_secs(10), ..world.message(None, &[BOB], "short") };
    world.request(ALICE, Request::Send(short));
    world.send(ALICE, BOB, "third");
    world.pass(Duration::from_secs(300));
    world.start(BOB);
    world.settle();
    assert_eq!(world.inbox(BOB), ["first", "third"]);
}

#[test]
fn both_directions_are_conversations_of_their_own() {
    let mut world = World::new(2, Direct::Works);
    for n in 0..20 {
        world.send(ALICE, BOB, &n.to_string());
        world.send(BOB, ALICE, &n.to_string());
        world.pass(Duration::from_millis(7));
    }
    world.settle();
    assert_eq!(world.inbox(BOB), numbered(0..20));
    assert_eq!(world.inbox(ALICE), numbered(0..20));
}
