//! A node's disk: what was committed, and nothing else. A broken unique index is a panic, as it
//! would be a failed transaction of the real store.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;

use crate::endpoint::{
    HeldPrekey, HeldRow, InboxRow, Lookups, OutboxRow, OutboxState, Row, SeenRow, SentRow, SurfacedRow, Write,
};
use crate::hello::StoreMark;
use crate::id::{EnvHash, Fingerprint, Generation, Kid, MessageId, PeerId};
use crate::limits::LOG_RETURN_MAX;
use crate::time::UnixMs;
use crate::wire::SignedBytes;

/// What a node's store holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) outbox: BTreeMap<Row, OutboxRow>,
    pub(super) retired: BTreeMap<Row, MessageId>,
    pub(super) inbox: BTreeMap<Row, InboxRow>,
    surfaced: BTreeSet<Row>,
    conversations: BTreeMap<(PeerId, Generation), u64>,
    pub(super) entries: Vec<Bytes>,
    prekeys: BTreeMap<Kid, HeldPrekey>,
    peer_prekeys: BTreeMap<PeerId, SignedBytes>,
    revocations: Vec<SignedBytes>,
    on_hold: BTreeSet<PeerId>,
    floor: UnixMs,
    /// How often rows were read whole.
    pub(super) loads: usize,
    pub(super) coordinator_mark: Option<StoreMark>,
}

impl Disk {
    /// A store as `init` or `join` leaves it: the log, and the key that stands in it.
    pub(super) fn new(entries: Vec<Bytes>, first: HeldPrekey) -> Self {
        Self { entries, prekeys: BTreeMap::from([(first.kid, first)]), ..Self::default() }
    }

    /// One transaction.
    pub(super) fn commit(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.apply(write);
        }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Outbox(row) => {
                let twice = self.outbox.values().any(|other| other.id == row.id && other.to == row.to);
                assert!(!twice, "outbox: (id, recipient) is unique, {} came again", row.id);
                assert!(self.outbox.insert(row.row, row).is_none(), "outbox: primary keys are unique");
            }
            Write::Reseal { row, wire, env_hash, kid, seals } => {
                let row = self.outbox.get_mut(&row).expect("a re-sealed row is in the outbox");
                (row.wire, row.env_hash, row.kid, row.seals) = (wire, env_hash, kid, seals);
            }
            Write::OutboxState { row, state, path, at: _ } => {
                let row = self.outbox.get_mut(&row).expect("a row that moves on is in the outbox");
                (row.state, row.path) = (state, path.or(row.path));
            }
            Write::LateReceipt { id, to, env_hash, state, at: _ } => {
                let same = |row: &&mut OutboxRow| row.id == id && row.to == to && row.env_hash == env_hash;
                if let Some(row) = self.outbox.values_mut().find(same) {
                    row.state = state;
                }
            }
            Write::Retire { row, replaced_by } => {
                let before = self.retired.insert(row, replaced_by);
                assert!(before.is_none(), "an id is retired once");
            }
            Write::Inbox(row) => self.receive(row),
            Write::Release { row, position } => {
                assert!(self.position_is_free(position), "inbox: position {position} is taken");
                let row = self.inbox.get_mut(&row).expect("a released row is in the inbox");
                assert_eq!(row.position.replace(position), None, "a row is released once");
            }
            Write::Surfaced { row, at: _ } => {
                self.surfaced.insert(row);
            }
            Write::Conversation { from, generation, next } => {
                assert!(i64::try_from(next).is_ok(), "a store keeps signed 64-bit numbers");
                self.conversations.insert((from, generation), next);
            }
            Write::Entry { index, entry } => {
                assert_eq!(index, self.entries.len() as u64, "log entries are stored in order");
                self.entries.push(entry);
            }
            Write::Prekey(prekey) => {
                self.prekeys.insert(prekey.kid, prekey);
            }
            Write::PrekeyGone(kid) => {
                self.prekeys.remove(&kid);
            }
            Write::PeerPrekey { peer, prekey } => {
                self.peer_prekeys.insert(peer, prekey);
            }
            Write::Floor(floor) => self.floor = floor,
            Write::CoordinatorMark(mark) => self.coordinator_mark = Some(mark),
            Write::Revocation(revocation) => self.revocations.push(revocation),
            Write::Hold(member) => {
                self.on_hold.insert(member);
            }
            Write::Unhold(member) => {
                self.on_hold.remove(&member);
            }
        }
    }

    fn receive(&mut self, row: InboxRow) {
        let twice = self.inbox.values().any(|other| other.from == row.from && other.id == row.id);
        assert!(!twice, "inbox: (from, id) is unique, {} came again", row.id);
        if let Some(position) = row.position {
            assert!(self.position_is_free(position), "inbox: position {position} is taken");
        }
        assert!(self.inbox.insert(row.row, row).is_none(), "inbox: primary keys are unique");
    }

    fn position_is_free(&self, position: u64) -> bool {
        self.inbox.values().all(|row| row.position != Some(position))
    }

    /// Unsettled rows as a restart finds them: without bytes and content, as large stores do it.
    pub(super) fn unsettled(&self) -> Vec<OutboxRow> {
        let rows = self.outbox.values().filter(|row| !row.state.is_settled());
        rows.map(|row| {
            let mut row = OutboxRow { wire: Bytes::new(), ..row.clone() };
            row.message.content = Bytes::new();
            row
        })
        .collect()
    }

    pub(super) fn held(&self) -> Vec<HeldRow> {
        let held = self.inbox.values().filter(|row| row.position.is_none());
        held.map(|row| HeldRow {
            row: row.row,
            from: row.from,
            generation: row.generation,
            seq: row.seq,
            exp: row.exp,
        })
        .collect()
    }

    pub(super) fn conversations(&self) -> Vec<(PeerId, Generation, u64)> {
        self.conversations.iter().map(|((from, generation), next)| (*from, *generation, *next)).collect()
    }

    pub(super) fn next_seqs(&self) -> Vec<(PeerId, u64)> {
        let mut next: BTreeMap<PeerId, u64> = BTreeMap::new();
        for row in self.outbox.values() {
            let seq = next.entry(row.to).or_default();
            *seq = (*seq).max(row.seq + 1);
        }
        next.into_iter().collect()
    }

    pub(super) fn next_outbox_row(&self) -> Row {
        self.outbox.keys().last().map_or(1, |row| row + 1)
    }

    pub(super) fn next_inbox_row(&self) -> Row {
        self.inbox.keys().last().map_or(1, |row| row + 1)
    }

    pub(super) fn next_position(&self) -> u64 {
        self.inbox.values().filter_map(|row| row.position).max().map_or(1, |position| position + 1)
    }

    pub(super) fn prekeys(&self) -> Vec<HeldPrekey> {
        self.prekeys.values().cloned().collect()
    }

    /// Loses the secrets of all weekly prekeys, as a restore from an old backup would.
    pub(super) fn forget_weekly_prekeys(&mut self) {
        self.prekeys.retain(|_, prekey| prekey.signed.is_none());
    }

    pub(super) fn peer_prekeys(&self) -> Vec<(PeerId, SignedBytes)> {
        self.peer_prekeys.iter().map(|(peer, prekey)| (*peer, prekey.clone())).collect()
    }

    pub(super) fn revocations(&self) -> Vec<SignedBytes> {
        self.revocations.clone()
    }

    pub(super) fn on_hold(&self) -> Vec<PeerId> {
        self.on_hold.iter().copied().collect()
    }

    pub(super) fn floor(&self) -> UnixMs {
        self.floor
    }

    /// What readers see, in their order.
    pub(super) fn readable(&self) -> Vec<&InboxRow> {
        let mut rows: Vec<_> = self.inbox.values().filter(|row| row.position.is_some()).collect();
        rows.sort_by_key(|row| row.position);
        rows
    }

    /// What was not read yet.
    pub(super) fn unread(&self) -> Vec<SurfacedRow> {
        let unread = self.readable().into_iter().filter(|row| !self.surfaced.contains(&row.row));
        unread
            .map(|row| SurfacedRow { row: row.row, from: row.from, id: row.id, env_hash: row.env_hash })
            .collect()
    }

    /// How far a send got.
    pub(super) fn state(&self, id: MessageId, to: PeerId) -> Option<OutboxState> {
        self.outbox.values().find(|row| row.id == id && row.to == to).map(|row| row.state.clone())
    }

    pub(super) fn sealed(&self, id: MessageId) -> (Fingerprint, EnvHash, u32) {
        let row = self.outbox.values().find(|row| row.id == id).expect("the message is in the outbox");
        (row.fp, row.env_hash, row.seals)
    }
}

impl Lookups for Disk {
    type Error = Infallible;

    fn entries(&mut self, from: u64) -> Result<Vec<Bytes>, Infallible> {
        let skip = usize::try_from(from).expect("logs of tests are short");
        Ok(self.entries.iter().skip(skip).take(LOG_RETURN_MAX).cloned().collect())
    }

    fn sent(&mut self, ids: &[MessageId]) -> Result<Vec<Vec<SentRow>>, Infallible> {
        let rows = |id: &MessageId| {
            let rows = self.outbox.values().filter(|row| row.id == *id);
            rows.map(|row| SentRow {
                to: row.to,
                fp: row.fp,
                state: row.state.clone(),
                retired: self.retired.contains_key(&row.row),
            })
            .collect()
        };
        Ok(ids.iter().map(rows).collect())
    }

    fn seen(&mut self, keys: &[(PeerId, MessageId)]) -> Result<Vec<Option<SeenRow>>, Infallible> {
        let find = |(from, id): &(PeerId, MessageId)| {
            // What the floor covers may be forgotten, so it is.
            let same = |row: &&InboxRow| row.from == *from && row.id == *id && row.exp > self.floor;
            let row = self.inbox.values().find(same)?;
            Some(SeenRow { fp: row.fp, surfaced: self.surfaced.contains(&row.row) })
        };
        Ok(keys.iter().map(find).collect())
    }

    fn load(&mut self, rows: &[Row]) -> Result<Vec<OutboxRow>, Infallible> {
        self.loads += 1;
        Ok(rows.iter().filter_map(|row| self.outbox.get(row).cloned()).collect())
    }
}
