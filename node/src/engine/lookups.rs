//! The store as a batch asks it.

use bytes::Bytes;
use peerloom_proto::endpoint::{Lookups, OutboxRow, Row, SeenRow, SentRow};
use peerloom_proto::{MessageId, PeerId};
use tokio::runtime::Runtime;

use crate::store::{StoreError, Writer};

/// Blocks the engine's thread on each answer.
pub(super) struct StoreLookups<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) writer: &'a mut Writer,
}

impl Lookups for StoreLookups<'_> {
    type Error = StoreError;

    fn sent(&mut self, ids: &[MessageId]) -> Result<Vec<Vec<SentRow>>, StoreError> {
        self.runtime.block_on(self.writer.sent(ids))
    }

    fn seen(&mut self, keys: &[(PeerId, MessageId)]) -> Result<Vec<Option<SeenRow>>, StoreError> {
        self.runtime.block_on(self.writer.seen(keys))
    }

    fn load(&mut self, rows: &[Row]) -> Result<Vec<OutboxRow>, StoreError> {
        self.runtime.block_on(self.writer.load(rows))
    }

    fn entries(&mut self, from: u64) -> Result<Vec<Bytes>, StoreError> {
        self.runtime.block_on(self.writer.entries(from))
    }
}
