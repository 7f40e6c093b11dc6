//! What the coordinator keeps: one SQLite database, `state.db`, in the data directory.
//!
//! 1. [`open`](Store::open)     looks before it touches: a damaged, newer or missing database is refused as it is
//! 2. [`load`](Store::load)     what the hub must know at start, answered from indexes
//! 3. [`commit`](Store::commit) one batch, one transaction, one fsync; the only way to write
//! 4. [`Reader`]                mail, log, prekeys and invites, on connections of their own
//! 5. [`close`](Store::close)   folds the write-ahead log in and notes that the run ended well
//!
//! WAL with `synchronous=FULL`: when [`commit`](Store::commit) returns, the batch survives a power cut.
//! Of two processes with one database the older is fenced off: every transaction first looks whether
//! the run is still its own.
//! Checkpoints happen beside the writer, so that no commit waits for one. When the disk is full, the
//! space of a reserve file lets deletes and receipts through while new mail is refused.

mod checkpoint;
mod error;
mod open;
mod reads;
mod reserve;
mod run;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::{EnvHash, InviteLookup, MeshId, PeerId, Signature, UnixMs};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use crate::runs::Runs;
use checkpoint::Checkpointer;
pub use error::StoreError;
pub use reads::{InviteRow, Reader};
use reserve::{Disk, Reserve};
pub use run::SIGN_OF_LIFE_EVERY;
use write::Run;

/// Claims of one run: the n-th run allocates from `n << RUN_SEQ_BITS` on, so no claim is ever
/// used twice, not even one whose row never reached the disk. A trillion messages a run, eight
/// million runs before a claim leaves the 63 bits that CBOR statements allow.
const RUN_SEQ_BITS: u32 = 40;

/// Length of the write-ahead log at which a commit first waits for it to be emptied. Checkpoints
/// keep it near a quarter of this unless the disk is slower than the mail.
const LOG_BYTES_MAX: u64 = 128 << 20;

/// Writes of one transaction while the disk is full.
const SETTLE_ROWS: usize = 64;

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
            Self::DeleteMail { .. }
            | Self::DeleteInvite { .. }
            | Self::UseInvite { .. }
            | Self::DropQueue { .. } => true,
            Self::PutMail(row) => match row.kind {
                MailKind::Receipt | MailKind::Expired => true,
                MailKind::Envelope => false,
            },
            Self::MeshCreate { .. }
            | Self::LogAppend { .. }
            | Self::PutPrekey { .. }
            | Self::PutInvite { .. } => false,
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
    /// This run, and those before it.
    pub runs: Runs,
    /// How long before this run began the last sign of life was noted; none in a store that never had one.
    pub silence: Option<Duration>,
    /// Queues that hold something.
    pub queues: Vec<QueueDepth>,
    /// Every mesh.
    pub meshes: Vec<MeshId>,
    /// Every invite; blobs stay on disk until they are asked for.
    pub invites: Vec<InviteRow>,
}

/// The writer. One exists per data directory; it is used from one place.
#[derive(Debug)]
pub struct Store {
    path: std::path::PathBuf,
    writer: SqliteConnection,
    reader: Reader,
    checkpointer: Checkpointer,
    reserve: Reserve,
    disk: Disk,
    health: Health,
    queues: HashMap<(MeshId, PeerId), i64>,
    run: u64,
    commits: u64,
    silence: Option<Duration>,
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
        let runs = run::load_runs(&mut self.writer, self.commits).await;
        let runs = runs.map_err(|source| StoreError::of(&self.path, source))?;
        Ok(Snapshot { silence: self.silence, ..self.reader.snapshot(next_seq, runs).await? })
    }

    /// Makes a batch durable: all of it, or (with an error) none of it, except as
    /// [`StoreError::Full`] says. After [`StoreError::Fenced`] no batch ever is. Gives the number of
    /// transactions that this one ended, over all runs.
    ///
    /// Not cancel safe: let it finish.
    pub async fn commit(&mut self, batch: &[Write]) -> Result<u64, StoreError> {
        let bytes = batch.iter().map(write::weight).sum();
        if self.disk.log_bytes() > LOG_BYTES_MAX {
            self.empty_log().await;
        }
        let takes_space = batch.iter().any(|write| !write.settles());
        if takes_space && !self.disk.is_ample(bytes) && !self.make_room(bytes).await {
            return Err(self.full(batch).await);
        }
        match self.transact(batch.iter()).await {
            Ok(()) => {
                self.health.set(Writable::Yes);
                self.reserve.restore();
                self.checkpointer.written(bytes);
                Ok(self.commits)
            }
            Err(StoreError::Full { .. }) => Err(self.full(batch).await),
            Err(fenced @ StoreError::Fenced { .. }) => Err(fenced),
            Err(error) => {
                self.health.set(Writable::No);
                self.checkpointer.watch();
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
        let noted = sqlx::query(
            "UPDATE meta SET value = 1 WHERE name = 'clean'
             AND (SELECT value FROM meta WHERE name = 'runs') = ?",
        )
        .bind(write::integer(self.run))
        .execute(&mut self.writer)
        .await;
        noted.map_err(|source| StoreError::of(&path, source))?;
        self.writer.close().await.map_err(|source| StoreError::of(&path, source))
    }

    /// The disk is full: keeps what settles mail.
    async fn full(&mut self, batch: &[Write]) -> StoreError {
        self.health.set(Writable::No);
        self.checkpointer.watch();
        let settled = self.commit_settling(batch).await;
        StoreError::Full { path: self.path.display().to_string(), settled }
    }

    async fn commit_settling(&mut self, batch: &[Write]) -> bool {
        let settling: Vec<&Write> = batch.iter().filter(|write| write.settles()).collect();
        if settling.is_empty() {
            return false;
        }
        self.reserve.release();
        // Small transactions: each needs only as much space as its own pages, and an emptied log
        // gives that back.
        for part in settling.chunks(SETTLE_ROWS) {
            if self.transact(part.iter().copied()).await.is_ok() {
                continue;
            }
            self.empty_log().await;
            if let Err(error) = self.transact(part.iter().copied()).await {
                tracing::warn!(%error, "Settling writes found no space.");
                return false;
            }
        }
        true
    }

    /// Whether mail of so many bytes fits once the write-ahead log is folded in.
    async fn make_room(&mut self, bytes: u64) -> bool {
        self.empty_log().await;
        self.disk.has_room(&mut self.writer, bytes).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "The free pages could not be counted.");
            false
        })
    }

    /// Folds the write-ahead log into the database and cuts it to nothing. Fails harmlessly while a
    /// reader is in it, or when the database itself has no space to grow.
    async fn empty_log(&mut self) {
        if let Err(error) = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.writer).await {
            tracing::debug!(%error, "The write-ahead log stays as it is.");
        }
    }

    async fn transact<'a>(&mut self, batch: impl Iterator<Item = &'a Write>) -> Result<(), StoreError> {
        let written = write::transact(&mut self.writer, &mut self.queues, self.run, batch).await;
        match written.map_err(|source| StoreError::of(&self.path, source))? {
            Run::Own => {
                self.commits += 1;
                Ok(())
            }
            Run::Another(found) => self.fenced_by(found),
        }
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
