//! Round trips to a peer: over the coordinator by a sealed echo, on the direct link by a ping frame.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::endpoint::{Endpoint, LinkId, Output, PathKind, PingSample, Refusal, Reply, Token};
use crate::id::PeerId;
use crate::signal::Signal;
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::OnLink;

/// Measurements under way, and the last ones.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    runs: BTreeMap<Token, Run>,
    relay: BTreeMap<PeerId, (u64, UnixMs)>,
}

#[derive(Debug)]
struct Run {
    peer: PeerId,
    nonce: [u8; 16],
    link: Option<(LinkId, u64)>,
    sent: Monotonic,
    relay: Option<Option<u64>>,
    direct: Option<Option<u64>>,
}

impl Run {
    fn samples(&self) -> Vec<PingSample> {
        let sample = |path, rtt: Option<Option<u64>>| rtt.map(|rtt_us| PingSample { path, rtt_us });
        [sample(PathKind::Relay, self.relay), sample(PathKind::Direct, self.direct)]
            .into_iter()
            .flatten()
            .collect()
    }

    fn is_over(&self) -> bool {
        self.relay != Some(None) && self.direct != Some(None)
    }
}

impl Pings {
    /// The last round trip over the coordinator, microseconds, and when it was measured.
    pub(crate) fn last_relay(&self, peer: &PeerId) -> Option<(u64, UnixMs)> {
        self.relay.get(peer).copied()
    }

    /// When the oldest measurement is given up.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        self.runs.values().map(|run| run.sent + PING_TIMEOUT).min()
    }
}

impl Endpoint {
    /// Measures both ways there are.
    pub(crate) fn ping(&mut self, now: Now, token: Token, peer: PeerId) {
        if self.roster.member(&peer).is_none() || self.is_revoked(&peer) {
            return self.refuse(token, Refusal::UnknownPeer(peer));
        }
        if peer == self.me.id {
            return self.refuse(token, Refusal::ToSelf);
        }
        let nonce: [u8; 16] = self.entropy.bytes();
        let over_relay = self.uplink.is_ready() && self.peers.is_online(&peer);
        if over_relay {
            self.signal_by_relay(now, peer, &Signal::Echo { nonce });
        }
        let link = self.peers.get(&peer).and_then(|peer| peer.link).map(|link| {
            let mut short = [0; 8];
            short.copy_from_slice(&nonce[..8]);
            (link, u64::from_be_bytes(short) >> 1)
        });
        if let Some((link, nonce)) = link {
            self.out(Output::SendLink(link, OnLink::Ping { nonce }.encode()));
        }
        self.connect_soon(now, peer);
        let run = Run {
            peer,
            nonce,
            link,
            sent: now.monotonic,
            relay: over_relay.then_some(None),
            direct: link.map(|_| None),
        };
        if run.is_over() {
            return self.reply(token, Reply::Pong(Vec::new()));
        }
        self.pings.runs.insert(token, run);
    }

    pub(crate) fn echoed(&mut self, now: Now, from: PeerId, nonce: [u8; 16]) {
        let run = self.pings.runs.iter_mut().find(|(_, run)| run.peer == from && run.nonce == nonce);
        let Some((token, run)) = run else { return };
        let (token, rtt_us) = (*token, micros(now.monotonic.since(run.sent)));
        run.relay = Some(Some(rtt_us));
        self.pings.relay.insert(from, (rtt_us, now.wall));
        self.finish_ping(token);
    }

    pub(crate) fn link_ponged(&mut self, now: Now, link: LinkId, nonce: u64) {
        let run = self.pings.runs.iter_mut().find(|(_, run)| run.link == Some((link, nonce)));
        let Some((token, run)) = run else { return };
        let (token, rtt_us) = (*token, micros(now.monotonic.since(run.sent)));
        run.direct = Some(Some(rtt_us));
        self.links.measured(link, rtt_us);
        self.finish_ping(token);
    }

    fn finish_ping(&mut self, token: Token) {
        if self.pings.runs.get(&token).is_some_and(Run::is_over)
            && let Some(run) = self.pings.runs.remove(&token)
        {
            self.reply(token, Reply::Pong(run.samples()));
        }
    }

    pub(crate) fn pings_timeout(&mut self, now: Now) {
        let before = now.monotonic - PING_TIMEOUT;
        let over: Vec<Token> =
            self.pings.runs.iter().filter(|(_, run)| run.sent <= before).map(|(token, _)| *token).collect();
        for token in over {
            if let Some(run) = self.pings.runs.remove(&token) {
                self.reply(token, Reply::Pong(run.samples()));
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A round trip that takes longer is reported as lost.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
