//! A store's runs: every start is one, with an id of its own; the latest has the store, and shows now and
//! then that it lives.

use std::time::Duration;

use peerloom_proto::{RunId, StoreMark};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::reads::{column, natural};
use super::{Store, StoreError, meta, write};
use crate::runs::Runs;

/// A store without commits notes this often that it is in use. It bounds how long an idle store does not
/// know that another process took it over, and is a third of the silence after which a store that starts
/// is suspected to be an old copy ([`Snapshot::silence`]). A commit of two pages.
pub const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(20);

impl Store {
    /// Notes that the run goes on, if it is still this process's own; a commit does so too. Comes every
    /// [`SIGN_OF_LIFE_EVERY`].
    pub async fn show_life(&mut self) -> Result<(), StoreError> {
        let noted = sqlx::query(
            "UPDATE meta SET value = CAST(unixepoch('subsec') * 1000 AS INTEGER)
             WHERE name = 'alive' AND (SELECT value FROM meta WHERE name = 'runs') = ?",
        );
        let noted = noted.bind(write::integer(self.run)).execute(&mut self.writer).await;
        if noted.map_err(|source| StoreError::of(&self.path, source))?.rows_affected() > 0 {
            return Ok(());
        }
        let found = meta(&mut self.writer, "runs").await;
        self.fenced_by(found.map_err(|source| StoreError::of(&self.path, source))?)
    }

    pub(super) fn fenced_by(&self, found: i64) -> Result<(), StoreError> {
        let theirs = u64::try_from(found).unwrap_or_default();
        if theirs == self.run {
            return Ok(());
        }
        Err(StoreError::Fenced { path: self.path.display().to_string(), ours: self.run, theirs })
    }
}

/// How long nobody noted a sign of life. A clock that was set back makes it none at all.
pub(super) async fn silence(conn: &mut SqliteConnection) -> Result<Option<Duration>, sqlx::Error> {
    let now = sqlx::query("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)").fetch_one(&mut *conn).await?;
    let (now, alive): (i64, i64) = (now.try_get(0)?, meta(conn, "alive").await?);
    let silence = u64::try_from(now.saturating_sub(alive)).unwrap_or_default();
    Ok((alive > 0).then(|| Duration::from_millis(silence)))
}

/// The runs that are remembered, this one among them.
pub(super) async fn load_runs(conn: &mut SqliteConnection, commit: u64) -> Result<Runs, sqlx::Error> {
    let rows = sqlx::query("SELECT id, ended FROM run ORDER BY number").fetch_all(conn).await?;
    let mut runs = Runs::default();
    for row in &rows {
        let run = RunId(column(row, 0)?);
        if row.try_get::<Option<i64>, _>(1)?.is_none() {
            runs.current = StoreMark { run, commit };
        } else {
            runs.earlier.insert(run, natural(row, 1)?);
        }
    }
    Ok(runs)
}
