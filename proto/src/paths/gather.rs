//! Gathering: what STUN servers see of socket 0. Asked when the host says where it is, and again when an
//! offer or answer is made on older knowledge; a node that makes no links asks nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::candidate::{Candidate, CandidateKind};
use super::nat::{Nat, Seen};
use super::{Datagram, Transaction};
use crate::entropy::Entropy;
use crate::limits::CANDIDATES_MAX;
use crate::stun::{StunMessage, TransactionId, binding_request};
use crate::time::Monotonic;

/// What this node knows of its own place in the network.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    hosts: Vec<SocketAddr>,
    servers: Vec<Server>,
    round: Option<Round>,
    asked: BTreeMap<TransactionId, Transaction>,
    /// A whole round ended since the addresses changed: who is silent will stay so.
    over: bool,
    /// When a server last saw this node elsewhere than before.
    moved_at: Option<Monotonic>,
    life: MappingLife,
}

/// A STUN server, and what it saw last.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) mapped: Option<SocketAddr>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) answered_at: Option<Monotonic>,
}

/// Asking everyone, until all have answered or the ladder ends.
#[derive(Debug)]
struct Round {
    began: Monotonic,
    tries: usize,
    next: Monotonic,
}

/// How long a NAT keeps an unused mapping, as far as was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingLife {
    /// The longest silence after which it was still the same.
    pub at_least: Option<Duration>,
    /// The shortest silence after which it was another.
    pub under: Option<Duration>,
}

impl Gathering {
    /// Where the host is and whom it may ask. Asks at once if that changed; true if its own addresses
    /// are others.
    pub(crate) fn place(&mut self, now: Monotonic, hosts: Vec<SocketAddr>, stun: &[SocketAddr]) -> bool {
        let mut stun: Vec<SocketAddr> = stun.iter().take(STUN_SERVERS_MAX).copied().collect();
        stun.dedup();
        let moved = self.hosts != hosts;
        let others = !stun.iter().eq(self.servers.iter().map(|server| &server.addr));
        if moved || others {
            self.hosts = hosts;
            let known = std::mem::take(&mut self.servers);
            let kept = |addr: &SocketAddr| known.iter().find(|server| server.addr == *addr && !moved);
            let servers = stun.iter().map(|addr| match kept(addr) {
                Some(server) => server.clone(),
                None => Server { addr: *addr, mapped: None, rtt: None, answered_at: None },
            });
            self.servers = servers.collect();
            self.begin(now);
        }
        moved
    }

    /// Asks again if what is known may have lapsed.
    pub(crate) fn refresh(&mut self, now: Monotonic) {
        let keep = self.life.upkeep();
        let fresh = |server: &Server| server.answered_at.is_some_and(|at| now.since(at) < keep);
        if self.round.is_none() && !self.servers.iter().any(fresh) {
            self.begin(now);
        }
    }

    /// Asks again unless that was done or answered since then: a link has been silent as long. An older
    /// round that waits for those who never answer is no reason not to.
    pub(crate) fn doubt(&mut self, now: Monotonic, since: Monotonic) {
        let asked = self.round.as_ref().is_some_and(|round| round.began > since);
        if !asked && !self.servers.iter().any(|server| server.answered_at > Some(since)) {
            self.begin(now);
        }
    }

    /// Whether a server saw this node in another place since then.
    pub(crate) fn moved_since(&self, since: Monotonic) -> bool {
        self.moved_at > Some(since)
    }

    /// Asks again whatever is known: the machine slept.
    pub(crate) fn begin(&mut self, now: Monotonic) {
        self.over = self.servers.is_empty();
        self.asked.clear();
        let round = Round { began: now, tries: 0, next: now };
        self.round = (!self.servers.is_empty()).then_some(round);
    }

    /// Asks what is due; ends the round when the ladder has.
    pub(crate) fn poll(&mut self, now: Monotonic, entropy: &mut Entropy, out: &mut Vec<Datagram>) {
        let Some(round) = self.round.as_mut().filter(|round| round.next <= now) else { return };
        let began = round.began;
        let Some(pause) = LADDER.get(round.tries) else {
            for server in &mut self.servers {
                server.mapped = server.mapped.filter(|_| server.answered_at >= Some(began));
            }
            return self.end();
        };
        round.tries += 1;
        round.next = now + *pause;
        for server in self.servers.iter().filter(|server| server.answered_at < Some(began)) {
            let id = entropy.bytes();
            self.asked.insert(id, Transaction { socket: 0, to: server.addr, sent: now });
            out.push(Datagram { socket: 0, to: server.addr, bytes: binding_request(&id), ttl: None });
        }
    }

    /// A server's answer. None if it is not one; else whether the outside address it tells is news.
    /// `quiet_since` is when the socket was last used for anything else.
    pub(crate) fn answered(
        &mut self,
        now: Monotonic,
        from: SocketAddr,
        message: &StunMessage<'_>,
        quiet_since: Monotonic,
    ) -> Option<bool> {
        let asked = self.asked.get(&message.transaction).filter(|asked| asked.to == from)?;
        let (sent, mapped) = (asked.sent, message.mapped?);
        let began = self.round.as_ref().map(|round| round.began);
        let server = self.servers.iter_mut().find(|server| server.addr == from)?;
        if let (Some(was), Some(at)) = (server.mapped, server.answered_at)
            && began > Some(at)
        {
            self.life.learn(sent.since(at.max(quiet_since)), was == mapped);
        }
        let news = server.mapped != Some(mapped);
        if news && server.mapped.is_some() {
            self.moved_at = Some(now);
        }
        server.mapped = Some(mapped);
        server.rtt = Some(now.since(sent));
        server.answered_at = Some(now);
        self.asked.retain(|_, asked| asked.to != from);
        if self.servers.iter().all(|server| server.answered_at >= began) {
            self.end();
        }
        Some(news)
    }

    fn end(&mut self) {
        self.round = None;
        self.asked.clear();
        self.over = true;
    }

    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        self.round.as_ref().map(|round| round.next)
    }

    /// Where a peer may find this node: outside addresses first, then its own in the host's order,
    /// which ends with container bridges.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let mapped = self.servers.iter().filter_map(|server| server.mapped);
        let mapped = mapped.filter(|addr| !self.hosts.contains(addr)).take(REFLEXIVE_MAX);
        let reflexive = mapped.map(|addr| Candidate { kind: CandidateKind::Reflexive, addr });
        let hosts = self.hosts.iter().map(|addr| Candidate { kind: CandidateKind::Host, addr: *addr });
        let mut all: Vec<Candidate> = Vec::new();
        for candidate in reflexive.chain(hosts) {
            if all.len() < CANDIDATES_MAX && !all.iter().any(|known| known.addr == candidate.addr) {
                all.push(candidate);
            }
        }
        all
    }

    /// What stands between this node and the servers.
    pub(crate) fn nat(&self) -> Nat {
        let seen = self.servers.iter().filter_map(|server| {
            let mapped = server.mapped?;
            Some(Seen { server: server.addr, mapped })
        });
        let over = self.over && !self.servers.is_empty();
        Nat::infer(&self.hosts, &seen.collect::<Vec<_>>(), over)
    }

    /// The round trip to the nearest server.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.servers.iter().filter_map(|server| server.rtt).min()
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(crate) fn life(&self) -> MappingLife {
        self.life
    }
}

impl MappingLife {
    fn learn(&mut self, silence: Duration, same: bool) {
        if same {
            self.at_least = self.at_least.max(Some(silence));
        } else if silence >= LIFE_MIN {
            self.under = Some(self.under.map_or(silence, |under| under.min(silence)));
        }
    }

    /// After this much silence a mapping is not taken for granted.
    fn upkeep(&self) -> Duration {
        self.under.map_or(UPKEEP, |under| UPKEEP.min(under * 4 / 5))
    }
}

/// Servers asked. Two ports of two addresses tell everything there is to tell.
const STUN_SERVERS_MAX: usize = 8;

/// Outside addresses announced; a NAT that gives every server another one gains nothing by more.
const REFLEXIVE_MAX: usize = 4;

/// Between questions to who has not answered; UDP is taken to be blocked after 3.1 s.
const LADDER: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];

/// A NAT that gives another mapping sooner did not forget an unused one; it began anew.
const LIFE_MIN: Duration = Duration::from_secs(10);

/// The shortest life of a UDP mapping seen in the field is 30 s; a quarter of an hour in others.
const UPKEEP: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests;
