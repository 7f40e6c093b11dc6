//! Checkpoints on a connection of their own: the write-ahead log moves into the database while
//! the writer goes on. After a failed write, the same task finds out when writing works again.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Health, Writable};

/// Bytes committed between two checkpoints. Smaller ones rewrite the same index pages more often,
/// larger ones make a restart after a crash read more.
const CHECKPOINT_EVERY_BYTES: u64 = 8 << 20;

/// How often writing is tried while it fails.
const PROBE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Checkpointer {
    wanted: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    bytes: u64,
}

impl Checkpointer {
    /// Spawns the task; its connection is opened when it is first needed.
    pub(super) fn start(options: SqliteConnectOptions, health: Health) -> Self {
        let wanted = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let options = options.synchronous(SqliteSynchronous::Full).pragma("wal_autocheckpoint", "0");
        let task = tokio::spawn(run(options, health, Arc::clone(&wanted), stop.clone()));
        Self { wanted, stop, task, bytes: 0 }
    }

    /// Counts what the writer committed.
    pub(super) fn written(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= CHECKPOINT_EVERY_BYTES {
            self.bytes = 0;
            self.wanted.notify_one();
        }
    }

    /// A write failed: a checkpoint lets the write-ahead log start over in the space it has, and
    /// the task tries to write until it succeeds.
    pub(super) fn recover(&self) {
        self.wanted.notify_one();
    }

    /// Ends the task after the checkpoint it may be in.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The checkpoint task failed.");
        }
    }
}

async fn run(options: SqliteConnectOptions, health: Health, wanted: Arc<Notify>, stop: CancellationToken) {
    let mut conn: Option<SqliteConnection> = None;
    loop {
        let failing = health.writable() == Writable::No;
        tokio::select! {
            () = stop.cancelled() => break,
            () = wanted.notified() => {}
            () = tokio::time::sleep(PROBE_EVERY), if failing => {}
        }
        match work(&options, &mut conn, &health).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "Checkpoint put off."),
        }
    }
    if let Some(conn) = conn
        && let Err(error) = conn.close().await
    {
        tracing::debug!(%error, "The checkpoint connection did not close well.");
    }
}

async fn work(
    options: &SqliteConnectOptions,
    conn: &mut Option<SqliteConnection>,
    health: &Health,
) -> Result<(), sqlx::Error> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(options.connect().await?),
    };
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut *conn).await?;
    if health.writable() == Writable::No {
        sqlx::raw_sql("INSERT INTO probe (bytes) VALUES (zeroblob(65536))").execute(&mut *conn).await?;
        sqlx::raw_sql("DELETE FROM probe").execute(&mut *conn).await?;
        health.set(Writable::Yes);
        tracing::info!("Writing works again.");
    }
    Ok(())
}
