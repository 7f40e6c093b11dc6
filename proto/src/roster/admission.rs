//! What makes an invite good (protocol.md §8): cap, claim and proof against the log.

use super::{InviteUse, LogError, Role, Roster, SelfAdmission};
use crate::id::PeerId;
use crate::invite::{InviteCap, InviteClaim, InviteError, InviteMode, SignedCap, SignedClaim};
use crate::key::Signature;
use crate::time::UnixMs;

/// Checks a cap and a claim on it: both signatures, the proof of the code, that they speak of the
/// same invite, and that the cap is good in this log at time `at`.
pub fn verify_invite(
    (cap, cap_sig): (&[u8], &Signature),
    (claim, claim_sig): (&[u8], &Signature),
    proof: &Signature,
    roster: &Roster,
    at: UnixMs,
) -> Result<(SignedCap, SignedClaim), InviteError> {
    let (cap, claim) = verify_statements((cap, cap_sig), (claim, claim_sig), proof, roster)?;
    roster.check_cap(&cap, at)?;
    Ok((cap, claim))
}

/// The joiner's entry, checked against its invite. Its log signature, key and handle are checked
/// where every entry's are.
pub(super) fn check_self_admission(
    roster: &Roster,
    author: &PeerId,
    own: &SelfAdmission,
    time: UnixMs,
) -> Result<InviteUse, LogError> {
    let cap_bytes = (&*own.cap, &own.cap_sig);
    let (cap, claim) = verify_statements(cap_bytes, (&own.claim, &own.claim_sig), &own.proof, roster)?;
    let (claim, member) = (claim.claim(), &own.member);
    let same = [
        ("key", *author == member.id && claim.joiner == member.id),
        ("role", member.role == cap.role && cap.role == Role::Member),
        ("handle", claim.handle == member.handle),
        ("x25519 key", Some(claim.prekey) == member.prekey),
    ];
    if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
        return Err(InviteError::ClaimMismatch(field).into());
    }
    if cap.mode != InviteMode::Auto {
        return Err(InviteError::Mode(cap.mode).into());
    }
    roster.check_cap(&cap, time)?;
    Ok(InviteUse { inviter: cap.inviter, cap: cap.hash(), invite: cap.id, exp: cap.exp })
}

impl Roster {
    /// Whether the cap is good in this log at `at`: its inviter is owner or admin and above the role
    /// it grants, its head is in the chain, its window is open and uses are left.
    pub(crate) fn check_cap(&self, cap: &SignedCap, at: UnixMs) -> Result<(), InviteError> {
        let may_invite =
            self.role_of(&cap.inviter).is_some_and(|role| role >= Role::Admin && role > cap.role);
        if !may_invite {
            return Err(InviteError::InviterAuthority);
        }
        if !self.contains_head(&cap.head) {
            return Err(InviteError::CapHead);
        }
        cap.check_window(at)?;
        let uses = self.invite_uses(&cap.hash());
        if uses >= cap.max_uses { Err(InviteError::Used(uses)) } else { Ok(()) }
    }
}

fn verify_statements(
    (cap, cap_sig): (&[u8], &Signature),
    (claim, claim_sig): (&[u8], &Signature),
    proof: &Signature,
    roster: &Roster,
) -> Result<(SignedCap, SignedClaim), InviteError> {
    let parsed = InviteCap::parse(cap)?;
    if parsed.mesh != roster.mesh_id() {
        return Err(InviteError::Mesh);
    }
    let cap = SignedCap::check_signature(parsed, cap, cap_sig)?;
    let claim = SignedClaim::parse_verified(claim, claim_sig, proof, &cap)?;
    check_same_invite(&cap, claim.claim())?;
    Ok((cap, claim))
}

fn check_same_invite(cap: &InviteCap, claim: &InviteClaim) -> Result<(), InviteError> {
    let same = [
        ("mesh", claim.mesh == cap.mesh),
        ("invite", claim.invite == cap.id),
        ("handle", cap.handle.as_ref().is_none_or(|handle| *handle == claim.handle)),
    ];
    match same.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(InviteError::ClaimMismatch(field)),
        None => Ok(()),
    }
}
