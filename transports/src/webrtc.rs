//! Direct links over WebRTC data channels (protocol.md §9), for peers that QUIC does not reach and for
//! browsers, which have nothing else. ICE, DTLS and SCTP are those of the `rtc` crate, the core of `webrtc`
//! without its sockets and tasks: all sessions live on the node's own UDP socket beside QUIC and STUN
//! (RFC 9443), so what was punched for one is open for the other.
//!
//! Both ends derive the ICE credentials of an attempt from its conn, so the answer to the offer is all
//! there is to signal. The dialler is the controlling agent and the DTLS client; the one channel is
//! agreed on and not opened in band.

mod link;
mod peer;
mod session;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use peerloom_proto::ice::IceCredentials;
use peerloom_proto::limits::LINKS_MAX;
use peerloom_proto::{BindRole, CertHash, ConnId};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::debug;

use self::link::WebRtcLink;
use self::peer::Certificate;
use self::session::{OpenError, Session};
use self::sessions::{Seat, Sessions};
use crate::end::LinkEnd;
use crate::identity::LinkBinding;
use crate::quic::{BindError, QuicTransport};
use crate::transport::{
    AcceptError, BoxFuture, CloseReason, DialError, ExpectError, LinkError, LinkRole, PathKind, PeerAddr,
    PeerLink, PeerTransport,
};
use crate::udp::{self, CandidateScope};

/// Direct links over data channels on QUIC's socket. Dropping it closes them all.
#[derive(Debug)]
pub struct WebRtcTransport {
    shared: Arc<Shared>,
    accepted: Mutex<mpsc::Receiver<Box<dyn PeerLink>>>,
}

#[derive(Debug)]
struct Shared {
    certificate: Certificate,
    sessions: Arc<Sessions>,
    runtime: Handle,
    open: Arc<AtomicUsize>,
    state: SyncMutex<Live>,
}

#[derive(Debug)]
struct Live {
    /// Attempts that wait for their dialler.
    waiting: BTreeMap<ConnId, Waiting>,
    ends: Vec<Weak<LinkEnd>>,
    /// None once everything is shut.
    links: Option<mpsc::Sender<Box<dyn PeerLink>>>,
}

#[derive(Debug)]
struct Waiting {
    task: AbortHandle,
    until: Instant,
}

/// Counts one link, open or being opened.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WebRtcTransport {
    /// Joins QUIC on its main socket; an error if another one has. Must be called on a Tokio runtime.
    pub fn new(quic: &QuicTransport) -> Result<Self, BindError> {
        let certificate = Certificate::generate()?;
        let sessions = Arc::new(Sessions::new(quic.outlet()?)?);
        quic.share(sessions.clone())?;
        let (links, accepted) = mpsc::channel(ACCEPTED_MAX);
        let live = Live { waiting: BTreeMap::new(), ends: Vec::new(), links: Some(links) };
        let shared = Shared {
            certificate,
            sessions,
            runtime: Handle::current(),
            open: Arc::default(),
            state: SyncMutex::new(live),
        };
        Ok(Self { shared: Arc::new(shared), accepted: Mutex::new(accepted) })
    }

    /// [`expect`](PeerTransport::expect) of a peer that chose its ICE credentials, or that must be asked in
    /// turn before its checks get in: with candidates, they are asked from now on.
    pub fn expect_peer(&self, far: PeerAddr, until: Instant) -> Result<(), ExpectError> {
        let mut live = self.shared.live();
        let now = Instant::now();
        live.waiting.retain(|_, waiting| waiting.until > now);
        if live.waiting.len() >= LINKS_MAX && !live.waiting.contains_key(&far.conn) {
            return Err(ExpectError::Full { max: LINKS_MAX });
        }
        if live.links.is_none() {
            return Ok(());
        }
        let conn = far.conn;
        let seat = self.shared.sessions.seat(IceCredentials::of(&conn, BindRole::Acceptor).ufrag());
        let admitting = self.shared.clone().admit(far, until, seat);
        let task = self.shared.runtime.spawn(admitting).abort_handle();
        if let Some(earlier) = live.waiting.insert(conn, Waiting { task, until }) {
            earlier.task.abort();
        }
        Ok(())
    }

    /// The peer of an attempt can be found at these addresses too; those that may not be sent to are left
    /// out. Nothing happens where the attempt is over.
    pub fn learn(&self, conn: &ConnId, candidates: &[SocketAddr], scope: CandidateScope) {
        let usable: Vec<SocketAddr> =
            candidates.iter().copied().filter(|candidate| udp::usable(*candidate, scope)).collect();
        for role in [BindRole::Dialler, BindRole::Acceptor] {
            self.shared.sessions.teach(IceCredentials::of(conn, role).ufrag(), &usable);
        }
    }

    async fn dial_until(&self, peer: &PeerAddr, deadline: Instant) -> Result<WebRtcLink, DialError> {
        let started = Instant::now();
        let candidates = peer.candidates().len();
        if candidates == 0 {
            return Err(DialError::NoCandidates);
        }
        if self.shared.live().links.is_none() {
            return Err(DialError::ShutDown);
        }
        let role = BindRole::Dialler;
        let own = IceCredentials::of(&peer.conn, role);
        // A conn serves one link.
        if self.shared.sessions.knows(own.ufrag()) {
            return Err(DialError::Refused);
        }
        let open = self.shared.opening();
        let seat = self.shared.sessions.seat(own.ufrag());
        let unreachable = |last| DialError::Unreachable { candidates, last };
        let mut session = self.shared.session(role, peer, seat).map_err(unreachable)?;
        match timeout_at(deadline.into(), session.open(peer.peer_cert, candidates)).await {
            Ok(Ok(())) => Ok(self.shared.link(session, LinkRole::Dialler, peer.conn, peer.peer_cert, open)),
            Ok(Err(OpenError::Refused)) => Err(DialError::Refused),
            Ok(Err(OpenError::WrongPeer { presented })) => {
                Err(DialError::WrongPeer { expected: peer.peer_cert, presented })
            }
            Ok(Err(OpenError::Failed(last))) if last.kind() != io::ErrorKind::TimedOut => {
                Err(unreachable(last))
            }
            Ok(Err(OpenError::Failed(_))) | Err(_) => {
                Err(DialError::TimedOut { candidates, waited: started.elapsed() })
            }
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic elsewhere cannot leave these maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opening(&self) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.open.clone())
    }

    fn session(&self, role: BindRole, far: &PeerAddr, seat: Seat) -> io::Result<Session> {
        let made = peer::connection(&self.certificate, role, far);
        let (connection, channel) = made.map_err(io::Error::other)?;
        Ok(Session::new(connection, channel, seat))
    }

    fn link(
        &self,
        session: Session,
        role: LinkRole,
        conn: ConnId,
        peer_cert: CertHash,
        open: Open,
    ) -> WebRtcLink {
        let binding = LinkBinding { conn, local_cert: self.certificate.hash(), peer_cert, exporter: None };
        let link = WebRtcLink::new(session, role, binding, open);
        let mut live = self.live();
        live.ends.retain(|end| end.strong_count() > 0);
        live.ends.push(Arc::downgrade(link.end()));
        if live.links.is_none() {
            link.close(CloseReason::ShuttingDown);
        }
        link
    }

    /// Waits for the dialler of one attempt, and lets it in.
    async fn admit(self: Arc<Self>, far: PeerAddr, until: Instant, mut seat: Seat) {
        let (conn, peer_cert) = (far.conn, far.peer_cert);
        let admitted = timeout_at(until.into(), async {
            // Most attempts end with a QUIC link: until somebody asks, this one costs a place in a table.
            // Only a peer that is to be asked in turn is not waited for.
            let mut came = Vec::new();
            if far.candidates().is_empty() {
                seat.recv(&mut came).await;
            }
            let open = self.opening();
            let mut session = self.session(BindRole::Acceptor, &far, seat).map_err(OpenError::Failed)?;
            session.begin(came);
            // A refusal is the dialler's to notice: this side has no candidates of its own to ask.
            session.open(peer_cert, 0).await?;
            Ok::<_, OpenError>(self.link(session, LinkRole::Acceptor, conn, peer_cert, open))
        });
        match admitted.await {
            Ok(Ok(link)) => {
                self.live().waiting.remove(&conn);
                let links = self.live().links.clone();
                if let Some(links) = links
                    && links.send(Box::new(link)).await.is_err()
                {
                    debug!("A link came after the end.");
                }
            }
            Ok(Err(error)) => {
                self.live().waiting.remove(&conn);
                debug!(?error, "A dialler was not let in.");
            }
            Err(_) => {
                self.live().waiting.remove(&conn);
            }
        }
    }

    /// Takes no more, and tells every link.
    fn shut(&self) {
        let mut live = self.live();
        live.links = None;
        for (conn, waiting) in std::mem::take(&mut live.waiting) {
            waiting.task.abort();
            self.sessions.unseat(IceCredentials::of(&conn, BindRole::Acceptor).ufrag());
        }
        for end in live.ends.drain(..).filter_map(|end| end.upgrade()) {
            end.set(LinkError::Closed(CloseReason::ShuttingDown));
        }
    }
}

impl PeerTransport for WebRtcTransport {
    fn kind(&self) -> PathKind {
        PathKind::WebRtc
    }

    fn local_cert(&self) -> CertHash {
        self.shared.certificate.hash()
    }

    fn candidates(&self, scope: CandidateScope) -> Vec<SocketAddr> {
        let local = self.shared.sessions.local_addr();
        local.map(|local| udp::candidates(local, scope)).unwrap_or_else(|error| {
            debug!(%error, "The UDP socket has no address.");
            Vec::new()
        })
    }

    fn open_links(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    fn expect(&self, conn: ConnId, peer_cert: CertHash, until: Instant) -> Result<(), ExpectError> {
        self.expect_peer(PeerAddr::new(conn, peer_cert, &[], CandidateScope::Routable), until)
    }

    fn forget(&self, conn: &ConnId) {
        if let Some(waiting) = self.shared.live().waiting.remove(conn) {
            waiting.task.abort();
            self.shared.sessions.unseat(IceCredentials::of(conn, BindRole::Acceptor).ufrag());
        }
    }

    fn dial<'a>(
        &'a self,
        peer: &'a PeerAddr,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Box<dyn PeerLink>, DialError>> {
        Box::pin(async move {
            let link = self.dial_until(peer, deadline).await?;
            Ok(Box::new(link) as Box<dyn PeerLink>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn PeerLink>, AcceptError>> {
        Box::pin(async move { self.accepted.lock().await.recv().await.ok_or(AcceptError::ShutDown) })
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.shut();
            let gone = async {
                while self.open_links() > 0 {
                    sleep(LOOK_EVERY).await;
                }
            };
            if timeout(SHUT_DOWN_TIMEOUT, gone).await.is_err() {
                debug!("Some peers were not told of the shutdown.");
            }
        })
    }
}

impl Drop for WebRtcTransport {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

/// Links that wait for `accept`; further ones wait before it.
const ACCEPTED_MAX: usize = 64;

const SHUT_DOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a shutdown looks whether the last link has gone.
const LOOK_EVERY: Duration = Duration::from_millis(5);
