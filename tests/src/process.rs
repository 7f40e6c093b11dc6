//! Programs: where they are, running one to its end, and keeping one running.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::answer::Answer;
use crate::wait;

/// A program of this workspace: from the directory `PEERLOOM_PROGRAMS`, for tests of an installed or
/// release build, else beside the test that runs.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("PEERLOOM_PROGRAMS") {
        let path = PathBuf::from(dir).join(name);
        assert!(path.is_file(), "PEERLOOM_PROGRAMS holds no {name}: {}", path.display());
        return path;
    }
    let test = std::env::current_exe().expect("a test knows its own file");
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built; run `cargo build --bins` first (looked beside {test:?})")
    })
}

/// A program may take this long: the longest verb waits ten seconds by itself.
const RUN_MAX: Duration = Duration::from_secs(60);

/// Runs a command to its end with `stdin` as its input.
///
/// # Panics
/// When it cannot be started, or does not end in a minute; it is killed then.
pub fn run(mut command: Command, stdin: &[u8]) -> Answer {
    let mut out = tempfile::tempfile().expect("a temporary file");
    let mut err = tempfile::tempfile().expect("a temporary file");
    let told = format!("{command:?}");
    command.stdout(out.try_clone().expect("a file can be shared"));
    command.stderr(err.try_clone().expect("a file can be shared"));
    command.stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to start {told}: {error}"));
    if let Some(mut pipe) = child.stdin.take() {
        // A program that refuses early closes its input: its exit code says more than our pipe.
        pipe.write_all(stdin).unwrap_or(());
    }
    let code = wait_for(&mut child, RUN_MAX).unwrap_or_else(|| {
        child.kill().expect("a running child can be killed");
        child.wait().expect("a killed child ends");
        panic!("{told} did not end in {RUN_MAX:?}\nstdout: {}\nstderr: {}", text(&mut out), text(&mut err))
    });
    Answer { command: told, code: code.code().unwrap_or(-1), stdout: text(&mut out), stderr: text(&mut err) }
}

fn wait_for(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if started.elapsed() > within {
            return None;
        }
        wait::pause(Duration::from_millis(2));
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .expect("an own file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that runs until it is told to stop, or until this value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log can be made");
        command.stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a file can be shared"));
        command.stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its end, if it came.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// SIGKILL: it gets to do nothing more.
    pub fn kill9(&mut self) {
        // A child that ended before is dead as well.
        self.child.kill().unwrap_or(());
        self.child.wait().expect("a killed child ends");
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Panics
    /// When it is still there after `within`.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid fits")).expect("a pid is not zero");
        // A child that ended before needs no signal.
        kill_process(pid, Signal::TERM).unwrap_or(());
        self.exit_status(within)
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When it is still there after `within`.
    pub fn exit_status(&mut self, within: Duration) -> ExitStatus {
        wait_for(&mut self.child, within)
            .unwrap_or_else(|| panic!("{} did not end in {within:?}\n{}", self.name, self.tail()))
    }

    /// Everything it printed, over all its lives.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it printed, for a failure's message.
    pub fn tail(&self) -> String {
        format!("--- last lines of {} ---\n{}", self.name, last_lines(&self.printed()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Enough to see what went wrong.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
