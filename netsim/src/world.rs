//! One world: hosts, network, programs and faults on one virtual clock, in one thread. A run is a
//! function of scenario and seed.
//!
//! [`run`] narrates it: found the mesh, start everybody, plan messages and faults, let it happen until
//! the last fault is over, let it drain, and say what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::{CertHash, MessageId, PeerId};

use crate::check::{self, Violation};
use crate::disk::{HubDisk, NodeDisk};
use crate::evil::Evil;
use crate::fault::Turn;
use crate::host::{Evidence, HubHost, Node};
use crate::hostile::Hostile;
use crate::internet::{Internet, Travelling};
use crate::joiner::Joiner;
use crate::mesh::{Mesh, first_prekey, node_key};
use crate::model::{Fact, History, Planned};
use crate::mutant::Mutant;
use crate::network::{Delay, Network, Place};
use crate::outside::{Contents, Outside};
use crate::progress::Pace;
use crate::queue::{Carried, Event, Queue};
use crate::scenario::{self, Millis, Scenario, Topology, Who};
use crate::trace::{Trace, name_of};
use crate::verdict::{Tally, Verdict};
use crate::watch::{Lens, Seen, Watch};

/// What makes a run, beside the scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// The commit of the swept host at which it crashes.
    pub(crate) crash_at: Option<u64>,
    pub(crate) mutant: Option<Mutant>,
    /// The run goes on for so long, though nothing may happen any more.
    pub(crate) at_least: Duration,
}

/// A run's outcome.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) violations: Vec<Violation>,
    /// What the checkers read.
    pub(crate) history: History,
    /// The last happenings, for people.
    pub(crate) last: Vec<String>,
    /// Commits of the swept host.
    pub(crate) swept_commits: u64,
    /// When it crashed for the sweep's sake.
    pub(crate) swept_at: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    pub(crate) crash_at: Option<u64>,
    mutant: Option<Mutant>,
    pub(crate) queue: Queue,
    pub(crate) network: Network,
    pub(crate) mesh: Mesh,
    pub(crate) nodes: Vec<Node>,
    pub(crate) coordinator: HubHost,
    pub(crate) evil: Evil,
    pub(crate) hostiles: Vec<Hostile>,
    /// Strangers with an invite, by the node that they will be.
    pub(crate) joiners: BTreeMap<usize, Joiner>,
    pub(crate) evidence: Evidence,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    trace: Trace,
    pub(crate) watch: Option<Watch>,
    pub(crate) plan: Vec<Turn>,
    /// Messages by the name their senders gave them: one each, but for hostile members.
    pub(crate) by_id: BTreeMap<MessageId, Vec<usize>>,
    pub(crate) by_member: BTreeMap<PeerId, usize>,
    pub(crate) by_cert: BTreeMap<CertHash, usize>,
    /// Messages whose program waits for an answer.
    pub(crate) unanswered: usize,
    /// Faults that keep direct links from being made.
    pub(crate) no_direct: u32,
    pub(crate) next_token: u64,
    pub(crate) swept_at: Option<Duration>,
    /// When the last fault is over.
    over: Duration,
}

/// Happenings at one instant: more means that something goes round without time passing.
const SPINS_MAX: u32 = 200_000;

/// How often a settling world is asked whether it drained.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long a drained world is watched on: longer than a claim's lease, so that what is offered again
/// would be seen.
const QUIET: Duration = Duration::from_secs(45);

/// Nodes start within this.
const START_WITHIN: Duration = Duration::from_millis(500);

/// Runs a scenario once.
pub(crate) fn run(scenario: &Scenario, options: Options) -> Outcome {
    run_paced(scenario, options, &mut Pace::silent())
}

/// The same before somebody's eyes.
pub(crate) fn run_paced(scenario: &Scenario, options: Options, pace: &mut Pace) -> Outcome {
    let mut world = World::new(scenario.clone(), options);
    world.let_it_happen(options.at_least, pace);
    world.finish()
}

/// The same run, and what was seen of it through a lens.
pub(crate) fn watched(scenario: &Scenario, options: Options, lens: Lens) -> (Outcome, Vec<Seen>) {
    let mut world = World::new(scenario.clone(), options);
    world.watch = Some(Watch::new(lens));
    world.let_it_happen(options.at_least, &mut Pace::silent());
    let seen = world.watch.take().map(Watch::finish).unwrap_or_default();
    (world.finish(), seen)
}

/// The same run with such messages, and what an outsider saw of it.
pub(crate) fn observed(scenario: &Scenario, options: Options, contents: Contents) -> Outside {
    let mut world = World::new(scenario.clone(), options);
    world.network.outside = Some(Outside::new(options.seed, contents));
    world.let_it_happen(options.at_least, &mut Pace::silent());
    world.network.outside.take().expect("nobody takes it before the end")
}

/// What a run begins with: its messages, and its faults with every draw made.
pub(crate) fn plan(scenario: &Scenario, seed: u64) -> (Vec<Planned>, Vec<Turn>) {
    let mut world = World::new(
        scenario.clone(),
        Options { at_least: Duration::ZERO, seed, crash_at: None, mutant: None },
    );
    world.plan_messages();
    world.plan_faults();
    (world.history.messages, world.plan)
}

impl World {
    fn new(scenario: Scenario, options: Options) -> Self {
        let Options { seed, crash_at, mutant, at_least: _ } = options;
        let count = scenario.topology.nodes;
        let mesh = Mesh::found(seed, count, &scenario.strangers());
        let nodes: Vec<Node> = (0..count)
            .map(|node| {
                let disk = NodeDisk::new(mesh.entries.clone(), first_prekey(seed, node));
                Node::new(node_key(seed, node), disk, seed, node)
            })
            .collect();
        let disk = HubDisk::new(mesh.roster.mesh_id(), mesh.entries.to_vec());
        let members: Vec<PeerId> = nodes.iter().map(|node| node.id).collect();
        let by_member = members.iter().copied().zip(0..).collect();
        let [uplink, direct] = [scenario.topology.uplink_ms, scenario.topology.direct_ms].map(delay);
        let Topology { link, nats, .. } = &scenario.topology;
        let (chains, shared) = scenario::standing(nats, count, seed);
        let internet = Internet::new(&chains, &shared, seed);
        let shapes = link.shapes(uplink, direct, !nats.is_empty());
        let network = Network::new(uplink, direct, shapes, internet, seed);
        Self {
            seed,
            crash_at,
            mutant,
            queue: Queue::default(),
            network,
            mesh,
            nodes,
            coordinator: HubHost::new(disk, seed),
            evil: Evil::new(&scenario.faults, seed),
            hostiles: scenario.hostile.iter().map(|member| Hostile::new(member, seed)).collect(),
            joiners: BTreeMap::new(),
            evidence: Evidence::default(),
            history: History::of(members),
            tally: Tally::default(),
            trace: Trace::default(),
            watch: None,
            plan: Vec::new(),
            by_id: BTreeMap::new(),
            by_member,
            by_cert: BTreeMap::new(),
            unanswered: 0,
            no_direct: 0,
            next_token: 0,
            swept_at: None,
            over: Duration::ZERO,
            scenario,
        }
    }

    fn let_it_happen(&mut self, at_least: Duration, pace: &mut Pace) {
        self.start();
        self.plan_messages();
        let over = self.plan_faults().max(self.plan_hostilities());
        self.over = over.max(at_least);
        self.pass_until(self.over, pace);
        self.settle(self.over + self.scenario.settle_s.duration(), pace);
        pace.done();
    }

    fn start(&mut self) {
        self.queue.after(Duration::ZERO, Event::HubStarts);
        let strangers = self.scenario.strangers();
        for node in (0..self.nodes.len()).filter(|node| !strangers.contains(node)) {
            let at = self.nodes[node].chance.between(Duration::ZERO, START_WITHIN);
            self.queue.after(at, Event::NodeStarts { node });
        }
    }

    /// Whether this run has that planted fault.
    pub(crate) fn is_planted(&self, mutant: Mutant) -> bool {
        cfg!(feature = "mutants") && self.mutant == Some(mutant)
    }

    /// The node whose commits are swept.
    pub(crate) fn swept_node(&self) -> Option<usize> {
        match self.scenario.sweep?.who {
            Who::Node(node) => Some(node),
            Who::Coordinator | Who::Any => None,
        }
    }

    fn pass_until(&mut self, until: Duration, pace: &mut Pace) {
        let (mut at, mut spins) = (Duration::ZERO, 0);
        while let Some(event) = self.queue.next(until) {
            let now = self.queue.now();
            spins = if now > at { 0 } else { spins + 1 };
            at = now;
            if spins > SPINS_MAX {
                let what = format!("the world spins at {event:?}");
                return self.history.note(now, Fact::Broke { at: Place::Coordinator, what });
            }
            if !self.is_stale(&event) {
                self.note(&event);
                self.watch(&event);
                self.happen(event);
                self.watch_outcome();
                pace.passed(now, self.over, self.trace.events());
            }
        }
    }

    /// Runs until everything has drained and stayed so, or until `deadline`.
    fn settle(&mut self, deadline: Duration, pace: &mut Pace) {
        while self.queue.now() < deadline && !self.left().is_empty() {
            self.pass_until(self.queue.now() + PROBE_EVERY, pace);
        }
        self.pass_until(self.queue.now() + QUIET, pace);
        let end = self.queue.now() + QUIET;
        while self.queue.now() < end && !self.left().is_empty() {
            self.pass_until(self.queue.now() + Duration::from_secs(1), pace);
        }
        self.history.left = self.left();
    }

    /// Whether this is the sleep of a machine that something woke before.
    fn is_stale(&self, event: &Event) -> bool {
        if let Event::NodeWakes { node, serial } = event {
            self.nodes[*node].serial != *serial
        } else if let Event::HubWakes { process, serial } = event {
            self.coordinator.is_awake(*process, *serial)
        } else {
            false
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Knocked { stream } => self.knocked(stream),
            Event::KnockEnds { stream } => self.knock_ends(stream),
            Event::Arrived { stream, end, carried } => self.arrived(stream, end, carried),
            Event::Noticed { stream, end } => self.noticed(stream, end),
            Event::Packet { stream, end, packet } => {
                self.network.packet_arrived(&mut self.queue, stream, end, packet);
            }
            Event::Datagram { travelling, payload } => self.datagram_arrived(&travelling, payload),
            Event::FlowTimer { stream, end } => self.network.flow_timer(&mut self.queue, stream, end),
            Event::NodeWakes { node, serial: _ } => self.node_wakes(node),
            Event::NodeCommits { node, life } => self.node_commits(node, life),
            Event::NodeHears { node, life, input } => {
                if self.nodes[node].life == life {
                    self.node_input(node, input);
                }
            }
            Event::NodeDials { node, life, conn, peer_cert, socket, candidates } => {
                self.node_dials(node, life, (conn, peer_cert), socket, candidates);
            }
            Event::NodeStarts { node } => self.start_node(node),
            Event::NodeReopens { node, life } => self.node_reopens(node, life),
            Event::NodeReads { node } => self.node_reads(node),
            Event::HubWakes { process, serial: _ } => self.hub_wakes(process),
            Event::HubCommits { process } => self.hub_commits(process),
            Event::HubLives { process } => self.hub_lives(process),
            Event::HubReads { process, read, query } => self.hub_reads(process, read, &query),
            Event::HubAnswers { process, read, answer } => self.hub_answered(process, read, answer),
            Event::HubStarts => self.start_hub(),
            Event::Submits { message } => self.submits(message),
            Event::Fault { index } => self.fault(index),
            Event::EvilSays { stream, frame } => self.evil_says(stream, frame),
            Event::HostileActs { hostile } => self.hostile_acts(hostile),
            Event::Revokes { by, target } => self.revokes(by, target),
            Event::Invites { by, node } => self.invites(by, node),
            Event::JoinerAsks { node } => self.joiner_asks(node),
            Event::HubAsked { token, request } => self.hub_asked(token, request),
            Event::JoinerHears { token, reply } => self.joiner_hears(token, reply),
            Event::JoinerWaits { node, token } => self.joiner_waits(node, token),
        }
    }

    fn note(&mut self, event: &Event) {
        let at = self.queue.now();
        match event {
            Event::Arrived { stream, end, carried: Carried::Frame(frame) } => {
                let (bytes, name) = (frame.len(), name_of(frame));
                self.trace.note(at, format_args!("{stream:?}.{end} frame of {bytes} bytes, {name:016x}"));
            }
            Event::EvilSays { stream, frame } => {
                let (bytes, name) = (frame.len(), name_of(frame));
                self.trace.note(at, format_args!("{stream:?} evil frame of {bytes} bytes, {name:016x}"));
            }
            Event::Datagram { travelling: Travelling { from, to, .. }, payload } => {
                self.trace.note(at, format_args!("from {from} to {to}: {payload}"));
            }
            Event::Packet { stream, end, packet } => {
                self.trace.note(at, format_args!("{stream:?}.{end} {packet}"));
            }
            Event::HubReads { read, .. } => self.trace.note(at, format_args!("hub reads {read:?}")),
            Event::HubAnswers { read, .. } => self.trace.note(at, format_args!("hub is answered {read:?}")),
            Event::Fault { index } => self.trace.note(at, format_args!("fault {:?}", self.plan[*index])),
            Event::Knocked { .. }
            | Event::KnockEnds { .. }
            | Event::Arrived { .. }
            | Event::Noticed { .. }
            | Event::FlowTimer { .. }
            | Event::NodeWakes { .. }
            | Event::NodeCommits { .. }
            | Event::NodeHears { .. }
            | Event::NodeDials { .. }
            | Event::NodeStarts { .. }
            | Event::NodeReopens { .. }
            | Event::NodeReads { .. }
            | Event::HubWakes { .. }
            | Event::HubCommits { .. }
            | Event::HubLives { .. }
            | Event::HubStarts
            | Event::Submits { .. }
            | Event::HostileActs { .. }
            | Event::Invites { .. }
            | Event::JoinerAsks { .. }
            | Event::HubAsked { .. }
            | Event::JoinerHears { .. }
            | Event::JoinerWaits { .. }
            | Event::Revokes { .. } => self.trace.note(at, format_args!("{event:?}")),
        }
    }

    /// What is still under way; nothing once everything has drained.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.unanswered > 0 {
            left.push(format!("{} programs wait for an answer", self.unanswered));
        }
        if !self.coordinator.runs() {
            left.push("the coordinator does not run".to_owned());
        }
        if self.coordinator.outlived() > 0 {
            left.push("a coordinator goes on whose store another took over".to_owned());
        }
        let mesh = self.mesh.roster.mesh_id();
        let log = self.coordinator.disk.log(&mesh);
        for row in self.coordinator.disk.mail() {
            let to = self.by_member.get(&row.to).copied();
            if to.is_none_or(|to| !self.history.revoked.contains(&to)) {
                left.push(format!(
                    "the coordinator keeps a {:?} for node {to:?}, claim {}",
                    row.kind, row.seq
                ));
            }
        }
        for (node, it) in self.nodes.iter().enumerate() {
            if self.history.revoked.contains(&node) {
                continue;
            }
            if it.process.is_none() {
                left.push(format!("node {node} does not run"));
            }
            for row in it.disk.open_rows() {
                left.push(format!("node {node}'s row for {} to {} is {}", row.id, row.to, row.state.name()));
            }
            let (_, held) = it.disk.depths();
            if held > 0 {
                left.push(format!("node {node} holds {held} messages behind gaps"));
            }
            if it.disk.readable_after(it.cursor).next().is_some() {
                left.push(format!("node {node} has mail that nobody read"));
            }
            let log = self.evil.forked_log(node).unwrap_or(log);
            if !is_same_log(&it.disk.entries, log) {
                left.push(format!("node {node} has {} of {} log entries", it.disk.entries.len(), log.len()));
            }
        }
        left
    }

    fn finish(mut self) -> Outcome {
        self.tally.forgotten = self.nodes.iter().map(|node| node.disk.forgotten()).sum();
        for hub in self.coordinator.hubs() {
            self.tally.add_hub(&hub.counters());
        }
        let swept_commits = match self.swept_node() {
            Some(node) => self.nodes[node].commits,
            None => self.coordinator.commits,
        };
        let mut violations = check::all(&self.history);
        let wrong = if self.scenario.expect.direct_as_owed { self.not_as_owed() } else { Vec::new() };
        self.tally.virtual_time = self.queue.now();
        self.tally.events = self.trace.events();
        self.tally.packets = self.network.packets;
        let (hash, last) = self.trace.finish();
        let verdict = Verdict::new(&self.history, self.tally, hash);
        let expected = verdict.unmet(&self.scenario.expect).into_iter().chain(wrong);
        violations.extend(expected.map(|what| Violation { invariant: "expect", at: None, what }));
        Outcome { verdict, violations, history: self.history, last, swept_commits, swept_at: self.swept_at }
    }
}

/// Whether two logs have the same entries, most of which are the same bytes in memory.
fn is_same_log(a: &[Bytes], b: &[Bytes]) -> bool {
    let same = |(a, b): (&Bytes, &Bytes)| (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b;
    a.len() == b.len() && a.iter().zip(b).all(same)
}

fn delay(millis: Millis) -> Delay {
    let least = Duration::from_millis(millis.low);
    Delay { least, jitter: Duration::from_millis(millis.high) - least }
}
