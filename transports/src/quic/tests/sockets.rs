//! STUN beside QUIC, and sockets that come and go.

use std::collections::BTreeSet;

use peerloom_proto::limits::DATAGRAM_BYTES_MAX;

use super::*;

fn stun(number: u16, size: usize) -> Vec<u8> {
    let mut datagram = vec![0x5a; size];
    datagram[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    datagram[8..10].copy_from_slice(&number.to_be_bytes());
    datagram
}

async fn next(transport: &QuicTransport) -> Datagram {
    let mut taken = timeout(Duration::from_secs(10), transport.datagrams(1)).await.expect("a datagram");
    taken.pop().expect("the transport is alive")
}

fn port_of(transport: &QuicTransport, socket: u16) -> SocketAddr {
    let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
    transport.send_datagram(socket, probe.local_addr().unwrap(), &stun(0, 20), None).unwrap();
    let (_, from) = probe.recv_from(&mut [0; 64]).unwrap();
    from
}

/// Frames and STUN go to the same port in small bursts, which the kernel coalesces as it likes and has
/// room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stun_and_quic_share_a_port_and_nothing_of_either_is_lost() {
    let (dialler, acceptor) = (transport(), transport());
    acceptor.expect(CONN, dialler.local_cert(), soon()).unwrap();
    let near = dialler.dial(&peer_of(&acceptor), soon()).await.unwrap();
    let far = acceptor.accept().await.unwrap();
    let to = acceptor.local_addr().unwrap();
    for round in 0..400_u16 {
        let size = 20 + usize::from(round % 500);
        let frames: Vec<Bytes> =
            (0..8_u16).map(|n| Bytes::from((round + n).to_be_bytes().repeat(600))).collect();
        near.send_many(frames.clone()).await.unwrap();
        for number in 0..4 {
            dialler.send_datagram(0, to, &stun(round + number, size), None).unwrap();
        }
        for frame in frames {
            assert_eq!(far.recv().await.unwrap(), frame);
        }
        for number in 0..4 {
            let expected = stun(round + number, size).into();
            let from = dialler.local_addr().unwrap();
            assert_eq!(next(&acceptor).await, Datagram { socket: 0, from, bytes: expected });
        }
    }
    assert_eq!(acceptor.datagrams_dropped(), 0);
}

#[tokio::test]
async fn oversize_stun_is_dropped_and_counted_and_garbage_leaves_no_trace() {
    let acceptor = transport();
    let [further] = acceptor.open_sockets(1)[..] else { panic!("a socket") };
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for to in [
        acceptor.local_addr().unwrap(),
        SocketAddr::from(([127, 0, 0, 1], port_of(&acceptor, further).port())),
    ] {
        let dropped = acceptor.datagrams_dropped();
        sender.send_to(&stun(1, DATAGRAM_BYTES_MAX + 1), to).unwrap();
        for size in [0, 1, 19, 60, 1_400] {
            sender.send_to(&vec![0x11; size], to).unwrap();
        }
        sender.send_to(&stun(2, 24), to).unwrap();
        assert_eq!(next(&acceptor).await.bytes, stun(2, 24));
        assert_eq!(acceptor.datagrams_dropped(), dropped + 1);
    }
}

#[tokio::test]
async fn further_sockets_have_names_and_ports_of_their_own_and_are_freed_when_closed() {
    let transport = transport();
    let names = transport.open_sockets(8);
    let distinct: BTreeSet<u16> = names.iter().copied().collect();
    assert_eq!((names.len(), distinct.len(), distinct.contains(&0)), (8, 8, false));
    let ports: BTreeSet<u16> = names.iter().map(|name| port_of(&transport, *name).port()).collect();
    assert_eq!(ports.len(), 8);

    transport.close_sockets(&names);
    transport.close_sockets(&[0, 9_999]);
    let gone = transport.send_datagram(names[0], transport.local_addr().unwrap(), &stun(0, 20), None);
    assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    // The ports can be had again once the readers have noticed.
    for port in ports {
        timeout(Duration::from_secs(10), async {
            while UdpSocket::bind(("127.0.0.1", port)).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the port is free");
    }
    assert!(transport.open_sockets(1).iter().all(|name| !distinct.contains(name)), "names are not reused");
}

#[tokio::test]
async fn further_sockets_are_bounded() {
    let transport = transport();
    let opened = transport.open_sockets(u16::MAX);
    assert!(opened.len() <= super::super::sockets::FURTHER_MAX, "{}", opened.len());
    assert!(opened.len() >= 64, "{}", opened.len());
    transport.close_sockets(&opened);
    assert_eq!(transport.open_sockets(1).len(), 1);
}

/// The port that got through by STUN is the one that carries the link, at both ends.
#[tokio::test]
async fn a_link_is_made_between_two_further_sockets_and_keeps_them_until_it_ends() {
    let (dialler, acceptor) = (transport(), transport());
    let (from, to) = (dialler.open_sockets(3), acceptor.open_sockets(3));
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&acceptor, to[1]).port()));
    acceptor.expect(CONN, dialler.local_cert(), soon()).unwrap();
    let peer = PeerAddr::new(CONN, acceptor.local_cert(), &[addr], CandidateScope::WithLoopback);
    let near = dialler.dial_from(from[2], &peer, soon()).await.unwrap();
    let far = acceptor.accept().await.unwrap();
    let expected = SocketAddr::from(([127, 0, 0, 1], port_of(&dialler, from[2]).port()));
    assert_eq!((near.properties().remote, far.properties().remote), (Some(addr), Some(expected)));

    dialler.close_sockets(&from);
    acceptor.close_sockets(&to);
    near.send(Bytes::from_static(b"still there")).await.unwrap();
    assert_eq!(far.recv().await.unwrap(), &b"still there"[..]);
    // STUN goes on beside it, too.
    dialler.send_datagram(from[2], addr, &stun(7, 20), None).unwrap();
    assert_eq!(next(&acceptor).await, Datagram { socket: to[1], from: expected, bytes: stun(7, 20).into() });

    drop((near, far));
    timeout(Duration::from_secs(10), async {
        while acceptor.send_datagram(to[1], addr, &stun(7, 20), None).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the socket went with its link");
}

#[tokio::test]
async fn a_further_socket_takes_no_stranger_for_a_reason_to_carry_quic() {
    let acceptor = transport();
    let [further] = acceptor.open_sockets(1)[..] else { panic!("a socket") };
    let addr = SocketAddr::from(([127, 0, 0, 1], port_of(&acceptor, further).port()));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[0xc3; 1_200], addr).unwrap();
    stranger.send_to(&stun(1, 20), addr).unwrap();
    assert_eq!(next(&acceptor).await.socket, further);
    assert_eq!(acceptor.sockets.endpoints().len(), 1);
}

#[tokio::test]
async fn a_dial_from_a_closed_socket_says_so() {
    let (dialler, acceptor) = (transport(), transport());
    let dialled = dialler.dial_from(3, &peer_of(&acceptor), soon()).await;
    assert!(matches!(dialled, Err(DialError::NoSocket { socket: 3 })), "{dialled:?}");
}
