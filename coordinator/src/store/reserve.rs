//! Space kept for the day the disk is full: without it, the very deletes that would free space
//! could not be committed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Size of the reserve file, bytes: a few hundred pages, enough for many transactions of 64 deletes.
const RESERVE_BYTES: usize = 1 << 20;

/// How long after a release, or a failed attempt, the reserve is made again. Sooner would take the
/// space that was just freed.
const RESTORE_EVERY: Duration = Duration::from_secs(10);

/// The file `state.reserve`.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// When it may be made again; none while it exists.
    missing: Option<Instant>,
}

impl Reserve {
    /// Makes the file if it is not there. A disk that is already full is no reason not to start.
    pub(super) fn ensure(dir: &Path) -> Self {
        let path = dir.join("state.reserve");
        let exists = fs::metadata(&path).is_ok_and(|found| found.len() >= RESERVE_BYTES as u64);
        let mut reserve = Self { path, missing: (!exists).then(Instant::now) };
        reserve.restore();
        reserve
    }

    /// Gives the space back to the file system.
    pub(super) fn release(&mut self) {
        if self.missing.is_none() {
            match fs::remove_file(&self.path) {
                Ok(()) => tracing::warn!("Disk full: reserve released so that receipts can be kept."),
                Err(error) => tracing::warn!(%error, "Disk full, and the reserve could not be released."),
            }
        }
        self.missing = Some(Instant::now() + RESTORE_EVERY);
    }

    /// Makes the file again, once it is due and there is space.
    pub(super) fn restore(&mut self) {
        if self.missing.is_some_and(|due| due <= Instant::now()) {
            self.missing = match fill(&self.path) {
                Ok(()) => None,
                Err(error) => {
                    tracing::debug!(%error, "No space for the reserve.");
                    // What was written of it must not hold the space that mail could use.
                    if let Err(error) = fs::remove_file(&self.path) {
                        tracing::debug!(%error, "The partial reserve could not be removed.");
                    }
                    Some(Instant::now() + RESTORE_EVERY)
                }
            };
        }
    }
}

/// Writes zeroes: a sparse file would reserve nothing.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let block = [0; 64 << 10];
    for _ in 0..RESERVE_BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_data()
}
