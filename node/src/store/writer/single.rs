//! Writes that come one at a time: log entries, keys, revocations, cursors, invites.

use peerloom_proto::endpoint::{HeldPrekey, Write};
use peerloom_proto::{PeerId, UnixMs};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, query::Query};

use super::{Writer, number};
use crate::store::columns::int;
use crate::store::{LocalWrite, StoreError};

/// The peer that a single write names by number.
pub(super) fn peer_of(write: &Write) -> Option<PeerId> {
    match write {
        Write::PeerPrekey { peer, .. } | Write::Hold(peer) | Write::Unhold(peer) => Some(*peer),
        Write::Outbox(_)
        | Write::Reseal { .. }
        | Write::OutboxState { .. }
        | Write::LateReceipt { .. }
        | Write::Retire { .. }
        | Write::Inbox(_)
        | Write::Release { .. }
        | Write::Surfaced { .. }
        | Write::Conversation { .. }
        | Write::Entry { .. }
        | Write::Prekey(_)
        | Write::PrekeyGone(_)
        | Write::Floor(_)
        | Write::CoordinatorMark(_)
        | Write::Revocation(_) => None,
    }
}

impl Writer {
    /// Gives a new store its random values.
    pub(in crate::store) async fn found(
        &mut self,
        generation: [u8; 8],
        fp_secret: [u8; 32],
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('generation', ?), ('fp_secret', ?), ('floor', 0)";
        self.run(sqlx::query(sql).bind(&generation[..]).bind(&fp_secret[..])).await
    }

    pub(super) async fn single(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Reseal { row, wire, env_hash, kid, seals } => {
                let sql = "UPDATE outbox SET env_hash = ?, kid = ?, seals = ? WHERE row = ?";
                let query = sqlx::query(sql).bind(&env_hash.0[..]).bind(&kid.0[..]);
                self.run(query.bind(i64::from(*seals)).bind(int(*row))).await?;
                let sql = "UPDATE outbox_payload SET wire = ? WHERE row = ?";
                self.run(sqlx::query(sql).bind(&wire[..]).bind(int(*row))).await
            }
            Write::Retire { row, replaced_by } => {
                let sql = "UPDATE outbox SET replaced_by = ? WHERE row = ?";
                self.run(sqlx::query(sql).bind(&replaced_by.0[..]).bind(int(*row))).await
            }
            Write::Entry { index, entry } => {
                let sql = "INSERT INTO log (idx, entry) VALUES (?, ?)";
                self.run(sqlx::query(sql).bind(int(*index)).bind(&entry[..])).await
            }
            Write::Prekey(prekey) => self.prekey(prekey).await,
            Write::PrekeyGone(kid) => {
                // The same length, so the bytes are overwritten where they stand; then the row goes.
                let sql = "UPDATE prekeys SET secret = zeroblob(32) WHERE kid = ?";
                self.run(sqlx::query(sql).bind(&kid.0[..])).await?;
                self.run(sqlx::query("DELETE FROM prekeys WHERE kid = ?").bind(&kid.0[..])).await
            }
            Write::PeerPrekey { peer, prekey } => {
                let sql = "INSERT OR REPLACE INTO peer_prekeys (peer, stmt, sig) VALUES (?, ?, ?)";
                let query = sqlx::query(sql).bind(number(&self.peers, peer));
                self.run(query.bind(&prekey.stmt[..]).bind(&prekey.sig.0[..])).await
            }
            Write::Hold(member) => {
                let query = sqlx::query("INSERT OR IGNORE INTO holds (peer) VALUES (?)");
                self.run(query.bind(number(&self.peers, member))).await
            }
            Write::Unhold(member) => {
                let query = sqlx::query("DELETE FROM holds WHERE peer = ?");
                self.run(query.bind(number(&self.peers, member))).await
            }
            Write::Floor(floor) => self.raise_floor(*floor).await,
            Write::CoordinatorMark(mark) => {
                let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('coordinator_run', ?), \
                           ('coordinator_commit', ?)";
                self.run(sqlx::query(sql).bind(&mark.run.0[..]).bind(int(mark.commit))).await
            }
            Write::Revocation(revocation) => {
                let sql = "INSERT OR IGNORE INTO revocations (stmt, sig) VALUES (?, ?)";
                self.run(sqlx::query(sql).bind(&revocation.stmt[..]).bind(&revocation.sig.0[..])).await
            }
            Write::Outbox(_)
            | Write::OutboxState { .. }
            | Write::LateReceipt { .. }
            | Write::Inbox(_)
            | Write::Release { .. }
            | Write::Surfaced { .. }
            | Write::Conversation { .. } => unreachable!("these are written many at a time: {write:?}"),
        }
    }

    pub(super) async fn local(&mut self, write: &LocalWrite, now: UnixMs) -> Result<(), StoreError> {
        match write {
            LocalWrite::Cursor { name, position } => {
                let sql = "INSERT INTO cursors (name, position) VALUES (?, ?)
                           ON CONFLICT DO UPDATE SET position = max(position, excluded.position)";
                self.run(sqlx::query(sql).bind(name).bind(int(*position))).await
            }
            LocalWrite::Invite { id, lookup, url, exp, uses } => {
                let sql = "INSERT OR REPLACE INTO invites (id, lookup, url, created_at, exp, uses)
                           VALUES (?, ?, ?, ?, ?, ?)";
                let query = sqlx::query(sql).bind(&id.0[..]).bind(&lookup.0[..]).bind(url);
                self.run(query.bind(int(now.0)).bind(int(exp.0)).bind(int(*uses))).await
            }
            LocalWrite::InviteGone(id) => {
                self.run(sqlx::query("DELETE FROM invites WHERE id = ?").bind(&id.0[..])).await
            }
        }
    }

    async fn prekey(&mut self, prekey: &HeldPrekey) -> Result<(), StoreError> {
        let stmt = prekey.signed.as_ref().map(|signed| &signed.stmt[..]);
        let sig = prekey.signed.as_ref().map(|signed| &signed.sig.0[..]);
        let sql = "INSERT OR REPLACE INTO prekeys (kid, secret, stmt, sig, exp) VALUES (?, ?, ?, ?, ?)";
        let query = sqlx::query(sql).bind(&prekey.kid.0[..]).bind(&prekey.secret.expose()[..]);
        self.run(query.bind(stmt).bind(sig).bind(int(prekey.exp.0))).await
    }

    /// Raises the floor and drops the tombstones below it. What failed stays until it is requeued,
    /// because its content is somebody's unsent mail; the inbox stays, because it is a history.
    async fn raise_floor(&mut self, floor: UnixMs) -> Result<(), StoreError> {
        let sql = "UPDATE meta SET value = max(value, ?) WHERE key = 'floor'";
        self.run(sqlx::query(sql).bind(int(floor.0))).await?;
        let sql = "DELETE FROM outbox WHERE exp <= ? AND (state IN (2, 3, 7) OR replaced_by IS NOT NULL)";
        self.run(sqlx::query(sql).bind(int(floor.0))).await
    }

    async fn run(&mut self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<(), StoreError> {
        query.execute(&mut self.conn).await?;
        Ok(())
    }
}
