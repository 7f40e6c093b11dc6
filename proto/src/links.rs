//! Direct links: from the first word of an offer to the close (protocol.md §9).
//!
//! 1. `network`        this node's own addresses, as its host and the STUN servers see them
//! 2. `attempt`        a message for a peer starts one, and never waits for it; offer, answer, checks, dial
//! 3. `link_opened`    the host dialled or accepted; the certificates are the expected ones
//! 4. `bound`          both sides' binds hold: the link is the peer's, and routing prefers it
//! 5. `links_timeout`  what stays silent, idle or old is closed, and made again if it was in use

mod attempt;
mod birthday;
mod bound;
mod datagrams;
mod network;
mod reason;
mod signaling;
mod webrtc;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use attempt::{Agreed, Attempt, Taken};
pub(crate) use bound::Bound;
use datagrams::{EARLY_MAX, Early};

use crate::bind::{Bind, BindCheck, BindRole, SignedBind, verify_bind};
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Event, Holding, LinkId, OpenedLink, Output, PathKind};
use crate::id::{CertHash, EnvHash, Kid, PeerId};
use crate::key::BoxSecretKey;
use crate::limits::{HANDSHAKE_TIMEOUT, LINKS_MAX};
use crate::paths::{ChecksView, Gathering};
use crate::signal::Means;
use crate::time::{Monotonic, Now};
use crate::wire::{OnLink, SignedBytes};

/// Attempts, sockets being bound, and bound links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// How often a reason for not being direct changed.
    pub(crate) reasons: u64,
    /// This process's means and certificates, once the host can make links.
    local: Option<Means>,
    gathering: Gathering,
    attempts: BTreeMap<PeerId, Attempt>,
    early: VecDeque<Early>,
    /// When a birthday punch with a peer began.
    birthdays: BTreeMap<PeerId, Monotonic>,
    /// How far the last attempt with each peer got, for people.
    tables: BTreeMap<PeerId, ChecksView>,
    /// When the last link ended.
    ended_at: Monotonic,
    rests: BTreeMap<PeerId, Rest>,
    /// Who has mail waiting here for a link, since no other way is allowed.
    awaited: BTreeSet<PeerId>,
    /// Whose link was lost while it was in use, and until when it is made again.
    lost: BTreeMap<PeerId, Monotonic>,
    opened: BTreeMap<LinkId, Opened>,
    bound: BTreeMap<LinkId, Bound>,
    /// The last signals, and the keys they were sealed to: no outbox row remembers them.
    signals: VecDeque<(EnvHash, PeerId, Kid)>,
}

/// Pause after failures.
#[derive(Debug)]
struct Rest {
    until: Monotonic,
    failures: u32,
}

/// A socket whose bind is outstanding.
#[derive(Debug)]
struct Opened {
    peer: PeerId,
    peer_cert: CertHash,
    info: OpenedLink,
    until: Monotonic,
}

impl Links {
    /// The last attempt with a peer, or the one under way.
    pub(crate) fn checks(&self, peer: &PeerId) -> Option<ChecksView> {
        let live = self.attempts.get(peer).and_then(Attempt::agreed).map(Agreed::view);
        live.or_else(|| self.tables.get(peer).cloned())
    }

    /// When the main socket last carried anything but STUN.
    fn quiet_since(&self, now: Monotonic) -> Monotonic {
        if self.bound.is_empty() && self.attempts.is_empty() { self.ended_at } else { now }
    }

    /// A bound link.
    pub(crate) fn bound(&self, link: LinkId) -> Option<&Bound> {
        self.bound.get(&link)
    }

    /// A round trip was measured, microseconds.
    pub(crate) fn measured(&mut self, link: LinkId, rtt_us: u64) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.rtt_us = Some(rtt_us);
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        let attempts = self.attempts.values().map(Attempt::deadline);
        let opened = self.opened.values().map(|opened| opened.until);
        let own = attempts.chain(self.gathering.deadline());
        let bound = self.bound.values().map(Bound::ends).chain(self.renewal_at());
        own.chain(opened).chain(bound).chain(self.lost.values().copied()).min()
    }

    /// The recipient of one of the last signals, and the key it was sealed to.
    pub(crate) fn signal(&self, env_hash: &EnvHash) -> Option<(PeerId, Kid)> {
        self.signals.iter().find(|(signal, ..)| signal == env_hash).map(|(_, to, kid)| (*to, *kid))
    }

    /// Forgets the last signals; gives their recipients.
    pub(crate) fn take_signals(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.signals).into_iter().map(|(_, to, _)| to).collect()
    }

    /// Whether there is no room for one more socket: every attempt may become one.
    fn is_full(&self) -> bool {
        self.bound.len() + self.opened.len() + self.attempts.len() >= LINKS_MAX
    }

    pub(crate) fn holdings(&self, members: usize) -> [Holding; 7] {
        let sockets = self.bound.len() + self.opened.len() + self.attempts.len();
        [
            Holding::new("direct links and attempts", sockets, LINKS_MAX),
            Holding::new("pauses between attempts", self.rests.len(), members),
            Holding::new("links to be made again", self.lost.len(), members),
            Holding::new("birthday punches", self.birthdays.len(), members),
            Holding::new("tables of attempts", self.tables.len(), members),
            Holding::new("requests that came early", self.early.len(), EARLY_MAX),
            Holding::new("signals", self.signals.len(), SIGNALS_MAX),
        ]
    }

    fn remember_signal(&mut self, env_hash: EnvHash, to: PeerId, kid: Kid) {
        if self.signals.len() == SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back((env_hash, to, kid));
    }

    /// Whether a socket for this peer is in the making.
    fn is_under_way(&self, peer: &PeerId) -> bool {
        self.attempts.contains_key(peer) || self.opened.values().any(|opened| opened.peer == *peer)
    }

    /// Routing names them anew each time.
    pub(crate) fn forget_awaited(&mut self) {
        self.awaited.clear();
    }

    fn rests(&self, peer: &PeerId, now: Monotonic) -> bool {
        self.rests.get(peer).is_some_and(|rest| rest.until > now)
    }

    /// A sign of life: what failed before may succeed.
    pub(crate) fn revive(&mut self, peer: &PeerId) {
        self.rests.remove(peer);
    }

    fn failed(&mut self, peer: PeerId, now: Monotonic) {
        // A path that was there lately is looked for without a long pause.
        let lost = self.lost.contains_key(&peer);
        let rest = self.rests.entry(peer).or_insert(Rest { until: now, failures: 0 });
        let doublings = if lost { 0 } else { rest.failures.min(6) };
        let pause = REST_FIRST.saturating_mul(1 << doublings).min(REST_MAX);
        rest.failures += 1;
        rest.until = now + pause;
    }
}

impl Endpoint {
    /// The host made the socket of an attempt: say who we are, and wait for the same.
    pub(crate) fn link_opened(&mut self, now: Now, info: OpenedLink) {
        let Some(taken) = self.links.take_attempt(&info.conn) else {
            return self.out(Output::CloseLink(info.link));
        };
        let Taken { peer, peer_cert, sockets, other } = taken;
        self.close_sockets(sockets);
        // The other transport lost the race.
        other.into_iter().for_each(|conn| self.out(Output::Forget(conn)));
        let epoch = BoxSecretKey::from_bytes(self.entropy.bytes());
        let bind = Bind {
            mesh: self.me.mesh,
            conn: info.conn,
            from: self.me.id,
            to: peer,
            role: if info.dialled { BindRole::Dialler } else { BindRole::Acceptor },
            transport: info.transport,
            own_cert: info.local_cert,
            peer_cert: info.peer_cert,
            exporter: info.exporter.map_or_else(Bytes::new, |exporter| Bytes::copy_from_slice(&exporter)),
            epoch_key: epoch.public(),
            epoch_exp: now.wall.plus(EPOCH_LIFE),
            head: self.roster.head(),
        };
        let signed = SignedBind::sign(&self.me.key, bind);
        let bind = SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() };
        let frame = OnLink::Bind { bind, attestation: Bytes::new() };
        self.out(Output::SendLink(info.link, frame.encode()));
        let until = now.monotonic + HANDSHAKE_TIMEOUT;
        self.links.opened.insert(info.link, Opened { peer, peer_cert, info, until });
    }

    pub(crate) fn link_frame(&mut self, now: Now, link: LinkId, frame: &Bytes) {
        let Ok(frame) = OnLink::decode(frame) else { return self.misbehaved(now, link) };
        if let Some(bound) = self.links.bound.get_mut(&link) {
            let peer = bound.peer;
            bound.heard(now.monotonic);
            return self.linked_frame(now, link, peer, frame);
        }
        let Some(opened) = self.links.opened.remove(&link) else { return };
        let OnLink::Bind { bind, .. } = frame else {
            return self.refuse_link(now, link, opened.peer, "no bind");
        };
        let check = BindCheck {
            mesh: self.me.mesh,
            conn: opened.info.conn,
            from: opened.peer,
            to: self.me.id,
            role: if opened.info.dialled { BindRole::Acceptor } else { BindRole::Dialler },
            transport: opened.info.transport,
            cert_observed: opened.info.peer_cert,
            cert_signalled: opened.peer_cert,
            own_cert: opened.info.local_cert,
            exporter: opened.info.exporter.as_ref().map_or(&[], |exporter| &exporter[..]),
            now: now.wall,
        };
        match verify_bind(&bind.stmt, &bind.sig, &check) {
            Err(error) => self.refuse_link(now, link, opened.peer, &error.to_string()),
            Ok(_) if self.is_revoked(&opened.peer) => self.refuse_link(now, link, opened.peer, "revoked"),
            Ok(bind) => {
                self.heard_head(now, opened.peer, bind.head, None);
                self.bound(now, link, &opened);
            }
        }
    }

    fn bound(&mut self, now: Now, link: LinkId, opened: &Opened) {
        let (peer, remote) = (opened.peer, opened.info.remote.clone());
        let bound = Bound::new(now, peer, &opened.info);
        self.links.bound.insert(link, bound);
        self.links.rests.remove(&peer);
        self.links.lost.remove(&peer);
        let record = self.peers.entry(peer);
        record.why_not_direct = None;
        // What is in flight on an older link settles there or comes back when it closes.
        if let Some(older) = record.link.replace(link) {
            self.out(Output::CloseLink(older));
            self.forget_link(now, older);
        }
        self.event(Event::Path { peer, path: Some(PathKind::Direct), remote: Some(remote) });
        self.tell_settled(now, peer);
    }

    fn linked_frame(&mut self, now: Now, link: LinkId, peer: PeerId, frame: OnLink) {
        match frame {
            OnLink::Envelope { envelope } => {
                self.links.used(link, now.monotonic);
                self.links.flowed(link, now.monotonic);
                if self.mail_from_link(link, peer, envelope).is_err() {
                    self.misbehaved(now, link);
                }
            }
            OnLink::Receipt { receipt } => {
                self.links.flowed(link, now.monotonic);
                if !self.receipted(now, &receipt, Via::Link(link)) {
                    self.misbehaved(now, link);
                }
            }
            OnLink::Ping { nonce } => self.out(Output::SendLink(link, OnLink::Pong { nonce }.encode())),
            OnLink::Pong { nonce } => self.link_ponged(now, link, nonce),
            OnLink::Bind { .. } => self.misbehaved(now, link),
        }
    }

    pub(crate) fn link_closed(&mut self, now: Now, link: LinkId) {
        if let Some(opened) = self.links.opened.remove(&link) {
            self.links.failed(opened.peer, now.monotonic);
            self.why_not(opened.peer, "the direct channel closed before it was bound");
        }
        let peer = self.links.bound.get(&link).map(|bound| bound.peer);
        self.link_lost(now, link);
        // What was said last may have been lost with it.
        if let Some(peer) = peer.filter(|peer| self.links.signals.iter().any(|(_, to, _)| to == peer)) {
            self.delivery.conversation(peer).unheard();
            self.tell_settled(now, peer);
        }
    }

    pub(crate) fn close_links_of(&mut self, now: Now, peer: PeerId) {
        self.links.lost.remove(&peer);
        self.forget_attempt(peer);
        let half_open = self.links.opened.iter().filter(|(_, opened)| opened.peer == peer);
        let bound = self.links.bound.iter().filter(|(_, bound)| bound.peer == peer);
        let links: Vec<LinkId> =
            half_open.map(|(link, _)| *link).chain(bound.map(|(link, _)| *link)).collect();
        for link in links {
            self.out(Output::CloseLink(link));
            self.links.opened.remove(&link);
            self.forget_link(now, link);
        }
    }

    pub(crate) fn links_timeout(&mut self, now: Now) {
        self.gather(now);
        self.attempts_timeout(now);
        let unbound = self.links.opened.iter().filter(|(_, opened)| opened.until <= now.monotonic);
        let unbound: Vec<LinkId> = unbound.map(|(link, _)| *link).collect();
        for link in unbound {
            if let Some(opened) = self.links.opened.remove(&link) {
                self.refuse_link(now, link, opened.peer, "the peer did not say who it is in time");
            }
        }
        self.bound_timeout(now);
    }

    /// A bound or half-open link said what no honest peer says.
    fn misbehaved(&mut self, now: Now, link: LinkId) {
        if let Some(bound) = self.links.bound.get(&link) {
            let peer = bound.peer;
            self.links.failed(peer, now.monotonic);
        }
        if let Some(opened) = self.links.opened.remove(&link) {
            self.links.failed(opened.peer, now.monotonic);
            self.why_not(opened.peer, "the peer spoke nonsense on the direct channel");
        }
        self.out(Output::CloseLink(link));
        self.forget_link(now, link);
    }

    fn refuse_link(&mut self, now: Now, link: LinkId, peer: PeerId, why: &str) {
        self.out(Output::CloseLink(link));
        self.links.failed(peer, now.monotonic);
        self.why_not(peer, why);
    }

    /// The link is gone: what was in flight on it is pending again.
    fn forget_link(&mut self, now: Now, link: LinkId) {
        self.delivery.path_closed(Via::Link(link));
        let Some(bound) = self.links.bound.remove(&link) else { return };
        self.links.ended_at = now.monotonic;
        let record = self.peers.entry(bound.peer);
        if record.link == Some(link) {
            record.link = None;
            record.why_not_direct =
                Some("the direct channel ended; the next message makes another".to_owned());
            self.event(Event::Path { peer: bound.peer, path: None, remote: None });
        }
    }
}

/// Signals remembered, about 100 bytes each, until their recipients say that they lost a key.
const SIGNALS_MAX: usize = 256;

/// Life of the key a bind offers for calls and streams (protocol.md §9: at most an hour).
const EPOCH_LIFE: Duration = Duration::from_secs(60 * 60);

/// Pause after the first failed attempt; doubles from there.
const REST_FIRST: Duration = Duration::from_secs(1);

/// Longest pause between attempts, so that a changed network is noticed within a minute.
const REST_MAX: Duration = Duration::from_secs(60);
