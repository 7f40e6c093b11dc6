//! The coordinator's disk: reads, commits, deaths, and copies that are put back.

use std::time::Duration;

use peerloom_coordinator::hub::{Answer, CommitFailure, Input, Query, ReadId};
use peerloom_coordinator::store::{SIGN_OF_LIFE_EVERY, Write};

use super::READ_MAX;
use crate::host::batch::SYNCED_COMMIT;
use crate::host::clocks;
use crate::model::Fact;
use crate::mutant::Mutant;
use crate::network::Place;
use crate::queue::Event;
use crate::scenario::{Moment, Who};
use crate::world::World;

impl World {
    /// A read happens: it sees what is committed at this instant.
    pub(crate) fn hub_reads(&mut self, process: u32, read: ReadId, query: &Query) {
        if self.coordinator.processes.contains_key(&process) {
            let answer = self.coordinator.disk.answer(query);
            let delay = self.coordinator.chance.between(Duration::ZERO, READ_MAX);
            self.queue.after(delay, Event::HubAnswers { process, read, answer });
        }
    }

    pub(crate) fn hub_answered(&mut self, process: u32, read: ReadId, answer: Answer) {
        self.hub_step(process, Some(Input::Read { read, answer }));
    }

    /// Whether another process took the store over, as every transaction looks first.
    fn is_fenced_off(&self, process: u32) -> bool {
        let it = self.coordinator.processes.get(&process);
        it.is_some_and(|it| it.run != self.coordinator.disk.run()) && !self.is_planted(Mutant::ForgetsFence)
    }

    /// The disk has an answer.
    pub(crate) fn hub_commits(&mut self, process: u32) {
        let Some(it) = self.coordinator.processes.get(&process) else { return };
        let Some(batch) = &it.writing else { return };
        let takes_space = batch.writes.iter().any(|write| !write.settles());
        if self.is_fenced_off(process) {
            return self.fenced_off(process);
        }
        if self.coordinator.full > 0 && takes_space {
            return self.hub_store_is_full(process);
        }
        self.coordinator.commits += 1;
        let swept = self.scenario.sweep.filter(|sweep| sweep.who == Who::Coordinator);
        let sweep = swept.filter(|_| self.crash_at == Some(self.coordinator.commits));
        let sweep = sweep.map(|sweep| (sweep.moment, sweep.for_s.duration()));
        self.swept_at = sweep.map(|_| self.queue.now()).or(self.swept_at);
        let crash = self.coordinator.crash.take().or(sweep);
        self.tally.crashes += u64::from(crash.is_some());
        if let Some((Moment::During, away)) = crash {
            return self.kill_hub(away);
        }
        let batch = self.coordinator.processes.get_mut(&process).and_then(|it| it.writing.take());
        let batch = batch.expect("a commit ends while its batch waits");
        if let Some((Moment::Before, away)) = crash {
            return self.kill_hub(away);
        }
        self.hub_syncs(&batch.writes);
        self.hub_commit(&batch.writes);
        if let Some((Moment::After, away)) = crash {
            return self.kill_hub(away);
        }
        let commit = self.coordinator.disk.commits();
        self.hub_step(process, Some(Input::Committed { batch, commit }));
    }

    /// A process notes now and then that it goes on, unless it does not.
    pub(crate) fn hub_lives(&mut self, process: u32) {
        if !self.coordinator.processes.contains_key(&process) {
            return;
        }
        if self.is_fenced_off(process) {
            return self.fenced_off(process);
        }
        if self.coordinator.full == 0 {
            self.hub_shows_life();
        }
        self.queue.after(SIGN_OF_LIFE_EVERY, Event::HubLives { process });
    }

    fn hub_shows_life(&mut self) {
        let now = self.queue.now();
        let wall = clocks(now, now, self.coordinator.ahead_ms).wall;
        self.coordinator.disk.show_life(wall);
    }

    /// What the coordinator's disk is about to finish.
    pub(crate) fn hub_writes(&self, process: u32) -> &[Write] {
        let batch = self.coordinator.processes.get(&process).and_then(|it| it.writing.as_ref());
        batch.map_or(&[], |batch| &batch.writes)
    }

    /// The store is copied as it is.
    pub(crate) fn copy_store(&mut self, fault: usize) {
        let it = &mut self.coordinator;
        it.copies.entry(fault).or_default().push_back(it.disk.clone());
    }

    /// The machine is stopped, and finds the copy as its store when it is back.
    pub(crate) fn put_back(&mut self, fault: usize, away: Duration) {
        let copy = self.coordinator.copies.get_mut(&fault).and_then(std::collections::VecDeque::pop_front);
        self.kill_hub(away);
        if let Some(copy) = copy {
            self.coordinator.disk = copy;
        }
    }

    /// Nothing that takes space is kept; what frees it is.
    fn hub_store_is_full(&mut self, process: u32) {
        let batch = self.coordinator.processes.get_mut(&process).and_then(|it| it.writing.take());
        let Some(batch) = batch else { return };
        self.tally.store_failures += 1;
        let kept: Vec<Write> = batch.writes.iter().filter(|write| write.settles()).cloned().collect();
        let failure = if kept.is_empty() { CommitFailure::Nothing } else { CommitFailure::FullButSettled };
        self.hub_syncs(&kept);
        self.hub_commit(&kept);
        self.hub_step(process, Some(Input::CommitFailed { batch, failure }));
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

    /// The processes died: their disk becomes what the next one finds. What one that is fenced off had
    /// under way was never begun.
    pub(super) fn hub_recovers(&mut self) {
        let recovery = self.recovery();
        let it = &mut self.coordinator;
        let under_way = it.processes.last_entry().and_then(|mut last| last.get_mut().writing.take());
        let found = it.journal.recover(under_way.map(|batch| batch.writes), recovery);
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
        self.hub_shows_life();
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
