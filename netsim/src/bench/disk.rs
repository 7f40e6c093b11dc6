//! What the disk itself does: no durable figure can be read without it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::stats::{Samples, millis, rate};

/// How long the disk is asked.
const MEASURED_FOR: Duration = Duration::from_millis(700);

/// One page of a write-ahead log and its header, about.
const WRITE_BYTES: usize = 4_096;

/// Appends of one page, each followed by `fdatasync`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Disk {
    /// A second, one after the other.
    pub(crate) fdatasync_per_s: f64,
    /// Median, in milliseconds.
    pub(crate) median_ms: f64,
    /// 99th percentile, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// Measures the file system of `dir`.
pub(crate) fn measure(dir: &Path) -> anyhow::Result<Disk> {
    let path = dir.join("disk");
    let mut file = File::create(&path).with_context(|| format!("failed to write {}", path.display()))?;
    let page = [7; WRITE_BYTES];
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < MEASURED_FOR {
        let since = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        took.push(since.elapsed());
    }
    let elapsed = began.elapsed();
    std::fs::remove_file(&path)?;
    let samples = Samples::new(took);
    Ok(Disk {
        fdatasync_per_s: rate(samples.count(), elapsed),
        median_ms: millis(samples.median()),
        p99_ms: millis(samples.percentile(99)),
    })
}
