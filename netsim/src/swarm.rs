//! `netsim swarm`: many scenarios under many seeds, on all cores, until one fails.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::chance::Chance;
use crate::progress::{Pace, Progress};
use crate::replay::{Report, drive_paced};
use crate::scenario::Scenario;
use crate::simulate::{USAGE, files_in, parse_duration, parse_seed, refuse, say};
use crate::world::Options;

/// `netsim swarm`.
#[derive(Args, Debug)]
#[command(after_help = "\
Every change: `--seeds 2000`, the same runs on every machine; tests/run does it.
Every night: `--for 8h`, seeds that differ from night to night; then `netsim run` for each of
netsim/scenarios/slow. A failure ends it and prints the line that replays it.")]
pub(crate) struct SwarmArgs {
    /// Scenario files, or directories of them.
    #[arg(default_value = "netsim/scenarios/fast")]
    scenarios: Vec<PathBuf>,
    /// How long to go on: 60s, 10m, 8h.
    #[arg(long = "for", value_parser = parse_duration, default_value = "60s")]
    duration: Duration,
    /// So many seeds instead, however long they take: with one first seed the same runs everywhere.
    #[arg(long, conflicts_with = "duration")]
    seeds: Option<u64>,
    /// The first seed; those after it count up. [default: 1 with --seeds, else the clock's]
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    /// Virtual time that a seed covers: a run that is over before goes on, and a sweep has many runs.
    #[arg(long, value_parser = parse_duration, default_value = "10m")]
    at_least: Duration,
    /// Runs at one time. [default: one a core]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
}

/// A scenario with the file it came from.
type Named = (PathBuf, Scenario);

/// What became of one seed.
struct Ran {
    number: u64,
    scenario: usize,
    seed: u64,
    wall: Duration,
    /// The report, or what the run panicked with.
    report: Result<Report, String>,
}

/// What the seeds of one scenario came to.
#[derive(Clone, Copy, Default)]
struct Sum {
    seeds: u64,
    runs: u64,
    virtual_ms: u64,
    wall: Duration,
}

/// What all of them came to.
struct Tally {
    of: Vec<Sum>,
    slowest: Option<(Duration, usize, u64)>,
    /// The least virtual time of a seed.
    least_ms: u64,
    /// The first of those that failed.
    failed: Option<Ran>,
}

/// Which seeds there are, shared by the threads that run them.
struct Plan<'a> {
    scenarios: &'a [Named],
    first: u64,
    seeds: Option<u64>,
    until: Option<Instant>,
    at_least: Duration,
    next: AtomicU64,
    failed: AtomicBool,
}

/// Runs random scenarios with random seeds until one fails, the time is over or the seeds are.
pub(crate) fn main(args: &SwarmArgs) -> ExitCode {
    let mut scenarios = Vec::new();
    for path in args.scenarios.iter().flat_map(|path| files_in(path)) {
        match Scenario::read(&path) {
            Ok(scenario) => scenarios.push((path, scenario)),
            Err(error) => return refuse(&error),
        }
    }
    if scenarios.is_empty() {
        say(&format!("no scenario in {:?}; name a .toml file or a directory of them", args.scenarios));
        return ExitCode::from(USAGE);
    }
    let began = Instant::now();
    let plan = Plan {
        scenarios: &scenarios,
        first: args.seed.unwrap_or_else(|| if args.seeds.is_some() { 1 } else { clock_seed() }),
        seeds: args.seeds,
        until: args.seeds.is_none().then(|| began + args.duration),
        at_least: args.at_least,
        next: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    };
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let jobs = args.jobs.unwrap_or_else(cores).get();
    let tally = plan.run(jobs);
    if let Some(failed) = &tally.failed {
        say(&plan.failure(failed));
    }
    say(&tally.text(&plan, jobs, began.elapsed()));
    if tally.failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Plan<'_> {
    fn run(&self, jobs: usize) -> Tally {
        let mut tally = Tally {
            of: vec![Sum::default(); self.scenarios.len()],
            slowest: None,
            least_ms: u64::MAX,
            failed: None,
        };
        let progress = Progress::new("swarm");
        let (sender, ran) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let sender = sender.clone();
                scope.spawn(move || self.work(&sender));
            }
            drop(sender);
            for ran in ran {
                tally.add(ran);
                progress.say(&tally.line());
            }
        });
        progress.done();
        tally
    }

    /// One thread: a seed after another.
    fn work(&self, done: &mpsc::Sender<Ran>) {
        while !self.failed.load(Ordering::Relaxed) && self.until.is_none_or(|until| Instant::now() < until) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.seeds.is_some_and(|seeds| number >= seeds) {
                return;
            }
            let ran = self.run_one(number);
            if ran.failed() {
                self.failed.store(true, Ordering::Relaxed);
            }
            if done.send(ran).is_err() {
                return;
            }
        }
    }

    fn run_one(&self, number: u64) -> Ran {
        let seed = self.first.wrapping_add(number);
        let scenario = Chance::new(seed, "swarm", "scenario").below(self.scenarios.len());
        let began = Instant::now();
        let options = Options { seed, crash_at: None, mutant: None, at_least: self.at_least };
        let run = || drive_paced(&self.scenarios[scenario].1, options, &mut Pace::silent());
        let report = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| said(panic.as_ref()));
        Ran { number, scenario, seed, wall: began.elapsed(), report }
    }

    fn failure(&self, ran: &Ran) -> String {
        let (path, scenario) = &self.scenarios[ran.scenario];
        match &ran.report {
            Ok(report) => report.text(path, &scenario.about),
            Err(what) => {
                let (path, seed, at_least) = (path.display(), ran.seed, self.at_least.as_secs());
                format!(
                    "{path}: {}\nFAIL panic: {what}\nreplay: netsim run {path} --seed {seed:#x} --at-least {at_least}s",
                    scenario.about
                )
            }
        }
    }

    fn name(&self, scenario: usize) -> String {
        let path: &Path = &self.scenarios[scenario].0;
        path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }
}

impl Ran {
    fn failed(&self) -> bool {
        self.report.as_ref().map_or(true, Report::failed)
    }
}

impl Tally {
    fn add(&mut self, ran: Ran) {
        let (runs, virtual_ms) =
            ran.report.as_ref().map_or((1, 0), |report| (report.runs, report.virtual_ms));
        let sum = &mut self.of[ran.scenario];
        sum.seeds += 1;
        sum.runs += runs;
        sum.virtual_ms += virtual_ms;
        sum.wall += ran.wall;
        let slowest = (ran.wall, ran.scenario, ran.seed);
        self.slowest = self.slowest.max(Some(slowest));
        if !ran.failed() {
            self.least_ms = self.least_ms.min(virtual_ms);
        } else if self.failed.as_ref().is_none_or(|first| ran.number < first.number) {
            // Seeds are handed out in order, so the first that fails is the same on any number of threads.
            self.failed = Some(ran);
        }
    }

    fn all(&self) -> Sum {
        self.of.iter().fold(Sum::default(), |all, sum| Sum {
            seeds: all.seeds + sum.seeds,
            runs: all.runs + sum.runs,
            virtual_ms: all.virtual_ms + sum.virtual_ms,
            wall: all.wall + sum.wall,
        })
    }

    fn line(&self) -> String {
        let Sum { seeds, runs, virtual_ms, .. } = self.all();
        format!("{seeds} seeds, {runs} runs, {} virtual hours", virtual_ms / 3_600_000)
    }

    fn text(&self, plan: &Plan<'_>, jobs: usize, wall: Duration) -> String {
        let by_name: BTreeMap<String, Sum> =
            self.of.iter().enumerate().map(|(scenario, sum)| (plan.name(scenario), *sum)).collect();
        let width = by_name.keys().map(String::len).max().unwrap_or_default();
        let mut text = format!("{:width$}  seeds    runs  virtual min  wall s\n", "scenario");
        for (name, sum) in by_name.into_iter().filter(|(_, sum)| sum.seeds > 0) {
            text.push_str(&format!(
                "{name:width$} {:>6} {:>7} {:>12} {:>7.1}\n",
                sum.seeds,
                sum.runs,
                sum.virtual_ms / 60_000,
                sum.wall.as_secs_f64()
            ));
        }
        if let Some((took, scenario, seed)) = self.slowest {
            let name = plan.name(scenario);
            text.push_str(&format!("slowest    {name} --seed {seed:#x}: {:.2} s\n", took.as_secs_f64()));
        }
        let all = self.all();
        let outcome = if self.failed.is_some() { "one failed" } else { "none failed" };
        let least = if self.least_ms == u64::MAX { 0 } else { self.least_ms };
        text.push_str(&format!(
            "{} seeds, {} runs, {} virtual minutes, {:.1} of a seed at least, in {} s on {jobs} threads, \
             {outcome}; first seed {:#x}",
            all.seeds,
            all.runs,
            all.virtual_ms / 60_000,
            Duration::from_millis(least).as_secs_f64() / 60.0,
            wall.as_secs(),
            plan.first
        ));
        text
    }
}

/// A seed that differs from call to call.
fn clock_seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(clock.subsec_nanos()) ^ (clock.as_secs() << 20)
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests;
