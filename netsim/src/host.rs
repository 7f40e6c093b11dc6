//! The hosts: they own clocks, disks and streams around the production machines and decide nothing.
//! Each keeps the order of its daemon: take in, drain, commit, and only then act.

mod act;
mod batch;
mod datagrams;
mod hub;
mod node;
mod planted;
mod proof;

use std::time::Duration;

use peerloom_proto::{Monotonic, Now, UnixMs};

pub(crate) use hub::HubHost;
pub(crate) use node::{Asked, Node};
pub(crate) use proof::Evidence;

/// When every world begins.
pub(crate) const T0: UnixMs = UnixMs(1_800_000_000_000);

/// The clocks of a process that started at `started`, on a machine whose wall clock is off.
fn clocks(now: Duration, started: Duration, ahead_ms: i64) -> Now {
    let right = T0.plus(now);
    let off = Duration::from_millis(ahead_ms.unsigned_abs());
    let wall = if ahead_ms < 0 { right.minus(off) } else { right.plus(off) };
    Now { monotonic: Monotonic::from_origin(now.saturating_sub(started)), wall }
}
