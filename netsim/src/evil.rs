//! A coordinator that is not honest: a layer between the hub, which is the production one, and its
//! sockets. It holds the coordinator's key and sees every frame; what members seal it can only keep
//! back, repeat, mix up and spoil.
//!
//! [`World::hub_says`] is where a frame of the hub's passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{Claim, ToNode};

use crate::chance::Chance;
use crate::network::{Place, Purpose, StreamId};
use crate::queue::Event;
use crate::scenario::{Deed, Fault, Sort};
use crate::world::World;

/// What is remembered of the hub's words, and which misdeeds go on.
#[derive(Debug)]
pub(crate) struct Evil {
    /// Faults that have begun and not ended, by their number in the scenario.
    active: BTreeSet<usize>,
    /// Whether old frames are wanted.
    remembers: bool,
    /// Frames said to each node, the latest over the oldest.
    old: BTreeMap<usize, Vec<(Sort, Bytes)>>,
    chance: Chance,
}

/// One fault, as far as it concerns a frame.
struct Occasion {
    deed: Deed,
    of: Option<Vec<Sort>>,
}

/// How much later a reordered frame leaves, and a replayed one follows.
const LATER_MAX: Duration = Duration::from_secs(4);

/// Old frames remembered a node: some minutes of a busy one.
const OLD_FRAMES_MAX: usize = 512;

impl Evil {
    pub(crate) fn new(faults: &[Fault], seed: u64) -> Self {
        let replays = |fault: &Fault| matches!(fault, Fault::Evil { deed: Deed::Replay, .. });
        Self {
            active: BTreeSet::new(),
            remembers: faults.iter().any(replays),
            old: BTreeMap::new(),
            chance: Chance::new(seed, "coordinator", "evil"),
        }
    }

    pub(crate) fn begin(&mut self, fault: usize) {
        self.active.insert(fault);
    }

    pub(crate) fn end(&mut self, fault: usize) {
        self.active.remove(&fault);
    }

    fn remember(&mut self, node: usize, sort: Sort, frame: Bytes) {
        let old = self.old.entry(node).or_default();
        if old.len() < OLD_FRAMES_MAX {
            return old.push((sort, frame));
        }
        let place = self.chance.below(old.len());
        old[place] = (sort, frame);
    }

    /// Something said before: mostly to this node, now and then to another.
    fn old_frame(&mut self, node: usize, of: Option<&[Sort]>) -> Option<Bytes> {
        let nodes: Vec<usize> = self.old.keys().copied().collect();
        let other = self.chance.percent(20).then(|| nodes[self.chance.below(nodes.len())]);
        let wanted = |(sort, _): &&(Sort, Bytes)| of.is_none_or(|of| of.contains(sort));
        let old: Vec<_> = self.old.get(&other.unwrap_or(node))?.iter().filter(wanted).collect();
        let (_, frame) = old.get(self.chance.below(old.len()))?;
        Some(frame.clone())
    }
}

impl World {
    /// What leaves when the hub says `frame` on this socket; nothing if that is kept back.
    pub(crate) fn hub_says(&mut self, stream: StreamId, frame: Bytes) -> Option<Bytes> {
        if self.evil.active.is_empty() && !self.evil.remembers {
            return Some(frame);
        }
        let node = self.caller(stream)?;
        let Some(sort) = ToNode::decode(&frame).ok().as_ref().and_then(sort_of) else { return Some(frame) };
        if self.evil.remembers {
            self.evil.remember(node, sort, frame.clone());
        }
        for Occasion { deed, of } in self.occasions(node, sort) {
            match deed {
                Deed::Withhold => {
                    self.did("withheld");
                    return None;
                }
                Deed::Reorder => {
                    self.did("reordered");
                    self.evil_says_later(stream, frame);
                    return None;
                }
                Deed::Replay => {
                    if let Some(old) = self.evil.old_frame(node, of.as_deref()) {
                        self.did("replayed");
                        let old = self.under_some_claim(old);
                        self.evil_says_later(stream, old);
                    }
                }
            }
        }
        Some(frame)
    }

    /// The coordinator says something that its hub did not.
    pub(crate) fn evil_says(&mut self, stream: StreamId, frame: Bytes) {
        self.network.send(&mut self.queue, stream, 1, frame);
    }

    fn evil_says_later(&mut self, stream: StreamId, frame: Bytes) {
        let later = self.evil.chance.between(Duration::ZERO, LATER_MAX);
        self.queue.after(later, Event::EvilSays { stream, frame });
    }

    /// Counts a misdeed.
    pub(crate) fn did(&mut self, deed: &'static str) {
        *self.tally.deeds.entry(deed).or_default() += 1;
    }

    /// The misdeeds that take this occasion.
    fn occasions(&mut self, node: usize, sort: Sort) -> Vec<Occasion> {
        let mut taken = Vec::new();
        for number in &self.evil.active {
            let Some(Fault::Evil { deed, of, towards, percent, .. }) = self.scenario.faults.get(*number)
            else {
                continue;
            };
            let concerned = of.as_ref().is_none_or(|of| of.contains(&sort))
                && towards.as_ref().is_none_or(|nodes| nodes.contains(&node));
            if concerned && self.evil.chance.percent(*percent) {
                taken.push(Occasion { deed: *deed, of: of.clone() });
            }
        }
        taken
    }

    /// The node that dialled the coordinator on this stream.
    fn caller(&self, stream: StreamId) -> Option<usize> {
        let stream = self.network.streams.get(&stream)?;
        match (stream.purpose, stream.places[0]) {
            (Purpose::Uplink, Place::Node(node)) => Some(node),
            (Purpose::Uplink, Place::Coordinator) | (Purpose::Direct { .. }, _) => None,
        }
    }

    /// Old mail, now and then under a claim of another time or of none.
    fn under_some_claim(&mut self, frame: Bytes) -> Bytes {
        match ToNode::decode(&frame) {
            Ok(ToNode::Deliver { queued, envelope, .. }) if self.evil.chance.percent(50) => {
                let claim = NO_CLAIM + self.evil.chance.below(1 << 20) as Claim;
                ToNode::Deliver { claim, queued, envelope }.encode()
            }
            Ok(_) | Err(_) => frame,
        }
    }
}

/// Claims that no hub of a run ever gives.
const NO_CLAIM: Claim = 1 << 61;

/// What a frame is about; none for the handshake, pings and prekeys.
fn sort_of(frame: &ToNode) -> Option<Sort> {
    match frame {
        ToNode::Deliver { .. } => Some(Sort::Mail),
        ToNode::Receipt { .. } | ToNode::Expired { .. } => Some(Sort::Receipts),
        ToNode::Accepted { .. } | ToNode::Refused { .. } => Some(Sort::Accepted),
        ToNode::Entries { .. }
        | ToNode::Appended { .. }
        | ToNode::Conflict { .. }
        | ToNode::Failed { .. }
        | ToNode::Done { .. } => Some(Sort::Entries),
        ToNode::Presence { .. } => Some(Sort::Presence),
        ToNode::Challenge { .. }
        | ToNode::Welcome { .. }
        | ToNode::Prekeys { .. }
        | ToNode::GoingAway { .. }
        | ToNode::Error { .. }
        | ToNode::Ping { .. }
        | ToNode::Pong { .. } => None,
    }
}
