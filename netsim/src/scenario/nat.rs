//! `[[topology.nat]]`: which NATs stand before which nodes.

use std::time::Duration;

use serde::Deserialize;

use super::{Seconds, Topology};
use crate::chance::Chance;
use crate::nat::{Behaviour, Ports, Preset, Scope};

/// One kind of NAT, before the nodes it lists or before as many as its weight draws. A node that no entry
/// takes has a public address and no filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatEntry {
    kind: Preset,
    /// Another chain between this one and the Internet.
    behind: Option<Preset>,
    nodes: Option<Vec<usize>>,
    /// Of the nodes that are not listed, each draws one entry; those with more weight are drawn more often.
    weight: Option<f64>,
    /// The outermost NAT is one for all nodes of this entry; each has its own otherwise.
    #[serde(default)]
    shared: bool,
    // What follows changes every NAT of the entry; the preset says it otherwise.
    mapping: Option<Scope>,
    filtering: Option<Scope>,
    ports: Option<Ports>,
    /// How long an unused mapping lives.
    idle_s: Option<Seconds>,
    /// How long any mapping lives; for ever otherwise.
    life_s: Option<Seconds>,
    /// Pairs of mapping and remote end it remembers.
    sessions_max: Option<usize>,
    /// Whether an inside host reaches another by its outside address.
    hairpins: Option<bool>,
}

impl NatEntry {
    /// From the host outwards.
    fn chain(&self) -> Vec<Behaviour> {
        let outer = self.behind.map(Preset::chain).unwrap_or_default();
        let chain = self.kind.chain().into_iter().chain(outer);
        chain
            .map(|preset| Behaviour {
                mapping: self.mapping.unwrap_or(preset.mapping),
                filtering: self.filtering.unwrap_or(preset.filtering),
                ports: self.ports.unwrap_or(preset.ports),
                idle: self.idle_s.map_or(preset.idle, Seconds::duration),
                life: self.life_s.map(Seconds::duration).or(preset.life),
                sessions_max: self.sessions_max.unwrap_or(preset.sessions_max),
                hairpins: self.hairpins.unwrap_or(preset.hairpins),
                blocks_udp: preset.blocks_udp,
            })
            .collect()
    }

    /// What it says beside its kind.
    #[cfg(all(feature = "lab", target_os = "linux"))]
    fn more(&self) -> Vec<&'static str> {
        let said = [
            ("behind", self.behind.is_some()),
            ("shared", self.shared),
            ("mapping", self.mapping.is_some()),
            ("filtering", self.filtering.is_some()),
            ("ports", self.ports.is_some()),
            ("idle_s", self.idle_s.is_some()),
            ("life_s", self.life_s.is_some()),
            ("sessions_max", self.sessions_max.is_some()),
            ("hairpins", self.hairpins.is_some()),
        ];
        said.into_iter().filter(|(_, is_said)| *is_said).map(|(word, _)| word).collect()
    }
}

/// What stands before each node, from it outwards, and with whom it shares the outermost.
pub(crate) fn standing(
    entries: &[NatEntry],
    nodes: usize,
    seed: u64,
) -> (Vec<Vec<Behaviour>>, Vec<Option<usize>>) {
    let drawn = (0..nodes).map(|node| {
        let number = stands_before(entries, node, seed);
        let chain = number.map(|number| entries[number].chain()).unwrap_or_default();
        (chain, number.filter(|number| entries[*number].shared))
    });
    drawn.unzip()
}

/// The entry of what stands before a node.
fn stands_before(entries: &[NatEntry], node: usize, seed: u64) -> Option<usize> {
    let lists = |entry: &NatEntry| entry.nodes.as_ref().is_some_and(|nodes| nodes.contains(&node));
    entries.iter().position(lists).or_else(|| draw(entries, node, seed))
}

/// The preset before each node, where nothing but presets stands; else what else there is.
#[cfg(all(feature = "lab", target_os = "linux"))]
pub(crate) fn presets(entries: &[NatEntry], nodes: usize, seed: u64) -> Result<Vec<Preset>, Vec<String>> {
    let more = (1..).zip(entries).flat_map(|(number, entry)| {
        entry.more().into_iter().map(move |word| format!("{word} of topology.nat {number}"))
    });
    let more: Vec<String> = more.collect();
    if !more.is_empty() {
        return Err(more);
    }
    let before =
        |node| stands_before(entries, node, seed).map_or(Preset::None, |number| entries[number].kind);
    Ok((0..nodes).map(before).collect())
}

/// The entry that a node draws; none where none has weight.
fn draw(entries: &[NatEntry], node: usize, seed: u64) -> Option<usize> {
    let weights = || entries.iter().map(|entry| entry.weight.unwrap_or(0.0));
    let mut chance = Chance::new(seed, &format!("node {node}"), "nat");
    let mut left = chance.share() * weights().sum::<f64>();
    weights().position(|weight| {
        left -= weight;
        left < 0.0
    })
}

pub(super) fn check(topology: &Topology) -> Result<(), String> {
    if !topology.nats.is_empty() && topology.direct_percent != 100 {
        return Err("with NATs these decide who reaches whom: leave direct_percent out".to_owned());
    }
    let mut taken = vec![false; topology.nodes];
    for (number, entry) in (1..).zip(&topology.nats) {
        let wrong = |what: &str| Err(format!("nat {number}: {what}"));
        match (&entry.nodes, entry.weight) {
            (Some(_), Some(_)) | (None, None) => return wrong("either nodes or a weight"),
            (None, Some(weight)) if !(weight > 0.0 && weight.is_finite()) => {
                return wrong("a weight is more than 0");
            }
            (None, Some(_)) | (Some(_), None) => {}
        }
        for node in entry.nodes.iter().flatten() {
            match taken.get_mut(*node) {
                None => {
                    return wrong(&format!("there is no node {node}: the last is {}", topology.nodes - 1));
                }
                Some(true) => return wrong(&format!("node {node} stands behind two")),
                Some(taken) => *taken = true,
            }
        }
        if entry.shared && entry.chain().is_empty() {
            return wrong("nothing stands there that could be shared");
        }
        let times = [entry.idle_s, entry.life_s].into_iter().flatten();
        if times.map(Seconds::duration).any(|time| time < LIFE_MIN) {
            return wrong("idle_s and life_s are at least 1");
        }
        if entry.sessions_max == Some(0) {
            return wrong("sessions_max is at least 1");
        }
    }
    Ok(())
}

/// A NAT that forgets faster lets no answer in.
const LIFE_MIN: Duration = Duration::from_secs(1);
