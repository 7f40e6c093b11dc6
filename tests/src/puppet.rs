//! A member inside the test: the real machine over the real transports, with a memory for a store.
//! What the daemon would never show, it can: frames as they came, messages left unreceipted, and
//! bytes said on an authenticated link that no honest node would say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peerloom_node::clock::Clock;
use peerloom_node::home::{Home, MeshInfo};
use peerloom_node::keystore;
use peerloom_node::store::{Loaded, Store};
use peerloom_proto::endpoint::{
    Endpoint, Event, Input, LinkId, OpenedLink, Output, PathKind, SeenRow, Settings, UplinkStatus, Write,
};
use peerloom_proto::paths::PathPolicies;
use peerloom_proto::wire::{OnLink, ToNode};
use peerloom_proto::{
    BindTransport, InstanceId, Means, MessageId, PeerId, Roster, UnverifiedEnvelope, WireEntry,
};
use peerloom_transports::{
    CandidateScope, CloseReason, Datagram, LinkRole, PeerAddr, PeerLink, PeerTransport, QuicTransport,
    TlsTrust, WebSocketConnector,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::Node;
use crate::wait::SOON;

/// An envelope as it came.
#[derive(Debug)]
pub struct Captured {
    /// On which way.
    pub path: PathKind,
    /// Byte for byte.
    pub envelope: Bytes,
    input: Input,
}

/// A member that this test plays itself.
pub struct Puppet {
    runtime: Runtime,
    clock: Clock,
    endpoint: Endpoint,
    origin: String,
    quic: Arc<QuicTransport>,
    inputs: UnboundedReceiver<Input>,
    inlet: UnboundedSender<Input>,
    uplink: Option<UnboundedSender<Bytes>>,
    links: BTreeMap<LinkId, UnboundedSender<Bytes>>,
    next_link: LinkId,
    pending: UnboundedReceiver<Box<dyn PeerLink>>,
    seen: BTreeMap<(PeerId, MessageId), SeenRow>,
    inbox: Vec<String>,
    withheld: BTreeSet<MessageId>,
    captured: Vec<Captured>,
    opened: UnboundedSender<Box<dyn PeerLink>>,
    endings: Vec<String>,
}

impl std::fmt::Debug for Puppet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puppet").field("captured", &self.captured.len()).finish_non_exhaustive()
    }
}

impl Puppet {
    /// Plays the member that joined as `node`, whose daemon is not up.
    ///
    /// # Panics
    /// When the home is not that of a member.
    pub fn play(node: &Node) -> Self {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let home = Home::at(node.home());
        let info = home.meshes().expect("the home can be read").pop().expect("the home has a mesh");
        let (_, _, loaded) = runtime.block_on(Store::open(&info.store_file())).expect("the store opens");
        let clock = Clock::start();
        let endpoint = Endpoint::new(settings(&info, loaded), clock.now());
        let quic = {
            let _entered = runtime.enter();
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket can be bound");
            Arc::new(QuicTransport::new(socket).expect("QUIC starts on a bound socket"))
        };
        let (inlet, inputs) = unbounded_channel();
        let (opened, pending) = unbounded_channel();
        let accepting = (Arc::clone(&quic), opened.clone());
        runtime.spawn(async move {
            let (quic, opened) = accepting;
            while let Ok(link) = quic.accept().await {
                if opened.send(link).is_err() {
                    break;
                }
            }
        });
        let ready = Input::DirectReady {
            means: Means::quic(quic.local_cert()),
            candidates: quic.candidates(CandidateScope::WithLoopback),
            stun: Vec::new(),
        };
        inlet.send(ready).expect("we hold the other end");
        runtime.spawn(hear(Arc::clone(&quic), inlet.clone()));
        Self {
            runtime,
            clock,
            endpoint,
            origin: info.origin.as_str().to_owned(),
            quic,
            inputs,
            inlet,
            uplink: None,
            links: BTreeMap::new(),
            next_link: 1,
            pending,
            seen: BTreeMap::new(),
            inbox: Vec::new(),
            withheld: BTreeSet::new(),
            captured: Vec::new(),
            opened,
            endings: Vec::new(),
        }
    }

    /// Keeps every copy of this message from the machine, so that it is never receipted.
    pub fn withhold(&mut self, id: MessageId) {
        self.withheld.insert(id);
    }

    /// Every copy of a withheld message, in order of arrival.
    pub fn captured(&self) -> &[Captured] {
        &self.captured
    }

    /// Ends the withholding: the machine gets every copy that came, in order.
    pub fn let_in(&mut self) {
        self.withheld.clear();
        for captured in self.captured.drain(..) {
            self.inlet.send(captured.input).expect("we hold the other end");
        }
    }

    /// Texts received, in order.
    pub fn inbox(&self) -> &[String] {
        &self.inbox
    }

    /// Whether the coordinator welcomed it.
    pub fn is_connected(&self) -> bool {
        *self.endpoint.uplink_status() == UplinkStatus::Connected
    }

    /// Whether messages to this member would go directly.
    pub fn is_direct(&self, peer: &PeerId) -> bool {
        let views = self.endpoint.peer_views();
        views.iter().any(|view| view.peer == *peer && view.path == Some(PathKind::Direct))
    }

    /// The member under a handle.
    ///
    /// # Panics
    /// When the log, as far as it is known here, has none.
    pub fn peer(&self, handle: &str) -> PeerId {
        self.endpoint.roster().by_handle(handle).expect("the log has this member").id
    }

    /// Says these bytes to the coordinator as one frame.
    ///
    /// # Panics
    /// When there is no connection.
    pub fn say_to_coordinator(&self, bytes: Bytes) {
        let uplink = self.uplink.as_ref().expect("it is connected");
        // A coordinator that hung up does not hear it.
        uplink.send(bytes).unwrap_or(());
    }

    /// Says these bytes on every direct link as one frame.
    pub fn say_on_links(&self, bytes: &Bytes) {
        for link in self.links.values() {
            // A peer that hung up does not hear it.
            link.send(bytes.clone()).unwrap_or(());
        }
    }

    /// How often a link or the uplink ended so far.
    pub fn endings(&self) -> usize {
        self.endings.len()
    }

    /// Lives on until there is something to return.
    ///
    /// # Panics
    /// After half a minute.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(
                started.elapsed() < SOON,
                "waited {SOON:?} for {what}; uplink {:?}, peers {:?}, captured {:?}, endings {:?}",
                self.endpoint.uplink_status(),
                self.endpoint.peer_views(),
                self.captured,
                self.endings,
            );
            self.step();
        }
    }

    /// One batch, or a short wait for one.
    fn step(&mut self) {
        let now = self.clock.now();
        let due = self.endpoint.poll_timeout(now).map_or(STEP_MAX, |due| due.since(now.monotonic));
        let inputs = &mut self.inputs;
        let pending = &mut self.pending;
        let arrived = self.runtime.block_on(async {
            tokio::select! {
                input = inputs.recv() => Arrived::Input(input.expect("we hold the other end")),
                link = pending.recv() => Arrived::Link(link.expect("we hold the other end")),
                () = tokio::time::sleep(due.min(STEP_MAX)) => Arrived::Nothing,
            }
        });
        let now = self.clock.now();
        match arrived {
            Arrived::Input(input) => {
                if let Some(input) = self.withheld_or(input) {
                    self.endpoint.handle(now, input);
                }
            }
            Arrived::Link(link) => self.open(link),
            Arrived::Nothing => {}
        }
        self.endpoint.handle(now, Input::Timeout);
        loop {
            self.endpoint.finish_batch(now);
            if !self.drain(now) {
                return;
            }
        }
    }

    /// Keeps copies of withheld messages back; everything else passes.
    fn withheld_or(&mut self, input: Input) -> Option<Input> {
        let found = match &input {
            Input::UplinkFrame(frame) => delivered(frame),
            Input::LinkFrame(_, frame) => said_directly(frame),
            Input::UplinkClosed(why) => {
                self.endings.push(format!("uplink: {why}"));
                self.uplink = None;
                None
            }
            Input::LinkClosed(link) => {
                self.endings.push(format!("link {link}"));
                self.links.remove(link);
                None
            }
            Input::Timeout
            | Input::Stop
            | Input::Request { .. }
            | Input::Sent { .. }
            | Input::Seen { .. }
            | Input::UplinkOpened
            | Input::LinkOpened(_)
            | Input::LinkRtt(..)
            | Input::DialFailed(..)
            | Input::DirectReady { .. }
            | Input::Datagram { .. }
            | Input::SocketsOpened { .. }
            | Input::Woke
            | Input::Loaded(_)
            | Input::Entries { .. } => None,
        };
        let Some((path, envelope)) = found else { return Some(input) };
        let header = UnverifiedEnvelope::parse(envelope.clone()).expect("only envelopes are delivered");
        if !self.withheld.contains(&header.header().id) {
            return Some(input);
        }
        self.captured.push(Captured { path, envelope, input });
        None
    }

    /// Carries out what the machine wants. True when it asked something and goes on.
    fn drain(&mut self, now: peerloom_proto::Now) -> bool {
        let mut answers = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Write(Write::Inbox(row)) => {
                    self.seen.insert((row.from, row.id), SeenRow { fp: row.fp, surfaced: false });
                    self.inbox.push(String::from_utf8_lossy(&row.message.content).into_owned());
                }
                Output::LookupSeen(keys) => {
                    let rows = keys.iter().map(|key| self.seen.get(key).cloned()).collect();
                    answers.push(Input::Seen { rows });
                }
                Output::LookupSent { token, .. } => answers.push(Input::Sent { token, rows: Vec::new() }),
                Output::Load(_) => answers.push(Input::Loaded(Vec::new())),
                Output::LoadEntries(from) => answers.push(Input::Entries { from, entries: Vec::new() }),
                Output::ConnectUplink => self.connect(),
                Output::CloseUplink(_) => self.uplink = None,
                Output::SendUplink(frame) => {
                    if let Some(uplink) = &self.uplink {
                        uplink.send(frame).unwrap_or(());
                    }
                }
                Output::SendLink(link, frame) => {
                    if let Some(link) = self.links.get(&link) {
                        link.send(frame).unwrap_or(());
                    }
                }
                Output::CloseLink(link) => drop(self.links.remove(&link)),
                Output::Expect { conn, peer_cert } => {
                    let until = Instant::now() + Duration::from_secs(60);
                    self.quic.expect(conn, peer_cert, until).expect("few links are expected");
                }
                Output::Dial { conn, peer_cert, socket, candidates } => {
                    let peer = PeerAddr::new(conn, peer_cert, &candidates, CandidateScope::WithLoopback);
                    self.dial(socket, peer);
                }
                Output::SendDatagram { socket, to, datagram, ttl } => {
                    // On loopback it arrives or is repeated.
                    self.quic.send_datagram(socket, to, &datagram, ttl).unwrap_or(());
                }
                Output::OpenSockets { conn, count } => {
                    let sockets = self.quic.open_sockets(count);
                    answers.push(Input::SocketsOpened { conn, sockets });
                }
                Output::CloseSockets(sockets) => self.quic.close_sockets(&sockets),
                Output::WebRtc(act) => unreachable!("QUIC is all it named: {act:?}"),
                Output::Forget(conn) => self.quic.forget(&conn),
                Output::Event(Event::Alarm(text)) => self.endings.push(format!("alarm: {text}")),
                Output::Write(_) | Output::Reply(..) | Output::Event(_) => {}
            }
        }
        let asked = !answers.is_empty();
        for answer in answers {
            self.endpoint.handle(now, answer);
        }
        asked
    }

    fn connect(&mut self) {
        let (outgoing, queue) = unbounded_channel();
        self.uplink = Some(outgoing);
        let (origin, inlet) = (self.origin.clone(), self.inlet.clone());
        self.runtime.spawn(async move {
            let connector = WebSocketConnector::new(TlsTrust { extra_ca: None });
            let why = match connector.connect(&origin, Instant::now() + SOON).await {
                Ok(link) => {
                    inlet.send(Input::UplinkOpened).unwrap_or(());
                    carry(link.as_ref(), queue, |frame| inlet.send(Input::UplinkFrame(frame)).is_ok()).await
                }
                Err(error) => error.to_string(),
            };
            inlet.send(Input::UplinkClosed(why)).unwrap_or(());
        });
    }

    fn dial(&mut self, socket: u16, peer: PeerAddr) {
        let (quic, opened, inlet) = (Arc::clone(&self.quic), self.opened.clone(), self.inlet.clone());
        self.runtime.spawn(async move {
            match quic.dial_from(socket, &peer, Instant::now() + SOON).await {
                Ok(link) => opened.send(link).unwrap_or(()),
                Err(error) => inlet.send(Input::DialFailed(peer.conn, error.to_string())).unwrap_or(()),
            }
        });
    }

    fn open(&mut self, link: Box<dyn PeerLink>) {
        let properties = link.properties();
        let binding = properties.binding.expect("a QUIC link knows its certificates");
        let id = self.next_link;
        self.next_link += 1;
        let (outgoing, queue) = unbounded_channel();
        self.links.insert(id, outgoing);
        let opened = OpenedLink {
            link: id,
            conn: binding.conn,
            dialled: properties.role == LinkRole::Dialler,
            transport: BindTransport::Quic,
            local_cert: binding.local_cert,
            peer_cert: binding.peer_cert,
            exporter: binding.exporter,
            remote: properties.remote.map_or_else(String::new, |remote| remote.to_string()),
        };
        let inlet = self.inlet.clone();
        inlet.send(Input::LinkOpened(opened)).expect("we hold the other end");
        let runtime: &Handle = self.runtime.handle();
        runtime.spawn(async move {
            carry(link.as_ref(), queue, |frame| inlet.send(Input::LinkFrame(id, frame)).is_ok()).await;
            inlet.send(Input::LinkClosed(id)).unwrap_or(());
        });
    }
}

/// Hands STUN datagrams to the machine.
async fn hear(quic: Arc<QuicTransport>, inlet: UnboundedSender<Input>) {
    loop {
        let datagrams = quic.datagrams(64).await;
        if datagrams.is_empty() {
            return;
        }
        for Datagram { socket, from, bytes } in datagrams {
            if inlet.send(Input::Datagram { socket, from, datagram: bytes }).is_err() {
                return;
            }
        }
    }
}

/// The envelope that the coordinator hands over in this frame, if it does.
fn delivered(frame: &Bytes) -> Option<(PathKind, Bytes)> {
    match ToNode::decode(frame) {
        Ok(ToNode::Deliver { envelope, queued: true, .. }) => Some((PathKind::Queue, envelope)),
        Ok(ToNode::Deliver { envelope, queued: false, .. }) => Some((PathKind::Relay, envelope)),
        _ => None,
    }
}

/// The envelope in a frame of a direct link, if there is one.
fn said_directly(frame: &Bytes) -> Option<(PathKind, Bytes)> {
    match OnLink::decode(frame) {
        Ok(OnLink::Envelope { envelope }) => Some((PathKind::Direct, envelope)),
        _ => None,
    }
}

/// Longest rest between two looks at what the test awaits.
const STEP_MAX: Duration = Duration::from_millis(20);

enum Arrived {
    Input(Input),
    Link(Box<dyn PeerLink>),
    Nothing,
}

/// Moves frames both ways until either end is gone; says why.
async fn carry(
    link: &dyn PeerLink,
    mut queue: UnboundedReceiver<Bytes>,
    take: impl Fn(Bytes) -> bool,
) -> String {
    let read = async {
        loop {
            match link.recv().await {
                Ok(frame) => {
                    if !take(frame) {
                        return "the puppet is gone".to_owned();
                    }
                }
                Err(error) => return error.to_string(),
            }
        }
    };
    let write = async {
        while let Some(frame) = queue.recv().await {
            if let Err(error) = link.send(frame).await {
                return error.to_string();
            }
        }
        "closed by the puppet".to_owned()
    };
    let why = tokio::select! {
        why = read => why,
        why = write => why,
    };
    link.close(CloseReason::Finished);
    why
}

/// From the files of a home to the machine's settings.
fn settings(info: &MeshInfo, loaded: Loaded) -> Settings {
    let mut entries =
        loaded.entries.iter().map(|entry| WireEntry::parse(entry).expect("the store's log parses"));
    let mut roster = Roster::begin(&entries.next().expect("a log has a genesis")).expect("the genesis holds");
    for entry in entries {
        roster.append(&entry).expect("the store's log replays");
    }
    Settings {
        member: keystore::read_key(&info.member_key_file()).expect("the key can be read"),
        owner: None,
        roster,
        revocations: loaded.revocations,
        on_hold: loaded.on_hold,
        prekeys: loaded.prekeys,
        peer_prekeys: loaded.peer_prekeys,
        outbox: loaded.outbox,
        held: loaded.held,
        conversations: loaded.conversations,
        next_seqs: loaded.next_seqs,
        next_outbox_row: loaded.next_outbox_row,
        next_inbox_row: loaded.next_inbox_row,
        next_position: loaded.next_position,
        generation: loaded.generation,
        fp_secret: loaded.fp_secret,
        floor: loaded.floor,
        coordinator_mark: loaded.coordinator_mark,
        policies: PathPolicies::default(),
        origin: info.origin.clone(),
        instance: InstanceId(random()),
        seed: random(),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives entropy");
    bytes
}
