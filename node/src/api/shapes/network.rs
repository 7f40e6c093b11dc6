//! Shapes of the network: this node's place in it, and the way to a peer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mesh::PeerShape;

/// This node's place in the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkShape {
    /// 1.
    pub schema_version: u32,
    /// Name of the mesh whose socket and coordinator this is about.
    pub mesh: String,
    /// `works` when a STUN server answered, `blocked` when none of several attempts was answered,
    /// `unknown` before either, `off` when direct links are switched off.
    pub udp: String,
    /// The NAT that STUN servers see this node through.
    pub nat: NatShape,
    /// Addresses announced to peers, best first.
    pub candidates: Vec<CandidateShape>,
    /// What each STUN server sees.
    pub stun: Vec<StunShape>,
    /// How long the NAT keeps an unused mapping, as far as it was seen.
    pub mapping_life: MappingLifeShape,
    /// The coordinator's clock minus this one's, at the last welcome.
    #[serde(default)]
    pub skew_ms: Option<i64>,
    /// STUN datagrams that came in and were longer than STUN is, or found no room, since the start.
    pub datagrams_dropped: u64,
}

/// A NAT, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NatShape {
    /// Which destinations share one outside address: `unknown`, `none` (no NAT),
    /// `endpoint-independent`, `address-dependent`, `address-and-port-dependent` or `blocked`.
    pub mapping: String,
    /// Which outside port it takes: `unknown`, `preserving`, `sequential`, `block` or `random`.
    pub ports: String,
    /// Both in words.
    pub text: String,
}

/// An address of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CandidateShape {
    /// `host`, `reflexive`, `mapped` or `peer-reflexive`.
    pub kind: String,
    /// IP address and port.
    pub address: String,
}

/// What a STUN server sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StunShape {
    /// Its IP address and port.
    pub address: String,
    /// Where it saw this node; none if it did not answer.
    pub mapped: Option<String>,
    /// Its round trip.
    pub rtt_ms: Option<f64>,
    /// When it answered last.
    pub answered_at_ms: Option<u64>,
}

/// How long a mapping lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MappingLifeShape {
    /// The longest silence after which it was still the same, if that was a second or more.
    pub at_least_ms: Option<u64>,
    /// The shortest silence after which it was another.
    pub under_ms: Option<u64>,
}

/// The way to a peer, why it is no better one, and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WayShape {
    /// 1.
    pub schema_version: u32,
    /// The peer and the way of the moment.
    pub peer: PeerShape,
    /// Why it is this way and no better one, in a sentence.
    pub why: String,
    /// The NAT on this side.
    pub here: NatShape,
    /// The NAT on the peer's side, by its own word in the last attempt.
    pub there: Option<NatShape>,
    /// When the last attempt at a direct link began.
    pub checked_at_ms: Option<u64>,
    /// The peer's addresses as far as that attempt checked them.
    pub candidates: Vec<CheckedShape>,
    /// What happened to the way since the node started, oldest first, at most 32 moments.
    pub timeline: Vec<MomentShape>,
}

/// One of a peer's addresses, as far as it was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckedShape {
    /// `host`, `reflexive`, `mapped` or `peer-reflexive`.
    pub kind: String,
    /// IP address and port.
    pub address: String,
    /// `waiting` (nothing sent yet), `silent`, `heard` (the peer came from there, but did not answer)
    /// or `proven`.
    pub state: String,
    /// Its round trip, once proven.
    pub rtt_ms: Option<f64>,
}

/// Something that happened to the way to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MomentShape {
    /// When.
    pub at_ms: u64,
    /// `online`, `away`, `direct`, `relay` or `not-direct`.
    pub event: String,
    /// For `direct` the address, for `not-direct` the reason.
    pub text: Option<String>,
}
