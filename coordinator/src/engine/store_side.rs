//! The store's side of the engine: the writer's thread, and reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::FromStore;
use crate::batch::Batch;
use crate::hub::{Answer, Query};
use crate::metrics::Metrics;
use crate::store::{Reader, Store, StoreError};

/// Answers one read.
pub(super) async fn look_up(reader: &Reader, query: Query) -> Result<Answer, StoreError> {
    match query {
        Query::Mail { mesh, to, after, limit, bytes_max } => {
            reader.mail(mesh, to, after, limit, bytes_max).await.map(Answer::Mail)
        }
        Query::Expired { before, limit } => reader.expired(before, limit).await.map(Answer::Mail),
        Query::Log { mesh, from, limit } => reader.log(mesh, from, limit).await.map(Answer::Log),
        Query::Prekeys { mesh, members } => reader.prekeys(mesh, &members).await.map(Answer::Prekeys),
        Query::Invite { lookup } => {
            let found = reader.invite(lookup).await?;
            Ok(Answer::Invite(found.map(|(_, blob)| blob)))
        }
    }
}

/// Commits batches until the hub is gone, then closes the store.
pub(super) async fn write_on(
    mut store: Store,
    mut batches: mpsc::Receiver<Batch>,
    answers: mpsc::Sender<FromStore>,
    metrics: Metrics,
    damaged: &AtomicBool,
) {
    let mut well = true;
    while let Some(batch) = batches.recv().await {
        let since = Instant::now();
        let committed = store.commit(&batch.writes).await;
        metrics.commit(batch.writes.len(), since.elapsed());
        well = committed.is_ok();
        let answer = match committed {
            Ok(()) => FromStore::Committed(batch),
            Err(error) => FromStore::CommitFailed(batch, error),
        };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
    // A store that is left open is looked over at the next start.
    let sound = well && !damaged.load(Ordering::Acquire);
    if sound && let Err(error) = store.close().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "The store was not closed cleanly.");
    }
}
