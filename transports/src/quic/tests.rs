mod paths;
mod sockets;

use std::net::UdpSocket;

use bytes::Bytes;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use quinn::SendStream;

use super::*;
use crate::conformance::{self, TransportPair};
use crate::udp::bind_udp;

const CONN: ConnId = ConnId([9; 16]);

fn transport() -> QuicTransport {
    QuicTransport::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn peer_of(acceptor: &QuicTransport) -> PeerAddr {
    let scope = CandidateScope::WithLoopback;
    PeerAddr::new(CONN, acceptor.local_cert(), &acceptor.candidates(scope), scope)
}

/// One attempt from a transport's own socket.
async fn attempt(from: &QuicTransport, config: ClientConfig, addr: SocketAddr) -> io::Result<Connection> {
    let endpoint = from.sockets.endpoint(MAIN).unwrap().unwrap();
    QuicTransport::attempt(&endpoint, config, addr).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    conformance::all(TransportPair {
        dialler: Box::new(transport()),
        acceptor: Box::new(transport()),
        silent: silent.local_addr().unwrap(),
        scope: CandidateScope::WithLoopback,
    })
    .await;
}

#[tokio::test]
async fn a_dual_stack_socket_reaches_an_ipv4_one_and_shows_its_address_as_ipv4() {
    let dialler = QuicTransport::new(bind_udp(0).unwrap()).unwrap();
    let acceptor = transport();
    acceptor.expect(CONN, dialler.local_cert(), soon()).unwrap();
    let link = dialler.dial(&peer_of(&acceptor), soon()).await.unwrap();
    assert_eq!(link.properties().remote, Some(acceptor.local_addr().unwrap()));
}

#[tokio::test]
async fn datagrams_of_garbage_do_not_keep_a_peer_out() {
    let (dialler, acceptor) = (transport(), transport());
    acceptor.expect(CONN, dialler.local_cert(), soon()).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 1_u32;
    for size in [0, 1, 20, 1200, 1452, 9000].repeat(50) {
        let mut garbage = vec![0; size];
        for byte in &mut garbage {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
        // Half of them look like the start of a QUIC version 1 handshake.
        if state & 1 == 0 && size > 5 {
            garbage[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        stranger.send_to(&garbage, acceptor.local_addr().unwrap()).unwrap();
    }
    let _link = dialler.dial(&peer_of(&acceptor), soon()).await.unwrap();
    acceptor.accept().await.unwrap();
}

/// An expected peer that does not keep to the framing: raw stream at its end, our link at the other.
async fn rude_peer() -> (QuicTransport, Connection, SendStream, Box<dyn PeerLink>) {
    let (dialler, acceptor) = (transport(), transport());
    acceptor.expect(CONN, dialler.local_cert(), soon()).unwrap();
    let verifier = Arc::new(ExpectedServer::new(acceptor.local_cert()));
    let config = client_config(&dialler.credential, verifier);
    let connection = attempt(&dialler, config, acceptor.local_addr().unwrap()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(CONN.as_bytes()).await.unwrap();
    let link = acceptor.accept().await.unwrap();
    // The acceptor must outlive its link: leak it into a task that ends with the runtime.
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(acceptor);
    });
    (dialler, connection, send, link)
}

#[tokio::test]
async fn a_huge_length_prefix_closes_the_link_and_the_peer_is_told_why() {
    for length in [u32::MAX, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1] {
        let (_dialler, connection, mut send, link) = rude_peer().await;
        send.write_all(&length.to_be_bytes()).await.unwrap();
        assert!(matches!(link.recv().await, Err(LinkError::Malformed { .. })));
        assert!(matches!(link.send(Bytes::new()).await, Err(LinkError::Malformed { .. })));
        assert_eq!(link_error(&connection.closed().await), LinkError::Closed(CloseReason::Misbehaved));
    }
}

#[tokio::test]
async fn random_bytes_on_the_stream_end_the_link_without_harm() {
    let (_dialler, _connection, mut send, link) = rude_peer().await;
    send.write_all(&[0, 0, 0, 2, b'o', b'k', 0xde, 0xad, 0xbe, 0xef, 1, 2, 3]).await.unwrap();
    assert_eq!(link.recv().await.as_deref(), Ok(&b"ok"[..]));
    assert!(matches!(link.recv().await, Err(LinkError::Malformed { .. })));
}

#[tokio::test]
async fn a_stream_cut_inside_a_frame_is_malformed() {
    let (_dialler, _connection, mut send, link) = rude_peer().await;
    send.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::Malformed { .. })));
}

#[tokio::test]
async fn a_peer_that_resets_its_stream_loses_the_link() {
    let (_dialler, connection, mut send, link) = rude_peer().await;
    send.reset(VarInt::from_u32(7)).unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::Lost(_))));
    connection.closed().await;
}

#[tokio::test]
async fn two_conns_of_the_same_two_processes_are_told_apart() {
    let (dialler, acceptor) = (transport(), transport());
    let conns = [ConnId([1; 16]), ConnId([2; 16])];
    for conn in conns {
        acceptor.expect(conn, dialler.local_cert(), soon()).unwrap();
    }
    let mut dialled = Vec::new();
    for conn in conns.into_iter().rev() {
        let mut peer = peer_of(&acceptor);
        peer.conn = conn;
        dialled.push(dialler.dial(&peer, soon()).await.unwrap());
    }
    let mut named = Vec::new();
    let mut accepted = Vec::new();
    for _ in conns {
        let link = acceptor.accept().await.unwrap();
        named.push(link.properties().binding.unwrap().conn);
        accepted.push(link);
    }
    named.sort();
    assert_eq!(named, conns);
}

#[tokio::test]
async fn a_dial_without_usable_candidates_says_so() {
    let peer = PeerAddr::new(
        CONN,
        CertHash([1; 32]),
        &["127.0.0.1:9".parse().unwrap(), "224.0.0.1:9".parse().unwrap()],
        CandidateScope::Routable,
    );
    assert!(matches!(transport().dial(&peer, soon()).await, Err(DialError::NoCandidates)));
}

#[tokio::test]
async fn a_transport_that_is_shut_down_dials_nobody() {
    let (dialler, acceptor) = (transport(), transport());
    dialler.shut_down().await;
    let dialled = dialler.dial(&peer_of(&acceptor), soon()).await;
    assert!(matches!(dialled, Err(DialError::ShutDown)), "{dialled:?}");
}

#[tokio::test]
async fn an_unexpected_certificate_fails_in_tls_before_any_stream() {
    let (dialler, acceptor) = (transport(), transport());
    acceptor.expect(CONN, CertHash([1; 32]), soon()).unwrap();
    let config = client_config(&dialler.credential, Arc::new(ExpectedServer::new(acceptor.local_cert())));
    let ended = match attempt(&dialler, config, acceptor.local_addr().unwrap()).await {
        Ok(connection) => connection.closed().await,
        Err(error) => error.downcast().unwrap(),
    };
    // RFC 9001 §4.8: 0x100 and above are TLS alerts.
    let ConnectionError::ConnectionClosed(close) = ended else { panic!("{ended:?}") };
    assert!(u64::from(close.error_code) >= 0x100, "{close:?}");
}
