//! Randomness of the world: every use draws from a stream of its own, derived from seed, entity and
//! purpose, so that one more draw somewhere shifts nothing elsewhere.

use std::time::Duration;

use peerloom_proto::{Entropy, sha256};

/// 32 bytes for one purpose of one entity.
pub(crate) fn seed_for(seed: u64, entity: &str, purpose: &str) -> [u8; 32] {
    sha256(format!("{seed:016x}/{entity}/{purpose}").as_bytes())
}

/// A ChaCha stream for one purpose of one entity.
#[derive(Debug)]
pub(crate) struct Chance(Entropy);

impl Chance {
    pub(crate) fn new(seed: u64, entity: &str, purpose: &str) -> Self {
        Self(Entropy::from_seed(seed_for(seed, entity, purpose)))
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).expect("below a usize")
    }

    /// Uniform from `low` to `high`, in microseconds.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros();
        let span = u64::try_from(span).expect("spans of a run fit 64 bits of microseconds");
        low + Duration::from_micros(self.0.below(span + 1))
    }

    /// Random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.0.bytes()
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u8) -> bool {
        self.0.below(100) < u64::from(percent)
    }

    /// True in so many of a hundred cases, to the ten thousandth of a percent.
    pub(crate) fn happens(&mut self, percent: f64) -> bool {
        self.share() * 100.0 < percent
    }

    /// Uniform from 0 to below 1, in millionths.
    pub(crate) fn share(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
        let drawn = self.0.below(1_000_000) as f64;
        drawn / 1_000_000.0
    }
}
