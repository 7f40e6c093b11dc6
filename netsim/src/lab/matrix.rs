//! `lab matrix`: every kind of NAT talks to every kind, with real daemons.
//!
//! Two hosts stand behind a NAT of each kind, so that no ordered pair shares both ends with its
//! reverse. A round has each first host talk to one second host; pairs of a round begin one after
//! the other, so that quick ones have the machine for themselves and slow ones wait together.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::internet::{Internet, access_for};
use super::keep::keep;
use super::router::Nat;
use super::talk::{Outcome, talk};
use crate::bench::process::Binaries;

/// Between the beginnings of two pairs of a round.
const STAGGER: Duration = Duration::from_millis(400);

/// Arguments of `lab matrix`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MatrixArgs {
    /// Round trip of every path, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    rtt: u64,
    /// How often each pair talks; each time it is another mesh, of nodes that know nothing of each other.
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,
    /// The kinds of NAT to cross, commas between. [default: all but cgnat, ipv6_only and dual_stack]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAT")]
    nat: Vec<Nat>,
    /// How long a pair may take to become direct, in seconds.
    #[arg(long, value_name = "S", default_value_t = 5)]
    patience: u64,
    /// Decides what the wire leaves to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One conversation.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    from: Nat,
    to: Nat,
    run: u32,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The whole table.
#[derive(Debug, Serialize)]
struct Table {
    schema_version: u32,
    rtt_ms: u64,
    runs: u32,
    nats: Vec<Nat>,
    cells: Vec<Cell>,
    /// Where the evidence of conversations that lost, doubled or reordered something is.
    kept: Option<String>,
}

/// Plays the matrix. True when every message arrived once and in order.
pub(super) fn run(args: &MatrixArgs, binaries: &Binaries, json: bool) -> anyhow::Result<bool> {
    let nats = if args.nat.is_empty() { Nat::MATRIX.to_vec() } else { args.nat.clone() };
    let hosts: Vec<Nat> = nats.iter().chain(&nats).copied().collect();
    let access = access_for(Duration::from_millis(args.rtt));
    let mut internet = Internet::build(binaries, &hosts, access, args.seed)?;
    let mut cells = Vec::new();
    for run in 0..args.runs {
        if run > 0 {
            internet.begin_again()?;
        }
        for shift in 0..nats.len() {
            cells.extend(round(&internet, &nats, shift, run, Duration::from_secs(args.patience))?);
        }
    }
    let whole = cells.iter().all(|cell| cell.outcome.is_whole());
    let kept = if whole { None } else { Some(keep(&internet, "matrix")?) };
    let table = Table { schema_version: 1, rtt_ms: args.rtt, runs: args.runs, nats, cells, kept };
    table.print(json)?;
    Ok(whole)
}

fn round(
    internet: &Internet,
    nats: &[Nat],
    shift: usize,
    run: u32,
    patience: Duration,
) -> anyhow::Result<Vec<Cell>> {
    let pair = |place: usize| {
        let other = (place + shift) % nats.len();
        let (from, to) = (&internet.hosts[place], &internet.hosts[nats.len() + other]);
        let outcome = talk(from, to, &internet.timeline, run, patience)
            .with_context(|| format!("{} to {}", nats[place], nats[other]))?;
        Ok(Cell { from: nats[place], to: nats[other], run, outcome })
    };
    let pair = &pair;
    std::thread::scope(|scope| {
        let mut talking = Vec::new();
        for place in 0..nats.len() {
            talking.push(scope.spawn(move || pair(place)));
            std::thread::sleep(STAGGER);
        }
        talking.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

impl Table {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(
            out,
            "milliseconds from the first send to direct (to the first message stored at the peer)"
        )?;
        write!(out, "{:<20}", "from \\ to")?;
        for nat in &self.nats {
            write!(out, "{nat:<20}")?;
        }
        writeln!(out)?;
        let mut pairs: BTreeMap<(Nat, Nat), Vec<&Cell>> = BTreeMap::new();
        for cell in &self.cells {
            pairs.entry((cell.from, cell.to)).or_default().push(cell);
        }
        for from in &self.nats {
            write!(out, "{from:<20}")?;
            for to in &self.nats {
                let cells = pairs.get(&(*from, *to)).map_or(&[][..], Vec::as_slice);
                write!(out, "{:<20}", summary(cells))?;
            }
            writeln!(out)?;
        }
        let lost: usize = self.cells.iter().map(|cell| cell.outcome.lost).sum();
        let doubled: usize = self.cells.iter().map(|cell| cell.outcome.doubled).sum();
        let reordered: usize = self.cells.iter().map(|cell| cell.outcome.reordered).sum();
        let sent: usize = self.cells.iter().map(|cell| cell.outcome.sent).sum();
        writeln!(
            out,
            "{sent} messages at {} ms round trip: {lost} lost, {doubled} doubled, {reordered} reordered",
            self.rtt_ms
        )?;
        if let Some(kept) = &self.kept {
            writeln!(out, "capture, timeline and NAT tables are in {kept}")?;
        }
        Ok(())
    }
}

/// The paths of a pair's runs, and medians of their times.
fn summary(cells: &[&Cell]) -> String {
    let direct = cells.iter().filter(|cell| cell.outcome.path == "direct").count();
    let path = match direct {
        0 => cells.last().map_or("none", |cell| &cell.outcome.path).to_owned(),
        _ if direct == cells.len() => "direct".to_owned(),
        _ => format!("direct {direct}/{}", cells.len()),
    };
    let text = |time: Option<f64>| time.map_or_else(String::new, |time| format!(" {time:.0}"));
    let time = text(median(cells.iter().filter_map(|cell| cell.outcome.direct_ms).collect()));
    let stored = median(cells.iter().filter_map(|cell| cell.outcome.first_stored_ms).collect());
    format!("{path}{time} ({})", text(stored).trim_start())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
