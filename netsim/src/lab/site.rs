//! Addresses, links and routes: one site for the coordinator and one for each host, all of them
//! meeting at the [`Wire`](super::wire).
//!
//! ```text
//! host h3 (eth0 10.3.0.2) ── (l1) router r3 (w1 203.0.113.3) ── veth ── wire
//! host h1 (w1 203.0.113.1) ──────────────────────────────────── veth ── wire
//! coordinator (w1 192.0.2.10, 2001:db8::10) ─────────────────── veth ── wire
//! ```
//!
//! Interfaces towards the wire do neither ARP nor neighbour discovery: everything outside is
//! reached through them, at once.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, ensure};

use super::enter::fed;
use super::namespace::Namespace;
use super::router::{Moved, Nat};

/// The coordinator's addresses.
pub(super) const COORDINATOR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(super) const COORDINATOR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// A host and what is between it and the wire.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Its number, from 1: part of every address.
    pub(super) number: u8,
    pub(crate) nat: Nat,
    pub(crate) host: Namespace,
    /// From the host outwards.
    pub(crate) routers: Vec<Namespace>,
}

/// The namespaces that a site needs, the host first.
pub(super) fn names(number: u8, nat: Nat) -> Vec<String> {
    let routers = ["r", "isp"].into_iter().take(nat.routers());
    ["h"].into_iter().chain(routers).map(|kind| format!("{kind}{number}")).collect()
}

/// The link-layer address of the site's outer interface.
pub(super) fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}

/// The name of the wire's end.
pub(super) fn wire_end(number: u8) -> String {
    format!("x{number}")
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Lays the cable between a namespace's `w1` and the wire.
pub(super) fn connect(outer: &Namespace, wire: &Namespace, number: u8) -> anyhow::Result<()> {
    let (end, mac) = (wire_end(number), mac_text(mac(number)));
    wire.ip(&format!(
        "link add {end} mtu 1500 type veth peer name w1 address {mac} netns {outer}\n\
         link set {end} arp off addrgenmode none\n\
         link set {end} up\n"
    ))?;
    // Off, so that the wire sees what would be on a cable: whole checksums, no segment above the MTU.
    outer
        .within(|| fed("ethtool", &["-K", "w1", "tx", "off", "gso", "off", "tso", "off"], "").map(drop))
        .context("ethtool")
}

impl Site {
    /// The address the internet knows a site by.
    pub(crate) fn public_v4(number: u8) -> Ipv4Addr {
        Place::Home.public_v4(number)
    }

    /// Its number, from 1.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The wire's port it stands at; the coordinator's is 0.
    pub(crate) fn port(&self) -> usize {
        usize::from(self.number)
    }

    /// The site's outermost namespace.
    pub(super) fn outer(&self) -> &Namespace {
        self.routers.last().unwrap_or(&self.host)
    }

    /// What is reached through its port.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let places = [Place::Home, Place::Away].into_iter().filter(|_| self.nat.has_ipv4());
        let v4 = places.map(|place| place.public_v4(self.number).into());
        let v6 = self.nat.has_ipv6().then(|| self.prefix_v6(0, 0).into());
        v4.chain(v6).collect()
    }

    /// An address of the site's /48.
    fn prefix_v6(&self, net: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, u16::from(self.number), net, 0, 0, 0, host)
    }

    /// Gives it interfaces, addresses, routes and rules.
    pub(super) fn build(&self, wire: &Namespace) -> anyhow::Result<()> {
        connect(self.outer(), wire, self.number)?;
        let public = Self::public_v4(self.number).to_string();
        self.outer().ip(&self.outer_lines(&public))?;
        let Some(home) = self.routers.first() else { return Ok(()) };
        self.lan(home)?;
        for (depth, router) in self.routers.iter().enumerate() {
            router.set("ipv4/ip_forward", "1")?;
            if self.nat.has_ipv6() {
                router.set("ipv6/conf/all/forwarding", "1")?;
            }
            let is_outer = depth + 1 == self.routers.len();
            let outside = if is_outer { public.clone() } else { self.inside_isp().to_string() };
            self.rule(router, &outside, &Moved::new())?;
        }
        Ok(())
    }

    fn rule(&self, router: &Namespace, public: &str, moved: &Moved) -> anyhow::Result<()> {
        let rules = self.nat.rules(public, moved);
        router
            .within(move || fed("nft", &["-f", "-"], &rules).map(drop))
            .with_context(|| format!("the rules of a {} router", self.nat))
    }

    /// Its outermost router forgets every mapping, and the host's UDP ports get other ones, from
    /// `first` up. A host without a router has no mapping.
    pub(crate) fn rebind(&self, place: Place, first: u16) -> anyhow::Result<()> {
        let router = self.routers.last().with_context(|| format!("a {} host has no mapping", self.nat))?;
        let known = router.within(|| fed("conntrack", &["-L", "-p", "udp"], ""))?;
        let moved: Moved = inner_ports(&known).into_iter().zip(first..).collect();
        self.rule(router, &place.public_v4(self.number).to_string(), &moved)?;
        forget_connections(router)
    }

    /// Its routers forget every mapping.
    pub(crate) fn reboot(&self, place: Place) -> anyhow::Result<()> {
        for (depth, router) in self.routers.iter().enumerate() {
            let is_outer = depth + 1 == self.routers.len();
            let outside = if is_outer { place.public_v4(self.number) } else { self.inside_isp() };
            self.rule(router, &outside.to_string(), &Moved::new())?;
            forget_connections(router)?;
        }
        Ok(())
    }

    /// The site gets the address of that place, and its outermost router forgets what it knew.
    pub(crate) fn move_to(&self, place: Place) -> anyhow::Result<()> {
        ensure!(self.nat.has_ipv4(), "a {} host has no IPv4 address to change", self.nat);
        let (old, new) = (place.other().public_v4(self.number), place.public_v4(self.number));
        self.outer().ip(&format!(
            "addr add {new}/32 dev w1\naddr del {old}/32 dev w1\nroute replace default dev w1\n"
        ))?;
        let Some(router) = self.routers.last() else { return Ok(()) };
        self.rule(router, &new.to_string(), &Moved::new())?;
        forget_connections(router)
    }

    /// The host's only interface loses its link.
    pub(crate) fn link_down(&self) -> anyhow::Result<()> {
        let interface = if self.routers.is_empty() { "w1" } else { "eth0" };
        self.host.ip(&format!("link set {interface} down\n"))
    }

    /// It comes back, with the routes that went with it.
    pub(crate) fn link_up(&self) -> anyhow::Result<()> {
        if self.routers.is_empty() {
            return self.host.ip("link set w1 up\nroute replace default dev w1\n");
        }
        self.host.ip("link set eth0 up\n")?;
        self.host.ip(&self.host_lines())
    }

    /// The outer interface: its addresses, and everything else behind it.
    fn outer_lines(&self, public: &str) -> String {
        let mut lines = String::from("link set w1 arp off addrgenmode none\nlink set w1 up\n");
        if self.nat.has_ipv4() {
            lines.push_str(&format!("addr add {public}/32 dev w1\nroute add default dev w1\n"));
        }
        if self.nat.has_ipv6() {
            let address = self.prefix_v6(0, 1);
            lines.push_str(&format!("addr add {address}/128 dev w1 nodad\nroute add ::/0 dev w1\n"));
        }
        lines
    }

    /// The home router's address in its provider's network.
    fn inside_isp(&self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.number, 2)
    }

    /// The home's network, and behind it the provider's if there is one.
    fn lan(&self, home: &Namespace) -> anyhow::Result<()> {
        let number = self.number;
        home.ip(&format!(
            "link add l1 mtu 1500 type veth peer name eth0 netns {}\nlink set l1 up\n",
            self.host
        ))?;
        self.host.ip("link set eth0 up\n")?;
        if self.nat.has_ipv4() {
            home.ip(&format!("addr add 10.{number}.0.1/24 dev l1\n"))?;
            self.host.ip(&format!(
                "addr add 10.{number}.0.2/24 dev eth0\nroute add default via 10.{number}.0.1\n"
            ))?;
        }
        if self.nat.has_ipv6() {
            let (router, host) = (self.prefix_v6(1, 1), self.prefix_v6(1, 2));
            home.ip(&format!("addr add {router}/64 dev l1 nodad\n"))?;
            self.host.ip(&format!("addr add {host}/64 dev eth0 nodad\nroute add ::/0 via {router}\n"))?;
        }
        if let [home, isp] = &self.routers[..] {
            isp.ip(&format!(
                "link add l1 mtu 1500 type veth peer name w1 netns {home}\nlink set l1 up\n\
                 addr add 100.64.{number}.1/24 dev l1\n"
            ))?;
            home.ip(&format!(
                "link set w1 up\naddr add {}/24 dev w1\nroute add default via 100.64.{number}.1\n",
                self.inside_isp()
            ))?;
        }
        Ok(())
    }

    /// The host's own addresses and routes, whether or not it has them already.
    fn host_lines(&self) -> String {
        let number = self.number;
        let mut lines = String::new();
        if self.nat.has_ipv4() {
            lines.push_str(&format!(
                "addr replace 10.{number}.0.2/24 dev eth0\nroute replace default via 10.{number}.0.1\n"
            ));
        }
        if self.nat.has_ipv6() {
            let (router, host) = (self.prefix_v6(1, 1), self.prefix_v6(1, 2));
            lines.push_str(&format!(
                "addr replace {host}/64 dev eth0 nodad\nroute replace ::/0 via {router}\n"
            ));
        }
        lines
    }
}

fn forget_connections(router: &Namespace) -> anyhow::Result<()> {
    router.within(|| fed("conntrack", &["-F"], "").map(drop))
}

/// The ports that connections came from, as `conntrack -L` lists them: each line has the way in
/// first, then the way back.
fn inner_ports(listed: &str) -> BTreeSet<u16> {
    let first =
        |line: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix("sport=")?.parse().ok());
    listed.lines().filter_map(first).collect()
}

/// Where a site is in the internet: each has an address in two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Home,
    Away,
}

impl Place {
    fn public_v4(self, number: u8) -> Ipv4Addr {
        match self {
            Self::Home => Ipv4Addr::new(203, 0, 113, number),
            Self::Away => Ipv4Addr::new(198, 51, 100, number),
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Home => Self::Away,
            Self::Away => Self::Home,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_ports_are_those_of_the_way_out() {
        let listed = "udp      17 29 src=10.1.0.2 dst=192.0.2.10 sport=5000 dport=7700 src=192.0.2.10 \
                      dst=203.0.113.1 sport=7700 dport=5000 [ASSURED] mark=0 use=1\n\
                      udp      17 9 src=10.1.0.2 dst=192.0.2.10 sport=5001 dport=7701 [UNREPLIED]\n\
                      conntrack v1.4.7: 2 flow entries have been shown.\n";
        assert_eq!(inner_ports(listed), BTreeSet::from([5_000, 5_001]));
    }
}
