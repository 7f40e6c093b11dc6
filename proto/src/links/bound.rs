//! A link that belongs to a peer: how long it lives, when its silence is suspect, and what follows.
//!
//! Silence counts only while an answer is owed: a row in flight, or a ping, which a flow of mail that
//! breaks off is asked with. The first suspicion copies what is in flight to the relay and sends what
//! follows there; each asks with a ping, and any frame clears them; the third gives the link up. A link
//! that was in use is made again at once, and again until it stands; one that fell silent because this
//! node is seen elsewhere, as soon as that is known.

use std::time::Duration;

use super::Links;
use crate::bind::BindTransport;
use crate::delivery::{Delivery, Via};
use crate::endpoint::{Endpoint, LinkId, OpenedLink, Output};
use crate::id::PeerId;
use crate::limits::{DIRECT_IDLE_MAX, DIRECT_LIFE_MAX};
use crate::paths::{Rank, Tier};
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::{OnLink, ToCoordinator};

/// A link that belongs to a peer.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) peer: PeerId,
    pub(crate) transport: BindTransport,
    pub(crate) remote: String,
    pub(crate) rtt_us: Option<u64>,
    pub(crate) since: UnixMs,
    /// This side dialled it, and makes its successor.
    dialled: bool,
    bound_at: Monotonic,
    used_at: Monotonic,
    heard_at: Monotonic,
    /// A ping waits for its pong since.
    asked: Option<Monotonic>,
    /// Mail that keeps coming.
    flow: Option<Flow>,
    /// How long the peer takes to answer, its commit included.
    answers: Option<Answers>,
    suspicions: u32,
    renewing: bool,
}

/// Envelopes and receipts that came close upon each other.
#[derive(Clone, Copy, Debug)]
struct Flow {
    frames: u32,
    last: Monotonic,
}

/// Mean and mean deviation, by the weights of RFC 6298.
#[derive(Clone, Copy, Debug)]
struct Answers {
    mean: Duration,
    deviation: Duration,
}

impl Bound {
    pub(super) fn new(now: Now, peer: PeerId, info: &OpenedLink) -> Self {
        Self {
            peer,
            transport: info.transport,
            remote: info.remote.clone(),
            rtt_us: None,
            since: now.wall,
            dialled: info.dialled,
            bound_at: now.monotonic,
            used_at: now.monotonic,
            heard_at: now.monotonic,
            asked: None,
            flow: None,
            answers: None,
            suspicions: 0,
            renewing: false,
        }
    }

    /// When it is closed, whatever happens.
    pub(super) fn ends(&self) -> Monotonic {
        (self.used_at + DIRECT_IDLE_MAX).min(self.bound_at + DIRECT_LIFE_MAX)
    }

    /// When its successor is to be made, so that a conversation in use sees no gap.
    fn renews(&self) -> Option<Monotonic> {
        let due = self.bound_at + (DIRECT_LIFE_MAX - RENEW_BEFORE);
        (self.dialled && !self.renewing && due < self.ends()).then_some(due)
    }

    /// A frame came on it.
    pub(super) fn heard(&mut self, now: Monotonic) {
        self.heard_at = now;
        self.asked = None;
        self.suspicions = 0;
    }

    /// When the last frame came on it.
    pub(super) fn heard_at(&self) -> Monotonic {
        self.heard_at
    }

    fn flowed(&mut self, now: Monotonic) {
        let before = self.flow.filter(|flow| now.since(flow.last) <= FLOW_GAP_MAX);
        self.flow = Some(Flow { frames: before.map_or(1, |flow| flow.frames.saturating_add(1)), last: now });
    }

    /// When to ask whether its flow ended or the path did. Not while an answer is owed anyway.
    fn asks_at(&self, in_flight: Option<Monotonic>) -> Option<Monotonic> {
        let flow = self.flow.filter(|flow| flow.frames >= FLOW_FRAMES_MIN)?;
        (in_flight.is_none() && self.asked.is_none()).then_some(flow.last + PATIENCE_MIN)
    }

    fn answered(&mut self, took: Duration) {
        self.answers = Some(match self.answers {
            None => Answers { mean: took, deviation: took / 2 },
            Some(Answers { mean, deviation }) => {
                Answers { mean: (mean * 7 + took) / 8, deviation: (deviation * 3 + mean.abs_diff(took)) / 4 }
            }
        });
    }

    /// How long an owed answer may take before the first suspicion.
    fn patience(&self) -> Duration {
        let rtt = self.rtt_us.map_or(RTT_GUESS, Duration::from_micros);
        let usual = self.answers.map_or(rtt + COMMIT_GUESS, |answers| answers.mean + answers.deviation * 4);
        (usual * 2).clamp(PATIENCE_MIN, PATIENCE_MAX.max(rtt * 3))
    }

    /// When the next suspicion is due, with the oldest row in flight.
    fn suspicion_at(&self, in_flight: Option<Monotonic>) -> Option<Monotonic> {
        let owed_since = match (in_flight, self.asked) {
            (Some(row), Some(ping)) => row.min(ping),
            (row, ping) => row.or(ping)?,
        };
        let silence = match self.suspicions {
            0 => self.patience(),
            1 => self.patience() * 3,
            _ => (self.patience() * 7).max(DEAD_AFTER_MIN),
        };
        Some(owed_since.max(self.heard_at) + silence)
    }

    /// What the path is worth that carries it. No round trip beats one that is not known.
    pub(super) fn rank(&self) -> Rank {
        let tier = self.remote.parse().map_or(Tier::V4, Tier::of);
        Rank { tier, rtt: self.rtt_us.map_or(Duration::ZERO, Duration::from_micros) }
    }

    pub(super) fn is_lively(&self, now: Monotonic) -> bool {
        now.since(self.used_at) < LIVELY
    }
}

impl Links {
    /// Whether nothing was heard on this link since it was suspected.
    pub(crate) fn is_suspect(&self, link: LinkId) -> bool {
        self.bound.get(&link).is_some_and(|bound| bound.suspicions > 0)
    }

    /// An envelope went or came.
    pub(crate) fn used(&mut self, link: LinkId, now: Monotonic) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.used_at = now;
        }
    }

    /// An envelope or a receipt came.
    pub(super) fn flowed(&mut self, link: LinkId, now: Monotonic) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.flowed(now);
        }
    }

    /// A row that was in flight on it for so long was answered.
    pub(crate) fn answered(&mut self, link: LinkId, took: Duration) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.answered(took);
        }
    }

    /// When a silence becomes suspect, or is asked about.
    pub(crate) fn suspicion_at(&self, delivery: &Delivery) -> Option<Monotonic> {
        let due = |(link, bound): (&LinkId, &Bound)| {
            let in_flight = delivery.oldest_on(Via::Link(*link));
            bound.suspicion_at(in_flight).or(bound.asks_at(in_flight))
        };
        self.bound.iter().filter_map(due).min()
    }

    /// When links in use need a successor.
    pub(super) fn renewal_at(&self) -> Option<Monotonic> {
        self.bound.values().filter_map(Bound::renews).min()
    }
}

impl Endpoint {
    /// Acts on silence, where there is a relay to fall back on.
    pub(crate) fn suspect_silent(&mut self, now: Now) {
        if !self.uplink.is_ready() {
            return;
        }
        self.ask_flows(now);
        let due = |(link, bound): (&LinkId, &Bound)| {
            let at = bound.suspicion_at(self.delivery.oldest_on(Via::Link(*link)))?;
            (at <= now.monotonic).then_some(*link)
        };
        let due: Vec<LinkId> = self.links.bound.iter().filter_map(due).collect();
        for link in due {
            let Some(bound) = self.links.bound.get_mut(&link) else { continue };
            bound.suspicions += 1;
            let silent_since = bound.heard_at;
            if bound.suspicions >= SUSPICIONS_MAX {
                self.out(Output::CloseLink(link));
                self.link_lost(now, link);
                continue;
            }
            self.copy_to_relay(link);
            self.ask_link(now, link);
            self.doubt_uplink(now);
            self.doubt_reach(now, silent_since);
            self.leave_silent(now);
        }
    }

    /// There is a relay again: what silent links keep goes there.
    pub(crate) fn relay_returned(&mut self, now: Now) {
        let silent = self.links.bound.iter().filter(|(_, bound)| bound.suspicions > 0);
        let silent: Vec<LinkId> = silent.map(|(link, _)| *link).collect();
        silent.into_iter().for_each(|link| self.copy_to_relay(link));
        self.leave_silent(now);
    }

    fn copy_to_relay(&mut self, link: LinkId) {
        if self.links.bound(link).is_some_and(|bound| !self.may_relay(&bound.peer)) {
            return;
        }
        for envelope in self.delivery.copies_of(Via::Link(link)) {
            self.out(Output::SendUplink(ToCoordinator::Put { envelope }.encode()));
        }
    }

    /// A flow that broke off may be over, or its path is, and the way to the coordinator with it.
    fn ask_flows(&mut self, now: Now) {
        let due = |(link, bound): (&LinkId, &Bound)| {
            let at = bound.asks_at(self.delivery.oldest_on(Via::Link(*link)))?;
            (at <= now.monotonic).then_some(*link)
        };
        let due: Vec<LinkId> = self.links.bound.iter().filter_map(due).collect();
        for link in due {
            if let Some(bound) = self.links.bound.get_mut(&link) {
                bound.flow = None;
            }
            self.ask_link(now, link);
            self.doubt_uplink(now);
        }
    }

    /// Silent links of a node that is seen elsewhere than before will not speak again.
    pub(super) fn leave_silent(&mut self, now: Now) {
        let gathering = &self.links.gathering;
        let gone = |bound: &&Bound| bound.suspicions > 0 && gathering.moved_since(bound.heard_at);
        let gone: Vec<PeerId> = self.links.bound.values().filter(gone).map(|bound| bound.peer).collect();
        gone.into_iter().for_each(|peer| self.connect(now, peer));
    }

    /// The network changed under the links: each must answer soon.
    pub(super) fn doubt_links(&mut self, now: Now) {
        let links: Vec<LinkId> = self.links.bound.keys().copied().collect();
        for link in links {
            self.ask_link(now, link);
        }
    }

    fn ask_link(&mut self, now: Now, link: LinkId) {
        if let Some(bound) = self.links.bound.get_mut(&link) {
            bound.asked = bound.asked.or(Some(now.monotonic));
            let nonce = u64::from_be_bytes(self.entropy.bytes()) >> 1;
            self.out(Output::SendLink(link, OnLink::Ping { nonce }.encode()));
        }
    }

    /// A link ended that nobody meant to end.
    pub(super) fn link_lost(&mut self, now: Now, link: LinkId) {
        let lively = self.links.bound.get(&link).filter(|bound| bound.is_lively(now.monotonic));
        let lively = lively.map(|bound| (bound.peer, bound.heard_at));
        self.forget_link(now, link);
        if let Some((_, silent_since)) = lively {
            self.doubt_reach(now, silent_since);
        }
        let peer = lively.map(|(peer, _)| peer);
        if let Some(peer) = peer.filter(|peer| self.peers.get(peer).is_some_and(|peer| peer.link.is_none())) {
            self.links.lost.insert(peer, now.monotonic + DIRECT_IDLE_MAX);
            self.links.rests.remove(&peer);
            self.links.nothing_to_beat(&peer);
            self.connect_soon(now, peer);
        }
    }

    /// When a lost link is tried again.
    pub(crate) fn lost_deadline(&self) -> Option<Monotonic> {
        if !self.uplink.is_ready() {
            return None;
        }
        let idle = |peer: &&PeerId| self.peers.is_online(peer) && !self.links.is_under_way(peer);
        let rest = |peer: &PeerId| self.links.rests.get(peer).map(|rest| rest.until).unwrap_or_default();
        self.links.lost.keys().chain(&self.links.awaited).filter(idle).map(rest).min()
    }

    /// Mail for a peer waits for a link: one is tried, and again after a rest, as long as the peer is
    /// there.
    pub(crate) fn await_direct(&mut self, now: Now, peer: PeerId) {
        let linked = self.peers.get(&peer).is_some_and(|peer| peer.link.is_some());
        if self.peers.is_online(&peer) && !linked {
            self.links.awaited.insert(peer);
            self.connect_at_rest(now, peer);
        }
    }

    fn connect_at_rest(&mut self, now: Now, peer: PeerId) {
        let waits = self.links.is_under_way(&peer) || self.links.rests(&peer, now.monotonic);
        self.connect_soon(now, peer);
        // What cannot begin now is not asked again at once.
        if !waits && !self.links.is_under_way(&peer) {
            self.links.failed(peer, now.monotonic);
        }
    }

    pub(super) fn bound_timeout(&mut self, now: Now) {
        let ended = self.links.bound.iter().filter(|(_, bound)| bound.ends() <= now.monotonic);
        let ended: Vec<LinkId> = ended.map(|(link, _)| *link).collect();
        for link in ended {
            self.out(Output::CloseLink(link));
            self.forget_link(now, link);
        }
        let due = |bound: &&mut Bound| bound.renews().is_some_and(|due| due <= now.monotonic);
        let mut renewed = Vec::new();
        for bound in self.links.bound.values_mut().filter(due) {
            bound.renewing = true;
            renewed.push(bound.peer);
        }
        renewed.into_iter().for_each(|peer| self.connect(now, peer));
        self.links.lost.retain(|_, until| *until > now.monotonic);
        let lost: Vec<PeerId> = self.links.lost.keys().copied().collect();
        lost.into_iter().for_each(|peer| self.connect_at_rest(now, peer));
    }
}

/// Before the first answer: a round trip that few paths exceed, and a commit on a slow disk.
const RTT_GUESS: Duration = Duration::from_millis(100);
const COMMIT_GUESS: Duration = Duration::from_millis(100);

/// No path is suspected sooner: a busy recipient's commit takes this long now and then, and a copy
/// costs as much as a message.
const PATIENCE_MIN: Duration = Duration::from_millis(150);

/// Mail that comes this close upon the last belongs to one flow: half of the silence that ends it.
const FLOW_GAP_MAX: Duration = Duration::from_millis(75);

/// So many are a flow; who writes a line or two is not asked about.
const FLOW_FRAMES_MIN: u32 = 4;

/// However slow a recipient was lately, or three round trips where those are longer.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// The suspicion that gives a link up.
const SUSPICIONS_MAX: u32 = 3;

/// Nor is a link given up sooner: the relay carries everything meanwhile, and the transport, which sees
/// acknowledgements, knows better.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(2);

/// A link that carried an envelope within this is in use: lost, it is made again without waiting for
/// the next message.
const LIVELY: Duration = Duration::from_secs(60);

/// A successor is made this long before an hour is over: several attempts fit.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
