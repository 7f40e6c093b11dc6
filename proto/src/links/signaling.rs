//! Signals (protocol.md §9 and §14): what two nodes say to each other beside their messages, sealed like
//! any dm and kept by nobody. Offers and answers lead to a direct link; `Settled` keeps a conversation
//! from waiting for what will not come.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{Attempt, Stage};
use crate::body::{Body, Message, SIGNAL_TYPE};
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Output};
use crate::envelope::Priority;
use crate::id::{CertHash, Fingerprint, PeerId};
use crate::limits::{CANDIDATES_MAX, HANDSHAKE_TIMEOUT, LINKS_MAX, SIGNAL_LIFE};
use crate::receipts::Source;
use crate::signal::{Signal, conn_id};
use crate::time::Now;
use crate::wire::{OnLink, ToCoordinator};

impl Endpoint {
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

    /// Lets a recipient's conversation go on past what will not come. Who cannot hear it now is told
    /// when it comes online, or when one of its receipts comes. True if it was told.
    pub(crate) fn tell_settled(&mut self, now: Now, to: PeerId) -> bool {
        let Some(conversation) = self.delivery.begun(&to) else { return false };
        let (owed, lowest, open) = (conversation.owes_word(), conversation.lowest(), conversation.is_open());
        let linked = self.peers.get(&to).is_some_and(|peer| peer.link.is_some());
        let hears = linked || self.peers.is_online(&to);
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
        self.links.remember_signal(sealed.env_hash, to, sealed.kid);
        let envelope = sealed.wire;
        self.out(match via {
            Via::Uplink => Output::SendUplink(ToCoordinator::Put { envelope }.encode()),
            Via::Link(link) => Output::SendLink(link, OnLink::Envelope { envelope }.encode()),
        });
    }
}
