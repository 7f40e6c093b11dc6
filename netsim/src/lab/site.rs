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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;

use super::enter::fed;
use super::namespace::Namespace;
use super::router::Nat;

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
    /// The address the internet knows the site by.
    pub(crate) fn public_v4(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, number)
    }

    /// Its number, from 1.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The site's outermost namespace.
    pub(super) fn outer(&self) -> &Namespace {
        self.routers.last().unwrap_or(&self.host)
    }

    /// What is reached through its port.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.nat.has_ipv4().then(|| Self::public_v4(self.number).into());
        let v6 = self.nat.has_ipv6().then(|| self.prefix_v6(0, 0).into());
        v4.into_iter().chain(v6).collect()
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
        for (place, router) in self.routers.iter().enumerate() {
            router.set("ipv4/ip_forward", "1")?;
            if self.nat.has_ipv6() {
                router.set("ipv6/conf/all/forwarding", "1")?;
            }
            let is_outer = place + 1 == self.routers.len();
            let outside = if is_outer { public.clone() } else { self.inside_isp().to_string() };
            let rules = self.nat.rules(&outside);
            router
                .within(move || fed("nft", &["-f", "-"], &rules).map(drop))
                .with_context(|| format!("the rules of a {} router", self.nat))?;
        }
        Ok(())
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
}
