//! The coordinator that `up --new` starts beside this program: on a loopback port of its own, with
//! its data in the home, running on when the node stops. The port is chosen once and remembered,
//! because the origin stands in the mesh's genesis.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use peerloom_proto::Origin;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::coordinator_http::CoordinatorHttp;
use crate::failure::{Failure, Kind};
use crate::home::Home;
use crate::process::{self, Stopped};

/// What is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalCoordinator {
    /// Where it is.
    pub(crate) origin: Origin,
    /// Its last process.
    pub(crate) pid: u32,
}

impl LocalCoordinator {
    /// The one that this home started, if it ever did.
    pub(crate) fn of(home: &Home) -> Result<Option<Self>, Failure> {
        let path = note(home);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                Failure::new(Kind::Failed, "home-damaged", format!("{} is damaged: {error}", path.display()))
                    .next("restore it from a backup: it says where the coordinator is")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Failure::new(Kind::Failed, "home", format!("failed to read {}: {error}", path.display())))
            }
        }
    }

    /// The running coordinator of this home: started if it is not up, made if there is none.
    pub(crate) async fn ensure(home: &Home) -> Result<Self, Failure> {
        if let Some(known) = Self::of(home)? {
            if is_up(&known.origin).await? {
                return Ok(known);
            }
            return start(home, &known.origin).await;
        }
        let port = free_port().map_err(|error| Failure::failed("port", &error))?;
        let origin = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        start(home, &Origin::parse(&origin).expect("an address and a port above 1023 are an origin")).await
    }

    /// Whether its process is there.
    pub(crate) fn is_running(&self) -> bool {
        process::is_running(self.pid, PROGRAM)
    }

    /// Stops it. Mail in it stays on disk.
    pub(crate) async fn stop(&self) -> Result<Stopped, Failure> {
        process::stop(self.pid, PROGRAM, STOP_TIMEOUT).await
    }
}

async fn start(home: &Home, origin: &Origin) -> Result<LocalCoordinator, Failure> {
    let program = beside_this_program()?;
    let dir = dir(home);
    let failed = |error: io::Error| {
        Failure::new(Kind::Failed, "home", format!("failed to write in {}: {error}", dir.display()))
    };
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let log = dir.join("coordinator.log");
    let output = File::options().create(true).append(true).mode(0o600).open(&log).map_err(failed)?;
    let mut child = Command::new(&program)
        .arg("serve")
        .args(["--listen", &format!("{}:{}", origin.host(), origin.port())])
        .args(["--origin", origin.as_str()])
        .arg("--data")
        .arg(dir.join("data"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        // So that an interrupt in this terminal does not reach it.
        .process_group(0)
        .spawn()
        .map_err(|error| {
            Failure::new(
                Kind::Failed,
                "coordinator-start",
                format!("failed to run {}: {error}", program.display()),
            )
        })?;
    wait_until_up(&mut child, origin, &log).await?;
    let running = LocalCoordinator { origin: origin.clone(), pid: child.id() };
    let text = serde_json::to_vec(&running).expect("an origin and a number have a JSON form");
    std::fs::write(note(home), text).map_err(failed)?;
    Ok(running)
}

async fn wait_until_up(child: &mut Child, origin: &Origin, log: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if is_up(origin).await? {
            return Ok(());
        }
        let ended = child.try_wait().map_err(|error| Failure::failed("coordinator-start", &error))?;
        let why = match ended {
            Some(status) => format!("the coordinator ended at once ({status})"),
            None if Instant::now() >= deadline => {
                format!("the coordinator did not answer at {origin} in time")
            }
            None => {
                sleep(LOOK_AGAIN).await;
                continue;
            }
        };
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let text = if last.is_empty() { why } else { format!("{why}: {last}") };
        return Err(
            Failure::new(Kind::Failed, "coordinator-start", text).next(format!("see {}", log.display()))
        );
    }
}

async fn is_up(origin: &Origin) -> Result<bool, Failure> {
    let coordinator = CoordinatorHttp::new(origin, None)?;
    Ok(coordinator.info().await.is_ok_and(|info| info.origin == *origin))
}

/// `peerloom-coordinator` in the directory of this program.
pub(crate) fn beside_this_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::failed("executable", &error))?;
    let program = own.with_file_name(PROGRAM);
    if program.is_file() {
        return Ok(program);
    }
    let text = format!("no coordinator was named, and {} does not exist", program.display());
    Err(Failure::new(Kind::NotFound, "coordinator-missing", text)
        .next("install peerloom-coordinator beside peerloom, or pass --coordinator ORIGIN"))
}

/// A port that is free now; whoever takes it in between makes the start fail, not the mesh.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn dir(home: &Home) -> PathBuf {
    home.root().join("coordinator")
}

fn note(home: &Home) -> PathBuf {
    dir(home).join("run.json")
}

const PROGRAM: &str = "peerloom-coordinator";
/// A coordinator is ready in a tenth of a second; a busy machine gets a hundred times that.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// As long as it may drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
