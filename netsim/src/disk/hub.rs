//! The coordinator's store: one mesh's log, mail by claim, prekeys and invites.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerloom_coordinator::hub::{Answer, Query};
use peerloom_coordinator::runs::Runs;
use peerloom_coordinator::store::{InviteRow, MailKind, MailRow, QueueDepth, Snapshot, Write};
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{InviteLookup, MeshId, PeerId, RunId, StoreMark, UnixMs};

use super::journal::Sectors;

/// Claims of one run, as the real store counts them.
const RUN_SEQ_BITS: u32 = 40;

/// What the coordinator's store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct HubDisk {
    log: BTreeMap<MeshId, Vec<Bytes>>,
    mail: BTreeMap<u64, MailRow>,
    queues: BTreeMap<(MeshId, PeerId), BTreeSet<(u8, u64)>>,
    prekeys: BTreeMap<PeerId, SignedBytes>,
    invites: BTreeMap<InviteLookup, (InviteRow, Bytes)>,
    runs: Runs,
    run: u64,
    /// The last sign of life of any run.
    alive: Option<UnixMs>,
}

impl HubDisk {
    /// A store that serves one mesh.
    pub(crate) fn new(mesh: MeshId, log: Vec<Bytes>) -> Self {
        Self { log: BTreeMap::from([(mesh, log)]), ..Self::default() }
    }

    /// A process opens the store: what its hub begins with.
    pub(crate) fn begin_run(&mut self, id: RunId, now: UnixMs) -> Snapshot {
        let StoreMark { run, commit } = self.runs.current;
        self.runs.earlier.insert(run, commit);
        self.runs.current.run = id;
        self.run += 1;
        let silence = self.alive.map(|alive| now.since(alive));
        self.snapshot(silence)
    }

    /// A run notes that it goes on.
    pub(crate) fn show_life(&mut self, now: UnixMs) {
        self.alive = Some(now);
    }

    fn snapshot(&self, silence: Option<Duration>) -> Snapshot {
        let depth = |((mesh, to), rows): (&(MeshId, PeerId), &BTreeSet<(u8, u64)>)| {
            let bytes =
                rows.iter().filter_map(|(_, seq)| self.mail.get(seq)).map(|row| row.bytes.len() as u64);
            QueueDepth { mesh: *mesh, to: *to, messages: rows.len() as u64, bytes: bytes.sum() }
        };
        Snapshot {
            next_seq: self.run << RUN_SEQ_BITS,
            runs: self.runs.clone(),
            silence,
            queues: self.queues.iter().filter(|(_, rows)| !rows.is_empty()).map(depth).collect(),
            meshes: self.log.keys().copied().collect(),
            invites: self.invites.values().map(|(row, _)| row.clone()).collect(),
        }
    }

    /// Answers a read from what is committed.
    pub(crate) fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Mail { mesh, to, after, limit, bytes_max } => {
                let after = after.map(|(priority, seq)| (u8::MAX - priority, seq));
                let rows = self.queues.get(&(*mesh, *to)).into_iter().flatten();
                let rows = rows.filter(|row| after.is_none_or(|after| **row > after)).take(*limit);
                let mut found: Vec<MailRow> = Vec::new();
                let mut bytes = 0;
                for row in rows.filter_map(|(_, seq)| self.mail.get(seq)) {
                    bytes += row.bytes.len() as u64;
                    if bytes > *bytes_max && !found.is_empty() {
                        break;
                    }
                    found.push(row.clone());
                }
                Answer::Mail(found)
            }
            Query::Expired { before, limit } => Answer::Mail(
                self.mail.values().filter(|row| row.exp < *before).take(*limit).cloned().collect(),
            ),
            Query::Log { mesh, from, limit } => {
                let skip = usize::try_from(*from).unwrap_or(usize::MAX);
                Answer::Log(
                    self.log.get(mesh).into_iter().flatten().skip(skip).take(*limit).cloned().collect(),
                )
            }
            Query::Prekeys { mesh: _, members } => Answer::Prekeys(
                members.iter().filter_map(|member| self.prekeys.get(member)).cloned().collect(),
            ),
            Query::Invite { lookup } => {
                Answer::Invite(self.invites.get(lookup).map(|(_, blob)| blob.clone()))
            }
        }
    }

    /// The run that has the store.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Transactions so far.
    pub(crate) fn commits(&self) -> u64 {
        self.runs.current.commit
    }

    /// One transaction, in the order of [`Write`]'s rules.
    pub(crate) fn commit<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a Write> + Clone,
    ) -> Result<(), String> {
        self.runs.current.commit += 1;
        for write in writes.clone() {
            self.add(write)?;
        }
        for write in writes {
            self.remove(write);
        }
        Ok(())
    }

    fn add(&mut self, write: &Write) -> Result<(), String> {
        match write {
            Write::MeshCreate { mesh } => drop(self.log.entry(*mesh).or_default()),
            Write::LogAppend { mesh, index, entry } => {
                let log = self.log.get_mut(mesh).ok_or("a log entry of a mesh that is not there")?;
                if log.len() as u64 != *index {
                    return Err(format!("log index {index} does not follow {}", log.len()));
                }
                log.push(entry.clone());
            }
            Write::PutMail(row) => {
                let queue = self.queues.entry((row.mesh, row.to)).or_default();
                queue.insert((u8::MAX - row.priority, row.seq));
                if self.mail.insert(row.seq, row.clone()).is_some() {
                    return Err(format!("claim {} was used twice", row.seq));
                }
            }
            Write::PutPrekey { member, stmt, sig, .. } => {
                self.prekeys.insert(*member, SignedBytes { stmt: stmt.clone(), sig: *sig });
            }
            Write::PutInvite { mesh, lookup, owner, blob, exp, uses_left } => {
                let row = InviteRow {
                    mesh: *mesh,
                    lookup: *lookup,
                    owner: *owner,
                    exp: *exp,
                    uses_left: *uses_left,
                };
                self.invites.insert(*lookup, (row, blob.clone()));
            }
            Write::DeleteInvite { lookup } => drop(self.invites.remove(lookup)),
            Write::UseInvite { lookup } => {
                if let Some((row, _)) = self.invites.get_mut(lookup) {
                    row.uses_left = row.uses_left.saturating_sub(1);
                    if row.uses_left == 0 {
                        self.invites.remove(lookup);
                    }
                }
            }
            Write::DeleteMail { .. } | Write::DropQueue { .. } => {}
        }
        Ok(())
    }

    fn remove(&mut self, write: &Write) {
        match write {
            Write::DeleteMail { seq, mesh, to, env_hash } => {
                let named = |row: &MailRow| {
                    row.mesh == *mesh && row.to == *to && env_hash.is_none_or(|hash| row.env_hash == hash)
                };
                if self.mail.get(seq).is_some_and(named) {
                    self.drop_row(*seq);
                }
            }
            Write::DropQueue { mesh, to } => {
                for (_, seq) in self.queues.remove(&(*mesh, *to)).unwrap_or_default() {
                    self.mail.remove(&seq);
                }
            }
            Write::MeshCreate { .. }
            | Write::LogAppend { .. }
            | Write::PutMail(_)
            | Write::PutPrekey { .. }
            | Write::PutInvite { .. }
            | Write::DeleteInvite { .. }
            | Write::UseInvite { .. } => {}
        }
    }

    fn drop_row(&mut self, seq: u64) {
        let Some(row) = self.mail.remove(&seq) else { return };
        if let Some(queue) = self.queues.get_mut(&(row.mesh, row.to)) {
            queue.remove(&(u8::MAX - row.priority, row.seq));
        }
    }

    /// Envelopes that wait for a recipient.
    pub(crate) fn envelopes_for(&self, mesh: MeshId, to: PeerId) -> usize {
        let rows = self.queues.get(&(mesh, to)).into_iter().flatten();
        rows.filter_map(|(_, seq)| self.mail.get(seq)).filter(|row| row.kind == MailKind::Envelope).count()
    }

    /// Everything that waits, of every kind.
    pub(crate) fn mail(&self) -> impl Iterator<Item = &MailRow> {
        self.mail.values()
    }

    /// The mesh's log.
    pub(crate) fn log(&self, mesh: &MeshId) -> &[Bytes] {
        self.log.get(mesh).map_or(&[], Vec::as_slice)
    }
}

impl Sectors for Write {
    fn body(&mut self) -> Option<&mut Bytes> {
        match self {
            Self::LogAppend { entry, .. } => Some(entry),
            Self::PutMail(row) => Some(&mut row.bytes),
            Self::PutInvite { blob, .. } => Some(blob),
            Self::MeshCreate { .. }
            | Self::DeleteMail { .. }
            | Self::DropQueue { .. }
            | Self::PutPrekey { .. }
            | Self::DeleteInvite { .. }
            | Self::UseInvite { .. } => None,
        }
    }
}
