//! The seam between a node and its networks. The node names a peer by its certificate hash and a
//! conn id ([`PeerAddr`]); a [`PeerTransport`] turns that into a [`PeerLink`]; the link moves frames
//! and says at its end why it ended. Both sides still exchange signed `bind` statements before any
//! application data: a link proves a certificate, never an identity.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use futures_util::future::BoxFuture;
use peerloom_proto::ice::IceCredentials;
use peerloom_proto::limits::{CANDIDATES_MAX, FRAME_BYTES_MAX};
use peerloom_proto::{CertHash, ConnId};

use crate::identity::LinkBinding;
use crate::udp::{CandidateScope, usable};

/// Makes links over one kind of network. Knows nothing of bodies, groups or stores.
pub trait PeerTransport: fmt::Debug + Send + Sync + 'static {
    /// The path kind this transport offers; also its metric label.
    fn kind(&self) -> PathKind;

    /// Hash of the certificate every link of this transport presents; it stands in signalling.
    fn local_cert(&self) -> CertHash;

    /// Addresses others may dial, best first, at most [`CANDIDATES_MAX`]. Read anew at each call.
    fn candidates(&self, scope: CandidateScope) -> Vec<SocketAddr>;

    /// Links open or being opened, both directions: a gauge.
    fn open_links(&self) -> usize;

    /// Lets the holder of `peer_cert` open one link under `conn` until then. Whoever is not expected
    /// is refused in the handshake. Expecting the same `conn` again replaces the entry.
    fn expect(&self, conn: ConnId, peer_cert: CertHash, until: Instant) -> Result<(), ExpectError>;

    /// Takes an expectation back; nothing happens when it was used or has lapsed.
    fn forget(&self, conn: &ConnId);

    /// Opens a link to `peer`, or says why not by `deadline`. The candidates race; the first to prove
    /// the expected certificate wins and the others are closed. The acceptor may still refuse our
    /// certificate, which the first `recv` reports as [`CloseReason::Refused`].
    ///
    /// Cancel safe: dropping the future closes every attempt.
    fn dial<'a>(
        &'a self,
        peer: &'a PeerAddr,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Box<dyn PeerLink>, DialError>>;

    /// Waits for the next inbound link that was expected. Cancel safe; never yields a link twice.
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn PeerLink>, AcceptError>>;

    /// Closes every link with [`CloseReason::ShuttingDown`] and takes no more; done when the peers
    /// have been told, after a second at the latest.
    fn shut_down(&self) -> BoxFuture<'_, ()>;
}

/// One live, ordered, reliable connection that carries frames of at most [`FRAME_BYTES_MAX`].
///
/// Dropping it closes it with [`CloseReason::Finished`]. Frames in a send buffer at close may be lost:
/// the outbox above keeps what no receipt names.
pub trait PeerLink: fmt::Debug + Send + Sync + 'static {
    /// What is known of the link at this moment.
    fn properties(&self) -> LinkProperties;

    /// Puts `frames` into the send buffer of [`SEND_BUFFER_BYTES_MAX`], waiting for room, and lets them
    /// leave in as few writes as the path allows. A frame over the limit refuses the whole call.
    ///
    /// Not cancel safe as a batch: a dropped future may have sent a prefix, whole frames only.
    fn send_many(&self, frames: Vec<Bytes>) -> BoxFuture<'_, Result<(), LinkError>>;

    /// Waits for at least one frame and takes what else has arrived, in order, until `frames_max` are
    /// taken or their bytes reach `bytes_max`. Cancel safe: a frame is returned or still waits.
    fn recv_many(&self, frames_max: usize, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Bytes>, LinkError>>;

    /// Latest estimate of the round trip, once there is one.
    fn rtt(&self) -> Option<Duration>;

    /// Waits until everything sent so far has left the send buffer, or the link has ended. Cancel safe.
    fn drained(&self) -> BoxFuture<'_, ()>;

    /// Ends the link; the peer is told `reason`. What is still in the send buffer is dropped: wait for
    /// [`drained`](Self::drained) before, where it matters. Later calls change nothing.
    fn close(&self, reason: CloseReason);

    /// [`send_many`](Self::send_many) of one frame. Cancel safe: it was taken whole or not at all.
    fn send(&self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        self.send_many(vec![frame])
    }

    /// [`recv_many`](Self::recv_many) of one frame. Cancel safe.
    fn recv(&self) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(async move {
            let mut frames = self.recv_many(1, usize::MAX).await?;
            Ok(frames.pop().expect("recv_many returns at least one frame"))
        })
    }
}

/// Bytes a link takes before `send` waits; with each frame 64 bytes of overhead are counted.
///
/// Room for the largest frame and as much again; the bound of protocol.md §16 on a write buffer.
pub const SEND_BUFFER_BYTES_MAX: usize = 2 << 20;

const _: () = assert!(SEND_BUFFER_BYTES_MAX > FRAME_BYTES_MAX + 64, "the largest frame must fit the buffer");

/// Where to find a peer, and what it must prove. Comes out of sealed signalling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// The attempt both sides agreed on.
    pub conn: ConnId,
    /// The only certificate that will do.
    pub peer_cert: CertHash,
    candidates: Vec<SocketAddr>,
    ice: Option<IceCredentials>,
}

impl PeerAddr {
    /// Keeps, in their order, the first [`CANDIDATES_MAX`] addresses a peer may make us send to:
    /// no link-local, multicast, broadcast or unspecified ones, and loopback only by `scope`.
    pub fn new(conn: ConnId, peer_cert: CertHash, candidates: &[SocketAddr], scope: CandidateScope) -> Self {
        let mut kept = Vec::new();
        for addr in candidates {
            let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
            if usable(addr, scope) && !kept.contains(&addr) && kept.len() < CANDIDATES_MAX {
                kept.push(addr);
            }
        }
        Self { conn, peer_cert, candidates: kept, ice: None }
    }

    /// The ICE credentials the peer chose for itself; without, they follow from the conn. QUIC has none.
    #[must_use]
    pub fn with_ice(self, ice: Option<IceCredentials>) -> Self {
        Self { ice, ..self }
    }

    #[cfg(feature = "webrtc")]
    pub(crate) fn ice(&self) -> Option<&IceCredentials> {
        self.ice.as_ref()
    }

    /// The addresses that will be tried.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }
}

/// The kind of network a link runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// Direct, QUIC over UDP.
    Quic,
    /// Direct, a WebRTC data channel over UDP.
    WebRtc,
    /// To the coordinator, WebSocket over TCP.
    WebSocket,
    /// Inside one process; tests only.
    Memory,
}

impl PathKind {
    /// The word people, metrics and JSON see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebRtc => "webrtc",
            Self::WebSocket => "websocket",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Which side opened the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkRole {
    /// This side dialled.
    Dialler,
    /// This side accepted.
    Acceptor,
}

/// A link's facts, for status lines and for the `bind` statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkProperties {
    /// Kind of network.
    pub kind: PathKind,
    /// Which side opened it.
    pub role: LinkRole,
    /// The peer's address; a QUIC peer may move.
    pub remote: Option<SocketAddr>,
    /// Certificates and exporter; none on the uplink, whose hello binds it instead.
    pub binding: Option<LinkBinding>,
}

/// Why a link ended, as told to the other side. The number travels: QUIC carries it as the
/// application error code, WebSocket as close code 4000 + number, a data channel as its one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// No more use for it. Also a number this version does not know: the link is over either way.
    Finished,
    /// No traffic for [`DIRECT_IDLE_MAX`](peerloom_proto::limits::DIRECT_IDLE_MAX).
    Idle,
    /// A younger link between the two takes its place.
    Superseded,
    /// Wrong certificate, unknown conn, failed `bind` or failed hello.
    Refused,
    /// The peer is no longer a member.
    Revoked,
    /// The peer broke the protocol.
    Misbehaved,
    /// The process ends, or the coordinator drains.
    ShuttingDown,
}

impl CloseReason {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Finished => 0,
            Self::Idle => 1,
            Self::Superseded => 2,
            Self::Refused => 3,
            Self::Revoked => 4,
            Self::Misbehaved => 5,
            Self::ShuttingDown => 6,
        }
    }

    pub(crate) const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Idle,
            2 => Self::Superseded,
            3 => Self::Refused,
            4 => Self::Revoked,
            5 => Self::Misbehaved,
            6 => Self::ShuttingDown,
            _ => Self::Finished,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Idle => "idle",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::Revoked => "revoked",
            Self::Misbehaved => "misbehaved",
            Self::ShuttingDown => "shutting down",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a dial gave no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The peer named no address that may be tried.
    #[error("no usable candidates")]
    NoCandidates,
    /// Nothing answered. Try the next path; retry this one after its backoff.
    #[error("no answer from {candidates} candidates within {waited:?}")]
    TimedOut {
        /// Addresses tried.
        candidates: usize,
        /// How long.
        waited: Duration,
    },
    /// The attempt was to go out from a further socket, and it is closed.
    #[error("socket {socket} is closed")]
    NoSocket {
        /// Its name.
        socket: u16,
    },
    /// Someone else answered, and the expected peer did not.
    #[error("a candidate presented certificate {presented}, expected {expected}")]
    WrongPeer {
        /// The certificate that signalling named.
        expected: CertHash,
        /// The one that was shown.
        presented: CertHash,
    },
    /// The peer answered but does not expect us.
    #[error("refused by the peer")]
    Refused,
    /// Every candidate failed before the deadline; the last reason is the source.
    #[error("all {candidates} candidates failed")]
    Unreachable {
        /// Addresses tried.
        candidates: usize,
        /// Why the last one failed.
        #[source]
        last: io::Error,
    },
    /// The transport is shut down.
    #[error("transport is shut down")]
    ShutDown,
}

/// Why there will be no further inbound links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The transport is shut down.
    #[error("transport is shut down")]
    ShutDown,
}

/// Why an expectation was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpectError {
    /// Too many peers are expected at once; the attempt stays on the relay and may be repeated.
    #[error("already expecting {max} links")]
    Full {
        /// The bound.
        max: usize,
    },
}

/// Why a link carried no frame. All but `TooLarge` mean that the link is over; the first cause is
/// reported ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The frame was not sent, nor any other of the same call. The link is unharmed.
    #[error("frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// Size of the offending frame.
        bytes: usize,
        /// [`FRAME_BYTES_MAX`].
        bytes_max: usize,
    },
    /// The peer sent what is no frame; the link was closed with [`CloseReason::Misbehaved`].
    #[error("peer broke the framing: {what}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
    },
    /// Closed by this side or by the peer.
    #[error("closed: {0}")]
    Closed(CloseReason),
    /// Silence, a reset or a socket error.
    #[error("lost: {0}")]
    Lost(io::ErrorKind),
}
