//! Direct links: from the first word of an offer to the close (protocol.md §9).
//!
//! 1. `connect_soon`   a message for a peer starts an attempt; the message itself never waits for it
//! 2. `signalled`      offer and answer, sealed like any dm, name certificates and addresses
//! 3. `link_opened`    the host dialled or accepted; the certificates are the expected ones
//! 4. `bound`          both sides' binds hold: the link is the peer's, and routing prefers it
//! 5. `links_timeout`  what stays silent, idle or old is closed

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::bind::{Bind, BindCheck, BindRole, SignedBind, verify_bind};
use crate::body::{Body, Message, SIGNAL_TYPE};
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Event, LinkId, OpenedLink, Output, PathKind};
use crate::envelope::Priority;
use crate::id::{CertHash, ConnId, Fingerprint, PeerId};
use crate::key::BoxSecretKey;
use crate::limits::{
    CANDIDATES_MAX, DIRECT_IDLE_MAX, DIRECT_LIFE_MAX, HANDSHAKE_TIMEOUT, LINKS_MAX, SIGNAL_LIFE,
};
use crate::receipts::Source;
use crate::signal::{Signal, conn_id};
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::{OnLink, SignedBytes, ToCoordinator};

/// Attempts, sockets being bound, and bound links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// This process's certificate and addresses, once the host has them.
    local: Option<(CertHash, Vec<SocketAddr>)>,
    attempts: BTreeMap<PeerId, Attempt>,
    rests: BTreeMap<PeerId, Rest>,
    opened: BTreeMap<LinkId, Opened>,
    bound: BTreeMap<LinkId, Bound>,
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
        let known = self.peers.get(&peer);
        let wanted = known.is_some_and(|known| known.online && known.link.is_none());
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

    /// A peer's signal, from a verified and opened envelope.
    pub(crate) fn signalled(&mut self, now: Now, from: PeerId, source: Source, signal: Signal) {
        match signal {
            Signal::Offer { nonce, cert, candidates } => self.offered(now, from, nonce, cert, &candidates),
            Signal::Answer { nonce, offer, cert, candidates } => {
                self.answered(now, from, offer, nonce, cert, candidates);
            }
            Signal::Decline { offer } => {
                let ours = self.links.attempts.get(&from).map(|attempt| &attempt.stage);
                if matches!(ours, Some(Stage::Offered { nonce }) if *nonce == offer) {
                    self.attempt_failed(now, from, "the peer makes no direct links");
                }
            }
            // Asked over the relay, answered over the relay: that is the path being measured.
            Signal::Echo { nonce } if matches!(source, Source::Uplink { .. }) => {
                self.signal_by_relay(now, from, &Signal::EchoReply { nonce });
            }
            Signal::Echo { .. } => {}
            Signal::EchoReply { nonce } => self.echoed(now, from, nonce),
            Signal::Settled { generation, lowest } => self.conversation_settled(from, generation, lowest),
        }
    }

    fn offered(
        &mut self,
        now: Now,
        from: PeerId,
        offer: [u8; 16],
        cert: CertHash,
        candidates: &[SocketAddr],
    ) {
        let Some((own_cert, own)) = self.links.local.clone() else {
            return self.signal_by_relay(now, from, &Signal::Decline { offer });
        };
        // Of two simultaneous offers the lower key's stands.
        let stage = self.links.attempts.get(&from).map(|attempt| &attempt.stage);
        if matches!(stage, Some(Stage::Offered { .. })) && self.me.id < from {
            return;
        }
        let full = self.links.bound.len() + self.links.opened.len() >= LINKS_MAX;
        if full || self.usable(candidates).is_empty() {
            return self.signal_by_relay(now, from, &Signal::Decline { offer });
        }
        let nonce = self.entropy.bytes();
        let conn = conn_id(&offer, &nonce);
        let until = now.monotonic + HANDSHAKE_TIMEOUT;
        self.forget_attempt(from);
        self.links.attempts.insert(from, Attempt { stage: Stage::Agreed { conn, peer_cert: cert }, until });
        self.out(Output::Expect { conn, peer_cert: cert });
        self.signal_by_relay(now, from, &Signal::Answer { nonce, offer, cert: own_cert, candidates: own });
    }

    fn answered(
        &mut self,
        now: Now,
        from: PeerId,
        offer: [u8; 16],
        answer: [u8; 16],
        peer_cert: CertHash,
        candidates: Vec<SocketAddr>,
    ) {
        let Some(attempt) = self.links.attempts.get_mut(&from) else { return };
        if !matches!(attempt.stage, Stage::Offered { nonce } if nonce == offer) {
            return;
        }
        let conn = conn_id(&offer, &answer);
        attempt.stage = Stage::Agreed { conn, peer_cert };
        let candidates = self.usable(&candidates);
        if candidates.is_empty() {
            return self.attempt_failed(now, from, "the peer named no address that can be reached from here");
        }
        self.out(Output::Dial { conn, peer_cert, candidates });
    }

    /// The addresses worth dialling: nothing link-local or multicast, loopback only where the
    /// coordinator is on loopback too.
    fn usable(&self, candidates: &[SocketAddr]) -> Vec<SocketAddr> {
        let loopback = self.me.origin.is_loopback();
        let good = |address: &&SocketAddr| {
            let ip = address.ip();
            let link_local = match ip {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            let unusable = ip.is_unspecified() || ip.is_multicast() || link_local || address.port() == 0;
            !unusable && (loopback || !ip.is_loopback())
        };
        candidates.iter().filter(good).take(CANDIDATES_MAX).copied().collect()
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
        if let Some(bound) = self.links.bound.get(&link) {
            let peer = bound.peer;
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
        self.forget_link(link);
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
        self.peers.entry(peer).why_not_direct = Some(why.to_owned());
    }

    /// Lets a recipient's conversation go on past what will not come. Who cannot hear it now is told
    /// when it comes online, or when one of its receipts comes. True if it was told.
    pub(crate) fn tell_settled(&mut self, now: Now, to: PeerId) -> bool {
        let conversation = self.delivery.conversation(to);
        let (owed, lowest, open) = (conversation.owes_word(), conversation.lowest(), conversation.is_open());
        let hears = self.peers.get(&to).is_some_and(|peer| peer.online || peer.link.is_some());
        let Some(via) = self.way_to(&to).filter(|_| owed && hears) else { return false };
        self.signal(now, to, via, &Signal::Settled { generation: self.me.generation, lowest });
        // What is still under way may begin the conversation for the recipient, which then does not
        // know this word; its receipt brings the word again.
        if !open {
            self.delivery.conversation(to).told();
        }
        true
    }

    pub(crate) fn signal_by_relay(&mut self, now: Now, to: PeerId, signal: &Signal) {
        if self.uplink.is_ready() {
            self.signal(now, to, Via::Uplink, signal);
        }
    }

    /// Seals a signal and lets it go: it is worth nothing later, so no row keeps it.
    fn signal(&mut self, now: Now, to: PeerId, via: Via, signal: &Signal) {
        let content = Bytes::from(signal.encode());
        let message = Message { content_type: SIGNAL_TYPE.to_owned(), content, reply_to: None };
        let body = Body { message, place: None, prekey: self.keyring.current(now.wall).cloned() };
        let id = self.mint_id(now);
        let fp = Fingerprint(self.entropy.bytes());
        let exp = now.wall.plus(SIGNAL_LIFE);
        // Without a key to seal to there is no one to signal.
        let Ok(sealed) = self.seal_dm(now, id, to, &body, fp, Priority::Now, exp) else { return };
        let envelope = sealed.wire;
        self.out(match via {
            Via::Uplink => Output::SendUplink(ToCoordinator::Put { envelope }.encode()),
            Via::Link(link) => Output::SendLink(link, OnLink::Envelope { envelope }.encode()),
        });
    }
}

/// Life of the key a bind offers for calls and streams (protocol.md §9: at most an hour).
const EPOCH_LIFE: Duration = Duration::from_secs(60 * 60);

/// Pause after the first failed attempt; doubles from there.
const REST_FIRST: Duration = Duration::from_secs(1);

/// Longest pause between attempts, so that a changed network is noticed within a minute.
const REST_MAX: Duration = Duration::from_secs(60);
