//! A node: its store, and while it runs its machine. The order of `node/engine`: collect, take in,
//! drain, commit, act. A commit takes time, in which inputs gather.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use peerloom_proto::endpoint::{Endpoint, Input, Output, Request, Settings, Token, Write};
use peerloom_proto::{
    CertHash, ConnId, Generation, Head, IdentityKey, InstanceId, Now, PeerId, Roster, WireEntry,
};

use super::clocks;
use crate::chance::{Chance, seed_for};
use crate::disk::{NodeDisk, Unique};
use crate::model::Fact;
use crate::mutant::Mutant;
use crate::network::{Place, StreamId};
use crate::queue::Event;
use crate::scenario::Moment;
use crate::world::World;

/// Who waits for an answer of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// A program that hands a message over.
    Message(usize),
    /// A reader that moves past what it saw; it does not wait.
    Surface,
    /// An admin that revokes.
    Revoke { target: usize },
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: IdentityKey,
    pub(crate) id: PeerId,
    pub(crate) disk: NodeDisk,
    /// What a planted fault falls back to.
    durable: Option<NodeDisk>,
    pub(crate) process: Option<Process>,
    pub(crate) life: u32,
    pub(crate) ahead_ms: i64,
    /// Faults that keep its disk full.
    pub(crate) full: u32,
    pub(crate) commits: u64,
    /// Dies at its next commit, for so long.
    pub(crate) crash: Option<(Moment, Duration)>,
    pub(crate) asked: BTreeMap<Token, Asked>,
    pub(crate) cursor: u64,
    pub(crate) read_planned: bool,
    learned: BTreeSet<PeerId>,
    head: Option<Head>,
    serial: u64,
    pub(crate) chance: Chance,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) endpoint: Endpoint,
    pub(crate) inputs: VecDeque<Input>,
    pub(crate) uplink: Option<StreamId>,
    pub(crate) expecting: BTreeMap<ConnId, CertHash>,
    pub(crate) cert: CertHash,
    /// Its store failed and is not open again.
    pub(crate) refusing: bool,
    started: Duration,
    batch: Option<Batch>,
    wakes_at: Option<Duration>,
    /// How long it will be away, once it was asked to end.
    pub(crate) stop_for: Option<Duration>,
    failures: u32,
    reopened: u32,
}

#[derive(Debug, Default)]
struct Batch {
    writes: Vec<Write>,
    acts: Vec<Output>,
    stops: bool,
}

/// Inputs of one batch, as the engine takes them.
const BATCH_INPUTS_MAX: usize = 256;

/// The engine sleeps no longer.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// After a crash or a refusal a program tries again.
const PROGRAM_RETRY: Duration = Duration::from_secs(1);

/// Commits that a planted fault may lose.
const UNSYNCED_COMMITS: u64 = 8;

impl Node {
    pub(crate) fn new(key: IdentityKey, disk: NodeDisk, seed: u64, place: usize) -> Self {
        let id = key.id();
        Self {
            key,
            id,
            disk,
            durable: None,
            process: None,
            life: 0,
            ahead_ms: 0,
            full: 0,
            commits: 0,
            crash: None,
            asked: BTreeMap::new(),
            cursor: 0,
            read_planned: false,
            learned: BTreeSet::new(),
            head: None,
            serial: 0,
            chance: Chance::new(seed, &format!("node {place}"), "disk"),
        }
    }

    /// Whether programs can ask it.
    pub(crate) fn serves(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.refusing && process.stop_for.is_none())
    }
}

impl World {
    pub(crate) fn node_now(&self, node: usize) -> Now {
        let it = &self.nodes[node];
        let started = it.process.as_ref().map_or(Duration::ZERO, |process| process.started);
        clocks(self.queue.now(), started, it.ahead_ms)
    }

    /// Starts a process; what it knows is what its disk holds.
    pub(crate) fn start_node(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        if self.is_planted(Mutant::LosesLogEntry) && self.nodes[node].life > 0 {
            self.nodes[node].disk.forget_last_entry();
        }
        let started = self.queue.now();
        let it = &mut self.nodes[node];
        it.life += 1;
        let now = clocks(started, started, it.ahead_ms);
        let cert = CertHash(seed_for(self.seed, &format!("node {node}"), &format!("certificate {}", it.life)));
        self.by_cert.insert(cert, node);
        let endpoint = Endpoint::new(self.settings(node, 0), now);
        self.nodes[node].process = Some(Process {
            endpoint,
            inputs: VecDeque::new(),
            uplink: None,
            expecting: BTreeMap::new(),
            cert,
            refusing: false,
            started,
            batch: None,
            wakes_at: None,
            stop_for: None,
            failures: 0,
            reopened: 0,
        });
        self.announce(node);
        self.note_head(node);
        self.plan_read(node);
    }

    /// Ends a process without a word; it starts again after a while.
    pub(crate) fn kill_node(&mut self, node: usize, away: Duration) {
        if self.nodes[node].process.take().is_none() {
            return;
        }
        if self.is_planted(Mutant::NodeLosesSync)
            && let Some(durable) = self.nodes[node].durable.clone()
        {
            self.nodes[node].disk = durable;
        }
        for (stream, end) in self.network.ends_of(Place::Node(node)) {
            self.network.close(&mut self.queue, stream, end);
        }
        self.fail_asked(node);
        self.queue.after(away, Event::NodeStarts { node });
    }

    /// Asks a process to end in order.
    pub(crate) fn stop_node(&mut self, node: usize, away: Duration) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.refusing {
            return self.kill_node(node, away);
        }
        process.stop_for = Some(away);
        self.node_input(node, Input::Stop);
    }

    /// Every program that waits is told nothing and tries again.
    fn fail_asked(&mut self, node: usize) {
        for asked in std::mem::take(&mut self.nodes[node].asked).into_values() {
            match asked {
                Asked::Message(message) => self.queue.after(PROGRAM_RETRY, Event::Submits { message }),
                Asked::Revoke { target } => {
                    self.queue.after(PROGRAM_RETRY, Event::Revokes { by: node, target });
                }
                Asked::Surface => {}
            }
        }
    }

    /// Hands the machine something to do.
    pub(crate) fn node_input(&mut self, node: usize, input: Input) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.refusing {
            return;
        }
        process.inputs.push_back(input);
        self.arm_node(node);
    }

    /// A program's request.
    pub(crate) fn ask_node(&mut self, node: usize, asked: Asked, request: Request) {
        self.next_token += 1;
        let token = self.next_token;
        self.nodes[node].asked.insert(token, asked);
        self.node_input(node, Input::Request { token, request });
    }

    /// Plans the next batch: at once when there are inputs, else when the machine wants it.
    fn arm_node(&mut self, node: usize) {
        let (real, now) = (self.queue.now(), self.node_now(node));
        let it = &mut self.nodes[node];
        let Some(process) = &mut it.process else { return };
        if process.batch.is_some() || process.refusing {
            return;
        }
        let due = if process.inputs.is_empty() {
            let due = process.endpoint.poll_timeout(now).map(|due| real + due.since(now.monotonic));
            due.map_or(real + WAIT_MAX, |due| due.min(real + WAIT_MAX))
        } else {
            real
        };
        if process.wakes_at != Some(due) {
            process.wakes_at = Some(due);
            it.serial += 1;
            self.queue.at(due, Event::NodeWakes { node, serial: it.serial });
        }
    }

    /// One batch up to its commit.
    pub(crate) fn node_wakes(&mut self, node: usize, serial: u64) {
        if self.nodes[node].serial != serial {
            return;
        }
        let now = self.node_now(node);
        let unique = self.unique();
        let it = &mut self.nodes[node];
        let Some(process) = it.process.as_mut().filter(|process| process.batch.is_none() && !process.refusing)
        else {
            return;
        };
        process.wakes_at = None;
        let mut batch = Batch::default();
        if process.endpoint.poll_timeout(now).is_some_and(|due| due <= now.monotonic) {
            process.endpoint.handle(now, Input::Timeout);
        }
        let count = process.inputs.len().min(BATCH_INPUTS_MAX);
        for input in process.inputs.drain(..count) {
            batch.stops |= matches!(input, Input::Stop);
            process.endpoint.handle(now, input);
        }
        drain(&mut process.endpoint, &it.disk, now, unique, &mut batch);
        if batch.writes.is_empty() {
            return self.finish_batch(node, batch);
        }
        if self.is_planted(Mutant::ActsEarly) {
            let acts = std::mem::take(&mut batch.acts);
            acts.into_iter().for_each(|act| self.act(node, act));
        }
        let longest = Duration::from_millis(self.scenario.topology.commit_ms);
        let it = &mut self.nodes[node];
        let takes = it.chance.between(longest / 5, longest);
        let life = it.life;
        if let Some(process) = &mut it.process {
            process.batch = Some(batch);
            self.queue.after(takes, Event::NodeCommits { node, life });
        }
    }

    /// The disk has an answer.
    pub(crate) fn node_commits(&mut self, node: usize, life: u32) {
        let it = &mut self.nodes[node];
        if it.life != life {
            return;
        }
        let Some(batch) = it.process.as_mut().and_then(|process| process.batch.take()) else { return };
        if it.full > 0 {
            return self.node_store_failed(node);
        }
        it.commits += 1;
        let swept = self.crash_at == Some(it.commits) && self.swept_node() == Some(node);
        let sweep = self.scenario.sweep.filter(|_| swept).map(|sweep| (sweep.moment, sweep.for_s.duration()));
        let crash = self.nodes[node].crash.take().or(sweep);
        if let Some((Moment::Before, away)) = crash {
            self.tally.crashes += 1;
            return self.kill_node(node, away);
        }
        self.node_commit(node, &batch.writes);
        if let Some((Moment::After, away)) = crash {
            self.tally.crashes += 1;
            return self.kill_node(node, away);
        }
        self.finish_batch(node, batch);
    }

    fn unique(&self) -> Unique {
        if self.is_planted(Mutant::ForgetsDedupe) { Unique::Forgotten } else { Unique::Held }
    }

    fn node_commit(&mut self, node: usize, writes: &[Write]) {
        let at = self.queue.now();
        let (unique, losing) = (self.unique(), self.is_planted(Mutant::NodeLosesSync));
        let it = &mut self.nodes[node];
        if losing && it.commits % UNSYNCED_COMMITS == 1 {
            it.durable = Some(it.disk.clone());
        }
        if let Err(what) = it.disk.commit(writes, unique) {
            self.history.note(at, Fact::Broke { at: Place::Node(node), what });
        }
        if let Some(process) = &mut it.process {
            process.failures = 0;
        }
        let mut log_changed = false;
        for write in writes {
            if let Write::Inbox(row) = write {
                self.note_kept(node, row);
            }
            log_changed |= matches!(write, Write::Entry { .. } | Write::Revocation(_));
        }
        let (outbox, held) = self.nodes[node].disk.depths();
        let place = Place::Node(node);
        self.history.depth(at, "open outbox rows", place, outbox, peerloom_proto::limits::OUTBOX_MESSAGES_MAX);
        self.history.depth(at, "held inbox rows", place, held, peerloom_proto::limits::HELD_MESSAGES_MAX);
        if log_changed {
            self.note_head(node);
        }
    }

    /// What the node's disk says of the log, once it changed.
    fn note_head(&mut self, node: usize) {
        let at = self.queue.now();
        let it = &mut self.nodes[node];
        let Some(process) = &it.process else { return };
        let head = process.endpoint.roster().head();
        if it.head.replace(head) != Some(head) {
            self.history.note(at, Fact::Head { node, head });
        }
        for other in &self.history.members {
            if process.endpoint.is_revoked(other) && it.learned.insert(*other) {
                self.history.facts.push((at, Fact::Learned { node, revoked: *other }));
            }
        }
    }

    fn finish_batch(&mut self, node: usize, batch: Batch) {
        for act in batch.acts {
            self.act(node, act);
        }
        if batch.stops
            && let Some(away) = self.nodes[node].process.as_ref().and_then(|process| process.stop_for)
        {
            return self.kill_node(node, away);
        }
        self.arm_node(node);
    }

    /// Nothing of the batch happened: links close, callers try again, the machine is rebuilt later.
    fn node_store_failed(&mut self, node: usize) {
        self.tally.store_failures += 1;
        for (stream, end) in self.network.ends_of(Place::Node(node)) {
            self.network.close(&mut self.queue, stream, end);
        }
        self.fail_asked(node);
        let it = &mut self.nodes[node];
        let life = it.life;
        let Some(process) = &mut it.process else { return };
        process.refusing = true;
        process.uplink = None;
        process.expecting.clear();
        process.inputs.clear();
        process.wakes_at = None;
        process.failures += 1;
        if let Some(away) = process.stop_for {
            return self.kill_node(node, away);
        }
        // The engine's pause: it doubles from 50 ms to 1 s.
        let pause = Duration::from_millis(50 << (process.failures - 1).min(5)).min(Duration::from_secs(1));
        self.queue.after(pause, Event::NodeReopens { node, life });
    }

    /// The store is open again; the machine is rebuilt from it.
    pub(crate) fn node_reopens(&mut self, node: usize, life: u32) {
        let refuses = self.nodes[node].process.as_ref().is_some_and(|process| process.refusing);
        if self.nodes[node].life != life || !refuses {
            return;
        }
        let now = self.node_now(node);
        let reopened = self.nodes[node].process.as_ref().map_or(0, |process| process.reopened) + 1;
        let endpoint = Endpoint::new(self.settings(node, reopened), now);
        if let Some(process) = &mut self.nodes[node].process {
            process.endpoint = endpoint;
            process.reopened = reopened;
            process.refusing = false;
        }
        self.announce(node);
        self.plan_read(node);
    }

    /// Tells the machine how it can be reached.
    fn announce(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let cert = process.cert;
        let last = u16::try_from(node).expect("a world has fewer nodes than ports");
        let candidate = std::net::SocketAddr::from(([127, 0, 0, 1], 10_000 + last));
        self.node_input(node, Input::DirectReady { cert, candidates: vec![candidate] });
    }

    fn settings(&self, node: usize, reopened: u32) -> Settings {
        let it = &self.nodes[node];
        let name = format!("node {node}");
        let own = |purpose: &str| seed_for(self.seed, &name, purpose);
        let [generation, instance] = ["generation", &format!("instance {}", it.life)].map(own);
        Settings {
            member: it.key.clone(),
            owner: None,
            roster: self.replay(node),
            revocations: it.disk.revocations(),
            on_hold: it.disk.on_hold(),
            prekeys: it.disk.prekeys(),
            peer_prekeys: it.disk.peer_prekeys(),
            outbox: it.disk.unsettled(),
            held: it.disk.held(),
            conversations: it.disk.conversations(),
            next_seqs: it.disk.next_seqs(),
            next_outbox_row: it.disk.next_outbox_row(),
            next_inbox_row: it.disk.next_inbox_row(),
            next_position: it.disk.next_position(),
            generation: Generation(*generation.first_chunk().expect("a hash has eight bytes")),
            fp_secret: own("fingerprints"),
            floor: it.disk.floor(),
            origin: self.mesh.origin.clone(),
            instance: InstanceId(*instance.first_chunk().expect("a hash has sixteen bytes")),
            seed: own(&format!("entropy {} {reopened}", it.life)),
        }
    }

    /// The roster of a node's disk: the founding is replayed once a world.
    fn replay(&self, node: usize) -> Roster {
        let stored = &self.nodes[node].disk.entries;
        let founding = &self.mesh.entries;
        if stored.len() < founding.len() {
            let mut entries = stored.iter().map(|entry| WireEntry::parse(entry).expect("a stored entry"));
            let genesis = entries.next().expect("a store begins with its genesis");
            let mut roster = Roster::begin(&genesis).expect("a sound genesis");
            entries.for_each(|entry| drop(roster.append(&entry).expect("stored entries replay")));
            return roster;
        }
        let mut roster = self.mesh.roster.clone();
        for entry in &stored[founding.len()..] {
            let entry = WireEntry::parse(entry).expect("a stored entry");
            roster.append(&entry).expect("stored entries replay");
        }
        roster
    }
}

/// Takes everything the machine wants, answering its lookups from the disk until it has none.
fn drain(endpoint: &mut Endpoint, disk: &NodeDisk, now: Now, unique: Unique, batch: &mut Batch) {
    loop {
        endpoint.finish_batch(now);
        let mut answers = Vec::new();
        while let Some(output) = endpoint.poll_output() {
            match output {
                Output::Write(write) => batch.writes.push(write),
                Output::LookupSent { token, id } => answers.push(Input::Sent { token, rows: disk.sent(id) }),
                Output::LookupSeen(keys) if unique == Unique::Forgotten => {
                    answers.push(Input::Seen { rows: vec![None; keys.len()] });
                }
                Output::LookupSeen(keys) => answers.push(Input::Seen { rows: disk.seen(&keys) }),
                Output::Load(rows) => answers.push(Input::Loaded(disk.load(&rows, &batch.writes))),
                act @ (Output::ConnectUplink
                | Output::CloseUplink(_)
                | Output::SendUplink(_)
                | Output::SendLink(..)
                | Output::CloseLink(_)
                | Output::Expect { .. }
                | Output::Dial { .. }
                | Output::Forget(_)
                | Output::Reply(..)
                | Output::Event(_)) => batch.acts.push(act),
            }
        }
        if answers.is_empty() {
            return;
        }
        answers.into_iter().for_each(|answer| endpoint.handle(now, answer));
    }
}
