//! One mesh's engine, on a thread of its own because a commit blocks.
//!
//! 1. [`Engine::collect`]  what has arrived: until idle, or until the batch is full
//! 2. [`Engine::take_in`]  each of it into the machine
//! 3. [`Engine::drain`]    what the machine wants; its lookups are answered from the store at once
//! 4. commit               every write of the batch in one transaction
//! 5. [`Engine::act`]      only then transmit, reply and publish
//!
//! What is pure of that is [`Batch`](peerloom_proto::endpoint::Batch), which the simulator runs too.
//! The next inputs gather while a commit waits for the disk, so groups need no timer. When a commit
//! fails, nothing of its batch happened: the machine is rebuilt from the store, its links are closed,
//! and every caller is told.

mod handle;
mod lookups;
mod recover;
mod settings;
mod start;
mod timeline;
mod view;
mod waiting;
mod work;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use peerloom_proto::endpoint::{Batch, Endpoint, Fill, Input, LinkId, Output};
use peerloom_proto::{Now, PeerId};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, info, info_span, warn};

pub(crate) use self::handle::EngineHandle;
use self::lookups::StoreLookups;
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
use crate::views::Look;

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
struct Beside {
    local: Vec<LocalWrite>,
    /// Callers who wrote nothing else.
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
            let now = self.clock.now();
            let mut batch = Batch::begin(&mut self.endpoint, now);
            let beside = self.take_in(now, works);
            let done = self.drain(now, &mut batch).and_then(|()| self.commit(now, &batch, &beside));
            match done {
                Ok(()) => self.act(batch, beside),
                Err(error) => self.recover(error, beside),
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
        let mut fill = Fill::default();
        fill.add(self.follow_ups.len(), 0);
        let wait = self.wait();
        if !wait.is_zero() {
            let received = self.runtime.block_on(async { timeout(wait, self.queue.recv()).await });
            match received {
                Ok(Some(work)) => {
                    work.weigh(&mut fill);
                    works.push(work);
                }
                Ok(None) => return None,
                // Something is due.
                Err(_) => return Some(works),
            }
        }
        while !fill.is_full() {
            let Ok(work) = self.queue.try_recv() else { break };
            work.weigh(&mut fill);
            works.push(work);
        }
        Some(works)
    }

    /// How long there is nothing to do.
    fn wait(&self) -> Duration {
        if self.follow_ups.is_empty() { self.endpoint.idle(self.clock.now()) } else { Duration::ZERO }
    }

    fn take_in(&mut self, now: Now, works: Vec<Work>) -> Beside {
        let mut beside = Beside::default();
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
                    beside.local.extend(local);
                    if requests.is_empty() {
                        beside.unasked.push(answer);
                        continue;
                    }
                    let first = self.waiting.open(requests.len(), answer);
                    for (token, request) in (first..).zip(requests) {
                        self.endpoint.handle(now, Input::Request { token, request });
                    }
                }
                Work::Look { peer, answer } => {
                    if answer.send(Ok(self.look(now, peer))).is_err() {
                        debug!("Whoever looked is gone.");
                    }
                }
                Work::Stop(done) => {
                    self.endpoint.handle(now, Input::Stop);
                    self.stop = Some(done);
                }
            }
        }
        beside
    }

    fn look(&self, now: Now, peer: Option<PeerId>) -> Look {
        let views = peer.map(|_| self.endpoint.peer_views()).unwrap_or_default();
        Look {
            now,
            network: self.endpoint.network_view(),
            datagrams_dropped: self.links.datagrams_dropped(),
            checks: views.into_iter().find(|view| Some(view.peer) == peer).and_then(|view| view.checks),
            moments: peer.map(|peer| self.publisher.moments(&peer)).unwrap_or_default(),
        }
    }

    fn is_current(&self, source: Source) -> bool {
        match source {
            Source::Uplink(serial) => self.uplink.is_current(serial),
            Source::Link(link) => self.links.is_current(link),
            Source::Transport => true,
        }
    }

    fn drain(&mut self, now: Now, batch: &mut Batch) -> Result<(), StoreError> {
        let Self { runtime, writer, endpoint, .. } = self;
        let writer = writer.as_mut().ok_or(StoreError::Missing)?;
        batch.drain(endpoint, now, &mut StoreLookups { runtime, writer })
    }

    fn commit(&mut self, now: Now, batch: &Batch, beside: &Beside) -> Result<(), StoreError> {
        let writer = self.writer.as_mut().ok_or(StoreError::Missing)?;
        self.runtime.block_on(writer.commit(&batch.writes, &beside.local, now.wall))
    }

    /// Carries out what had to wait for the disk, in the machine's order.
    fn act(&mut self, batch: Batch, beside: Beside) {
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
                Output::Dial { conn, peer_cert, socket, candidates } => {
                    self.links.dial(conn, peer_cert, socket, &candidates);
                }
                Output::WebRtc(act) => self.links.over_webrtc(act),
                Output::SendDatagram { socket, to, datagram, ttl } => {
                    self.links.send_datagram(socket, to, &datagram, ttl);
                }
                Output::OpenSockets { conn, count } => {
                    self.follow_ups.push(self.links.open_sockets(conn, count));
                }
                Output::CloseSockets(sockets) => self.links.close_sockets(&sockets),
                Output::Forget(conn) => self.links.forget(conn),
                Output::Reply(token, reply) => {
                    self.publisher.note_reply(&reply);
                    self.waiting.reply(token, reply);
                }
                Output::Event(event) => self.publisher.event(event),
                lookup @ (Output::Write(_)
                | Output::LookupSent { .. }
                | Output::LookupSeen(_)
                | Output::Load(_)
                | Output::LoadEntries(_)) => unreachable!("drained before the commit: {lookup:?}"),
            }
        }
        for answer in beside.unasked {
            waiting::answer(answer, Ok(Vec::new()));
        }
        self.publisher.publish(&self.endpoint, self.clock.now().wall);
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

#[cfg(test)]
mod tests;
