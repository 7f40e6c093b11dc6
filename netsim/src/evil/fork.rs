//! A fork: some nodes are shown a log of their own. Both logs hold what members signed; only the
//! coordinator gave one place twice.

use std::collections::BTreeSet;

use bytes::Bytes;
use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{Head, Roster, WireEntry};

use super::Evil;
use crate::model::Fact;
use crate::network::StreamId;
use crate::world::World;

/// The other log, and who is shown it.
#[derive(Debug)]
pub(super) struct Fork {
    nodes: BTreeSet<usize>,
    entries: Vec<Bytes>,
    roster: Roster,
    /// Entries both logs have.
    common: usize,
}

/// Entries one page brings, as `coordinator/meshlog` has it.
const LOG_PAGE: usize = 64;

impl Evil {
    /// The log that a node is shown; none for the hub's own.
    pub(crate) fn forked_log(&self, node: usize) -> Option<&[Bytes]> {
        let fork = self.fork.as_ref().filter(|fork| fork.nodes.contains(&node))?;
        Some(&fork.entries)
    }

    fn forked_for(&self, node: usize) -> Option<&Fork> {
        self.fork.as_ref().filter(|fork| fork.nodes.contains(&node))
    }
}

impl World {
    /// From here on these nodes are shown another log than everybody else.
    pub(super) fn begin_fork(&mut self, nodes: BTreeSet<usize>) {
        let entries = self.coordinator.disk.log(&self.mesh.roster.mesh_id()).to_vec();
        let mut roster = self.mesh.roster.clone();
        for entry in &entries[self.mesh.entries.len()..] {
            let entry = WireEntry::parse(entry).expect("a stored entry");
            roster.append(&entry).expect("stored entries replay");
        }
        let common = entries.len();
        self.evil.fork = Some(Fork { nodes, entries, roster, common });
    }

    /// What the hub said, as it fits the log of this node; nothing of the other log.
    pub(super) fn fork_says(&mut self, node: usize, said: ToNode) -> Option<ToNode> {
        let Some(fork) = self.evil.forked_for(node) else { return Some(said) };
        let head = fork.roster.head();
        if let ToNode::Welcome { welcome } = said {
            return Some(self.with_head(&welcome, |_, _: Head| head));
        }
        if let ToNode::Entries { .. } = said {
            self.did("forked");
            return None;
        }
        Some(said)
    }

    /// What a node of the other log asks of it. True if that was all.
    pub(super) fn fork_hears(&mut self, node: usize, stream: StreamId, heard: &ToCoordinator) -> bool {
        let Some(fork) = self.evil.forked_for(node) else { return false };
        if let ToCoordinator::LogGet { from } = heard {
            let skip = usize::try_from(*from).unwrap_or(usize::MAX);
            let entries = fork.entries.iter().skip(skip).take(LOG_PAGE).cloned().collect();
            let page = ToNode::Entries { from: *from, entries, size: fork.roster.size() };
            self.evil_says(stream, page.encode());
            return true;
        }
        if let ToCoordinator::LogAppend { request, entry } = heard {
            self.fork_appends(stream, *request, entry);
            return true;
        }
        false
    }

    fn fork_appends(&mut self, stream: StreamId, request: u64, entry: &Bytes) {
        let Some(fork) = &mut self.evil.fork else { return };
        let sequenced = WireEntry::parse(entry)
            .and_then(|entry| entry.sequence(&self.mesh.coordinator, &fork.roster.mesh_id()))
            .and_then(|entry| fork.roster.append(&entry).map(|_| Bytes::from(entry.encode())));
        let size = fork.roster.size();
        let Ok(entry) = sequenced else {
            let conflict = ToNode::Conflict { request, size, reserved_ms: 0 };
            return self.evil_says(stream, conflict.encode());
        };
        fork.entries.push(entry.clone());
        let frame = ToNode::Entries { from: size - 1, entries: vec![entry.clone()], size }.encode();
        let nodes = fork.nodes.clone();
        let uplinks: Vec<_> = nodes.into_iter().filter_map(|node| self.uplink_of(node)).collect();
        self.did("forked");
        self.evil_says(stream, ToNode::Appended { request, entry }.encode());
        uplinks.into_iter().for_each(|uplink| self.evil_says(uplink, frame.clone()));
        self.note_fork();
    }

    /// Notes the fork once both logs have an entry of their own at one place.
    pub(crate) fn note_fork(&mut self) {
        let honest = self.coordinator.disk.log(&self.mesh.roster.mesh_id()).len();
        let Some(fork) = &self.evil.fork else { return };
        if honest > fork.common && fork.entries.len() > fork.common && !self.evil.fork_noted {
            self.evil.fork_noted = true;
            let size = fork.common as u64 + 1;
            self.history.note(self.queue.now(), Fact::Forked { size });
        }
    }
}
