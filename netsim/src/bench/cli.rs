//! `peerloom status` through a warm daemon: a process, a call over the socket, an answer.

use std::process::Stdio;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;

use super::Stage;
use super::process::{Coordinator, Node};
use super::report::Figure;
use super::stats::{Samples, millis};

/// Arguments of `bench cli`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CliArgs {
    /// Calls.
    #[arg(long, default_value_t = 50)]
    runs: usize,
}

impl CliArgs {
    pub(crate) fn share(share: usize) -> Self {
        Self { runs: (50 / share).max(3) }
    }
}

pub(crate) fn run(stage: &Stage, args: &CliArgs) -> anyhow::Result<Vec<Figure>> {
    let coordinator = Coordinator::start(&stage.binaries, &stage.dir.join("c"))?;
    let mut node = Node::at(&stage.binaries, stage.dir.join("a"))?;
    node.init(&coordinator.origin, "alice")?;
    node.up()?;
    let mut took = Vec::new();
    for run in 0..args.runs {
        stage.progress.at("call", run, args.runs);
        let mut command = node.command();
        command.arg("status").stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let status = command.status()?;
        took.push(began.elapsed());
        ensure!(status.success(), "peerloom status failed: {status}");
    }
    let took = Samples::new(took);
    Ok(vec![
        Figure::at_most("peerloom status, median", millis(took.median()), "ms", 20.0),
        Figure::plain("peerloom status, p95", millis(took.percentile(95)), "ms"),
        Figure::plain("daemon's idle memory", node.resident_mib()?, "MiB"),
    ])
}
