//! A small honest coordinator with a disk that is never lost: challenge and welcome with real
//! statements, the log, presence, queues with claims and leases, receipts. Knobs make it dishonest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::envelope::{Recipient, UnverifiedEnvelope};
use crate::hello::{
    Challenge, HelloCheck, SignedHello, SignedWelcome, StoreView, Welcome, verify_hello, want_log,
};
use crate::id::{EnvHash, MessageId, PeerId, RunId};
use crate::identity::Origin;
use crate::key::IdentityKey;
use crate::limits::{CLAIM_LEASE, FRAME_BYTES_MAX, PRESENCE_LEASE};
use crate::receipt::{ReceiptStatus, UnverifiedReceipt};
use crate::roster::{Effect, Roster, WireEntry};
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::{Claim, SignedBytes, ToCoordinator, ToNode};

/// One WebSocket, never named twice.
pub(super) type Socket = u64;

/// What the coordinator does to its sockets.
#[derive(Debug)]
pub(super) enum Act {
    Send(Socket, ToNode),
    Close(Socket),
}

#[derive(Debug)]
pub(super) struct Coordinator {
    /// The key it presents and signs with.
    pub(super) key: IdentityKey,
    /// Where it says it is.
    pub(super) origin: Origin,
    /// How far its clock is ahead.
    pub(super) ahead: Duration,
    /// Recipients whose queue counts as full.
    pub(super) full: BTreeSet<PeerId>,
    /// Who is welcome is answered pings, and nothing else is done for them.
    pub(super) idle: bool,
    /// Every envelope that was put, in order.
    pub(super) carried: Vec<(MessageId, Bytes)>,
    /// How much a new member's admission waits for its place.
    pub(super) roster: Roster,
    /// What it says of its store, if anything.
    pub(super) store: Option<StoreView>,
    log: Vec<Bytes>,
    sockets: BTreeMap<Socket, Stage>,
    queue: BTreeMap<Claim, Item>,
    next_claim: Claim,
    receipted: BTreeSet<EnvHash>,
    pub(super) prekeys: BTreeMap<PeerId, SignedBytes>,
}

#[derive(Debug)]
enum Stage {
    Challenged {
        challenge: Bytes,
        at: UnixMs,
    },
    /// It was asked for the rest of the log.
    Asked {
        hello: Box<SignedHello>,
    },
    Welcomed {
        peer: PeerId,
        claims: bool,
    },
}

#[derive(Debug)]
struct Item {
    to: PeerId,
    what: What,
    leased: Option<(Socket, Monotonic)>,
    waited: bool,
}

#[derive(Debug)]
enum What {
    Mail { from: PeerId, env_hash: EnvHash, exp: UnixMs, wire: Bytes },
    Receipt(SignedBytes),
    Expired(EnvHash),
}

impl Coordinator {
    pub(super) fn new(key: IdentityKey, origin: Origin, log: Vec<Bytes>, roster: Roster) -> Self {
        Self {
            key,
            origin,
            ahead: Duration::ZERO,
            full: BTreeSet::new(),
            idle: false,
            carried: Vec::new(),
            roster,
            store: None,
            log,
            sockets: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_claim: 1,
            receipted: BTreeSet::new(),
            prekeys: BTreeMap::new(),
        }
    }

    pub(super) fn opened(&mut self, now: Now, socket: Socket) -> Vec<Act> {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&socket.to_be_bytes());
        let at = now.wall.plus(self.ahead);
        let challenge = Challenge {
            coordinator: self.key.id(),
            nonce,
            ts: at,
            protocols: vec![2],
            features: Vec::new(),
            origin: self.origin.clone(),
        };
        let challenge = Bytes::from(challenge.encode());
        self.sockets.insert(socket, Stage::Challenged { challenge: challenge.clone(), at });
        vec![Act::Send(socket, ToNode::Challenge { challenge })]
    }

    pub(super) fn closed(&mut self, socket: Socket) -> Vec<Act> {
        let gone = self.sockets.remove(&socket);
        for item in self.queue.values_mut().filter(|item| item.leased.is_some_and(|(to, _)| to == socket)) {
            (item.leased, item.waited) = (None, true);
        }
        match gone {
            Some(Stage::Welcomed { peer, .. }) if self.socket_of(&peer).is_none() => {
                self.presence(peer, false)
            }
            Some(Stage::Welcomed { .. } | Stage::Challenged { .. } | Stage::Asked { .. }) | None => {
                Vec::new()
            }
        }
    }

    /// Everything it keeps in memory is gone; its disk is not.
    pub(super) fn restart(&mut self) -> Vec<Socket> {
        let sockets = std::mem::take(&mut self.sockets).into_keys().collect();
        self.queue.values_mut().for_each(|item| (item.leased, item.waited) = (None, true));
        sockets
    }

    pub(super) fn is_online(&self, peer: &PeerId) -> bool {
        self.socket_of(peer).is_some()
    }

    /// Envelopes waiting for a peer, claimed or not.
    pub(super) fn waiting(&self, peer: &PeerId) -> usize {
        self.queue.values().filter(|item| item.to == *peer && matches!(item.what, What::Mail { .. })).count()
    }

    /// When a lease or an item ends.
    pub(super) fn deadline(&self, now: Now) -> Option<Monotonic> {
        let ends = self.queue.values().filter_map(|item| match &item.what {
            What::Mail { exp, .. } => Some(now.monotonic + exp.since(now.wall)),
            What::Receipt(_) | What::Expired(_) => None,
        });
        let leases = self.queue.values().filter_map(|item| item.leased.map(|(_, until)| until));
        ends.chain(leases).min()
    }

    pub(super) fn timeout(&mut self, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        let over: Vec<Claim> =
            self.queue.iter().filter(|(_, item)| item.is_over(now.wall)).map(|(c, _)| *c).collect();
        for claim in over {
            if let Some(Item { what: What::Mail { from, env_hash, .. }, .. }) = self.queue.remove(&claim) {
                self.enqueue(from, What::Expired(env_hash));
                acts.extend(self.offer(now, from));
            }
        }
        let mut again = BTreeSet::new();
        for item in self.queue.values_mut() {
            if item.leased.is_some_and(|(_, until)| until <= now.monotonic) {
                (item.leased, item.waited) = (None, true);
                again.insert(item.to);
            }
        }
        for peer in again {
            acts.extend(self.offer(now, peer));
        }
        acts
    }

    /// Its store is put back to one without mail and receipts, and it knows.
    pub(super) fn goes_back(&mut self) {
        self.queue.clear();
        self.receipted.clear();
        if let Some(store) = &mut self.store {
            (store.mark.run, store.kept) = (RunId([store.mark.run.0[0] + 1; 16]), false);
        }
    }

    /// Its log is put back to its first entries.
    pub(super) fn forgets_log(&mut self, size: usize) {
        self.log.truncate(size);
        let mut entries = self.log.iter().map(|bytes| WireEntry::parse(bytes).expect("an entry"));
        self.roster = Roster::begin(&entries.next().expect("a genesis")).expect("a sound genesis");
        entries.for_each(|entry| drop(self.roster.append(&entry).expect("a sound entry")));
    }

    fn regain(&mut self, entries: &[Bytes]) {
        for bytes in entries {
            let entry = WireEntry::parse(bytes).expect("an entry");
            assert!(self.roster.verify_seq(&entry), "what comes back was sequenced");
            self.roster.append(&entry).expect("it comes next");
            self.log.push(bytes.clone());
        }
    }

    fn commit(&self) -> u64 {
        self.store.map_or(0, |store| store.mark.commit)
    }

    pub(super) fn frame(&mut self, now: Now, socket: Socket, frame: &Bytes) -> Vec<Act> {
        let frame = ToCoordinator::decode(frame, FRAME_BYTES_MAX).expect("nodes speak well-formed frames");
        match self.sockets.get(&socket) {
            None => Vec::new(),
            Some(Stage::Challenged { challenge, at }) => {
                let (challenge, at) = (challenge.clone(), *at);
                let ToCoordinator::Hello { hello, .. } = frame else { panic!("{frame:?} before hello") };
                self.hello(now, socket, &hello, &challenge, at)
            }
            Some(Stage::Asked { hello }) => {
                let hello = hello.clone();
                let ToCoordinator::LogReturn { entries, .. } = frame else {
                    panic!("{frame:?} before the log")
                };
                self.regain(&entries);
                self.welcome(now, socket, &hello)
            }
            Some(Stage::Welcomed { .. }) if self.idle && !matches!(frame, ToCoordinator::Ping { .. }) => {
                Vec::new()
            }
            Some(Stage::Welcomed { peer, .. }) => {
                let peer = *peer;
                self.serve(now, socket, peer, frame)
            }
        }
    }

    fn hello(
        &mut self,
        now: Now,
        socket: Socket,
        hello: &SignedBytes,
        challenge: &[u8],
        at: UnixMs,
    ) -> Vec<Act> {
        let now_here = now.wall.plus(self.ahead);
        let (key, origin) = (self.key.id(), &self.origin);
        let check = HelloCheck { challenge, challenged_at: at, coordinator: &key, origin, now: now_here };
        let hello = verify_hello(&hello.stmt, &hello.sig, &check).expect("honest nodes say honest hellos");
        let from = self.roster.size();
        if hello.head.size > from {
            let sig = want_log(&self.key, &hello, from);
            self.sockets.insert(socket, Stage::Asked { hello: Box::new(hello) });
            return vec![Act::Send(socket, ToNode::LogWanted { from, sig })];
        }
        self.welcome(now, socket, &hello)
    }

    fn welcome(&mut self, now: Now, socket: Socket, hello: &SignedHello) -> Vec<Act> {
        if self.roster.active(&hello.id).is_none() {
            return refuse(socket, "revoked");
        }
        let now_here = now.wall.plus(self.ahead);
        let welcome = Welcome {
            hello: hello.transcript(),
            ts: now_here,
            head: self.roster.head(),
            lease: PRESENCE_LEASE,
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            store: self.store,
        };
        let signed = SignedWelcome::sign(&self.key, welcome);
        let welcome = SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() };
        self.sockets.insert(socket, Stage::Welcomed { peer: hello.id, claims: false });
        let mut acts = vec![Act::Send(socket, ToNode::Welcome { welcome })];
        let peers = self.sockets.values().filter_map(|stage| match stage {
            Stage::Welcomed { peer, .. } => Some((*peer, true)),
            Stage::Challenged { .. } | Stage::Asked { .. } => None,
        });
        acts.push(Act::Send(socket, ToNode::Presence { complete: true, peers: peers.collect() }));
        acts.extend(self.presence(hello.id, true));
        acts
    }

    fn serve(&mut self, now: Now, socket: Socket, peer: PeerId, frame: ToCoordinator) -> Vec<Act> {
        match frame {
            ToCoordinator::Put { envelope } => self.put(now, socket, peer, envelope),
            ToCoordinator::Claim { messages, .. } => {
                self.sockets.insert(socket, Stage::Welcomed { peer, claims: messages > 0 });
                self.offer(now, peer)
            }
            ToCoordinator::Receipt { receipt, claims } => self.receipt(now, peer, receipt, &claims),
            ToCoordinator::Settle { claims } => {
                self.queue.retain(|claim, item| item.to != peer || !claims.contains(claim));
                Vec::new()
            }
            ToCoordinator::LogGet { from } => vec![Act::Send(socket, self.span(from))],
            ToCoordinator::LogAppend { request, entry } => self.append(now, socket, request, &entry),
            ToCoordinator::PrekeyPut { prekey } => {
                self.prekeys.insert(peer, prekey);
                Vec::new()
            }
            ToCoordinator::PrekeyGet { members } => {
                let prekeys = members.iter().filter_map(|member| self.prekeys.get(member).cloned()).collect();
                vec![Act::Send(socket, ToNode::Prekeys { prekeys })]
            }
            ToCoordinator::InvitePut { request, .. } | ToCoordinator::InviteDelete { request, .. } => {
                vec![Act::Send(socket, ToNode::Done { request, commit: self.commit() })]
            }
            ToCoordinator::Ping { nonce } => vec![Act::Send(socket, ToNode::Pong { nonce })],
            ToCoordinator::Pong { .. } => Vec::new(),
            ToCoordinator::Goodbye => {
                self.sockets.remove(&socket);
                self.presence(peer, false)
            }
            ToCoordinator::LogReturn { .. } => panic!("log entries after the welcome"),
            ToCoordinator::Hello { .. } => panic!("a second hello on one socket"),
        }
    }

    fn put(&mut self, now: Now, socket: Socket, from: PeerId, wire: Bytes) -> Vec<Act> {
        let envelope = UnverifiedEnvelope::parse(wire.clone()).expect("nodes put well-formed envelopes");
        let (header, env_hash) = (envelope.header(), envelope.env_hash());
        assert_eq!(header.from, from, "nodes put their own envelopes");
        self.carried.push((header.id, wire.clone()));
        let Recipient::Peer(to) = header.to else { panic!("dms go to peers") };
        let refused = |code: &str, retry_ms| {
            vec![Act::Send(socket, ToNode::Refused { env_hash, code: code.to_owned(), retry_ms })]
        };
        if self.roster.active(&to).is_none() {
            return refused("revoked", 0);
        }
        if header.exp <= now.wall {
            return refused("expiry", 0);
        }
        let queued =
            |item: &Item| matches!(&item.what, What::Mail { env_hash: other, .. } if *other == env_hash);
        let known = self.receipted.contains(&env_hash) || self.queue.values().any(queued);
        if !known && self.full.contains(&to) {
            return refused("recipient-full", 5_000);
        }
        if !known {
            self.enqueue(to, What::Mail { from, env_hash, exp: header.exp, wire });
        }
        let mut acts = self.offer(now, to);
        acts.push(Act::Send(socket, ToNode::Accepted { env_hashes: vec![env_hash], commit: self.commit() }));
        acts
    }

    fn receipt(&mut self, now: Now, by: PeerId, signed: SignedBytes, claims: &[Claim]) -> Vec<Act> {
        let mesh = self.roster.mesh_id();
        let receipt =
            UnverifiedReceipt::parse(signed.stmt.clone(), signed.sig, &mesh).expect("a sound receipt");
        let key = &self.roster.member(&by).expect("a member").verify_key;
        let receipt = receipt.verify(key).expect("recipients sign their own receipts");
        assert_eq!(receipt.rows.len(), claims.len(), "one claim a row");
        for row in &receipt.rows {
            let named = |item: &Item| {
                item.to == by
                    && matches!(&item.what, What::Mail { env_hash, .. } if *env_hash == row.env_hash)
            };
            self.queue.retain(|_, item| !named(item));
            if row.status != ReceiptStatus::Retry {
                self.receipted.insert(row.env_hash);
            }
        }
        let to = receipt.to;
        self.enqueue(to, What::Receipt(signed));
        self.offer(now, to)
    }

    /// Appends what an owner or admin signed elsewhere, and tells everybody.
    pub(super) fn sequence(&mut self, now: Now, entry: WireEntry) -> Vec<Act> {
        let entry = entry.sequence(&self.key, &self.roster.mesh_id()).expect("a well-formed entry");
        let applied = self.roster.append(&entry).expect("an entry that holds");
        self.log.push(entry.encode().into());
        let from = self.log.len() as u64 - 1;
        let mut acts: Vec<Act> =
            self.sockets.keys().map(|socket| Act::Send(*socket, self.span(from))).collect();
        if let Effect::Revoked { members, .. } = applied.effect {
            for member in members {
                acts.extend(self.expel(now, member));
            }
        }
        acts
    }

    fn expel(&mut self, now: Now, member: PeerId) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(socket) = self.socket_of(&member) {
            acts.extend(refuse(socket, "revoked"));
            acts.extend(self.closed(socket));
        }
        let gone: Vec<Claim> =
            self.queue.iter().filter(|(_, item)| item.to == member).map(|(c, _)| *c).collect();
        for claim in gone {
            if let Some(Item { what: What::Mail { from, env_hash, .. }, .. }) = self.queue.remove(&claim)
                && let Some(socket) = self.socket_of(&from)
            {
                let code = "revoked".to_owned();
                acts.push(Act::Send(socket, ToNode::Refused { env_hash, code, retry_ms: 0 }));
            }
        }
        acts.extend(self.offer(now, member));
        acts
    }

    fn append(&mut self, now: Now, socket: Socket, request: u64, entry: &Bytes) -> Vec<Act> {
        let entry = WireEntry::parse(entry).expect("nodes append well-formed entries");
        if entry.entry().expect("a statement").index != self.roster.size() {
            let size = self.roster.size();
            return vec![Act::Send(socket, ToNode::Conflict { request, size, reserved_ms: 2_000 })];
        }
        if let Err(error) = self.roster.check(&entry) {
            let failed = ToNode::Failed { request, code: error.reason(), text: error.to_string() };
            return vec![Act::Send(socket, failed)];
        }
        let mut acts = self.sequence(now, entry);
        let entry = self.log.last().expect("just appended").clone();
        acts.insert(0, Act::Send(socket, ToNode::Appended { request, entry }));
        acts
    }

    fn span(&self, from: u64) -> ToNode {
        let skip = usize::try_from(from).expect("a small log").min(self.log.len());
        ToNode::Entries { from, entries: self.log[skip..].to_vec(), size: self.log.len() as u64 }
    }

    fn presence(&self, peer: PeerId, online: bool) -> Vec<Act> {
        let frame = || ToNode::Presence { complete: false, peers: vec![(peer, online)] };
        let others = self.sockets.iter().filter(|(_, stage)| match stage {
            Stage::Welcomed { peer: other, .. } => *other != peer,
            Stage::Challenged { .. } | Stage::Asked { .. } => false,
        });
        others.map(|(socket, _)| Act::Send(*socket, frame())).collect()
    }

    fn enqueue(&mut self, to: PeerId, what: What) {
        let waited = !self.is_online(&to);
        self.queue.insert(self.next_claim, Item { to, what, leased: None, waited });
        self.next_claim += 1;
    }

    /// Hands out what a peer has not got yet, in the order it came.
    fn offer(&mut self, now: Now, peer: PeerId) -> Vec<Act> {
        let claiming = self.sockets.iter().find_map(|(socket, stage)| match stage {
            Stage::Welcomed { peer: other, claims: true } if *other == peer => Some(*socket),
            Stage::Welcomed { .. } | Stage::Challenged { .. } | Stage::Asked { .. } => None,
        });
        let Some(socket) = claiming else {
            self.queue.values_mut().filter(|item| item.to == peer).for_each(|item| item.waited = true);
            return Vec::new();
        };
        let fresh = self.queue.iter_mut().filter(|(_, item)| item.to == peer && item.leased.is_none());
        let offered = fresh.map(|(claim, item)| {
            item.leased = Some((socket, now.monotonic + CLAIM_LEASE));
            Act::Send(socket, item.frame(*claim))
        });
        offered.collect()
    }

    fn socket_of(&self, peer: &PeerId) -> Option<Socket> {
        self.sockets.iter().rev().find_map(|(socket, stage)| match stage {
            Stage::Welcomed { peer: other, .. } if other == peer => Some(*socket),
            Stage::Welcomed { .. } | Stage::Challenged { .. } | Stage::Asked { .. } => None,
        })
    }
}

impl Item {
    fn is_over(&self, now: UnixMs) -> bool {
        matches!(self.what, What::Mail { exp, .. } if exp <= now)
    }

    fn frame(&self, claim: Claim) -> ToNode {
        match &self.what {
            What::Mail { wire, .. } => ToNode::Deliver { claim, queued: self.waited, envelope: wire.clone() },
            What::Receipt(receipt) => ToNode::Receipt { claim, receipt: receipt.clone() },
            What::Expired(env_hash) => ToNode::Expired { claim, env_hash: *env_hash },
        }
    }
}

fn refuse(socket: Socket, code: &str) -> Vec<Act> {
    let text = "this member was revoked".to_owned();
    vec![Act::Send(socket, ToNode::Error { code: code.to_owned(), text }), Act::Close(socket)]
}
