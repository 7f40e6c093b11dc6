//! Percentiles, exact: a bench has at most some hundred thousand samples.

use std::time::Duration;

/// Samples in ascending order.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The smallest sample that `percent` of all samples do not exceed; zero if there is none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// In milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A count over a time, a second.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}

/// Processor time a message, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn micros_each(count: usize, took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(millis: &[u64]) -> Samples {
        Samples::new(millis.iter().copied().map(Duration::from_millis).collect())
    }

    #[test]
    fn a_percentile_is_the_smallest_sample_that_so_many_do_not_exceed() {
        let hundred = samples(&(1..=100).rev().collect::<Vec<_>>());
        assert_eq!(hundred.median(), Duration::from_millis(50));
        assert_eq!(hundred.percentile(99), Duration::from_millis(99));
        assert_eq!(hundred.max(), Duration::from_millis(100));
    }

    #[test]
    fn one_slow_sample_of_fifty_is_the_99th_percentile_but_not_the_95th() {
        let mut millis = vec![1; 49];
        millis.push(70);
        assert_eq!(samples(&millis).percentile(99), Duration::from_millis(70));
        assert_eq!(samples(&millis).percentile(95), Duration::from_millis(1));
    }

    #[test]
    fn no_samples_have_no_percentiles() {
        assert_eq!(samples(&[]).percentile(99), Duration::ZERO);
        assert_eq!(samples(&[]).max(), Duration::ZERO);
    }

    #[test]
    fn a_rate_is_a_second() {
        assert!((rate(500, Duration::from_millis(250)) - 2_000.0).abs() < 1e-6);
    }
}
