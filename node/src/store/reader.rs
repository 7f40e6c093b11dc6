//! Reading connections for the local API. They see what is committed and hold up nobody.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use peerloom_proto::endpoint::{RequeueRow, SurfacedRow};
use peerloom_proto::{EnvHash, Fingerprint, InviteId, InviteLookup, MessageId, PeerId};
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Row, SqlitePool};

use super::columns::{int, time, to_path, to_priority, to_state, uint};
use super::load::{blob, maybe_blob, message};
use super::{StoreError, reading_options};
use crate::views::{
    INBOX_LIMIT_DEFAULT, INBOX_LIMIT_MAX, INBOX_PAGE_BYTES_MAX, InboxMessage, InboxQuery, InviteRecord,
    OutboxFilter, OutboxItem, OutboxQuery, RecipientStatus, RequeueSelector,
};

/// A few reading connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pool: SqlitePool,
}

impl Reader {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new().min_connections(0).max_connections(CONNECTIONS_MAX);
        // A connection in a deleted or replaced file would read old rows for ever.
        let pool = pool.idle_timeout(Some(IDLE)).test_before_acquire(false);
        Ok(Self { pool: pool.connect_with(reading_options(path)).await? })
    }

    /// Closes every connection once its reader is done.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Messages by position. A page ends early once its content reaches [`INBOX_PAGE_BYTES_MAX`].
    pub async fn inbox(&self, query: &InboxQuery) -> Result<Vec<InboxMessage>, StoreError> {
        let limit = match query.limit {
            0 => INBOX_LIMIT_DEFAULT,
            wanted => wanted.min(INBOX_LIMIT_MAX),
        };
        let cursor = match &query.unread_for_cursor {
            Some(name) => Some(self.cursor(name).await?),
            None => None,
        };
        let after = query.after_position.max(cursor);
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let from =
            if query.from.is_some() { "AND sender = (SELECT peer FROM peers WHERE key = ?3)" } else { "" };
        let sql = format!(
            "SELECT position, peers.key, id, priority, sent_at, received_at, inbox.path, surfaced.at,
                    content_type, content, reply_to
             FROM inbox JOIN peers ON peers.peer = sender LEFT JOIN surfaced ON surfaced.row = inbox.row
             WHERE position > ?1 {from} ORDER BY position {order} LIMIT ?2",
        );
        let sql = sqlx::query(AssertSqlSafe(sql)).bind(int(after.unwrap_or(0))).bind(i64::from(limit));
        let sql = match &query.from {
            Some(from) => sql.bind(from.0.to_vec()),
            None => sql,
        };
        let mut messages = Vec::new();
        let mut size = 0;
        let mut rows = sql.fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let message = inbox_message(&row)?;
            size += message.content.len();
            messages.push(message);
            if size >= INBOX_PAGE_BYTES_MAX {
                break;
            }
        }
        if after.is_none() {
            messages.reverse();
        }
        Ok(messages)
    }

    /// The largest position given; 0 in an empty inbox.
    pub async fn newest_position(&self) -> Result<u64, StoreError> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT max(position) FROM inbox").fetch_one(&self.pool).await?;
        Ok(newest.map_or(0, uint))
    }

    /// Where a named cursor stands; 0 for one that never moved.
    pub async fn cursor(&self, name: &str) -> Result<u64, StoreError> {
        let found = sqlx::query_scalar("SELECT position FROM cursors WHERE name = ?").bind(name);
        let found: Option<i64> = found.fetch_optional(&self.pool).await?;
        Ok(found.map_or(0, uint))
    }

    /// Messages up to `position` that no cursor passed yet.
    pub async fn unsurfaced(&self, position: u64) -> Result<Vec<SurfacedRow>, StoreError> {
        // Everything up to the furthest cursor was surfaced in the commit that moved it there.
        let sql = "SELECT row, key, id, env_hash FROM inbox JOIN peers ON peers.peer = sender
                   WHERE position > (SELECT coalesce(max(position), 0) FROM cursors) AND position <= ?
                     AND NOT EXISTS (SELECT 1 FROM surfaced WHERE surfaced.row = inbox.row)
                   ORDER BY position";
        let rows = sqlx::query(sql).bind(int(position)).fetch_all(&self.pool).await?;
        let surfaced = rows.iter().map(|row| {
            Ok(SurfacedRow {
                row: uint(row.try_get(0)?),
                from: PeerId(blob(row, 1)?),
                id: MessageId(blob(row, 2)?),
                env_hash: EnvHash(blob(row, 3)?),
            })
        });
        surfaced.collect()
    }

    /// Rows of the outbox, newest first.
    pub async fn outbox(&self, query: &OutboxQuery) -> Result<Vec<OutboxItem>, StoreError> {
        let limit = if query.limit == 0 { OUTBOX_LIMIT_DEFAULT } else { query.limit };
        // What is unsettled or failed has a payload, which is far less than every row ever sent.
        let (payload, choice) = match query.filter {
            OutboxFilter::All => ("", "true"),
            OutboxFilter::Unsettled => ("JOIN outbox_payload USING (row)", "state IN (0, 1)"),
            OutboxFilter::Failed => {
                ("JOIN outbox_payload USING (row)", "state IN (4, 5, 6) AND replaced_by IS NULL")
            }
            OutboxFilter::Delivered => ("", "state IN (2, 3)"),
        };
        let sql = format!(
            "SELECT id, key, state, code, path, state_at, ts, exp, priority, replaced_by
             FROM outbox {payload} JOIN peers ON peers.peer = recipient
             WHERE {choice} ORDER BY row DESC LIMIT ?",
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        rows.iter().map(outbox_item).collect()
    }

    /// What became of a send, each recipient in the order it was named.
    pub async fn message(&self, id: MessageId) -> Result<Vec<RecipientStatus>, StoreError> {
        let sql = "SELECT key, state, code, path, state_at, fp, replaced_by
                   FROM outbox JOIN peers ON peers.peer = recipient WHERE id = ? ORDER BY row";
        let rows = sqlx::query(sql).bind(&id.0[..]).fetch_all(&self.pool).await?;
        rows.iter().map(recipient_status).collect()
    }

    /// Failed rows with what is needed to send them again.
    pub async fn failed(&self, selector: &RequeueSelector) -> Result<Vec<RequeueRow>, StoreError> {
        let sql = "SELECT row, id, key, priority, ts, exp, content_type, content, reply_to
                   FROM outbox_payload JOIN outbox USING (row) JOIN peers ON peers.peer = recipient
                   WHERE state IN (4, 5, 6) AND replaced_by IS NULL ORDER BY row";
        let mut failed = Vec::new();
        for row in sqlx::query(sql).fetch_all(&self.pool).await? {
            let found = requeue_row(&row)?;
            let wanted = match selector {
                RequeueSelector::All => true,
                RequeueSelector::Ids(ids) => ids.contains(&found.id),
            };
            if wanted {
                failed.push(found);
            }
        }
        Ok(failed)
    }

    /// The invites this node made, newest first; how often each was used is the log's to say.
    pub async fn invites(&self) -> Result<Vec<InviteRecord>, StoreError> {
        let sql = "SELECT id, lookup, url, created_at, exp, uses FROM invites ORDER BY created_at DESC, id";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let invites = rows.iter().map(|row| {
            Ok(InviteRecord {
                id: InviteId(blob(row, 0)?),
                lookup: InviteLookup(blob(row, 1)?),
                url: row.try_get(2)?,
                created_at: time(row.try_get(3)?),
                exp: time(row.try_get(4)?),
                uses: uint(row.try_get(5)?),
                used: 0,
            })
        });
        invites.collect()
    }
}

fn inbox_message(row: &SqliteRow) -> Result<InboxMessage, StoreError> {
    let message = message(row, 8)?;
    Ok(InboxMessage {
        position: uint(row.try_get(0)?),
        from: PeerId(blob(row, 1)?),
        id: MessageId(blob(row, 2)?),
        priority: to_priority(row.try_get(3)?)?,
        sent_at: time(row.try_get(4)?),
        received_at: time(row.try_get(5)?),
        path: to_path(row.try_get(6)?)?,
        surfaced_at: row.try_get::<Option<i64>, _>(7)?.map(time),
        content_type: message.content_type,
        content: message.content,
        reply_to: message.reply_to,
    })
}

fn outbox_item(row: &SqliteRow) -> Result<OutboxItem, StoreError> {
    Ok(OutboxItem {
        id: MessageId(blob(row, 0)?),
        to: PeerId(blob(row, 1)?),
        state: to_state(row.try_get(2)?, row.try_get(3)?)?,
        path: row.try_get::<Option<i64>, _>(4)?.map(to_path).transpose()?,
        at: time(row.try_get(5)?),
        created_at: time(row.try_get(6)?),
        exp: time(row.try_get(7)?),
        priority: to_priority(row.try_get(8)?)?,
        replaced_by: maybe_blob(row, 9)?.map(MessageId),
    })
}

fn recipient_status(row: &SqliteRow) -> Result<RecipientStatus, StoreError> {
    let state = to_state(row.try_get(1)?, row.try_get(2)?)?;
    Ok(RecipientStatus {
        to: PeerId(blob(row, 0)?),
        code: state.code().map(str::to_owned),
        state,
        path: row.try_get::<Option<i64>, _>(3)?.map(to_path).transpose()?,
        at: time(row.try_get(4)?),
        fp: Fingerprint(blob(row, 5)?),
        replaced_by: maybe_blob(row, 6)?.map(MessageId),
    })
}

fn requeue_row(row: &SqliteRow) -> Result<RequeueRow, StoreError> {
    let (ts, exp) = (time(row.try_get(4)?), time(row.try_get(5)?));
    Ok(RequeueRow {
        row: uint(row.try_get(0)?),
        id: MessageId(blob(row, 1)?),
        to: PeerId(blob(row, 2)?),
        priority: to_priority(row.try_get(3)?)?,
        life: exp.since(ts),
        message: message(row, 6)?,
    })
}

/// API calls read one at a time each; more than this many wait.
const CONNECTIONS_MAX: u32 = 4;

/// An unused connection is given back after this.
const IDLE: Duration = Duration::from_secs(60);

/// Rows of the outbox one query gives when it names no limit.
const OUTBOX_LIMIT_DEFAULT: u32 = 100;
