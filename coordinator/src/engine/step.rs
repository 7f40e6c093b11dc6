//! The hub's thread: take what has arrived, hand it to the hub, carry out its commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use peerloom_proto::{Monotonic, Now, UnixMs};
use tokio::sync::{mpsc, oneshot};

use super::store_side::look_up;
use super::{EngineError, FromStore, ToHub};
use crate::batch::Batch;
use crate::hub::{Answer, Command, CommitFailure, HttpReply, HttpToken, Hub, Input, Query, ReadId, SocketId};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Outgoing, Pushed};
use crate::store::{Reader, StoreError};

/// Inputs taken in one step: with sixty-four frames each, a step stays in the milliseconds.
const STEP_INPUTS: usize = 32;

/// Rows that gather before sockets are not read on: what a commit takes a tenth of a second for, and
/// more than enough to hide an fsync.
const BACKLOG_WRITES_MAX: usize = 8_192;

/// Bytes of mail that gather before sockets are not read on. As much again is being written.
const BACKLOG_BYTES_MAX: usize = 16 << 20;

/// Counters are published at most this often: counting walks all queues.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// From the going-away frame to the close: what nodes had sent meanwhile is still taken.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// A drain ends after this, whatever is left. The service manager waits for ten seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// The only clock of the coordinator's machine.
pub(super) struct Clock {
    pub(super) origin: Instant,
}

impl Clock {
    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: Monotonic::from_origin(self.origin.elapsed()), wall: UnixMs::default().plus(wall) }
    }

    fn instant(&self, at: Monotonic) -> tokio::time::Instant {
        (self.origin + at.since_origin()).into()
    }
}

/// Where a drain stands.
#[derive(Clone, Copy, Debug)]
enum Drain {
    /// Everybody knows; sockets close at this instant.
    Told { close_at: Instant, end_by: Instant },
    /// Sockets are closing.
    Closing { end_by: Instant },
}

pub(super) struct Step {
    pub(super) hub: Hub,
    pub(super) clock: Clock,
    pub(super) inputs: mpsc::Receiver<ToHub>,
    pub(super) from_store: mpsc::Receiver<FromStore>,
    pub(super) ways: Ways,
    pub(super) metrics: Metrics,
    pub(super) books: Books,
}

/// Ways from the hub's thread to the store.
pub(super) struct Ways {
    pub(super) answers: mpsc::Sender<FromStore>,
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) reader: Reader,
}

/// What the thread keeps between steps.
#[derive(Default)]
pub(super) struct Books {
    sockets: BTreeMap<SocketId, Arc<Outbox>>,
    /// Sockets that got frames in this step, to be woken at its end.
    touched: Vec<SocketId>,
    replies: BTreeMap<HttpToken, oneshot::Sender<HttpReply>>,
    next_token: u64,
    gathering_since: Option<Instant>,
    writing_since: Option<Instant>,
    published: Option<Instant>,
    /// Whether a step ran since the counters were published.
    unpublished: bool,
    drain: Option<Drain>,
    /// Whether every handle is gone.
    deserted: bool,
}

impl Step {
    /// Runs until a drain is through, or the store is damaged.
    pub(super) async fn run(&mut self) -> Result<(), EngineError> {
        let mut arrived = Vec::with_capacity(STEP_INPUTS);
        let mut stored = Vec::with_capacity(STEP_INPUTS);
        // The first sweep is due at once.
        self.step(&mut arrived, &mut stored)?;
        loop {
            let deadline = self.deadline();
            let (rows, bytes) = self.hub.backlog();
            let has_room = rows < BACKLOG_WRITES_MAX && bytes < BACKLOG_BYTES_MAX;
            tokio::select! {
                biased;
                _ = self.from_store.recv_many(&mut stored, STEP_INPUTS) => {}
                count = self.inputs.recv_many(&mut arrived, STEP_INPUTS), if has_room && !self.books.deserted => {
                    if count == 0 {
                        // Every handle is gone: nobody can ask for a drain any more.
                        self.books.deserted = true;
                        self.begin_drain();
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
            while stored.len() < STEP_INPUTS
                && let Ok(more) = self.from_store.try_recv()
            {
                stored.push(more);
            }
            while has_room
                && arrived.len() < STEP_INPUTS
                && let Ok(more) = self.inputs.try_recv()
            {
                arrived.push(more);
            }
            self.step(&mut arrived, &mut stored)?;
            if self.has_drained() {
                self.metrics.publish(self.hub.counters());
                return Ok(());
            }
        }
    }

    fn step(&mut self, arrived: &mut Vec<ToHub>, stored: &mut Vec<FromStore>) -> Result<(), EngineError> {
        let now = self.clock.now();
        // First what the disk has done: it frees the writer for the next batch.
        for from_store in stored.drain(..) {
            let input = self.input_of(from_store)?;
            self.hub.handle(now, input);
        }
        for to_hub in arrived.drain(..) {
            self.arrived(now, to_hub);
        }
        if self.hub.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.hub.handle(now, Input::Timeout);
        }
        self.continue_drain();
        self.carry_out(now);
        if let Some(batch) = self.hub.take_batch(now) {
            self.books.writing_since = self.books.gathering_since.take();
            if self.ways.batches.try_send(batch).is_err() {
                // The hub gives one batch at a time, and the writer outlives this thread.
                return Err(EngineError::Panicked);
            }
        }
        if self.books.gathering_since.is_none() && self.hub.backlog().0 > 0 {
            self.books.gathering_since = Some(Instant::now());
        }
        self.books.unpublished = true;
        self.publish();
        Ok(())
    }

    fn deadline(&self) -> tokio::time::Instant {
        let hub = self.hub.poll_timeout().map(|at| self.clock.instant(at));
        let drain = self.books.drain.map(|drain| match drain {
            Drain::Told { close_at, .. } => close_at.into(),
            Drain::Closing { end_by } => end_by.into(),
        });
        let publish =
            self.books.published.filter(|_| self.books.unpublished).map(|at| (at + PUBLISH_EVERY).into());
        let idle = tokio::time::Instant::now() + Duration::from_secs(3_600);
        [hub, drain, publish].into_iter().flatten().min().unwrap_or(idle)
    }

    fn arrived(&mut self, now: Now, to_hub: ToHub) {
        let input = match to_hub {
            ToHub::Open { socket, addr, outbox } => {
                self.books.sockets.insert(socket, outbox);
                Input::Opened { socket, addr }
            }
            ToHub::Frames { socket, frames } => Input::Frames { socket, frames },
            ToHub::Closed { socket } => {
                self.books.sockets.remove(&socket);
                Input::Closed { socket }
            }
            ToHub::Http { addr, request, reply } => {
                let token = HttpToken(self.books.next_token);
                self.books.next_token += 1;
                self.books.replies.insert(token, reply);
                Input::Http { token, addr, request }
            }
            ToHub::Drain => return self.begin_drain(),
        };
        self.hub.handle(now, input);
        self.carry_out(now);
    }

    fn input_of(&mut self, from_store: FromStore) -> Result<Input, EngineError> {
        match from_store {
            FromStore::Committed(batch, commit) => {
                if let Some(since) = self.books.writing_since.take() {
                    self.metrics.accepted(since.elapsed());
                }
                Ok(Input::Committed { batch, commit })
            }
            FromStore::CommitFailed(batch, error) => {
                self.books.writing_since = None;
                match error {
                    StoreError::Full { settled, .. } => {
                        tracing::warn!(%error, settled, "Mail is refused until there is space.");
                        let failure =
                            if settled { CommitFailure::FullButSettled } else { CommitFailure::Nothing };
                        Ok(Input::CommitFailed { batch, failure })
                    }
                    fatal @ (StoreError::Corrupt { .. } | StoreError::Fenced { .. }) => Err(fatal.into()),
                    other @ (StoreError::Newer { .. }
                    | StoreError::Missing { .. }
                    | StoreError::Io { .. }
                    | StoreError::Sql { .. }) => {
                        tracing::error!(error = &other as &dyn std::error::Error, "A commit failed.");
                        Ok(Input::CommitFailed { batch, failure: CommitFailure::Nothing })
                    }
                }
            }
            FromStore::Fenced(fenced) => Err(fenced.into()),
            FromStore::Read(read, Ok(answer)) => Ok(Input::Read { read, answer }),
            FromStore::Read(_, Err(fatal @ StoreError::Corrupt { .. })) => Err(fatal.into()),
            FromStore::Read(read, Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "A read failed.");
                Ok(Input::Read { read, answer: Answer::Failed })
            }
        }
    }

    fn carry_out(&mut self, now: Now) {
        while let Some(command) = self.hub.poll_command() {
            match command {
                Command::Send { socket, frame } => {
                    let Some(outbox) = self.books.sockets.get(&socket) else { continue };
                    match outbox.push(Outgoing::Message(frame)) {
                        Pushed::Taken => self.books.touched.push(socket),
                        Pushed::Overflow => {
                            tracing::debug!("A node reads too slowly and is cut off.");
                            outbox.wake();
                            self.books.sockets.remove(&socket);
                            self.hub.handle(now, Input::Closed { socket });
                        }
                    }
                }
                Command::Close { socket } => {
                    if let Some(outbox) = self.books.sockets.remove(&socket) {
                        outbox.close();
                        outbox.wake();
                    }
                }
                Command::Read { read, query } => self.read(read, query),
                Command::Reply { token, reply } => {
                    let asked = self.books.replies.remove(&token);
                    if asked.is_some_and(|asked| asked.send(reply).is_err()) {
                        tracing::trace!("The client did not wait for its reply.");
                    }
                }
            }
        }
        self.books.touched.sort_unstable();
        self.books.touched.dedup();
        for socket in self.books.touched.drain(..) {
            if let Some(outbox) = self.books.sockets.get(&socket) {
                outbox.wake();
            }
        }
    }

    fn read(&self, read: ReadId, query: Query) {
        let (reader, answers) = (self.ways.reader.clone(), self.ways.answers.clone());
        tokio::spawn(async move {
            let answer = look_up(&reader, query).await;
            if answers.send(FromStore::Read(read, answer)).await.is_err() {
                tracing::trace!("The hub was gone before its answer.");
            }
        });
    }

    fn publish(&mut self) {
        if self.books.published.is_none_or(|at| at.elapsed() >= PUBLISH_EVERY) {
            self.books.published = Some(Instant::now());
            self.books.unpublished = false;
            self.metrics.publish(self.hub.counters());
        }
    }

    fn begin_drain(&mut self) {
        if self.books.drain.is_none() {
            let now = Instant::now();
            self.books.drain = Some(Drain::Told { close_at: now + DRAIN_GRACE, end_by: now + DRAIN_TIMEOUT });
            self.hub.handle(self.clock.now(), Input::Drain);
        }
    }

    fn continue_drain(&mut self) {
        match self.books.drain {
            Some(Drain::Told { close_at, end_by })
                if close_at <= Instant::now() || self.books.sockets.is_empty() =>
            {
                for outbox in self.books.sockets.values() {
                    outbox.close();
                    outbox.wake();
                }
                self.books.drain = Some(Drain::Closing { end_by });
            }
            Some(Drain::Told { .. } | Drain::Closing { .. }) | None => {}
        }
    }

    /// All sockets are gone and all is written, or it takes too long.
    fn has_drained(&self) -> bool {
        match self.books.drain {
            Some(Drain::Closing { end_by }) => {
                let done =
                    self.books.sockets.is_empty() && !self.hub.is_writing() && self.books.replies.is_empty();
                done || end_by <= Instant::now()
            }
            Some(Drain::Told { .. }) | None => false,
        }
    }
}
