//! What an endpoint begins with.

use super::{HeldPrekey, HeldRow, OutboxRow, Row};
use crate::hello::StoreMark;
use crate::id::{Generation, InstanceId, PeerId};
use crate::identity::Origin;
use crate::key::IdentityKey;
use crate::paths::PathPolicies;
use crate::roster::Roster;
use crate::time::UnixMs;
use crate::wire::SignedBytes;

/// What an endpoint is rebuilt from at start: keys, and what the store holds.
#[derive(Debug)]
pub struct Settings {
    /// This member's key.
    pub member: IdentityKey,
    /// The owner key, where `init` ran and it was not moved away.
    pub owner: Option<IdentityKey>,
    /// The replayed log.
    pub roster: Roster,
    /// Revocations met off the log.
    pub revocations: Vec<SignedBytes>,
    /// Members whose late admission nobody confirmed yet.
    pub on_hold: Vec<PeerId>,
    /// Own prekeys.
    pub prekeys: Vec<HeldPrekey>,
    /// The newest prekey known of each other member.
    pub peer_prekeys: Vec<(PeerId, SignedBytes)>,
    /// Unsettled outbox rows; their sealed bytes and content may be left empty.
    pub outbox: Vec<OutboxRow>,
    /// Held inbox rows.
    pub held: Vec<HeldRow>,
    /// Inbound conversations: sender, its generation, the seq that surfaces next.
    pub conversations: Vec<(PeerId, Generation, u64)>,
    /// Per recipient, the seq after the last used in this generation.
    pub next_seqs: Vec<(PeerId, u64)>,
    /// First unused primary key of the outbox.
    pub next_outbox_row: Row,
    /// First unused primary key of the inbox.
    pub next_inbox_row: Row,
    /// First unused position in the readers' order.
    pub next_position: u64,
    /// This life of this node's counters; random when the store was made.
    pub generation: Generation,
    /// Keys the request fingerprint; random when the store was made, never leaves the node.
    pub fp_secret: [u8; 32],
    /// The largest exp of dropped dedupe rows.
    pub floor: UnixMs,
    /// How far the coordinator's store had got when it last answered for something.
    pub coordinator_mark: Option<StoreMark>,
    /// Which ways messages may take, by the configuration.
    pub policies: PathPolicies,
    /// Where this node reaches its coordinator.
    pub origin: Origin,
    /// Random at process start.
    pub instance: InstanceId,
    /// Entropy.
    pub seed: [u8; 32],
}
