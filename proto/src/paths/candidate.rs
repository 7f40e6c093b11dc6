//! Addresses at which a node may be reached, and how good they promise to be.

use std::net::{IpAddr, SocketAddr};

/// How an address came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of one of the node's own interfaces.
    Host = 0,
    /// What a STUN server sees: the outside of a NAT.
    Reflexive = 1,
    /// What a router opened when asked (UPnP, NAT-PMP, PCP).
    Mapped = 2,
    /// Where a proven check came from. Learned, never announced.
    PeerReflexive = 3,
}

impl CandidateKind {
    /// The word people see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Reflexive => "reflexive",
            Self::Mapped => "mapped",
            Self::PeerReflexive => "peer-reflexive",
        }
    }
}

/// One address of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How it is known.
    pub kind: CandidateKind,
    /// Where.
    pub addr: SocketAddr,
}

/// What an address promises, best first. A path of a lower tier is taken only while there is none of a
/// higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Private and loopback addresses: no router of the Internet is on the way.
    Lan,
    /// IPv6: seldom translated.
    V6,
    /// IPv4.
    V4,
}

impl Tier {
    /// By the address alone.
    pub fn of(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_private() || ip.is_loopback() => Self::Lan,
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_loopback() => Self::Lan,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Whether a peer may make us send to this address: nothing link-local or multicast, loopback only
/// where the coordinator is on loopback too.
pub(crate) fn is_usable(addr: SocketAddr, loopback: bool) -> bool {
    let ip = addr.ip().to_canonical();
    let narrow = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let aimless = ip.is_unspecified() || ip.is_multicast() || narrow || addr.port() == 0;
    !aimless && (loopback || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_run_from_the_lan_over_ipv6_to_ipv4() {
        let tier = |text: &str| Tier::of(text.parse().unwrap());
        assert!(tier("192.168.1.2:7") < tier("[2001:db8::1]:7"));
        assert!(tier("[2001:db8::1]:7") < tier("203.0.113.1:7"));
        assert_eq!(tier("[fd00::1]:7"), Tier::Lan);
        assert_eq!(tier("[::ffff:203.0.113.1]:7"), Tier::V4);
        // Carriers translate it: it is no LAN.
        assert_eq!(tier("100.64.0.1:7"), Tier::V4);
    }

    #[test]
    fn a_peer_cannot_aim_us_at_what_does_not_travel() {
        for refused in [
            "224.0.0.1:9",
            "255.255.255.255:9",
            "10.0.0.1:0",
            "169.254.1.1:9",
            "127.0.0.1:9",
            "[::ffff:127.0.0.1]:9",
            "[fe80::1]:9",
            "[ff02::1]:9",
            "0.0.0.0:9",
        ] {
            assert!(!is_usable(refused.parse().unwrap(), false), "{refused}");
        }
        assert!(is_usable("10.0.0.1:9".parse().unwrap(), false));
        assert!(is_usable("127.0.0.1:9".parse().unwrap(), true));
    }
}
