//! Checks of one attempt: authenticated binding requests to each of the peer's addresses, up the ladder,
//! until one is answered. Each side asks and each side answers; a proven request from an unknown
//! address is an address learned.
//!
//! Keys come from both nonces of the attempt, which only the two ends know, one key for each direction:
//! a request thrown back at its sender proves nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::birthday::{Birthday, Probe};
use super::candidate::{Candidate, CandidateKind, Tier};
use super::selection::Rank;
use super::{Datagram, Transaction};
use crate::entropy::Entropy;
use crate::id::{ConnId, hex_of};
use crate::limits::CANDIDATES_MAX;
use crate::stun::{StunMessage, TransactionId, signed_request, signed_success};
use crate::time::Monotonic;
use crate::transcript::hash;

/// The checks of one attempt.
#[derive(Debug)]
pub(crate) struct Check {
    /// What requests of the attempt call it.
    name: String,
    own_key: [u8; 32],
    peer_key: [u8; 32],
    dialler: bool,
    /// Goes on at a slow pace after the ladder: the path was there lately, or the dialler may think so.
    patient: bool,
    /// Only a path that is better than this one is worth dialling.
    pub(crate) to_beat: Option<Rank>,
    pairs: Vec<Pair>,
    asked: BTreeMap<TransactionId, Transaction>,
    /// A birthday punch may be tried, this long after the beginning: both sides consented, and it can
    /// help.
    pub(crate) guesses_after: Option<Duration>,
    birthday: Option<Birthday>,
    began: Monotonic,
    /// It was said once that nothing came.
    doubted: bool,
    /// No more requests: the path is being dialled.
    quiet: bool,
}

/// One of this node's sockets, and one of the peer's addresses.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) socket: u16,
    pub(crate) kind: CandidateKind,
    pub(crate) remote: SocketAddr,
    /// The round trip, once a request was answered.
    pub(crate) rtt: Option<Duration>,
    /// Whether a proven request came from there.
    pub(crate) heard: bool,
    tries: usize,
    first: Option<Monotonic>,
    last: Option<Monotonic>,
    next: Option<Monotonic>,
}

/// What the dialling side should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing is found, or something better may yet be.
    Wait,
    /// Dial these addresses, the best first, from this socket.
    Dial(u16, Vec<SocketAddr>),
    /// The ladder has ended and nothing was found.
    GiveUp,
}

impl Check {
    /// Begins to ask. `dialler` is this side's part.
    pub(crate) fn new(
        now: Monotonic,
        conn: ConnId,
        nonces: (&[u8; 16], &[u8; 16]),
        dialler: bool,
        patient: bool,
        candidates: &[Candidate],
    ) -> Self {
        let key = |role: u8| hash("check", &[nonces.0, nonces.1, &[role]]);
        let (own, peer) = if dialler { (0, 1) } else { (1, 0) };
        let mut check = Self {
            name: hex_of(&conn.0),
            own_key: key(own),
            peer_key: key(peer),
            dialler,
            patient,
            to_beat: None,
            pairs: Vec::new(),
            asked: BTreeMap::new(),
            guesses_after: None,
            birthday: None,
            began: now,
            doubted: false,
            quiet: false,
        };
        check.learn(now, candidates);
        check
    }

    /// Further addresses of the peer.
    pub(crate) fn learn(&mut self, now: Monotonic, candidates: &[Candidate]) {
        for candidate in candidates {
            self.pair(now, 0, candidate.addr, candidate.kind, CANDIDATES_MAX);
        }
    }

    /// The pair, made if there is room for it.
    fn pair(
        &mut self,
        now: Monotonic,
        socket: u16,
        remote: SocketAddr,
        kind: CandidateKind,
        room: usize,
    ) -> Option<usize> {
        let known = self.pairs.iter().position(|pair| pair.socket == socket && pair.remote == remote);
        if known.is_some() || self.pairs.len() >= room {
            return known;
        }
        let next = (!self.quiet).then_some(now);
        let (rtt, heard, tries) = (None, false, 0);
        self.pairs.push(Pair { socket, kind, remote, rtt, heard, tries, first: None, last: None, next });
        Some(self.pairs.len() - 1)
    }

    /// The peer's addresses as the main socket may try them, proven ones first.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut pairs: Vec<&Pair> = self.pairs.iter().filter(|pair| pair.socket == 0).collect();
        pairs.sort_by_key(|pair| (!pair.is_through(), !pair.heard));
        pairs.into_iter().map(|pair| pair.remote).collect()
    }

    /// Those of them worth dialling, the best first.
    pub(crate) fn worthy_addresses(&self) -> Vec<SocketAddr> {
        let worthy = self.worthy().into_iter().filter(|(pair, _)| pair.socket == 0);
        worthy.map(|(pair, _)| pair.remote).collect()
    }

    /// Whether a request is addressed to this attempt, by the name in it.
    pub(crate) fn is_named(&self, message: &StunMessage<'_>) -> bool {
        message.username == Some(self.name.as_bytes())
    }

    /// Asks what is due.
    pub(crate) fn poll(&mut self, now: Monotonic, entropy: &mut Entropy, out: &mut Vec<Datagram>) {
        let stale = now - ANSWER_WITHIN;
        self.asked.retain(|_, asked| asked.sent >= stale);
        for pair in self.pairs.iter_mut().filter(|pair| pair.next.is_some_and(|next| next <= now)) {
            let id = entropy.bytes();
            self.asked.insert(id, Transaction { socket: pair.socket, to: pair.remote, sent: now });
            let bytes = signed_request(&id, &self.name, &self.own_key);
            out.push(Datagram { socket: pair.socket, to: pair.remote, bytes, ttl: None });
            pair.first = pair.first.or(Some(now));
            pair.last = Some(now);
            let pause = LADDER.get(pair.tries).copied().or(self.patient.then_some(PATIENT_EVERY));
            pair.tries += 1;
            pair.next = pause.map(|pause| now + pause);
        }
        let probes = self.birthday.as_mut().map(|birthday| birthday.poll(now, entropy));
        for Probe { socket, to, ttl } in probes.unwrap_or_default() {
            let id = entropy.bytes();
            self.asked.insert(id, Transaction { socket, to, sent: now });
            out.push(Datagram { socket, to, bytes: signed_request(&id, &self.name, &self.own_key), ttl });
        }
    }

    /// When a birthday punch may begin, if nothing else got through.
    fn birthday_at(&self) -> Option<Monotonic> {
        let through = self.quiet || self.birthday.is_some() || self.pairs.iter().any(Pair::is_through);
        self.guesses_after.filter(|_| !through).map(|after| self.began + after)
    }

    /// Whether one is due; asked once.
    pub(crate) fn is_birthday_due(&mut self, now: Monotonic) -> bool {
        let due = self.birthday_at().is_some_and(|at| at <= now);
        self.guesses_after = self.guesses_after.filter(|_| !due);
        due
    }

    /// Since when nothing came, if that is so long that this node may not be where it said; told once.
    pub(crate) fn unheard_since(&mut self, now: Monotonic) -> Option<Monotonic> {
        let through = self.quiet || self.pairs.iter().any(Pair::is_through);
        let unheard = !self.doubted && !through && now >= self.began + DOUBT_AFTER;
        self.doubted |= unheard;
        unheard.then_some(self.began)
    }

    /// Begins one.
    pub(crate) fn celebrate(&mut self, birthday: Birthday) {
        self.birthday = Some(birthday);
    }

    /// Whether one is under way.
    pub(crate) fn celebrates(&self, now: Monotonic) -> bool {
        self.birthday.as_ref().is_some_and(|birthday| birthday.deadline().is_some() && birthday.ends() > now)
    }

    /// Whether there was one.
    pub(crate) fn celebrated(&self) -> bool {
        self.birthday.is_some()
    }

    /// The one under way or over.
    pub(crate) fn birthday(&mut self) -> Option<&mut Birthday> {
        self.birthday.as_mut()
    }

    /// The sockets opened for one, to be closed.
    pub(crate) fn take_sockets(&mut self) -> Vec<u16> {
        self.birthday.as_mut().map(Birthday::take_sockets).unwrap_or_default()
    }

    /// A request that names this attempt: answered if it is proven, and its sender is asked back at
    /// once. False if it is not the peer's.
    pub(crate) fn request(
        &mut self,
        now: Monotonic,
        socket: u16,
        from: SocketAddr,
        message: &StunMessage<'_>,
        out: &mut Vec<Datagram>,
    ) -> bool {
        if !message.is_by(&self.peer_key) || from.port() == 0 {
            return false;
        }
        let bytes = signed_success(&message.transaction, from, &self.peer_key);
        out.push(Datagram { socket, to: from, bytes, ttl: None });
        let room = CANDIDATES_MAX + LEARNED_MAX;
        if let Some(at) = self.pair(now, socket, from, CandidateKind::PeerReflexive, room) {
            let (pair, quiet) = (&mut self.pairs[at], self.quiet);
            pair.heard = true;
            if let Some(birthday) = &mut self.birthday {
                birthday.stop();
            }
            let lately = pair.last.is_some_and(|last| now.since(last) < ASK_BACK_APART);
            if pair.rtt.is_none() && !lately && !quiet {
                pair.next = Some(now);
            }
        }
        true
    }

    /// An answer to one of this attempt's requests. False if it is not.
    pub(crate) fn answer(
        &mut self,
        now: Monotonic,
        socket: u16,
        from: SocketAddr,
        message: &StunMessage<'_>,
    ) -> bool {
        let asked = self.asked.get(&message.transaction);
        let Some(asked) = asked.filter(|asked| asked.to == from && asked.socket == socket) else {
            return false;
        };
        if !message.is_by(&self.own_key) {
            return false;
        }
        let rtt = now.since(asked.sent);
        self.asked.remove(&message.transaction);
        self.stop_birthday();
        // A probe of a birthday punch asks addresses that are no pairs.
        let room = CANDIDATES_MAX + LEARNED_MAX + 1;
        if let Some(at) = self.pair(now, socket, from, CandidateKind::PeerReflexive, room) {
            let pair = &mut self.pairs[at];
            pair.rtt = Some(pair.rtt.map_or(rtt, |known| known.min(rtt)));
            pair.next = None;
        }
        true
    }

    /// Pairs worth dialling, the best first.
    fn worthy(&self) -> Vec<(&Pair, Rank)> {
        let ranked = self.pairs.iter().filter_map(|pair| Some((pair, self.rank(pair)?)));
        let worth = |rank: Rank| self.to_beat.is_none_or(|known| rank.beats(known));
        let mut worthy: Vec<(&Pair, Rank)> = ranked.filter(|(_, rank)| worth(*rank)).collect();
        worthy.sort_by_key(|(_, rank)| *rank);
        worthy
    }

    /// What a pair is worth that answered, or that the peer asked from: what came in opened the way
    /// back. Not so from an address it never named: a request that a stranger caught and sent again
    /// would lead there.
    fn rank(&self, pair: &Pair) -> Option<Rank> {
        let named = |other: &Pair| other.remote == pair.remote && other.kind != CandidateKind::PeerReflexive;
        let heard = pair.heard && self.pairs.iter().any(named);
        let rtt = pair.rtt.or(heard.then_some(ANSWER_WITHIN))?;
        Some(Rank { tier: Tier::of(pair.remote), rtt })
    }

    /// What this side should do: the one that dials, dial; either, give up.
    pub(crate) fn choice(&self, now: Monotonic) -> Choice {
        let worthy = if self.dialler { self.worthy() } else { Vec::new() };
        let Some((best, rank)) = worthy.first() else {
            let over = self.ends().is_some_and(|ends| ends <= now);
            return if over { Choice::GiveUp } else { Choice::Wait };
        };
        if self.quiet || self.grace(rank.tier).is_some_and(|until| until > now) {
            return Choice::Wait;
        }
        let same_socket = worthy.iter().filter(|(pair, _)| pair.socket == best.socket);
        Choice::Dial(best.socket, same_socket.map(|(pair, _)| pair.remote).collect())
    }

    /// Until when an address of a better tier than `tier` may still answer first.
    fn grace(&self, tier: Tier) -> Option<Monotonic> {
        let better = self.pairs.iter().filter(|pair| pair.rtt.is_none() && Tier::of(pair.remote) < tier);
        better.map(|pair| pair.first.unwrap_or(self.began) + BETTER_TIER_GRACE).max()
    }

    /// When this side gives up: the ladder has ended, and nothing was found.
    fn ends(&self) -> Option<Monotonic> {
        let asking = self.pairs.iter().any(|pair| pair.next.is_some());
        if self.patient || self.quiet || asking || !self.worthy().is_empty() {
            return None;
        }
        let last = self.pairs.iter().filter_map(|pair| pair.last).max();
        let last = last.max(self.birthday.as_ref().map(Birthday::ends));
        Some(last.unwrap_or(self.began).max(self.began + LADDER_ENDS) + LAST_ANSWER)
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        let asks = self.pairs.iter().filter_map(|pair| pair.next).min();
        let worthy = if self.dialler && !self.quiet { self.worthy() } else { Vec::new() };
        let grace = worthy.first().and_then(|(_, rank)| self.grace(rank.tier));
        let probes = self.birthday.as_ref().filter(|_| !self.quiet).and_then(Birthday::deadline);
        [asks, grace, probes, self.birthday_at(), self.ends()].into_iter().flatten().min()
    }

    /// The network changed: every address may answer that did not, and what answered must again.
    pub(crate) fn again(&mut self, now: Monotonic) {
        if self.quiet {
            return;
        }
        self.began = now;
        for pair in &mut self.pairs {
            (pair.rtt, pair.heard, pair.tries) = (None, false, 0);
            (pair.first, pair.last, pair.next) = (None, None, Some(now));
        }
    }

    /// A path was chosen: no more requests; the peer's are still answered.
    pub(crate) fn hush(&mut self) {
        self.quiet = true;
        self.stop_birthday();
        for pair in &mut self.pairs {
            pair.next = None;
        }
    }

    /// Guesses no more; the sockets stay.
    fn stop_birthday(&mut self) {
        if let Some(birthday) = &mut self.birthday {
            birthday.stop();
        }
    }

    /// Every pair, as far as it got.
    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }
}

impl Pair {
    /// Whether packets pass, as far as this side knows.
    fn is_through(&self) -> bool {
        self.rtt.is_some() || self.heard
    }

    /// Whether anything was sent there.
    pub(crate) fn is_tried(&self) -> bool {
        self.tries > 0
    }
}

/// Between requests to an address that has not answered.
const LADDER: [Duration; 8] = [
    Duration::from_millis(50),
    Duration::from_millis(50),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];

/// The sum of the ladder: the last request goes out then.
const LADDER_ENDS: Duration = Duration::from_millis(3_250);

/// Silence after which the own address is in doubt: longer than a path worth having is waited for, and
/// early enough for the news to be of use to the same attempt.
const DOUBT_AFTER: Duration = Duration::from_millis(250);

/// How long the last request's answer is awaited.
const LAST_ANSWER: Duration = Duration::from_millis(750);

/// An answer later than this is no path for a conversation; bounds what is remembered.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Between requests after the ladder, where a path is worth waiting for.
const PATIENT_EVERY: Duration = Duration::from_secs(1);

/// A request answers a request at once, but not each of a burst.
const ASK_BACK_APART: Duration = Duration::from_millis(20);

/// A LAN answers within this; a proven path of a lower tier waits no longer for it, counted from the
/// first request.
const BETTER_TIER_GRACE: Duration = Duration::from_millis(25);

/// Addresses learned from the peer's own requests in one attempt, beside those it announced. Further
/// ones are answered and not asked back.
const LEARNED_MAX: usize = 8;

#[cfg(test)]
mod tests;
