//! What comes out of the node's machine, and what its words mean.

use std::net::SocketAddr;

use bytes::Bytes;

use super::input::{LinkId, Token};
use super::rows::{OutboxState, PathKind, Row, Write};
use crate::ice::IceCredentials;
use crate::id::{CertHash, ConnId, MessageId, PeerId};
use crate::time::UnixMs;

/// What the host must do. Writes first, in one transaction; then the rest, in order.
#[derive(Debug)]
pub enum Output {
    /// Change the disk.
    Write(Write),
    /// Look an id up in the outbox and answer with [`Input::Sent`] before the batch ends.
    LookupSent {
        /// To be returned.
        token: Token,
        /// Which id.
        id: MessageId,
    },
    /// Look these up in the inbox and answer with [`Input::Seen`] before the batch ends.
    LookupSeen(Vec<(PeerId, MessageId)>),
    /// Read these outbox rows whole and answer with [`Input::Loaded`] before the batch ends.
    Load(Vec<Row>),
    /// Read log entries from this index on, at most [`LOG_RETURN_MAX`](crate::limits::LOG_RETURN_MAX), and
    /// answer with [`Input::Entries`] before the batch ends.
    LoadEntries(u64),
    /// Open the uplink.
    ConnectUplink,
    /// Close the uplink. The text is for people.
    CloseUplink(String),
    /// Hand a frame to the uplink.
    SendUplink(Bytes),
    /// Hand a frame to a link.
    SendLink(LinkId, Bytes),
    /// Close a link.
    CloseLink(LinkId),
    /// Let this certificate in for this attempt, on whichever socket it comes.
    Expect {
        /// The attempt.
        conn: ConnId,
        /// The only certificate to let in.
        peer_cert: CertHash,
    },
    /// Dial a peer.
    Dial {
        /// The attempt.
        conn: ConnId,
        /// The only certificate to accept.
        peer_cert: CertHash,
        /// The socket to dial from: 0, or the one that got through. A socket that is dialled from
        /// or accepted on belongs to its link until that ends, whatever [`CloseSockets`](Self::CloseSockets) says.
        socket: u16,
        /// Where it is: the proven address first.
        candidates: Vec<SocketAddr>,
    },
    /// Do something over WebRTC; said only to a host that named it among its means.
    WebRtc(WebRtcAct),
    /// Send a STUN datagram. One that cannot be sent is dropped, as the network would.
    SendDatagram {
        /// From which socket; 0 is the main one.
        socket: u16,
        /// To whom.
        to: SocketAddr,
        /// The datagram.
        datagram: Bytes,
        /// Hops it may take: enough to open this side's NAT, too few to reach the other. None is
        /// the system's default.
        ttl: Option<u8>,
    },
    /// Open up to `count` further UDP sockets on any ports, for one attempt; answer with
    /// [`Input::SocketsOpened`]. They accept and dial as socket 0 does.
    OpenSockets {
        /// The attempt.
        conn: ConnId,
        /// How many.
        count: u16,
    },
    /// Close these sockets, but for those that carry a link.
    CloseSockets(Vec<u16>),
    /// Forget an attempt.
    Forget(ConnId),
    /// Answer a program.
    Reply(Token, Reply),
    /// Tell every subscriber.
    Event(Event),
}

/// What is to be done over WebRTC, always on socket 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebRtcAct {
    /// Let this peer in for this attempt.
    Expect(WebRtcPeer),
    /// Dial it.
    Dial(WebRtcPeer),
    /// An attempt's peer can be found at these addresses too.
    Learn {
        /// The attempt.
        conn: ConnId,
        /// Where.
        candidates: Vec<SocketAddr>,
    },
}

/// Whom an attempt over WebRTC is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebRtcPeer {
    /// The attempt.
    pub conn: ConnId,
    /// The only certificate to accept.
    pub peer_cert: CertHash,
    /// Its ICE credentials where it chose them; else those that follow from the conn.
    pub ice: Option<IceCredentials>,
    /// Where it is. To be expected, a peer needs none: it comes.
    pub candidates: Vec<SocketAddr>,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// The message is in the outbox, or was before.
    Sent {
        /// Its id.
        id: MessageId,
        /// Each recipient's state.
        recipients: Vec<(PeerId, OutboxState)>,
        /// Whether it was there before this request.
        repeated: bool,
    },
    /// Done.
    Done,
    /// Fresh ids, in the order asked.
    Requeued(Vec<MessageId>),
    /// Round trips.
    Pong(Vec<PingSample>),
    /// The log took the entry; this is its index.
    Appended(u64),
    /// It was not done.
    Refused(Refusal),
}

/// One measured round trip.
#[derive(Clone, Debug)]
pub struct PingSample {
    /// Which way.
    pub path: PathKind,
    /// Microseconds; none if nothing came back in time.
    pub rtt_us: Option<u64>,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The recipient is not a member.
    #[error("{0} is not a member of this mesh")]
    UnknownPeer(PeerId),
    /// The recipient was revoked.
    #[error("{0} was revoked")]
    Revoked(PeerId),
    /// A node does not write to itself.
    #[error("a node cannot send to itself")]
    ToSelf,
    /// The same id was used for something else, or was retired.
    #[error("id {0} was used before for other content or recipients")]
    Conflict(MessageId),
    /// The body does not fit.
    #[error("message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes of the body.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The outbox is full.
    #[error("the outbox is full ({limit}); wait for deliveries or abort some")]
    OutboxFull {
        /// What was reached.
        limit: &'static str,
    },
    /// The request needs the coordinator, and it is away.
    #[error("the coordinator is not connected")]
    CoordinatorAway,
    /// This node was removed from the mesh.
    #[error("this node is no longer a member of the mesh")]
    NotAMember,
    /// Someone with authority said no: the reason name and a sentence.
    #[error("{text} ({code})")]
    Denied {
        /// Reason name.
        code: String,
        /// For people.
        text: String,
    },
    /// Nothing to act on.
    #[error("{0}")]
    NotFound(String),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
}

/// Something that happened, for the local API, after its commit.
#[derive(Clone, Debug)]
pub enum Event {
    /// An outbox row moved on.
    Outbox {
        /// The send's id.
        id: MessageId,
        /// Recipient.
        to: PeerId,
        /// Where it is.
        state: OutboxState,
        /// By which way.
        path: Option<PathKind>,
        /// When.
        at: UnixMs,
    },
    /// A message can be read at this position.
    Inbox {
        /// Place in the readers' order.
        position: u64,
        /// Primary key.
        row: Row,
    },
    /// An inbound envelope was dropped.
    Rejected {
        /// Reason name.
        reason: String,
        /// Who signed it, if that is certain.
        from: Option<PeerId>,
    },
    /// The uplink's state changed.
    Uplink(UplinkStatus),
    /// A peer appeared or went.
    Presence {
        /// Who.
        peer: PeerId,
        /// Whether it is there.
        online: bool,
    },
    /// The way to a peer changed.
    Path {
        /// Which peer.
        peer: PeerId,
        /// The way now.
        path: Option<PathKind>,
        /// Where to, for people.
        remote: Option<String>,
    },
    /// The mesh log grew.
    Log {
        /// Entries now.
        size: u64,
    },
    /// A member was admitted by an invite this node signed.
    Admitted {
        /// Who.
        peer: PeerId,
        /// Under which handle.
        handle: String,
    },
    /// Something is wrong with the coordinator or the mesh: someone must look.
    Alarm(String),
}

/// The uplink as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkStatus {
    /// Trying.
    Connecting,
    /// Welcomed.
    Connected,
    /// Not there; why.
    Offline(String),
}
