//! Direct links: from the first word of an offer to the close (protocol.md §9).
//!
//! 1. `connect_soon`   a message for a peer starts an attempt; the message itself never waits for it
//! 2. `signalled`      offer and answer, sealed like any dm, name certificates and addresses
//! 3. `link_opened`    the host dialled or accepted; the certificates are the expected ones
//! 4. `bound`          both sides' binds hold: the link is the peer's, and routing prefers it
//! 5. `links_timeout`  what stays silent, idle or old is closed

mod signaling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::bind::{Bind, BindCheck, BindRole, SignedBind, verify_bind};
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Event, LinkId, OpenedLink, Output, PathKind};
use crate::id::{CertHash, ConnId, EnvHash, Kid, PeerId};
use crate::key::BoxSecretKey;
use crate::limits::{CANDIDATES_MAX, DIRECT_IDLE_MAX, DIRECT_LIFE_MAX, HANDSHAKE_TIMEOUT, LINKS_MAX};
use crate::signal::Signal;
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::{OnLink, SignedBytes};

/// Attempts, sockets being bound, and bound links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// How often a reason for not being direct changed.
    pub(crate) reasons: u64,
    /// This process's certificate and addresses, once the host has them.
    local: Option<(CertHash, Vec<SocketAddr>)>,
    attempts: BTreeMap<PeerId, Attempt>,
    rests: BTreeMap<PeerId, Rest>,
    opened: BTreeMap<LinkId, Opened>,
    bound: BTreeMap<LinkId, Bound>,
    /// The last signals, and the keys they were sealed to: no outbox row remembers them.
    signals: VecDeque<(EnvHash, PeerId, Kid)>,
}

/// One try at a direct channel.
#[derive(Debug)]
struct Attempt {
    stage: Stage,
    until: Monotonic,
}

#[derive(Debug)]
enum Stage {
    /// Our offer is out.
    Offered { nonce: [u8; 16] },
    /// Both nonces are known; the certificate the peer announced.
    Agreed { conn: ConnId, peer_cert: CertHash },
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

/// A link that belongs to a peer.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) peer: PeerId,
    pub(crate) remote: String,
    pub(crate) rtt_us: Option<u64>,
    pub(crate) since: UnixMs,
    bound_at: Monotonic,
    used_at: Monotonic,
    /// It did not answer in time; the next frame clears it.
    suspect: bool,
}

impl Links {
    /// The host can make direct links.
    pub(crate) fn ready(&mut self, cert: CertHash, mut candidates: Vec<SocketAddr>) {
        candidates.truncate(CANDIDATES_MAX);
        self.local = Some((cert, candidates));
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

    /// The peer has answered nothing on this link for too long: the relay is taken until it speaks.
    pub(crate) fn suspect(&mut self, link: LinkId) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.suspect = true;
        }
    }

    /// Whether nothing was heard on this link since it was suspected.
    pub(crate) fn is_suspect(&self, link: LinkId) -> bool {
        self.bound.get(&link).is_some_and(|bound| bound.suspect)
    }

    /// An envelope went or came.
    pub(crate) fn used(&mut self, link: LinkId, now: Monotonic) {
        if let Some(bound) = self.bound.get_mut(&link) {
            bound.used_at = now;
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        let attempts = self.attempts.values().map(|attempt| attempt.until);
        let opened = self.opened.values().map(|opened| opened.until);
        attempts.chain(opened).chain(self.bound.values().map(Bound::ends)).min()
    }

    /// The recipient of one of the last signals, and the key it was sealed to.
    pub(crate) fn signal(&self, env_hash: &EnvHash) -> Option<(PeerId, Kid)> {
        self.signals.iter().find(|(signal, ..)| signal == env_hash).map(|(_, to, kid)| (*to, *kid))
    }

    /// Forgets the last signals; gives their recipients.
    pub(crate) fn take_signals(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.signals).into_iter().map(|(_, to, _)| to).collect()
    }

    fn remember_signal(&mut self, env_hash: EnvHash, to: PeerId, kid: Kid) {
        if self.signals.len() == SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back((env_hash, to, kid));
    }

    fn rests(&self, peer: &PeerId, now: Monotonic) -> bool {
        self.rests.get(peer).is_some_and(|rest| rest.until > now)
    }

    fn failed(&mut self, peer: PeerId, now: Monotonic) {
        let rest = self.rests.entry(peer).or_insert(Rest { until: now, failures: 0 });
        let pause = REST_FIRST.saturating_mul(1 << rest.failures.min(6)).min(REST_MAX);
        rest.failures += 1;
        rest.until = now + pause;
    }
}

impl Bound {
    fn ends(&self) -> Monotonic {
        (self.used_at + DIRECT_IDLE_MAX).min(self.bound_at + DIRECT_LIFE_MAX)
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

    /// Offers a direct channel, unless an attempt is under way.
    pub(crate) fn connect(&mut self, now: Now, peer: PeerId) {
        let Some((cert, candidates)) = self.links.local.clone() else {
            self.why_not(peer, "direct links are switched off here");
            return;
        };
        let full = self.links.bound.len() + self.links.opened.len() >= LINKS_MAX;
        let under_way = self.links.attempts.contains_key(&peer)
            || self.links.opened.values().any(|opened| opened.peer == peer);
        if full || under_way || !self.uplink.is_ready() {
            return;
        }
        let nonce = self.entropy.bytes();
        let until = now.monotonic + HANDSHAKE_TIMEOUT;
        self.links.attempts.insert(peer, Attempt { stage: Stage::Offered { nonce }, until });
        self.why_not(peer, "a direct channel is being made");
        self.signal_by_relay(now, peer, &Signal::Offer { nonce, cert, candidates });
    }

    /// The host made the socket of an attempt: say who we are, and wait for the same.
    pub(crate) fn link_opened(&mut self, now: Now, info: OpenedLink) {
        let agreed = self.links.attempts.iter().find_map(|(peer, attempt)| match &attempt.stage {
            Stage::Agreed { conn, peer_cert } if *conn == info.conn => Some((*peer, *peer_cert)),
            Stage::Agreed { .. } | Stage::Offered { .. } => None,
        });
        let Some((peer, peer_cert)) = agreed else {
            return self.out(Output::CloseLink(info.link));
        };
        self.links.attempts.remove(&peer);
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
            exporter: Bytes::copy_from_slice(&info.exporter),
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
            bound.suspect = false;
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
            exporter: &opened.info.exporter,
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
        let bound = Bound {
            peer,
            remote: remote.clone(),
            rtt_us: None,
            since: now.wall,
            bound_at: now.monotonic,
            used_at: now.monotonic,
            suspect: false,
        };
        self.links.bound.insert(link, bound);
        self.links.rests.remove(&peer);
        let record = self.peers.entry(peer);
        record.why_not_direct = None;
        // What is in flight on an older link settles there or comes back when it closes.
        if let Some(older) = record.link.replace(link) {
            self.out(Output::CloseLink(older));
            self.forget_link(older);
        }
        self.event(Event::Path { peer, path: Some(PathKind::Direct), remote: Some(remote) });
        self.tell_settled(now, peer);
    }

    fn linked_frame(&mut self, now: Now, link: LinkId, peer: PeerId, frame: OnLink) {
        match frame {
            OnLink::Envelope { envelope } => {
                self.links.used(link, now.monotonic);
                if self.mail_from_link(link, peer, envelope).is_err() {
                    self.misbehaved(now, link);
                }
            }
            OnLink::Receipt { receipt } => {
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
        self.forget_link(link);
        // What was said last may have been lost with it.
        if let Some(peer) = peer.filter(|peer| self.links.signals.iter().any(|(_, to, _)| to == peer)) {
            self.delivery.conversation(peer).unheard();
            self.tell_settled(now, peer);
        }
    }

    pub(crate) fn dial_failed(&mut self, now: Now, conn: ConnId, why: &str) {
        let peer = self.links.attempts.iter().find_map(|(peer, attempt)| match &attempt.stage {
            Stage::Agreed { conn: agreed, .. } if *agreed == conn => Some(*peer),
            Stage::Agreed { .. } | Stage::Offered { .. } => None,
        });
        if let Some(peer) = peer {
            self.attempt_failed(now, peer, why);
        }
    }

    pub(crate) fn close_links_of(&mut self, peer: PeerId) {
        self.forget_attempt(peer);
        let half_open = self.links.opened.iter().filter(|(_, opened)| opened.peer == peer);
        let bound = self.links.bound.iter().filter(|(_, bound)| bound.peer == peer);
        let links: Vec<LinkId> =
            half_open.map(|(link, _)| *link).chain(bound.map(|(link, _)| *link)).collect();
        for link in links {
            self.out(Output::CloseLink(link));
            self.links.opened.remove(&link);
            self.forget_link(link);
        }
    }

    pub(crate) fn links_timeout(&mut self, now: Now) {
        let attempts = self.links.attempts.iter().filter(|(_, attempt)| attempt.until <= now.monotonic);
        let over: Vec<PeerId> = attempts.map(|(peer, _)| *peer).collect();
        for peer in over {
            self.attempt_failed(now, peer, "the peer did not answer the offer of a direct channel in time");
        }
        let unbound = self.links.opened.iter().filter(|(_, opened)| opened.until <= now.monotonic);
        let unbound: Vec<LinkId> = unbound.map(|(link, _)| *link).collect();
        for link in unbound {
            if let Some(opened) = self.links.opened.remove(&link) {
                self.refuse_link(now, link, opened.peer, "the peer did not say who it is in time");
            }
        }
        let ended = self.links.bound.iter().filter(|(_, bound)| bound.ends() <= now.monotonic);
        let ended: Vec<LinkId> = ended.map(|(link, _)| *link).collect();
        for link in ended {
            self.out(Output::CloseLink(link));
            self.forget_link(link);
        }
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
        self.forget_link(link);
    }

    fn refuse_link(&mut self, now: Now, link: LinkId, peer: PeerId, why: &str) {
        self.out(Output::CloseLink(link));
        self.links.failed(peer, now.monotonic);
        self.why_not(peer, why);
    }

    fn attempt_failed(&mut self, now: Now, peer: PeerId, why: &str) {
        self.forget_attempt(peer);
        self.links.failed(peer, now.monotonic);
        self.why_not(peer, why);
    }

    fn forget_attempt(&mut self, peer: PeerId) {
        if let Some(Attempt { stage: Stage::Agreed { conn, .. }, .. }) = self.links.attempts.remove(&peer) {
            self.out(Output::Forget(conn));
        }
    }

    /// The link is gone: what was in flight on it is pending again.
    fn forget_link(&mut self, link: LinkId) {
        self.delivery.path_closed(Via::Link(link));
        let Some(bound) = self.links.bound.remove(&link) else { return };
        let record = self.peers.entry(bound.peer);
        if record.link == Some(link) {
            record.link = None;
            record.why_not_direct =
                Some("the direct channel ended; the next message makes another".to_owned());
            self.event(Event::Path { peer: bound.peer, path: None, remote: None });
        }
    }

    fn why_not(&mut self, peer: PeerId, why: &str) {
        let record = self.peers.entry(peer);
        if record.why_not_direct.as_deref() != Some(why) {
            record.why_not_direct = Some(why.to_owned());
            self.links.reasons += 1;
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
