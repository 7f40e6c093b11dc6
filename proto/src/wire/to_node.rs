//! What a coordinator says to a node: kinds 64 to 80.

use bytes::Bytes;

use super::items::{Items, PING, PONG, byte_strings, sig, stmt, uint};
use super::{Claim, SignedBytes};
use crate::canonical::{DecodeError, Value, encode};
use crate::id::{EnvHash, PeerId};
use crate::key::Signature;
use crate::limits::FRAME_BYTES_MAX;

/// What a coordinator says to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToNode {
    /// First frame of every connection.
    Challenge {
        /// The challenge statement, unsigned.
        challenge: Bytes,
    },
    /// Accepts the hello.
    Welcome {
        /// The welcome statement.
        welcome: SignedBytes,
    },
    /// These envelopes are on the coordinator's disk, or already receipted.
    Accepted {
        /// Which.
        env_hashes: Vec<EnvHash>,
        /// Transactions of its store when they were: a part of the node's next
        /// [mark](crate::StoreMark).
        commit: u64,
    },
    /// This envelope was not taken.
    Refused {
        /// Which.
        env_hash: EnvHash,
        /// A reason name: `rate`, `recipient-full`, `not-a-member`, `revoked`, `expiry`, `size`, `store`, …
        code: String,
        /// When to try again, milliseconds from now; 0 means never.
        retry_ms: u64,
    },
    /// Mail.
    Deliver {
        /// The lease, to be named beside the receipt.
        claim: Claim,
        /// Whether it waited in the mailbox, rather than passing through.
        queued: bool,
        /// The sealed envelope, byte for byte as it came.
        envelope: Bytes,
    },
    /// A receipt for this node's envelopes.
    Receipt {
        /// To be settled when durable.
        claim: Claim,
        /// The receipt statement.
        receipt: SignedBytes,
    },
    /// An envelope of this node's ended unread in the queue.
    Expired {
        /// To be settled when durable.
        claim: Claim,
        /// Which.
        env_hash: EnvHash,
    },
    /// Log entries, in order.
    Entries {
        /// Index of the first.
        from: u64,
        /// Whole wire entries.
        entries: Vec<Bytes>,
        /// Entries the coordinator has in all.
        size: u64,
    },
    /// The entry was sequenced; it follows in [`ToNode::Entries`] too.
    Appended {
        /// The node's request.
        request: u64,
        /// The whole wire entry with its sequence signature.
        entry: Bytes,
    },
    /// The head moved: sign again on top of it.
    Conflict {
        /// The node's request.
        request: u64,
        /// Entries the coordinator has; fetch what is missing.
        size: u64,
        /// For how long the next place is kept for this node, milliseconds.
        reserved_ms: u64,
    },
    /// A request other than a put was refused.
    Failed {
        /// The node's request.
        request: u64,
        /// A reason name.
        code: String,
        /// For people.
        text: String,
    },
    /// A request without another answer was done, durably.
    Done {
        /// The node's request.
        request: u64,
        /// As in [`ToNode::Accepted`].
        commit: u64,
    },
    /// Prekeys, each to be verified.
    Prekeys {
        /// Statements with signatures.
        prekeys: Vec<SignedBytes>,
    },
    /// Who is online in the mesh.
    Presence {
        /// Whether this replaces all that was known.
        complete: bool,
        /// Identity and whether its lease lives.
        peers: Vec<(PeerId, bool)>,
    },
    /// The coordinator is about to close.
    GoingAway {
        /// Come back after this, milliseconds; spread so that not all come at once.
        reconnect_after_ms: u64,
    },
    /// The last frame before the coordinator closes this connection.
    Error {
        /// A reason name.
        code: String,
        /// For people.
        text: String,
    },
    /// Before the welcome: the hello names a longer log than the coordinator has. It had that log, as its
    /// signatures there prove, and asks for it.
    LogWanted {
        /// First index wanted.
        from: u64,
        /// The coordinator's, over hello and index: see [`log_wanted_by`](crate::log_wanted_by).
        sig: Signature,
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

impl ToNode {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let items = match self {
            Self::Challenge { challenge } => vec![uint(64), Value::Bytes(challenge)],
            Self::Welcome { welcome } => vec![uint(65), stmt(welcome), sig(welcome)],
            Self::Accepted { env_hashes, commit } => {
                let hashes = env_hashes.iter().map(|hash| Value::Bytes(hash.as_bytes()));
                vec![uint(66), Value::Array(hashes.collect()), uint(*commit)]
            }
            Self::Refused { env_hash, code, retry_ms } => {
                vec![uint(67), Value::Bytes(env_hash.as_bytes()), Value::Text(code), uint(*retry_ms)]
            }
            Self::Deliver { claim, queued, envelope } => {
                vec![uint(68), uint(*claim), Value::Bool(*queued), Value::Bytes(envelope)]
            }
            Self::Receipt { claim, receipt } => vec![uint(69), uint(*claim), stmt(receipt), sig(receipt)],
            Self::Expired { claim, env_hash } => {
                vec![uint(70), uint(*claim), Value::Bytes(env_hash.as_bytes())]
            }
            Self::Entries { from, entries, size } => {
                vec![uint(71), uint(*from), byte_strings(entries), uint(*size)]
            }
            Self::Appended { request, entry } => vec![uint(72), uint(*request), Value::Bytes(entry)],
            Self::Conflict { request, size, reserved_ms } => {
                vec![uint(73), uint(*request), uint(*size), uint(*reserved_ms)]
            }
            Self::Failed { request, code, text } => {
                vec![uint(74), uint(*request), Value::Text(code), Value::Text(text)]
            }
            Self::Done { request, commit } => vec![uint(75), uint(*request), uint(*commit)],
            Self::Prekeys { prekeys } => {
                let prekeys = prekeys.iter().map(|prekey| Value::Array(vec![stmt(prekey), sig(prekey)]));
                vec![uint(76), Value::Array(prekeys.collect())]
            }
            Self::Presence { complete, peers } => {
                let peers = peers.iter().map(|(peer, online)| {
                    Value::Array(vec![Value::Bytes(peer.as_bytes()), Value::Bool(*online)])
                });
                vec![uint(77), Value::Bool(*complete), Value::Array(peers.collect())]
            }
            Self::GoingAway { reconnect_after_ms } => vec![uint(78), uint(*reconnect_after_ms)],
            Self::Error { code, text } => vec![uint(79), Value::Text(code), Value::Text(text)],
            Self::LogWanted { from, sig } => vec![uint(80), uint(*from), Value::Bytes(&sig.0)],
            Self::Ping { nonce } => vec![uint(PING), uint(*nonce)],
            Self::Pong { nonce } => vec![uint(PONG), uint(*nonce)],
        };
        encode(&Value::Array(items)).into()
    }

    /// Reads a frame of at most [`FRAME_BYTES_MAX`] bytes. Byte strings share `frame`'s memory.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut items = Items::of(frame, FRAME_BYTES_MAX)?;
        let read = match items.uint()? {
            64 => Self::Challenge { challenge: items.bytes()? },
            65 => Self::Welcome { welcome: items.signed()? },
            66 => {
                let hashes = items.next()?.items()?;
                Self::Accepted {
                    env_hashes: hashes
                        .iter()
                        .map(|hash| hash.array().map(EnvHash))
                        .collect::<Result<_, _>>()?,
                    commit: items.uint()?,
                }
            }
            67 => Self::Refused {
                env_hash: EnvHash(items.next()?.array()?),
                code: items.text()?,
                retry_ms: items.uint()?,
            },
            68 => Self::Deliver { claim: items.uint()?, queued: items.truth()?, envelope: items.bytes()? },
            69 => Self::Receipt { claim: items.uint()?, receipt: items.signed()? },
            70 => Self::Expired { claim: items.uint()?, env_hash: EnvHash(items.next()?.array()?) },
            71 => Self::Entries { from: items.uint()?, entries: items.byte_strings()?, size: items.uint()? },
            72 => Self::Appended { request: items.uint()?, entry: items.bytes()? },
            73 => Self::Conflict { request: items.uint()?, size: items.uint()?, reserved_ms: items.uint()? },
            74 => Self::Failed { request: items.uint()?, code: items.text()?, text: items.text()? },
            75 => Self::Done { request: items.uint()?, commit: items.uint()? },
            76 => Self::Prekeys { prekeys: items.signed_list()? },
            77 => Self::Presence { complete: items.truth()?, peers: items.presence()? },
            78 => Self::GoingAway { reconnect_after_ms: items.uint()? },
            79 => Self::Error { code: items.text()?, text: items.text()? },
            80 => Self::LogWanted { from: items.uint()?, sig: Signature(items.next()?.array()?) },
            PING => Self::Ping { nonce: items.uint()? },
            PONG => Self::Pong { nonce: items.uint()? },
            _ => return Err(DecodeError::UnknownField),
        };
        items.finish(read)
    }
}
