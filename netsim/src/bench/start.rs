//! The coordinator from its start until `/ready` says 200, and what it then weighs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;

use super::Stage;
use super::process::Coordinator;
use super::report::Figure;
use super::stats::{Samples, millis};

/// After this an idle process has settled.
const SETTLED: Duration = Duration::from_secs(1);

/// Arguments of `bench start`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StartArgs {
    /// Starts over an empty directory, and as many over one that has been used.
    #[arg(long, default_value_t = 20)]
    runs: usize,
}

impl StartArgs {
    pub(crate) fn share(share: usize) -> Self {
        Self { runs: (20 / share).max(2) }
    }
}

pub(crate) fn run(stage: &Stage, args: &StartArgs) -> anyhow::Result<Vec<Figure>> {
    let mut fresh = Vec::new();
    for run in 0..args.runs {
        stage.progress.at("first start", run, args.runs);
        let (took, coordinator) = start(stage, &format!("fresh{run}"))?;
        fresh.push(took);
        drop(coordinator);
    }
    let mut again = Vec::new();
    let mut resident = 0.0;
    for run in 0..args.runs {
        stage.progress.at("later start", run, args.runs);
        let (took, coordinator) = start(stage, "fresh0")?;
        again.push(took);
        if run + 1 == args.runs {
            std::thread::sleep(SETTLED);
            resident = coordinator.process.resident_mib()?;
        }
    }
    let (fresh, again) = (Samples::new(fresh), Samples::new(again));
    Ok(vec![
        Figure::at_most("start to ready, new data directory, median", millis(fresh.median()), "ms", 100.0),
        Figure::plain("start to ready, new data directory, max", millis(fresh.max()), "ms"),
        Figure::at_most("start to ready, kept data directory, median", millis(again.median()), "ms", 100.0),
        Figure::plain("start to ready, kept data directory, max", millis(again.max()), "ms"),
        Figure::at_most("idle memory", resident, "MiB", 30.0),
    ])
}

fn start(stage: &Stage, data: &str) -> anyhow::Result<(Duration, Coordinator)> {
    let began = Instant::now();
    let coordinator = Coordinator::start_with(&stage.binaries, &stage.dir.join(data), &[])?;
    let ready = coordinator.http()?.get("/ready")?;
    let took = began.elapsed();
    ensure!(ready.status == 200, "/ready says {}", ready.status);
    Ok((took, coordinator))
}
