//! The mesh a world begins with: an owner, a coordinator, node 0 as admin by the owner, the others as
//! members by node 0, but for those that join later. All keys follow from the seed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use peerloom_proto::endpoint::HeldPrekey;
use peerloom_proto::{
    BoxSecretKey, GenesisParams, Handle, IdentityKey, NewMember, Origin, Policy, Role, Roster, WireEntry,
};

use crate::chance::seed_for;
use crate::host::T0;

/// The founding, replayed once for all nodes.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) coordinator: IdentityKey,
    pub(crate) origin: Origin,
    pub(crate) entries: Arc<Vec<Bytes>>,
    pub(crate) roster: Roster,
}

/// A node's key.
pub(crate) fn node_key(seed: u64, node: usize) -> IdentityKey {
    IdentityKey::from_seed(&seed_for(seed, &format!("node {node}"), "member key"))
}

/// The prekey that stands in a node's log entry.
pub(crate) fn first_prekey(seed: u64, node: usize) -> HeldPrekey {
    let secret = BoxSecretKey::from_bytes(seed_for(seed, &format!("node {node}"), "first prekey"));
    let exp = T0.plus(FIRST_PREKEY_LIFE);
    HeldPrekey { kid: secret.public().kid(), secret, signed: None, exp }
}

impl Mesh {
    pub(crate) fn found(seed: u64, nodes: usize, strangers: &BTreeSet<usize>) -> Self {
        let key = |name: &str| IdentityKey::from_seed(&seed_for(seed, name, "key"));
        let (owner, coordinator) = (key("owner"), key("coordinator"));
        let origin: Origin = "http://127.0.0.1:7700".parse().expect("an origin");
        let params = GenesisParams {
            coordinators: vec![(coordinator.id(), origin.clone())],
            policy: Policy::default(),
            nonce: [7; 16],
            recovery: None,
            name: Some("netsim".to_owned()),
            ts: T0,
        };
        let genesis = WireEntry::genesis(&owner, params);
        let mut roster = Roster::begin(&genesis).expect("a sound genesis");
        let mut entries = vec![Bytes::from(genesis.encode())];
        let admin = node_key(seed, 0);
        for node in (0..nodes).filter(|node| !strangers.contains(node)) {
            let (author, role) = if node == 0 { (&owner, Role::Admin) } else { (&admin, Role::Member) };
            let new = NewMember {
                id: node_key(seed, node).id(),
                role,
                handle: Handle::parse(&format!("node-{node}")).expect("a handle"),
                prekey: Some(first_prekey(seed, node).secret.public()),
            };
            let entry = roster.member_add(author, new, T0);
            let entry = entry.sequence(&coordinator, &roster.mesh_id()).expect("a sound entry");
            roster.append(&entry).expect("a sound log");
            entries.push(entry.encode().into());
        }
        Self { coordinator, origin, entries: Arc::new(entries), roster }
    }
}

/// As the protocol has it for the key that stands in the log.
const FIRST_PREKEY_LIFE: std::time::Duration = std::time::Duration::from_secs(90 * 86_400);

#[cfg(all(test, feature = "memo"))]
mod tests {
    use peerloom_proto::{Signature, signed_by};

    use super::node_key;

    #[test]
    fn a_signature_that_is_known_to_hold_says_nothing_of_other_bytes_or_other_keys() {
        let (key, other) = (node_key(1, 0), node_key(1, 1));
        let signature = key.sign("bind", &[b"what", b"it says"]);
        for _ in 0..2 {
            assert!(signed_by(&key.id(), &signature, "bind", &[b"what", b"it says"]));
            assert!(!signed_by(&key.id(), &signature, "hello", &[b"what", b"it says"]), "another label");
            assert!(!signed_by(&key.id(), &signature, "bind", &[b"wha", b"tit says"]), "other fields");
            assert!(!signed_by(&other.id(), &signature, "bind", &[b"what", b"it says"]), "another key");
            let mut spoiled = signature;
            spoiled.0[63] ^= 1;
            assert!(!signed_by(&key.id(), &spoiled, "bind", &[b"what", b"it says"]), "another signature");
            assert!(!signed_by(&key.id(), &Signature([0; 64]), "bind", &[b"what", b"it says"]));
        }
    }
}
