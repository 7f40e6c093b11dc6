//! The mailbox, in the order mail meets it.
//!
//! 1. [`Hub::put`]        may this sender queue this for that recipient?
//! 2. [`Hub::enqueue`]    a claim id; handed out at once where there is room, written in parallel
//! 3. [`Hub::claim`]      how much a node takes at once; [`Hub::pump`] reads on for it
//! 4. [`Hub::written`]    rows are durable: `accepted` is said
//! 5. [`Hub::receipt`]    the recipient's signature ends an item (`receipts`)

pub(crate) mod queue;
pub(crate) mod receipts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerloom_proto::limits::{CLAIM_LEASE, CLOCK_SKEW_MAX, MESSAGE_LIFE_MAX};
use peerloom_proto::wire::ToNode;
use peerloom_proto::{EnvHash, MeshId, Now, PeerId, Recipient, UnixMs};

use crate::arrived::Put;
use crate::hub::{Answer, Hub, Query, ReadFor, ReadId, SocketId};
use crate::recent::{Progress, RecentPut};
use crate::store::{MailKind, MailRow, Write};
use queue::{Handover, Item, Queue};
use receipts::unpack;

/// When a sender may try a full queue again, milliseconds. Long enough that a blocked outbox costs
/// nothing, short enough that a recipient who comes back is served at once.
const FULL_RETRY_MS: u64 = 30_000;

/// When a sender may try a store that failed again, milliseconds.
const STORE_RETRY_MS: u64 = 5_000;

/// When a sender whose clock is ahead may try again, milliseconds.
const SKEW_RETRY_MS: u64 = 60_000;

/// Hashes one `accepted` frame names.
const ACCEPTED_PER_FRAME: usize = 1_024;

/// Longest wait a refusal for rate names.
const RATE_RETRY_MAX: Duration = Duration::from_secs(60);

/// Why an envelope is not queued.
enum NotQueued {
    /// It is queued already, or was.
    Repeat(Progress),
    /// It is refused; retry after so many milliseconds, 0 for never.
    Refused { code: &'static str, retry_ms: u64 },
}

impl Hub {
    /// An envelope to relay or queue.
    pub(crate) fn put(&mut self, now: Now, socket: SocketId, (mesh, from): (MeshId, PeerId), put: Put) {
        match self.may_queue(now, &mesh, &from, &put) {
            Ok(to) => {
                let row = MailRow {
                    seq: self.next_seq(),
                    mesh,
                    to,
                    from,
                    kind: MailKind::Envelope,
                    env_hash: put.env_hash,
                    priority: put.priority as u8,
                    exp: put.exp,
                    bytes: put.envelope,
                };
                let recent = RecentPut { mesh, to, seq: row.seq, progress: Progress::Writing };
                self.recent.insert(put.env_hash, recent);
                self.enqueue(now, row);
            }
            Err(NotQueued::Repeat(Progress::Safe)) => self.accept(socket, vec![put.env_hash]),
            // It is answered when its row is durable.
            Err(NotQueued::Repeat(Progress::Writing)) => {}
            Err(NotQueued::Refused { code, retry_ms }) => self.refuse(socket, put.env_hash, code, retry_ms),
        }
    }

    fn may_queue(
        &mut self,
        now: Now,
        mesh_id: &MeshId,
        from: &PeerId,
        put: &Put,
    ) -> Result<PeerId, NotQueued> {
        let never = |code| NotQueued::Refused { code, retry_ms: 0 };
        if put.from != *from {
            return Err(never("signature"));
        }
        if put.mesh != *mesh_id {
            return Err(never("mesh"));
        }
        if let Some(recent) = self.recent.get(&put.env_hash) {
            return Err(NotQueued::Repeat(recent.progress));
        }
        let Recipient::Peer(to) = put.to else { return Err(never("channel")) };
        let store_fails = self.store_fails_until.is_some_and(|until| until > now.monotonic);
        let Some(mesh) = self.meshes.get_mut(mesh_id) else { return Err(never("mesh")) };
        match mesh.roster().and_then(|roster| roster.member(&to)) {
            None => return Err(never("not-a-member")),
            Some(member) if member.revoked.is_some() => return Err(never("revoked")),
            Some(_) => {}
        }
        check_window(now.wall, put)?;
        if store_fails {
            return Err(NotQueued::Refused { code: "store", retry_ms: STORE_RETRY_MS });
        }
        let size = put.envelope.len() as u64;
        if let Some(queue) = mesh.queues.get(&to) {
            let bytes = queue.bytes() + size;
            if queue.items() >= self.config.mailbox_messages_max || bytes > self.config.mailbox_bytes_max {
                return Err(NotQueued::Refused { code: "recipient-full", retry_ms: FULL_RETRY_MS });
            }
        }
        let Some(presence) = mesh.online.get_mut(from) else {
            // It said goodbye on this socket: what comes behind that is for its next connection.
            return Err(NotQueued::Refused { code: "closing", retry_ms: STORE_RETRY_MS });
        };
        #[expect(clippy::cast_precision_loss, reason = "an envelope is about a megabyte at most")]
        let (messages, bytes) = (1.0, size as f64);
        let wait = presence.messages.wait(&self.config.member_messages, now.monotonic, messages);
        let wait = wait.max(presence.bytes.wait(&self.config.member_bytes, now.monotonic, bytes));
        if !wait.is_zero() {
            let wait_ms = u64::try_from(wait.min(RATE_RETRY_MAX).as_millis()).expect("a minute fits");
            return Err(NotQueued::Refused { code: "rate", retry_ms: wait_ms + 1 });
        }
        presence.messages.take(&self.config.member_messages, messages);
        presence.bytes.take(&self.config.member_bytes, bytes);
        Ok(to)
    }

    /// Queues an item: written with the next batch, and handed out at once where there is room.
    pub(crate) fn enqueue(&mut self, now: Now, row: MailRow) {
        let Some(mesh) = self.meshes.get_mut(&row.mesh) else { return };
        let socket = mesh.socket_of(&row.to);
        let queue = mesh.queues.entry(row.to).or_default();
        let handover = queue.add(row.seq, Item::of(&row), now.monotonic + CLAIM_LEASE);
        if let (Handover::Now, Some(socket)) = (handover, socket) {
            self.counters.delivered_live += u64::from(row.kind == MailKind::Envelope);
            self.hand_out(socket, &row, Source::PassingThrough);
        }
        self.open.put(row);
    }

    fn hand_out(&mut self, socket: SocketId, row: &MailRow, source: Source) {
        let frame = match row.kind {
            MailKind::Envelope => {
                let queued = source == Source::Stored;
                ToNode::Deliver { claim: row.seq, queued, envelope: row.bytes.clone() }
            }
            MailKind::Receipt => match unpack(&row.bytes) {
                Some(receipt) => ToNode::Receipt { claim: row.seq, receipt },
                None => return,
            },
            MailKind::Expired => ToNode::Expired { claim: row.seq, env_hash: row.env_hash },
        };
        self.send(socket, &frame);
    }

    /// How much a node takes at once.
    pub(crate) fn claim(&mut self, (mesh_id, id): (MeshId, PeerId), messages: u64, bytes: u64) {
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return };
        mesh.queues.entry(id).or_default().claim(messages, bytes);
        self.pump(mesh_id, id);
    }

    /// Reads on for a queue that has room and may have something to read.
    pub(crate) fn pump(&mut self, mesh_id: MeshId, to: PeerId) {
        let queue = self.meshes.get(&mesh_id).and_then(|mesh| mesh.queues.get(&to));
        let Some(wanted) = queue.and_then(Queue::wanted) else { return };
        let query = Query::Mail {
            mesh: mesh_id,
            to,
            after: wanted.after,
            limit: wanted.limit,
            bytes_max: wanted.bytes_max,
        };
        let read = self.read(ReadFor::Mail { mesh: mesh_id, to }, query);
        if let Some(queue) = self.queue_mut(&mesh_id, &to) {
            queue.reading(read);
        }
    }

    /// Rows that a pump asked for.
    pub(crate) fn mail_read(
        &mut self,
        now: Now,
        read: ReadId,
        (mesh_id, to): (MeshId, PeerId),
        answer: Answer,
    ) {
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return };
        let socket = mesh.socket_of(&to);
        let Some(queue) = mesh.queues.get_mut(&to) else { return };
        let rows = match answer {
            Answer::Mail(rows) => queue.read(read, rows, now.monotonic + CLAIM_LEASE),
            Answer::Log(_) | Answer::Prekeys(_) | Answer::Invite(_) | Answer::Failed => {
                return queue.read_failed(read);
            }
        };
        let Some(socket) = socket else { return };
        self.counters.delivered_queued += rows.len() as u64;
        for row in rows {
            self.hand_out(socket, &row, Source::Stored);
        }
        self.pump(mesh_id, to);
    }

    /// Rows are durable: senders are told, queues go on.
    pub(crate) fn written<'a>(&mut self, writes: impl Iterator<Item = &'a Write>) {
        let mut accepted: BTreeMap<(MeshId, PeerId), Vec<EnvHash>> = BTreeMap::new();
        let mut touched: BTreeSet<(MeshId, PeerId)> = BTreeSet::new();
        for write in writes {
            match write {
                Write::PutMail(row) => {
                    if let Some(queue) = self.queue_mut(&row.mesh, &row.to) {
                        queue.written(row.seq);
                        if queue.wanted().is_some() {
                            touched.insert((row.mesh, row.to));
                        }
                    }
                    if row.kind == MailKind::Envelope {
                        self.recent.safe(&row.env_hash, row.seq);
                        accepted.entry((row.mesh, row.from)).or_default().push(row.env_hash);
                    }
                }
                Write::DeleteMail { seq, mesh, to, .. } => self.row_deleted(*seq, mesh, to),
                Write::MeshCreate { .. }
                | Write::LogAppend { .. }
                | Write::PutPrekey { .. }
                | Write::PutInvite { .. }
                | Write::DeleteInvite { .. }
                | Write::UseInvite { .. }
                | Write::DropQueue { .. } => {}
            }
        }
        for ((mesh, from), env_hashes) in accepted {
            self.accept_member(&mesh, &from, env_hashes);
        }
        for (mesh, to) in touched {
            self.pump(mesh, to);
        }
    }

    fn row_deleted(&mut self, seq: u64, mesh_id: &MeshId, to: &PeerId) {
        let Some(mesh) = self.meshes.get_mut(mesh_id) else { return };
        let Some(queue) = mesh.queues.get_mut(to) else { return };
        queue.deleted(seq);
        if queue.is_idle() {
            mesh.queues.remove(to);
        }
    }

    /// An envelope's row could not be written.
    pub(crate) fn not_written(&mut self, row: &MailRow) {
        let ended = self.queue_mut(&row.mesh, &row.to).and_then(|queue| queue.unwritten(row.seq)).is_none();
        let sender = self.meshes.get(&row.mesh).and_then(|mesh| mesh.socket_of(&row.from));
        if ended {
            // Its recipient receipted it meanwhile: safe all the same.
            self.recent.safe(&row.env_hash, row.seq);
            return self.accept_member(&row.mesh, &row.from, vec![row.env_hash]);
        }
        self.recent.forget(&row.env_hash);
        if let Some(socket) = sender {
            self.refuse(socket, row.env_hash, "store", STORE_RETRY_MS);
        }
    }

    fn accept_member(&mut self, mesh: &MeshId, member: &PeerId, env_hashes: Vec<EnvHash>) {
        let socket = self.meshes.get(mesh).and_then(|mesh| mesh.socket_of(member));
        match socket {
            Some(socket) if !env_hashes.is_empty() => self.accept(socket, env_hashes),
            Some(_) => {}
            // It puts them again when it is back, and is told then.
            None => self.counters.puts_accepted += env_hashes.len() as u64,
        }
    }

    fn accept(&mut self, socket: SocketId, env_hashes: Vec<EnvHash>) {
        self.counters.puts_accepted += env_hashes.len() as u64;
        let commit = self.runs.current.commit;
        if env_hashes.len() <= ACCEPTED_PER_FRAME {
            return self.send(socket, &ToNode::Accepted { env_hashes, commit });
        }
        for part in env_hashes.chunks(ACCEPTED_PER_FRAME) {
            self.send(socket, &ToNode::Accepted { env_hashes: part.to_vec(), commit });
        }
    }

    /// Tells a sender that an envelope was not taken.
    pub(crate) fn refuse(&mut self, socket: SocketId, env_hash: EnvHash, code: &str, retry_ms: u64) {
        match code {
            "rate" => self.counters.puts_refused_rate += 1,
            "recipient-full" => self.counters.puts_refused_full += 1,
            "store" => self.counters.puts_refused_store += 1,
            _ => self.counters.puts_refused_other += 1,
        }
        self.send(socket, &ToNode::Refused { env_hash, code: code.to_owned(), retry_ms });
    }

    /// Takes back the claims whose lease ran out, and offers them again.
    pub(crate) fn lapse_claims(&mut self, now: Now) {
        let mut again = Vec::new();
        for (mesh_id, mesh) in &mut self.meshes {
            for (id, presence) in &mesh.online {
                if !presence.is_open() {
                    continue;
                }
                let Some(queue) = mesh.queues.get_mut(id) else { continue };
                self.counters.leases_lapsed += queue.lapse(now.monotonic);
                queue.unstall();
                if queue.wanted().is_some() {
                    again.push((*mesh_id, *id));
                }
            }
        }
        for (mesh, to) in again {
            self.pump(mesh, to);
        }
    }

    pub(crate) fn queue_mut(&mut self, mesh: &MeshId, to: &PeerId) -> Option<&mut Queue> {
        self.meshes.get_mut(mesh)?.queues.get_mut(to)
    }
}

/// Where an item that is handed out comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    PassingThrough,
    Stored,
}

fn check_window(now: UnixMs, put: &Put) -> Result<(), NotQueued> {
    let never = |code| Err(NotQueued::Refused { code, retry_ms: 0 });
    if put.exp <= now {
        return never("stale");
    }
    if put.exp <= put.ts || put.exp.since(put.ts) > MESSAGE_LIFE_MAX {
        return never("ttl");
    }
    if put.ts > now.plus(CLOCK_SKEW_MAX) {
        return Err(NotQueued::Refused { code: "skew", retry_ms: SKEW_RETRY_MS });
    }
    Ok(())
}
