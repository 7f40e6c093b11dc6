//! What the bytes of a kept message say, read outside the machine that kept it.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerloom_proto::endpoint::{InboxRow, Write};
use peerloom_proto::{EntryHash, EnvHash, Head, PeerId, Recipient, Roster, UnverifiedEnvelope};

use crate::model::{Proof, Standing};
use crate::trace::name_of;
use crate::world::World;

/// What proofs are made of.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Envelopes that were sealed and not yet kept.
    pub(crate) sealed: BTreeMap<EnvHash, Bytes>,
    /// Logs of disks as replayed, by their length and the name of their last entry.
    logs: BTreeMap<(usize, u64), Roster>,
}

impl World {
    /// Remembers the bytes that a node seals, until they are kept.
    pub(super) fn note_sealed(&mut self, write: &Write) {
        if let Write::Outbox(row) = write {
            self.evidence.sealed.insert(row.env_hash, row.wire.clone());
        } else if let Write::Reseal { wire, env_hash, .. } = write {
            self.evidence.sealed.insert(*env_hash, wire.clone());
        }
    }

    /// Judges what a node keeps by the bytes it came in, which are forgotten then.
    pub(super) fn proof(&mut self, node: usize, row: &InboxRow) -> Proof {
        let roster = self.log_on_disk(node);
        let wire = self.evidence.sealed.remove(&row.env_hash);
        let envelope = wire.and_then(|wire| UnverifiedEnvelope::parse(wire).ok());
        let envelope = envelope.and_then(|envelope| envelope.verify(&roster.mesh_id(), |_| None).ok());
        let standing = standing(&roster, &row.from, roster.size());
        let Some(envelope) = envelope else {
            let head = Head { size: 0, hash: EntryHash([0; 32]) };
            return Proof { holds: false, head, standing, at_head: None };
        };
        let header = envelope.header();
        let holds = header.from == row.from
            && header.id == row.id
            && header.to == Recipient::Peer(self.nodes[node].id)
            && envelope.env_hash() == row.env_hash;
        let head = header.head;
        let at_head = roster.contains_head(&head).then(|| self::standing(&roster, &row.from, head.size));
        Proof { holds, head, standing, at_head }
    }

    /// The log of a node's disk. Many nodes have the same, so that it is replayed once for all.
    fn log_on_disk(&mut self, node: usize) -> Roster {
        let entries = &self.nodes[node].disk.entries;
        let name = (entries.len(), entries.last().map_or(0, |last| name_of(last)));
        if let Some(roster) = self.evidence.logs.get(&name) {
            return roster.clone();
        }
        let roster = self.replay(node);
        self.evidence.logs.insert(name, roster.clone());
        roster
    }
}

/// What `key` is after so many entries of a log.
fn standing(roster: &Roster, key: &PeerId, size: u64) -> Standing {
    let Some(member) = roster.member(key).filter(|member| member.admitted_at < size) else {
        return Standing::Stranger;
    };
    let revoked = member.revoked.as_ref().is_some_and(|revocation| revocation.index < size);
    if revoked { Standing::Revoked } else { Standing::Member }
}
