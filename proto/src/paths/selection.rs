//! Which proven path is better: by tier, then by round trip; and when a path in use is worth leaving.

use std::time::Duration;

use super::candidate::Tier;

/// What a path is worth, by proof; the best is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) tier: Tier,
    pub(crate) rtt: Duration,
}

impl Rank {
    /// Whether it is worth leaving `other` for this.
    pub(crate) fn beats(self, other: Self) -> bool {
        let gain = RTT_GAIN.max(other.rtt / RTT_GAIN_PART);
        self.tier < other.tier || (self.tier == other.tier && self.rtt + gain < other.rtt)
    }
}

/// A shorter round trip must be shorter by this, and by a tenth, or paths would flap with the weather.
const RTT_GAIN: Duration = Duration::from_millis(5);
const RTT_GAIN_PART: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(tier: Tier, rtt_ms: u64) -> Rank {
        Rank { tier, rtt: Duration::from_millis(rtt_ms) }
    }

    #[test]
    fn a_better_tier_wins_at_any_round_trip_and_a_worse_one_never() {
        assert!(rank(Tier::Lan, 90).beats(rank(Tier::V4, 2)));
        assert!(!rank(Tier::V4, 2).beats(rank(Tier::V6, 90)));
    }

    #[test]
    fn within_a_tier_a_trifle_changes_nothing() {
        assert!(!rank(Tier::V4, 6).beats(rank(Tier::V4, 10)));
        assert!(rank(Tier::V4, 4).beats(rank(Tier::V4, 10)));
        assert!(!rank(Tier::V4, 185).beats(rank(Tier::V4, 200)));
        assert!(rank(Tier::V4, 170).beats(rank(Tier::V4, 200)));
    }
}
