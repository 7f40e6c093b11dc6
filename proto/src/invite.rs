//! Invites (protocol.md §8): a code told from person to person, a cap by which an admin lets someone
//! in, and the joiner's claim on it.
//!
//! 1. The inviter draws a code, signs a cap naming the code's public key, and seals the cap under
//!    the code: the blob. The coordinator stores it under a lookup and learns neither.
//! 2. The joiner asks for the blob, opens it, replays the log and checks it against the cap
//!    ([`SignedCap::check_for_joiner`]).
//! 3. It signs a claim twice: with its own key, and with the code's key as proof.
//! 4. Everybody checks cap, claim and proof together: [`verify_invite`](crate::verify_invite).

mod code;

use std::fmt;

use bytes::Bytes;

pub use code::{InviteCode, InviteCodeError, crockford};

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{InviteId, MeshId, PeerId, hex_of};
use crate::identity::{Handle, Origin};
use crate::key::{BoxPublicKey, IdentityKey, Signature, signed_by};
use crate::limits::{CLOCK_SKEW_MAX, INVITE_USES_MAX, STATEMENT_BYTES_MAX};
use crate::roster::{Head, Role, Roster};
use crate::signed::{Signed, box_key};
use crate::time::UnixMs;
use crate::transcript::hash;

/// How a claim becomes an admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InviteMode {
    /// The joiner appends its own entry.
    Auto = 0,
    /// A person compares a short string and an admin's node appends the entry.
    Confirm = 1,
    /// Bound to one key beforehand.
    Bound = 2,
}

/// What an inviter grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteCap {
    /// The mesh to be joined.
    pub mesh: MeshId,
    /// Random.
    pub id: InviteId,
    /// Who grants, and signs.
    pub inviter: PeerId,
    /// The role that is granted.
    pub role: Role,
    /// Admissions it serves, 1 to [`INVITE_USES_MAX`].
    pub max_uses: u64,
    /// Start of validity.
    pub nbf: UnixMs,
    /// End of validity.
    pub exp: UnixMs,
    /// How a claim becomes an admission.
    pub mode: InviteMode,
    /// The inviter's log head: a log without it is not this mesh's.
    pub head: Head,
    /// Where the coordinator is.
    pub origin: Origin,
    /// Public half of [`InviteCode::signing_key`].
    pub key: PeerId,
    /// The only handle it may be used for, if one is set.
    pub handle: Option<Handle>,
}

/// A cap whose inviter's signature holds. Whether the inviter may invite is the roster's to say.
pub type SignedCap = Signed<InviteCap>;

/// HASH("invite-cap", cap): what uses are counted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapHash(pub [u8; 32]);

impl fmt::Debug for CapHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapHash({})", hex_of(&self.0[..4]))
    }
}

/// What a joiner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteClaim {
    /// The mesh to be joined.
    pub mesh: MeshId,
    /// Which invite.
    pub invite: InviteId,
    /// The joiner's signing key.
    pub joiner: PeerId,
    /// The joiner's first prekey.
    pub prekey: BoxPublicKey,
    /// Where an answer to the joiner is sealed to.
    pub sealing: BoxPublicKey,
    /// Random.
    pub nonce: [u8; 32],
    /// When it was signed.
    pub ts: UnixMs,
    /// The handle it wants.
    pub handle: Handle,
}

/// A claim with its two signatures: the joiner's, and the invite key's as proof of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedClaim {
    claim: Signed<InviteClaim>,
    proof: Signature,
}

/// Why an invite does not admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Cap or claim is not well-formed.
    #[error("malformed invite: {0}")]
    Decode(#[from] DecodeError),
    /// The blob does not open with this code.
    #[error("the invite does not open with this code")]
    Blob,
    /// Cap or claim is for another mesh.
    #[error("the invite is for another mesh")]
    Mesh,
    /// The inviter's or joiner's signature does not hold.
    #[error("a signature of the invite does not hold")]
    Signature,
    /// The claim was made without the code.
    #[error("the claim does not prove knowledge of the invite code")]
    CodeProof,
    /// Cap, claim and entry say different things of this.
    #[error("the claim's {0} is not what the invite grants")]
    ClaimMismatch(&'static str),
    /// The invite admits in another way.
    #[error("the invite has mode {0:?}")]
    Mode(InviteMode),
    /// The inviter is neither owner nor admin there.
    #[error("the inviter may not invite")]
    InviterAuthority,
    /// The log does not contain the inviter's head.
    #[error("the log does not contain the head that the inviter saw")]
    CapHead,
    /// Outside the cap's window.
    #[error("the invite is valid from {} to {} ms, the time is {} ms", nbf.0, exp.0, at.0)]
    Expired {
        /// Start of validity.
        nbf: UnixMs,
        /// End of validity.
        exp: UnixMs,
        /// The time it was held against.
        at: UnixMs,
    },
    /// As many entries carry this cap as it allows.
    #[error("the invite was used {0} times, which is all it grants")]
    Used(u64),
}

impl InviteError {
    /// The reason name of the protocol.
    pub fn reason(self) -> String {
        match self {
            Self::Decode(error) => return error.to_string(),
            Self::Blob | Self::CodeProof => "code-proof",
            Self::Mesh => "mesh",
            Self::Signature => "signature",
            Self::ClaimMismatch(_) => "claim-mismatch",
            Self::Mode(_) => "invite-mode",
            Self::InviterAuthority => "inviter-authority",
            Self::CapHead => "cap-head",
            Self::Expired { .. } => "expired",
            Self::Used(_) => "invite-used",
        }
        .to_owned()
    }
}

impl InviteMode {
    fn from_value(value: &Value<'_>) -> Result<Self, DecodeError> {
        match value.uint()? {
            0 => Ok(Self::Auto),
            1 => Ok(Self::Confirm),
            2 => Ok(Self::Bound),
            _ => Err(DecodeError::Type),
        }
    }
}

impl InviteCap {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        let parsed = Self {
            mesh: MeshId(fields.take(0)?.array()?),
            id: InviteId(fields.take(1)?.array()?),
            inviter: PeerId(fields.take(2)?.array()?),
            role: Role::from_value(&fields.take(3)?)?,
            max_uses: fields.take(4)?.uint()?,
            nbf: UnixMs(fields.take(5)?.uint()?),
            exp: UnixMs(fields.take(6)?.uint()?),
            mode: InviteMode::from_value(&fields.take(7)?)?,
            head: Head::from_value(fields.take(8)?)?,
            origin: Origin::parse(fields.take(9)?.text()?).map_err(|_| DecodeError::Type)?,
            key: PeerId(fields.take(10)?.array()?),
            handle: fields.optional(11)?.map(|handle| parse_handle(&handle)).transpose()?,
        };
        fields.finish()?;
        let counted = (1..=INVITE_USES_MAX).contains(&parsed.max_uses);
        if counted { Ok(parsed) } else { Err(DecodeError::Type) }
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let handle = self.handle.as_ref().map(|handle| (11, Value::Text(handle.as_str())));
        let fields = [
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Bytes(&self.id.0)),
            (2, Value::Bytes(&self.inviter.0)),
            (3, self.role.to_value()),
            (4, Value::Uint(self.max_uses)),
            (5, Value::Uint(self.nbf.0)),
            (6, Value::Uint(self.exp.0)),
            (7, Value::Uint(self.mode as u64)),
            (8, self.head.to_value()),
            (9, Value::Text(self.origin.as_str())),
            (10, Value::Bytes(&self.key.0)),
        ];
        encode(&map(fields.into_iter().chain(handle)))
    }

    /// Whether `at` lies in [nbf − 5 min, exp].
    pub fn check_window(&self, at: UnixMs) -> Result<(), InviteError> {
        let open = at.plus(CLOCK_SKEW_MAX) >= self.nbf && at <= self.exp;
        if open { Ok(()) } else { Err(InviteError::Expired { nbf: self.nbf, exp: self.exp, at }) }
    }
}

impl Signed<InviteCap> {
    /// Signs a cap with the inviter's key, which it must name.
    pub fn sign(inviter: &IdentityKey, cap: InviteCap) -> Self {
        debug_assert_eq!(inviter.id(), cap.inviter, "the inviter signs its own caps");
        Self::by(inviter, LABEL_CAP, cap.encode(), cap)
    }

    /// Reads a cap and checks that the inviter it names signed it.
    pub fn parse_verified(stmt: &[u8], sig: &Signature) -> Result<Self, InviteError> {
        Self::check_signature(InviteCap::parse(stmt)?, stmt, sig)
    }

    /// The second half of [`Self::parse_verified`].
    pub(crate) fn check_signature(cap: InviteCap, stmt: &[u8], sig: &Signature) -> Result<Self, InviteError> {
        if !signed_by(&cap.inviter, sig, LABEL_CAP, &[stmt]) {
            return Err(InviteError::Signature);
        }
        Ok(Self::verified(Bytes::copy_from_slice(stmt), *sig, cap))
    }

    /// HASH("invite-cap", statement).
    pub fn hash(&self) -> CapHash {
        CapHash(hash("invite-cap", &[self.stmt()]))
    }

    /// What a joiner asks before it trusts a log that a coordinator served: it begins with the
    /// mesh's genesis, contains the inviter's head, and knows the inviter as owner or admin.
    pub fn check_for_joiner(&self, roster: &Roster, now: UnixMs) -> Result<(), InviteError> {
        if self.mesh != roster.mesh_id() {
            return Err(InviteError::Mesh);
        }
        roster.check_cap(self, now)
    }
}

impl InviteClaim {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        let parsed = Self {
            mesh: MeshId(fields.take(0)?.array()?),
            invite: InviteId(fields.take(1)?.array()?),
            joiner: PeerId(fields.take(2)?.array()?),
            prekey: box_key(&fields.take(3)?)?,
            sealing: box_key(&fields.take(4)?)?,
            nonce: fields.take(5)?.array()?,
            ts: UnixMs(fields.take(6)?.uint()?),
            handle: parse_handle(&fields.take(7)?)?,
        };
        fields.finish()?;
        Ok(parsed)
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Bytes(&self.invite.0)),
            (2, Value::Bytes(&self.joiner.0)),
            (3, Value::Bytes(self.prekey.as_bytes())),
            (4, Value::Bytes(self.sealing.as_bytes())),
            (5, Value::Bytes(&self.nonce)),
            (6, Value::Uint(self.ts.0)),
            (7, Value::Text(self.handle.as_str())),
        ]))
    }
}

impl SignedClaim {
    /// Signs a claim with the joiner's key, which it must name, and with the code's.
    pub fn sign(joiner: &IdentityKey, code: &InviteCode, claim: InviteClaim) -> Self {
        debug_assert_eq!(joiner.id(), claim.joiner, "the joiner signs its own claims");
        let claim = Signed::by(joiner, LABEL_CLAIM, claim.encode(), claim);
        let proof = code.signing_key().sign(LABEL_PROOF, &[claim.stmt()]);
        Self { claim, proof }
    }

    /// Reads a claim and checks the joiner's signature, then the proof under the cap's key.
    pub fn parse_verified(
        stmt: &[u8],
        sig: &Signature,
        proof: &Signature,
        cap: &InviteCap,
    ) -> Result<Self, InviteError> {
        let claim = InviteClaim::parse(stmt)?;
        if !signed_by(&claim.joiner, sig, LABEL_CLAIM, &[stmt]) {
            return Err(InviteError::Signature);
        }
        if !signed_by(&cap.key, proof, LABEL_PROOF, &[stmt]) {
            return Err(InviteError::CodeProof);
        }
        let claim = Signed::verified(Bytes::copy_from_slice(stmt), *sig, claim);
        Ok(Self { claim, proof: *proof })
    }

    /// The claim and the joiner's signature.
    pub const fn claim(&self) -> &Signed<InviteClaim> {
        &self.claim
    }

    /// The invite key's signature over the same statement.
    pub const fn proof(&self) -> Signature {
        self.proof
    }
}

fn parse_handle(value: &Value<'_>) -> Result<Handle, DecodeError> {
    Handle::parse(value.text()?).map_err(|_| DecodeError::Type)
}

const LABEL_CAP: &str = "invite-cap";
const LABEL_CLAIM: &str = "invite-claim";
const LABEL_PROOF: &str = "invite-proof";

#[cfg(test)]
mod tests;
