//! Every bound of the protocol: its unit, its reason, what happens when it is met (protocol.md §16).

use std::time::Duration;

/// Containers a value may stand inside. Deeper statements have no use and cost stack.
pub const CONTAINER_DEPTH_MAX: usize = 8;

/// Encoded header. The largest real one is under 500 bytes; refused with `size` beyond.
pub const HEADER_BYTES_MAX: usize = 4 << 10;

/// Encoded attestation statement.
pub const ATTESTATION_BYTES_MAX: usize = 2 << 10;

/// Encoded mesh log entry with its signatures.
pub const LOG_ENTRY_BYTES_MAX: usize = 8 << 10;

/// Padded plaintext of an envelope: header hash, length, body, zeroes.
pub const INNER_BYTES_MAX: usize = 1 << 20;

/// One frame on any link: the largest envelope and what surrounds it. Stands in the welcome.
pub const FRAME_BYTES_MAX: usize = (1 << 20) + (8 << 10);

/// Log entries in one frame of either side: at the largest size, half a frame.
pub const LOG_RETURN_MAX: usize = 64;

/// A frame before hello: a challenge answer with its attestation is far smaller.
pub const HELLO_FRAME_BYTES_MAX: usize = 16 << 10;

/// Text a person may send: leaves room for the conversation fields inside [`INNER_BYTES_MAX`].
pub const BODY_BYTES_MAX: usize = INNER_BYTES_MAX - (4 << 10);

/// Encoded receipt: 256 rows of env_hash, id, status and code, and its frame.
pub const RECEIPT_BYTES_MAX: usize = 32 << 10;

/// Envelopes one receipt may name: one signature for a batch.
pub const RECEIPT_ROWS_MAX: usize = 256;

/// Any other statement (hello, welcome, challenge, bind, prekey, cap, claim).
pub const STATEMENT_BYTES_MAX: usize = 4 << 10;

/// Entries a roster replays: 1,000 entries of a thousand members.
pub const LOG_ENTRIES_MAX: u64 = 1_000_000;

/// Entries one member without a higher role may author.
pub const LOG_ENTRIES_PER_MEMBER_MAX: u32 = 1_000;

/// How far two honest clocks may differ. Beyond it a node stops sending and says so.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// Longest life of a message: a week away from the network loses nothing.
pub const MESSAGE_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Life of a signalling message: an older offer names sockets that are gone.
pub const SIGNAL_LIFE: Duration = Duration::from_secs(60);

/// How long a dedupe row outlives its message: clocks, and a day of doubt.
pub const DEDUPE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of a sender's box key. One Diffie-Hellman serves an hour of messages.
pub const SENDER_KEY_LIFE: Duration = Duration::from_secs(60 * 60);

/// Messages under one sender box key.
pub const SENDER_KEY_MESSAGES_MAX: u32 = 1 << 20;

/// Validity of a weekly prekey; the next one is minted a day before.
pub const PREKEY_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a prekey's secret is kept after it ended: the longest message life and a day.
pub const PREKEY_SECRET_GRACE: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Age at which an unanswered challenge dies.
pub const CHALLENGE_LIFE: Duration = Duration::from_secs(10);

/// A socket must say hello, and a direct link bind, within this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Both sides of the uplink ping this often.
pub const PING_EVERY: Duration = Duration::from_secs(30);

/// A link silent for this long is dropped: two pings and their grace.
pub const LINK_SILENCE_MAX: Duration = Duration::from_secs(75);

/// Presence outlives its socket by this, so that a reconnect flaps nobody's list.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(90);

/// A claimed message unreceipted for this long is offered again.
pub const CLAIM_LEASE: Duration = Duration::from_secs(30);

/// A direct link without traffic is closed after this: transport keys are its forward secrecy.
pub const DIRECT_IDLE_MAX: Duration = Duration::from_secs(5 * 60);

/// A direct link is shaken anew after this at the latest.
pub const DIRECT_LIFE_MAX: Duration = Duration::from_secs(60 * 60);

/// Remote candidates tried for one direct attempt.
pub const CANDIDATES_MAX: usize = 16;

/// A STUN datagram: the longest the protocol makes has under 120 bytes, and other servers add a little
/// to theirs. A longer one is dropped unread.
pub const DATAGRAM_BYTES_MAX: usize = 576;

/// Uses an invite may grant.
pub const INVITE_USES_MAX: u64 = 100;

/// Default and longest sensible life of an invite.
pub const INVITE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Queue of one recipient at the coordinator, in messages; then `recipient-full` to the sender.
pub const MAILBOX_MESSAGES_MAX: u64 = 100_000;

/// Queue of one recipient at the coordinator, in bytes; then `recipient-full` to the sender.
pub const MAILBOX_BYTES_MAX: u64 = 256 << 20;

/// Unsettled messages a node keeps in one mesh's outbox; then a send is refused with `outbox-full`.
pub const OUTBOX_MESSAGES_MAX: usize = 100_000;

/// Sealed bytes of not yet accepted messages a node holds; then a send is refused with `outbox-full`.
pub const OUTBOX_BYTES_MAX: usize = 256 << 20;

/// Messages of one sender held behind gaps; beyond it they stay at the coordinator.
pub const HELD_MESSAGES_MAX: usize = 100_000;

/// Lives of one sender's counters that a recipient keeps step with: a node whose store was made anew
/// begins another. Beyond it the one in which least waits is given up, and what waits in it is shown.
pub const GENERATIONS_PER_SENDER_MAX: usize = 32;

/// Direct sockets one mesh keeps.
pub const LINKS_MAX: usize = 256;

/// Longest validity of a session attestation: a working day twice over; the usual one is half of it.
pub const SESSION_LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Name of a mesh in its genesis. Shown in prompts and lists, so short; refused with `size` beyond.
pub const MESH_NAME_BYTES_MAX: usize = 64;
