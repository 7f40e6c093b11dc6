//! Randomness of the hub: drawn from one seed that the host gives, so that a run can be repeated.

use peerloom_proto::hash;

/// A deterministic source: the n-th draw is a hash of the seed and n.
pub(crate) struct Draw {
    seed: [u8; 32],
    count: u64,
}

impl Draw {
    pub(crate) const fn new(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// 32 bytes nobody can guess who does not have the seed.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        hash("coordinator-draw", &[&self.seed, &self.count.to_be_bytes()])
    }

    /// A number below `bound`, which is far below 2⁶⁴, so that its bias does not matter.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let bytes = self.bytes();
        let head = bytes.first_chunk().expect("a hash has more than eight bytes");
        u64::from_be_bytes(*head) % bound.max(1)
    }
}

impl std::fmt::Debug for Draw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draw({})", self.count)
    }
}
