//! The store's side of the engine: the writer's thread, and reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::FromStore;
use crate::batch::Batch;
use crate::hub::{Answer, Query};
use crate::metrics::Metrics;
use crate::store::{Reader, SIGN_OF_LIFE_EVERY, Store, StoreError};

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

/// What the writer's thread does next.
enum Next {
    Batch(Batch),
    Fenced(StoreError),
}

/// The next batch, or that there will be none: another process has the store. None once the hub is gone.
async fn next(store: &mut Store, batches: &mut mpsc::Receiver<Batch>) -> Option<Next> {
    loop {
        match tokio::time::timeout(SIGN_OF_LIFE_EVERY, batches.recv()).await {
            Ok(batch) => return batch.map(Next::Batch),
            Err(_) => match store.show_life().await {
                Err(fenced @ StoreError::Fenced { .. }) => return Some(Next::Fenced(fenced)),
                // A commit would say what is wrong; without one there is no hurry.
                Err(error) => tracing::debug!(%error, "No sign of life was noted."),
                Ok(()) => {}
            },
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
    while let Some(next) = next(&mut store, &mut batches).await {
        let answer = match next {
            Next::Batch(batch) => {
                let since = Instant::now();
                let committed = store.commit(&batch.writes).await;
                metrics.commit(batch.writes.len(), since.elapsed());
                well = committed.is_ok();
                match committed {
                    Ok(commit) => FromStore::Committed(batch, commit),
                    Err(error) => FromStore::CommitFailed(batch, error),
                }
            }
            Next::Fenced(fenced) => {
                well = false;
                FromStore::Fenced(fenced)
            }
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
