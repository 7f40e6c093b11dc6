//! Planted faults for which a host changes what its machine is told: the machine is the production one
//! and would not err so by itself.

use std::sync::Arc;

use bytes::Bytes;
use peerloom_proto::wire::{SignedBytes, ToNode};
use peerloom_proto::{EntryKind, Receipt, SignedReceipt, WireEntry};

use crate::mutant::Mutant;
use crate::world::World;

impl World {
    /// A frame of the coordinator's as a node's machine gets it.
    pub(super) fn as_told(&mut self, node: usize, frame: Bytes) -> Bytes {
        if self.is_planted(Mutant::SkipsRevocations)
            && let Ok(ToNode::Entries { from, entries, .. }) = ToNode::decode(&frame)
        {
            return self.without_revocations(node, from, entries);
        }
        if self.is_planted(Mutant::BelievesAnyReceipt)
            && let Ok(ToNode::Receipt { claim, receipt }) = ToNode::decode(&frame)
        {
            let receipt = self.as_if_from_recipient(node, &receipt).unwrap_or(receipt);
            return ToNode::Receipt { claim, receipt }.encode();
        }
        frame
    }

    /// A receipt under the signature of whom its first message is for, whoever said it.
    fn as_if_from_recipient(&self, node: usize, receipt: &SignedBytes) -> Option<SignedBytes> {
        let said = Receipt::parse(&receipt.stmt).ok()?;
        let env_hash = said.rows.first()?.env_hash;
        let row = self.nodes[node].disk.open_rows().find(|row| row.env_hash == env_hash)?;
        let key = &self.nodes[*self.by_member.get(&row.to)?].key;
        let signed = SignedReceipt::sign(key, Receipt { by: row.to, ..said });
        Some(SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() })
    }

    /// Revocations go to the disk and not to the machine.
    fn without_revocations(&mut self, node: usize, from: u64, entries: Vec<Bytes>) -> Bytes {
        let revokes = |bytes: &Bytes| {
            let said = WireEntry::parse(bytes).and_then(|entry| entry.entry());
            said.is_ok_and(|said| matches!(said.kind, EntryKind::Revoke { .. }))
        };
        let (revocations, others): (Vec<Bytes>, Vec<Bytes>) = entries.into_iter().partition(revokes);
        let stored = Arc::make_mut(&mut self.nodes[node].disk.entries);
        for entry in revocations {
            if !stored.contains(&entry) {
                stored.push(entry);
            }
        }
        let size = from + others.len() as u64;
        ToNode::Entries { from, entries: others, size }.encode()
    }
}
