//! The world outside one process.
//!
//! `run`, `replay` and `swarm` are the simulator: the production machines in virtual time, with faults,
//! from one seed. `scenario` says what shall happen, `world` lets it, `check` judges what was seen.
//! `bench` measures real processes, `lab` puts them behind real NATs.

mod bench;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod lab;
// What shall happen.
mod fault;
mod mutant;
pub mod operations;
mod scenario;
mod workload;
// The world it happens in.
mod chance;
mod disk;
mod evil;
mod flow;
mod forge;
mod host;
mod hostile;
mod internet;
mod joiner;
mod link;
mod mesh;
mod nat;
mod network;
mod queue;
mod world;
// What was seen, and what it means.
mod check;
mod frame;
mod graph;
mod history;
mod model;
mod outside;
mod progress;
mod replay;
mod scale;
mod shrink;
mod simulate;
mod swarm;
mod trace;
mod verdict;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Peerloom from the outside: its machines in virtual time, and real processes in a lab and on a bench.
#[derive(Parser)]
#[command(name = "netsim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a bench and prints its figures beside the goals and the disk's own fdatasync rate.
    Bench(bench::BenchArgs),
    /// Real daemons behind real NATs, in network namespaces of this machine.
    #[cfg(all(feature = "lab", target_os = "linux"))]
    Lab(lab::LabArgs),
    /// Runs a scenario in virtual time and says what it came to.
    Run(simulate::RunArgs),
    /// Runs a scenario twice, compares the two, and shows the last happenings.
    Replay(simulate::RunArgs),
    /// Draws a part of a run as a Mermaid sequence diagram.
    Graph(graph::GraphArgs),
    /// Prints what a fuzzer found as a scenario.
    Operations(operations::OperationsArgs),
    /// Runs a chat among growing numbers of nodes and prints what each world costs.
    Scale(scale::ScaleArgs),
    /// Makes a run that fails smaller while it fails the same way, and writes it as a scenario.
    Shrink(shrink::ShrinkArgs),
    /// Runs random scenarios with random seeds, on all cores, until one fails or the time is over.
    Swarm(swarm::SwarmArgs),
}

/// The program's whole run, from its command line to its exit code.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::main(&args),
        #[cfg(all(feature = "lab", target_os = "linux"))]
        Command::Lab(args) => lab::main(&args),
        Command::Run(args) => simulate::run(&args),
        Command::Replay(args) => simulate::replay(&args),
        Command::Graph(args) => graph::main(&args),
        Command::Operations(args) => operations::main(&args),
        Command::Scale(args) => scale::main(&args),
        Command::Shrink(args) => shrink::main(&args),
        Command::Swarm(args) => swarm::main(&args),
    }
}
