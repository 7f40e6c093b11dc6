//! The UDP sockets of a node, and the addresses it can be reached at.

mod demux;
mod hops;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use peerloom_proto::limits::CANDIDATES_MAX;
use rustix::net::sockopt;
use tracing::debug;

pub use demux::Datagram;
#[cfg(feature = "webrtc")]
pub(crate) use demux::Sharer;
pub(crate) use demux::{SharedSocket, SharerSlot, StunQueue};
pub(crate) use hops::send;
pub use watch::AddressWatch;

/// Room asked of the kernel in each direction. Its default of about 200 KiB drops packets while a
/// busy runtime looks elsewhere, which SCTP takes for congestion; the kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Which addresses are offered and tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateScope {
    /// Addresses other machines can use.
    Routable,
    /// Also loopback, first: the coordinator itself is on a loopback address, or a setting says so.
    WithLoopback,
}

/// Binds `port` (0: any) on all addresses, both families through one socket where the system allows
/// it, else IPv4 alone.
pub fn bind_udp(port: u16) -> io::Result<UdpSocket> {
    let dual = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .ok()
        .filter(|socket| sockopt::ipv6_v6only(socket).is_ok_and(|only_v6| !only_v6));
    let socket = match dual {
        Some(socket) => socket,
        None => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?,
    };
    widen(&socket);
    Ok(socket)
}

pub(crate) fn widen(socket: &UdpSocket) {
    let receive = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES);
    let send = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES);
    if let Err(error) = receive.and(send) {
        debug!(%error, "The kernel keeps its own UDP buffer sizes.");
    }
}

/// An address as people and the protocol write it: IPv4 never in IPv6 form.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Where a socket bound to `local` can be reached from, best first.
pub(crate) fn candidates(local: SocketAddr, scope: CandidateScope) -> Vec<SocketAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        debug!(%error, "The interfaces cannot be listed.");
        Vec::new()
    });
    // An interface that is down, or has no carrier, keeps its address.
    let up = interfaces.into_iter().filter(if_addrs::Interface::is_oper_up);
    let addresses: Vec<(String, IpAddr)> =
        up.map(|interface| (interface.name.clone(), interface.ip())).collect();
    arrange(&addresses, local, scope)
}

fn arrange(addresses: &[(String, IpAddr)], local: SocketAddr, scope: CandidateScope) -> Vec<SocketAddr> {
    let bound = local.ip().to_canonical();
    let mut found: Vec<(Tier, SocketAddr)> = if bound.is_unspecified() {
        addresses
            .iter()
            .map(|(name, ip)| (tier(name, *ip), SocketAddr::new(*ip, local.port())))
            .filter(|(_, addr)| local.is_ipv6() || addr.is_ipv4())
            .collect()
    } else {
        vec![(tier("", bound), SocketAddr::new(bound, local.port()))]
    };
    found.retain(|(_, addr)| usable(*addr, scope));
    found.sort_by_key(|(tier, _)| *tier);
    let mut arranged: Vec<SocketAddr> = Vec::new();
    for (_, addr) in found {
        if !arranged.contains(&addr) && arranged.len() < CANDIDATES_MAX {
            arranged.push(addr);
        }
    }
    arranged
}

/// Whether an address may be offered, and whether a peer may make us send to it.
pub(crate) fn usable(addr: SocketAddr, scope: CandidateScope) -> bool {
    let ip = addr.ip().to_canonical();
    let narrow = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let loopback_allowed = match scope {
        CandidateScope::Routable => false,
        CandidateScope::WithLoopback => true,
    };
    addr.port() != 0
        && !narrow
        && !ip.is_multicast()
        && !ip.is_unspecified()
        && (loopback_allowed || !ip.is_loopback())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Loopback,
    Lan,
    GlobalV6,
    GlobalV4,
    // Good to nobody but containers of this host, and many: they must not bury the good ones.
    Bridge,
}

fn tier(interface: &str, ip: IpAddr) -> Tier {
    const BRIDGES: [&str; 9] = ["docker", "br-", "veth", "virbr", "cni", "podman", "lxc", "lxdbr", "vmnet"];
    if ip.is_loopback() {
        return Tier::Loopback;
    }
    if BRIDGES.iter().any(|prefix| interface.starts_with(prefix)) {
        return Tier::Bridge;
    }
    match ip {
        IpAddr::V4(v4) if v4.is_private() => Tier::Lan,
        IpAddr::V4(_) => Tier::GlobalV4,
        IpAddr::V6(v6) if v6.is_unique_local() => Tier::Lan,
        IpAddr::V6(_) => Tier::GlobalV6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<(String, IpAddr)> {
        [
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("eth0", "198.51.100.4"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::4"),
            ("veth12ab", "169.254.3.4"),
            ("eth1", "192.168.1.20"),
        ]
        .map(|(name, ip)| (name.to_owned(), ip.parse().unwrap()))
        .to_vec()
    }

    fn arranged(local: &str, scope: CandidateScope) -> Vec<String> {
        arrange(&host(), local.parse().unwrap(), scope).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn candidates_run_from_lan_to_container_bridges_and_leave_out_what_does_not_travel() {
        assert_eq!(
            arranged("[::]:9", CandidateScope::Routable),
            ["192.168.1.20:9", "[2001:db8::4]:9", "198.51.100.4:9", "172.17.0.1:9"]
        );
    }

    #[test]
    fn loopback_comes_first_and_only_when_asked_for() {
        assert_eq!(
            arranged("0.0.0.0:9", CandidateScope::WithLoopback),
            ["127.0.0.1:9", "192.168.1.20:9", "198.51.100.4:9", "172.17.0.1:9"]
        );
    }

    #[test]
    fn a_socket_bound_to_one_address_offers_that_one() {
        assert_eq!(arranged("127.0.0.1:9", CandidateScope::WithLoopback), ["127.0.0.1:9"]);
        assert!(arranged("127.0.0.1:9", CandidateScope::Routable).is_empty());
    }

    #[test]
    fn a_hundred_addresses_are_cut_to_the_limit() {
        let many: Vec<_> = (0..100).map(|n| ("eth0".to_owned(), IpAddr::from([10, 0, 0, n]))).collect();
        let kept = arrange(&many, "0.0.0.0:9".parse().unwrap(), CandidateScope::Routable);
        assert_eq!(kept.len(), CANDIDATES_MAX);
    }

    #[test]
    fn a_peer_cannot_aim_us_at_multicast_broadcast_port_zero_or_a_mapped_loopback() {
        for refused in
            ["224.0.0.1:9", "255.255.255.255:9", "10.0.0.1:0", "[::ffff:127.0.0.1]:9", "[ff02::1]:9"]
        {
            assert!(!usable(refused.parse().unwrap(), CandidateScope::Routable), "{refused}");
        }
        assert!(usable("10.0.0.1:9".parse().unwrap(), CandidateScope::Routable));
    }

    #[test]
    fn the_node_socket_takes_ipv4_whatever_the_family() {
        let socket = bind_udp(0).unwrap();
        let port = socket.local_addr().unwrap().port();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
    }
}
