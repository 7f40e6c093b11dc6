//! The lab: the real programs in network namespaces, behind real NATs, on an internet whose weather
//! is made here.
//!
//! 1. [`enter`]     this program again, in namespaces of its own; the machine's network is not touched
//! 2. [`namespace`] one for each host and router; [`site`] gives them addresses, [`router`] NATs
//! 3. [`wire`]      what lies between the sites; [`capture`] keeps what it saw
//! 4. [`daemon`]    the programs; [`timeline`] what they told; [`internet`] all of it standing
//! 5. [`check`]     can this machine do it, and is the lab what it says, by [`probe`]s
//! 6. [`talk`]      one host talks to another; [`matrix`] every NAT to every NAT, [`cuts`] and what an
//!    [`interruption`] does to them
//! 7. [`run`]       a scenario of the simulator: [`script`] says what it means here, [`play`] does it
//! 8. [`keep`]      evidence, when something failed

mod capture;
mod check;
mod cuts;
mod daemon;
mod enter;
mod internet;
mod interruption;
mod keep;
mod matrix;
mod namespace;
mod play;
mod probe;
mod router;
mod run;
mod script;
mod site;
mod talk;
mod timeline;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::bench::process::Binaries;
use crate::simulate::USAGE;

/// Arguments of `lab`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    what: What,
    /// One JSON object for programs.
    #[arg(long, global = true)]
    json: bool,
    /// Where `peerloom` and `peerloom-coordinator` are. [default: beside this executable]
    #[arg(long, global = true, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Set for this program by itself, once it is in namespaces of its own.
    #[arg(long = enter::FLAG, global = true, hide = true)]
    inside: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Says whether this machine can run the lab, what is missing and how to install it; then measures
    /// the wire and asks every NAT what it is.
    Check,
    /// Every kind of NAT talks to every kind: by which path, how soon, and whether all arrived.
    Matrix(matrix::MatrixArgs),
    /// Two hosts talk at a steady rate and are interrupted again and again: what was lost, how long
    /// messages stalled, how soon they went directly again.
    #[command(
        after_help = "Examples:\n  netsim lab cuts --count 200 --rate 50\n  netsim lab cuts --what rebind --nat port_restricted,symmetric --count 20"
    )]
    Cuts(cuts::CutsArgs),
    /// Plays a scenario with real daemons and in virtual time: every pair of nodes must come to talk the
    /// same way in both, and everything must arrive once and in order.
    #[command(after_help = RUN_HELP)]
    Run(run::RunArgs),
}

const RUN_HELP: &str = "\
What a scenario may say here: NATs by kind; uplink_ms and direct_ms; any workload without life_s; the faults
partition (both ways), stop, kill, nat_reboot, nat_rebind and renumber. Anything else is refused by its name.
Expectations are the simulator's. A pair that must guess ports may be lucky in one of the two only.

Examples:
  netsim lab run netsim/scenarios/lab/cuts_and_moves.toml
  netsim lab run netsim/scenarios/lab/no_way_through.toml --seed 7 --json";

/// Runs what was asked for. Fails when it could not be run, or when a message was lost, doubled or
/// reordered.
pub(crate) fn main(args: &LabArgs) -> ExitCode {
    if let What::Run(run) = &args.what
        && let Err(error) = run.script()
    {
        eprintln!("{:#}", anyhow::Error::new(error));
        return ExitCode::from(USAGE);
    }
    let ended = if args.inside { play(args) } else { admit(args) };
    ended.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Outside: into namespaces, if this machine lets us.
fn admit(args: &LabArgs) -> anyhow::Result<ExitCode> {
    let findings = check::outside();
    if findings.iter().all(check::Finding::is_ok) {
        return enter::again();
    }
    match args.what {
        What::Check => check::print(&findings, args.json)?,
        What::Matrix(_) | What::Cuts(_) | What::Run(_) => {
            bail!("this machine cannot run the lab; `netsim lab check` says what is missing")
        }
    };
    Ok(ExitCode::FAILURE)
}

fn play(args: &LabArgs) -> anyhow::Result<ExitCode> {
    enter::settle_in()?;
    let binaries = || Binaries::find(args.bin_dir.as_deref());
    let good = match &args.what {
        What::Check => {
            let findings = check::outside().into_iter().chain(check::inside()?).collect::<Vec<_>>();
            check::print(&findings, args.json)?
        }
        What::Matrix(matrix) => matrix::run(matrix, &binaries()?, args.json)?,
        What::Cuts(cuts) => cuts::run(cuts, &binaries()?, args.json)?,
        What::Run(run) => run::run(run, &binaries()?, args.json)?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
