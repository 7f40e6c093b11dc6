//! Figures beside their goals, for people and for programs.

use std::io::Write;

use serde::Serialize;
use serde_json::json;

use super::disk::Disk;

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(flatten)]
    pub(crate) goal: Option<Goal>,
}

/// What the figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Figure {
    /// A figure without a goal.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, goal: None }
    }

    pub(crate) fn at_most(name: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Self {
        Self { goal: Some(Goal::AtMost(goal)), ..Self::plain(name, value, unit) }
    }

    pub(crate) fn at_least(name: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Self {
        Self { goal: Some(Goal::AtLeast(goal)), ..Self::plain(name, value, unit) }
    }

    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtLeast(least) => self.value >= least,
            Goal::AtMost(most) => self.value <= most,
        })
    }

    fn line(&self) -> String {
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtLeast(goal)) => format!("goal at least {}", short(goal)),
            Some(Goal::AtMost(goal)) => format!("goal at most {}", short(goal)),
        };
        let met = match self.met() {
            None => "",
            Some(true) => " met",
            Some(false) => " MISSED",
        };
        format!("  {:<54} {:>10} {:<8} {goal}{met}", self.name, short(self.value), self.unit)
            .trim_end()
            .to_owned()
    }
}

/// Three significant digits, or whole numbers from a hundred on.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One bench's outcome.
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    pub(crate) figures: Vec<Figure>,
    /// Before and after: other work on the machine shows as a difference.
    pub(crate) disk: [Disk; 2],
    pub(crate) machine: Machine,
    pub(crate) command: String,
}

/// What else explains a figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Processes that wanted one in the minute before: beyond a few tenths, others are in the figures.
    pub(crate) load_before: f64,
}

impl Machine {
    /// As it is before a bench begins.
    pub(crate) fn now() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_before = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN);
        Self { cores, load_before }
    }
}

impl Report {
    /// To standard output.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", self.to_json())?;
        } else {
            writeln!(out, "{}", self.to_text())?;
        }
        out.flush()?;
        Ok(())
    }

    fn to_json(&self) -> serde_json::Value {
        let figure = |figure: &Figure| {
            let mut value = json!(figure);
            if let Some(met) = figure.met() {
                value["met"] = json!(met);
            }
            value
        };
        json!({
            "schema_version": 1,
            "bench": self.bench,
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "disk": { "before": self.disk[0], "after": self.disk[1] },
            "machine": self.machine,
            "build": build(),
            "command": self.command,
        })
    }

    fn to_text(&self) -> String {
        let mut lines = vec![format!("{} ({} build)", self.bench, build())];
        lines.extend(self.figures.iter().map(Figure::line));
        for (when, disk) in ["before", "after"].iter().zip(&self.disk) {
            let Disk { fdatasync_per_s, median_ms, p99_ms } = disk;
            lines.push(format!(
                "  disk {when}: {fdatasync_per_s:.0} fdatasync/s, median {median_ms:.2} ms, p99 {p99_ms:.2} ms"
            ));
        }
        let Machine { cores, load_before } = &self.machine;
        lines.push(format!("  machine: {cores} cores, load average {load_before:.2} before"));
        lines.push(format!("  again: {}", self.command));
        lines.join("\n")
    }
}

const fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// A bench that could not be run.
pub(crate) fn complain(bench: &str, error: &anyhow::Error, json: bool) {
    let text = format!("{error:#}");
    if json {
        note(
            &json!({ "schema_version": 1, "bench": bench, "error": { "code": "failed", "text": text } })
                .to_string(),
        );
    } else {
        note(&format!("error: bench {bench}: {text}"));
    }
}

/// To standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_very_value() {
        assert_eq!(Figure::at_most("p99", 5.0, "ms", 5.0).met(), Some(true));
        assert_eq!(Figure::at_most("p99", 5.01, "ms", 5.0).met(), Some(false));
        assert_eq!(Figure::at_least("rate", 28_000.0, "msg/s", 28_000.0).met(), Some(true));
        assert_eq!(Figure::at_least("rate", 27_999.0, "msg/s", 28_000.0).met(), Some(false));
        assert_eq!(Figure::plain("max", 9.0, "ms").met(), None);
    }

    #[test]
    fn a_missed_goal_stands_out_in_its_line() {
        let line = Figure::at_least("accepted", 20_000.0, "msg/s", 28_000.0).line();
        assert!(line.ends_with("goal at least 28000 MISSED"), "{line}");
    }

    #[test]
    fn programs_read_the_goal_beside_the_figure() {
        let disk = || Disk { fdatasync_per_s: 1.0, median_ms: 1.0, p99_ms: 1.0 };
        let figures = vec![Figure::at_most("rss", 25.0, "MiB", 30.0)];
        let json = Report {
            bench: "start",
            figures,
            disk: [disk(), disk()],
            machine: Machine { cores: 2, load_before: 0.1 },
            command: "netsim bench start".to_owned(),
        }
        .to_json();
        assert_eq!(json["figures"][0]["at_most"], 30.0);
        assert_eq!(json["figures"][0]["met"], true);
    }
}
