//! STUN datagrams, told apart: a STUN server's answer, a peer's check, an answer to one of ours. What comes
//! before the attempt that it belongs to is known waits for it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::Links;
use crate::endpoint::{Endpoint, Output};
use crate::paths::Datagram;
use crate::stun::{StunKind, StunMessage};
use crate::time::{Monotonic, Now};

/// A request that came before the answer which tells its key.
#[derive(Debug)]
pub(super) struct Early {
    at: Monotonic,
    socket: u16,
    from: SocketAddr,
    datagram: Bytes,
}

impl Links {
    fn hold(&mut self, early: Early) {
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(early);
    }
}

impl Endpoint {
    /// A STUN datagram came in.
    pub(crate) fn datagram(&mut self, now: Now, socket: u16, from: SocketAddr, datagram: &Bytes) {
        let Some(message) = StunMessage::parse(datagram) else { return };
        match message.kind {
            StunKind::Request => self.checked_by(now, socket, from, &message, datagram),
            StunKind::Success => {
                if self.gathered(now, socket, from, &message) {
                    return;
                }
                let hit = self.links.attempts.iter_mut().find_map(|(peer, attempt)| {
                    let agreed = attempt.agreed_mut()?;
                    agreed.check.answer(now.monotonic, socket, from, &message).then_some(*peer)
                });
                if let Some(peer) = hit {
                    self.press_on(now, peer);
                }
            }
            // A server that wants credentials, or a stranger: neither helps.
            StunKind::Error => {}
        }
    }

    /// A request: some peer checks one of our addresses.
    fn checked_by(
        &mut self,
        now: Now,
        socket: u16,
        from: SocketAddr,
        message: &StunMessage<'_>,
        datagram: &Bytes,
    ) {
        let mut answers = Vec::new();
        for (peer, attempt) in &mut self.links.attempts {
            let Some(agreed) = attempt.agreed_mut().filter(|agreed| agreed.check.is_named(message)) else {
                continue;
            };
            if agreed.check.request(now.monotonic, socket, from, message, &mut answers) {
                let peer = *peer;
                self.send_datagrams(answers);
                self.press_on(now, peer);
            }
            return;
        }
        let offered = self.links.attempts.values().any(|attempt| attempt.agreed().is_none());
        if offered && message.username.is_some() {
            self.links.hold(Early { at: now.monotonic, socket, from, datagram: datagram.clone() });
        }
    }

    /// What came before the answer that tells its key.
    pub(super) fn hear_early(&mut self, now: Now) {
        for early in std::mem::take(&mut self.links.early) {
            if now.monotonic.since(early.at) < EARLY_LIFE {
                self.datagram(now, early.socket, early.from, &early.datagram);
            }
        }
    }

    pub(super) fn send_datagrams(&mut self, datagrams: Vec<Datagram>) {
        for Datagram { socket, to, bytes, ttl } in datagrams {
            self.out(Output::SendDatagram { socket, to, datagram: bytes, ttl });
        }
    }
}

/// Requests held until the answer that tells their key: one for each address of the peer.
pub(super) const EARLY_MAX: usize = 16;

/// A request held longer than this is repeated by its sender anyway.
const EARLY_LIFE: Duration = Duration::from_secs(2);
