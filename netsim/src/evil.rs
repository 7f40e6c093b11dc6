//! A coordinator that is not honest: a layer between the hub, which is the production one, and its
//! sockets. It holds the coordinator's key and sees every frame; what members seal it can only keep
//! back, repeat, mix up and spoil.
//!
//! [`World::hub_says`] and [`World::hub_hears`] are where frames pass.

mod fork;
mod lie;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::wire::{Claim, ToCoordinator, ToNode};

use self::fork::Fork;
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
    /// The last claim that each node was not told.
    claims: BTreeMap<usize, Claim>,
    fork: Option<Fork>,
    fork_noted: bool,
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
            claims: BTreeMap::new(),
            fork: None,
            fork_noted: false,
            chance: Chance::new(seed, "coordinator", "evil"),
        }
    }

    fn is_honest(&self) -> bool {
        self.active.is_empty() && !self.remembers && self.fork.is_none()
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
    /// A misdeed begins.
    pub(crate) fn evil_begins(&mut self, number: usize) {
        self.evil.active.insert(number);
        if let Some(Fault::Evil { deed: Deed::Fork, towards: Some(nodes), .. }) =
            self.scenario.faults.get(number)
        {
            let nodes = nodes.iter().copied().collect();
            self.begin_fork(nodes);
        }
    }

    /// What leaves when the hub says `frame` on this socket; nothing if that is kept back.
    pub(crate) fn hub_says(&mut self, stream: StreamId, frame: Bytes) -> Option<Bytes> {
        if self.evil.is_honest() {
            return Some(frame);
        }
        let node = self.caller(stream)?;
        let Ok(said) = ToNode::decode(&frame) else { return Some(frame) };
        let said = self.fork_says(node, said)?;
        let said = self.spoil(node, stream, said);
        let frame = said.encode();
        let Some(sort) = sort_of(&said) else { return Some(frame) };
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
                Deed::Fork | Deed::Lie => {}
            }
        }
        Some(frame)
    }

    /// What the hub hears when a node says `frame` on this socket; nothing if that is dealt with here.
    pub(crate) fn hub_hears(&mut self, stream: StreamId, frame: Bytes) -> Option<Bytes> {
        if self.evil.is_honest() {
            return Some(frame);
        }
        let node = self.caller(stream)?;
        let Ok(heard) = ToCoordinator::decode(&frame, FRAME_BYTES_MAX) else { return Some(frame) };
        if self.fork_hears(node, stream, &heard) {
            return None;
        }
        if let ToCoordinator::Put { envelope } = &heard
            && self.pretends_to_keep(node, stream, envelope)
        {
            return None;
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

    /// The stream by which a node's process speaks with the coordinator.
    fn uplink_of(&self, node: usize) -> Option<StreamId> {
        self.nodes.get(node)?.process.as_ref()?.uplink
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
        | ToNode::LogWanted { .. }
        | ToNode::Prekeys { .. }
        | ToNode::GoingAway { .. }
        | ToNode::Error { .. }
        | ToNode::Ping { .. }
        | ToNode::Pong { .. } => None,
    }
}
