//! What goes into the node's machine. Plain data: the host owns sockets, disk, clocks and entropy.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::rows::{OutboxRow, RequeueRow, SeenRow, SentRow, SurfacedRow};
use crate::bind::BindTransport;
use crate::body::Message;
use crate::envelope::Priority;
use crate::id::{CertHash, ConnId, InviteLookup, MessageId, PeerId};
use crate::signal::Means;
use crate::time::UnixMs;

/// Names a caller of the local API; the host chooses it and gets it back once.
pub type Token = u64;

/// Names a live direct link; the host chooses it, never twice in one process.
pub type LinkId = u64;

/// What is about to happen to the machine.
#[derive(Debug)]
pub enum Input {
    /// A deadline may have passed.
    Timeout,
    /// The host is about to stop: others should not wait for this node.
    Stop,
    /// A program wants something.
    Request {
        /// Answered by exactly one [`Output::Reply`].
        token: Token,
        /// What.
        request: Request,
    },
    /// The store's answer to [`Output::LookupSent`]: every outbox row under that id, tombstones too.
    Sent {
        /// The lookup's token.
        token: Token,
        /// Rows found.
        rows: Vec<SentRow>,
    },
    /// The store's answer to [`Output::LookupSeen`], in the order asked.
    Seen {
        /// What is known of each (from, id).
        rows: Vec<Option<SeenRow>>,
    },
    /// The uplink's socket is open; nothing has been said on it.
    UplinkOpened,
    /// A whole frame from the coordinator.
    UplinkFrame(Bytes),
    /// The uplink is gone, or could not be made. The text is for people.
    UplinkClosed(String),
    /// A direct socket is open, its certificates checked against the expected hashes.
    LinkOpened(OpenedLink),
    /// A whole frame on a direct link.
    LinkFrame(LinkId, Bytes),
    /// The link's own estimate of its round trip, microseconds.
    LinkRtt(LinkId, u64),
    /// A direct link is gone.
    LinkClosed(LinkId),
    /// A dial gave no link. The text is for people.
    DialFailed(ConnId, String),
    /// The host can make direct links: by these means, reachable at these addresses, the most useful
    /// first. Said again whenever they change: at once when one is lost, within 250 ms
    /// when one is gained.
    DirectReady {
        /// With what, under this process's certificates. It chooses no ICE credentials.
        means: Means,
        /// Own addresses with the port of socket 0; what a port mapping gave stands among them.
        candidates: Vec<SocketAddr>,
        /// STUN servers, resolved: the coordinator's ports first. Empty where there are none.
        stun: Vec<SocketAddr>,
    },
    /// A STUN-shaped datagram (RFC 9443: first two bits zero, the magic cookie) came in on one of
    /// this node's sockets. An IPv4 address is never written as an IPv6 one.
    Datagram {
        /// The socket it came in on; 0 is the main one, which also carries QUIC.
        socket: u16,
        /// Who sent it, as this machine saw it.
        from: SocketAddr,
        /// The whole datagram, at most [`DATAGRAM_BYTES_MAX`](crate::limits::DATAGRAM_BYTES_MAX).
        datagram: Bytes,
    },
    /// The machine slept: its boot clock went on for more than five seconds without its monotonic
    /// one. Every mapping and link is in doubt.
    Woke,
    /// The answer to [`Output::OpenSockets`]: as many as could be opened, perhaps none.
    SocketsOpened {
        /// The attempt they were opened for.
        conn: ConnId,
        /// The host's names for them, never 0 and never one that is in use.
        sockets: Vec<u16>,
    },
    /// The store's answer to [`Output::Load`]: whole rows, those that still exist.
    Loaded(Vec<OutboxRow>),
    /// The store's answer to [`Output::LoadEntries`]: whole wire entries, in order.
    Entries {
        /// Index of the first.
        from: u64,
        /// Those that were asked for.
        entries: Vec<Bytes>,
    },
}

/// A direct socket as the host found it.
#[derive(Clone, Debug)]
pub struct OpenedLink {
    /// The host's name for it.
    pub link: LinkId,
    /// Which attempt it belongs to.
    pub conn: ConnId,
    /// Whether this node dialled.
    pub dialled: bool,
    /// `quic` or `dtls`, as it stands in the bind.
    pub transport: BindTransport,
    /// This node's certificate.
    pub local_cert: CertHash,
    /// The peer's certificate as observed.
    pub peer_cert: CertHash,
    /// TLS exporter, label `EXPORTER-peerloom-bind`, context the conn id; none over DTLS.
    pub exporter: Option<[u8; 32]>,
    /// Where the peer is, for people.
    pub remote: String,
}

/// What a program asks of the machine.
#[derive(Debug)]
pub enum Request {
    /// Send a message.
    Send(Send),
    /// These surfaced messages were read: tell their senders.
    Surface(Vec<SurfacedRow>),
    /// Stop trying to deliver; only rows never transmitted can be aborted.
    Abort(MessageId),
    /// Mint a fresh id for rows that ended dead, expired or rejected.
    Requeue(Vec<RequeueRow>),
    /// Measure the round trip over the coordinator and, if there is one, the direct link.
    Ping(PeerId),
    /// Begin a direct attempt without waiting for a message.
    Connect(PeerId),
    /// Append to the mesh log.
    Append(LogChange),
    /// Deposit an invite blob at the coordinator.
    PutInvite {
        /// What the joiner will ask for.
        lookup: InviteLookup,
        /// nonce ‖ secretbox.
        blob: Bytes,
        /// When it ends.
        exp: UnixMs,
        /// Admissions it serves.
        uses: u64,
    },
    /// Withdraw an invite blob.
    DeleteInvite(InviteLookup),
}

/// A message to one or more members.
#[derive(Clone, Debug)]
pub struct Send {
    /// Chosen by the program for an idempotent retry, else none.
    pub id: Option<MessageId>,
    /// Recipients, each its own row.
    pub to: Vec<PeerId>,
    /// What is said.
    pub message: Message,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// How long it is worth delivering; at most [`MESSAGE_LIFE_MAX`](crate::limits::MESSAGE_LIFE_MAX).
    pub life: Duration,
}

/// A log entry that this node is to author.
#[derive(Clone, Debug)]
pub enum LogChange {
    /// Revoke a member (or oneself, to leave).
    Revoke {
        /// Who.
        target: PeerId,
        /// 0 unsaid, 1 left, 2 lost, 3 compromised.
        reason: u64,
    },
}
