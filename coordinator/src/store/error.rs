//! What can go wrong with the store, by who must act.

use std::path::Path;

use crate::server::FAILED;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space. Tell senders to retry; the same batch may succeed later.
    #[error("the disk that holds {path} is full")]
    Full {
        /// The database.
        path: String,
        /// Whether the writes of the batch that [settle](super::Write::settles) were committed from the
        /// reserve; the others were not.
        settled: bool,
    },
    /// The database is damaged. Nothing was changed; the operator restores it from a backup.
    #[error("{path} is damaged ({found}); it was left as it is: restore it from a backup")]
    Corrupt {
        /// The database.
        path: String,
        /// What was seen.
        found: String,
    },
    /// Written by a later version.
    #[error(
        "{path} has schema version {found}, this program knows up to {known}: run a newer peerloom-coordinator"
    )]
    Newer {
        /// The database.
        path: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The coordinator has an identity but its database is gone.
    #[error(
        "{path} is missing although this data directory has a coordinator key: restore it from a backup, or start with an empty data directory"
    )]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// A later process counted its own run in the same database: this one must not write any more.
    #[error(
        "{path} was taken over by another peerloom-coordinator (run {theirs}, this is run {ours}): nothing more is written from here"
    )]
    Fenced {
        /// The database.
        path: String,
        /// The run this process began.
        ours: u64,
        /// The run that the database is in.
        theirs: u64,
    },
    /// A file operation beside the database failed.
    #[error("failed to access {path}")]
    Io {
        /// Which file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// SQLite failed otherwise.
    #[error("database operation on {path} failed")]
    Sql {
        /// The database.
        path: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
}

impl StoreError {
    /// See [`ServeError::exit_code`](crate::server::ServeError::exit_code).
    pub(crate) fn exit_code(&self) -> (u8, &'static str) {
        match self {
            Self::Corrupt { .. } => (9, "damaged"),
            Self::Newer { .. } => (10, "newer"),
            Self::Missing { .. } => (11, "missing"),
            Self::Fenced { .. } => (12, "fenced"),
            Self::Full { .. } | Self::Io { .. } | Self::Sql { .. } => FAILED,
        }
    }

    /// By extended result code, <https://www.sqlite.org/rescode.html>. An I/O error while writing
    /// is treated like a full disk: nothing was acknowledged, and the next batch tries again.
    pub(super) fn of(path: &Path, source: sqlx::Error) -> Self {
        const CORRUPT: u32 = 11;
        const FULL: u32 = 13;
        const NOTADB: u32 = 26;
        /// WRITE, FSYNC, DIR_FSYNC, TRUNCATE, SHMSIZE, SHMMAP.
        const IOERR_WRITING: [u32; 6] = [778, 1034, 1290, 1546, 4874, 5386];
        /// SHORT_READ, CORRUPTFS.
        const IOERR_DAMAGED: [u32; 2] = [522, 8458];
        let path = path.display().to_string();
        let code = source
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<u32>().ok());
        if matches!(source, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) {
            return Self::Corrupt { path, found: source.to_string() };
        }
        let Some(code) = code else { return Self::Sql { path, source } };
        match code & 0xff {
            FULL => Self::Full { path, settled: false },
            CORRUPT | NOTADB => Self::Corrupt { path, found: source.to_string() },
            _ if IOERR_WRITING.contains(&code) => Self::Full { path, settled: false },
            _ if IOERR_DAMAGED.contains(&code) => Self::Corrupt { path, found: source.to_string() },
            _ => Self::Sql { path, source },
        }
    }
}
