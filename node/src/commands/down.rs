//! `down`: stops the node, and with `--all` the coordinator that `up --new` started.

use std::time::Duration;

use serde::Serialize;

use super::{Caller, DONE, Ended};
use crate::api::shapes::DoneShape;
use crate::cli::DownArgs;
use crate::failure::{Failure, SCHEMA_VERSION};
use crate::home::HomeError;
use crate::local_coordinator::LocalCoordinator;
use crate::process::{self, Stopped};
use crate::render::progress::Progress;

/// What was stopped.
#[derive(Debug, Serialize)]
struct DownShape {
    schema_version: u32,
    /// `stopped`, or `not-running`.
    node: &'static str,
    /// The same of the coordinator; none if it was not to be stopped or there is none.
    coordinator: Option<&'static str>,
}

pub(super) async fn down(caller: &Caller, args: &DownArgs) -> Ended {
    let waiting = Progress::spinner(caller.out, "stopping");
    let node = stop_node(caller).await?;
    let coordinator = match LocalCoordinator::of(&caller.home)? {
        Some(coordinator) if args.all => Some(coordinator.stop().await?),
        Some(_) | None => None,
    };
    drop(waiting);
    let shape =
        DownShape { schema_version: SCHEMA_VERSION, node: word(node), coordinator: coordinator.map(word) };
    caller.out.both(&shape, || {
        let mut lines = vec![sentence("the node", node)];
        lines.extend(coordinator.map(|stopped| sentence("the coordinator", stopped)));
        lines
    })?;
    if !args.all && LocalCoordinator::of(&caller.home)?.is_some_and(|coordinator| coordinator.is_running()) {
        caller.out.note("the coordinator on this machine runs on; peerloom down --all stops it too");
    }
    caller.out.next("peerloom up --detach");
    Ok(DONE)
}

async fn stop_node(caller: &Caller) -> Result<Stopped, Failure> {
    let pid = caller.home.daemon_note().map(|note| note.pid);
    let asked: Result<DoneShape, Failure> =
        caller.client()?.post("/v1/shutdown", &serde_json::json!({})).await;
    match (asked, pid) {
        (Ok(_), Some(pid)) => {
            process::wait_gone(pid, PROGRAM, STOP_TIMEOUT).await?;
            Ok(Stopped::Now)
        }
        (Ok(_), None) => Ok(Stopped::Now),
        (Err(failure), _) if matches!(failure.code.as_str(), "daemon-down" | "no-mesh" | "daemon-gone") => {
            stop_unanswering(caller).await
        }
        (Err(failure), _) => Err(failure),
    }
}

/// A node that holds the home without answering is asked by signal.
async fn stop_unanswering(caller: &Caller) -> Result<Stopped, Failure> {
    if !caller.home.root().exists() {
        return Ok(Stopped::Before);
    }
    match caller.home.lock() {
        Ok(_) => Ok(Stopped::Before),
        Err(HomeError::Locked { pid: Some(pid), .. }) => process::stop(pid, PROGRAM, STOP_TIMEOUT).await,
        Err(error) => Err(error.into()),
    }
}

const fn word(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::Now => "stopped",
        Stopped::Before => "not-running",
    }
}

fn sentence(who: &str, stopped: Stopped) -> String {
    match stopped {
        Stopped::Now => format!("{who} is stopped"),
        Stopped::Before => format!("{who} was not running"),
    }
}

const PROGRAM: &str = "peerloom";
/// Calls in progress get a few seconds, and every mesh commits what it has begun.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_says_what_was_stopped() {
        let shape = DownShape {
            schema_version: 1,
            node: word(Stopped::Now),
            coordinator: Some(word(Stopped::Before)),
        };
        assert_eq!(
            serde_json::to_string(&shape).unwrap(),
            r#"{"schema_version":1,"node":"stopped","coordinator":"not-running"}"#
        );
    }
}
