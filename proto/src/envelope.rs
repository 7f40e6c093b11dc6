//! The envelope (protocol.md §4): a header in the clear, a sealed body, one signature over both.
//!
//! [`UnverifiedEnvelope::parse`] is the only way in. It keeps the bytes it was given; everything
//! else is a view of them.

use bytes::Bytes;

use crate::canonical::{DecodeError, Fields, Value, decode, encode};
use crate::id::{AttestationHash, EnvHash, Fingerprint, GroupId, Kid, MeshId, MessageId, PeerId};
use crate::key::Signature;
use crate::limits::{FRAME_BYTES_MAX, HEADER_BYTES_MAX, INNER_BYTES_MAX};
use crate::reject::Reject;
use crate::roster::Head;
use crate::time::UnixMs;
use crate::transcript::{hash, sha256};

/// The wire version this crate speaks. There is no version 1 and no fallback.
pub const VERSION: u64 = 2;

/// What kind of conversation an envelope belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// One sender, one recipient.
    Dm = 0,
    /// One sender, a listed set of recipients.
    Group = 1,
    /// One sender, all holders of a topic key.
    Topic = 2,
    /// A call or its answer.
    Rpc = 3,
    /// Roster and revocation gossip.
    System = 4,
    /// A frame of a stream.
    Stream = 5,
}

/// How a body is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// crypto_box to one recipient key.
    Box = 1,
    /// crypto_secretbox under a shared key.
    SecretBox = 2,
}

/// How soon a message wants to be read. Orders claims between conversations, never inside one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// When there is nothing else.
    Low = 0,
    /// In turn.
    #[default]
    Next = 1,
    /// Before others.
    Now = 2,
}

/// Whom an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    /// A member, session or service.
    Peer(PeerId),
    /// A group or topic.
    Group(GroupId),
}

/// Everything in the clear. Field numbers stand in [`Header::encode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the body is sealed.
    pub suite: Suite,
    /// Which mesh.
    pub mesh: MeshId,
    /// Which kind of conversation.
    pub channel: Channel,
    /// Who signs.
    pub from: PeerId,
    /// The signer's attestation; none exactly when `from` is a member key.
    pub auth: Option<AttestationHash>,
    /// Whom it is for.
    pub to: Recipient,
    /// Random, the sender's name for this send.
    pub id: MessageId,
    /// When it was sealed.
    pub ts: UnixMs,
    /// When it is worthless.
    pub exp: UnixMs,
    /// Keyed fingerprint of the request.
    pub fp: Fingerprint,
    /// The signer's log head.
    pub head: Head,
    /// Sender's short-lived x25519 key, unchecked; none on topics.
    pub spk: Option<[u8; 32]>,
    /// Which recipient or epoch key opens it.
    pub kid: Kid,
    /// 24 bytes for XSalsa20.
    pub nonce: [u8; 24],
    /// How soon it wants to be read.
    pub priority: Priority,
    /// Stream id, sequence and flags (bit 0 ends the stream), exactly on streams.
    pub stream: Option<([u8; 16], u64, u64)>,
    /// Correlation and kind, exactly on rpc.
    pub rpc: Option<([u8; 16], u64)>,
    /// Content key commitment and recipient set hash, exactly on groups.
    pub group: Option<([u8; 32], [u8; 32])>,
}

impl Header {
    /// The header's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&Value::Map(self.pairs().collect()))
    }

    /// The canonical bytes of every field but the nonce, which the nonce is derived from.
    pub(crate) fn encode_without_nonce(&self) -> Vec<u8> {
        encode(&Value::Map(self.pairs().filter(|(key, _)| *key != 14).collect()))
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, Value<'_>)> {
        let bytes = |bytes| Value::Bytes(bytes);
        let to = match &self.to {
            Recipient::Peer(peer) => bytes(&peer.0[..]),
            Recipient::Group(group) => bytes(&group.0[..]),
        };
        [
            Some((0, Value::Uint(VERSION))),
            Some((1, Value::Uint(self.suite as u64))),
            Some((2, bytes(&self.mesh.0))),
            Some((3, Value::Uint(self.channel as u64))),
            Some((4, bytes(&self.from.0))),
            self.auth.as_ref().map(|auth| (5, bytes(&auth.0))),
            Some((6, to)),
            Some((7, bytes(&self.id.0))),
            Some((8, Value::Uint(self.ts.0))),
            Some((9, Value::Uint(self.exp.0))),
            Some((10, bytes(&self.fp.0))),
            Some((11, self.head.to_value())),
            self.spk.as_ref().map(|spk| (12, bytes(spk))),
            Some((13, bytes(&self.kid.0))),
            Some((14, bytes(&self.nonce))),
            Some((15, Value::Uint(self.priority as u64))),
            self.stream.as_ref().map(|(id, seq, flags)| {
                (16, Value::Array(vec![bytes(id), Value::Uint(*seq), Value::Uint(*flags)]))
            }),
            self.rpc.as_ref().map(|(id, kind)| (17, Value::Array(vec![bytes(id), Value::Uint(*kind)]))),
            self.group.as_ref().map(|(kc, _)| (18, bytes(kc))),
            self.group.as_ref().map(|(_, rset)| (19, bytes(rset))),
        ]
        .into_iter()
        .flatten()
    }

    /// Reads a header, strictly.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut fields = decode(bytes, HEADER_BYTES_MAX)?.fields()?;
        if fields.take(0)?.uint()? != VERSION {
            return Err(Reject::Version);
        }
        let suite = match fields.take(1)?.uint()? {
            1 => Suite::Box,
            2 => Suite::SecretBox,
            _ => return Err(Reject::Suite),
        };
        let mesh = MeshId(fields.take(2)?.array()?);
        let channel = Channel::from_number(fields.take(3)?.uint()?)?;
        if (suite == Suite::SecretBox) != matches!(channel, Channel::Group | Channel::Topic) {
            return Err(Reject::Suite);
        }
        let header = Self {
            suite,
            mesh,
            channel,
            from: PeerId(fields.take(4)?.array()?),
            auth: fields.optional(5)?.map(|auth| auth.array().map(AttestationHash)).transpose()?,
            to: recipient(channel, &fields.take(6)?)?,
            id: MessageId(fields.take(7)?.array()?),
            ts: UnixMs(fields.take(8)?.uint()?),
            exp: UnixMs(fields.take(9)?.uint()?),
            fp: Fingerprint(fields.take(10)?.array()?),
            head: Head::from_value(fields.take(11)?)?,
            spk: exactly(&mut fields, 12, channel != Channel::Topic)?.map(|spk| spk.array()).transpose()?,
            kid: Kid(fields.take(13)?.array()?),
            nonce: fields.take(14)?.array()?,
            priority: priority(fields.take(15)?.uint()?)?,
            stream: exactly(&mut fields, 16, channel == Channel::Stream)?.map(stream).transpose()?,
            rpc: exactly(&mut fields, 17, channel == Channel::Rpc)?.map(rpc).transpose()?,
            group: match exactly(&mut fields, 18, channel == Channel::Group)? {
                Some(kc) => Some((kc.array()?, fields.take(19)?.array()?)),
                None => None,
            },
        };
        fields.finish()?;
        Ok(header)
    }
}

impl Channel {
    fn from_number(number: u64) -> Result<Self, Reject> {
        [Self::Dm, Self::Group, Self::Topic, Self::Rpc, Self::System, Self::Stream]
            .into_iter()
            .find(|channel| *channel as u64 == number)
            .ok_or(Reject::Channel)
    }
}

/// An envelope that has the right shape and nothing more: no word in it is believed yet.
#[derive(Clone, Debug)]
pub struct UnverifiedEnvelope {
    pub(crate) wire: Bytes,
    pub(crate) hdr: Bytes,
    pub(crate) ct: Bytes,
    pub(crate) sig: Signature,
    pub(crate) header: Header,
    pub(crate) ct_hash: [u8; 32],
    env_hash: EnvHash,
}

impl UnverifiedEnvelope {
    /// Steps 1 and 2 of protocol.md §5: caps, then a strict decode of frame and header. The
    /// statements inside share `wire`'s memory.
    pub fn parse(wire: Bytes) -> Result<Self, Reject> {
        let items = decode(&wire, FRAME_BYTES_MAX)?.items()?;
        let mut items = items.into_iter();
        let mut next = || items.next().ok_or(DecodeError::MissingField);
        if next()?.uint()? != VERSION {
            return Err(Reject::Version);
        }
        let hdr = wire.slice_ref(next()?.bytes()?);
        let ct = wire.slice_ref(next()?.bytes()?);
        let sig = Signature(next()?.array()?);
        if items.next().is_some() {
            return Err(DecodeError::UnknownField.into());
        }
        if hdr.len() > HEADER_BYTES_MAX || ct.len() > INNER_BYTES_MAX + MAC_BYTES {
            return Err(DecodeError::Size.into());
        }
        let header = Header::decode(&hdr)?;
        let ct_hash = sha256(&ct);
        let env_hash = EnvHash(hash("envelope", &[&hdr, &ct_hash]));
        Ok(Self { wire, hdr, ct, sig, header, ct_hash, env_hash })
    }

    /// The header: claims, until verified.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Names these bytes.
    pub fn env_hash(&self) -> EnvHash {
        self.env_hash
    }

    /// The envelope as it travelled.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }
}

/// An envelope this node sealed. Its bytes are what every path carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEnvelope {
    /// `[2, hdr, ct, sig]`.
    pub wire: Bytes,
    /// Names these bytes.
    pub env_hash: EnvHash,
    /// Whose key it was sealed to.
    pub kid: Kid,
}

/// Bytes Poly1305 adds.
pub(crate) const MAC_BYTES: usize = 16;

/// A field that must be there exactly when the channel calls for it.
fn exactly<'a>(fields: &mut Fields<'a>, key: u64, wanted: bool) -> Result<Option<Value<'a>>, DecodeError> {
    match (fields.optional(key)?, wanted) {
        (Some(_), false) => Err(DecodeError::UnknownField),
        (None, true) => Err(DecodeError::MissingField),
        (found, _) => Ok(found),
    }
}

fn recipient(channel: Channel, to: &Value<'_>) -> Result<Recipient, DecodeError> {
    match channel {
        Channel::Group | Channel::Topic => to.array().map(GroupId).map(Recipient::Group),
        Channel::Dm | Channel::Rpc | Channel::System | Channel::Stream => {
            to.array().map(PeerId).map(Recipient::Peer)
        }
    }
}

fn priority(number: u64) -> Result<Priority, DecodeError> {
    [Priority::Low, Priority::Next, Priority::Now]
        .into_iter()
        .find(|priority| *priority as u64 == number)
        .ok_or(DecodeError::Type)
}

fn stream(value: Value<'_>) -> Result<([u8; 16], u64, u64), DecodeError> {
    let [id, seq, flags] = value.tuple()?;
    Ok((id.array()?, seq.uint()?, flags.uint()?))
}

fn rpc(value: Value<'_>) -> Result<([u8; 16], u64), DecodeError> {
    let [id, kind] = value.tuple()?;
    Ok((id.array()?, kind.uint()?))
}

/// The frame around a sealed body.
pub(crate) fn assemble(hdr: &[u8], ct: &[u8], sig: &Signature) -> Bytes {
    encode(&Value::Array(vec![
        Value::Uint(VERSION),
        Value::Bytes(hdr),
        Value::Bytes(ct),
        Value::Bytes(&sig.0),
    ]))
    .into()
}

#[cfg(test)]
mod tests;
