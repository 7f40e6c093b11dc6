//! Reading, on read-only connections beside the writer. What is read is what is committed: the hub
//! knows what is still on its way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{EnvHash, InviteLookup, MeshId, PeerId, Signature, UnixMs};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};

use super::write::{integer, rank};
use super::{MailKind, MailRow, QueueDepth, Snapshot, StoreError};
use crate::runs::Runs;

/// Connections for reading: mail for claims on one, everything else beside it.
const CONNECTIONS_MAX: u32 = 2;

/// Page cache of each reader, KiB.
const CACHE_KIB: u32 = 2_048;

/// An invite as it is kept, without its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteRow {
    /// Which mesh it leads to.
    pub mesh: MeshId,
    /// What the joiner asks for.
    pub lookup: InviteLookup,
    /// Who may withdraw it.
    pub owner: PeerId,
    /// When it ends.
    pub exp: UnixMs,
    /// Admissions it still serves.
    pub uses_left: u32,
}

/// Reads the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    path: Arc<PathBuf>,
    pool: SqlitePool,
}

impl Reader {
    pub(super) fn new(path: &Path, options: SqliteConnectOptions) -> Self {
        let options = options.read_only(true).pragma("cache_size", format!("-{CACHE_KIB}"));
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Self { path: Arc::new(path.to_owned()), pool }
    }

    /// Mail of one queue in claim order (priority descending, then oldest), after the given
    /// (priority, seq) if any: at most `limit` rows, and once `bytes_max` is reached no further
    /// ones. The first row comes whatever its size.
    pub async fn mail(
        &self,
        mesh: MeshId,
        to: PeerId,
        after: Option<(u8, u64)>,
        limit: usize,
        bytes_max: u64,
    ) -> Result<Vec<MailRow>, StoreError> {
        let (rank, seq) = after.map_or((-1, 0), |(priority, seq)| (i64::from(rank(priority)), integer(seq)));
        let mut rows = sqlx::query(
            "SELECT mail.seq, 255 - mail.rank, mail.exp, mail.kind, mail.env_hash, mail.sender, mail.bytes
             FROM mail INDEXED BY mail_by_queue
             WHERE mail.queue = (SELECT id FROM queue WHERE mesh = ? AND recipient = ?)
               AND (mail.rank, mail.seq) > (?, ?)
             ORDER BY mail.rank, mail.seq LIMIT ?",
        )
        .bind(&mesh.0[..])
        .bind(&to.0[..])
        .bind(rank)
        .bind(seq)
        .bind(integer(limit as u64))
        .fetch(&self.pool);
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(|source| self.failed(source))? {
            let row = mail_row(&row, mesh, to).map_err(|source| self.failed(source))?;
            bytes += row.bytes.len() as u64;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(row);
        }
        Ok(found)
    }

    /// Items of any queue whose `exp` is before `now`, at most `limit`.
    pub async fn expired(&self, now: UnixMs, limit: usize) -> Result<Vec<MailRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT mail.seq, 255 - mail.rank, mail.exp, mail.kind, mail.env_hash, mail.sender, mail.bytes,
                    queue.mesh, queue.recipient
             FROM (SELECT seq FROM mail INDEXED BY mail_by_queue WHERE exp < ? LIMIT ?) AS old
             CROSS JOIN mail ON mail.seq = old.seq
             CROSS JOIN queue ON queue.id = mail.queue",
        )
        .bind(integer(now.0))
        .bind(integer(limit as u64))
        .fetch_all(&self.pool)
        .await;
        self.each(rows, |row| mail_row(row, MeshId(column(row, 7)?), PeerId(column(row, 8)?)))
    }

    /// Log entries of a mesh from an index on, in order, at most `limit`.
    pub async fn log(&self, mesh: MeshId, from: u64, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let rows = sqlx::query("SELECT entry FROM log WHERE mesh = ? AND idx >= ? ORDER BY idx LIMIT ?")
            .bind(&mesh.0[..])
            .bind(integer(from))
            .bind(integer(limit as u64))
            .fetch_all(&self.pool)
            .await;
        self.each(rows, |row| row.try_get::<Vec<u8>, _>(0).map(Bytes::from))
    }

    /// The prekeys kept for these members; who has none is left out.
    pub async fn prekeys(&self, mesh: MeshId, members: &[PeerId]) -> Result<Vec<SignedBytes>, StoreError> {
        let mut found = Vec::with_capacity(members.len());
        for member in members {
            let row = sqlx::query("SELECT stmt, sig FROM prekey WHERE mesh = ? AND member = ?")
                .bind(&mesh.0[..])
                .bind(&member.0[..])
                .fetch_optional(&self.pool)
                .await;
            let prekey = row.and_then(|row| row.as_ref().map(signed).transpose());
            found.extend(prekey.map_err(|source| self.failed(source))?);
        }
        Ok(found)
    }

    /// The invite under this lookup with its blob, whether or not it has expired.
    pub async fn invite(&self, lookup: InviteLookup) -> Result<Option<(InviteRow, Bytes)>, StoreError> {
        let row =
            sqlx::query("SELECT mesh, lookup, owner, exp, uses_left, blob FROM invite WHERE lookup = ?")
                .bind(&lookup.0[..])
                .fetch_optional(&self.pool)
                .await;
        let found = row.and_then(|row| {
            row.map(|row| Ok((invite_row(&row)?, Bytes::from(row.try_get::<Vec<u8>, _>(5)?)))).transpose()
        });
        found.map_err(|source| self.failed(source))
    }

    pub(super) async fn snapshot(&self, next_seq: u64, runs: Runs) -> Result<Snapshot, StoreError> {
        let queues = sqlx::query(
            "SELECT queue.mesh, queue.recipient, depth.messages, depth.bytes
             FROM (SELECT queue, count(*) AS messages, sum(size) AS bytes
                   FROM mail INDEXED BY mail_by_queue GROUP BY queue) AS depth
             CROSS JOIN queue ON queue.id = depth.queue",
        )
        .fetch_all(&self.pool)
        .await;
        let queues = self.each(queues, |row| {
            Ok(QueueDepth {
                mesh: MeshId(column(row, 0)?),
                to: PeerId(column(row, 1)?),
                messages: natural(row, 2)?,
                bytes: natural(row, 3)?,
            })
        })?;
        let meshes = sqlx::query("SELECT mesh FROM mesh ORDER BY mesh").fetch_all(&self.pool).await;
        let meshes = self.each(meshes, |row| column(row, 0).map(MeshId))?;
        let invites = sqlx::query("SELECT mesh, lookup, owner, exp, uses_left FROM invite ORDER BY lookup")
            .fetch_all(&self.pool)
            .await;
        let invites = self.each(invites, invite_row)?;
        Ok(Snapshot { next_seq, runs, silence: None, queues, meshes, invites })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    fn each<T>(
        &self,
        rows: Result<Vec<SqliteRow>, sqlx::Error>,
        read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, StoreError> {
        rows.and_then(|rows| rows.iter().map(read).collect()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: sqlx::Error) -> StoreError {
        StoreError::of(&self.path, source)
    }
}

fn mail_row(row: &SqliteRow, mesh: MeshId, to: PeerId) -> Result<MailRow, sqlx::Error> {
    let kind = match row.try_get::<i64, _>(3)? {
        0 => MailKind::Envelope,
        1 => MailKind::Receipt,
        2 => MailKind::Expired,
        other => return Err(sqlx::Error::Decode(format!("unknown mail kind {other}").into())),
    };
    Ok(MailRow {
        seq: natural(row, 0)?,
        mesh,
        to,
        from: PeerId(column(row, 5)?),
        kind,
        env_hash: EnvHash(column(row, 4)?),
        priority: u8::try_from(row.try_get::<i64, _>(1)?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?,
        exp: UnixMs(natural(row, 2)?),
        bytes: row.try_get::<Vec<u8>, _>(6)?.into(),
    })
}

fn invite_row(row: &SqliteRow) -> Result<InviteRow, sqlx::Error> {
    Ok(InviteRow {
        mesh: MeshId(column(row, 0)?),
        lookup: InviteLookup(column(row, 1)?),
        owner: PeerId(column(row, 2)?),
        exp: UnixMs(natural(row, 3)?),
        uses_left: u32::try_from(natural(row, 4)?).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

fn signed(row: &SqliteRow) -> Result<SignedBytes, sqlx::Error> {
    Ok(SignedBytes { stmt: row.try_get::<Vec<u8>, _>(0)?.into(), sig: Signature(column(row, 1)?) })
}

/// A byte column of fixed length.
pub(super) fn column<const N: usize>(row: &SqliteRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(|_| {
        sqlx::Error::Decode(format!("column {index} has {} bytes, expected {N}", bytes.len()).into())
    })
}

pub(super) fn natural(row: &SqliteRow, index: usize) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(index)?).map_err(|error| sqlx::Error::Decode(error.into()))
}
