//! Frames between a node and its coordinator, and between two nodes on a direct link.
//!
//! A frame is one canonical CBOR array, its first item the kind. Envelopes and statements stand
//! inside as byte strings and are never taken apart here: what is forwarded is what was received.
//! One WebSocket binary message, or one length-prefixed block of a QUIC stream, holds one frame.

use bytes::Bytes;

use crate::canonical::{DecodeError, Value, decode, encode};
use crate::id::{EnvHash, InviteLookup, PeerId};
use crate::key::Signature;
use crate::limits::FRAME_BYTES_MAX;
use crate::time::UnixMs;

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
            PING => Self::Ping { nonce: items.uint()? },
            PONG => Self::Pong { nonce: items.uint()? },
            _ => return Err(DecodeError::UnknownField),
        };
        items.finish(read)
    }
}

impl ToNode {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let items = match self {
            Self::Challenge { challenge } => vec![uint(64), Value::Bytes(challenge)],
            Self::Welcome { welcome } => vec![uint(65), stmt(welcome), sig(welcome)],
            Self::Accepted { env_hashes } => {
                let hashes = env_hashes.iter().map(|hash| Value::Bytes(hash.as_bytes()));
                vec![uint(66), Value::Array(hashes.collect())]
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
                let entries = entries.iter().map(|entry| Value::Bytes(entry));
                vec![uint(71), uint(*from), Value::Array(entries.collect()), uint(*size)]
            }
            Self::Appended { request, entry } => vec![uint(72), uint(*request), Value::Bytes(entry)],
            Self::Conflict { request, size, reserved_ms } => {
                vec![uint(73), uint(*request), uint(*size), uint(*reserved_ms)]
            }
            Self::Failed { request, code, text } => {
                vec![uint(74), uint(*request), Value::Text(code), Value::Text(text)]
            }
            Self::Done { request } => vec![uint(75), uint(*request)],
            Self::Prekeys { prekeys } => {
                let prekeys = prekeys.iter().map(|prekey| Value::Array(vec![stmt(prekey), sig(prekey)]));
                vec![uint(76), Value::Array(prekeys.collect())]
            }
            Self::Presence { complete, peers } => {
                let peers = peers
                    .iter()
                    .map(|(peer, online)| Value::Array(vec![Value::Bytes(peer.as_bytes()), Value::Bool(*online)]));
                vec![uint(77), Value::Bool(*complete), Value::Array(peers.collect())]
            }
            Self::GoingAway { reconnect_after_ms } => vec![uint(78), uint(*reconnect_after_ms)],
            Self::Error { code, text } => vec![uint(79), Value::Text(code), Value::Text(text)],
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
                    env_hashes: hashes.iter().map(|hash| hash.array().map(EnvHash)).collect::<Result<_, _>>()?,
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
            71 => {
                let from = items.uint()?;
                let entries = items.next()?.items()?;
                let entries = entries.iter().map(|entry| items.share(entry)).collect::<Result<_, _>>()?;
                Self::Entries { from, entries, size: items.uint()? }
            }
            72 => Self::Appended { request: items.uint()?, entry: items.bytes()? },
            73 => Self::Conflict { request: items.uint()?, size: items.uint()?, reserved_ms: items.uint()? },
            74 => Self::Failed { request: items.uint()?, code: items.text()?, text: items.text()? },
            75 => Self::Done { request: items.uint()? },
            76 => Self::Prekeys { prekeys: items.signed_list()? },
            77 => Self::Presence { complete: items.truth()?, peers: items.presence()? },
            78 => Self::GoingAway { reconnect_after_ms: items.uint()? },
            79 => Self::Error { code: items.text()?, text: items.text()? },
            PING => Self::Ping { nonce: items.uint()? },
            PONG => Self::Pong { nonce: items.uint()? },
            _ => return Err(DecodeError::UnknownField),
        };
        items.finish(read)
    }
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

/// Takes a frame's array apart, sharing the frame's memory.
struct Items<'a> {
    frame: &'a Bytes,
    rest: std::vec::IntoIter<Value<'a>>,
}

impl<'a> Items<'a> {
    fn of(frame: &'a Bytes, cap: usize) -> Result<Self, DecodeError> {
        Ok(Self { frame, rest: decode(frame, cap)?.items()?.into_iter() })
    }

    fn next(&mut self) -> Result<Value<'a>, DecodeError> {
        self.rest.next().ok_or(DecodeError::MissingField)
    }

    fn uint(&mut self) -> Result<u64, DecodeError> {
        self.next()?.uint()
    }

    fn uints(&mut self) -> Result<Vec<u64>, DecodeError> {
        self.next()?.items()?.iter().map(Value::uint).collect()
    }

    fn truth(&mut self) -> Result<bool, DecodeError> {
        if let Value::Bool(truth) = self.next()? { Ok(truth) } else { Err(DecodeError::Type) }
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        self.next()?.text().map(str::to_owned)
    }

    fn share(&self, value: &Value<'a>) -> Result<Bytes, DecodeError> {
        value.bytes().map(|bytes| self.frame.slice_ref(bytes))
    }

    fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let value = self.next()?;
        self.share(&value)
    }

    fn signed(&mut self) -> Result<SignedBytes, DecodeError> {
        let stmt = self.bytes()?;
        Ok(SignedBytes { stmt, sig: Signature(self.next()?.array()?) })
    }

    fn signed_list(&mut self) -> Result<Vec<SignedBytes>, DecodeError> {
        let list = self.next()?.items()?;
        list.into_iter()
            .map(|item| {
                let [stmt, sig] = item.tuple()?;
                Ok(SignedBytes { stmt: self.share(&stmt)?, sig: Signature(sig.array()?) })
            })
            .collect()
    }

    fn presence(&mut self) -> Result<Vec<(PeerId, bool)>, DecodeError> {
        let list = self.next()?.items()?;
        list.into_iter()
            .map(|item| {
                let [peer, online] = item.tuple()?;
                let Value::Bool(online) = online else { return Err(DecodeError::Type) };
                Ok((PeerId(peer.array()?), online))
            })
            .collect()
    }

    fn finish<T>(mut self, read: T) -> Result<T, DecodeError> {
        if self.rest.next().is_some() { Err(DecodeError::UnknownField) } else { Ok(read) }
    }
}

fn uint<'a>(number: u64) -> Value<'a> {
    Value::Uint(number)
}

fn uints<'a>(numbers: &[u64]) -> Value<'a> {
    Value::Array(numbers.iter().copied().map(Value::Uint).collect())
}

fn stmt(signed: &SignedBytes) -> Value<'_> {
    Value::Bytes(&signed.stmt)
}

fn sig(signed: &SignedBytes) -> Value<'_> {
    Value::Bytes(&signed.sig.0)
}

const PING: u64 = 12;
const PONG: u64 = 13;

