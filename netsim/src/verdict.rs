//! What a run came to: figures for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use peerloom_coordinator::counters::Counters;
use peerloom_proto::endpoint::{OutboxState, PathKind};
use serde::Serialize;

use crate::model::{Fact, History};
use crate::nat::Owed;
use crate::network::Packets;
use crate::scenario::{Delivered, Expect};

/// What the world counts while it runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) virtual_time: Duration,
    pub(crate) events: u64,
    /// Faults that began, by their word.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Processes killed at a commit.
    pub(crate) crashes: u64,
    /// Commits that a full disk refused.
    pub(crate) store_failures: u64,
    /// Uplinks that nodes began.
    pub(crate) connects: u64,
    /// Direct links that were taken.
    pub(crate) links: u64,
    /// Sends answered as known before.
    pub(crate) repeats: u64,
    /// Inbound envelopes dropped, by reason.
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) alarms: BTreeMap<String, u64>,
    /// What a dishonest coordinator and hostile members did, by its word.
    pub(crate) deeds: BTreeMap<&'static str, u64>,
    pub(crate) packets: Packets,
    /// Pairs of nodes that had a direct link: when the first, and what their NATs owe them.
    pub(crate) met: BTreeMap<(usize, usize), (Duration, Owed)>,
    /// Strangers that became members.
    pub(crate) joined: u64,
    /// Coordinators that another took the store over from.
    pub(crate) fenced: u64,
    /// Log entries that the coordinator had lost and nodes gave back.
    log_regained: u64,
    /// Hellos that knew more than the coordinator.
    marks_lost: u64,
    /// Envelopes the coordinator refused because a queue was full.
    refused_full: u64,
    /// Envelopes it refused because their sender was too fast.
    refused_rate: u64,
    /// Dedupe rows that nodes dropped below their floors.
    pub(crate) forgotten: u64,
}

impl Tally {
    /// Adds what one life of the hub counted.
    pub(crate) fn add_hub(&mut self, counters: &Counters) {
        self.log_regained += counters.log_regained;
        self.marks_lost += counters.marks_lost;
        self.refused_full += counters.puts_refused_full;
        self.refused_rate += counters.puts_refused_rate;
    }
}

/// A run in figures. Fields may be added, never renamed.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) schema_version: u32,
    pub(crate) messages: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Why, in the node's words.
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) shown: u64,
    /// Kept by their recipients, by the way they came.
    pub(crate) direct: u64,
    pub(crate) relay: u64,
    pub(crate) queue: u64,
    /// Told to their senders as failures, by state.
    pub(crate) failed: BTreeMap<&'static str, u64>,
    /// Longest time from the sender's acknowledgement to the reader, milliseconds.
    pub(crate) worst_stall_ms: u64,
    pub(crate) worst_stall_message: Option<String>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) crashes: u64,
    pub(crate) store_failures: u64,
    pub(crate) joined: u64,
    pub(crate) fenced: u64,
    pub(crate) log_regained: u64,
    pub(crate) marks_lost: u64,
    pub(crate) connects: u64,
    pub(crate) links: u64,
    pub(crate) repeats: u64,
    pub(crate) refused_full: u64,
    pub(crate) refused_rate: u64,
    pub(crate) forgotten: u64,
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) alarms: BTreeMap<String, u64>,
    pub(crate) deeds: BTreeMap<&'static str, u64>,
    /// Pairs of nodes that had a direct link.
    pub(crate) pairs_met: u64,
    /// Of these, pairs that had to guess each other's port.
    pub(crate) pairs_by_birthday: u64,
    /// Longest time from the first message of a pair that need not guess to its first direct link,
    /// milliseconds.
    pub(crate) slowest_direct_ms: u64,
    /// Packets of links that lose, delay and reorder them; none on the others.
    pub(crate) packets: u64,
    pub(crate) packets_lost: u64,
    pub(crate) packets_repeated: u64,
    pub(crate) virtual_ms: u64,
    pub(crate) events: u64,
    pub(crate) trace: String,
    #[serde(skip)]
    nodes: u64,
    #[serde(skip)]
    not_shown: u64,
}

impl Verdict {
    pub(crate) fn new(history: &History, tally: Tally, trace: String) -> Self {
        let mut verdict = Self {
            schema_version: 1,
            messages: history.messages.len() as u64,
            acknowledged: 0,
            refused: 0,
            refusals: BTreeMap::new(),
            shown: 0,
            direct: 0,
            relay: 0,
            queue: 0,
            failed: BTreeMap::new(),
            worst_stall_ms: 0,
            worst_stall_message: None,
            faults: tally.faults,
            crashes: tally.crashes,
            store_failures: tally.store_failures,
            joined: tally.joined,
            fenced: tally.fenced,
            log_regained: tally.log_regained,
            marks_lost: tally.marks_lost,
            connects: tally.connects,
            links: tally.links,
            repeats: tally.repeats,
            refused_full: tally.refused_full,
            refused_rate: tally.refused_rate,
            forgotten: tally.forgotten,
            rejected: tally.rejected,
            alarms: tally.alarms,
            deeds: tally.deeds,
            pairs_met: tally.met.len() as u64,
            pairs_by_birthday: tally.met.values().filter(|(_, owed)| *owed == Owed::DirectByBirthday).count()
                as u64,
            slowest_direct_ms: 0,
            packets: tally.packets.sent,
            packets_lost: tally.packets.lost,
            packets_repeated: tally.packets.repeated,
            virtual_ms: millis(tally.virtual_time),
            events: tally.events,
            trace,
            nodes: history.members.len() as u64,
            not_shown: 0,
        };
        verdict.read(history);
        verdict.slowest_direct_ms = slowest_direct(history, &tally.met);
        verdict
    }

    fn read(&mut self, history: &History) {
        let mut acknowledged = BTreeMap::new();
        let mut shown = BTreeSet::new();
        for (at, fact) in &history.facts {
            if let Fact::Acknowledged { message } = fact {
                acknowledged.insert(*message, *at);
            } else if let Fact::Refused { message: _, why } = fact {
                self.refused += 1;
                *self.refusals.entry(why.clone()).or_default() += 1;
            } else if let Fact::Told { state, .. } = fact {
                self.count_failure(state);
            } else if let Fact::Kept { path, .. } = fact {
                match path {
                    PathKind::Direct => self.direct += 1,
                    PathKind::Relay => self.relay += 1,
                    PathKind::Queue => self.queue += 1,
                }
            } else if let Fact::Shown { message, .. } = fact {
                shown.insert(*message);
                let since = acknowledged.get(message).copied().unwrap_or(*at);
                let stall = millis(at.saturating_sub(since));
                if stall > self.worst_stall_ms {
                    self.worst_stall_ms = stall;
                    self.worst_stall_message = Some(history.name(*message));
                }
            }
        }
        self.acknowledged = acknowledged.len() as u64;
        self.shown = shown.len() as u64;
        self.not_shown = acknowledged.keys().filter(|message| !shown.contains(*message)).count() as u64;
    }

    fn count_failure(&mut self, state: &OutboxState) {
        match state {
            OutboxState::Rejected(_)
            | OutboxState::Expired(_)
            | OutboxState::Dead(_)
            | OutboxState::Aborted => {
                *self.failed.entry(state.name()).or_default() += 1;
            }
            OutboxState::Pending
            | OutboxState::InFlight
            | OutboxState::Accepted
            | OutboxState::Stored
            | OutboxState::Surfaced => {}
        }
    }

    /// What the scenario wanted and did not get.
    pub(crate) fn unmet(&self, expect: &Expect) -> Vec<String> {
        let mut unmet = Vec::new();
        match expect.delivered {
            Delivered::All if self.not_shown + self.refused > 0 => {
                unmet.push(format!("{} messages were not shown, {} refused", self.not_shown, self.refused));
            }
            Delivered::All | Delivered::AllOrTold => {}
        }
        let expired = self.failed.get("expired").copied().unwrap_or_default();
        let reconnects = self.connects.saturating_sub(self.nodes);
        for (what, found, least) in [
            ("messages by direct links", self.direct, expect.direct_min),
            ("messages by relay", self.relay, expect.relay_min),
            ("messages by queue", self.queue, expect.queue_min),
            ("expired messages", expired, expect.expired_min),
            ("repeated sends", self.repeats, expect.repeats_min),
            ("crashes", self.crashes, expect.crashes_min),
            ("reconnects", reconnects, expect.reconnects_min),
            ("failed commits", self.store_failures, expect.store_failures_min),
            ("pairs by birthday", self.pairs_by_birthday, expect.pairs_by_birthday_min),
            ("pairs with a direct link", self.pairs_met, expect.pairs_met_min),
            ("strangers that joined", self.joined, expect.joined_min),
            ("coordinators fenced off", self.fenced, expect.fenced_min),
            ("log entries given back", self.log_regained, expect.log_regained_min),
            ("hellos that knew more", self.marks_lost, expect.marks_lost_min),
            ("lost packets", self.packets_lost, expect.packets_lost_min),
            ("repeated packets", self.packets_repeated, expect.packets_repeated_min),
            ("refusals of a full queue", self.refused_full, expect.refused_full_min),
            ("refusals of a sender too fast", self.refused_rate, expect.refused_rate_min),
            ("forgotten dedupe rows", self.forgotten, expect.forgotten_min),
            ("alarms", self.alarms.values().sum(), expect.alarms_min),
        ] {
            if found < least {
                unmet.push(format!("{found} {what}, expected at least {least}"));
            }
        }
        for (reason, least) in &expect.rejected_min {
            let found = self.rejected.get(reason).copied().unwrap_or_default();
            if found < *least {
                unmet.push(format!("{found} envelopes rejected as {reason}, expected at least {least}"));
            }
        }
        for (deed, least) in &expect.deeds_min {
            let found = self.deeds.get(deed.as_str()).copied().unwrap_or_default();
            if found < *least {
                unmet.push(format!("{found} times {deed}, expected at least {least}"));
            }
        }
        if let Some(most) = expect.stall_max_s.map(|most| millis(most.duration()))
            && self.worst_stall_ms > most
        {
            unmet.push(format!(
                "a message stalled for {} ms, at most {most} are allowed",
                self.worst_stall_ms
            ));
        }
        if let Some(most) = expect.direct_within_s.map(|most| millis(most.duration()))
            && self.slowest_direct_ms > most
        {
            unmet.push(format!(
                "a pair waited {} ms for its direct link, at most {most} are allowed",
                self.slowest_direct_ms
            ));
        }
        if let Some(most) = expect.events_max.filter(|most| self.events > *most) {
            unmet.push(format!("{} events, at most {most} are allowed", self.events));
        }
        unmet
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "messages   {} handed over, {} acknowledged, {} shown, {} refused{}",
            self.messages,
            self.acknowledged,
            self.shown,
            self.refused,
            self.failed.iter().map(|(state, count)| format!(", {count} {state}")).collect::<String>(),
        )?;
        writeln!(f, "paths      {} direct, {} relay, {} queue", self.direct, self.relay, self.queue)?;
        let worst = self.worst_stall_message.as_deref().unwrap_or("none");
        writeln!(f, "stall      {} ms at worst: {worst}", self.worst_stall_ms)?;
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
        writeln!(
            f,
            "faults     {}; {} crashes at a commit, {} failed commits",
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
            self.crashes,
            self.store_failures,
        )?;
        if self.joined > 0 {
            writeln!(f, "members    {} joined", self.joined)?;
        }
        if self.fenced + self.log_regained + self.marks_lost > 0 {
            let Self { fenced, log_regained, marks_lost, .. } = self;
            writeln!(
                f,
                "recovery   {fenced} coordinators fenced off, {log_regained} log entries given back, \
                 {marks_lost} hellos that knew more"
            )?;
        }
        writeln!(
            f,
            "links      {} uplinks, {} direct between {} pairs ({} by birthday), {} ms after the first message at worst; {} repeated sends, {} refused by a full queue",
            self.connects,
            self.links,
            self.pairs_met,
            self.pairs_by_birthday,
            self.slowest_direct_ms,
            self.repeats,
            self.refused_full,
        )?;
        if self.packets > 0 {
            let (lost, repeated) = (self.packets_lost, self.packets_repeated);
            writeln!(f, "packets    {}, {lost} lost, {repeated} received again", self.packets)?;
        }
        for (why, count) in &self.refusals {
            writeln!(f, "refused    {count} sends: {why}")?;
        }
        for (reason, count) in &self.rejected {
            writeln!(f, "rejected   {count} envelopes: {reason}")?;
        }
        for (deed, count) in &self.deeds {
            writeln!(f, "evil       {deed} {count} times")?;
        }
        for (alarm, count) in &self.alarms {
            writeln!(f, "alarm      {alarm} ({count} times)")?;
        }
        write!(
            f,
            "run        {} s virtual, {} events, trace {}",
            self.virtual_ms / 1_000,
            self.events,
            self.trace
        )
    }
}

/// Longest time from the first acknowledged message of a pair that is owed a direct link to that link,
/// milliseconds.
fn slowest_direct(history: &History, met: &BTreeMap<(usize, usize), (Duration, Owed)>) -> u64 {
    let mut first = BTreeMap::new();
    for (at, fact) in &history.facts {
        if let Fact::Acknowledged { message } = fact {
            first.entry(history.pair(*message)).or_insert(*at);
        }
    }
    let owed = met.iter().filter(|(_, (_, owed))| *owed == Owed::Direct);
    let waited = owed.filter_map(|(pair, (at, _))| Some(at.saturating_sub(*first.get(pair)?)));
    millis(waited.max().unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
