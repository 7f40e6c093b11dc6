//! The machine: who is connected, what goes where. Pure: time and randomness come in as arguments,
//! bytes and reads go out as commands, writes gather in a batch that the host makes durable.
//!
//! The host's loop is: [`handle`](Hub::handle) what arrived, carry out what
//! [`poll_command`](Hub::poll_command) gives, and whenever no batch is being written,
//! [`take_batch`](Hub::take_batch) and write it. At most one batch is under way; its end is an input.
//!
//! Dispatch only. Frames go to `admission` (hello), `mailbox` (mail), `meshlog` (entries), `regained`
//! (entries that were lost), `gossip` (presence), `invites` and `prekeys`; time to `expiry` and the leases.

mod commit;
mod config;
mod io;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{InviteLookup, MeshId, Monotonic, Now, PeerId};

pub use config::HubConfig;
pub use io::{
    Answer, Command, CommitFailure, HttpReply, HttpRequest, HttpToken, Input, Query, ReadId, SocketId,
};

use crate::admission::Socket;
use crate::arrived::Arrived;
use crate::batch::{Batch, OpenBatch};
use crate::counters::Counters;
use crate::draw::Draw;
use crate::expiry::Sweep;
use crate::invites::Invites;
use crate::mailbox::queue::Queue;
use crate::mesh::Mesh;
use crate::rate::Throttle;
use crate::recent::Recent;
use crate::runs::Runs;
use crate::store::Snapshot;

/// Leases, pings and silence are looked after this often: they are counted in tens of seconds.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A store that nobody noted a sign of life in for longer may be an older copy of itself. Three times
/// [`SIGN_OF_LIFE_EVERY`](crate::store::SIGN_OF_LIFE_EVERY): a restart is over before that.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Reads of the store one socket may wait for; a node that asks for more is not one of ours.
const READS_PER_SOCKET_MAX: u32 = 64;

/// What a read is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadFor {
    Replay { mesh: MeshId },
    LogPage { socket: SocketId, from: u64, size: u64 },
    HttpLog { token: HttpToken, from: u64, size: u64 },
    Mail { mesh: MeshId, to: PeerId },
    Purge { mesh: MeshId, to: PeerId },
    Expired,
    Prekeys { socket: SocketId },
    Invite { token: HttpToken, lookup: InviteLookup },
}

/// The coordinator without sockets, clock and disk.
#[derive(Debug)]
pub struct Hub {
    pub(crate) config: HubConfig,
    pub(crate) draw: Draw,
    pub(crate) counters: Counters,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) open: OpenBatch,
    pub(crate) sockets: BTreeMap<SocketId, Socket>,
    /// Sockets that were told to go in this step.
    pub(crate) leaving: Vec<SocketId>,
    pub(crate) meshes: BTreeMap<MeshId, Mesh>,
    pub(crate) presence_untold: BTreeSet<MeshId>,
    pub(crate) invites: Invites,
    pub(crate) recent: Recent,
    pub(crate) hellos: Throttle,
    pub(crate) lookups: Throttle,
    pub(crate) sweep: Sweep,
    pub(crate) runs: Runs,
    /// Since when the store may be an older copy of itself; decided once a run.
    pub(crate) doubted: Option<Monotonic>,
    pub(crate) store_fails_until: Option<Monotonic>,
    pub(crate) draining: bool,
    reads: BTreeMap<ReadId, ReadFor>,
    next_read: u64,
    next_seq: u64,
    writing: bool,
    /// No batch before this: what has to be written again must not spin.
    write_again_at: Option<Monotonic>,
    watched: Monotonic,
}

impl Hub {
    /// A hub over what the store holds. `seed` is 32 bytes of the host's entropy.
    pub fn new(config: HubConfig, snapshot: Snapshot, seed: [u8; 32], now: Now) -> Self {
        let mut meshes: BTreeMap<MeshId, Mesh> =
            snapshot.meshes.into_iter().map(|mesh| (mesh, Mesh::default())).collect();
        for depth in snapshot.queues {
            let queue = Queue::stored(depth.messages, depth.bytes);
            meshes.entry(depth.mesh).or_default().queues.insert(depth.to, queue);
        }
        Self {
            hellos: Throttle::new(config.hellos),
            lookups: Throttle::new(config.lookups),
            config,
            draw: Draw::new(seed),
            counters: Counters::default(),
            commands: VecDeque::new(),
            open: OpenBatch::default(),
            sockets: BTreeMap::new(),
            leaving: Vec::new(),
            meshes,
            presence_untold: BTreeSet::new(),
            invites: Invites::stored(snapshot.invites),
            recent: Recent::default(),
            sweep: Sweep::At(now.monotonic),
            runs: snapshot.runs,
            doubted: snapshot.silence.filter(|silence| *silence > SILENCE_MAX).map(|_| now.monotonic),
            store_fails_until: None,
            draining: false,
            reads: BTreeMap::new(),
            next_read: 0,
            next_seq: snapshot.next_seq.max(1),
            writing: false,
            write_again_at: None,
            watched: now.monotonic,
        }
    }

    /// Takes one input. Commands follow from [`poll_command`](Self::poll_command).
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Opened { socket, addr } => self.opened(now, socket, addr),
            Input::Frames { socket, frames } => {
                for frame in frames {
                    // An earlier frame of the same read may have ended the connection.
                    if self.leaving.contains(&socket) || !self.hear(now, socket) {
                        break;
                    }
                    self.frame(now, socket, frame);
                }
            }
            Input::Closed { socket } => self.closed(now, socket),
            Input::Http { token, addr, request } => self.http(now, token, addr, request),
            Input::Committed { batch, commit } => self.committed(now, batch, commit),
            Input::CommitFailed { batch, failure } => self.commit_failed(now, batch, failure),
            Input::Read { read, answer } => self.answered(now, read, answer),
            Input::Timeout => self.timeout(now),
            Input::Drain => self.drain(),
        }
        for socket in std::mem::take(&mut self.leaving) {
            self.closed(now, socket);
        }
        if !self.presence_untold.is_empty() {
            self.tell_changes(now);
        }
    }

    /// The next thing to do; none once all is done.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// What to write next, unless a batch is being written or there is nothing to write. The batch
    /// comes back as [`Input::Committed`] or [`Input::CommitFailed`].
    pub fn take_batch(&mut self, now: Now) -> Option<Batch> {
        let wait = self.write_again_at.is_some_and(|at| at > now.monotonic);
        if self.writing || wait || self.open.is_empty() {
            return None;
        }
        self.writing = true;
        self.write_again_at = None;
        Some(self.open.take())
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let watch = (!self.sockets.is_empty() || self.meshes.values().any(|mesh| !mesh.online.is_empty()))
            .then(|| self.watched + WATCH_EVERY);
        let sweep = match self.sweep {
            Sweep::At(at) => Some(at),
            Sweep::UnderWay => None,
        };
        // What was to be written again may have ended since: then nothing is due, and a past deadline
        // would keep the host awake.
        let write = self.write_again_at.filter(|_| !self.writing && !self.open.is_empty());
        [watch, sweep, write, self.changes_due()].into_iter().flatten().min()
    }

    /// Totals and gauges.
    pub fn counters(&self) -> Counters {
        let online = |mesh: &Mesh| mesh.open_sockets().count() as u64;
        let queues = || self.meshes.values().flat_map(|mesh| mesh.queues.values());
        Counters {
            sockets: self.sockets.len() as u64,
            members_online: self.meshes.values().map(online).sum(),
            mail_queued: queues().map(Queue::items).sum(),
            mail_queued_bytes: queues().map(Queue::bytes).sum(),
            ..self.counters
        }
    }

    /// Writes that gather while a batch is under way: rows, and bytes of mail. The host stops
    /// reading its sockets when they become too many.
    pub fn backlog(&self) -> (usize, usize) {
        (self.open.len(), self.open.bytes())
    }

    /// Whether a batch is being written or waits to be.
    pub fn is_writing(&self) -> bool {
        self.writing || !self.open.is_empty()
    }

    /// Whether the store took the last batch.
    pub fn store_is_well(&self) -> bool {
        self.store_fails_until.is_none()
    }

    fn frame(&mut self, now: Now, socket: SocketId, frame: Arrived) {
        let member = self.sockets.get(&socket).and_then(Socket::member);
        match (frame, member) {
            (Arrived::Garbage { text }, _) => {
                self.counters.frames_malformed += 1;
                self.expel(socket, "malformed", &text);
            }
            (Arrived::Frame(ToCoordinator::Hello { hello, .. }), None) => self.hello(now, socket, &hello),
            (Arrived::Frame(ToCoordinator::LogReturn { from, entries }), None) => {
                self.log_returned(now, socket, from, &entries);
            }
            (Arrived::Put(_) | Arrived::Receipt { .. } | Arrived::Frame(_), None) => {
                self.expel(socket, "hello", "the first frame must be a hello");
            }
            (Arrived::Put(put), Some(member)) => self.put(now, socket, member, put),
            (Arrived::Receipt { receipt, claims }, Some(member)) => {
                self.receipt(now, socket, member, &receipt, &claims);
            }
            (Arrived::Frame(frame), Some(member)) => self.member_frame(now, socket, member, frame),
        }
    }

    fn member_frame(
        &mut self,
        now: Now,
        socket: SocketId,
        (mesh, id): (MeshId, PeerId),
        frame: ToCoordinator,
    ) {
        match frame {
            ToCoordinator::Hello { .. } => self.expel(socket, "hello", "a second hello"),
            ToCoordinator::Put { .. } | ToCoordinator::Receipt { .. } => {
                unreachable!("`Arrived::read` takes envelopes and receipts apart")
            }
            ToCoordinator::Claim { messages, bytes } => self.claim((mesh, id), messages, bytes),
            ToCoordinator::Settle { claims } => self.settle((mesh, id), &claims),
            ToCoordinator::LogGet { from } => self.log_get(socket, mesh, from),
            ToCoordinator::LogReturn { .. } => {
                self.expel(socket, "malformed", "nobody asked for log entries")
            }
            ToCoordinator::LogAppend { request, entry } => {
                let by = crate::meshlog::Appender::Member { socket, id, request };
                self.append(now, mesh, by, &entry);
            }
            ToCoordinator::PrekeyPut { prekey } => self.prekey_put(now, socket, (mesh, id), &prekey),
            ToCoordinator::PrekeyGet { members } => self.prekey_get(socket, mesh, members),
            ToCoordinator::InvitePut { request, lookup, blob, exp, uses } => {
                self.invite_put(now, (socket, request), (mesh, id), lookup, blob, (exp, uses));
            }
            ToCoordinator::InviteDelete { request, lookup } => {
                self.invite_delete((socket, request), (mesh, id), lookup);
            }
            ToCoordinator::Goodbye => self.leave(socket, &mesh, &id),
            ToCoordinator::Ping { nonce } => self.send(socket, &ToNode::Pong { nonce }),
            ToCoordinator::Pong { .. } => {}
        }
    }

    fn answered(&mut self, now: Now, read: ReadId, answer: Answer) {
        let Some(purpose) = self.reads.remove(&read) else { return };
        match purpose {
            ReadFor::Replay { mesh } => self.replay(now, mesh, answer),
            ReadFor::Mail { mesh, to } => self.mail_read(now, read, (mesh, to), answer),
            ReadFor::Purge { mesh, to } => self.purged(now, mesh, to, answer),
            ReadFor::Expired => self.expired(now, answer),
            ReadFor::Invite { token, lookup } => self.invite_read(now, token, &lookup, answer),
            ReadFor::LogPage { socket, from, size } => {
                self.read_done(socket);
                if let Answer::Log(entries) = answer {
                    self.send(socket, &ToNode::Entries { from, entries, size });
                }
            }
            ReadFor::Prekeys { socket } => {
                self.read_done(socket);
                if let Answer::Prekeys(prekeys) = answer {
                    self.send(socket, &ToNode::Prekeys { prekeys });
                }
            }
            ReadFor::HttpLog { token, from, size } => match answer {
                Answer::Log(entries) => self.reply(token, HttpReply::Log { from, entries, size }),
                Answer::Mail(_) | Answer::Prekeys(_) | Answer::Invite(_) | Answer::Failed => {
                    self.refuse_http(token, "store", "the mesh log cannot be read");
                }
            },
        }
    }

    fn timeout(&mut self, now: Now) {
        if now.monotonic.since(self.watched) >= WATCH_EVERY {
            self.watched = now.monotonic;
            self.watch(now);
            self.lapse_claims(now);
            self.end_leases(now);
        }
        self.sweep_expired(now);
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    pub(crate) fn read(&mut self, purpose: ReadFor, query: Query) -> ReadId {
        let read = ReadId(self.next_read);
        self.next_read += 1;
        self.reads.insert(read, purpose);
        self.commands.push_back(Command::Read { read, query });
        read
    }

    /// A read that a socket asked for: so many, and no more.
    pub(crate) fn read_for(&mut self, socket: SocketId, purpose: ReadFor, query: Query) {
        let Some(entry) = self.sockets.get_mut(&socket) else { return };
        if entry.reads >= READS_PER_SOCKET_MAX {
            return self.expel(socket, "rate", "too many requests at once");
        }
        entry.reads += 1;
        self.read(purpose, query);
    }

    fn read_done(&mut self, socket: SocketId) {
        if let Some(entry) = self.sockets.get_mut(&socket) {
            entry.reads -= 1;
        }
    }

    pub(crate) fn send(&mut self, socket: SocketId, frame: &ToNode) {
        self.send_encoded(socket, frame.encode());
    }

    pub(crate) fn send_encoded(&mut self, socket: SocketId, frame: Bytes) {
        if self.sockets.contains_key(&socket) {
            self.commands.push_back(Command::Send { socket, frame });
        }
    }

    pub(crate) fn reply(&mut self, token: HttpToken, reply: HttpReply) {
        self.commands.push_back(Command::Reply { token, reply });
    }

    pub(crate) fn refuse_http(&mut self, token: HttpToken, code: &str, text: &str) {
        self.reply(token, HttpReply::Refused { code: code.to_owned(), text: text.to_owned() });
    }

    pub(crate) fn fail(&mut self, socket: SocketId, request: u64, code: &str, text: &str) {
        self.send(socket, &ToNode::Failed { request, code: code.to_owned(), text: text.to_owned() });
    }
}

#[cfg(test)]
pub(crate) mod tests;
