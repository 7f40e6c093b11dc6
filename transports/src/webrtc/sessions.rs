//! Which session a datagram belongs to. All sessions share the node's own UDP socket: a check is told by
//! the name it asks for, an answer by its transaction, DTLS by the address it comes from.
//!
//! Two sessions with one peer share an address while a younger link takes an older one's place. The
//! plaintext of a handshake goes to the younger; sealed records go to all that are past theirs, and those
//! that cannot open one drop it (RFC 6347 §4.1.2.7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use peerloom_proto::ice::addressee;
use peerloom_proto::limits::CANDIDATES_MAX;
use peerloom_proto::stun::{StunKind, StunMessage, TransactionId, is_stun, unauthenticated};
use quinn::udp::Transmit;
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;
use tracing::trace;

use crate::udp::Sharer;

/// A datagram and who sent it.
pub(super) type Came = (SocketAddr, BytesMut);

/// All sessions of one socket.
#[derive(Debug)]
pub(super) struct Sessions {
    socket: Arc<dyn AsyncUdpSocket>,
    /// Whether the socket speaks IPv6, and IPv4 in its form.
    dual: bool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_name: BTreeMap<String, Arc<Inlet>>,
    /// Youngest last.
    by_addr: BTreeMap<SocketAddr, Vec<Arc<Inlet>>>,
}

/// Where a session's datagrams go in.
#[derive(Debug)]
struct Inlet {
    name: String,
    queue: mpsc::Sender<Came>,
    /// Past its handshake.
    sealed: AtomicBool,
    asked: Mutex<VecDeque<TransactionId>>,
    learned: mpsc::Sender<SocketAddr>,
}

impl Inlet {
    /// A full queue loses it, as a full socket would.
    fn put(&self, from: SocketAddr, datagram: &[u8]) {
        if self.queue.try_send((from, BytesMut::from(datagram))).is_err() {
            trace!("A session lost a datagram.");
        }
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<TransactionId>> {
        // A panic elsewhere cannot leave a list of ids half changed.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> io::Result<Self> {
        let dual = socket.local_addr()?.is_ipv6();
        Ok(Self { socket, dual, table: Mutex::default() })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether somebody is asked for by this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.table().by_name.contains_key(name)
    }

    /// Gives a session its place; an older one of this name is no longer asked for.
    pub(super) fn seat(self: &Arc<Self>, name: &str) -> Seat {
        let (queue, came) = mpsc::channel(DATAGRAMS_WAITING_MAX);
        let (learned, learning) = mpsc::channel(CANDIDATES_MAX);
        let inlet = Arc::new(Inlet {
            name: name.to_owned(),
            queue,
            sealed: AtomicBool::new(false),
            asked: Mutex::default(),
            learned,
        });
        self.table().by_name.insert(name.to_owned(), inlet.clone());
        let poller = self.socket.clone().create_io_poller();
        Seat { sessions: self.clone(), inlet, came, poller, met: BTreeSet::new(), learning }
    }

    /// A session's peer can be found at these addresses too. More than a session has not yet taken in
    /// are of no use.
    pub(super) fn teach(&self, name: &str, candidates: &[SocketAddr]) {
        if let Some(inlet) = self.table().by_name.get(name) {
            for candidate in candidates {
                if inlet.learned.try_send(*candidate).is_err() {
                    trace!("A session learned enough.");
                }
            }
        }
    }

    /// Nobody is asked for by this name any more.
    pub(super) fn unseat(&self, name: &str) {
        self.table().by_name.remove(name);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let table = self.table();
        table.by_name.is_empty() && table.by_addr.is_empty()
    }

    fn take_stun(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(message) = StunMessage::parse(datagram) else { return false };
        match message.kind {
            StunKind::Request => {
                let Some(name) = message.username.and_then(addressee) else { return false };
                match self.table().by_name.get(name) {
                    Some(inlet) => inlet.put(from, datagram),
                    None => self.refuse(from, &message.transaction),
                }
                true
            }
            StunKind::Success | StunKind::Error => {
                let table = self.table();
                let mut there = table.by_addr.get(&from).into_iter().flatten();
                let Some(inlet) = there.find(|inlet| inlet.asked().contains(&message.transaction)) else {
                    return false;
                };
                inlet.put(from, datagram);
                true
            }
        }
    }

    fn take_dtls(&self, from: SocketAddr, datagram: &[u8]) {
        // RFC 6347 §4.1: type, version, epoch; the epoch of plaintext is 0.
        let plain = datagram.get(3..5) == Some(&[0, 0]);
        let table = self.table();
        let Some(there) = table.by_addr.get(&from) else { return };
        let past = |inlet: &&Arc<Inlet>| inlet.sealed.load(Ordering::Relaxed);
        let youngest = there.iter().rev().find(|inlet| !past(inlet)).or(there.last());
        if plain || !there.iter().any(|inlet| past(&inlet)) {
            if let Some(inlet) = youngest {
                inlet.put(from, datagram);
            }
        } else {
            there.iter().filter(past).for_each(|inlet| inlet.put(from, datagram));
        }
    }

    /// Whoever asked repeats it if this finds no room.
    fn refuse(&self, to: SocketAddr, transaction: &TransactionId) {
        let answer = unauthenticated(transaction);
        let sent = self.socket.try_send(&self.transmit(to, &answer, None));
        trace!(?sent, "A check asked for nobody here.");
    }

    fn transmit<'a>(&self, to: SocketAddr, contents: &'a [u8], segment: Option<usize>) -> Transmit<'a> {
        let destination = match to.ip() {
            IpAddr::V4(ip) if self.dual => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        };
        Transmit { destination, ecn: None, contents, segment_size: segment, src_ip: None }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sharer for Sessions {
    fn take(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        match datagram.first() {
            // RFC 9443: DTLS.
            Some(20..=63) => {
                self.take_dtls(from, datagram);
                true
            }
            Some(_) if is_stun(datagram) => self.take_stun(from, datagram),
            Some(_) | None => false,
        }
    }
}

/// One session's place at the socket. Dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Seat {
    sessions: Arc<Sessions>,
    inlet: Arc<Inlet>,
    came: mpsc::Receiver<Came>,
    learning: mpsc::Receiver<SocketAddr>,
    poller: Pin<Box<dyn UdpPoller>>,
    met: BTreeSet<SocketAddr>,
}

impl Seat {
    /// Waits for datagrams and takes up to [`BURST`] of them. Cancel safe.
    pub(super) async fn recv(&mut self, into: &mut Vec<Came>) {
        self.came.recv_many(into, BURST).await;
    }

    /// Waits for datagrams or for a further address of the peer. Cancel safe.
    pub(super) async fn recv_or_learn(&mut self, into: &mut Vec<Came>) -> Option<SocketAddr> {
        tokio::select! {
            _ = self.came.recv_many(into, BURST) => None,
            Some(learned) = self.learning.recv() => Some(learned),
        }
    }

    /// The handshake is over.
    pub(super) fn seal(&self) {
        self.inlet.sealed.store(true, Ordering::Relaxed);
    }

    /// Datagrams of one size that the system takes at once; the last may be shorter.
    pub(super) fn segments_max(&self) -> usize {
        self.sessions.socket.max_transmit_segments()
    }

    /// Sends one datagram, or several of `segment` bytes, waiting for room. A path's errors are silence.
    pub(super) async fn send(&mut self, to: SocketAddr, contents: &[u8], segment: Option<usize>) {
        if !self.meet(to) {
            return;
        }
        if is_stun(contents)
            && let Some(StunMessage { kind: StunKind::Request, transaction, .. }) =
                StunMessage::parse(contents)
        {
            let mut asked = self.inlet.asked();
            if asked.len() == ASKED_MAX {
                asked.pop_front();
            }
            asked.push_back(transaction);
        }
        let transmit = self.sessions.transmit(to, contents, segment);
        loop {
            match self.sessions.socket.try_send(&transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if poll_fn(|cx| self.poller.as_mut().poll_writable(cx)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    trace!(%error, "A datagram was not sent.");
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    /// Hears DTLS from an address from here on; not from too many.
    fn meet(&mut self, addr: SocketAddr) -> bool {
        if self.met.contains(&addr) {
            return true;
        }
        if self.met.len() >= ADDRESSES_MAX {
            return false;
        }
        self.met.insert(addr);
        self.sessions.table().by_addr.entry(addr).or_default().push(self.inlet.clone());
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        if table.by_name.get(&self.inlet.name).is_some_and(|seated| Arc::ptr_eq(seated, &self.inlet)) {
            table.by_name.remove(&self.inlet.name);
        }
        for addr in &self.met {
            if let Some(there) = table.by_addr.get_mut(addr) {
                there.retain(|inlet| !Arc::ptr_eq(inlet, &self.inlet));
                if there.is_empty() {
                    table.by_addr.remove(addr);
                }
            }
        }
    }
}

/// Datagrams that wait for one session, about a megabyte and a half; further ones are lost like on a
/// full socket, and SCTP repeats them.
const DATAGRAMS_WAITING_MAX: usize = 1024;

/// Datagrams one session reads before it writes: its acknowledgements then cover them together.
const BURST: usize = 64;

/// Checks whose answers are waited for: 16 candidates, every 20 ms, for as long as a far answer takes.
const ASKED_MAX: usize = 512;

/// Addresses one session sends to: the candidates, and as many again that turned out on the way. To
/// further ones nothing is sent.
const ADDRESSES_MAX: usize = 2 * CANDIDATES_MAX;
