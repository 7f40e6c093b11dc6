//! Bind (protocol.md §9): the first frame each way on a direct channel. It names both identities and
//! both certificates, so that a channel which ends anywhere else does not verify; until both sides'
//! binds hold, nothing else is said.

use std::time::Duration;

use bytes::Bytes;

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{CertHash, ConnId, MeshId, PeerId};
use crate::key::{BoxPublicKey, IdentityKey, Signature, signed_by};
use crate::limits::{CLOCK_SKEW_MAX, DIRECT_LIFE_MAX, STATEMENT_BYTES_MAX};
use crate::roster::Head;
use crate::signed::{Signed, box_key};
use crate::time::UnixMs;

/// Which side of a direct channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BindRole {
    /// Opened it.
    Dialler = 0,
    /// Was opened to.
    Acceptor = 1,
}

impl BindRole {
    /// The other side's.
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// What carries a direct channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindTransport {
    /// QUIC, with a TLS exporter.
    Quic,
    /// DTLS under WebRTC, without one.
    Dtls,
}

impl BindTransport {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Dtls => "dtls",
        }
    }
}

/// What one side says of a direct channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The mesh.
    pub mesh: MeshId,
    /// The attempt both sides agreed on by signalling.
    pub conn: ConnId,
    /// Who speaks, and signs.
    pub from: PeerId,
    /// To whom.
    pub to: PeerId,
    /// The speaker's side.
    pub role: BindRole,
    /// What carries the channel.
    pub transport: BindTransport,
    /// The speaker's certificate.
    pub own_cert: CertHash,
    /// The other side's certificate as the speaker observed it.
    pub peer_cert: CertHash,
    /// TLS exporter of the channel; empty where there is none.
    pub exporter: Bytes,
    /// A box key for this channel's rpc and stream frames.
    pub epoch_key: BoxPublicKey,
    /// When that key ends; at most an hour ahead.
    pub epoch_exp: UnixMs,
    /// The speaker's log head.
    pub head: Head,
}

/// A bind whose signature holds and that mirrors the reader's own view.
pub type SignedBind = Signed<Bind>;

/// What the reader knows of the channel, in its own words.
#[derive(Clone, Debug)]
pub struct BindCheck<'a> {
    /// The mesh.
    pub mesh: MeshId,
    /// The attempt.
    pub conn: ConnId,
    /// Whom it expects to hear.
    pub from: PeerId,
    /// Its own identity.
    pub to: PeerId,
    /// The side the other must claim: the mirror of its own.
    pub role: BindRole,
    /// What carries the channel.
    pub transport: BindTransport,
    /// The other side's certificate as the handshake showed it.
    pub cert_observed: CertHash,
    /// The other side's certificate as signalling announced it.
    pub cert_signalled: CertHash,
    /// Its own certificate.
    pub own_cert: CertHash,
    /// The exporter as it computed it; empty where there is none.
    pub exporter: &'a [u8],
    /// Its clock.
    pub now: UnixMs,
}

/// Why a direct channel is closed before anything was said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Not well-formed.
    #[error("malformed bind: {0}")]
    Decode(#[from] DecodeError),
    /// For another mesh.
    #[error("the bind is for another mesh")]
    Mesh,
    /// For another attempt.
    #[error("the bind is for another connection attempt")]
    Conn,
    /// From someone else.
    #[error("the bind is from {}, expected {}", found.short(), expected.short())]
    WrongPeer {
        /// Whom signalling announced.
        expected: PeerId,
        /// Who speaks.
        found: PeerId,
    },
    /// Meant for someone else.
    #[error("the bind is addressed to {}", .0.short())]
    NotForMe(PeerId),
    /// Both sides claim the same role.
    #[error("the bind claims the wrong side of the channel")]
    Role,
    /// Speaks of another kind of channel.
    #[error("the bind is for another transport")]
    Transport,
    /// The speaker's certificate is not the one observed and announced.
    #[error("the peer's certificate is not the one it names")]
    PeerCert,
    /// The speaker observed another certificate than ours: someone stands between.
    #[error("the peer observed another certificate than ours")]
    OwnCert,
    /// The TLS sessions differ.
    #[error("the exporters differ")]
    Exporter,
    /// The epoch key has ended, or would live longer than it may.
    #[error("the epoch key's end, {} ms, is out of bounds at {} ms", exp.0, now.0)]
    Epoch {
        /// When it ends.
        exp: UnixMs,
        /// The reader's clock.
        now: UnixMs,
    },
    /// The signature does not hold.
    #[error("the bind's signature does not hold")]
    Signature,
}

impl Bind {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        let mesh = MeshId(fields.take(0)?.array()?);
        let conn = ConnId(fields.take(1)?.array()?);
        let from = PeerId(fields.take(2)?.array()?);
        let to = PeerId(fields.take(3)?.array()?);
        let role = match fields.take(4)?.uint()? {
            0 => BindRole::Dialler,
            1 => BindRole::Acceptor,
            _ => return Err(DecodeError::Type),
        };
        let transport = match fields.take(5)?.text()? {
            "quic" => BindTransport::Quic,
            "dtls" => BindTransport::Dtls,
            _ => return Err(DecodeError::Type),
        };
        let own_cert = CertHash(fields.take(6)?.array()?);
        let peer_cert = CertHash(fields.take(7)?.array()?);
        let exporter = Bytes::copy_from_slice(fields.take(8)?.bytes()?);
        let expected_len = match transport {
            BindTransport::Quic => EXPORTER_BYTES,
            BindTransport::Dtls => 0,
        };
        if exporter.len() != expected_len {
            return Err(DecodeError::Length);
        }
        let epoch_key = box_key(&fields.take(9)?)?;
        let epoch_exp = UnixMs(fields.take(10)?.uint()?);
        let head = Head::from_value(fields.take(11)?)?;
        fields.finish()?;
        Ok(Self {
            mesh,
            conn,
            from,
            to,
            role,
            transport,
            own_cert,
            peer_cert,
            exporter,
            epoch_key,
            epoch_exp,
            head,
        })
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Bytes(&self.conn.0)),
            (2, Value::Bytes(&self.from.0)),
            (3, Value::Bytes(&self.to.0)),
            (4, Value::Uint(self.role as u64)),
            (5, Value::Text(self.transport.name())),
            (6, Value::Bytes(&self.own_cert.0)),
            (7, Value::Bytes(&self.peer_cert.0)),
            (8, Value::Bytes(&self.exporter)),
            (9, Value::Bytes(self.epoch_key.as_bytes())),
            (10, Value::Uint(self.epoch_exp.0)),
            (11, self.head.to_value()),
        ]))
    }
}

impl Signed<Bind> {
    /// Signs a bind with the speaker's key, which it must name.
    pub fn sign(from: &IdentityKey, bind: Bind) -> Self {
        debug_assert_eq!(from.id(), bind.from, "a speaker signs its own binds");
        Self::by(from, LABEL, bind.encode(), bind)
    }
}

/// Accepts a bind exactly if everything in it mirrors the reader's own view and its signature holds.
/// A session's attestation is checked by the caller.
pub fn verify_bind(stmt: &[u8], sig: &Signature, check: &BindCheck<'_>) -> Result<SignedBind, BindError> {
    let bind = Bind::parse(stmt)?;
    if bind.mesh != check.mesh {
        return Err(BindError::Mesh);
    }
    if bind.conn != check.conn {
        return Err(BindError::Conn);
    }
    if bind.from != check.from {
        return Err(BindError::WrongPeer { expected: check.from, found: bind.from });
    }
    if bind.to != check.to {
        return Err(BindError::NotForMe(bind.to));
    }
    if bind.role != check.role {
        return Err(BindError::Role);
    }
    if bind.transport != check.transport {
        return Err(BindError::Transport);
    }
    if bind.own_cert != check.cert_observed || bind.own_cert != check.cert_signalled {
        return Err(BindError::PeerCert);
    }
    if bind.peer_cert != check.own_cert {
        return Err(BindError::OwnCert);
    }
    if bind.exporter != check.exporter {
        return Err(BindError::Exporter);
    }
    check_epoch(bind.epoch_exp, check.now)?;
    if !signed_by(&bind.from, sig, LABEL, &[stmt]) {
        return Err(BindError::Signature);
    }
    Ok(Signed::verified(Bytes::copy_from_slice(stmt), *sig, bind))
}

fn check_epoch(exp: UnixMs, now: UnixMs) -> Result<(), BindError> {
    let latest: Duration = DIRECT_LIFE_MAX + CLOCK_SKEW_MAX;
    let ended = exp.plus(CLOCK_SKEW_MAX) < now;
    if ended || exp > now.plus(latest) { Err(BindError::Epoch { exp, now }) } else { Ok(()) }
}

/// RFC 8446 §7.5 exporter, as the protocol asks for it.
const EXPORTER_BYTES: usize = 32;
const LABEL: &str = "bind";

#[cfg(test)]
mod tests;
