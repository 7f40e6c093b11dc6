//! What two transports that can reach each other owe, besides what their links owe.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use peerloom_proto::{CertHash, ConnId};
use tokio::time::sleep;

use super::{deadline, links, soon};
use crate::transport::{CloseReason, DialError, LinkError, LinkRole, PeerAddr, PeerLink, PeerTransport};
use crate::udp::CandidateScope;

/// Two transports of one kind that reach each other.
#[derive(Debug)]
pub struct TransportPair {
    /// Opens the links.
    pub dialler: Box<dyn PeerTransport>,
    /// Takes them.
    pub acceptor: Box<dyn PeerTransport>,
    /// An address at which nobody ever answers.
    pub silent: SocketAddr,
    /// Scope in which the two see each other's candidates.
    pub scope: CandidateScope,
}

/// Runs the whole list.
pub async fn all(pair: TransportPair) {
    links(|| connected(&pair)).await;
    both_ends_agree_on_the_binding(&pair).await;
    a_wrong_certificate_is_refused(&pair).await;
    an_unexpected_dialler_is_refused(&pair).await;
    an_unknown_conn_is_refused(&pair).await;
    an_expectation_serves_one_link(&pair).await;
    a_silent_candidate_does_not_hide_a_good_one(&pair).await;
    a_silent_address_times_out(&pair).await;
    a_dropped_dial_leaves_nothing_behind(&pair).await;
    shutting_down_ends_every_link(&pair).await;
}

/// A fresh link between the two, the dialler's end first.
pub async fn connected(pair: &TransportPair) -> (Box<dyn PeerLink>, Box<dyn PeerLink>) {
    let peer = expected_peer(pair);
    let dialled =
        soon("dial", pair.dialler.dial(&peer, deadline())).await.expect("dial of an expecting peer");
    let accepted = soon("accept", pair.acceptor.accept()).await.expect("accept of an expected peer");
    (dialled, accepted)
}

async fn both_ends_agree_on_the_binding(pair: &TransportPair) {
    let (a, b) = connected(pair).await;
    let (near, far) = (a.properties(), b.properties());
    assert_eq!(
        (near.kind, near.role, far.role),
        (pair.dialler.kind(), LinkRole::Dialler, LinkRole::Acceptor)
    );
    let near = near.binding.expect("a direct link has a binding");
    let far = far.binding.expect("a direct link has a binding");
    assert_eq!((near.local_cert, near.peer_cert), (far.peer_cert, far.local_cert));
    assert_eq!((near.local_cert, far.local_cert), (pair.dialler.local_cert(), pair.acceptor.local_cert()));
    assert_eq!((near.conn, near.exporter), (far.conn, far.exporter));
    let (c, _d) = connected(pair).await;
    let other = c.properties().binding.expect("a direct link has a binding");
    assert!(other.exporter != near.exporter || near.exporter.is_none(), "two links share keying material");
}

async fn a_wrong_certificate_is_refused(pair: &TransportPair) {
    let wrong = CertHash([0x5a; 32]);
    let mut peer = expected_peer(pair);
    peer.peer_cert = wrong;
    match soon("dial of a wrong peer", pair.dialler.dial(&peer, deadline())).await {
        Err(DialError::WrongPeer { expected, presented }) => {
            assert_eq!((expected, presented), (wrong, pair.acceptor.local_cert()));
        }
        other => panic!("a wrong certificate gave {other:?}"),
    }
    nothing_was_accepted(pair).await;
    pair.acceptor.forget(&peer.conn);
}

async fn an_unexpected_dialler_is_refused(pair: &TransportPair) {
    let peer = expected_peer(pair);
    pair.acceptor.forget(&peer.conn);
    refused(pair, &peer).await;
    // Also when somebody else is expected at that moment.
    let until = Instant::now() + Duration::from_secs(60);
    pair.acceptor.expect(peer.conn, CertHash([0x11; 32]), until).expect("room for one expectation");
    refused(pair, &peer).await;
    pair.acceptor.forget(&peer.conn);
}

async fn an_unknown_conn_is_refused(pair: &TransportPair) {
    let mut peer = expected_peer(pair);
    let expected = std::mem::replace(&mut peer.conn, fresh_conn());
    refused(pair, &peer).await;
    pair.acceptor.forget(&expected);
}

async fn an_expectation_serves_one_link(pair: &TransportPair) {
    let peer = expected_peer(pair);
    let first = soon("dial", pair.dialler.dial(&peer, deadline())).await.expect("the first is let in");
    let accepted = soon("accept", pair.acceptor.accept()).await.expect("the first is let in");
    assert_eq!(accepted.properties().binding.map(|binding| binding.conn), Some(peer.conn));
    refused(pair, &peer).await;
    drop(first);
}

async fn a_silent_candidate_does_not_hide_a_good_one(pair: &TransportPair) {
    let known = expected_peer(pair);
    let mut candidates = vec![pair.silent];
    candidates.extend(known.candidates());
    let peer = PeerAddr::new(known.conn, known.peer_cert, &candidates, pair.scope);
    let link = soon("dial past a silent candidate", pair.dialler.dial(&peer, deadline())).await;
    assert!(link.is_ok(), "{link:?}");
    soon("accept", pair.acceptor.accept()).await.expect("accept of an expected peer");
}

async fn a_silent_address_times_out(pair: &TransportPair) {
    let peer = silent_peer(pair);
    let dialled = pair.dialler.dial(&peer, Instant::now() + Duration::from_millis(50)).await;
    match dialled {
        Err(DialError::TimedOut { candidates: 1, waited }) => assert!(waited >= Duration::from_millis(50)),
        other => panic!("a silent address gave {other:?}"),
    }
}

async fn a_dropped_dial_leaves_nothing_behind(pair: &TransportPair) {
    let peer = silent_peer(pair);
    let mut dial = pair.dialler.dial(&peer, deadline());
    for _ in 0..3 {
        assert!((&mut dial).now_or_never().is_none(), "a silent address cannot answer");
        tokio::task::yield_now().await;
    }
    drop(dial);
    soon("links of earlier items and of the dropped dial to drain", async {
        while pair.dialler.open_links() + pair.acceptor.open_links() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn shutting_down_ends_every_link(pair: &TransportPair) {
    let (a, b) = connected(pair).await;
    soon("shutdown", pair.acceptor.shut_down()).await;
    let ended = Err(LinkError::Closed(CloseReason::ShuttingDown));
    assert_eq!(soon("end at the side that shut down", b.recv()).await, ended);
    assert_eq!(soon("end at the other side", a.recv()).await, ended);
    let accepted = soon("accept after shutdown", pair.acceptor.accept()).await;
    assert!(accepted.is_err(), "{accepted:?}");
}

/// A dialler that is let in by nobody learns it from the dial or from its first receive.
async fn refused(pair: &TransportPair, peer: &PeerAddr) {
    match soon("refused dial", pair.dialler.dial(peer, deadline())).await {
        Err(DialError::Refused) => {}
        Ok(link) => {
            let end = soon("refusal after the dial", link.recv()).await;
            assert_eq!(end, Err(LinkError::Closed(CloseReason::Refused)));
        }
        other => panic!("an unexpected dialler got {other:?}"),
    }
    nothing_was_accepted(pair).await;
}

async fn nothing_was_accepted(pair: &TransportPair) {
    tokio::task::yield_now().await;
    assert!(pair.acceptor.accept().now_or_never().is_none(), "a refused dialler was accepted");
}

fn expected_peer(pair: &TransportPair) -> PeerAddr {
    let conn = fresh_conn();
    pair.acceptor.expect(conn, pair.dialler.local_cert(), deadline()).expect("room for one expectation");
    PeerAddr::new(conn, pair.acceptor.local_cert(), &pair.acceptor.candidates(pair.scope), pair.scope)
}

fn silent_peer(pair: &TransportPair) -> PeerAddr {
    PeerAddr::new(fresh_conn(), pair.acceptor.local_cert(), &[pair.silent], pair.scope)
}

fn fresh_conn() -> ConnId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut conn = [0; ConnId::LEN];
    conn[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ConnId(conn)
}
