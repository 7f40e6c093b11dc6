//! `netsim shrink`: a failing run made smaller while the same invariant still fails.
//!
//! 1. [`Candidate::draw`]   every drawn fault and message becomes one with a fixed instant and hosts
//! 2. [`Shrink::fewer`]     faults, then messages, by delta debugging; then the nodes that nothing names
//! 3. [`Shrink::simpler`]   shorter faults, an earlier end, defaults where the scenario had none
//!
//! Nothing is believed that was not run: a step that does not fail the same way is undone.

mod candidate;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use self::candidate::Candidate;
use crate::check::Violation;
use crate::mutant::Mutant;
use crate::replay::{Report, drive};
use crate::scenario::Scenario;
use crate::simulate::{USAGE, parse_duration, parse_seed, say, with_scenario};
use crate::world::{Options, run};

/// `netsim shrink`.
#[derive(Args, Debug)]
pub(crate) struct ShrinkArgs {
    /// The scenario's TOML file.
    scenario: PathBuf,
    /// The seed that fails; decimal or 0x.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    seed: u64,
    /// The commit of the swept host at which it fails; the first that does otherwise.
    #[arg(long)]
    crash_at: Option<u64>,
    /// Where the smaller scenario goes.
    #[arg(long, value_name = "FILE", default_value = "shrunk.toml")]
    out: PathBuf,
    /// How long to go on at most: 60s, 10m, 8h. What is found by then is written.
    #[arg(long = "for", value_parser = parse_duration, default_value = "5m")]
    duration: Duration,
    /// Plant a fault in the hosts, to see it shrink.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<Mutant>,
}

impl ShrinkArgs {
    #[cfg(feature = "mutants")]
    fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    #[cfg(not(feature = "mutants"))]
    fn mutant(&self) -> Option<Mutant> {
        None
    }
}

/// Why there is nothing smaller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShrinkError {
    #[error("there is nothing to shrink: the run holds")]
    Holds,
    #[error("an expectation is about the whole scenario: any part of it fails it too")]
    OnlyExpectation,
    #[error("with every draw written down {0} holds: the failure hangs on what a file cannot say")]
    Unwritable(&'static str),
    #[error("failed to read the scenario as a table")]
    Syntax(#[from] toml::de::Error),
}

/// How large a failing run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) faults: usize,
    pub(crate) messages: usize,
    pub(crate) nodes: usize,
    pub(crate) events: u64,
}

/// A failing run made smaller.
#[derive(Debug)]
pub(crate) struct Shrunk {
    pub(crate) text: String,
    pub(crate) before: Size,
    pub(crate) after: Size,
    pub(crate) tries: u64,
    /// The run of `text`.
    pub(crate) report: Report,
}

/// `netsim shrink`.
pub(crate) fn main(args: &ShrinkArgs) -> ExitCode {
    with_scenario(&args.scenario, |scenario| {
        let text = match std::fs::read_to_string(&args.scenario) {
            Ok(text) => text,
            Err(error) => return refuse(&format!("failed to read {}: {error}", args.scenario.display())),
        };
        let report = drive(scenario, args.seed, args.crash_at, args.mutant());
        let began = Instant::now();
        let until = began + args.duration;
        let name = args.scenario.display().to_string();
        match shrink(&name, &text, scenario, &report, &|| Instant::now() < until) {
            Ok(shrunk) => match std::fs::write(&args.out, &shrunk.text) {
                Ok(()) => {
                    say(&shrunk.told(&args.out, began.elapsed()));
                    ExitCode::SUCCESS
                }
                Err(error) => refuse(&format!("failed to write {}: {error}", args.out.display())),
            },
            Err(error) => refuse(&error.to_string()),
        }
    })
}

fn refuse(why: &str) -> ExitCode {
    say(why);
    ExitCode::from(USAGE)
}

/// Makes the run of `report` smaller for as long as `go_on`. `name` is the scenario's, `text` its file.
pub(crate) fn shrink(
    name: &str,
    text: &str,
    scenario: &Scenario,
    report: &Report,
    go_on: &dyn Fn() -> bool,
) -> Result<Shrunk, ShrinkError> {
    let violations = &report.outcome.violations;
    let judged = violations.iter().find(|violation| violation.invariant != "expect");
    let invariant = match (judged, violations.first()) {
        (Some(violation), _) => violation.invariant,
        (None, Some(_)) => return Err(ShrinkError::OnlyExpectation),
        (None, None) => return Err(ShrinkError::Holds),
    };
    let Options { seed, crash_at: _, mutant, at_least } = report.options;
    let best = Candidate::draw(text, scenario, seed, report.outcome.swept_at)?;
    let options = Options { seed, crash_at: None, mutant, at_least };
    let mut it = Shrink { options, invariant, best, go_on, tries: 0 };
    it.best.set_about(&format!("Shrunk from {name}, seed {seed:#x}: {invariant} does not hold"));
    let Some(first) = it.fails(&it.best.clone()) else { return Err(ShrinkError::Unwritable(invariant)) };
    let before = it.size(&first);
    loop {
        let size = (it.best.faults.len(), it.best.messages.len(), it.best.nodes());
        it.fewer();
        it.simpler();
        if size == (it.best.faults.len(), it.best.messages.len(), it.best.nodes()) {
            break;
        }
    }
    let report = it.run(&it.best).ok_or(ShrinkError::Unwritable(invariant))?;
    Ok(Shrunk { text: it.best.text(), before, after: it.size(&report), tries: it.tries, report })
}

struct Shrink<'a> {
    options: Options,
    invariant: &'static str,
    /// The smallest that failed.
    best: Candidate,
    go_on: &'a dyn Fn() -> bool,
    tries: u64,
}

impl Shrink<'_> {
    /// Leaves out faults, messages and nodes.
    fn fewer(&mut self) {
        let faults =
            least(self.best.faults.clone(), |faults| self.fails(&self.best.with_faults(faults)).is_some());
        self.best = self.best.with_faults(&faults);
        let messages = least(self.best.messages.clone(), |messages| {
            self.fails(&self.best.with_messages(messages)).is_some()
        });
        self.best = self.best.with_messages(&messages);
        for keep_admin in [true, false] {
            let fewer = self.best.fewer_nodes(keep_admin);
            if fewer.nodes() < self.best.nodes() {
                self.keeps(fewer);
            }
        }
    }

    /// Shortens, and takes defaults.
    fn simpler(&mut self) {
        self.keeps(self.best.shorter());
        self.keeps(self.best.earlier().shorter());
        for fault in 0..self.best.faults.len() {
            while let Some(shorter) = self.best.half_as_long(fault)
                && self.keeps(shorter)
            {}
        }
        // Each found field by field: what is kept changes what is left to try.
        let mut skipped = 0;
        while let Some(plainer) = self.best.plainer().into_iter().nth(skipped) {
            skipped += usize::from(!self.keeps(plainer));
        }
    }

    /// Takes a candidate that still fails.
    fn keeps(&mut self, candidate: Candidate) -> bool {
        let fails = self.fails(&candidate).is_some();
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn fails(&mut self, candidate: &Candidate) -> Option<Report> {
        if !(self.go_on)() {
            return None;
        }
        self.tries += 1;
        if std::io::stderr().is_terminal() {
            let (faults, messages) = (candidate.faults.len(), candidate.messages.len());
            eprint!("\r{} tries: {faults} faults, {messages} messages   ", self.tries);
        }
        self.run(candidate)
    }

    fn run(&self, candidate: &Candidate) -> Option<Report> {
        let scenario = candidate.scenario().ok()?;
        let outcome = run(&scenario, self.options);
        let same = |violation: &Violation| violation.invariant == self.invariant;
        let fails = outcome.violations.iter().any(same);
        fails.then_some(Report::once(outcome, self.options))
    }

    fn size(&self, report: &Report) -> Size {
        let faults = report.outcome.verdict.faults.values().sum::<u64>();
        Size {
            faults: usize::try_from(faults).expect("a scenario's faults fit a usize"),
            messages: report.outcome.history.messages.len(),
            nodes: report.outcome.history.members.len(),
            events: report.outcome.verdict.events,
        }
    }
}

/// Delta debugging (Zeller's ddmin): the fewest items, none of which can be left out, that still fail.
fn least<T: Clone>(mut items: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut parts = 2;
    while items.len() >= 2 {
        let size = items.len().div_ceil(parts);
        let rest = (0..items.len()).step_by(size).find_map(|from| {
            let part = from..(from + size).min(items.len());
            let rest: Vec<T> = [&items[..part.start], &items[part.end..]].concat();
            fails(&rest).then_some(rest)
        });
        match rest {
            Some(rest) => {
                items = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(items.len()),
        }
    }
    items
}

impl Shrunk {
    /// For people.
    fn told(&self, out: &Path, took: Duration) -> String {
        let (before, after) = (self.before, self.after);
        format!(
            "{}\nshrunk     {} faults to {}, {} messages to {}, {} nodes to {}, {} events to {}; {} runs in {} s",
            self.report.text(out, "the smaller scenario"),
            before.faults,
            after.faults,
            before.messages,
            after.messages,
            before.nodes,
            after.nodes,
            before.events,
            after.events,
            self.tries,
            took.as_secs(),
        )
    }
}

#[cfg(test)]
mod tests;
