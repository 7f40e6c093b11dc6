//! One mesh as the hub holds it: its replayed log, who is online, and the queues of its members.

use std::collections::{BTreeMap, VecDeque};

use peerloom_proto::{InstanceId, InviteLookup, Monotonic, PeerId, Roster, WireEntry};

use crate::hub::{HttpRequest, HttpToken, SocketId};
use crate::mailbox::queue::Queue;
use crate::meshlog::Appender;
use crate::rate::Bucket;

/// A mesh. Its roster is read from the store when somebody first asks, and kept from then on.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    pub(crate) log: Log,
    pub(crate) online: BTreeMap<PeerId, Presence>,
    pub(crate) queues: BTreeMap<PeerId, Queue>,
    /// Presence changes not told yet.
    pub(crate) changes: BTreeMap<PeerId, bool>,
    /// When changes were last told.
    pub(crate) told: Option<Monotonic>,
    /// Whether no entry of it can have been lost: it began in this run, or an owner or admin compared.
    pub(crate) compared: Compared,
    /// When it was given back whole; the process's start for all others.
    pub(crate) regained_at: Monotonic,
}

/// With whom the log was compared since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Nobody above a plain member.
    #[default]
    Not,
    /// An owner or admin.
    WithSenior,
    /// The mesh began in this run: there is nothing to compare.
    Needless,
}

#[derive(Debug, Default)]
pub(crate) enum Log {
    /// Nobody has asked yet.
    #[default]
    Unread,
    /// Being replayed from the store, or written to it again; who asked waits.
    Reading { roster: Option<Box<Roster>>, waiting: Vec<Waiting> },
    /// Replayed.
    Ready(Box<LiveLog>),
    /// What the store holds does not replay. Nobody gets in.
    Broken,
}

/// What cannot be answered before the log is replayed.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A hello whose signature holds.
    Hello(SocketId),
    /// A request of a joiner.
    Http { token: HttpToken, request: HttpRequest },
}

/// A replayed log and the race for its next place.
#[derive(Debug)]
pub(crate) struct LiveLog {
    pub(crate) roster: Roster,
    /// Whether an entry is on its way to the disk. The next waits for it.
    pub(crate) appending: bool,
    /// Entries that came meanwhile, revocations first.
    pub(crate) parked: VecDeque<(Appender, WireEntry)>,
    /// For whom the next place is kept, and until when.
    pub(crate) reserved: Option<(Place, Monotonic)>,
    /// Entries that were lost and are being written again, and who gave them back.
    pub(crate) regained: Option<(SocketId, VecDeque<WireEntry>)>,
    /// Others with a longer log, who wait for that.
    pub(crate) behind: Vec<SocketId>,
}

/// Who keeps a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Member(PeerId),
    Joiner(InviteLookup),
}

/// A member's lease on being online. It outlives the socket.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Its socket, or until when it may come back unnoticed.
    pub(crate) socket: Reach,
    pub(crate) instance: InstanceId,
    pub(crate) counter: u64,
    /// What it may still send. Kept here, so that reconnecting does not refill it.
    pub(crate) messages: Bucket,
    pub(crate) bytes: Bucket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Socket(SocketId),
    LostUntil(Monotonic),
}

impl Mesh {
    /// A mesh that was just created, its log at hand.
    pub(crate) fn begun(roster: Roster) -> Self {
        let log = Log::Ready(Box::new(LiveLog::new(roster)));
        Self { log, compared: Compared::Needless, ..Self::default() }
    }

    /// A mesh that was lost and given back by this socket, and is not on the disk yet.
    pub(crate) fn regained(now: Monotonic, giver: SocketId) -> Self {
        let log = Log::Reading { roster: None, waiting: vec![Waiting::Hello(giver)] };
        Self { log, regained_at: now, ..Self::default() }
    }

    /// The roster, once it is replayed.
    pub(crate) fn roster(&self) -> Option<&Roster> {
        self.live().map(|live| &live.roster)
    }

    pub(crate) fn live(&self) -> Option<&LiveLog> {
        match &self.log {
            Log::Ready(live) => Some(live),
            Log::Unread | Log::Reading { .. } | Log::Broken => None,
        }
    }

    pub(crate) fn live_mut(&mut self) -> Option<&mut LiveLog> {
        match &mut self.log {
            Log::Ready(live) => Some(live),
            Log::Unread | Log::Reading { .. } | Log::Broken => None,
        }
    }

    /// The open socket of a member.
    pub(crate) fn socket_of(&self, member: &PeerId) -> Option<SocketId> {
        match self.online.get(member)?.socket {
            Reach::Socket(socket) => Some(socket),
            Reach::LostUntil(_) => None,
        }
    }

    /// All open sockets, ascending by member.
    pub(crate) fn open_sockets(&self) -> impl Iterator<Item = (PeerId, SocketId)> {
        self.online.iter().filter_map(|(member, presence)| match presence.socket {
            Reach::Socket(socket) => Some((*member, socket)),
            Reach::LostUntil(_) => None,
        })
    }
}

impl Presence {
    /// Whether a socket is open.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.socket, Reach::Socket(_))
    }
}

impl LiveLog {
    pub(crate) const fn new(roster: Roster) -> Self {
        Self {
            roster,
            appending: false,
            parked: VecDeque::new(),
            reserved: None,
            regained: None,
            behind: Vec::new(),
        }
    }
}
