//! The one writing connection. A batch of the machine's writes is one transaction: rows first, then
//! what happened to rows, then everything else.

use std::collections::BTreeMap;

use peerloom_proto::endpoint::{InboxRow, OutboxRow, OutboxState, PathKind, Row, Write};
use peerloom_proto::{EnvHash, Generation, MessageId, PeerId, UnixMs};
use sqlx::{Executor, SqliteConnection};

use super::columns::{self, int};
use super::rows::ManyRows;
use super::{LocalWrite, StoreError, close};

mod single;

/// Commits batches. Not shared: the engine's thread owns it.
#[derive(Debug)]
pub struct Writer {
    pub(super) conn: SqliteConnection,
    statements: Statements,
    pub(super) peers: BTreeMap<PeerId, i64>,
}

#[derive(Debug)]
struct Statements {
    peer: ManyRows,
    outbox: ManyRows,
    payload: ManyRows,
    sequence: ManyRows,
    state: ManyRows,
    payload_gone: ManyRows,
    inbox: ManyRows,
    release: ManyRows,
    surfaced: ManyRows,
    conversation: ManyRows,
}

/// Receipts for rows that were settled before, by the bytes they name.
pub(super) type LateReceipts<'a> = BTreeMap<(MessageId, PeerId, EnvHash), (&'a OutboxState, UnixMs)>;

/// A batch sorted by table. Later states of the same row replace earlier ones.
#[derive(Default)]
struct Sorted<'a> {
    outbox: Vec<&'a OutboxRow>,
    sequences: BTreeMap<PeerId, u64>,
    states: BTreeMap<Row, (&'a OutboxState, Option<PathKind>, UnixMs)>,
    delivered: Vec<Row>,
    late: LateReceipts<'a>,
    inbox: Vec<&'a InboxRow>,
    releases: Vec<(Row, u64)>,
    surfaced: Vec<(Row, UnixMs)>,
    conversations: BTreeMap<(PeerId, Generation), u64>,
    others: Vec<&'a Write>,
}

impl Writer {
    pub(super) async fn new(mut conn: SqliteConnection) -> Result<Self, StoreError> {
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT peer, key FROM peers").fetch_all(&mut conn).await?;
        let mut peers = BTreeMap::new();
        for (peer, key) in rows {
            peers.insert(PeerId(columns::array(&key, "peers.key")?), peer);
        }
        Ok(Self { conn, statements: Statements::new(), peers })
    }

    /// Makes all changes durable together, or none of them. `now` dates what has no time of its own.
    ///
    /// # Errors
    /// After any error the writer must be opened anew: the store is as it was before the call.
    pub async fn commit(
        &mut self,
        writes: &[Write],
        local: &[LocalWrite],
        now: UnixMs,
    ) -> Result<(), StoreError> {
        if writes.is_empty() && local.is_empty() {
            return Ok(());
        }
        self.conn.execute("BEGIN IMMEDIATE").await?;
        let done = self.apply(writes, local, now).await;
        let done = match done {
            Ok(()) => self.conn.execute("COMMIT").await.map(|_| ()).map_err(StoreError::from),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // SQLite may have rolled back already (a full disk); then this fails, and that is fine.
            if let Err(error) = self.conn.execute("ROLLBACK").await {
                tracing::debug!(%error, "No transaction to roll back.");
            }
        }
        done
    }

    /// Closes the connection; the WAL is copied into the file if this was the last one.
    pub async fn close(self) -> Result<(), StoreError> {
        close(self.conn).await
    }

    /// Limits the file to so many pages, at least those it has: the tests' full disk. Gives the limit.
    #[cfg(test)]
    pub(crate) async fn limit_pages(&mut self, pages: i64) -> Result<i64, StoreError> {
        let sql = format!("PRAGMA max_page_count = {pages}");
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.conn).await?)
    }

    /// How SQLite means to run the updates of many rows, a list of steps each.
    #[cfg(test)]
    pub(super) async fn plans(&mut self) -> Vec<Vec<String>> {
        let Self { conn, statements, .. } = self;
        let mut plans = Vec::new();
        for many in [&statements.state, &statements.release, &statements.payload_gone] {
            let sql = format!("EXPLAIN QUERY PLAN {}", many.largest());
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *conn).await.unwrap();
            plans.push(steps.into_iter().map(|step| step.3).collect());
        }
        plans
    }

    async fn apply(&mut self, writes: &[Write], local: &[LocalWrite], now: UnixMs) -> Result<(), StoreError> {
        let sorted = Sorted::from(writes);
        self.number_peers(&sorted).await?;
        self.insert_outbox(&sorted).await?;
        self.move_outbox(&sorted).await?;
        self.insert_inbox(&sorted).await?;
        for write in &sorted.others {
            self.single(write).await?;
        }
        for write in local {
            self.local(write, now).await?;
        }
        Ok(())
    }

    async fn number_peers(&mut self, sorted: &Sorted<'_>) -> Result<(), StoreError> {
        let senders = sorted.inbox.iter().map(|row| row.from);
        let spoken = sorted.conversations.keys().map(|(from, _)| *from);
        let offered = sorted.others.iter().filter_map(|write| single::peer_of(write));
        let named = sorted.sequences.keys().copied().chain(senders).chain(spoken).chain(offered);
        let mut fresh = Vec::new();
        for peer in named {
            if !self.peers.contains_key(&peer) {
                let number = int(self.peers.len() as u64) + 1;
                self.peers.insert(peer, number);
                fresh.push((number, peer));
            }
        }
        let bind = |(number, peer): &(i64, PeerId), row: &mut super::rows::Row<'_>| {
            row.int(*number).blob(&peer.0);
        };
        self.statements.peer.run(&mut self.conn, &fresh, bind).await
    }

    async fn insert_outbox(&mut self, sorted: &Sorted<'_>) -> Result<(), StoreError> {
        let Self { conn, statements, peers } = self;
        statements
            .outbox
            .run(conn, &sorted.outbox, |row, values| {
                values.int(int(row.row)).blob(&row.id.0).int(number(peers, &row.to)).blob(&row.fp.0);
                values.int(columns::generation(row.generation)).int(int(row.seq));
                values.int(int(row.ts.0)).int(int(row.exp.0)).int(columns::priority(row.priority));
                values.int(columns::state(&row.state)).maybe_text(row.state.code());
                values.maybe_int(row.path.map(columns::path)).int(int(row.ts.0));
                values.blob(&row.env_hash.0).blob(&row.kid.0).int(i64::from(row.seals));
            })
            .await?;
        statements
            .payload
            .run(conn, &sorted.outbox, |row, values| {
                values.int(int(row.row)).text(&row.message.content_type).blob(&row.message.content);
                values.maybe_blob(row.message.reply_to.as_ref().map(MessageId::as_ref)).blob(&row.wire);
            })
            .await?;
        let sequences: Vec<_> = sorted.sequences.iter().collect();
        statements
            .sequence
            .run(conn, &sequences, |(peer, next), values| {
                values.int(number(peers, peer)).int(int(**next));
            })
            .await
    }

    async fn move_outbox(&mut self, sorted: &Sorted<'_>) -> Result<(), StoreError> {
        let mut states: Vec<_> = sorted.states.iter().map(|(row, moved)| (*row, *moved)).collect();
        let mut delivered = sorted.delivered.clone();
        for (row, (state, at)) in self.late_rows(&sorted.late).await? {
            states.push((row, (state, None, at)));
            delivered.push(row);
        }
        let Self { conn, statements, .. } = self;
        statements
            .state
            .run(conn, &states, |(row, (state, path, at)), values| {
                values.int(int(*row)).int(columns::state(state)).maybe_text(state.code());
                values.maybe_int(path.map(columns::path)).int(int(at.0));
            })
            .await?;
        statements
            .payload_gone
            .run(conn, &delivered, |row, values| {
                values.int(int(*row));
            })
            .await
    }

    async fn insert_inbox(&mut self, sorted: &Sorted<'_>) -> Result<(), StoreError> {
        let Self { conn, statements, peers } = self;
        statements
            .inbox
            .run(conn, &sorted.inbox, |row, values| {
                values.int(int(row.row)).maybe_int(row.position.map(int)).int(number(peers, &row.from));
                values.blob(&row.id.0).blob(&row.fp.0).blob(&row.env_hash.0);
                values.int(columns::generation(row.generation)).int(int(row.seq));
                values.int(columns::priority(row.priority)).int(int(row.sent_at.0)).int(int(row.exp.0));
                values.int(int(row.received_at.0)).int(columns::path(row.path));
                values.maybe_blob(row.message.reply_to.as_ref().map(MessageId::as_ref));
                values.text(&row.message.content_type).blob(&row.message.content);
            })
            .await?;
        statements
            .release
            .run(conn, &sorted.releases, |(row, position), values| {
                values.int(int(*row)).int(int(*position));
            })
            .await?;
        statements
            .surfaced
            .run(conn, &sorted.surfaced, |(row, at), values| {
                values.int(int(*row)).int(int(at.0));
            })
            .await?;
        let conversations: Vec<_> = sorted.conversations.iter().collect();
        statements
            .conversation
            .run(conn, &conversations, |((from, generation), next), values| {
                values.int(number(peers, from)).int(columns::generation(*generation)).int(int(**next));
            })
            .await
    }
}

impl<'a> From<&'a [Write]> for Sorted<'a> {
    fn from(writes: &'a [Write]) -> Self {
        let mut sorted = Self::default();
        for write in writes {
            match write {
                Write::Outbox(row) => {
                    let next = sorted.sequences.entry(row.to).or_default();
                    *next = (row.seq + 1).max(*next);
                    sorted.outbox.push(row);
                }
                Write::OutboxState { row, state, path, at } => {
                    let before = sorted.states.get(row).and_then(|(_, path, _)| *path);
                    sorted.states.insert(*row, (state, path.or(before), *at));
                    if is_delivered(state) {
                        sorted.delivered.push(*row);
                    }
                }
                Write::LateReceipt { id, to, env_hash, state, at } => {
                    let found = sorted.late.entry((*id, *to, *env_hash)).or_insert((state, *at));
                    if *state == OutboxState::Surfaced {
                        *found = (state, *at);
                    }
                }
                Write::Inbox(row) => sorted.inbox.push(row),
                Write::Release { row, position } => sorted.releases.push((*row, *position)),
                Write::Surfaced { row, at } => sorted.surfaced.push((*row, *at)),
                Write::Conversation { from, generation, next } => {
                    sorted.conversations.insert((*from, *generation), *next);
                }
                Write::Retire { row, .. } => {
                    sorted.delivered.push(*row);
                    sorted.others.push(write);
                }
                Write::Reseal { .. }
                | Write::Entry { .. }
                | Write::Prekey(_)
                | Write::PrekeyGone(_)
                | Write::PeerPrekey { .. }
                | Write::Hold(_)
                | Write::Unhold(_)
                | Write::Floor(_)
                | Write::CoordinatorMark(_)
                | Write::Revocation(_) => sorted.others.push(write),
            }
        }
        sorted
    }
}

/// Whether nobody will want the content again: the recipient has it, or it was called off.
fn is_delivered(state: &OutboxState) -> bool {
    match state {
        OutboxState::Stored | OutboxState::Surfaced | OutboxState::Aborted => true,
        OutboxState::Pending
        | OutboxState::InFlight
        | OutboxState::Accepted
        | OutboxState::Rejected(_)
        | OutboxState::Expired(_)
        | OutboxState::Dead(_) => false,
    }
}

fn number(peers: &BTreeMap<PeerId, i64>, peer: &PeerId) -> i64 {
    *peers.get(peer).expect("every peer of a batch was numbered before its rows")
}

impl Statements {
    fn new() -> Self {
        Self {
            peer: ManyRows::new("INSERT INTO peers (peer, key) VALUES", 2, ""),
            outbox: ManyRows::new(
                "INSERT INTO outbox (row, id, recipient, fp, generation, seq, ts, exp, priority, state, code, \
                 path, state_at, env_hash, kid, seals) VALUES",
                16,
                "",
            ),
            payload: ManyRows::new(
                "INSERT INTO outbox_payload (row, content_type, content, reply_to, wire) VALUES",
                5,
                "",
            ),
            sequence: ManyRows::new(
                "INSERT INTO sequences (recipient, next) VALUES",
                2,
                "ON CONFLICT DO UPDATE SET next = max(next, excluded.next)",
            ),
            state: ManyRows::new(
                "WITH moved (row, state, code, path, at) AS (VALUES",
                5,
                ") UPDATE outbox SET state = moved.state, code = moved.code, \
                 path = coalesce(moved.path, outbox.path), state_at = moved.at \
                 FROM moved WHERE outbox.row = moved.row",
            ),
            payload_gone: ManyRows::new("DELETE FROM outbox_payload WHERE row IN (VALUES", 1, ")"),
            inbox: ManyRows::new(
                "INSERT INTO inbox (row, position, sender, id, fp, env_hash, generation, seq, priority, sent_at, \
                 exp, received_at, path, reply_to, content_type, content) VALUES",
                16,
                "",
            ),
            release: ManyRows::new(
                "WITH released (row, position) AS (VALUES",
                2,
                ") UPDATE inbox SET position = released.position FROM released WHERE inbox.row = released.row",
            ),
            surfaced: ManyRows::new("INSERT OR IGNORE INTO surfaced (row, at) VALUES", 2, ""),
            conversation: ManyRows::new(
                "INSERT INTO conversations (sender, generation, next) VALUES",
                3,
                "ON CONFLICT DO UPDATE SET next = excluded.next",
            ),
        }
    }
}
