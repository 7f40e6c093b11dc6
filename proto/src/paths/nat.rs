//! What a NAT does to this node's packets (RFC 4787), inferred from what STUN servers see.

use std::fmt;
use std::net::SocketAddr;

use crate::canonical::{DecodeError, Value};

/// Which destinations share one outside address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Too few servers answered to tell.
    #[default]
    Unknown,
    /// No NAT: servers see an address of this node.
    Open,
    /// All of them, as far as was seen: one server with two ports cannot tell this from the next.
    EndpointIndependent,
    /// Those of one address.
    AddressDependent,
    /// None: every destination sees another port.
    AddressAndPortDependent,
    /// No server answered: UDP does not get out, or not back.
    Blocked,
}

/// Which outside port a NAT takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Not seen.
    #[default]
    Unknown,
    /// The inside one.
    Preserving,
    /// One after the other.
    Sequential {
        /// From one mapping to the next.
        step: u16,
    },
    /// Anywhere within this block.
    Block {
        /// Lowest port seen.
        first: u16,
        /// Highest port seen.
        last: u16,
    },
    /// Anywhere.
    Random,
}

/// A NAT, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// Which destinations share one outside address.
    pub mapping: Mapping,
    /// Which outside port it takes.
    pub ports: Ports,
}

/// What one server saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) server: SocketAddr,
    pub(crate) mapped: SocketAddr,
}

impl Nat {
    /// From this node's own addresses and what servers saw, in the order asked; `over` when those that
    /// did not answer will not.
    pub(crate) fn infer(hosts: &[SocketAddr], seen: &[Seen], over: bool) -> Self {
        let v4: Vec<Seen> = seen.iter().filter(|seen| seen.mapped.is_ipv4()).copied().collect();
        let seen = if v4.is_empty() { seen } else { &v4 };
        let mapping = mapping(hosts, seen, over);
        let hard = matches!(mapping, Mapping::AddressDependent | Mapping::AddressAndPortDependent);
        Self { mapping, ports: ports(hosts, seen, hard) }
    }

    /// Whether every destination, or every host, sees another port: the one that servers see is then
    /// of no use to a peer.
    pub fn is_hard(&self) -> bool {
        matches!(self.mapping, Mapping::AddressDependent | Mapping::AddressAndPortDependent)
    }

    /// [mapping, ports, a, b].
    pub(crate) fn to_value(self) -> Value<'static> {
        let (ports, a, b) = match self.ports {
            Ports::Unknown => (0, 0, 0),
            Ports::Preserving => (1, 0, 0),
            Ports::Sequential { step } => (2, step, 0),
            Ports::Block { first, last } => (3, first, last),
            Ports::Random => (4, 0, 0),
        };
        let mapping = match self.mapping {
            Mapping::Unknown => 0,
            Mapping::Open => 1,
            Mapping::EndpointIndependent => 2,
            Mapping::AddressDependent => 3,
            Mapping::AddressAndPortDependent => 4,
            Mapping::Blocked => 5,
        };
        Value::Array(vec![
            Value::Uint(mapping),
            Value::Uint(ports),
            Value::Uint(a.into()),
            Value::Uint(b.into()),
        ])
    }

    pub(crate) fn from_value(value: Value<'_>) -> Result<Self, DecodeError> {
        let [mapping, ports, a, b] = value.tuple()?;
        let port = |value: &Value<'_>| u16::try_from(value.uint()?).map_err(|_| DecodeError::Type);
        let mapping = match mapping.uint()? {
            0 => Mapping::Unknown,
            1 => Mapping::Open,
            2 => Mapping::EndpointIndependent,
            3 => Mapping::AddressDependent,
            4 => Mapping::AddressAndPortDependent,
            5 => Mapping::Blocked,
            _ => return Err(DecodeError::Type),
        };
        let ports = match (ports.uint()?, port(&a)?, port(&b)?) {
            (0, 0, 0) => Ports::Unknown,
            (1, 0, 0) => Ports::Preserving,
            (2, step, 0) => Ports::Sequential { step },
            (3, first, last) if first <= last => Ports::Block { first, last },
            (4, 0, 0) => Ports::Random,
            _ => return Err(DecodeError::Type),
        };
        Ok(Self { mapping, ports })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "an unknown NAT",
            Self::Open => "no NAT",
            Self::EndpointIndependent => "an endpoint-independent NAT",
            Self::AddressDependent => "an address-dependent NAT",
            Self::AddressAndPortDependent => "an address- and port-dependent NAT",
            Self::Blocked => "no UDP",
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Preserving => f.write_str("preserving"),
            Self::Sequential { step } => write!(f, "sequential, step {step}"),
            Self::Block { first, last } => write!(f, "within {first} to {last}"),
            Self::Random => f.write_str("random"),
        }
    }
}

fn mapping(hosts: &[SocketAddr], seen: &[Seen], over: bool) -> Mapping {
    let Some(first) = seen.first() else {
        return if over { Mapping::Blocked } else { Mapping::Unknown };
    };
    if seen.iter().all(|seen| hosts.contains(&seen.mapped)) {
        return Mapping::Open;
    }
    if seen.iter().all(|seen| seen.mapped == first.mapped) {
        return if seen.len() > 1 { Mapping::EndpointIndependent } else { Mapping::Unknown };
    }
    let per_port = seen.iter().enumerate().any(|(at, one)| {
        let others = &seen[at + 1..];
        others.iter().any(|other| other.server.ip() == one.server.ip() && other.mapped != one.mapped)
    });
    if per_port { Mapping::AddressAndPortDependent } else { Mapping::AddressDependent }
}

fn ports(hosts: &[SocketAddr], seen: &[Seen], hard: bool) -> Ports {
    let ports: Vec<u16> = seen.iter().map(|seen| seen.mapped.port()).collect();
    let (Some(lowest), Some(highest)) = (ports.iter().min(), ports.iter().max()) else {
        return Ports::Unknown;
    };
    if hosts.first().is_some_and(|host| ports.iter().all(|port| *port == host.port())) {
        return Ports::Preserving;
    }
    // One mapping, or one and the same, says nothing of the next.
    if !hard || ports.len() < 2 {
        return Ports::Unknown;
    }
    let steps: Vec<u16> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let step = steps.iter().copied().max().unwrap_or(0);
    if steps.iter().all(|step| (1..=STEP_MAX).contains(step)) {
        return Ports::Sequential { step };
    }
    if ports.len() >= BLOCK_EVIDENCE && highest - lowest <= BLOCK_PORTS_MAX {
        return Ports::Block { first: *lowest, last: *highest };
    }
    Ports::Random
}

/// Ports a sequential NAT may lie apart for two packets sent together: others of its clients take some.
const STEP_MAX: u16 = 8;

/// Ports within this of each other come from one block: carriers give blocks of up to 2,048.
const BLOCK_PORTS_MAX: u16 = 2_048;

/// Two random ports lie in one block by chance once in sixteen times, three once in two hundred.
const BLOCK_EVIDENCE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: [&str; 3] = ["198.51.100.1:3478", "198.51.100.1:3479", "198.51.100.2:3478"];

    fn inferred(mapped: &[&str]) -> Nat {
        let seen = SERVERS.iter().zip(mapped).map(|(server, mapped)| Seen {
            server: server.parse().unwrap(),
            mapped: mapped.parse().unwrap(),
        });
        Nat::infer(&["10.0.0.2:7000".parse().unwrap()], &seen.collect::<Vec<_>>(), true)
    }

    #[test]
    fn the_five_kinds_of_mapping_are_told_apart() {
        let of = |mapped: &[&str]| inferred(mapped).mapping;
        assert_eq!(of(&["10.0.0.2:7000", "10.0.0.2:7000"]), Mapping::Open);
        assert_eq!(of(&["203.0.113.1:9"; 3]), Mapping::EndpointIndependent);
        assert_eq!(of(&["203.0.113.1:9", "203.0.113.1:9", "203.0.113.1:10"]), Mapping::AddressDependent);
        let each = ["203.0.113.1:9", "203.0.113.1:10", "203.0.113.1:11"];
        assert_eq!(of(&each), Mapping::AddressAndPortDependent);
        assert_eq!(of(&[]), Mapping::Blocked);
        assert_eq!(of(&["203.0.113.1:9"]), Mapping::Unknown);
    }

    #[test]
    fn port_allocation_is_read_from_the_ports() {
        let of = |ports: &[u16]| {
            let mapped: Vec<String> = ports.iter().map(|port| format!("203.0.113.1:{port}")).collect();
            inferred(&mapped.iter().map(String::as_str).collect::<Vec<_>>()).ports
        };
        assert_eq!(of(&[7000, 7000]), Ports::Preserving);
        assert_eq!(of(&[9000, 9001, 9003]), Ports::Sequential { step: 2 });
        assert_eq!(of(&[9900, 9001, 9703]), Ports::Block { first: 9001, last: 9900 });
        assert_eq!(of(&[1024, 60_000, 33_000]), Ports::Random);
        assert_eq!(of(&[9000, 9000]), Ports::Unknown);
    }

    #[test]
    fn a_nat_reads_back_as_written_and_nonsense_is_refused() {
        for ports in [
            Ports::Unknown,
            Ports::Preserving,
            Ports::Sequential { step: 2 },
            Ports::Block { first: 1, last: 2 },
            Ports::Random,
        ] {
            let nat = Nat { mapping: Mapping::AddressDependent, ports };
            assert_eq!(Nat::from_value(nat.to_value()), Ok(nat));
        }
        let bad = Value::Array([1, 3, 9, 8].map(Value::Uint).to_vec());
        assert_eq!(Nat::from_value(bad), Err(DecodeError::Type));
        let huge = Value::Array([1, 2, 70_000, 0].map(Value::Uint).to_vec());
        assert_eq!(Nat::from_value(huge), Err(DecodeError::Type));
    }
}
