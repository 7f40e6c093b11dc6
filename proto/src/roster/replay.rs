//! Replay: the only place where an entry becomes part of the roster.
//!
//! [`Roster::verify`] decides, reading nothing but the entry and the state below it, and says what
//! would change; [`Roster::append`] carries that out. The order of checks is the protocol's order of
//! reasons: decode, mesh, signature, place, authority.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::LABEL_ENTRY;
use super::{
    Entry, EntryKind, Genesis, InviteUse, KeyRevocation, LogError, Member, MemberAdd, Revocation, Role,
    Roster, State, WireEntry, admission,
};
use crate::canonical::DecodeError;
use crate::id::{EntryHash, PeerId};
use crate::key::VerifyKey;
use crate::limits::{LOG_ENTRIES_MAX, LOG_ENTRIES_PER_MEMBER_MAX};
use crate::revocation::{RevokeKind, SignedRevoke};
use crate::time::UnixMs;

/// An entry that became part of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its place.
    pub index: u64,
    /// Its hash, which is the head's.
    pub hash: EntryHash,
    /// Who acted.
    pub author: PeerId,
    /// What changed.
    pub effect: Effect,
}

/// What an entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A member was admitted, or admitted again.
    Admitted {
        /// Who.
        member: PeerId,
        /// Set for an admission by invite; its inviter is to be told.
        invite: Option<InviteUse>,
    },
    /// A member's role changed.
    RoleChanged {
        /// Whose.
        member: PeerId,
        /// To what.
        role: Role,
    },
    /// Members are gone: links to them close, their mail is refused.
    Revoked {
        /// Who was named.
        target: PeerId,
        /// Everybody who left by this entry: the target, and who came by it after the revoke's head.
        members: Vec<PeerId>,
    },
    /// A session, service or prekey was revoked.
    KeyRevoked {
        /// Which.
        key: PeerId,
    },
    /// A topic has another key. Membership is as before.
    TopicEpoch,
}

/// A checked entry and what it will do.
struct Checked {
    hash: EntryHash,
    index: u64,
    ts: UnixMs,
    author: PeerId,
    change: Change,
}

enum Change {
    Admit { member: Box<Member>, cap: Option<InviteUse> },
    Role { target: PeerId, role: Role },
    Revoke { target: PeerId, reason: u64, ts: UnixMs, head_size: u64 },
    RevokeKey { key: PeerId, role: Role },
    TopicEpoch,
}

impl Roster {
    /// Begins a roster with a mesh's genesis. Compare [`Roster::mesh_id`] with what was expected.
    pub fn begin(genesis: &WireEntry) -> Result<Self, LogError> {
        let entry = genesis.entry()?;
        let EntryKind::Genesis(body) = entry.kind else {
            return Err(LogError::Kind(entry.kind.number()));
        };
        if entry.index != 0 {
            return Err(LogError::Index { expected: 0, found: entry.index });
        }
        let owner_keys = distinct_keys(body.owners.iter())?;
        let coordinator_keys = distinct_keys(body.coordinators.iter().map(|(key, _)| key))?;
        let author = body.owners.iter().position(|owner| *owner == entry.author);
        let author = author.ok_or(LogError::Author(entry.author))?;
        check_signatures(genesis, &entry.author, &owner_keys[author])?;
        let Genesis { owners, coordinators, policy, recovery, name, nonce: _ } = body;
        Ok(Self(Arc::new(State {
            mesh: genesis.mesh_hash(),
            name,
            owners,
            owner_keys,
            coordinators,
            coordinator_keys,
            policy,
            recovery,
            hashes: vec![genesis.entry_hash()],
            time: entry.ts,
            members: BTreeMap::new(),
            handles: BTreeMap::new(),
            invite_uses: BTreeMap::new(),
            revoked_keys: BTreeMap::new(),
            last_senior_entry: 0,
        })))
    }

    /// Whether `entry` may come next. What the coordinator asks before it sequences.
    pub fn check(&self, entry: &WireEntry) -> Result<(), LogError> {
        self.verify(entry).map(drop)
    }

    /// Checks `entry` and moves the state. On an error nothing changed.
    pub fn append(&mut self, entry: &WireEntry) -> Result<Applied, LogError> {
        let checked = self.verify(entry)?;
        Ok(Arc::make_mut(&mut self.0).apply(checked))
    }

    /// Whether one of the mesh's coordinators gave `entry` its place.
    pub fn verify_seq(&self, entry: &WireEntry) -> bool {
        self.0.coordinator_keys.iter().any(|key| entry.sequenced_by(key, &self.0.mesh))
    }

    fn verify(&self, wire: &WireEntry) -> Result<Checked, LogError> {
        let entry = wire.entry()?;
        // Only a genesis names no mesh, and its place is taken.
        let place = LogError::Index { expected: self.size(), found: entry.index };
        let (Some(mesh), Some(prev)) = (entry.mesh, entry.prev) else { return Err(place) };
        if mesh != self.0.mesh {
            return Err(LogError::Mesh);
        }
        match self.known_key(&entry.author) {
            Some(key) => check_signatures(wire, &entry.author, key)?,
            None => {
                let key = VerifyKey::parse(&entry.author).map_err(|_| LogError::Signature)?;
                check_signatures(wire, &entry.author, &key)?;
            }
        }
        if entry.index != self.size() {
            return Err(place);
        }
        if prev != self.head().hash {
            return Err(LogError::Chain { index: entry.index });
        }
        if entry.index >= LOG_ENTRIES_MAX {
            return Err(LogError::Full);
        }
        let change = self.authorise(&entry)?;
        Ok(Checked {
            hash: wire.entry_hash(),
            index: entry.index,
            ts: entry.ts,
            author: entry.author,
            change,
        })
    }

    fn authorise(&self, entry: &Entry) -> Result<Change, LogError> {
        if let EntryKind::SelfAdmission(own) = &entry.kind {
            let time = self.time().max(entry.ts);
            let cap = admission::check_self_admission(self, &entry.author, own, time)?;
            let member = self.new_member(&own.member, entry.index, cap.inviter, Some(cap))?;
            return Ok(Change::Admit { member, cap: Some(cap) });
        }
        let role = self.role_of(&entry.author).ok_or(LogError::Author(entry.author))?;
        let share_used = self.active(&entry.author).is_some_and(|author| {
            author.role == Role::Member && author.entries_authored >= LOG_ENTRIES_PER_MEMBER_MAX
        });
        if share_used {
            return Err(LogError::EntryLimit(entry.author));
        }
        match &entry.kind {
            EntryKind::MemberAdd(added) => {
                above(role, added.role)?;
                let member = self.new_member(added, entry.index, entry.author, None)?;
                Ok(Change::Admit { member, cap: None })
            }
            EntryKind::Role { target, role: given } => {
                above(role, self.rank(target)?)?;
                above(role, *given)?;
                let revoked = self.active(target).is_none();
                if revoked {
                    Err(LogError::UnknownTarget(*target))
                } else {
                    Ok(Change::Role { target: *target, role: *given })
                }
            }
            EntryKind::Revoke { target, stmt, sig } => {
                let revoke = SignedRevoke::parse_verified(stmt, sig, &self.0.mesh)?;
                self.authorise_revoke(entry, role, target, &revoke)
            }
            EntryKind::TopicEpoch => {
                let member = self.active(&entry.author).is_some();
                if member { Ok(Change::TopicEpoch) } else { Err(LogError::Author(entry.author)) }
            }
            EntryKind::Genesis(_) | EntryKind::SelfAdmission(_) => Err(LogError::Kind(entry.kind.number())),
        }
    }

    /// The entry's author must be the revoke's: whoever put another's old revoke into the log would
    /// choose the moment at which it takes others along.
    fn authorise_revoke(
        &self,
        entry: &Entry,
        role: Role,
        target: &PeerId,
        revoke: &SignedRevoke,
    ) -> Result<Change, LogError> {
        if revoke.target != *target || revoke.author != entry.author {
            return Err(LogError::RevokeMismatch);
        }
        match revoke.kind {
            RevokeKind::Member => {
                if entry.author != *target {
                    above(role, self.rank(target)?)?;
                }
                if !self.contains_head(&revoke.head) {
                    return Err(LogError::RevokeHead);
                }
                let (reason, ts, head_size) = (revoke.reason, revoke.ts, revoke.head.size);
                Ok(Change::Revoke { target: *target, reason, ts, head_size })
            }
            RevokeKind::Session | RevokeKind::Service | RevokeKind::Prekey => {
                Ok(Change::RevokeKey { key: *target, role })
            }
        }
    }

    /// The role of an owner or of a member, revoked or not.
    fn rank(&self, id: &PeerId) -> Result<Role, LogError> {
        if self.0.owners.contains(id) {
            return Ok(Role::Owner);
        }
        self.member(id).map(|member| member.role).ok_or(LogError::UnknownTarget(*id))
    }

    fn known_key(&self, id: &PeerId) -> Option<&VerifyKey> {
        let owner = self.0.owners.iter().position(|owner| owner == id);
        owner
            .map(|place| &self.0.owner_keys[place])
            .or_else(|| self.member(id).map(|member| &member.verify_key))
    }

    /// A member as an admission makes it, if neither its key nor its handle was used before. A key
    /// that left only with its admitter comes back by an owner's entry.
    fn new_member(
        &self,
        added: &MemberAdd,
        index: u64,
        admitted_by: PeerId,
        invite: Option<InviteUse>,
    ) -> Result<Box<Member>, LogError> {
        let verify_key = VerifyKey::parse(&added.id).map_err(|_| DecodeError::Type)?;
        let state = &*self.0;
        let readmitted = self
            .member(&added.id)
            .filter(|gone| gone.revoked.is_some_and(|revoked| revoked.with.is_some()))
            .filter(|_| state.owners.contains(&admitted_by) && invite.is_none());
        let used = self.member(&added.id).is_some()
            || state.owners.contains(&added.id)
            || state.coordinators.iter().any(|(key, _)| *key == added.id)
            || state.recovery == Some(added.id);
        if used && readmitted.is_none() {
            return Err(LogError::KeyUsed(added.id));
        }
        if state.handles.get(&added.handle).is_some_and(|bearer| *bearer != added.id) {
            return Err(LogError::HandleTaken(added.handle.clone()));
        }
        Ok(Box::new(Member {
            id: added.id,
            handle: added.handle.clone(),
            role: added.role,
            prekey: added.prekey,
            admitted_at: index,
            admitted_by,
            invite,
            revoked: None,
            verify_key,
            // A self-admission is the joiner's first entry.
            entries_authored: readmitted.map_or(u32::from(invite.is_some()), |gone| gone.entries_authored),
        }))
    }
}

impl State {
    fn apply(&mut self, checked: Checked) -> Applied {
        let Checked { hash, index, ts, author, change } = checked;
        self.hashes.push(hash);
        self.time = self.time.max(ts);
        let mut senior = self.owners.contains(&author);
        if let Some(member) = self.members.get_mut(&author) {
            senior |= member.role == Role::Admin;
            Arc::make_mut(member).entries_authored += 1;
        }
        if senior {
            self.last_senior_entry = index;
        }
        let effect = self.carry_out(index, author, change);
        Applied { index, hash, author, effect }
    }

    fn carry_out(&mut self, index: u64, author: PeerId, change: Change) -> Effect {
        match change {
            Change::Admit { member, cap } => {
                let id = member.id;
                if let Some(cap) = &cap {
                    *self.invite_uses.entry(cap.cap).or_default() += 1;
                }
                self.handles.insert(member.handle.clone(), id);
                self.members.insert(id, Arc::from(member));
                Effect::Admitted { member: id, invite: cap }
            }
            Change::Role { target, role } => {
                if let Some(member) = self.members.get_mut(&target) {
                    Arc::make_mut(member).role = role;
                }
                Effect::RoleChanged { member: target, role }
            }
            Change::Revoke { target, reason, ts, head_size } => {
                let members = self.revoke(Revocation { index, reason, ts, with: None }, target, head_size);
                Effect::Revoked { target, members }
            }
            Change::RevokeKey { key, role } => {
                self.revoked_keys.entry(key).or_default().push(KeyRevocation { author, role });
                Effect::KeyRevoked { key }
            }
            Change::TopicEpoch => Effect::TopicEpoch,
        }
    }

    /// Revokes `target`, and everybody it admitted or invited at or after the revoke's head.
    fn revoke(&mut self, revocation: Revocation, target: PeerId, head_size: u64) -> Vec<PeerId> {
        let mut gone = Vec::new();
        for (id, member) in &mut self.members {
            let named = *id == target;
            let taken_along = member.admitted_by == target && member.admitted_at >= head_size;
            // Being named outweighs having left with another: only the latter may come back.
            let outweighs = member.revoked.is_none_or(|before| named && before.with.is_some());
            if !(named || taken_along) || !outweighs {
                continue;
            }
            if member.revoked.is_none() {
                gone.push(*id);
            }
            let with = (!named).then_some(target);
            Arc::make_mut(member).revoked = Some(Revocation { with, ..revocation });
        }
        gone
    }
}

fn above(actor: Role, subject: Role) -> Result<(), LogError> {
    if actor > subject { Ok(()) } else { Err(LogError::Outranked { actor, subject }) }
}

/// Exactly one signature, the author's.
fn check_signatures(wire: &WireEntry, author: &PeerId, key: &VerifyKey) -> Result<(), LogError> {
    let [(signer, sig)] = wire.sigs.as_slice() else { return Err(LogError::Signature) };
    let holds = signer == author && key.accepts(sig, LABEL_ENTRY, &[&wire.stmt]);
    if holds { Ok(()) } else { Err(LogError::Signature) }
}

/// Checked keys of a list that is neither empty nor repeats itself.
fn distinct_keys<'a>(ids: impl Iterator<Item = &'a PeerId>) -> Result<Vec<VerifyKey>, LogError> {
    let mut keys: Vec<VerifyKey> = Vec::new();
    for id in ids {
        let key = VerifyKey::parse(id).map_err(|_| DecodeError::Type)?;
        if keys.contains(&key) {
            return Err(DecodeError::Type.into());
        }
        keys.push(key);
    }
    if keys.is_empty() { Err(DecodeError::MissingField.into()) } else { Ok(keys) }
}
