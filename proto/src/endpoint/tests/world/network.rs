//! The network between nodes: datagrams, NATs by table (RFC 4787), and STUN servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use super::super::mesh::cert;
use super::{Direct, Happening, World};
use crate::endpoint::Input;
use crate::id::CertHash;
use crate::stun::public_answer;

/// What stands before a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Site {
    /// All nodes on one machine: loopback addresses, no NAT, no STUN server.
    SameMachine,
    /// A public address.
    Open,
    /// One outside port, open to everyone.
    FullCone,
    /// One outside port, open to hosts that were sent to.
    AddressRestricted,
    /// One outside port, open to addresses that were sent to.
    PortRestricted,
    /// An outside port for every destination, open to it alone.
    Symmetric,
    /// Nothing gets out.
    Blocked,
}

impl Site {
    /// Every NAT through which UDP gets out.
    pub(in super::super) const NATS: [Self; 5] =
        [Self::Open, Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];
}

/// One node's place.
#[derive(Debug)]
pub(super) struct Place {
    site: Site,
    inside: IpAddr,
    outside: IpAddr,
    /// Port of socket 0; further sockets count up from it.
    port: u16,
    /// Inside port, and the destination where that matters, to outside port.
    mappings: BTreeMap<(u16, Option<SocketAddr>), u16>,
    /// Outside port and destination.
    sent: BTreeSet<(u16, SocketAddr)>,
}

/// Servers that see every node: two ports of one address, and another address.
pub(in super::super) fn stun_servers() -> Vec<SocketAddr> {
    ["198.51.100.1:3478", "198.51.100.1:3479", "198.51.100.2:3478"]
        .map(|server| server.parse().expect("an address"))
        .to_vec()
}

impl Place {
    pub(super) fn new(node: usize, site: Site) -> Self {
        let n = u8::try_from(node).expect("few nodes");
        let public = IpAddr::V4(Ipv4Addr::new(203, 0, 113, n + 1));
        let (inside, outside, port) = match site {
            Site::SameMachine => {
                (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into(), 7000 + u16::from(n))
            }
            Site::Open => (public, public, 7000),
            Site::FullCone
            | Site::AddressRestricted
            | Site::PortRestricted
            | Site::Symmetric
            | Site::Blocked => (Ipv4Addr::new(10, 0, n, 2).into(), public, 7000),
        };
        Self { site, inside, outside, port, mappings: BTreeMap::new(), sent: BTreeSet::new() }
    }

    /// Where the node believes it is.
    pub(super) fn host(&self) -> SocketAddr {
        SocketAddr::new(self.inside, self.port)
    }

    pub(super) fn stun(&self) -> Vec<SocketAddr> {
        if self.site == Site::SameMachine { Vec::new() } else { stun_servers() }
    }

    /// The node moved: another inside address, and nothing is mapped.
    pub(super) fn renumber(&mut self) {
        if let IpAddr::V4(ip) = self.inside {
            let [a, b, c, d] = ip.octets();
            self.inside = Ipv4Addr::new(a, b, c, d + 1).into();
        }
        self.renumber_outside();
    }

    /// The NAT began anew under another address.
    pub(super) fn renumber_outside(&mut self) {
        if let IpAddr::V4(ip) = self.outside {
            let [a, b, c, d] = ip.octets();
            self.outside = Ipv4Addr::new(a, b, c, d + 100).into();
        }
        self.mappings.clear();
        self.sent.clear();
    }

    /// What a packet from `socket` looks like outside; none if it does not get there.
    fn outbound(&mut self, socket: u16, to: SocketAddr) -> Option<SocketAddr> {
        let inside = self.port + socket;
        let key = match self.site {
            Site::Blocked => return None,
            Site::SameMachine | Site::Open => return Some(SocketAddr::new(self.inside, inside)),
            Site::FullCone | Site::AddressRestricted | Site::PortRestricted => (inside, None),
            Site::Symmetric => (inside, Some(to)),
        };
        let fresh = match key.1 {
            None => inside,
            // Far apart, and never the same twice.
            Some(_) => 20_000 + u16::try_from(self.mappings.len() * 7_919 % 40_000).expect("below 40,000"),
        };
        let outside = *self.mappings.entry(key).or_insert(fresh);
        self.sent.insert((outside, to));
        Some(SocketAddr::new(self.outside, outside))
    }

    /// Whether `to` is a mapping that no server saw.
    fn was_guessed(&self, to: SocketAddr) -> bool {
        let servers = stun_servers();
        let seen = |whom: &Option<SocketAddr>| whom.is_some_and(|whom| servers.contains(&whom));
        let hit = self.mappings.iter().find(|(_, outside)| **outside == to.port());
        self.site == Site::Symmetric
            && to.ip() == self.outside
            && hit.is_some_and(|((_, whom), _)| !seen(whom))
    }

    /// The socket that a packet from `from` to `to` reaches.
    fn inbound(&self, to: SocketAddr, from: SocketAddr) -> Option<u16> {
        if to.ip() != self.outside {
            return None;
        }
        let open = |sent: &dyn Fn(SocketAddr) -> bool| {
            self.sent.iter().any(|(port, to_whom)| *port == to.port() && sent(*to_whom))
        };
        let let_in = match self.site {
            Site::Blocked => false,
            Site::SameMachine | Site::Open => return to.port().checked_sub(self.port),
            Site::FullCone => true,
            Site::AddressRestricted => open(&|whom| whom.ip() == from.ip()),
            Site::PortRestricted | Site::Symmetric => open(&|whom| whom == from),
        };
        let mapped = self.mappings.iter().find(|(_, outside)| **outside == to.port() && let_in);
        mapped.map(|((inside, _), _)| inside - self.port)
    }
}

impl World {
    pub(super) fn send_datagram(
        &mut self,
        node: usize,
        socket: u16,
        to: SocketAddr,
        bytes: Bytes,
        far: bool,
    ) {
        self.datagrams += 1;
        let Some(from) = self.places[node].outbound(socket, to) else { return };
        let guessed = |place: &Place| place.was_guessed(to) || place.was_guessed(from);
        if self.guesses_miss && self.places.iter().any(guessed) {
            return;
        }
        let lost = self.lose_every.is_some_and(|every| self.datagrams.is_multiple_of(every));
        if far && !lost && self.direct == Direct::Works {
            self.at(self.link_delay, Happening::Datagram { from, to, bytes });
        }
    }

    pub(super) fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if stun_servers().contains(&to) {
            if let Some(bytes) = public_answer(&bytes, from) {
                self.at(self.link_delay, Happening::Datagram { from: to, to: from, bytes });
            }
        } else if let Some((node, socket)) = self.reached(to, from)
            && self.nodes[node].running
        {
            self.nodes[node].inputs.push_back(Input::Datagram { socket, from, datagram: bytes });
        }
    }

    fn reached(&self, to: SocketAddr, from: SocketAddr) -> Option<(usize, u16)> {
        let places = self.places.iter().enumerate();
        let mut reached = places.filter_map(|(node, place)| {
            let known = place.site != Site::SameMachine || place.port == to.port();
            Some((node, place.inbound(to, from).filter(|_| known)?))
        });
        reached.next()
    }

    /// The node that a handshake from `socket` to one of these addresses reaches, and comes back from.
    pub(super) fn handshake(
        &mut self,
        node: usize,
        socket: u16,
        candidates: &[SocketAddr],
        peer_cert: CertHash,
    ) -> Option<(usize, SocketAddr)> {
        candidates.iter().find_map(|to| {
            let from = self.places[node].outbound(socket, *to)?;
            let (peer, far_socket) = self.reached(*to, from)?;
            let back = self.places[peer].outbound(far_socket, from)?;
            let comes_back = back == *to && self.reached(from, back) == Some((node, socket));
            (comes_back && cert(peer) == peer_cert).then_some((peer, *to))
        })
    }
}
