//! The simulator's verbs over one scenario: `run` and `replay`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::mutant::Mutant;
use crate::progress::Pace;
use crate::replay::{Report, drive_paced};
use crate::scenario::{Scenario, ScenarioError};
use crate::world::Options;

/// `netsim run` and `netsim replay`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The scenario's TOML file.
    scenario: PathBuf,
    /// Decides everything that is left to chance; decimal or 0x.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    seed: u64,
    /// Crash the swept host at this commit only.
    #[arg(long)]
    crash_at: Option<u64>,
    /// Go on for so much virtual time, though nothing may happen any more: 600s, 10m. A sweep's runs do
    /// not.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    at_least: Duration,
    /// One object for programs.
    #[arg(long)]
    json: bool,
    /// Write everything that happened to this file, one JSON object a line; of a sweep the run that is
    /// reported.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Run it with two kinds of messages besides, and compare all that an outsider sees of these runs.
    #[arg(long)]
    taint: bool,
    /// Plant a fault in the hosts, to see a checker catch it.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<Mutant>,
}

/// Runs a scenario once and says what it came to.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    with_scenario(&args.scenario, |scenario| {
        let report = report(args, scenario, "run");
        print_report(args, scenario, &report)
    })
}

fn report(args: &RunArgs, scenario: &Scenario, what: &'static str) -> Report {
    let mut report = drive_paced(scenario, args.options(), &mut Pace::new(what));
    if args.taint {
        report.look_from_outside(scenario);
    }
    report
}

/// Runs a scenario twice, compares the traces, and shows the last happenings.
pub(crate) fn replay(args: &RunArgs) -> ExitCode {
    with_scenario(&args.scenario, |scenario| {
        let report = report(args, scenario, "first run");
        let again = drive_paced(scenario, report.options, &mut Pace::new("second run"));
        let traces = [&report, &again].map(|report| report.outcome.verdict.trace.clone());
        if traces[0] != traces[1] {
            say(&format!("FAIL one seed, two runs: traces {} and {}", traces[0], traces[1]));
            return ExitCode::FAILURE;
        }
        if !args.json {
            report.outcome.last.iter().for_each(|line| say(line));
        }
        print_report(args, scenario, &report)
    })
}

/// What a wrong invocation exits with.
pub(crate) const USAGE: u8 = 2;

impl RunArgs {
    fn options(&self) -> Options {
        Options { seed: self.seed, crash_at: self.crash_at, mutant: self.mutant(), at_least: self.at_least }
    }

    #[cfg(feature = "mutants")]
    fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    #[cfg(not(feature = "mutants"))]
    fn mutant(&self) -> Option<Mutant> {
        None
    }
}

pub(crate) fn with_scenario(path: &Path, act: impl FnOnce(&Scenario) -> ExitCode) -> ExitCode {
    match Scenario::read(path) {
        Ok(scenario) => act(&scenario),
        Err(error) => refuse(&error),
    }
}

pub(crate) fn refuse(error: &ScenarioError) -> ExitCode {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    say(text.trim_end());
    ExitCode::from(USAGE)
}

fn print_report(args: &RunArgs, scenario: &Scenario, report: &Report) -> ExitCode {
    if let Some(path) = &args.history
        && let Err(error) = report.write_history(&args.scenario, path)
    {
        say(&format!("failed to write the history to {}: {error}", path.display()));
        return ExitCode::from(USAGE);
    }
    if args.json {
        match report.json(&args.scenario) {
            Ok(json) => say(&json),
            Err(error) => say(&error.to_string()),
        }
    } else {
        say(&report.text(&args.scenario, &scenario.about));
    }
    if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints a line; who closed the pipe needs no more of them.
pub(crate) fn say(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::io::stderr().flush().unwrap_or_default();
    }
}

/// A file itself, or the scenarios of a directory by name.
pub(crate) fn files_in(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    files
}

pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "a seed is a number of 64 bits, decimal or 0x".to_owned())
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: Option<u64> = text[..text.len() - unit.len()].parse().ok();
    let scale = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    match (number, scale) {
        (Some(number), Some(scale)) => Ok(Duration::from_secs(number * scale)),
        (None, _) | (_, None) => Err("a duration is a number with s, m or h".to_owned()),
    }
}
