//! Shapes of messages: sending, the outbox, the inbox, cursors and events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a send is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Until it is on the recipient's disk; or on the coordinator's, if the recipient is away.
    #[default]
    Stored,
    /// Until it is on the coordinator's disk.
    Accepted,
    /// Not at all: it is in this node's outbox.
    None,
}

/// A message to send. Exactly one of `text` and `content_b64` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// Handles or key prefixes; each gets its own copy.
    #[serde(deserialize_with = "one_or_many")]
    pub to: Vec<String>,
    /// The content, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The content, as unpadded base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_b64: Option<String>,
    /// Media type; `text/plain` for text, `application/octet-stream` for bytes unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// 32 hex digits that make a retry idempotent; random unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The id of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// `low`, `next` (default) or `now`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Seconds for which it is worth delivering; at most and by default 604800 (7 d).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_s: Option<u64>,
    /// How far to wait; in a batch always `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Longest wait; 10000 unless given, at most 600000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Reads `"to":"bob"` as well as `"to":["bob"]`.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(name) => vec![name],
        OneOrMany::Many(names) => names,
    })
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SendShape {
    /// 1.
    pub schema_version: u32,
    /// Names the message.
    pub id: String,
    /// The least advanced recipient's state: `queued`, `accepted`, `stored`, `surfaced`, `rejected`,
    /// `expired`, `dead` or `aborted`.
    pub state: String,
    /// `direct`, `relay` or `queue`; none while it has not left.
    pub path: Option<String>,
    /// `quic` or `webrtc` while that direct link is up, `websocket`.
    pub transport: Option<String>,
    /// From the request to this answer, or to the state if it was reached earlier.
    pub elapsed_ms: u64,
    /// Whether the id had been sent before, with the same content.
    #[serde(default)]
    pub repeated: bool,
    /// Each recipient.
    #[serde(default)]
    pub recipients: Vec<RecipientShape>,
    /// Whether the awaited state was reached, or cannot be because the recipient is away.
    #[serde(default)]
    pub done: bool,
    /// Reason of a failure, or why it is not done: `timed-out` or `coordinator-away`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Someone as messages name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Name {
    /// Handle in the mesh.
    pub handle: String,
    /// ed25519 key.
    pub key: String,
}

/// One recipient's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecipientShape {
    /// Handle in the mesh.
    pub handle: String,
    /// ed25519 key.
    #[serde(default)]
    pub key: String,
    /// `queued`, `in-flight`, `accepted`, `stored`, `surfaced`, `rejected`, `expired`, `dead` or `aborted`.
    pub state: String,
    /// Reason of a failure.
    #[serde(default)]
    pub code: Option<String>,
    /// `direct`, `relay` or `queue`.
    pub path: Option<String>,
    /// `quic` or `webrtc` while that direct link is up, `websocket`.
    #[serde(default)]
    pub transport: Option<String>,
    /// The other end of the direct link it went over, while that is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// When it got there.
    pub at_ms: u64,
    /// The id it was sent again under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// A message's delivery, recipient by recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageShape {
    /// 1.
    pub schema_version: u32,
    /// Names the message.
    pub id: String,
    /// Each recipient.
    pub recipients: Vec<RecipientShape>,
}

/// The answer to one message of a batch: what was recorded, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum BatchAnswer {
    /// It is in the outbox.
    Sent(SendShape),
    /// It is not.
    Failed(crate::failure::ErrorDocument),
}

/// A message of the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboxShape {
    /// 1.
    pub schema_version: u32,
    /// The sender's name for it.
    pub id: String,
    /// Who signed it.
    pub from: Name,
    /// `dm`.
    pub channel: String,
    /// The content if it is UTF-8, else none.
    pub text: Option<String>,
    /// The sender's clock.
    pub sent_at_ms: u64,
    /// This node's clock.
    pub received_at_ms: u64,
    /// `direct`, `relay` or `queue`.
    pub path: String,
    /// `quic` or `webrtc` while that direct link is up, `websocket`.
    pub transport: Option<String>,
    /// `low`, `next` or `now`.
    pub priority: String,
    /// The message it answers.
    pub reply_to: Option<String>,
    /// Place in the readers' order; cursors name it.
    #[serde(default)]
    pub position: u64,
    /// Media type.
    #[serde(default)]
    pub content_type: String,
    /// The content as unpadded base64url, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_b64: Option<String>,
    /// When a reader's cursor passed it.
    #[serde(default)]
    pub surfaced_at_ms: Option<u64>,
}

/// A page of the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboxPage {
    /// 1.
    pub schema_version: u32,
    /// In the readers' order.
    pub messages: Vec<InboxShape>,
    /// Where the next page begins; the last position of this one.
    pub next_after: u64,
}

/// A reader's place in the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cursor {
    /// 1.
    pub schema_version: u32,
    /// Chosen by the reader.
    pub name: String,
    /// The last position it passed; 0 before the first.
    pub position: u64,
}

/// Moves a cursor forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CursorMove {
    /// The last position that was read.
    pub position: u64,
}

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxShape {
    /// 1.
    pub schema_version: u32,
    /// Names the message.
    pub id: String,
    /// Recipient.
    pub to: Name,
    /// As in [`RecipientShape`].
    pub state: String,
    /// Reason of a failure.
    pub code: Option<String>,
    /// The last way it took.
    pub path: Option<String>,
    /// `low`, `next` or `now`.
    pub priority: String,
    /// When the program handed it over.
    pub created_at_ms: u64,
    /// When it got to its state.
    pub at_ms: u64,
    /// When it is worthless.
    pub expires_at_ms: u64,
    /// The id it was sent again under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// Rows of the outbox, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxPage {
    /// 1.
    pub schema_version: u32,
    /// The rows.
    pub rows: Vec<OutboxShape>,
}

/// Which failed rows to send again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequeueRequest {
    /// The failed rows of these messages.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Every failed row.
    #[serde(default)]
    pub all: bool,
}

/// What was sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequeueShape {
    /// 1.
    pub schema_version: u32,
    /// Each row, under its fresh id.
    pub requeued: Vec<RequeuedShape>,
}

/// A row that was sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequeuedShape {
    /// Retired for ever.
    pub old: String,
    /// The fresh id.
    pub id: String,
    /// Recipient.
    pub to: Name,
}

/// Which message to give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortRequest {
    /// Names the message; only rows never transmitted are aborted.
    pub id: String,
}

/// An event of the stream; the SSE event's name is `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EventShape {
    /// A row of the outbox moved on.
    Outbox {
        /// Names the message.
        id: String,
        /// Which recipient, and where it is.
        recipient: RecipientShape,
    },
    /// A message can be read.
    Inbox {
        /// The message.
        message: InboxShape,
    },
    /// A peer appeared or went.
    Presence {
        /// Who.
        peer: Name,
        /// Whether it is there.
        online: bool,
    },
    /// The way to a peer changed.
    Path {
        /// Who.
        peer: Name,
        /// `direct`, `relay`, `queue` or `none`.
        path: String,
        /// The other end of a direct link.
        remote: Option<String>,
    },
    /// The way to the coordinator changed.
    Uplink {
        /// `connected`, `connecting` or `offline`.
        state: String,
        /// Why it is offline.
        why: Option<String>,
    },
    /// The mesh log grew.
    Log {
        /// Entries.
        size: u64,
    },
    /// A member came by an invite of this node.
    Admitted {
        /// Who.
        peer: Name,
    },
    /// An inbound envelope was dropped.
    Rejected {
        /// The protocol's reason name.
        reason: String,
        /// Who signed it, if that is certain.
        from: Option<Name>,
    },
    /// Someone must look at this.
    Alarm {
        /// For people.
        text: String,
    },
    /// This reader was too slow and missed events; read the state again.
    Lagged {
        /// How many.
        missed: u64,
    },
}
