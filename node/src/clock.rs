//! The only reader of clocks in the node.
//!
//! Monotonic time is CLOCK_BOOTTIME, which goes on while the machine sleeps, so that leases and
//! retries that ended during a suspend are over on waking. Where it is missing, CLOCK_MONOTONIC.
//!
//! `PEERLOOM_CLOCK_OFFSET_MS`, a signed number of milliseconds, moves the wall clock of a process. It
//! is for tests of what a node does when its clock is wrong, and deliberately no setting.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peerloom_proto::{Monotonic, Now, UnixMs};

/// Both clocks of this process. Cheap to copy; every copy counts from the same origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Duration,
}

impl Clock {
    /// A clock whose monotonic time begins at zero.
    pub fn start() -> Self {
        Self { origin: since_boot() }
    }

    /// Both clocks, read together.
    pub fn now(&self) -> Now {
        let monotonic = Monotonic::from_origin(since_boot().saturating_sub(self.origin));
        Now { monotonic, wall: wall() }
    }
}

/// How long this machine has slept since it was started; zero where the system does not say.
pub(crate) fn slept() -> Duration {
    since_boot().saturating_sub(elapsed(rustix::time::ClockId::Monotonic))
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    elapsed(rustix::time::ClockId::Boottime)
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    elapsed(rustix::time::ClockId::Monotonic)
}

fn elapsed(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}

#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn wall() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let real = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    UnixMs(real.saturating_add_signed(offset_ms()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "no setting: whoever moves a clock on purpose says so by variable only"
)]
fn offset_ms() -> i64 {
    static OFFSET_MS: OnceLock<i64> = OnceLock::new();
    *OFFSET_MS.get_or_init(|| {
        let text = std::env::var("PEERLOOM_CLOCK_OFFSET_MS").unwrap_or_default();
        text.parse().unwrap_or(0)
    })
}

/// The instant `after` from here on, for sockets, whose time-outs do not count a suspend.
#[expect(clippy::disallowed_methods, reason = "the one place where the runtime's clock is read")]
pub(crate) fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}
