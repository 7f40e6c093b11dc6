//! The same attempt over WebRTC. Where both sides make QUIC it is held back a little, for QUIC is the
//! better link, and goes to addresses that answered: on the same socket ICE finds no others. Where one
//! side makes nothing else, a browser or another stack, it is all there is, and any address that the
//! peer named is ICE's to try.

use std::net::SocketAddr;
use std::time::Duration;

use super::attempt::{Agreed, Attempt};
use crate::endpoint::{Endpoint, Output, WebRtcAct, WebRtcPeer};
use crate::id::{ConnId, PeerId};
use crate::paths::{Candidate, Check};
use crate::signal::WebRtcMeans;
use crate::time::{Monotonic, Now};

/// An attempt's other way.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) conn: ConnId,
    pub(super) theirs: WebRtcMeans,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer dials.
    Expected,
    /// This side dials any address.
    Due,
    /// This side dials addresses that answered, from then on and unless there is a link.
    Held(Monotonic),
    Dialled,
}

impl Second {
    /// The acceptor's.
    pub(super) fn expected(conn: ConnId, theirs: WebRtcMeans) -> Self {
        Self { conn, theirs, stage: Stage::Expected }
    }

    /// The dialler's, where it is all there is.
    pub(super) fn due(conn: ConnId, theirs: WebRtcMeans) -> Self {
        Self { conn, theirs, stage: Stage::Due }
    }

    /// The dialler's, beside QUIC.
    pub(super) fn held(now: Monotonic, conn: ConnId, theirs: WebRtcMeans) -> Self {
        Self { conn, theirs, stage: Stage::Held(now + QUIC_HEAD_START) }
    }

    /// Whether it may still come about when nothing answered the checks.
    pub(super) fn needs_no_checks(&self) -> bool {
        match self.stage {
            Stage::Expected | Stage::Due | Stage::Dialled => true,
            Stage::Held(_) => false,
        }
    }

    /// Where it is to be dialled by now.
    fn dials(&self, now: Monotonic, check: &Check) -> Vec<SocketAddr> {
        match self.stage {
            Stage::Due => check.addresses(),
            Stage::Held(until) if until <= now => check.worthy_addresses(),
            Stage::Held(_) | Stage::Expected | Stage::Dialled => Vec::new(),
        }
    }

    pub(super) fn peer(&self, candidates: Vec<SocketAddr>) -> WebRtcPeer {
        WebRtcPeer { conn: self.conn, peer_cert: self.theirs.cert, ice: self.theirs.ice.clone(), candidates }
    }
}

impl Agreed {
    /// QUIC will not do it: WebRTC is due, or out of the question where nothing answered.
    pub(super) fn hurry(&mut self, now: Monotonic) {
        let answered = !self.check.worthy_addresses().is_empty();
        if let Some(Second { stage: stage @ Stage::Held(_), .. }) = &mut self.webrtc {
            *stage = Stage::Held(now);
            self.webrtc.take_if(|_| !answered);
        }
    }

    /// When WebRTC is dialled. What waits for an answer has no time.
    pub(super) fn webrtc_at(&self) -> Option<Monotonic> {
        match self.webrtc.as_ref()?.stage {
            Stage::Held(until) => (!self.check.worthy_addresses().is_empty()).then_some(until),
            Stage::Expected | Stage::Due | Stage::Dialled => None,
        }
    }
}

impl Endpoint {
    /// Lets the peer in over WebRTC. One with ICE of its own is asked as it asks.
    pub(super) fn expect_webrtc(&mut self, second: &Second, candidates: &[Candidate]) {
        let asked = candidates.iter().filter(|_| second.theirs.ice.is_some());
        let peer = second.peer(asked.map(|candidate| candidate.addr).collect());
        self.out(Output::WebRtc(WebRtcAct::Expect(peer)));
    }

    /// Dials over WebRTC when it is time.
    pub(super) fn press_on_webrtc(&mut self, now: Now, peer: PeerId) {
        let Some(agreed) = self.links.attempts.get_mut(&peer).and_then(Attempt::agreed_mut) else { return };
        let Some(second) = &mut agreed.webrtc else { return };
        let candidates = second.dials(now.monotonic, &agreed.check);
        if !candidates.is_empty() {
            second.stage = Stage::Dialled;
            let act = WebRtcAct::Dial(second.peer(candidates));
            self.links.prolong(&peer, now.monotonic);
            self.out(Output::WebRtc(act));
        }
    }

    /// The peer can be found at further addresses.
    pub(super) fn learn_webrtc(&mut self, peer: &PeerId, candidates: &[Candidate]) {
        let agreed = self.links.attempts.get(peer).and_then(Attempt::agreed);
        let Some(second) = agreed.and_then(|agreed| agreed.webrtc.as_ref()) else { return };
        let candidates: Vec<SocketAddr> = candidates.iter().map(|candidate| candidate.addr).collect();
        if matches!(second.stage, Stage::Expected | Stage::Dialled) && !candidates.is_empty() {
            self.out(Output::WebRtc(WebRtcAct::Learn { conn: second.conn, candidates }));
        }
    }
}

/// How much sooner QUIC is dialled: a path that works for both is proven and shaken within three round
/// trips, of which few are longer than this third.
const QUIC_HEAD_START: Duration = Duration::from_secs(1);
