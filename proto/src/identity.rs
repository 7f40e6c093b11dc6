//! Who speaks: handles, origins, capabilities, and the attestation by which a member lends its name
//! to a session (protocol.md §1, §7).
//!
//! A session attestation carries two signatures: the member's, who grants, and the session key's,
//! who proves possession; without the second a member could claim somebody else's session.

mod capability;
mod handle;
mod origin;

use bytes::Bytes;

pub use capability::{Capabilities, Capability};
pub(crate) use handle::KEY_PREFIX_DIGITS_MIN;
pub use handle::{Handle, HandleError};
pub use origin::{Origin, OriginError};

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{AttestationHash, MeshId, PeerId};
use crate::key::{BoxPublicKey, IdentityKey, Signature, signed_by};
use crate::limits::{ATTESTATION_BYTES_MAX, CLOCK_SKEW_MAX, SESSION_LIFE_MAX};
use crate::roster::Head;
use crate::signed::box_key;
use crate::time::UnixMs;
use crate::transcript::hash;

/// What a member says of one launch of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAttestation {
    /// The mesh it is good in.
    pub mesh: MeshId,
    /// Who grants.
    pub member: PeerId,
    /// The session's signing key.
    pub session: PeerId,
    /// Where messages to the session are sealed to.
    pub key: BoxPublicKey,
    /// The session's random id.
    pub sid: [u8; 16],
    /// Start of validity.
    pub nbf: UnixMs,
    /// End of validity.
    pub exp: UnixMs,
    /// What the session may do, before the receiver's own grants.
    pub caps: Capabilities,
    /// The member's log head when it signed.
    pub head: Head,
}

/// Why an attestation does not count. Displayed as the protocol's reason name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AttestationError {
    /// Not a well-formed attestation.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// For another mesh.
    #[error("mesh")]
    Mesh,
    /// The member's signature does not hold.
    #[error("signature")]
    Signature,
    /// The session key did not sign: nobody proved to hold it.
    #[error("possession")]
    Possession,
    /// Lives longer than a session may, or ends before it begins.
    #[error("ttl")]
    Ttl,
    /// Not valid at this time.
    #[error("attestation-window")]
    Window,
}

impl AttestationError {
    /// The reason name.
    pub fn reason(self) -> String {
        self.to_string()
    }
}

/// An attestation whose two signatures hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAttestation {
    stmt: Bytes,
    sig_member: Signature,
    sig_session: Signature,
    value: SessionAttestation,
}

impl SessionAttestation {
    /// Strict decode; nothing is verified. Capability names unknown here grant nothing.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, ATTESTATION_BYTES_MAX)?.fields()?;
        let parsed = Self {
            mesh: MeshId(fields.take(0)?.array()?),
            member: PeerId(fields.take(1)?.array()?),
            session: PeerId(fields.take(2)?.array()?),
            key: box_key(&fields.take(3)?)?,
            sid: fields.take(4)?.array()?,
            nbf: UnixMs(fields.take(5)?.uint()?),
            exp: UnixMs(fields.take(6)?.uint()?),
            caps: Capabilities::from_value(fields.take(7)?)?,
            head: Head::from_value(fields.take(8)?)?,
        };
        fields.finish()?;
        Ok(parsed)
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Bytes(&self.member.0)),
            (2, Value::Bytes(&self.session.0)),
            (3, Value::Bytes(self.key.as_bytes())),
            (4, Value::Bytes(&self.sid)),
            (5, Value::Uint(self.nbf.0)),
            (6, Value::Uint(self.exp.0)),
            (7, self.caps.to_value()),
            (8, self.head.to_value()),
        ]))
    }

    /// Signs for both keys. Issue and keeping of session keys is the host's.
    pub fn sign(self, member: &IdentityKey, session: &IdentityKey) -> VerifiedAttestation {
        let stmt = self.encode();
        let sig_member = member.sign(LABEL_MEMBER, &[&stmt]);
        let sig_session = session.sign(LABEL_SESSION, &[&stmt]);
        VerifiedAttestation { stmt: stmt.into(), sig_member, sig_session, value: self }
    }

    /// Whether `now` lies in [nbf − 5 min, exp].
    pub fn check_window(&self, now: UnixMs) -> Result<(), AttestationError> {
        let open = now.plus(CLOCK_SKEW_MAX) >= self.nbf && now <= self.exp;
        if open { Ok(()) } else { Err(AttestationError::Window) }
    }
}

impl VerifiedAttestation {
    /// Checks mesh, both signatures, life and window. Whether the member is in the roster is the
    /// caller's question.
    pub fn verify(
        stmt: &[u8],
        sig_member: &Signature,
        sig_session: &Signature,
        mesh: &MeshId,
        now: UnixMs,
    ) -> Result<Self, AttestationError> {
        let value = SessionAttestation::parse(stmt)?;
        if value.mesh != *mesh {
            return Err(AttestationError::Mesh);
        }
        if !signed_by(&value.member, sig_member, LABEL_MEMBER, &[stmt]) {
            return Err(AttestationError::Signature);
        }
        if !signed_by(&value.session, sig_session, LABEL_SESSION, &[stmt]) {
            return Err(AttestationError::Possession);
        }
        if value.exp <= value.nbf || value.exp.since(value.nbf) > SESSION_LIFE_MAX {
            return Err(AttestationError::Ttl);
        }
        value.check_window(now)?;
        let stmt = Bytes::copy_from_slice(stmt);
        Ok(Self { stmt, sig_member: *sig_member, sig_session: *sig_session, value })
    }

    /// Reads the wire form `[statement, [member's signature, session's signature]]` and verifies.
    pub fn open(wire: &[u8], mesh: &MeshId, now: UnixMs) -> Result<Self, AttestationError> {
        let [stmt, sigs] = decode(wire, ATTESTATION_BYTES_MAX)?.tuple()?;
        let [sig_member, sig_session] = sigs.tuple()?;
        let sig_member = Signature(sig_member.array()?);
        Self::verify(stmt.bytes()?, &sig_member, &Signature(sig_session.array()?), mesh, now)
    }

    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let sigs = vec![Value::Bytes(&self.sig_member.0), Value::Bytes(&self.sig_session.0)];
        encode(&Value::Array(vec![Value::Bytes(&self.stmt), Value::Array(sigs)]))
    }

    /// HASH("attest", statement): how envelopes and hellos name it.
    pub fn hash(&self) -> AttestationHash {
        AttestationHash(hash("attest", &[&self.stmt]))
    }

    /// What it says.
    pub const fn get(&self) -> &SessionAttestation {
        &self.value
    }
}

const LABEL_MEMBER: &str = "session-attest";
const LABEL_SESSION: &str = "session-accept";

#[cfg(test)]
mod tests;
