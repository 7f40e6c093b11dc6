//! A link that belongs to a peer: how long it lives, when its silence is suspect, and what follows.
//!
//! Silence counts only while an answer is owed: a row in flight, or a ping. The first suspicion copies
//! what is in flight to the relay and sends what follows there; each asks with a ping, and any frame
//! clears them; the third gives the link up. A link that was in use is made again at once, and again
//! until it stands.

use std::time::Duration;

use super::Links;
use crate::delivery::{Delivery, Via};
use crate::endpoint::{Endpoint, LinkId, Output};
use crate::id::PeerId;
use crate::limits::{DIRECT_IDLE_MAX, DIRECT_LIFE_MAX};
use crate::paths::{Rank, Tier};
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::{OnLink, ToCoordinator};

/// A link that belongs to a peer.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) peer: PeerId,
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
    /// How long the peer takes to answer, its commit included.
    answers: Option<Answers>,
    suspicions: u32,
    renewing: bool,
}

/// Mean and mean deviation, by the weights of RFC 6298.
#[derive(Clone, Copy, Debug)]
struct Answers {
    mean: Duration,
    deviation: Duration,
}

impl Bound {
    pub(super) fn new(now: Now, peer: PeerId, remote: String, dialled: bool) -> Self {
        Self {
            peer,
            remote,
            rtt_us: None,
            since: now.wall,
            dialled,
            bound_at: now.monotonic,
            used_at: now.monotonic,
            heard_at: now.monotonic,
            asked: None,
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

    /// A row that was in flight on it for so long was answered.
    pub(crate) fn answered(&mut self, link: LinkId, took: Duration) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.answered(took);
        }
    }

    /// When a silence becomes suspect.
    pub(crate) fn suspicion_at(&self, delivery: &Delivery) -> Option<Monotonic> {
        let due = |(link, bound): (&LinkId, &Bound)| bound.suspicion_at(delivery.oldest_on(Via::Link(*link)));
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
        let due = |(link, bound): (&LinkId, &Bound)| {
            let at = bound.suspicion_at(self.delivery.oldest_on(Via::Link(*link)))?;
            (at <= now.monotonic).then_some(*link)
        };
        let due: Vec<LinkId> = self.links.bound.iter().filter_map(due).collect();
        for link in due {
            let Some(bound) = self.links.bound.get_mut(&link) else { continue };
            bound.suspicions += 1;
            if bound.suspicions >= SUSPICIONS_MAX {
                self.out(Output::CloseLink(link));
                self.link_lost(now, link);
                continue;
            }
            for envelope in self.delivery.copies_of(Via::Link(link)) {
                self.out(Output::SendUplink(ToCoordinator::Put { envelope }.encode()));
            }
            self.ask_link(now, link);
        }
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
        let peer = lively.map(|bound| bound.peer);
        self.forget_link(now, link);
        if let Some(peer) = peer.filter(|peer| self.peers.get(peer).is_some_and(|peer| peer.link.is_none())) {
            self.links.lost.insert(peer, now.monotonic + DIRECT_IDLE_MAX);
            self.links.rests.remove(&peer);
            self.links.nothing_to_beat(&peer);
            self.doubt_reach(now);
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
        self.links.lost.keys().filter(idle).map(rest).min()
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
        for peer in lost {
            let waits = self.links.is_under_way(&peer) || self.links.rests(&peer, now.monotonic);
            self.connect_soon(now, peer);
            // What cannot begin now is not asked again at once.
            if !waits && !self.links.is_under_way(&peer) {
                self.links.failed(peer, now.monotonic);
            }
        }
    }
}

/// Before the first answer: a round trip that few paths exceed, and a commit on a slow disk.
const RTT_GUESS: Duration = Duration::from_millis(100);
const COMMIT_GUESS: Duration = Duration::from_millis(100);

/// No path is suspected sooner: a busy recipient's commit takes this long now and then, and a copy
/// costs as much as a message.
const PATIENCE_MIN: Duration = Duration::from_millis(150);

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
