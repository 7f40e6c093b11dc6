//! What the coordinator keeps: one SQLite database, `state.db`, in the data directory.
//!
//! 1. [`open`](Store::open)     looks before it touches: a damaged, newer or missing database is refused as it is
//! 2. [`load`](Store::load)     what the hub must know at start, answered from indexes
//! 3. [`commit`](Store::commit) one batch, one transaction, one fsync; the only way to write
//! 4. [`Reader`]                mail, log, prekeys and invites, on connections of their own
//! 5. [`close`](Store::close)   folds the write-ahead log in and notes that the run ended well
//!
//! WAL with `synchronous=FULL`: when [`commit`](Store::commit) returns, the batch survives a power cut.
//! Checkpoints happen beside the writer, so that no commit waits for one. When the disk is full, the
//! space of a reserve file lets deletes and receipts through while new mail is refused.

mod checkpoint;
mod open;
mod reads;
mod reserve;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use peerloom_proto::{EnvHash, InviteLookup, MeshId, PeerId, Signature, UnixMs};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use crate::server::FAILED;
use checkpoint::Checkpointer;
pub use reads::{InviteRow, Reader};
use reserve::Reserve;

/// Claims of one run: the n-th run allocates from `n << RUN_SEQ_BITS` on, so no claim is ever
/// used twice, not even one whose row never reached the disk. A trillion messages a run, eight
/// million runs before a claim leaves the 63 bits that CBOR statements allow.
const RUN_SEQ_BITS: u32 = 40;

/// What stands behind a queued item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MailKind {
    /// A sealed envelope.
    Envelope = 0,
    /// An encoded receipt statement with its signature, for the sender it is addressed to.
    Receipt = 1,
    /// A notice to the sender that its envelope ended unread; `env_hash` names it.
    Expired = 2,
}

/// One queued item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailRow {
    /// Claim id, allocated by the hub from [`Snapshot::next_seq`] on; grows for the life of the database.
    pub seq: u64,
    /// Which mesh.
    pub mesh: MeshId,
    /// Whose queue.
    pub to: PeerId,
    /// Who sent it.
    pub from: PeerId,
    /// What it is.
    pub kind: MailKind,
    /// The envelope it is or speaks of; zero for receipts.
    pub env_hash: EnvHash,
    /// Higher is claimed first.
    pub priority: u8,
    /// When it is worthless.
    pub exp: UnixMs,
    /// The envelope, or the encoded receipt; empty for notices.
    pub bytes: Bytes,
}

/// One change. A batch applies in this order: everything small as listed, then all `PutMail`, then
/// all `DeleteMail`, then all `DropQueue`.
#[derive(Clone, Debug)]
pub enum Write {
    /// A mesh begins; its log follows as [`Write::LogAppend`].
    MeshCreate {
        /// Which.
        mesh: MeshId,
    },
    /// A sequenced log entry.
    LogAppend {
        /// Which mesh.
        mesh: MeshId,
        /// Its index; taken twice is an error, never an overwrite.
        index: u64,
        /// The whole wire entry.
        entry: Bytes,
    },
    /// Queues an item.
    PutMail(MailRow),
    /// Removes an item of this recipient. Names by primary key; what is not there is no error.
    DeleteMail {
        /// Which.
        seq: u64,
        /// In which mesh.
        mesh: MeshId,
        /// From whose queue: a claim of another's queue deletes nothing.
        to: PeerId,
        /// When given, the row must also hold this envelope.
        env_hash: Option<EnvHash>,
    },
    /// Sets a member's current prekey.
    PutPrekey {
        /// Which mesh.
        mesh: MeshId,
        /// Whose.
        member: PeerId,
        /// When it ends.
        exp: UnixMs,
        /// The prekey statement.
        stmt: Bytes,
        /// Its signature.
        sig: Signature,
    },
    /// Deposits an invite blob.
    PutInvite {
        /// Which mesh.
        mesh: MeshId,
        /// What the joiner asks for.
        lookup: InviteLookup,
        /// Who may withdraw it.
        owner: PeerId,
        /// nonce ‖ secretbox.
        blob: Bytes,
        /// When it may be forgotten.
        exp: UnixMs,
        /// Admissions it still serves.
        uses_left: u32,
    },
    /// Forgets an invite.
    DeleteInvite {
        /// Which.
        lookup: InviteLookup,
    },
    /// Takes one use; the last one forgets the invite.
    UseInvite {
        /// Which.
        lookup: InviteLookup,
    },
    /// Empties the queue of a revoked member.
    DropQueue {
        /// In which mesh.
        mesh: MeshId,
        /// Whose.
        to: PeerId,
    },
}

impl Write {
    /// Whether this may use the reserve when the disk is full: it frees space, or it settles mail
    /// whose sender would otherwise wait for a receipt that nobody sends again.
    pub fn settles(&self) -> bool {
        match self {
            Self::DeleteMail { .. } | Self::DeleteInvite { .. } | Self::UseInvite { .. } | Self::DropQueue { .. } => {
                true
            }
            Self::PutMail(row) => match row.kind {
                MailKind::Receipt | MailKind::Expired => true,
                MailKind::Envelope => false,
            },
            Self::MeshCreate { .. } | Self::LogAppend { .. } | Self::PutPrekey { .. } | Self::PutInvite { .. } => {
                false
            }
        }
    }
}

/// How full one queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// Which mesh.
    pub mesh: MeshId,
    /// Whose.
    pub to: PeerId,
    /// Items of every kind.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What the hub must know before the first input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The first claim id of this run.
    pub next_seq: u64,
    /// Queues that hold something.
    pub queues: Vec<QueueDepth>,
    /// Every mesh.
    pub meshes: Vec<MeshId>,
    /// Every invite; blobs stay on disk until they are asked for.
    pub invites: Vec<InviteRow>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space. Tell senders to retry; the same batch may succeed later.
    #[error("the disk that holds {path} is full")]
    Full {
        /// The database.
        path: String,
        /// Whether the writes of the batch that [settle](Write::settles) were committed from the
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
    #[error("{path} has schema version {found}, this program knows up to {known}: run a newer peerloom-coordinator")]
    Newer {
        /// The database.
        path: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The coordinator has an identity but its database is gone.
    #[error("{path} is missing although this data directory has a coordinator key: restore it from a backup, or start with an empty data directory")]
    Missing {
        /// Where it should be.
        path: String,
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
            Self::Full { .. } | Self::Io { .. } | Self::Sql { .. } => FAILED,
        }
    }

    /// By extended result code, <https://www.sqlite.org/rescode.html>. An I/O error while writing
    /// is treated like a full disk: nothing was acknowledged, and the next batch tries again.
    fn of(path: &Path, source: sqlx::Error) -> Self {
        const CORRUPT: u32 = 11;
        const FULL: u32 = 13;
        const NOTADB: u32 = 26;
        /// WRITE, FSYNC, DIR_FSYNC, TRUNCATE, SHMSIZE, SHMMAP.
        const IOERR_WRITING: [u32; 6] = [778, 1034, 1290, 1546, 4874, 5386];
        /// SHORT_READ, CORRUPTFS.
        const IOERR_DAMAGED: [u32; 2] = [522, 8458];
        let path = path.display().to_string();
        let code = source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
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

/// The writer. One exists per data directory; it is used from one place.
#[derive(Debug)]
pub struct Store {
    path: std::path::PathBuf,
    writer: SqliteConnection,
    reader: Reader,
    checkpointer: Checkpointer,
    reserve: Reserve,
    health: Health,
    queues: HashMap<(MeshId, PeerId), i64>,
    run: u64,
}

impl Store {
    /// Opens `state.db` in `dir`, or makes it when `identity` says that none can exist yet.
    ///
    /// Must be called within a tokio runtime, which then also runs the checkpoints.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Newer`] and [`StoreError::Missing`] leave every byte
    /// of the database as it was.
    pub async fn open(dir: &Path, identity: Identity) -> Result<Self, StoreError> {
        open::open(dir, identity).await
    }

    /// The readers' side: cheap to clone, usable from anywhere.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Whether any mesh names this coordinator.
    pub async fn serves_meshes(&mut self) -> Result<ServesMeshes, StoreError> {
        let first = sqlx::query("SELECT 1 FROM mesh LIMIT 1").fetch_optional(&mut self.writer).await;
        match first.map_err(|source| StoreError::of(&self.path, source))? {
            Some(_) => Ok(ServesMeshes::Some),
            None => Ok(ServesMeshes::None),
        }
    }

    /// What the hub must know at start.
    pub async fn load(&mut self) -> Result<Snapshot, StoreError> {
        let next_seq = self.run << RUN_SEQ_BITS;
        self.reader.snapshot(next_seq).await
    }

    /// Makes a batch durable: all of it, or (with an error) none of it, except as
    /// [`StoreError::Full`] says.
    ///
    /// Not cancel safe: let it finish.
    pub async fn commit(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        match self.transact(batch.iter()).await {
            Ok(()) => {
                self.health.set(Writable::Yes);
                self.reserve.restore();
                self.checkpointer.written(batch.iter().map(write::weight).sum());
                Ok(())
            }
            Err(StoreError::Full { path, .. }) => {
                self.health.set(Writable::No);
                let settled = self.commit_settling(batch).await;
                self.checkpointer.recover();
                Err(StoreError::Full { path, settled })
            }
            Err(error) => {
                self.health.set(Writable::No);
                Err(error)
            }
        }
    }

    /// Tells, from anywhere and without touching the disk, whether the last write reached it.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Ends the run: nothing is lost without it, but the next start checks the database.
    pub async fn close(mut self) -> Result<(), StoreError> {
        let path = self.path;
        self.checkpointer.stop().await;
        self.reader.close().await;
        let noted = sqlx::query("UPDATE meta SET value = 1 WHERE name = 'clean'").execute(&mut self.writer).await;
        noted.map_err(|source| StoreError::of(&path, source))?;
        self.writer.close().await.map_err(|source| StoreError::of(&path, source))
    }

    async fn commit_settling(&mut self, batch: &[Write]) -> bool {
        let settling: Vec<&Write> = batch.iter().filter(|write| write.settles()).collect();
        if settling.is_empty() {
            return false;
        }
        self.reserve.release();
        // Small transactions: each needs only as much of the reserve as its own pages.
        for part in settling.chunks(64) {
            if let Err(error) = self.transact(part.iter().copied()).await {
                tracing::warn!(%error, "Settling writes found no space.");
                return false;
            }
        }
        true
    }

    async fn transact<'a>(&mut self, batch: impl Iterator<Item = &'a Write>) -> Result<(), StoreError> {
        let written = write::transact(&mut self.writer, &mut self.queues, batch).await;
        written.map_err(|source| StoreError::of(&self.path, source))?;
        Ok(())
    }
}

/// Whether the last write reached the disk; shared by the writer, the checkpoints and `/ready`.
#[derive(Clone, Debug)]
pub struct Health(Arc<AtomicBool>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Health {
    /// Whether mail can be taken.
    pub fn writable(&self) -> Writable {
        if self.0.load(Ordering::Relaxed) { Writable::Yes } else { Writable::No }
    }

    fn set(&self, writable: Writable) {
        self.0.store(writable == Writable::Yes, Ordering::Relaxed);
    }
}

/// See [`Health::writable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// The last write is on the disk.
    Yes,
    /// The last write failed; it is tried again every second.
    No,
}

/// What the data directory says about the database it should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// There is a coordinator key: a database was made with it.
    Exists,
    /// First start.
    None,
}

/// Whether the database holds any mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServesMeshes {
    /// At least one.
    Some,
    /// Not one.
    None,
}

/// Reads one integer of the `meta` table.
async fn meta(conn: &mut SqliteConnection, name: &'static str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = ?").bind(name).fetch_one(conn).await?;
    row.try_get(0)
}

#[cfg(test)]
mod tests;
