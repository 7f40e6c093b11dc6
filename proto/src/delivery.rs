//! Delivery: every unsettled outbox row, where it is, and what may be transmitted next.
//!
//! A row is pending, in flight on one path, or accepted by the coordinator. A link that closes
//! gives its rows back; a receipt from any path settles one. Sealed bytes are kept only while they
//! are to be transmitted, within a budget; beyond it they are read from the store when needed.

mod flights;
mod holdings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::conversation::Outbound;
use crate::endpoint::{LinkId, OutboxRow, OutboxState, PathKind, Row};
use crate::envelope::Priority;
use crate::id::{EnvHash, Kid, MessageId, PeerId};
use crate::limits::{CLOCK_SKEW_MAX, OUTBOX_BYTES_MAX};
use crate::time::{Monotonic, UnixMs};

/// One way an envelope can be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// Through the coordinator.
    Uplink,
    /// On a direct link.
    Link(LinkId),
}

/// An unsettled row.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: MessageId,
    pub(crate) to: PeerId,
    pub(crate) seq: u64,
    /// When it was sealed.
    ts: UnixMs,
    pub(crate) exp: UnixMs,
    pub(crate) env_hash: EnvHash,
    pub(crate) kid: Kid,
    pub(crate) seals: u32,
    pub(crate) priority: Priority,
    /// The last way it went.
    pub(crate) path: Option<PathKind>,
    /// Whether it was ever handed to a transport by this process.
    pub(crate) transmitted: bool,
    /// When it is given up: at exp, or, once it may be in the recipient's hands, when the recipient
    /// would refuse it.
    ends: UnixMs,
    wire: Option<Bytes>,
    size: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Pending,
    InFlight { via: Via, since: Monotonic, copied: bool },
    Accepted,
}

/// Unanswered envelopes on one path.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    messages: usize,
    bytes: usize,
}

/// What there is to do for a recipient next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Transmit these bytes.
    Transmit(Row, Bytes),
    /// Read the first rows' bytes from the store first: see [`Delivery::cold`].
    Load,
    /// Nothing, or the window of the path is full.
    Nothing,
}

/// Every unsettled row of one mesh.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Sealed bytes kept in memory; beyond it they are read back from the store when needed.
    pub(crate) held_bytes_max: usize,
    /// Sealed bytes that may wait for a coordinator or a recipient; beyond it sends are refused.
    pub(crate) unaccepted_bytes_max: usize,
    rows: BTreeMap<Row, Item>,
    by_hash: BTreeMap<EnvHash, Row>,
    ready: BTreeMap<PeerId, BTreeSet<Row>>,
    conversations: BTreeMap<PeerId, Outbound>,
    expiries: BTreeSet<(UnixMs, Row)>,
    flights: BTreeMap<Via, BTreeSet<(Monotonic, Row)>>,
    windows: BTreeMap<Via, Window>,
    held_bytes: usize,
    unaccepted_bytes: usize,
    stored: BTreeMap<EnvHash, Stored>,
    stored_order: VecDeque<EnvHash>,
    /// The store gave nothing back when last asked: rows of this very batch are not in it yet.
    load_failed: bool,
}

/// A row at its recipient, which may yet say that it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    pub(crate) id: MessageId,
    pub(crate) to: PeerId,
    pub(crate) path: Option<PathKind>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            held_bytes_max: HELD_BYTES_MAX,
            unaccepted_bytes_max: OUTBOX_BYTES_MAX,
            rows: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            ready: BTreeMap::new(),
            conversations: BTreeMap::new(),
            expiries: BTreeSet::new(),
            flights: BTreeMap::new(),
            windows: BTreeMap::new(),
            held_bytes: 0,
            unaccepted_bytes: 0,
            stored: BTreeMap::new(),
            stored_order: VecDeque::new(),
            load_failed: false,
        }
    }
}

impl Delivery {
    /// Sealed bytes in memory.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Counts unsettled rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether `bytes` more would be too much to wait for a coordinator or a recipient.
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        self.unaccepted_bytes + bytes > self.unaccepted_bytes_max
    }

    /// Rows not yet accepted or stored anywhere.
    pub(crate) fn unaccepted(&self) -> usize {
        self.rows.values().filter(|item| item.stage != Stage::Accepted).count()
    }

    /// The sender's side of the conversation with `peer`.
    pub(crate) fn conversation(&mut self, peer: PeerId) -> &mut Outbound {
        self.conversations.entry(peer).or_default()
    }

    /// The same, if there is one.
    pub(crate) fn begun(&self, peer: &PeerId) -> Option<&Outbound> {
        self.conversations.get(peer)
    }

    /// Recipients with something to transmit, the most urgent head first.
    pub(crate) fn waiting(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self
            .ready
            .iter()
            .filter_map(|(peer, rows)| rows.first().map(|row| (*peer, *row)))
            .map(|(peer, row)| (std::cmp::Reverse(self.rows[&row].priority), row, peer))
            .collect();
        peers.sort_unstable();
        peers.into_iter().map(|(_, _, peer)| peer).collect()
    }

    /// Takes a row back after a restart. It may have left before, and its size may not be known.
    pub(crate) fn restore(&mut self, row: &OutboxRow) {
        self.add(row);
        self.left(row.row);
    }

    /// Takes a new row.
    pub(crate) fn add(&mut self, row: &OutboxRow) {
        let stage = if row.state == OutboxState::Accepted { Stage::Accepted } else { Stage::Pending };
        let hot = !row.wire.is_empty() && self.held_bytes + row.wire.len() <= self.held_bytes_max;
        let item = Item {
            id: row.id,
            to: row.to,
            seq: row.seq,
            ts: row.ts,
            exp: row.exp,
            env_hash: row.env_hash,
            kid: row.kid,
            seals: row.seals,
            priority: row.priority,
            path: row.path,
            transmitted: false,
            ends: row.exp,
            wire: hot.then(|| row.wire.clone()),
            size: row.wire.len(),
            stage,
        };
        if hot {
            self.held_bytes += item.size;
        }
        self.by_hash.insert(row.env_hash, row.row);
        self.expiries.insert((item.ends, row.row));
        self.conversation(row.to).restore(row.seq);
        if stage == Stage::Pending {
            self.unaccepted_bytes += item.size;
            self.ready.entry(row.to).or_default().insert(row.row);
        }
        self.rows.insert(row.row, item);
    }

    /// The unsettled row that these bytes belong to.
    pub(crate) fn find(&self, env_hash: &EnvHash) -> Option<(Row, &Item)> {
        let row = self.by_hash.get(env_hash)?;
        self.rows.get(row).map(|item| (*row, item))
    }

    /// Unsettled rows under an id.
    pub(crate) fn under(&self, id: &MessageId) -> Vec<Row> {
        self.rows.iter().filter(|(_, item)| item.id == *id).map(|(row, _)| *row).collect()
    }

    /// Unsettled rows towards a recipient.
    pub(crate) fn towards(&self, peer: &PeerId) -> Vec<Row> {
        self.rows.iter().filter(|(_, item)| item.to == *peer).map(|(row, _)| *row).collect()
    }

    /// Whether anything is under way to a recipient.
    pub(crate) fn is_open(&self, peer: &PeerId) -> bool {
        self.conversations.get(peer).is_some_and(Outbound::is_open)
    }

    /// Every unsettled row.
    pub(crate) fn all(&self) -> Vec<Row> {
        self.rows.keys().copied().collect()
    }

    /// An unsettled row.
    pub(crate) fn item(&self, row: Row) -> Option<&Item> {
        self.rows.get(&row)
    }

    /// The first row that may be handed to `via` for `peer`.
    pub(crate) fn next(&self, peer: &PeerId, via: Via) -> Next {
        let Some(row) = self.ready.get(peer).and_then(BTreeSet::first) else { return Next::Nothing };
        let window = self.windows.get(&via).copied().unwrap_or_default();
        if window.messages >= WINDOW_MESSAGES_MAX || window.bytes >= WINDOW_BYTES_MAX {
            return Next::Nothing;
        }
        match &self.rows[row].wire {
            Some(wire) => Next::Transmit(*row, wire.clone()),
            None if self.load_failed => Next::Nothing,
            None => Next::Load,
        }
    }

    /// Rows, first come first, whose bytes must be read before they can be handed to a path.
    pub(crate) fn cold(&self, peer: &PeerId) -> Vec<Row> {
        let Some(rows) = self.ready.get(peer) else { return Vec::new() };
        let mut bytes = 0;
        let cold = rows.iter().take(LOAD_ROWS_MAX).filter(|row| self.rows[row].wire.is_none());
        let fitting = cold.take_while(|row| {
            let (size, first) = (self.rows[row].size, bytes == 0);
            bytes += if size == 0 { UNKNOWN_BYTES } else { size };
            first || bytes <= WINDOW_BYTES_MAX
        });
        fitting.copied().collect()
    }

    /// Waiting rows, first come first, that were sealed by a clock far ahead of this one: every
    /// recipient would refuse them as from the future.
    pub(crate) fn misdated(&self, peer: &PeerId, now: UnixMs) -> Vec<Row> {
        let Some(rows) = self.ready.get(peer) else { return Vec::new() };
        let ahead = |row: &&Row| self.rows[row].ts > now.plus(CLOCK_SKEW_MAX);
        rows.iter().take_while(ahead).take(RESEAL_ROWS_MAX).copied().collect()
    }

    /// The store was asked; it may be asked again only if it gave something, or in another batch.
    pub(crate) fn loaded(&mut self, any: bool) {
        self.load_failed = !any;
    }

    /// Whether rows wait for a store that did not have them yet.
    pub(crate) fn waits_for_store(&self) -> bool {
        self.load_failed
    }

    /// Bytes that were read from the store.
    pub(crate) fn warm(&mut self, row: Row, wire: Bytes) {
        let Some(item) = self.rows.get_mut(&row) else { return };
        if item.wire.is_none() {
            self.held_bytes += wire.len();
            if item.stage != Stage::Accepted {
                self.unaccepted_bytes = (self.unaccepted_bytes + wire.len()).saturating_sub(item.size);
            }
            item.size = wire.len();
            item.wire = Some(wire);
        }
    }

    /// `row` is settled and forgotten here.
    pub(crate) fn settle(&mut self, row: Row) -> Option<Item> {
        self.land(row);
        self.cool(row);
        let item = self.rows.remove(&row)?;
        self.by_hash.remove(&item.env_hash);
        self.expiries.remove(&(item.ends, row));
        if let Some(ready) = self.ready.get_mut(&item.to) {
            ready.remove(&row);
            if ready.is_empty() {
                self.ready.remove(&item.to);
            }
        }
        if item.stage != Stage::Accepted {
            self.unaccepted_bytes -= item.size;
        }
        self.conversation(item.to).settle(item.seq);
        Some(item)
    }

    /// Remembers a stored row until it is read, or until too many came after it.
    pub(crate) fn remember(&mut self, env_hash: EnvHash, stored: Stored) {
        if self.stored_order.len() >= STORED_MAX
            && let Some(oldest) = self.stored_order.pop_front()
        {
            self.stored.remove(&oldest);
        }
        self.stored.insert(env_hash, stored);
        self.stored_order.push_back(env_hash);
    }

    /// The stored row that these bytes belong to, if it is remembered.
    pub(crate) fn stored(&self, env_hash: &EnvHash) -> Option<Stored> {
        self.stored.get(env_hash).copied()
    }

    /// Rows whose time ran out.
    pub(crate) fn expired(&self, now: UnixMs) -> Vec<Row> {
        self.expiries.iter().take_while(|(exp, _)| *exp <= now).map(|(_, row)| *row).collect()
    }

    /// When the next row's time runs out.
    pub(crate) fn next_expiry(&self) -> Option<UnixMs> {
        self.expiries.first().map(|(exp, _)| *exp)
    }
}

/// Unanswered envelopes on one path, in messages: enough that a commit on the far side, some
/// milliseconds, never starves the wire. When full, rows wait in the outbox.
const WINDOW_MESSAGES_MAX: usize = 2_048;

/// Unanswered envelopes on one path, in bytes. When full, rows wait in the outbox.
const WINDOW_BYTES_MAX: usize = 8 << 20;

/// Sealed bytes kept in memory. Beyond it they are read back from the store when needed.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Rows read from the store at once.
const LOAD_ROWS_MAX: usize = 512;

/// Rows sealed again at once after a clock was set back.
const RESEAL_ROWS_MAX: usize = 32;

/// What a row of unknown size counts for when rows are read: [`WINDOW_BYTES_MAX`] is then 32 rows, and
/// never more memory than 32 of the largest.
const UNKNOWN_BYTES: usize = 256 << 10;

/// A row on a direct link whose peer speaks, but has not answered it for this long, is copied to the
/// relay: the peer may have no room for it, which the coordinator has.
const LATE: Duration = Duration::from_millis(1_000);

/// Stored rows remembered for the word that they were read, about 150 bytes each. For older ones the
/// store alone is told.
const STORED_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
