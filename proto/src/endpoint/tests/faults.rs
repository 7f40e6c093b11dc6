//! Crashes: at every batch, before and after its commit, on either side. Nothing acknowledged is
//! lost, nothing is shown twice, and order holds.

use std::time::Duration;

use super::world::{ALICE, BOB, Crash, Direct, World};
use crate::endpoint::OutboxState;
use crate::id::MessageId;

/// Mail both ways over relay, link and queue, with one side away for a while.
fn traffic(world: &mut World) -> (Vec<MessageId>, Vec<MessageId>) {
    let (mut by_alice, mut by_bob) = (Vec::new(), Vec::new());
    for n in 0..3 {
        by_alice.push(world.send(ALICE, BOB, &format!("a{n}")));
        by_bob.push(world.send(BOB, ALICE, &format!("b{n}")));
        world.pass(Duration::from_millis(25));
    }
    world.settle();
    by_alice.push(world.send(ALICE, BOB, "a3"));
    by_alice.push(world.send(ALICE, BOB, "a4"));
    world.settle();
    world.cut_direct();
    by_bob.push(world.send(BOB, ALICE, "b3"));
    world.pass(Duration::from_millis(5));
    world.stop(BOB);
    by_alice.push(world.send(ALICE, BOB, "a5"));
    world.settle();
    world.start(BOB);
    world.settle();
    by_alice.push(world.send(ALICE, BOB, "a6"));
    world.settle();
    (by_alice, by_bob)
}

fn check(world: &mut World, sent: &(Vec<MessageId>, Vec<MessageId>), case: &str) {
    world.pass(Duration::from_secs(120));
    assert_eq!(world.inbox(BOB), ["a0", "a1", "a2", "a3", "a4", "a5", "a6"], "{case}");
    assert_eq!(world.inbox(ALICE), ["b0", "b1", "b2", "b3"], "{case}");
    for id in &sent.0 {
        assert_eq!(world.state(ALICE, *id, BOB), OutboxState::Stored, "{case}");
    }
    for id in &sent.1 {
        assert_eq!(world.state(BOB, *id, ALICE), OutboxState::Stored, "{case}");
    }
}

fn crash_everywhere(node: usize, crash: Crash, direct: Direct) {
    let mut batch = 0;
    loop {
        let mut world = World::asleep(2, direct);
        world.nodes[node].crash_at = Some((batch, crash));
        world.start(ALICE);
        world.start(BOB);
        world.settle();
        let sent = traffic(&mut world);
        if world.nodes[node].batches <= batch {
            assert!(batch > 15, "the traffic takes many batches");
            return;
        }
        check(&mut world, &sent, &format!("node {node}, {crash:?} of batch {batch}"));
        batch += 1;
    }
}

#[test]
fn a_crash_of_the_sender_before_any_commit_loses_nothing_acknowledged() {
    crash_everywhere(ALICE, Crash::BeforeCommit, Direct::Works);
}

#[test]
fn a_crash_of_the_sender_after_any_commit_repeats_nothing_visible() {
    crash_everywhere(ALICE, Crash::AfterCommit, Direct::Works);
}

#[test]
fn a_crash_of_the_recipient_before_any_commit_loses_nothing_acknowledged() {
    crash_everywhere(BOB, Crash::BeforeCommit, Direct::Works);
}

#[test]
fn a_crash_of_the_recipient_after_any_commit_repeats_nothing_visible() {
    crash_everywhere(BOB, Crash::AfterCommit, Direct::Works);
}

#[test]
fn the_same_holds_when_only_the_relay_works() {
    for node in [ALICE, BOB] {
        for crash in [Crash::BeforeCommit, Crash::AfterCommit] {
            crash_everywhere(node, crash, Direct::Blocked);
        }
    }
}

#[test]
fn a_coordinator_that_restarts_at_any_moment_loses_nothing() {
    for step in 0..40 {
        let mut world = World::new(2, Direct::Works);
        let ids: Vec<_> = (0..4).map(|n| world.send(ALICE, BOB, &n.to_string())).collect();
        world.pass(Duration::from_millis(step * 3));
        world.coordinator_down();
        world.pass(Duration::from_millis(50));
        world.coordinator_up = true;
        world.pass(Duration::from_secs(40));
        assert_eq!(world.inbox(BOB), ["0", "1", "2", "3"], "after {} ms", step * 3);
        ids.iter().for_each(|id| assert_eq!(world.state(ALICE, *id, BOB), OutboxState::Stored));
    }
}
