//! Routing: the best path there is carries the bytes that wait. A row is on one path; a copy goes to
//! the relay only when a direct link is suspected (protocol.md §14).

use crate::delivery::{Next, Via};
use crate::endpoint::{Endpoint, Output, PathKind, Row};
use crate::id::PeerId;
use crate::paths::PathPolicy;
use crate::time::Now;
use crate::wire::{OnLink, ToCoordinator};

impl Endpoint {
    /// Transmits what may be transmitted, the most urgent recipient first.
    pub(crate) fn route(&mut self, now: Now) {
        // What is sent under a wrong clock is refused; it waits until the clock is right.
        if self.uplink.clock_jumped(now) {
            return;
        }
        self.links.forget_awaited();
        self.suspect_silent(now);
        self.copy_late(now);
        for peer in self.delivery.waiting() {
            self.route_to(now, peer);
        }
    }

    /// The path that would carry an envelope to `peer` now: direct if one is proven and answers, else
    /// the relay. What the policy says of messages is not asked: signals and receipts may take it.
    pub(crate) fn way_to(&self, peer: &PeerId) -> Option<Via> {
        match self.peers.get(peer).and_then(|peer| peer.link) {
            Some(link) if self.links.is_suspect(link) && self.uplink.is_ready() => Some(Via::Uplink),
            Some(link) => Some(Via::Link(link)),
            None if self.uplink.is_ready() => Some(Via::Uplink),
            None => None,
        }
    }

    fn route_to(&mut self, now: Now, peer: PeerId) {
        let Some(via) = self.way_to(&peer) else { return };
        if via == Via::Uplink && !self.may_relay(&peer) {
            return self.await_direct(now, peer);
        }
        let paused = self.peers.get(&peer).and_then(|peer| peer.paused_until);
        let paused = paused.is_some_and(|until| until > now.monotonic);
        if paused || (via == Via::Uplink && self.relay_paused(now, &peer)) {
            return;
        }
        let path = match via {
            Via::Link(_) => PathKind::Direct,
            Via::Uplink if self.peers.is_online(&peer) => PathKind::Relay,
            Via::Uplink => PathKind::Queue,
        };
        let misdated = self.delivery.misdated(&peer, now.wall);
        if !misdated.is_empty() {
            if !self.delivery.waits_for_store() {
                self.out(Output::Load(misdated.clone()));
                self.sealing_again(misdated);
            }
            return;
        }
        loop {
            match self.delivery.next(&peer, via) {
                Next::Transmit(row, envelope) => {
                    self.delivery.transmitted(row, via, path, now.monotonic);
                    self.out(match via {
                        Via::Link(link) => Output::SendLink(link, OnLink::Envelope { envelope }.encode()),
                        Via::Uplink => Output::SendUplink(ToCoordinator::Put { envelope }.encode()),
                    });
                    if let Via::Link(link) = via {
                        self.links.used(link, now.monotonic);
                    }
                }
                Next::Load => {
                    let rows = self.delivery.cold(&peer);
                    return self.out(Output::Load(rows));
                }
                Next::Nothing => return,
            }
        }
    }

    /// Copies rows to the relay that a direct link's peer, though it speaks, has not answered.
    fn copy_late(&mut self, now: Now) {
        if self.uplink.is_ready() {
            for (to, envelope) in self.delivery.late(now.monotonic) {
                if !self.may_relay(&to) {
                    continue;
                }
                self.out(Output::SendUplink(ToCoordinator::Put { envelope }.encode()));
            }
        }
    }

    /// Which ways messages to a peer may take.
    pub(crate) fn path_policy(&self, peer: &PeerId) -> PathPolicy {
        let member = self.roster.member(peer);
        member.map_or(self.policies.everyone, |member| self.policies.of(&member.handle))
    }

    /// Whether the coordinator may carry messages to a peer.
    pub(crate) fn may_relay(&self, peer: &PeerId) -> bool {
        self.path_policy(peer) != PathPolicy::DirectOnly
    }

    fn relay_paused(&self, now: Now, peer: &PeerId) -> bool {
        let until = self.peers.get(peer).and_then(|peer| peer.relay_paused_until);
        until.is_some_and(|until| until > now.monotonic) || self.uplink.is_paused(now.monotonic)
    }

    /// These rows are to be sealed again once the store has given their content back.
    pub(crate) fn sealing_again(&mut self, rows: Vec<Row>) {
        self.reseals.extend(rows);
    }

    /// Whether `row` waits to be sealed again; asked once.
    pub(crate) fn is_sealing_again(&mut self, row: Row) -> bool {
        self.reseals.remove(&row)
    }
}
