//! Planted faults for which a host changes what its machine is told: the machine is the production one
//! and would not err so by itself.

use bytes::Bytes;
use peerloom_proto::wire::ToNode;
use peerloom_proto::{EntryKind, WireEntry};

use crate::mutant::Mutant;
use crate::world::World;

impl World {
    /// A frame of the coordinator's as a node's machine gets it.
    pub(super) fn as_told(&mut self, node: usize, frame: Bytes) -> Bytes {
        if !self.is_planted(Mutant::SkipsRevocations) {
            return frame;
        }
        match ToNode::decode(&frame) {
            Ok(ToNode::Entries { from, entries, .. }) => self.without_revocations(node, from, entries),
            Ok(_) | Err(_) => frame,
        }
    }

    /// Revocations go to the disk and not to the machine.
    fn without_revocations(&mut self, node: usize, from: u64, entries: Vec<Bytes>) -> Bytes {
        let revokes = |bytes: &Bytes| {
            let said = WireEntry::parse(bytes).and_then(|entry| entry.entry());
            said.is_ok_and(|said| matches!(said.kind, EntryKind::Revoke { .. }))
        };
        let (revocations, others): (Vec<Bytes>, Vec<Bytes>) = entries.into_iter().partition(revokes);
        let stored = &mut self.nodes[node].disk.entries;
        for entry in revocations {
            if !stored.contains(&entry) {
                stored.push(entry);
            }
        }
        let size = from + others.len() as u64;
        ToNode::Entries { from, entries: others, size }.encode()
    }
}
