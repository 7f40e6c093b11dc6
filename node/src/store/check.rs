//! Looking at a store before it is touched, and bringing it to the present schema.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};

use super::{StoreError, close, reading_options};

/// Refuses a file that is missing, damaged or too new, without changing it: a reading connection
/// never copies the WAL into the file.
pub(super) async fn examine(path: &Path) -> Result<(), StoreError> {
    examine_header(path)?;
    // Without a log to fold in, "immutable" keeps SQLite from making its side files beside a store
    // that may be refused. Nobody else writes: the caller holds the home's lock.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log_is_empty = std::fs::metadata(log).map_or(true, |log| log.len() == 0);
    let mut conn = reading_options(path).immutable(log_is_empty).connect().await?;
    let looked = examine_content(&mut conn, path).await;
    close(conn).await?;
    looked
}

/// The database header, https://sqlite.org/fileformat2.html#the_database_header.
fn examine_header(path: &Path) -> Result<(), StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing),
        Err(error) => return Err(StoreError::Io(error)),
    };
    let mut header = [0; 100];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(StoreError::Corrupt { what: "it is shorter than its header".to_owned() });
        }
        Err(error) => return Err(StoreError::Io(error)),
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(StoreError::Corrupt { what: "it does not begin as a database".to_owned() });
    }
    if header[68..72] != APPLICATION.to_be_bytes() {
        return Err(StoreError::Corrupt { what: "it is some other program's database".to_owned() });
    }
    Ok(())
}

async fn examine_content(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let found = schema_version(conn).await?;
    if found > SCHEMA {
        return Err(StoreError::Newer { found, known: SCHEMA });
    }
    let size = path.metadata().map_err(StoreError::Io)?.len();
    if size <= CHECKED_BYTES_MAX {
        let says: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *conn).await?;
        if says != "ok" {
            return Err(StoreError::Corrupt { what: says });
        }
    }
    Ok(())
}

/// Brings a database, empty or older, to [`SCHEMA`] in one transaction.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let found = schema_version(conn).await?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(done..).filter(|missing| !missing.is_empty()) else {
        return Ok(());
    };
    let script = format!(
        "BEGIN IMMEDIATE; {} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT;",
        missing.concat(),
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(conn).await?;
    Ok(())
}

async fn schema_version(conn: &mut SqliteConnection) -> Result<u32, StoreError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(conn).await?;
    u32::try_from(found).map_err(|_| StoreError::Corrupt { what: format!("it claims schema {found}") })
}

/// One script a schema version, applied in order.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/0001_store.sql")];

/// The schema this program writes.
pub(super) const SCHEMA: u32 = 1;

const _: () = assert!(MIGRATIONS.len() == SCHEMA as usize, "every schema version has its script");

/// "PLm1" as SQLite's application id: tells our files from other databases.
const APPLICATION: u32 = 0x504c_6d31;

/// Files up to this size are checked page by page at start, at most about a second. In larger ones
/// damage shows when a damaged page is read.
const CHECKED_BYTES_MAX: u64 = 512 << 20;
