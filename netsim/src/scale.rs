//! `netsim scale`: one scenario at growing numbers of nodes, and what each costs.
//!
//! Every row is a run in a process of its own, which says its own peak of resident memory, so that no
//! row pays for what another left behind.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::bench::process::{TICKS_PER_SECOND, bytes_in, ticks_in};
use crate::progress::{Pace, Progress};
use crate::replay::drive_paced;
use crate::scenario::Scenario;
use crate::simulate::{parse_duration, parse_seed, say};
use crate::world::Options;

/// `netsim scale`.
#[derive(Args, Debug)]
pub(crate) struct ScaleArgs {
    /// Numbers of nodes, a row each.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..=10_000))]
    #[arg(default_value = "10,100,1000,5000")]
    nodes: Vec<u32>,
    /// How long messages are handed over, in virtual time. [default: 1h up to 1000 nodes, else 10m]
    #[arg(long = "virtual", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Decides everything that is left to chance; decimal or 0x.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    seed: u64,
    /// One object for programs.
    #[arg(long)]
    json: bool,
    /// Be the process of one row.
    #[arg(long, hide = true)]
    row: bool,
}

/// What a world of that many nodes cost.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    nodes: u32,
    virtual_s: u64,
    messages: u64,
    events: u64,
    wall_ms: u64,
    /// Processor time of the run's one thread, which other work on the machine does not add to.
    cpu_ms: u64,
    /// The process's peak of resident memory, less what it had before there was a world.
    memory_bytes: u64,
}

/// All rows. Fields may be added, never renamed.
#[derive(Serialize)]
struct Report {
    schema_version: u32,
    seed: String,
    rows: Vec<Row>,
}

/// A thousand nodes for an hour; other rows take part of it.
const SCENARIO: &str = include_str!("../scenarios/slow/a_thousand_nodes_for_an_hour.toml");

/// Nodes up to which a row passes a whole hour.
const WHOLE_HOUR_NODES: u32 = 1_000;

const HOUR: Duration = Duration::from_secs(3_600);

/// What larger rows pass.
const PART: Duration = Duration::from_secs(600);

/// Measures every row and prints the table.
pub(crate) fn main(args: &ScaleArgs) -> ExitCode {
    let done = if args.row { one_row(args) } else { all_rows(args) };
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn all_rows(args: &ScaleArgs) -> anyhow::Result<String> {
    let progress = Progress::new("scale");
    let mut rows = Vec::new();
    for (done, nodes) in args.nodes.iter().enumerate() {
        progress.at(&format!("{nodes} nodes, row"), done + 1, args.nodes.len());
        rows.push(measured(args, *nodes)?);
    }
    progress.done();
    if args.json {
        let report = Report { schema_version: 1, seed: format!("{:#x}", args.seed), rows };
        return serde_json::to_string(&report).context("rows of numbers encode");
    }
    Ok(table(&rows))
}

/// A row by a process of its own.
fn measured(args: &ScaleArgs, nodes: u32) -> anyhow::Result<Row> {
    let own = std::env::current_exe().context("failed to find this executable")?;
    let duration = args.duration.unwrap_or(if nodes > WHOLE_HOUR_NODES { PART } else { HOUR });
    let row = Command::new(own)
        .args(["scale", "--row", "--nodes", &nodes.to_string(), "--seed", &args.seed.to_string()])
        .args(["--virtual", &format!("{}s", duration.as_secs())])
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start the process of a row")?;
    let said = String::from_utf8_lossy(&row.stdout);
    if !row.status.success() {
        bail!("the run with {nodes} nodes failed ({}):\n{}", row.status, said.trim_end());
    }
    serde_json::from_str(&said).with_context(|| format!("the run with {nodes} nodes said {said:?}"))
}

/// This process is a row's.
fn one_row(args: &ScaleArgs) -> anyhow::Result<String> {
    let nodes = *args.nodes.first().context("a row has a number of nodes")?;
    let scenario = scaled(nodes, args.duration.unwrap_or(HOUR))?;
    let before = memory("VmRSS:")?;
    let began = Instant::now();
    let options = Options { seed: args.seed, crash_at: None, mutant: None, at_least: Duration::ZERO };
    let report = drive_paced(&scenario, options, &mut Pace::new("scale"));
    let wall_ms = u64::try_from(began.elapsed().as_millis())?;
    if report.failed() {
        bail!("{}", report.text(Path::new("netsim/scenarios/slow"), &scenario.about));
    }
    let verdict = &report.outcome.verdict;
    let stat = std::fs::read_to_string("/proc/self/stat").context("failed to read /proc/self/stat")?;
    let ticks = ticks_in(&stat).context("/proc/self/stat has no times")?;
    let row = Row {
        nodes,
        virtual_s: verdict.virtual_ms / 1_000,
        messages: verdict.messages,
        events: verdict.events,
        wall_ms,
        cpu_ms: ticks * 1_000 / u64::from(TICKS_PER_SECOND),
        memory_bytes: memory("VmHWM:")?.saturating_sub(before),
    };
    serde_json::to_string(&row).context("numbers encode")
}

/// The scenario with that many nodes: as many faults a node and hour, and nothing expected beyond what
/// always holds.
fn scaled(nodes: u32, duration: Duration) -> anyhow::Result<Scenario> {
    let mut scenario: Table = SCENARIO.parse()?;
    let share = f64::from(nodes) / f64::from(WHOLE_HOUR_NODES) * duration.as_secs_f64() / HOUR.as_secs_f64();
    scenario.insert("duration_s".to_owned(), Value::Float(duration.as_secs_f64()));
    scenario.remove("expect");
    let topology = scenario.get_mut("topology").and_then(Value::as_table_mut);
    let topology = topology.context("the scenario has a topology")?;
    topology.insert("nodes".to_owned(), Value::Integer(nodes.into()));
    let faults = scenario.get_mut("fault").and_then(Value::as_array_mut);
    for fault in faults.context("the scenario has faults")? {
        let random = fault.get_mut("when").and_then(|when| when.get_mut("random"));
        let random = random.context("its faults come at random")?;
        let whole = random.as_integer().and_then(|count| u32::try_from(count).ok());
        let whole = whole.context("so many times")?;
        #[expect(clippy::cast_possible_truncation, reason = "a few thousand faults")]
        let count = (f64::from(whole) * share).ceil() as i64;
        *random = Value::Integer(count);
    }
    Ok(Scenario::parse("the scaled scenario", &toml::to_string(&scenario)?)?)
}

/// A line of this process's status.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("failed to read /proc/self/status")?;
    bytes_in(&status, name).with_context(|| format!("/proc/self/status has no {name}"))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        " nodes  virtual s  messages     events  wall s   cpu s  events/s  KiB/node  ms/message\n",
    );
    for row in rows {
        let wall_s = row.wall_ms as f64 / 1_000.0;
        writeln!(
            text,
            "{:>6} {:>10} {:>9} {:>10} {wall_s:>7.1} {:>7.1} {:>9.0} {:>9.0} {:>11.2}",
            row.nodes,
            row.virtual_s,
            row.messages,
            row.events,
            row.cpu_ms as f64 / 1_000.0,
            row.events as f64 / wall_s.max(0.001),
            row.memory_bytes as f64 / 1_024.0 / f64::from(row.nodes),
            row.wall_ms as f64 / row.messages.max(1) as f64,
        )
        .expect("a string takes all text");
    }
    text.push_str(
        "One thread and one process a row; memory is its peak of resident bytes less what it had before the world.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_share_of_the_faults_of_a_thousand_nodes_in_an_hour() {
        let faults = |nodes, duration| {
            let scenario = scaled(nodes, duration).expect("a scenario");
            assert_eq!(scenario.topology.nodes, usize::try_from(nodes).expect("few"));
            scenario.faults.iter().filter_map(|fault| fault.when().random).collect::<Vec<_>>()
        };
        assert_eq!(faults(1_000, HOUR), [200, 100]);
        assert_eq!(faults(5_000, PART), [167, 84]);
        assert_eq!(faults(10, PART), [1, 1]);
    }

    #[test]
    fn a_small_row_is_measured() {
        let args = ScaleArgs {
            nodes: vec![3],
            duration: Some(Duration::from_secs(60)),
            seed: 1,
            json: false,
            row: true,
        };
        let row: Row = serde_json::from_str(&one_row(&args).expect("it runs")).expect("a row");
        assert_eq!((row.nodes, row.messages), (3, 3));
        assert!(row.virtual_s >= 60 && row.memory_bytes > 0, "{row:?}");
        assert!(table(&[row]).contains("     3 "));
    }
}
