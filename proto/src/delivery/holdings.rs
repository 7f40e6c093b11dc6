//! How much delivery holds.

use super::{Delivery, STORED_MAX, WINDOW_BYTES_MAX};
use crate::conversation::Outbound;
use crate::endpoint::Holding;
use crate::limits::{LINKS_MAX, OUTBOX_MESSAGES_MAX};

impl Delivery {
    pub(crate) fn holdings(&self, members: usize) -> [Holding; 6] {
        // The budget, and what was read back for each path: no more than its window takes.
        let paths = 1 + LINKS_MAX;
        let bytes = self.held_bytes_max + paths * WINDOW_BYTES_MAX;
        let places = self.conversations.values().map(Outbound::places).sum();
        [
            Holding::new("unsettled outbox rows", self.rows.len(), OUTBOX_MESSAGES_MAX),
            Holding::new("bytes of sealed envelopes", self.held_bytes, bytes),
            Holding::new("paths with unanswered envelopes", self.windows.len(), paths),
            Holding::new("outbound conversations", self.conversations.len(), members),
            // Unsettled ones, and those that failed since the last message to the same recipient.
            Holding::new("places in conversations", places, 2 * OUTBOX_MESSAGES_MAX),
            Holding::new("stored rows remembered", self.stored_order.len(), STORED_MAX),
        ]
    }
}
