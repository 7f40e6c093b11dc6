//! A disk that fills up. Mail is refused while there is still room for what frees space: deletes
//! need the write-ahead log to grow, and a checkpoint needs the database to grow before the log
//! can start over. For the day somebody else takes the last byte, a small file is kept that can be
//! given up.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

/// Size of the reserve file, bytes: as much as usually waits in the log for a checkpoint, so that
/// the log can be emptied, and then reused, on a disk without a free byte.
const RESERVE_BYTES: u64 = 8 << 20;

/// Bytes left to deletes and receipts, beside the reserve, when mail is refused.
const HEADROOM_BYTES: u64 = 1 << 20;

/// How long after a release, or a failed attempt, the reserve is made again. Sooner would take the
/// space that was just freed.
const RESTORE_EVERY: Duration = Duration::from_secs(10);

/// The file system that holds the database.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    database: PathBuf,
}

impl Disk {
    pub(super) fn of(database: &Path) -> Self {
        Self { database: database.to_owned() }
    }

    /// Whether `bytes` of mail fit beside a whole log that still has to move into the database.
    /// Answered by two system calls; the usual case.
    pub(super) fn is_ample(&self, bytes: u64) -> bool {
        let log = self.log_bytes();
        self.free().is_none_or(|free| free >= log + 2 * cost(bytes) + HEADROOM_BYTES)
    }

    /// Length of the write-ahead log's file.
    pub(super) fn log_bytes(&self) -> u64 {
        fs::metadata(self.database.with_extension("db-wal")).map_or(0, |log| log.len())
    }

    /// Whether `bytes` of mail fit once the log is empty, pages that are free inside the database
    /// counted in.
    pub(super) async fn has_room(
        &self,
        conn: &mut SqliteConnection,
        bytes: u64,
    ) -> Result<bool, sqlx::Error> {
        let pages = number(conn, "PRAGMA freelist_count").await? * number(conn, "PRAGMA page_size").await?;
        let growth = cost(bytes).saturating_sub(pages);
        Ok(self.free().is_none_or(|free| free >= cost(bytes) + growth + HEADROOM_BYTES))
    }

    /// Bytes an ordinary user may still write; none if the file system does not say.
    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.database.parent()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Bytes of log that bytes of mail need: each changed page is written whole.
fn cost(bytes: u64) -> u64 {
    2 * bytes + (256 << 10)
}

async fn number(conn: &mut SqliteConnection, sql: &'static str) -> Result<u64, sqlx::Error> {
    let number: i64 = sqlx::query(sql).fetch_one(conn).await?.try_get(0)?;
    Ok(number.unsigned_abs())
}

/// The file `state.reserve`.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    disk: Disk,
    /// When it may be made again; none while it exists.
    missing: Option<Instant>,
}

impl Reserve {
    /// Makes the file if it is not there. A disk that is already full is no reason not to start.
    pub(super) fn ensure(disk: Disk) -> Self {
        let path = disk.database.with_extension("reserve");
        let exists = fs::metadata(&path).is_ok_and(|found| found.len() >= RESERVE_BYTES);
        let mut reserve = Self { path, disk, missing: (!exists).then(Instant::now) };
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

    /// Makes the file again, once it is due and there is ample space.
    pub(super) fn restore(&mut self) {
        if self.missing.is_some_and(|due| due <= Instant::now()) {
            let ample = self.disk.free().is_none_or(|free| free >= 2 * RESERVE_BYTES);
            let filled = if ample { fill(&self.path) } else { Err(io::ErrorKind::StorageFull.into()) };
            self.missing = match filled {
                Ok(()) => None,
                Err(error) => {
                    tracing::debug!(%error, "No space for the reserve.");
                    // What was written of it must not hold the space that mail could use.
                    if let Err(error) = fs::remove_file(&self.path) {
                        tracing::debug!(%error, "There was no part of a reserve to remove.");
                    }
                    Some(Instant::now() + RESTORE_EVERY)
                }
            };
        }
    }
}

/// Allocates blocks, by writing them where the file system cannot: a sparse file would reserve nothing.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES).is_ok() {
        return Ok(());
    }
    let block = [0; 64 << 10];
    for _ in 0..RESERVE_BYTES / block.len() as u64 {
        file.write_all(&block)?;
    }
    Ok(())
}
