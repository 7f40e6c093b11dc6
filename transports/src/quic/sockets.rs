//! The sockets of a transport. Number 0 is the node's own and carries QUIC from the start. Further ones
//! are opened for an attempt that needs many ports: each hears STUN alone until QUIC is wanted on it,
//! by a dial from it or by a connection that comes in on it, and then gets a quinn endpoint of its own
//! with the same certificate and the same expectations.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerloom_proto::limits::DATAGRAM_BYTES_MAX;
use peerloom_proto::stun::is_stun;
#[cfg(feature = "webrtc")]
use quinn::AsyncUdpSocket;
use quinn::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::{debug, trace};

use super::admission::{Admission, admit_all};
use super::close_code;
use crate::transport::CloseReason;
#[cfg(feature = "webrtc")]
use crate::udp::Sharer;
use crate::udp::{self, SharedSocket, SharerSlot, StunQueue, bind_udp};

/// Cheap to clone: all clones are the same sockets.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: ServerConfig,
    stun: StunQueue,
    /// Who else reads the node's own socket.
    sharer: SharerSlot,
    runtime: Handle,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    places: BTreeMap<u16, Place>,
    /// The name given last. Names come round again only after all others.
    last: u16,
    /// None once everything is shut.
    admission: Option<Admission>,
}

#[derive(Debug)]
struct Place {
    /// The descriptor that STUN leaves by: quinn's, before its first poll, would refuse.
    socket: Arc<UdpSocket>,
    carries: Carries,
}

#[derive(Debug)]
enum Carries {
    StunAlone(AbortHandle),
    Quic { endpoint: Endpoint, acceptor: AbortHandle },
}

impl Sockets {
    /// Runs QUIC on the node's own socket.
    pub(super) fn new(
        main: UdpSocket,
        server: ServerConfig,
        admission: Admission,
        stun: StunQueue,
    ) -> io::Result<Self> {
        main.set_nonblocking(true)?;
        let open = Mutex::new(Open { places: BTreeMap::new(), last: MAIN, admission: Some(admission) });
        let sharer = SharerSlot::default();
        let sockets = Self(Arc::new(Shared { server, stun, sharer, runtime: Handle::current(), open }));
        let main = Arc::new(main);
        let carries = sockets.carry_quic(MAIN, &main, &sockets.open())?;
        sockets.open().places.insert(MAIN, Place { socket: main, carries });
        Ok(sockets)
    }

    /// Opens up to `count` further sockets on ports of the system's choice; gives their names. Fewer
    /// where [`FURTHER_MAX`] or the system's limit of descriptors is reached.
    pub(super) fn open_further(&self, count: u16) -> Vec<u16> {
        let mut names = Vec::new();
        for _ in 0..count {
            match self.open_one() {
                Ok(Some(name)) => names.push(name),
                Ok(None) => break,
                Err(error) => {
                    debug!(%error, opened = names.len(), asked = count, "No more UDP sockets.");
                    break;
                }
            }
        }
        names
    }

    /// None where there are enough.
    fn open_one(&self) -> io::Result<Option<u16>> {
        let mut open = self.open();
        if open.admission.is_none() || open.places.len() > FURTHER_MAX {
            return Ok(None);
        }
        let socket = Arc::new(bind_udp(0)?);
        socket.set_nonblocking(true)?;
        let heard = {
            let _runtime = self.0.runtime.enter();
            tokio::net::UdpSocket::from_std(socket.try_clone()?)?
        };
        let name = open.fresh_name();
        let hearing = self.0.runtime.spawn(self.clone().hear(name, heard)).abort_handle();
        open.places.insert(name, Place { socket, carries: Carries::StunAlone(hearing) });
        Ok(Some(name))
    }

    /// Closes sockets; one that carries connections goes when the last of them does. The node's own
    /// stays.
    pub(super) fn close(&self, names: &[u16]) {
        let mut open = self.open();
        for name in names.iter().filter(|name| **name != MAIN) {
            match open.places.get(name).map(|place| &place.carries) {
                Some(Carries::Quic { endpoint, .. }) if endpoint.open_connections() > 0 => {
                    let (sockets, name, endpoint) = (self.clone(), *name, endpoint.clone());
                    self.0.runtime.spawn(async move {
                        endpoint.wait_idle().await;
                        sockets.open().remove(name);
                    });
                }
                Some(Carries::Quic { .. } | Carries::StunAlone(_)) => open.remove(*name),
                None => {}
            }
        }
    }

    /// The endpoint of a socket, made if it had none; none if there is no such socket.
    pub(super) fn endpoint(&self, name: u16) -> io::Result<Option<Endpoint>> {
        let mut open = self.open();
        let socket = match open.places.get(&name) {
            None => return Ok(None),
            Some(Place { carries: Carries::Quic { endpoint, .. }, .. }) => return Ok(Some(endpoint.clone())),
            Some(Place { carries: Carries::StunAlone(hearing), socket }) => {
                hearing.abort();
                socket.clone()
            }
        };
        let carries = self.carry_quic(name, &socket, &open)?;
        let place = open.places.entry(name).insert_entry(Place { socket, carries });
        match &place.get().carries {
            Carries::Quic { endpoint, .. } => Ok(Some(endpoint.clone())),
            Carries::StunAlone(_) => Ok(None),
        }
    }

    fn carry_quic(&self, name: u16, socket: &UdpSocket, open: &Open) -> io::Result<Carries> {
        let admission = open.admission.clone().ok_or(io::ErrorKind::NotConnected)?;
        let _runtime = self.0.runtime.enter();
        let quic = TokioRuntime.wrap_udp_socket(socket.try_clone()?)?;
        let sharer = if name == MAIN { self.0.sharer.clone() } else { SharerSlot::default() };
        let shared = Arc::new(SharedSocket::new(quic, name, self.0.stun.clone(), sharer));
        let server = Some(self.0.server.clone());
        let endpoint =
            Endpoint::new_with_abstract_socket(endpoint_config(), server, shared, Arc::new(TokioRuntime))?;
        let acceptor = self.0.runtime.spawn(admit_all(endpoint.clone(), admission)).abort_handle();
        Ok(Carries::Quic { endpoint, acceptor })
    }

    /// Sends a STUN datagram; see [`udp::send`].
    pub(super) fn send(
        &self,
        name: u16,
        to: SocketAddr,
        datagram: &[u8],
        hops: Option<u8>,
    ) -> io::Result<()> {
        let socket = self.open().places.get(&name).map(|place| place.socket.clone());
        udp::send(&*socket.ok_or(io::ErrorKind::NotFound)?, to, datagram, hops)
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        let open = self.open();
        open.places.get(&MAIN).ok_or(io::ErrorKind::NotConnected)?.socket.local_addr()
    }

    pub(super) fn open_connections(&self) -> usize {
        self.endpoints().iter().map(Endpoint::open_connections).sum()
    }

    /// Datagrams of STUN that were oversize or found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.0.stun.dropped()
    }

    /// The node's own socket once more, to send from.
    #[cfg(feature = "webrtc")]
    pub(super) fn outlet(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let open = self.open();
        let socket = &open.places.get(&MAIN).ok_or(io::ErrorKind::NotConnected)?.socket;
        TokioRuntime.wrap_udp_socket(socket.try_clone()?)
    }

    /// Shows every datagram of the node's own socket to `sharer` first; an error if there is one already.
    #[cfg(feature = "webrtc")]
    pub(super) fn share(&self, sharer: Arc<dyn Sharer>) -> io::Result<()> {
        self.0.sharer.set(sharer).map_err(|_| io::ErrorKind::ResourceBusy.into())
    }

    /// Ends every connection and lets nobody in any more; gives the endpoints that still say goodbye.
    pub(super) fn shut(&self) -> Vec<Endpoint> {
        let endpoints = self.endpoints();
        let mut open = self.open();
        open.admission = None;
        let further: Vec<u16> = open.places.keys().copied().collect();
        for name in further {
            open.remove(name);
        }
        endpoints
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let quic = |place: &Place| match &place.carries {
            Carries::Quic { endpoint, .. } => Some(endpoint.clone()),
            Carries::StunAlone(_) => None,
        };
        self.open().places.values().filter_map(quic).collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // A panic elsewhere cannot leave a map of sockets half changed.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a further socket until QUIC is wanted on it.
    async fn hear(self, name: u16, socket: tokio::net::UdpSocket) {
        let mut datagram = [0; DATAGRAM_BYTES_MAX + 1];
        loop {
            // Only looked at: what is for quinn must still be there when quinn comes.
            match socket.peek_from(&mut datagram).await {
                Ok((length, _)) if self.wants_quic(&datagram[..length]) => match self.endpoint(name) {
                    Ok(_) => return,
                    Err(error) => debug!(%error, "A UDP socket cannot carry QUIC."),
                },
                Ok(_) => {}
                Err(error) => trace!(%error, "An error of an earlier datagram."),
            }
            if let Ok((length, from)) = socket.try_recv_from(&mut datagram)
                && is_stun(&datagram[..length])
            {
                self.0.stun.put(name, from, &datagram[..length]);
            }
        }
    }

    /// Whether a datagram may begin a connection that somebody expects.
    fn wants_quic(&self, datagram: &[u8]) -> bool {
        // RFC 9000 §17.2: the first packets of a connection have a long header.
        let is_long = datagram.first().is_some_and(|first| first & 0x80 != 0);
        is_long && self.open().admission.as_ref().is_some_and(|admission| !admission.expected.is_empty())
    }
}

impl Open {
    fn fresh_name(&mut self) -> u16 {
        loop {
            self.last = self.last.wrapping_add(1);
            // 65,535 names for at most 256 sockets: the loop ends.
            if self.last != MAIN && !self.places.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    fn remove(&mut self, name: u16) {
        match self.places.remove(&name).map(|place| place.carries) {
            Some(Carries::StunAlone(hearing)) => hearing.abort(),
            Some(Carries::Quic { endpoint, acceptor }) => {
                acceptor.abort();
                endpoint.close(close_code(CloseReason::ShuttingDown), b"");
            }
            None => {}
        }
    }
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // RFC 9443 §3: a peer that greases the fixed bit (RFC 9287) could send what looks like STUN.
    config.grease_quic_bit(false);
    config
}

/// The name of the node's own socket.
pub(super) const MAIN: u16 = 0;

/// Further sockets at once, two descriptors each. 256 is what a birthday punch
/// takes at most; beyond it an attempt gets fewer, and fewer chances.
pub(super) const FURTHER_MAX: usize = 256;
