//! Who plays: the coordinator and two nodes as processes, and the commands typed to them. Every
//! process is this demo's child and is ended by it, whatever happens.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use peerloom_proto::{Origin, hex_of};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::coordinator_http::CoordinatorHttp;
use crate::failure::{ErrorDocument, Failure, Kind};
use crate::keystore::random;
use crate::local_coordinator::{beside_this_program, free_port};

/// The place where it happens.
pub(super) struct Stage {
    root: PathBuf,
    program: PathBuf,
    coordinator: Option<Child>,
    /// The coordinator's address.
    pub(super) origin: String,
    /// The first node, the mesh's admin.
    pub(super) laptop: Node,
    /// The second node.
    pub(super) build: Node,
}

/// A node: its home, and its daemon while it is up.
pub(super) struct Node {
    pub(super) name: &'static str,
    home: PathBuf,
    program: PathBuf,
    daemon: Option<Child>,
}

/// Which paths a node may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    All,
    RelayOnly,
}

impl Stage {
    /// Makes the directory; nothing runs yet.
    pub(super) fn build() -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::failed("executable", &error))?;
        let coordinator = beside_this_program()?;
        let root = std::env::temp_dir().join(format!("peerloom-demo-{}", hex_of(&*random::<4>())));
        let failed = |error: std::io::Error| {
            Failure::new(Kind::Failed, "demo", format!("failed to make {}: {error}", root.display()))
        };
        std::fs::create_dir(&root).map_err(failed)?;
        for name in ["laptop", "build"] {
            make_home(&root.join(name)).map_err(failed)?;
        }
        let port = free_port().map_err(|error| Failure::failed("port", &error))?;
        let node = |name| Node { name, home: root.join(name), program: program.clone(), daemon: None };
        Ok(Self {
            laptop: node("laptop"),
            build: node("build"),
            origin: format!("http://127.0.0.1:{port}"),
            program: coordinator,
            coordinator: None,
            root,
        })
    }

    /// Where everything stands.
    pub(super) fn place(&self) -> String {
        self.root.display().to_string()
    }

    /// Starts the coordinator and waits until it answers; gives its process id.
    pub(super) async fn start_coordinator(&mut self) -> Result<u32, Failure> {
        let log = create(&self.root.join("coordinator.log"))?;
        let again = log.try_clone().map_err(|error| Failure::failed("demo", &error))?;
        let child = Command::new(&self.program)
            .args(["serve", "--listen", self.origin.trim_start_matches("http://"), "--origin", &self.origin])
            .arg("--data")
            .arg(self.root.join("coordinator"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Failure::new(
                    Kind::Failed,
                    "coordinator-start",
                    format!("failed to run {}: {error}", self.program.display()),
                )
            })?;
        let pid = child.id().unwrap_or_default();
        self.coordinator = Some(child);
        let origin = Origin::parse(&self.origin).expect("a loopback address with a port is an origin");
        let http = CoordinatorHttp::new(&origin, None)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while http.info().await.is_err() {
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    Kind::TimedOut,
                    "coordinator-start",
                    "the coordinator does not answer",
                ));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(pid)
    }

    /// The last lines of every log, for a story that went wrong.
    pub(super) fn last_words(&self) -> Vec<String> {
        let logs = [
            ("coordinator", self.root.join("coordinator.log")),
            ("laptop", self.laptop.home.join("log/peerloom.log")),
            ("build", self.build.home.join("log/peerloom.log")),
        ];
        let mut lines = Vec::new();
        for (who, path) in logs {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(LAST_WORDS).collect();
            lines.extend(last.iter().rev().map(|line| format!("{who}: {line}")));
        }
        lines
    }

    /// Ends every process; removes the directory unless it is kept.
    pub(super) async fn strike(mut self, keep: bool) -> Result<(), Failure> {
        self.laptop.switch_off().await?;
        self.build.switch_off().await?;
        if let Some(child) = self.coordinator.take() {
            end(child).await?;
        }
        if keep {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.root).map_err(|error| {
            Failure::new(Kind::Failed, "demo", format!("failed to remove {}: {error}", self.root.display()))
        })
    }
}

impl Node {
    /// Runs the node and waits until it answers.
    pub(super) async fn switch_on(&mut self, paths: Paths) -> Result<(), Failure> {
        let direct = match paths {
            Paths::All => "true",
            Paths::RelayOnly => "false",
        };
        let said = self.home.join("up.json");
        let child = self
            .command(&["up", "--json"])
            .env("PEERLOOM_DIRECT", direct)
            .stdin(Stdio::null())
            .stdout(create(&said)?)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::failed("spawn", &error))?;
        let daemon = self.daemon.insert(child);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            if text.contains("\"ready\":true") {
                return Ok(());
            }
            let ended = daemon.try_wait().map_err(|error| Failure::failed("spawn", &error))?;
            if ended.is_some() || Instant::now() >= deadline {
                return Err(read_error(&text, &format!("{} did not start", self.name)));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops the node, as `down` would.
    pub(super) async fn switch_off(&mut self) -> Result<(), Failure> {
        match self.daemon.take() {
            Some(child) => end(child).await,
            None => Ok(()),
        }
    }

    /// Types a command and reads its JSON.
    pub(super) async fn run<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, Failure> {
        self.run_with(arguments, "").await
    }

    /// The same with something on standard input.
    pub(super) async fn run_with<T: DeserializeOwned>(
        &self,
        arguments: &[&str],
        input: &str,
    ) -> Result<T, Failure> {
        let text = self.output(arguments, input).await?;
        serde_json::from_str(text.trim()).map_err(|error| {
            Failure::new(
                Kind::Failed,
                "demo",
                format!("peerloom {} said {text:?}: {error}", arguments.join(" ")),
            )
        })
    }

    /// Types a command and reads its JSON lines.
    pub(super) async fn run_lines<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Vec<T>, Failure> {
        let text = self.output(arguments, "").await?;
        let read = |line: &str| serde_json::from_str(line).map_err(|error| Failure::failed("demo", &error));
        text.lines().map(read).collect()
    }

    async fn output(&self, arguments: &[&str], input: &str) -> Result<String, Failure> {
        let failed = |error: std::io::Error| Failure::failed("spawn", &error);
        let mut command = self.command(arguments);
        command
            .arg("--json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await.map_err(failed)?;
        }
        let output = timeout(COMMAND_TIMEOUT, child.wait_with_output()).await.map_err(|_| {
            Failure::new(Kind::TimedOut, "demo", format!("peerloom {} did not end", arguments.join(" ")))
        })?;
        let output = output.map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(read_error(&text, &format!("peerloom {} ended with {}", arguments.join(" "), output.status)))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("PEERLOOM_HOME", &self.home).env_remove("PEERLOOM_COORDINATOR");
        command
    }
}

/// Asks a child to end, and ends it if it does not.
async fn end(mut child: Child) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed("signal", &error);
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
        // It may have ended by itself in this moment.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap_or(());
    }
    match timeout(END_TIMEOUT, child.wait()).await {
        Ok(ended) => ended.map(drop).map_err(failed),
        Err(_) => child.kill().await.map_err(failed),
    }
}

/// Others on this machine must not look into a home.
fn make_home(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn create(path: &Path) -> Result<std::fs::File, Failure> {
    std::fs::File::create(path).map_err(|error| {
        Failure::new(Kind::Failed, "demo", format!("failed to make {}: {error}", path.display()))
    })
}

/// The error document among what a command said, or `otherwise`.
fn read_error(text: &str, otherwise: &str) -> Failure {
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    match serde_json::from_str::<ErrorDocument>(last) {
        Ok(document) => Failure::from_json(0, document),
        Err(_) if last.is_empty() => Failure::new(Kind::Failed, "demo", otherwise),
        Err(_) => Failure::new(Kind::Failed, "demo", format!("{otherwise}: {last}")),
    }
}

/// Everything here starts in a fraction of a second.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// No command of the story waits longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
/// Before a process that does not stop is killed.
const END_TIMEOUT: Duration = Duration::from_secs(12);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Lines of each log in a failure.
const LAST_WORDS: usize = 8;
