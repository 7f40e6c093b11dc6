//! Opening (protocol.md §5, steps 5 to 9): the one place where plaintext appears.

use bytes::Bytes;
use crypto_box::SalsaBox;
use crypto_box::aead::{AeadInPlace, KeyInit};
use crypto_secretbox::XSalsa20Poly1305;

use crate::dedupe::Fresh;
use crate::envelope::{Channel, Header, MAC_BYTES, Recipient};
use crate::id::{AttestationHash, EnvHash, GroupId, Kid, PeerId};
use crate::identity::{Capability, SessionAttestation};
use crate::key::{BoxPublicKey, BoxSecretKey};
use crate::limits::{CLOCK_SKEW_MAX, MESSAGE_LIFE_MAX};
use crate::reject::Reject;
use crate::roster::Roster;
use crate::seal::{INNER_PREFIX_BYTES, padme};
use crate::time::UnixMs;
use crate::transcript::hash;

/// An opened envelope. Only this reaches readers, hooks and agents.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The header, bound to the body by its hash inside the box.
    pub header: Header,
    /// Names the sealed bytes.
    pub env_hash: EnvHash,
    /// The canonical body bytes.
    pub body: Bytes,
}

/// Who is reading: what the roster says, which keys are held, what time it is.
pub trait Receiver {
    /// The mesh as replayed here.
    fn roster(&self) -> &Roster;
    /// Whether a key was revoked, in the log or off it; `holder` is the member behind a session's or
    /// service's key, and the key itself for a member.
    fn is_revoked(&self, key: &PeerId, holder: &PeerId) -> bool;
    /// Whether mail to this identity is for this reader.
    fn is_me(&self, peer: &PeerId) -> bool;
    /// Whether this reader holds a key of that topic or group.
    fn reads(&self, group: &GroupId) -> bool;
    /// A known session or service attestation.
    fn attestation(&self, hash: &AttestationHash) -> Option<&SessionAttestation>;
    /// Whether the secret of `kid` is held.
    fn holds(&self, kid: &Kid) -> bool;
    /// The box between the secret of `kid` and a sender's key; none if that secret is not held.
    fn shared_box(&mut self, kid: &Kid, sender: &BoxPublicKey) -> Option<&SalsaBox>;
    /// A topic or content key.
    fn secret_key(&self, kid: &Kid) -> Option<&[u8; 32]>;
    /// The reader's wall clock.
    fn now(&self) -> UnixMs;
    /// The largest exp of dropped dedupe rows: nothing that old can be told from a repeat.
    fn floor(&self) -> UnixMs;
}

/// The box between a key held here and a sender's short-lived key.
pub fn receiver_box(secret: &BoxSecretKey, sender: &BoxPublicKey) -> SalsaBox {
    SalsaBox::new(&(*sender.as_bytes()).into(), &(*secret.expose()).into())
}

impl Fresh {
    /// Authorises the signer, then opens.
    pub fn open(self, reader: &mut impl Receiver) -> Result<Opened, Reject> {
        let header = self.header();
        authorise(header, reader)?;
        addressed(header, reader)?;
        window(header, reader)?;
        let inner = decrypt(&self, reader)?;
        let body = unwrap(&inner, &self.0.0.hdr)?;
        let env_hash = self.env_hash();
        Ok(Opened { header: self.0.0.header, env_hash, body })
    }
}

/// Step 5: membership, revocation, attestation, capability.
fn authorise(header: &Header, reader: &impl Receiver) -> Result<(), Reject> {
    let Some(auth) = &header.auth else {
        return member(&header.from, reader);
    };
    let attestation = reader.attestation(auth).ok_or(Reject::UnknownAttestation)?;
    if attestation.session != header.from {
        return Err(Reject::AttestationMismatch);
    }
    if reader.is_revoked(&header.from, &attestation.member) {
        return Err(Reject::Revoked);
    }
    member(&attestation.member, reader)?;
    attestation.check_window(reader.now())?;
    if attestation.caps.allows(needed(header.channel)) { Ok(()) } else { Err(Reject::Capability) }
}

fn member(peer: &PeerId, reader: &impl Receiver) -> Result<(), Reject> {
    if reader.is_revoked(peer, peer) {
        return Err(Reject::Revoked);
    }
    if reader.roster().member(peer).is_some() { Ok(()) } else { Err(Reject::NotAMember) }
}

/// The capability a session needs to speak on a channel (protocol.md §7).
fn needed(channel: Channel) -> Capability {
    match channel {
        Channel::Dm | Channel::System => Capability::DmSend,
        Channel::Group => Capability::GroupPost,
        Channel::Topic => Capability::TopicPost,
        Channel::Rpc => Capability::RpcCall,
        Channel::Stream => Capability::StreamOpen,
    }
}

/// Step 6, first half.
fn addressed(header: &Header, reader: &impl Receiver) -> Result<(), Reject> {
    let mine = match &header.to {
        Recipient::Peer(peer) => reader.is_me(peer),
        Recipient::Group(group) => reader.reads(group),
    };
    if mine { Ok(()) } else { Err(Reject::NotForMe) }
}

/// Step 6, second half (protocol.md §12).
fn window(header: &Header, reader: &impl Receiver) -> Result<(), Reject> {
    let (ts, exp, now) = (header.ts, header.exp, reader.now());
    if exp < ts || exp.since(ts) > MESSAGE_LIFE_MAX {
        return Err(Reject::Expiry);
    }
    let in_time = ts <= now.plus(CLOCK_SKEW_MAX) && now <= exp.plus(CLOCK_SKEW_MAX) && exp > reader.floor();
    if in_time { Ok(()) } else { Err(Reject::Stale) }
}

/// Steps 7 and 8. No trial decryption: the header names the key.
fn decrypt(fresh: &Fresh, reader: &mut impl Receiver) -> Result<Vec<u8>, Reject> {
    let envelope = &fresh.0.0;
    let header = &envelope.header;
    if envelope.ct.len() < MAC_BYTES + INNER_PREFIX_BYTES {
        return Err(Reject::Decrypt);
    }
    let (tag, ct) = envelope.ct.split_at(MAC_BYTES);
    let mut inner = ct.to_vec();
    let nonce = header.nonce.into();
    let opened = match (&header.to, header.spk) {
        (Recipient::Peer(_), Some(spk)) => {
            if !reader.holds(&header.kid) {
                return Err(Reject::UnknownKid);
            }
            let sender = BoxPublicKey::parse(spk).map_err(|_| Reject::Decrypt)?;
            let shared = reader.shared_box(&header.kid, &sender).ok_or(Reject::UnknownKid)?;
            shared.decrypt_in_place_detached(&nonce, b"", &mut inner, tag.into())
        }
        (Recipient::Group(_), _) | (Recipient::Peer(_), None) => {
            let key = reader.secret_key(&header.kid).ok_or(Reject::UnknownKid)?;
            XSalsa20Poly1305::new(key.into()).decrypt_in_place_detached(&nonce, b"", &mut inner, tag.into())
        }
    };
    opened.map_err(|_| Reject::Decrypt)?;
    Ok(inner)
}

/// Step 9: the header hash, the length, and nothing but zeroes to the PADMÉ point.
fn unwrap(inner: &[u8], hdr: &[u8]) -> Result<Bytes, Reject> {
    if inner[..32] != hash("hdr", &[hdr]) {
        return Err(Reject::HeaderBinding);
    }
    let mut length = [0; 4];
    length.copy_from_slice(&inner[32..INNER_PREFIX_BYTES]);
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Reject::Padding)?;
    let rest = &inner[INNER_PREFIX_BYTES..];
    if length > rest.len()
        || padme(INNER_PREFIX_BYTES + length) != inner.len()
        || rest[length..].iter().any(|byte| *byte != 0)
    {
        return Err(Reject::Padding);
    }
    Ok(Bytes::copy_from_slice(&rest[..length]))
}
