//! Tells what a NAT does by asking it, and how precise the wire is: the lab is not believed by its
//! names. Works on cables alone, with no program at their ends.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::namespace::Namespace;
use super::router::Nat;
use super::site::Site;

/// What a NAT does to UDP over IPv4, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Class {
    /// Nothing passes.
    Blocked,
    /// One mapping for all destinations, and who gets in.
    Independent(Filtering),
    /// A mapping for each destination.
    Dependent,
}

/// Who gets in through a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Filtering {
    Everybody,
    AddressesSentTo,
    PortsSentTo,
}

impl Class {
    /// What a kind must be. None where there is no IPv4.
    pub(super) fn of(nat: Nat) -> Option<Self> {
        match nat {
            Nat::None | Nat::FullCone => Some(Self::Independent(Filtering::Everybody)),
            Nat::AddressRestricted => Some(Self::Independent(Filtering::AddressesSentTo)),
            Nat::PortRestricted | Nat::Cgnat | Nat::DualStack => {
                Some(Self::Independent(Filtering::PortsSentTo))
            }
            Nat::Symmetric => Some(Self::Dependent),
            Nat::UdpBlocked => Some(Self::Blocked),
            Nat::Ipv6Only => None,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked => "no UDP",
            Self::Dependent => "a mapping for each destination",
            Self::Independent(Filtering::Everybody) => "one mapping, open to everybody",
            Self::Independent(Filtering::AddressesSentTo) => "one mapping, open to addresses sent to",
            Self::Independent(Filtering::PortsSentTo) => "one mapping, open to ports sent to",
        })
    }
}

/// Two public hosts that see what comes out of a NAT, the first of them on two ports.
pub(super) struct Observers {
    first: Eye,
    first_again: Eye,
    second: Eye,
}

struct Eye {
    socket: UdpSocket,
    addr: SocketAddr,
}

impl Eye {
    fn open(site: &Site) -> anyhow::Result<Self> {
        let socket = open(&site.host)?;
        let addr = SocketAddr::new(Site::public_v4(site.number()).into(), socket.local_addr()?.port());
        Ok(Self { socket, addr })
    }

    /// Where a packet that begins with this byte came from.
    fn sees(&self, mark: u8, within: Duration) -> anyhow::Result<Option<SocketAddr>> {
        receive(&self.socket, mark, within)
    }
}

/// A UDP socket in there, on a free port.
fn open(namespace: &Namespace) -> anyhow::Result<UdpSocket> {
    namespace.within(|| UdpSocket::bind("0.0.0.0:0").context("failed to open a UDP socket"))
}

fn receive(socket: &UdpSocket, mark: u8, within: Duration) -> anyhow::Result<Option<SocketAddr>> {
    let until = Instant::now() + within;
    let mut buffer = [0; 16];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        // An error is a time-out, or an ICMP answer to what was sent before.
        if let Ok((1.., from)) = socket.recv_from(&mut buffer)
            && buffer[0] == mark
        {
            return Ok(Some(from));
        }
    }
}

impl Observers {
    pub(super) fn open(first: &Site, second: &Site) -> anyhow::Result<Self> {
        Ok(Self { first: Eye::open(first)?, first_again: Eye::open(first)?, second: Eye::open(second)? })
    }

    /// Asks the NAT of a site. `within` is more than a round trip; `mark` is this site's alone.
    pub(super) fn classify(&self, site: &Site, mark: u8, within: Duration) -> anyhow::Result<Class> {
        let inner = open(&site.host)?;
        let Self { first, first_again, second } = self;
        inner.send_to(&[mark], first.addr)?;
        let Some(mapped) = first.sees(mark, within)? else { return Ok(Class::Blocked) };
        first_again.socket.send_to(&[mark], mapped)?;
        let same_address = receive(&inner, mark, within)?.is_some();
        second.socket.send_to(&[mark], mapped)?;
        let anybody = receive(&inner, mark, within)?.is_some();
        inner.send_to(&[mark], second.addr)?;
        let elsewhere = second.sees(mark, within)?;
        Ok(match (elsewhere == Some(mapped), anybody, same_address) {
            (false, _, _) => Class::Dependent,
            (true, true, _) => Class::Independent(Filtering::Everybody),
            (true, false, true) => Class::Independent(Filtering::AddressesSentTo),
            (true, false, false) => Class::Independent(Filtering::PortsSentTo),
        })
    }

    /// Whether one socket's mapping is another one after that. None where no UDP passes.
    pub(super) fn moves(
        &self,
        site: &Site,
        mark: u8,
        within: Duration,
        rebind: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<bool>> {
        let inner = open(&site.host)?;
        let mapping = || {
            inner.send_to(&[mark], self.first.addr)?;
            self.first.sees(mark, within)
        };
        let before = mapping()?;
        rebind()?;
        let after = mapping()?;
        Ok(before.zip(after).map(|(before, after)| before != after))
    }

    /// Round trips between the two observers, shortest first.
    pub(super) fn round_trips(&self, count: usize, within: Duration) -> anyhow::Result<Vec<Duration>> {
        const MARK: u8 = 255;
        let mut trips = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            self.first.socket.send_to(&[MARK], self.second.addr)?;
            self.second.sees(MARK, within)?.context("a packet did not arrive")?;
            self.second.socket.send_to(&[MARK], self.first.addr)?;
            self.first.sees(MARK, within)?.context("an answer did not arrive")?;
            trips.push(began.elapsed());
        }
        trips.sort();
        Ok(trips)
    }
}
