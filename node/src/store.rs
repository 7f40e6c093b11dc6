//! One mesh's store: SQLite in WAL mode with `synchronous=FULL`, so that what [`Writer::commit`]
//! returned for is on disk.
//!
//! 1. [`Store::create`]   a new file with the log so far; never over an existing one
//! 2. [`Store::open`]     looks at the file before touching it, migrates it, gives the three parts
//! 3. [`Loaded`]          what the machine is rebuilt from
//! 4. [`Writer`]          the one writing connection; belongs to the engine
//! 5. [`Reader`]          reading connections for the local API

mod check;
mod columns;
mod load;
mod reader;
mod rows;
mod writer;

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use peerloom_proto::endpoint::{HeldPrekey, Write};
use peerloom_proto::{BoxSecretKey, InviteId, InviteLookup, UnixMs};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

pub use load::Loaded;
pub use reader::Reader;
pub use writer::Writer;

use crate::keystore;

/// Why the store cannot be used, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no file.
    #[error("the file is missing; restore it from a backup")]
    Missing,
    /// There is a file already.
    #[error("the file exists already")]
    Exists,
    /// The file is not what was written. It was not changed; a copy of it may be worth keeping.
    #[error("the file is damaged ({what}); it was left as it is: move it away and restore a backup")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// A later version of the program wrote it.
    #[error("the file has schema {found}, this program knows up to {known}; use the newer program")]
    Newer {
        /// Schema version of the file.
        found: u32,
        /// Newest schema version this program knows.
        known: u32,
    },
    /// No space left. What was asked is not done, nothing else is lost.
    #[error("the disk is full")]
    Full,
    /// The file system said no.
    #[error("the file cannot be used")]
    Io(#[source] io::Error),
    /// The database said no.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        match code {
            Some(SQLITE_IOERR_SHMSIZE) => Self::Full,
            Some(code) if code & 0xff == SQLITE_FULL => Self::Full,
            Some(code) if matches!(code & 0xff, SQLITE_CORRUPT | SQLITE_NOTADB) => {
                Self::Corrupt { what: error.to_string() }
            }
            Some(_) | None => Self::Database(error),
        }
    }
}

// Result codes, https://sqlite.org/rescode.html. The extended one is a WAL index that cannot grow.
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_FULL: u32 = 13;
const SQLITE_NOTADB: u32 = 26;
const SQLITE_IOERR_SHMSIZE: u32 = 4874;

/// A change that the node makes beside the machine's own. It commits with the batch it came in.
#[derive(Clone, Debug)]
pub enum LocalWrite {
    /// A reader's cursor moved.
    Cursor {
        /// Its name.
        name: String,
        /// The last position it passed.
        position: u64,
    },
    /// An invite was made.
    Invite {
        /// The capability's id.
        id: InviteId,
        /// What the joiner asks for.
        lookup: InviteLookup,
        /// The address given to the joiner.
        url: String,
        /// When it ends.
        exp: UnixMs,
        /// Admissions it serves.
        uses: u64,
    },
    /// An invite was cancelled.
    InviteGone(InviteId),
}

/// A store file.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Makes a store that holds the mesh log so far and the secret of the x25519 key in this member's
    /// log entry. It is on disk when this returns.
    pub async fn create(path: &Path, entries: &[Bytes], prekey: &BoxSecretKey) -> Result<(), StoreError> {
        if path.exists() {
            return Err(StoreError::Exists);
        }
        // SQLite gives the WAL the mode of the file it finds.
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.map_err(StoreError::Io)?;
        let mut conn = options(path).connect().await?;
        check::migrate(&mut conn).await?;
        let mut writer = Writer::new(conn).await?;
        writer.found(*keystore::random::<8>(), *keystore::random::<32>()).await?;
        let log =
            entries.iter().zip(0_u64..).map(|(entry, index)| Write::Entry { index, entry: entry.clone() });
        let first = HeldPrekey {
            kid: prekey.public().kid(),
            secret: prekey.clone(),
            signed: None,
            // It ends when the member's entry is replaced, which the log says and not the clock.
            exp: UnixMs(u64::MAX),
        };
        let writes: Vec<Write> = log.chain([Write::Prekey(first)]).collect();
        writer.commit(&writes, &[], UnixMs(0)).await?;
        writer.close().await
    }

    /// Opens a store that is there, whole, and not newer than this program. Older ones are migrated
    /// in one transaction.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`] and [`StoreError::Newer`] leave the file as it is.
    pub async fn open(path: &Path) -> Result<(Writer, Reader, Loaded), StoreError> {
        check::examine(path).await?;
        let mut conn = options(path).connect().await?;
        check::migrate(&mut conn).await?;
        let loaded = Loaded::read(&mut conn).await?;
        let writer = Writer::new(conn).await?;
        let reader = Reader::open(path).await?;
        Ok((writer, reader, loaded))
    }
}

impl Writer {
    /// Opens the writing connection anew, after a failure: nothing of the old one is trusted.
    pub async fn reopen(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let mut conn = options(path).connect().await?;
        let loaded = Loaded::read(&mut conn).await?;
        Ok((Self::new(conn).await?, loaded))
    }
}

/// How the one writing connection is opened.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", WRITER_CACHE_KIB)
        .pragma("wal_autocheckpoint", WAL_PAGES_MAX)
        .pragma("journal_size_limit", WAL_BYTES_KEPT)
        .pragma("temp_store", "memory")
        .statement_cache_capacity(STATEMENTS_CACHED)
        .disable_statement_logging()
}

/// How connections that only read are opened.
fn reading_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

async fn close(conn: SqliteConnection) -> Result<(), StoreError> {
    conn.close().await.map_err(StoreError::from)
}

/// Only a checkpoint of another connection can be in the way, and that for milliseconds.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Page cache of the writing connection: 16 MiB hold the two id indexes of about 300,000 messages.
/// Negative means KiB, https://sqlite.org/pragma.html#pragma_cache_size.
const WRITER_CACHE_KIB: &str = "-16384";

/// WAL pages after which a commit copies them into the database: 4 MiB. That commit then takes about
/// 5 ms longer; with 32 MiB it would be 30 ms, which shows in the 99th percentile of a delivery, and
/// bulk writing would gain a fifth.
const WAL_PAGES_MAX: &str = "1000";

/// What the WAL file is cut back to after a checkpoint, bytes.
const WAL_BYTES_KEPT: &str = "16777216";

/// Ten statements in five sizes each, and the single ones.
const STATEMENTS_CACHED: usize = 128;

#[cfg(test)]
mod tests;
