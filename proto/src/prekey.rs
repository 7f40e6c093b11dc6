//! Prekeys (protocol.md §3): the short-lived x25519 keys a member offers to senders, signed by the
//! member itself, so that a directory can withhold one but never substitute it.

use bytes::Bytes;

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{MeshId, PeerId};
use crate::key::{BoxPublicKey, IdentityKey, Signature, signed_by};
use crate::limits::{CLOCK_SKEW_MAX, PREKEY_LIFE, STATEMENT_BYTES_MAX};
use crate::signed::{Signed, box_key};
use crate::time::UnixMs;

/// A weekly prekey. On the wire it also says its kind, which is always 1 so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prekey {
    /// The mesh it serves.
    pub mesh: MeshId,
    /// Whose it is, and who signs.
    pub member: PeerId,
    /// Where messages are sealed to.
    pub key: BoxPublicKey,
    /// Start of validity.
    pub nbf: UnixMs,
    /// End of validity; senders choose another key afterwards.
    pub exp: UnixMs,
}

/// A prekey whose signature holds.
pub type SignedPrekey = Signed<Prekey>;

/// Why a prekey is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrekeyError {
    /// Not a well-formed prekey; includes low-order keys.
    #[error("malformed prekey: {0}")]
    Decode(#[from] DecodeError),
    /// For another mesh.
    #[error("prekey of another mesh")]
    Mesh,
    /// Not signed by the member it names.
    #[error("the prekey's signature does not hold")]
    Signature,
    /// Longer than a prekey lives, or ending before it begins.
    #[error("prekey window from {} to {} ms is out of bounds", nbf.0, exp.0)]
    Window {
        /// Start of validity.
        nbf: UnixMs,
        /// End of validity.
        exp: UnixMs,
    },
    /// Not valid at this time, clocks allowed for.
    #[error("prekey valid from {} to {} ms met at {} ms", nbf.0, exp.0, now.0)]
    NotNow {
        /// Start of validity.
        nbf: UnixMs,
        /// End of validity.
        exp: UnixMs,
        /// The reader's clock.
        now: UnixMs,
    },
}

impl Prekey {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        let mesh = MeshId(fields.take(0)?.array()?);
        let member = PeerId(fields.take(1)?.array()?);
        let key = box_key(&fields.take(2)?)?;
        if fields.take(3)?.uint()? != KIND_WEEKLY {
            return Err(DecodeError::Type);
        }
        let nbf = UnixMs(fields.take(4)?.uint()?);
        let exp = UnixMs(fields.take(5)?.uint()?);
        fields.finish()?;
        Ok(Self { mesh, member, key, nbf, exp })
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Bytes(&self.member.0)),
            (2, Value::Bytes(self.key.as_bytes())),
            (3, Value::Uint(KIND_WEEKLY)),
            (4, Value::Uint(self.nbf.0)),
            (5, Value::Uint(self.exp.0)),
        ]))
    }
}

impl Signed<Prekey> {
    /// A prekey of the signing member, valid from `nbf` for [`PREKEY_LIFE`].
    pub fn sign(member: &IdentityKey, mesh: MeshId, key: BoxPublicKey, nbf: UnixMs) -> Self {
        let prekey = Prekey { mesh, member: member.id(), key, nbf, exp: nbf.plus(PREKEY_LIFE) };
        Self::by(member, LABEL, prekey.encode(), prekey)
    }

    /// Reads a prekey and checks mesh, signature and window. Whether the member is in the roster is
    /// the caller's question.
    pub fn parse_verified(
        stmt: &[u8],
        sig: &Signature,
        mesh: &MeshId,
        now: UnixMs,
    ) -> Result<Self, PrekeyError> {
        let prekey = Prekey::parse(stmt)?;
        if prekey.mesh != *mesh {
            return Err(PrekeyError::Mesh);
        }
        if !signed_by(&prekey.member, sig, LABEL, &[stmt]) {
            return Err(PrekeyError::Signature);
        }
        let Prekey { nbf, exp, .. } = prekey;
        if exp <= nbf || exp.since(nbf) > PREKEY_LIFE + CLOCK_SKEW_MAX {
            return Err(PrekeyError::Window { nbf, exp });
        }
        if now.plus(CLOCK_SKEW_MAX) < nbf || now > exp.plus(CLOCK_SKEW_MAX) {
            return Err(PrekeyError::NotNow { nbf, exp, now });
        }
        Ok(Self::verified(Bytes::copy_from_slice(stmt), *sig, prekey))
    }
}

const LABEL: &str = "prekey";
const KIND_WEEKLY: u64 = 1;

#[cfg(test)]
mod tests;
