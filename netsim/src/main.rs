//! `netsim`: the world outside one process. So far the benches over real processes.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Peerloom from the outside: real processes, real sockets, a real disk.
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
}

fn main() -> ExitCode {
    let Command::Bench(args) = Cli::parse().command;
    bench::main(&args)
}
