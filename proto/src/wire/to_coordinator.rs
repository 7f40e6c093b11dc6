//! What a node says to its coordinator: kinds 1 to 15.

use bytes::Bytes;

use super::items::{Items, PING, PONG, byte_strings, sig, stmt, uint, uints};
use super::{Claim, SignedBytes};
use crate::canonical::{DecodeError, Value, encode};
use crate::id::{InviteLookup, PeerId};
use crate::time::UnixMs;

/// What a node says to its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToCoordinator {
    /// Answers the challenge (protocol.md §6).
    Hello {
        /// The hello statement.
        hello: SignedBytes,
        /// The session's or service's attestation, on first use; empty for a member.
        attestation: Bytes,
    },
    /// An envelope to relay or queue.
    Put {
        /// The sealed envelope, `[2, hdr, ct, sig]`.
        envelope: Bytes,
    },
    /// How much unreceipted mail this node takes at once. Sent after the log is in; zero stops.
    Claim {
        /// Messages in flight.
        messages: u64,
        /// Their bytes in flight.
        bytes: u64,
    },
    /// A signed receipt, and the claims of its rows in the same order (0 for mail that came
    /// directly).
    Receipt {
        /// The receipt statement.
        receipt: SignedBytes,
        /// One claim a row.
        claims: Vec<Claim>,
    },
    /// Receipts and notices that this node has made durable: their claims end.
    Settle {
        /// Claims of [`ToNode::Receipt`] and [`ToNode::Expired`].
        claims: Vec<Claim>,
    },
    /// Asks for log entries from an index on.
    LogGet {
        /// First index wanted.
        from: u64,
    },
    /// Asks to sequence an entry at the head it names.
    LogAppend {
        /// Chosen by the node, named in the answer.
        request: u64,
        /// The entry without its sequence signature.
        entry: Bytes,
    },
    /// Publishes this member's current prekey.
    PrekeyPut {
        /// The prekey statement.
        prekey: SignedBytes,
    },
    /// Asks for the current prekeys of members.
    PrekeyGet {
        /// Whose.
        members: Vec<PeerId>,
    },
    /// Deposits an invite blob.
    InvitePut {
        /// Chosen by the node, named in the answer.
        request: u64,
        /// What the joiner will ask for.
        lookup: InviteLookup,
        /// nonce ‖ secretbox.
        blob: Bytes,
        /// When the coordinator may forget it.
        exp: UnixMs,
        /// How many admissions it serves.
        uses: u64,
    },
    /// Withdraws an invite blob.
    InviteDelete {
        /// Chosen by the node, named in the answer.
        request: u64,
        /// Which.
        lookup: InviteLookup,
    },
    /// Entries that the coordinator had sequenced and asked back for.
    LogReturn {
        /// Index of the first.
        from: u64,
        /// Whole wire entries, at most [`LOG_RETURN_MAX`](crate::limits::LOG_RETURN_MAX).
        entries: Vec<Bytes>,
    },
    /// This node is being switched off: its presence ends here, without a lease.
    Goodbye,
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

impl ToCoordinator {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let items = match self {
            Self::Hello { hello, attestation } => {
                vec![uint(1), stmt(hello), sig(hello), Value::Bytes(attestation)]
            }
            Self::Put { envelope } => vec![uint(2), Value::Bytes(envelope)],
            Self::Claim { messages, bytes } => vec![uint(3), uint(*messages), uint(*bytes)],
            Self::Receipt { receipt, claims } => vec![uint(4), stmt(receipt), sig(receipt), uints(claims)],
            Self::Settle { claims } => vec![uint(5), uints(claims)],
            Self::LogGet { from } => vec![uint(6), uint(*from)],
            Self::LogAppend { request, entry } => vec![uint(7), uint(*request), Value::Bytes(entry)],
            Self::PrekeyPut { prekey } => vec![uint(8), stmt(prekey), sig(prekey)],
            Self::PrekeyGet { members } => {
                let members = members.iter().map(|member| Value::Bytes(member.as_bytes()));
                vec![uint(9), Value::Array(members.collect())]
            }
            Self::InvitePut { request, lookup, blob, exp, uses } => vec![
                uint(10),
                uint(*request),
                Value::Bytes(lookup.as_bytes()),
                Value::Bytes(blob),
                uint(exp.0),
                uint(*uses),
            ],
            Self::InviteDelete { request, lookup } => {
                vec![uint(11), uint(*request), Value::Bytes(lookup.as_bytes())]
            }
            Self::Goodbye => vec![uint(14)],
            Self::LogReturn { from, entries } => vec![uint(15), uint(*from), byte_strings(entries)],
            Self::Ping { nonce } => vec![uint(PING), uint(*nonce)],
            Self::Pong { nonce } => vec![uint(PONG), uint(*nonce)],
        };
        encode(&Value::Array(items)).into()
    }

    /// Reads a frame of at most `cap` bytes. Byte strings share `frame`'s memory.
    pub fn decode(frame: &Bytes, cap: usize) -> Result<Self, DecodeError> {
        let mut items = Items::of(frame, cap)?;
        let read = match items.uint()? {
            1 => Self::Hello { hello: items.signed()?, attestation: items.bytes()? },
            2 => Self::Put { envelope: items.bytes()? },
            3 => Self::Claim { messages: items.uint()?, bytes: items.uint()? },
            4 => Self::Receipt { receipt: items.signed()?, claims: items.uints()? },
            5 => Self::Settle { claims: items.uints()? },
            6 => Self::LogGet { from: items.uint()? },
            7 => Self::LogAppend { request: items.uint()?, entry: items.bytes()? },
            8 => Self::PrekeyPut { prekey: items.signed()? },
            9 => {
                let members = items.next()?.items()?;
                Self::PrekeyGet {
                    members: members.iter().map(|m| m.array().map(PeerId)).collect::<Result<_, _>>()?,
                }
            }
            10 => Self::InvitePut {
                request: items.uint()?,
                lookup: InviteLookup(items.next()?.array()?),
                blob: items.bytes()?,
                exp: UnixMs(items.uint()?),
                uses: items.uint()?,
            },
            11 => Self::InviteDelete { request: items.uint()?, lookup: InviteLookup(items.next()?.array()?) },
            14 => Self::Goodbye,
            15 => Self::LogReturn { from: items.uint()?, entries: items.byte_strings()? },
            PING => Self::Ping { nonce: items.uint()? },
            PONG => Self::Pong { nonce: items.uint()? },
            _ => return Err(DecodeError::UnknownField),
        };
        items.finish(read)
    }
}
