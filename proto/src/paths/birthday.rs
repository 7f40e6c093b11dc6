//! Birthday punching: one side's NAT gives every destination another port, the other's lets in only what
//! it sent to. The hard side asks the easy side's outside address from many sockets; the easy side asks
//! the hard side's ports one by one, in an order nobody foresees; the first to hit a mapped port is
//! through. With 256 sockets among 64,512 ports every second try of 180 probes hits.
//!
//! Both sides must have consented in offer and answer. Bounded in rate, number and repetition.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::nat::{Nat, Ports};
use crate::entropy::Entropy;
use crate::time::Monotonic;

/// One birthday punch, as one side takes part in it.
#[derive(Debug)]
pub(crate) struct Birthday {
    side: Side,
    next: Monotonic,
    ends: Monotonic,
}

#[derive(Debug)]
enum Side {
    Hard { wants: Option<u16>, sockets: Vec<u16>, primed: usize, targets: Vec<SocketAddr>, rounds: usize },
    Easy { host: IpAddr, ports: Vec<u16>, sent: usize },
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) socket: u16,
    pub(crate) to: SocketAddr,
    pub(crate) ttl: Option<u8>,
}

impl Birthday {
    /// The side whose NAT is the hard one, towards the easy side's outside addresses.
    pub(crate) fn hard(now: Monotonic, targets: &[SocketAddr]) -> Self {
        let targets = targets.iter().take(TARGETS_MAX).copied().collect();
        let wants = Some(SOCKETS_FIRST);
        let side = Side::Hard { wants, sockets: Vec::new(), primed: 0, targets, rounds: 0 };
        Self { side, next: now, ends: now + LASTS }
    }

    /// The side whose port stays, towards the hard side's outside address and what is known of its
    /// ports.
    pub(crate) fn easy(now: Monotonic, outside: SocketAddr, nat: Nat) -> Self {
        let side = Side::Easy { host: outside.ip(), ports: ports(outside.port(), nat.ports), sent: 0 };
        Self { side, next: now, ends: now + LASTS }
    }

    /// Sockets to open, asked once.
    pub(crate) fn wants(&mut self) -> Option<u16> {
        match &mut self.side {
            Side::Hard { wants, .. } => wants.take(),
            Side::Easy { .. } => None,
        }
    }

    /// The host opened them.
    pub(crate) fn opened(&mut self, now: Monotonic, opened: &[u16]) {
        if let Side::Hard { sockets, .. } = &mut self.side {
            sockets.extend(opened.iter().take(usize::from(SOCKETS_MAX).saturating_sub(sockets.len())));
            if self.next < self.ends {
                self.next = now;
            }
        }
    }

    /// The sockets opened for it, which it gives up.
    pub(crate) fn take_sockets(&mut self) -> Vec<u16> {
        match &mut self.side {
            Side::Hard { sockets, .. } => std::mem::take(sockets),
            Side::Easy { .. } => Vec::new(),
        }
    }

    /// What is due.
    pub(crate) fn poll(&mut self, now: Monotonic, entropy: &mut Entropy) -> Vec<Probe> {
        if self.next > now || self.ends <= now {
            return Vec::new();
        }
        match &mut self.side {
            Side::Hard { wants, sockets, primed, targets, rounds } => {
                // A socket's first packet opens this side's NAT and dies before it reaches the other.
                let probe = |(place, socket): (usize, &u16)| {
                    let (socket, ttl) = (*socket, (place >= *primed).then_some(PRIMER_TTL));
                    targets.iter().map(move |to| Probe { socket, to: *to, ttl })
                };
                let probes = sockets.iter().enumerate().flat_map(probe).collect();
                *primed = sockets.len();
                *rounds += usize::from(!sockets.is_empty());
                if *rounds == ROUNDS_OF_FIRST && sockets.len() <= usize::from(SOCKETS_FIRST) {
                    *wants = Some(SOCKETS_MAX - SOCKETS_FIRST);
                }
                let few = sockets.len() <= usize::from(SOCKETS_FIRST);
                self.next = now + if few { FEW_EVERY } else { ALL_EVERY };
                probes
            }
            Side::Easy { host, ports, sent } => {
                let mut probes = Vec::new();
                while probes.len() < BURST && *sent < PROBES_MAX && !ports.is_empty() {
                    let at = entropy.below(ports.len() as u64);
                    let port = ports.swap_remove(usize::try_from(at).unwrap_or(0));
                    probes.push(Probe { socket: 0, to: SocketAddr::new(*host, port), ttl: None });
                    *sent += 1;
                }
                self.next = now + BURST_EVERY;
                probes
            }
        }
    }

    /// When something is due; none when it is over.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        (self.next < self.ends).then_some(self.next)
    }

    /// Something got through: no more guesses.
    pub(crate) fn stop(&mut self) {
        self.next = self.ends;
    }

    /// When it is given up.
    pub(crate) fn ends(&self) -> Monotonic {
        self.ends
    }
}

/// Where the hard side's next mappings may lie.
fn ports(last: u16, known: Ports) -> Vec<u16> {
    let span = |first: u16, last: u16| (first.max(PORT_FIRST)..=last).collect();
    match known {
        Ports::Sequential { step } => {
            let reach = SOCKETS_MAX.saturating_mul(step.max(1)).saturating_mul(2);
            span(last.saturating_add(1), last.saturating_add(reach))
        }
        Ports::Block { first, last } => {
            span(first.saturating_sub(BLOCK_MARGIN), last.saturating_add(BLOCK_MARGIN))
        }
        Ports::Unknown | Ports::Preserving | Ports::Random => span(PORT_FIRST, u16::MAX),
    }
}

/// How long after its checks began an attempt tries this that heard nothing: an answer that has a round
/// trip like that to the nearest STUN server has come twice by then.
pub(crate) fn birthday_after(server_rtt: Option<Duration>) -> Duration {
    server_rtt.map_or(BIRTHDAY_AFTER_MAX, |rtt| (rtt * 2 + BIRTHDAY_AFTER_MIN).min(BIRTHDAY_AFTER_MAX))
}

/// Machines answer within this on any path; one begun in vain costs some hundred packets.
const BIRTHDAY_AFTER_MIN: Duration = Duration::from_millis(30);
const BIRTHDAY_AFTER_MAX: Duration = Duration::from_millis(300);

/// Between two with one peer: what one failed to do the next will not, and a firewall may take it for
/// a scan.
pub(crate) const BIRTHDAYS_APART: Duration = Duration::from_secs(60);

/// Both sides stop after this.
const LASTS: Duration = Duration::from_millis(2_500);

/// Sockets of the first rounds, and of all: 256 mappings fit the smallest carrier's port block.
const SOCKETS_FIRST: u16 = 64;
const SOCKETS_MAX: u16 = 256;

/// Rounds with the first sockets alone.
const ROUNDS_OF_FIRST: usize = 2;

/// Between rounds of the hard side: 64 sockets with two targets send 1,280 packets a second, 256 send
/// 2,560. A third of the punches need no more than the first sockets.
const FEW_EVERY: Duration = Duration::from_millis(100);
const ALL_EVERY: Duration = Duration::from_millis(200);

/// Outside addresses of the easy side; one unless it has several uplinks.
const TARGETS_MAX: usize = 2;

/// Hops that lead out of most homes and carriers, and not into another.
const PRIMER_TTL: u8 = 5;

/// The easy side's pace, 4,000 probes a second.
const BURST: usize = 40;
const BURST_EVERY: Duration = Duration::from_millis(10);

/// The easy side's probes: with 256 sockets in 64,512 ports all of them miss once in ten million times.
const PROBES_MAX: usize = 4_096;

/// NATs give no lower ones to clients.
const PORT_FIRST: u16 = 1_024;

/// A block is known by a few of its ports; it goes on around them.
const BLOCK_MARGIN: u16 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(ms))
    }

    fn easy(ports: Ports) -> (Vec<SocketAddr>, Monotonic) {
        let nat = Nat { ports, ..Nat::default() };
        let mut birthday = Birthday::easy(at(0), "203.0.113.1:9000".parse().unwrap(), nat);
        let (mut entropy, mut sent) = (Entropy::from_seed([1; 32]), Vec::new());
        let mut last = at(0);
        while let Some(due) = birthday.deadline() {
            let probes = birthday.poll(due, &mut entropy);
            if !probes.is_empty() {
                last = due;
            }
            sent.extend(probes.iter().map(|probe| probe.to));
        }
        (sent, last)
    }

    #[test]
    fn the_easy_side_keeps_its_pace_and_its_number_and_asks_no_port_twice() {
        let (mut sent, last) = easy(Ports::Random);
        assert_eq!((sent.len(), last), (PROBES_MAX, at(1_020)));
        assert_ne!(sent[..100], sent[100..200]);
        let distinct = sent.len();
        sent.sort_unstable();
        sent.dedup();
        assert_eq!(sent.len(), distinct);
        assert!(sent.iter().all(|to| to.port() >= PORT_FIRST));
    }

    #[test]
    fn what_is_known_of_the_ports_narrows_the_search() {
        let within = |ports, range: std::ops::RangeInclusive<u16>| {
            let (sent, _) = easy(ports);
            assert_eq!(sent.len(), range.len());
            assert!(sent.iter().all(|to| range.contains(&to.port())), "{range:?}");
        };
        within(Ports::Sequential { step: 1 }, 9_001..=9_512);
        within(Ports::Block { first: 9_000, last: 9_500 }, 8_488..=10_012);
    }

    #[test]
    fn the_hard_side_begins_with_64_sockets_and_a_primer_and_goes_on_with_256() {
        let mut birthday = Birthday::hard(at(0), &["203.0.113.2:7".parse().unwrap()]);
        let mut entropy = Entropy::from_seed([1; 32]);
        assert_eq!((birthday.wants(), birthday.wants()), (Some(64), None));
        birthday.opened(at(5), &(1..=64).collect::<Vec<_>>());
        let primer = birthday.poll(at(5), &mut entropy);
        assert_eq!((primer.len(), primer[0].ttl), (64, Some(PRIMER_TTL)));
        let second = birthday.poll(at(105), &mut entropy);
        assert_eq!((second.len(), second[0].ttl), (64, None));
        assert_eq!(birthday.wants(), Some(192));
        birthday.opened(at(110), &(65..=1_000).collect::<Vec<_>>());
        let third = birthday.poll(at(110), &mut entropy);
        assert_eq!((third.len(), third[63].ttl, third[64].ttl), (256, None, Some(PRIMER_TTL)));
        assert_eq!(birthday.deadline(), Some(at(310)));
        assert_eq!(birthday.take_sockets().len(), 256);
        assert_eq!(birthday.poll(at(2_500), &mut entropy), []);
    }
}
