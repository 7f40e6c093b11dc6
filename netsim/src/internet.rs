//! Addresses, and the way of a datagram between them: out of the sender's NATs, across, and in through
//! the recipient's.
//!
//! A network is the Internet or what lies behind one NAT. Each host stands in one; each NAT but the
//! outermost stands in another. [`send`](Internet::send) takes a datagram to the network its address
//! belongs to, when it leaves; [`arrive`](Internet::arrive) takes it in, when it arrives: by then a
//! mapping may be gone, or there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::nat::{Behaviour, Nat, Owed, direct_path_possible};
use crate::network::Place;

/// A network: 0 is the Internet, `n` lies behind NAT `n - 1`.
type NetworkId = usize;

const INTERNET: NetworkId = 0;

/// Routers a datagram passes between two outermost NATs, beside these.
const HOPS: u8 = 6;

/// What sends by itself sets: more than any way has.
const HOPS_DEFAULT: u8 = 64;

/// The STUN ports of the coordinator's address.
const STUN_PORTS: [u16; 2] = [3478, 3479];

/// The port of a node's first socket.
const MAIN_PORT: u16 = 41_641;

/// Before the addresses of nodes without a NAT (RFC 2544), and before those they come to later: no world
/// has as many nodes as lie between.
const OPEN_HOSTS: u32 = 0xc612_0000;
const OPEN_HOSTS_LATER: u32 = 0xc612_8000;

/// Every address and NAT of a world.
#[derive(Debug)]
pub(crate) struct Internet {
    nats: Vec<Gate>,
    homes: Vec<Home>,
    hosts: BTreeMap<(NetworkId, IpAddr), Place>,
    /// NATs by where they are seen.
    fronts: BTreeMap<(NetworkId, IpAddr), usize>,
    /// Addresses given to NATs so far.
    given: u32,
}

/// A NAT in its place.
#[derive(Debug)]
struct Gate {
    nat: Nat,
    outside: NetworkId,
    /// The first node behind it: whose link a datagram takes that no mapping knows.
    first: usize,
}

/// Where a node stands.
#[derive(Clone, Debug)]
struct Home {
    network: NetworkId,
    address: IpAddr,
}

/// A datagram between its sender's NATs and its recipient's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Travelling {
    /// Whom its recipient sees.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    network: NetworkId,
}

impl Internet {
    /// `chains` has what stands before each node, from it outwards; `shared` numbers groups whose
    /// outermost NAT is one.
    pub(crate) fn new(chains: &[Vec<Behaviour>], shared: &[Option<usize>], seed: u64) -> Self {
        let mut internet = Self {
            nats: Vec::new(),
            homes: Vec::new(),
            hosts: BTreeMap::from([((INTERNET, coordinator_address()), Place::Coordinator)]),
            fronts: BTreeMap::new(),
            given: 0,
        };
        let mut groups: BTreeMap<usize, NetworkId> = BTreeMap::new();
        for (node, chain) in chains.iter().enumerate() {
            let mut network = INTERNET;
            for (depth, behaviour) in chain.iter().rev().enumerate() {
                let group = shared[node].filter(|_| depth == 0);
                let known = group.and_then(|group| groups.get(&group).copied());
                network = known.unwrap_or_else(|| internet.add_nat(network, *behaviour, node, seed));
                if let Some(group) = group {
                    groups.insert(group, network);
                }
            }
            let address = host_address(node, network != INTERNET);
            internet.hosts.insert((network, address), Place::Node(node));
            internet.homes.push(Home { network, address });
        }
        internet
    }

    fn add_nat(&mut self, outside: NetworkId, behaviour: Behaviour, first: usize, seed: u64) -> NetworkId {
        let address = self.next_address(outside);
        let number = self.nats.len();
        let nat = Nat::new(behaviour, address, seed, &format!("nat {number}"));
        self.nats.push(Gate { nat, outside, first });
        self.fronts.insert((outside, address), number);
        number + 1
    }

    /// A fresh address for a NAT: a public one, or one of the carrier's network (RFC 6598).
    fn next_address(&mut self, network: NetworkId) -> IpAddr {
        self.given += 1;
        let base: u32 = if network == INTERNET { 0xcb00_0000 } else { 0x6440_0000 };
        IpAddr::from((base + self.given).to_be_bytes())
    }

    /// The address of one of a node's sockets.
    pub(crate) fn local(&self, node: usize, socket: u16) -> SocketAddr {
        SocketAddr::new(self.homes[node].address, MAIN_PORT.wrapping_add(socket))
    }

    /// The node whose own address this is, seen from the Internet.
    pub(crate) fn open_node(&self, address: IpAddr) -> Option<usize> {
        match self.hosts.get(&(INTERNET, address))? {
            Place::Node(node) => Some(*node),
            Place::Coordinator => None,
        }
    }

    /// Where the coordinator tells who asks how it is seen.
    pub(crate) fn stun_servers() -> [SocketAddr; 2] {
        STUN_PORTS.map(|port| SocketAddr::new(coordinator_address(), port))
    }

    /// What a host sends to an address, as far as the network that address belongs to; none if a NAT or
    /// the number of hops stops it, or nobody has that address.
    pub(crate) fn send(
        &mut self,
        now: Duration,
        from: Place,
        source: SocketAddr,
        to: SocketAddr,
        ttl: Option<u8>,
    ) -> Option<Travelling> {
        let mut hops = ttl.unwrap_or(HOPS_DEFAULT);
        let (mut network, mut from) = match from {
            Place::Node(node) => (self.homes[node].network, source),
            Place::Coordinator => (INTERNET, source),
        };
        while !self.hosts.contains_key(&(network, to.ip())) && !self.fronts.contains_key(&(network, to.ip()))
        {
            let gate = &mut self.nats[network.checked_sub(1)?];
            from = gate.nat.outbound(now, from, to)?;
            let is_hairpin = to.ip() == gate.nat.external;
            network = gate.outside;
            hops = hops.checked_sub(1)?;
            if is_hairpin && !gate.nat.behaviour.hairpins {
                return None;
            }
            if network == INTERNET && !is_hairpin {
                hops = hops.checked_sub(HOPS)?;
            }
        }
        (hops > 0).then_some(Travelling { from, to, network })
    }

    /// Whose link a datagram takes in the end, let in or not.
    pub(crate) fn towards(&self, travelling: &Travelling) -> Option<Place> {
        let (mut network, mut to) = (travelling.network, travelling.to);
        while let Some(number) = self.fronts.get(&(network, to.ip())) {
            let gate = &self.nats[*number];
            let Some(inner) = gate.nat.owner(to) else { return Some(Place::Node(gate.first)) };
            (network, to) = (number + 1, inner);
        }
        self.hosts.get(&(network, to.ip())).copied()
    }

    /// A datagram arrives: the host it is for and the address there, if it is let in.
    pub(crate) fn arrive(&self, now: Duration, travelling: &Travelling) -> Option<(Place, SocketAddr)> {
        let (mut network, mut to) = (travelling.network, travelling.to);
        while let Some(number) = self.fronts.get(&(network, to.ip())) {
            to = self.nats[*number].nat.inbound(now, travelling.from, to)?;
            network = number + 1;
        }
        Some((*self.hosts.get(&(network, to.ip()))?, to))
    }

    /// The socket of a node that has this address.
    pub(crate) fn socket(to: SocketAddr) -> u16 {
        to.port().wrapping_sub(MAIN_PORT)
    }

    /// What two nodes are owed by their NATs.
    pub(crate) fn owed(&self, a: usize, b: usize) -> Owed {
        if self.homes[a].network == self.homes[b].network {
            return Owed::Direct;
        }
        let [here, there] = [a, b].map(|node| self.chain(node));
        let behaviours = |chain: &[usize]| -> Vec<Behaviour> {
            chain.iter().map(|number| self.nats[*number].nat.behaviour).collect()
        };
        let common = here.iter().find(|number| there.contains(number));
        if common.is_some_and(|number| !self.nats[*number].nat.behaviour.hairpins) {
            return Owed::Relay;
        }
        direct_path_possible(&behaviours(&here), &behaviours(&there))
    }

    /// The NATs before a node, from it outwards.
    fn chain(&self, node: usize) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut network = self.homes[node].network;
        while network != INTERNET {
            chain.push(network - 1);
            network = self.nats[network - 1].outside;
        }
        chain
    }

    /// The NATs before a node forget everything.
    pub(crate) fn reboot(&mut self, node: usize) {
        for number in self.chain(node) {
            self.nats[number].nat.reboot();
        }
    }

    /// The outermost NAT before a node gets another address and forgets everything. A node without a NAT
    /// gets one itself: its host sees which.
    pub(crate) fn renumber(&mut self, node: usize) -> Option<IpAddr> {
        if let Some(number) = self.chain(node).last().copied() {
            let address = self.next_address(INTERNET);
            let nat = &mut self.nats[number].nat;
            self.fronts.remove(&(INTERNET, nat.external));
            self.fronts.insert((INTERNET, address), number);
            nat.external = address;
            nat.reboot();
            return None;
        }
        let address = self.next_host_address();
        let home = &mut self.homes[node];
        self.hosts.remove(&(INTERNET, home.address));
        self.hosts.insert((INTERNET, address), Place::Node(node));
        home.address = address;
        Some(address)
    }

    /// All nodes behind the outermost NAT of this one, and itself.
    pub(crate) fn household(&self, node: usize) -> Vec<usize> {
        let gate = self.chain(node).last().copied();
        let same =
            |other: &usize| *other == node || gate.is_some() && self.chain(*other).last().copied() == gate;
        (0..self.homes.len()).filter(same).collect()
    }

    /// A fresh public address for a node.
    fn next_host_address(&mut self) -> IpAddr {
        self.given += 1;
        IpAddr::from((OPEN_HOSTS_LATER + self.given).to_be_bytes())
    }

    /// The outermost NAT before a node moves every mapping to another port.
    pub(crate) fn rebind(&mut self, now: Duration, node: usize) {
        if let Some(number) = self.chain(node).last() {
            self.nats[*number].nat.rebind(now);
        }
    }
}

fn coordinator_address() -> IpAddr {
    IpAddr::from([198, 51, 100, 1])
}

/// A node's own address: private ones differ in all networks, so that one never leads to another host.
fn host_address(node: usize, is_private: bool) -> IpAddr {
    let node = u32::try_from(node).expect("a world has fewer nodes than addresses");
    let base = if is_private { 0x0a00_0100 } else { OPEN_HOSTS };
    IpAddr::from((base + node).to_be_bytes())
}

#[cfg(test)]
mod tests;
