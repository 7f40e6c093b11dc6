//! Links inside one process, with the semantics of the real ones: certificates are made-up hashes,
//! addresses are made-up hosts of one [`MemoryNetwork`]. For tests.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use peerloom_proto::{CertHash, ConnId, sha256};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep_until;

use crate::end::LinkEnd;
use crate::expected::Expectations;
use crate::identity::LinkBinding;
use crate::queue::{FrameReceiver, FrameSender, frame_queue};
use crate::transport::{
    AcceptError, BoxFuture, CloseReason, DialError, ExpectError, LinkError, LinkProperties, LinkRole,
    PathKind, PeerAddr, PeerLink, PeerTransport,
};
use crate::udp::CandidateScope;

/// Links that wait for `accept`; further dials are refused.
const ACCEPTED_MAX: usize = 64;

/// A network of transports that reach each other and nothing else.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    hosts: Arc<SyncMutex<BTreeMap<SocketAddr, Weak<Port>>>>,
}

impl MemoryNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport on the next free address, 10.0.0.1:7000 upward.
    pub fn transport(&self) -> MemoryTransport {
        let mut hosts = self.hosts.lock().expect("no code panics while it holds this lock");
        let number = u32::try_from(hosts.len() + 1).expect("a test has fewer hosts than addresses");
        let addr = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + number), 7000));
        let (links, accepted) = mpsc::channel(ACCEPTED_MAX);
        let port = Arc::new(Port {
            addr,
            cert: CertHash(sha256(addr.to_string().as_bytes())),
            expected: Expectations::default(),
            links,
            open: AtomicUsize::new(0),
            ends: SyncMutex::default(),
        });
        hosts.insert(addr, Arc::downgrade(&port));
        MemoryTransport { network: self.clone(), port, accepted: Mutex::new(accepted) }
    }

    fn port(&self, addr: &SocketAddr) -> Option<Arc<Port>> {
        self.hosts.lock().expect("no code panics while it holds this lock").get(addr)?.upgrade()
    }
}

/// What the network knows of one transport.
#[derive(Debug)]
struct Port {
    addr: SocketAddr,
    cert: CertHash,
    expected: Expectations,
    links: mpsc::Sender<Box<dyn PeerLink>>,
    open: AtomicUsize,
    ends: SyncMutex<Vec<Weak<LinkEnd>>>,
}

impl Port {
    fn close_all(&self) {
        for end in self.ends.lock().expect("no code panics while it holds this lock").drain(..) {
            if let Some(end) = end.upgrade() {
                end.set(LinkError::Closed(CloseReason::ShuttingDown));
            }
        }
    }

    fn track(&self, end: &Arc<LinkEnd>) {
        let mut ends = self.ends.lock().expect("no code panics while it holds this lock");
        ends.retain(|known| known.strong_count() > 0);
        ends.push(Arc::downgrade(end));
    }
}

/// One host of a [`MemoryNetwork`]. Dropping it closes its links.
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    port: Arc<Port>,
    accepted: Mutex<mpsc::Receiver<Box<dyn PeerLink>>>,
}

impl MemoryTransport {
    /// Connects to whichever candidate is there; like a lost packet, an empty address just is silent.
    async fn dial_until(&self, peer: &PeerAddr, deadline: Instant) -> Result<MemoryLink, DialError> {
        let started = Instant::now();
        let candidates = peer.candidates().len();
        if candidates == 0 {
            return Err(DialError::NoCandidates);
        }
        let Some(far) = peer.candidates().iter().find_map(|addr| self.network.port(addr)) else {
            sleep_until(deadline.into()).await;
            return Err(DialError::TimedOut { candidates, waited: started.elapsed() });
        };
        if far.cert != peer.peer_cert {
            return Err(DialError::WrongPeer { expected: peer.peer_cert, presented: far.cert });
        }
        if !far.expected.take(&peer.conn, &self.port.cert) {
            return Err(DialError::Refused);
        }
        let (near_link, far_link) = pair(&self.port, &far, peer.conn);
        far.links.try_send(Box::new(far_link)).map_err(|_| DialError::Refused)?;
        Ok(near_link)
    }
}

impl PeerTransport for MemoryTransport {
    fn kind(&self) -> PathKind {
        PathKind::Memory
    }

    fn local_cert(&self) -> CertHash {
        self.port.cert
    }

    fn candidates(&self, _scope: CandidateScope) -> Vec<SocketAddr> {
        vec![self.port.addr]
    }

    fn open_links(&self) -> usize {
        self.port.open.load(Ordering::Relaxed)
    }

    fn expect(&self, conn: ConnId, peer_cert: CertHash, until: Instant) -> Result<(), ExpectError> {
        self.port.expected.add(conn, peer_cert, until)
    }

    fn forget(&self, conn: &ConnId) {
        self.port.expected.forget(conn);
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
            self.port.close_all();
            self.accepted.lock().await.close();
        })
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.port.close_all();
    }
}

#[derive(Debug)]
struct MemoryLink {
    port: Arc<Port>,
    properties: LinkProperties,
    outgoing: FrameSender,
    incoming: Mutex<FrameReceiver>,
    // Shared by both ends: what one side says, the other learns.
    end: Arc<LinkEnd>,
}

impl MemoryLink {
    async fn receive(&self, frames_max: usize, bytes_max: usize) -> Result<Vec<Bytes>, LinkError> {
        let mut incoming = self.incoming.lock().await;
        let mut frames = Vec::new();
        tokio::select! {
            biased;
            room = incoming.take(&mut frames, frames_max, bytes_max) => incoming.release(room),
            end = self.end.wait() => return Err(end),
        }
        if frames.is_empty() {
            return Err(self.end.set(LinkError::Closed(CloseReason::Finished)));
        }
        Ok(frames)
    }
}

impl PeerLink for MemoryLink {
    fn properties(&self) -> LinkProperties {
        self.properties
    }

    fn send_many(&self, frames: Vec<Bytes>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.outgoing.send_many(frames))
    }

    fn recv_many(&self, frames_max: usize, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Bytes>, LinkError>> {
        Box::pin(self.receive(frames_max, bytes_max))
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.outgoing.drained())
    }

    fn rtt(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn close(&self, reason: CloseReason) {
        self.end.set(LinkError::Closed(reason));
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.close(CloseReason::Finished);
        self.port.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn pair(dialler: &Arc<Port>, acceptor: &Arc<Port>, conn: ConnId) -> (MemoryLink, MemoryLink) {
    let end = Arc::new(LinkEnd::new());
    let (to_acceptor, from_dialler) = frame_queue(end.clone());
    let (to_dialler, from_acceptor) = frame_queue(end.clone());
    let exporter = Some(sha256(conn.as_bytes()));
    let link = |near: &Arc<Port>, far: &Port, role, outgoing, incoming| {
        near.open.fetch_add(1, Ordering::Relaxed);
        near.track(&end);
        let binding = LinkBinding { conn, local_cert: near.cert, peer_cert: far.cert, exporter };
        MemoryLink {
            port: near.clone(),
            properties: LinkProperties {
                kind: PathKind::Memory,
                role,
                remote: Some(far.addr),
                binding: Some(binding),
            },
            outgoing,
            incoming: Mutex::new(incoming),
            end: end.clone(),
        }
    };
    let near_link = link(dialler, acceptor, LinkRole::Dialler, to_acceptor, from_acceptor);
    let far_link = link(acceptor, dialler, LinkRole::Acceptor, to_dialler, from_dialler);
    (near_link, far_link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, TransportPair};

    #[tokio::test]
    async fn conforms() {
        let network = MemoryNetwork::new();
        conformance::all(TransportPair {
            dialler: Box::new(network.transport()),
            acceptor: Box::new(network.transport()),
            silent: "10.9.9.9:9".parse().unwrap(),
            scope: CandidateScope::Routable,
        })
        .await;
    }
}
