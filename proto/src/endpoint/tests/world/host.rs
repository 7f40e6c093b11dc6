//! What happens to nodes, and the host's half of their contract: mutate, drain, commit, act.

use bytes::Bytes;

use super::super::coordinator::Act;
use super::super::mesh::{EXPORTER, cert};
use super::{Crash, Dial, Direct, Half, Happening, World};
use crate::bind::BindTransport;
use crate::endpoint::{Batch, Input, LinkId, OpenedLink, Output, WebRtcAct, WebRtcPeer};
use crate::envelope::UnverifiedEnvelope;
use crate::wire::OnLink;

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::UplinkAnswered { node, socket } => {
                if self.sockets.get(&socket) != Some(&node) {
                } else if self.coordinator_up {
                    self.nodes[node].inputs.push_back(Input::UplinkOpened);
                    let acts = self.coordinator.opened(self.coordinator_now(), socket);
                    self.carry_out(acts);
                } else {
                    self.happen(Happening::UplinkClosed(socket));
                }
            }
            Happening::ToCoordinator(socket, frame) => {
                if self.sockets.contains_key(&socket) && self.coordinator_up {
                    let acts = self.coordinator.frame(self.coordinator_now(), socket, &frame);
                    self.carry_out(acts);
                }
            }
            Happening::ToNode(socket, frame) => {
                if let Some(node) = self.sockets.get(&socket).filter(|_| !self.stranded.contains(&socket)) {
                    self.nodes[*node].inputs.push_back(Input::UplinkFrame(frame.encode()));
                }
            }
            Happening::UplinkClosed(socket) => {
                if let Some(node) = self.sockets.remove(&socket) {
                    self.nodes[node].socket = None;
                    self.nodes[node].inputs.push_back(Input::UplinkClosed("connection lost".to_owned()));
                }
            }
            Happening::Dialled { node, life, dial } => {
                if self.nodes[node].life == life && self.nodes[node].running {
                    self.dialled(node, dial);
                }
            }
            Happening::Accepted { node, life, opened } => {
                if self.nodes[node].life == life && self.nodes[node].running {
                    self.nodes[node].inputs.push_back(Input::LinkOpened(opened));
                }
            }
            Happening::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Happening::LinkFrame(link, frame) => {
                if let Some(half) = self.links.get(&link) {
                    self.nodes[half.node].inputs.push_back(Input::LinkFrame(link, frame));
                }
            }
            Happening::LinkClosed { node, life, link } => {
                if self.nodes[node].life == life && self.nodes[node].running {
                    self.nodes[node].inputs.push_back(Input::LinkClosed(link));
                }
            }
        }
    }

    fn dialled(&mut self, node: usize, dial: Dial) {
        let Dial { conn, peer_cert, socket, candidates, transport } = dial;
        // Swallowed: the dialler learns it from its own clock.
        if self.quic_blocked && transport == BindTransport::Quic {
            return;
        }
        let reached = self.handshake(node, socket, &candidates, peer_cert).filter(|(peer, _)| {
            self.direct != Direct::Blocked
                && self.nodes[*peer].running
                && self.nodes[*peer].expecting.get(&conn) == Some(&cert(node))
        });
        let Some((peer, remote)) = reached else {
            let why = "no answer".to_owned();
            return self.nodes[node].inputs.push_back(Input::DialFailed(conn, why));
        };
        self.nodes[peer].expecting.remove(&conn);
        let (here, there) = (self.fresh(), self.fresh());
        self.links.insert(here, Half { node, other: there });
        self.links.insert(there, Half { node: peer, other: here });
        self.links_made += 1;
        let opened = |link, at, other, dialled, exporter| OpenedLink {
            link,
            conn,
            dialled,
            transport,
            local_cert: cert(at),
            peer_cert: cert(other),
            exporter: Some(exporter).filter(|_| transport == BindTransport::Quic),
            remote: remote.to_string(),
        };
        let ours = opened(here, node, peer, true, self.exporter_of_dialler);
        let opened = opened(there, peer, node, false, EXPORTER);
        self.nodes[node].inputs.push_back(Input::LinkOpened(ours));
        let life = self.nodes[peer].life;
        self.at(self.link_delay, Happening::Accepted { node: peer, life, opened });
    }

    /// Both ends are gone; the other one is told.
    pub(super) fn close_link(&mut self, link: LinkId) {
        let Some(half) = self.links.remove(&link) else { return };
        let Some(other) = self.links.remove(&half.other) else { return };
        let (node, life) = (other.node, self.nodes[other.node].life);
        self.at(self.link_delay, Happening::LinkClosed { node, life, link: half.other });
    }

    pub(super) fn carry_out(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(socket, frame) => self.at(self.relay_delay, Happening::ToNode(socket, frame)),
                Act::Close(socket) => self.at(self.relay_delay, Happening::UplinkClosed(socket)),
            }
        }
    }

    /// Mutate, drain, commit, act: the host's half of the contract.
    pub(super) fn run_batch(&mut self, node: usize) {
        let now = self.now(node);
        let it = &mut self.nodes[node];
        let batch = it.batches;
        it.batches += 1;
        let mut gathered = Batch::begin(&mut it.endpoint, now);
        for input in std::mem::take(&mut it.inputs) {
            it.endpoint.handle(now, input);
        }
        let Ok(()) = gathered.drain(&mut it.endpoint, now, &mut it.disk);
        let crash = it.crash_at.filter(|(at, _)| *at == batch).map(|(_, crash)| crash);
        if crash == Some(Crash::BeforeCommit) {
            return self.restart(node);
        }
        it.disk.commit(gathered.writes);
        if crash == Some(Crash::AfterCommit) {
            return self.restart(node);
        }
        gathered.acts.into_iter().for_each(|output| self.act(node, output));
    }

    fn act(&mut self, node: usize, output: Output) {
        match output {
            Output::Write(_)
            | Output::LookupSent { .. }
            | Output::LookupSeen(_)
            | Output::Load(_)
            | Output::LoadEntries(_) => {
                unreachable!("done before the commit")
            }
            Output::ConnectUplink => {
                let socket = self.fresh();
                assert_eq!(self.nodes[node].socket.replace(socket), None, "one uplink at a time");
                self.sockets.insert(socket, node);
                self.at(self.relay_delay, Happening::UplinkAnswered { node, socket });
            }
            Output::CloseUplink(_) => {
                if let Some(socket) = self.nodes[node].socket.take() {
                    self.sockets.remove(&socket);
                    let acts = self.coordinator.closed(socket);
                    self.carry_out(acts);
                }
            }
            Output::SendUplink(frame) => {
                match self.nodes[node].socket {
                    // The far end knows no such connection from there.
                    Some(socket) if self.stranded.remove(&socket) => {
                        self.at(2 * self.relay_delay, Happening::UplinkClosed(socket));
                        let acts = self.coordinator.closed(socket);
                        self.carry_out(acts);
                    }
                    Some(socket) => self.at(self.relay_delay, Happening::ToCoordinator(socket, frame)),
                    None => {}
                }
            }
            Output::SendLink(link, frame) => self.send_on_link(link, frame),
            Output::CloseLink(link) => self.close_link(link),
            Output::Expect { conn, peer_cert } => {
                self.nodes[node].expecting.insert(conn, peer_cert);
            }
            Output::Dial { conn, peer_cert, socket, candidates } => {
                assert!(!candidates.is_empty(), "a dial has somewhere to go");
                let life = self.nodes[node].life;
                let transport = BindTransport::Quic;
                let dial = Dial { conn, peer_cert, socket, candidates, transport };
                self.at(2 * self.link_delay, Happening::Dialled { node, life, dial });
            }
            Output::WebRtc(act) => {
                self.webrtc.push((node, act.clone()));
                self.over_webrtc(node, act);
            }
            Output::SendDatagram { socket, to, datagram, ttl } => {
                self.send_datagram(node, socket, to, datagram, ttl.is_none());
            }
            Output::OpenSockets { conn, count } => {
                let open = &mut self.sockets_open[node];
                let first = open.last().map_or(1, |last| last + 1);
                let sockets: Vec<u16> = (first..first + count).collect();
                open.extend(&sockets);
                self.nodes[node].inputs.push_back(Input::SocketsOpened { conn, sockets });
            }
            Output::CloseSockets(sockets) => {
                self.sockets_open[node].retain(|socket| !sockets.contains(socket));
            }
            Output::Forget(conn) => {
                self.nodes[node].expecting.remove(&conn);
            }
            Output::Reply(token, reply) => {
                let twice = self.nodes[node].replies.insert(token, reply);
                assert!(twice.is_none(), "a request is answered once");
            }
            Output::Event(event) => self.nodes[node].events.push(event),
        }
    }

    fn over_webrtc(&mut self, node: usize, act: WebRtcAct) {
        match act {
            WebRtcAct::Expect(WebRtcPeer { conn, peer_cert, .. }) => {
                self.nodes[node].expecting.insert(conn, peer_cert);
            }
            WebRtcAct::Dial(WebRtcPeer { conn, peer_cert, candidates, .. }) => {
                let (life, transport) = (self.nodes[node].life, BindTransport::Dtls);
                let dial = Dial { conn, peer_cert, socket: 0, candidates, transport };
                self.at(6 * self.link_delay, Happening::Dialled { node, life, dial });
            }
            WebRtcAct::Learn { .. } => {}
        }
    }

    fn send_on_link(&mut self, link: LinkId, frame: Bytes) {
        let Some(half) = self.links.get(&link) else { return };
        let other = half.other;
        if let Ok(OnLink::Envelope { envelope }) = OnLink::decode(&frame) {
            let id = UnverifiedEnvelope::parse(envelope.clone()).expect("well-formed envelopes").header().id;
            self.linked.push((id, envelope));
        }
        if self.direct != Direct::Silent && link > self.dead_links {
            self.at(self.link_delay, Happening::LinkFrame(other, frame));
        }
    }
}
