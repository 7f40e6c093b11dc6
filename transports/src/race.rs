//! Several attempts at one thing, of which the first success counts.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

/// Runs the attempts side by side, each started `stagger` after the one before or as soon as one
/// failed. The first success drops the others; otherwise all errors, in the order they came.
pub(crate) async fn first_success<A, T, E>(
    attempts: impl IntoIterator<Item = A>,
    stagger: Duration,
) -> Result<T, Vec<E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut running = FuturesUnordered::new();
    let mut errors = Vec::new();
    for attempt in attempts {
        running.push(attempt);
        match timeout(stagger, running.next()).await {
            Ok(Some(Ok(won))) => return Ok(won),
            Ok(Some(Err(error))) => errors.push(error),
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(finished) = running.next().await {
        match finished {
            Ok(won) => return Ok(won),
            Err(error) => errors.push(error),
        }
    }
    Err(errors)
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    async fn answer(after_ms: u64, outcome: Result<u8, u8>) -> Result<u8, u8> {
        sleep(Duration::from_millis(after_ms)).await;
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_first_attempt_delays_the_second_by_the_stagger_only() {
        let started = Instant::now();
        let won = first_success([answer(10_000, Ok(1)), answer(5, Ok(2))], Duration::from_millis(20)).await;
        assert_eq!(won, Ok(2));
        assert_eq!(started.elapsed(), Duration::from_millis(25));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once_and_all_failures_are_reported() {
        let started = Instant::now();
        let lost = first_success([answer(1, Err(1)), answer(1, Err(2))], Duration::from_secs(9)).await;
        assert_eq!(lost, Err(vec![1, 2]));
        assert_eq!(started.elapsed(), Duration::from_millis(2));
    }
}
