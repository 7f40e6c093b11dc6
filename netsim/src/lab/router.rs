//! What stands between a host and the internet: nothing, or a router with nftables.
//!
//! Each NAT was told by a probe to be what its name says (`netsim lab check` does it again). Two
//! things every one of them needs: new packets from outside are dropped in `input` as well as in
//! `forward`, because an early punch packet that reaches the router itself claims the very tuple
//! that the host behind it is about to use; and the chains have names that are no keywords.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// UDP ports of a host, and the ports they have outside.
pub(super) type Moved = BTreeMap<u16, u16>;

/// How a host stands in the internet. The words are those of scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Nat {
    /// A public IPv4 address of its own.
    None,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping; only addresses that were sent to get in.
    AddressRestricted,
    /// Endpoint-independent mapping; only address and port that were sent to get in.
    PortRestricted,
    /// A random port for each destination; only that destination gets in.
    Symmetric,
    /// Port-restricted for TCP, and no UDP at all.
    UdpBlocked,
    /// A port-restricted home router behind a port-restricted NAT of the provider's.
    Cgnat,
    /// A public IPv6 address behind a stateful firewall, and no IPv4.
    Ipv6Only,
    /// Port-restricted IPv4, and a public IPv6 address behind a stateful firewall.
    DualStack,
}

impl Nat {
    /// The kinds that the matrix crosses unless told otherwise.
    pub(crate) const MATRIX: [Self; 6] = [
        Self::None,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::UdpBlocked,
    ];

    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FullCone => "full_cone",
            Self::AddressRestricted => "address_restricted",
            Self::PortRestricted => "port_restricted",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp_blocked",
            Self::Cgnat => "cgnat",
            Self::Ipv6Only => "ipv6_only",
            Self::DualStack => "dual_stack",
        }
    }

    pub(crate) fn has_ipv4(self) -> bool {
        self != Self::Ipv6Only
    }

    pub(crate) fn has_ipv6(self) -> bool {
        matches!(self, Self::Ipv6Only | Self::DualStack)
    }

    /// Routers between the host and the internet.
    pub(super) fn routers(self) -> usize {
        match self {
            Self::None => 0,
            Self::FullCone
            | Self::AddressRestricted
            | Self::PortRestricted
            | Self::Symmetric
            | Self::UdpBlocked
            | Self::Ipv6Only
            | Self::DualStack => 1,
            Self::Cgnat => 2,
        }
    }

    /// What `nft -f` is given in a router whose outer address is `public`. UDP ports of the host
    /// that are in `moved` come out as those instead of as themselves. (Of a symmetric NAT every
    /// port is random.)
    pub(super) fn rules(self, public: &str, moved: &Moved) -> String {
        let mut rules = String::from("flush ruleset\n");
        if self.has_ipv4() {
            let translation = match self {
                Self::FullCone => full_cone(public, moved),
                Self::AddressRestricted => address_restricted(public, moved),
                Self::Symmetric => SYMMETRIC.to_owned(),
                Self::UdpBlocked => format!("{UDP_BLOCKED}{}", port_restricted(moved)),
                Self::None | Self::PortRestricted | Self::Cgnat | Self::Ipv6Only | Self::DualStack => {
                    port_restricted(moved)
                }
            };
            rules.push_str(&format!("table ip lab {{\n{translation}{CLOSED}}}\n"));
        }
        if self.has_ipv6() {
            rules.push_str(&format!("table ip6 lab {{\n{CLOSED}}}\n"));
        }
        rules
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Nothing new from outside, neither to the router itself nor through it. Where the destination was
/// translated, the map has decided that it may pass.
const CLOSED: &str = r#"
  chain c_in { type filter hook input priority 0; policy accept; iifname "w1" drop; }
  chain c_fwd { type filter hook forward priority 0; policy accept;
    iifname "w1" ct state established,related accept;
    iifname "w1" ct status dnat accept;
    iifname "w1" drop; }
"#;

const SYMMETRIC: &str = r#"
  chain c_post { type nat hook postrouting priority 100;
    oifname "w1" meta l4proto { tcp, udp } masquerade to :1024-65535 fully-random;
    oifname "w1" masquerade; }
"#;

const UDP_BLOCKED: &str = r#"
  chain c_udp { type filter hook forward priority -10; policy accept; meta l4proto udp drop; }
"#;

/// The map of a cone: which host a port of the public address belongs to.
const CONE: &str = "  map fc { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 120s; size 65535; }\n";

fn port_restricted(moved: &Moved) -> String {
    let moved = moved
        .iter()
        .map(|(inner, outer)| format!("    oifname \"w1\" udp sport {inner} masquerade to :{outer};\n"));
    format!(
        r#"
  chain c_post {{ type nat hook postrouting priority 100;
{}    oifname "w1" masquerade; }}
"#,
        moved.collect::<String>()
    )
}

/// Enters the host into the map under its outer port, and gives it the public address.
fn cone(public: &str, moved: &Moved) -> String {
    let moved = moved.iter().map(|(inner, outer)| {
        format!(
            "    oifname \"w1\" udp sport {inner} update @fc {{ {outer} : ip saddr . udp sport }} \
             snat to {public}:{outer};\n"
        )
    });
    format!(
        r#"
  chain c_post {{ type nat hook postrouting priority 100;
{}    oifname "w1" meta l4proto udp update @fc {{ udp sport : ip saddr . udp sport }};
    oifname "w1" snat to {public}; }}
"#,
        moved.collect::<String>()
    )
}

fn full_cone(public: &str, moved: &Moved) -> String {
    format!(
        r#"{CONE}
  chain c_pre {{ type nat hook prerouting priority -100;
    iifname "w1" meta l4proto udp dnat ip to udp dport map @fc; }}
{}"#,
        cone(public, moved)
    )
}

fn address_restricted(public: &str, moved: &Moved) -> String {
    let permits = moved.iter().map(|(inner, outer)| {
        format!("    oifname \"w1\" udp sport {inner} update @perm {{ {outer} . ip daddr }} return;\n")
    });
    format!(
        r#"{CONE}
  set perm {{ type inet_service . ipv4_addr; flags dynamic,timeout; timeout 120s; size 65535; }}
  chain c_pre {{ type nat hook prerouting priority -100;
    iifname "w1" meta l4proto udp udp dport . ip saddr @perm dnat ip to udp dport map @fc; }}
  chain c_perm {{ type filter hook postrouting priority 90;
{}    oifname "w1" meta l4proto udp update @perm {{ udp sport . ip daddr }}; }}
{}"#,
        permits.collect::<String>(),
        cone(public, moved)
    )
}
