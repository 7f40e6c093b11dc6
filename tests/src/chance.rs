//! Randomness that one printed line replays.

use peerloom_proto::Entropy;

/// A generator whose seed is printed when it is made. `PEERLOOM_SEED` chooses the seed.
#[derive(Debug)]
pub struct Chance(Entropy);

impl Chance {
    /// From `PEERLOOM_SEED`, else at random.
    ///
    /// # Panics
    /// When the variable is no number.
    pub fn new() -> Self {
        let seed = match std::env::var("PEERLOOM_SEED") {
            Ok(text) => {
                let parsed =
                    text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
                parsed.unwrap_or_else(|_| panic!("PEERLOOM_SEED is {text:?}; it should be a number"))
            }
            Err(_) => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).expect("the system gives entropy");
                u64::from_le_bytes(bytes)
            }
        };
        eprintln!("replay: PEERLOOM_SEED={seed:#x}");
        let mut whole = [0; 32];
        whole[..8].copy_from_slice(&seed.to_le_bytes());
        Self(Entropy::from_seed(whole))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// Random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(32)).flat_map(|_| self.0.bytes::<32>()).take(count).collect()
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}
