//! Opening: look first, on a read-only connection, so that what is refused stays byte for byte as
//! it was; then migrate forward in one transaction and note that a run began.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use peerloom_proto::{MeshId, PeerId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::checkpoint::Checkpointer;
use super::reads::{Reader, column};
use super::reserve::{Disk, Reserve};
use super::{Health, Identity, Store, StoreError, meta, run};

/// Applied in order, each once; `user_version` counts them.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/sqlite/0001_state.sql"),
    include_str!("../../migrations/sqlite/0002_runs.sql"),
    include_str!("../../migrations/sqlite/0003_alive.sql"),
];

/// "PLco", so that another program's database is told apart from a damaged one.
const APPLICATION_ID: i64 = 0x504c_636f;

/// Bytes a page. Five envelopes of 1 KiB messages fit with little waste; at SQLite's default of
/// 4,096 two do, and large commits are a third slower. Twice as much makes small commits write
/// more. Fixed when the database is made.
const PAGE_BYTES: u32 = 8192;

/// Write-ahead log, in pages (32 MiB), at which the writer itself completes a checkpoint. The
/// checkpoints beside it did most of the work by then; only so can the log start over under
/// constant load.
const WAL_PAGES_MAX: u32 = 4_096;

/// Page cache of the writer, KiB: the index tails of the queues being written.
const WRITER_CACHE_KIB: u32 = 8_192;

/// Largest database, in bytes, that is checked at every start: a few milliseconds.
const CHECK_ALWAYS_BYTES_MAX: u64 = 8 << 20;

/// Largest database, in bytes, that is checked after a run that did not end well: under a second.
/// A larger one shows damage when the damaged page is read.
const CHECK_UNCLEAN_BYTES_MAX: u64 = 256 << 20;

/// The database's file in the data directory.
const FILE: &str = "state.db";

/// Runs remembered. A node that was away for longer than the last so many offers its mail again, which
/// ends at its recipients.
const RUNS_MAX: u64 = 1_024;

/// How long a statement waits for another connection. Only checkpoints and this process's own
/// readers share the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn open(dir: &Path, identity: Identity) -> Result<Store, StoreError> {
    let path = dir.join(FILE);
    match look(&path, identity)? {
        Found::Nothing => make_private(&path)?,
        Found::Database { bytes } => inspect(&path, identity, bytes).await?,
    }
    let failed = |source| StoreError::of(&path, source);
    let options = options(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .page_size(PAGE_BYTES)
        .pragma("wal_autocheckpoint", WAL_PAGES_MAX.to_string())
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        .statement_cache_capacity(64);
    let mut writer = options.connect().await.map_err(failed)?;
    let Begun { run, commits, silence } = begin_run(&mut writer).await.map_err(failed)?;
    let queues = load_queues(&mut writer).await.map_err(failed)?;
    let (health, disk) = (Health::default(), Disk::of(&path));
    Ok(Store {
        writer,
        reader: Reader::new(&path, self::options(&path)),
        checkpointer: Checkpointer::start(self::options(&path), disk.clone(), health.clone()),
        reserve: Reserve::ensure(disk.clone()),
        disk,
        health,
        queues,
        run,
        commits,
        silence,
        path,
    })
}

/// What every connection has in common. sqlx's own statement log would show SQL at DEBUG for each
/// commit and nothing an operator can use.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

enum Found {
    Nothing,
    Database { bytes: u64 },
}

fn look(path: &Path, identity: Identity) -> Result<Found, StoreError> {
    let io = |source| StoreError::Io { path: path.display().to_string(), source };
    let corrupt =
        |found: &str| StoreError::Corrupt { path: path.display().to_string(), found: found.to_owned() };
    let bytes = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match identity {
                Identity::Exists => Err(StoreError::Missing { path: path.display().to_string() }),
                Identity::None => Ok(Found::Nothing),
            };
        }
        Err(error) => return Err(io(error)),
    };
    if bytes == 0 {
        return match identity {
            Identity::Exists => Err(corrupt("the file is empty")),
            Identity::None => Ok(Found::Database { bytes }),
        };
    }
    let mut magic = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == b"SQLite format 3\0" => Ok(Found::Database { bytes }),
        Ok(()) => Err(corrupt("its header is not that of a database")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(corrupt("its header is cut off")),
        Err(error) => Err(io(error)),
    }
}

fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| StoreError::Io { path: path.display().to_string(), source })
}

/// Reads version and structure without being able to write.
async fn inspect(path: &Path, identity: Identity, bytes: u64) -> Result<(), StoreError> {
    let failed = |source| StoreError::of(path, source);
    let corrupt = |found: String| StoreError::Corrupt { path: path.display().to_string(), found };
    // Nobody else has the directory. Without a log to fold in, "immutable" keeps SQLite from even
    // making its side files.
    let log_is_empty = fs::metadata(path.with_extension("db-wal")).map_or(true, |log| log.len() == 0);
    let looking = options(path).read_only(true).immutable(log_is_empty);
    let mut conn = looking.connect().await.map_err(failed)?;
    let application = pragma(&mut conn, "PRAGMA application_id").await.map_err(failed)?;
    let version = pragma(&mut conn, "PRAGMA user_version").await.map_err(failed)?;
    match (version, identity) {
        // The first start was cut short before anything was kept.
        (0, Identity::None) if application == 0 => return conn.close().await.map_err(failed),
        (0, Identity::Exists | Identity::None) => return Err(corrupt("it holds no schema".to_owned())),
        (_, Identity::Exists | Identity::None) => {}
    }
    if application != APPLICATION_ID {
        return Err(corrupt("it belongs to another program".to_owned()));
    }
    let known = u32::try_from(MIGRATIONS.len()).expect("migrations are counted by hand");
    let found = u32::try_from(version).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::Newer { path: path.display().to_string(), found, known });
    }
    let clean = meta(&mut conn, "clean").await.map_err(failed)? == 1;
    let check_bytes_max = if clean { CHECK_ALWAYS_BYTES_MAX } else { CHECK_UNCLEAN_BYTES_MAX };
    if bytes <= check_bytes_max {
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut conn).await.map_err(failed)?;
        let verdict: String = row.try_get(0).map_err(failed)?;
        if verdict != "ok" {
            return Err(corrupt(
                verdict.trim_start_matches("*** in database main ***").trim().replace('\n', "; "),
            ));
        }
    }
    conn.close().await.map_err(failed)
}

async fn pragma(conn: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(sql).fetch_one(conn).await?.try_get(0)
}

/// What a run begins with.
struct Begun {
    run: u64,
    commits: u64,
    silence: Option<Duration>,
}

/// Migrates, counts the run and marks it as not yet ended, all in one transaction: two processes that
/// start at once never take the same number. From its commit on every earlier run is fenced off.
async fn begin_run(conn: &mut SqliteConnection) -> Result<Begun, sqlx::Error> {
    let version = usize::try_from(pragma(conn, "PRAGMA user_version").await?).unwrap_or(usize::MAX);
    let mut sql = String::from("BEGIN IMMEDIATE;\n");
    for migration in MIGRATIONS.iter().skip(version) {
        sql.push_str(migration);
    }
    if version < MIGRATIONS.len() {
        sql.push_str(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {};\n",
            MIGRATIONS.len()
        ));
    }
    // SQLite seeds its generator from the operating system's entropy.
    sql.push_str(&format!(
        "UPDATE meta SET value = value + 1 WHERE name = 'runs';
         UPDATE meta SET value = 0 WHERE name = 'clean';
         UPDATE run SET ended = (SELECT value FROM meta WHERE name = 'commits') WHERE ended IS NULL;
         INSERT INTO run (number, id) SELECT value, randomblob(16) FROM meta WHERE name = 'runs';
         DELETE FROM run WHERE number <= (SELECT value FROM meta WHERE name = 'runs') - {RUNS_MAX};"
    ));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await?;
    let (run, commits) = (meta(conn, "runs").await?, meta(conn, "commits").await?);
    let silence = run::silence(conn).await?;
    sqlx::query("COMMIT").execute(&mut *conn).await?;
    if version == 0 {
        // The schema goes into the file itself, so that a lost write-ahead log cannot make this
        // look like a first start.
        sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *conn).await?;
    }
    let count = |value| u64::try_from(value).expect("only ever incremented");
    Ok(Begun { run: count(run), commits: count(commits), silence })
}

async fn load_queues(conn: &mut SqliteConnection) -> Result<HashMap<(MeshId, PeerId), i64>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, mesh, recipient FROM queue").fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let key = (MeshId(column(row, 1)?), PeerId(column(row, 2)?));
            Ok((key, row.try_get(0)?))
        })
        .collect()
}
