//! Why an entry is not part of a mesh's log.

use crate::canonical::DecodeError;
use crate::id::PeerId;
use crate::identity::{Handle, HandleError};
use crate::invite::InviteError;
use crate::roster::Role;

/// Why an entry is refused. A sequenced entry that is refused proves the coordinator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not a well-formed entry.
    #[error("malformed entry: {0}")]
    Decode(#[from] DecodeError),
    /// The admitted member's handle breaks the rule.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// Another version of the policy.
    #[error("the genesis has policy version {0}, which is unknown here")]
    Version(u64),
    /// For another mesh.
    #[error("the entry is for another mesh")]
    Mesh,
    /// A signature is missing, wrong, out of order or superfluous.
    #[error("the entry's signatures do not hold")]
    Signature,
    /// Not the next entry. Not a fault of its author: usually a lost race.
    #[error("expected entry {expected}, found entry {found}")]
    Index {
        /// The log's size.
        expected: u64,
        /// The entry's index.
        found: u64,
    },
    /// Does not follow the last entry.
    #[error("entry {index} does not follow entry {} of this log", index - 1)]
    Chain {
        /// The entry's index.
        index: u64,
    },
    /// The revoke inside names a head that this log never had.
    #[error("the revocation names a head that is not in this log")]
    RevokeHead,
    /// A kind that this version does not know, or a first entry that is not a genesis.
    #[error("entry kind {0} has no place here")]
    Kind(u64),
    /// The author is neither owner nor unrevoked member.
    #[error("author {} is neither owner nor current member", .0.short())]
    Author(PeerId),
    /// The author does not rank above whom it acts on.
    #[error("{actor} may not do this to {subject}")]
    Outranked {
        /// The author's role.
        actor: Role,
        /// The role acted on, or given.
        subject: Role,
    },
    /// Nobody of that key was ever a member.
    #[error("{} was never a member", .0.short())]
    UnknownTarget(PeerId),
    /// The admitted key already has, or had, a place in this mesh.
    #[error("key {} was used in this mesh before", .0.short())]
    KeyUsed(PeerId),
    /// The revoke inside speaks of someone else, or is by someone else.
    #[error("the entry and the revocation in it disagree")]
    RevokeMismatch,
    /// A member without a higher role wrote its share.
    #[error("{} authored as many entries as a member may", .0.short())]
    EntryLimit(PeerId),
    /// The handle has, or had, another bearer.
    #[error("handle {0} is taken")]
    HandleTaken(Handle),
    /// The invite of a self-admission does not admit.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The log is as long as a log may be.
    #[error("the log is full")]
    Full,
}

impl LogError {
    /// The reason name of the protocol.
    pub fn reason(&self) -> String {
        match self {
            Self::Decode(error) => return error.to_string(),
            Self::Invite(error) => return error.reason(),
            Self::Handle(_) => "handle",
            Self::Version(_) => "version",
            Self::Mesh => "mesh",
            Self::Signature => "signature",
            Self::Index { .. } => "log-index",
            Self::Chain { .. } | Self::RevokeHead => "log-chain",
            Self::Kind(_) => "log-kind",
            Self::Author(_)
            | Self::Outranked { .. }
            | Self::UnknownTarget(_)
            | Self::KeyUsed(_)
            | Self::RevokeMismatch
            | Self::EntryLimit(_) => "log-authority",
            Self::HandleTaken(_) => "handle-taken",
            Self::Full => "size",
        }
        .to_owned()
    }
}
