//! Stopping a process that this home started, by its id and only if it still is that program.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, Kind};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It ended after it was asked to.
    Now,
    /// There was none.
    Before,
}

/// Whether the process is there and runs `program`: ids are used again.
pub(crate) fn is_running(pid: u32, program: &str) -> bool {
    let Some(id) = to_pid(pid) else { return false };
    if test_kill_process(id).is_err() {
        return false;
    }
    match std::fs::read(format!("/proc/{pid}/cmdline")) {
        // Empty for a zombie, whose parent has not looked yet.
        Ok(line) => {
            line.split(|byte| *byte == 0).next().is_some_and(|name| name.ends_with(program.as_bytes()))
        }
        // No /proc on this system: the id is all there is to go by.
        Err(_) => !std::path::Path::new("/proc/self").exists(),
    }
}

/// Asks the process to end (SIGTERM) and waits for it.
pub(crate) async fn stop(pid: u32, program: &str, timeout: Duration) -> Result<Stopped, Failure> {
    let Some(id) = to_pid(pid).filter(|_| is_running(pid, program)) else { return Ok(Stopped::Before) };
    if let Err(error) = kill_process(id, Signal::TERM) {
        return Err(Failure::new(
            Kind::Denied,
            "signal",
            format!("failed to stop process {pid} ({program}): {error}"),
        ));
    }
    wait_gone(pid, program, timeout).await?;
    Ok(Stopped::Now)
}

/// Waits until the process is gone.
pub(crate) async fn wait_gone(pid: u32, program: &str, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    while is_running(pid, program) {
        if Instant::now() >= deadline {
            let text = format!("process {pid} ({program}) did not end within {} s", timeout.as_secs());
            return Err(Failure::new(Kind::TimedOut, "stop-timeout", text)
                .next(format!("look at it, or kill -9 {pid}: nothing acknowledged is lost")));
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_program_is_not_ours() {
        assert!(!is_running(std::process::id(), "peerloom-coordinator"));
        assert!(!is_running(0, "peerloom"));
        assert!(!is_running(u32::MAX, "peerloom"));
    }

    #[tokio::test]
    async fn a_process_is_stopped_by_its_id_and_one_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // The kernel fills in the command line a moment after the child has begun.
        while !is_running(child.id(), "sleep") {
            tokio::task::yield_now().await;
        }
        assert_eq!(stop(child.id(), "sleep", Duration::from_secs(5)).await.unwrap(), Stopped::Now);
        child.wait().unwrap();
        assert_eq!(stop(child.id(), "sleep", Duration::from_secs(5)).await.unwrap(), Stopped::Before);
    }
}
