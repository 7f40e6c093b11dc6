//! Direct links: one UDP socket, one task for each dial and each link. The machine says whom to
//! expect, dial and forget; this file carries frames and reports what happened.

mod addresses;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::endpoint::{Input, LinkId, OpenedLink};
use peerloom_proto::limits::{HANDSHAKE_TIMEOUT, SIGNAL_LIFE};
use peerloom_proto::{BindTransport, CertHash, ConnId};
use peerloom_transports::{
    BindError, CandidateScope, CloseReason, LinkRole, PeerAddr, PeerLink, PeerTransport, QuicTransport,
    bind_udp,
};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::debug;

use crate::clock::deadline;
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
    acceptor: Option<AbortHandle>,
    watcher: Option<AbortHandle>,
    /// Links with smaller numbers belong to a machine that is gone.
    oldest: LinkId,
}

/// What the tasks of links have in common.
#[derive(Clone, Debug)]
struct Shared {
    transport: Arc<QuicTransport>,
    scope: CandidateScope,
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
            acceptor: None,
            watcher: None,
            oldest: 0,
        }
    }

    /// Binds the socket and begins to listen.
    pub(crate) fn on(
        port: u16,
        scope: CandidateScope,
        inlet: Inlet,
        runtime: Handle,
    ) -> Result<Self, BindError> {
        let transport = {
            let _guard = runtime.enter();
            Arc::new(QuicTransport::new(bind_udp(port)?)?)
        };
        let shared = Shared {
            transport,
            scope,
            inlet: inlet.clone(),
            open: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
        };
        let acceptor = Some(runtime.spawn(shared.clone().accept()).abort_handle());
        let shared = Some(shared);
        Ok(Self { shared, inlet, runtime, dials: BTreeMap::new(), acceptor, watcher: None, oldest: 0 })
    }

    /// Tells the machine, at once and whenever it changes, how this node can be reached. Once for
    /// every machine.
    pub(crate) fn announce(&mut self) {
        if let Some(shared) = &self.shared {
            let watcher = self.runtime.spawn(shared.clone().watch_addresses()).abort_handle();
            if let Some(old) = self.watcher.replace(watcher) {
                old.abort();
            }
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

    pub(crate) fn dial(&mut self, conn: ConnId, peer_cert: CertHash, candidates: &[SocketAddr]) {
        self.dials.retain(|_, dial| !dial.is_finished());
        let inlet = self.inlet.clone();
        let task = match self.shared.clone() {
            Some(shared) => {
                let peer = PeerAddr::new(conn, peer_cert, candidates, shared.scope);
                self.runtime.spawn(shared.dial(peer))
            }
            None => self.runtime.spawn(async move {
                report(&inlet, Source::Transport, Input::DialFailed(conn, "direct links are off".to_owned()))
                    .await;
            }),
        };
        self.dials.insert(conn, task.abort_handle());
    }

    pub(crate) fn forget(&mut self, conn: ConnId) {
        if let Some(shared) = &self.shared {
            shared.transport.forget(&conn);
        }
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

    /// Ends every link and dial; the socket stays.
    pub(crate) fn reset(&mut self) {
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
        for task in [self.acceptor.take(), self.watcher.take()].into_iter().flatten() {
            task.abort();
        }
        if let Some(shared) = self.shared.take() {
            shared.transport.shut_down().await;
        }
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<LinkId, Outlet>> {
        // A panic elsewhere cannot leave a map of queues half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self) {
        while let Ok(link) = self.transport.accept().await {
            tokio::spawn(self.clone().run(link));
        }
    }

    async fn dial(self, peer: PeerAddr) {
        match self.transport.dial(&peer, deadline(HANDSHAKE_TIMEOUT)).await {
            // The link outlives the attempt: forgetting the one must not end the other.
            Ok(link) => {
                tokio::spawn(self.run(link));
            }
            Err(error) => {
                let failed = Input::DialFailed(peer.conn, chain(&error));
                report(&self.inlet, Source::Transport, failed).await;
            }
        }
    }

    /// One link's life: announced, carried, reported gone.
    async fn run(self, link: Box<dyn PeerLink>) {
        let properties = link.properties();
        let binding = properties.binding.and_then(|binding| Some((binding, binding.exporter?)));
        let Some((binding, exporter)) = binding else {
            link.close(CloseReason::Refused);
            return;
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let opened = OpenedLink {
            link: id,
            conn: binding.conn,
            dialled: properties.role == LinkRole::Dialler,
            transport: BindTransport::Quic,
            local_cert: binding.local_cert,
            peer_cert: binding.peer_cert,
            exporter,
            remote: properties.remote.map_or_else(String::new, |remote| remote.to_string()),
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

/// Hands an input over. Once the engine is gone nobody needs it.
async fn report(inlet: &Inlet, source: Source, input: Input) {
    if inlet.put(source, input).await.is_err() {
        debug!("A direct link outlived its engine.");
    }
}

/// Bytes that wait for one link: twice what the machine keeps in flight towards a peer.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// How often a link's round trip is looked at: reading it costs nothing, and a status line that lags
/// by a second is not noticed.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
