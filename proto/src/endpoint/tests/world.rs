//! The world the endpoint is tested in: nodes with disks, a coordinator, direct links between them,
//! one virtual clock. Everything happens in one order; nothing sleeps.

mod host;
mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use network::Place;
pub(super) use network::Site;

use super::coordinator::{Coordinator, Socket};
use super::disk::Disk;
use super::mesh::{COORDINATOR, EXPORTER, T0, cert, key, log_of, origin, settings};
use crate::bind::BindTransport;
use crate::body::Message;
use crate::endpoint::{
    Endpoint, Event, HeldPrekey, Input, LinkId, OpenedLink, OutboxState, Reply, Request, Send, Token,
    WebRtcAct,
};
use crate::envelope::Priority;
use crate::id::{CertHash, ConnId, MessageId, PeerId};
use crate::key::{BoxSecretKey, IdentityKey};
use crate::limits::MESSAGE_LIFE_MAX;
use crate::roster::WireEntry;
use crate::signal::Means;
use crate::time::{Monotonic, Now};
use crate::wire::{OnLink, ToNode};

/// Nodes by place. Alice is the admin.
pub(super) const ALICE: usize = 0;
pub(super) const BOB: usize = 1;
pub(super) const CAROL: usize = 2;

/// One way to the coordinator, and one way on a direct link.
pub(super) const RELAY_DELAY: Duration = Duration::from_millis(10);
pub(super) const LINK_DELAY: Duration = Duration::from_millis(2);

/// Where a batch is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    BeforeCommit,
    AfterCommit,
}

/// Whether sockets between nodes can be made, and whether made ones carry anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direct {
    Works,
    /// Links stay open and swallow everything.
    Silent,
    Blocked,
}

pub(super) struct Node {
    pub(super) key: IdentityKey,
    pub(super) endpoint: Endpoint,
    pub(super) disk: Disk,
    pub(super) events: Vec<Event>,
    pub(super) running: bool,
    /// What it makes links with, from its next start on.
    pub(super) means: Means,
    /// How far its wall clock is ahead.
    pub(super) ahead: Duration,
    pub(super) batches: u64,
    /// The batch to be cut short, and how.
    pub(super) crash_at: Option<(u64, Crash)>,
    inputs: VecDeque<Input>,
    replies: BTreeMap<Token, Reply>,
    socket: Option<Socket>,
    expecting: BTreeMap<ConnId, CertHash>,
    life: u8,
}

#[derive(Debug)]
enum Happening {
    UplinkAnswered { node: usize, socket: Socket },
    ToCoordinator(Socket, Bytes),
    ToNode(Socket, ToNode),
    UplinkClosed(Socket),
    Dialled { node: usize, life: u8, dial: Dial },
    Accepted { node: usize, life: u8, opened: OpenedLink },
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Bytes },
    LinkFrame(LinkId, Bytes),
    LinkClosed { node: usize, life: u8, link: LinkId },
}

#[derive(Debug)]
struct Dial {
    conn: ConnId,
    peer_cert: CertHash,
    socket: u16,
    candidates: Vec<SocketAddr>,
    transport: BindTransport,
}

/// One end of a direct link.
struct Half {
    node: usize,
    other: LinkId,
}

pub(super) struct World {
    pub(super) coordinator: Coordinator,
    pub(super) nodes: Vec<Node>,
    pub(super) direct: Direct,
    pub(super) coordinator_up: bool,
    /// What the TLS sessions of the two sides export; equal unless someone stands between.
    pub(super) exporter_of_dialler: [u8; 32],
    /// Envelopes seen on direct links.
    pub(super) linked: Vec<(MessageId, Bytes)>,
    pub(super) links_made: u64,
    /// One way to the coordinator.
    pub(super) relay_delay: Duration,
    /// One way between two nodes.
    pub(super) link_delay: Duration,
    /// Every so manieth datagram is lost.
    pub(super) lose_every: Option<u64>,
    /// The network swallows what goes to a port that a NAT did not announce.
    pub(super) guesses_miss: bool,
    /// Datagrams sent.
    pub(super) datagrams: u64,
    /// QUIC's packets are swallowed, whatever else gets through.
    pub(super) quic_blocked: bool,
    /// What was done over WebRTC.
    pub(super) webrtc: Vec<(usize, WebRtcAct)>,
    /// Further sockets of each node.
    pub(super) sockets_open: Vec<Vec<u16>>,
    places: Vec<Place>,
    clock: Duration,
    happenings: BTreeMap<(Duration, u64), Happening>,
    order: u64,
    spins: u32,
    sockets: BTreeMap<Socket, usize>,
    /// Sockets whose far end waits at an address that its node no longer has.
    stranded: BTreeSet<Socket>,
    /// Links up to this one swallow everything.
    dead_links: LinkId,
    links: BTreeMap<LinkId, Half>,
    next_id: u64,
}

impl World {
    /// Members 0 to `count`, connected, with direct links possible or not.
    pub(super) fn new(count: u8, direct: Direct) -> Self {
        let mut world = Self::asleep(count, direct);
        (0..usize::from(count)).for_each(|node| world.start(node));
        world.settle();
        world
    }

    /// Two members, each behind its NAT, `delay` apart by relay and directly.
    pub(super) fn behind(sites: [Site; 2], delay: Duration) -> Self {
        let mut world = Self::asleep(2, Direct::Works);
        world.relay_delay = delay / 2;
        world.link_delay = delay;
        world.places = sites.iter().enumerate().map(|(node, site)| Place::new(node, *site)).collect();
        (0..2).for_each(|node| world.start(node));
        world.settle();
        world
    }

    /// The same, with every node still switched off.
    pub(super) fn asleep(count: u8, direct: Direct) -> Self {
        let (log, roster) = log_of(count);
        let coordinator = Coordinator::new(key(COORDINATOR), origin(), log.clone(), roster.clone());
        let nodes = (0..count).map(|place| {
            let secret = BoxSecretKey::from_bytes([place + 100; 32]);
            let exp = T0.plus(Duration::from_secs(90 * 86_400));
            let first = HeldPrekey { kid: secret.public().kid(), secret, signed: None, exp };
            let disk = Disk::new(log.clone(), first);
            Node {
                key: key(place),
                endpoint: Endpoint::new(settings(place, 0, &disk), Now::default()),
                disk,
                events: Vec::new(),
                running: false,
                means: Means::quic(cert(usize::from(place))),
                ahead: Duration::ZERO,
                batches: 0,
                crash_at: None,
                inputs: VecDeque::new(),
                replies: BTreeMap::new(),
                socket: None,
                expecting: BTreeMap::new(),
                life: 0,
            }
        });
        Self {
            coordinator,
            nodes: nodes.collect(),
            direct,
            coordinator_up: true,
            exporter_of_dialler: EXPORTER,
            linked: Vec::new(),
            links_made: 0,
            relay_delay: RELAY_DELAY,
            link_delay: LINK_DELAY,
            lose_every: None,
            guesses_miss: false,
            datagrams: 0,
            quic_blocked: false,
            webrtc: Vec::new(),
            sockets_open: vec![Vec::new(); usize::from(count)],
            places: (0..usize::from(count)).map(|node| Place::new(node, Site::SameMachine)).collect(),
            clock: Duration::from_secs(1),
            happenings: BTreeMap::new(),
            order: 0,
            spins: 0,
            sockets: BTreeMap::new(),
            stranded: BTreeSet::new(),
            dead_links: 0,
            links: BTreeMap::new(),
            next_id: 1,
        }
    }

    // What people and programs do.

    /// Hands a message over; a crash in between is answered by the program's retry under the same id.
    pub(super) fn send(&mut self, from: usize, to: usize, text: &str) -> MessageId {
        let id = self.fresh_message_id();
        for _ in 0..3 {
            match self.request(from, Request::Send(self.message(Some(id), &[to], text))) {
                Some(Reply::Sent { id: sent, .. }) => {
                    assert_eq!(sent, id);
                    return id;
                }
                Some(other) => panic!("{text:?} was answered by {other:?}"),
                None => {}
            }
        }
        panic!("{text:?} was never answered")
    }

    pub(super) fn message(&self, id: Option<MessageId>, to: &[usize], text: &str) -> Send {
        let to = to.iter().map(|node| self.id(*node)).collect();
        let content = Bytes::copy_from_slice(text.as_bytes());
        let message = Message { content_type: "text/plain".to_owned(), content, reply_to: None };
        Send { id, to, message, priority: Priority::Next, life: MESSAGE_LIFE_MAX }
    }

    pub(super) fn fresh_message_id(&mut self) -> MessageId {
        let mut id = [0xee; 16];
        id[8..].copy_from_slice(&self.fresh().to_be_bytes());
        MessageId(id)
    }

    /// Asks, runs the node's batch, and gives the answer if there is one already.
    pub(super) fn request(&mut self, node: usize, request: Request) -> Option<Reply> {
        let token = self.ask(node, request);
        self.run_batch(node);
        self.answer(node, token)
    }

    /// Asks; the answer comes later.
    pub(super) fn ask(&mut self, node: usize, request: Request) -> Token {
        let token = self.fresh();
        self.nodes[node].inputs.push_back(Input::Request { token, request });
        token
    }

    pub(super) fn answer(&mut self, node: usize, token: Token) -> Option<Reply> {
        self.nodes[node].replies.remove(&token)
    }

    /// A reader moves past everything there is.
    pub(super) fn read_all(&mut self, node: usize) {
        let unread = self.nodes[node].disk.unread();
        self.request(node, Request::Surface(unread));
    }

    /// Switches a node on; what it knows is what its disk holds.
    pub(super) fn start(&mut self, node: usize) {
        let now = self.now(node);
        let it = &mut self.nodes[node];
        it.life += 1;
        let place = u8::try_from(node).expect("few nodes");
        it.endpoint = Endpoint::new(settings(place, it.life, &it.disk), now);
        it.running = true;
        self.tell_place(node);
    }

    /// The host says where it is.
    fn tell_place(&mut self, node: usize) {
        let place = &self.places[node];
        let (candidates, stun) = (vec![place.host()], place.stun());
        let means = self.nodes[node].means.clone();
        self.nodes[node].inputs.push_back(Input::DirectReady { means, candidates, stun });
    }

    /// A node's machine slept.
    pub(super) fn wake(&mut self, node: usize) {
        self.nodes[node].inputs.push_back(Input::Woke);
    }

    /// A node's NAT gets another address, of which nobody tells the node.
    pub(super) fn renumber_outside(&mut self, node: usize) {
        self.places[node].renumber_outside();
    }

    /// The router before a node begins anew under another address: nothing that was open passes any
    /// more, and nobody is told.
    pub(super) fn strand(&mut self, node: usize) {
        self.places[node].renumber_outside();
        self.dead_links = self.next_id;
        self.stranded.extend(self.nodes[node].socket);
    }

    /// A node moves to another network of the same kind.
    pub(super) fn renumber(&mut self, node: usize) {
        self.places[node].renumber();
        self.tell_place(node);
    }

    /// Switches a node off between two batches.
    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].running = false;
        self.nodes[node].inputs.clear();
        self.nodes[node].expecting.clear();
        if let Some(socket) = self.nodes[node].socket.take() {
            self.sockets.remove(&socket);
            let acts = self.coordinator.closed(socket);
            self.carry_out(acts);
        }
        let own: Vec<LinkId> =
            self.links.iter().filter(|(_, half)| half.node == node).map(|(link, _)| *link).collect();
        own.into_iter().for_each(|link| self.close_link(link));
    }

    pub(super) fn restart(&mut self, node: usize) {
        self.stop(node);
        self.start(node);
    }

    // What the network and the machines do.

    /// Every direct link breaks; new ones can be made if `direct` says so.
    pub(super) fn cut_direct(&mut self) {
        while let Some((link, half)) = self.links.first_key_value() {
            let (link, node) = (*link, half.node);
            let life = self.nodes[node].life;
            self.close_link(link);
            self.at(Duration::ZERO, Happening::LinkClosed { node, life, link });
        }
    }

    /// A node's socket to the coordinator breaks; the node finds a new one by itself.
    pub(super) fn cut_uplink(&mut self, node: usize) {
        if let Some(socket) = self.nodes[node].socket {
            let acts = self.coordinator.closed(socket);
            self.at(Duration::ZERO, Happening::UplinkClosed(socket));
            self.carry_out(acts);
        }
    }

    pub(super) fn coordinator_down(&mut self) {
        self.coordinator_up = false;
        for socket in self.coordinator.restart() {
            self.at(Duration::ZERO, Happening::UplinkClosed(socket));
        }
    }

    /// Appends an entry by Alice or the owner to the mesh log.
    pub(super) fn sequence(&mut self, entry: WireEntry) {
        let acts = self.coordinator.sequence(self.coordinator_now(), entry);
        self.carry_out(acts);
    }

    /// Hands a node a frame as if it came from its coordinator.
    pub(super) fn inject(&mut self, node: usize, frame: &ToNode) {
        self.nodes[node].inputs.push_back(Input::UplinkFrame(frame.encode()));
    }

    /// Hands a node a frame as if it came on its only direct link.
    pub(super) fn inject_on_link(&mut self, node: usize, frame: &OnLink) {
        let link = self.links.iter().find(|(_, half)| half.node == node).map(|(link, _)| *link);
        let link = link.expect("the node has a direct link");
        self.nodes[node].inputs.push_back(Input::LinkFrame(link, frame.encode()));
    }

    // Time.

    /// Runs until nothing is due within two seconds.
    pub(super) fn settle(&mut self) {
        while self.next_due().is_some_and(|due| due <= self.clock + Duration::from_secs(2)) {
            self.turn();
        }
    }

    /// Runs until `time` has passed.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.clock + time;
        while self.next_due().is_some_and(|due| due <= until) {
            self.turn();
        }
        self.clock = until;
    }

    // What can be asked of it.

    pub(super) fn id(&self, node: usize) -> PeerId {
        self.nodes[node].key.id()
    }

    pub(super) fn endpoint(&self, node: usize) -> &Endpoint {
        &self.nodes[node].endpoint
    }

    /// What a node's readers see, in their order.
    pub(super) fn inbox(&self, node: usize) -> Vec<String> {
        let rows = self.nodes[node].disk.readable();
        rows.iter().map(|row| String::from_utf8(row.message.content.to_vec()).expect("text")).collect()
    }

    /// How far a message got, by the sender's disk.
    pub(super) fn state(&self, from: usize, id: MessageId, to: usize) -> OutboxState {
        self.nodes[from].disk.state(id, self.id(to)).expect("the message is in the outbox")
    }

    /// Every state a message was announced in, in order.
    pub(super) fn announced(&self, from: usize, id: MessageId) -> Vec<OutboxState> {
        let states = self.nodes[from].events.iter().filter_map(|event| {
            let Event::Outbox { id: of, state, .. } = event else { return None };
            (*of == id).then(|| state.clone())
        });
        states.collect()
    }

    /// The bytes a message travelled in, each time it travelled.
    pub(super) fn carried(&self, id: MessageId) -> Vec<Bytes> {
        let all = self.coordinator.carried.iter().chain(&self.linked);
        all.filter(|(of, _)| *of == id).map(|(_, bytes)| bytes.clone()).collect()
    }

    pub(super) fn alarms(&self, node: usize) -> Vec<String> {
        let alarms = self.nodes[node]
            .events
            .iter()
            .filter_map(|event| if let Event::Alarm(text) = event { Some(text.clone()) } else { None });
        alarms.collect()
    }

    pub(super) fn is_direct(&self, a: usize, b: usize) -> bool {
        let bound = |a: usize, b: usize| {
            let peer = self.endpoint(a).peers.get(&self.id(b));
            peer.is_some_and(|peer| peer.link.is_some())
        };
        bound(a, b) && bound(b, a)
    }

    /// How many attempts a node's host expects.
    pub(super) fn expected(&self, node: usize) -> usize {
        self.nodes[node].expecting.len()
    }

    pub(super) fn links_open(&self) -> usize {
        self.links.len() / 2
    }

    pub(super) fn now(&self, node: usize) -> Now {
        Now {
            monotonic: Monotonic::from_origin(self.clock),
            wall: T0.plus(self.clock).plus(self.nodes[node].ahead),
        }
    }

    pub(super) fn coordinator_now(&self) -> Now {
        Now { monotonic: Monotonic::from_origin(self.clock), wall: T0.plus(self.clock) }
    }

    // How it works.

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.order += 1;
        let before = self.happenings.insert((self.clock + after, self.order), happening);
        assert!(before.is_none(), "happenings are numbered");
    }

    fn next_due(&self) -> Option<Duration> {
        let happening = self.happenings.keys().next().map(|(at, _)| *at);
        let nodes =
            self.nodes.iter().enumerate().filter(|(_, node)| node.running).filter_map(|(place, node)| {
                let waiting = (!node.inputs.is_empty()).then_some(self.clock);
                waiting.or_else(|| node.endpoint.poll_timeout(self.now(place)).map(Monotonic::since_origin))
            });
        let coordinator = self.coordinator.deadline(self.coordinator_now()).map(Monotonic::since_origin);
        nodes.chain(happening).chain(coordinator).min().map(|due| due.max(self.clock))
    }

    /// Moves the clock to what is due next, and lets it happen.
    fn turn(&mut self) {
        let due = self.next_due().expect("a turn follows something due");
        let moved = due > self.clock;
        self.clock = due;
        self.spins = if moved { 0 } else { self.spins + 1 };
        assert!(self.spins < 10_000, "the world spins without time passing");
        while let Some(entry) = self.happenings.first_entry().filter(|entry| entry.key().0 <= due) {
            let happening = entry.remove();
            self.happen(happening);
        }
        if self.coordinator.deadline(self.coordinator_now()).is_some_and(|at| at.since_origin() <= due) {
            let acts = self.coordinator.timeout(self.coordinator_now());
            self.carry_out(acts);
        }
        for node in 0..self.nodes.len() {
            let now = self.now(node);
            let it = &mut self.nodes[node];
            if !it.running {
                continue;
            }
            let is_due = it.endpoint.poll_timeout(now).is_some_and(|at| at <= now.monotonic);
            if is_due || !it.inputs.is_empty() {
                self.run_batch(node);
            }
        }
    }
}
