//! A scenario as the lab can play it: what its words mean for real daemons, and which mean nothing.

use std::path::Path;
use std::time::Duration;

use super::router::Nat;
use super::wire::Access;
use crate::fault::Turn;
use crate::model::Planned;
use crate::nat::{Owed, Preset, direct_path_possible};
use crate::network::Place;
use crate::scenario::{Direction, Fault, Millis, Scenario, ScenarioError, Topology, presets};
use crate::world;

/// Why a scenario cannot be played here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScriptError {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("the lab cannot play {}; the simulator can: netsim run", .0.join(", "))]
    OnlyInVirtualTime(Vec<String>),
}

/// A scenario with every draw made, in the lab's terms.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) scenario: Scenario,
    presets: Vec<Preset>,
    /// The line of each node, and the coordinator's.
    pub(super) line: Access,
    pub(super) coordinators_line: Access,
    /// In order of time.
    pub(super) messages: Vec<Planned>,
    pub(super) deeds: Vec<(Duration, Deed)>,
}

/// Something done to the lab at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Nothing passes between two hosts.
    Cut(Place, Place),
    Heal(Place, Place),
    /// The routers before a node forget everything.
    Reboot(usize),
    /// The outermost router before a node moves every mapping.
    Rebind(usize),
    /// A node's site gets another address.
    Renumber(usize),
    Stop(Place),
    Kill(Place),
    Start(Place),
}

impl Script {
    /// Reads a file and draws what `seed` draws.
    pub(super) fn read(path: &Path, seed: u64) -> Result<Self, ScriptError> {
        Self::of(Scenario::read(path)?, seed)
    }

    fn of(scenario: Scenario, seed: u64) -> Result<Self, ScriptError> {
        let mut foreign = foreign(&scenario);
        let topology = &scenario.topology;
        let presets = presets(&topology.nats, topology.nodes, seed).unwrap_or_else(|more| {
            foreign.extend(more);
            Vec::new()
        });
        let lines = lines(topology);
        let (mut messages, turns) = world::plan(&scenario, seed);
        let mut deeds = Vec::new();
        for (number, fault) in scenario.faults.iter().enumerate() {
            match deeds_of(fault, turns.iter().filter(|turn| turn.fault == number)) {
                Some(more) => deeds.extend(more),
                None => foreign.push(format!("fault {}, {}", number + 1, fault.name())),
            }
        }
        let (Some((line, coordinators_line)), true) = (lines, foreign.is_empty()) else {
            if lines.is_none() {
                foreign.push("uplink_ms of less than half of direct_ms".to_owned());
            }
            return Err(ScriptError::OnlyInVirtualTime(foreign));
        };
        messages.sort_by_key(|planned| planned.at);
        deeds.sort_by_key(|(at, _)| *at);
        Ok(Self { scenario, presets, line, coordinators_line, messages, deeds })
    }

    /// What stands before each node.
    pub(super) fn nats(&self) -> Vec<Nat> {
        self.presets.iter().map(|preset| nat_of(*preset)).collect()
    }

    /// What two nodes are owed by their NATs.
    pub(super) fn owed(&self, one: usize, other: usize) -> Owed {
        direct_path_possible(&self.presets[one].chain(), &self.presets[other].chain())
    }
}

/// What has no meaning for real daemons, beside faults.
fn foreign(scenario: &Scenario) -> Vec<String> {
    let Scenario { topology, workload, hostile, sweep, .. } = scenario;
    let said = [
        ("a sweep", sweep.is_some()),
        ("hostile members", !hostile.is_empty()),
        ("topology.link", !topology.link.is_plain()),
        ("direct_percent", topology.direct_percent != 100),
        ("mailbox_messages_max", topology.mailbox_messages_max.is_some()),
        ("life_s of the workload", workload.life_s.is_some()),
    ];
    said.into_iter().filter(|(_, is_said)| *is_said).map(|(word, _)| word.to_owned()).collect()
}

fn nat_of(preset: Preset) -> Nat {
    match preset {
        Preset::None => Nat::None,
        Preset::FullCone => Nat::FullCone,
        Preset::AddressRestricted => Nat::AddressRestricted,
        Preset::PortRestricted => Nat::PortRestricted,
        Preset::Symmetric => Nat::Symmetric,
        Preset::UdpBlocked => Nat::UdpBlocked,
        Preset::Cgnat => Nat::Cgnat,
    }
}

/// A node's line and the coordinator's: a way between two nodes takes that of both, one to the
/// coordinator its own and the node's. None if that cannot be.
fn lines(topology: &Topology) -> Option<(Access, Access)> {
    let half = |ms: u64| Duration::from_millis(ms) / 2;
    let spread = |millis: Millis| millis.high - millis.low;
    let (uplink, direct) = (topology.uplink_ms, topology.direct_ms);
    let line = Access { delay: half(direct.low), jitter: half(spread(direct)), ..Access::default() };
    let coordinators_line = Access {
        delay: Duration::from_millis(uplink.low).checked_sub(line.delay)?,
        jitter: Duration::from_millis(spread(uplink)).saturating_sub(line.jitter),
        ..Access::default()
    };
    Some((line, coordinators_line))
}

/// What a fault's turns are here. None if it is nothing here.
fn deeds_of<'a>(fault: &Fault, turns: impl Iterator<Item = &'a Turn>) -> Option<Vec<(Duration, Deed)>> {
    let deed: fn([Place; 2], bool) -> Option<Deed> = match fault {
        Fault::Partition { direction: Direction::Both, .. } => |[one, other], begins| {
            let deed = if begins { Deed::Cut } else { Deed::Heal };
            (one != other).then_some(deed(one, other))
        },
        Fault::Stop { .. } => |[host, _], begins| Some(if begins { Deed::Stop } else { Deed::Start }(host)),
        Fault::Kill { .. } => |[host, _], begins| Some(if begins { Deed::Kill } else { Deed::Start }(host)),
        Fault::NatReboot { .. } => |hosts, begins| once(hosts, begins, Deed::Reboot),
        Fault::NatRebind { .. } => |hosts, begins| once(hosts, begins, Deed::Rebind),
        Fault::Renumber { .. } => |hosts, begins| once(hosts, begins, Deed::Renumber),
        Fault::Partition { direction: Direction::OneWay, .. }
        | Fault::CrashAtCommit { .. }
        | Fault::CutUplink { .. }
        | Fault::CutLinks { .. }
        | Fault::NoDirect { .. }
        | Fault::ClockJump { .. }
        | Fault::DiskFull { .. }
        | Fault::Revoke { .. }
        | Fault::Evil { .. }
        | Fault::RestoreBackup { .. }
        | Fault::SecondCoordinator { .. }
        | Fault::Join { .. } => return None,
    };
    Some(turns.filter_map(|turn| Some((turn.at, deed(turn.hosts, turn.begins)?))).collect())
}

/// What happens to a node and does not last.
fn once([host, _]: [Place; 2], begins: bool, deed: fn(usize) -> Deed) -> Option<Deed> {
    match host {
        Place::Node(node) => begins.then_some(deed(node)),
        Place::Coordinator => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(faults: &str, topology: &str) -> Result<Script, ScriptError> {
        let text = format!(
            "about = \"it\"\nduration_s = 10\n[topology]\nnodes = 3\n{topology}\n[workload]\nmessages = 9\n{faults}"
        );
        Script::of(Scenario::parse("it.toml", &text).expect("a scenario"), 7)
    }

    #[test]
    fn what_the_lab_cannot_play_is_named_all_at_once() {
        let faults = "[[fault]]\nkind = \"cut_links\"\nwhen = { at_s = 1 }\n\
                      [[fault]]\nkind = \"disk_full\"\nwhen = { at_s = 1 }\nwho = 0\nfor_s = 1\n";
        let topology = "[[topology.nat]]\nkind = \"symmetric\"\nnodes = [1]\nidle_s = 3\n";
        let error = script(faults, topology).expect_err("nothing of it").to_string();
        assert_eq!(
            error,
            "the lab cannot play idle_s of topology.nat 1, fault 1, cut_links, fault 2, disk_full; \
             the simulator can: netsim run"
        );
    }

    #[test]
    fn faults_come_in_order_with_their_ends_and_their_draws() {
        let faults = "[[fault]]\nkind = \"kill\"\nwhen = { at_s = 4 }\nwho = \"coordinator\"\nfor_s = 1\n\
                      [[fault]]\nkind = \"partition\"\nwhen = { at_s = 2 }\nfrom = 0\nto = 2\nfor_s = 3\n\
                      [[fault]]\nkind = \"nat_rebind\"\nwhen = { at_s = 3 }\nwho = 1\n";
        let topology = "[[topology.nat]]\nkind = \"symmetric\"\nnodes = [1]\n";
        let script = script(faults, topology).expect("all of it");
        let ends = (Place::Node(0), Place::Node(2));
        let expected = [
            (2, Deed::Cut(ends.0, ends.1)),
            (3, Deed::Rebind(1)),
            (4, Deed::Kill(Place::Coordinator)),
            (5, Deed::Start(Place::Coordinator)),
            (5, Deed::Heal(ends.0, ends.1)),
        ];
        assert_eq!(script.deeds, expected.map(|(at, deed)| (Duration::from_secs(at), deed)));
        assert_eq!(script.nats(), [Nat::None, Nat::Symmetric, Nat::None]);
        assert!(script.messages.is_sorted_by_key(|planned| planned.at));
    }

    #[test]
    fn two_lines_make_a_way() {
        let ms = Duration::from_millis;
        let topology = "uplink_ms = { low = 20, high = 30 }\ndirect_ms = { low = 10, high = 14 }";
        let script = script("", topology).expect("plain lines");
        assert_eq!((script.line.delay, script.line.jitter), (ms(5), ms(2)));
        assert_eq!((script.coordinators_line.delay, script.coordinators_line.jitter), (ms(15), ms(8)));
        let topology = "uplink_ms = { low = 2, high = 30 }\ndirect_ms = { low = 10, high = 14 }";
        assert!(self::script("", topology).is_err());
    }
}
