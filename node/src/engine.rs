//! One mesh's engine, on a thread of its own because a commit blocks.
//!
//! 1. [`Engine::collect`]  what has arrived: until idle, 256 inputs or 1 MiB
//! 2. [`Engine::take_in`]  each of it into the machine
//! 3. [`Engine::drain`]    what the machine wants; its lookups are answered from the store at once
//! 4. commit               every write of the batch in one transaction
//! 5. [`Engine::act`]      only then transmit, reply and publish
//!
//! The next inputs gather while a commit waits for the disk, so groups need no timer. When a commit
//! fails, nothing of its batch happened: the machine is rebuilt from the store, its links are closed,
//! and every caller is told.

mod handle;
mod recover;
mod settings;
mod start;
mod view;
mod waiting;
mod work;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use peerloom_proto::endpoint::{Endpoint, Input, LinkId, Output, Token, Write};
use peerloom_proto::{MessageId, PeerId};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, info, info_span, warn};

pub(crate) use self::handle::EngineHandle;
use self::settings::Identity;
pub(crate) use self::start::start;
use self::view::Publisher;
use self::waiting::Waiting;
use self::work::{Answers, Work};
pub(crate) use self::work::{Inlet, Source};
use crate::clock::Clock;
use crate::daemon::StartError;
use crate::home::MeshInfo;
use crate::links::Links;
use crate::mesh::EngineError;
use crate::store::{LocalWrite, Reader, StoreError, Writer};
use crate::uplink::Uplink;

struct Engine {
    /// Blocks this thread on the store; nothing else runs on it.
    runtime: Runtime,
    clock: Clock,
    path: PathBuf,
    identity: Identity,
    endpoint: Endpoint,
    /// None between a failed commit and the next successful opening.
    writer: Option<Writer>,
    reader: Reader,
    queue: mpsc::Receiver<Work>,
    uplink: Uplink,
    links: Links,
    waiting: Waiting,
    publisher: Publisher,
    /// What acting on the last batch led to.
    follow_ups: Vec<Input>,
    /// Commits that failed since the last that did not.
    failures: u32,
    /// Who asked for the end, once somebody did.
    stop: Option<oneshot::Sender<()>>,
}

/// What a batch has gathered beside the machine.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    local: Vec<LocalWrite>,
    acts: Vec<Output>,
    /// Callers who only wrote beside the machine.
    unasked: Vec<oneshot::Sender<Answers>>,
}

impl Engine {
    fn spawn(self, info: &MeshInfo) -> Result<(), StartError> {
        let span = info_span!("mesh", name = %info.name, id = %info.id.short());
        let thread = std::thread::Builder::new().name("engine".to_owned());
        thread.spawn(move || span.in_scope(|| self.run())).map_err(StartError::Thread)?;
        Ok(())
    }

    fn run(mut self) {
        info!("Mesh started.");
        loop {
            let Some(works) = self.collect() else { break };
            let mut batch = Batch::default();
            self.take_in(works, &mut batch);
            let done = self.drain(&mut batch).and_then(|()| self.commit(&batch));
            match done {
                Ok(()) => self.act(batch),
                Err(error) => self.recover(error, batch),
            }
            if self.stop.is_some() {
                break;
            }
        }
        self.shut();
    }

    /// Waits for the first thing to do and takes what else is there. None when nobody can ask any more.
    fn collect(&mut self) -> Option<Vec<Work>> {
        let mut works = Vec::new();
        let (mut inputs, mut bytes) = (self.follow_ups.len(), 0);
        let wait = self.wait();
        if !wait.is_zero() {
            let received = self.runtime.block_on(async { timeout(wait, self.queue.recv()).await });
            match received {
                Ok(Some(work)) => {
                    work.weigh(&mut inputs, &mut bytes);
                    works.push(work);
                }
                Ok(None) => return None,
                // Something is due.
                Err(_) => return Some(works),
            }
        }
        while inputs < BATCH_INPUTS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(work) = self.queue.try_recv() else { break };
            work.weigh(&mut inputs, &mut bytes);
            works.push(work);
        }
        Some(works)
    }

    /// How long there is nothing due. The runtime's timers stop while the machine sleeps and the
    /// clock does not, so no wait is long.
    fn wait(&self) -> Duration {
        if !self.follow_ups.is_empty() {
            return Duration::ZERO;
        }
        let now = self.clock.now();
        let due = self.endpoint.poll_timeout(now);
        due.map_or(WAIT_MAX, |due| due.since(now.monotonic).min(WAIT_MAX))
    }

    fn take_in(&mut self, works: Vec<Work>, batch: &mut Batch) {
        let now = self.clock.now();
        if self.endpoint.poll_timeout(now).is_some_and(|due| due <= now.monotonic) {
            self.endpoint.handle(now, Input::Timeout);
        }
        for input in std::mem::take(&mut self.follow_ups) {
            self.endpoint.handle(now, input);
        }
        for work in works {
            match work {
                Work::Input { source, input } => {
                    if self.is_current(source) {
                        self.publisher.note_input(&input);
                        self.endpoint.handle(now, input);
                    }
                }
                Work::Frames { source, frames, room } => {
                    if self.is_current(source) {
                        for frame in frames {
                            let input = match source {
                                Source::Link(link) => Input::LinkFrame(link, frame),
                                Source::Uplink(_) | Source::Transport => Input::UplinkFrame(frame),
                            };
                            self.endpoint.handle(now, input);
                        }
                    }
                    drop(room);
                }
                Work::Requests { requests, local, answer } => {
                    batch.local.extend(local);
                    if requests.is_empty() {
                        batch.unasked.push(answer);
                        continue;
                    }
                    let first = self.waiting.open(requests.len(), answer);
                    for (token, request) in (first..).zip(requests) {
                        self.endpoint.handle(now, Input::Request { token, request });
                    }
                }
                Work::Stop(done) => {
                    self.endpoint.handle(now, Input::Stop);
                    self.stop = Some(done);
                }
            }
        }
    }

    fn is_current(&self, source: Source) -> bool {
        match source {
            Source::Uplink(serial) => self.uplink.is_current(serial),
            Source::Link(link) => self.links.is_current(link),
            Source::Transport => true,
        }
    }

    /// Takes everything the machine wants, answering its lookups until it has none.
    fn drain(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        loop {
            let now = self.clock.now();
            self.endpoint.finish_batch(now);
            let mut asked = Questions::default();
            while let Some(output) = self.endpoint.poll_output() {
                match output {
                    Output::Write(write) => batch.writes.push(write),
                    Output::LookupSent { token, id } => asked.sent.push((token, id)),
                    Output::LookupSeen(keys) => asked.seen.push(keys),
                    Output::Load(rows) => asked.rows.extend(rows),
                    act @ (Output::ConnectUplink
                    | Output::CloseUplink(_)
                    | Output::SendUplink(_)
                    | Output::SendLink(..)
                    | Output::CloseLink(_)
                    | Output::Expect { .. }
                    | Output::Dial { .. }
                    | Output::Forget(_)
                    | Output::Reply(..)
                    | Output::Event(_)) => batch.acts.push(act),
                }
            }
            if asked.is_empty() {
                return Ok(());
            }
            for input in self.answers(asked, batch)? {
                self.endpoint.handle(now, input);
            }
        }
    }

    fn answers(&mut self, asked: Questions, batch: &Batch) -> Result<Vec<Input>, StoreError> {
        let writer = self.writer.as_mut().ok_or(StoreError::Missing)?;
        self.runtime.block_on(async {
            let mut inputs = Vec::new();
            if !asked.sent.is_empty() {
                let ids: Vec<_> = asked.sent.iter().map(|(_, id)| *id).collect();
                let found = writer.sent(&ids).await?;
                let answers = asked.sent.iter().zip(found);
                inputs.extend(answers.map(|((token, _), rows)| Input::Sent { token: *token, rows }));
            }
            for keys in &asked.seen {
                inputs.push(Input::Seen { rows: writer.seen(keys).await? });
            }
            if !asked.rows.is_empty() {
                inputs.push(Input::Loaded(writer.load(&asked.rows, &batch.writes).await?));
            }
            Ok(inputs)
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let wall = self.clock.now().wall;
        let writer = self.writer.as_mut().ok_or(StoreError::Missing)?;
        self.runtime.block_on(writer.commit(&batch.writes, &batch.local, wall))
    }

    /// Carries out what had to wait for the disk, in the machine's order.
    fn act(&mut self, batch: Batch) {
        if !batch.writes.is_empty() {
            self.failures = 0;
        }
        for write in &batch.writes {
            self.publisher.note_write(write);
        }
        if self.publisher.wants_recount() {
            self.recount();
        }
        let mut given_up: BTreeSet<LinkId> = BTreeSet::new();
        for act in batch.acts {
            match act {
                Output::ConnectUplink => self.uplink.connect(),
                Output::CloseUplink(why) => {
                    debug!(%why, "The uplink is closed.");
                    self.uplink.close();
                }
                Output::SendUplink(frame) => {
                    if let Err(why) = self.uplink.send(frame) {
                        warn!(%why, "The uplink is given up.");
                        self.follow_ups.push(Input::UplinkClosed(why));
                    }
                }
                Output::SendLink(link, frame) => {
                    if !self.links.send(link, frame) && given_up.insert(link) {
                        self.follow_ups.push(Input::LinkClosed(link));
                    }
                }
                Output::CloseLink(link) => self.links.close(link),
                Output::Expect { conn, peer_cert } => self.links.expect(conn, peer_cert),
                Output::Dial { conn, peer_cert, candidates } => {
                    self.links.dial(conn, peer_cert, &candidates);
                }
                Output::Forget(conn) => self.links.forget(conn),
                Output::Reply(token, reply) => self.waiting.reply(token, reply),
                Output::Event(event) => self.publisher.event(event),
                lookup @ (Output::Write(_)
                | Output::LookupSent { .. }
                | Output::LookupSeen(_)
                | Output::Load(_)) => unreachable!("drained before the commit: {lookup:?}"),
            }
        }
        for answer in batch.unasked {
            waiting::answer(answer, Ok(Vec::new()));
        }
        self.publisher.publish(&self.endpoint);
    }

    fn recount(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        match self.runtime.block_on(writer.failed()) {
            Ok(failed) => self.publisher.recounted(failed),
            Err(error) => warn!(%error, "The failed rows cannot be counted."),
        }
    }

    fn shut(mut self) {
        self.waiting.fail_all(&EngineError::Stopped);
        let Self { runtime, uplink, links, reader, .. } = &mut self;
        runtime.block_on(async {
            uplink.stop().await;
            links.stop().await;
            reader.close().await;
        });
        if let Some(writer) = self.writer.take()
            && let Err(error) = self.runtime.block_on(writer.close())
        {
            warn!(%error, "The store did not close in order; it is whole all the same.");
        }
        info!("Mesh stopped.");
        if self.stop.take().is_some_and(|stop| stop.send(()).is_err()) {
            debug!("Nobody waits for the mesh to stop.");
        }
    }
}

/// What the machine asks of the store in the middle of a batch.
#[derive(Default)]
struct Questions {
    sent: Vec<(Token, MessageId)>,
    seen: Vec<Vec<(PeerId, MessageId)>>,
    rows: Vec<u64>,
}

impl Questions {
    fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.seen.is_empty() && self.rows.is_empty()
    }
}

/// Inputs of one batch: beyond it the commit would keep the first waiting.
const BATCH_INPUTS_MAX: usize = 256;

/// Bytes of frames in one batch, for the same reason.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The longest sleep: how late a deadline may be noticed after a suspend.
const WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
