//! Envelopes put lately, so that a retry is acknowledged again and costs nothing.
//!
//! Bounded: the oldest is forgotten first. A forgotten one that is put again is queued a second
//! time, and its recipient, who remembers for longer, receipts both.

use std::collections::{BTreeMap, VecDeque};

use peerloom_proto::{EnvHash, MeshId, PeerId};

/// Envelopes remembered: about a minute at a thousand a second, five megabytes.
const RECENT_MAX: usize = 65_536;

/// How far an envelope got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its row is not durable yet.
    Writing,
    /// Its row is durable, or its recipient receipted it.
    Safe,
}

/// What is remembered of one envelope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecentPut {
    pub(crate) mesh: MeshId,
    pub(crate) to: PeerId,
    pub(crate) seq: u64,
    pub(crate) progress: Progress,
}

#[derive(Debug, Default)]
pub(crate) struct Recent {
    puts: BTreeMap<EnvHash, RecentPut>,
    /// Hash and claim: a hash that was forgotten and put again has an older entry here too.
    order: VecDeque<(EnvHash, u64)>,
}

impl Recent {
    pub(crate) fn get(&self, env_hash: &EnvHash) -> Option<&RecentPut> {
        self.puts.get(env_hash)
    }

    pub(crate) fn insert(&mut self, env_hash: EnvHash, put: RecentPut) {
        self.order.push_back((env_hash, put.seq));
        self.puts.insert(env_hash, put);
        while self.order.len() > RECENT_MAX {
            let Some((oldest, seq)) = self.order.pop_front() else { break };
            if self.puts.get(&oldest).is_some_and(|put| put.seq == seq) {
                self.puts.remove(&oldest);
            }
        }
    }

    /// Notes that the row of `seq` is durable or receipted.
    pub(crate) fn safe(&mut self, env_hash: &EnvHash, seq: u64) {
        if let Some(put) = self.puts.get_mut(env_hash).filter(|put| put.seq == seq) {
            put.progress = Progress::Safe;
        }
    }

    /// Forgets a put that came to nothing, so that a retry is taken as new.
    pub(crate) fn forget(&mut self, env_hash: &EnvHash) {
        self.puts.remove(env_hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(seq: u64) -> RecentPut {
        RecentPut { mesh: MeshId([1; 32]), to: PeerId([2; 32]), seq, progress: Progress::Writing }
    }

    fn named(number: u64) -> EnvHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        EnvHash(hash)
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut recent = Recent::default();
        for number in 0..=RECENT_MAX as u64 {
            recent.insert(named(number), put(number));
        }
        assert!(recent.get(&named(0)).is_none());
        assert!(recent.get(&named(1)).is_some());
        assert_eq!(recent.puts.len(), RECENT_MAX);
    }

    #[test]
    fn a_hash_put_again_outlives_its_first_entry() {
        let mut recent = Recent::default();
        recent.insert(named(0), put(1));
        recent.forget(&named(0));
        for number in 1..RECENT_MAX as u64 {
            recent.insert(named(number), put(number + 1));
        }
        recent.insert(named(0), put(900_000));
        assert_eq!(recent.get(&named(0)).map(|put| put.seq), Some(900_000));
    }
}
