//! What is looked up when somebody asks, rather than published with every batch: this node's place in
//! the network, and how the way to a peer came about.

use peerloom_proto::paths::{ChecksView, NetworkView};
use peerloom_proto::{Now, UnixMs};

/// What one look found.
#[derive(Clone, Debug)]
pub struct Look {
    /// When it looked.
    pub now: Now,
    /// This node's own place.
    pub network: NetworkView,
    /// STUN datagrams that came in and were longer than STUN is, or found no room.
    pub datagrams_dropped: u64,
    /// How far the last attempt at a direct link with the peer got, if there was one.
    pub checks: Option<ChecksView>,
    /// What happened to the way to the peer, oldest first.
    pub moments: Vec<Moment>,
}

/// Something that happened to the way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When it was noticed.
    pub at: UnixMs,
    /// What.
    pub change: Change,
}

/// What can happen to the way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It appeared.
    Online,
    /// It went.
    Away,
    /// Its messages go directly, to this address if it is known.
    Direct(Option<String>),
    /// Its messages go over the relay.
    Relay,
    /// There is another reason why they do not go directly.
    NotDirect(String),
}
