//! What an idle connection weighs: the coordinator's memory before and after thousands of members
//! connect and say nothing more.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Stage;
use super::mesh::LoadMesh;
use super::process::Coordinator;
use super::report::Figure;

/// Connections made at once.
const CONNECTING: usize = 16;

/// From the last hello until memory is read: presence is told to all, buffers are given back.
const SETTLED: Duration = Duration::from_secs(5);

/// Descriptors beside the connections.
const OTHER_FILES: u64 = 256;

/// Arguments of `bench idle`.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdleArgs {
    /// Connections, each of a member of its own, after its hello.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Members of one mesh. All in one is the worst case: each is told of all others.
    #[arg(long, default_value_t = 5_000)]
    per_mesh: usize,
}

impl IdleArgs {
    pub(crate) fn share(share: usize) -> Self {
        Self { connections: 5_000 / share, per_mesh: 5_000 }
    }
}

pub(crate) fn run(stage: &Stage, args: &IdleArgs) -> anyhow::Result<Vec<Figure>> {
    ensure!(args.per_mesh > 0, "a mesh has members");
    raise_file_limit(args.connections as u64 + OTHER_FILES)?;
    let coordinator = Coordinator::start(&stage.binaries, &stage.dir.join("c"))?;
    let mut meshes = Vec::new();
    let mut left = args.connections;
    while left > 0 {
        let members = left.min(args.per_mesh);
        meshes.push(LoadMesh::create(&coordinator, members, &stage.progress)?);
        left -= members;
    }
    // One link each brings every log into memory, so that it does not count as a connection's.
    for mesh in &meshes {
        mesh.hello(0)?.close();
    }
    std::thread::sleep(SETTLED);
    let before = coordinator.process.resident_bytes()?;
    let open = connect(stage, args.connections, &meshes)?;
    stage.progress.say("settling");
    std::thread::sleep(SETTLED);
    let after = coordinator.process.resident_bytes()?;
    let online = coordinator.metric("members_online")? as usize;
    ensure!(online == args.connections, "{online} of {} members are online", args.connections);
    open.close();

    let kib = |bytes: u64| bytes as f64 / 1_024.0;
    let each = kib(after.saturating_sub(before)) / args.connections as f64;
    let name =
        format!("memory of an idle connection, {} members a mesh", args.per_mesh.min(args.connections));
    Ok(vec![
        Figure::at_most(name, each, "KiB", 24.0),
        Figure::plain("connections after hello", args.connections as f64, ""),
        Figure::plain("coordinator's memory before", kib(before) / 1_024.0, "MiB"),
        Figure::plain("coordinator's memory with them", kib(after) / 1_024.0, "MiB"),
    ])
}

/// Links that take what is sent and stay silent.
struct Open {
    stop: tokio::sync::oneshot::Sender<()>,
    reading: std::thread::JoinHandle<()>,
}

impl Open {
    fn close(self) {
        // The reader ends with its sender in any case.
        self.stop.send(()).unwrap_or(());
        self.reading.join().expect("reading does not panic");
    }
}

fn connect(stage: &Stage, connections: usize, meshes: &[LoadMesh]) -> anyhow::Result<Open> {
    let (streams, taken) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reading = std::thread::spawn(move || runtime.block_on(read_all(taken, stopped)));
    let next = AtomicUsize::new(0);
    let per_mesh = meshes.first().map_or(1, |mesh| mesh.members.len());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTING {
            let (streams, next, failed) = (streams.clone(), &next, &failed);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= connections {
                        return;
                    }
                    stage.progress.at("connected", index, connections);
                    let link = meshes[index / per_mesh].hello(index % per_mesh);
                    let link = link.with_context(|| format!("member {index} is not welcome"));
                    match link.map(|link| streams.send(link.into_stream())) {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        Err(error) => {
                            next.store(connections, Ordering::Relaxed);
                            failed
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    let open = Open { stop, reading };
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        None => Ok(open),
        Some(error) => {
            open.close();
            Err(error)
        }
    }
}

/// Reads and drops what the coordinator tells its members: presence.
async fn read_all(
    mut streams: tokio::sync::mpsc::UnboundedReceiver<TcpStream>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(stream) = streams.recv() => {
                tasks.spawn(async move {
                    stream.set_nonblocking(true)?;
                    let stream = tokio::net::TcpStream::from_std(stream)?;
                    loop {
                        stream.readable().await?;
                        // On the stack: five thousand readers need no buffers of their own.
                        match stream.try_read(&mut [0; 32 << 10]) {
                            Ok(0) => return Ok::<(), std::io::Error>(()),
                            Ok(_) => {}
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                            Err(error) => return Err(error),
                        }
                    }
                });
            }
        }
    }
    tasks.shutdown().await;
}

fn raise_file_limit(files: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        let current = limit.maximum.map_or(files, |maximum| maximum.min(files));
        ensure!(current >= files, "{files} descriptors are needed, {current} are allowed: ulimit -Hn");
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit })?;
    }
    Ok(())
}
