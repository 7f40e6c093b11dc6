//! Frames between a node and its coordinator, and between two nodes on a direct link.
//!
//! A frame is one canonical CBOR array, its first item the kind. Envelopes and statements stand
//! inside as byte strings and are never taken apart here: what is forwarded is what was received.
//! One WebSocket binary message, or one length-prefixed block of a QUIC stream, holds one frame.

mod items;
mod on_link;
mod to_coordinator;
mod to_node;

use bytes::Bytes;

pub use on_link::OnLink;
pub use to_coordinator::ToCoordinator;
pub use to_node::ToNode;

use crate::key::Signature;

/// Names one queued item at the coordinator while it is handed out; 0 never names anything.
pub type Claim = u64;

/// A statement with the signature that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBytes {
    /// The statement, byte for byte as signed.
    pub stmt: Bytes,
    /// The signature over it.
    pub sig: Signature,
}

#[cfg(test)]
mod tests;
