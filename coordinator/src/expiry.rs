//! Mail that ends without being read: it expired, or its recipient was revoked. Either way its
//! sender is told, never left in silence.

use std::time::Duration;

use peerloom_proto::limits::CLOCK_SKEW_MAX;
use peerloom_proto::{MeshId, Monotonic, Now, PeerId};

use crate::batch::After;
use crate::gossip::Change;
use crate::hub::{Answer, Hub, Query, ReadFor};
use crate::mailbox::receipts::Notice;
use crate::mesh::{Mesh, Reach};
use crate::store::{MailKind, MailRow, Write};

/// How often expired rows are looked for. Nobody depends on the minute: recipients refuse expired
/// mail themselves.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Rows one sweep takes: at the largest size 64 MiB, for a moment.
const SWEEP_ROWS: usize = 64;

/// Rows of a revoked member's queue read at once.
const PURGE_ROWS: usize = 256;

/// Bytes of them.
const PURGE_BYTES: u64 = 2 << 20;

/// When expired rows are looked for next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sweep {
    At(Monotonic),
    /// What the last one found is on its way off the disk.
    UnderWay,
}

impl Hub {
    /// Looks for expired rows, if it is time.
    pub(crate) fn sweep_expired(&mut self, now: Now) {
        match self.sweep {
            Sweep::At(at) if at <= now.monotonic => {
                self.sweep = Sweep::UnderWay;
                let before = now.wall.minus(CLOCK_SKEW_MAX);
                self.read(ReadFor::Expired, Query::Expired { before, limit: SWEEP_ROWS });
                self.expire_invites(now);
                self.forget_idle(now);
            }
            Sweep::At(_) | Sweep::UnderWay => {}
        }
    }

    fn forget_idle(&mut self, now: Now) {
        self.hellos.forget_idle(now.monotonic);
        self.lookups.forget_idle(now.monotonic);
        for mesh in self.meshes.values_mut() {
            mesh.queues.retain(|_, queue| !queue.is_idle());
        }
    }

    /// Rows that expired: off the disk, and their senders told, in one commit.
    pub(crate) fn expired(&mut self, now: Now, answer: Answer) {
        let rows = match answer {
            Answer::Mail(rows) => rows,
            Answer::Log(_) | Answer::Prekeys(_) | Answer::Invite(_) | Answer::Failed => Vec::new(),
        };
        if rows.is_empty() {
            self.sweep = Sweep::At(now.monotonic + SWEEP_EVERY);
            return;
        }
        for row in rows {
            let Some(mesh) = self.meshes.get_mut(&row.mesh) else { continue };
            let queue = mesh.queues.entry(row.to).or_default();
            if queue.has_ended(row.seq) {
                continue;
            }
            queue.end_stored(&row);
            self.delete(row.seq, row.mesh, row.to, None);
            if row.kind == MailKind::Envelope {
                self.counters.expired += 1;
                self.notify(now, row.mesh, row.from, row.to, Notice::Expired(row.env_hash));
            }
        }
        self.open.after(After::ExpirySwept);
    }

    /// What a sweep found is off the disk, or could not be taken off: look for more.
    pub(crate) fn swept(&mut self, at: Monotonic) {
        self.sweep = Sweep::At(at);
    }

    /// A member is revoked in the log: it goes, its invites die, its queue is emptied.
    pub(crate) fn revoked(&mut self, now: Now, mesh_id: MeshId, member: PeerId) {
        self.drop_invites_of(&mesh_id, &member);
        for row in self.open.unput_all(&mesh_id, &member) {
            self.ended_by_revocation(now, &row);
        }
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return };
        if let Some(live) = mesh.live_mut() {
            live.reserved = None;
        }
        mesh.queues.remove(&member);
        if let Some(presence) = mesh.online.remove(&member) {
            if let Reach::Socket(socket) = presence.socket {
                self.expel(socket, "revoked", "this member was revoked");
            }
            self.changed(mesh_id, member, Change::Offline);
        }
        self.purge(mesh_id, member, None);
    }

    fn purge(&mut self, mesh: MeshId, to: PeerId, after: Option<(u8, u64)>) {
        let query = Query::Mail { mesh, to, after, limit: PURGE_ROWS, bytes_max: PURGE_BYTES };
        self.read(ReadFor::Purge { mesh, to }, query);
    }

    /// Rows of a revoked member's queue.
    pub(crate) fn purged(&mut self, now: Now, mesh: MeshId, to: PeerId, answer: Answer) {
        let rows = match answer {
            Answer::Mail(rows) => rows,
            // What is left expires in time, and its senders are told then.
            Answer::Log(_) | Answer::Prekeys(_) | Answer::Invite(_) | Answer::Failed => return,
        };
        for row in &rows {
            self.ended_by_revocation(now, row);
            self.open.push(Write::DeleteMail { seq: row.seq, mesh, to, env_hash: None });
        }
        match rows.last() {
            Some(last) => self.purge(mesh, to, Some((last.priority, last.seq))),
            None => self.open.push(Write::DropQueue { mesh, to }),
        }
    }

    fn ended_by_revocation(&mut self, now: Now, row: &MailRow) {
        if row.kind != MailKind::Envelope {
            return;
        }
        self.recent.forget(&row.env_hash);
        match self.meshes.get(&row.mesh).and_then(|mesh: &Mesh| mesh.socket_of(&row.from)) {
            Some(socket) => self.refuse(socket, row.env_hash, "revoked", 0),
            None if self.is_member(&row.mesh, &row.from) => {
                self.notify(now, row.mesh, row.from, row.to, Notice::Expired(row.env_hash));
            }
            None => {}
        }
    }
}
