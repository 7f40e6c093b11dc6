//! The hub's thread and the writer's: inputs gather, the hub takes them, commands go out, and what
//! must be durable is committed while the next batch gathers.
//!
//! 1. [`start`]     loads what the store holds and starts both threads
//! 2. [`Engine`]    how sockets and routes reach the hub, through one bounded channel
//! 3. `step`        the hub's loop: take what has arrived, hand it to the hub, carry out its commands
//! 4. `store_side`  commits batches, one at a time, each with one fsync; answers reads
//!
//! Group commit needs no timer: while one batch is being written, the next is whatever arrives.

mod step;
mod store_side;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::arrived::Arrived;
use crate::batch::Batch;
use crate::hub::{Answer, HttpReply, HttpRequest, Hub, HubConfig, ReadId, SocketId};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::store::{Store, StoreError};
use step::{Books, Clock, Step, Ways};
use store_side::write_on;

/// Groups of frames and requests that wait for the hub; sockets are not read on when it is full.
const INBOX_MAX: usize = 1_024;

/// Answers of the store that wait for the hub.
const ANSWERS_MAX: usize = 256;

/// The hub has ended; the process is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub struct HubGone;

/// Why the engine ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store is damaged, or another process took it over: nothing more is acknowledged, and
    /// nothing is changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// The operating system gave no randomness.
    #[error("failed to read entropy")]
    Entropy(#[source] getrandom::Error),
    /// A thread panicked. This is a bug; the store is as its last commit left it.
    #[error("the hub's thread panicked")]
    Panicked,
}

/// Reaches the hub from sockets and routes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    inbox: mpsc::Sender<ToHub>,
    next_socket: Arc<AtomicU64>,
}

/// The running threads.
#[derive(Debug)]
pub struct EngineThreads {
    ended: oneshot::Receiver<Result<(), EngineError>>,
    threads: Vec<JoinHandle<()>>,
}

/// What reaches the hub's thread from outside.
#[derive(Debug)]
enum ToHub {
    Open { socket: SocketId, addr: IpAddr, outbox: Arc<Outbox> },
    Frames { socket: SocketId, frames: Vec<Arrived> },
    Closed { socket: SocketId },
    Http { addr: IpAddr, request: HttpRequest, reply: oneshot::Sender<HttpReply> },
    Drain,
}

/// What comes back from the store.
#[derive(Debug)]
enum FromStore {
    Committed(Batch, u64),
    CommitFailed(Batch, StoreError),
    /// Another process took the store over while this one had nothing to write.
    Fenced(StoreError),
    Read(ReadId, Result<Answer, StoreError>),
}

impl Engine {
    /// Asks the hub on behalf of an HTTP route. None while the process shuts down.
    pub async fn http(&self, addr: IpAddr, request: HttpRequest) -> Option<HttpReply> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(ToHub::Http { addr, request, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Ends the hub: everybody is told when to come back, what was taken is committed, and
    /// [`EngineThreads::ended`] returns within seconds. `Err` when it has ended already.
    pub async fn drain(&self) -> Result<(), HubGone> {
        self.inbox.send(ToHub::Drain).await.map_err(|_| HubGone)
    }

    /// Whether the hub's thread takes inputs.
    pub fn is_alive(&self) -> bool {
        !self.inbox.is_closed()
    }

    /// Announces a socket, whose frames the hub puts into `outbox`.
    pub(crate) async fn open(&self, addr: IpAddr, outbox: Arc<Outbox>) -> Option<Link> {
        let socket = SocketId(self.next_socket.fetch_add(1, Ordering::Relaxed));
        self.inbox.send(ToHub::Open { socket, addr, outbox }).await.ok()?;
        Some(Link { socket, inbox: self.inbox.clone() })
    }
}

/// A socket's way to the hub.
#[derive(Debug)]
pub(crate) struct Link {
    socket: SocketId,
    inbox: mpsc::Sender<ToHub>,
}

impl Link {
    /// Hands frames over. Waits while the hub has enough to do, which is what slows a sender down.
    pub(crate) async fn frames(&self, frames: Vec<Arrived>) -> Result<(), HubGone> {
        self.inbox.send(ToHub::Frames { socket: self.socket, frames }).await.map_err(|_| HubGone)
    }

    /// The socket is gone.
    pub(crate) async fn closed(self) {
        if self.inbox.send(ToHub::Closed { socket: self.socket }).await.is_err() {
            tracing::trace!("The hub was gone before its socket.");
        }
    }
}

impl EngineThreads {
    /// Waits for the end: after [`Engine::drain`], or because the store is damaged or another's. The
    /// store is closed by then.
    pub async fn ended(self) -> Result<(), EngineError> {
        let ended = self.ended.await.unwrap_or(Err(EngineError::Panicked));
        for thread in self.threads {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(EngineError::Panicked);
            }
        }
        ended
    }
}

/// Starts hub and writer over an open store. Must be called within a tokio runtime, which then
/// carries reads, timers and sockets.
pub async fn start(
    config: HubConfig,
    mut store: Store,
    metrics: Metrics,
) -> Result<(Engine, EngineThreads), EngineError> {
    let clock = Clock { origin: Instant::now() };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(EngineError::Entropy)?;
    let snapshot = store.load().await?;
    let reader = store.reader();
    let hub = Hub::new(config, snapshot, seed, clock.now());
    let (inbox, inputs) = mpsc::channel(INBOX_MAX);
    let (answers, from_store) = mpsc::channel(ANSWERS_MAX);
    let (batches, to_write) = mpsc::channel(1);
    let (end, ended) = oneshot::channel();
    let damaged = Arc::new(AtomicBool::new(false));
    let runtime = Handle::current();
    let writer = {
        let (runtime, answers, metrics) = (runtime.clone(), answers.clone(), metrics.clone());
        let damaged = Arc::clone(&damaged);
        thread("writer", move || runtime.block_on(write_on(store, to_write, answers, metrics, &damaged)))?
    };
    let ways = Ways { answers, batches, reader };
    let mut step = Step { hub, clock, inputs, from_store, ways, metrics, books: Books::default() };
    let hub = thread("hub", move || {
        let result = runtime.block_on(step.run());
        damaged.store(result.is_err(), Ordering::Release);
        // The writer ends with the last sender of batches, so the flag stands before.
        drop(step);
        if end.send(result).is_err() {
            tracing::debug!("Nobody waited for the hub's end.");
        }
    })?;
    let handle = Engine { inbox, next_socket: Arc::new(AtomicU64::new(0)) };
    Ok((handle, EngineThreads { ended, threads: vec![hub, writer] }))
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, EngineError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(EngineError::Thread)
}

#[cfg(test)]
mod tests;
