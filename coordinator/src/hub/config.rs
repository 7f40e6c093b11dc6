//! What the hub is told once.

use std::fmt;

use peerloom_proto::limits::{MAILBOX_BYTES_MAX, MAILBOX_MESSAGES_MAX};
use peerloom_proto::{IdentityKey, Origin};

use crate::rate::Allowance;

/// The coordinator's identity and limits.
pub struct HubConfig {
    /// Signs welcomes and places in logs.
    pub key: IdentityKey,
    /// What nodes know this coordinator as.
    pub origin: Origin,
    /// Messages of one member.
    pub member_messages: Allowance,
    /// Their bytes.
    pub member_bytes: Allowance,
    /// Hellos from one address.
    pub hellos: Allowance,
    /// Invite lookups from one address.
    pub lookups: Allowance,
    /// Items one queue holds; then `recipient-full`.
    pub mailbox_messages_max: u64,
    /// Bytes one queue holds; then `recipient-full`.
    pub mailbox_bytes_max: u64,
}

impl HubConfig {
    /// The limits of protocol.md §16.
    pub fn new(key: IdentityKey, origin: Origin) -> Self {
        Self {
            key,
            origin,
            member_messages: Allowance::sustained(200),
            member_bytes: Allowance::sustained(20_000_000),
            hellos: Allowance { per_second: 10.0, burst: 30.0 },
            lookups: Allowance { per_second: 5.0 / 60.0, burst: 5.0 },
            mailbox_messages_max: MAILBOX_MESSAGES_MAX,
            mailbox_bytes_max: MAILBOX_BYTES_MAX,
        }
    }
}

impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubConfig({:?}, {})", self.key, self.origin)
    }
}
