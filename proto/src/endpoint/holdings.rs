//! How much an endpoint holds, collection by collection, beside the most that each may hold.
//!
//! What programs hand over and wait for (requests, pings, appends) is theirs to bound, by how many may
//! ask at once, and is not counted. Indexes with one entry a counted row are as large as that count.

use super::Endpoint;
use crate::limits::{LOG_ENTRIES_PER_MEMBER_MAX, OUTBOX_MESSAGES_MAX};

/// One collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What it holds, in the plural.
    pub what: &'static str,
    /// Entries, or bytes where `what` says so.
    pub count: usize,
    /// The most it may hold: from `limits`, from the sub-machine's own bound, or by the roster's size.
    pub most: usize,
}

impl Holding {
    pub(crate) fn new(what: &'static str, count: usize, most: usize) -> Self {
        Self { what, count, most }
    }
}

impl Endpoint {
    /// Every collection whose size others decide: senders, recipients, coordinators, time. Between
    /// batches each is within its bound.
    pub fn holdings(&self) -> Vec<Holding> {
        // Removed members too: the log names them for ever.
        let members = self.roster.members().count();
        let revocations = members * LOG_ENTRIES_PER_MEMBER_MAX as usize;
        let mut holdings = vec![
            Holding::new("peers", self.peers.len(), members),
            Holding::new("revocations off the log", self.revocations.iter().count(), revocations),
            Holding::new("rows to seal again", self.reseals.len(), OUTBOX_MESSAGES_MAX),
            Holding::new("outputs that nobody took", self.outputs.len(), 0),
        ];
        holdings.extend(self.links.holdings(members));
        holdings.extend(self.inbox.holdings(members));
        holdings.extend(self.delivery.holdings(members));
        holdings.extend(self.sends.holdings());
        holdings.extend(self.keyring.holdings());
        holdings
    }
}
