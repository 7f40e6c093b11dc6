//! Handles: the short names people give to members, and the rule that keeps them apart from keys.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// A member's name in its mesh: `[a-z0-9][a-z0-9-]{0,31}`, never eight or more hex digits alone,
/// because those are read as the beginning of a key. Never reused in a mesh.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

/// Why a text is not a handle. The reason name of all of them is `handle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Empty or longer than [`Handle::BYTES_MAX`].
    #[error("a handle has 1 to 32 characters, this one has {0}")]
    Length(usize),
    /// A character outside `a-z`, `0-9` and `-`, or a leading `-`.
    #[error("a handle is made of a-z, 0-9 and '-', and begins with a letter or digit; found {0:?}")]
    Character(char),
    /// Could be taken for the beginning of a key.
    #[error("a handle of eight or more hex digits would look like a key")]
    LooksLikeKey,
}

impl Handle {
    /// Longest handle, in characters, which are bytes.
    pub const BYTES_MAX: usize = 32;

    /// Checks the rule.
    pub fn parse(text: &str) -> Result<Self, HandleError> {
        let count = text.chars().count();
        if !(1..=Self::BYTES_MAX).contains(&count) {
            return Err(HandleError::Length(count));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(HandleError::Character(bad));
        }
        if text.starts_with('-') {
            return Err(HandleError::Character('-'));
        }
        if text.len() >= KEY_PREFIX_DIGITS_MIN && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(HandleError::LooksLikeKey);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hex digits from which on a text names a key.
pub(crate) const KEY_PREFIX_DIGITS_MIN: usize = 8;

impl FromStr for Handle {
    type Err = HandleError;
    fn from_str(text: &str) -> Result<Self, HandleError> {
        Self::parse(text)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.0)
    }
}

impl Borrow<str> for Handle {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Handle {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Handle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Handle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
