//! What is written but not synced, and what a death leaves of it.
//!
//! A commit is a record of several sectors under one checksum: a head, and for every write one of its
//! fields and as many as its long bytes fill. A sync makes it durable. Until then the disk may have written any of its sectors, in any order; which,
//! the seed decides. A store that comes back reads records from the oldest on, up to the first that is
//! not whole. So a commit that was synced survives, and the one under way is there whole or not at all.

use bytes::Bytes;

use crate::chance::Chance;

/// A write as it lies in a record.
pub(crate) trait Sectors {
    /// The bytes that have sectors of their own.
    fn body(&mut self) -> Option<&mut Bytes>;
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// How a store reads its journal after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Up to the first record that is not whole.
    WholeRecords,
    /// A planted fault: of a torn record whatever is there. Sectors that are not read as zeros.
    AnySector,
}

/// The records of one store that wait for a sync.
#[derive(Debug)]
pub(crate) struct Journal<S, W> {
    /// The store as of the last sync, while acted-on records wait.
    synced: Option<S>,
    acted_on: Vec<Vec<W>>,
    chance: Chance,
}

/// What the next process finds.
#[derive(Debug)]
pub(crate) struct Recovered<S, W> {
    /// The store to begin with, where it is not the one the dead process saw.
    pub(crate) synced: Option<S>,
    /// Records to apply that the dead process had acted on.
    pub(crate) acted_on: Vec<Vec<W>>,
    /// The record to apply that was under way.
    pub(crate) under_way: Option<Vec<W>>,
}

impl<S: Clone, W: Clone + Sectors> Journal<S, W> {
    pub(crate) fn new(seed: u64, entity: &str) -> Self {
        Self { synced: None, acted_on: Vec::new(), chance: Chance::new(seed, entity, "surviving sectors") }
    }

    /// A record that is acted on before its sync; `store` is without it.
    pub(crate) fn append(&mut self, store: &S, record: &[W]) {
        self.synced.get_or_insert_with(|| store.clone());
        self.acted_on.push(record.to_vec());
    }

    /// Everything written is durable.
    pub(crate) fn sync(&mut self) {
        self.synced = None;
        self.acted_on.clear();
    }

    /// The process dies while this record is under way, if one is.
    pub(crate) fn recover(&mut self, under_way: Option<Vec<W>>, recovery: Recovery) -> Recovered<S, W> {
        // A chance that is itself drawn makes lost, torn and whole records all common, however many
        // sectors they have.
        let percent = u8::try_from(self.chance.below(101)).expect("at most 100");
        let mut found = Recovered { synced: self.synced.take(), acted_on: Vec::new(), under_way: None };
        for record in std::mem::take(&mut self.acted_on) {
            let (kept, whole) = self.surviving(record, percent, recovery);
            found.acted_on.extend(kept);
            if !whole {
                return found;
            }
        }
        if let Some(record) = under_way {
            found.under_way = self.surviving(record, percent, recovery).0;
        }
        found
    }

    /// What a store takes of a record, and whether it reads on behind it.
    fn surviving(&mut self, record: Vec<W>, percent: u8, recovery: Recovery) -> (Option<Vec<W>>, bool) {
        let head = self.chance.percent(percent);
        let (mut whole, mut kept) = (head, Vec::new());
        for write in &record {
            let (fields, mut torn) = (self.chance.percent(percent), write.clone());
            whole &= fields;
            if let Some(body) = torn.body() {
                let mut read = body.to_vec();
                for sector in read.chunks_mut(SECTOR_BYTES) {
                    let there = self.chance.percent(percent);
                    whole &= there;
                    if !there {
                        sector.fill(0);
                    }
                }
                *body = read.into();
            }
            kept.extend(fields.then_some(torn));
        }
        match recovery {
            Recovery::WholeRecords => (whole.then_some(record), whole),
            Recovery::AnySector => (head.then_some(kept), whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Noted(u32, Bytes);

    impl Sectors for Noted {
        fn body(&mut self) -> Option<&mut Bytes> {
            Some(&mut self.1)
        }
    }

    fn noted(numbers: &[u32]) -> Vec<Noted> {
        numbers.iter().map(|number| Noted(*number, vec![1; 700].into())).collect()
    }

    /// A store that is a number.
    fn died(seed: u64, acted_on: u32, recovery: Recovery) -> Recovered<u32, Noted> {
        let mut journal = Journal::new(seed, "test");
        for record in 0..acted_on {
            journal.append(&99, &noted(&[10 * record, 10 * record + 1]));
        }
        journal.recover(Some(noted(&[1, 2])), recovery)
    }

    #[test]
    fn the_record_under_way_is_there_whole_or_not_at_all() {
        let outcomes = (0..200).map(|seed| died(seed, 0, Recovery::WholeRecords));
        let mut whole = 0;
        for found in outcomes {
            assert_eq!(found.synced, None, "what was synced is not touched");
            if let Some(record) = found.under_way {
                assert_eq!(record, noted(&[1, 2]));
                whole += 1;
            }
        }
        assert!((10..100).contains(&whole), "{whole} of 200 whole");
    }

    #[test]
    fn records_acted_on_before_their_sync_survive_up_to_the_first_torn_one() {
        let mut lengths = [0; 4];
        for seed in 0..200 {
            let found = died(seed, 3, Recovery::WholeRecords);
            assert_eq!(found.synced, Some(99), "the store of before the first of them");
            for (number, record) in (0..).zip(&found.acted_on) {
                assert_eq!(record, &noted(&[10 * number, 10 * number + 1]));
            }
            assert!(found.under_way.is_none() || found.acted_on.len() == 3, "nothing behind a gap");
            lengths[found.acted_on.len()] += 1;
        }
        assert!(lengths.iter().all(|count| *count > 5), "{lengths:?}");
    }

    #[test]
    fn a_sync_leaves_nothing_to_lose() {
        let mut journal = Journal::new(1, "test");
        journal.append(&99, &noted(&[1]));
        journal.sync();
        let found = journal.recover(None, Recovery::WholeRecords);
        assert!(found.synced.is_none() && found.acted_on.is_empty() && found.under_way.is_none());
    }

    #[test]
    fn who_trusts_a_torn_record_finds_part_of_it() {
        let found: Vec<_> =
            (0..200).filter_map(|seed| died(seed, 0, Recovery::AnySector).under_way).collect();
        assert!(found.iter().filter(|kept| kept.len() == 1).count() > 10, "a write is missing");
        let torn = |kept: &&Vec<Noted>| {
            kept.iter().any(|write| write.1[..] == [[1; 512].as_slice(), &[0; 188]].concat())
        };
        assert!(found.iter().filter(torn).count() > 10, "the end of a write is missing");
    }
}
