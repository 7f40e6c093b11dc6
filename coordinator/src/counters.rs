//! What the hub counts. The host copies these for `/metrics` after each step.

/// Totals since start, and gauges of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Open sockets, greeted or not. Gauge.
    pub sockets: u64,
    /// Members with an open socket. Gauge.
    pub members_online: u64,
    /// Items queued for all recipients, of every kind. Gauge.
    pub mail_queued: u64,
    /// Bytes queued for all recipients. Gauge.
    pub mail_queued_bytes: u64,
    /// Hellos that were welcomed.
    pub hellos_welcomed: u64,
    /// Hellos that were refused, throttled ones included.
    pub hellos_refused: u64,
    /// Envelopes acknowledged to their senders; repeats count again.
    pub puts_accepted: u64,
    /// Envelopes refused because their sender is too fast.
    pub puts_refused_rate: u64,
    /// Envelopes refused because a queue is full.
    pub puts_refused_full: u64,
    /// Envelopes refused because the store could not take them.
    pub puts_refused_store: u64,
    /// Envelopes refused for any other reason.
    pub puts_refused_other: u64,
    /// Envelopes handed to an online recipient as they came.
    pub delivered_live: u64,
    /// Items handed out from the store.
    pub delivered_queued: u64,
    /// Receipts taken from recipients.
    pub receipts: u64,
    /// Envelopes a receipt ended.
    pub receipted: u64,
    /// Envelopes that ended unread.
    pub expired: u64,
    /// Claims whose lease ran out.
    pub leases_lapsed: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Writes in them.
    pub writes: u64,
    /// Batches that failed, wholly or in part.
    pub batches_failed: u64,
    /// Mesh log entries sequenced.
    pub log_appended: u64,
    /// Meshes whose stored log does not replay. Somebody must act.
    pub logs_broken: u64,
    /// Appends that lost the race for their place.
    pub log_conflicts: u64,
    /// Mesh log entries that this store had lost and nodes gave back.
    pub log_regained: u64,
    /// Hellos of nodes that were told of a later state of this store: it is an old copy. Nodes send again
    /// what it lost.
    pub marks_lost: u64,
    /// Connections closed for frames that are none.
    pub frames_malformed: u64,
    /// Invite lookups that found something.
    pub invites_found: u64,
    /// Invite lookups that found nothing.
    pub invites_missed: u64,
    /// HTTP requests and lookups refused by a throttle.
    pub throttled: u64,
}
