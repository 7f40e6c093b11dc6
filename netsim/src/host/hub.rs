//! The coordinator: its store, and the processes that have it open, each with its hub. The order of
//! `coordinator/engine`: hand over what arrived, carry out commands, and write one batch at a time, whose
//! end is an input.

mod store;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use peerloom_coordinator::arrived::Arrived;
use peerloom_coordinator::batch::Batch;
use peerloom_coordinator::hub::{Command, HttpRequest, HttpToken, Hub, HubConfig, Input, SocketId};
use peerloom_coordinator::rate::Allowance;
use peerloom_coordinator::store::{SIGN_OF_LIFE_EVERY, Write};
use peerloom_proto::limits::MAILBOX_MESSAGES_MAX;
use peerloom_proto::{Now, RunId};

use super::clocks;
use crate::chance::{Chance, seed_for};
use crate::disk::{HubDisk, Journal};
use crate::mutant::Mutant;
use crate::network::{Place, StreamId};
use crate::queue::{Carried, Event};
use crate::scenario::Moment;
use crate::world::World;

/// The coordinator's store and processes.
#[derive(Debug)]
pub(crate) struct HubHost {
    pub(crate) disk: HubDisk,
    journal: Journal<HubDisk, Write>,
    /// By the order of their starts. The last takes connections; the store was taken over from the others,
    /// which have not noticed yet.
    processes: BTreeMap<u32, HubProcess>,
    /// Processes so far.
    started: u32,
    /// At which process a stream ends.
    ends_at: BTreeMap<StreamId, u32>,
    /// Copies of the store that a fault will put back, by its place among the faults, the oldest first.
    copies: BTreeMap<usize, VecDeque<HubDisk>>,
    pub(crate) ahead_ms: i64,
    pub(crate) full: u32,
    pub(crate) commits: u64,
    pub(crate) crash: Option<(Moment, Duration)>,
    serial: u64,
    chance: Chance,
}

/// A running process.
#[derive(Debug)]
struct HubProcess {
    hub: Hub,
    /// The run of the store that it began.
    run: u64,
    started: Duration,
    writing: Option<Batch>,
    wakes_at: Option<Duration>,
    serial: u64,
}

/// Bytes that may wait for one socket, as `coordinator/outbox` has it.
const SOCKET_BYTES_MAX: usize = 2 << 20;

/// A read waits this long at most for its connection, and its answer for the hub.
const READ_MAX: Duration = Duration::from_millis(2);

impl HubHost {
    pub(crate) fn new(disk: HubDisk, seed: u64) -> Self {
        Self {
            disk,
            journal: Journal::new(seed, "coordinator"),
            processes: BTreeMap::new(),
            started: 0,
            ends_at: BTreeMap::new(),
            copies: BTreeMap::new(),
            ahead_ms: 0,
            full: 0,
            commits: 0,
            crash: None,
            serial: 0,
            chance: Chance::new(seed, "coordinator", "disk"),
        }
    }

    /// Whether any process runs.
    pub(crate) fn runs(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Processes that another took the store over from.
    pub(crate) fn outlived(&self) -> usize {
        self.processes.len().saturating_sub(1)
    }

    /// The hubs that run.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &Hub> {
        self.processes.values().map(|process| &process.hub)
    }

    /// Whether a process's sleep was cut short.
    pub(crate) fn is_awake(&self, process: u32, serial: u64) -> bool {
        self.processes.get(&process).is_none_or(|process| process.serial != serial)
    }
}

impl World {
    /// Items one queue of the coordinator holds.
    pub(crate) fn mailbox_max(&self) -> u64 {
        self.scenario.topology.mailbox_messages_max.unwrap_or(MAILBOX_MESSAGES_MAX)
    }

    /// Starts a process, if none runs.
    pub(crate) fn start_hub(&mut self) {
        if !self.coordinator.runs() {
            self.open_hub();
        }
    }

    /// Starts a process, whoever has the store open.
    pub(crate) fn open_hub(&mut self) {
        let started = self.queue.now();
        let now = clocks(started, started, self.coordinator.ahead_ms);
        self.coordinator.started += 1;
        let process = self.coordinator.started;
        let mut config = HubConfig::new(self.mesh.coordinator.clone(), self.mesh.origin.clone());
        // All nodes stand behind one address here.
        config.hellos = Allowance::sustained(0);
        if !self.is_planted(Mutant::ForgetsBound) {
            config.mailbox_messages_max = self.mailbox_max();
        }
        let seed = seed_for(self.seed, "coordinator", &format!("entropy {process}"));
        let named = if self.is_planted(Mutant::ForgetsRun) { 1 } else { process };
        let id = seed_for(self.seed, "coordinator", &format!("run {named}"));
        let id = RunId(*id.first_chunk().expect("a hash has sixteen bytes"));
        let snapshot = self.coordinator.disk.begin_run(id, now.wall);
        let run = self.coordinator.disk.run();
        let hub = Hub::new(config, snapshot, seed, now);
        let begun = HubProcess { hub, run, started, writing: None, wakes_at: None, serial: 0 };
        self.coordinator.processes.insert(process, begun);
        self.queue.after(SIGN_OF_LIFE_EVERY, Event::HubLives { process });
        self.hub_step(process, None);
    }

    /// The machine dies, and with it every process; one starts again after a while.
    pub(crate) fn kill_hub(&mut self, away: Duration) {
        if !self.coordinator.runs() {
            return;
        }
        self.hub_recovers();
        for process in std::mem::take(&mut self.coordinator.processes).into_values() {
            self.tally.add_hub(&process.hub.counters());
        }
        self.coordinator.ends_at.clear();
        for (stream, end) in self.network.ends_of(Place::Coordinator) {
            self.network.close(&mut self.queue, stream, end);
        }
        self.queue.after(away, Event::HubStarts);
    }

    /// A process finds that another took the store over: it ends, and promises nothing more.
    fn fenced_off(&mut self, process: u32) {
        let Some(ended) = self.coordinator.processes.remove(&process) else { return };
        self.tally.add_hub(&ended.hub.counters());
        self.tally.fenced += 1;
        let ends = |at: &u32| *at == process;
        let streams = self.coordinator.ends_at.iter().filter(|(_, at)| ends(at));
        let streams: Vec<StreamId> = streams.map(|(stream, _)| *stream).collect();
        self.coordinator.ends_at.retain(|_, at| !ends(at));
        streams.into_iter().for_each(|stream| self.network.close(&mut self.queue, stream, 1));
    }

    pub(super) fn hub_knocked(&mut self, id: StreamId) {
        let Some(process) = self.coordinator.processes.last_key_value().map(|(process, _)| *process) else {
            return self.network.refuse(&mut self.queue, id);
        };
        self.coordinator.ends_at.insert(id, process);
        self.network.accept(&mut self.queue, id);
        let addr = std::net::IpAddr::from([192, 0, 2, 7]);
        self.hub_step(process, Some(Input::Opened { socket: SocketId(id.0), addr }));
    }

    /// Somebody who is no member yet asks, over HTTP; nobody is told when no process runs.
    pub(crate) fn hub_asked(&mut self, token: u64, request: HttpRequest) {
        let Some(process) = self.coordinator.processes.last_key_value().map(|(process, _)| *process) else {
            return;
        };
        let addr = std::net::IpAddr::from([192, 0, 2, 8]);
        self.hub_step(process, Some(Input::Http { token: HttpToken(token), addr, request }));
    }

    pub(super) fn hub_arrived(&mut self, id: StreamId, carried: Carried) {
        let Some(process) = self.coordinator.ends_at.get(&id).copied() else { return };
        match carried {
            Carried::Frame(frame) => {
                let Some(frame) = self.hub_hears(id, frame) else { return };
                let socket = SocketId(id.0);
                self.hub_step(process, Some(Input::Frames { socket, frames: vec![Arrived::read(&frame)] }));
            }
            Carried::End => {
                self.network.ended(id, 1);
                self.hub_lost(id);
            }
            Carried::Accepted => {}
        }
    }

    pub(super) fn hub_lost(&mut self, id: StreamId) {
        if let Some(process) = self.coordinator.ends_at.remove(&id) {
            self.hub_step(process, Some(Input::Closed { socket: SocketId(id.0) }));
        }
    }

    pub(crate) fn hub_wakes(&mut self, process: u32) {
        if let Some(it) = self.coordinator.processes.get_mut(&process) {
            it.wakes_at = None;
        }
        self.hub_step(process, None);
    }

    /// One step: an input, what is due, commands, the next batch.
    fn hub_step(&mut self, process: u32, input: Option<Input>) {
        let real = self.queue.now();
        let ahead_ms = self.coordinator.ahead_ms;
        let Some(it) = self.coordinator.processes.get_mut(&process) else { return };
        let now = clocks(real, it.started, ahead_ms);
        if let Some(input) = input {
            it.hub.handle(now, input);
        }
        if it.hub.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            it.hub.handle(now, Input::Timeout);
        }
        self.hub_carries_out(process, now);
        let longest = Duration::from_millis(self.scenario.topology.commit_ms);
        let HubHost { processes, chance, serial, .. } = &mut self.coordinator;
        let Some(it) = processes.get_mut(&process) else { return };
        if it.writing.is_none()
            && let Some(batch) = it.hub.take_batch(now)
        {
            it.writing = Some(batch);
            let takes = chance.between(longest / 5, longest);
            self.queue.after(takes, Event::HubCommits { process });
        }
        let due = it.hub.poll_timeout().map(|due| real + due.since(now.monotonic));
        if let Some(due) = due.filter(|due| it.wakes_at.is_none_or(|at| *due < at || at < real)) {
            *serial += 1;
            (it.wakes_at, it.serial) = (Some(due), *serial);
            self.queue.at(due, Event::HubWakes { process, serial: *serial });
        }
    }

    fn hub_carries_out(&mut self, process: u32, now: Now) {
        loop {
            let it = self.coordinator.processes.get_mut(&process);
            let Some(command) = it.and_then(|it| it.hub.poll_command()) else { return };
            match command {
                Command::Send { socket, frame } => {
                    let stream = StreamId(socket.0);
                    let Some(frame) = self.hub_says(stream, frame) else { continue };
                    let waiting = self.network.send(&mut self.queue, stream, 1, frame);
                    if waiting > SOCKET_BYTES_MAX {
                        self.hub_closes(stream);
                        if let Some(it) = self.coordinator.processes.get_mut(&process) {
                            it.hub.handle(now, Input::Closed { socket });
                        }
                    }
                }
                Command::Close { socket } => self.hub_closes(StreamId(socket.0)),
                Command::Read { read, query } => {
                    let delay = self.coordinator.chance.between(Duration::ZERO, READ_MAX);
                    self.queue.after(delay, Event::HubReads { process, read, query });
                }
                Command::Reply { token, reply } => self.hub_replies(token, reply),
            }
        }
    }

    fn hub_closes(&mut self, stream: StreamId) {
        self.coordinator.ends_at.remove(&stream);
        self.network.close(&mut self.queue, stream, 1);
    }
}
