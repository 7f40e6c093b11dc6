//! Strangers that join while a world runs, by a member's invite, as `node/join` does over HTTP.
//!
//! 1. [`World::invites`]       the inviter deposits an invite, and tries again until the coordinator has it
//! 2. [`World::joiner_asks`]   the stranger fetches the blob, then the log, then asks for its own place
//! 3. [`World::joiner_hears`]  until the log has it: then its node starts
//!
//! An invite that the coordinator has lost is made anew, as people would.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerloom_coordinator::hub::{HttpReply, HttpRequest, HttpToken};
use peerloom_proto::endpoint::Request;
use peerloom_proto::limits::INVITE_LIFE;
use peerloom_proto::{
    BoxSecretKey, Handle, InviteCap, InviteClaim, InviteCode, InviteId, InviteMode, LogError, Role, Roster,
    SignedCap, SignedClaim, WireEntry,
};

use crate::chance::{Chance, seed_for};
use crate::disk::NodeDisk;
use crate::host::Asked;
use crate::mesh::first_prekey;
use crate::queue::Event;
use crate::world::World;

/// A stranger with an invite.
#[derive(Debug)]
pub(crate) struct Joiner {
    by: usize,
    code: InviteCode,
    cap: SignedCap,
    claim: SignedClaim,
    /// Whether the coordinator gave the blob, and the code opened it.
    opened: bool,
    /// The log as far as it was read, and how long it is.
    log: Vec<Bytes>,
    roster: Option<Roster>,
    size: u64,
    /// The request that it waits for; 0 for none.
    token: u64,
}

/// People and programs try again after this.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A request that was not answered by then will not be.
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Joiner {
    /// Reads on. What does not follow makes it begin anew.
    fn read(&mut self, entries: &[Bytes], size: u64) {
        if size < self.log.len() as u64 || entries.iter().try_for_each(|bytes| self.append(bytes)).is_err() {
            self.begin_anew();
        } else {
            self.size = size.max(self.log.len() as u64);
        }
    }

    fn append(&mut self, bytes: &Bytes) -> Result<(), LogError> {
        let entry = WireEntry::parse(bytes)?;
        match &mut self.roster {
            None => self.roster = Some(Roster::begin(&entry)?),
            Some(roster) if roster.verify_seq(&entry) => drop(roster.append(&entry)?),
            Some(_) => return Err(LogError::Signature),
        }
        self.log.push(bytes.clone());
        Ok(())
    }

    fn begin_anew(&mut self) {
        (self.log, self.roster, self.size) = (Vec::new(), None, 1);
    }

    fn is_in(&self) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.member(&self.claim.claim().joiner).is_some())
    }
}

impl World {
    /// A member makes an invite for a stranger, and tries again until the coordinator has it.
    pub(crate) fn invites(&mut self, by: usize, node: usize) {
        if !self.nodes[by].serves() {
            return self.queue.after(TRY_AGAIN, Event::Invites { by, node });
        }
        self.next_token += 1;
        let drawn = self.next_token;
        let own = |what: &str| seed_for(self.seed, &format!("stranger {node}"), &format!("{what} {drawn}"));
        let (now, inviter) = (self.node_now(by).wall, &self.nodes[by].key);
        let code = InviteCode::from_bytes(*own("code").first_chunk().expect("a hash has ten bytes"));
        let cap = SignedCap::sign(
            inviter,
            InviteCap {
                mesh: self.mesh.roster.mesh_id(),
                id: InviteId(*own("invite").first_chunk().expect("a hash has sixteen bytes")),
                inviter: inviter.id(),
                role: Role::Member,
                max_uses: 1,
                nbf: now,
                exp: now.plus(INVITE_LIFE),
                mode: InviteMode::Auto,
                head: self.replay(by).head(),
                origin: self.mesh.origin.clone(),
                key: code.signing_key().id(),
                handle: None,
            },
        );
        let claim = InviteClaim {
            mesh: cap.mesh,
            invite: cap.id,
            joiner: self.nodes[node].id,
            prekey: first_prekey(self.seed, node).secret.public(),
            sealing: BoxSecretKey::from_bytes(own("sealing")).public(),
            nonce: own("claim"),
            ts: self.node_now(node).wall,
            handle: Handle::parse(&format!("node-{node}")).expect("a handle"),
        };
        let claim = SignedClaim::sign(&self.nodes[node].key, &code, claim);
        let nonce = own("blob");
        let blob = code.seal_blob(&cap, *nonce.first_chunk().expect("a hash has 24 bytes")).into();
        let request = Request::PutInvite { lookup: code.lookup(), blob, exp: cap.exp, uses: 1 };
        let (log, roster) = (Vec::new(), None);
        let joiner = Joiner { by, code, cap, claim, opened: false, log, roster, size: 1, token: 0 };
        self.joiners.insert(node, joiner);
        self.ask_node(by, Asked::Invite { node }, request);
    }

    /// A stranger asks the coordinator for what it needs next.
    pub(crate) fn joiner_asks(&mut self, node: usize) {
        let now = self.node_now(node).wall;
        self.next_token += 1;
        let token = self.next_token;
        let Some(it) = self.joiners.get_mut(&node) else { return };
        let bearer = it.code.lookup();
        let request = match &it.roster {
            _ if !it.opened => HttpRequest::InviteLookup { lookup: bearer },
            Some(roster) if roster.size() >= it.size => {
                let entry = roster.self_admission(&self.nodes[node].key, &it.cap, &it.claim, now);
                HttpRequest::LogAppend { bearer, entry: entry.encode().into() }
            }
            Some(_) | None => HttpRequest::LogRead { bearer, from: it.log.len() as u64 },
        };
        it.token = token;
        let way = self.http_way(token, "there");
        self.queue.after(way, Event::HubAsked { token, request });
        self.queue.after(ANSWER_MAX, Event::JoinerWaits { node, token });
    }

    /// How long a request or an answer is on its way.
    fn http_way(&self, token: u64, which: &str) -> Duration {
        let way = self.scenario.topology.uplink_ms;
        let mut chance = Chance::new(self.seed, &format!("request {token}"), which);
        chance.between(Duration::from_millis(way.low), Duration::from_millis(way.high))
    }

    /// The coordinator answers a request.
    pub(crate) fn hub_replies(&mut self, HttpToken(token): HttpToken, reply: HttpReply) {
        let way = self.http_way(token, "back");
        self.queue.after(way, Event::JoinerHears { token, reply });
    }

    /// A stranger that got no answer asks again.
    pub(crate) fn joiner_waits(&mut self, node: usize, token: u64) {
        if self.joiners.get(&node).is_some_and(|it| it.token == token) {
            self.joiner_asks(node);
        }
    }

    pub(crate) fn joiner_hears(&mut self, token: u64, reply: HttpReply) {
        let Some((node, it)) = self.joiners.iter_mut().find(|(_, it)| it.token == token) else { return };
        let node = *node;
        it.token = 0;
        let mut pause = Duration::ZERO;
        match reply {
            HttpReply::Blob(blob) => it.opened = it.code.open_blob(&blob).is_ok_and(|cap| cap == it.cap),
            HttpReply::Log { from: _, entries, size } => it.read(&entries, size),
            HttpReply::Appended { entry } => it.read(&[entry], it.size + 1),
            HttpReply::Conflict { size } => {
                it.read(&[], size);
                pause = TRY_AGAIN;
            }
            HttpReply::NoInvite => {
                let by = it.by;
                self.joiners.remove(&node);
                return self.queue.after(TRY_AGAIN, Event::Invites { by, node });
            }
            // The log that was read may be one that the coordinator has lost.
            HttpReply::Throttled { .. } | HttpReply::Refused { .. } => {
                it.begin_anew();
                pause = TRY_AGAIN;
            }
            HttpReply::MeshCreated { .. } | HttpReply::Exists => unreachable!("nobody makes a mesh"),
        }
        if it.is_in() {
            self.joined(node);
        } else {
            self.queue.after(pause, Event::JoinerAsks { node });
        }
    }

    fn joined(&mut self, node: usize) {
        let Some(it) = self.joiners.remove(&node) else { return };
        self.nodes[node].disk = NodeDisk::new(Arc::new(it.log), first_prekey(self.seed, node));
        self.tally.joined += 1;
        self.queue.after(Duration::ZERO, Event::NodeStarts { node });
    }
}
