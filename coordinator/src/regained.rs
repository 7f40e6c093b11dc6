//! A log that lost its end, as after an old backup was put back, and how it gets it again.
//!
//! 1. a hello names a longer log: whoever said it is asked for the rest (`admission`)
//! 2. [`Hub::log_returned`]  entries come: each carries this coordinator's own signature
//! 3. [`Hub::regain`]        one after the other is written and told like any entry
//! 4. [`Hub::must_compare`]  until that may have happened, nothing else gets a place
//!
//! A coordinator cannot see that its disk went back. What gives it away is a long silence before its
//! start, or a node that knows more. From then on a place might be given twice, which is a fork that
//! nothing mends. So entries wait until an owner's or admin's log was compared and everybody who was
//! connected had time to come back: revocations are known to whoever made them, admissions to those who
//! were online. It ends after an hour: a mesh whose admins are away for the night takes joiners again, and
//! who alone knew of an entry was most likely connected when it was made.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::limits::LOG_RETURN_MAX;
use peerloom_proto::{LogError, MeshId, Now, Origin, PeerId, Roster, VerifyKey, WireEntry};

use crate::batch::After;
use crate::hub::{Hub, SocketId};
use crate::mesh::{Compared, LiveLog, Log, Mesh, Waiting};
use crate::meshlog::Appender;
use crate::store::Write;

/// Nodes that were connected are back within this: one and a half of their longest pause.
const OTHERS_WITHIN: Duration = Duration::from_secs(45);

/// Longest that entries wait for a comparison.
const DOUBT_MAX: Duration = Duration::from_secs(60 * 60);

impl Hub {
    /// Log entries that a node was asked for. They are this coordinator's own, or the node is no node.
    pub(crate) fn log_returned(&mut self, now: Now, socket: SocketId, from: u64, entries: &[Bytes]) {
        let Some(mesh) = self.was_asked(socket, from) else {
            return self.refuse_hello(socket, "malformed", "nobody asked for these log entries");
        };
        let parsed: Result<VecDeque<WireEntry>, LogError> =
            entries.iter().take(LOG_RETURN_MAX).map(|bytes| WireEntry::parse(bytes)).collect();
        let entries = match parsed {
            Ok(entries) if !entries.is_empty() => entries,
            Ok(_) => return self.refuse_hello(socket, "malformed", "a return of no entries"),
            Err(error) => return self.refuse_hello(socket, "malformed", &error.to_string()),
        };
        match self.meshes.get_mut(&mesh).map(Mesh::live_mut) {
            None => self.regain_mesh(now, socket, mesh, &entries),
            // Another gave it back first, and it is being written.
            Some(None) => self.with_roster(now, mesh, Waiting::Hello(socket)),
            Some(Some(live)) if live.regained.is_some() || live.appending => live.behind.push(socket),
            Some(Some(live)) => {
                live.regained = Some((socket, entries));
                self.regain(now, mesh);
            }
        }
    }

    /// The log is at rest: writes the next entry that came back, or goes on with who waits.
    pub(crate) fn regain(&mut self, now: Now, mesh_id: MeshId) {
        let Some(live) = self.meshes.get_mut(&mesh_id).and_then(Mesh::live_mut) else { return };
        if let Some((index, entry)) = next_lost(live) {
            live.appending = true;
            let bytes = entry.encode().into();
            self.open.push(Write::LogAppend { mesh: mesh_id, index, entry: bytes });
            self.open.after(After::Appended { mesh: mesh_id, by: Appender::Regained, entry });
            self.counters.log_regained += 1;
            // Whoever gave it back proved that this store is not the one of before.
            self.doubted.get_or_insert(now.monotonic);
            return;
        }
        let giver = live.regained.take().map(|(socket, _)| socket);
        let behind = std::mem::take(&mut live.behind);
        for socket in giver.into_iter().chain(behind) {
            self.welcome(now, socket);
        }
        self.unpark(now, mesh_id);
    }

    /// An entry that came back could not be written: its giver tries again.
    pub(crate) fn not_regained(&mut self, mesh_id: MeshId) {
        let Some(live) = self.meshes.get_mut(&mesh_id).and_then(Mesh::live_mut) else { return };
        let giver = live.regained.take().map(|(socket, _)| socket);
        for socket in giver.into_iter().chain(std::mem::take(&mut live.behind)) {
            self.refuse_hello(socket, "store", "the coordinator's disk did not take the log");
        }
    }

    /// A whole mesh was lost. Its genesis proves nothing, for anyone can write one; the places of the
    /// entries after it do.
    fn regain_mesh(&mut self, now: Now, socket: SocketId, mesh: MeshId, entries: &VecDeque<WireEntry>) {
        let here = (self.config.key.id(), self.config.origin.clone());
        let roster = match begin_again(&mesh, entries, &here) {
            Ok(roster) => roster,
            Err(error) => return self.refuse_hello(socket, "mesh", &error.to_string()),
        };
        self.open.push(Write::MeshCreate { mesh });
        for (index, entry) in (0..).zip(entries) {
            self.open.push(Write::LogAppend { mesh, index, entry: entry.encode().into() });
        }
        self.counters.log_regained += entries.len() as u64;
        self.doubted.get_or_insert(now.monotonic);
        self.meshes.insert(mesh, Mesh::regained(now.monotonic, socket));
        self.open.after(After::MeshRegained { roster: Box::new(roster) });
    }

    /// It is on the disk: who waits for it is answered.
    pub(crate) fn mesh_regained(&mut self, now: Now, roster: Roster) {
        let id = roster.mesh_id();
        let Some(mesh) = self.meshes.get_mut(&id) else { return };
        let log = std::mem::replace(&mut mesh.log, Log::Ready(Box::new(LiveLog::new(roster))));
        if let Log::Reading { waiting, .. } = log {
            waiting.into_iter().for_each(|what| self.resume(now, id, what));
        }
    }

    /// It is not: whoever gives it back tries again.
    pub(crate) fn mesh_not_regained(&mut self, mesh: &MeshId) {
        if let Some(Mesh { log: Log::Reading { waiting, .. }, .. }) = self.meshes.remove(mesh) {
            waiting.into_iter().for_each(|what| self.abandon(what));
        }
    }

    /// A member said hello, its log and its mark were looked at.
    pub(crate) fn compared(&mut self, now: Now, mesh: &MeshId, senior: bool, kept: bool) {
        if !kept {
            self.counters.marks_lost += 1;
            self.doubted.get_or_insert(now.monotonic);
        }
        if let Some(mesh) = self.meshes.get_mut(mesh)
            && senior
            && mesh.compared == Compared::Not
        {
            mesh.compared = Compared::WithSenior;
        }
    }

    /// For how long at most no new entry may get a place in this log; none if one may.
    pub(crate) fn must_compare(&self, now: Now, mesh: &MeshId) -> Option<Duration> {
        let (doubted, mesh) = (self.doubted?, self.meshes.get(mesh)?);
        let age = now.monotonic.since(doubted.max(mesh.regained_at));
        let left = match mesh.compared {
            Compared::Needless => Duration::ZERO,
            Compared::WithSenior => OTHERS_WITHIN.saturating_sub(age),
            Compared::Not => DOUBT_MAX.saturating_sub(age),
        };
        Some(left).filter(|left| !left.is_zero())
    }
}

/// The next entry that the log lacks and that fits on it. Those it has are passed over; one that does not
/// fit ends it, and its giver finds out from the welcome whose log is another.
fn next_lost(live: &mut LiveLog) -> Option<(u64, WireEntry)> {
    let (_, entries) = live.regained.as_mut()?;
    while let Some(entry) = entries.pop_front() {
        let index = entry.entry().ok()?.index;
        if index < live.roster.size() {
            continue;
        }
        let holds = live.roster.verify_seq(&entry) && live.roster.check(&entry).is_ok();
        return holds.then_some((index, entry));
    }
    None
}

/// Replays a mesh that this very coordinator served: another one of the same genesis proves nothing here.
fn begin_again(
    mesh: &MeshId,
    entries: &VecDeque<WireEntry>,
    here: &(PeerId, Origin),
) -> Result<Roster, LogError> {
    let mut entries = entries.iter();
    let genesis = entries.next().ok_or(LogError::Mesh)?;
    let mut roster = Roster::begin(genesis)?;
    if roster.mesh_id() != *mesh || !roster.coordinators().contains(here) || entries.len() == 0 {
        return Err(LogError::Mesh);
    }
    let key = VerifyKey::parse(&here.0).map_err(|_| LogError::Signature)?;
    for entry in entries {
        if !entry.sequenced_by(&key, mesh) {
            return Err(LogError::Signature);
        }
        roster.append(entry)?;
    }
    Ok(roster)
}
