//! The mesh that the world begins with, and what its nodes are made of.

use bytes::Bytes;

use super::disk::Disk;
use crate::endpoint::Settings;
use crate::id::{CertHash, Generation, InstanceId};
use crate::identity::Origin;
use crate::key::{BoxSecretKey, IdentityKey};
use crate::paths::PathPolicies;
use crate::roster::{GenesisParams, NewMember, Policy, Role, Roster, WireEntry};
use crate::time::UnixMs;

/// When the mesh began.
pub(super) const T0: UnixMs = UnixMs(1_800_000_000_000);
pub(super) const COORDINATOR: u8 = 201;
const OWNER: u8 = 200;

pub(super) fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name + 1; 32])
}

pub(super) fn owner() -> IdentityKey {
    key(OWNER)
}

pub(super) fn cert(node: usize) -> CertHash {
    CertHash([u8::try_from(node).expect("few nodes") + 50; 32])
}

pub(super) fn origin() -> Origin {
    "http://127.0.0.1:7700".parse().expect("an origin")
}

pub(super) fn settings(place: u8, life: u8, disk: &Disk) -> Settings {
    let mut entries = disk.entries.iter().map(|entry| WireEntry::parse(entry).expect("a stored entry"));
    let mut roster = Roster::begin(&entries.next().expect("a genesis")).expect("the genesis holds");
    entries.for_each(|entry| drop(roster.append(&entry).expect("stored entries hold")));
    let mut seed = [place + 1; 32];
    seed[0] = life;
    Settings {
        member: key(place),
        owner: None,
        roster,
        revocations: disk.revocations(),
        on_hold: disk.on_hold(),
        prekeys: disk.prekeys(),
        peer_prekeys: disk.peer_prekeys(),
        outbox: disk.unsettled(),
        held: disk.held(),
        conversations: disk.conversations(),
        next_seqs: disk.next_seqs(),
        next_outbox_row: disk.next_outbox_row(),
        next_inbox_row: disk.next_inbox_row(),
        next_position: disk.next_position(),
        generation: Generation([place + 1; 8]),
        fp_secret: [place + 1; 32],
        floor: disk.floor(),
        coordinator_mark: disk.coordinator_mark,
        policies: PathPolicies::default(),
        origin: origin(),
        instance: InstanceId([life; 16]),
        seed,
    }
}

/// The genesis, Alice as admin by the owner, the others as members by Alice.
pub(super) fn log_of(count: u8) -> (Vec<Bytes>, Roster) {
    let params = GenesisParams {
        coordinators: vec![(key(COORDINATOR).id(), origin())],
        policy: Policy::default(),
        nonce: [7; 16],
        recovery: None,
        name: Some("acme".to_owned()),
        ts: T0,
    };
    let genesis = WireEntry::genesis(&owner(), params);
    let mut roster = Roster::begin(&genesis).expect("a sound genesis");
    let mut log = vec![Bytes::from(genesis.encode())];
    for place in 0..count {
        let (author, role) = if place == 0 { (owner(), Role::Admin) } else { (key(0), Role::Member) };
        let entry = roster.member_add(&author, new_member(place, role), T0);
        let entry = entry.sequence(&key(COORDINATOR), &roster.mesh_id()).expect("a sound entry");
        roster.append(&entry).expect("a sound log");
        log.push(entry.encode().into());
    }
    (log, roster)
}

pub(super) fn new_member(place: u8, role: Role) -> NewMember {
    let handle = ["alice", "bob", "carol", "dave", "erin"][usize::from(place)];
    NewMember {
        id: key(place).id(),
        role,
        handle: handle.parse().expect("a handle"),
        prekey: Some(BoxSecretKey::from_bytes([place + 100; 32]).public()),
    }
}

pub(super) const EXPORTER: [u8; 32] = [9; 32];
