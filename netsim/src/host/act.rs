//! Between a node's machine and the network: what it does after a commit, and what reaches it.

use std::time::Duration;

use bytes::Bytes;

use peerloom_proto::endpoint::{Event as Told, InboxRow, Input, LinkId, OpenedLink, Output, Reply, Request};
use peerloom_proto::wire::ToCoordinator;
use peerloom_proto::{BindTransport, CertHash, ConnId};

use super::node::Asked;
use crate::chance::seed_for;
use crate::frame::Frame;
use crate::model::Fact;
use crate::mutant::Mutant;
use crate::network::{Place, Purpose, StreamId};
use crate::queue::{Carried, Event};
use crate::world::World;

/// How soon a reader that was woken looks.
const READER_WAKES: Duration = Duration::from_millis(20);

/// A link's name at one of its nodes.
fn link_at(stream: StreamId, end: usize) -> LinkId {
    stream.0 * 2 + end as u64
}

fn stream_of(link: LinkId) -> (StreamId, usize) {
    (StreamId(link / 2), usize::from(link % 2 == 1))
}

impl World {
    /// Carries out what had to wait for the disk.
    pub(super) fn act(&mut self, node: usize, output: Output) {
        match output {
            Output::Write(_)
            | Output::LookupSent { .. }
            | Output::LookupSeen(_)
            | Output::Load(_)
            | Output::LoadEntries(_) => {
                unreachable!("done before the commit")
            }
            Output::ConnectUplink => {
                self.close_uplink(node);
                let places = [Place::Node(node), Place::Coordinator];
                let stream = self.network.connect(&mut self.queue, Purpose::Uplink, places);
                self.tally.connects += 1;
                if let Some(process) = &mut self.nodes[node].process {
                    process.uplink = Some(stream);
                }
            }
            Output::CloseUplink(_) => self.close_uplink(node),
            Output::SendUplink(frame) => {
                if let Some(stream) = self.nodes[node].process.as_ref().and_then(|process| process.uplink) {
                    if self.is_planted(Mutant::ContentInPing) {
                        self.whisper(stream, &frame);
                    }
                    self.network.send(&mut self.queue, stream, 0, frame);
                }
            }
            Output::SendLink(link, frame) => {
                let (stream, end) = stream_of(link);
                if self.network.is_open(stream, end) {
                    let frame = self.hostile_sends(node, frame);
                    self.network.send(&mut self.queue, stream, end, frame);
                } else {
                    self.node_input(node, Input::LinkClosed(link));
                }
            }
            Output::CloseLink(link) => {
                let (stream, end) = stream_of(link);
                if self.network.is_open(stream, end) {
                    self.network.close(&mut self.queue, stream, end);
                    self.node_input(node, Input::LinkClosed(link));
                }
            }
            Output::Expect { conn, peer_cert } => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.expecting.insert(conn, peer_cert);
                }
            }
            Output::SendDatagram { socket, to, datagram, ttl } => {
                self.send_datagram(node, socket, to, datagram, ttl);
            }
            Output::OpenSockets { conn, count } => self.open_sockets(node, conn, count),
            Output::CloseSockets(sockets) => self.close_sockets(node, &sockets),
            // No host here names WebRTC among its means: its links behave like QUIC's.
            Output::WebRtc(_) => {}
            Output::Dial { conn, peer_cert, socket, candidates } => {
                let life = self.nodes[node].life;
                let dials = Event::NodeDials { node, life, conn, peer_cert, socket, candidates };
                self.queue.after(Duration::ZERO, dials);
            }
            Output::Forget(conn) => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.expecting.remove(&conn);
                }
            }
            Output::Reply(token, reply) => {
                if let Some(asked) = self.nodes[node].asked.remove(&token) {
                    self.answered(node, asked, reply);
                }
            }
            Output::Event(told) => self.told(node, told),
        }
    }

    /// A planted fault: says what an envelope says in the number of a ping.
    fn whisper(&mut self, stream: StreamId, frame: &Bytes) {
        let frame = Frame::read(&Purpose::Uplink, 1, frame);
        let carried = frame.envelope().and_then(|envelope| self.by_id.get(&envelope.header().id)?.first());
        let text = carried.map(|message| self.history.messages[*message].text.as_bytes());
        if let Some(first) = text.and_then(|text| text.first_chunk()) {
            let ping = ToCoordinator::Ping { nonce: u64::from_be_bytes(*first) };
            self.network.send(&mut self.queue, stream, 0, ping.encode());
        }
    }

    fn close_uplink(&mut self, node: usize) {
        let uplink = self.nodes[node].process.as_mut().and_then(|process| process.uplink.take());
        if let Some(stream) = uplink {
            self.network.close(&mut self.queue, stream, 0);
        }
    }

    fn told(&mut self, node: usize, told: Told) {
        let at = self.queue.now();
        match told {
            Told::Outbox { id, to: _, state, path: _, at: _ } => {
                // What a program sent under an id came before what a hostile member says beside it.
                let named = self.by_id.get(&id).into_iter().flatten();
                let message = named.copied().find(|message| self.history.messages[*message].from == node);
                if let Some(message) = message {
                    self.history.note(at, Fact::Told { message, state });
                }
            }
            Told::Inbox { .. } => self.plan_read(node),
            Told::Rejected { reason, from: _ } => *self.tally.rejected.entry(reason).or_default() += 1,
            Told::Alarm(text) => self.alarmed(node, text),
            Told::Uplink(_)
            | Told::Presence { .. }
            | Told::Path { .. }
            | Told::Log { .. }
            | Told::Admitted { .. } => {}
        }
    }

    fn alarmed(&mut self, node: usize, what: String) {
        if self.is_planted(Mutant::IgnoresForks) && what.contains("log") {
            return;
        }
        *self.tally.alarms.entry(what.clone()).or_default() += 1;
        self.history.note(self.queue.now(), Fact::Alarmed { node, what });
    }

    fn answered(&mut self, node: usize, asked: Asked, reply: Reply) {
        match asked {
            Asked::Message(message) => self.message_answered(message, reply),
            Asked::Surface | Asked::Link => {}
            Asked::Invite { node: stranger } => match reply {
                Reply::Done => self.queue.after(Duration::ZERO, Event::JoinerAsks { node: stranger }),
                Reply::Refused(_)
                | Reply::Sent { .. }
                | Reply::Appended(_)
                | Reply::Requeued(_)
                | Reply::Pong(_) => {
                    self.queue.after(Duration::from_secs(1), Event::Invites { by: node, node: stranger });
                }
            },
            Asked::Revoke { target } => match reply {
                Reply::Appended(_) => self.history.revoked.push(target),
                // The coordinator is away, or the log moved: the admin tries again.
                Reply::Refused(_)
                | Reply::Sent { .. }
                | Reply::Done
                | Reply::Requeued(_)
                | Reply::Pong(_) => {
                    self.queue.after(Duration::from_secs(1), Event::Revokes { by: node, target });
                }
            },
        }
    }

    /// A row of the inbox is on the disk.
    pub(super) fn note_kept(&mut self, node: usize, row: &InboxRow) {
        let at = self.queue.now();
        let fact = match self.message_of(row) {
            Some(message) => {
                let proof = self.proof(node, row);
                Fact::Kept { node, message, path: row.path, proof }
            }
            None => Fact::Strange { node, what: format!("{} of {}, which nobody sent so", row.id, row.from) },
        };
        self.history.note(at, fact);
    }

    /// What was sent as this row has it.
    fn message_of(&self, row: &InboxRow) -> Option<usize> {
        let from = self.by_member.get(&row.from)?;
        let same = |message: &usize| {
            let planned = &self.history.messages[*message];
            planned.from == *from && planned.text.as_bytes() == &row.message.content[..]
        };
        self.by_id.get(&row.id)?.iter().copied().find(same)
    }

    // Readers.

    pub(super) fn plan_read(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].read_planned, true) {
            self.queue.after(READER_WAKES, Event::NodeReads { node });
        }
    }

    /// A reader with a cursor of its own takes what it has not seen, and says so.
    pub(crate) fn node_reads(&mut self, node: usize) {
        let at = self.queue.now();
        let ignores_order = self.is_planted(Mutant::IgnoresOrder);
        self.nodes[node].read_planned = false;
        let it = &self.nodes[node];
        if !it.serves() {
            return;
        }
        let rows: Vec<_> = if ignores_order {
            it.disk.arrived_after(it.cursor).map(|(row, found)| (row, self.message_of(found))).collect()
        } else {
            it.disk.readable_after(it.cursor).map(|(place, found)| (place, self.message_of(found))).collect()
        };
        let it = &mut self.nodes[node];
        for (cursor, message) in rows {
            it.cursor = cursor;
            let shown = message.map(|message| (at, Fact::Shown { node, message }));
            self.history.facts.extend(shown);
        }
        let unread = it.disk.unread();
        if !unread.is_empty() {
            self.ask_node(node, Asked::Surface, Request::Surface(unread));
        }
    }

    // The network.

    /// A connection attempt reaches the other side.
    pub(crate) fn knocked(&mut self, id: StreamId) {
        let Some(stream) = self.network.streams.get(&id) else { return };
        let (purpose, places) = (stream.purpose, stream.places);
        match (purpose, places) {
            (Purpose::Uplink, _) => self.hub_knocked(id),
            (Purpose::Direct { conn, certs }, [Place::Node(dialler), Place::Node(node)]) => {
                if self.no_direct > 0 || !self.is_reachable(dialler, node) {
                    return;
                }
                let it = &mut self.nodes[node];
                let serves = it.serves();
                let process = it.process.as_mut().filter(|process| serves && process.cert == certs[1]);
                match process.and_then(|process| process.expecting.remove(&conn)) {
                    Some(expected) if expected == certs[0] => {
                        self.tally.links += 1;
                        self.network.accept(&mut self.queue, id);
                    }
                    Some(_) | None => self.network.refuse(&mut self.queue, id),
                }
            }
            (Purpose::Direct { .. }, [Place::Coordinator, _] | [_, Place::Coordinator]) => {
                unreachable!("direct streams join nodes")
            }
        }
    }

    /// An attempt that was not answered is over.
    pub(crate) fn knock_ends(&mut self, id: StreamId) {
        let open = |stream: &crate::network::Stream| stream.open[0] && !stream.announced[0];
        if self.network.streams.get(&id).is_some_and(open) {
            self.lost(id, 0, "timed out");
            self.network.close(&mut self.queue, id, 0);
        }
    }

    /// An end notices that its stream was cut.
    pub(crate) fn noticed(&mut self, id: StreamId, end: usize) {
        if self.network.is_open(id, end) {
            self.lost(id, end, "connection lost");
            self.network.ended(id, end);
        }
    }

    /// Something reaches one end of a stream.
    pub(crate) fn arrived(&mut self, id: StreamId, end: usize, carried: Carried) {
        if !self.network.is_heard(id, end) {
            return;
        }
        let Some(stream) = self.network.streams.get(&id) else { return };
        let place = stream.places[end];
        let Place::Node(node) = place else { return self.hub_arrived(id, carried) };
        let purpose = stream.purpose;
        match (carried, purpose) {
            (Carried::End, _) => {
                self.lost(id, end, "closed");
                self.network.ended(id, end);
            }
            (Carried::Accepted, Purpose::Uplink) => {
                self.announced(id, end);
                if self.is_uplink(node, id) {
                    self.node_input(node, Input::UplinkOpened);
                }
            }
            (Carried::Accepted, Purpose::Direct { conn, certs }) => {
                self.announced(id, end);
                if end == 0 {
                    self.network.confirm(&mut self.queue, id);
                    self.note_met(id);
                }
                self.link_opened(node, id, end, conn, certs);
            }
            (Carried::Frame(frame), Purpose::Uplink) => {
                if self.is_uplink(node, id) {
                    let frame = self.as_told(node, frame);
                    self.node_input(node, Input::UplinkFrame(frame));
                }
            }
            (Carried::Frame(frame), Purpose::Direct { .. }) => {
                self.node_input(node, Input::LinkFrame(link_at(id, end), frame));
            }
        }
    }

    fn announced(&mut self, id: StreamId, end: usize) {
        if let Some(stream) = self.network.streams.get_mut(&id) {
            stream.announced[end] = true;
        }
    }

    fn is_uplink(&self, node: usize, id: StreamId) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| process.uplink == Some(id))
    }

    fn link_opened(&mut self, node: usize, id: StreamId, end: usize, conn: ConnId, certs: [CertHash; 2]) {
        let link = link_at(id, end);
        let opened = OpenedLink {
            link,
            conn,
            dialled: end == 0,
            transport: BindTransport::Quic,
            local_cert: certs[end],
            peer_cert: certs[1 - end],
            exporter: Some(seed_for(self.seed, &format!("stream {}", id.0), "exporter")),
            remote: self
                .network
                .remote(id, end)
                .map_or_else(|| format!("stream {}", id.0), |at| at.to_string()),
        };
        self.node_input(node, Input::LinkOpened(opened));
        let rtt = self.network.round_trip(&Purpose::Direct { conn, certs });
        let rtt_us = u64::try_from(rtt.as_micros()).expect("round trips are short");
        let life = self.nodes[node].life;
        self.queue.after(rtt, Event::NodeHears { node, life, input: Input::LinkRtt(link, rtt_us) });
    }

    /// The host of one end learns that its stream is over.
    fn lost(&mut self, id: StreamId, end: usize, why: &str) {
        let Some(stream) = self.network.streams.get(&id) else { return };
        let (purpose, announced) = (stream.purpose, stream.announced[end]);
        let Place::Node(node) = stream.places[end] else { return self.hub_lost(id) };
        match purpose {
            Purpose::Uplink if self.is_uplink(node, id) => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.uplink = None;
                }
                self.node_input(node, Input::UplinkClosed(why.to_owned()));
            }
            Purpose::Uplink => {}
            Purpose::Direct { .. } if announced => {
                self.node_input(node, Input::LinkClosed(link_at(id, end)));
            }
            Purpose::Direct { conn, .. } if end == 0 => {
                self.node_input(node, Input::DialFailed(conn, why.to_owned()));
            }
            // It was taken and never made: its machine did not hear of it.
            Purpose::Direct { .. } => {}
        }
    }
}
