//! A node's batches, in the order of `node/engine` and by the same [`Batch`]: collect, take in, drain,
//! commit, act. A commit takes time, in which inputs gather.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::endpoint::{Batch, Fill, Input, Lookups, OutboxRow, Row, SeenRow, SentRow, Write};
use peerloom_proto::{MessageId, PeerId};

use crate::disk::{NodeDisk, Recovery, Unique};
use crate::model::Fact;
use crate::mutant::Mutant;
use crate::network::Place;
use crate::queue::Event;
use crate::scenario::Moment;
use crate::world::World;

/// A batch whose commit the disk works on.
#[derive(Debug)]
pub(super) struct Open {
    batch: Batch,
    /// Its process ends with it.
    stops: bool,
}

/// Under a planted fault one commit in so many is synced.
pub(super) const SYNCED_COMMIT: u64 = 8;

impl World {
    /// Plans the next batch: at once when there are inputs, else when the machine wants it.
    pub(super) fn arm_node(&mut self, node: usize) {
        let (real, now) = (self.queue.now(), self.node_now(node));
        let it = &mut self.nodes[node];
        let Some(process) = &mut it.process else { return };
        if process.open.is_some() || process.refusing {
            return;
        }
        let due = if process.inputs.is_empty() { real + process.endpoint.idle(now) } else { real };
        if process.wakes_at != Some(due) {
            process.wakes_at = Some(due);
            it.serial += 1;
            self.queue.at(due, Event::NodeWakes { node, serial: it.serial });
        }
    }

    /// One batch up to its commit.
    pub(crate) fn node_wakes(&mut self, node: usize) {
        let now = self.node_now(node);
        let unique = self.unique();
        let leaves = self.is_planted(Mutant::LeavesOutputs) && self.nodes[node].serial.is_multiple_of(8);
        let it = &mut self.nodes[node];
        let Some(process) = it.process.as_mut().filter(|process| process.open.is_none() && !process.refusing)
        else {
            return;
        };
        process.wakes_at = None;
        let mut open = Open { batch: Batch::begin(&mut process.endpoint, now), stops: false };
        let mut fill = Fill::default();
        while !fill.is_full()
            && let Some(input) = process.inputs.pop_front()
        {
            fill.add(1, frame_bytes(&input));
            open.stops |= matches!(input, Input::Stop);
            process.endpoint.handle(now, input);
        }
        if !leaves {
            let Ok(()) = open.batch.drain(&mut process.endpoint, now, &mut Disk { disk: &it.disk, unique });
        }
        if open.batch.writes.is_empty() {
            return self.finish_batch(node, open);
        }
        if self.is_planted(Mutant::ActsEarly) {
            let acts = std::mem::take(&mut open.batch.acts);
            acts.into_iter().for_each(|act| self.act(node, act));
        }
        let longest = Duration::from_millis(self.scenario.topology.commit_ms);
        let it = &mut self.nodes[node];
        let takes = it.chance.between(longest / 5, longest);
        let life = it.life;
        if let Some(process) = &mut it.process {
            process.open = Some(open);
            self.queue.after(takes, Event::NodeCommits { node, life });
        }
    }

    /// The disk has an answer.
    pub(crate) fn node_commits(&mut self, node: usize, life: u32) {
        let it = &mut self.nodes[node];
        if it.life != life {
            return;
        }
        let Some(process) = it.process.as_mut().filter(|process| process.open.is_some()) else { return };
        if it.full > 0 {
            process.open = None;
            return self.node_store_failed(node);
        }
        it.commits += 1;
        let swept = self.crash_at == Some(it.commits) && self.swept_node() == Some(node);
        let sweep = self.scenario.sweep.filter(|_| swept).map(|sweep| (sweep.moment, sweep.for_s.duration()));
        self.swept_at = sweep.map(|_| self.queue.now()).or(self.swept_at);
        let crash = self.nodes[node].crash.take().or(sweep);
        self.tally.crashes += u64::from(crash.is_some());
        if let Some((Moment::During, away)) = crash {
            return self.kill_node(node, away);
        }
        let open = self.nodes[node].process.as_mut().and_then(|process| process.open.take());
        let open = open.expect("a commit ends while its batch waits");
        if let Some((Moment::Before, away)) = crash {
            return self.kill_node(node, away);
        }
        self.node_syncs(node, &open.batch.writes);
        self.node_commit(node, &open.batch.writes);
        if let Some((Moment::After, away)) = crash {
            return self.kill_node(node, away);
        }
        self.finish_batch(node, open);
    }

    /// What a node's disk is about to finish.
    pub(crate) fn node_writes(&self, node: usize, life: u32) -> &[Write] {
        let it = &self.nodes[node];
        let open = it.process.as_ref().filter(|_| it.life == life).and_then(|process| process.open.as_ref());
        open.map_or(&[], |open| &open.batch.writes)
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
        let open = it.process.as_mut().and_then(|process| process.open.take());
        let found = it.journal.recover(open.map(|open| open.batch.writes), recovery);
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
        if self.is_planted(Mutant::ForgetsDedupe) {
            Unique::Forgotten
        } else if self.is_planted(Mutant::DedupesByBareId) {
            Unique::ById
        } else {
            Unique::Held
        }
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
            self.note_sealed(write);
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
        // The founding revokes nobody.
        if head == self.mesh.roster.head() && it.disk.revocations().is_empty() {
            return;
        }
        for other in &self.history.members {
            if process.endpoint.is_revoked(other) && it.learned.insert(*other) {
                self.history.facts.push((at, Fact::Learned { node, revoked: *other }));
            }
        }
    }

    fn finish_batch(&mut self, node: usize, open: Open) {
        for act in open.batch.acts {
            self.act(node, act);
        }
        if open.stops
            && let Some(away) = self.nodes[node].process.as_ref().and_then(|process| process.stop_for)
        {
            return self.kill_node(node, away);
        }
        self.note_holdings(node);
        self.arm_node(node);
    }

    /// What the machine holds between batches, once in a while.
    fn note_holdings(&mut self, node: usize) {
        let at = self.queue.now();
        let it = &mut self.nodes[node];
        let Some(process) = it.process.as_mut().filter(|process| process.counted_at + COUNTED_EVERY <= at)
        else {
            return;
        };
        process.counted_at = at;
        for holding in process.endpoint.holdings() {
            self.history.holds(at, node, holding);
        }
    }
}

/// A machine's holdings are counted this often: what grows without a bound goes on growing meanwhile.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

/// A node's disk as a batch asks it.
struct Disk<'a> {
    disk: &'a NodeDisk,
    unique: Unique,
}

impl Lookups for Disk<'_> {
    type Error = Infallible;

    fn sent(&mut self, ids: &[MessageId]) -> Result<Vec<Vec<SentRow>>, Infallible> {
        Ok(ids.iter().map(|id| self.disk.sent(*id)).collect())
    }

    fn seen(&mut self, keys: &[(PeerId, MessageId)]) -> Result<Vec<Option<SeenRow>>, Infallible> {
        Ok(self.disk.seen(keys, self.unique))
    }

    fn load(&mut self, rows: &[Row]) -> Result<Vec<OutboxRow>, Infallible> {
        Ok(self.disk.load(rows))
    }

    fn entries(&mut self, from: u64) -> Result<Vec<Bytes>, Infallible> {
        Ok(self.disk.entries_from(from))
    }
}

fn frame_bytes(input: &Input) -> usize {
    if let Input::UplinkFrame(frame) | Input::LinkFrame(_, frame) = input { frame.len() } else { 0 }
}
