//! Direct links: the UDP sockets, one task for each dial and each link. The machine says whom to
//! expect, dial and forget and which STUN datagrams to send; this file carries frames and datagrams and
//! reports what happened. QUIC's transport owns the sockets, whether QUIC is spoken or not.

mod addresses;
mod stun;
mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::endpoint::{Input, LinkId, OpenedLink, WebRtcAct, WebRtcPeer};
use peerloom_proto::limits::{HANDSHAKE_TIMEOUT, SIGNAL_LIFE};
use peerloom_proto::{BindTransport, CertHash, ConnId, Means, WebRtcMeans};
use peerloom_transports::{
    BindError, CandidateScope, CloseReason, Datagram, DialError, LinkProperties, LinkRole, PathKind,
    PeerAddr, PeerLink, PeerTransport, QuicTransport, WebRtcTransport, bind_udp,
};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::{debug, trace};

pub(crate) use self::stun::StunFinder;
use crate::clock::deadline;
use crate::config::Transports;
use crate::engine::{Inlet, Source};
use crate::failure::chain;
use crate::outlet::{Outlet, outlet};
use crate::uplink::{read, write};

/// Owned by the engine's thread. Without a transport every dial fails at once.
#[derive(Debug)]
pub(crate) struct Links {
    shared: Option<Shared>,
    inlet: Inlet,
    runtime: Handle,
    dials: BTreeMap<ConnId, AbortHandle>,
    /// Further sockets that the machine knows of.
    further: BTreeSet<u16>,
    /// What runs as long as there is a transport.
    servants: Vec<AbortHandle>,
    /// What tells each machine anew where this node is.
    watchers: Vec<AbortHandle>,
    /// Links with smaller numbers belong to a machine that is gone.
    oldest: LinkId,
}

/// What the tasks of links have in common.
#[derive(Clone, Debug)]
struct Shared {
    transport: Arc<QuicTransport>,
    /// Whether QUIC is spoken.
    quic: bool,
    webrtc: Option<Arc<WebRtcTransport>>,
    scope: CandidateScope,
    stun: StunFinder,
    inlet: Inlet,
    open: Arc<Mutex<BTreeMap<LinkId, Outlet>>>,
    next: Arc<AtomicU64>,
}

impl Links {
    /// No direct links.
    pub(crate) fn off(inlet: Inlet, runtime: Handle) -> Self {
        Self {
            shared: None,
            inlet,
            runtime,
            dials: BTreeMap::new(),
            further: BTreeSet::new(),
            servants: Vec::new(),
            watchers: Vec::new(),
            oldest: 0,
        }
    }

    /// Binds the socket and begins to listen.
    pub(crate) fn on(
        port: u16,
        scope: CandidateScope,
        transports: Transports,
        stun: StunFinder,
        inlet: Inlet,
        runtime: Handle,
    ) -> Result<Self, BindError> {
        let (transport, webrtc) = {
            let _guard = runtime.enter();
            let quic = QuicTransport::new(bind_udp(port)?)?;
            let webrtc = transports.webrtc.then(|| WebRtcTransport::new(&quic)).transpose()?;
            (Arc::new(quic), webrtc.map(Arc::new))
        };
        let shared = Shared {
            transport,
            quic: transports.quic,
            webrtc,
            scope,
            stun,
            inlet: inlet.clone(),
            open: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
        };
        let mut servants = vec![runtime.spawn(shared.clone().hear()).abort_handle()];
        let transports: [Option<Arc<dyn PeerTransport>>; 2] =
            [Some(shared.transport.clone()), shared.webrtc.clone().map(|webrtc| webrtc as _)];
        for transport in transports.into_iter().flatten() {
            servants.push(runtime.spawn(shared.clone().accept(transport)).abort_handle());
        }
        Ok(Self { shared: Some(shared), servants, ..Self::off(inlet, runtime) })
    }

    /// Tells the machine, at once and whenever it changes, how this node can be reached. Once for
    /// every machine.
    pub(crate) fn announce(&mut self) {
        for old in self.watchers.drain(..) {
            old.abort();
        }
        if let Some(shared) = &self.shared {
            let place = self.runtime.spawn(shared.clone().watch_place()).abort_handle();
            let wake = self.runtime.spawn(wake::watch(self.inlet.clone())).abort_handle();
            self.watchers.extend([place, wake]);
        }
    }

    /// Whether that link was opened since the last reset. It may be closed by now: what it brought
    /// before counts.
    pub(crate) fn is_current(&self, link: LinkId) -> bool {
        link >= self.oldest
    }

    pub(crate) fn expect(&self, conn: ConnId, peer_cert: CertHash) {
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.transport.expect(conn, peer_cert, deadline(SIGNAL_LIFE)) {
            debug!(%error, "A direct attempt is not expected.");
        }
    }

    pub(crate) fn dial(&mut self, conn: ConnId, peer_cert: CertHash, socket: u16, candidates: &[SocketAddr]) {
        self.dials.retain(|_, dial| !dial.is_finished());
        let inlet = self.inlet.clone();
        let task = match self.shared.clone() {
            Some(shared) => {
                let peer = PeerAddr::new(conn, peer_cert, candidates, shared.scope);
                self.runtime.spawn(shared.dial(socket, peer))
            }
            None => self.runtime.spawn(async move {
                report(&inlet, Source::Transport, Input::DialFailed(conn, "direct links are off".to_owned()))
                    .await;
            }),
        };
        self.dials.insert(conn, task.abort_handle());
    }

    /// Does something over WebRTC. Without it the machine is told nothing of what it asked for: it
    /// asks only where WebRTC was announced.
    pub(crate) fn over_webrtc(&mut self, act: WebRtcAct) {
        let Some(shared) = &self.shared else { return };
        let Some(webrtc) = shared.webrtc.clone() else { return };
        match act {
            WebRtcAct::Expect(peer) => {
                if let Err(error) = webrtc.expect_peer(shared.far(peer), deadline(SIGNAL_LIFE)) {
                    debug!(%error, "A direct attempt over WebRTC is not expected.");
                }
            }
            WebRtcAct::Dial(peer) => {
                self.dials.retain(|_, dial| !dial.is_finished());
                let conn = peer.conn;
                let task = self.runtime.spawn(shared.clone().dial_webrtc(webrtc, shared.far(peer)));
                self.dials.insert(conn, task.abort_handle());
            }
            WebRtcAct::Learn { conn, candidates } => webrtc.learn(&conn, &candidates, shared.scope),
        }
    }

    /// An attempt is over, or its other way has won.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        // A link that it made has a task of its own.
        if let Some(dial) = self.dials.remove(&conn) {
            dial.abort();
        }
        if let Some(shared) = &self.shared {
            shared.transport.forget(&conn);
            shared.webrtc.iter().for_each(|webrtc| webrtc.forget(&conn));
        }
    }

    /// Sends a STUN datagram, or drops it as the network might: the machine repeats what matters.
    pub(crate) fn send_datagram(&self, socket: u16, to: SocketAddr, datagram: &[u8], ttl: Option<u8>) {
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.transport.send_datagram(socket, to, datagram, ttl) {
            trace!(socket, %error, "A STUN datagram was not sent.");
        }
    }

    /// Opens further sockets for an attempt; what the machine is to be told.
    pub(crate) fn open_sockets(&mut self, conn: ConnId, count: u16) -> Input {
        let sockets = self.shared.as_ref().map(|shared| shared.transport.open_sockets(count));
        let sockets = sockets.unwrap_or_default();
        self.further.extend(&sockets);
        Input::SocketsOpened { conn, sockets }
    }

    pub(crate) fn close_sockets(&mut self, sockets: &[u16]) {
        let Some(shared) = &self.shared else { return };
        shared.transport.close_sockets(sockets);
        for socket in sockets {
            self.further.remove(socket);
        }
    }

    /// STUN datagrams that came in and were longer than STUN is, or found no room.
    pub(crate) fn datagrams_dropped(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.transport.datagrams_dropped())
    }

    /// Queues a frame. A link that does not keep up is closed: false, and it is gone.
    pub(crate) fn send(&self, link: LinkId, frame: Bytes) -> bool {
        let Some(shared) = &self.shared else { return false };
        let mut open = shared.open();
        match open.get(&link).map(|outlet| outlet.put(frame)) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                debug!(link, %error, "A direct link is given up.");
                open.remove(&link);
                false
            }
            None => false,
        }
    }

    /// Lets the link's queue run out, then closes it.
    pub(crate) fn close(&self, link: LinkId) {
        if let Some(shared) = &self.shared {
            shared.open().remove(&link);
        }
    }

    /// Ends every link and dial and closes further sockets; the node's own stays.
    pub(crate) fn reset(&mut self) {
        let further: Vec<u16> = std::mem::take(&mut self.further).into_iter().collect();
        self.close_sockets(&further);
        for dial in std::mem::take(&mut self.dials).into_values() {
            dial.abort();
        }
        if let Some(shared) = &self.shared {
            shared.open().clear();
            self.oldest = shared.next.load(Ordering::Relaxed);
        }
    }

    /// Ends everything. Peers are told.
    pub(crate) async fn stop(&mut self) {
        self.reset();
        for task in self.servants.drain(..).chain(self.watchers.drain(..)) {
            task.abort();
        }
        if let Some(shared) = self.shared.take() {
            // It says its goodbyes over QUIC's socket.
            if let Some(webrtc) = &shared.webrtc {
                webrtc.shut_down().await;
            }
            shared.transport.shut_down().await;
        }
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<LinkId, Outlet>> {
        // A panic elsewhere cannot leave a map of queues half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node makes links with.
    fn means(&self) -> Means {
        let webrtc = self.webrtc.as_ref().map(|webrtc| WebRtcMeans { cert: webrtc.local_cert(), ice: None });
        Means { quic: self.quic.then(|| self.transport.local_cert()), webrtc }
    }

    fn far(&self, peer: WebRtcPeer) -> PeerAddr {
        PeerAddr::new(peer.conn, peer.peer_cert, &peer.candidates, self.scope).with_ice(peer.ice)
    }

    async fn accept(self, transport: Arc<dyn PeerTransport>) {
        while let Ok(link) = transport.accept().await {
            tokio::spawn(self.clone().run(link));
        }
    }

    /// Hands STUN datagrams to the engine. While that has no room they wait in the transport, which
    /// drops what its own bound does not hold.
    async fn hear(self) {
        loop {
            let datagrams = self.transport.datagrams(DATAGRAMS_AT_ONCE).await;
            if datagrams.is_empty() {
                return;
            }
            for Datagram { socket, from, bytes } in datagrams {
                let heard = Input::Datagram { socket, from, datagram: bytes };
                report(&self.inlet, Source::Transport, heard).await;
            }
        }
    }

    async fn dial(self, socket: u16, peer: PeerAddr) {
        let dialled = self.transport.dial_from(socket, &peer, deadline(HANDSHAKE_TIMEOUT)).await;
        self.dialled(peer.conn, dialled).await;
    }

    async fn dial_webrtc(self, webrtc: Arc<WebRtcTransport>, peer: PeerAddr) {
        let dialled = webrtc.dial(&peer, deadline(HANDSHAKE_TIMEOUT)).await;
        self.dialled(peer.conn, dialled).await;
    }

    async fn dialled(self, conn: ConnId, dialled: Result<Box<dyn PeerLink>, DialError>) {
        match dialled {
            // The link outlives the attempt: forgetting the one must not end the other.
            Ok(link) => {
                tokio::spawn(self.run(link));
            }
            Err(error) => {
                let failed = Input::DialFailed(conn, chain(&error));
                report(&self.inlet, Source::Transport, failed).await;
            }
        }
    }

    /// One link's life: announced, carried, reported gone.
    async fn run(self, link: Box<dyn PeerLink>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(opened) = opened(id, &link.properties()) else {
            link.close(CloseReason::Refused);
            return;
        };
        let (outlet, outflow) = outlet(QUEUE_BYTES_MAX);
        self.open().insert(id, outlet);
        let source = Source::Link(id);
        report(&self.inlet, source, Input::LinkOpened(opened)).await;
        let why = tokio::select! {
            why = read(link.as_ref(), &self.inlet, source) => why,
            why = write(link.as_ref(), outflow) => why,
            never = self.measure(link.as_ref(), id) => match never {},
        };
        debug!(link = id, %why, "A direct link ended.");
        self.open().remove(&id);
        report(&self.inlet, Source::Transport, Input::LinkClosed(id)).await;
    }

    async fn measure(&self, link: &dyn PeerLink, id: LinkId) -> std::convert::Infallible {
        let mut last = None;
        loop {
            let rtt = link.rtt();
            if let Some(rtt) = rtt.filter(|_| rtt != last) {
                let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                report(&self.inlet, Source::Link(id), Input::LinkRtt(id, micros)).await;
                last = Some(rtt);
            }
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    }
}

/// What the machine is told of a link; none if it lacks what its kind must have.
fn opened(link: LinkId, properties: &LinkProperties) -> Option<OpenedLink> {
    let binding = properties.binding?;
    let (transport, exporter) = match properties.kind {
        PathKind::Quic => (BindTransport::Quic, Some(binding.exporter?)),
        PathKind::WebRtc => (BindTransport::Dtls, None),
        PathKind::WebSocket | PathKind::Memory => return None,
    };
    Some(OpenedLink {
        link,
        conn: binding.conn,
        dialled: properties.role == LinkRole::Dialler,
        transport,
        local_cert: binding.local_cert,
        peer_cert: binding.peer_cert,
        exporter,
        remote: properties.remote.map_or_else(String::new, |remote| remote.to_string()),
    })
}

/// Hands an input over. Once the engine is gone nobody needs it.
async fn report(inlet: &Inlet, source: Source, input: Input) {
    if inlet.put(source, input).await.is_err() {
        debug!("A direct link outlived its engine.");
    }
}

/// Bytes that wait for one link: twice what the machine keeps in flight towards a peer.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// STUN datagrams taken from the transport at once.
const DATAGRAMS_AT_ONCE: usize = 64;

/// How often a link's round trip is looked at: reading it costs nothing, and a status line that lags
/// by a second is not noticed.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
