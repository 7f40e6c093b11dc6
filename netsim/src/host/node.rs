//! A node: its store, and while it runs its machine. Here it starts, ends, dies, and is rebuilt from its
//! disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use peerloom_proto::endpoint::{Endpoint, Input, Request, Settings, Token, Write};
use peerloom_proto::paths::PathPolicies;
use peerloom_proto::{
    CertHash, ConnId, Generation, Head, IdentityKey, InstanceId, Now, PeerId, Roster, UnixMs, WireEntry,
};

use super::batch::Open;
use super::clocks;
use crate::chance::{Chance, seed_for};
use crate::disk::{Journal, NodeDisk};
use crate::internet::Internet;
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
    /// An admin that invites a stranger.
    Invite { node: usize },
    /// An admin that revokes.
    Revoke { target: usize },
    /// A hostile member that wants a direct link; it does not wait.
    Link,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: IdentityKey,
    pub(crate) id: PeerId,
    pub(crate) disk: NodeDisk,
    pub(super) journal: Journal<NodeDisk, Write>,
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
    pub(super) learned: BTreeSet<PeerId>,
    pub(super) head: Option<Head>,
    pub(crate) serial: u64,
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
    /// Open sockets beside the main one.
    pub(super) sockets: BTreeSet<u16>,
    /// Its store failed and is not open again.
    pub(crate) refusing: bool,
    started: Duration,
    pub(super) open: Option<Open>,
    pub(super) wakes_at: Option<Duration>,
    /// How long it will be away, once it was asked to end.
    pub(crate) stop_for: Option<Duration>,
    pub(super) failures: u32,
    /// When its machine's holdings were last counted.
    pub(super) counted_at: Duration,
    reopened: u32,
}

/// After a crash or a refusal a program tries again.
const PROGRAM_RETRY: Duration = Duration::from_secs(1);

impl Node {
    pub(crate) fn new(key: IdentityKey, disk: NodeDisk, seed: u64, place: usize) -> Self {
        let id = key.id();
        Self {
            key,
            id,
            disk,
            journal: Journal::new(seed, &format!("node {place}")),
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
        let cert =
            CertHash(seed_for(self.seed, &format!("node {node}"), &format!("certificate {}", it.life)));
        self.by_cert.insert(cert, node);
        let endpoint = Endpoint::new(self.settings(node, 0), now);
        self.nodes[node].process = Some(Process {
            endpoint,
            inputs: VecDeque::new(),
            uplink: None,
            expecting: BTreeMap::new(),
            cert,
            sockets: BTreeSet::new(),
            refusing: false,
            started,
            open: None,
            wakes_at: None,
            stop_for: None,
            failures: 0,
            counted_at: started,
            reopened: 0,
        });
        self.announce(node);
        self.note_head(node);
        self.plan_read(node);
    }

    /// Ends a process without a word; it starts again after a while.
    pub(crate) fn kill_node(&mut self, node: usize, away: Duration) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.node_recovers(node);
        let process = self.nodes[node].process.take();
        let in_order = process.is_some_and(|process| process.stop_for.is_some());
        for (stream, end) in self.network.ends_of(Place::Node(node)) {
            if in_order {
                self.network.close(&mut self.queue, stream, end);
            } else {
                self.network.abandon(&mut self.queue, stream, end);
            }
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
                Asked::Invite { node: stranger } => {
                    self.queue.after(PROGRAM_RETRY, Event::Invites { by: node, node: stranger });
                }
                Asked::Revoke { target } => {
                    self.queue.after(PROGRAM_RETRY, Event::Revokes { by: node, target });
                }
                Asked::Surface | Asked::Link => {}
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

    /// Nothing of the batch happened: links close, callers try again, the machine is rebuilt later.
    pub(super) fn node_store_failed(&mut self, node: usize) {
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
        process.sockets.clear();
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
    pub(crate) fn announce(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let means = peerloom_proto::Means::quic(process.cert);
        let candidates = vec![self.network.internet.local(node, 0)];
        // Without NATs there is nothing to learn from a STUN server.
        let stun = match self.scenario.topology.nats.is_empty() {
            true => Vec::new(),
            false => Internet::stun_servers().to_vec(),
        };
        self.node_input(node, Input::DirectReady { means, candidates, stun });
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
            floor: if self.is_planted(Mutant::ForgetsFloor) { UnixMs(0) } else { it.disk.floor() },
            coordinator_mark: it.disk.coordinator_mark.filter(|_| !self.is_planted(Mutant::ForgetsMark)),
            policies: PathPolicies::default(),
            origin: self.mesh.origin.clone(),
            instance: InstanceId(*instance.first_chunk().expect("a hash has sixteen bytes")),
            seed: own(&format!("entropy {} {reopened}", it.life)),
        }
    }

    /// The roster of a node's disk: the founding is replayed once a world.
    pub(crate) fn replay(&self, node: usize) -> Roster {
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
