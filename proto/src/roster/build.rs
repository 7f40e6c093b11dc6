//! Entries as a node writes them. Nothing here checks authority: [`Roster::check`] says whether an
//! entry may come next, to its author as to everybody else.

use bytes::Bytes;

use super::{Entry, EntryKind, Genesis, MemberAdd, Policy, Role, Roster, SelfAdmission, WireEntry};
use crate::id::PeerId;
use crate::identity::{Handle, Origin};
use crate::invite::{SignedCap, SignedClaim};
use crate::key::{BoxPublicKey, IdentityKey};
use crate::revocation::SignedRevoke;
use crate::time::UnixMs;

/// What a mesh begins with. The author becomes its one owner.
#[derive(Clone, Debug)]
pub struct GenesisParams {
    /// Who may sequence, and where. At least one.
    pub coordinators: Vec<(PeerId, Origin)>,
    /// How fresh a member's view must be.
    pub policy: Policy,
    /// Random.
    pub nonce: [u8; 16],
    /// Break-glass key.
    pub recovery: Option<PeerId>,
    /// For people; 1 to 64 bytes without control characters.
    pub name: Option<String>,
    /// The author's clock.
    pub ts: UnixMs,
}

/// Whom an owner or admin admits.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Its key.
    pub id: PeerId,
    /// Its role, below the author's.
    pub role: Role,
    /// Its handle.
    pub handle: Handle,
    /// Its first prekey and last resort.
    pub prekey: Option<BoxPublicKey>,
}

impl WireEntry {
    /// The genesis of a mesh, signed by its owner.
    pub fn genesis(owner: &IdentityKey, params: GenesisParams) -> Self {
        let GenesisParams { coordinators, policy, nonce, recovery, name, ts } = params;
        let author = owner.id();
        let body = Genesis { owners: vec![author], coordinators, policy, nonce, recovery, name };
        Entry { mesh: None, index: 0, prev: None, ts, author, kind: EntryKind::Genesis(body) }.sign(owner)
    }
}

impl Roster {
    /// An admission by an owner or admin, at the current head.
    pub fn member_add(&self, author: &IdentityKey, new: NewMember, ts: UnixMs) -> WireEntry {
        let NewMember { id, role, handle, prekey } = new;
        self.entry(author, ts, EntryKind::MemberAdd(MemberAdd { id, role, handle, prekey }))
    }

    /// The joiner's own admission by an invite, at the current head. After a lost race only this is
    /// signed again, not the claim.
    pub fn self_admission(
        &self,
        joiner: &IdentityKey,
        cap: &SignedCap,
        claim: &SignedClaim,
        ts: UnixMs,
    ) -> WireEntry {
        let signed = claim.claim();
        let member = MemberAdd {
            id: signed.joiner,
            role: cap.role,
            handle: signed.handle.clone(),
            prekey: Some(signed.prekey),
        };
        let own = SelfAdmission {
            member,
            cap: Bytes::clone(cap.stmt()),
            cap_sig: cap.sig(),
            claim: Bytes::clone(signed.stmt()),
            claim_sig: signed.sig(),
            proof: claim.proof(),
        };
        self.entry(joiner, ts, EntryKind::SelfAdmission(Box::new(own)))
    }

    /// Puts the author's revocation into the log, at the current head.
    pub fn revoke_entry(&self, author: &IdentityKey, revoke: &SignedRevoke, ts: UnixMs) -> WireEntry {
        let (target, stmt, sig) = (revoke.target, Bytes::clone(revoke.stmt()), revoke.sig());
        self.entry(author, ts, EntryKind::Revoke { target, stmt, sig })
    }

    /// Gives a member another role, at the current head.
    pub fn role_change(&self, author: &IdentityKey, target: PeerId, role: Role, ts: UnixMs) -> WireEntry {
        self.entry(author, ts, EntryKind::Role { target, role })
    }

    fn entry(&self, author: &IdentityKey, ts: UnixMs, kind: EntryKind) -> WireEntry {
        let (mesh, prev) = (Some(self.mesh_id()), Some(self.head().hash));
        Entry { mesh, index: self.size(), prev, ts, author: author.id(), kind }.sign(author)
    }
}
