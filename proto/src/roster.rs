//! The mesh log and what replaying it says: who is a member, in which role, under which name
//! (protocol.md §10).
//!
//! 1. [`WireEntry::parse`]   bytes become an entry and its signatures
//! 2. [`Roster::check`]      chain, signatures and authority, from lower entries only
//! 3. [`Roster::append`]     the same checks, then the state moves
//!
//! The coordinator sequences entries and is no authority over them: it runs the same checks, and
//! replay reads neither a clock nor the revocation set.

mod admission;
mod build;
mod entry;
mod error;
mod fork;
mod replay;
mod resolve;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use admission::verify_invite;
pub use build::{GenesisParams, NewMember};
pub use entry::{Entry, EntryKind, Genesis, MemberAdd, SelfAdmission, WireEntry};
pub use error::LogError;
pub use fork::ForkEvidence;
pub use replay::{Applied, Effect};
pub use resolve::{Candidate, ResolveError};

use crate::canonical::{DecodeError, Value};
use crate::id::{EntryHash, InviteId, MeshId, PeerId};
use crate::identity::{Handle, Origin};
use crate::invite::CapHash;
use crate::key::{BoxPublicKey, VerifyKey};
use crate::time::UnixMs;

/// The end of a log: how many entries, and the hash of the last statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Number of entries, genesis included.
    pub size: u64,
    /// HASH("entry", last statement).
    pub hash: EntryHash,
}

impl Head {
    /// `[size, hash]`.
    pub fn to_value(&self) -> Value<'_> {
        Value::Array(vec![Value::Uint(self.size), Value::Bytes(&self.hash.0)])
    }

    /// Reads `[size, hash]`.
    pub fn from_value(value: Value<'_>) -> Result<Self, DecodeError> {
        let [size, hash] = value.tuple()?;
        Ok(Self { size: size.uint()?, hash: EntryHash(hash.array()?) })
    }
}

/// What someone may do to others: act on those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// Speaks.
    Member = 1,
    /// Admits and revokes members.
    Admin = 2,
    /// Signed the genesis. Never a member: a recipient is always another key.
    Owner = 3,
}

impl Role {
    /// The number on the wire.
    pub const fn to_value(self) -> Value<'static> {
        Value::Uint(self as u64)
    }

    /// A role that a member can have: 1 or 2.
    pub fn from_value(value: &Value<'_>) -> Result<Self, DecodeError> {
        match value.uint()? {
            1 => Ok(Self::Member),
            2 => Ok(Self::Admin),
            _ => Err(DecodeError::Type),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        })
    }
}

/// How fresh a member's view must be, in whole seconds (protocol.md §11). Only carried so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Say so beyond this.
    pub fresh_soft: Duration,
    /// Hold mail beyond this.
    pub fresh_hard: Duration,
    /// Refuse beyond this.
    pub fresh_max: Duration,
}

/// A minute, an hour, a day.
impl Default for Policy {
    fn default() -> Self {
        Self {
            fresh_soft: Duration::from_secs(60),
            fresh_hard: Duration::from_secs(60 * 60),
            fresh_max: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A key that was admitted, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its durable name.
    pub id: PeerId,
    /// Its short name.
    pub handle: Handle,
    /// Member or admin.
    pub role: Role,
    /// First prekey and last resort, if the entry gave one.
    pub prekey: Option<BoxPublicKey>,
    /// Index of the entry that admitted it.
    pub admitted_at: u64,
    /// Who vouched: the entry's author, or the inviter of a self-admission.
    pub admitted_by: PeerId,
    /// The invite it came by.
    pub invite: Option<InviteUse>,
    /// Set once it was revoked. Only an owner's re-admission after [`Revocation::with`] clears it.
    pub revoked: Option<Revocation>,
    /// The checked form of `id`, kept because every envelope needs it.
    pub verify_key: VerifyKey,
    /// Log entries it authored; bounded for role 1.
    pub entries_authored: u32,
}

/// The invite behind a self-admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InviteUse {
    /// Who signed the cap.
    pub inviter: PeerId,
    /// Which cap.
    pub cap: CapHash,
    /// Its random id.
    pub invite: InviteId,
    /// When it ended: an admission first seen later is held until someone else confirms it.
    pub exp: UnixMs,
}

/// When and how a member was revoked in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Index of the revoke entry.
    pub index: u64,
    /// The reason number of the statement.
    pub reason: u64,
    /// The statement's time.
    pub ts: UnixMs,
    /// The admitter whose revocation took this member along; none if it was named itself.
    pub with: Option<PeerId>,
}

/// A session, service or prekey revoked in the log. Who may revoke it depends on whose it is, which
/// the log does not know; so the author and its role are kept and asked at use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyRevocation {
    author: PeerId,
    role: Role,
}

/// The replayed mesh log. Cloning is cheap until one of the copies appends.
#[derive(Clone, Debug)]
pub struct Roster(Arc<State>);

#[derive(Clone, Debug)]
struct State {
    mesh: MeshId,
    name: Option<String>,
    owners: Vec<PeerId>,
    owner_keys: Vec<VerifyKey>,
    coordinators: Vec<(PeerId, Origin)>,
    coordinator_keys: Vec<VerifyKey>,
    policy: Policy,
    recovery: Option<PeerId>,
    /// One hash an entry.
    hashes: Vec<EntryHash>,
    /// T(last).
    time: UnixMs,
    members: BTreeMap<PeerId, Arc<Member>>,
    /// Every handle ever given.
    handles: BTreeMap<Handle, PeerId>,
    invite_uses: BTreeMap<CapHash, u64>,
    revoked_keys: BTreeMap<PeerId, Vec<KeyRevocation>>,
    /// Index of the last entry by an owner or admin: it vouches for everything below.
    last_senior_entry: u64,
}

impl Roster {
    /// The mesh's real name.
    pub fn mesh_id(&self) -> MeshId {
        self.0.mesh
    }

    /// The mesh's name for people, if its genesis has one.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Size and last hash.
    pub fn head(&self) -> Head {
        let hash = *self.0.hashes.last().expect("a roster begins with its genesis");
        Head { size: self.size(), hash }
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.0.hashes.len() as u64
    }

    /// T of the last entry: the largest time any entry so far names.
    pub fn time(&self) -> UnixMs {
        self.0.time
    }

    /// The keys that rank above all members.
    pub fn owners(&self) -> &[PeerId] {
        &self.0.owners
    }

    /// The coordinators' keys, and where each is reached.
    pub fn coordinators(&self) -> &[(PeerId, Origin)] {
        &self.0.coordinators
    }

    /// How fresh a member's view must be.
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// The break-glass key of the genesis.
    pub fn recovery(&self) -> Option<&PeerId> {
        self.0.recovery.as_ref()
    }

    /// A member, revoked or not.
    pub fn member(&self, id: &PeerId) -> Option<&Member> {
        self.0.members.get(id).map(|member| &**member)
    }

    /// A member that is not revoked in the log.
    pub fn active(&self, id: &PeerId) -> Option<&Member> {
        self.member(id).filter(|member| member.revoked.is_none())
    }

    /// All members, revoked ones too, ascending by key.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.0.members.values().map(|member| &**member)
    }

    /// The member that has, or had, a handle.
    pub fn by_handle(&self, handle: &str) -> Option<&Member> {
        self.0.handles.get(handle).and_then(|id| self.member(id))
    }

    /// The role of an owner or unrevoked member.
    pub fn role_of(&self, id: &PeerId) -> Option<Role> {
        if self.0.owners.contains(id) { Some(Role::Owner) } else { self.active(id).map(|member| member.role) }
    }

    /// The hash of one entry.
    pub fn entry_hash(&self, index: u64) -> Option<EntryHash> {
        self.0.hashes.get(usize::try_from(index).ok()?).copied()
    }

    /// Whether this log passed through `head`.
    pub fn contains_head(&self, head: &Head) -> bool {
        head.size.checked_sub(1).and_then(|last| self.entry_hash(last)) == Some(head.hash)
    }

    /// Admissions that carried this cap.
    pub fn invite_uses(&self, cap: &CapHash) -> u64 {
        self.0.invite_uses.get(cap).copied().unwrap_or(0)
    }

    /// Whether an owner's or admin's later entry stands on the entry that admitted `member`.
    pub fn vouched_by_senior(&self, member: &Member) -> bool {
        self.0.last_senior_entry > member.admitted_at
    }

    /// Whether the log revokes a session, service or prekey of `holder`: by the holder itself, or by
    /// someone who ranked above it.
    pub fn revokes_key(&self, key: &PeerId, holder: &PeerId) -> bool {
        let rank = self.member(holder).map(|member| member.role);
        let acts = |by: &KeyRevocation| by.author == *holder || rank.is_some_and(|rank| by.role > rank);
        self.0.revoked_keys.get(key).is_some_and(|revocations| revocations.iter().any(acts))
    }
}

#[cfg(test)]
mod tests;
