//! Bytes as a scenario, for a fuzzer that looks for new ways through the machines: messages and faults, one
//! after the other, of which any order and any timing must hold.
//!
//! The first byte is the topology; then four bytes an operation: what, after which pause, who, and how.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use toml::{Table, Value};

use crate::replay::drive;
use crate::scenario::Scenario;
use crate::simulate::say;

/// What `netsim operations` is told.
#[derive(Args)]
pub(crate) struct OperationsArgs {
    /// A file that the fuzzer found or keeps
    file: PathBuf,
}

/// Prints the operations of a file as a scenario.
pub(crate) fn main(args: &OperationsArgs) -> ExitCode {
    match std::fs::read(&args.file) {
        Ok(bytes) => {
            say(&scenario_text(&bytes));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("failed to read {}: {error}", args.file.display()));
            ExitCode::FAILURE
        }
    }
}

/// Runs the operations that `bytes` stand for, in virtual time and with one fixed seed.
///
/// # Panics
/// Where an invariant does not hold, with the verdict and the scenario.
pub fn run(bytes: &[u8]) {
    let text = scenario_text(bytes);
    let scenario = Scenario::parse("operations.toml", &text);
    let scenario = scenario.unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let report = drive(&scenario, SEED, None, None);
    if report.failed() {
        let path = PathBuf::from("operations.toml");
        panic!("{text}\n{}", report.text(&path, &scenario.about));
    }
}

/// The scenario of `bytes`, as a file.
fn scenario_text(bytes: &[u8]) -> String {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut script = Script { nodes: 2 + i64::from(first % 4), ..Script::default() };
    for operation in rest.as_chunks().0.iter().take(OPERATIONS_MAX) {
        script.take(*operation);
    }
    script.text(i64::from(first / 4 % 3) * 50)
}

/// What the operations so far come to.
#[derive(Default)]
struct Script {
    nodes: i64,
    now_ms: u32,
    messages: Vec<Value>,
    faults: Vec<Value>,
}

impl Script {
    fn take(&mut self, [what, pause, who, how]: [u8; 4]) {
        self.now_ms += u32::from(pause) * PAUSE_MS;
        let (node, other) = (i64::from(who) % self.nodes, i64::from(how) % (self.nodes - 1));
        let other = if other < node { other } else { other + 1 };
        let host: Value = if who & 0x80 == 0 { node.into() } else { "coordinator".into() };
        let lasts = f64::from(how % 64) / 4.0;
        let mut fault = |kind: &str, fields: &[(&str, Value)]| {
            let when = Table::from_iter([("at_s".to_owned(), seconds(self.now_ms))]);
            let mut table =
                Table::from_iter([("kind".to_owned(), kind.into()), ("when".to_owned(), when.into())]);
            table.extend(fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())));
            self.faults.push(table.into());
        };
        match what % 16 {
            0 => fault("stop", &[("who", node.into()), ("for_s", lasts.into())]),
            1 => fault("kill", &[("who", host), ("for_s", lasts.into())]),
            2 => {
                let moment = ["before", "during", "after"][usize::from(how / 64) % 3];
                let fields = [("who", host), ("moment", moment.into()), ("for_s", lasts.into())];
                fault("crash_at_commit", &fields);
            }
            3 => fault("cut_uplink", &[("who", node.into())]),
            4 => fault("cut_links", &[]),
            5 => {
                let direction = if how & 0x40 == 0 { "both" } else { "one_way" };
                let to: Value = if who & 0x80 == 0 { "coordinator".into() } else { other.into() };
                let fields = [("from", node.into()), ("to", to), ("direction", direction.into())];
                fault("partition", &[&fields[..], &[("for_s", lasts.into())]].concat());
            }
            6 => fault("disk_full", &[("who", host), ("for_s", lasts.into())]),
            7 => {
                let days = if how & 0x80 == 0 { 1.0 } else { -1.0 } * f64::from(how / 2 % 32);
                fault("clock_jump", &[("who", host), ("days", days.into()), ("for_s", lasts.into())]);
            }
            8 => {
                let deed = ["withhold", "replay", "reorder"][usize::from(how / 64) % 3];
                let sort = SORTS[usize::from(who / 16) % SORTS.len()];
                let fields = [("do", deed.into()), ("of", vec![sort].into()), ("for_s", lasts.into())];
                fault("evil", &[&fields[..], &[("towards", vec![node].into())]].concat());
            }
            9 if who & 0x80 == 0 => fault("no_direct", &[("for_s", lasts.into())]),
            // The admin stays, or there would be nobody to revoke.
            9 => fault(
                "revoke",
                &[("by", 0.into()), ("target", (1 + i64::from(how) % (self.nodes - 1)).into())],
            ),
            _ => {
                let fields = [("at_s", seconds(self.now_ms)), ("from", node.into()), ("to", other.into())];
                let fields = fields.into_iter().map(|(field, value)| (field.to_owned(), value));
                self.messages.push(Table::from_iter(fields).into());
            }
        }
    }

    fn text(self, direct_percent: i64) -> String {
        let table = |fields: Vec<(&str, Value)>| {
            Table::from_iter(fields.into_iter().map(|(field, value)| (field.to_owned(), value)))
        };
        let topology = vec![("nodes", self.nodes.into()), ("direct_percent", direct_percent.into())];
        let mut workload = Vec::new();
        if !self.messages.is_empty() {
            workload.push(("list", self.messages.into()));
        }
        let mut whole = vec![
            ("about", "Operations of a fuzzer: whatever happens, every invariant holds".into()),
            ("duration_s", seconds(self.now_ms + 1_000)),
            ("settle_s", SETTLE_S.into()),
            ("topology", table(topology).into()),
            ("workload", table(workload).into()),
            // Clocks and disks that are wrong let mail expire, and senders are told.
            ("expect", table(vec![("delivered", "all_or_told".into())]).into()),
        ];
        if !self.faults.is_empty() {
            whole.push(("fault", self.faults.into()));
        }
        toml::to_string(&table(whole)).expect("tables of scalars and tables encode")
    }
}

fn seconds(ms: u32) -> Value {
    (f64::from(ms) / 1_000.0).into()
}

/// Longer scripts find nothing new, more slowly.
const OPERATIONS_MAX: usize = 64;

/// Unit of the pause before an operation, milliseconds: up to 12.75 s.
const PAUSE_MS: u32 = 50;

/// Longer than the longest pause of an uplink, a claim's lease and a withheld answer after each other,
/// seconds.
const SETTLE_S: f64 = 1_500.0;

/// Ids, keys and delays of every run: the bytes alone decide.
const SEED: u64 = 1;

/// What a dishonest coordinator does its deed to.
const SORTS: [&str; 5] = ["mail", "receipts", "accepted", "entries", "presence"];

#[cfg(test)]
mod tests;
