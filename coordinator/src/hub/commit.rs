//! The end of a batch: what may be said once it is durable, and what becomes of it when it is not.

use std::time::Duration;

use peerloom_proto::Now;
use peerloom_proto::wire::ToNode;

use super::{CommitFailure, HttpReply, Hub};
use crate::batch::{After, Batch};
use crate::store::{MailKind, Write};

/// Mail is refused this long after the store failed, so that what frees space goes alone.
const STORE_FAILS_FOR: Duration = Duration::from_secs(1);

impl Hub {
    /// All of it is durable.
    pub(super) fn committed(&mut self, now: Now, batch: Batch, commit: u64) {
        self.writing = false;
        self.runs.current.commit = commit;
        self.store_fails_until = None;
        self.counters.batches += 1;
        self.counters.writes += batch.writes.len() as u64;
        self.written(batch.writes.iter());
        for after in batch.after {
            match after {
                After::Done { socket, request } => self.send(socket, &ToNode::Done { request, commit }),
                After::Appended { mesh, by, entry } => self.appended(now, mesh, by, &entry),
                After::MeshCreated { token, entries, .. } => {
                    self.reply(token, HttpReply::MeshCreated { entries });
                }
                After::MeshRegained { roster } => self.mesh_regained(now, *roster),
                After::ExpirySwept => self.swept(now.monotonic),
            }
        }
    }

    /// It is not, except as `failure` says: senders may retry, what settles is written again.
    pub(super) fn commit_failed(&mut self, now: Now, batch: Batch, failure: CommitFailure) {
        self.writing = false;
        self.counters.batches_failed += 1;
        let until = now.monotonic + STORE_FAILS_FOR;
        self.store_fails_until = Some(until);
        let settled = failure == CommitFailure::FullButSettled;
        let (kept, lost): (Vec<Write>, Vec<Write>) =
            batch.writes.into_iter().partition(|write| settled && write.settles());
        self.written(kept.iter());
        for write in lost {
            match write {
                Write::PutMail(row) if row.kind == MailKind::Envelope => self.not_written(&row),
                Write::PutMail(row) => self.open.put(row),
                // Their requests are answered below; nothing of them is kept.
                Write::MeshCreate { .. } | Write::LogAppend { .. } => {}
                Write::PutInvite { lookup, .. } => self.invite_not_written(&lookup),
                again @ (Write::DeleteMail { .. }
                | Write::PutPrekey { .. }
                | Write::DeleteInvite { .. }
                | Write::UseInvite { .. }
                | Write::DropQueue { .. }) => self.open.push(again),
            }
        }
        for after in batch.after {
            match after {
                After::Done { socket, request } => {
                    self.fail(socket, request, "store", "the coordinator's disk did not take it");
                }
                After::Appended { mesh, by, .. } => self.not_appended(now, mesh, &by),
                After::MeshCreated { token, mesh, .. } => {
                    self.meshes.remove(&mesh);
                    self.refuse_http(token, "store", "the coordinator's disk did not take it");
                }
                After::MeshRegained { roster } => self.mesh_not_regained(&roster.mesh_id()),
                After::ExpirySwept => self.swept(until),
            }
        }
        if !self.open.is_empty() {
            self.write_again_at = Some(until);
        }
    }
}
