//! `netsim graph`: a part of a run as a Mermaid sequence diagram. Participants are the hosts that
//! something happened to; arrows are frames by sort and size, at the instant of their arrival; notes are
//! commits, deaths, faults, and what programs were told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use peerloom_proto::ReceiptStatus;

use crate::mutant::Mutant;
use crate::network::Place;
use crate::replay::drive;
use crate::simulate::{USAGE, parse_seed, say, with_scenario};
use crate::watch::{Lens, Named, Seen, Sight};
use crate::world::watched;

/// `netsim graph`.
#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    /// The scenario's TOML file.
    scenario: PathBuf,
    /// Decides everything that is left to chance; decimal or 0x.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    seed: u64,
    /// Crash the swept host at this commit; without it the first run of a sweep that fails is drawn.
    #[arg(long)]
    crash_at: Option<u64>,
    /// How many happenings to draw at most.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=HAPPENINGS_MAX), default_value = "80")]
    last: u64,
    /// Draw around this instant, in seconds, rather than the end of the run; a verdict names instants.
    #[arg(long, value_name = "SECONDS", value_parser = parse_instant, conflicts_with = "message")]
    around: Option<Duration>,
    /// Draw what concerns this message, by its number in the verdict.
    #[arg(long, value_name = "NUMBER")]
    message: Option<usize>,
    /// Plant a fault in the hosts, to see what it does.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<Mutant>,
}

/// More than a page shows; a diagram beyond it is refused by most viewers.
const HAPPENINGS_MAX: u64 = 5_000;

impl GraphArgs {
    #[cfg(feature = "mutants")]
    fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    #[cfg(not(feature = "mutants"))]
    fn mutant(&self) -> Option<Mutant> {
        None
    }
}

/// Prints the diagram. A run that fails is drawn like any other.
pub(crate) fn main(args: &GraphArgs) -> ExitCode {
    with_scenario(&args.scenario, |scenario| {
        let report = drive(scenario, args.seed, args.crash_at, args.mutant());
        let messages = report.outcome.history.messages.len();
        if let Some(message) = args.message.filter(|message| *message >= messages) {
            say(&format!("there is no message {message}: the run has {messages}, from 0 on"));
            return ExitCode::from(USAGE);
        }
        let most = usize::try_from(args.last).expect("it is at most 5000");
        let lens = Lens { most, around: args.around, message: args.message };
        let (_, seen) = watched(scenario, report.options, lens);
        say(&format!("%% {}", report.replay_line(&args.scenario)));
        for violation in report.outcome.violations.iter().take(HEADLINES) {
            say(&format!("%% FAIL {violation}"));
        }
        say(Diagram(&seen).to_string().trim_end());
        ExitCode::SUCCESS
    })
}

/// Violations above a diagram.
const HEADLINES: usize = 5;

/// A Mermaid sequence diagram.
pub(crate) struct Diagram<'a>(pub(crate) &'a [Seen]);

impl fmt::Display for Diagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sequenceDiagram")?;
        // Places of nodes come before the coordinator's; it stands in the middle of most that is said.
        let hosts: BTreeSet<Place> = self.0.iter().flat_map(|seen| hosts_of(&seen.sight)).collect();
        for host in hosts.iter().rev() {
            writeln!(
                f,
                "    participant {} as {}",
                short(*host),
                host.to_string().trim_start_matches("the ")
            )?;
        }
        for Seen { at, sight } in self.0 {
            let at = format!("{:.3} s", at.as_secs_f64());
            match sight {
                Sight::Passed { from, to, word, bytes, named, heard } => {
                    let arrow = if *heard { "->>" } else { "-x" };
                    let size = if *bytes > 0 { format!(" {bytes} B") } else { String::new() };
                    let (from, to, named) = (short(*from), short(*to), names(named));
                    writeln!(f, "    {from}{arrow}{to}: {at} {word}{size}{named}")?;
                }
                Sight::Commit { host, writes, messages } => {
                    let writes: Vec<String> =
                        writes.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                    let named: Vec<Named> = messages.iter().map(|message| (*message, None)).collect();
                    let (writes, named) = (writes.join(", "), names(&named));
                    writeln!(f, "    Note over {}: {at} commit of {writes}{named}", short(*host))?;
                }
                Sight::Note { hosts: [host, other], text, message: _ } => {
                    let over = if host == other {
                        short(*host)
                    } else {
                        format!("{},{}", short(*host), short(*other))
                    };
                    // Both would end the text early.
                    let text = text.replace([';', '#'], ",");
                    writeln!(f, "    Note over {over}: {at} {text}")?;
                }
            }
        }
        Ok(())
    }
}

fn hosts_of(sight: &Sight) -> [Place; 2] {
    match sight {
        Sight::Passed { from, to, .. } => [*from, *to],
        Sight::Commit { host, .. } => [*host; 2],
        Sight::Note { hosts, .. } => *hosts,
    }
}

fn short(host: Place) -> String {
    match host {
        Place::Node(node) => format!("N{node}"),
        Place::Coordinator => "C".to_owned(),
    }
}

/// Messages one line names.
const NAMES_MAX: usize = 4;

fn names(named: &[Named]) -> String {
    let name = |(message, status): &Named| match status.map(status_word) {
        Some(word) => format!("{message} {word}"),
        None => message.to_string(),
    };
    let shown: Vec<String> = named.iter().take(NAMES_MAX).map(name).collect();
    let more = named.len().saturating_sub(NAMES_MAX);
    match (shown.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(", message {}", shown.join(", ")),
        (false, more) => format!(", message {} and {more} more", shown.join(", ")),
    }
}

fn status_word(status: ReceiptStatus) -> &'static str {
    match status {
        ReceiptStatus::Stored => "stored",
        ReceiptStatus::Surfaced => "surfaced",
        ReceiptStatus::Rejected => "rejected",
        ReceiptStatus::Retry => "retry",
    }
}

fn parse_instant(text: &str) -> Result<Duration, String> {
    let seconds = text.trim_end_matches(" s").parse().ok();
    let instant = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    instant.ok_or_else(|| "an instant is a number of seconds, as 41.2".to_owned())
}

#[cfg(test)]
mod tests;
