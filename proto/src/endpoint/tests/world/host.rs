//! What happens to nodes, and the host's half of their contract: mutate, drain, commit, act.

use bytes::Bytes;

use super::super::coordinator::Act;
use super::super::mesh::{EXPORTER, cert};
use super::{Crash, Direct, Half, Happening, LINK_DELAY, RELAY_DELAY, World};
use crate::bind::BindTransport;
use crate::endpoint::{Batch, Input, LinkId, OpenedLink, Output};
use crate::envelope::UnverifiedEnvelope;
use crate::id::{CertHash, ConnId};
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
                if let Some(node) = self.sockets.get(&socket) {
                    self.nodes[*node].inputs.push_back(Input::UplinkFrame(frame.encode()));
                }
            }
            Happening::UplinkClosed(socket) => {
                if let Some(node) = self.sockets.remove(&socket) {
                    self.nodes[node].socket = None;
                    self.nodes[node].inputs.push_back(Input::UplinkClosed("connection lost".to_owned()));
                }
            }
            Happening::Dialled { node, life, conn, peer_cert } => {
                if self.nodes[node].life == life && self.nodes[node].running {
                    self.dialled(node, conn, peer_cert);
                }
            }
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

    fn dialled(&mut self, node: usize, conn: ConnId, peer_cert: CertHash) {
        let peer = (0..self.nodes.len()).find(|peer| cert(*peer) == peer_cert).expect("a known certificate");
        let expects = self.nodes[peer].running && self.nodes[peer].expecting.get(&conn) == Some(&cert(node));
        if self.direct == Direct::Blocked || !expects {
            let why = "no answer".to_owned();
            return self.nodes[node].inputs.push_back(Input::DialFailed(conn, why));
        }
        self.nodes[peer].expecting.remove(&conn);
        let (here, there) = (self.fresh(), self.fresh());
        self.links.insert(here, Half { node, other: there });
        self.links.insert(there, Half { node: peer, other: here });
        self.links_made += 1;
        for (link, at, other, dialled) in [(here, node, peer, true), (there, peer, node, false)] {
            let opened = OpenedLink {
                link,
                conn,
                dialled,
                transport: BindTransport::Quic,
                local_cert: cert(at),
                peer_cert: cert(other),
                exporter: if dialled { self.exporter_of_dialler } else { EXPORTER },
                remote: format!("127.0.0.1:{}", 7000 + other),
            };
            self.nodes[at].inputs.push_back(Input::LinkOpened(opened));
        }
    }

    /// Both ends are gone; the other one is told.
    pub(super) fn close_link(&mut self, link: LinkId) {
        let Some(half) = self.links.remove(&link) else { return };
        let Some(other) = self.links.remove(&half.other) else { return };
        let (node, life) = (other.node, self.nodes[other.node].life);
        self.at(LINK_DELAY, Happening::LinkClosed { node, life, link: half.other });
    }

    pub(super) fn carry_out(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(socket, frame) => self.at(RELAY_DELAY, Happening::ToNode(socket, frame)),
                Act::Close(socket) => self.at(RELAY_DELAY, Happening::UplinkClosed(socket)),
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
            Output::Write(_) | Output::LookupSent { .. } | Output::LookupSeen(_) | Output::Load(_) => {
                unreachable!("done before the commit")
            }
            Output::ConnectUplink => {
                let socket = self.fresh();
                assert_eq!(self.nodes[node].socket.replace(socket), None, "one uplink at a time");
                self.sockets.insert(socket, node);
                self.at(RELAY_DELAY, Happening::UplinkAnswered { node, socket });
            }
            Output::CloseUplink(_) => {
                if let Some(socket) = self.nodes[node].socket.take() {
                    self.sockets.remove(&socket);
                    let acts = self.coordinator.closed(socket);
                    self.carry_out(acts);
                }
            }
            Output::SendUplink(frame) => {
                if let Some(socket) = self.nodes[node].socket {
                    self.at(RELAY_DELAY, Happening::ToCoordinator(socket, frame));
                }
            }
            Output::SendLink(link, frame) => self.send_on_link(link, frame),
            Output::CloseLink(link) => self.close_link(link),
            Output::Expect { conn, peer_cert } => {
                self.nodes[node].expecting.insert(conn, peer_cert);
            }
            Output::Dial { conn, peer_cert, candidates } => {
                assert!(!candidates.is_empty(), "a dial has somewhere to go");
                let life = self.nodes[node].life;
                self.at(LINK_DELAY, Happening::Dialled { node, life, conn, peer_cert });
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

    fn send_on_link(&mut self, link: LinkId, frame: Bytes) {
        let Some(half) = self.links.get(&link) else { return };
        let other = half.other;
        if let Ok(OnLink::Envelope { envelope }) = OnLink::decode(&frame) {
            let id = UnverifiedEnvelope::parse(envelope.clone()).expect("well-formed envelopes").header().id;
            self.linked.push((id, envelope));
        }
        if self.direct != Direct::Silent {
            self.at(LINK_DELAY, Happening::LinkFrame(other, frame));
        }
    }
}
