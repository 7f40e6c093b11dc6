//! Revocations (protocol.md §11): self-contained, signed, valid wherever they are met.
//!
//! In the log a revocation is an entry, and replay decides ([`Roster::append`](crate::Roster)). Off
//! the log (system channel, direct link, LAN) it enters a [`RevocationSet`], which only grows, and
//! acts at once. Whether it still acts is asked of set and roster together at every use, so the
//! order in which the two arrived never matters. Effective members = replay − set.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{MeshId, PeerId};
use crate::key::{IdentityKey, Signature, signed_by};
use crate::limits::{LOG_ENTRIES_PER_MEMBER_MAX, STATEMENT_BYTES_MAX};
use crate::roster::{Head, LogError, Member, Role, Roster};
use crate::signed::Signed;
use crate::time::UnixMs;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RevokeKind {
    /// A member, and with an admin those it admitted since.
    Member = 0,
    /// One session.
    Session = 1,
    /// One service.
    Service = 2,
    /// One prekey; the target is the x25519 key.
    Prekey = 3,
}

/// What a revocation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// The mesh.
    pub mesh: MeshId,
    /// What is revoked.
    pub kind: RevokeKind,
    /// Its key.
    pub target: PeerId,
    /// Why; 0 is unspecified. Only for people.
    pub reason: u64,
    /// The author's clock.
    pub ts: UnixMs,
    /// Who revokes, and signs.
    pub author: PeerId,
    /// Members that a revoked admin admitted at an index of `head.size` or above go with it.
    pub head: Head,
}

/// A revocation whose signature holds.
pub type SignedRevoke = Signed<Revoke>;

/// Why bytes are no revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// Not well-formed.
    #[error("malformed revocation: {0}")]
    Decode(#[from] DecodeError),
    /// For another mesh.
    #[error("the revocation is for another mesh")]
    Mesh,
    /// Not signed by the author it names.
    #[error("the revocation's signature does not hold")]
    Signature,
}

impl From<RevokeError> for LogError {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Decode(error) => Self::Decode(error),
            RevokeError::Mesh => Self::Mesh,
            RevokeError::Signature => Self::Signature,
        }
    }
}

/// Why a sound revocation does not enter the set here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeRefusal {
    /// The author is neither owner nor unrevoked member here.
    #[error("{} is neither owner nor current member", .0.short())]
    Author(PeerId),
    /// Nobody of that key is a member here. The log may be behind: worth another try later.
    #[error("{} is no member here", .0.short())]
    UnknownTarget(PeerId),
    /// The author does not rank above the target.
    #[error("{actor} may not revoke {subject}")]
    Outranked {
        /// The author's role.
        actor: Role,
        /// The target's role.
        subject: Role,
    },
    /// This author has as many off-log revocations as one author may.
    #[error("{} has as many revocations off the log as a member may", .0.short())]
    Full(PeerId),
}

impl RevokeKind {
    fn from_value(value: &Value<'_>) -> Result<Self, DecodeError> {
        match value.uint()? {
            0 => Ok(Self::Member),
            1 => Ok(Self::Session),
            2 => Ok(Self::Service),
            3 => Ok(Self::Prekey),
            _ => Err(DecodeError::Type),
        }
    }
}

impl Revoke {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        let parsed = Self {
            mesh: MeshId(fields.take(0)?.array()?),
            kind: RevokeKind::from_value(&fields.take(1)?)?,
            target: PeerId(fields.take(2)?.array()?),
            reason: fields.take(3)?.uint()?,
            ts: UnixMs(fields.take(4)?.uint()?),
            author: PeerId(fields.take(5)?.array()?),
            head: Head::from_value(fields.take(6)?)?,
        };
        fields.finish()?;
        Ok(parsed)
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Uint(self.kind as u64)),
            (2, Value::Bytes(&self.target.0)),
            (3, Value::Uint(self.reason)),
            (4, Value::Uint(self.ts.0)),
            (5, Value::Bytes(&self.author.0)),
            (6, self.head.to_value()),
        ]))
    }
}

impl Signed<Revoke> {
    /// Signs a revocation with its author's key.
    pub fn sign(author: &IdentityKey, revoke: Revoke) -> Self {
        debug_assert_eq!(author.id(), revoke.author, "the author signs its own revocations");
        Self::by(author, LABEL, revoke.encode(), revoke)
    }

    /// Reads a revocation and checks mesh and signature. Authority is the roster's to say.
    pub fn parse_verified(stmt: &[u8], sig: &Signature, mesh: &MeshId) -> Result<Self, RevokeError> {
        let revoke = Revoke::parse(stmt)?;
        if revoke.mesh != *mesh {
            return Err(RevokeError::Mesh);
        }
        if !signed_by(&revoke.author, sig, LABEL, &[stmt]) {
            return Err(RevokeError::Signature);
        }
        Ok(Self::verified(Bytes::copy_from_slice(stmt), *sig, revoke))
    }
}

/// Revocations met off the log. Grow-only: there is no unrevoke.
#[derive(Clone, Debug, Default)]
pub struct RevocationSet {
    /// By target, then author. One a pair: a second adds nothing but an earlier head.
    by_target: BTreeMap<PeerId, BTreeMap<PeerId, SignedRevoke>>,
    /// Revocations kept for each author.
    counts: BTreeMap<PeerId, u32>,
}

impl RevocationSet {
    /// Takes a revocation in, if its author may revoke its target here and now. True if it is new,
    /// and so worth passing on.
    pub fn insert(&mut self, revoke: SignedRevoke, roster: &Roster) -> Result<bool, RevokeRefusal> {
        let (author, target) = (revoke.author, revoke.target);
        let role = roster.role_of(&author).filter(|_| !self.author_revoked(&author, roster));
        let actor = role.ok_or(RevokeRefusal::Author(author))?;
        if revoke.kind == RevokeKind::Member && author != target {
            let owner = roster.owners().contains(&target).then_some(Role::Owner);
            let subject = owner.or_else(|| roster.member(&target).map(|member| member.role));
            let subject = subject.ok_or(RevokeRefusal::UnknownTarget(target))?;
            if actor <= subject {
                return Err(RevokeRefusal::Outranked { actor, subject });
            }
        }
        let known = self.by_target.get(&target).and_then(|revokes| revokes.get(&author));
        match known {
            Some(known) if known.head.size <= revoke.head.size => return Ok(false),
            Some(_) => {}
            None => {
                let count = self.counts.entry(author).or_default();
                if *count >= LOG_ENTRIES_PER_MEMBER_MAX && actor == Role::Member {
                    return Err(RevokeRefusal::Full(author));
                }
                *count += 1;
            }
        }
        self.by_target.entry(target).or_default().insert(author, revoke);
        Ok(true)
    }

    /// Whether a member is out: revoked in the log, revoked here, or admitted by someone revoked here
    /// at or after that revocation's head.
    pub fn is_revoked(&self, id: &PeerId, roster: &Roster) -> bool {
        let Some(member) = roster.member(id) else { return self.acting(id, roster).next().is_some() };
        member.revoked.is_some()
            || self.acting(id, roster).next().is_some()
            || self.left_with_admitter(member, roster)
    }

    /// Whether a session, service or prekey of `holder` is out, in the log or here. The holder's own
    /// standing is another question.
    pub fn is_key_revoked(&self, key: &PeerId, holder: &PeerId, roster: &Roster) -> bool {
        let rank = roster.member(holder).map(|member| member.role);
        let outranks = |author: &PeerId| rank.is_some_and(|rank| roster.role_of(author) > Some(rank));
        roster.revokes_key(key, holder)
            || self.acting(key, roster).any(|revoke| revoke.author == *holder || outranks(&revoke.author))
    }

    /// All that were taken in, acting or lapsed; what a store keeps and gossip passes on.
    pub fn iter(&self) -> impl Iterator<Item = &SignedRevoke> {
        self.by_target.values().flat_map(BTreeMap::values)
    }

    /// Revocations of `target` that have not lapsed: by the target itself, or by an unrevoked author.
    fn acting<'a>(
        &'a self,
        target: &'a PeerId,
        roster: &'a Roster,
    ) -> impl Iterator<Item = &'a SignedRevoke> {
        let all = self.by_target.get(target).into_iter().flat_map(BTreeMap::values);
        all.filter(move |revoke| revoke.author == *target || !self.author_revoked(&revoke.author, roster))
    }

    /// Whether an author is revoked, as far as that makes its revocations lapse: in the log, by
    /// itself, or by an owner. Nobody else ranks above those who revoke others, and asking no further
    /// keeps two authors who revoked each other from being asked in circles.
    fn author_revoked(&self, author: &PeerId, roster: &Roster) -> bool {
        let final_word = |by: &PeerId| by == author || roster.owners().contains(by);
        roster.member(author).is_some_and(|member| member.revoked.is_some())
            || self.by_target.get(author).is_some_and(|revokes| revokes.keys().any(final_word))
    }

    fn left_with_admitter(&self, member: &Member, roster: &Roster) -> bool {
        self.acting(&member.admitted_by, roster).any(|revoke| member.admitted_at >= revoke.head.size)
    }
}

const LABEL: &str = "revoke";

#[cfg(test)]
mod tests;
