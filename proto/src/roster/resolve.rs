//! From what a person typed to a member: a handle, or the beginning of a key.

use std::fmt;

use super::{Member, Roster};
use crate::id::{PeerId, hex_of};
use crate::identity::Handle;

/// A member that a prefix could mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub id: PeerId,
    /// Its handle.
    pub handle: Handle,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.handle, hex_of(&self.id.0[..8]))
    }
}

/// Why a text names no member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No member has this handle, and no member's key begins like this.
    #[error("no member is called {0:?}, and no member's key begins so")]
    NotFound(String),
    /// Several keys begin like this.
    #[error("{prefix:?} is ambiguous: {}", join(candidates))]
    Ambiguous {
        /// What was typed.
        prefix: String,
        /// Everybody it could mean, ascending by key.
        candidates: Vec<Candidate>,
    },
    /// Hex digits, but too few to name a key.
    #[error("{0:?} is no handle, and a key is named by at least 8 of its hex digits")]
    TooShort(String),
}

impl Roster {
    /// The member that `text` names, by handle or by a unique beginning of its key of at least eight
    /// hex digits. Revoked members are found too: the caller says what became of them.
    pub fn resolve(&self, text: &str) -> Result<&Member, ResolveError> {
        if let Some(member) = self.by_handle(text) {
            return Ok(member);
        }
        let prefix = text.to_ascii_lowercase();
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ResolveError::NotFound(text.to_owned()));
        }
        if prefix.len() < crate::identity::KEY_PREFIX_DIGITS_MIN {
            return Err(ResolveError::TooShort(text.to_owned()));
        }
        let found: Vec<&Member> =
            self.members().filter(|member| hex_of(&member.id.0).starts_with(&prefix)).collect();
        match found.as_slice() {
            [] => Err(ResolveError::NotFound(text.to_owned())),
            [member] => Ok(member),
            several => {
                let candidate = |member: &&Member| Candidate { id: member.id, handle: member.handle.clone() };
                let candidates = several.iter().map(candidate).collect();
                Err(ResolveError::Ambiguous { prefix: text.to_owned(), candidates })
            }
        }
    }
}

fn join(candidates: &[Candidate]) -> String {
    candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
