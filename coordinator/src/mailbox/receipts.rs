//! How items end: by the recipient's signed receipt, or, for a receipt and a notice, by the sender's
//! word that it has it on its own disk.
//!
//! A receipt may outrun the commit of its row. A row that has not left for the disk is then never
//! written, and its sender is told at once that the message is accepted, for it is already more.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{Claim, SignedBytes};
use peerloom_proto::{EnvHash, MeshId, Now, PeerId, Signature, SignedReceipt, Value, decode, encode};

use super::queue::{Item, NOTICE_PRIORITY, Queue};
use crate::hub::{Hub, SocketId};
use crate::mesh::Mesh;
use crate::store::{MailKind, MailRow, Write};

/// How long receipts and notices wait for their sender: twice the longest life of a message.
const NOTICE_LIFE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A cap for re-reading what this file encoded: a receipt and its signature.
const SIGNED_BYTES_MAX: usize = 64 << 10;

/// What a sender learns about its own mail.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Its recipient's word.
    Receipt(SignedBytes),
    /// It ended unread.
    Expired(EnvHash),
}

/// What became of the row of an ended item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It had not left for the disk, and will not.
    NeverWritten,
    /// It is deleted with the next batch.
    Written,
}

impl Hub {
    /// A recipient's signed word on a batch of envelopes.
    pub(crate) fn receipt(
        &mut self,
        now: Now,
        socket: SocketId,
        (mesh_id, id): (MeshId, PeerId),
        receipt: &SignedReceipt,
        claims: &[Claim],
    ) {
        if receipt.by != id || receipt.mesh != mesh_id || claims.len() != receipt.rows.len() {
            return self.expel(
                socket,
                "malformed",
                "the receipt is not this node's, or its claims do not match it",
            );
        }
        self.counters.receipts += 1;
        let mut accepted = Vec::new();
        for (row, claim) in receipt.rows.iter().zip(claims) {
            let seq =
                if *claim == 0 { self.recent_claim(&row.env_hash, &mesh_id, &id) } else { Some(*claim) };
            let Some(seq) = seq else { continue };
            let Some(queue) = self.queue_mut(&mesh_id, &id) else { break };
            let named = |item: &Item| {
                item.kind == MailKind::Envelope && item.env_hash == row.env_hash && item.from == receipt.to
            };
            if !queue.handed_out(seq).is_some_and(named) {
                continue;
            }
            queue.end(seq);
            self.counters.receipted += 1;
            let env_hash = Some(row.env_hash);
            if self.delete(seq, mesh_id, id, env_hash) == Deletion::NeverWritten {
                // It is not on the disk and need not be: its sender is told both.
                self.recent.safe(&row.env_hash, seq);
                accepted.push(row.env_hash);
            }
        }
        self.accept_member(&mesh_id, &receipt.to, accepted);
        if self.is_member(&mesh_id, &receipt.to) {
            let signed = SignedBytes { stmt: receipt.stmt().clone(), sig: receipt.sig() };
            self.notify(now, mesh_id, receipt.to, id, Notice::Receipt(signed));
        }
        self.pump(mesh_id, id);
    }

    fn recent_claim(&self, env_hash: &EnvHash, mesh: &MeshId, to: &PeerId) -> Option<Claim> {
        let recent = self.recent.get(env_hash)?;
        (recent.mesh == *mesh && recent.to == *to).then_some(recent.seq)
    }

    /// A node has made receipts and notices durable, or lets go of mail that it cannot receipt:
    /// signals, and what no member sealed. Kept, such mail would fill its claim again every lease.
    pub(crate) fn settle(&mut self, (mesh_id, id): (MeshId, PeerId), claims: &[Claim]) {
        for seq in claims {
            let Some(queue) = self.queue_mut(&mesh_id, &id) else { return };
            let Some(item) = queue.end(*seq) else { continue };
            let deleted = self.delete(*seq, mesh_id, id, None);
            if deleted == Deletion::NeverWritten && item.kind == MailKind::Envelope {
                // It is not on the disk and need not be: the sender has nothing more to do.
                self.recent.safe(&item.env_hash, *seq);
                self.accept_member(&mesh_id, &item.from, vec![item.env_hash]);
            }
        }
        self.pump(mesh_id, id);
    }

    /// Takes an ended item's row off the disk, or off its way there.
    pub(crate) fn delete(
        &mut self,
        seq: u64,
        mesh: MeshId,
        to: PeerId,
        env_hash: Option<EnvHash>,
    ) -> Deletion {
        if self.open.unput(seq).is_some() {
            if let Some(queue) = self.queue_mut(&mesh, &to) {
                queue.deleted(seq);
            }
            return Deletion::NeverWritten;
        }
        self.open.push(Write::DeleteMail { seq, mesh, to, env_hash });
        Deletion::Written
    }

    /// Queues what `to` is to learn about its own mail, unless it lets such notices pile up.
    pub(crate) fn notify(&mut self, now: Now, mesh: MeshId, to: PeerId, from: PeerId, notice: Notice) {
        let full = self.meshes.get(&mesh).and_then(|mesh| mesh.queues.get(&to)).map_or(0, Queue::items);
        if full >= self.config.mailbox_messages_max.saturating_mul(2) {
            return;
        }
        let (kind, env_hash, bytes) = match notice {
            Notice::Receipt(receipt) => (MailKind::Receipt, EnvHash([0; 32]), pack(&receipt)),
            Notice::Expired(env_hash) => (MailKind::Expired, env_hash, Bytes::new()),
        };
        let exp = now.wall.plus(NOTICE_LIFE);
        let seq = self.next_seq();
        self.enqueue(
            now,
            MailRow { seq, mesh, to, from, kind, env_hash, priority: NOTICE_PRIORITY, exp, bytes },
        );
    }

    /// Whether this is an unrevoked member.
    pub(crate) fn is_member(&self, mesh: &MeshId, id: &PeerId) -> bool {
        self.meshes.get(mesh).and_then(Mesh::roster).is_some_and(|roster| roster.active(id).is_some())
    }
}

/// A receipt as the store keeps it: `[statement, signature]`.
pub(super) fn pack(receipt: &SignedBytes) -> Bytes {
    encode(&Value::Array(vec![Value::Bytes(&receipt.stmt), Value::Bytes(&receipt.sig.0)])).into()
}

/// Takes that apart again.
pub(super) fn unpack(bytes: &Bytes) -> Option<SignedBytes> {
    let [stmt, sig] = decode(bytes, SIGNED_BYTES_MAX).ok()?.tuple().ok()?;
    Some(SignedBytes { stmt: bytes.slice_ref(stmt.bytes().ok()?), sig: Signature(sig.array().ok()?) })
}
