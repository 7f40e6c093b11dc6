//! What a node's owner wants of the ways to others.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::identity::Handle;

/// Which ways messages to a peer may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// The best there is: a direct link, else the relay, else the mailbox.
    #[default]
    PreferDirect,
    /// A direct link or none: messages wait for one. The coordinator carries the signals that make it,
    /// and receipts.
    DirectOnly,
    /// The coordinator: no direct link is offered or taken, and the peer learns no address of this node.
    RelayOnly,
}

impl PathPolicy {
    /// Every word there is.
    pub const ALL: [Self; 3] = [Self::PreferDirect, Self::DirectOnly, Self::RelayOnly];

    /// The word people write.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreferDirect => "prefer-direct",
            Self::DirectOnly => "direct-only",
            Self::RelayOnly => "relay-only",
        }
    }
}

/// Not one of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a path is prefer-direct, direct-only or relay-only")]
pub struct NoPathPolicy;

impl FromStr for PathPolicy {
    type Err = NoPathPolicy;

    fn from_str(word: &str) -> Result<Self, NoPathPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == word).ok_or(NoPathPolicy)
    }
}

/// The policy for everyone, and for some another. Handles need not be members: they may join later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPolicies {
    /// For whoever is not named.
    pub everyone: PathPolicy,
    /// For the members of these handles.
    pub named: BTreeMap<Handle, PathPolicy>,
}

impl PathPolicies {
    /// The one for a member of this handle.
    pub(crate) fn of(&self, handle: &Handle) -> PathPolicy {
        self.named.get(handle).copied().unwrap_or(self.everyone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_others_are_refused() {
        for policy in PathPolicy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
        }
        assert_eq!("direct".parse::<PathPolicy>(), Err(NoPathPolicy));
    }
}
