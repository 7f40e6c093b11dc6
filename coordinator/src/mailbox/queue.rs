//! One recipient's queue: how much it holds, what is handed out under which lease, and where reading
//! on in the store goes on.
//!
//! Rows wait in the store, not in memory. In memory stand only items being written, items in flight
//! (handed out, not yet ended) and items whose lease lapsed, so that a late receipt still counts.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use peerloom_proto::{EnvHash, Monotonic, PeerId};

use crate::hub::ReadId;
use crate::store::{MailKind, MailRow};

/// Most bytes in flight to one node, whatever it claims: they must fit its socket's outbox, and one
/// envelope of the largest size is let through all the same.
pub(crate) const CLAIM_BYTES_MAX: u64 = 1 << 20;

/// Most messages in flight to one node, whatever it claims.
pub(crate) const CLAIM_MESSAGES_MAX: u64 = 4_096;

/// Receipts and notices in flight to one node. They do not count against its claim: a node that
/// takes no mail must still learn what became of its own.
const NOTICES_IN_FLIGHT_MAX: u64 = 1_024;

/// Rows one read asks for at most.
const READ_ROWS_MAX: u64 = 512;

/// Lapsed items remembered; a receipt for an older one is answered by delivering it again.
const LAPSED_MAX: usize = 4_096;

/// Priority of receipts and notices: they go before all mail.
pub(crate) const NOTICE_PRIORITY: u8 = 3;

/// Priority from which an envelope overtakes what waits.
const OVERTAKING_PRIORITY: u8 = 2;

/// What the hub knows of one queued item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) kind: MailKind,
    pub(crate) from: PeerId,
    pub(crate) env_hash: EnvHash,
    pub(crate) priority: u8,
    pub(crate) bytes: u64,
}

impl Item {
    pub(crate) fn of(row: &MailRow) -> Self {
        Self {
            kind: row.kind,
            from: row.from,
            env_hash: row.env_hash,
            priority: row.priority,
            bytes: row.bytes.len() as u64,
        }
    }

    fn is_mail(&self) -> bool {
        self.kind == MailKind::Envelope
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    item: Item,
    durable: bool,
    /// Until when it is handed out; none while it waits.
    lease: Option<Monotonic>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    messages: u64,
    bytes: u64,
}

/// A read that the queue wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) after: Option<(u8, u64)>,
    pub(crate) limit: usize,
    pub(crate) bytes_max: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: u64,
    bytes: u64,
    known: BTreeMap<u64, Known>,
    /// Known items that wait and are not durable yet: no read can find them.
    unwritten: u64,
    mail_in_flight: u64,
    bytes_in_flight: u64,
    notices_in_flight: u64,
    window: Option<Window>,
    /// The last row that was looked at; rows behind it are still to be read.
    cursor: Option<(u8, u64)>,
    /// Whether the store may hold rows behind the cursor.
    unread: bool,
    reading: Option<ReadId>,
    /// The cursor went back while a read was under way.
    rewound: bool,
    /// The first row that became durable while a read was under way, which cannot bring it: the
    /// cursor must not pass it.
    ceiling: Option<(u8, u64)>,
    /// The last read found more than there was room for.
    stalled: bool,
    /// Ended items whose deletion is on its way to the disk; true once it is there and only an
    /// older read could still bring them.
    gone: BTreeMap<u64, bool>,
}

impl Queue {
    /// A queue as it was found at start.
    pub(crate) fn stored(items: u64, bytes: u64) -> Self {
        Self { items, bytes, unread: items > 0, ..Self::default() }
    }

    /// Items of every kind, handed out or not.
    pub(crate) const fn items(&self) -> u64 {
        self.items
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing would be lost by forgetting this queue.
    pub(crate) fn is_idle(&self) -> bool {
        self.items == 0
            && self.known.is_empty()
            && self.gone.is_empty()
            && self.window.is_none()
            && self.reading.is_none()
    }

    /// A node's claim: from here on mail flows to it.
    pub(crate) fn claim(&mut self, messages: u64, bytes: u64) {
        let window = Window { messages: messages.min(CLAIM_MESSAGES_MAX), bytes: bytes.min(CLAIM_BYTES_MAX) };
        if self.window.replace(window).is_none() {
            self.rewind(None);
        }
        self.stalled = false;
    }

    /// The node is gone, or another socket took its place: what it had in flight waits again.
    pub(crate) fn detach(&mut self) {
        self.window = None;
        self.reading = None;
        self.rewound = false;
        self.stalled = false;
        self.lapse_where(|_| true);
        self.cursor = None;
        self.unread = self.items > 0;
    }

    /// Adds an item that is being written, and says whether it may be handed out at once.
    pub(crate) fn add(&mut self, seq: u64, item: Item, lease_until: Monotonic) -> Handover {
        self.items += 1;
        self.bytes += item.bytes;
        let lease = self.may_pass_through(&item).then_some(lease_until);
        if lease.is_some() {
            self.count_out(&item);
        } else {
            self.unwritten += 1;
        }
        self.known.insert(seq, Known { item, durable: false, lease });
        if lease.is_some() { Handover::Now } else { Handover::Later }
    }

    /// The item's row is durable.
    pub(crate) fn written(&mut self, seq: u64) {
        let Some(known) = self.known.get_mut(&seq) else { return };
        known.durable = true;
        if known.lease.is_none() {
            let priority = known.item.priority;
            self.known.remove(&seq);
            self.unwritten -= 1;
            self.unread = true;
            let place = (priority, seq);
            if self.cursor.is_some_and(|cursor| comes_before(place, cursor)) {
                self.rewind(Some((priority, seq - 1)));
            } else if self.reading.is_some() && self.ceiling.is_none_or(|first| comes_before(place, first)) {
                self.ceiling = Some(place);
            }
        }
    }

    /// The item's row could not be written: it was never here. None if it has ended meanwhile.
    pub(crate) fn unwritten(&mut self, seq: u64) -> Option<Item> {
        let known = self.remove(seq)?;
        Some(known.item)
    }

    /// An item in flight, or once in flight.
    pub(crate) fn handed_out(&self, seq: u64) -> Option<&Item> {
        self.known.get(&seq).map(|known| &known.item)
    }

    /// Ends an item. Its row is skipped by reads until [`deleted`](Self::deleted).
    pub(crate) fn end(&mut self, seq: u64) -> Option<Item> {
        let known = self.remove(seq)?;
        self.gone.insert(seq, false);
        Some(known.item)
    }

    /// Ends an item that was found in the store, whether it is known or not.
    pub(crate) fn end_stored(&mut self, row: &MailRow) {
        if self.end(row.seq).is_none() && self.gone.insert(row.seq, false).is_none() {
            self.items = self.items.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(row.bytes.len() as u64);
        }
    }

    /// Whether a row that a read of the store found has ended already.
    pub(crate) fn has_ended(&self, seq: u64) -> bool {
        self.gone.contains_key(&seq)
    }

    /// The row of an ended item is off the disk, or never came there.
    pub(crate) fn deleted(&mut self, seq: u64) {
        if self.reading.is_none() {
            self.gone.remove(&seq);
        } else if let Some(on_disk) = self.gone.get_mut(&seq) {
            *on_disk = true;
        }
    }

    /// Takes back what was handed out and not ended in time. Returns how many.
    pub(crate) fn lapse(&mut self, now: Monotonic) -> u64 {
        if self.mail_in_flight + self.notices_in_flight == 0 {
            return 0;
        }
        let lapsed = self.lapse_where(|until| until <= now);
        if lapsed > 0 {
            self.rewind(None);
        }
        lapsed
    }

    /// The read to make, if there may be something to read and room for it.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let window = self.window?;
        if !self.unread || self.reading.is_some() || self.stalled {
            return None;
        }
        let limit = window.messages.saturating_sub(self.mail_in_flight).clamp(64, READ_ROWS_MAX);
        let limit = usize::try_from(limit).expect("a few hundred fit");
        let bytes_max = window.bytes.saturating_sub(self.bytes_in_flight).max(1);
        Some(Wanted { after: self.cursor, limit, bytes_max })
    }

    /// The wanted read is under way.
    pub(crate) fn reading(&mut self, read: ReadId) {
        self.reading = Some(read);
        self.unread = false;
        self.rewound = false;
        self.ceiling = None;
    }

    /// Takes the answer and returns what is to be handed out. Empty for a read that was given up.
    pub(crate) fn read(&mut self, read: ReadId, rows: Vec<MailRow>, lease_until: Monotonic) -> Vec<MailRow> {
        if self.reading != Some(read) {
            return Vec::new();
        }
        self.reading = None;
        self.unread |= !rows.is_empty();
        let mut handed = Vec::with_capacity(rows.len());
        for row in rows {
            let item = Item::of(&row);
            let leased = self.known.get(&row.seq).is_some_and(|known| known.lease.is_some());
            if !leased && !self.gone.contains_key(&row.seq) {
                if !self.has_room(&item) {
                    self.stalled = true;
                    break;
                }
                self.count_out(&item);
                self.known.insert(row.seq, Known { item, durable: true, lease: Some(lease_until) });
            }
            let place = (row.priority, row.seq);
            if !self.rewound && self.ceiling.is_none_or(|ceiling| comes_before(place, ceiling)) {
                self.cursor = Some(place);
            }
            if !leased && !self.gone.contains_key(&row.seq) {
                handed.push(row);
            }
        }
        self.gone.retain(|_, on_disk| !*on_disk);
        handed
    }

    /// The wanted read failed: ask again at the next occasion.
    pub(crate) fn read_failed(&mut self, read: ReadId) {
        if self.reading == Some(read) {
            self.reading = None;
            self.unread = true;
            self.stalled = true;
        }
    }

    /// Lets a queue that was out of room, or whose read failed, try again.
    pub(crate) fn unstall(&mut self) {
        if self.window.is_some_and(|window| window.messages > self.mail_in_flight) {
            self.stalled = false;
        }
    }

    fn may_pass_through(&self, item: &Item) -> bool {
        let nothing_waits = !self.unread && self.reading.is_none() && self.unwritten == 0;
        let overtakes = item.priority >= OVERTAKING_PRIORITY;
        self.window.is_some() && self.has_room(item) && (nothing_waits || overtakes)
    }

    fn has_room(&self, item: &Item) -> bool {
        let Some(window) = self.window else { return false };
        if item.is_mail() {
            let fits = self.bytes_in_flight == 0 || self.bytes_in_flight + item.bytes <= window.bytes;
            self.mail_in_flight < window.messages && fits
        } else {
            self.notices_in_flight < NOTICES_IN_FLIGHT_MAX
        }
    }

    fn count_out(&mut self, item: &Item) {
        if item.is_mail() {
            self.mail_in_flight += 1;
            self.bytes_in_flight += item.bytes;
        } else {
            self.notices_in_flight += 1;
        }
    }

    /// A read is worth its while again once a quarter of the window is free: at every ended item
    /// it would bring one row.
    fn count_back(&mut self, item: &Item) {
        if item.is_mail() {
            self.mail_in_flight -= 1;
            self.bytes_in_flight -= item.bytes;
            let Some(window) = self.window else { return };
            let messages = window.messages.saturating_sub(self.mail_in_flight);
            let bytes = window.bytes.saturating_sub(self.bytes_in_flight);
            if messages * 4 >= window.messages && bytes * 4 >= window.bytes {
                self.stalled = false;
            }
        } else {
            self.notices_in_flight -= 1;
            if self.notices_in_flight * 2 <= NOTICES_IN_FLIGHT_MAX {
                self.stalled = false;
            }
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Known> {
        let known = self.known.remove(&seq)?;
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(known.item.bytes);
        if known.lease.is_some() {
            self.count_back(&known.item);
        } else if !known.durable {
            self.unwritten -= 1;
        }
        Some(known)
    }

    fn lapse_where(&mut self, due: impl Fn(Monotonic) -> bool) -> u64 {
        let lapsing: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, known)| known.lease.is_some_and(&due))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in &lapsing {
            let Some(known) = self.known.get_mut(seq) else { continue };
            known.lease = None;
            let (item, durable) = (known.item, known.durable);
            self.count_back(&item);
            if !durable {
                self.unwritten += 1;
            }
        }
        let waiting = |known: &Known| known.lease.is_none() && known.durable;
        let mut surplus =
            self.known.values().filter(|known| waiting(known)).count().saturating_sub(LAPSED_MAX);
        self.known.retain(|_, known| {
            let forget = surplus > 0 && waiting(known);
            surplus -= usize::from(forget);
            !forget
        });
        lapsing.len() as u64
    }

    fn rewind(&mut self, to: Option<(u8, u64)>) {
        self.cursor = to;
        self.rewound = true;
        self.unread = self.items > 0;
        self.stalled = false;
    }
}

/// Whether a row at `place` (priority and seq) is read before one at `other`.
fn comes_before(place: (u8, u64), other: (u8, u64)) -> bool {
    (Reverse(place.0), place.1) < (Reverse(other.0), other.1)
}

/// What becomes of an item beside being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// It is handed out in this moment, under a lease.
    Now,
    /// It waits in the store.
    Later,
}

#[cfg(test)]
mod tests;
