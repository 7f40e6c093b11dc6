//! From a scenario to a report, and from a report back to the same run.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::check::no_plaintext_outside::compare;
use crate::mutant::Mutant;
use crate::outside::Contents;
use crate::progress::Pace;
use crate::scenario::Scenario;
use crate::world::{Options, Outcome, observed, run_paced};

/// A scenario's run, or its runs where it sweeps: the first that failed, else the last.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    /// What makes it happen again.
    pub(crate) options: Options,
    pub(crate) runs: u64,
    /// Whether it was looked at from outside too.
    from_outside: bool,
    /// Virtual time of all of them.
    pub(crate) virtual_ms: u64,
}

/// A report for programs.
#[derive(Serialize)]
struct ReportJson<'a> {
    #[serde(flatten)]
    verdict: &'a crate::verdict::Verdict,
    scenario: String,
    seed: String,
    crash_at: Option<u64>,
    runs: u64,
    ok: bool,
    violations: Vec<ViolationJson<'a>>,
    replay: Option<String>,
}

#[derive(Serialize)]
struct ViolationJson<'a> {
    invariant: &'a str,
    at_ms: Option<u128>,
    what: &'a str,
}

/// Runs a scenario. One that sweeps runs once for every commit of its host, until a run fails.
pub(crate) fn drive(scenario: &Scenario, seed: u64, crash_at: Option<u64>, mutant: Option<Mutant>) -> Report {
    let options = Options { seed, crash_at, mutant, at_least: Duration::ZERO };
    drive_paced(scenario, options, &mut Pace::silent())
}

/// The same before somebody's eyes. The runs of a sweep are not told to go on; if all of them together
/// pass less time than was asked for, one more does, without a crash.
pub(crate) fn drive_paced(scenario: &Scenario, options: Options, pace: &mut Pace) -> Report {
    if scenario.sweep.is_none() || options.crash_at.is_some() {
        return Report::once(run_paced(scenario, options, pace), options);
    }
    let brief = Options { at_least: Duration::ZERO, ..options };
    let mut report = Report::once(run_paced(scenario, brief, pace), brief);
    // The run without a crash says how many commits there are; its expectations are the others'.
    let commits = report.outcome.swept_commits;
    for commit in 1..=commits {
        if !report.failed() {
            let options = Options { crash_at: Some(commit), ..brief };
            report = report.followed_by(run_paced(scenario, options, pace), options);
        }
    }
    if !report.failed() && Duration::from_millis(report.virtual_ms) < options.at_least {
        report = report.followed_by(run_paced(scenario, options, pace), options);
    }
    report
}

impl Report {
    /// Of one run.
    pub(crate) fn once(outcome: Outcome, options: Options) -> Self {
        let virtual_ms = outcome.verdict.virtual_ms;
        Self { outcome, options, runs: 1, from_outside: false, virtual_ms }
    }

    /// The next run of a sweep takes its place.
    fn followed_by(self, outcome: Outcome, options: Options) -> Self {
        let next = Self::once(outcome, options);
        Self { runs: self.runs + next.runs, virtual_ms: self.virtual_ms + next.virtual_ms, ..next }
    }

    pub(crate) fn failed(&self) -> bool {
        !self.outcome.violations.is_empty()
    }

    /// Runs it twice more, with messages that say one thing and with messages that say another: what an
    /// outsider sees must be the same.
    pub(crate) fn look_from_outside(&mut self, scenario: &Scenario) {
        let look = |contents| observed(scenario, self.options, contents);
        let found = compare(&look(Contents::Ones), &look(Contents::Others));
        self.outcome.violations.extend(found);
        self.from_outside = true;
    }

    /// The one line that makes this run happen again.
    pub(crate) fn replay_line(&self, path: &Path) -> String {
        let crash = self.options.crash_at.map_or_else(String::new, |commit| format!(" --crash-at {commit}"));
        let mutant = planted(self.options);
        let taint = if self.from_outside { " --taint" } else { "" };
        let at_least = match self.options.at_least.as_secs() {
            0 => String::new(),
            seconds => format!(" --at-least {seconds}s"),
        };
        let (path, seed) = (path.display(), self.options.seed);
        format!("replay: netsim run {path} --seed {seed:#x}{crash}{at_least}{mutant}{taint}")
    }

    /// For people.
    pub(crate) fn text(&self, path: &Path, about: &str) -> String {
        let mut text = format!("{}: {about}\n{}\n", path.display(), self.outcome.verdict);
        if self.runs > 1 {
            text.push_str(&format!("sweep      {} runs, the figures are the last one's\n", self.runs));
        }
        for violation in self.outcome.violations.iter().take(SHOWN_VIOLATIONS) {
            text.push_str(&format!("FAIL {violation}\n"));
        }
        let more = self.outcome.violations.len().saturating_sub(SHOWN_VIOLATIONS);
        if more > 0 {
            text.push_str(&format!("FAIL and {more} more\n"));
        }
        match self.failed() {
            true => text.push_str(&self.replay_line(path)),
            false => text.push_str("ok"),
        }
        text
    }

    /// Everything that happened, as JSON lines.
    pub(crate) fn write_history(&self, scenario: &Path, to: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(to)?);
        let end = Duration::from_millis(self.outcome.verdict.virtual_ms);
        self.outcome.history.write(scenario, self.options, end, &mut out)?;
        out.flush()
    }

    /// For programs: one object.
    pub(crate) fn json(&self, path: &Path) -> serde_json::Result<String> {
        let violations = self.outcome.violations.iter().map(|violation| ViolationJson {
            invariant: violation.invariant,
            at_ms: violation.at.map(|at| at.as_millis()),
            what: &violation.what,
        });
        serde_json::to_string(&ReportJson {
            verdict: &self.outcome.verdict,
            scenario: path.display().to_string(),
            seed: format!("{:#x}", self.options.seed),
            crash_at: self.options.crash_at,
            runs: self.runs,
            ok: !self.failed(),
            violations: violations.collect(),
            replay: self.failed().then(|| self.replay_line(path)),
        })
    }
}

#[cfg(feature = "mutants")]
fn planted(options: Options) -> String {
    options.mutant.map_or_else(String::new, |mutant| format!(" --mutant {}", mutant.word()))
}

#[cfg(not(feature = "mutants"))]
fn planted(_: Options) -> String {
    String::new()
}

/// Violations a report spells out; one cause often has hundreds.
const SHOWN_VIOLATIONS: usize = 8;

#[cfg(test)]
mod tests;
