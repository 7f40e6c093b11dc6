//! The coordinator: its store, and while it runs the hub. The order of `coordinator/engine`: hand over
//! what arrived, carry out commands, and write one batch at a time, whose end is an input.

use std::time::Duration;

use peerloom_coordinator::arrived::Arrived;
use peerloom_coordinator::batch::Batch;
use peerloom_coordinator::hub::{
    Answer, Command, CommitFailure, Hub, HubConfig, Input, Query, ReadId, SocketId,
};
use peerloom_coordinator::rate::Allowance;
use peerloom_coordinator::store::{SIGN_OF_LIFE_EVERY, Write};
use peerloom_proto::limits::MAILBOX_MESSAGES_MAX;
use peerloom_proto::{Now, RunId};

use super::batch::SYNCED_COMMIT;
use super::clocks;
use crate::chance::{Chance, seed_for};
use crate::disk::{HubDisk, Journal};
use crate::model::Fact;
use crate::mutant::Mutant;
use crate::network::{Place, StreamId};
use crate::queue::{Carried, Event};
use crate::scenario::{Moment, Who};
use crate::world::World;

/// The coordinator's process and disk.
#[derive(Debug)]
pub(crate) struct HubHost {
    pub(crate) disk: HubDisk,
    journal: Journal<HubDisk, Write>,
    pub(crate) hub: Option<Hub>,
    pub(crate) run: u32,
    started: Duration,
    pub(crate) ahead_ms: i64,
    pub(crate) full: u32,
    pub(crate) commits: u64,
    pub(crate) crash: Option<(Moment, Duration)>,
    writing: Option<Batch>,
    wakes_at: Option<Duration>,
    pub(crate) serial: u64,
    chance: Chance,
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
            hub: None,
            run: 0,
            started: Duration::ZERO,
            ahead_ms: 0,
            full: 0,
            commits: 0,
            crash: None,
            writing: None,
            wakes_at: None,
            serial: 0,
            chance: Chance::new(seed, "coordinator", "disk"),
        }
    }
}

impl World {
    fn hub_now(&self) -> Now {
        clocks(self.queue.now(), self.coordinator.started, self.coordinator.ahead_ms)
    }

    /// Items one queue of the coordinator holds.
    pub(crate) fn mailbox_max(&self) -> u64 {
        self.scenario.topology.mailbox_messages_max.unwrap_or(MAILBOX_MESSAGES_MAX)
    }

    pub(crate) fn start_hub(&mut self) {
        if self.coordinator.hub.is_some() {
            return;
        }
        self.coordinator.started = self.queue.now();
        self.coordinator.run += 1;
        let run = self.coordinator.run;
        let mut config = HubConfig::new(self.mesh.coordinator.clone(), self.mesh.origin.clone());
        // All nodes stand behind one address here.
        config.hellos = Allowance::sustained(0);
        if !self.is_planted(Mutant::ForgetsBound) {
            config.mailbox_messages_max = self.mailbox_max();
        }
        let seed = seed_for(self.seed, "coordinator", &format!("entropy {run}"));
        let id = seed_for(self.seed, "coordinator", &format!("run {run}"));
        let id = RunId(*id.first_chunk().expect("a hash has sixteen bytes"));
        let wall = self.hub_now().wall;
        let snapshot = self.coordinator.disk.begin_run(id, wall);
        self.queue.after(SIGN_OF_LIFE_EVERY, Event::HubLives { run });
        let hub = Hub::new(config, snapshot, seed, self.hub_now());
        self.coordinator.hub = Some(hub);
        self.hub_step(None);
    }

    pub(crate) fn kill_hub(&mut self, away: Duration) {
        let Some(hub) = self.coordinator.hub.take() else { return };
        self.tally.add_hub(&hub.counters());
        self.coordinator.wakes_at = None;
        self.coordinator.serial += 1;
        self.hub_recovers();
        for (stream, end) in self.network.ends_of(Place::Coordinator) {
            self.network.close(&mut self.queue, stream, end);
        }
        self.queue.after(away, Event::HubStarts);
    }

    pub(super) fn hub_knocked(&mut self, id: StreamId) {
        if self.coordinator.hub.is_none() {
            return self.network.refuse(&mut self.queue, id);
        }
        self.network.accept(&mut self.queue, id);
        let addr = std::net::IpAddr::from([192, 0, 2, 7]);
        self.hub_step(Some(Input::Opened { socket: SocketId(id.0), addr }));
    }

    pub(super) fn hub_arrived(&mut self, id: StreamId, carried: Carried) {
        let socket = SocketId(id.0);
        match carried {
            Carried::Frame(frame) => {
                let Some(frame) = self.hub_hears(id, frame) else { return };
                self.hub_step(Some(Input::Frames { socket, frames: vec![Arrived::read(&frame)] }));
            }
            Carried::End => {
                self.network.ended(id, 1);
                self.hub_step(Some(Input::Closed { socket }));
            }
            Carried::Accepted => {}
        }
    }

    pub(super) fn hub_lost(&mut self, id: StreamId) {
        self.hub_step(Some(Input::Closed { socket: SocketId(id.0) }));
    }

    pub(crate) fn hub_wakes(&mut self) {
        self.coordinator.wakes_at = None;
        self.hub_step(None);
    }

    /// One step: an input, what is due, commands, the next batch.
    pub(crate) fn hub_step(&mut self, input: Option<Input>) {
        let now = self.hub_now();
        let Some(hub) = &mut self.coordinator.hub else { return };
        if let Some(input) = input {
            hub.handle(now, input);
        }
        if hub.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            hub.handle(now, Input::Timeout);
        }
        self.hub_carries_out(now);
        let longest = Duration::from_millis(self.scenario.topology.commit_ms);
        let real = self.queue.now();
        let it = &mut self.coordinator;
        let Some(hub) = &mut it.hub else { return };
        if it.writing.is_none()
            && let Some(batch) = hub.take_batch(now)
        {
            it.writing = Some(batch);
            let takes = it.chance.between(longest / 5, longest);
            self.queue.after(takes, Event::HubCommits { run: it.run });
        }
        let due = hub.poll_timeout().map(|due| real + due.since(now.monotonic));
        if let Some(due) = due.filter(|due| it.wakes_at.is_none_or(|at| *due < at || at < real)) {
            it.wakes_at = Some(due);
            it.serial += 1;
            self.queue.at(due, Event::HubWakes { serial: it.serial });
        }
    }

    fn hub_carries_out(&mut self, now: Now) {
        while let Some(command) = self.coordinator.hub.as_mut().and_then(Hub::poll_command) {
            match command {
                Command::Send { socket, frame } => {
                    let stream = StreamId(socket.0);
                    let Some(frame) = self.hub_says(stream, frame) else { continue };
                    let waiting = self.network.send(&mut self.queue, stream, 1, frame);
                    if waiting > SOCKET_BYTES_MAX {
                        self.network.close(&mut self.queue, stream, 1);
                        if let Some(hub) = &mut self.coordinator.hub {
                            hub.handle(now, Input::Closed { socket });
                        }
                    }
                }
                Command::Close { socket } => self.network.close(&mut self.queue, StreamId(socket.0), 1),
                Command::Read { read, query } => {
                    let delay = self.coordinator.chance.between(Duration::ZERO, READ_MAX);
                    self.queue.after(delay, Event::HubReads { run: self.coordinator.run, read, query });
                }
                Command::Reply { .. } => unreachable!("nobody asks the simulated coordinator over HTTP"),
            }
        }
    }

    /// A read happens: it sees what is committed at this instant.
    pub(crate) fn hub_reads(&mut self, run: u32, read: ReadId, query: &Query) {
        if run == self.coordinator.run {
            let answer = self.coordinator.disk.answer(query);
            let delay = self.coordinator.chance.between(Duration::ZERO, READ_MAX);
            self.queue.after(delay, Event::HubAnswers { run, read, answer });
        }
    }

    pub(crate) fn hub_answered(&mut self, run: u32, read: ReadId, answer: Answer) {
        if run == self.coordinator.run {
            self.hub_step(Some(Input::Read { read, answer }));
        }
    }

    /// The disk has an answer.
    pub(crate) fn hub_commits(&mut self, run: u32) {
        let it = &mut self.coordinator;
        if it.run != run {
            return;
        }
        let Some(batch) = &it.writing else { return };
        let takes_space = batch.writes.iter().any(|write| !write.settles());
        if it.full > 0 && takes_space {
            return self.hub_store_is_full();
        }
        it.commits += 1;
        let swept = self.scenario.sweep.filter(|sweep| sweep.who == Who::Coordinator);
        let sweep = swept.filter(|_| self.crash_at == Some(self.coordinator.commits));
        let sweep = sweep.map(|sweep| (sweep.moment, sweep.for_s.duration()));
        self.swept_at = sweep.map(|_| self.queue.now()).or(self.swept_at);
        let crash = self.coordinator.crash.take().or(sweep);
        self.tally.crashes += u64::from(crash.is_some());
        if let Some((Moment::During, away)) = crash {
            return self.kill_hub(away);
        }
        let batch = self.coordinator.writing.take().expect("a commit ends while its batch waits");
        if let Some((Moment::Before, away)) = crash {
            return self.kill_hub(away);
        }
        self.hub_syncs(&batch.writes);
        self.hub_commit(&batch.writes);
        if let Some((Moment::After, away)) = crash {
            return self.kill_hub(away);
        }
        let commit = self.coordinator.disk.commits();
        self.hub_step(Some(Input::Committed { batch, commit }));
    }

    /// A process notes now and then that it goes on.
    pub(crate) fn hub_lives(&mut self, run: u32) {
        if self.coordinator.run != run || self.coordinator.hub.is_none() {
            return;
        }
        if self.coordinator.full == 0 {
            let wall = self.hub_now().wall;
            self.coordinator.disk.show_life(wall);
        }
        self.queue.after(SIGN_OF_LIFE_EVERY, Event::HubLives { run });
    }

    /// What the coordinator's disk is about to finish.
    pub(crate) fn hub_writes(&self, run: u32) -> &[Write] {
        let it = &self.coordinator;
        let batch = it.writing.as_ref().filter(|_| it.run == run);
        batch.map_or(&[], |batch| &batch.writes)
    }

    /// Nothing that takes space is kept; what frees it is.
    fn hub_store_is_full(&mut self) {
        let Some(batch) = self.coordinator.writing.take() else { return };
        self.tally.store_failures += 1;
        let kept: Vec<Write> = batch.writes.iter().filter(|write| write.settles()).cloned().collect();
        let failure = if kept.is_empty() { CommitFailure::Nothing } else { CommitFailure::FullButSettled };
        self.hub_syncs(&kept);
        self.hub_commit(&kept);
        self.hub_step(Some(Input::CommitFailed { batch, failure }));
    }

    /// Every commit ends with a sync; under a planted fault few do.
    fn hub_syncs(&mut self, writes: &[Write]) {
        let skips = self.is_planted(Mutant::SkipsSync);
        let it = &mut self.coordinator;
        if skips && !it.commits.is_multiple_of(SYNCED_COMMIT) {
            it.journal.append(&it.disk, writes);
        } else {
            it.journal.sync();
        }
    }

    /// The process died: its disk becomes what the next one finds.
    fn hub_recovers(&mut self) {
        let recovery = self.recovery();
        let it = &mut self.coordinator;
        let under_way = it.writing.take().map(|batch| batch.writes);
        let found = it.journal.recover(under_way, recovery);
        if let Some(synced) = found.synced {
            it.disk = synced;
        }
        for writes in found.acted_on.iter().chain(&found.under_way) {
            self.hub_commit(writes);
        }
    }

    fn hub_commit(&mut self, writes: &[Write]) {
        if let Some(outside) = &mut self.network.outside {
            outside.stores(self.queue.now(), writes);
        }
        let wall = self.hub_now().wall;
        self.coordinator.disk.show_life(wall);
        let (at, mailbox_max) = (self.queue.now(), self.mailbox_max());
        let keeps = self.is_planted(Mutant::KeepsMail);
        let it = &mut self.coordinator;
        let kept = writes.iter().filter(|write| !(keeps && matches!(write, Write::DeleteMail { .. })));
        if let Err(what) = it.disk.commit(kept) {
            self.history.note(at, Fact::Broke { at: Place::Coordinator, what });
        }
        self.note_fork();
        let limit = usize::try_from(mailbox_max).expect("bounds fit a usize");
        for write in writes {
            if let Write::PutMail(row) = write
                && let Some(node) = self.by_member.get(&row.to).copied()
            {
                let count = self.coordinator.disk.envelopes_for(row.mesh, row.to);
                self.history.depth(at, "queued envelopes", Place::Node(node), count, limit);
            }
        }
    }
}
