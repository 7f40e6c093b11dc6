//! A hub with an imagined disk under it and imagined nodes around it. Time moves when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{
    Answer as HelloAnswer, BoxPublicKey, Channel, EnvHash, Fingerprint, GenesisParams, Handle, Head, Header,
    HelloRole, IdentityKey, InstanceId, InviteLookup, Kid, MeshId, MessageId, Monotonic, NewMember, Now,
    Origin, PeerId, Policy, Priority, Receipt, ReceiptRow, ReceiptStatus, Recipient, Role, Roster, RunId,
    SignedHello, SignedReceipt, StoreMark, Suite, UnixMs, UnverifiedEnvelope, Value, WireEntry, encode,
    sha256,
};

use crate::arrived::Arrived;
use crate::batch::Batch;
use crate::hub::{
    Answer, Command, CommitFailure, HttpReply, HttpRequest, HttpToken, Hub, HubConfig, Input, Query, ReadId,
    SocketId,
};
use crate::runs::Runs;
use crate::store::{InviteRow, MailRow, QueueDepth, Snapshot, Write};

pub(crate) const ORIGIN: &str = "http://127.0.0.1:7700";
const START: u64 = 1_800_000_000_000;

/// A member's node.
pub(crate) struct Node {
    pub(crate) key: IdentityKey,
    pub(crate) instance: InstanceId,
    pub(crate) counter: u64,
    pub(crate) mark: Option<StoreMark>,
}

impl Node {
    pub(crate) fn named(name: &str) -> Self {
        let seed = sha256(format!("hub test {name}").as_bytes());
        Self { key: IdentityKey::from_seed(&seed), instance: InstanceId([1; 16]), counter: 0, mark: None }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.key.id()
    }
}

/// When batches become durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    AtOnce,
    /// Only by [`World::commit`] or [`World::fail`].
    WhenTold,
}

#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) log: BTreeMap<MeshId, Vec<Bytes>>,
    pub(crate) mail: BTreeMap<u64, MailRow>,
    pub(crate) prekeys: BTreeMap<PeerId, SignedBytes>,
    pub(crate) invites: BTreeMap<InviteLookup, (InviteRow, Bytes)>,
    pub(crate) runs: Runs,
    /// How long nobody lived here before the next start.
    pub(crate) silence: Option<Duration>,
    next_seq: u64,
}

pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) now: Now,
    pub(crate) disk: Disk,
    /// Whether the store cannot be read.
    pub(crate) unreadable: bool,
    pub(crate) store: FakeStore,
    pub(crate) writing: Option<Batch>,
    pub(crate) closed: BTreeSet<SocketId>,
    pub(crate) replies: BTreeMap<HttpToken, HttpReply>,
    /// What the mesh was created with.
    pub(crate) beginning: Vec<Bytes>,
    /// The log as its members replay it.
    pub(crate) roster: Roster,
    sent: BTreeMap<SocketId, Vec<ToNode>>,
    reads: Vec<(ReadId, Query)>,
    next_socket: u64,
    next_token: u64,
    next_id: u128,
}

impl World {
    /// A mesh of an owner, and alice, bob and carol as members; alice is an admin.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(adjust: impl FnOnce(&mut HubConfig)) -> Self {
        Self::at(UnixMs(START), adjust)
    }

    /// The same mesh begun at another time.
    pub(crate) fn at(wall: UnixMs, adjust: impl FnOnce(&mut HubConfig)) -> Self {
        let now = Now { monotonic: Monotonic::from_origin(Duration::from_secs(1_000)), wall };
        let owner = Node::named("owner").key;
        let genesis = WireEntry::genesis(&owner, genesis_for(&coordinator_key(), ORIGIN, now.wall));
        let mut roster = Roster::begin(&genesis).expect("the genesis is sound");
        let mut entries = vec![Bytes::from(genesis.encode())];
        for (name, role) in [("alice", Role::Admin), ("bob", Role::Member), ("carol", Role::Member)] {
            let entry = roster.member_add(&owner, newcomer(name, role), now.wall);
            roster.append(&entry).expect("the owner may");
            entries.push(entry.encode().into());
        }
        let mut config = HubConfig::new(coordinator_key(), Origin::parse(ORIGIN).expect("an origin"));
        adjust(&mut config);
        let mut world = Self {
            hub: Hub::new(config, Snapshot { next_seq: 1, ..Snapshot::default() }, [7; 32], now),
            now,
            disk: Disk::AtOnce,
            unreadable: false,
            store: FakeStore { next_seq: 1, ..FakeStore::default() },
            writing: None,
            closed: BTreeSet::new(),
            replies: BTreeMap::new(),
            beginning: entries.clone(),
            roster,
            sent: BTreeMap::new(),
            reads: Vec::new(),
            next_socket: 0,
            next_token: 0,
            next_id: 0,
        };
        let reply = world.http(HttpRequest::MeshCreate { entries });
        assert!(matches!(reply, Some(HttpReply::MeshCreated { .. })), "{reply:?}");
        world
    }

    /// A log as its members replay it.
    pub(crate) fn roster_of(&self, log: &[Bytes]) -> Roster {
        let mut entries = log.iter().map(|bytes| WireEntry::parse(bytes).expect("an entry"));
        let mut roster = Roster::begin(&entries.next().expect("a genesis")).expect("the genesis is sound");
        entries.for_each(|entry| drop(roster.append(&entry).expect("it was sequenced")));
        roster
    }

    pub(crate) fn mesh(&self) -> MeshId {
        self.roster.mesh_id()
    }

    /// The same disk under a process that was started anew.
    pub(crate) fn restart(&mut self) {
        self.writing = None;
        self.reads.clear();
        self.store.next_seq += 1 << 20;
        self.store.begin_run();
        let config = HubConfig::new(coordinator_key(), Origin::parse(ORIGIN).expect("an origin"));
        let snapshot = self.store.snapshot();
        self.hub = Hub::new(config, snapshot, [8; 32], self.now);
        self.settle();
    }

    /// Hands the hub one input and lets everything settle.
    pub(crate) fn input(&mut self, input: Input) {
        self.hub.handle(self.now, input);
        self.settle();
    }

    pub(crate) fn settle(&mut self) {
        loop {
            while let Some(command) = self.hub.poll_command() {
                self.carry_out(command);
            }
            if let Some((read, query)) = self.reads.pop() {
                let answer = if self.unreadable { Answer::Failed } else { self.store.answer(&query) };
                self.hub.handle(self.now, Input::Read { read, answer });
                continue;
            }
            if self.writing.is_none() {
                self.writing = self.hub.take_batch(self.now);
            }
            if self.disk == Disk::WhenTold || self.writing.is_none() {
                return;
            }
            let batch = self.writing.take().expect("looked at above");
            let commit = self.store.apply(&batch.writes);
            self.hub.handle(self.now, Input::Committed { batch, commit });
        }
    }

    /// The batch under way becomes durable.
    pub(crate) fn commit(&mut self) {
        let batch = self.writing.take().expect("a batch is under way");
        let commit = self.store.apply(&batch.writes);
        self.input(Input::Committed { batch, commit });
    }

    /// The batch under way is lost.
    pub(crate) fn fail(&mut self, failure: CommitFailure) {
        let batch = self.writing.take().expect("a batch is under way");
        if failure == CommitFailure::FullButSettled {
            let kept: Vec<Write> = batch.writes.iter().filter(|write| write.settles()).cloned().collect();
            self.store.apply(&kept);
        }
        self.input(Input::CommitFailed { batch, failure });
    }

    /// Time passes; whatever is due happens in order.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        while let Some(due) = self.hub.poll_timeout().filter(|due| *due <= end) {
            self.advance_to(due);
            self.input(Input::Timeout);
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, at: Monotonic) {
        let step = at.since(self.now.monotonic);
        self.now.monotonic = self.now.monotonic + step;
        self.now.wall = self.now.wall.plus(step);
    }

    /// A connection without a hello.
    pub(crate) fn open(&mut self) -> SocketId {
        self.next_socket += 1;
        let socket = SocketId(self.next_socket);
        self.input(Input::Opened { socket, addr: "192.0.2.7".parse().expect("an address") });
        socket
    }

    pub(crate) fn hello_for(&self, node: &Node, challenge: &[u8], origin: &str) -> SignedHello {
        let origin = Origin::parse(origin).expect("an origin");
        let answer = HelloAnswer {
            identity: &node.key,
            role: HelloRole::ControlPlane,
            auth: None,
            mesh: self.mesh(),
            coordinators: &[(coordinator_key().id(), origin.clone())],
            origin: &origin,
            nonce: [9; 32],
            features: &[],
            head: self.roster.head(),
            instance: node.instance,
            counter: node.counter,
            mark: node.mark,
            now: self.now.wall,
        };
        SignedHello::answer(challenge, &answer).expect("the challenge is this coordinator's")
    }

    /// The challenge a fresh connection got.
    pub(crate) fn challenge(&mut self, socket: SocketId) -> Bytes {
        match self.sent_to(socket).remove(0) {
            ToNode::Challenge { challenge } => challenge,
            other => panic!("expected a challenge, found {other:?}"),
        }
    }

    /// Opens a connection and says hello.
    pub(crate) fn greet(&mut self, node: &mut Node) -> SocketId {
        node.counter += 1;
        let socket = self.open();
        let challenge = self.challenge(socket);
        let hello = self.hello_for(node, &challenge, ORIGIN);
        let hello = SignedBytes { stmt: hello.stmt().clone(), sig: hello.sig() };
        self.frame(socket, ToCoordinator::Hello { hello, attestation: Bytes::new() });
        socket
    }

    /// A member that is online and takes mail.
    pub(crate) fn join(&mut self, node: &mut Node) -> SocketId {
        let socket = self.greet(node);
        let first = self.sent_to(socket);
        assert!(matches!(first[0], ToNode::Welcome { .. }), "{first:?}");
        self.frame(socket, ToCoordinator::Claim { messages: 64, bytes: 1 << 20 });
        socket
    }

    /// A frame as a socket's task reads it.
    pub(crate) fn frame(&mut self, socket: SocketId, frame: ToCoordinator) {
        self.bytes(socket, frame.encode());
    }

    pub(crate) fn bytes(&mut self, socket: SocketId, bytes: Bytes) {
        self.input(Input::Frames { socket, frames: vec![Arrived::read(&bytes)] });
    }

    pub(crate) fn put(&mut self, socket: SocketId, envelope: &UnverifiedEnvelope) {
        self.frame(socket, ToCoordinator::Put { envelope: envelope.wire().clone() });
    }

    /// A well-formed envelope; the coordinator never looks inside.
    pub(crate) fn envelope(&mut self, from: &Node, to: &Node) -> UnverifiedEnvelope {
        self.envelope_with(from, to, |_| {})
    }

    pub(crate) fn envelope_with(
        &mut self,
        from: &Node,
        to: &Node,
        adjust: impl FnOnce(&mut Header),
    ) -> UnverifiedEnvelope {
        self.next_id += 1;
        let mut header = Header {
            suite: Suite::Box,
            mesh: self.mesh(),
            channel: Channel::Dm,
            from: from.id(),
            auth: None,
            to: Recipient::Peer(to.id()),
            id: MessageId(self.next_id.to_be_bytes()),
            ts: self.now.wall,
            exp: self.now.wall.plus(Duration::from_secs(3_600)),
            fp: Fingerprint([3; 32]),
            head: self.roster.head(),
            spk: Some([4; 32]),
            kid: Kid([5; 16]),
            nonce: [6; 24],
            priority: Priority::Next,
            stream: None,
            rpc: None,
            group: None,
        };
        adjust(&mut header);
        let frame = encode(&Value::Array(vec![
            Value::Uint(2),
            Value::Bytes(&header.encode()),
            Value::Bytes(&[0; 80]),
            Value::Bytes(&[0; 64]),
        ]));
        UnverifiedEnvelope::parse(frame.into()).expect("of the right shape")
    }

    /// `by`'s signed word that it stored `envelopes` of `to`.
    pub(crate) fn receipt(&self, by: &Node, to: &Node, envelopes: &[&UnverifiedEnvelope]) -> SignedReceipt {
        let row = |envelope: &&UnverifiedEnvelope| ReceiptRow {
            env_hash: envelope.env_hash(),
            id: envelope.header().id,
            status: ReceiptStatus::Stored,
            code: None,
        };
        let rows = envelopes.iter().map(row).collect();
        let (mesh, head) = (self.mesh(), self.roster.head());
        SignedReceipt::sign(
            &by.key,
            Receipt { mesh, by: by.id(), to: to.id(), rows, ts: self.now.wall, head },
        )
    }

    pub(crate) fn send_receipt(&mut self, socket: SocketId, receipt: &SignedReceipt, claims: Vec<u64>) {
        let receipt = SignedBytes { stmt: receipt.stmt().clone(), sig: receipt.sig() };
        self.frame(socket, ToCoordinator::Receipt { receipt, claims });
    }

    /// What was sent to a socket since this was last asked.
    pub(crate) fn sent_to(&mut self, socket: SocketId) -> Vec<ToNode> {
        self.sent.remove(&socket).unwrap_or_default()
    }

    /// Envelopes delivered since this was last asked: claim, whether queued, hash.
    pub(crate) fn delivered(&mut self, socket: SocketId) -> Vec<(u64, bool, EnvHash)> {
        let deliveries = self.sent_to(socket).into_iter().filter_map(|frame| match frame {
            ToNode::Deliver { claim, queued, envelope } => {
                let parsed = UnverifiedEnvelope::parse(envelope).expect("delivered as put");
                Some((claim, queued, parsed.env_hash()))
            }
            _ => None,
        });
        deliveries.collect()
    }

    pub(crate) fn http(&mut self, request: HttpRequest) -> Option<HttpReply> {
        self.next_token += 1;
        let token = HttpToken(self.next_token);
        self.input(Input::Http { token, addr: "192.0.2.9".parse().expect("an address"), request });
        self.replies.remove(&token)
    }

    /// Members learn of entries that were sequenced.
    pub(crate) fn learn(&mut self, entry: &Bytes) {
        let wire = WireEntry::parse(entry).expect("a log entry");
        self.roster.append(&wire).expect("it comes next");
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Send { socket, frame } => {
                let frame = ToNode::decode(&frame).expect("the hub sends frames");
                self.sent.entry(socket).or_default().push(frame);
            }
            Command::Close { socket } => drop(self.closed.insert(socket)),
            Command::Read { read, query } => self.reads.push((read, query)),
            Command::Reply { token, reply } => drop(self.replies.insert(token, reply)),
        }
    }
}

impl FakeStore {
    fn snapshot(&self) -> Snapshot {
        let mut queues: BTreeMap<(MeshId, PeerId), QueueDepth> = BTreeMap::new();
        for row in self.mail.values() {
            let empty = QueueDepth { mesh: row.mesh, to: row.to, messages: 0, bytes: 0 };
            let depth = queues.entry((row.mesh, row.to)).or_insert(empty);
            depth.messages += 1;
            depth.bytes += row.bytes.len() as u64;
        }
        Snapshot {
            next_seq: self.next_seq,
            runs: self.runs.clone(),
            silence: self.silence,
            queues: queues.into_values().collect(),
            meshes: self.log.keys().copied().collect(),
            invites: self.invites.values().map(|(row, _)| row.clone()).collect(),
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Mail { mesh, to, after, limit, bytes_max } => {
                let mut rows: Vec<MailRow> =
                    self.mail.values().filter(|row| row.mesh == *mesh && row.to == *to).cloned().collect();
                rows.sort_by_key(|row| (u8::MAX - row.priority, row.seq));
                let after = after.map(|(priority, seq)| (u8::MAX - priority, seq));
                rows.retain(|row| after.is_none_or(|after| (u8::MAX - row.priority, row.seq) > after));
                rows.truncate(*limit);
                let mut bytes = 0;
                let mut first = true;
                rows.retain(|row| {
                    bytes += row.bytes.len() as u64;
                    std::mem::take(&mut first) || bytes <= *bytes_max
                });
                Answer::Mail(rows)
            }
            Query::Expired { before, limit } => Answer::Mail(
                self.mail.values().filter(|row| row.exp < *before).take(*limit).cloned().collect(),
            ),
            Query::Log { mesh, from, limit } => {
                let skip = usize::try_from(*from).expect("small");
                Answer::Log(
                    self.log.get(mesh).into_iter().flatten().skip(skip).take(*limit).cloned().collect(),
                )
            }
            Query::Prekeys { members, .. } => Answer::Prekeys(
                members.iter().filter_map(|member| self.prekeys.get(member)).cloned().collect(),
            ),
            Query::Invite { lookup } => {
                Answer::Invite(self.invites.get(lookup).map(|(_, blob)| blob.clone()))
            }
        }
    }

    /// One transaction; gives how many there were.
    fn apply(&mut self, writes: &[Write]) -> u64 {
        self.runs.current.commit += 1;
        for write in writes {
            match write.clone() {
                Write::MeshCreate { mesh } => drop(self.log.insert(mesh, Vec::new())),
                Write::LogAppend { mesh, index, entry } => {
                    let log = self.log.get_mut(&mesh).expect("the mesh was created");
                    assert_eq!(log.len() as u64, index, "an index is taken once, in order");
                    log.push(entry);
                }
                Write::PutMail(row) => {
                    self.next_seq = self.next_seq.max(row.seq + 1);
                    assert!(self.mail.insert(row.seq, row).is_none(), "a claim is used once");
                }
                Write::PutPrekey { member, stmt, sig, .. } => {
                    self.prekeys.insert(member, SignedBytes { stmt, sig });
                }
                Write::PutInvite { mesh, lookup, owner, blob, exp, uses_left } => {
                    let row = InviteRow { mesh, lookup, owner, exp, uses_left };
                    self.invites.insert(lookup, (row, blob));
                }
                Write::DeleteInvite { lookup } => drop(self.invites.remove(&lookup)),
                Write::UseInvite { lookup } => {
                    let left = self.invites.get_mut(&lookup).map(|(row, _)| {
                        row.uses_left -= 1;
                        row.uses_left
                    });
                    if left == Some(0) {
                        self.invites.remove(&lookup);
                    }
                }
                Write::DeleteMail { .. } | Write::DropQueue { .. } => {}
            }
        }
        for write in writes {
            if let Write::DeleteMail { seq, mesh, to, env_hash } = write {
                let named = |row: &MailRow| {
                    row.mesh == *mesh && row.to == *to && env_hash.is_none_or(|hash| row.env_hash == hash)
                };
                if self.mail.get(seq).is_some_and(named) {
                    self.mail.remove(seq);
                }
            }
            if let Write::DropQueue { mesh, to } = write {
                self.mail.retain(|_, row| row.mesh != *mesh || row.to != *to);
            }
        }
        self.runs.current.commit
    }

    fn begin_run(&mut self) {
        let StoreMark { run, commit } = self.runs.current;
        self.runs.earlier.insert(run, commit);
        self.runs.current.run = RunId([run.0[0] + 1; 16]);
    }
}

pub(crate) fn coordinator_key() -> IdentityKey {
    IdentityKey::from_seed(&sha256(b"hub test coordinator"))
}

pub(crate) fn genesis_for(coordinator: &IdentityKey, origin: &str, ts: UnixMs) -> GenesisParams {
    GenesisParams {
        coordinators: vec![(coordinator.id(), Origin::parse(origin).expect("an origin"))],
        policy: Policy::default(),
        nonce: [2; 16],
        recovery: None,
        name: Some("acme".to_owned()),
        ts,
    }
}

pub(crate) fn newcomer(name: &str, role: Role) -> NewMember {
    NewMember {
        id: Node::named(name).id(),
        role,
        handle: Handle::parse(name).expect("a handle"),
        prekey: Some(BoxPublicKey::parse([9; 32]).expect("not of low order")),
    }
}

/// A head that names no log.
pub(crate) fn nowhere() -> Head {
    Head { size: 1, hash: peerloom_proto::EntryHash([0; 32]) }
}
