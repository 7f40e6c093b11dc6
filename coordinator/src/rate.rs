//! Token buckets, and the throttles per address that are made of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use peerloom_proto::Monotonic;

/// Addresses one throttle remembers. Beyond it a stranger that is not yet known is refused until
/// idle entries are forgotten: an attacker with that many addresses must not cost memory too.
const ADDRESSES_MAX: usize = 65_536;

/// How much of something is allowed: a steady rate, and what may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Tokens that come back each second. Zero lifts the limit.
    pub per_second: f64,
    /// Tokens there are at most.
    pub burst: f64,
}

impl Allowance {
    /// `per_second` and two seconds' worth at once; zero lifts the limit.
    pub fn sustained(per_second: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let per_second = per_second as f64;
        Self { per_second, burst: per_second * 2.0 }
    }

    fn unlimited(&self) -> bool {
        self.per_second <= 0.0
    }
}

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Monotonic,
}

impl Bucket {
    pub(crate) fn full(allowance: &Allowance, now: Monotonic) -> Self {
        Self { tokens: allowance.burst, at: now }
    }

    /// How long until `cost` is there; zero if it is there.
    ///
    /// A cost above the whole burst is let through by a full bucket, which it leaves in debt.
    pub(crate) fn wait(&mut self, allowance: &Allowance, now: Monotonic, cost: f64) -> Duration {
        if allowance.unlimited() {
            return Duration::ZERO;
        }
        let back = now.since(self.at).as_secs_f64() * allowance.per_second;
        self.tokens = (self.tokens + back).min(allowance.burst);
        self.at = now;
        let missing = cost.min(allowance.burst) - self.tokens;
        if missing <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(missing / allowance.per_second) }
    }

    /// Takes `cost`, which [`wait`](Self::wait) has just said is there.
    pub(crate) fn take(&mut self, allowance: &Allowance, cost: f64) {
        if !allowance.unlimited() {
            self.tokens -= cost;
        }
    }

    fn is_full(&self, allowance: &Allowance, now: Monotonic) -> bool {
        self.tokens + now.since(self.at).as_secs_f64() * allowance.per_second >= allowance.burst
    }
}

/// One bucket an address. An IPv6 customer has a /64 at least, so that counts as one address.
#[derive(Debug)]
pub(crate) struct Throttle {
    allowance: Allowance,
    buckets: BTreeMap<IpAddr, Bucket>,
}

impl Throttle {
    pub(crate) const fn new(allowance: Allowance) -> Self {
        Self { allowance, buckets: BTreeMap::new() }
    }

    /// Takes one token of `addr`.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn admit(&mut self, addr: IpAddr, now: Monotonic) -> Result<(), Duration> {
        if self.allowance.unlimited() {
            return Ok(());
        }
        let addr = site(addr);
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&addr) {
            self.forget_idle(now);
            if self.buckets.len() >= ADDRESSES_MAX {
                return Err(Duration::from_secs(60));
            }
        }
        let bucket = self.buckets.entry(addr).or_insert_with(|| Bucket::full(&self.allowance, now));
        let wait = bucket.wait(&self.allowance, now, 1.0);
        if !wait.is_zero() {
            return Err(wait);
        }
        bucket.take(&self.allowance, 1.0);
        Ok(())
    }

    /// Drops the buckets that are full again: they say nothing.
    pub(crate) fn forget_idle(&mut self, now: Monotonic) {
        self.buckets.retain(|_, bucket| !bucket.is_full(&self.allowance, now));
    }
}

fn site(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_burst_is_let_through_and_the_next_waits_for_its_token() {
        let mut throttle = Throttle::new(Allowance { per_second: 0.1, burst: 3.0 });
        let addr = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(throttle.admit(addr, at(0)), Ok(()));
        }
        assert_eq!(throttle.admit(addr, at(0)), Err(Duration::from_secs(10)));
        assert_eq!(
            throttle.admit("192.0.2.2".parse().unwrap(), at(0)),
            Ok(()),
            "another address is not affected"
        );
        assert_eq!(throttle.admit(addr, at(10)), Ok(()));
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_bucket() {
        let mut throttle = Throttle::new(Allowance { per_second: 1.0, burst: 1.0 });
        assert!(throttle.admit("2001:db8::1".parse().unwrap(), at(0)).is_ok());
        assert!(throttle.admit("2001:db8::2".parse().unwrap(), at(0)).is_err());
        assert!(throttle.admit("2001:db8:0:1::2".parse().unwrap(), at(0)).is_ok());
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut throttle = Throttle::new(Allowance { per_second: 1.0, burst: 2.0 });
        assert!(throttle.admit("192.0.2.1".parse().unwrap(), at(0)).is_ok());
        throttle.forget_idle(at(0));
        assert_eq!(throttle.buckets.len(), 1);
        throttle.forget_idle(at(2));
        assert!(throttle.buckets.is_empty());
    }

    #[test]
    fn a_cost_above_the_burst_passes_once_and_leaves_a_debt() {
        let allowance = Allowance { per_second: 10.0, burst: 20.0 };
        let mut bucket = Bucket::full(&allowance, at(0));
        assert!(bucket.wait(&allowance, at(0), 50.0).is_zero());
        bucket.take(&allowance, 50.0);
        assert_eq!(bucket.wait(&allowance, at(0), 1.0), Duration::from_secs_f64(3.1));
    }
}
