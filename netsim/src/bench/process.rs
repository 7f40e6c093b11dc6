//! Real processes: found beside this executable, started in a directory of their own, ended by
//! their pid.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use peerloom_proto::{Origin, PeerId};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::http::{self, Http};
use super::{PATIENCE, report};

/// How long a process may take to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at something that will be so soon.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Unit of the times in `/proc/PID/stat`: what the kernel shows to programs is 100 on every
/// architecture (proc(5), `USER_HZ`).
pub(crate) const TICKS_PER_SECOND: u32 = 100;

/// The programs that are measured.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    peerloom: PathBuf,
    pub(crate) coordinator: PathBuf,
}

impl Binaries {
    /// In `dir`, or beside this executable.
    pub(crate) fn find(dir: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("failed to find this executable")?;
        let beside = own.parent().unwrap_or_else(|| Path::new("."));
        let dir = dir.unwrap_or(beside);
        let find = |name: &str| {
            let path = dir.join(name);
            let path = std::path::absolute(&path).unwrap_or(path);
            ensure!(
                path.is_file(),
                "{} is missing: cargo build --release -p peerloom-node -p peerloom-coordinator, or --bin-dir",
                path.display()
            );
            Ok(path)
        };
        Ok(Self { peerloom: find("peerloom")?, coordinator: find("peerloom-coordinator")? })
    }
}

/// A child that ends when it is dropped.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command, name: &'static str) -> anyhow::Result<Self> {
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("failed to start {name}"))?;
        Ok(Self { child, name })
    }

    /// What it prints, if that was piped and not taken before.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process has a positive id")?;
        kill_process(pid, signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// SIGKILL: it gets to do nothing more.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("failed to kill {}", self.name))?;
        self.child.wait().map(drop).with_context(|| format!("{} is not waited for", self.name))
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        bytes_in(&status, "VmRSS:").with_context(|| format!("{path} has no VmRSS"))
    }

    /// The same, in MiB.
    #[expect(clippy::cast_precision_loss, reason = "a process has less than 2^52 bytes")]
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        Ok(self.resident_bytes()? as f64 / f64::from(1 << 20))
    }

    /// The processor time it has used, by all its threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        let ticks = ticks_in(&stat).with_context(|| format!("{path} has no times"))?;
        Ok(Duration::from_secs(ticks) / TICKS_PER_SECOND)
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let deadline = Instant::now() + END_TIMEOUT;
        while asked && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // Fails only for a child that has ended by itself.
        if self.child.kill().is_ok() {
            report::note(&format!("{} had to be killed", self.name));
        }
        if let Err(error) = self.child.wait() {
            report::note(&format!("{} is not waited for: {error}", self.name));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

/// A line of `/proc/PID/status` that counts memory.
pub(crate) fn bytes_in(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// User and system time: fields 14 and 15, counted behind the name, which may hold anything.
pub(crate) fn ticks_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A coordinator that takes what a load client gives it.
pub(crate) struct Coordinator {
    pub(crate) process: Process,
    pub(crate) origin: Origin,
    pub(crate) key: PeerId,
    pub(crate) addr: SocketAddr,
}

#[derive(Deserialize)]
struct Ready {
    url: String,
    origin: String,
    coordinator: PeerId,
}

impl Coordinator {
    /// Starts one over `data` with the rate limits lifted, and returns once it says that it is ready.
    pub(crate) fn start(binaries: &Binaries, data: &Path) -> anyhow::Result<Self> {
        // Load clients say what address they come from: one machine would be throttled as one.
        let lifted =
            ["--member-messages-per-second=0", "--member-bytes-per-second=0", "--trusted-proxy=127.0.0.1"];
        Self::start_with(binaries, data, &lifted)
    }

    /// Starts one as it comes.
    pub(crate) fn start_with(binaries: &Binaries, data: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = clean(&binaries.coordinator);
        command
            .args(["serve", "--listen=127.0.0.1:0", "--log=warn", "--json"])
            .args(flags)
            .arg("--data")
            .arg(data);
        let log = data.with_extension("log");
        command.stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = Process::spawn(&mut command, "peerloom-coordinator")?;
        let stdout = process.take_stdout().context("the coordinator's output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Ok(Ready { url, origin, coordinator }) = serde_json::from_str(&line) else {
            bail!("the coordinator did not get ready: {line}{}", tail(&log));
        };
        let addr =
            url.strip_prefix("http://").unwrap_or(&url).parse().context("the coordinator's address")?;
        Ok(Self { process, origin: Origin::parse(&origin)?, key: coordinator, addr })
    }

    /// A connection for its HTTP side.
    pub(crate) fn http(&self) -> anyhow::Result<Http<std::net::TcpStream>> {
        http::tcp(self.addr)
    }

    /// One sample of `/metrics`, without its prefix.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.http()?.get("/metrics")?.text()?;
        let wanted = format!("peerloom_coordinator_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&wanted));
        value
            .with_context(|| format!("/metrics has no {wanted}"))?
            .trim()
            .parse()
            .context("a metric is a number")
    }

    /// A total, once it is as large as expected: totals are published a few times a second.
    pub(crate) fn settled_metric(&self, name: &str, expected: usize) -> anyhow::Result<usize> {
        let mut count = 0;
        wait_for(name, || {
            count = self.metric(name)? as usize;
            Ok(count >= expected)
        })?;
        Ok(count)
    }
}

/// A node's home, and what is done with it.
pub(crate) struct Node {
    pub(crate) home: PathBuf,
    peerloom: PathBuf,
    settings: Vec<(&'static str, String)>,
    process: Option<Process>,
}

impl Node {
    pub(crate) fn at(binaries: &Binaries, home: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&home)?;
        let settings = vec![("PEERLOOM_LOG", "warn".to_owned())];
        Ok(Self { home, peerloom: binaries.peerloom.clone(), settings, process: None })
    }

    /// Sets an environment variable of everything it runs from here on.
    pub(crate) fn set(&mut self, variable: &'static str, value: &str) {
        self.settings.retain(|(name, _)| *name != variable);
        self.settings.push((variable, value.to_owned()));
    }

    /// `peerloom` over this home.
    pub(crate) fn command(&self) -> Command {
        let mut command = clean(&self.peerloom);
        command.env("PEERLOOM_HOME", &self.home).stdin(Stdio::null());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a verb with `--json` and reads its answer.
    pub(crate) fn verb(&self, args: &[&str], stdin: Option<&str>) -> anyhow::Result<serde_json::Value> {
        let mut command = self.command();
        command.args(args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().context("failed to start peerloom")?;
        if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
            std::io::Write::write_all(&mut pipe, text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "peerloom {} failed: {said}{complained}", args.join(" "));
        serde_json::from_str(said.trim()).with_context(|| format!("peerloom {} said {said}", args.join(" ")))
    }

    /// Makes a mesh.
    pub(crate) fn init(&self, origin: &Origin, handle: &str) -> anyhow::Result<()> {
        self.verb(&["init", "bench", "--coordinator", origin.as_str(), "--name", handle], None).map(drop)
    }

    /// Starts the daemon and returns once its API answers.
    pub(crate) fn up(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.answers()
    }

    /// Starts the daemon.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.home.join("bench.log"))?;
        let mut command = self.command();
        command.arg("up").stdout(log.try_clone()?).stderr(log);
        self.process = Some(Process::spawn(&mut command, "peerloom")?);
        Ok(())
    }

    /// Ends the daemon.
    pub(crate) fn down(&mut self) {
        self.process = None;
    }

    /// Returns once the API answers and the coordinator is reached.
    pub(crate) fn answers(&self) -> anyhow::Result<()> {
        wait_for("the node to be connected", || {
            let Ok(mut api) = self.api() else { return Ok(false) };
            let status = api.get("/v1/status")?;
            Ok(status.status == 200 && status.text()?.contains("\"connected\""))
        })
        .with_context(|| tail(&self.home.join("bench.log")))
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.as_ref().context("the daemon is not up")?.signal(signal)
    }

    /// Its daemon's resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        self.process.as_ref().context("the daemon is not up")?.resident_mib()
    }

    /// The processor time its daemon has used.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.process.as_ref().context("the daemon is not up")?.cpu()
    }

    /// A connection to its API.
    pub(crate) fn api(&self) -> anyhow::Result<Http<std::os::unix::net::UnixStream>> {
        http::unix(&self.home.join("api.sock"))
    }

    /// The directory of its one mesh.
    pub(crate) fn mesh_dir(&self) -> anyhow::Result<PathBuf> {
        let mut meshes = std::fs::read_dir(self.home.join("meshes"))?;
        Ok(meshes.next().context("the home has no mesh")??.path())
    }

    /// The position of the newest message of its inbox.
    pub(crate) fn inbox_newest(&self) -> anyhow::Result<u64> {
        #[derive(Deserialize)]
        struct Page {
            next_after: u64,
        }
        let page: Page = serde_json::from_str(&self.api()?.get("/v1/inbox?limit=1")?.text()?)?;
        Ok(page.next_after)
    }
}

/// A command that no setting of the caller's environment reaches.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PEERLOOM") {
            command.env_remove(name);
        }
    }
    command
}

/// Looks again and again until it is so.
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !so()? {
        ensure!(Instant::now() < deadline, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The end of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::{bytes_in, ticks_in};

    #[test]
    fn processor_time_is_read_behind_a_name_with_brackets_and_blanks() {
        assert_eq!(ticks_in("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 100"), Some(300));
        assert_eq!(ticks_in("7 (a"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tpeerloom\nVmPeak:\t  90000 kB\nVmRSS:\t   12345 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(bytes_in(status, "VmRSS:"), Some(12_345 * 1_024));
        assert_eq!(bytes_in("Name:\tzombie\n", "VmRSS:"), None);
    }
}
