//! The network: reliable streams between two places, with delay and jitter. Frames of one direction
//! arrive in order or not at all.
//!
//! A cut loses what is under way, and each end notices in its own time. A partition holds everything
//! back, closes too, until it heals: what a transport below would send again then arrives. A new
//! stream does not come about across a partition.
//!
//! That is the cheap way. Where the topology says what a link is like, its streams are flows of packets
//! (`packets`), and what a transport below would do happens: a partition loses packets, and delays and
//! deaths follow.

mod packets;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::limits::HANDSHAKE_TIMEOUT;
use peerloom_proto::{CertHash, ConnId};

use self::packets::{Flows, Road};
pub(crate) use self::packets::{Item, Packets, Payload};
use crate::chance::Chance;
use crate::internet::Internet;
use crate::link::{Link, Shape};
use crate::outside::Outside;
use crate::queue::{Carried, Event, Queue};

/// Where a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Node(usize),
    Coordinator,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Coordinator => f.write_str("the coordinator"),
        }
    }
}

/// One stream; never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// What a stream is for. End 0 dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Uplink,
    Direct { conn: ConnId, certs: [CertHash; 2] },
}

/// One way delay between two places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay {
    pub(crate) least: Duration,
    pub(crate) jitter: Duration,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) purpose: Purpose,
    pub(crate) places: [Place; 2],
    pub(crate) open: [bool; 2],
    /// Which ends know that it is made.
    pub(crate) announced: [bool; 2],
    cut: bool,
    /// Cut, and the dialler is told so when it sends something.
    resets: bool,
    /// Towards each end.
    ways: [Way; 2],
    /// Carries it packet by packet, where the link asks for it.
    flows: Option<Box<Flows>>,
}

#[derive(Debug, Default)]
struct Way {
    last: Duration,
    held: VecDeque<Carried>,
    held_bytes: usize,
}

/// All streams, and what stands between places.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) uplink: Delay,
    pub(crate) direct: Delay,
    pub(crate) internet: Internet,
    shapes: Shapes,
    links: BTreeMap<(Place, Place), Link>,
    seed: u64,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) packets: Packets,
    /// Who listens, when somebody does.
    pub(crate) outside: Option<Outside>,
    blocked: BTreeMap<(Place, Place), u32>,
    chance: Chance,
    next: u64,
}

/// What links are like, where they are not just a delay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shapes {
    pub(crate) uplink: Option<Shape>,
    pub(crate) direct: Option<Shape>,
}

impl Shapes {
    fn of(&self, purpose: &Purpose) -> Option<Shape> {
        match purpose {
            Purpose::Uplink => self.uplink,
            Purpose::Direct { .. } => self.direct,
        }
    }

    fn between(&self, from: Place, to: Place) -> Option<Shape> {
        if from == Place::Coordinator || to == Place::Coordinator { self.uplink } else { self.direct }
    }
}

/// How late the slower end may notice a cut.
const NOTICE_MAX: Duration = Duration::from_secs(2);

/// How long after a partition the layer below may take to send again.
const RESEND_MAX: Duration = Duration::from_millis(800);

impl Network {
    pub(crate) fn new(uplink: Delay, direct: Delay, shapes: Shapes, internet: Internet, seed: u64) -> Self {
        Self {
            uplink,
            direct,
            internet,
            shapes,
            links: BTreeMap::new(),
            seed,
            streams: BTreeMap::new(),
            packets: Packets::default(),
            outside: None,
            blocked: BTreeMap::new(),
            chance: Chance::new(seed, "network", "delays"),
            next: 1,
        }
    }

    /// Begins to connect. The dialler's host hears of the outcome.
    pub(crate) fn connect(&mut self, queue: &mut Queue, purpose: Purpose, places: [Place; 2]) -> StreamId {
        self.begin(queue, purpose, places, None)
    }

    /// The same from an address of the dialler to those where the other may be, where direct streams go
    /// by packets.
    pub(crate) fn dial(
        &mut self,
        queue: &mut Queue,
        purpose: Purpose,
        places: [Place; 2],
        from: SocketAddr,
        candidates: Vec<SocketAddr>,
    ) -> StreamId {
        self.begin(queue, purpose, places, Some(Road::new(from, candidates)))
    }

    fn begin(
        &mut self,
        queue: &mut Queue,
        purpose: Purpose,
        places: [Place; 2],
        road: Option<Road>,
    ) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        let stream = Stream {
            purpose,
            places,
            open: [true, false],
            announced: [false; 2],
            cut: false,
            resets: false,
            ways: [Way::default(), Way::default()],
            flows: self.shapes.of(&purpose).map(|_| Box::new(Flows::new(&purpose, road, queue.now()))),
        };
        if let Some(outside) = &mut self.outside {
            outside.dials(queue.now(), id);
        }
        let by_packets = stream.flows.is_some();
        self.streams.insert(id, stream);
        if by_packets {
            self.say(queue, id, 0, Item::Knock);
        } else if !self.is_blocked(places[0], places[1]) {
            let delay = self.delay(&purpose);
            queue.after(delay, Event::Knocked { stream: id });
        }
        queue.after(HANDSHAKE_TIMEOUT, Event::KnockEnds { stream: id });
        id
    }

    /// The end that was dialled takes the stream.
    pub(crate) fn accept(&mut self, queue: &mut Queue, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.open[1] = true;
            self.push(queue, id, 0, Carried::Accepted);
        }
    }

    /// The dialler learned that it is made; of a direct stream the other end is to know too.
    pub(crate) fn confirm(&mut self, queue: &mut Queue, id: StreamId) {
        self.push(queue, id, 1, Carried::Accepted);
    }

    /// The other end takes no stream.
    pub(crate) fn refuse(&mut self, queue: &mut Queue, id: StreamId) {
        self.push(queue, id, 0, Carried::End);
    }

    /// Sends a frame from one end. Gives the bytes that wait behind a partition or for acknowledgement.
    pub(crate) fn send(&mut self, queue: &mut Queue, id: StreamId, from: usize, frame: Bytes) -> usize {
        let Some(stream) = self.streams.get(&id) else { return 0 };
        let (open, purpose) = (stream.open[from], stream.purpose);
        if stream.resets && from == 0 {
            queue.after(self.round_trip(&purpose), Event::Noticed { stream: id, end: from });
        }
        if open { self.push(queue, id, 1 - from, Carried::Frame(frame)) } else { 0 }
    }

    /// One end closes; what it sent before still arrives.
    pub(crate) fn close(&mut self, queue: &mut Queue, id: StreamId, end: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::replace(&mut stream.open[end], false) {
            self.push(queue, id, 1 - end, Carried::End);
        }
        self.forget_if_over(id);
    }

    /// One end's process dies. Of a flow over UDP nobody is left to say so.
    pub(crate) fn abandon(&mut self, queue: &mut Queue, id: StreamId, end: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match (&stream.purpose, &mut stream.flows) {
            (Purpose::Direct { .. }, Some(flows)) => {
                flows.silence(end);
                self.ended(id, end);
            }
            (Purpose::Uplink | Purpose::Direct { .. }, _) => self.close(queue, id, end),
        }
    }

    /// An end learned that the other is gone.
    pub(crate) fn ended(&mut self, id: StreamId, end: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.open[end] = false;
        }
        self.forget_if_over(id);
    }

    /// Loses the connection and everything under way on it.
    pub(crate) fn cut(&mut self, queue: &mut Queue, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.cut = true;
        for end in 0..2 {
            let delay = self.chance.between(Duration::ZERO, NOTICE_MAX);
            queue.after(delay, Event::Noticed { stream: id, end });
        }
    }

    /// The dialler's own address is gone: nothing passes any more, and nobody says so.
    pub(crate) fn strand(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.cut = true;
        }
    }

    /// The dialler is seen at another address: nothing passes any more, and the other end's machine
    /// answers what it sends from there with a reset.
    pub(crate) fn strand_outside(&mut self, id: StreamId) {
        self.strand(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.resets = true;
        }
    }

    /// Whether what arrives at this end is for a process that still listens.
    pub(crate) fn is_heard(&self, id: StreamId, end: usize) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.open[end] && !stream.cut)
    }

    /// Whether this end stands, cut or not.
    pub(crate) fn is_open(&self, id: StreamId, end: usize) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.open[end])
    }

    /// Streams that a place has an open end of, with that end.
    pub(crate) fn ends_of(&self, place: Place) -> Vec<(StreamId, usize)> {
        let ends = self.streams.iter().flat_map(|(id, stream)| [(*id, 0, stream), (*id, 1, stream)]);
        ends.filter(|(_, end, stream)| stream.open[*end] && stream.places[*end] == place)
            .map(|(id, end, _)| (id, end))
            .collect()
    }

    /// Direct streams that are made and not cut.
    pub(crate) fn direct_streams(&self) -> Vec<(StreamId, [Place; 2])> {
        let direct = |stream: &&Stream| match stream.purpose {
            Purpose::Direct { .. } => stream.announced[0] && !stream.cut,
            Purpose::Uplink => false,
        };
        let made = self.streams.iter().filter(|(_, stream)| direct(stream));
        made.map(|(id, stream)| (*id, stream.places)).collect()
    }

    /// Nothing passes in this direction until as many `unblock`s.
    pub(crate) fn block(&mut self, from: Place, to: Place) {
        *self.blocked.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn unblock(&mut self, queue: &mut Queue, from: Place, to: Place) {
        let Some(count) = self.blocked.get_mut(&(from, to)) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.blocked.remove(&(from, to));
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            for end in 0..2 {
                if self.streams[&id].places[1 - end] == from && self.streams[&id].places[end] == to {
                    self.release(queue, id, end);
                }
            }
        }
    }

    pub(crate) fn is_blocked(&self, from: Place, to: Place) -> bool {
        self.blocked.contains_key(&(from, to))
    }

    /// A round trip of this kind of stream without jitter.
    pub(crate) fn round_trip(&self, purpose: &Purpose) -> Duration {
        match purpose {
            Purpose::Uplink => self.uplink.least * 2,
            Purpose::Direct { .. } => self.direct.least * 2,
        }
    }

    fn delay(&mut self, purpose: &Purpose) -> Duration {
        let delay = match purpose {
            Purpose::Uplink => self.uplink,
            Purpose::Direct { .. } => self.direct,
        };
        self.chance.between(delay.least, delay.least + delay.jitter)
    }

    fn push(&mut self, queue: &mut Queue, id: StreamId, end: usize, carried: Carried) -> usize {
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        if let Some(outside) = &mut self.outside {
            outside.passes(queue.now(), id, end, &stream.purpose, &carried);
        }
        if stream.flows.is_some() {
            return self.say(queue, id, 1 - end, Item::Carried(carried));
        }
        let (from, to) = (stream.places[1 - end], stream.places[end]);
        let way = &mut stream.ways[end];
        if self.blocked.contains_key(&(from, to)) || !way.held.is_empty() {
            if let Carried::Frame(frame) = &carried {
                way.held_bytes += frame.len();
            }
            way.held.push_back(carried);
            return way.held_bytes;
        }
        let purpose = stream.purpose;
        let delay = self.delay(&purpose);
        self.schedule(queue, id, end, delay, carried);
        0
    }

    fn schedule(&mut self, queue: &mut Queue, id: StreamId, end: usize, delay: Duration, carried: Carried) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let way = &mut stream.ways[end];
        way.last = way.last.max(queue.now() + delay);
        queue.at(way.last, Event::Arrived { stream: id, end, carried });
    }

    fn release(&mut self, queue: &mut Queue, id: StreamId, end: usize) {
        let delay = self.chance.between(Duration::ZERO, RESEND_MAX);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let way = &mut stream.ways[end];
        way.held_bytes = 0;
        for carried in std::mem::take(&mut way.held) {
            self.schedule(queue, id, end, delay, carried);
        }
    }

    /// Without listeners nothing that is under way matters. A dialled end that never was open still
    /// may be: the dialler's close reaches it as an arrival that nobody hears.
    fn forget_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.open == [false, false]) {
            self.streams.remove(&id);
        }
    }
}
