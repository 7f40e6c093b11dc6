//! What happens to a link when its path changes or dies.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;

use super::*;

/// A NAT between one dialler and one acceptor that forwards datagrams both ways, can be given
/// another outside port, and can swallow everything.
struct Nat {
    inside: UdpSocket,
    outside: Mutex<Arc<UdpSocket>>,
    acceptor: SocketAddr,
    dialler: SocketAddr,
    swallows: AtomicBool,
}

impl Nat {
    async fn between(dialler: &QuicTransport, acceptor: &QuicTransport) -> Arc<Self> {
        let nat = Arc::new(Self {
            inside: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            outside: Mutex::new(Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap())),
            acceptor: acceptor.local_addr().unwrap(),
            dialler: dialler.local_addr().unwrap(),
            swallows: AtomicBool::new(false),
        });
        tokio::spawn(nat.clone().outbound());
        nat.clone().begin_inbound();
        nat
    }

    async fn outbound(self: Arc<Self>) {
        let mut datagram = vec![0; 65_536];
        while let Ok((length, _)) = self.inside.recv_from(&mut datagram).await {
            let outside = self.outside.lock().unwrap().clone();
            self.forward(&outside, &datagram[..length], self.acceptor).await;
        }
    }

    /// What comes in on the port of the moment; nobody reads the ports before it.
    fn begin_inbound(self: Arc<Self>) {
        let outside = self.outside.lock().unwrap().clone();
        tokio::spawn(async move {
            let mut datagram = vec![0; 65_536];
            while let Ok((length, _)) = outside.recv_from(&mut datagram).await {
                if Arc::ptr_eq(&outside, &self.outside.lock().unwrap()) {
                    self.forward(&self.inside, &datagram[..length], self.dialler).await;
                }
            }
        });
    }

    async fn forward(&self, by: &UdpSocket, datagram: &[u8], to: SocketAddr) {
        if !self.swallows.load(Ordering::Relaxed) {
            by.send_to(datagram, to).await.unwrap();
        }
    }

    async fn rebind(self: &Arc<Self>) -> SocketAddr {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let addr = outside.local_addr().unwrap();
        *self.outside.lock().unwrap() = outside;
        self.clone().begin_inbound();
        addr
    }

    async fn linked() -> (Arc<Self>, [QuicTransport; 2], [Box<dyn PeerLink>; 2]) {
        let (dialler, acceptor) = (transport(), transport());
        let nat = Self::between(&dialler, &acceptor).await;
        acceptor.expect(CONN, dialler.local_cert(), soon()).unwrap();
        let at = nat.inside.local_addr().unwrap();
        let peer = PeerAddr::new(CONN, acceptor.local_cert(), &[at], CandidateScope::WithLoopback);
        let near = dialler.dial(&peer, soon()).await.unwrap();
        let far = acceptor.accept().await.unwrap();
        near.send(Bytes::from_static(b"first")).await.unwrap();
        assert_eq!(far.recv().await.unwrap(), &b"first"[..]);
        (nat, [dialler, acceptor], [near, far])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_outlives_a_nat_that_gives_its_dialler_another_port() {
    let (nat, _transports, [near, far]) = Nat::linked().await;
    for round in 0..3_u8 {
        let moved = nat.rebind().await;
        near.send(Bytes::from(vec![round])).await.unwrap();
        assert_eq!(far.recv().await.unwrap(), vec![round]);
        far.send(Bytes::from(vec![round, round])).await.unwrap();
        assert_eq!(near.recv().await.unwrap(), vec![round, round]);
        assert_eq!(far.properties().remote, Some(moved));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_swallows_everything_is_lost_within_a_second_or_two_for_whoever_sends() {
    let (nat, _transports, [near, _far]) = Nat::linked().await;
    nat.swallows.store(true, Ordering::Relaxed);
    let began = Instant::now();
    near.send(Bytes::from_static(b"into the void")).await.unwrap();
    assert_eq!(near.recv().await, Err(LinkError::Lost(io::ErrorKind::TimedOut)));
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_each_other_at_the_same_moment_both_get_their_link() {
    let (left, right) = (transport(), transport());
    left.expect(CONN, right.local_cert(), soon()).unwrap();
    right.expect(CONN, left.local_cert(), soon()).unwrap();
    let (to_right, to_left) = (peer_of(&right), peer_of(&left));
    let (a, b) = tokio::join!(left.dial(&to_right, soon()), right.dial(&to_left, soon()));
    let (c, d) = (right.accept().await.unwrap(), left.accept().await.unwrap());
    for (near, far) in [(a.unwrap(), c), (b.unwrap(), d)] {
        near.send(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(far.recv().await.unwrap(), &b"hello"[..]);
    }
}
