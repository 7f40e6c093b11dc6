//! Waiting: polls with a deadline. The only place of the harness that sleeps.

use std::time::{Duration, Instant};

/// Longest wait for something that is bound to happen on a machine that does nothing else.
///
/// Two cores run all tests at once, so this is what a slow moment may cost, not what is normal.
pub const SOON: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Looks until there is something to return.
///
/// # Panics
/// After `within`, with what was awaited and what the last look found.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(found) if started.elapsed() > within => {
                panic!("waited {within:?} for {what}; found {found}")
            }
            Err(_) => pause(LOOK_EVERY),
        }
    }
}

/// Lets time pass where time itself is what a test is about: between kills, past an expiry.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
