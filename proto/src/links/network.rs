//! This node's own place: what the host and the STUN servers say of it, and what a change of it means.

use std::net::SocketAddr;

use super::Bound;
use crate::endpoint::Endpoint;
use crate::id::PeerId;
use crate::limits::CANDIDATES_MAX;
use crate::paths::NetworkView;
use crate::signal::Means;
use crate::stun::StunMessage;
use crate::time::{Monotonic, Now};

impl Endpoint {
    /// The host can make direct links, by these means and from these addresses.
    pub(crate) fn direct_ready(
        &mut self,
        now: Now,
        means: Means,
        mut candidates: Vec<SocketAddr>,
        stun: &[SocketAddr],
    ) {
        candidates.truncate(CANDIDATES_MAX);
        let first = self.links.local.replace(means).is_none();
        let moved = self.links.gathering.place(now.monotonic, candidates, stun);
        if moved && !first {
            self.network_changed(now);
        }
        self.gather(now);
    }

    /// The machine slept: whatever was known of the network may be history.
    pub(crate) fn woke(&mut self, now: Now) {
        self.links.gathering.begin(now.monotonic);
        self.network_changed(now);
        self.gather(now);
    }

    /// What failed may succeed here, and what is under way starts over.
    fn network_changed(&mut self, now: Now) {
        self.links.rests.clear();
        self.doubt_links(now);
        self.doubt_uplink(now);
        self.tell_reach(now);
        self.links.check_again(now.monotonic);
        let peers: Vec<_> = self.links.attempts.keys().copied().collect();
        for peer in peers {
            self.press_on(now, peer);
        }
        self.look_for_better(now);
    }

    /// What an offer to a peer or an answer told may have lapsed; the news, if it has, follows it.
    pub(super) fn gather_again(&mut self, now: Now, peer: PeerId) {
        // That there is an attempt beside a link says that one of the two lost trust in it.
        let link = self.peers.get(&peer).and_then(|peer| peer.link).and_then(|link| self.links.bound(link));
        match link.map(Bound::heard_at) {
            Some(heard_at) => self.links.gathering.doubt(now.monotonic, heard_at),
            None => self.links.gathering.refresh(now.monotonic),
        }
        self.gather(now);
    }

    /// A link or a peer has not been heard since then: this node may not be where it said. The news, if
    /// there is any, follows the offer or answer.
    pub(super) fn doubt_reach(&mut self, now: Now, since: Monotonic) {
        self.links.gathering.doubt(now.monotonic, since);
        self.gather(now);
    }

    /// Asks the STUN servers what is due.
    pub(super) fn gather(&mut self, now: Now) {
        let mut questions = Vec::new();
        self.links.gathering.poll(now.monotonic, &mut self.entropy, &mut questions);
        self.send_datagrams(questions);
    }

    /// A STUN server's answer. False if it is not one.
    pub(super) fn gathered(
        &mut self,
        now: Now,
        socket: u16,
        from: SocketAddr,
        message: &StunMessage<'_>,
    ) -> bool {
        if socket != 0 {
            return false;
        }
        let quiet_since = self.links.quiet_since(now.monotonic);
        let answered = self.links.gathering.answered(now.monotonic, from, message, quiet_since);
        if answered == Some(true) {
            self.tell_reach(now);
            self.leave_silent(now);
        }
        answered.is_some()
    }

    /// This node's own place in the network.
    pub fn network_view(&self) -> NetworkView {
        NetworkView::of(&self.links.gathering)
    }
}
