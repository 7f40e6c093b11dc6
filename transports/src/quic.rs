//! Direct links over QUIC (protocol.md §9). One endpoint on the node's own UDP socket, which STUN shares,
//! and one on each further socket that a connection is made over; one certificate per process, TLS 1.3
//! with both sides proving theirs, no 0-RTT and no resumption.
//!
//! Dialling: race the candidates → the winner opens the one bidirectional stream and writes the conn
//! id (16 bytes) → both directions carry u32be length ‖ frame. Accepting: TLS lets expected
//! certificates in → the conn id names the attempt, which is used up → the link goes to `accept`. The
//! conn id on the stream tells the acceptor which of several racing connections was chosen.

mod admission;
mod credential;
mod link;
mod silence;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use peerloom_proto::{CertHash, ConnId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, ServerConfig};
use quinn::{TransportConfig, VarInt, WriteError};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{timeout, timeout_at};
use tracing::debug;

use self::admission::{Admission, HANDSHAKES_MAX};
use self::credential::{Credential, ExpectedServer};
use self::link::{QuicLink, link_error};
use self::sockets::{MAIN, Sockets};
use crate::expected::Expectations;
use crate::race::first_success;
use crate::transport::{
    AcceptError, BoxFuture, CloseReason, DialError, ExpectError, LinkError, LinkRole, PathKind, PeerAddr,
    PeerLink, PeerTransport,
};
use crate::udp::{self, CandidateScope, Datagram, StunQueue};

/// Why the transport could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The UDP socket is unusable.
    #[error("UDP socket failed")]
    Socket(#[from] io::Error),
    /// The certificate could not be made.
    #[error("certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The key just made was refused.
    #[error("certificate key is unusable")]
    Key(#[from] rustls::Error),
    /// The key just made was refused for DTLS.
    #[error("certificate key is unusable for DTLS")]
    DtlsKey(#[source] io::Error),
}

/// Direct links over UDP sockets that carry STUN besides. Dropping it closes them all.
#[derive(Debug)]
pub struct QuicTransport {
    sockets: Sockets,
    credential: Credential,
    expected: Arc<Expectations>,
    accepted: Mutex<mpsc::Receiver<Box<dyn PeerLink>>>,
    datagrams: Mutex<mpsc::Receiver<Datagram>>,
}

impl QuicTransport {
    /// Takes over a bound socket (see [`bind_udp`](crate::bind_udp)) and makes the certificate of this
    /// process. Must be called on a Tokio runtime.
    pub fn new(socket: UdpSocket) -> Result<Self, BindError> {
        let credential = Credential::generate()?;
        let expected = Arc::new(Expectations::default());
        let server = server_config(&credential, expected.clone());
        let (links, accepted) = mpsc::channel(ACCEPTED_MAX);
        let admission = Admission { local_cert: credential.hash(), expected: expected.clone(), links };
        let (stun, datagrams) = StunQueue::new();
        let sockets = Sockets::new(socket, server, admission, stun)?;
        let (accepted, datagrams) = (Mutex::new(accepted), Mutex::new(datagrams));
        Ok(Self { sockets, credential, expected, accepted, datagrams })
    }

    /// The address the node's own socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets.local_addr()
    }

    /// Opens up to `count` further sockets on ports of the system's choice, at most 256 at once; gives
    /// their names. Each hears STUN, and QUIC once it is dialled from or an expected peer comes in on it.
    pub fn open_sockets(&self, count: u16) -> Vec<u16> {
        self.sockets.open_further(count)
    }

    /// Closes further sockets; one that carries a link goes when the link ends. 0 stays.
    pub fn close_sockets(&self, names: &[u16]) {
        self.sockets.close(names);
    }

    /// Sends a STUN datagram from a socket: 0 is the node's own. `hops` is the number of routers it
    /// may pass, 1 to 255; none is the system's default. Never waits: a socket without room is an error.
    pub fn send_datagram(
        &self,
        socket: u16,
        to: SocketAddr,
        datagram: &[u8],
        hops: Option<u8>,
    ) -> io::Result<()> {
        self.sockets.send(socket, to, datagram, hops)
    }

    /// Waits for STUN datagrams on any socket and takes up to `datagrams_max` of them; none after the
    /// end. Cancel safe.
    pub async fn datagrams(&self, datagrams_max: usize) -> Vec<Datagram> {
        let mut taken = Vec::new();
        self.datagrams.lock().await.recv_many(&mut taken, datagrams_max).await;
        taken
    }

    /// STUN datagrams that were longer than STUN is or found no room. Grows by one each.
    pub fn datagrams_dropped(&self) -> u64 {
        self.sockets.dropped()
    }

    /// The node's own socket once more, to send from.
    #[cfg(feature = "webrtc")]
    pub(crate) fn outlet(&self) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.sockets.outlet()
    }

    /// Shows every datagram of the node's own socket to `sharer` first; an error if there is one already.
    #[cfg(feature = "webrtc")]
    pub(crate) fn share(&self, sharer: Arc<dyn udp::Sharer>) -> io::Result<()> {
        self.sockets.share(sharer)
    }

    /// [`dial`](PeerTransport::dial) from a further socket. The link keeps it open.
    pub async fn dial_from(
        &self,
        socket: u16,
        peer: &PeerAddr,
        deadline: Instant,
    ) -> Result<Box<dyn PeerLink>, DialError> {
        let link = self.dial_until(socket, peer, deadline).await?;
        Ok(Box::new(link) as Box<dyn PeerLink>)
    }

    /// One attempt: TLS proven, nothing said yet.
    async fn attempt(endpoint: &Endpoint, config: ClientConfig, addr: SocketAddr) -> io::Result<Connection> {
        let connecting =
            endpoint.connect_with(config, addr, credential::SERVER_NAME).map_err(io::Error::other)?;
        Ok(connecting.await?)
    }

    async fn dial_until(
        &self,
        socket: u16,
        peer: &PeerAddr,
        deadline: Instant,
    ) -> Result<QuicLink, DialError> {
        let started = Instant::now();
        let candidates = peer.candidates().len();
        if candidates == 0 {
            return Err(DialError::NoCandidates);
        }
        let endpoint = match self.sockets.endpoint(socket) {
            Ok(Some(endpoint)) => endpoint,
            Ok(None) if socket == MAIN => return Err(DialError::ShutDown),
            Ok(None) => return Err(DialError::NoSocket { socket }),
            Err(last) => return Err(DialError::Unreachable { candidates, last }),
        };
        let verifier = Arc::new(ExpectedServer::new(peer.peer_cert));
        let config = client_config(&self.credential, verifier.clone());
        let attempts =
            peer.candidates().iter().copied().map(|addr| Self::attempt(&endpoint, config.clone(), addr));
        let outcome = timeout_at(deadline.into(), first_success(attempts, CANDIDATE_STAGGER)).await;
        let last = match outcome {
            // The peer may refuse our certificate at any moment from here on.
            Ok(Ok(connection)) => match self.open(peer, connection).await {
                Ok(link) => return Ok(link),
                Err(WriteError::ConnectionLost(error)) => Some(error.into()),
                Err(other) => Some(io::Error::other(other)),
            },
            Ok(Err(mut errors)) => errors.pop(),
            Err(_) => None,
        };
        let timed_out = DialError::TimedOut { candidates, waited: started.elapsed() };
        if let Some(presented) = verifier.mismatch() {
            return Err(DialError::WrongPeer { expected: peer.peer_cert, presented });
        }
        Err(last.map_or(timed_out, |last| dial_error(candidates, started, last)))
    }

    /// Opens the stream of the chosen connection and names the attempt on it.
    async fn open(&self, peer: &PeerAddr, connection: Connection) -> Result<QuicLink, WriteError> {
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(peer.conn.as_bytes()).await?;
        let local_cert = self.credential.hash();
        Ok(QuicLink::new(connection, LinkRole::Dialler, peer.conn, local_cert, peer.peer_cert, send, recv))
    }
}

impl PeerTransport for QuicTransport {
    fn kind(&self) -> PathKind {
        PathKind::Quic
    }

    fn local_cert(&self) -> CertHash {
        self.credential.hash()
    }

    fn candidates(&self, scope: CandidateScope) -> Vec<SocketAddr> {
        self.local_addr().map(|local| udp::candidates(local, scope)).unwrap_or_else(|error| {
            debug!(%error, "The UDP socket has no address.");
            Vec::new()
        })
    }

    fn open_links(&self) -> usize {
        self.sockets.open_connections()
    }

    fn expect(&self, conn: ConnId, peer_cert: CertHash, until: Instant) -> Result<(), ExpectError> {
        self.expected.add(conn, peer_cert, until)
    }

    fn forget(&self, conn: &ConnId) {
        self.expected.forget(conn);
    }

    fn dial<'a>(
        &'a self,
        peer: &'a PeerAddr,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Box<dyn PeerLink>, DialError>> {
        Box::pin(self.dial_from(MAIN, peer, deadline))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn PeerLink>, AcceptError>> {
        Box::pin(async move { self.accepted.lock().await.recv().await.ok_or(AcceptError::ShutDown) })
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let endpoints = self.sockets.shut();
            let idle = join_all(endpoints.iter().map(Endpoint::wait_idle));
            if timeout(SHUT_DOWN_TIMEOUT, idle).await.is_err() {
                debug!("Some peers were not told of the shutdown.");
            }
        })
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.sockets.shut();
    }
}

/// What the last failure of a dial means to the dialler.
fn dial_error(candidates: usize, started: Instant, last: io::Error) -> DialError {
    let source = last.get_ref();
    let ended: Option<&ConnectionError> = source.and_then(|source| source.downcast_ref());
    let cause = ended.map(link_error);
    let stopping = source.and_then(|source| source.downcast_ref()) == Some(&ConnectError::EndpointStopping)
        || ended == Some(&ConnectionError::LocallyClosed);
    if cause == Some(LinkError::Closed(CloseReason::Refused)) {
        DialError::Refused
    } else if cause == Some(LinkError::Lost(io::ErrorKind::TimedOut)) {
        DialError::TimedOut { candidates, waited: started.elapsed() }
    } else if stopping {
        DialError::ShutDown
    } else {
        DialError::Unreachable { candidates, last }
    }
}

fn close_code(reason: CloseReason) -> VarInt {
    VarInt::from_u32(u32::from(reason.code()))
}

fn client_config(credential: &Credential, verifier: Arc<ExpectedServer>) -> ClientConfig {
    let tls = QuicClientConfig::try_from(credential.client_config(verifier))
        .expect("ring has QUIC's initial suite");
    let mut config = ClientConfig::new(Arc::new(tls));
    let mut transport = transport_config();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    config
}

fn server_config(credential: &Credential, expected: Arc<Expectations>) -> ServerConfig {
    let tls = QuicServerConfig::try_from(credential.server_config(expected))
        .expect("ring has QUIC's initial suite");
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = transport_config();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(2 * HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * HANDSHAKES_MAX as u64);
    config
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .max_idle_timeout(Some(PATH_SILENCE_MAX.try_into().expect("30 s is a valid idle timeout")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        // The spin bit tells every router the round trip; it helps nobody here.
        .allow_spin(false);
    config
}

/// A candidate gets this head start on the next: time for a LAN to answer before the rest is asked.
const CANDIDATE_STAGGER: Duration = Duration::from_millis(20);

/// Unacknowledged bytes one link may have in flight, and unread bytes it may hold: 2 MiB is
/// 160 Mbit/s at 100 ms, and bounds what a reader that does not read costs.
const WINDOW_BYTES: u32 = 2 << 20;

/// A path silent for this long is dead even if nothing was asked on it; `silence.rs` is sooner. The
/// endpoint above decides when a living link is idle.
const PATH_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Keeps NAT bindings (the shortest known life is about 20 s), is the question whose silence tells an
/// idle link's death, and lets the acceptor follow a dialler whose NAT gave it another port (RFC 9000
/// §9: quinn migrates by default).
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// First guess of the round trip: a lost first packet is repeated after 300 ms, not after the second
/// of RFC 9002's 333 ms guess.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Links that wait for `accept`; further ones wait in their handshake.
const ACCEPTED_MAX: usize = 64;

/// Early packets kept for one connection that was not admitted yet.
const INCOMING_BYTES_MAX: u64 = 64 << 10;

const SHUT_DOWN_TIMEOUT: Duration = Duration::from_secs(1);
