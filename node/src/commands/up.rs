//! `up`: runs the node. In the foreground it is the daemon itself; with `--detach` it starts itself
//! again as the leader of a session of its own and returns once that answers.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::membership::{handle_or_ask, make, show_made, token};
use super::{Caller, DONE, Ended};
use crate::api::Api;
use crate::api::client::{Client, no_mesh};
use crate::api::server::{ApiError, ApiSocket};
use crate::api::shapes::{InitRequest, StatusShape};
use crate::cli::UpArgs;
use crate::daemon::Daemon;
use crate::failure::{ErrorDocument, Failure, Kind, SCHEMA_VERSION, chain};
use crate::home::Home;
use crate::local_coordinator::LocalCoordinator;
use crate::render::progress::Progress;
use crate::telemetry;

/// The node runs.
#[derive(Debug, Serialize)]
struct UpShape {
    schema_version: u32,
    ready: bool,
    pid: Option<u32>,
    socket: String,
    meshes: Vec<String>,
    detached: bool,
}

pub(super) async fn up(caller: &Caller, args: UpArgs) -> Ended {
    if args.session_leader {
        rustix::process::setsid().map_err(|error| Failure::failed("setsid", &io::Error::from(error)))?;
        return run(caller).await;
    }
    let (new, detach) = (args.new.is_some(), args.detach);
    if new {
        make_new(caller, args).await?;
    } else if LocalCoordinator::of(&caller.home)?.is_some() {
        LocalCoordinator::ensure(&caller.home).await?;
    }
    if caller.client()?.is_up().await {
        return if detach || new { already_up(caller).await } else { Err(in_use(caller)) };
    }
    if caller.home.meshes()?.is_empty() {
        return Err(no_mesh(&caller.home));
    }
    if detach { start_detached(caller).await } else { run(caller).await }
}

/// `--new`: the coordinator, if none was named, and the mesh.
async fn make_new(caller: &Caller, args: UpArgs) -> Result<(), Failure> {
    let name = args.new.unwrap_or_default();
    let handle = handle_or_ask(args.name)?;
    let token = token(caller, args.token_file.as_deref())?;
    if let Some(mesh) = caller.home.meshes()?.into_iter().find(|mesh| mesh.name == name) {
        let text = format!("this home has a mesh {name} already, at {}", mesh.origin);
        return Err(Failure::new(Kind::Conflict, "mesh-exists", text)
            .next("peerloom up --detach, or choose another name"));
    }
    let coordinator = match args.coordinator.as_deref().or(caller.env.get("PEERLOOM_COORDINATOR")) {
        Some(origin) => origin.to_owned(),
        None => {
            caller.home.create()?;
            let local = LocalCoordinator::ensure(&caller.home).await?;
            caller.out.note(format!(
                "coordinator at {} (process {}), its data in this home",
                local.origin, local.pid
            ));
            local.origin.to_string()
        }
    };
    let made = make(caller, InitRequest { name, coordinator, handle, token }).await?;
    show_made(caller, &made)
}

fn in_use(caller: &Caller) -> Failure {
    let pid = caller.home.daemon_note().map_or_else(|| "?".to_owned(), |note| note.pid.to_string());
    let text = format!("a node runs for {} already (process {pid})", caller.home.root().display());
    Failure::new(Kind::Conflict, "home-locked", text).next("peerloom status, or peerloom down")
}

async fn already_up(caller: &Caller) -> Ended {
    let status: StatusShape = Client::new(&caller.home, None)?.get("/v1/status", &[]).await?;
    show_up(caller, &status, "the node is up already")
}

fn show_up(caller: &Caller, status: &StatusShape, what: &str) -> Ended {
    let meshes: Vec<String> = status.meshes.iter().map(|mesh| mesh.mesh.name.clone()).collect();
    let shape = UpShape {
        schema_version: SCHEMA_VERSION,
        ready: true,
        pid: status.pid,
        socket: caller.home.socket()?.display().to_string(),
        meshes,
        detached: true,
    };
    caller.out.both(&shape, || {
        let pid = shape.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        vec![format!("{what} (process {pid}) in {}", shape.meshes.join(", "))]
    })?;
    caller.out.next("peerloom status, or peerloom invite");
    Ok(DONE)
}

/// Starts this program again and waits until it answers or ends.
async fn start_detached(caller: &Caller) -> Ended {
    caller.home.create()?;
    let path = said(&caller.home);
    let failed = |error: io::Error| {
        Failure::new(Kind::Failed, "home", format!("failed to write {}: {error}", path.display()))
    };
    let said =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
    let program = std::env::current_exe().map_err(|error| Failure::failed("executable", &error))?;
    let mut child = Command::new(program)
        .args(["up", "--session-leader", "--json"])
        // The same home, however it was found: the environment alone might name it relatively.
        .env("PEERLOOM_HOME", caller.home.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(said)
        // Its events are in the log file.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Failure::failed("spawn", &error))?;
    let waiting = Progress::spinner(caller.out, "starting");
    wait_until_up(caller, &mut child).await?;
    let status = wait_until_connected(&Client::new(&caller.home, None)?).await?;
    drop(waiting);
    show_up(caller, &status, "the node is up")
}

/// Gives the uplinks a moment, so that the next command finds them; a coordinator that is away is no
/// failure of `up`.
async fn wait_until_connected(client: &Client) -> Result<StatusShape, Failure> {
    let deadline = Instant::now() + CONNECT_PATIENCE;
    loop {
        let status: StatusShape = client.get("/v1/status", &[]).await?;
        let connecting = status.meshes.iter().any(|mesh| mesh.coordinator.state == "connecting");
        if !connecting || Instant::now() >= deadline {
            return Ok(status);
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn wait_until_up(caller: &Caller, child: &mut Child) -> Result<(), Failure> {
    let client = caller.client()?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if client.is_up().await {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(|error| Failure::failed("spawn", &error))? {
            return Err(why_ended(&caller.home, status));
        }
        if Instant::now() >= deadline {
            let text = format!(
                "the node (process {}) does not answer after {} s",
                child.id(),
                START_TIMEOUT.as_secs()
            );
            return Err(Failure::new(Kind::TimedOut, "start-timeout", text).next("peerloom logs"));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Where a detached node says that it is ready, or why not.
fn said(home: &Home) -> PathBuf {
    home.log_dir().join("up.json")
}

/// Why the last detached start failed; none if it did not, or there was none.
pub(super) fn last_failure(home: &Home) -> Option<Failure> {
    let text = std::fs::read_to_string(said(home)).ok()?;
    let last = text.lines().rfind(|line| !line.trim().is_empty())?;
    serde_json::from_str::<ErrorDocument>(last).ok().map(|document| Failure::from_json(0, document))
}

fn why_ended(home: &Home, status: std::process::ExitStatus) -> Failure {
    let unsaid = || {
        Failure::new(Kind::Failed, "start", format!("the node ended at once ({status})"))
            .next("peerloom logs")
    };
    last_failure(home).unwrap_or_else(unsaid)
}

/// The daemon itself, until it is told to stop.
async fn run(caller: &Caller) -> Ended {
    let config = caller.config()?;
    telemetry::install(&caller.home, &config)
        .map_err(|error| Failure::failed("log", &error).next("peerloom doctor"))?;
    log_panics();
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let daemon = Daemon::start(caller.home.clone(), config).await.inspect_err(|error| {
        error!(error = %chain(error), "The node cannot start.");
    })?;
    let socket = match ApiSocket::bind(&caller.home) {
        Ok(socket) => socket,
        Err(error) => {
            daemon.stop().await;
            return Err(api_failure(&error));
        }
    };
    let meshes: Vec<String> = daemon.meshes().iter().map(|mesh| mesh.name().to_owned()).collect();
    info!(meshes = meshes.len(), "Ready.");
    let shape = UpShape {
        schema_version: SCHEMA_VERSION,
        ready: true,
        pid: Some(std::process::id()),
        socket: caller.home.socket()?.display().to_string(),
        meshes,
        detached: false,
    };
    caller.out.both(&shape, || vec![format!("ready: {} in {}", shape.socket, shape.meshes.join(", "))])?;
    let served = serve(socket, Api::new(daemon.clone(), stop.clone()), &stop).await;
    daemon.stop().await;
    info!("Stopped.");
    served.map(|()| DONE).map_err(|error| Failure::failed("api", &error))
}

/// Serves until told to stop; then calls in progress get a few seconds.
async fn serve(socket: ApiSocket, api: Api, stop: &CancellationToken) -> io::Result<()> {
    let serving = socket.serve(api);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(CALLS_TIMEOUT, serving).await {
        Ok(ended) => ended,
        Err(_) => {
            info!("Calls in progress were cut off.");
            Ok(())
        }
    }
}

fn api_failure(error: &ApiError) -> Failure {
    let next = match error {
        ApiError::Home(_) => "set PEERLOOM_HOME to a shorter directory",
        ApiError::Bind { .. } => "check the permissions of the home: peerloom doctor",
    };
    Failure::failed("api-socket", error).next(next)
}

fn stop_on_signals(stop: &CancellationToken) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed("signal", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("Told to stop.");
        stop.cancel();
    });
    Ok(())
}

/// A detached node has no terminal: what a panic says must reach the log.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        error!(%panic, "A bug: please report this line.");
        before(panic);
    }));
}

/// A node starts in a fraction of a second; one with a long history on a slow disk gets more.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Beyond this `up` does not wait for a coordinator.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A call that still waits then would have waited for minutes.
const CALLS_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
