//! Why an inbound envelope was dropped: the peer's doing. Counted; a member gets the reason name in
//! a receipt, a stranger nothing. A peer's bytes never cause anything worse than one of these.

use crate::canonical::DecodeError;
use crate::identity::AttestationError;

/// A reason name of the protocol (protocol.md, appendix).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// Not a well-formed statement.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Another wire version.
    #[error("version")]
    Version,
    /// An unknown suite, or one that this channel does not use.
    #[error("suite")]
    Suite,
    /// An unknown channel.
    #[error("channel")]
    Channel,
    /// Another mesh.
    #[error("mesh")]
    Mesh,
    /// The signature does not hold.
    #[error("signature")]
    Signature,
    /// The signer is in nobody's roster.
    #[error("not-a-member")]
    NotAMember,
    /// The signer, or the member behind it, was revoked.
    #[error("revoked")]
    Revoked,
    /// The attestation does not hold.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// The header names an attestation that is not known here; it can be fetched.
    #[error("unknown-attestation")]
    UnknownAttestation,
    /// The header's attestation speaks of another key.
    #[error("attestation-mismatch")]
    AttestationMismatch,
    /// The attestation does not grant this channel.
    #[error("capability")]
    Capability,
    /// Addressed to someone else.
    #[error("not-for-me")]
    NotForMe,
    /// Lives longer than a week, or ends before it begins.
    #[error("expiry")]
    Expiry,
    /// Outside its window: from the past, or from the future.
    #[error("stale")]
    Stale,
    /// Sealed to a key that is not held here. Not terminal: the sender seals again.
    #[error("unknown-kid")]
    UnknownKid,
    /// The box does not open.
    #[error("decrypt")]
    Decrypt,
    /// The body belongs under another header.
    #[error("header-binding")]
    HeaderBinding,
    /// The padding is not zeroes to the PADMÉ length.
    #[error("padding")]
    Padding,
    /// The id was used for other content.
    #[error("conflict")]
    Conflict,
}

impl Reject {
    /// The reason name.
    pub fn reason(self) -> String {
        self.to_string()
    }
}
