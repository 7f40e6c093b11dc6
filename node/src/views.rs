//! What the local API shows: plain values, copied out of the engine or read from the store.
//!
//! The engine publishes one [`MeshView`] per mesh and replaces it after each batch that changed it;
//! inbox and outbox rows are read from the store on demand.

mod network;

use std::sync::Arc;

use bytes::Bytes;
use peerloom_proto::endpoint::{OutboxState, PathKind, UplinkStatus};
use peerloom_proto::{
    Fingerprint, Handle, Head, InviteId, InviteLookup, MessageId, PeerId, Priority, Role, Roster, UnixMs,
};

pub use self::network::{Change, Look, Moment};

/// A mesh as its engine sees it after the last batch.
#[derive(Clone, Debug)]
pub struct MeshView {
    /// How far the log goes.
    pub head: Head,
    /// The replayed log itself.
    pub roster: Roster,
    /// Everyone the log ever admitted, in the order of admission.
    pub members: Arc<[MemberView]>,
    /// The way to the coordinator.
    pub uplink: UplinkStatus,
    /// Since when it is so; none before its first change.
    pub uplink_since: Option<UnixMs>,
    /// How far our clock is from the coordinator's, milliseconds, at the last hello; none before it.
    pub skew_ms: Option<i64>,
    /// Every other live member, as far as it can be seen.
    pub peers: Arc<[PeerStatus]>,
    /// Unsettled and failed rows of the outbox.
    pub outbox: OutboxCounts,
    /// What someone must look at: fork evidence, a coordinator at fault. Newest last, at most 16.
    pub alarms: Vec<String>,
}

/// A member as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The ed25519 key.
    pub key: PeerId,
    /// The name people use.
    pub handle: Handle,
    /// What it may do.
    pub role: Role,
    /// Whether it was removed, by the log or by a revocation met off it.
    pub revoked: bool,
    /// Index of the admitting entry.
    pub index: u64,
    /// Time of the admitting entry.
    pub admitted_at: UnixMs,
    /// The invite it came by; none if an admin or the owner added it.
    pub invite: Option<InviteId>,
    /// Whether it is this node.
    pub is_me: bool,
}

/// How a peer can be reached at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The ed25519 key.
    pub peer: PeerId,
    /// The name people use.
    pub handle: Handle,
    /// Whether the coordinator or a direct link says it is there.
    pub online: bool,
    /// The way the next message would take; none if it would wait here, for a coordinator.
    pub path: Option<PathKind>,
    /// `quic`, `webrtc` or `websocket`; none if the peer is away.
    pub transport: Option<&'static str>,
    /// The other end of a direct link.
    pub remote: Option<String>,
    /// Round trip on this path, microseconds, if it was measured.
    pub rtt_us: Option<u64>,
    /// When it was measured; none of a direct link, whose round trip is measured all the time.
    pub rtt_at: Option<UnixMs>,
    /// Since when the path is this one; none if it never changed since the node started.
    pub since: Option<UnixMs>,
    /// What stood in the way of a direct link the last time; none if it is direct or nothing was tried.
    pub why_not_direct: Option<String>,
}

/// Rows of the outbox by what people ask about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Not yet on the recipient's disk, and still tried.
    pub pending: u64,
    /// Given up: dead, expired or rejected, and not requeued since.
    pub dead: u64,
}

/// A message in the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxMessage {
    /// Place in the order readers see; cursors name it.
    pub position: u64,
    /// Who signed it.
    pub from: PeerId,
    /// The sender's name for it.
    pub id: MessageId,
    /// Media type.
    pub content_type: String,
    /// What is said.
    pub content: Bytes,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// The sender's clock when it was sealed.
    pub sent_at: UnixMs,
    /// Our clock when it was recorded.
    pub received_at: UnixMs,
    /// Which way it came.
    pub path: PathKind,
    /// When a reader moved past it.
    pub surfaced_at: Option<UnixMs>,
}

/// Which messages of the inbox to read, in the order of their positions.
#[derive(Clone, Debug, Default)]
pub struct InboxQuery {
    /// Only those beyond this position. When none of the two bounds is given, the newest `limit`
    /// messages are read.
    pub after_position: Option<u64>,
    /// Only those beyond what this cursor passed; the larger of the two bounds holds.
    pub unread_for_cursor: Option<String>,
    /// Only those of one sender.
    pub from: Option<PeerId>,
    /// At most this many; 0 means [`INBOX_LIMIT_DEFAULT`].
    pub limit: u32,
}

/// Messages one inbox query gives when it names no limit.
pub const INBOX_LIMIT_DEFAULT: u32 = 100;

/// Messages one inbox query gives at most: a page of small messages stays below a few MiB.
pub const INBOX_LIMIT_MAX: u32 = 1_000;

/// Content bytes after which a page of the inbox ends early: a few of the largest messages.
pub const INBOX_PAGE_BYTES_MAX: usize = 8 << 20;

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    /// The send's id.
    pub id: MessageId,
    /// Recipient.
    pub to: PeerId,
    /// How far it got.
    pub state: OutboxState,
    /// The last way it took.
    pub path: Option<PathKind>,
    /// When it got there.
    pub at: UnixMs,
    /// When the program handed it over.
    pub created_at: UnixMs,
    /// When it is worthless.
    pub exp: UnixMs,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// The id it was sent again under.
    pub replaced_by: Option<MessageId>,
}

/// Which rows of the outbox to read, newest first.
#[derive(Clone, Debug, Default)]
pub struct OutboxQuery {
    /// Which states.
    pub filter: OutboxFilter,
    /// At most this many; 0 means 100.
    pub limit: u32,
}

/// A choice of outbox states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxFilter {
    /// Every row that is still kept.
    #[default]
    All,
    /// Queued, in flight or accepted.
    Unsettled,
    /// Dead, expired or rejected, and not requeued since.
    Failed,
    /// Stored or surfaced.
    Delivered,
}

/// What became of a send, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientStatus {
    /// Recipient.
    pub to: PeerId,
    /// How far it got.
    pub state: OutboxState,
    /// Reason code of a failure.
    pub code: Option<String>,
    /// The last way it took.
    pub path: Option<PathKind>,
    /// When it got there.
    pub at: UnixMs,
    /// Keyed fingerprint of the request.
    pub fp: Fingerprint,
    /// The id it was sent again under.
    pub replaced_by: Option<MessageId>,
}

/// Which failed rows to send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequeueSelector {
    /// Every row that is dead, expired or rejected.
    All,
    /// The failed rows of these sends.
    Ids(Vec<MessageId>),
}

/// A requeued row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requeued {
    /// The retired id.
    pub old: MessageId,
    /// The id it goes under.
    pub id: MessageId,
    /// Recipient.
    pub to: PeerId,
}

/// An invite to deposit at the coordinator and to remember here. The code is in neither.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// The capability's id.
    pub id: InviteId,
    /// What the joiner will ask for.
    pub lookup: InviteLookup,
    /// The address given to the joiner.
    pub url: String,
    /// nonce ‖ secretbox.
    pub blob: Bytes,
    /// When it ends.
    pub exp: UnixMs,
    /// Admissions it serves.
    pub uses: u64,
}

/// An invite this node made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteRecord {
    /// The capability's id.
    pub id: InviteId,
    /// What the joiner asks for.
    pub lookup: InviteLookup,
    /// The address given to the joiner.
    pub url: String,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it ends.
    pub exp: UnixMs,
    /// Admissions it serves.
    pub uses: u64,
    /// Members who came by it.
    pub used: u64,
}
