//! Checkpoints on a connection of their own: the write-ahead log moves into the database while
//! the writer goes on. After a failed write, the same task finds out when there is room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::reserve::Disk;
use super::{Health, Writable};

/// Bytes committed after which a checkpoint does not wait for its time. Smaller ones rewrite the
/// same index pages more often, larger ones make a restart after a crash read more.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// A commit is in the database itself at the latest after this. On a disk that then fills up, an
/// empty log is space for deletes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3);

/// How often a full disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Checkpointer {
    pending: Arc<Pending>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What was committed since the last checkpoint.
#[derive(Debug, Default)]
struct Pending {
    bytes: AtomicU64,
    any: Notify,
    many: Notify,
}

impl Checkpointer {
    /// Spawns the task; its connection is opened when it is first needed.
    pub(super) fn start(options: SqliteConnectOptions, disk: Disk, health: Health) -> Self {
        let pending = Arc::new(Pending::default());
        let stop = CancellationToken::new();
        let options = options.synchronous(SqliteSynchronous::Full).pragma("wal_autocheckpoint", "0");
        let task =
            Task { options, disk, health, pending: Arc::clone(&pending), stop: stop.clone(), conn: None };
        Self { pending, stop, task: tokio::spawn(task.run()) }
    }

    /// Counts what the writer committed.
    pub(super) fn written(&self, bytes: u64) {
        let before = self.pending.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 {
            self.pending.any.notify_one();
        }
        if before < CHECKPOINT_BYTES && before + bytes >= CHECKPOINT_BYTES {
            self.pending.many.notify_one();
        }
    }

    /// The disk is full: the task turns from checkpoints to watching for room.
    pub(super) fn watch(&self) {
        self.pending.any.notify_one();
        self.pending.many.notify_one();
    }

    /// Ends the task after the checkpoint it may be in.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The checkpoint task failed.");
        }
    }
}

struct Task {
    options: SqliteConnectOptions,
    disk: Disk,
    health: Health,
    pending: Arc<Pending>,
    stop: CancellationToken,
    conn: Option<SqliteConnection>,
}

/// What the task wakes up for.
enum Due {
    Checkpoint,
    Look,
    Stop,
}

impl Task {
    async fn run(mut self) {
        loop {
            let done = match self.wait().await {
                Due::Checkpoint => self.checkpoint().await,
                Due::Look => self.look().await,
                Due::Stop => break,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "Checkpoint put off.");
            }
        }
        if let Some(conn) = self.conn
            && let Err(error) = conn.close().await
        {
            tracing::debug!(%error, "The checkpoint connection did not close well.");
        }
    }

    async fn wait(&self) -> Due {
        let due = async {
            match self.health.writable() {
                Writable::No => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    Due::Look
                }
                Writable::Yes => {
                    self.pending.any.notified().await;
                    tokio::select! {
                        () = self.pending.many.notified() => {}
                        () = tokio::time::sleep(CHECKPOINT_EVERY) => {}
                    }
                    Due::Checkpoint
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Due::Stop,
            due = due => due,
        }
    }

    async fn checkpoint(&mut self) -> Result<(), sqlx::Error> {
        // On a full disk the writer checkpoints: it knows when that frees space, and when it would
        // only eat the reserve.
        if self.health.writable() == Writable::Yes {
            self.pending.bytes.store(0, Ordering::Relaxed);
            sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(self.conn().await?).await?;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), sqlx::Error> {
        let disk = self.disk.clone();
        if disk.has_room(self.conn().await?, 0).await? {
            self.health.set(Writable::Yes);
            tracing::info!("There is room on the disk again.");
        }
        Ok(())
    }

    async fn conn(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        match self.conn {
            Some(ref mut conn) => Ok(conn),
            None => Ok(self.conn.insert(self.options.connect().await?)),
        }
    }
}
