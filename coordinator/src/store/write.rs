//! One batch, one transaction, which counts itself and looks whose run it is. Mail goes in and out by multi-row statements, whose sizes are
//! powers of two so that a handful of prepared statements serves every batch.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use peerloom_proto::{EnvHash, MeshId, PeerId};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};

use super::{MailRow, Write, meta};

/// Rows of the largest statement: 2,304 parameters of SQLite's 32,766.
const ROWS_MAX: usize = 256;

/// Bytes bound to one statement, so that a batch of large envelopes is not copied all at once.
const STATEMENT_BYTES_MAX: usize = 2 << 20;

/// `INSERT` statements for 1, 2, 4 … [`ROWS_MAX`] rows.
static PUTS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    by_size(
        "INSERT INTO mail (seq, queue, rank, exp, size, kind, env_hash, sender, bytes) VALUES ",
        "(?,?,?,?,?,?,?,?,?)",
        "",
    )
});

/// `DELETE` statements for as many rows. The join walks from the wanted rows to the primary key,
/// never through a queue.
static DELETES: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    by_size(
        "WITH want (seq, queue, env_hash) AS (VALUES ",
        "(?,?,?)",
        ") DELETE FROM mail WHERE seq IN (SELECT mail.seq FROM want CROSS JOIN mail ON mail.seq = want.seq \
         WHERE mail.queue = want.queue AND (want.env_hash IS NULL OR mail.env_hash = want.env_hash))",
    )
});

fn by_size(head: &str, row: &str, tail: &str) -> Vec<Arc<str>> {
    (0..=ROWS_MAX.ilog2())
        .map(|power| format!("{head}{}{tail}", vec![row; 1 << power].join(",")).into())
        .collect()
}

/// Bytes a write adds to the write-ahead log, roughly: what it carries and half a page.
pub(super) fn weight(write: &Write) -> u64 {
    let carried = match write {
        Write::PutMail(row) => row.bytes.len(),
        Write::LogAppend { entry, .. } => entry.len(),
        Write::PutInvite { blob, .. } => blob.len(),
        Write::MeshCreate { .. }
        | Write::DeleteMail { .. }
        | Write::PutPrekey { .. }
        | Write::DeleteInvite { .. }
        | Write::UseInvite { .. }
        | Write::DropQueue { .. } => 0,
    };
    carried as u64 + 512
}

/// Queue numbers, and those this transaction added: they are forgotten if it fails.
struct Queues<'a> {
    known: &'a mut HashMap<(MeshId, PeerId), i64>,
    added: Vec<(MeshId, PeerId)>,
}

/// In whose run a transaction found the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Its own: all was written.
    Own,
    /// A later process's, by number: nothing was written.
    Another(i64),
}

pub(super) async fn transact<'a>(
    conn: &mut SqliteConnection,
    queues: &mut HashMap<(MeshId, PeerId), i64>,
    run: u64,
    batch: impl Iterator<Item = &'a Write>,
) -> Result<Run, sqlx::Error> {
    let mut queues = Queues { known: queues, added: Vec::new() };
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    let written = match apply_in(conn, &mut queues, run, batch).await {
        Ok(Run::Own) => sqlx::query("COMMIT").execute(&mut *conn).await.map(|_| Run::Own),
        other @ (Ok(Run::Another(_)) | Err(_)) => other,
    };
    if !matches!(written, Ok(Run::Own)) {
        for key in &queues.added {
            queues.known.remove(key);
        }
        // SQLite may have rolled back by itself (full disk, I/O error); then there is nothing to roll back.
        if let Err(error) = sqlx::query("ROLLBACK").execute(&mut *conn).await {
            tracing::debug!(%error, "The failed transaction had ended by itself.");
        }
    }
    written
}

/// Under the write lock nobody else can begin a run, so what is read here holds until the commit.
async fn apply_in<'a>(
    conn: &mut SqliteConnection,
    queues: &mut Queues<'_>,
    run: u64,
    batch: impl Iterator<Item = &'a Write>,
) -> Result<Run, sqlx::Error> {
    let counted = sqlx::query(
        "UPDATE meta SET value = CASE name WHEN 'commits' THEN value + 1
                                           ELSE CAST(unixepoch('subsec') * 1000 AS INTEGER) END
         WHERE name IN ('commits', 'alive') AND (SELECT value FROM meta WHERE name = 'runs') = ?",
    );
    if counted.bind(integer(run)).execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(Run::Another(meta(conn, "runs").await?));
    }
    apply(conn, queues, batch).await?;
    Ok(Run::Own)
}

async fn apply<'a>(
    conn: &mut SqliteConnection,
    queues: &mut Queues<'_>,
    batch: impl Iterator<Item = &'a Write>,
) -> Result<(), sqlx::Error> {
    let mut puts: Vec<(i64, &MailRow)> = Vec::new();
    let mut deletes: Vec<(u64, i64, Option<&EnvHash>)> = Vec::new();
    let mut drops: Vec<i64> = Vec::new();
    for write in batch {
        match write {
            Write::PutMail(row) => puts.push((queue(conn, queues, row.mesh, row.to).await?, row)),
            Write::DeleteMail { seq, mesh, to, env_hash } => {
                if let Some(queue) = queues.known.get(&(*mesh, *to)) {
                    deletes.push((*seq, *queue, env_hash.as_ref()));
                }
            }
            Write::DropQueue { mesh, to } => drops.extend(queues.known.get(&(*mesh, *to))),
            Write::MeshCreate { .. }
            | Write::LogAppend { .. }
            | Write::PutPrekey { .. }
            | Write::PutInvite { .. }
            | Write::DeleteInvite { .. }
            | Write::UseInvite { .. } => apply_small(conn, write).await?,
        }
    }
    put(conn, &puts).await?;
    delete(conn, &deletes).await?;
    for queue in drops {
        sqlx::query("DELETE FROM mail WHERE queue = ?").bind(queue).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn apply_small(conn: &mut SqliteConnection, write: &Write) -> Result<(), sqlx::Error> {
    let query = match write {
        Write::MeshCreate { mesh } => sqlx::query("INSERT INTO mesh (mesh) VALUES (?)").bind(&mesh.0[..]),
        Write::LogAppend { mesh, index, entry } => {
            sqlx::query("INSERT INTO log (mesh, idx, entry) VALUES (?,?,?)")
                .bind(&mesh.0[..])
                .bind(integer(*index))
                .bind(&entry[..])
        }
        Write::PutPrekey { mesh, member, exp, stmt, sig } => {
            sqlx::query("INSERT OR REPLACE INTO prekey (mesh, member, exp, stmt, sig) VALUES (?,?,?,?,?)")
                .bind(&mesh.0[..])
                .bind(&member.0[..])
                .bind(integer(exp.0))
                .bind(&stmt[..])
                .bind(&sig.0[..])
        }
        Write::PutInvite { mesh, lookup, owner, blob, exp, uses_left } => sqlx::query(
            "INSERT OR REPLACE INTO invite (lookup, mesh, owner, blob, exp, uses_left) VALUES (?,?,?,?,?,?)",
        )
        .bind(&lookup.0[..])
        .bind(&mesh.0[..])
        .bind(&owner.0[..])
        .bind(&blob[..])
        .bind(integer(exp.0))
        .bind(i64::from(*uses_left)),
        Write::DeleteInvite { lookup } => {
            sqlx::query("DELETE FROM invite WHERE lookup = ?").bind(&lookup.0[..])
        }
        Write::UseInvite { lookup } => {
            sqlx::query("DELETE FROM invite WHERE lookup = ? AND uses_left <= 1")
                .bind(&lookup.0[..])
                .execute(&mut *conn)
                .await?;
            sqlx::query("UPDATE invite SET uses_left = uses_left - 1 WHERE lookup = ?").bind(&lookup.0[..])
        }
        Write::PutMail(_) | Write::DeleteMail { .. } | Write::DropQueue { .. } => return Ok(()),
    };
    query.execute(conn).await.map(drop)
}

/// The queue's number, giving it one at its first mail.
async fn queue(
    conn: &mut SqliteConnection,
    queues: &mut Queues<'_>,
    mesh: MeshId,
    to: PeerId,
) -> Result<i64, sqlx::Error> {
    if let Some(queue) = queues.known.get(&(mesh, to)) {
        return Ok(*queue);
    }
    let made = sqlx::query("INSERT INTO queue (mesh, recipient) VALUES (?,?)")
        .bind(&mesh.0[..])
        .bind(&to.0[..])
        .execute(conn)
        .await?;
    queues.known.insert((mesh, to), made.last_insert_rowid());
    queues.added.push((mesh, to));
    Ok(made.last_insert_rowid())
}

async fn put(conn: &mut SqliteConnection, mut rows: &[(i64, &MailRow)]) -> Result<(), sqlx::Error> {
    while !rows.is_empty() {
        let power = statement_power(rows);
        let (now, later) = rows.split_at(1 << power);
        let mut args = SqliteArguments::default();
        args.reserve(now.len() * 9, 0);
        for (queue, row) in now {
            bind(&mut args, integer(row.seq))?;
            bind(&mut args, *queue)?;
            bind(&mut args, i64::from(rank(row.priority)))?;
            bind(&mut args, integer(row.exp.0))?;
            bind(&mut args, integer(row.bytes.len() as u64))?;
            bind(&mut args, row.kind as i64)?;
            bind(&mut args, &row.env_hash.0[..])?;
            bind(&mut args, &row.from.0[..])?;
            bind(&mut args, &row.bytes[..])?;
        }
        run(conn, &PUTS[power], args).await?;
        rows = later;
    }
    Ok(())
}

/// The largest power of two of rows that fits both bounds; one row always does.
fn statement_power(rows: &[(i64, &MailRow)]) -> usize {
    let mut power = rows.len().min(ROWS_MAX).ilog2() as usize;
    while power > 0
        && rows[..1 << power].iter().map(|(_, row)| row.bytes.len()).sum::<usize>() > STATEMENT_BYTES_MAX
    {
        power -= 1;
    }
    power
}

async fn delete(
    conn: &mut SqliteConnection,
    mut rows: &[(u64, i64, Option<&EnvHash>)],
) -> Result<(), sqlx::Error> {
    while !rows.is_empty() {
        let power = rows.len().min(ROWS_MAX).ilog2() as usize;
        let (now, later) = rows.split_at(1 << power);
        let mut args = SqliteArguments::default();
        args.reserve(now.len() * 3, 0);
        for (seq, queue, env_hash) in now {
            bind(&mut args, integer(*seq))?;
            bind(&mut args, *queue)?;
            bind(&mut args, env_hash.map(|hash| &hash.0[..]))?;
        }
        run(conn, &DELETES[power], args).await?;
        rows = later;
    }
    Ok(())
}

async fn run(conn: &mut SqliteConnection, sql: &Arc<str>, args: SqliteArguments) -> Result<(), sqlx::Error> {
    sqlx::query_with(AssertSqlSafe(Arc::clone(sql)), args).execute(conn).await.map(drop)
}

fn bind<'q, T>(args: &mut SqliteArguments, value: T) -> Result<(), sqlx::Error>
where
    T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    Arguments::add(args, value).map_err(sqlx::Error::Encode)
}

/// Ascending order is claim order.
pub(super) fn rank(priority: u8) -> u8 {
    u8::MAX - priority
}

/// SQLite's integers are signed. Statements carry less than 2⁶³; what is larger can only be a time
/// so far off that the bound means the same.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
