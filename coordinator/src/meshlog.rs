//! The mesh log at the coordinator: it gives entries their place and is no authority over them.
//!
//! 1. [`Hub::with_roster`]  the log is replayed from the store when it is first needed
//! 2. [`Hub::append`]       compare-and-swap on the head, the same replay check as everybody's, a signature
//! 3. [`Hub::appended`]     once durable: the author is answered, everybody online is told
//!
//! What comes back of a log that was lost is `regained`'s.
//!
//! One entry of a mesh is on its way to the disk at a time. Who lost the race gets the next place
//! kept for two seconds; revocations wait for no reservation.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::limits::CLOCK_SKEW_MAX;
use peerloom_proto::wire::ToNode;
use peerloom_proto::{
    Effect, Entry, EntryKind, InviteLookup, LogError, MeshId, Now, PeerId, Roster, WireEntry,
};

use crate::batch::After;
use crate::hub::{Answer, HttpReply, HttpRequest, HttpToken, Hub, Query, ReadFor, SocketId};
use crate::mesh::{LiveLog, Log, Mesh, Place, Waiting};
use crate::store::Write;

/// How long the next place is kept for who lost a race: time to fetch, check and sign again.
const RESERVATION: Duration = Duration::from_secs(2);

/// Entries one read brings: at the largest size, half a frame.
const LOG_PAGE: usize = 64;

/// Entries that wait for one on its way to the disk; a further one is told of a conflict.
const PARKED_MAX: usize = 64;

/// Entries a mesh may begin with: its genesis, its first members, and room.
const BEGINNING_MAX: usize = 64;

/// Who wants an entry appended, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appender {
    Member {
        socket: SocketId,
        id: PeerId,
        request: u64,
    },
    Joiner {
        token: HttpToken,
        lookup: InviteLookup,
    },
    /// Nobody wants it: it had its place, and was lost.
    Regained,
}

impl Appender {
    const fn place(&self) -> Option<Place> {
        match self {
            Self::Member { id, .. } => Some(Place::Member(*id)),
            Self::Joiner { lookup, .. } => Some(Place::Joiner(*lookup)),
            Self::Regained => None,
        }
    }
}

/// Why an entry got no place.
enum Refusal {
    /// The head moved, or the place is kept for someone else.
    Conflict { size: u64, reserved: Duration },
    /// It would never get one.
    Failed { code: String, text: String },
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        Self::Failed { code: error.reason(), text: error.to_string() }
    }
}

impl Hub {
    /// Runs what needs a mesh's roster now, or once the log is replayed.
    pub(crate) fn with_roster(&mut self, now: Now, mesh_id: MeshId, what: Waiting) {
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return self.abandon(what) };
        match &mut mesh.log {
            Log::Ready(_) => self.resume(now, mesh_id, what),
            Log::Reading { waiting, .. } => waiting.push(what),
            Log::Unread => {
                mesh.log = Log::Reading { roster: None, waiting: vec![what] };
                self.read_log(mesh_id, 0);
            }
            Log::Broken => self.abandon(what),
        }
    }

    fn read_log(&mut self, mesh: MeshId, from: u64) {
        self.read(ReadFor::Replay { mesh }, Query::Log { mesh, from, limit: LOG_PAGE });
    }

    /// A page of a log that is being replayed.
    pub(crate) fn replay(&mut self, now: Now, mesh_id: MeshId, answer: Answer) {
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return };
        let log = std::mem::take(&mut mesh.log);
        let Log::Reading { mut roster, waiting } = log else {
            mesh.log = log;
            return;
        };
        let page = match answer {
            Answer::Log(page) => page,
            Answer::Mail(_) | Answer::Prekeys(_) | Answer::Invite(_) | Answer::Failed => {
                // Unread again: the next one who asks makes another attempt.
                return waiting.into_iter().for_each(|what| self.abandon(what));
            }
        };
        let full = page.len() == LOG_PAGE;
        let replayed = page.iter().try_for_each(|bytes| replay_one(&mut roster, &mesh_id, bytes));
        match (replayed, roster) {
            (Ok(()), Some(roster)) if full => {
                let size = roster.size();
                mesh.log = Log::Reading { roster: Some(roster), waiting };
                self.read_log(mesh_id, size);
            }
            (Ok(()), Some(roster)) => {
                mesh.log = Log::Ready(Box::new(LiveLog::new(*roster)));
                waiting.into_iter().for_each(|what| self.resume(now, mesh_id, what));
            }
            (Ok(()), None) | (Err(_), _) => {
                mesh.log = Log::Broken;
                self.counters.logs_broken += 1;
                waiting.into_iter().for_each(|what| self.abandon(what));
            }
        }
    }

    pub(crate) fn resume(&mut self, now: Now, mesh: MeshId, what: Waiting) {
        match what {
            Waiting::Hello(socket) => self.welcome(now, socket),
            Waiting::Http { token, request } => self.joiner_request(now, mesh, token, request),
        }
    }

    pub(crate) fn abandon(&mut self, what: Waiting) {
        match what {
            Waiting::Hello(socket) => self.expel(socket, "store", "the mesh log cannot be read"),
            Waiting::Http { token, .. } => self.refuse_http(token, "store", "the mesh log cannot be read"),
        }
    }

    /// Answers a member that asks for entries.
    pub(crate) fn log_get(&mut self, socket: SocketId, mesh: MeshId, from: u64) {
        let size = self.meshes.get(&mesh).and_then(Mesh::roster).map_or(0, Roster::size);
        if from >= size {
            self.send(socket, &ToNode::Entries { from, entries: Vec::new(), size });
        } else {
            self.read_for(
                socket,
                ReadFor::LogPage { socket, from, size },
                Query::Log { mesh, from, limit: LOG_PAGE },
            );
        }
    }

    /// Asks to give `entry` its place.
    pub(crate) fn append(&mut self, now: Now, mesh: MeshId, by: Appender, entry: &Bytes) {
        let parsed = WireEntry::parse(entry).and_then(|wire| Ok((wire.entry()?, wire)));
        let (said, wire) = match parsed {
            Ok((_, wire)) if wire.seq.is_some() => {
                let text = "the entry already has a place".to_owned();
                return self.no_place(&by, Refusal::Failed { code: "log-index".to_owned(), text });
            }
            Ok(parsed) => parsed,
            Err(error) => return self.no_place(&by, error.into()),
        };
        if let Some(wait) = self.must_compare(now, &mesh) {
            let text = format!(
                "the coordinator may be running on an old copy of its data, and first compares its log with an \
                 owner's or admin's node: try again once one is connected, or in {} minutes",
                wait.as_secs() / 60 + 1
            );
            return self.no_place(&by, Refusal::Failed { code: "comparing".to_owned(), text });
        }
        self.append_parsed(now, mesh, by, &said, wire);
    }

    fn append_parsed(&mut self, now: Now, mesh_id: MeshId, by: Appender, said: &Entry, wire: WireEntry) {
        let Some(live) = self.meshes.get_mut(&mesh_id).and_then(Mesh::live_mut) else { return };
        if live.appending && live.parked.len() < PARKED_MAX {
            if is_revoke(said) {
                live.parked.push_front((by, wire));
            } else {
                live.parked.push_back((by, wire));
            }
            return;
        }
        match admit(live, now, &by, said, &wire) {
            Err(refusal) => self.no_place(&by, refusal),
            Ok(()) => match wire.sequence(&self.config.key, &mesh_id) {
                Err(error) => self.no_place(&by, error.into()),
                Ok(entry) => {
                    live.appending = true;
                    let bytes = entry.encode().into();
                    self.open.push(Write::LogAppend { mesh: mesh_id, index: said.index, entry: bytes });
                    self.open.after(After::Appended { mesh: mesh_id, by, entry });
                }
            },
        }
    }

    /// The entry under way is durable: it is part of the log.
    pub(crate) fn appended(&mut self, now: Now, mesh_id: MeshId, by: Appender, entry: &WireEntry) {
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return };
        let Some(live) = mesh.live_mut() else { return };
        live.appending = false;
        live.reserved = None;
        let applied = match live.roster.append(entry) {
            Ok(applied) => applied,
            Err(error) => unreachable!("an entry checked at this head fails at the same head: {error}"),
        };
        self.counters.log_appended += 1;
        let bytes = Bytes::from(entry.encode());
        let size = applied.index + 1;
        match by {
            Appender::Member { socket, request, .. } => {
                self.send(socket, &ToNode::Appended { request, entry: bytes.clone() });
            }
            Appender::Joiner { token, lookup } => {
                self.reply(token, HttpReply::Appended { entry: bytes.clone() });
                self.use_invite(lookup);
            }
            Appender::Regained => {}
        }
        let frame = ToNode::Entries { from: applied.index, entries: vec![bytes], size }.encode();
        self.broadcast(mesh_id, &frame);
        if let Effect::Revoked { members, .. } = &applied.effect {
            for member in members {
                self.revoked(now, mesh_id, *member);
            }
        }
        self.regain(now, mesh_id);
    }

    /// The entry under way could not be written.
    pub(crate) fn not_appended(&mut self, now: Now, mesh_id: MeshId, by: &Appender) {
        if let Some(live) = self.meshes.get_mut(&mesh_id).and_then(Mesh::live_mut) {
            live.appending = false;
        }
        let text = "the coordinator's disk did not take the entry".to_owned();
        self.no_place(by, Refusal::Failed { code: "store".to_owned(), text });
        self.not_regained(mesh_id);
        self.unpark(now, mesh_id);
    }

    pub(crate) fn unpark(&mut self, now: Now, mesh_id: MeshId) {
        let Some(live) = self.meshes.get_mut(&mesh_id).and_then(Mesh::live_mut) else { return };
        for (by, wire) in std::mem::take(&mut live.parked) {
            match wire.entry() {
                Ok(said) => self.append_parsed(now, mesh_id, by, &said, wire),
                Err(error) => self.no_place(&by, error.into()),
            }
        }
    }

    fn no_place(&mut self, by: &Appender, refusal: Refusal) {
        match (by, refusal) {
            (Appender::Member { socket, request, .. }, Refusal::Conflict { size, reserved }) => {
                self.counters.log_conflicts += 1;
                let reserved_ms = u64::try_from(reserved.as_millis()).expect("a reservation is seconds");
                self.send(*socket, &ToNode::Conflict { request: *request, size, reserved_ms });
            }
            (Appender::Member { socket, request, .. }, Refusal::Failed { code, text }) => {
                self.send(*socket, &ToNode::Failed { request: *request, code, text });
            }
            (Appender::Joiner { token, .. }, Refusal::Conflict { size, .. }) => {
                self.counters.log_conflicts += 1;
                self.reply(*token, HttpReply::Conflict { size });
            }
            (Appender::Joiner { token, .. }, Refusal::Failed { code, text }) => {
                self.reply(*token, HttpReply::Refused { code, text });
            }
            (Appender::Regained, Refusal::Conflict { .. } | Refusal::Failed { .. }) => {}
        }
    }

    /// Begins a mesh: the genesis must name this coordinator, and all of it must replay.
    pub(crate) fn create_mesh(&mut self, token: HttpToken, entries: &[Bytes]) {
        match begin(self, entries) {
            Ok((roster, sequenced)) if self.meshes.contains_key(&roster.mesh_id()) => {
                drop(sequenced);
                self.reply(token, HttpReply::Exists);
            }
            Ok((roster, sequenced)) => {
                let mesh = roster.mesh_id();
                self.open.push(Write::MeshCreate { mesh });
                for (index, entry) in (0..).zip(&sequenced) {
                    self.open.push(Write::LogAppend { mesh, index, entry: entry.clone() });
                }
                // Known at once, so that a second request for it is told that it exists.
                self.meshes.insert(mesh, Mesh::begun(roster));
                self.open.after(After::MeshCreated { token, mesh, entries: sequenced });
            }
            Err(Refusal::Failed { code, text }) => self.reply(token, HttpReply::Refused { code, text }),
            Err(Refusal::Conflict { size, .. }) => self.reply(token, HttpReply::Conflict { size }),
        }
    }

    /// Requests that a joiner makes with an invite's lookup as bearer.
    pub(crate) fn joiner_request(&mut self, now: Now, mesh: MeshId, token: HttpToken, request: HttpRequest) {
        match request {
            HttpRequest::LogRead { from, .. } => {
                let size = self.meshes.get(&mesh).and_then(Mesh::roster).map_or(0, Roster::size);
                if from >= size {
                    self.reply(token, HttpReply::Log { from, entries: Vec::new(), size });
                } else {
                    let query = Query::Log { mesh, from, limit: LOG_PAGE };
                    self.read(ReadFor::HttpLog { token, from, size }, query);
                }
            }
            HttpRequest::LogAppend { bearer, entry } => {
                let said = WireEntry::parse(&entry).and_then(|wire| wire.entry());
                let own = matches!(said, Ok(Entry { kind: EntryKind::SelfAdmission(_), .. }));
                if own {
                    self.append(now, mesh, Appender::Joiner { token, lookup: bearer }, &entry);
                } else {
                    self.refuse_http(token, "log-authority", "a joiner may append its own admission only");
                }
            }
            HttpRequest::MeshCreate { .. } | HttpRequest::InviteLookup { .. } => {
                unreachable!("only requests with a bearer wait for a roster")
            }
        }
    }
}

fn replay_one(roster: &mut Option<Box<Roster>>, mesh: &MeshId, bytes: &Bytes) -> Result<(), LogError> {
    let wire = WireEntry::parse(bytes)?;
    match roster {
        Some(roster) => roster.append(&wire).map(drop),
        None => {
            let begun = Roster::begin(&wire)?;
            if begun.mesh_id() != *mesh {
                return Err(LogError::Mesh);
            }
            *roster = Some(Box::new(begun));
            Ok(())
        }
    }
}

fn is_revoke(said: &Entry) -> bool {
    matches!(said.kind, EntryKind::Revoke { .. })
}

/// Whether the entry may have the next place; remembers who lost the race.
fn admit(live: &mut LiveLog, now: Now, by: &Appender, said: &Entry, wire: &WireEntry) -> Result<(), Refusal> {
    let head = live.roster.head();
    let kept = live.reserved.filter(|(_, until)| *until > now.monotonic);
    let kept_for_other = kept.is_some_and(|(place, _)| Some(place) != by.place());
    let on_head = said.index == head.size && said.prev == Some(head.hash);
    if live.appending || !on_head || (kept_for_other && !is_revoke(said)) {
        if kept_for_other {
            return Err(Refusal::Conflict { size: head.size, reserved: Duration::ZERO });
        }
        live.reserved = by.place().map(|place| (place, now.monotonic + RESERVATION));
        return Err(Refusal::Conflict { size: head.size, reserved: RESERVATION });
    }
    if said.ts.distance(now.wall) > CLOCK_SKEW_MAX {
        let text =
            format!("the entry's time is {} ms from the coordinator's", said.ts.0.abs_diff(now.wall.0));
        return Err(Refusal::Failed { code: "skew".to_owned(), text });
    }
    live.roster.check(wire).map_err(Refusal::from)
}

/// Replays what a mesh begins with and gives each entry its place.
fn begin(hub: &Hub, entries: &[Bytes]) -> Result<(Roster, Vec<Bytes>), Refusal> {
    let failed = |code: &str, text: &str| Refusal::Failed { code: code.to_owned(), text: text.to_owned() };
    let (genesis, following) = entries.split_first().ok_or_else(|| failed("log-kind", "no genesis"))?;
    if entries.len() > BEGINNING_MAX {
        return Err(failed("size", "a mesh begins with fewer entries"));
    }
    let wire = WireEntry::parse(genesis)?;
    let mut roster = Roster::begin(&wire)?;
    let here = (hub.config.key.id(), hub.config.origin.clone());
    if wire.seq.is_some() || !roster.coordinators().contains(&here) {
        return Err(failed("log-authority", "the genesis does not name this coordinator's key and origin"));
    }
    let mut sequenced = vec![Bytes::from(wire.encode())];
    for bytes in following {
        let wire = WireEntry::parse(bytes)?;
        roster.check(&wire)?;
        let wire = wire.sequence(&hub.config.key, &roster.mesh_id())?;
        roster.append(&wire)?;
        sequenced.push(wire.encode().into());
    }
    Ok((roster, sequenced))
}
