//! When a birthday punch is tried: both sides consented, one NAT alone is hard, and nothing else got
//! through in time. Whoever took part in one with a peer consents to no other for a minute.

use super::Links;
use super::attempt::Attempt;
use crate::endpoint::{Endpoint, Output};
use crate::id::{ConnId, PeerId};
use crate::paths::{BIRTHDAYS_APART, Birthday, CandidateKind, Mapping, Nat, Tier};
use crate::time::{Monotonic, Now};

impl Links {
    /// Whether this side would take part in one with `peer`.
    pub(super) fn consents(&self, peer: &PeerId, now: Monotonic) -> bool {
        self.birthdays.get(peer).is_none_or(|last| now.since(*last) >= BIRTHDAYS_APART)
    }
}

/// Whether a birthday punch can help, and these two know it.
pub(super) fn can_help(here: Nat, there: Nat) -> bool {
    let known = |nat: Nat| !matches!(nat.mapping, Mapping::Unknown | Mapping::Blocked);
    known(here) && known(there) && here.is_hard() != there.is_hard()
}

impl Endpoint {
    /// Begins one where it is due.
    pub(super) fn try_birthday(&mut self, now: Now, peer: PeerId) {
        // One at a time: they share the node's pace.
        let busy = self.links.attempts.values().any(|attempt| attempt.celebrates(now.monotonic));
        let here = self.links.gathering.nat();
        let Some(agreed) = self.links.attempts.get_mut(&peer).and_then(Attempt::agreed_mut) else { return };
        if !agreed.check.is_birthday_due(now.monotonic) || busy {
            return;
        }
        let outside = agreed.check.pairs().iter().filter(|pair| {
            let public = pair.kind != CandidateKind::Host || Tier::of(pair.remote) != Tier::Lan;
            public && pair.kind != CandidateKind::PeerReflexive && pair.remote.is_ipv4()
        });
        let outside: Vec<_> = outside.map(|pair| pair.remote).collect();
        let Some(last) = outside.last() else { return };
        let birthday = if here.is_hard() {
            Birthday::hard(now.monotonic, &outside)
        } else {
            Birthday::easy(now.monotonic, *last, agreed.peer_nat)
        };
        agreed.check.celebrate(birthday);
        self.links.birthdays.retain(|_, last| now.monotonic.since(*last) < BIRTHDAYS_APART);
        self.links.birthdays.insert(peer, now.monotonic);
    }

    /// Asks the host for the sockets that one needs.
    pub(super) fn open_sockets(&mut self, peer: PeerId) {
        let Some(agreed) = self.links.attempts.get_mut(&peer).and_then(Attempt::agreed_mut) else { return };
        let conn = agreed.conn;
        if let Some(count) = agreed.check.birthday().and_then(Birthday::wants) {
            self.out(Output::OpenSockets { conn, count });
        }
    }

    /// The host opened them, perhaps too late.
    pub(crate) fn sockets_opened(&mut self, now: Now, conn: ConnId, sockets: Vec<u16>) {
        let peer = self.links.attempt_of(&conn);
        let attempt = peer.and_then(|peer| self.links.attempts.get_mut(&peer));
        let birthday = attempt.and_then(Attempt::agreed_mut).and_then(|agreed| agreed.check.birthday());
        let Some((peer, birthday)) = peer.zip(birthday) else {
            return self.close_sockets(sockets);
        };
        birthday.opened(now.monotonic, &sockets);
        self.press_on(now, peer);
    }

    pub(super) fn close_sockets(&mut self, sockets: Vec<u16>) {
        if !sockets.is_empty() {
            self.out(Output::CloseSockets(sockets));
        }
    }
}
