//! A scenario: topology × workload × faults × expectations, in TOML. What the file does not say has one
//! default, written here; what it says and nobody reads is an error.

mod evil;
mod expect;
mod fault;
mod hostile;
mod link;
mod list;
mod nat;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

pub(crate) use self::evil::{Deed, Lie, Sort};
pub(crate) use self::expect::{Delivered, Expect};
pub(crate) use self::fault::{Direction, Fault, Moment, When};
pub(crate) use self::hostile::{HostileMember, Hostility};
pub(crate) use self::link::Links;
use self::list::Listed;
use self::nat::NatEntry;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub(crate) use self::nat::presets;
pub(crate) use self::nat::standing;

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    #[error("failed to read the scenario {path}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path} is not a scenario")]
    Syntax { path: String, source: Box<toml::de::Error> },
    #[error("{path}: {what}")]
    Nonsense { path: String, what: String },
}

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// One sentence: what happens, and what must hold.
    pub(crate) about: String,
    /// How long messages are handed over and faults begin.
    pub(crate) duration_s: Seconds,
    /// How long everything may take to drain after the last fault.
    #[serde(default = "settle_default")]
    pub(crate) settle_s: Seconds,
    pub(crate) topology: Topology,
    pub(crate) workload: Workload,
    #[serde(default, rename = "fault")]
    pub(crate) faults: Vec<Fault>,
    /// Members that misbehave.
    #[serde(default)]
    pub(crate) hostile: Vec<HostileMember>,
    #[serde(default)]
    pub(crate) expect: Expect,
    /// Run once for every commit of somebody, crashed at that commit.
    pub(crate) sweep: Option<Sweep>,
}

/// Hosts and what lies between them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topology {
    /// Nodes, each a member; node 0 is the admin.
    pub(crate) nodes: usize,
    /// Of how many pairs in a hundred the nodes can reach each other.
    #[serde(default = "always")]
    pub(crate) direct_percent: u8,
    /// One way between a node and the coordinator.
    #[serde(default = "uplink_default")]
    pub(crate) uplink_ms: Millis,
    /// One way between two nodes.
    #[serde(default = "direct_default")]
    pub(crate) direct_ms: Millis,
    /// What links are like beyond their delay.
    #[serde(default)]
    pub(crate) link: Links,
    /// What stands between nodes and the Internet; nothing otherwise. Which pairs have direct links then
    /// follows from the NATs.
    #[serde(default, rename = "nat")]
    pub(crate) nats: Vec<NatEntry>,
    /// The longest commit of any disk; the shortest takes a fifth of it.
    #[serde(default = "commit_default")]
    pub(crate) commit_ms: u64,
    /// Items one queue of the coordinator holds; the protocol's default otherwise.
    pub(crate) mailbox_messages_max: Option<u64>,
}

/// A delay: at least `low`, at most `high` milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Millis {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// Messages that programs hand over, at random instants between random nodes unless it says which.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// How many are drawn.
    #[serde(default)]
    pub(crate) messages: usize,
    /// Instead of a number: each sender hands one over in every such span.
    pub(crate) every_s: Option<Seconds>,
    /// Others, named one by one.
    #[serde(default)]
    list: Vec<Listed>,
    #[serde(default)]
    pub(crate) from_s: Seconds,
    /// The end of the scenario's duration otherwise.
    pub(crate) until_s: Option<Seconds>,
    /// Who sends; everybody otherwise.
    pub(crate) senders: Option<Vec<usize>>,
    /// Who receives; everybody otherwise.
    pub(crate) recipients: Option<Vec<usize>>,
    #[serde(default = "bytes_default")]
    pub(crate) bytes: usize,
    /// How long a message is worth delivering; a week otherwise.
    pub(crate) life_s: Option<Seconds>,
    /// Messages handed over at one instant to one recipient.
    #[serde(default = "one")]
    pub(crate) burst: usize,
}

/// A host: a node by number, the coordinator, or any node, drawn each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Node(usize),
    Coordinator,
    Any,
}

/// Crash at every commit in turn.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    pub(crate) who: Who,
    pub(crate) moment: Moment,
    /// How long it is away.
    pub(crate) for_s: Seconds,
}

/// A time of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub(crate) struct Seconds(f64);

impl Seconds {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WhoVisitor;
        impl Visitor<'_> for WhoVisitor {
            type Value = Who;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node's number, \"coordinator\" or \"any\"")
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Who, E> {
                let node =
                    usize::try_from(value).map_err(|_| E::custom("a node's number is not negative"))?;
                Ok(Who::Node(node))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Who, E> {
                match value {
                    "coordinator" => Ok(Who::Coordinator),
                    "any" => Ok(Who::Any),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(WhoVisitor)
    }
}

impl Scenario {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ScenarioError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Unreadable { path: name.clone(), source })?;
        Self::parse(&name, &text)
    }

    /// The same from text; `name` is for errors.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|source| ScenarioError::Syntax { path: name.to_owned(), source: Box::new(source) })?;
        scenario.check().map_err(|what| ScenarioError::Nonsense { path: name.to_owned(), what })?;
        Ok(scenario)
    }

    /// Nodes that are no members when the world begins.
    pub(crate) fn strangers(&self) -> BTreeSet<usize> {
        let joins = self.faults.iter().filter_map(|fault| {
            let Fault::Join { target, .. } = fault else { return None };
            Some(*target)
        });
        joins.collect()
    }

    fn check(&self) -> Result<(), String> {
        self.topology.check()?;
        let nodes = self.topology.nodes;
        if self.workload.burst == 0 {
            return Err("a burst is at least one message".to_owned());
        }
        if let Some(every) = self.workload.every_s
            && (every.0 < 0.01 || self.workload.messages > 0 || !self.workload.list.is_empty())
        {
            return Err("a workload has messages, a list, or every_s of at least 0.01".to_owned());
        }
        self.workload.check_list()?;
        let listed = [&self.workload.senders, &self.workload.recipients];
        let listed = listed.into_iter().flatten().flatten().copied();
        let listed = listed.chain(self.hostile.iter().flat_map(HostileMember::nodes));
        let listed = listed.chain(self.workload.list.iter().flat_map(|listed| [listed.from, listed.to]));
        let named = self.faults.iter().flat_map(Fault::hosts).chain(self.sweep.map(|sweep| sweep.who));
        let named = named.filter_map(|who| match who {
            Who::Node(node) => Some(node),
            Who::Coordinator | Who::Any => None,
        });
        if let Some(node) = listed.chain(named).find(|node| *node >= nodes) {
            return Err(format!("there is no node {node}: the last is {}", nodes - 1));
        }
        let times = [self.duration_s, self.settle_s, self.workload.from_s].into_iter();
        let times = times.chain(self.workload.until_s).chain(self.workload.life_s);
        let times = times.chain(self.workload.every_s);
        let times = times.chain(self.faults.iter().flat_map(Fault::times));
        let times = times.chain(self.hostile.iter().flat_map(HostileMember::times));
        let times = times.chain(self.workload.list.iter().map(|listed| listed.at_s));
        if times.map(|time| time.0).any(|time| !(0.0..=SECONDS_MAX).contains(&time)) {
            return Err(format!("a time is between 0 and {SECONDS_MAX} s"));
        }
        if let Some(what) = self.hostile.iter().find_map(HostileMember::nonsense) {
            return Err(what.to_owned());
        }
        for (number, fault) in self.faults.iter().enumerate() {
            let when = fault.when();
            if when.every_s.is_some_and(|every| every.0 < 0.01)
                || (when.every_s.is_some() && when.random.is_some())
            {
                return Err(format!("fault {}: either every_s of at least 0.01, or random", number + 1));
            }
            if let Some(what) = fault.nonsense() {
                return Err(format!("fault {}: {what}", number + 1));
            }
            if let Fault::NatReboot { who, .. } | Fault::NatRebind { who, .. } | Fault::Renumber { who, .. } =
                fault
                && (*who == Who::Coordinator || self.topology.nats.is_empty())
            {
                return Err(format!("fault {}: no NAT stands there; name one in topology.nat", number + 1));
            }
        }
        if self.strangers().contains(&0) {
            return Err("node 0 founds the mesh and cannot join it".to_owned());
        }
        match self.sweep {
            Some(Sweep { who: Who::Any, .. }) => Err("a sweep names its host".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

impl Topology {
    fn check(&self) -> Result<(), String> {
        if !(2..=NODES_MAX).contains(&self.nodes) {
            return Err(format!("a world has 2 to {NODES_MAX} nodes, not {}", self.nodes));
        }
        if self.direct_percent > 100 {
            return Err("direct_percent is at most 100".to_owned());
        }
        for delay in [self.uplink_ms, self.direct_ms] {
            if delay.low == 0 || delay.low > delay.high {
                return Err(format!("a delay of {} to {} ms is none", delay.low, delay.high));
            }
        }
        if self.commit_ms == 0 {
            return Err("a commit takes at least 1 ms".to_owned());
        }
        self.link.check()?;
        nat::check(self)
    }
}

/// Nodes of one world: certificates and messages number them in 16 bits.
const NODES_MAX: usize = 10_000;

/// A month: no run is longer.
const SECONDS_MAX: f64 = 31.0 * 86_400.0;

/// Longer than the longest pause of an uplink, a claim's lease and a full queue's retry together.
fn settle_default() -> Seconds {
    Seconds(300.0)
}

fn always() -> u8 {
    100
}

fn uplink_default() -> Millis {
    Millis { low: 10, high: 40 }
}

fn direct_default() -> Millis {
    Millis { low: 2, high: 12 }
}

fn commit_default() -> u64 {
    5
}

fn bytes_default() -> usize {
    64
}

fn one() -> usize {
    1
}

#[cfg(test)]
mod tests;
