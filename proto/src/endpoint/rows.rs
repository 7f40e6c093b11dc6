//! What the node keeps: the rows of its outbox and inbox, and every change to its disk.

use std::time::Duration;

use bytes::Bytes;

use crate::body::Message;
use crate::envelope::Priority;
use crate::hello::StoreMark;
use crate::id::{EnvHash, Fingerprint, Generation, Kid, MessageId, PeerId};
use crate::key::BoxSecretKey;
use crate::time::UnixMs;
use crate::wire::SignedBytes;

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
    pub life: Duration,
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
    /// A member admitted by an invite that had long ended: nothing to or from it yet.
    Hold(PeerId),
    /// It was confirmed.
    Unhold(PeerId),
    /// How far the coordinator's store had got when it last answered for something.
    CoordinatorMark(StoreMark),
}
