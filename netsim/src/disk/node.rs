//! A node's store: the rows of `node/store`, with its unique indexes and what it forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use peerloom_proto::endpoint::{
    HeldPrekey, HeldRow, InboxRow, OutboxRow, OutboxState, Row, SeenRow, SentRow, SurfacedRow, Write,
};
use peerloom_proto::limits::LOG_RETURN_MAX;
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{Generation, Kid, MessageId, PeerId, StoreMark, UnixMs};

use super::journal::Sectors;

/// Whether the store holds its unique indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unique {
    Held,
    /// A planted fault.
    Forgotten,
    /// Another: what was seen is known by its id, whoever it is from.
    ById,
}

/// What a node's store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeDisk {
    outbox: BTreeMap<Row, OutboxRow>,
    sent: BTreeMap<MessageId, Vec<Row>>,
    unsettled: BTreeSet<Row>,
    retired: BTreeSet<Row>,
    sequences: BTreeMap<PeerId, u64>,
    inbox: BTreeMap<Row, InboxRow>,
    seen: BTreeMap<(PeerId, MessageId), Row>,
    positions: BTreeMap<u64, Row>,
    held: BTreeSet<Row>,
    unread: BTreeSet<Row>,
    conversations: BTreeMap<(PeerId, Generation), u64>,
    /// The log; nodes that have the same share it.
    pub(crate) entries: Arc<Vec<Bytes>>,
    prekeys: BTreeMap<Kid, HeldPrekey>,
    peer_prekeys: BTreeMap<PeerId, SignedBytes>,
    revocations: Vec<SignedBytes>,
    on_hold: BTreeSet<PeerId>,
    floor: UnixMs,
    /// Outbox rows that were dropped; words on them come to nothing.
    dropped: BTreeSet<Row>,
    /// Dedupe rows that were dropped.
    forgotten: u64,
    pub(crate) coordinator_mark: Option<StoreMark>,
}

impl NodeDisk {
    /// A store as `init` or `join` leaves it: the log, and the key that stands in it.
    pub(crate) fn new(entries: Arc<Vec<Bytes>>, first: HeldPrekey) -> Self {
        Self { entries, prekeys: BTreeMap::from([(first.kid, first)]), ..Self::default() }
    }

    /// One transaction. `Err` says which promise of the store the batch breaks; the disk is of no use
    /// after that.
    pub(crate) fn commit(&mut self, writes: &[Write], unique: Unique) -> Result<(), String> {
        writes.iter().try_for_each(|write| self.apply(write, unique))
    }

    fn apply(&mut self, write: &Write, unique: Unique) -> Result<(), String> {
        match write {
            Write::Outbox(row) => self.add_outbox(row)?,
            Write::Reseal { row, wire, env_hash, kid, seals } => {
                let row = self.outbox_row(*row)?;
                (row.wire, row.env_hash, row.kid, row.seals) = (wire.clone(), *env_hash, *kid, *seals);
            }
            Write::OutboxState { row, .. } if self.dropped.contains(row) => {}
            Write::OutboxState { row, state, path, at: _ } => {
                let found = self.outbox_row(*row)?;
                (found.state, found.path) = (state.clone(), path.or(found.path));
                self.note_settled(*row, state);
            }
            Write::LateReceipt { id, to, env_hash, state, at: _ } => {
                let rows = self.sent.get(id).cloned().unwrap_or_default();
                for row in rows.into_iter().filter(|row| !self.dropped.contains(row)).collect::<Vec<_>>() {
                    let found = self.outbox_row(row)?;
                    if found.to == *to && found.env_hash == *env_hash && found.state != OutboxState::Surfaced
                    {
                        found.state = state.clone();
                        self.note_settled(row, state);
                    }
                }
            }
            Write::Retire { row, replaced_by: _ } => drop(self.retired.insert(*row)),
            Write::Inbox(row) => self.add_inbox(row, unique)?,
            Write::Release { row, position } => {
                if self.positions.insert(*position, *row).is_some() && unique != Unique::Forgotten {
                    return Err(format!("inbox position {position} is taken"));
                }
                self.held.remove(row);
                let found = self.inbox.get_mut(row).ok_or("a row that is not there was released")?;
                if found.position.replace(*position).is_some() {
                    return Err(format!("row {} was released twice", found.row));
                }
                self.unread.insert(*row);
            }
            Write::Surfaced { row, at: _ } => drop(self.unread.remove(row)),
            Write::Conversation { from, generation, next } => {
                self.conversations.insert((*from, *generation), *next);
            }
            Write::Entry { index, entry } => {
                if *index != self.entries.len() as u64 {
                    return Err(format!("log entry {index} does not follow {}", self.entries.len()));
                }
                Arc::make_mut(&mut self.entries).push(entry.clone());
            }
            Write::Prekey(prekey) => drop(self.prekeys.insert(prekey.kid, prekey.clone())),
            Write::PrekeyGone(kid) => drop(self.prekeys.remove(kid)),
            Write::PeerPrekey { peer, prekey } => drop(self.peer_prekeys.insert(*peer, prekey.clone())),
            Write::Floor(floor) => self.raise_floor(*floor),
            Write::CoordinatorMark(mark) => self.coordinator_mark = Some(*mark),
            Write::Revocation(revocation) => self.revocations.push(revocation.clone()),
            Write::Hold(member) => drop(self.on_hold.insert(*member)),
            Write::Unhold(member) => drop(self.on_hold.remove(member)),
        }
        Ok(())
    }

    fn add_outbox(&mut self, row: &OutboxRow) -> Result<(), String> {
        let others = self.sent.entry(row.id).or_default();
        if others.iter().any(|other| self.outbox.get(other).is_some_and(|other| other.to == row.to)) {
            return Err(format!("the outbox holds {} to {} already", row.id, row.to));
        }
        others.push(row.row);
        let next = self.sequences.entry(row.to).or_default();
        *next = (*next).max(row.seq + 1);
        self.note_settled(row.row, &row.state);
        match self.outbox.insert(row.row, row.clone()) {
            None => Ok(()),
            Some(_) => Err(format!("outbox row {} is taken", row.row)),
        }
    }

    fn outbox_row(&mut self, row: Row) -> Result<&mut OutboxRow, String> {
        self.outbox.get_mut(&row).ok_or_else(|| format!("outbox row {row} is not there"))
    }

    fn note_settled(&mut self, row: Row, state: &OutboxState) {
        if state.is_settled() {
            self.unsettled.remove(&row);
        } else {
            self.unsettled.insert(row);
        }
    }

    fn add_inbox(&mut self, row: &InboxRow, unique: Unique) -> Result<(), String> {
        let twice = self.seen.insert((row.from, row.id), row.row).is_some();
        if twice && unique != Unique::Forgotten {
            return Err(format!("the inbox holds {} already", row.id));
        }
        match row.position {
            None => drop(self.held.insert(row.row)),
            Some(position) => {
                if self.positions.insert(position, row.row).is_some() && unique != Unique::Forgotten {
                    return Err(format!("inbox position {position} is taken"));
                }
                self.unread.insert(row.row);
            }
        }
        match self.inbox.insert(row.row, row.clone()) {
            None => Ok(()),
            Some(_) => Err(format!("inbox row {} is taken", row.row)),
        }
    }

    /// Tombstones below the floor go, what failed stays, as in the real store. That keeps its inbox whole
    /// as a history; here the dedupe rows of what was read go too, as they may.
    fn raise_floor(&mut self, floor: UnixMs) {
        self.floor = self.floor.max(floor);
        let over = |row: &OutboxRow| match row.state {
            OutboxState::Stored | OutboxState::Surfaced | OutboxState::Aborted => true,
            OutboxState::Pending
            | OutboxState::InFlight
            | OutboxState::Accepted
            | OutboxState::Rejected(_)
            | OutboxState::Expired(_)
            | OutboxState::Dead(_) => self.retired.contains(&row.row),
        };
        let gone: Vec<Row> =
            self.outbox.values().filter(|row| row.exp <= floor && over(row)).map(|row| row.row).collect();
        for row in gone {
            self.outbox.remove(&row);
            self.unsettled.remove(&row);
            self.dropped.insert(row);
        }
        let (inbox, unread) = (&self.inbox, &self.unread);
        let known = self.seen.len();
        self.seen.retain(|_, row| {
            let read = inbox.get(row).filter(|row| row.position.is_some() && !unread.contains(&row.row));
            read.is_none_or(|row| row.exp > floor)
        });
        self.forgotten += (known - self.seen.len()) as u64;
    }

    // What the machine asks.

    pub(crate) fn sent(&self, id: MessageId) -> Vec<SentRow> {
        let rows = self.sent.get(&id).into_iter().flatten().filter_map(|row| self.outbox.get(row));
        rows.map(|row| SentRow {
            to: row.to,
            fp: row.fp,
            state: row.state.clone(),
            retired: self.retired.contains(&row.row),
        })
        .collect()
    }

    pub(crate) fn seen(&self, keys: &[(PeerId, MessageId)], unique: Unique) -> Vec<Option<SeenRow>> {
        let find = |key: &(PeerId, MessageId)| {
            let known = match unique {
                Unique::Held => self.seen.get(key),
                Unique::Forgotten => None,
                Unique::ById => self.seen.iter().find(|((_, id), _)| *id == key.1).map(|(_, row)| row),
            };
            let row = self.inbox.get(known?)?;
            let surfaced = row.position.is_some() && !self.unread.contains(&row.row);
            Some(SeenRow { fp: row.fp, surfaced })
        };
        keys.iter().map(find).collect()
    }

    pub(crate) fn load(&self, rows: &[Row]) -> Vec<OutboxRow> {
        rows.iter().filter_map(|row| self.outbox.get(row).cloned()).collect()
    }

    /// Log entries from an index on, as many as a node gives back at once.
    pub(crate) fn entries_from(&self, from: u64) -> Vec<Bytes> {
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).take(LOG_RETURN_MAX).cloned().collect()
    }

    // What a machine is rebuilt from.

    /// Unsettled rows without bytes and content, as a large store gives them.
    pub(crate) fn unsettled(&self) -> Vec<OutboxRow> {
        let rows = self.unsettled.iter().filter_map(|row| self.outbox.get(row));
        rows.map(|row| {
            let mut row = OutboxRow { wire: Bytes::new(), ..row.clone() };
            row.message.content = Bytes::new();
            row
        })
        .collect()
    }

    pub(crate) fn held(&self) -> Vec<HeldRow> {
        let held = self.held.iter().filter_map(|row| self.inbox.get(row));
        held.map(|row| HeldRow {
            row: row.row,
            from: row.from,
            generation: row.generation,
            seq: row.seq,
            exp: row.exp,
        })
        .collect()
    }

    pub(crate) fn conversations(&self) -> Vec<(PeerId, Generation, u64)> {
        self.conversations.iter().map(|((from, generation), next)| (*from, *generation, *next)).collect()
    }

    pub(crate) fn next_seqs(&self) -> Vec<(PeerId, u64)> {
        self.sequences.iter().map(|(to, next)| (*to, *next)).collect()
    }

    pub(crate) fn next_outbox_row(&self) -> Row {
        self.outbox.keys().last().map_or(1, |row| row + 1)
    }

    pub(crate) fn next_inbox_row(&self) -> Row {
        self.inbox.keys().last().map_or(1, |row| row + 1)
    }

    pub(crate) fn next_position(&self) -> u64 {
        self.positions.keys().last().map_or(1, |position| position + 1)
    }

    pub(crate) fn prekeys(&self) -> Vec<HeldPrekey> {
        self.prekeys.values().cloned().collect()
    }

    pub(crate) fn peer_prekeys(&self) -> Vec<(PeerId, SignedBytes)> {
        self.peer_prekeys.iter().map(|(peer, prekey)| (*peer, prekey.clone())).collect()
    }

    pub(crate) fn revocations(&self) -> Vec<SignedBytes> {
        self.revocations.clone()
    }

    pub(crate) fn on_hold(&self) -> Vec<PeerId> {
        self.on_hold.iter().copied().collect()
    }

    pub(crate) fn floor(&self) -> UnixMs {
        self.floor
    }

    // What readers and checkers ask.

    /// What can be read behind a position, in the readers' order.
    pub(crate) fn readable_after(&self, position: u64) -> impl Iterator<Item = (u64, &InboxRow)> {
        let behind = self.positions.range(position + 1..);
        behind.filter_map(|(position, row)| Some((*position, self.inbox.get(row)?)))
    }

    /// Everything received in the order of arrival, held rows too.
    pub(crate) fn arrived_after(&self, row: Row) -> impl Iterator<Item = (u64, &InboxRow)> {
        self.inbox.range(row + 1..).map(|(row, found)| (*row, found))
    }

    /// What can be read and was not read yet.
    pub(crate) fn unread(&self) -> Vec<SurfacedRow> {
        let unread = self.unread.iter().filter_map(|row| self.inbox.get(row));
        unread
            .map(|row| SurfacedRow { row: row.row, from: row.from, id: row.id, env_hash: row.env_hash })
            .collect()
    }

    /// Rows whose end is open: to whom, and how far they got.
    pub(crate) fn open_rows(&self) -> impl Iterator<Item = &OutboxRow> {
        self.unsettled.iter().filter_map(|row| self.outbox.get(row))
    }

    /// Dedupe rows that were dropped below the floor.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Rows in the outbox that are not settled, and rows held in the inbox.
    pub(crate) fn depths(&self) -> (usize, usize) {
        (self.unsettled.len(), self.held.len())
    }

    /// Loses the last log entry: a planted fault.
    pub(crate) fn forget_last_entry(&mut self) {
        if self.entries.len() > 1 {
            Arc::make_mut(&mut self.entries).pop();
        }
    }
}

impl Sectors for Write {
    fn body(&mut self) -> Option<&mut Bytes> {
        match self {
            Self::Outbox(row) => Some(&mut row.wire),
            Self::Reseal { wire, .. } => Some(wire),
            Self::Inbox(row) => Some(&mut row.message.content),
            Self::Entry { entry, .. } => Some(entry),
            Self::OutboxState { .. }
            | Self::LateReceipt { .. }
            | Self::Retire { .. }
            | Self::Release { .. }
            | Self::Surfaced { .. }
            | Self::Conversation { .. }
            | Self::Prekey(_)
            | Self::PrekeyGone(_)
            | Self::CoordinatorMark(_)
            | Self::PeerPrekey { .. }
            | Self::Floor(_)
            | Self::Revocation(_)
            | Self::Hold(_)
            | Self::Unhold(_) => None,
        }
    }
}
