//! A node's sockets: what it sends from them, who hears it, and how a direct stream is dialled.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use peerloom_proto::endpoint::Input;
use peerloom_proto::stun::public_answer;
use peerloom_proto::{CertHash, ConnId};

use crate::chance::Chance;
use crate::internet::{Internet, Travelling};
use crate::nat::Owed;
use crate::network::{Payload, Place, Purpose, StreamId};
use crate::world::World;

/// IP and UDP, which a STUN message is longer by on a link.
const HEAD_BYTES: usize = 28;

impl World {
    /// Whether two nodes can reach each other at all, by the topology's lot.
    pub(super) fn is_reachable(&self, a: usize, b: usize) -> bool {
        let percent = self.scenario.topology.direct_percent;
        let drawn =
            || Chance::new(self.seed, &format!("pair {} {}", a.min(b), a.max(b)), "direct").percent(percent);
        percent == 100 || drawn()
    }

    pub(crate) fn node_dials(
        &mut self,
        node: usize,
        life: u32,
        (conn, peer_cert): (ConnId, CertHash),
        socket: u16,
        candidates: Vec<SocketAddr>,
    ) {
        let it = &self.nodes[node];
        let Some(process) = it.process.as_ref().filter(|_| it.life == life) else { return };
        let Some(peer) = self.by_cert.get(&peer_cert).copied() else { return };
        let purpose = Purpose::Direct { conn, certs: [process.cert, peer_cert] };
        let places = [Place::Node(node), Place::Node(peer)];
        if self.network.has_roads() {
            let from = self.network.internet.local(node, socket);
            self.network.dial(&mut self.queue, purpose, places, from, candidates);
        } else {
            self.network.connect(&mut self.queue, purpose, places);
        }
    }

    /// A direct link was made.
    pub(super) fn note_met(&mut self, id: StreamId) {
        if let Some([Place::Node(a), Place::Node(b)]) =
            self.network.streams.get(&id).map(|stream| stream.places)
        {
            let met = (self.queue.now(), self.network.internet.owed(a, b));
            self.tally.met.entry((a.min(b), a.max(b))).or_insert(met);
        }
    }

    /// Pairs that talked and had no direct link though their NATs owe them one, or one that these cannot
    /// have let through.
    pub(crate) fn not_as_owed(&self) -> Vec<String> {
        let talked = (0..self.history.messages.len()).map(|message| self.history.pair(message));
        let talked: BTreeSet<(usize, usize)> = talked.collect();
        let wrong = talked.into_iter().filter_map(|(a, b)| {
            let met = self.tally.met.contains_key(&(a, b));
            match self.network.internet.owed(a, b) {
                Owed::Direct if !met => {
                    Some(format!("nodes {a} and {b} are owed a direct link and had none"))
                }
                Owed::Relay if met => {
                    Some(format!("nodes {a} and {b} had a direct link through NATs that let none through"))
                }
                Owed::Direct | Owed::DirectByBirthday | Owed::Relay => None,
            }
        });
        wrong.collect()
    }

    pub(super) fn send_datagram(
        &mut self,
        node: usize,
        socket: u16,
        to: SocketAddr,
        datagram: Bytes,
        ttl: Option<u8>,
    ) {
        let (from, source) = (Place::Node(node), self.network.internet.local(node, socket));
        let bytes = datagram.len() + HEAD_BYTES;
        self.network.depart(&mut self.queue, from, source, to, ttl, bytes, Payload::Stun(datagram));
    }

    /// A datagram reaches its recipient's NATs.
    pub(crate) fn datagram_arrived(&mut self, travelling: &Travelling, payload: Payload) {
        let now = self.queue.now();
        let Some((place, at)) = self.network.internet.arrive(now, travelling) else { return };
        let from = travelling.from;
        match (place, payload) {
            (Place::Coordinator, Payload::Stun(datagram)) => self.stun_answers(at, from, &datagram),
            (Place::Node(node), Payload::Stun(datagram)) => self.stun_arrived(node, at, from, datagram),
            (Place::Node(_), Payload::Packet { stream, end, packet }) => {
                let is_for =
                    self.network.streams.get(&stream).is_some_and(|stream| stream.places[end] == place);
                if is_for && self.network.came(stream, end, at, from) {
                    self.network.packet_arrived(&mut self.queue, stream, end, packet);
                }
            }
            (Place::Coordinator, Payload::Packet { .. }) => {}
        }
    }

    /// The coordinator's responder, while its process runs.
    fn stun_answers(&mut self, at: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        let listens = self.coordinator.runs() && Internet::stun_servers().contains(&at);
        let Some(answer) = public_answer(datagram, from).filter(|_| listens) else { return };
        let bytes = answer.len() + HEAD_BYTES;
        self.network.depart(
            &mut self.queue,
            Place::Coordinator,
            at,
            from,
            None,
            bytes,
            Payload::Stun(answer),
        );
    }

    fn stun_arrived(&mut self, node: usize, at: SocketAddr, from: SocketAddr, datagram: Bytes) {
        // Answers of a STUN server are no direct link.
        let is_server = Internet::stun_servers().contains(&from);
        let sender = self.network.internet.open_node(from.ip());
        if !is_server && (self.no_direct > 0 || sender.is_some_and(|sender| !self.is_reachable(sender, node)))
        {
            return;
        }
        let socket = Internet::socket(at);
        let process = self.nodes[node].process.as_ref();
        if process.is_some_and(|process| socket == 0 || process.sockets.contains(&socket)) {
            self.node_input(node, Input::Datagram { socket, from, datagram });
        }
    }

    pub(super) fn open_sockets(&mut self, node: usize, conn: ConnId, count: u16) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let free = (1..SOCKETS_MAX).filter(|socket| !process.sockets.contains(socket));
        let sockets: Vec<u16> = free.take(usize::from(count)).collect();
        process.sockets.extend(&sockets);
        self.node_input(node, Input::SocketsOpened { conn, sockets });
    }

    pub(super) fn close_sockets(&mut self, node: usize, sockets: &[u16]) {
        for socket in sockets {
            let local = self.network.internet.local(node, *socket);
            let carries = self.network.is_used(Place::Node(node), local);
            if let Some(process) = self.nodes[node].process.as_mut().filter(|_| !carries) {
                process.sockets.remove(socket);
            }
        }
    }
}

/// Sockets a process has at most: what `ulimit -n` leaves it.
const SOCKETS_MAX: u16 = 1_000;
