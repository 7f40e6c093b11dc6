use super::*;
use crate::invite::InviteError;

#[track_caller]
fn invite_refused(
    reason: &str,
    change_cap: impl FnOnce(&mut InviteCap),
    change_claim: impl FnOnce(&mut InviteClaim),
) {
    let roster = mesh();
    let (cap, claim) = invite(&roster, change_cap, change_claim);
    refused(&roster, &roster.self_admission(&key(EVE), &cap, &claim, T0), reason);
}

#[test]
fn a_joiner_admits_itself_by_an_invite() {
    let mut roster = mesh();
    let (cap, claim) = invite(&roster, |_| {}, |_| {});
    cap.check_for_joiner(&roster, T0).unwrap();
    let applied = roster.append(&roster.self_admission(&key(EVE), &cap, &claim, T0)).unwrap();
    let eve = roster.by_handle("eve").unwrap();
    let used = eve.invite.unwrap();
    assert_eq!(applied.effect, Effect::Admitted { member: key(EVE).id(), invite: Some(used) });
    assert_eq!((used.inviter, used.cap, used.exp), (key(ADMIN).id(), cap.hash(), T0.plus(HOUR)));
    assert_eq!((eve.role, eve.entries_authored, eve.prekey), (Role::Member, 1, Some(box_public(EVE))));
    assert!(!roster.vouched_by_senior(eve));
    roster.append(&add(&roster, ADMIN, 20, "carol", Role::Member)).unwrap();
    assert!(roster.vouched_by_senior(roster.by_handle("eve").unwrap()));
}

#[test]
fn a_claim_lost_in_a_race_is_good_for_another_entry() {
    let mut roster = mesh();
    let (cap, claim) = invite(&roster, |_| {}, |_| {});
    let late = roster.self_admission(&key(EVE), &cap, &claim, T0);
    roster.append(&add(&roster, ADMIN, 20, "carol", Role::Member)).unwrap();
    refused(&roster, &late, "log-index");
    roster.append(&roster.self_admission(&key(EVE), &cap, &claim, T0)).unwrap();
}

#[test]
fn what_the_cap_does_not_grant_is_refused() {
    invite_refused("claim-mismatch", |cap| cap.role = Role::Admin, |_| {});
    invite_refused("claim-mismatch", |cap| cap.handle = Some(handle("carol")), |_| {});
    invite_refused("invite-mode", |cap| cap.mode = InviteMode::Confirm, |_| {});
    invite_refused("invite-mode", |cap| cap.mode = InviteMode::Bound, |_| {});
    invite_refused("inviter-authority", |cap| cap.inviter = key(BOB).id(), |_| {});
    invite_refused("inviter-authority", |cap| cap.inviter = key(33).id(), |_| {});
    invite_refused("cap-head", |cap| cap.head.hash = EntryHash([0; 32]), |_| {});
    invite_refused("cap-head", |cap| cap.head.size += 1, |_| {});
    invite_refused("code-proof", |cap| cap.key = key(33).id(), |_| {});
    invite_refused("mesh", |cap| cap.mesh = MeshId([0; 32]), |_| {});
    invite_refused("handle-taken", |_| {}, |claim| claim.handle = handle("bob"));
    invite_refused("claim-mismatch", |_| {}, |claim| claim.mesh = MeshId([0; 32]));
    invite_refused("claim-mismatch", |_| {}, |claim| claim.invite = InviteId([0; 16]));
    invite_refused("claim-mismatch", |_| {}, |claim| claim.joiner = key(20).id());
}

#[test]
fn a_key_with_a_place_in_the_mesh_does_not_join_again() {
    let roster = mesh();
    for used in [BOB, OWNER, COORDINATOR, 99] {
        let (cap, claim) = invite(&roster, |_| {}, |claim| claim.joiner = key(used).id());
        refused(&roster, &roster.self_admission(&key(used), &cap, &claim, T0), "log-authority");
    }
}

#[test]
fn a_self_admission_says_what_its_claim_says() {
    let roster = mesh();
    let (cap, claim) = invite(&roster, |_| {}, |_| {});
    let admission = roster.self_admission(&key(EVE), &cap, &claim, T0).entry().unwrap();
    let EntryKind::SelfAdmission(own) = &admission.kind else { panic!("a self-admission") };
    let changed = |change: fn(&mut SelfAdmission), author: u8| {
        let mut own = own.clone();
        change(&mut own);
        let kind = EntryKind::SelfAdmission(own);
        Entry { author: key(author).id(), kind, ..admission.clone() }.sign(&key(author))
    };
    roster.check(&changed(|_| {}, EVE)).unwrap();
    refused(&roster, &changed(|_| {}, ADMIN), "claim-mismatch");
    refused(&roster, &changed(|own| own.member.id = key(33).id(), 33), "claim-mismatch");
    refused(&roster, &changed(|own| own.member.role = Role::Admin, EVE), "claim-mismatch");
    refused(&roster, &changed(|own| own.member.handle = handle("carol"), EVE), "claim-mismatch");
    refused(&roster, &changed(|own| own.member.prekey = Some(box_public(9)), EVE), "claim-mismatch");
    refused(&roster, &changed(|own| own.member.prekey = None, EVE), "missing-field");
    refused(&roster, &changed(|own| own.cap_sig.0[0] ^= 1, EVE), "signature");
    refused(&roster, &changed(|own| own.claim_sig.0[0] ^= 1, EVE), "signature");
    refused(&roster, &changed(|own| own.proof.0[0] ^= 1, EVE), "code-proof");
}

#[test]
fn an_invite_admits_inside_its_window_by_the_logs_own_time() {
    let roster = mesh();
    let (cap, claim) = invite(&roster, |cap| cap.nbf = T0.plus(HOUR), |_| {});
    refused(&roster, &roster.self_admission(&key(EVE), &cap, &claim, T0), "expired");

    let (cap, claim) = invite(&roster, |_| {}, |_| {});
    let at = |roster: &Roster, ts| roster.self_admission(&key(EVE), &cap, &claim, ts);
    roster.check(&at(&roster, T0.plus(HOUR))).unwrap();
    refused(&roster, &at(&roster, UnixMs(T0.0 + 3_600_001)), "expired");

    // Backdating does not help once the log has seen a later time.
    let mut later = roster.clone();
    let new = NewMember { id: key(20).id(), role: Role::Member, handle: handle("carol"), prekey: None };
    later.append(&roster.member_add(&key(ADMIN), new, T0.plus(HOUR * 2))).unwrap();
    refused(&later, &at(&later, T0), "expired");
}

#[test]
fn an_invite_admits_as_many_as_it_says() {
    let mut roster = mesh();
    let (cap, _) = invite(&roster, |cap| cap.max_uses = 2, |_| {});
    for (who, name, admitted) in [(20, "one", true), (21, "two", true), (22, "three", false)] {
        let claim = InviteClaim {
            mesh: cap.mesh,
            invite: cap.id,
            joiner: key(who).id(),
            prekey: box_public(who),
            sealing: box_public(77),
            nonce: [3; 32],
            ts: T0,
            handle: handle(name),
        };
        let claim = SignedClaim::sign(&key(who), &code(), claim);
        let entry = roster.self_admission(&key(who), &cap, &claim, T0);
        if admitted {
            roster.append(&entry).unwrap();
        } else {
            refused(&roster, &entry, "invite-used");
        }
    }
    assert_eq!(roster.invite_uses(&cap.hash()), 2);
    assert_eq!(cap.check_for_joiner(&roster, T0), Err(InviteError::Used(2)));
}

#[test]
fn the_invites_of_a_revoked_or_demoted_admin_die_with_its_role() {
    let roster = mesh();
    let (cap, claim) = invite(&roster, |_| {}, |_| {});
    let mut revoked = roster.clone();
    revoked.append(&revoke_entry(&roster, OWNER, ADMIN)).unwrap();
    refused(&revoked, &revoked.self_admission(&key(EVE), &cap, &claim, T0), "inviter-authority");
    let mut demoted = roster.clone();
    demoted.append(&roster.role_change(&key(OWNER), key(ADMIN).id(), Role::Member, T0)).unwrap();
    refused(&demoted, &demoted.self_admission(&key(EVE), &cap, &claim, T0), "inviter-authority");
}

#[test]
fn an_admin_invites_members_and_an_owner_admins_too() {
    let roster = mesh();
    for (by, may) in [(ADMIN, false), (OWNER, true)] {
        let change = |cap: &mut InviteCap| {
            cap.inviter = key(by).id();
            cap.role = Role::Admin;
            cap.mode = InviteMode::Confirm;
        };
        let (cap, _) = invite(&roster, change, |_| {});
        let expected = if may { Ok(()) } else { Err(InviteError::InviterAuthority) };
        assert_eq!(cap.check_for_joiner(&roster, T0), expected);
    }
}
