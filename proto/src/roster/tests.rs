mod invites;

use super::*;
use crate::invite::{InviteClaim, InviteCode, InviteMode, SignedCap, SignedClaim};
use crate::key::{BoxSecretKey, IdentityKey, Signature};
use crate::limits::LOG_ENTRIES_PER_MEMBER_MAX;
use crate::revocation::{Revoke, RevokeKind, SignedRevoke};
use crate::{InviteCap, MeshId};

const T0: UnixMs = UnixMs(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

fn box_public(name: u8) -> BoxPublicKey {
    BoxSecretKey::from_bytes([name; 32]).public()
}

fn handle(text: &str) -> Handle {
    text.parse().unwrap()
}

const OWNER: u8 = 1;
const COORDINATOR: u8 = 2;
const ADMIN: u8 = 3;
const OTHER_ADMIN: u8 = 4;
const BOB: u8 = 5;
const EVE: u8 = 6;

fn genesis() -> WireEntry {
    let origin: Origin = "https://mesh.example".parse().unwrap();
    WireEntry::genesis(
        &key(OWNER),
        GenesisParams {
            coordinators: vec![(key(COORDINATOR).id(), origin)],
            policy: Policy::default(),
            nonce: [7; 16],
            recovery: Some(key(99).id()),
            name: Some("acme".to_owned()),
            ts: T0,
        },
    )
}

fn add(roster: &Roster, by: u8, who: u8, name: &str, role: Role) -> WireEntry {
    let new = NewMember { id: key(who).id(), role, handle: handle(name), prekey: Some(box_public(who)) };
    roster.member_add(&key(by), new, T0)
}

/// Two admins and Bob.
fn mesh() -> Roster {
    let mut roster = Roster::begin(&genesis()).unwrap();
    for (by, who, name, role) in [
        (OWNER, ADMIN, "admin", Role::Admin),
        (OWNER, OTHER_ADMIN, "other", Role::Admin),
        (ADMIN, BOB, "bob", Role::Member),
    ] {
        let entry = add(&roster, by, who, name, role);
        roster.append(&entry).unwrap();
    }
    roster
}

fn revoke(roster: &Roster, by: u8, target: u8, head: Head) -> SignedRevoke {
    revoke_kind(roster, by, key(target).id(), RevokeKind::Member, head)
}

fn revoke_kind(roster: &Roster, by: u8, target: PeerId, kind: RevokeKind, head: Head) -> SignedRevoke {
    let (mesh, author) = (roster.mesh_id(), key(by).id());
    SignedRevoke::sign(&key(by), Revoke { mesh, kind, target, reason: 0, ts: T0, author, head })
}

fn revoke_entry(roster: &Roster, by: u8, target: u8) -> WireEntry {
    roster.revoke_entry(&key(by), &revoke(roster, by, target, roster.head()), T0)
}

#[track_caller]
fn refused(roster: &Roster, entry: &WireEntry, reason: &str) {
    let error = roster.check(entry).expect_err("the entry should be refused");
    assert_eq!(error.reason(), reason, "{error}");
    let mut copy = roster.clone();
    assert_eq!(copy.append(entry), Err(error));
    assert_eq!(copy.head(), roster.head());
}

fn code() -> InviteCode {
    InviteCode::from_bytes([42; 10])
}

/// A cap by the admin for Eve, and her claim, each changed as told before it is signed.
fn invite(
    roster: &Roster,
    change_cap: impl FnOnce(&mut InviteCap),
    change_claim: impl FnOnce(&mut InviteClaim),
) -> (SignedCap, SignedClaim) {
    let mut cap = InviteCap {
        mesh: roster.mesh_id(),
        id: InviteId([8; 16]),
        inviter: key(ADMIN).id(),
        role: Role::Member,
        max_uses: 1,
        nbf: T0,
        exp: T0.plus(HOUR),
        mode: InviteMode::Auto,
        head: roster.head(),
        origin: "https://mesh.example".parse().unwrap(),
        key: code().signing_key().id(),
        handle: None,
    };
    change_cap(&mut cap);
    let mut claim = InviteClaim {
        mesh: cap.mesh,
        invite: cap.id,
        joiner: key(EVE).id(),
        prekey: box_public(EVE),
        sealing: box_public(77),
        nonce: [3; 32],
        ts: T0,
        handle: handle("eve"),
    };
    change_claim(&mut claim);
    let by = |id: PeerId| (0..100).map(key).find(|key| key.id() == id).unwrap();
    let cap = SignedCap::sign(&by(cap.inviter), cap);
    (cap, SignedClaim::sign(&by(claim.joiner), &code(), claim))
}

#[test]
fn a_genesis_begins_a_mesh_without_members() {
    let roster = Roster::begin(&genesis()).unwrap();
    assert_eq!(roster.mesh_id(), genesis().mesh_hash());
    assert_eq!(roster.name(), Some("acme"));
    assert_eq!(roster.owners(), [key(OWNER).id()]);
    assert_eq!(roster.role_of(&key(OWNER).id()), Some(Role::Owner));
    assert_eq!(roster.members().count(), 0);
    assert_eq!(roster.head().size, 1);
    assert_eq!(roster.policy(), &Policy::default());
    assert_eq!(roster.recovery(), Some(&key(99).id()));
}

#[test]
fn a_genesis_signed_by_nobody_in_its_owner_list_is_refused() {
    let mut entry = genesis();
    let sig = key(EVE).sign("log", &[&entry.stmt]);
    entry.sigs = vec![(key(OWNER).id(), sig)];
    assert_eq!(Roster::begin(&entry).unwrap_err(), LogError::Signature);
    entry.sigs = Vec::new();
    assert_eq!(Roster::begin(&entry).unwrap_err(), LogError::Signature);
}

#[test]
fn a_log_does_not_begin_with_another_kind_and_has_one_genesis() {
    let roster = mesh();
    let entry = add(&roster, ADMIN, EVE, "eve", Role::Member);
    assert_eq!(Roster::begin(&entry).unwrap_err(), LogError::Kind(1));
    refused(&roster, &genesis(), "log-index");
}

#[test]
fn entries_of_every_kind_survive_the_wire_byte_for_byte() {
    let roster = mesh();
    let (cap, claim) = invite(&roster, |_| {}, |_| {});
    let mut entries = vec![
        genesis(),
        add(&roster, ADMIN, EVE, "eve", Role::Member),
        roster.self_admission(&key(EVE), &cap, &claim, T0),
        roster.role_change(&key(OWNER), key(BOB).id(), Role::Admin, T0),
        revoke_entry(&roster, ADMIN, BOB),
    ];
    entries.push(entries[1].clone().sequence(&key(COORDINATOR), &roster.mesh_id()).unwrap());
    for entry in entries {
        let parsed = WireEntry::parse(&entry.encode()).unwrap();
        assert_eq!(parsed, entry);
        assert_eq!(parsed.entry().unwrap().encode(), entry.stmt);
    }
}

#[test]
fn an_entry_fits_only_its_own_place_in_its_own_mesh() {
    let roster = mesh();
    let mut longer = roster.clone();
    longer.append(&add(&roster, ADMIN, EVE, "eve", Role::Member)).unwrap();
    refused(&roster, &add(&longer, ADMIN, 20, "carol", Role::Member), "log-index");
    refused(&longer, &add(&roster, ADMIN, 20, "carol", Role::Member), "log-index");

    let mut branch = roster.clone();
    branch.append(&add(&roster, ADMIN, 21, "dave", Role::Member)).unwrap();
    refused(&longer, &add(&branch, ADMIN, 20, "carol", Role::Member), "log-chain");

    let mut elsewhere = genesis().entry().unwrap();
    elsewhere.ts = UnixMs(1);
    let other = Roster::begin(&elsewhere.sign(&key(OWNER))).unwrap();
    refused(&roster, &add(&other, OWNER, EVE, "eve", Role::Member), "mesh");
}

#[test]
fn an_entry_carries_exactly_its_authors_signature() {
    let roster = mesh();
    let good = add(&roster, ADMIN, EVE, "eve", Role::Member);
    let by = |name: u8| (key(name).id(), key(name).sign("log", &[&good.stmt]));
    for sigs in [vec![], vec![by(OWNER)], vec![by(ADMIN), by(OWNER)], vec![by(ADMIN), by(ADMIN)]] {
        refused(&roster, &WireEntry { sigs, ..good.clone() }, "signature");
    }
    let misnamed = vec![(key(OWNER).id(), key(ADMIN).sign("log", &[&good.stmt]))];
    refused(&roster, &WireEntry { sigs: misnamed, ..good.clone() }, "signature");
    let wrong = vec![(key(ADMIN).id(), key(ADMIN).sign("revoke", &[&good.stmt]))];
    refused(&roster, &WireEntry { sigs: wrong, ..good.clone() }, "signature");
    let twice = WireEntry { sigs: vec![by(ADMIN), by(ADMIN)], ..good.clone() };
    assert_eq!(WireEntry::parse(&twice.encode()), Err(LogError::Signature));
    roster.check(&good).unwrap();
}

#[test]
fn members_are_admitted_only_by_those_above_them() {
    let roster = mesh();
    refused(&roster, &add(&roster, BOB, EVE, "eve", Role::Member), "log-authority");
    refused(&roster, &add(&roster, ADMIN, EVE, "eve", Role::Admin), "log-authority");
    refused(&roster, &add(&roster, COORDINATOR, EVE, "eve", Role::Member), "log-authority");
    refused(&roster, &add(&roster, EVE, EVE, "eve", Role::Member), "log-authority");
    roster.check(&add(&roster, ADMIN, EVE, "eve", Role::Member)).unwrap();
    roster.check(&add(&roster, OWNER, EVE, "eve", Role::Admin)).unwrap();
}

#[test]
fn keys_and_handles_are_used_once_in_a_mesh() {
    let mut roster = mesh();
    roster.append(&revoke_entry(&roster, ADMIN, BOB)).unwrap();
    for used in [BOB, ADMIN, OWNER, COORDINATOR, 99] {
        refused(&roster, &add(&roster, OWNER, used, "fresh", Role::Member), "log-authority");
    }
    refused(&roster, &add(&roster, OWNER, EVE, "bob", Role::Member), "handle-taken");
}

#[test]
fn roles_are_changed_only_from_above_and_only_to_below_the_actor() {
    let mut roster = mesh();
    let bob = key(BOB).id();
    refused(&roster, &roster.role_change(&key(ADMIN), bob, Role::Admin, T0), "log-authority");
    refused(
        &roster,
        &roster.role_change(&key(ADMIN), key(OTHER_ADMIN).id(), Role::Member, T0),
        "log-authority",
    );
    refused(&roster, &roster.role_change(&key(ADMIN), key(ADMIN).id(), Role::Member, T0), "log-authority");
    refused(&roster, &roster.role_change(&key(OWNER), key(OWNER).id(), Role::Member, T0), "log-authority");
    refused(&roster, &roster.role_change(&key(OWNER), key(EVE).id(), Role::Member, T0), "log-authority");
    let applied = roster.append(&roster.role_change(&key(OWNER), bob, Role::Admin, T0)).unwrap();
    assert_eq!(applied.effect, Effect::RoleChanged { member: bob, role: Role::Admin });
    assert_eq!(roster.role_of(&bob), Some(Role::Admin));
}

#[test]
fn members_are_revoked_from_above_or_by_themselves() {
    let roster = mesh();
    refused(&roster, &revoke_entry(&roster, ADMIN, OWNER), "log-authority");
    refused(&roster, &revoke_entry(&roster, ADMIN, OTHER_ADMIN), "log-authority");
    refused(&roster, &revoke_entry(&roster, BOB, ADMIN), "log-authority");
    refused(&roster, &revoke_entry(&roster, ADMIN, EVE), "log-authority");
    for by in [OWNER, ADMIN, BOB] {
        let mut roster = roster.clone();
        let applied = roster.append(&revoke_entry(&roster, by, BOB)).unwrap();
        let bob = key(BOB).id();
        assert_eq!(applied.effect, Effect::Revoked { target: bob, members: vec![bob] });
        assert!(roster.active(&bob).is_none());
        assert_eq!(roster.member(&bob).unwrap().revoked.unwrap().index, applied.index);
    }
}

#[test]
fn a_revoked_author_writes_nothing_more() {
    let mut roster = mesh();
    roster.append(&revoke_entry(&roster, OWNER, ADMIN)).unwrap();
    refused(&roster, &add(&roster, ADMIN, EVE, "eve", Role::Member), "log-authority");
    refused(&roster, &revoke_entry(&roster, ADMIN, BOB), "log-authority");
}

#[test]
fn a_revoke_entry_repeats_the_revocation_inside_it() {
    let mut roster = mesh();
    roster.append(&add(&roster, ADMIN, EVE, "eve", Role::Member)).unwrap();
    let build = |revoke: &SignedRevoke, by: u8| roster.revoke_entry(&key(by), revoke, T0);
    let good = revoke(&roster, ADMIN, BOB, roster.head());
    refused(&roster, &build(&good, OWNER), "log-authority");

    let prev = roster.head().hash;
    let (mesh, kind) = (Some(roster.mesh_id()), |target: PeerId, sig: Signature| EntryKind::Revoke {
        target,
        stmt: good.stmt().clone(),
        sig,
    });
    let entry = |kind| Entry { mesh, index: 5, prev: Some(prev), ts: T0, author: key(ADMIN).id(), kind };
    let swapped = entry(kind(key(EVE).id(), good.sig())).sign(&key(ADMIN));
    refused(&roster, &swapped, "log-authority");
    let unsigned = entry(kind(key(BOB).id(), Signature([0; 64]))).sign(&key(ADMIN));
    refused(&roster, &unsigned, "signature");

    let unknown = Head { size: 2, hash: EntryHash([1; 32]) };
    refused(&roster, &build(&revoke(&roster, ADMIN, BOB, unknown), ADMIN), "log-chain");
}

#[test]
fn a_revoked_admin_takes_along_whom_it_admitted_since_until_an_owner_returns_them() {
    let mut roster = mesh();
    let head = roster.head();
    roster.append(&add(&roster, ADMIN, EVE, "eve", Role::Member)).unwrap();
    let (cap, claim) = invite(
        &roster,
        |_| {},
        |claim| {
            claim.joiner = key(20).id();
            claim.handle = handle("carol");
        },
    );
    roster.append(&roster.self_admission(&key(20), &cap, &claim, T0)).unwrap();
    roster.append(&add(&roster, OTHER_ADMIN, 21, "dave", Role::Member)).unwrap();

    let since = revoke(&roster, OWNER, ADMIN, head);
    let applied = roster.append(&roster.revoke_entry(&key(OWNER), &since, T0)).unwrap();
    let Effect::Revoked { mut members, .. } = applied.effect else { panic!("a revocation") };
    let mut expected = [ADMIN, EVE, 20].map(|name| key(name).id()).to_vec();
    members.sort();
    expected.sort();
    assert_eq!(members, expected);
    assert!(roster.active(&key(BOB).id()).is_some(), "admitted before the head");
    assert!(roster.active(&key(21).id()).is_some(), "admitted by another");
    assert_eq!(roster.member(&key(EVE).id()).unwrap().revoked.unwrap().with, Some(key(ADMIN).id()));

    refused(&roster, &add(&roster, OTHER_ADMIN, EVE, "eve", Role::Member), "log-authority");
    refused(&roster, &add(&roster, OWNER, ADMIN, "admin", Role::Admin), "log-authority");
    roster.append(&add(&roster, OWNER, EVE, "eve", Role::Member)).unwrap();
    assert!(roster.active(&key(EVE).id()).is_some());
}

#[test]
fn who_was_named_itself_does_not_come_back() {
    let mut roster = mesh();
    let head = roster.head();
    roster.append(&add(&roster, ADMIN, EVE, "eve", Role::Member)).unwrap();
    let since = revoke(&roster, OWNER, ADMIN, head);
    roster.append(&roster.revoke_entry(&key(OWNER), &since, T0)).unwrap();
    roster.append(&revoke_entry(&roster, OTHER_ADMIN, EVE)).unwrap();
    refused(&roster, &add(&roster, OWNER, EVE, "eve", Role::Member), "log-authority");
}

#[test]
fn a_session_is_revoked_by_its_member_and_by_those_above_it() {
    let mut roster = mesh();
    let session = key(40).id();
    let by = |roster: &Roster, who| {
        let revoke = revoke_kind(roster, who, session, RevokeKind::Session, roster.head());
        roster.revoke_entry(&key(who), &revoke, T0)
    };
    let applied = roster.append(&by(&roster, BOB)).unwrap();
    assert_eq!(applied.effect, Effect::KeyRevoked { key: session });
    assert!(roster.revokes_key(&session, &key(BOB).id()));
    assert!(!roster.revokes_key(&session, &key(ADMIN).id()), "a member has no say over an admin's session");
    roster.append(&by(&roster, OWNER)).unwrap();
    assert!(roster.revokes_key(&session, &key(ADMIN).id()));
    assert!(!roster.revokes_key(&key(41).id(), &key(BOB).id()));
}

#[test]
fn a_member_has_a_share_of_entries_and_an_admin_has_none_to_use_up() {
    let mut roster = mesh();
    let key_revoke = |roster: &Roster, who| {
        let revoke = revoke_kind(roster, who, key(40).id(), RevokeKind::Session, roster.head());
        roster.revoke_entry(&key(who), &revoke, T0)
    };
    for (name, id) in [(BOB, key(BOB).id()), (ADMIN, key(ADMIN).id())] {
        let state = Arc::make_mut(&mut roster.0);
        Arc::make_mut(state.members.get_mut(&id).unwrap()).entries_authored = LOG_ENTRIES_PER_MEMBER_MAX - 1;
        roster.append(&key_revoke(&roster, name)).unwrap();
    }
    refused(&roster, &key_revoke(&roster, BOB), "log-authority");
    roster.check(&key_revoke(&roster, ADMIN)).unwrap();
}

#[test]
fn the_time_of_a_log_is_the_largest_so_far_and_no_time_makes_an_entry_invalid() {
    let mut roster = mesh();
    let at = |roster: &Roster, who, name: &str, ts| {
        let new = NewMember { id: key(who).id(), role: Role::Member, handle: handle(name), prekey: None };
        roster.member_add(&key(ADMIN), new, ts)
    };
    roster.append(&at(&roster, EVE, "eve", T0.plus(HOUR))).unwrap();
    roster.append(&at(&roster, 20, "carol", UnixMs(1))).unwrap();
    assert_eq!(roster.time(), T0.plus(HOUR));
}

#[test]
fn a_later_kind_is_refused_and_a_topic_epoch_changes_no_membership() {
    let mut roster = mesh();
    let entry = |roster: &Roster, who: u8| {
        let (mesh, prev) = (Some(roster.mesh_id()), Some(roster.head().hash));
        let (index, author) = (roster.size(), key(who).id());
        Entry { mesh, index, prev, ts: T0, author, kind: EntryKind::TopicEpoch }.sign(&key(who))
    };
    refused(&roster, &entry(&roster, EVE), "log-authority");
    refused(&roster, &entry(&roster, OWNER), "log-authority");
    assert_eq!(roster.append(&entry(&roster, BOB)).unwrap().effect, Effect::TopicEpoch);

    let mut later = entry(&roster, BOB).stmt.to_vec();
    // The statement ends in `05 04 06 a0`: kind 4, empty body.
    let kind = later.len() - 3;
    later[kind] = 15;
    let sig = key(BOB).sign("log", &[&later]);
    let later = WireEntry { stmt: later.into(), sigs: vec![(key(BOB).id(), sig)], seq: None };
    refused(&roster, &later, "log-kind");
}

#[test]
fn heads_of_this_log_are_known_and_others_are_not() {
    let roster = mesh();
    for index in 0..roster.size() {
        let hash = roster.entry_hash(index).unwrap();
        assert!(roster.contains_head(&Head { size: index + 1, hash }));
        assert!(!roster.contains_head(&Head { size: index, hash }));
    }
    let larger = Head { size: roster.size() + 1, ..roster.head() };
    assert!(!roster.contains_head(&larger));
    assert_eq!(ForkEvidence::in_head(&roster, &larger, key(BOB).id()), None);
    let forged = Head { size: 2, hash: EntryHash([1; 32]) };
    let ours = roster.entry_hash(1).unwrap();
    let evidence = ForkEvidence::TwoHeads { size: 2, ours, theirs: forged.hash, signer: key(BOB).id() };
    assert_eq!(ForkEvidence::in_head(&roster, &forged, key(BOB).id()), Some(evidence));
}

#[test]
fn two_sequenced_entries_of_one_place_are_evidence_and_a_lost_race_is_none() {
    let roster = mesh();
    let first = add(&roster, ADMIN, EVE, "eve", Role::Member);
    let second = add(&roster, ADMIN, 20, "carol", Role::Member);
    assert_eq!(ForkEvidence::between(&roster, &first, &second), None);
    let sequence = |entry: &WireEntry, by: u8| entry.clone().sequence(&key(by), &roster.mesh_id()).unwrap();
    let (one, two) = (sequence(&first, COORDINATOR), sequence(&second, COORDINATOR));
    let evidence = ForkEvidence::TwoEntries { index: 4, first: one.clone(), second: two.clone() };
    assert_eq!(ForkEvidence::between(&roster, &one, &two), Some(evidence));
    assert_eq!(ForkEvidence::between(&roster, &one, &one), None);
    assert_eq!(ForkEvidence::between(&roster, &one, &sequence(&second, EVE)), None);
    assert!(!one.sequenced_by(&VerifyKey::parse(&key(COORDINATOR).id()).unwrap(), &MeshId([0; 32])));
}

#[test]
fn members_are_found_by_handle_or_by_a_unique_beginning_of_their_key() {
    let roster = mesh();
    let bob = key(BOB).id();
    assert_eq!(roster.resolve("bob").unwrap().id, bob);
    let hex = bob.to_string();
    assert_eq!(roster.resolve(&hex[..8]).unwrap().id, bob);
    assert_eq!(roster.resolve(&hex.to_uppercase()).unwrap().id, bob);
    assert_eq!(roster.resolve(&hex[..7]), Err(ResolveError::TooShort(hex[..7].to_owned())));
    assert_eq!(roster.resolve("nobody"), Err(ResolveError::NotFound("nobody".to_owned())));
    assert_eq!(roster.resolve("00000000"), Err(ResolveError::NotFound("00000000".to_owned())));
    assert_eq!(roster.resolve(""), Err(ResolveError::NotFound(String::new())));
}

#[test]
fn an_ambiguous_beginning_lists_everybody_it_could_mean() {
    let mut roster = mesh();
    // A second key with the same first four bytes cannot be found in a test, so one is planted.
    let state = Arc::make_mut(&mut roster.0);
    let mut twin = state.members[&key(BOB).id()].as_ref().clone();
    twin.id.0[31] ^= 1;
    twin.handle = handle("twin");
    state.members.insert(twin.id, Arc::new(twin));
    let prefix = key(BOB).id().to_string()[..8].to_owned();
    let Err(ResolveError::Ambiguous { candidates, .. }) = roster.resolve(&prefix) else {
        panic!("two members begin with {prefix}")
    };
    let mut names: Vec<_> = candidates.iter().map(|candidate| candidate.handle.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bob", "twin"]);
}

#[test]
fn a_clone_does_not_follow_its_original() {
    let mut roster = mesh();
    let before = roster.clone();
    roster.append(&add(&roster, ADMIN, EVE, "eve", Role::Member)).unwrap();
    assert_eq!(before.size() + 1, roster.size());
    assert!(before.member(&key(EVE).id()).is_none());
}
