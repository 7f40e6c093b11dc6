//! A statement whose signature holds, kept as the exact bytes that were signed.
//!
//! Nothing here re-serialises: what is stored, forwarded and hashed is what the signer wrote. The
//! only ways to a [`Signed`] are signing and verifying.

use std::ops::Deref;

use bytes::Bytes;

use crate::canonical::{DecodeError, Value};
use crate::key::{BoxPublicKey, IdentityKey, Signature};

/// A statement, its signature, and what it says. Constructed only by signing or by verifying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    stmt: Bytes,
    sig: Signature,
    value: T,
}

impl<T> Signed<T> {
    /// What was verified a line above the call.
    pub(crate) const fn verified(stmt: Bytes, sig: Signature, value: T) -> Self {
        Self { stmt, sig, value }
    }

    /// Signs freshly encoded bytes.
    pub(crate) fn by(key: &IdentityKey, label: &str, stmt: Vec<u8>, value: T) -> Self {
        let sig = key.sign(label, &[&stmt]);
        Self { stmt: stmt.into(), sig, value }
    }

    /// The statement, byte for byte as signed.
    pub const fn stmt(&self) -> &Bytes {
        &self.stmt
    }

    /// The signature over it.
    pub const fn sig(&self) -> Signature {
        self.sig
    }

    /// What the statement says, owned.
    pub fn into_value(self) -> T {
        self.value
    }

    /// `[statement, signature]`, to stand inside another statement or body.
    pub fn to_value(&self) -> Value<'_> {
        Value::Array(vec![Value::Bytes(&self.stmt), Value::Bytes(&self.sig.0)])
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Takes `[statement, signature]` apart; nothing is verified yet.
pub fn split_signed(value: Value<'_>) -> Result<(&[u8], Signature), DecodeError> {
    let [stmt, sig] = value.tuple()?;
    Ok((stmt.bytes()?, Signature(sig.array()?)))
}

/// A foreign x25519 key; one of low order counts as a value outside its range.
pub(crate) fn box_key(value: &Value<'_>) -> Result<BoxPublicKey, DecodeError> {
    BoxPublicKey::parse(value.array()?).map_err(|_| DecodeError::Type)
}
