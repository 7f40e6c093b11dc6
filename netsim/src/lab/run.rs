//! `lab run`: a scenario with real daemons, and the same in virtual time. Every pair of nodes must come to
//! talk the same way in both.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use peerloom_proto::endpoint::PathKind;
use serde::Serialize;

use super::internet::Internet;
use super::keep::keep;
use super::play::{Arrived, id_of, play};
use super::router::Nat;
use super::script::{Script, ScriptError};
use super::talk::Order;
use crate::bench::process::Binaries;
use crate::model::{Fact, History, Planned};
use crate::nat::Owed;
use crate::replay::drive;
use crate::simulate::parse_seed;

/// Arguments of `lab run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// The scenario's TOML file.
    scenario: PathBuf,
    /// Decides everything that is left to chance, here as in the simulator; decimal or 0x.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    seed: u64,
}

impl RunArgs {
    /// What the lab is to play.
    pub(super) fn script(&self) -> Result<Script, ScriptError> {
        Script::read(&self.scenario, self.seed)
    }
}

/// How one node's messages to another came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Ways {
    /// The last message's: `direct`, `relay` or `queue`; none if it did not come.
    last: Option<String>,
    /// How many came each way.
    counts: BTreeMap<String, usize>,
}

/// One node that talked to another.
#[derive(Debug, Serialize)]
struct Pair {
    from: usize,
    to: usize,
    from_nat: Nat,
    to_nat: Nat,
    messages: usize,
    lost: usize,
    doubled: usize,
    reordered: usize,
    lab: Ways,
    simulator: Ways,
    /// Whether both have a direct path only if they guess each other's port.
    by_luck: bool,
}

/// The lab beside the simulator. Fields may be added, never renamed.
#[derive(Debug, Serialize)]
struct Comparison {
    schema_version: u32,
    scenario: String,
    seed: String,
    ok: bool,
    pairs: Vec<Pair>,
    /// What failed in virtual time.
    simulator_failed: Vec<String>,
    kept: Option<String>,
}

/// Plays it in both. True when everything arrived once and in order, and each pair came to talk the same
/// way.
pub(super) fn run(args: &RunArgs, binaries: &Binaries, json: bool) -> anyhow::Result<bool> {
    let script = args.script()?;
    let report = drive(&script.scenario, args.seed, None, None);
    let mut internet = Internet::build(binaries, &script.nats(), script.line, args.seed)?;
    let inboxes = play(&script, &mut internet)?;
    let simulated = arrived(&report.outcome.history);
    let pairs: Vec<Pair> =
        by_pair(&script.messages).into_iter().map(|pair| pair.of(&script, &inboxes, &simulated)).collect();
    let simulator_failed: Vec<String> =
        report.outcome.violations.iter().map(|violation| violation.to_string()).collect();
    let ok = simulator_failed.is_empty() && pairs.iter().all(|pair| pair.is_whole() && pair.agrees());
    let kept = if ok { None } else { Some(keep(&internet, "run")?) };
    let (scenario, seed) = (args.scenario.display().to_string(), format!("{:#x}", args.seed));
    let comparison = Comparison { schema_version: 1, scenario, seed, ok, pairs, simulator_failed, kept };
    comparison.print(&script.scenario.about, json)?;
    Ok(ok)
}

/// Each node's messages in virtual time, as they were kept.
fn arrived(history: &History) -> Vec<Vec<Arrived>> {
    let mut inboxes = vec![Vec::new(); history.members.len()];
    for (_, fact) in &history.facts {
        if let Fact::Kept { node, message, path, .. } = fact {
            let path = match path {
                PathKind::Direct => "direct",
                PathKind::Relay => "relay",
                PathKind::Queue => "queue",
            };
            let id = id_of(&history.messages[*message].id);
            inboxes[*node].push(Arrived { id, path: path.to_owned() });
        }
    }
    inboxes
}

/// What one node sent to another, in order.
struct Said {
    from: usize,
    to: usize,
    ids: Vec<String>,
}

fn by_pair(messages: &[Planned]) -> Vec<Said> {
    let mut pairs: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    for planned in messages {
        pairs.entry((planned.from, planned.to)).or_default().push(id_of(&planned.id));
    }
    pairs.into_iter().map(|((from, to), ids)| Said { from, to, ids }).collect()
}

/// How far the inbox is from what was sent.
fn order(ids: &[String], inbox: &[Arrived]) -> Order {
    let number = |arrived: &Arrived| ids.iter().position(|id| *id == arrived.id);
    let numbers: Vec<usize> = inbox.iter().filter_map(number).collect();
    Order::of_numbers(&numbers, ids.len())
}

impl Said {
    fn of(self, script: &Script, lab: &[Vec<Arrived>], simulator: &[Vec<Arrived>]) -> Pair {
        let Self { from, to, ids } = self;
        let order = order(&ids, &lab[to]);
        let nats = script.nats();
        let [from_nat, to_nat] = [nats[from], nats[to]];
        Pair {
            from,
            to,
            from_nat,
            to_nat,
            messages: ids.len(),
            lost: order.lost,
            doubled: order.doubled,
            reordered: order.reordered,
            lab: Ways::of(&ids, &lab[to]),
            simulator: Ways::of(&ids, &simulator[to]),
            by_luck: script.owed(from, to) == Owed::DirectByBirthday,
        }
    }
}

impl Ways {
    fn of(ids: &[String], inbox: &[Arrived]) -> Self {
        let mut ways = Self::default();
        for arrived in inbox.iter().filter(|arrived| ids.contains(&arrived.id)) {
            *ways.counts.entry(arrived.path.clone()).or_default() += 1;
            if ids.last() == Some(&arrived.id) {
                ways.last = Some(arrived.path.clone());
            }
        }
        ways
    }

    fn text(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(path, count)| format!("{count} {path}")).collect();
        format!("{} ({})", self.last.as_deref().unwrap_or("none"), counts.join(", "))
    }
}

impl Pair {
    fn is_whole(&self) -> bool {
        self.lost + self.doubled + self.reordered == 0
    }

    /// One may guess a port that the other misses.
    fn agrees(&self) -> bool {
        self.by_luck || self.lab.last == self.simulator.last
    }
}

impl Comparison {
    fn print(&self, about: &str, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(out, "{}: {about}", self.scenario)?;
        for pair in &self.pairs {
            let Pair { from, to, from_nat, to_nat, messages, lost, doubled, reordered, .. } = pair;
            let verdict = if pair.agrees() { "same" } else { "DIFFERS" };
            writeln!(
                out,
                "{from} {from_nat:<18} to {to} {to_nat:<18} {messages} messages: {lost} lost, {doubled} doubled, \
                 {reordered} reordered; lab {}, simulator {}: {verdict}",
                pair.lab.text(),
                pair.simulator.text(),
            )?;
        }
        for failure in &self.simulator_failed {
            writeln!(out, "FAIL in virtual time: {failure}")?;
        }
        if let Some(kept) = &self.kept {
            writeln!(out, "capture, timeline and NAT tables are in {kept}")?;
        }
        writeln!(out, "{}", if self.ok { "ok" } else { "FAIL" })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn inbox(arrivals: &[(&str, &str)]) -> Vec<Arrived> {
        let arrived = |(id, path): &(&str, &str)| Arrived { id: (*id).to_owned(), path: (*path).to_owned() };
        arrivals.iter().map(arrived).collect()
    }

    fn pair(lab: &[(&str, &str)], simulator: &[(&str, &str)], by_luck: bool) -> Pair {
        let sent = ids(&["a", "b"]);
        let order = order(&sent, &inbox(lab));
        Pair {
            from: 0,
            to: 1,
            from_nat: Nat::None,
            to_nat: Nat::None,
            messages: sent.len(),
            lost: order.lost,
            doubled: order.doubled,
            reordered: order.reordered,
            lab: Ways::of(&sent, &inbox(lab)),
            simulator: Ways::of(&sent, &inbox(simulator)),
            by_luck,
        }
    }

    #[test]
    fn the_way_of_a_pair_is_that_of_its_last_message() {
        let ways = Ways::of(&ids(&["a", "b"]), &inbox(&[("a", "relay"), ("x", "queue"), ("b", "direct")]));
        assert_eq!(ways.last.as_deref(), Some("direct"));
        assert_eq!(ways.text(), "direct (1 direct, 1 relay)");
        assert_eq!(Ways::of(&ids(&["a", "b"]), &inbox(&[("a", "relay")])).last, None);
    }

    #[test]
    fn pairs_that_talk_in_another_way_differ_unless_it_takes_luck() {
        let lab = [("a", "relay"), ("b", "direct")];
        assert!(pair(&lab, &[("a", "direct"), ("b", "direct")], false).agrees());
        assert!(!pair(&lab, &[("a", "direct"), ("b", "relay")], false).agrees());
        assert!(pair(&lab, &[("a", "direct"), ("b", "relay")], true).agrees());
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_counted_apart() {
        let count = |lab: &[(&str, &str)]| {
            let pair = pair(lab, &[], false);
            (pair.lost, pair.doubled, pair.reordered)
        };
        assert_eq!(count(&[("a", "relay"), ("b", "relay")]), (0, 0, 0));
        assert_eq!(count(&[("b", "relay")]), (1, 0, 0));
        assert_eq!(count(&[("a", "relay"), ("b", "relay"), ("b", "direct")]), (0, 1, 0));
        assert_eq!(count(&[("b", "relay"), ("a", "relay")]), (0, 0, 1));
    }
}
