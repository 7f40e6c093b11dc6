//! What is to be made durable next, and what waits for it.
//!
//! The open batch gathers while the one before it is being written. An item that ends before its
//! batch is taken is never written at all.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerloom_proto::{MeshId, PeerId, Roster, WireEntry};

use crate::hub::{HttpToken, SocketId};
use crate::meshlog::Appender;
use crate::store::{MailRow, Write};

/// Writes that become durable together.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to write, in the order of [`Write`]'s rules.
    pub writes: Vec<Write>,
    /// What may be said once it is written.
    pub(crate) after: Vec<After>,
}

/// What may be said once a batch is durable, beyond what its writes say by themselves.
#[derive(Debug)]
pub(crate) enum After {
    /// A request without another answer was done.
    Done { socket: SocketId, request: u64 },
    /// The entry under way in this mesh has its place.
    Appended { mesh: MeshId, by: Appender, entry: WireEntry },
    /// A mesh begins.
    MeshCreated { token: HttpToken, mesh: MeshId, entries: Vec<Bytes> },
    /// A mesh that was lost is here again, as far as a node gave it back.
    MeshRegained { roster: Box<Roster> },
    /// What a read of expired rows found has ended.
    ExpirySwept,
}

#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    small: Vec<Write>,
    puts: BTreeMap<u64, MailRow>,
    after: Vec<After>,
    bytes: usize,
}

impl OpenBatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.puts.is_empty() && self.after.is_empty()
    }

    /// Writes so far.
    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.puts.len()
    }

    /// Bytes of mail so far.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, write: Write) {
        self.small.push(write);
    }

    pub(crate) fn put(&mut self, row: MailRow) {
        self.bytes += row.bytes.len();
        self.puts.insert(row.seq, row);
    }

    pub(crate) fn after(&mut self, after: After) {
        self.after.push(after);
    }

    /// Takes a row out again that has not left for the disk.
    pub(crate) fn unput(&mut self, seq: u64) -> Option<MailRow> {
        let row = self.puts.remove(&seq)?;
        self.bytes -= row.bytes.len();
        Some(row)
    }

    /// Takes out all rows of one queue that have not left for the disk.
    pub(crate) fn unput_all(&mut self, mesh: &MeshId, to: &PeerId) -> Vec<MailRow> {
        let theirs = |row: &MailRow| row.mesh == *mesh && row.to == *to;
        let seqs: Vec<u64> = self.puts.values().filter(|row| theirs(row)).map(|row| row.seq).collect();
        seqs.into_iter().filter_map(|seq| self.unput(seq)).collect()
    }

    pub(crate) fn take(&mut self) -> Batch {
        let taken = std::mem::take(self);
        let mut writes = taken.small;
        writes.extend(taken.puts.into_values().map(Write::PutMail));
        Batch { writes, after: taken.after }
    }
}
