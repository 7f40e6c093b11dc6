//! Sending one datagram, if need be so that it dies on its way.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{MsgHdr, SockAddr, SockRef};

/// Sends a datagram, or says that the socket has no room for it. `hops` is the life it gets, for this
/// datagram alone; none is the system's default.
pub(crate) fn send(socket: &UdpSocket, to: SocketAddr, datagram: &[u8], hops: Option<u8>) -> io::Result<()> {
    let to = suited(socket, to)?;
    let sent = match hops {
        None => socket.send_to(datagram, to)?,
        Some(hops) => send_briefly(socket, to, datagram, hops)?,
    };
    if sent == datagram.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// A socket of both families takes IPv4 addresses in IPv6 form only.
fn suited(socket: &UdpSocket, to: SocketAddr) -> io::Result<SocketAddr> {
    Ok(match to.ip().to_canonical() {
        IpAddr::V4(v4) if socket.local_addr()?.is_ipv6() => {
            SocketAddr::new(v4.to_ipv6_mapped().into(), to.port())
        }
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => SocketAddr::new(ip, to.port()),
    })
}

// Not by a socket option: QUIC sends on the same socket at the same time, and its packets are to
// arrive.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_briefly(socket: &UdpSocket, to: SocketAddr, datagram: &[u8], hops: u8) -> io::Result<usize> {
    let addr = SockAddr::from(to);
    let buffers = [IoSlice::new(datagram)];
    let control = control(to, hops);
    let message = MsgHdr::new().with_addr(&addr).with_buffers(&buffers).with_control(&control);
    SockRef::from(socket).sendmsg(&message, 0)
}

/// Elsewhere it lives as long as any other: a primer then may reach the peer, which ignores it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn send_briefly(socket: &UdpSocket, to: SocketAddr, datagram: &[u8], _hops: u8) -> io::Result<usize> {
    socket.send_to(datagram, to)
}

/// One control message of cmsg(3): length, level, type, and an int padded to the length's size.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn control(to: SocketAddr, hops: u8) -> Vec<u8> {
    // linux/in.h and linux/in6.h.
    const IPPROTO_IP: i32 = 0;
    const IP_TTL: i32 = 2;
    const IPPROTO_IPV6: i32 = 41;
    const IPV6_HOPLIMIT: i32 = 52;
    const BYTES: usize = size_of::<usize>() + 3 * size_of::<i32>();
    let (level, kind) =
        if to.ip().to_canonical().is_ipv4() { (IPPROTO_IP, IP_TTL) } else { (IPPROTO_IPV6, IPV6_HOPLIMIT) };
    let mut message = BYTES.to_ne_bytes().to_vec();
    for field in [level, kind, i32::from(hops)] {
        message.extend(field.to_ne_bytes());
    }
    message.resize(BYTES.next_multiple_of(size_of::<usize>()), 0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::bind_udp;

    #[test]
    fn a_socket_of_both_families_sends_to_ipv4_with_and_without_a_hop_limit() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (sender, to) = (bind_udp(0).unwrap(), receiver.local_addr().unwrap());
        for hops in [None, Some(4), None] {
            send(&sender, to, b"datagram", hops).unwrap();
            assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_reads_the_hop_limit_and_refuses_none_at_all() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        for sender in [bind_udp(0).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()] {
            let refused = send(&sender, receiver.local_addr().unwrap(), b"datagram", Some(0)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn an_address_of_a_family_the_socket_lacks_is_an_error() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(send(&sender, "[::1]:9".parse().unwrap(), b"datagram", None).is_err());
    }
}
