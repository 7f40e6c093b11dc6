//! Evidence that a coordinator showed two logs. An unsequenced entry is a lost race and none.

use super::{Head, Roster, WireEntry};
use crate::id::{EntryHash, PeerId};

/// Two statements that cannot both belong to one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkEvidence {
    /// A coordinator of the mesh gave one place to two entries. Holds without trust in anybody.
    TwoEntries {
        /// The place.
        index: u64,
        /// One entry, sequenced.
        first: WireEntry,
        /// The other, sequenced.
        second: WireEntry,
    },
    /// Someone signed a head that differs from ours at the same size.
    TwoHeads {
        /// Entries both logs have.
        size: u64,
        /// The last hash here.
        ours: EntryHash,
        /// The last hash there.
        theirs: EntryHash,
        /// Who signed the statement that carried the head.
        signer: PeerId,
    },
}

impl ForkEvidence {
    /// Whether two entries, both sequenced by coordinators of this mesh, claim one place.
    pub fn between(roster: &Roster, first: &WireEntry, second: &WireEntry) -> Option<Self> {
        let index = first.entry().ok()?.index;
        let same_place = second.entry().ok()?.index == index;
        let differ = first.entry_hash() != second.entry_hash();
        let proven = same_place && differ && roster.verify_seq(first) && roster.verify_seq(second);
        proven.then(|| Self::TwoEntries { index, first: first.clone(), second: second.clone() })
    }

    /// Whether a head, from a statement that `signer` signed, contradicts this log. A larger head
    /// proves nothing: the entries between may be under way.
    pub fn in_head(roster: &Roster, head: &Head, signer: PeerId) -> Option<Self> {
        let ours = roster.entry_hash(head.size.checked_sub(1)?)?;
        let (size, theirs) = (head.size, head.hash);
        (ours != theirs).then_some(Self::TwoHeads { size, ours, theirs, signer })
    }
}
