//! Benches over real processes: the `peerloom` and `peerloom-coordinator` beside this executable,
//! temporary directories, free loopback ports.
//!
//! 1. [`main`] makes a [`Stage`]: where the binaries are, where files go, how progress is shown
//! 2. one file a bench: `direct`, `accept`, `drain`, `idle`, `start`, `cli`
//! 3. the load client they share: `mesh` (keys and the log), `link` (a WebSocket spoken by hand),
//!    `mail` (envelopes sealed before the clock runs), `http`, `process`
//! 4. [`report`] prints figures, goals, the disk's rate and the command that repeats it

mod accept;
mod cli;
mod direct;
mod disk;
mod drain;
pub(crate) mod http;
mod idle;
mod link;
mod mail;
mod mesh;
pub(crate) mod process;
mod report;
mod start;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use peerloom_proto::{Entropy, UnixMs, sha256};

use process::Binaries;
use report::{Figure, Machine, Report};

use crate::progress::Progress;

/// Arguments of `bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
    /// One JSON object a bench.
    #[arg(long, global = true)]
    json: bool,
    /// Where `peerloom` and `peerloom-coordinator` are. [default: beside this executable]
    #[arg(long, global = true, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where the processes keep their files; its disk is what is measured. [default: the system's
    /// directory for temporary files]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the files of all processes there.
    #[arg(long, global = true)]
    keep: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Two daemons, a direct link: latency at a steady rate, and pipelined batches.
    Direct(direct::DirectArgs),
    /// The coordinator takes durable mail from clients with pre-sealed envelopes.
    Accept(accept::AcceptArgs),
    /// A full mailbox is emptied: by a load client with batched receipts, and by a real node.
    Drain(drain::DrainArgs),
    /// Memory of idle connections.
    Idle(idle::IdleArgs),
    /// The coordinator from its start to ready, and its idle memory.
    Start(start::StartArgs),
    /// `peerloom status` through a warm daemon.
    Cli(cli::CliArgs),
    /// All of them with their defaults, or at a twentieth of them.
    All {
        /// A twentieth of every size: shows that all works, the figures mean nothing.
        #[arg(long)]
        small: bool,
    },
}

/// Where a bench plays.
pub(crate) struct Stage {
    pub(crate) binaries: Binaries,
    /// An empty directory of its own.
    pub(crate) dir: PathBuf,
    pub(crate) progress: Progress,
}

/// Runs what was asked for. Fails when a bench could not be run, not when a goal is missed: a figure
/// is a fact about a machine.
pub(crate) fn main(args: &BenchArgs) -> ExitCode {
    let benches = if let What::All { small } = args.what { all(small) } else { vec![args.what.clone()] };
    let mut code = ExitCode::SUCCESS;
    for what in benches {
        let reported = run(&what, args).and_then(|report| report.print(args.json));
        if let Err(error) = reported {
            report::complain(what.name(), &error, args.json);
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn all(small: bool) -> Vec<What> {
    let share = if small { 20 } else { 1 };
    vec![
        What::Start(start::StartArgs::share(share)),
        What::Cli(cli::CliArgs::share(share)),
        What::Accept(accept::AcceptArgs::share(share)),
        What::Drain(drain::DrainArgs::share(share)),
        What::Direct(direct::DirectArgs::share(share)),
        What::Idle(idle::IdleArgs::share(share)),
    ]
}

fn run(what: &What, args: &BenchArgs) -> anyhow::Result<Report> {
    let binaries = Binaries::find(args.bin_dir.as_deref())?;
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    // A node's socket path must fit 100 bytes, so the name is short.
    let temporary = tempfile::Builder::new().prefix("pb").tempdir_in(&parent);
    let temporary =
        temporary.with_context(|| format!("failed to make a directory in {}", parent.display()))?;
    let dir = temporary.path().to_owned();
    let stage = Stage { binaries, dir, progress: Progress::new(what.name()) };
    let machine = Machine::now();
    stage.progress.say("measuring the disk");
    let before = disk::measure(&stage.dir)?;
    let figures = what.figures(&stage);
    stage.progress.say("measuring the disk again");
    let disk = [before, disk::measure(&stage.dir)?];
    stage.progress.done();
    if args.keep {
        let kept = temporary.keep();
        report::note(&format!("files are in {}", kept.display()));
    }
    Ok(Report { bench: what.name(), figures: figures?, disk, machine, command: repeated() })
}

impl What {
    const fn name(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Accept(_) => "accept",
            Self::Drain(_) => "drain",
            Self::Idle(_) => "idle",
            Self::Start(_) => "start",
            Self::Cli(_) => "cli",
            Self::All { .. } => "all",
        }
    }

    fn figures(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Direct(args) => direct::run(stage, args),
            Self::Accept(args) => accept::run(stage, args),
            Self::Drain(args) => drain::run(stage, args),
            Self::Idle(args) => idle::run(stage, args),
            Self::Start(args) => start::run(stage, args),
            Self::Cli(args) => cli::run(stage, args),
            Self::All { .. } => unreachable!("`all` was taken apart"),
        }
    }
}

/// The command line as it was given.
fn repeated() -> String {
    let quoted = |word: String| if word.contains(' ') { format!("'{word}'") } else { word };
    std::env::args().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The wall clock.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs::default().plus(since)
}

/// Keys and ids of load clients: they guard nothing, but no two runs may share them.
pub(crate) fn entropy(purpose: &str) -> Entropy {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    Entropy::from_seed(sha256(format!("{purpose} {nanos} {}", std::process::id()).as_bytes()))
}

/// Longest wait for anything that a bench needs before it measures.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
