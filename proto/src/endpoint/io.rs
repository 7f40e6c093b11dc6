//! What goes into the node's machine and what comes out. Plain data: the host owns sockets, disk,
//! clocks and entropy, and one endpoint serves one mesh.

use bytes::Bytes;

use crate::bind::BindTransport;
use crate::body::Message;
use crate::envelope::Priority;
use crate::id::{CertHash, ConnId, EnvHash, Fingerprint, Generation, InviteLookup, Kid, MessageId, PeerId};
use crate::key::BoxSecretKey;
use crate::time::UnixMs;
use crate::wire::SignedBytes;

/// Names a caller of the local API; the host chooses it and gets it back once.
pub type Token = u64;

/// Names a live direct link; the host chooses it, never twice in one process.
pub type LinkId = u64;

/// Primary key of an outbox or inbox row; the endpoint counts them up.
pub type Row = u64;

/// Which way an envelope went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// On a link between the two nodes.
    Direct,
    /// Through the coordinator while both were connected.
    Relay,
    /// Through the coordinator's mailbox.
    Queue,
}

/// What is about to happen to the machine.
#[derive(Debug)]
pub enum Input {
    /// A deadline may have passed.
    Timeout,
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
    /// The host can make direct links: under this certificate, reachable at these addresses, the
    /// most useful first. Said again whenever they change.
    DirectReady {
        /// Hash of this process's certificate.
        cert: CertHash,
        /// Own addresses.
        candidates: Vec<std::net::SocketAddr>,
    },
    /// The store's answer to [`Output::Load`]: whole rows, those that still exist.
    Loaded(Vec<OutboxRow>),
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
    /// TLS exporter, label `EXPORTER-peerloom-bind`, context the conn id.
    pub exporter: [u8; 32],
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
    pub life: std::time::Duration,
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

/// What became of a row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxState {
    /// Written, not yet on any wire.
    Pending,
    /// On a wire, nothing known. Never stored: a restart makes it pending.
    InFlight,
    /// On the coordinator's disk.
    Accepted,
    /// On the recipient's disk.
    Stored,
    /// Read by a person, hook or agent.
    Surfaced,
    /// The recipient, or the coordinator for good, refused it.
    Rejected(String),
    /// Its time ran out.
    Expired(String),
    /// Attempts exhausted.
    Dead(String),
    /// Cancelled before any transmission.
    Aborted,
}

impl OutboxState {
    /// The word people and programs see.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "queued",
            Self::InFlight => "in-flight",
            Self::Accepted => "accepted",
            Self::Stored => "stored",
            Self::Surfaced => "surfaced",
            Self::Rejected(_) => "rejected",
            Self::Expired(_) => "expired",
            Self::Dead(_) => "dead",
            Self::Aborted => "aborted",
        }
    }

    /// The reason code of a failure.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Rejected(code) | Self::Expired(code) | Self::Dead(code) => Some(code),
            Self::Pending
            | Self::InFlight
            | Self::Accepted
            | Self::Stored
            | Self::Surfaced
            | Self::Aborted => None,
        }
    }

    /// Whether the recipient has it or never will: nothing more is transmitted.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Pending | Self::InFlight | Self::Accepted => false,
            Self::Stored
            | Self::Surfaced
            | Self::Rejected(_)
            | Self::Expired(_)
            | Self::Dead(_)
            | Self::Aborted => true,
        }
    }
}

/// An outbox row as the store keeps it, and as the endpoint is rebuilt from it.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Primary key.
    pub row: Row,
    /// The send's id; (id, recipient) is unique.
    pub id: MessageId,
    /// Recipient.
    pub to: PeerId,
    /// Keyed fingerprint of the request.
    pub fp: Fingerprint,
    /// One life of this sender's counters.
    pub generation: Generation,
    /// Place in the conversation.
    pub seq: u64,
    /// What is said; kept so that it can be sealed again or requeued.
    pub message: Message,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// When the program handed it over.
    pub ts: UnixMs,
    /// When it is worthless.
    pub exp: UnixMs,
    /// The sealed bytes every path carries. At start this and the content may be left empty: they
    /// are loaded when needed.
    pub wire: Bytes,
    /// Names those bytes.
    pub env_hash: EnvHash,
    /// Whose key they are sealed to.
    pub kid: Kid,
    /// How often it was sealed.
    pub seals: u32,
    /// How far it got.
    pub state: OutboxState,
    /// Which way it went last, if it did.
    pub path: Option<PathKind>,
}

/// What the store knows of an id that was sent before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRow {
    /// Recipient.
    pub to: PeerId,
    /// Keyed fingerprint of the request.
    pub fp: Fingerprint,
    /// How far it got.
    pub state: OutboxState,
    /// Whether the id was retired by a requeue.
    pub retired: bool,
}

/// What the store knows of a message that came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    /// The sender's fingerprint: equal means the same request.
    pub fp: Fingerprint,
    /// Whether it was surfaced since.
    pub surfaced: bool,
}

/// An inbox row as the store keeps it. It is its own dedupe row: (from, id) is unique.
#[derive(Clone, Debug)]
pub struct InboxRow {
    /// Primary key, in order of arrival.
    pub row: Row,
    /// Place in the order readers see; none while held behind a gap.
    pub position: Option<u64>,
    /// The signer.
    pub from: PeerId,
    /// The sender's name for it.
    pub id: MessageId,
    /// The sender's fingerprint.
    pub fp: Fingerprint,
    /// Names the sealed bytes that came first.
    pub env_hash: EnvHash,
    /// One life of the sender's counters.
    pub generation: Generation,
    /// Place in the conversation.
    pub seq: u64,
    /// What is said.
    pub message: Message,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// When the sender sealed it.
    pub sent_at: UnixMs,
    /// When it is worthless.
    pub exp: UnixMs,
    /// When it was recorded here.
    pub received_at: UnixMs,
    /// Which way it came.
    pub path: PathKind,
}

/// A held inbox row, enough to rebuild a conversation.
#[derive(Clone, Debug)]
pub struct HeldRow {
    /// Primary key.
    pub row: Row,
    /// The signer.
    pub from: PeerId,
    /// One life of the sender's counters.
    pub generation: Generation,
    /// Place in the conversation.
    pub seq: u64,
    /// When a gap before it is given up.
    pub exp: UnixMs,
}

/// A message that a reader moved past.
#[derive(Clone, Debug)]
pub struct SurfacedRow {
    /// Primary key in the inbox.
    pub row: Row,
    /// Who sent it.
    pub from: PeerId,
    /// The sender's name for it.
    pub id: MessageId,
    /// Names the sealed bytes.
    pub env_hash: EnvHash,
}

/// A row that ended without delivery and is to be sent again.
#[derive(Clone, Debug)]
pub struct RequeueRow {
    /// Primary key.
    pub row: Row,
    /// The id to retire.
    pub id: MessageId,
    /// Recipient.
    pub to: PeerId,
    /// What is said.
    pub message: Message,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// How long it was worth delivering.
    pub life: std::time::Duration,
}

/// A prekey of this member with its secret.
#[derive(Clone, Debug)]
pub struct HeldPrekey {
    /// Names the public key.
    pub kid: Kid,
    /// Opens what is sealed to it.
    pub secret: BoxSecretKey,
    /// The signed statement; none for the key that stands in the log entry.
    pub signed: Option<SignedBytes>,
    /// When senders stop using it; the secret is kept for `PREKEY_SECRET_GRACE` longer.
    pub exp: UnixMs,
}

/// A change to the node's disk. All writes of a batch commit together, before anything of that
/// batch is transmitted or published.
#[derive(Clone, Debug)]
pub enum Write {
    /// A row for a new message.
    Outbox(OutboxRow),
    /// Another sealing of the same message (same id and fp).
    Reseal {
        /// Which row.
        row: Row,
        /// The new bytes.
        wire: Bytes,
        /// Their name.
        env_hash: EnvHash,
        /// The key they are sealed to.
        kid: Kid,
        /// How often it was sealed.
        seals: u32,
    },
    /// A row moved on.
    OutboxState {
        /// Which row.
        row: Row,
        /// Where to.
        state: OutboxState,
        /// By which way, if that is known.
        path: Option<PathKind>,
        /// When.
        at: UnixMs,
    },
    /// A receipt for a row that is settled already: set its state if (id, to, env_hash) match.
    LateReceipt {
        /// The send's id.
        id: MessageId,
        /// The recipient, who signed the receipt.
        to: PeerId,
        /// Names the sealed bytes.
        env_hash: EnvHash,
        /// Stored or surfaced.
        state: OutboxState,
        /// When.
        at: UnixMs,
    },
    /// An id that is never to be used again.
    Retire {
        /// Which row.
        row: Row,
        /// The id its message was sent under since.
        replaced_by: MessageId,
    },
    /// A row for a message received.
    Inbox(InboxRow),
    /// A held row found its place.
    Release {
        /// Which row.
        row: Row,
        /// Its place in the readers' order.
        position: u64,
    },
    /// A reader moved past a row.
    Surfaced {
        /// Which row.
        row: Row,
        /// When.
        at: UnixMs,
    },
    /// How far an inbound conversation got.
    Conversation {
        /// The sender.
        from: PeerId,
        /// One life of the sender's counters.
        generation: Generation,
        /// The seq that surfaces next.
        next: u64,
    },
    /// A log entry, sequenced.
    Entry {
        /// Its place.
        index: u64,
        /// The whole wire entry.
        entry: Bytes,
    },
    /// A prekey of this member.
    Prekey(HeldPrekey),
    /// A prekey secret whose time is over: overwrite it.
    PrekeyGone(Kid),
    /// The newest prekey known of another member.
    PeerPrekey {
        /// Whose.
        peer: PeerId,
        /// The statement.
        prekey: SignedBytes,
    },
    /// Dedupe rows with exp at or below this may be dropped; mail that old is refused.
    Floor(UnixMs),
    /// A revocation met off the log.
    Revocation(SignedBytes),
}

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
    /// Let this certificate in for this attempt until then.
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
        /// Where it may be.
        candidates: Vec<std::net::SocketAddr>,
    },
    /// Forget an attempt.
    Forget(ConnId),
    /// Answer a program.
    Reply(Token, Reply),
    /// Tell every subscriber.
    Event(Event),
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
