//! The directory of prekeys: what it gives is believed when something is sealed, and no sooner.

use super::world::{ALICE, BOB, CAROL, Direct, World};
use crate::endpoint::OutboxState;
use crate::envelope::UnverifiedEnvelope;
use crate::id::{Kid, MessageId};
use crate::key::Signature;
use crate::prekey::Prekey;
use crate::time::UnixMs;
use crate::wire::{SignedBytes, ToNode};

/// Bob's weekly key, as the directory has it.
fn weekly(world: &World) -> SignedBytes {
    world.coordinator.prekeys[&world.id(BOB)].clone()
}

fn kid(prekey: &SignedBytes) -> Kid {
    Prekey::parse(&prekey.stmt).expect("a prekey").key.kid()
}

fn sealed_to(world: &World, id: MessageId) -> Kid {
    let [envelope] = &world.carried(id)[..] else { panic!("it went once") };
    UnverifiedEnvelope::parse(envelope.clone()).expect("a well-formed envelope").header().kid
}

/// Alice came after the others, and has everyone's prekey from the directory.
fn alice_asked() -> World {
    let mut world = World::new(3, Direct::Blocked);
    world.settle();
    world.restart(ALICE);
    world.settle();
    world
}

#[test]
fn a_prekey_of_the_directory_is_kept_once_something_is_sealed_to_its_member() {
    let mut world = alice_asked();
    assert_eq!(world.nodes[ALICE].disk.peer_prekeys(), []);

    let id = world.send(ALICE, BOB, "hi");
    world.settle();

    assert_eq!(sealed_to(&world, id), kid(&weekly(&world)));
    assert_eq!(world.nodes[ALICE].disk.peer_prekeys(), [(world.id(BOB), weekly(&world))]);
}

#[test]
fn a_forged_prekey_of_the_directory_puts_no_honest_one_out() {
    let mut world = alice_asked();
    let honest = weekly(&world);
    let mut later = Prekey::parse(&honest.stmt).expect("a prekey");
    later.exp = UnixMs(later.exp.0 + 60_000);
    let forged = SignedBytes { stmt: later.encode().into(), sig: Signature([7; 64]) };
    world.inject(ALICE, &ToNode::Prekeys { prekeys: vec![forged] });
    world.settle();

    let id = world.send(ALICE, BOB, "hi");
    world.settle();

    assert_eq!(sealed_to(&world, id), kid(&honest));
    assert_eq!(world.state(ALICE, id, BOB), OutboxState::Stored);
}

#[test]
fn a_stored_prekey_serves_after_a_restart_without_the_coordinator() {
    let mut world = alice_asked();
    world.send(ALICE, BOB, "hi");
    world.settle();
    world.coordinator_down();
    world.restart(ALICE);
    world.settle();

    let id = world.send(ALICE, BOB, "are you there?");
    let carol = world.send(ALICE, CAROL, "and you?");
    world.coordinator_up = true;
    world.pass(super::A_WHILE);

    assert_eq!(sealed_to(&world, id), kid(&weekly(&world)));
    assert_ne!(sealed_to(&world, carol), kid(&world.coordinator.prekeys[&world.id(CAROL)]));
    assert_eq!(world.state(ALICE, carol, CAROL), OutboxState::Stored);
}
