//! Looking at a part of a run: happenings with their hosts, frames with their sort, for a diagram. A run
//! that nobody watches records nothing of this, and a watched one the same trace.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use peerloom_coordinator::store::Write as HubWrite;
use peerloom_proto::endpoint::Write as NodeWrite;
use peerloom_proto::{ReceiptStatus, UnverifiedEnvelope};

use crate::frame::Frame;
use crate::model::Fact;
use crate::network::{Place, StreamId};
use crate::queue::{Carried, Event};
use crate::world::World;

/// Which happenings are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lens {
    /// At most so many; the oldest go first.
    pub(crate) most: usize,
    /// Half of them before this instant and half after it; the last ones of the run otherwise.
    pub(crate) around: Option<Duration>,
    /// Only what concerns this message and its hosts, until its sender knows its end.
    pub(crate) message: Option<usize>,
}

/// One happening.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Duration,
    pub(crate) sight: Sight,
}

/// What it looks like from outside.
#[derive(Clone, Debug)]
pub(crate) enum Sight {
    /// Something reaches the other end of a stream, or nobody there.
    Passed { from: Place, to: Place, word: &'static str, bytes: usize, named: Vec<Named>, heard: bool },
    /// A disk finishes a transaction: how many writes of each kind, and which messages among them.
    Commit { host: Place, writes: BTreeMap<String, usize>, messages: Vec<usize> },
    /// Something of note at one host, or between two.
    Note { hosts: [Place; 2], text: String, message: Option<usize> },
}

/// A message that a frame carries, or one that it receipts.
pub(crate) type Named = (usize, Option<ReceiptStatus>);

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Watch {
    lens: Lens,
    seen: VecDeque<Seen>,
    after: usize,
    /// Facts of the history that were looked at.
    facts: usize,
    store_failures: u64,
    /// Whose disk finished a transaction last.
    committing: Place,
    down: Vec<Place>,
    /// Whether the lens's message was handed over, and whether its end is known.
    begun: bool,
    over: bool,
}

impl Watch {
    pub(crate) fn new(lens: Lens) -> Self {
        Self {
            lens,
            seen: VecDeque::new(),
            after: 0,
            facts: 0,
            store_failures: 0,
            committing: Place::Coordinator,
            down: Vec::new(),
            begun: lens.message.is_none(),
            over: false,
        }
    }

    pub(crate) fn finish(self) -> Vec<Seen> {
        self.seen.into()
    }

    fn take(&mut self, at: Duration, sight: Sight, ends: Option<[Place; 2]>) {
        if let Sight::Note { message, .. } = &sight {
            self.begun |= *message == self.lens.message;
        }
        if self.over || !self.begun || !self.concerns(&sight, ends) {
            return;
        }
        let Lens { most, around, message: _ } = self.lens;
        let (before, late) = match around {
            Some(instant) => (most / 2, at > instant),
            None => (most, false),
        };
        if late {
            self.after += 1;
            self.over = self.after >= most - before;
        } else if self.seen.len() >= before {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { at, sight });
    }

    /// Whether the lens is on this. `ends` are the hosts of the message that it is on.
    fn concerns(&self, sight: &Sight, ends: Option<[Place; 2]>) -> bool {
        let (Some(wanted), Some(ends)) = (self.lens.message, ends) else { return true };
        match sight {
            Sight::Passed { named, .. } => named.iter().any(|(message, _)| *message == wanted),
            Sight::Commit { messages, .. } => messages.contains(&wanted),
            Sight::Note { message: Some(message), .. } => *message == wanted,
            Sight::Note { hosts, message: None, .. } => {
                hosts.iter().any(|host| *host == Place::Coordinator || ends.contains(host))
            }
        }
    }
}

impl World {
    /// Looks at what is about to happen.
    pub(crate) fn watch(&mut self, event: &Event) {
        if self.watch.is_none() {
            return;
        }
        if let Event::Arrived { stream, end, carried } = event {
            self.watch_arrival(*stream, *end, carried);
        } else if let Event::Noticed { stream, end } = event
            && self.network.is_open(*stream, *end)
        {
            let host = self.network.streams.get(stream).map(|stream| stream.places[*end]);
            host.into_iter().for_each(|host| self.remark(host, "notices that a stream was cut", None));
        } else if let Event::NodeCommits { node, life } = event {
            let writes = self.node_writes(*node, *life);
            let sight = Sight::Commit {
                host: Place::Node(*node),
                writes: kinds(writes),
                messages: writes.iter().filter_map(|write| self.written(write)).collect(),
            };
            self.keep(sight);
        } else if let Event::HubCommits { process } = event {
            let writes = self.hub_writes(*process);
            let sight = Sight::Commit {
                host: Place::Coordinator,
                writes: kinds(writes),
                messages: writes.iter().filter_map(|write| self.mailed(write)).collect(),
            };
            self.keep(sight);
        } else if let Event::Fault { index } = event {
            let turn = &self.plan[*index];
            let fault = &self.scenario.faults[turn.fault];
            let begins = if turn.begins { "begins" } else { "ends" };
            if turn.begins || fault.lasts().duration() > Duration::ZERO {
                let text = format!("{} {begins}", fault.name());
                let [host, other] = turn.hosts;
                let hosts = if fault.hosts().len() == 1 { [host; 2] } else { [host, other] };
                self.keep(Sight::Note { hosts, text, message: None });
            }
        }
    }

    /// Looks at what came of it.
    pub(crate) fn watch_outcome(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let first = std::mem::replace(&mut watch.facts, self.history.facts.len());
        let failures = std::mem::replace(&mut watch.store_failures, self.tally.store_failures);
        if failures < self.tally.store_failures {
            let host = watch.committing;
            self.remark(host, "finds its disk full", None);
        }
        let remarks: Vec<_> =
            self.history.facts[first..].iter().filter_map(|(_, fact)| self.remark_of(fact)).collect();
        for (host, text, message) in remarks {
            self.remark(host, &text, message);
        }
        self.watch_lives();
        self.watch_end(first);
    }

    fn watch_arrival(&mut self, stream: StreamId, end: usize, carried: &Carried) {
        let Some(on) = self.network.streams.get(&stream) else { return };
        let (purpose, from, to) = (on.purpose, on.places[1 - end], on.places[end]);
        let heard = self.network.is_heard(stream, end);
        let (word, bytes, named) = match carried {
            Carried::Accepted => ("connected", 0, Vec::new()),
            Carried::End => ("closed", 0, Vec::new()),
            Carried::Frame(bytes) => {
                let frame = Frame::read(&purpose, end, bytes);
                let messages = frame.messages().into_iter();
                let named =
                    messages.filter_map(|(id, status)| Some((*self.by_id.get(&id)?.first()?, status)));
                (frame.word(), bytes.len(), named.collect())
            }
        };
        self.keep(Sight::Passed { from, to, word, bytes, named, heard });
    }

    /// Who came and who went.
    fn watch_lives(&mut self) {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.process.is_none());
        let mut down: Vec<Place> = nodes.map(|(node, _)| Place::Node(node)).collect();
        down.extend((!self.coordinator.runs()).then_some(Place::Coordinator));
        let Some(watch) = &mut self.watch else { return };
        let before = std::mem::replace(&mut watch.down, down.clone());
        for host in before.iter().filter(|host| !down.contains(host)) {
            self.remark(*host, "starts", None);
        }
        for host in down.iter().filter(|host| !before.contains(host)) {
            self.remark(*host, "is down", None);
        }
    }

    /// The lens moves no further once its message has come to an end.
    fn watch_end(&mut self, first: usize) {
        let Some(watch) = &mut self.watch else { return };
        let is_end = |fact: &Fact| {
            let Fact::Told { message, state } = fact else { return false };
            Some(*message) == watch.lens.message && state.is_settled() && state.name() != "stored"
        };
        if self.history.facts[first..].iter().any(|(_, fact)| is_end(fact)) {
            watch.over = true;
        }
    }

    fn remark(&mut self, host: Place, text: &str, message: Option<usize>) {
        self.keep(Sight::Note { hosts: [host; 2], text: text.to_owned(), message });
    }

    fn keep(&mut self, sight: Sight) {
        let at = self.queue.now();
        let Some(watch) = &mut self.watch else { return };
        if let Sight::Commit { host, .. } = &sight {
            watch.committing = *host;
        }
        let on = watch.lens.message.and_then(|message| self.history.messages.get(message));
        watch.take(at, sight, on.map(|planned| [Place::Node(planned.from), Place::Node(planned.to)]));
    }

    /// What people outside would have said of a fact; nothing of those that a commit shows.
    fn remark_of(&self, fact: &Fact) -> Option<(Place, String, Option<usize>)> {
        let from = |message: usize| Place::Node(self.history.messages[message].from);
        let told = if let Fact::Submitted { message } = fact {
            (from(*message), format!("is handed message {message}"), Some(*message))
        } else if let Fact::Acknowledged { message } = fact {
            (from(*message), format!("acknowledges message {message}"), Some(*message))
        } else if let Fact::Told { message, state } = fact {
            (from(*message), format!("says message {message} is {}", state.name()), Some(*message))
        } else if let Fact::Shown { node, message } = fact {
            (Place::Node(*node), format!("shows message {message}"), Some(*message))
        } else if let Fact::Strange { node, what } = fact {
            (Place::Node(*node), format!("kept {what}"), None)
        } else if let Fact::Learned { node, revoked } = fact {
            (Place::Node(*node), format!("learns that {} is revoked", revoked.short()), None)
        } else {
            return None;
        };
        Some(told)
    }

    fn written(&self, write: &NodeWrite) -> Option<usize> {
        let id = if let NodeWrite::Outbox(row) = write {
            &row.id
        } else if let NodeWrite::Inbox(row) = write {
            &row.id
        } else {
            return None;
        };
        self.by_id.get(id)?.first().copied()
    }

    fn mailed(&self, write: &HubWrite) -> Option<usize> {
        let HubWrite::PutMail(row) = write else { return None };
        let envelope = UnverifiedEnvelope::parse(Bytes::clone(&row.bytes)).ok()?;
        self.by_id.get(&envelope.header().id)?.first().copied()
    }
}

/// How many of each kind, by the name of the variant.
fn kinds(writes: &[impl Debug]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for write in writes {
        let text = format!("{write:?}");
        let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        *kinds.entry(name.to_owned()).or_default() += 1;
    }
    kinds
}
