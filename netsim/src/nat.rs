//! A NAT for UDP, in the words of RFC 4787: which outside port an inside socket gets (mapping), who may
//! answer to it (filtering), how ports are chosen, how long all this lives, and what a reboot forgets.

mod oracle;
mod preset;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

pub(crate) use self::oracle::{Owed, direct_path_possible};
pub(crate) use self::preset::Preset;
use crate::chance::Chance;

/// How much of the remote end a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// How a mapping's port is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ports {
    /// The inside port, or the next free one where that is taken.
    Preserving,
    /// One after the other.
    Sequential,
    /// Any.
    Random,
    /// Any of a block of [`BLOCK_PORTS`] that belongs to the inside address.
    Block,
}

/// What a NAT does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    pub(crate) mapping: Scope,
    pub(crate) filtering: Scope,
    pub(crate) ports: Ports,
    /// A mapping over which nothing went out for so long is gone, and so is a permission.
    pub(crate) idle: Duration,
    /// A mapping as old as this is gone, used or not.
    pub(crate) life: Option<Duration>,
    /// Pairs of mapping and remote end it remembers. When full it forwards nothing of a further one.
    pub(crate) sessions_max: usize,
    /// Whether an inside host reaches another by its outside address.
    pub(crate) hairpins: bool,
    /// Lets no UDP through.
    pub(crate) blocks_udp: bool,
}

/// A NAT and what it remembers.
#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) behaviour: Behaviour,
    pub(crate) external: IpAddr,
    mappings: BTreeMap<u16, Mapping>,
    by_source: BTreeMap<(SocketAddr, Target), u16>,
    blocks: BTreeMap<IpAddr, u16>,
    sessions: usize,
    next: u16,
    chance: Chance,
}

/// As much of the remote end as the mapping depends on.
type Target = (Option<IpAddr>, Option<u16>);

#[derive(Debug)]
struct Mapping {
    inner: SocketAddr,
    target: Target,
    made: Duration,
    used: Duration,
    /// To whom something went out, and when last.
    remotes: BTreeMap<SocketAddr, Duration>,
}

/// The first port that is given away; those below belong to services.
const PORT_MIN: u16 = 1024;

/// Ports of one inside address where they are given in blocks: what carriers do (RFC 7422).
pub(crate) const BLOCK_PORTS: u16 = 1024;

impl Nat {
    pub(crate) fn new(behaviour: Behaviour, external: IpAddr, seed: u64, name: &str) -> Self {
        let mut chance = Chance::new(seed, name, "ports");
        let next = PORT_MIN + u16::try_from(chance.below(30_000)).expect("below a port");
        Self {
            behaviour,
            external,
            mappings: BTreeMap::new(),
            by_source: BTreeMap::new(),
            blocks: BTreeMap::new(),
            sessions: 0,
            next,
            chance,
        }
    }

    /// A datagram leaves from `inner` for `outer`: the address it is seen from, if it gets out.
    pub(crate) fn outbound(
        &mut self,
        now: Duration,
        inner: SocketAddr,
        outer: SocketAddr,
    ) -> Option<SocketAddr> {
        if self.behaviour.blocks_udp {
            return None;
        }
        let target = match self.behaviour.mapping {
            Scope::EndpointIndependent => (None, None),
            Scope::AddressDependent => (Some(outer.ip()), None),
            Scope::AddressAndPortDependent => (Some(outer.ip()), Some(outer.port())),
        };
        let known = self.by_source.get(&(inner, target)).copied();
        let known = known.filter(|port| self.is_live(now, *port));
        let is_new = known.is_none_or(|port| !self.mappings[&port].remotes.contains_key(&outer));
        if is_new && !self.has_room(now) {
            return None;
        }
        let port = match known {
            Some(port) => port,
            None => self.map(now, inner, target)?,
        };
        let mapping = self.mappings.get_mut(&port).expect("a live mapping or one just made");
        mapping.used = now;
        self.sessions += usize::from(mapping.remotes.insert(outer, now).is_none());
        Some(SocketAddr::new(self.external, port))
    }

    /// A datagram from `from` arrives at the outside address `to`: the inside address, if it is let in.
    pub(crate) fn inbound(&self, now: Duration, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        if to.ip() != self.external || !self.is_live(now, to.port()) {
            return None;
        }
        let mapping = self.mappings.get(&to.port())?;
        let fresh = |at: &Duration| now < *at + self.behaviour.idle;
        let permitted = match self.behaviour.filtering {
            Scope::EndpointIndependent => true,
            Scope::AddressDependent => {
                let of_address = SocketAddr::new(from.ip(), 0)..=SocketAddr::new(from.ip(), u16::MAX);
                mapping.remotes.range(of_address).any(|(_, at)| fresh(at))
            }
            Scope::AddressAndPortDependent => mapping.remotes.get(&from).is_some_and(fresh),
        };
        permitted.then_some(mapping.inner)
    }

    /// Whose port this is, let in or not.
    pub(crate) fn owner(&self, to: SocketAddr) -> Option<SocketAddr> {
        self.mappings.get(&to.port()).map(|mapping| mapping.inner)
    }

    /// Forgets everything.
    pub(crate) fn reboot(&mut self) {
        self.mappings.clear();
        self.by_source.clear();
        self.blocks.clear();
        self.sessions = 0;
    }

    /// Moves every mapping to another port, which nobody outside knows or may answer to.
    pub(crate) fn rebind(&mut self, now: Duration) {
        let old = std::mem::take(&mut self.mappings);
        self.by_source.clear();
        self.sessions = 0;
        let taken: Vec<u16> = old.keys().copied().collect();
        for mapping in old.into_values() {
            let Some(port) = self.sequential(|port| taken.contains(&port)) else { return };
            self.by_source.insert((mapping.inner, mapping.target), port);
            let remotes = BTreeMap::new();
            self.mappings.insert(port, Mapping { made: now, used: now, remotes, ..mapping });
        }
    }

    fn is_live(&self, now: Duration, port: u16) -> bool {
        self.mappings.get(&port).is_some_and(|mapping| {
            let worn_out = self.behaviour.life.is_some_and(|life| now >= mapping.made + life);
            now < mapping.used + self.behaviour.idle && !worn_out
        })
    }

    /// Makes room for one more session, if there is any to make.
    fn has_room(&mut self, now: Duration) -> bool {
        if self.sessions < self.behaviour.sessions_max {
            return true;
        }
        let gone: Vec<u16> = self.mappings.keys().copied().filter(|port| !self.is_live(now, *port)).collect();
        gone.into_iter().for_each(|port| self.unmap(port));
        let idle = self.behaviour.idle;
        for mapping in self.mappings.values_mut() {
            mapping.remotes.retain(|_, at| now < *at + idle);
        }
        self.sessions = self.mappings.values().map(|mapping| mapping.remotes.len()).sum();
        self.sessions < self.behaviour.sessions_max
    }

    fn map(&mut self, now: Duration, inner: SocketAddr, target: Target) -> Option<u16> {
        if let Some(old) = self.by_source.get(&(inner, target)).copied() {
            self.unmap(old);
        }
        let port = self.choose(now, inner)?;
        self.unmap(port);
        self.by_source.insert((inner, target), port);
        let remotes = BTreeMap::new();
        self.mappings.insert(port, Mapping { inner, target, made: now, used: now, remotes });
        Some(port)
    }

    fn unmap(&mut self, port: u16) {
        if let Some(mapping) = self.mappings.remove(&port) {
            self.sessions -= mapping.remotes.len();
            self.by_source.remove(&(mapping.inner, mapping.target));
        }
    }

    /// A free port; that of a dead mapping is.
    fn choose(&mut self, now: Duration, inner: SocketAddr) -> Option<u16> {
        match self.behaviour.ports {
            Ports::Preserving if !self.is_live(now, inner.port()) && inner.port() >= PORT_MIN => {
                Some(inner.port())
            }
            Ports::Preserving | Ports::Sequential => {
                let live = self.live_ports(now);
                self.sequential(|port| live.binary_search(&port).is_ok())
            }
            Ports::Random => self.random(now, PORT_MIN, u16::MAX - PORT_MIN),
            Ports::Block => {
                let block = self.block(inner.ip())?;
                self.random(now, block, BLOCK_PORTS)
            }
        }
    }

    fn live_ports(&self, now: Duration) -> Vec<u16> {
        self.mappings.keys().copied().filter(|port| self.is_live(now, *port)).collect()
    }

    fn sequential(&mut self, is_taken: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in PORT_MIN..=u16::MAX {
            let port = self.next;
            self.next = port.checked_add(1).unwrap_or(PORT_MIN);
            if !is_taken(port) && !self.mappings.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    /// Any free port of a range; from a drawn one on where most are taken.
    fn random(&mut self, now: Duration, first: u16, count: u16) -> Option<u16> {
        let drawn = u16::try_from(self.chance.below(usize::from(count))).expect("below a port");
        let ports = (0..count).map(|step| {
            let at = (u32::from(drawn) + u32::from(step)) % u32::from(count);
            first + u16::try_from(at).expect("below a port")
        });
        ports.into_iter().find(|port| !self.is_live(now, *port))
    }

    fn block(&mut self, inner: IpAddr) -> Option<u16> {
        if let Some(block) = self.blocks.get(&inner) {
            return Some(*block);
        }
        let count = u16::MAX / BLOCK_PORTS - 1;
        let drawn = u16::try_from(self.chance.below(usize::from(count))).expect("below a port");
        let blocks = (0..count).map(|step| PORT_MIN + (drawn + step) % count * BLOCK_PORTS);
        let free = blocks.into_iter().find(|block| !self.blocks.values().any(|taken| taken == block))?;
        self.blocks.insert(inner, free);
        Some(free)
    }
}

#[cfg(test)]
mod tests;
