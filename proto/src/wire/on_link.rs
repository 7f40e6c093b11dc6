//! What two nodes say on a direct link: kinds 32 to 34, ping and pong.

use bytes::Bytes;

use super::SignedBytes;
use super::items::{Items, PING, PONG, sig, stmt, uint};
use crate::canonical::{DecodeError, Value, encode};
use crate::limits::FRAME_BYTES_MAX;

/// What two nodes say on a direct link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnLink {
    /// First frame each way (protocol.md §9).
    Bind {
        /// The bind statement.
        bind: SignedBytes,
        /// The session's attestation; empty for a member.
        attestation: Bytes,
    },
    /// An envelope.
    Envelope {
        /// The sealed envelope, `[2, hdr, ct, sig]`.
        envelope: Bytes,
    },
    /// A signed receipt.
    Receipt {
        /// The receipt statement.
        receipt: SignedBytes,
    },
    /// Asks for a pong.
    Ping {
        /// Returned unchanged.
        nonce: u64,
    },
    /// Answers a ping.
    Pong {
        /// The ping's nonce.
        nonce: u64,
    },
}

impl OnLink {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let items = match self {
            Self::Bind { bind, attestation } => {
                vec![uint(32), stmt(bind), sig(bind), Value::Bytes(attestation)]
            }
            Self::Envelope { envelope } => vec![uint(33), Value::Bytes(envelope)],
            Self::Receipt { receipt } => vec![uint(34), stmt(receipt), sig(receipt)],
            Self::Ping { nonce } => vec![uint(PING), uint(*nonce)],
            Self::Pong { nonce } => vec![uint(PONG), uint(*nonce)],
        };
        encode(&Value::Array(items)).into()
    }

    /// Reads a frame of at most [`FRAME_BYTES_MAX`] bytes. Byte strings share `frame`'s memory.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut items = Items::of(frame, FRAME_BYTES_MAX)?;
        let read = match items.uint()? {
            32 => Self::Bind { bind: items.signed()?, attestation: items.bytes()? },
            33 => Self::Envelope { envelope: items.bytes()? },
            34 => Self::Receipt { receipt: items.signed()? },
            PING => Self::Ping { nonce: items.uint()? },
            PONG => Self::Pong { nonce: items.uint()? },
            _ => return Err(DecodeError::UnknownField),
        };
        items.finish(read)
    }
}
