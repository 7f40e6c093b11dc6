//! A scenario with every draw made: one table a fault and one a message, to be left out one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::{Table, Value};

use crate::fault::Turn;
use crate::model::Planned;
use crate::network::Place;
use crate::scenario::{Scenario, ScenarioError};
use crate::world;

/// A scenario that draws nothing but ids, keys and delays.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Everything but faults and messages.
    base: Table,
    pub(super) faults: Vec<Table>,
    pub(super) messages: Vec<Table>,
}

/// Fields of a fault or a message that name nodes.
const NODES: [&str; 5] = ["who", "from", "to", "by", "target"];

/// Fields of the workload that say what is drawn.
const DRAWN: [&str; 8] =
    ["messages", "every_s", "senders", "recipients", "burst", "from_s", "until_s", "list"];

/// Just before a commit: nothing else happens between.
const MOMENT: Duration = Duration::from_micros(1);

impl Candidate {
    /// Makes every draw that `seed` makes. `swept_at` is the instant of a sweep's crash.
    pub(super) fn draw(
        text: &str,
        scenario: &Scenario,
        seed: u64,
        swept_at: Option<Duration>,
    ) -> Result<Self, toml::de::Error> {
        let mut base: Table = text.parse()?;
        let drawn = match base.remove("fault") {
            Some(Value::Array(faults)) => faults,
            Some(_) | None => Vec::new(),
        };
        // What the whole run must have been does not hold for a part of it.
        let expect = Table::from_iter([("delivered".to_owned(), "all_or_told".into())]);
        base.insert("expect".to_owned(), Value::Table(expect));
        let sweep = base.remove("sweep").and_then(|sweep| sweep.as_table().cloned());
        if let Some(Value::Table(workload)) = base.get_mut("workload") {
            DRAWN.iter().for_each(|field| drop(workload.remove(*field)));
        }
        let (messages, turns) = world::plan(scenario, seed);
        let begins = turns.iter().filter(|turn| turn.begins);
        let mut faults: Vec<Table> = begins.filter_map(|turn| fault(&drawn, turn)).collect();
        faults.extend(sweep.zip(swept_at).map(|(sweep, at)| crash(sweep, at)));
        Ok(Self { base, faults, messages: messages.iter().map(message).collect() })
    }

    /// The file.
    pub(super) fn text(&self) -> String {
        let mut whole = self.base.clone();
        let tables = |tables: &[Table]| Value::Array(tables.iter().cloned().map(Value::Table).collect());
        if let Some(Value::Table(workload)) = whole.get_mut("workload")
            && !self.messages.is_empty()
        {
            workload.insert("list".to_owned(), tables(&self.messages));
        }
        if !self.faults.is_empty() {
            whole.insert("fault".to_owned(), tables(&self.faults));
        }
        toml::to_string(&whole).expect("tables of scalars and tables encode")
    }

    pub(super) fn scenario(&self) -> Result<Scenario, ScenarioError> {
        Scenario::parse("the smaller scenario", &self.text())
    }

    /// The same with these faults.
    pub(super) fn with_faults(&self, faults: &[Table]) -> Self {
        Self { faults: faults.to_vec(), ..self.clone() }
    }

    /// The same with these messages.
    pub(super) fn with_messages(&self, messages: &[Table]) -> Self {
        Self { messages: messages.to_vec(), ..self.clone() }
    }

    /// Replaces the sentence that says what it is about.
    pub(super) fn set_about(&mut self, about: &str) {
        self.base.insert("about".to_owned(), about.into());
    }

    pub(super) fn nodes(&self) -> usize {
        let nodes = self.base.get("topology").and_then(|topology| topology.get("nodes"));
        nodes.and_then(Value::as_integer).and_then(|nodes| usize::try_from(nodes).ok()).unwrap_or_default()
    }

    /// The same without nodes that nothing names, the others numbered anew; the admin stays where
    /// `keep_admin` says so.
    pub(super) fn fewer_nodes(&self, keep_admin: bool) -> Self {
        let mut named: BTreeSet<i64> = self.tables().flat_map(node_fields).collect();
        if keep_admin {
            named.insert(0);
        }
        let numbers: Vec<i64> = named.into_iter().collect();
        let mut fewer = self.clone();
        for table in fewer.faults.iter_mut().chain(&mut fewer.messages) {
            for field in NODES {
                if let Some(Value::Integer(node)) = table.get_mut(field)
                    && let Some(number) = numbers.iter().position(|known| known == node)
                {
                    *node = integer(number);
                }
            }
        }
        if let Some(Value::Table(topology)) = fewer.base.get_mut("topology") {
            topology.insert("nodes".to_owned(), integer(numbers.len().max(2)).into());
            if let Some(Value::Array(nats)) = topology.get_mut("nat") {
                nats.retain_mut(|nat| stands_before_some(nat, &numbers));
            }
        }
        fewer
    }

    /// The same, over as soon as its last message and fault have begun.
    pub(super) fn shorter(&self) -> Self {
        let last = self.tables().filter_map(instant).fold(0.0, f64::max);
        let mut shorter = self.clone();
        shorter.base.insert("duration_s".to_owned(), last.ceil().into());
        shorter
    }

    /// The same with everything so much earlier that the first happening comes when all is up.
    pub(super) fn earlier(&self) -> Self {
        let first = self.tables().filter_map(instant).fold(f64::INFINITY, f64::min);
        let by = first - UP_AFTER_S;
        let mut earlier = self.clone();
        if !by.is_finite() || by <= 0.0 {
            return earlier;
        }
        for fault in &mut earlier.faults {
            if let Some(Value::Table(when)) = fault.get_mut("when") {
                sooner(when, by);
            }
        }
        earlier.messages.iter_mut().for_each(|message| sooner(message, by));
        earlier
    }

    /// The same with one fault half as long.
    pub(super) fn half_as_long(&self, fault: usize) -> Option<Self> {
        let mut shorter = self.clone();
        let Some(Value::Float(lasts)) = shorter.faults.get_mut(fault)?.get_mut("for_s") else {
            return None;
        };
        *lasts = (*lasts * 500.0).round() / 1_000.0;
        (*lasts >= LASTS_MIN_S).then_some(shorter)
    }

    /// The same with the default of one more field of the topology or the workload, for each field.
    pub(super) fn plainer(&self) -> Vec<Self> {
        let mut plainer = Vec::new();
        for section in ["topology", "workload"] {
            let Some(Value::Table(fields)) = self.base.get(section) else { continue };
            for field in fields.keys().filter(|field| *field != "nodes") {
                let mut without = self.clone();
                if let Some(Value::Table(fields)) = without.base.get_mut(section) {
                    fields.remove(field);
                }
                plainer.push(without);
            }
        }
        plainer
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.faults.iter().chain(&self.messages)
    }
}

/// When every node has started and been let in, in seconds.
const UP_AFTER_S: f64 = 2.0;

/// A fault that lasts less is not worth the tries, in seconds.
const LASTS_MIN_S: f64 = 0.1;

fn sooner(table: &mut Table, by: f64) {
    if let Some(Value::Float(at)) = table.get_mut("at_s") {
        *at = ((*at - by) * 1e6).round() / 1e6;
    }
}

fn instant(table: &Table) -> Option<f64> {
    let when = table.get("when").unwrap_or_else(|| table.get("at_s").unwrap_or(&Value::Boolean(false)));
    when.as_float().or_else(|| when.get("at_s").and_then(Value::as_float))
}

fn node_fields(table: &Table) -> impl Iterator<Item = i64> {
    NODES.iter().filter_map(|field| table.get(*field).and_then(Value::as_integer))
}

/// A drawn fault as a fault at one instant between named hosts.
fn fault(drawn: &[Value], turn: &Turn) -> Option<Table> {
    let mut fault = drawn.get(turn.fault)?.as_table()?.clone();
    fault.insert("when".to_owned(), Value::Table(at(turn.at)));
    for (field, host) in [("who", turn.hosts[0]), ("from", turn.hosts[0]), ("to", turn.hosts[1])] {
        if let Some(value) = fault.get_mut(field).filter(|value| value.as_str() == Some("any")) {
            *value = who(host);
        }
    }
    fractions(&mut fault);
    Some(fault)
}

/// A sweep's crash as a fault of its own.
fn crash(mut sweep: Table, crashed_at: Duration) -> Table {
    sweep.insert("kind".to_owned(), "crash_at_commit".into());
    sweep.insert("when".to_owned(), Value::Table(at(crashed_at.saturating_sub(MOMENT))));
    fractions(&mut sweep);
    sweep
}

/// Durations are read as fractions whatever way they were written.
fn fractions(fault: &mut Table) {
    if let Some(lasts) = fault.get_mut("for_s")
        && let Some(whole) = lasts.as_integer().and_then(|whole| i32::try_from(whole).ok())
    {
        *lasts = Value::Float(f64::from(whole));
    }
}

fn message(planned: &Planned) -> Table {
    let mut message = at(planned.at);
    for (field, value) in [("from", planned.from), ("to", planned.to), ("number", planned.number)] {
        message.insert(field.to_owned(), integer(value).into());
    }
    message
}

fn at(at: Duration) -> Table {
    Table::from_iter([("at_s".to_owned(), Value::Float(at.as_secs_f64()))])
}

fn who(host: Place) -> Value {
    match host {
        Place::Node(node) => integer(node).into(),
        Place::Coordinator => "coordinator".into(),
    }
}

/// Numbers the nodes behind a NAT anew. False if it lists nodes and none of them is left.
fn stands_before_some(nat: &mut Value, numbers: &[i64]) -> bool {
    let Some(Value::Array(nodes)) = nat.get_mut("nodes") else { return true };
    let left = nodes.iter().filter_map(|node| {
        let number = numbers.iter().position(|known| Some(*known) == node.as_integer())?;
        Some(integer(number).into())
    });
    *nodes = left.collect();
    !nodes.is_empty()
}

fn integer(number: usize) -> i64 {
    i64::try_from(number).expect("nodes and messages are fewer than 2^63")
}
