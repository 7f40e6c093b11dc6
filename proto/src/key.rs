//! Keys: ed25519 signs, a separately generated x25519 key opens (protocol.md §2). Secrets are
//! wiped on drop and cannot be printed, compared or serialised.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use subtle::{Choice, ConstantTimeEq};
use zeroize::ZeroizeOnDrop;

use crate::id::{Kid, PeerId};
use crate::transcript::{hash16, signing_input};

/// Why bytes are not a usable public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a point, or one of small order: anyone could sign for it.
    #[error("weak or invalid ed25519 key")]
    WeakSigner,
    /// One of the seven u-coordinates whose Diffie-Hellman result is known to everyone.
    #[error("low-order x25519 key")]
    LowOrder,
}

/// An ed25519 signature, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// An ed25519 secret: owner, member, session, coordinator or invite key.
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// From a 32-byte seed of the host's entropy (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for the keystore alone.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The public key as a name.
    pub fn id(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    /// SIGN(self, label, fields).
    pub fn sign(&self, label: &str, fields: &[&[u8]]) -> Signature {
        let input = signing_input(label, fields);
        let signature = Signature(self.0.sign(&input).to_bytes());
        #[cfg(feature = "memo")]
        crate::memo::learn_signature(self.id(), signature, &input);
        signature
    }
}

impl Clone for IdentityKey {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({}, ..)", self.id().short())
    }
}

/// A checked ed25519 public key. Decompressing costs microseconds, so keep it where it is reused.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyKey(ed25519_dalek::VerifyingKey);

impl VerifyKey {
    /// Checks that the id is a point and not of small order.
    pub fn parse(id: &PeerId) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(id.as_bytes()).map_err(|_| KeyError::WeakSigner)?;
        if key.is_weak() { Err(KeyError::WeakSigner) } else { Ok(Self(key)) }
    }

    /// The key as a name.
    pub fn id(&self) -> PeerId {
        PeerId(self.0.to_bytes())
    }

    /// Whether `signature` is SIGN(self, label, fields), by the strict rules only: verifiers that
    /// disagree would fork the log.
    #[must_use]
    pub fn accepts(&self, signature: &Signature, label: &str, fields: &[&[u8]]) -> bool {
        let input = signing_input(label, fields);
        #[cfg(feature = "memo")]
        if crate::memo::is_known(self.id(), *signature, &input) {
            return true;
        }
        let holds = self.0.verify_strict(&input, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok();
        #[cfg(feature = "memo")]
        if holds {
            crate::memo::learn_signature(self.id(), *signature, &input);
        }
        holds
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({})", self.id().short())
    }
}

/// Whether `signature` by `signer` over (label, fields) holds; false also for a weak signer key.
#[must_use]
pub fn signed_by(signer: &PeerId, signature: &Signature, label: &str, fields: &[&[u8]]) -> bool {
    #[cfg(feature = "memo")]
    if crate::memo::is_known(*signer, *signature, &signing_input(label, fields)) {
        return true;
    }
    VerifyKey::parse(signer).is_ok_and(|key| key.accepts(signature, label, fields))
}

/// An x25519 public key that is not of low order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BoxPublicKey([u8; 32]);

impl BoxPublicKey {
    /// Refuses the seven low-order u-coordinates, bit 255 masked: RustCrypto's `crypto_box`
    /// accepts them where libsodium does not, so the check is ours.
    pub fn parse(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let mut masked = bytes;
        masked[31] &= 0x7f;
        let refused = LOW_ORDER.iter().fold(Choice::from(0), |found, low| found | masked.ct_eq(low));
        if refused.into() { Err(KeyError::LowOrder) } else { Ok(Self(bytes)) }
    }

    /// The raw u-coordinate.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// HASH("kid", key)[0..16].
    pub fn kid(&self) -> Kid {
        Kid(hash16("kid", &[&self.0]))
    }
}

impl fmt::Debug for BoxPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoxPublicKey({})", self.kid().short())
    }
}

/// An x25519 secret. Wiped on drop; deliberately neither `PartialEq` nor `Serialize`.
#[derive(Clone, ZeroizeOnDrop)]
pub struct BoxSecretKey([u8; 32]);

impl BoxSecretKey {
    /// From 32 bytes of the host's entropy; clamping happens at use (RFC 7748 §5).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw scalar, for the store and for the box.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> BoxPublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        BoxPublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// Whether a Diffie-Hellman with `peer` depends on both keys (RFC 7748 §6.1); asked when a key
    /// is registered.
    pub fn contributes_with(&self, peer: &BoxPublicKey) -> bool {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        secret.diffie_hellman(&x25519_dalek::PublicKey::from(peer.0)).was_contributory()
    }
}

impl fmt::Debug for BoxSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxSecretKey(..)")
    }
}

/// 0, 1, the two values of order 8, p − 1, p and p + 1, little-endian.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    one(),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

const fn one() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
}

const fn near_p(low: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = low;
    bytes[31] = 0x7f;
    bytes
}
