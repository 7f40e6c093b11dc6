//! Randomness as an argument: a generator seeded by the host's entropy, or by a scenario's seed.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// ChaCha20 keyed by 32 bytes from the host. The same seed gives the same run.
pub struct Entropy(ChaCha20Rng);

impl Entropy {
    /// From 32 bytes of the host's entropy.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// `N` fresh bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Uniform in `0..bound`, close enough for jitter; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.next_u64() % bound }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy(..)")
    }
}
