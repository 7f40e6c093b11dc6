//! Paths: how a node learns where it is, and which of a peer's addresses answer. Pure; the host moves
//! the datagrams. [`attempt`](crate::links) drives it.
//!
//! 1. `gather`     STUN servers tell the outside address and what the NAT does
//! 2. offer and answer carry `candidate`s and the `nat`'s habits (signal.rs)
//! 3. `check`      both sides ask each other's addresses, and answer; what answers is proven
//! 4. `birthday`   where one NAT gives every destination another port, ports are guessed
//! 5. `selection`  the best path is dialled
//!
//! `policy` is what the node's owner wants of all this, peer by peer.

mod birthday;
mod candidate;
mod check;
mod gather;
mod nat;
mod policy;
mod selection;
mod view;

use std::net::SocketAddr;

use bytes::Bytes;

pub(crate) use birthday::{BIRTHDAYS_APART, Birthday, birthday_after};
pub(crate) use candidate::is_usable;
pub use candidate::{Candidate, CandidateKind, Tier};
pub(crate) use check::{Check, Choice};
pub(crate) use gather::Gathering;
pub use gather::MappingLife;
pub use nat::{Mapping, Nat, Ports};
pub use policy::{NoPathPolicy, PathPolicies, PathPolicy};
pub(crate) use selection::Rank;
pub use view::{CandidateState, CandidateView, ChecksView, NetworkView, ServerView};

use crate::time::Monotonic;

/// Where a node is and what stands before it, as it tells a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Its addresses, the useful ones first; at most [`CANDIDATES_MAX`](crate::limits::CANDIDATES_MAX).
    pub candidates: Vec<Candidate>,
    /// Its NAT.
    pub nat: Nat,
    /// It consents to a birthday punch.
    pub birthday: bool,
}

/// A STUN datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) socket: u16,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Bytes,
    pub(crate) ttl: Option<u8>,
}

/// A request whose answer is awaited.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    socket: u16,
    to: SocketAddr,
    sent: Monotonic,
}
