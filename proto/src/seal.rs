//! Sealing (protocol.md §4): the one place where a body becomes an envelope. Sealed once, when the
//! outbox row is written; every path carries these bytes.

use std::sync::Arc;

use crypto_box::SalsaBox;
use crypto_box::aead::AeadInPlace;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::envelope::{Header, MAC_BYTES, SealedEnvelope, assemble};
use crate::id::{EnvHash, Kid};
use crate::key::{BoxPublicKey, BoxSecretKey, IdentityKey};
use crate::limits::INNER_BYTES_MAX;
use crate::transcript::{hash, sha256, transcript};

/// One end's precomputed half of a box: the Diffie-Hellman is paid once for an hour of messages.
pub struct SenderBox {
    spk: [u8; 32],
    kid: Kid,
    shared: Arc<SalsaBox>,
}

impl SenderBox {
    /// From this node's short-lived secret and the recipient key to seal to.
    pub fn new(secret: &BoxSecretKey, recipient: &BoxPublicKey) -> Self {
        let (spk, kid) = (*secret.public().as_bytes(), recipient.kid());
        let shared = Arc::new(SalsaBox::new(&(*recipient.as_bytes()).into(), &(*secret.expose()).into()));
        #[cfg(feature = "memo")]
        crate::memo::learn_box(kid, spk, &shared);
        Self { spk, kid, shared }
    }

    /// The public half that stands in the header.
    pub fn spk(&self) -> &[u8; 32] {
        &self.spk
    }

    /// The recipient key that opens it.
    pub fn kid(&self) -> Kid {
        self.kid
    }
}

impl std::fmt::Debug for SenderBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SenderBox(to {}, ..)", self.kid.short())
    }
}

/// The body does not fit an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("body of {size} bytes does not fit an envelope of {limit}")]
pub struct BodyTooLarge {
    /// Bytes of the padded plaintext.
    pub size: usize,
    /// [`INNER_BYTES_MAX`].
    pub limit: usize,
}

/// Seals `body` under `header`, whose key, kid and nonce fields are set here.
///
/// `entropy` is 32 fresh bytes; the nonce also depends on header and body, so that a repeated state
/// of the host's generator cannot repeat a nonce for another message.
pub fn seal(
    mut header: Header,
    body: &[u8],
    sender: &SenderBox,
    entropy: &[u8; 32],
    signer: &IdentityKey,
) -> Result<SealedEnvelope, BodyTooLarge> {
    let size = padme(INNER_PREFIX_BYTES + body.len());
    if size > INNER_BYTES_MAX {
        return Err(BodyTooLarge { size, limit: INNER_BYTES_MAX });
    }
    header.spk = Some(sender.spk);
    header.kid = sender.kid;
    header.nonce = nonce(&header, body, entropy);
    let hdr = header.encode();

    let mut ct = vec![0; MAC_BYTES + size];
    let inner = &mut ct[MAC_BYTES..];
    inner[..32].copy_from_slice(&hash("hdr", &[&hdr]));
    let length = u32::try_from(body.len()).expect("a body fits INNER_BYTES_MAX");
    inner[32..INNER_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    inner[INNER_PREFIX_BYTES..INNER_PREFIX_BYTES + body.len()].copy_from_slice(body);
    let tag = sender
        .shared
        .encrypt_in_place_detached(&header.nonce.into(), b"", inner)
        .expect("XSalsa20 takes any length below 2^38 bytes");
    ct[..MAC_BYTES].copy_from_slice(&tag);

    let ct_hash = sha256(&ct);
    let sig = signer.sign("envelope", &[&hdr, &ct_hash]);
    let env_hash = EnvHash(hash("envelope", &[&hdr, &ct_hash]));
    Ok(SealedEnvelope { wire: assemble(&hdr, &ct, &sig), env_hash, kid: sender.kid })
}

/// PADMÉ: lengths leak at most O(log log n) bits, for at most 12 % more bytes; never below 64.
pub(crate) fn padme(length: usize) -> usize {
    if length < 64 {
        return 64;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let step = 1usize << (exponent - kept);
    length.next_multiple_of(step)
}

/// HMAC-SHA256(entropy, T("nonce", header without nonce, SHA-256(body)))[0..24].
fn nonce(header: &Header, body: &[u8], entropy: &[u8; 32]) -> [u8; 24] {
    let mut mac = Hmac::<Sha256>::new_from_slice(entropy).expect("HMAC takes keys of any length");
    mac.update(&transcript("nonce", &[&header.encode_without_nonce(), &sha256(body)]));
    let full = mac.finalize().into_bytes();
    let mut nonce = [0; 24];
    nonce.copy_from_slice(&full[..24]);
    nonce
}

/// Header hash and length before the body.
pub(crate) const INNER_PREFIX_BYTES: usize = 36;
