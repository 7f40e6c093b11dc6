//! Members that misbehave: each holds a good key and runs the production machine, and says things beside
//! it, on its uplink and on its direct links, that its machine never would.
//!
//! [`World::hostile_acts`] draws what it does next; `letter` makes what it needs for that.

mod letter;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::endpoint::Request;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::paths::{Candidate, CandidateKind, Nat, Reach};
use peerloom_proto::wire::{OnLink, SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{
    InviteLookup, MessageId, Receipt, ReceiptCode, ReceiptRow, ReceiptStatus, SenderBox, Signal,
};

use crate::chance::Chance;
use crate::forge;
use crate::host::Asked;
use crate::network::{Place, StreamId};
use crate::queue::Event;
use crate::scenario::{HostileMember, Hostility};
use crate::world::World;

/// What a hostile member remembers.
#[derive(Debug)]
pub(crate) struct Hostile {
    node: usize,
    /// Envelopes it sealed beside its machine, and for whom.
    sealed: Vec<(usize, Bytes)>,
    /// Ids it used, and for whom.
    used: Vec<(usize, MessageId)>,
    /// The last bind its machine made.
    bind: Option<Bytes>,
    boxes: BTreeMap<usize, SenderBox>,
    chance: Chance,
}

/// Envelopes and ids it remembers.
const REMEMBERED: usize = 1_024;

/// In how many of a hundred acts it asks its machine for a direct link, where it has none.
const WANTS_LINK_PERCENT: u8 = 10;

/// A claim that the coordinator never gave.
const NO_CLAIM: u64 = 1 << 60;

impl Hostile {
    pub(crate) fn new(member: &HostileMember, seed: u64) -> Self {
        Self {
            node: member.node,
            sealed: Vec::new(),
            used: Vec::new(),
            bind: None,
            boxes: BTreeMap::new(),
            chance: Chance::new(seed, &format!("node {}", member.node), "hostility"),
        }
    }
}

impl World {
    /// Plans the hostile members' first acts. Gives when the last of them is over.
    pub(crate) fn plan_hostilities(&mut self) -> Duration {
        let mut over = Duration::ZERO;
        for (hostile, member) in self.scenario.hostile.iter().enumerate() {
            self.queue.at(member.from_s.duration(), Event::HostileActs { hostile });
            over = over.max(member.until_s.unwrap_or(self.scenario.duration_s).duration());
        }
        over
    }

    /// A hostile member does what it does next.
    pub(crate) fn hostile_acts(&mut self, hostile: usize) {
        let member = self.scenario.hostile[hostile].clone();
        let until = member.until_s.unwrap_or(self.scenario.duration_s).duration();
        if self.queue.now() >= until {
            return;
        }
        self.queue.after(member.every_s.duration(), Event::HostileActs { hostile });
        if self.nodes[member.node].process.is_none() {
            return;
        }
        let everybody: Vec<usize> = (0..self.nodes.len()).collect();
        let towards = member.towards.unwrap_or(everybody);
        let towards: Vec<usize> = towards.into_iter().filter(|node| *node != member.node).collect();
        for _ in 0..member.burst {
            let chance = &mut self.hostiles[hostile].chance;
            let deed = member.deeds[chance.below(member.deeds.len())];
            let to = towards[chance.below(towards.len())];
            let wants_link = chance.percent(WANTS_LINK_PERCENT);
            if wants_link && self.link_to(hostile, to).is_none() {
                self.ask_node(member.node, Asked::Link, Request::Connect(self.nodes[to].id));
            }
            self.hostility(hostile, deed, to);
        }
    }

    fn hostility(&mut self, hostile: usize, deed: Hostility, to: usize) {
        match deed {
            Hostility::ReuseIds => self.reuses_an_id(hostile, to),
            Hostility::Replay => self.replays(hostile, to),
            Hostility::Garbage => self.says_garbage(hostile, to),
            // Where its machine binds.
            Hostility::Binds => {}
            Hostility::Times => self.misdates(hostile, to),
            Hostility::Recipients => self.misaddresses(hostile, to),
            Hostility::Receipts => self.receipts_for_others(hostile),
            Hostility::Heads => self.signs_another_head(hostile, to),
            Hostility::Seals => self.seals_wrongly(hostile, to),
            Hostility::Signals => self.signals(hostile, to),
            Hostility::Requests => self.asks_nonsense(hostile, to),
            Hostility::Lives => self.makes_up_a_life(hostile, to),
            Hostility::Flood => {
                let letter = self.letter(hostile, to);
                self.posts(hostile, &letter);
                self.did("flooded");
            }
            Hostility::GoOn => self.goes_on(hostile, to),
        }
    }

    fn reuses_an_id(&mut self, hostile: usize, to: usize) {
        let it = &mut self.hostiles[hostile];
        let own: Vec<MessageId> =
            it.used.iter().filter(|(used_for, _)| *used_for == to).map(|(_, id)| *id).collect();
        let own = it.chance.percent(40).then(|| own.get(it.chance.below(own.len())).copied()).flatten();
        let mut letter = self.letter(hostile, to);
        if let Some(id) = own {
            letter.id = id;
        } else if let Some(row) = self.somebodys_row(hostile, Some(to)) {
            (letter.id, letter.fp) = (row.id, row.fp);
        } else {
            let node = self.hostiles[hostile].node;
            let others =
                self.history.messages.iter().filter(|planned| planned.to == to && planned.from != node);
            let others: Vec<MessageId> = others.map(|planned| planned.id).collect();
            let Some(id) = others.get(self.hostiles[hostile].chance.below(others.len())) else { return };
            letter.id = *id;
        }
        self.posts(hostile, &letter);
        self.did("reused an id");
    }

    fn replays(&mut self, hostile: usize, to: usize) {
        let it = &mut self.hostiles[hostile];
        let (mut recipient, mut wire) = match it.sealed.get(it.chance.below(it.sealed.len())) {
            Some(sealed) => sealed.clone(),
            None => return,
        };
        // Another's, which the coordinator showed it.
        if self.hostiles[hostile].chance.percent(30)
            && let Some(row) = self.somebodys_row(hostile, None)
        {
            (recipient, wire) = (to, row.wire);
        }
        self.hands_over(hostile, recipient, wire);
        self.did("repeated an envelope");
    }

    fn says_garbage(&mut self, hostile: usize, to: usize) {
        let letter = self.letter(hostile, to);
        let envelope = self.seal(hostile, &letter).wire;
        let it = &mut self.hostiles[hostile];
        let good = match it.chance.below(2) {
            0 => ToCoordinator::Put { envelope }.encode(),
            _ => OnLink::Envelope { envelope }.encode(),
        };
        let garbage = match it.chance.below(10) {
            0 => Bytes::from(vec![0x84; FRAME_BYTES_MAX + 1]),
            1..=3 => good.slice(..it.chance.below(good.len())),
            4..=6 => forge::flip(&good, &mut it.chance),
            _ => Bytes::copy_from_slice(&it.chance.bytes::<96>()),
        };
        let by_link = it.chance.percent(50);
        match self.link_to(hostile, to).filter(|_| by_link) {
            Some((stream, end)) => drop(self.network.send(&mut self.queue, stream, end, garbage)),
            None => self.says_to_coordinator(hostile, garbage),
        }
        self.did("said garbage");
    }

    fn misdates(&mut self, hostile: usize, to: usize) {
        const HOUR: Duration = Duration::from_secs(3_600);
        let mut letter = self.letter(hostile, to);
        let now = letter.ts;
        (letter.ts, letter.exp) = match self.hostiles[hostile].chance.below(4) {
            0 => (now.plus(HOUR), now.plus(2 * HOUR)),
            1 => (now.minus(2 * HOUR), now.minus(HOUR)),
            2 => (now, now.plus(8 * 24 * HOUR)),
            _ => (now, now.minus(Duration::from_millis(1))),
        };
        self.posts(hostile, &letter);
        self.did("misdated");
    }

    fn misaddresses(&mut self, hostile: usize, to: usize) {
        let other = self.hostiles[hostile].chance.below(self.nodes.len());
        if other == self.hostiles[hostile].node {
            return;
        }
        let letter = self.letter(hostile, other);
        let wire = self.seal(hostile, &letter).wire;
        // By the relay it still comes to whom it is for.
        self.note_letter(hostile, &letter);
        self.hands_over(hostile, to, wire);
        self.did("misaddressed");
    }

    /// A receipt for a message between two others, in its own name or in the recipient's.
    fn receipts_for_others(&mut self, hostile: usize) {
        let Some(row) = self.somebodys_row(hostile, None) else { return };
        let now = self.node_now(self.hostiles[hostile].node).wall;
        let it = &mut self.hostiles[hostile];
        let key = self.nodes[it.node].key.clone();
        let (status, code) = match it.chance.below(4) {
            0 => (ReceiptStatus::Stored, None),
            1 => (ReceiptStatus::Surfaced, None),
            2 => (ReceiptStatus::Rejected, Some(ReceiptCode::REVOKED)),
            _ => (ReceiptStatus::Retry, Some(ReceiptCode::UNKNOWN_KID)),
        };
        let by = if it.chance.percent(50) { key.id() } else { row.to };
        let receipt = Receipt {
            mesh: self.mesh.roster.mesh_id(),
            by,
            to: self.nodes[row.from].id,
            rows: vec![ReceiptRow { env_hash: row.env_hash, id: row.id, status, code }],
            ts: now,
            head: self.mesh.roster.head(),
        };
        let stmt = Bytes::from(receipt.encode());
        let receipt = SignedBytes { sig: key.sign("receipt", &[&stmt]), stmt };
        match self.link_to(hostile, row.from) {
            Some((stream, end)) => {
                let frame = OnLink::Receipt { receipt }.encode();
                self.network.send(&mut self.queue, stream, end, frame);
            }
            None => {
                self.says_to_coordinator(
                    hostile,
                    ToCoordinator::Receipt { receipt, claims: vec![0] }.encode(),
                );
            }
        }
        self.did("receipted for others");
    }

    fn signals(&mut self, hostile: usize, to: usize) {
        let it = &mut self.hostiles[hostile];
        let (nonce, offer) = (it.chance.bytes(), it.chance.bytes());
        let means = peerloom_proto::Means::quic(peerloom_proto::CertHash(it.chance.bytes()));
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        let reach = Reach {
            candidates: vec![Candidate { kind: CandidateKind::Host, addr }],
            nat: Nat::default(),
            birthday: true,
        };
        let signal = match it.chance.below(6) {
            0 => Signal::Offer { nonce, means, reach },
            1 => Signal::Answer { nonce, offer, means, reach },
            2 => Signal::Echo { nonce },
            3 => Signal::EchoReply { nonce },
            4 => Signal::Candidates { nonce, reach },
            _ => Signal::Settled {
                generation: peerloom_proto::Generation(it.chance.bytes()),
                lowest: it.chance.below(1 << 40) as u64,
            },
        };
        let mut letter = self.letter(hostile, to);
        letter.signal = Some(signal);
        let wire = self.seal(hostile, &letter).wire;
        self.hands_over(hostile, to, wire);
        self.did("signalled");
    }

    fn asks_nonsense(&mut self, hostile: usize, to: usize) {
        let it = &mut self.hostiles[hostile];
        let number = it.chance.below(1 << 40) as u64;
        let frame = match it.chance.below(6) {
            0 => ToCoordinator::LogGet { from: number % 4 },
            1 => ToCoordinator::Settle { claims: vec![number, number + 1] },
            2 => ToCoordinator::LogAppend { request: number, entry: Bytes::from_static(b"no entry") },
            3 => ToCoordinator::PrekeyGet { members: vec![self.nodes[to].id; 256] },
            4 => ToCoordinator::InviteDelete { request: number, lookup: InviteLookup(it.chance.bytes()) },
            _ => ToCoordinator::Claim { messages: number, bytes: number },
        };
        self.says_to_coordinator(hostile, frame.encode());
        self.did("asked nonsense");
    }

    /// It was revoked and goes on: on what links it still has, and through a coordinator that helps it.
    fn goes_on(&mut self, hostile: usize, to: usize) {
        if !self.history.revoked.contains(&self.hostiles[hostile].node) {
            return;
        }
        let letter = self.letter(hostile, to);
        let wire = self.seal(hostile, &letter).wire;
        self.note_letter(hostile, &letter);
        let uplink = self.nodes[to].process.as_ref().and_then(|process| process.uplink);
        match (self.link_to(hostile, to), uplink) {
            (Some((stream, end)), _) => {
                let frame = OnLink::Envelope { envelope: wire }.encode();
                self.network.send(&mut self.queue, stream, end, frame);
            }
            (None, Some(uplink)) => {
                let mail = ToNode::Deliver { claim: NO_CLAIM, queued: true, envelope: wire };
                self.evil_says(uplink, mail.encode());
            }
            (None, None) => return,
        }
        self.did("went on");
    }

    /// A frame of its machine's on a direct link, as it leaves.
    pub(crate) fn hostile_sends(&mut self, node: usize, frame: Bytes) -> Bytes {
        let binds = |member: &HostileMember| member.node == node && member.deeds.contains(&Hostility::Binds);
        let Some(hostile) = self.scenario.hostile.iter().position(binds) else { return frame };
        if !matches!(OnLink::decode(&frame), Ok(OnLink::Bind { .. })) {
            return frame;
        }
        let it = &mut self.hostiles[hostile];
        let older = it.bind.replace(frame.clone());
        let spoiled = match it.chance.below(4) {
            0 => return frame,
            1 => forge::flip(&frame, &mut it.chance),
            _ => older.unwrap_or_else(|| forge::flip(&frame, &mut it.chance)),
        };
        self.did("bound wrongly");
        spoiled
    }

    // How what it says leaves.

    fn says_to_coordinator(&mut self, hostile: usize, frame: Bytes) {
        let process = self.nodes[self.hostiles[hostile].node].process.as_ref();
        if let Some(stream) = process.and_then(|process| process.uplink) {
            self.network.send(&mut self.queue, stream, 0, frame);
        }
    }

    /// Its end of a direct link to another node.
    fn link_to(&self, hostile: usize, to: usize) -> Option<(StreamId, usize)> {
        let ends = [Place::Node(self.hostiles[hostile].node), Place::Node(to)];
        self.network.direct_streams().into_iter().find_map(|(stream, places)| {
            let end = places.iter().position(|place| *place == ends[0])?;
            (places[1 - end] == ends[1]).then_some((stream, end))
        })
    }

    /// Hands an envelope over, by a direct link where there is one and chance wants it.
    fn hands_over(&mut self, hostile: usize, to: usize, envelope: Bytes) {
        let by_link = self.hostiles[hostile].chance.percent(60);
        match self.link_to(hostile, to).filter(|_| by_link) {
            Some((stream, end)) => {
                let frame = OnLink::Envelope { envelope }.encode();
                self.network.send(&mut self.queue, stream, end, frame);
            }
            None => self.says_to_coordinator(hostile, ToCoordinator::Put { envelope }.encode()),
        }
    }
}
