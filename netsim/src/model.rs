//! What happened, as people and programs outside could have seen it, and what they were promised. The
//! checkers read nothing else, so that a history made by hand proves them as well as a run.

use std::collections::BTreeMap;
use std::time::Duration;

use peerloom_proto::endpoint::{Holding, OutboxState, PathKind};
use peerloom_proto::{Head, MessageId, PeerId};

use crate::network::Place;

/// A message that a program wants to send.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// When it is handed over first.
    pub(crate) at: Duration,
    /// What its id, its text and its priority follow from.
    pub(crate) number: usize,
    pub(crate) id: MessageId,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) text: String,
}

/// One fact. Messages are numbers of [`History::messages`].
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A program handed it over, perhaps again.
    Submitted { message: usize },
    /// The program was told that it is in the outbox.
    Acknowledged { message: usize },
    /// The program was told that it is not.
    Refused { message: usize, why: String },
    /// The sender's API announced a state.
    Told { message: usize, state: OutboxState },
    /// The recipient committed it.
    Kept { node: usize, message: usize, path: PathKind, proof: Proof },
    /// A reader at the recipient saw it.
    Shown { node: usize, message: usize },
    /// Something was kept that nobody sent, or with other content.
    Strange { node: usize, what: String },
    /// A node has this much of the log on its disk.
    Head { node: usize, head: Head },
    /// A node committed that a member is revoked.
    Learned { node: usize, revoked: PeerId },
    /// The coordinator gave a place in the log, this many entries from the start, to a second entry.
    Forked { size: u64 },
    /// A node said that something is wrong with the coordinator or the mesh.
    Alarmed { node: usize, what: String },
    /// The most that ever stood in a queue.
    Depth { what: &'static str, at: Place, count: usize, limit: usize },
    /// The most that a node's machine ever held of something, where it was counted.
    Holds { node: usize, holding: Holding },
    /// A disk was given what its store would refuse.
    Broke { at: Place, what: String },
}

/// What the bytes of a kept message say of its sender, read outside the recipient's machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    /// Whether the sender signed them, for this recipient and under this id.
    pub(crate) holds: bool,
    /// The log head they record.
    pub(crate) head: Head,
    /// What the sender is by the recipient's log.
    pub(crate) standing: Standing,
    /// What it was at that head, where the recipient's log has it.
    pub(crate) at_head: Option<Standing>,
}

/// What a key is to a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    Stranger,
    Revoked,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) messages: Vec<Planned>,
    /// Each node's key.
    pub(crate) members: Vec<PeerId>,
    pub(crate) facts: Vec<(Duration, Fact)>,
    /// What was still under way at the end; empty when everything drained.
    pub(crate) left: Vec<String>,
    /// Nodes that somebody revoked.
    pub(crate) revoked: Vec<usize>,
    depths: BTreeMap<(&'static str, Place), usize>,
}

impl History {
    /// Of a world of these members.
    pub(crate) fn of(members: Vec<PeerId>) -> Self {
        Self { members, ..Self::default() }
    }

    pub(crate) fn note(&mut self, at: Duration, fact: Fact) {
        self.facts.push((at, fact));
    }

    /// Notes a queue's depth when it was never as deep.
    pub(crate) fn depth(&mut self, now: Duration, what: &'static str, at: Place, count: usize, limit: usize) {
        if self.is_deeper(what, at, count) {
            self.facts.push((now, Fact::Depth { what, at, count, limit }));
        }
    }

    /// The two nodes of a message, the lower number first.
    pub(crate) fn pair(&self, message: usize) -> (usize, usize) {
        let Planned { from, to, .. } = self.messages[message];
        (from.min(to), from.max(to))
    }

    /// Notes what a node's machine holds when it never held as much.
    pub(crate) fn holds(&mut self, now: Duration, node: usize, holding: Holding) {
        if self.is_deeper(holding.what, Place::Node(node), holding.count) {
            self.facts.push((now, Fact::Holds { node, holding }));
        }
    }

    fn is_deeper(&mut self, what: &'static str, at: Place, count: usize) -> bool {
        let most = self.depths.entry((what, at)).or_default();
        let deeper = count > *most;
        *most = count.max(*most);
        deeper
    }

    /// A message as reports name it.
    pub(crate) fn name(&self, message: usize) -> String {
        let planned = &self.messages[message];
        format!("message {message} ({} from node {} to node {})", planned.id, planned.from, planned.to)
    }
}
