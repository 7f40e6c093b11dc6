//! Getting in, in the order a connection meets it.
//!
//! 1. [`Hub::opened`]   throttle by address, challenge
//! 2. [`Hub::hello`]    one frame within ten seconds: own challenge, own key and origin, signature
//! 3. [`Hub::welcome`]  once the mesh's log is replayed, and given back where it is shorter than the
//!    node's: an unrevoked member gets its socket
//! 4. [`Hub::watch`]    pings, silence, and those who never said hello
//! 5. [`Hub::closed`]   what the socket leaves behind

use std::net::IpAddr;

use bytes::Bytes;
use peerloom_proto::limits::{
    FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, LINK_SILENCE_MAX, PING_EVERY, PRESENCE_LEASE,
};
use peerloom_proto::wire::{SignedBytes, ToNode};
use peerloom_proto::{
    Challenge, HelloCheck, HelloError, HelloRole, MeshId, Monotonic, Now, PeerId, Role, Roster, SignedHello,
    SignedWelcome, StoreView, UnixMs, Welcome, verify_hello, want_log,
};

use crate::hub::{Command, Hub, SocketId};
use crate::mesh::{Mesh, Waiting};

/// Wire versions this coordinator speaks.
const PROTOCOLS: &[u64] = &[2];

/// One WebSocket connection.
#[derive(Debug)]
pub(crate) struct Socket {
    phase: Phase,
    /// When anything last came from it.
    heard: Monotonic,
    /// When it was last pinged.
    pinged: Monotonic,
    /// Reads of the store it waits for.
    pub(crate) reads: u32,
}

#[derive(Debug)]
enum Phase {
    /// Its hello is awaited.
    Challenged { challenge: Bytes, at: UnixMs },
    /// Its hello holds; the mesh's log is being replayed, or was asked back from an index on.
    Greeted { hello: Box<SignedHello>, asked: Option<u64> },
    /// A member.
    Member { mesh: MeshId, id: PeerId },
}

impl Socket {
    /// Whose socket it is.
    pub(crate) const fn member(&self) -> Option<(MeshId, PeerId)> {
        match self.phase {
            Phase::Member { mesh, id } => Some((mesh, id)),
            Phase::Challenged { .. } | Phase::Greeted { .. } => None,
        }
    }
}

impl Hub {
    /// A connection was accepted.
    pub(crate) fn opened(&mut self, now: Now, socket: SocketId, addr: IpAddr) {
        let challenge = Challenge {
            coordinator: self.config.key.id(),
            nonce: self.draw.bytes(),
            ts: now.wall,
            protocols: PROTOCOLS.to_vec(),
            features: Vec::new(),
            origin: self.config.origin.clone(),
        };
        let challenge = Bytes::from(challenge.encode());
        let phase = Phase::Challenged { challenge: challenge.clone(), at: now.wall };
        let heard = now.monotonic;
        self.sockets.insert(socket, Socket { phase, heard, pinged: heard, reads: 0 });
        if self.draining {
            return self.send_away(socket);
        }
        if self.hellos.admit(addr, now.monotonic).is_err() {
            self.counters.hellos_refused += 1;
            return self.expel(socket, "throttled", "too many connections from this address");
        }
        self.send(socket, &ToNode::Challenge { challenge });
    }

    /// Marks a socket as alive. False if it is not known any more.
    pub(crate) fn hear(&mut self, now: Now, socket: SocketId) -> bool {
        let known = self.sockets.get_mut(&socket);
        known.map(|socket| socket.heard = now.monotonic).is_some()
    }

    /// The one frame a stranger may send.
    pub(crate) fn hello(&mut self, now: Now, socket: SocketId, said: &SignedBytes) {
        let Some(Socket { phase: Phase::Challenged { challenge, at }, .. }) = self.sockets.get(&socket)
        else {
            return self.refuse_hello(socket, "hello", "a second hello");
        };
        let check = HelloCheck {
            challenge,
            challenged_at: *at,
            coordinator: &self.config.key.id(),
            origin: &self.config.origin,
            now: now.wall,
        };
        let hello = match verify_hello(&said.stmt, &said.sig, &check) {
            Ok(hello) => hello,
            Err(error) => return self.refuse_hello(socket, code_of(&error), &error.to_string()),
        };
        match hello.role {
            HelloRole::ControlPlane => {}
            HelloRole::Session | HelloRole::Service => {
                return self.refuse_hello(socket, "role", "sessions and services are not taken here yet");
            }
        }
        let mesh = hello.mesh;
        if let Some(entry) = self.sockets.get_mut(&socket) {
            entry.phase = Phase::Greeted { hello: Box::new(hello), asked: None };
        }
        if self.meshes.contains_key(&mesh) {
            self.with_roster(now, mesh, Waiting::Hello(socket));
        } else if !self.asks_back(socket, 0) {
            self.refuse_hello(socket, "mesh", "this coordinator does not know the mesh");
        }
    }

    /// The mesh's roster is at hand: is this identity a member?
    pub(crate) fn welcome(&mut self, now: Now, socket: SocketId) {
        let Some(entry) = self.sockets.get_mut(&socket) else { return };
        let Phase::Greeted { hello, .. } = &entry.phase else { return };
        let hello = hello.clone();
        let Some(roster) = self.meshes.get(&hello.mesh).and_then(Mesh::roster) else { return };
        // Before membership is judged: what was lost may be this member's own admission.
        let size = roster.size();
        if hello.head.size > size && self.asks_back(socket, size) {
            return;
        }
        let Some(roster) = self.meshes.get(&hello.mesh).and_then(Mesh::roster) else { return };
        match roster.member(&hello.id) {
            None => return self.refuse_hello(socket, "not-a-member", "this key is no member of the mesh"),
            Some(member) if member.revoked.is_some() => {
                return self.refuse_hello(socket, "revoked", "this member was revoked");
            }
            Some(_) => {}
        }
        let senior = roster.role_of(&hello.id) > Some(Role::Member) && roster.contains_head(&hello.head);
        let kept = hello.mark.is_none_or(|mark| self.runs.keep(&mark));
        let welcome = self.signed_welcome(now, roster, &hello, kept);
        self.compared(now, &hello.mesh, senior, kept);
        match self.attach(now, socket, &hello) {
            Err(_) => {
                return self.refuse_hello(socket, "replaced", "a later connection of this instance is open");
            }
            Ok(Some(older)) => self.expel(older, "replaced", "a later connection took this one's place"),
            Ok(None) => {}
        }
        if let Some(entry) = self.sockets.get_mut(&socket) {
            entry.phase = Phase::Member { mesh: hello.mesh, id: hello.id };
        }
        self.counters.hellos_welcomed += 1;
        let welcome = SignedBytes { stmt: welcome.stmt().clone(), sig: welcome.sig() };
        self.send(socket, &ToNode::Welcome { welcome });
        self.tell_all(socket, &hello.mesh, &hello.id);
    }

    fn signed_welcome(&self, now: Now, roster: &Roster, hello: &SignedHello, kept: bool) -> SignedWelcome {
        let welcome = Welcome {
            hello: hello.transcript(),
            ts: now.wall,
            head: roster.head(),
            lease: PRESENCE_LEASE,
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            store: Some(StoreView { mark: self.runs.current, kept }),
        };
        SignedWelcome::sign(&self.config.key, welcome)
    }

    /// Asks whoever said hello for the log from an index on, at most once from each. False if it was asked
    /// already: then it has nothing that helps.
    fn asks_back(&mut self, socket: SocketId, from: u64) -> bool {
        let Some(Socket { phase: Phase::Greeted { hello, asked }, .. }) = self.sockets.get_mut(&socket)
        else {
            return false;
        };
        if asked.is_some_and(|before| from <= before) {
            return false;
        }
        *asked = Some(from);
        let sig = want_log(&self.config.key, hello, from);
        self.send(socket, &ToNode::LogWanted { from, sig });
        true
    }

    /// The mesh whose log this socket was asked for, from this index on.
    pub(crate) fn was_asked(&self, socket: SocketId, from: u64) -> Option<MeshId> {
        match &self.sockets.get(&socket)?.phase {
            Phase::Greeted { hello, asked } if *asked == Some(from) => Some(hello.mesh),
            Phase::Greeted { .. } | Phase::Challenged { .. } | Phase::Member { .. } => None,
        }
    }

    pub(crate) fn refuse_hello(&mut self, socket: SocketId, code: &str, text: &str) {
        self.counters.hellos_refused += 1;
        self.expel(socket, code, text);
    }

    /// Looks after all sockets: pings the quiet, drops the silent and those who say no hello.
    pub(crate) fn watch(&mut self, now: Now) {
        let mut late = Vec::new();
        let mut quiet = Vec::new();
        for (id, socket) in &mut self.sockets {
            let silent = now.monotonic.since(socket.heard);
            match socket.phase {
                Phase::Challenged { .. } | Phase::Greeted { .. } if silent >= HANDSHAKE_TIMEOUT => {
                    late.push((*id, "hello-timeout", "no hello in time"));
                }
                Phase::Member { .. } if silent >= LINK_SILENCE_MAX => {
                    late.push((*id, "silent", "link is silent"))
                }
                Phase::Member { .. }
                    if silent >= PING_EVERY && now.monotonic.since(socket.pinged) >= PING_EVERY =>
                {
                    socket.pinged = now.monotonic;
                    quiet.push(*id);
                }
                Phase::Challenged { .. } | Phase::Greeted { .. } | Phase::Member { .. } => {}
            }
        }
        for (socket, code, text) in late {
            self.expel(socket, code, text);
        }
        let nonce = now.wall.0;
        for socket in quiet {
            self.send(socket, &ToNode::Ping { nonce });
        }
    }

    /// Tells a node why it has to go, and closes its connection.
    pub(crate) fn expel(&mut self, socket: SocketId, code: &str, text: &str) {
        if !self.sockets.contains_key(&socket) {
            return;
        }
        self.send(socket, &ToNode::Error { code: code.to_owned(), text: text.to_owned() });
        self.commands.push_back(Command::Close { socket });
        self.leaving.push(socket);
    }

    /// The socket is gone.
    pub(crate) fn closed(&mut self, now: Now, socket: SocketId) {
        let Some(gone) = self.sockets.remove(&socket) else { return };
        if let Some((mesh, id)) = gone.member() {
            self.detach(now, socket, &mesh, &id);
        }
    }

    /// Tells everybody to come back later, spread over a few seconds.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        let sockets: Vec<SocketId> = self.sockets.keys().copied().collect();
        for socket in sockets {
            self.send_away(socket);
        }
    }

    fn send_away(&mut self, socket: SocketId) {
        let reconnect_after_ms = self.draw.below(RECONNECT_SPREAD_MS);
        self.send(socket, &ToNode::GoingAway { reconnect_after_ms });
    }
}

/// Over how long reconnections spread after a restart, milliseconds: an accept storm of thousands
/// becomes a queue.
const RECONNECT_SPREAD_MS: u64 = 5_000;

fn code_of(error: &HelloError) -> &'static str {
    match error {
        HelloError::Skew { .. } => "skew",
        HelloError::WrongOrigin { .. } => "origin",
        HelloError::WrongCoordinator(_) => "coordinator",
        HelloError::Signature => "signature",
        HelloError::StaleChallenge(_) | HelloError::WrongChallenge => "challenge",
        HelloError::Version(_) => "version",
        HelloError::Decode { .. } | HelloError::WrongHello => "malformed",
        // The enum may grow; a reason that is new here is still a refusal.
        _ => "hello",
    }
}
