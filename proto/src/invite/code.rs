//! The invite code: 80 bits that one person tells another. It never reaches the coordinator; what
//! the coordinator holds (lookup and blob) opens only with it.

use std::fmt;
use std::str::FromStr;

use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{InviteError, SignedCap};
use crate::canonical::{decode, encode};
use crate::id::InviteLookup;
use crate::key::{IdentityKey, Signature};
use crate::limits::STATEMENT_BYTES_MAX;
use crate::transcript::{hash, hash16};

/// An invite code. Wiped on drop; shown only by `Display`, to the person who asked for it.
#[derive(Clone, ZeroizeOnDrop)]
pub struct InviteCode([u8; 10]);

/// Why a text is not an invite code. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteCodeError {
    /// Too short or too long.
    #[error("an invite code has 16 characters, this text has {0}")]
    Length(usize),
    /// A character outside Crockford's alphabet.
    #[error("an invite code has digits and letters except U")]
    Character,
}

impl InviteCode {
    /// From ten bytes of the host's entropy.
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// HASH("invite-lookup", code)[0..16]: what the coordinator finds the blob by.
    pub fn lookup(&self) -> InviteLookup {
        InviteLookup(hash16("invite-lookup", &[&self.0]))
    }

    /// The key that proves knowledge of the code; its public half stands in the cap.
    pub fn signing_key(&self) -> IdentityKey {
        IdentityKey::from_seed(&Zeroizing::new(hash("invite-sign", &[&self.0])))
    }

    /// nonce ‖ secretbox([cap, signature]): what the coordinator stores without reading it.
    pub fn seal_blob(&self, cap: &SignedCap, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let plain = encode(&cap.to_value());
        let sealed = self
            .secretbox()
            .encrypt((&nonce).into(), plain.as_slice())
            .expect("a plaintext of a few hundred bytes is sealed into memory");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens a blob and reads the cap in it. The signature is the inviter's word only once a roster
    /// has confirmed the inviter, so nothing here is trusted yet: see
    /// [`SignedCap::check_for_joiner`].
    pub fn open_blob(&self, blob: &[u8]) -> Result<SignedCap, InviteError> {
        if blob.len() > STATEMENT_BYTES_MAX {
            return Err(InviteError::Blob);
        }
        let (nonce, sealed) = blob.split_first_chunk::<NONCE_BYTES>().ok_or(InviteError::Blob)?;
        let plain = self.secretbox().decrypt(nonce.into(), sealed).map_err(|_| InviteError::Blob)?;
        let [stmt, sig] = decode(&plain, STATEMENT_BYTES_MAX)?.tuple()?;
        let cap = SignedCap::parse_verified(stmt.bytes()?, &Signature(sig.array()?))?;
        // A blob with another invite's cap would make the joiner's proof fail later, less clearly.
        if cap.key != self.signing_key().id() { Err(InviteError::CodeProof) } else { Ok(cap) }
    }

    fn secretbox(&self) -> XSalsa20Poly1305 {
        let mut key = hash("invite-key", &[&self.0]);
        let secretbox = XSalsa20Poly1305::new((&key).into());
        key.zeroize();
        secretbox
    }
}

/// Nonce of XSalsa20, in bytes.
pub(crate) const NONCE_BYTES: usize = 24;

/// `XXXX-XXXX-XXXX-XXXX`, most significant bits first.
impl fmt::Display for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        for place in 0..CHARACTERS {
            if place > 0 && place % 4 == 0 {
                f.write_str("-")?;
            }
            let digit = (bits >> (5 * (CHARACTERS - 1 - place))) & 31;
            write!(f, "{}", char::from(ALPHABET[usize::try_from(digit).unwrap_or(0)]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteCode(..)")
    }
}

/// Case, dashes and spaces do not matter; O reads as 0, I and L as 1; U is refused.
impl FromStr for InviteCode {
    type Err = InviteCodeError;
    fn from_str(text: &str) -> Result<Self, InviteCodeError> {
        let mut bits = Zeroizing::new(0_u128);
        let mut count = 0;
        for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            count += 1;
            let digit = digit(character).ok_or(InviteCodeError::Character)?;
            *bits = *bits << 5 | u128::from(digit);
        }
        if count != CHARACTERS {
            return Err(InviteCodeError::Length(count));
        }
        let wide = Zeroizing::new(bits.to_be_bytes());
        let mut code = [0; 10];
        code.copy_from_slice(&wide[6..]);
        Ok(Self(code))
    }
}

fn digit(character: char) -> Option<u8> {
    let upper = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let place = ALPHABET.iter().position(|known| char::from(*known) == upper)?;
    u8::try_from(place).ok()
}

/// The first `count` Crockford characters of `bytes`, as in a short authentication string.
pub fn crockford(bytes: &[u8], count: usize) -> String {
    let bit = |place: usize| {
        let byte = bytes.get(place / 8).copied().unwrap_or(0);
        byte >> (7 - place % 8) & 1
    };
    let digit = |index: usize| (0..5).fold(0_u8, |digit, offset| digit << 1 | bit(5 * index + offset));
    (0..count).map(|index| char::from(ALPHABET[usize::from(digit(index))])).collect()
}

const CHARACTERS: usize = 16;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
