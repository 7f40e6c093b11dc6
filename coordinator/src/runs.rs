//! Which runs a store has been through: how a node learns whether what it was told is still in it.
//!
//! A store that was put back to an older copy looks like one that was stopped when the copy was made. The
//! nodes know better: each remembers the furthest place it was told of. A run that is not known here came
//! after the copy; one that is known ended here where the copy was made.

use std::collections::BTreeMap;

use peerloom_proto::{RunId, StoreMark};

/// The present run and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Where the store is.
    pub current: StoreMark,
    /// Earlier runs, and the transactions there had been when each was over.
    pub earlier: BTreeMap<RunId, u64>,
}

impl Default for Runs {
    fn default() -> Self {
        Self { current: StoreMark { run: RunId([0; 16]), commit: 0 }, earlier: BTreeMap::new() }
    }
}

impl Runs {
    /// Whether everything up to this place is in the store.
    pub(crate) fn keep(&self, mark: &StoreMark) -> bool {
        if mark.run == self.current.run {
            return mark.commit <= self.current.commit;
        }
        self.earlier.get(&mark.run).is_some_and(|ended| mark.commit <= *ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(run: u8, commit: u64) -> StoreMark {
        StoreMark { run: RunId([run; 16]), commit }
    }

    #[test]
    fn a_store_keeps_what_it_counted_and_nothing_of_runs_it_does_not_know() {
        let runs = Runs { current: mark(3, 90), earlier: BTreeMap::from([(RunId([2; 16]), 50)]) };
        for (kept, mark) in [
            (true, mark(3, 90)),
            // The machine itself was put back, with the process in it.
            (false, mark(3, 91)),
            (true, mark(2, 50)),
            // The copy was made in the middle of that run.
            (false, mark(2, 51)),
            // That run began after the copy, or was forgotten for its age.
            (false, mark(1, 10)),
        ] {
            assert_eq!(runs.keep(&mark), kept, "{mark:?}");
        }
    }
}
