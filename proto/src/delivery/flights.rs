//! From a row's first transmission to the coordinator's word, or back.

use bytes::Bytes;

use super::{Delivery, LATE, Stage, Via};
use crate::endpoint::{PathKind, Row};
use crate::id::{EnvHash, Kid, PeerId};
use crate::limits::CLOCK_SKEW_MAX;
use crate::time::{Monotonic, UnixMs};

impl Delivery {
    /// `row` was handed to `via`.
    pub(crate) fn transmitted(&mut self, row: Row, via: Via, path: PathKind, now: Monotonic) {
        let Some(item) = self.rows.get_mut(&row) else { return };
        if let Some(ready) = self.ready.get_mut(&item.to) {
            ready.remove(&row);
            if ready.is_empty() {
                self.ready.remove(&item.to);
            }
        }
        item.stage = Stage::InFlight { via, since: now, copied: false };
        item.path = Some(path);
        self.flights.entry(via).or_default().insert((now, row));
        let window = self.windows.entry(via).or_default();
        window.messages += 1;
        window.bytes += item.size;
        self.left(row);
    }

    /// `row` is, or may be, in other hands: from there it may be taken up to the end of its window.
    pub(super) fn left(&mut self, row: Row) {
        let Some(item) = self.rows.get_mut(&row) else { return };
        item.transmitted = true;
        self.expiries.remove(&(item.ends, row));
        item.ends = item.exp.plus(CLOCK_SKEW_MAX);
        self.expiries.insert((item.ends, row));
    }

    /// The coordinator has `row`, which a copy may have reached over `relay`. False if it was past
    /// that already.
    pub(crate) fn accepted(&mut self, row: Row, relay: PathKind) -> bool {
        let Some(item) = self.rows.get(&row) else { return false };
        if item.stage == Stage::Accepted {
            return false;
        }
        self.land(row);
        self.cool(row);
        if let Some(item) = self.rows.get_mut(&row) {
            self.unaccepted_bytes -= item.size;
            item.stage = Stage::Accepted;
            if item.path == Some(PathKind::Direct) {
                item.path = Some(relay);
            }
            if let Some(ready) = self.ready.get_mut(&item.to) {
                ready.remove(&row);
                if ready.is_empty() {
                    self.ready.remove(&item.to);
                }
            }
        }
        true
    }

    /// Whether the coordinator has `row`.
    pub(crate) fn is_accepted(&self, row: Row) -> bool {
        self.rows.get(&row).is_some_and(|item| item.stage == Stage::Accepted)
    }

    /// Every row that the coordinator has.
    pub(crate) fn accepted_rows(&self) -> Vec<Row> {
        let accepted = self.rows.iter().filter(|(_, item)| item.stage == Stage::Accepted);
        accepted.map(|(row, _)| *row).collect()
    }

    /// `row` is to be transmitted again.
    pub(crate) fn give_back(&mut self, row: Row) {
        self.land(row);
        if let Some(item) = self.rows.get_mut(&row) {
            if item.stage == Stage::Accepted {
                self.unaccepted_bytes += item.size;
            }
            item.stage = Stage::Pending;
            self.ready.entry(item.to).or_default().insert(row);
        }
    }

    /// `row` was sealed again; it is to be transmitted.
    pub(crate) fn resealed(&mut self, row: Row, wire: Bytes, env_hash: EnvHash, kid: Kid, ts: UnixMs) {
        // First out of its window, which counted the old size.
        self.give_back(row);
        self.cool(row);
        let Some(item) = self.rows.get_mut(&row) else { return };
        self.by_hash.remove(&item.env_hash);
        self.by_hash.insert(env_hash, row);
        item.env_hash = env_hash;
        item.kid = kid;
        item.ts = ts;
        item.seals += 1;
        self.unaccepted_bytes -= std::mem::take(&mut item.size);
        self.warm(row, wire);
    }

    /// A path is gone: what was in flight on it is pending again.
    pub(crate) fn path_closed(&mut self, via: Via) {
        let rows: Vec<Row> = self.flights.get(&via).into_iter().flatten().map(|(_, row)| *row).collect();
        for row in rows {
            self.give_back(row);
        }
        self.windows.remove(&via);
    }

    /// Since when the oldest row in flight on a path is.
    pub(crate) fn oldest_on(&self, via: Via) -> Option<Monotonic> {
        self.flights.get(&via)?.first().map(|(since, _)| *since)
    }

    /// Since when `row` is in flight on `via`, if it is.
    pub(crate) fn in_flight_since(&self, row: Row, via: Via) -> Option<Monotonic> {
        match self.rows.get(&row)?.stage {
            Stage::InFlight { via: on, since, .. } if on == via => Some(since),
            Stage::InFlight { .. } | Stage::Pending | Stage::Accepted => None,
        }
    }

    /// What is in flight on `via`, to be sent another way too; each row once.
    pub(crate) fn copies_of(&mut self, via: Via) -> Vec<Bytes> {
        let rows: Vec<Row> = self.flights.get(&via).into_iter().flatten().map(|(_, row)| *row).collect();
        rows.into_iter().filter_map(|row| self.copy(row)).collect()
    }

    /// Rows on direct links that nobody has answered for [`LATE`], and their recipients, to be sent
    /// another way too; each once.
    pub(crate) fn late(&mut self, now: Monotonic) -> Vec<(PeerId, Bytes)> {
        let before = now - LATE;
        let links = self.flights.iter().filter(|(via, _)| matches!(via, Via::Link(_)));
        let late = links.flat_map(|(_, rows)| rows.iter().take_while(|(since, _)| *since <= before));
        let rows: Vec<Row> = late.map(|(_, row)| *row).collect();
        let copies = rows.into_iter().filter_map(|row| {
            let to = self.rows.get(&row)?.to;
            Some((to, self.copy(row)?))
        });
        copies.collect()
    }

    /// The uplink is gone, and perhaps the copies with it: each may be made once more.
    pub(crate) fn copies_lost(&mut self) {
        let links = self.flights.iter().filter(|(via, _)| matches!(via, Via::Link(_)));
        for (_, row) in links.flat_map(|(_, rows)| rows) {
            if let Some(Stage::InFlight { copied, .. }) = self.rows.get_mut(row).map(|item| &mut item.stage) {
                *copied = false;
            }
        }
    }

    fn copy(&mut self, row: Row) -> Option<Bytes> {
        let item = self.rows.get_mut(&row)?;
        let Stage::InFlight { copied, .. } = &mut item.stage else { return None };
        if std::mem::replace(copied, true) { None } else { item.wire.clone() }
    }

    /// When [`late`](Self::late) may next name a row.
    pub(crate) fn late_at(&self) -> Option<Monotonic> {
        let uncopied = |(_, row): &&(Monotonic, Row)| {
            matches!(self.rows[row].stage, Stage::InFlight { copied: false, .. })
        };
        let links = self.flights.iter().filter(|(via, _)| matches!(via, Via::Link(_)));
        let oldest = links.filter_map(|(_, rows)| rows.iter().find(uncopied));
        oldest.map(|(since, _)| *since + LATE).min()
    }

    /// Takes a row out of its path's window.
    pub(super) fn land(&mut self, row: Row) {
        let Some(item) = self.rows.get(&row) else { return };
        let Stage::InFlight { via, since, .. } = item.stage else { return };
        if let Some(flights) = self.flights.get_mut(&via) {
            flights.remove(&(since, row));
            if flights.is_empty() {
                self.flights.remove(&via);
            }
        }
        if let Some(window) = self.windows.get_mut(&via) {
            window.messages = window.messages.saturating_sub(1);
            window.bytes = window.bytes.saturating_sub(item.size);
        }
    }

    /// Forgets a row's bytes.
    pub(super) fn cool(&mut self, row: Row) {
        if let Some(item) = self.rows.get_mut(&row)
            && let Some(wire) = item.wire.take()
        {
            self.held_bytes -= wire.len();
        }
    }
}
