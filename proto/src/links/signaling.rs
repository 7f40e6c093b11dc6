//! Signals (protocol.md §9 and §14): what two nodes say to each other beside their messages, sealed like
//! any dm and kept by nobody. Offers and answers lead to a direct link; `Settled` keeps a conversation
//! from waiting for what will not come.

use bytes::Bytes;

use crate::body::{Body, Message, SIGNAL_TYPE};
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Output};
use crate::envelope::Priority;
use crate::id::{Fingerprint, PeerId};
use crate::limits::SIGNAL_LIFE;
use crate::receipts::Source;
use crate::signal::Signal;
use crate::time::Now;
use crate::wire::{OnLink, ToCoordinator};

impl Endpoint {
    /// A peer's signal, from a verified and opened envelope.
    pub(crate) fn signalled(&mut self, now: Now, from: PeerId, source: Source, signal: Signal) {
        match signal {
            Signal::Offer { nonce, means, reach } => self.offered(now, from, nonce, &means, &reach),
            Signal::Answer { nonce, offer, means, reach } => {
                self.answered(now, from, offer, nonce, &means, &reach);
            }
            Signal::Decline { offer } => self.declined(now, from, offer),
            Signal::Candidates { nonce, reach } => self.peer_reach(now, from, nonce, &reach),
            // Asked over the relay, answered over the relay: that is the path being measured.
            Signal::Echo { nonce } if matches!(source, Source::Uplink { .. }) => {
                self.signal_by_relay(now, from, &Signal::EchoReply { nonce });
            }
            Signal::Echo { .. } => {}
            Signal::EchoReply { nonce } => self.echoed(now, from, nonce),
            Signal::Settled { generation, lowest } => self.conversation_settled(from, generation, lowest),
        }
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
