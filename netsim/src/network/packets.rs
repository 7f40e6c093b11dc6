//! Streams as flows: packets over links that lose, delay, reorder and duplicate them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

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

/// What a datagram carries.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// STUN, for a machine.
    Stun(Bytes),
    /// A packet of a direct stream, for its transport.
    Packet { stream: StreamId, end: usize, packet: Packet<Item> },
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stun(bytes) => write!(f, "{} bytes of STUN", bytes.len()),
            Self::Packet { stream, end, packet } => write!(f, "{stream:?}.{end} {packet}"),
        }
    }
}

/// The addresses of a direct stream's ends, as each knows them.
#[derive(Debug)]
pub(super) struct Road {
    /// Each end's own socket; the dialled end's once something came.
    local: [Option<SocketAddr>; 2],
    /// Where each sends to. The dialler tries every candidate until one answers, and hears nobody else
    /// after that; the other end follows the dialler (RFC 9000 §9).
    remote: [Vec<SocketAddr>; 2],
}

impl Road {
    pub(super) fn new(from: SocketAddr, candidates: Vec<SocketAddr>) -> Self {
        Self { local: [Some(from), None], remote: [candidates, Vec::new()] }
    }

    /// Something came to an end. False if its transport takes nothing from there.
    fn came(&mut self, end: usize, at: SocketAddr, from: SocketAddr) -> bool {
        if end == 0 && (self.local[0] != Some(at) || !self.remote[0].contains(&from)) {
            return false;
        }
        self.local[end] = Some(at);
        self.remote[end] = vec![from];
        true
    }
}

/// The two ends of a stream's transport.
#[derive(Debug)]
pub(super) struct Flows {
    /// Of a direct stream.
    road: Option<Road>,
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
    pub(super) fn new(purpose: &Purpose, road: Option<Road>, now: Duration) -> Self {
        let manners = match purpose {
            Purpose::Uplink => TCP,
            Purpose::Direct { .. } => QUIC,
        };
        let ends = [0, 1].map(|_| Flow::new(manners, now));
        Self { road, ends, armed: [None; 2], silent: [false; 2] }
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
            let event = match item {
                Item::Knock => Event::Knocked { stream: id },
                Item::Carried(carried) => Event::Arrived { stream: id, end, carried },
            };
            queue.after(Duration::ZERO, event);
        }
        self.pump(queue, id, end);
    }

    /// Notes where a packet of a direct stream came from. False if it is not for this end.
    pub(crate) fn came(&mut self, id: StreamId, end: usize, at: SocketAddr, from: SocketAddr) -> bool {
        let road = self.flows(id).and_then(|flows| flows.road.as_mut());
        road.is_some_and(|road| road.came(end, at, from))
    }

    /// Where an end of a direct stream sees the other.
    pub(crate) fn remote(&self, id: StreamId, end: usize) -> Option<SocketAddr> {
        let road = self.streams.get(&id)?.flows.as_ref()?.road.as_ref()?;
        road.remote[end].first().copied()
    }

    /// Whether a stream goes over this socket.
    pub(crate) fn is_used(&self, place: Place, socket: SocketAddr) -> bool {
        self.ends_of(place).into_iter().any(|(id, end)| {
            let road = self.streams[&id].flows.as_ref().and_then(|flows| flows.road.as_ref());
            road.is_some_and(|road| road.local[end] == Some(socket))
        })
    }

    /// A node comes to another network, and its sockets with it. True if its own address is another there.
    pub(crate) fn renumber(&mut self, node: usize) -> bool {
        let Some(address) = self.internet.renumber(node) else { return false };
        for (id, end) in self.ends_of(Place::Node(node)) {
            let local = self.flows(id).and_then(|flows| flows.road.as_mut()?.local[end].as_mut());
            if let Some(local) = local {
                local.set_ip(address);
            }
        }
        true
    }

    /// Whether direct streams go by packets, between addresses.
    pub(crate) fn has_roads(&self) -> bool {
        self.shapes.direct.is_some()
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
        let (from, to, cut) = (stream.places[end], stream.places[1 - end], stream.cut);
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
        let road = flows.road.as_ref().map(|road| (road.local[end], road.remote[end].clone()));
        for (packet, bytes) in packets {
            match &road {
                None => {
                    for at in self.pass(queue.now(), from, to, bytes) {
                        let (end, packet) = (1 - end, packet.clone());
                        queue.at(at, Event::Packet { stream: id, end, packet });
                    }
                }
                Some((None, _)) => {}
                Some((Some(source), targets)) => {
                    for target in targets {
                        let payload = Payload::Packet { stream: id, end: 1 - end, packet: packet.clone() };
                        self.depart(queue, from, *source, *target, None, bytes, payload);
                    }
                }
            }
        }
    }

    /// A host sends a datagram from one of its addresses. `ttl` is the hops it may take.
    #[expect(clippy::too_many_arguments, reason = "a datagram's head, each by its name in RFC 791 and 768")]
    pub(crate) fn depart(
        &mut self,
        queue: &mut Queue,
        from: Place,
        source: SocketAddr,
        to: SocketAddr,
        ttl: Option<u8>,
        bytes: usize,
        payload: Payload,
    ) {
        let Some(travelling) = self.internet.send(queue.now(), from, source, to, ttl) else { return };
        let Some(towards) = self.internet.towards(&travelling) else { return };
        for at in self.pass(queue.now(), from, towards, bytes) {
            queue.at(at, Event::Datagram { travelling, payload: payload.clone() });
        }
    }

    /// When a datagram from one place arrives at the other: never, once or twice.
    fn pass(&mut self, now: Duration, from: Place, to: Place, bytes: usize) -> Vec<Duration> {
        if self.is_blocked(from, to) {
            return Vec::new();
        }
        let Some(shape) = self.shapes.between(from, to) else {
            let uplink = from == Place::Coordinator || to == Place::Coordinator;
            let delay = if uplink { self.uplink } else { self.direct };
            return vec![now + self.chance.between(delay.least, delay.least + delay.jitter)];
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
