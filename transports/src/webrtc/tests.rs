use std::net::UdpSocket;

use bytes::{Bytes, BytesMut};
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::stun::{StunMessage, binding_request, signed_request};
use tokio::time::timeout;

use super::*;
use crate::conformance::{self, TransportPair};
use crate::udp::bind_udp;

const CONN: ConnId = ConnId([9; 16]);

/// A node's socket, and the two transports on it.
struct Node {
    webrtc: WebRtcTransport,
    quic: QuicTransport,
}

fn node() -> Node {
    node_on(UdpSocket::bind("127.0.0.1:0").unwrap())
}

fn node_on(socket: UdpSocket) -> Node {
    let quic = QuicTransport::new(socket).unwrap();
    Node { webrtc: WebRtcTransport::new(&quic).unwrap(), quic }
}

impl Node {
    fn addr(&self) -> SocketAddr {
        self.quic.local_addr().unwrap()
    }

    /// Where to dial this node under `conn`, which it expects `from` to do.
    fn expecting(&self, from: &Self, conn: ConnId) -> PeerAddr {
        self.webrtc.expect(conn, from.webrtc.local_cert(), soon()).unwrap();
        PeerAddr::new(conn, self.webrtc.local_cert(), &[self.addr()], CandidateScope::WithLoopback)
    }

    /// A link to `far`, this end first.
    async fn linked(&self, far: &Self, conn: ConnId) -> (Box<dyn PeerLink>, Box<dyn PeerLink>) {
        let near = self.webrtc.dial(&far.expecting(self, conn), soon()).await.unwrap();
        (near, far.webrtc.accept().await.unwrap())
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn carries(from: &dyn PeerLink, to: &dyn PeerLink, what: &'static [u8]) {
    from.send(Bytes::from_static(what)).await.unwrap();
    assert_eq!(to.recv().await.as_deref(), Ok(what));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (dialler, acceptor) = (node(), node());
    conformance::all(TransportPair {
        dialler: Box::new(dialler.webrtc),
        acceptor: Box::new(acceptor.webrtc),
        silent: silent.local_addr().unwrap(),
        scope: CandidateScope::WithLoopback,
    })
    .await;
}

#[tokio::test]
async fn quic_and_webrtc_share_one_socket_at_each_end() {
    let (near, far) = (node(), node());
    let (a, b) = near.linked(&far, CONN).await;
    far.quic.expect(CONN, near.quic.local_cert(), soon()).unwrap();
    let peer = PeerAddr::new(CONN, far.quic.local_cert(), &[far.addr()], CandidateScope::WithLoopback);
    let c = near.quic.dial(&peer, soon()).await.unwrap();
    let d = far.quic.accept().await.unwrap();
    for (from, to) in [(&a, &b), (&c, &d), (&b, &a), (&d, &c)] {
        carries(&**from, &**to, b"beside each other").await;
    }
    assert_eq!(a.properties().remote, Some(far.addr()));
    assert_eq!(b.properties().remote, Some(near.addr()));
}

#[tokio::test]
async fn a_second_link_of_two_nodes_leaves_the_first_alone() {
    let (near, far) = (node(), node());
    let (a, b) = near.linked(&far, CONN).await;
    let talking = async {
        for _ in 0..200 {
            carries(&*a, &*b, b"first").await;
            carries(&*b, &*a, b"first").await;
        }
    };
    let (second, ()) = tokio::join!(near.linked(&far, ConnId([2; 16])), talking);
    let (c, d) = second;
    // And one that was dialled the other way.
    let (e, f) = far.linked(&near, ConnId([3; 16])).await;
    for (from, to) in [(&a, &b), (&d, &c), (&c, &d), (&e, &f), (&b, &a)] {
        carries(&**from, &**to, b"each on its own").await;
    }
    drop((c, e));
    assert_eq!(d.recv().await, Err(LinkError::Closed(CloseReason::Finished)));
    assert_eq!(f.recv().await, Err(LinkError::Closed(CloseReason::Finished)));
    carries(&*a, &*b, b"still").await;
}

#[tokio::test]
async fn a_dual_stack_socket_reaches_an_ipv4_one_and_shows_its_address_as_ipv4() {
    let (near, far) = (node_on(bind_udp(0).unwrap()), node());
    let (a, b) = near.linked(&far, CONN).await;
    carries(&*a, &*b, b"over IPv4").await;
    assert_eq!(a.properties().remote, Some(far.addr()));
    assert!(b.properties().remote.unwrap().is_ipv4());
}

#[tokio::test]
async fn a_conn_that_was_used_is_refused_at_once() {
    let (near, far) = (node(), node());
    let peer = far.expecting(&near, CONN);
    let link = near.webrtc.dial(&peer, soon()).await.unwrap();
    drop((link, far.webrtc.accept().await.unwrap()));
    while near.webrtc.open_links() + far.webrtc.open_links() > 0 {
        sleep(LOOK_EVERY).await;
    }
    let again = timeout(Duration::from_secs(2), near.webrtc.dial(&peer, soon())).await;
    assert!(matches!(again, Ok(Err(DialError::Refused))), "{again:?}");
}

#[tokio::test]
async fn an_address_that_is_learned_late_will_do() {
    let (near, far) = (node(), node());
    let peer = far.expecting(&near, CONN);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let scope = CandidateScope::WithLoopback;
    let elsewhere = PeerAddr::new(CONN, peer.peer_cert, &[silent.local_addr().unwrap()], scope);
    let (link, ()) = tokio::join!(near.webrtc.dial(&elsewhere, soon()), async {
        sleep(Duration::from_millis(50)).await;
        near.webrtc.learn(&CONN, &[far.addr()], scope);
    });
    carries(&*link.unwrap(), &*far.webrtc.accept().await.unwrap(), b"found").await;
}

#[tokio::test]
async fn an_expected_peer_with_credentials_of_its_own_is_asked_in_turn() {
    let far = node();
    let browser = UdpSocket::bind("127.0.0.1:0").unwrap();
    browser.set_nonblocking(true).unwrap();
    let browser = tokio::net::UdpSocket::from_std(browser).unwrap();
    let candidates = [browser.local_addr().unwrap()];
    let peer = PeerAddr::new(CONN, CertHash([1; 32]), &candidates, CandidateScope::WithLoopback);
    let chosen = IceCredentials::chosen("abcd", "0123456789012345678901");
    far.webrtc.expect_peer(peer.with_ice(chosen), soon()).unwrap();
    let mut check = [0; 600];
    let length = browser.recv(&mut check).await.unwrap();
    let asked = StunMessage::parse(&check[..length]).unwrap();
    let own = IceCredentials::of(&CONN, BindRole::Acceptor);
    assert_eq!(asked.username, Some(format!("abcd:{}", own.ufrag()).as_bytes()));
}

#[tokio::test]
async fn a_dropped_dial_gives_its_place_up() {
    let (near, silent) = (node(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let silent = silent.local_addr().unwrap();
    let peer = PeerAddr::new(CONN, CertHash([1; 32]), &[silent], CandidateScope::WithLoopback);
    let dialled = timeout(Duration::from_millis(50), near.webrtc.dial(&peer, soon())).await;
    assert!(dialled.is_err(), "{dialled:?}");
    assert!(near.webrtc.shared.sessions.is_empty(), "{:?}", near.webrtc.shared.sessions);
    assert_eq!(near.webrtc.open_links(), 0);
}

#[tokio::test]
async fn checks_of_the_machine_are_left_to_it() {
    let near = node();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let checks = [
        binding_request(&[1; 12]),
        signed_request(&[2; 12], &"ab".repeat(16), &[3; 32]),
        signed_request(&[3; 12], "not:ours", &[3; 32]),
    ];
    for check in &checks {
        stranger.send_to(check, near.addr()).unwrap();
    }
    let mut came = Vec::new();
    while came.len() < checks.len() {
        came.extend(near.quic.datagrams(8).await);
    }
    assert_eq!(came.iter().map(|datagram| datagram.bytes.clone()).collect::<Vec<_>>(), checks);
}

#[tokio::test]
async fn garbage_and_forged_checks_do_not_keep_a_peer_out() {
    let (near, far) = (node(), node());
    let peer = far.expecting(&near, CONN);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = IceCredentials::of(&CONN, BindRole::Acceptor);
    let forged = signed_request(&[4; 12], &format!("{}:ab", name.ufrag()), b"not the password");
    let mut state = 1_u32;
    for size in [1, 13, 20, 100, 1200].repeat(50) {
        stranger.send_to(&forged, far.addr()).unwrap();
        let mut garbage = vec![0; size];
        for byte in &mut garbage {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
        // The first bytes of DTLS, and those of nothing.
        garbage[0] = [20, 22, 23, 64][size % 4];
        stranger.send_to(&garbage, far.addr()).unwrap();
    }
    let link = near.webrtc.dial(&peer, soon()).await.unwrap();
    carries(&*link, &*far.webrtc.accept().await.unwrap(), b"all the same").await;
}

/// An expected peer that does not keep to the rules: a bare session at its end, our link at the other.
async fn rude_peer(near: &Node, far: &Node) -> (Session, Box<dyn PeerLink>) {
    let peer = far.expecting(near, CONN);
    let seat = near.webrtc.shared.sessions.seat(IceCredentials::of(&CONN, BindRole::Dialler).ufrag());
    let mut session = near.webrtc.shared.session(BindRole::Dialler, &peer, seat).unwrap();
    session.open(peer.peer_cert, 0).await.unwrap();
    // The acceptor's side is open once it has the dialler's last datagram.
    session.flush().await;
    let link = far.webrtc.accept().await.unwrap();
    (session, link)
}

/// Drives a bare session until the peer said its last; gives what it said.
async fn last_word(session: &mut Session) -> Option<String> {
    loop {
        session.settle();
        if let Some(message) = session.message()
            && message.is_string
        {
            return String::from_utf8(message.data.to_vec()).ok();
        }
        if session.state().closed {
            return None;
        }
        session.flush().await;
        session.step().await.unwrap();
        session.read(|_| {});
    }
}

#[tokio::test]
async fn a_huge_length_prefix_closes_the_link_and_the_peer_is_told_why() {
    for length in [u32::MAX, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1] {
        let (near, far) = (node(), node());
        let (mut session, link) = rude_peer(&near, &far).await;
        session.say(BytesMut::from(&length.to_be_bytes()[..])).unwrap();
        session.flush().await;
        assert!(matches!(link.recv().await, Err(LinkError::Malformed { .. })));
        assert!(matches!(link.send(Bytes::new()).await, Err(LinkError::Malformed { .. })));
        assert_eq!(last_word(&mut session).await.as_deref(), Some("5"));
    }
}

#[tokio::test]
async fn frames_may_be_cut_into_messages_anyhow_and_a_last_word_may_be_anything() {
    for (word, reason) in [("4", CloseReason::Revoked), ("what?", CloseReason::Finished)] {
        let (near, far) = (node(), node());
        let (mut session, link) = rude_peer(&near, &far).await;
        for piece in [&[0, 0][..], &[0, 2, b'o'], &[b'k', 0, 0, 0, 0, 0, 0], &[0, 1, b'!']] {
            session.say(BytesMut::from(piece)).unwrap();
        }
        session.say_last(word).unwrap();
        session.flush().await;
        for expected in [&b"ok"[..], b"", b"!"] {
            assert_eq!(link.recv().await.as_deref(), Ok(expected));
        }
        assert_eq!(link.recv().await, Err(LinkError::Closed(reason)));
    }
}

#[tokio::test]
async fn a_channel_that_was_not_agreed_on_ends_the_link() {
    let (near, far) = (node(), node());
    let (mut session, link) = rude_peer(&near, &far).await;
    session.open_stray();
    session.flush().await;
    assert!(matches!(link.recv().await, Err(LinkError::Malformed { .. })));
    assert_eq!(last_word(&mut session).await.as_deref(), Some("5"));
}

#[tokio::test]
async fn a_dial_without_usable_candidates_says_so() {
    let addrs = ["127.0.0.1:9".parse().unwrap(), "224.0.0.1:9".parse().unwrap()];
    let peer = PeerAddr::new(CONN, CertHash([1; 32]), &addrs, CandidateScope::Routable);
    assert!(matches!(node().webrtc.dial(&peer, soon()).await, Err(DialError::NoCandidates)));
}

#[tokio::test]
async fn a_transport_that_is_shut_down_dials_nobody_and_its_socket_has_one_sharer() {
    let (near, far) = (node(), node());
    let peer = far.expecting(&near, CONN);
    near.webrtc.shut_down().await;
    let dialled = near.webrtc.dial(&peer, soon()).await;
    assert!(matches!(dialled, Err(DialError::ShutDown)), "{dialled:?}");
    assert!(matches!(WebRtcTransport::new(&far.quic), Err(BindError::Socket(_))));
}

#[tokio::test]
async fn the_table_of_expectations_is_bounded_and_says_so() {
    let near = node();
    for n in 0..LINKS_MAX as u64 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        near.webrtc.expect(ConnId(id), CertHash([1; 32]), soon()).unwrap();
    }
    let full = near.webrtc.expect(ConnId([0xff; 16]), CertHash([1; 32]), soon());
    assert_eq!(full, Err(ExpectError::Full { max: LINKS_MAX }));
    near.webrtc.forget(&ConnId([0; 16]));
    near.webrtc.expect(ConnId([0xff; 16]), CertHash([1; 32]), soon()).unwrap();
}
