//! Virtual time: what is to happen, keyed by (instant, order of planning), and the clock that jumps from
//! one happening to the next. Two things planned for one instant happen in the order they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerloom_coordinator::hub::{Answer, HttpReply, HttpRequest, Query, ReadId};
use peerloom_proto::endpoint::Input;
use peerloom_proto::{CertHash, ConnId};

use crate::flow::Packet;
use crate::internet::Travelling;
use crate::network::{Item, Payload, StreamId};

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection attempt reaches the other side.
    Knocked { stream: StreamId },
    /// A connection attempt that was not answered by then has failed.
    KnockEnds { stream: StreamId },
    /// Something reaches one end of a stream.
    Arrived { stream: StreamId, end: usize, carried: Carried },
    /// An end notices that its stream was cut.
    Noticed { stream: StreamId, end: usize },
    /// A packet of a flow reaches one end.
    Packet { stream: StreamId, end: usize, packet: Packet<Item> },
    /// A datagram reaches its recipient's NATs.
    Datagram { travelling: Travelling, payload: Payload },
    /// The transport below one end has something to do.
    FlowTimer { stream: StreamId, end: usize },
    /// A node's machine has something to do.
    NodeWakes { node: usize, serial: u64 },
    /// A node's disk has finished a transaction.
    NodeCommits { node: usize, life: u32 },
    /// An input that a node's host makes by itself.
    NodeHears { node: usize, life: u32, input: Input },
    /// A node's dial leaves.
    NodeDials {
        node: usize,
        life: u32,
        conn: ConnId,
        peer_cert: CertHash,
        socket: u16,
        candidates: Vec<SocketAddr>,
    },
    /// A node's process starts, if it does not run.
    NodeStarts { node: usize },
    /// A node whose store failed opens it again.
    NodeReopens { node: usize, life: u32 },
    /// A reader of a node's inbox looks for what is there.
    NodeReads { node: usize },
    /// The hub has something to do.
    HubWakes { process: u32, serial: u64 },
    /// The coordinator's disk has finished a transaction.
    HubCommits { process: u32 },
    /// A process of the coordinator notes that it goes on.
    HubLives { process: u32 },
    /// A read of the coordinator's store happens.
    HubReads { process: u32, read: ReadId, query: Query },
    /// Its answer reaches the hub.
    HubAnswers { process: u32, read: ReadId, answer: Answer },
    /// The coordinator's process starts, if it does not run.
    HubStarts,
    /// A program hands a message over, or tries again.
    Submits { message: usize },
    /// A planned fault begins or ends.
    Fault { index: usize },
    /// A dishonest coordinator says something on its own account.
    EvilSays { stream: StreamId, frame: Bytes },
    /// A hostile member does what it does next.
    HostileActs { hostile: usize },
    /// A node's invite for a stranger is made, or tried again.
    Invites { by: usize, node: usize },
    /// A stranger asks the coordinator for what it needs next.
    JoinerAsks { node: usize },
    /// Its request reaches the coordinator.
    HubAsked { token: u64, request: HttpRequest },
    /// The answer reaches the stranger.
    JoinerHears { token: u64, reply: HttpReply },
    /// No answer will come any more.
    JoinerWaits { node: usize, token: u64 },
    /// A node's revocation of another is asked for, or tried again.
    Revokes { by: usize, target: usize },
}

/// What a stream carries.
#[derive(Clone, Debug)]
pub(crate) enum Carried {
    /// The connection is made.
    Accepted,
    /// A whole frame.
    Frame(Bytes),
    /// The other end closed.
    End,
}

/// The clock and what is planned.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    now: Duration,
    /// The next first: when, in which order it was planned, and its place among `events`.
    planned: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    /// Kept apart from their order: events are large, and a heap moves what it holds.
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
}

impl Queue {
    /// Time since the world began.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Plans something.
    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Plans something for an instant; for the present one if that is past.
    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        self.order += 1;
        let place = self.free.pop().unwrap_or(self.events.len());
        if place == self.events.len() {
            self.events.push(None);
        }
        self.events[place] = Some(event);
        self.planned.push(Reverse((at.max(self.now), self.order, place)));
    }

    /// Moves the clock to the next happening, unless that lies behind `until`: then to `until`.
    pub(crate) fn next(&mut self, until: Duration) -> Option<Event> {
        if self.planned.peek().is_none_or(|Reverse((at, ..))| *at > until) {
            self.now = until.max(self.now);
            return None;
        }
        let Reverse((at, _, place)) = self.planned.pop()?;
        self.now = at;
        self.free.push(place);
        self.events[place].take()
    }
}
