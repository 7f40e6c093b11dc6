//! What the machine is rebuilt from at start and after a failure, and what it asks while it runs.

use bytes::Bytes;
use futures_util::TryStreamExt;
use peerloom_proto::endpoint::{HeldPrekey, HeldRow, OutboxRow, OutboxState, SeenRow, SentRow};
use peerloom_proto::limits::LOG_RETURN_MAX;
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{
    BoxSecretKey, EnvHash, Fingerprint, Generation, Kid, Message, MessageId, PeerId, RunId, Signature,
    StoreMark, UnixMs,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::columns::{array, damaged, int, time, to_generation, to_path, to_priority, to_state, uint};
use super::writer::LateReceipts;
use super::{StoreError, Writer};

/// A store's content that the machine keeps in memory.
#[derive(Debug)]
pub struct Loaded {
    /// The mesh log from index 0 on, whole wire entries.
    pub entries: Vec<Bytes>,
    /// This member's prekeys.
    pub prekeys: Vec<HeldPrekey>,
    /// The newest prekey known of each other member.
    pub peer_prekeys: Vec<(PeerId, SignedBytes)>,
    /// Revocations met off the log.
    pub revocations: Vec<SignedBytes>,
    /// Rows that are not settled, in order.
    pub outbox: Vec<OutboxRow>,
    /// Members whose late admission nobody confirmed yet.
    pub on_hold: Vec<PeerId>,
    /// Inbox rows held behind a gap.
    pub held: Vec<HeldRow>,
    /// The seq that surfaces next, for each inbound conversation.
    pub conversations: Vec<(PeerId, Generation, u64)>,
    /// The next seq towards each recipient.
    pub next_seqs: Vec<(PeerId, u64)>,
    /// Larger than every outbox row.
    pub next_outbox_row: u64,
    /// Larger than every inbox row.
    pub next_inbox_row: u64,
    /// Larger than every position.
    pub next_position: u64,
    /// This life of our conversation counters.
    pub generation: Generation,
    /// Key of the fingerprints.
    pub fp_secret: [u8; 32],
    /// Mail with exp at or below this is refused unless its row is there.
    pub floor: UnixMs,
    /// How far the coordinator's store had got when it last answered for something.
    pub coordinator_mark: Option<StoreMark>,
    /// Rows that are dead, expired or rejected and not requeued.
    pub failed: u64,
}

impl Loaded {
    pub(super) async fn read(conn: &mut SqliteConnection) -> Result<Self, StoreError> {
        let generation = meta::<Vec<u8>>(conn, "generation").await?;
        let fp_secret = meta::<Vec<u8>>(conn, "fp_secret").await?;
        let last_row_outbox = number(conn, "SELECT max(row) FROM outbox").await?;
        let last_row_inbox = number(conn, "SELECT max(row) FROM inbox").await?;
        let last_position = number(conn, "SELECT max(position) FROM inbox").await?;
        Ok(Self {
            entries: entries(conn).await?,
            prekeys: prekeys(conn).await?,
            peer_prekeys: peer_prekeys(conn).await?,
            revocations: revocations(conn).await?,
            outbox: outbox(conn).await?,
            on_hold: on_hold(conn).await?,
            held: held(conn).await?,
            conversations: conversations(conn).await?,
            next_seqs: next_seq(conn).await?,
            next_outbox_row: last_row_outbox + 1,
            next_inbox_row: last_row_inbox + 1,
            next_position: last_position + 1,
            generation: Generation(array(&generation, "meta.generation")?),
            fp_secret: array(&fp_secret, "meta.fp_secret")?,
            floor: time(meta::<i64>(conn, "floor").await?),
            coordinator_mark: coordinator_mark(conn).await?,
            failed: number(conn, FAILED).await?,
        })
    }
}

impl Writer {
    /// Every row ever sent under these ids, tombstones too; in the order asked.
    pub async fn sent(&mut self, ids: &[MessageId]) -> Result<Vec<Vec<SentRow>>, StoreError> {
        let mut found = vec![Vec::new(); ids.len()];
        for (ids, found) in ids.chunks(LOOKUPS_MAX).zip(found.chunks_mut(LOOKUPS_MAX)) {
            let sql = format!(
                "WITH asked (place, id) AS (VALUES {})
                 SELECT asked.place, peers.key, fp, state, code, replaced_by IS NOT NULL
                 FROM asked CROSS JOIN outbox USING (id) JOIN peers ON peers.peer = recipient",
                tuples(ids.len(), "(?,?)"),
            );
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(ids.len() == 1);
            for (id, place) in ids.iter().zip(0_i64..) {
                query = query.bind(place).bind(&id.0[..]);
            }
            for row in query.fetch_all(&mut self.conn).await? {
                let state = to_state(row.try_get(3)?, row.try_get(4)?)?;
                let sent = SentRow {
                    to: PeerId(blob(&row, 1)?),
                    fp: Fingerprint(blob(&row, 2)?),
                    state,
                    retired: row.try_get(5)?,
                };
                slot(found, &row)?.push(sent);
            }
        }
        Ok(found)
    }

    /// What is known of messages that came, in the order asked.
    pub async fn seen(&mut self, keys: &[(PeerId, MessageId)]) -> Result<Vec<Option<SeenRow>>, StoreError> {
        let mut found = vec![None; keys.len()];
        for (keys, found) in keys.chunks(LOOKUPS_MAX).zip(found.chunks_mut(LOOKUPS_MAX)) {
            let padded = keys.len().next_power_of_two().min(LOOKUPS_MAX);
            let sql = format!(
                "WITH asked (place, id, sender) AS (VALUES {})
                 SELECT asked.place, fp, surfaced.at IS NOT NULL
                 FROM asked CROSS JOIN inbox ON inbox.id = asked.id AND inbox.sender = asked.sender
                 LEFT JOIN surfaced ON surfaced.row = inbox.row",
                tuples(padded, "(?,?,?)"),
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for ((from, id), place) in keys.iter().zip(0_i64..) {
                // A sender without a number never wrote; no row has sender 0.
                let sender = self.peers.get(from).copied().unwrap_or(0);
                query = query.bind(place).bind(&id.0[..]).bind(sender);
            }
            for _ in keys.len()..padded {
                query = query.bind(0).bind(&[][..]).bind(0);
            }
            for row in query.fetch_all(&mut self.conn).await? {
                let seen = SeenRow { fp: Fingerprint(blob(&row, 1)?), surfaced: row.try_get(2)? };
                *slot(found, &row)? = Some(seen);
            }
        }
        Ok(found)
    }
}

const FAILED: &str = "SELECT count(*) FROM outbox_payload JOIN outbox USING (row)
                      WHERE state IN (4, 5, 6) AND replaced_by IS NULL";

impl Writer {
    /// Log entries from an index on, at most [`LOG_RETURN_MAX`].
    pub async fn entries(&mut self, from: u64) -> Result<Vec<Bytes>, StoreError> {
        let sql = "SELECT entry FROM log WHERE idx >= ? ORDER BY idx LIMIT ?";
        let query = sqlx::query(sql).bind(int(from)).bind(int(LOG_RETURN_MAX as u64));
        let rows = query.fetch_all(&mut self.conn).await?;
        rows.iter().map(|row| bytes(row, 0)).collect()
    }

    /// Rows that are dead, expired or rejected and not requeued.
    pub async fn failed(&mut self) -> Result<u64, StoreError> {
        number(&mut self.conn, FAILED).await
    }

    /// The rows that late receipts belong to: those with the bytes they name, unless they are known to
    /// be surfaced already.
    pub(super) async fn late_rows<'a>(
        &mut self,
        late: &LateReceipts<'a>,
    ) -> Result<Vec<(u64, (&'a OutboxState, UnixMs))>, StoreError> {
        let late: Vec<_> = late.iter().collect();
        let mut found = Vec::new();
        for late in late.chunks(LOOKUPS_MAX) {
            let padded = late.len().next_power_of_two().min(LOOKUPS_MAX);
            let sql = format!(
                "WITH late (place, id, recipient, env_hash) AS (VALUES {})
                 SELECT late.place, outbox.row FROM late CROSS JOIN outbox USING (id, recipient, env_hash)
                 WHERE outbox.state <> 3",
                tuples(padded, "(?,?,?,?)"),
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (((id, to, env_hash), _), place) in late.iter().zip(0_i64..) {
                // Who has no number was never written to; no row has recipient 0.
                let recipient = self.peers.get(to).copied().unwrap_or(0);
                query = query.bind(place).bind(&id.0[..]).bind(recipient).bind(&env_hash.0[..]);
            }
            for _ in late.len()..padded {
                query = query.bind(0).bind(&[][..]).bind(0).bind(&[][..]);
            }
            for row in query.fetch_all(&mut self.conn).await? {
                let place: i64 = row.try_get(0)?;
                let place = usize::try_from(place).map_err(|_| damaged("place"))?;
                let (_, moved) = late.get(place).ok_or_else(|| damaged("place"))?;
                found.push((uint(row.try_get(1)?), **moved));
            }
        }
        Ok(found)
    }

    /// Outbox rows, whole. Rows that are gone are left out.
    pub async fn load(&mut self, rows: &[u64]) -> Result<Vec<OutboxRow>, StoreError> {
        let mut found = Vec::new();
        for chunk in rows.chunks(LOOKUPS_MAX) {
            let sql = format!("{OUTBOX_ROWS} WHERE outbox_payload.row IN ({})", tuples(chunk.len(), "?"));
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            for row in chunk {
                query = query.bind(int(*row));
            }
            for row in query.fetch_all(&mut self.conn).await? {
                found.push(outbox_row(&row)?);
            }
        }
        Ok(found)
    }
}

/// Keys of one lookup query; three variables each stay far below SQLite's 32,766.
const LOOKUPS_MAX: usize = 256;

fn tuples(count: usize, tuple: &str) -> String {
    vec![tuple; count].join(",")
}

fn slot<'a, T>(found: &'a mut [T], row: &SqliteRow) -> Result<&'a mut T, StoreError> {
    let place: i64 = row.try_get(0)?;
    let place = usize::try_from(place).map_err(|_| damaged("place"))?;
    found.get_mut(place).ok_or_else(|| damaged("place"))
}

/// A fixed-length blob of a row.
pub(super) fn blob<const N: usize>(row: &SqliteRow, column: usize) -> Result<[u8; N], StoreError> {
    array(row.try_get::<&[u8], _>(column)?, "a fixed-length blob")
}

/// The same where the column may be empty.
pub(super) fn maybe_blob<const N: usize>(
    row: &SqliteRow,
    column: usize,
) -> Result<Option<[u8; N]>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(|bytes| array(bytes, "a fixed-length blob")).transpose()
}

/// Bytes of any length.
pub(super) fn bytes(row: &SqliteRow, column: usize) -> Result<Bytes, StoreError> {
    Ok(Bytes::from(row.try_get::<Vec<u8>, _>(column)?))
}

fn signed(row: &SqliteRow, stmt: usize, sig: usize) -> Result<SignedBytes, StoreError> {
    Ok(SignedBytes { stmt: bytes(row, stmt)?, sig: Signature(blob(row, sig)?) })
}

async fn meta<T>(conn: &mut SqliteConnection, key: &'static str) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
{
    maybe_meta(conn, key).await?.ok_or_else(|| damaged(key))
}

async fn maybe_meta<T>(conn: &mut SqliteConnection, key: &'static str) -> Result<Option<T>, StoreError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
{
    let found = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?").bind(key);
    Ok(found.fetch_optional(conn).await?)
}

/// None until a coordinator told of one.
async fn coordinator_mark(conn: &mut SqliteConnection) -> Result<Option<StoreMark>, StoreError> {
    let Some(run) = maybe_meta::<Vec<u8>>(conn, "coordinator_run").await? else { return Ok(None) };
    let commit = uint(meta::<i64>(conn, "coordinator_commit").await?);
    Ok(Some(StoreMark { run: RunId(array(&run, "meta.coordinator_run")?), commit }))
}

async fn number(conn: &mut SqliteConnection, sql: &'static str) -> Result<u64, StoreError> {
    let found: Option<i64> = sqlx::query_scalar(sql).fetch_one(conn).await?;
    Ok(found.map_or(0, uint))
}

async fn rows(conn: &mut SqliteConnection, sql: &'static str) -> Result<Vec<SqliteRow>, StoreError> {
    Ok(sqlx::query(sql).fetch_all(conn).await?)
}

async fn entries(conn: &mut SqliteConnection) -> Result<Vec<Bytes>, StoreError> {
    let mut entries = Vec::new();
    for row in rows(conn, "SELECT idx, entry FROM log ORDER BY idx").await? {
        let index: i64 = row.try_get(0)?;
        if usize::try_from(index) != Ok(entries.len()) {
            return Err(StoreError::Corrupt { what: format!("log entry {} is missing", entries.len()) });
        }
        entries.push(bytes(&row, 1)?);
    }
    Ok(entries)
}

async fn prekeys(conn: &mut SqliteConnection) -> Result<Vec<HeldPrekey>, StoreError> {
    let mut prekeys = Vec::new();
    for row in rows(conn, "SELECT kid, secret, exp, stmt, sig FROM prekeys ORDER BY exp").await? {
        let has_statement = row.try_get::<Option<&[u8]>, _>(3)?.is_some();
        prekeys.push(HeldPrekey {
            kid: Kid(blob(&row, 0)?),
            secret: BoxSecretKey::from_bytes(blob(&row, 1)?),
            exp: time(row.try_get(2)?),
            signed: if has_statement { Some(signed(&row, 3, 4)?) } else { None },
        });
    }
    Ok(prekeys)
}

async fn peer_prekeys(conn: &mut SqliteConnection) -> Result<Vec<(PeerId, SignedBytes)>, StoreError> {
    let sql = "SELECT key, stmt, sig FROM peer_prekeys JOIN peers USING (peer) ORDER BY peer";
    let rows = rows(conn, sql).await?;
    rows.iter().map(|row| Ok((PeerId(blob(row, 0)?), signed(row, 1, 2)?))).collect()
}

async fn revocations(conn: &mut SqliteConnection) -> Result<Vec<SignedBytes>, StoreError> {
    let rows = rows(conn, "SELECT stmt, sig FROM revocations").await?;
    rows.iter().map(|row| signed(row, 0, 1)).collect()
}

/// Unsettled rows. Content and sealed bytes beyond [`HOT_BYTES_MAX`] stay on disk and are loaded when
/// their turn comes.
async fn outbox(conn: &mut SqliteConnection) -> Result<Vec<OutboxRow>, StoreError> {
    let sql = AssertSqlSafe(format!("{OUTBOX_ROWS} WHERE state IN (0, 1) ORDER BY row"));
    let mut unsettled = Vec::new();
    let mut hot = 0;
    let mut rows = sqlx::query(sql).fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let mut row = outbox_row(&row)?;
        hot += row.wire.len() + row.message.content.len();
        if hot > HOT_BYTES_MAX {
            row.wire = Bytes::new();
            row.message.content = Bytes::new();
        }
        unsettled.push(row);
    }
    Ok(unsettled)
}

const OUTBOX_ROWS: &str =
    "SELECT row, id, peers.key, fp, generation, seq, ts, exp, priority, state, code, env_hash, \
     kid, seals, path, wire, content_type, content, reply_to
     FROM outbox_payload CROSS JOIN outbox USING (row) JOIN peers ON peers.peer = recipient";

/// Bytes of unsettled mail that are read at start; what the machine itself keeps at most.
const HOT_BYTES_MAX: usize = 64 << 20;

fn outbox_row(row: &SqliteRow) -> Result<OutboxRow, StoreError> {
    Ok(OutboxRow {
        row: uint(row.try_get(0)?),
        id: MessageId(blob(row, 1)?),
        to: PeerId(blob(row, 2)?),
        fp: Fingerprint(blob(row, 3)?),
        generation: to_generation(row.try_get(4)?),
        seq: uint(row.try_get(5)?),
        ts: time(row.try_get(6)?),
        exp: time(row.try_get(7)?),
        priority: to_priority(row.try_get(8)?)?,
        state: to_state(row.try_get(9)?, row.try_get(10)?)?,
        env_hash: EnvHash(blob(row, 11)?),
        kid: Kid(blob(row, 12)?),
        seals: u32::try_from(row.try_get::<i64, _>(13)?).map_err(|_| damaged("seals"))?,
        path: row.try_get::<Option<i64>, _>(14)?.map(to_path).transpose()?,
        wire: bytes(row, 15)?,
        message: message(row, 16)?,
    })
}

/// Content type, content and reply_to from `column` on.
pub(super) fn message(row: &SqliteRow, column: usize) -> Result<Message, StoreError> {
    Ok(Message {
        content_type: row.try_get(column)?,
        content: bytes(row, column + 1)?,
        reply_to: maybe_blob(row, column + 2)?.map(MessageId),
    })
}

async fn on_hold(conn: &mut SqliteConnection) -> Result<Vec<PeerId>, StoreError> {
    let rows = rows(conn, "SELECT key FROM holds JOIN peers USING (peer) ORDER BY peer").await?;
    rows.iter().map(|row| blob(row, 0).map(PeerId)).collect()
}

async fn held(conn: &mut SqliteConnection) -> Result<Vec<HeldRow>, StoreError> {
    let sql = "SELECT row, key, generation, seq, exp FROM inbox JOIN peers ON peers.peer = sender
               WHERE position IS NULL ORDER BY row";
    let rows = rows(conn, sql).await?;
    let held = rows.iter().map(|row| {
        Ok(HeldRow {
            row: uint(row.try_get(0)?),
            from: PeerId(blob(row, 1)?),
            generation: to_generation(row.try_get(2)?),
            seq: uint(row.try_get(3)?),
            exp: time(row.try_get(4)?),
        })
    });
    held.collect()
}

async fn conversations(conn: &mut SqliteConnection) -> Result<Vec<(PeerId, Generation, u64)>, StoreError> {
    let sql = "SELECT key, generation, next FROM conversations JOIN peers ON peers.peer = sender
               ORDER BY sender, generation";
    let rows = rows(conn, sql).await?;
    let conversations = rows
        .iter()
        .map(|row| Ok((PeerId(blob(row, 0)?), to_generation(row.try_get(1)?), uint(row.try_get(2)?))));
    conversations.collect()
}

async fn next_seq(conn: &mut SqliteConnection) -> Result<Vec<(PeerId, u64)>, StoreError> {
    let sql = "SELECT key, next FROM sequences JOIN peers ON peers.peer = recipient ORDER BY recipient";
    let rows = rows(conn, sql).await?;
    rows.iter().map(|row| Ok((PeerId(blob(row, 0)?), uint(row.try_get(1)?)))).collect()
}
