//! A node's batches, in the order of `node/engine`: collect, take in, drain, commit, act. A commit takes
//! time, in which inputs gather.

use std::time::Duration;

use peerloom_proto::Now;
use peerloom_proto::endpoint::{Endpoint, Input, Output, Write};

use crate::disk::{NodeDisk, Recovery, Unique};
use crate::model::Fact;
use crate::mutant::Mutant;
use crate::network::Place;
use crate::queue::Event;
use crate::scenario::Moment;
use crate::world::World;

/// What one batch gathered.
#[derive(Debug, Default)]
pub(super) struct Batch {
    writes: Vec<Write>,
    acts: Vec<Output>,
    stops: bool,
}

/// Inputs of one batch, as the engine takes them.
const BATCH_INPUTS_MAX: usize = 256;

/// The engine sleeps no longer.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Under a planted fault one commit in so many is synced.
pub(super) const SYNCED_COMMIT: u64 = 8;

impl World {
    /// Plans the next batch: at once when there are inputs, else when the machine wants it.
    pub(super) fn arm_node(&mut self, node: usize) {
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
        let Some(process) =
            it.process.as_mut().filter(|process| process.batch.is_none() && !process.refusing)
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
        let Some(process) = it.process.as_mut().filter(|process| process.batch.is_some()) else { return };
        if it.full > 0 {
            process.batch = None;
            return self.node_store_failed(node);
        }
        it.commits += 1;
        let swept = self.crash_at == Some(it.commits) && self.swept_node() == Some(node);
        let sweep = self.scenario.sweep.filter(|_| swept).map(|sweep| (sweep.moment, sweep.for_s.duration()));
        let crash = self.nodes[node].crash.take().or(sweep);
        self.tally.crashes += u64::from(crash.is_some());
        if let Some((Moment::During, away)) = crash {
            return self.kill_node(node, away);
        }
        let batch = self.nodes[node].process.as_mut().and_then(|process| process.batch.take());
        let batch = batch.expect("a commit ends while its batch waits");
        if let Some((Moment::Before, away)) = crash {
            return self.kill_node(node, away);
        }
        self.node_syncs(node, &batch.writes);
        self.node_commit(node, &batch.writes);
        if let Some((Moment::After, away)) = crash {
            return self.kill_node(node, away);
        }
        self.finish_batch(node, batch);
    }

    /// Every commit ends with a sync; under a planted fault few do.
    fn node_syncs(&mut self, node: usize, writes: &[Write]) {
        let skips = self.is_planted(Mutant::SkipsSync);
        let it = &mut self.nodes[node];
        if skips && !it.commits.is_multiple_of(SYNCED_COMMIT) {
            it.journal.append(&it.disk, writes);
        } else {
            it.journal.sync();
        }
    }

    /// A process dies: its disk becomes what the next one finds.
    pub(super) fn node_recovers(&mut self, node: usize) {
        let (recovery, unique) = (self.recovery(), self.unique());
        let it = &mut self.nodes[node];
        let batch = it.process.as_mut().and_then(|process| process.batch.take());
        let found = it.journal.recover(batch.map(|batch| batch.writes), recovery);
        if let Some(synced) = found.synced {
            it.disk = synced;
        }
        for writes in &found.acted_on {
            if let Err(what) = it.disk.commit(writes, unique) {
                self.history.note(self.queue.now(), Fact::Broke { at: Place::Node(node), what });
            }
        }
        if let Some(writes) = found.under_way {
            self.node_commit(node, &writes);
        }
    }

    /// How a store reads its journal after a death.
    pub(super) fn recovery(&self) -> Recovery {
        if self.is_planted(Mutant::TrustsTornRecord) { Recovery::AnySector } else { Recovery::WholeRecords }
    }

    fn unique(&self) -> Unique {
        if self.is_planted(Mutant::ForgetsDedupe) { Unique::Forgotten } else { Unique::Held }
    }

    fn node_commit(&mut self, node: usize, writes: &[Write]) {
        let at = self.queue.now();
        let unique = self.unique();
        let it = &mut self.nodes[node];
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
        self.history.depth(
            at,
            "open outbox rows",
            place,
            outbox,
            peerloom_proto::limits::OUTBOX_MESSAGES_MAX,
        );
        self.history.depth(at, "held inbox rows", place, held, peerloom_proto::limits::HELD_MESSAGES_MAX);
        if log_changed {
            self.note_head(node);
        }
    }

    /// What the node's disk says of the log, once it changed.
    pub(super) fn note_head(&mut self, node: usize) {
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
