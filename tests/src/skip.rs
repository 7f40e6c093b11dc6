//! Facts that this machine cannot show.

use std::sync::atomic::{AtomicU32, Ordering};

/// Says loudly that a test proves nothing here, and why. With `PEERLOOM_TESTS_REQUIRED=1`, as CI
/// sets it, that is a failure.
///
/// # Panics
/// When everything is required.
pub fn skip(why: &str) {
    static SKIPPED: AtomicU32 = AtomicU32::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED ({count}): {test}: {why}");
    assert!(std::env::var_os("PEERLOOM_TESTS_REQUIRED").is_none(), "{test} is required here, but: {why}");
}
