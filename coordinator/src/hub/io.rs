//! What goes into the hub and what comes out of it. Everything is plain data, so that the same hub
//! runs behind sockets and in a simulator.

use std::net::IpAddr;

use bytes::Bytes;
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{InviteLookup, MeshId, PeerId, UnixMs};

use crate::arrived::Arrived;
use crate::batch::Batch;
use crate::store::MailRow;

/// One WebSocket connection. Chosen by the host, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// One HTTP request that waits for its [`Command::Reply`]. Chosen by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpToken(pub u64);

/// One read of the store. Chosen by the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A WebSocket was accepted.
    Opened {
        /// Its name.
        socket: SocketId,
        /// Where it comes from; behind a trusted proxy the forwarded address.
        addr: IpAddr,
    },
    /// Frames arrived, in order.
    Frames {
        /// On which socket.
        socket: SocketId,
        /// What they were read as.
        frames: Vec<Arrived>,
    },
    /// The socket is gone, or was so slow that the host gave it up.
    Closed {
        /// Which.
        socket: SocketId,
    },
    /// An HTTP request.
    Http {
        /// To be named in the reply.
        token: HttpToken,
        /// Where it comes from; behind a trusted proxy the forwarded address.
        addr: IpAddr,
        /// What is asked.
        request: HttpRequest,
    },
    /// A batch is durable.
    Committed {
        /// As it was taken from [`Hub::take_batch`](super::Hub::take_batch).
        batch: Batch,
        /// Transactions that the store has ended, this one included.
        commit: u64,
    },
    /// A batch is not durable, except as the failure says.
    CommitFailed {
        /// As it was taken from [`Hub::take_batch`](super::Hub::take_batch).
        batch: Batch,
        /// What was kept all the same.
        failure: CommitFailure,
    },
    /// A read was answered.
    Read {
        /// Which.
        read: ReadId,
        /// With what.
        answer: Answer,
    },
    /// The deadline of [`Hub::poll_timeout`](super::Hub::poll_timeout) passed.
    Timeout,
    /// The process was asked to end: take nobody in, tell everybody when to come back.
    Drain,
}

/// What the host shall do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Queue a frame to a socket.
    Send {
        /// To whom.
        socket: SocketId,
        /// One encoded frame.
        frame: Bytes,
    },
    /// Close a socket once its queued frames are sent. [`Input::Closed`] need not follow.
    Close {
        /// Which.
        socket: SocketId,
    },
    /// Ask the store.
    Read {
        /// To be named in the answer.
        read: ReadId,
        /// What.
        query: Query,
    },
    /// Answer an HTTP request.
    Reply {
        /// Which.
        token: HttpToken,
        /// With what.
        reply: HttpReply,
    },
}

/// What the hub asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Rows of a queue by falling priority, then rising claim.
    Mail {
        /// Which mesh.
        mesh: MeshId,
        /// Whose queue.
        to: PeerId,
        /// Rows behind this priority and claim; none for the first.
        after: Option<(u8, u64)>,
        /// Rows at most.
        limit: usize,
        /// Bytes at most, but always one row where there is one.
        bytes_max: u64,
    },
    /// Rows of any queue that ended before `before`.
    Expired {
        /// Ends strictly before this.
        before: UnixMs,
        /// Rows at most.
        limit: usize,
    },
    /// Log entries in order.
    Log {
        /// Which mesh.
        mesh: MeshId,
        /// First index.
        from: u64,
        /// Entries at most.
        limit: usize,
    },
    /// Current prekeys; members without one are left out.
    Prekeys {
        /// Which mesh.
        mesh: MeshId,
        /// Whose.
        members: Vec<PeerId>,
    },
    /// An invite's blob.
    Invite {
        /// Which.
        lookup: InviteLookup,
    },
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Mail`] and [`Query::Expired`].
    Mail(Vec<MailRow>),
    /// To [`Query::Log`].
    Log(Vec<Bytes>),
    /// To [`Query::Prekeys`].
    Prekeys(Vec<SignedBytes>),
    /// To [`Query::Invite`].
    Invite(Option<Bytes>),
    /// The store could not read. The host logs why and decides whether to go on.
    Failed,
}

/// Why a batch is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// No space, but what [settles](crate::store::Write::settles) mail was kept.
    FullButSettled,
    /// Nothing of it was kept.
    Nothing,
}

/// An HTTP request that needs the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpRequest {
    /// `POST /v2/meshes`, already authorised by the route.
    MeshCreate {
        /// Genesis and what follows it, without sequence signatures.
        entries: Vec<Bytes>,
    },
    /// `POST /v2/invites/lookup`.
    InviteLookup {
        /// What the joiner asks for.
        lookup: InviteLookup,
    },
    /// `GET /v2/log`.
    LogRead {
        /// The lookup presented as bearer.
        bearer: InviteLookup,
        /// First index wanted.
        from: u64,
    },
    /// `POST /v2/log`.
    LogAppend {
        /// The lookup presented as bearer.
        bearer: InviteLookup,
        /// The entry without its sequence signature.
        entry: Bytes,
    },
}

/// The answer to an [`HttpRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpReply {
    /// 201: the whole log so far.
    MeshCreated {
        /// Wire entries with their sequence signatures.
        entries: Vec<Bytes>,
    },
    /// 200: an invite's blob.
    Blob(Bytes),
    /// 200: log entries.
    Log {
        /// Index of the first.
        from: u64,
        /// Wire entries.
        entries: Vec<Bytes>,
        /// Entries in all.
        size: u64,
    },
    /// 200: the entry was sequenced.
    Appended {
        /// The whole wire entry with its sequence signature.
        entry: Bytes,
    },
    /// 409, code `conflict`: the head moved; the next place is kept for this joiner for 2 s.
    Conflict {
        /// Entries there are.
        size: u64,
    },
    /// 429, code `throttled`.
    Throttled {
        /// For the `Retry-After` header.
        retry_after_s: u64,
    },
    /// 404, code `invite`: unknown, expired, used or withdrawn, always the same.
    NoInvite,
    /// 409, code `exists`: this mesh is already here.
    Exists,
    /// 400: not taken. 503 when the code is `store`, 403 when it is `reserved`.
    Refused {
        /// A reason name.
        code: String,
        /// For people.
        text: String,
    },
}
