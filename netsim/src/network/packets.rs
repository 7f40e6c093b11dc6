//! Streams as flows: packets over links that lose, delay, reorder and duplicate them.

use std::time::Duration;

use super::{Network, Place, Purpose, StreamId};
use crate::flow::{Flow, Packet, QUIC, TCP};
use crate::link::Link;
use crate::queue::{Carried, Event, Queue};

/// What a flow delivers, in order.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The dialler's first word.
    Knock,
    Carried(Carried),
}

/// The two ends of a stream's transport.
#[derive(Debug)]
pub(super) struct Flows {
    ends: [Flow<Item>; 2],
    /// For when each end's timer is planned.
    armed: [Option<Duration>; 2],
    /// Says and hears nothing any more.
    silent: [bool; 2],
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packets {
    pub(crate) sent: u64,
    /// On the link: not those that met a partition.
    pub(crate) lost: u64,
    /// Received though they had been received before.
    pub(crate) repeated: u64,
}

/// A handshake's message with its certificates.
const HANDSHAKE_BYTES: usize = 900;

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Knock | Self::Carried(Carried::Accepted) => HANDSHAKE_BYTES,
            Self::Carried(Carried::Frame(frame)) => frame.len(),
            Self::Carried(Carried::End) => 0,
        }
    }
}

impl Flows {
    pub(super) fn new(purpose: &Purpose, now: Duration) -> Self {
        let manners = match purpose {
            Purpose::Uplink => TCP,
            Purpose::Direct { .. } => QUIC,
        };
        let ends = [0, 1].map(|_| Flow::new(manners, now));
        Self { ends, armed: [None; 2], silent: [false; 2] }
    }

    /// An end's process is no more.
    pub(super) fn silence(&mut self, end: usize) {
        self.silent[end] = true;
    }
}

impl Network {
    /// An end hands its transport something. Gives the bytes that are not acknowledged.
    pub(super) fn say(&mut self, queue: &mut Queue, id: StreamId, end: usize, item: Item) -> usize {
        let Some(flows) = self.flows(id) else { return 0 };
        let bytes = item.bytes();
        flows.ends[end].push(item, bytes);
        let waiting = flows.ends[end].unacknowledged();
        self.pump(queue, id, end);
        waiting
    }

    /// A packet reaches one end; what it completes is heard at this instant.
    pub(crate) fn packet_arrived(
        &mut self,
        queue: &mut Queue,
        id: StreamId,
        end: usize,
        packet: Packet<Item>,
    ) {
        if self.streams.get(&id).is_none_or(|stream| stream.cut) {
            return;
        }
        let Some(flows) = self.flows(id).filter(|flows| !flows.silent[end]) else { return };
        let repeats = flows.ends[end].repeats();
        let items = flows.ends[end].heard(queue.now(), packet);
        let repeated = flows.ends[end].repeats() - repeats;
        self.packets.repeated += repeated;
        for item in items {
            queue.after(
                Duration::ZERO,
                match item {
                    Item::Knock => Event::Knocked { stream: id },
                    Item::Carried(carried) => Event::Arrived { stream: id, end, carried },
                },
            );
        }
        self.pump(queue, id, end);
    }

    /// A timer of an end's transport may be due.
    pub(crate) fn flow_timer(&mut self, queue: &mut Queue, id: StreamId, end: usize) {
        let now = queue.now();
        let Some(flows) = self.flows(id) else { return };
        if flows.armed[end].take_if(|at| *at <= now).is_none() || flows.silent[end] {
            return;
        }
        if flows.ends[end].timeout(now) {
            flows.silence(end);
            return queue.after(Duration::ZERO, Event::Noticed { stream: id, end });
        }
        self.pump(queue, id, end);
    }

    fn flows(&mut self, id: StreamId) -> Option<&mut Flows> {
        self.streams.get_mut(&id)?.flows.as_deref_mut()
    }

    /// Sends what an end's transport wants sent, and plans its timer.
    fn pump(&mut self, queue: &mut Queue, id: StreamId, end: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (purpose, from, to, cut) =
            (stream.purpose, stream.places[end], stream.places[1 - end], stream.cut);
        let Some(flows) = stream.flows.as_deref_mut().filter(|flows| !flows.silent[end] && !cut) else {
            return;
        };
        let mut packets = Vec::new();
        while let Some(packet) = flows.ends[end].poll_packet(queue.now()) {
            packets.push(packet);
        }
        let due = flows.ends[end].deadline();
        if let Some(due) = due.filter(|due| flows.armed[end].is_none_or(|armed| *due < armed)) {
            flows.armed[end] = Some(due);
            queue.at(due, Event::FlowTimer { stream: id, end });
        }
        for (packet, bytes) in packets {
            let arrivals = self.pass(queue.now(), &purpose, from, to, bytes);
            for at in arrivals {
                let (end, packet) = (1 - end, packet.clone());
                queue.at(at, Event::Packet { stream: id, end, packet });
            }
        }
    }

    /// When a datagram from one place arrives at the other: never, once or twice.
    fn pass(
        &mut self,
        now: Duration,
        purpose: &Purpose,
        from: Place,
        to: Place,
        bytes: usize,
    ) -> Vec<Duration> {
        let Some(shape) = self.shapes.of(purpose).filter(|_| !self.is_blocked(from, to)) else {
            return Vec::new();
        };
        let seed = self.seed;
        let link = self.links.entry((from, to));
        let link = link.or_insert_with(|| Link::new(shape, seed, &format!("link from {from} to {to}")));
        let arrivals: Vec<Duration> = link.pass(now, bytes).collect();
        self.packets.sent += 1;
        self.packets.lost += u64::from(arrivals.is_empty());
        arrivals
    }
}
