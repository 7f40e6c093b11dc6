//! A look into the programs' databases, past the programs.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::runtime::Builder;

/// The blobs of a query's only column.
///
/// # Panics
/// When the database cannot be read.
pub fn blobs(database: &Path, query: &'static str) -> Vec<Vec<u8>> {
    on(database, async |mut conn| {
        let rows = sqlx::query_scalar::<_, Vec<u8>>(query).fetch_all(&mut conn).await;
        conn.close().await.expect("a reader closes");
        rows
    })
}

/// The number that a query gives.
///
/// # Panics
/// When the database cannot be read.
pub fn number(database: &Path, query: &'static str) -> i64 {
    on(database, async |mut conn| {
        let found = sqlx::query_scalar::<_, i64>(query).fetch_one(&mut conn).await;
        conn.close().await.expect("a reader closes");
        found
    })
}

/// Changes a database whose program is down, and folds its log in.
///
/// # Panics
/// When it cannot be changed.
pub fn change(database: &Path, statement: &str) {
    let script = format!("{statement}; PRAGMA wal_checkpoint(TRUNCATE);");
    on(database, async move |mut conn| {
        let done = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await;
        conn.close().await.expect("a writer closes");
        done
    });
}

fn on<T>(database: &Path, work: impl AsyncFnOnce(SqliteConnection) -> Result<T, sqlx::Error>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let done = runtime.block_on(async {
        let conn = SqliteConnectOptions::new().filename(database).connect().await?;
        work(conn).await
    });
    done.unwrap_or_else(|error| panic!("{}: {error}", database.display()))
}
