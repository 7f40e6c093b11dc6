//! One try at a direct link, from the offer to the socket (protocol.md §9).
//!
//! 1. `connect`    an offer tells our certificate, addresses and NAT
//! 2. `offered`    the answer tells the same; the answerer's checks begin in the same instant
//! 3. `answered`   the offerer's begin; it dials the best address that answers
//! 4. `datagrams`  requests and answers, whichever side sent them
//! 5. `press_on`   what is due: requests, the dial, or the end

use std::time::Duration;

use super::Links;
use super::birthday::can_help;
use super::webrtc::Second;
use crate::endpoint::{Endpoint, Output};
use crate::id::{CertHash, ConnId, PeerId};
use crate::limits::{CANDIDATES_MAX, HANDSHAKE_TIMEOUT};
use crate::paths::{
    Candidate, Check, ChecksView, Choice, Nat, PathPolicy, Rank, Reach, birthday_after, is_usable,
};
use crate::signal::{Means, Signal, conn_id, webrtc_conn_id};
use crate::time::{Monotonic, Now, UnixMs};

/// One try at a direct channel.
#[derive(Debug)]
pub(super) struct Attempt {
    /// This side's nonce.
    nonce: [u8; 16],
    stage: Stage,
    until: Monotonic,
    /// What the peer was told of this side.
    told: Reach,
    /// How often it was told.
    tellings: u32,
    /// The link in use, which a mere equal does not replace.
    to_beat: Option<Rank>,
}

#[derive(Debug)]
enum Stage {
    /// Our offer is out.
    Offered,
    /// Both nonces are known.
    Agreed(Box<Agreed>),
}

/// An attempt whose both ends are known.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) conn: ConnId,
    /// The certificate the peer announced for QUIC, as long as that may come about.
    peer_cert: Option<CertHash>,
    /// The other way, as long as it may come about.
    pub(super) webrtc: Option<Second>,
    peer_nonce: [u8; 16],
    pub(super) peer_nat: Nat,
    pub(super) check: Check,
    since: UnixMs,
}

/// An attempt that has its link.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) peer: PeerId,
    /// The certificate it must have shown.
    pub(super) peer_cert: CertHash,
    /// Sockets opened for it.
    pub(super) sockets: Vec<u16>,
    /// The way that was not taken.
    pub(super) other: Option<ConnId>,
}

impl Attempt {
    pub(super) fn agreed(&self) -> Option<&Agreed> {
        match &self.stage {
            Stage::Agreed(agreed) => Some(agreed),
            Stage::Offered => None,
        }
    }

    pub(super) fn agreed_mut(&mut self) -> Option<&mut Agreed> {
        match &mut self.stage {
            Stage::Agreed(agreed) => Some(agreed),
            Stage::Offered => None,
        }
    }

    /// Whether its offer may yet be answered. One that was not for so long went to a session that is gone.
    fn is_offer_under_way(&self, now: Monotonic) -> bool {
        self.agreed().is_none() && now + HANDSHAKE_TIMEOUT < self.until + OFFER_STANDS
    }

    /// Whether it guesses ports.
    pub(super) fn celebrates(&self, now: Monotonic) -> bool {
        self.agreed().is_some_and(|agreed| agreed.check.celebrates(now))
    }

    pub(super) fn deadline(&self) -> Monotonic {
        let checks = self.agreed().and_then(|agreed| agreed.check.deadline());
        let second = self.agreed().and_then(Agreed::webrtc_at);
        [checks, second].into_iter().flatten().fold(self.until, Monotonic::min)
    }
}

impl Agreed {
    /// Whether it goes by this name, on one way or the other.
    fn has(&self, conn: &ConnId) -> bool {
        self.conn == *conn || self.webrtc.as_ref().is_some_and(|second| second.conn == *conn)
    }

    pub(super) fn view(&self) -> ChecksView {
        ChecksView::of(self.since, self.peer_nat, &self.check)
    }
}

impl Links {
    fn reach(&self, birthday: bool) -> Reach {
        Reach { candidates: self.gathering.candidates(), nat: self.gathering.nat(), birthday }
    }

    /// The peer whose attempt this is.
    pub(super) fn attempt_of(&self, conn: &ConnId) -> Option<PeerId> {
        let with = |attempt: &Attempt| attempt.agreed().is_some_and(|agreed| agreed.has(conn));
        self.attempts.iter().find(|(_, attempt)| with(attempt)).map(|(peer, _)| *peer)
    }

    /// The attempt has its link.
    pub(super) fn take_attempt(&mut self, conn: &ConnId) -> Option<Taken> {
        let peer = self.attempt_of(conn)?;
        let mut attempt = self.attempts.remove(&peer)?;
        let agreed = attempt.agreed_mut()?;
        self.tables.insert(peer, agreed.view());
        let sockets = agreed.check.take_sockets();
        let second = agreed.webrtc.as_ref();
        if agreed.conn == *conn {
            let other = second.map(|second| second.conn);
            return Some(Taken { peer, peer_cert: agreed.peer_cert?, sockets, other });
        }
        Some(Taken { peer, peer_cert: second?.theirs.cert, sockets, other: Some(agreed.conn) })
    }

    /// A dial is out: it gets its time.
    pub(super) fn prolong(&mut self, peer: &PeerId, now: Monotonic) {
        if let Some(attempt) = self.attempts.get_mut(peer) {
            attempt.until = now + HANDSHAKE_TIMEOUT;
        }
    }

    /// The network is another one: what did not answer may do so.
    pub(super) fn check_again(&mut self, now: Monotonic) {
        for agreed in self.attempts.values_mut().filter_map(Attempt::agreed_mut) {
            agreed.check.again(now);
        }
    }

    /// Their link is gone: any path is better.
    pub(super) fn nothing_to_beat(&mut self, peer: &PeerId) {
        let Some(attempt) = self.attempts.get_mut(peer) else { return };
        attempt.to_beat = None;
        if let Some(agreed) = attempt.agreed_mut() {
            agreed.check.to_beat = None;
        }
    }
}

impl Endpoint {
    /// Starts a direct attempt where one can be expected to help.
    pub(crate) fn connect_soon(&mut self, now: Now, peer: PeerId) {
        let linked = self.peers.get(&peer).is_some_and(|known| known.link.is_some());
        let wanted = self.peers.is_online(&peer) && !linked;
        if wanted && !self.links.rests(&peer, now.monotonic) {
            self.connect(now, peer);
        }
    }

    /// From another network there may be better ways to those this node talks with.
    pub(super) fn look_for_better(&mut self, now: Now) {
        let lively = self.links.bound.values().filter(|bound| bound.is_lively(now.monotonic));
        let lively: Vec<(PeerId, Rank)> = lively.map(|bound| (bound.peer, bound.rank())).collect();
        for (peer, rank) in lively {
            self.connect_beyond(now, peer, Some(rank));
        }
    }

    /// Offers a direct channel, unless an attempt is under way.
    pub(crate) fn connect(&mut self, now: Now, peer: PeerId) {
        self.connect_beyond(now, peer, None);
    }

    fn connect_beyond(&mut self, now: Now, peer: PeerId, to_beat: Option<Rank>) {
        let Some(means) = self.links.local.clone() else {
            self.why_not(peer, "direct links are switched off here");
            return;
        };
        if self.path_policy(&peer) == PathPolicy::RelayOnly {
            self.why_not(peer, "the configuration here keeps this peer on the relay");
            return;
        }
        if self.links.is_full() || self.links.is_under_way(&peer) || !self.uplink.is_ready() {
            return;
        }
        let nonce = self.entropy.bytes();
        let reach = self.links.reach(self.links.consents(&peer, now.monotonic));
        let until = now.monotonic + HANDSHAKE_TIMEOUT;
        let (told, stage) = (reach.clone(), Stage::Offered);
        let attempt = Attempt { nonce, stage, until, told, tellings: 1, to_beat };
        self.links.attempts.insert(peer, attempt);
        self.why_not(peer, "a direct channel is being made");
        self.signal_by_relay(now, peer, &Signal::Offer { nonce, means, reach });
        self.gather_again(now, peer);
    }

    pub(super) fn offered(&mut self, now: Now, from: PeerId, offer: [u8; 16], means: &Means, theirs: &Reach) {
        let ours = self.links.local.clone().filter(|ours| !ours.shared_with(means).is_none());
        let Some(own) = ours.filter(|_| self.path_policy(&from) != PathPolicy::RelayOnly) else {
            return self.signal_by_relay(now, from, &Signal::Decline { offer });
        };
        let Means { quic: peer_cert, webrtc } = own.shared_with(means);
        // Of two simultaneous offers the lower key's stands.
        let ours = self.links.attempts.get(&from);
        if ours.is_some_and(|attempt| attempt.is_offer_under_way(now.monotonic)) && self.me.id < from {
            return;
        }
        if ours.is_none() && self.links.is_full() {
            return self.signal_by_relay(now, from, &Signal::Decline { offer });
        }
        let nonce = self.entropy.bytes();
        let reach = self.links.reach(self.links.consents(&from, now.monotonic));
        let conn = conn_id(&offer, &nonce);
        self.forget_attempt(from);
        let candidates = self.usable(&theirs.candidates);
        let mut check = Check::new(now.monotonic, conn, (&offer, &nonce), false, true, &candidates);
        let guesses = reach.birthday && theirs.birthday && can_help(reach.nat, theirs.nat);
        check.guesses_after = guesses.then(|| birthday_after(self.links.gathering.rtt()));
        let (peer_nonce, peer_nat, since) = (offer, theirs.nat, now.wall);
        let webrtc = webrtc.map(|theirs| Second::expected(webrtc_conn_id(&offer, &nonce), theirs));
        if let Some(peer_cert) = peer_cert {
            self.out(Output::Expect { conn, peer_cert });
        }
        webrtc.iter().for_each(|second| self.expect_webrtc(second, &candidates));
        let agreed = Agreed { conn, peer_cert, webrtc, peer_nonce, peer_nat, check, since };
        let stage = Stage::Agreed(Box::new(agreed));
        let until = now.monotonic + HANDSHAKE_TIMEOUT;
        let told = reach.clone();
        let attempt = Attempt { nonce, stage, until, told, tellings: 1, to_beat: None };
        self.links.attempts.insert(from, attempt);
        self.why_not(from, "a direct channel is being made");
        self.signal_by_relay(now, from, &Signal::Answer { nonce, offer, means: own, reach });
        self.press_on(now, from);
        self.gather_again(now, from);
    }

    pub(super) fn answered(
        &mut self,
        now: Now,
        from: PeerId,
        offer: [u8; 16],
        answer: [u8; 16],
        means: &Means,
        theirs: &Reach,
    ) {
        let Some(own) = self.links.local.clone() else { return };
        let Means { quic: peer_cert, webrtc } = own.shared_with(means);
        let candidates = self.usable(&theirs.candidates);
        let Some(attempt) = self.links.attempts.get_mut(&from) else { return };
        if attempt.nonce != offer || attempt.agreed().is_some() {
            return;
        }
        let conn = conn_id(&offer, &answer);
        let patient = self.links.lost.contains_key(&from);
        let mut check = Check::new(now.monotonic, conn, (&offer, &answer), true, patient, &candidates);
        check.to_beat = attempt.to_beat;
        let consent = attempt.told.birthday && theirs.birthday && attempt.to_beat.is_none();
        let guesses = consent && can_help(self.links.gathering.nat(), theirs.nat);
        check.guesses_after = guesses.then(|| birthday_after(self.links.gathering.rtt()));
        let (peer_nonce, peer_nat, since) = (answer, theirs.nat, now.wall);
        // A link that is there is replaced by a better one of the better kind only.
        let webrtc = webrtc.filter(|_| attempt.to_beat.is_none());
        let second = webrtc_conn_id(&offer, &answer);
        let webrtc = webrtc.map(|theirs| match peer_cert {
            Some(_) => Second::held(now.monotonic, second, theirs),
            None => Second::due(second, theirs),
        });
        let agreed = Agreed { conn, peer_cert, webrtc, peer_nonce, peer_nat, check, since };
        attempt.stage = Stage::Agreed(Box::new(agreed));
        attempt.until = now.monotonic + HANDSHAKE_TIMEOUT;
        // What the answer did not know of may have been learned since the offer.
        self.tell_reach(now);
        self.hear_early(now);
        self.press_on(now, from);
    }

    pub(super) fn declined(&mut self, now: Now, from: PeerId, offer: [u8; 16]) {
        let ours = self.links.attempts.get(&from);
        if ours.is_some_and(|attempt| attempt.nonce == offer && attempt.agreed().is_none()) {
            self.attempt_failed(now, from, "the peer makes no direct links");
        }
    }

    /// The peer learned more of itself.
    pub(super) fn peer_reach(&mut self, now: Now, from: PeerId, nonce: [u8; 16], theirs: &Reach) {
        let candidates = self.usable(&theirs.candidates);
        let agreed = self.links.attempts.get_mut(&from).and_then(Attempt::agreed_mut);
        let Some(agreed) = agreed.filter(|agreed| agreed.peer_nonce == nonce) else { return };
        agreed.peer_nat = theirs.nat;
        agreed.check.learn(now.monotonic, &candidates);
        self.learn_webrtc(&from, &candidates);
        self.press_on(now, from);
    }

    /// Tells peers under way where this node is, as far as they do not know.
    pub(super) fn tell_reach(&mut self, now: Now) {
        let reach = self.links.reach(true);
        let mut signals = Vec::new();
        for (peer, attempt) in &mut self.links.attempts {
            let reach = Reach { birthday: attempt.told.birthday, ..reach.clone() };
            let known = |candidate: &Candidate| attempt.told.candidates.contains(candidate);
            let news = !reach.candidates.iter().all(known);
            // Before the answer nobody there knows the attempt; its arrival tells what is new.
            if news && attempt.agreed().is_some() && attempt.tellings < TELLINGS_MAX {
                attempt.told = reach.clone();
                attempt.tellings += 1;
                signals.push((*peer, Signal::Candidates { nonce: attempt.nonce, reach }));
            }
        }
        for (peer, signal) in signals {
            self.signal_by_relay(now, peer, &signal);
        }
    }

    /// Does what an attempt has due.
    pub(super) fn press_on(&mut self, now: Now, peer: PeerId) {
        self.try_birthday(now, peer);
        let Some(attempt) = self.links.attempts.get_mut(&peer) else { return };
        let Stage::Agreed(agreed) = &mut attempt.stage else { return };
        let mut requests = Vec::new();
        agreed.check.poll(now.monotonic, &mut self.entropy, &mut requests);
        let choice = agreed.check.choice(now.monotonic);
        let (conn, peer_cert) = (agreed.conn, agreed.peer_cert);
        if let (Choice::Dial(..), Some(_)) = (&choice, peer_cert) {
            agreed.check.hush();
            attempt.until = now.monotonic + HANDSHAKE_TIMEOUT;
        }
        let unheard_since = agreed.check.unheard_since(now.monotonic);
        // ICE asks longer, and may be answered by whom nothing else reaches.
        let asks_itself = agreed.webrtc.as_ref().is_some_and(Second::needs_no_checks);
        let goes_on = choice == Choice::GiveUp && asks_itself;
        if goes_on {
            agreed.check.hush();
        }
        self.send_datagrams(requests);
        self.open_sockets(peer);
        if let Some(since) = unheard_since {
            self.doubt_reach(now, since);
        }
        match choice {
            Choice::Wait => {}
            Choice::Dial(socket, candidates) => {
                if let Some(peer_cert) = peer_cert {
                    self.out(Output::Dial { conn, peer_cert, socket, candidates });
                }
            }
            Choice::GiveUp if goes_on => {}
            Choice::GiveUp => return self.attempt_failed(now, peer, &self.why_failed(&peer)),
        }
        self.press_on_webrtc(now, peer);
    }

    pub(crate) fn dial_failed(&mut self, now: Now, conn: ConnId, why: &str) {
        let Some(peer) = self.links.attempt_of(&conn) else { return };
        let Some(agreed) = self.links.attempts.get_mut(&peer).and_then(Attempt::agreed_mut) else { return };
        if agreed.conn == conn {
            agreed.peer_cert = None;
            agreed.hurry(now.monotonic);
        } else {
            agreed.webrtc = None;
        }
        if agreed.peer_cert.is_none() && agreed.webrtc.is_none() {
            self.attempt_failed(now, peer, why);
        } else {
            self.press_on(now, peer);
        }
    }

    pub(super) fn attempt_failed(&mut self, now: Now, peer: PeerId, why: &str) {
        self.forget_attempt(peer);
        if self.peers.get(&peer).is_some_and(|peer| peer.link.is_some()) {
            // Nothing is worse than before.
            return;
        }
        self.links.failed(peer, now.monotonic);
        self.why_not(peer, why);
    }

    /// The uplink is gone, and perhaps offers with it that nobody will answer: who is to have a link gets
    /// another offer when it is back.
    pub(crate) fn offers_lost(&mut self) {
        let offered = self.links.attempts.iter().filter(|(_, attempt)| attempt.agreed().is_none());
        let peers: Vec<PeerId> = offered.map(|(peer, _)| *peer).collect();
        peers.into_iter().for_each(|peer| self.forget_attempt(peer));
    }

    pub(super) fn forget_attempt(&mut self, peer: PeerId) {
        let Some(attempt) = self.links.attempts.remove(&peer) else { return };
        if let Stage::Agreed(mut agreed) = attempt.stage {
            self.links.tables.insert(peer, agreed.view());
            self.out(Output::Forget(agreed.conn));
            agreed.webrtc.iter().for_each(|second| self.out(Output::Forget(second.conn)));
            self.close_sockets(agreed.check.take_sockets());
        }
    }

    pub(super) fn attempts_timeout(&mut self, now: Now) {
        let due = self.links.attempts.iter().filter(|(_, attempt)| attempt.deadline() <= now.monotonic);
        let due: Vec<(PeerId, bool, bool)> = due
            .map(|(peer, attempt)| (*peer, attempt.until <= now.monotonic, attempt.agreed().is_some()))
            .collect();
        for (peer, over, agreed) in due {
            match (over, agreed) {
                (false, _) => self.press_on(now, peer),
                (true, false) => self.attempt_failed(
                    now,
                    peer,
                    "the peer did not answer the offer of a direct channel in time",
                ),
                (true, true) => {
                    self.attempt_failed(now, peer, &self.why_failed(&peer));
                }
            }
        }
    }

    fn why_failed(&self, peer: &PeerId) -> String {
        let agreed = self.links.attempts.get(peer).and_then(Attempt::agreed);
        agreed.map(|agreed| self.why_nothing_answered(agreed)).unwrap_or_default()
    }

    /// The addresses of a peer worth asking.
    fn usable(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let loopback = self.me.origin.is_loopback();
        let good = candidates.iter().filter(|candidate| is_usable(candidate.addr, loopback));
        good.take(CANDIDATES_MAX).copied().collect()
    }
}

/// How often one attempt tells its peer where this side is: a NAT that gives every server another
/// address would else be told of server by server.
const TELLINGS_MAX: u32 = 4;

/// How long an unanswered offer stands against the peer's own: longer than relay and commit take.
const OFFER_STANDS: Duration = Duration::from_secs(2);
