use proptest::prelude::*;

use super::*;
use crate::id::EntryHash;
use crate::roster::{GenesisParams, NewMember, Policy, WireEntry};
use crate::strategies;

const T0: UnixMs = UnixMs(1_700_000_000_000);
const OWNER: u8 = 1;
const ADMIN: u8 = 3;
const OTHER_ADMIN: u8 = 4;
const BOB: u8 = 5;
const EVE: u8 = 6;

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

fn id(name: u8) -> PeerId {
    key(name).id()
}

fn admit(roster: &mut Roster, by: u8, who: u8, handle: &str, role: Role) {
    let new = NewMember { id: id(who), role, handle: handle.parse().unwrap(), prekey: None };
    let entry = roster.member_add(&key(by), new, T0);
    roster.append(&entry).unwrap();
}

fn mesh() -> Roster {
    let params = GenesisParams {
        coordinators: vec![(id(2), "https://mesh.example".parse().unwrap())],
        policy: Policy::default(),
        nonce: [7; 16],
        recovery: None,
        name: None,
        ts: T0,
    };
    let mut roster = Roster::begin(&WireEntry::genesis(&key(OWNER), params)).unwrap();
    admit(&mut roster, OWNER, ADMIN, "admin", Role::Admin);
    admit(&mut roster, OWNER, OTHER_ADMIN, "other", Role::Admin);
    admit(&mut roster, ADMIN, BOB, "bob", Role::Member);
    roster
}

fn revoke_kind(roster: &Roster, by: u8, target: PeerId, kind: RevokeKind, head: Head) -> SignedRevoke {
    let (mesh, author) = (roster.mesh_id(), id(by));
    SignedRevoke::sign(&key(by), Revoke { mesh, kind, target, reason: 0, ts: T0, author, head })
}

fn revoke(roster: &Roster, by: u8, target: u8) -> SignedRevoke {
    revoke_kind(roster, by, id(target), RevokeKind::Member, roster.head())
}

fn append_revoke(roster: &mut Roster, by: u8, target: u8) {
    let entry = roster.revoke_entry(&key(by), &revoke(roster, by, target), T0);
    roster.append(&entry).unwrap();
}

#[test]
fn a_revocation_off_the_log_acts_at_once_and_is_passed_on_once() {
    let roster = mesh();
    let mut set = RevocationSet::default();
    assert!(!set.is_revoked(&id(BOB), &roster));
    assert_eq!(set.insert(revoke(&roster, ADMIN, BOB), &roster), Ok(true));
    assert_eq!(set.insert(revoke(&roster, ADMIN, BOB), &roster), Ok(false));
    assert!(set.is_revoked(&id(BOB), &roster));
    assert!(!set.is_revoked(&id(ADMIN), &roster));
    assert_eq!(set.iter().count(), 1);
}

#[test]
fn only_those_above_the_target_and_the_target_itself_may_revoke() {
    let roster = mesh();
    let refused = |by, target| RevocationSet::default().insert(revoke(&roster, by, target), &roster);
    let outranked = |actor, subject| Err(RevokeRefusal::Outranked { actor, subject });
    assert_eq!(refused(BOB, ADMIN), outranked(Role::Member, Role::Admin));
    assert_eq!(refused(ADMIN, OTHER_ADMIN), outranked(Role::Admin, Role::Admin));
    assert_eq!(refused(ADMIN, OWNER), outranked(Role::Admin, Role::Owner));
    assert_eq!(refused(ADMIN, EVE), Err(RevokeRefusal::UnknownTarget(id(EVE))));
    assert_eq!(refused(EVE, BOB), Err(RevokeRefusal::Author(id(EVE))));
    assert_eq!(refused(BOB, BOB), Ok(true));
    assert_eq!(refused(OWNER, ADMIN), Ok(true));
}

#[test]
fn a_revocation_lapses_with_its_author_unless_the_log_has_it() {
    let mut roster = mesh();
    let mut set = RevocationSet::default();
    set.insert(revoke(&roster, ADMIN, BOB), &roster).unwrap();
    let mut logged = roster.clone();
    append_revoke(&mut logged, ADMIN, BOB);

    append_revoke(&mut roster, OWNER, ADMIN);
    assert!(!set.is_revoked(&id(BOB), &roster));
    append_revoke(&mut logged, OWNER, ADMIN);
    assert!(set.is_revoked(&id(BOB), &logged));
}

#[test]
fn a_revocation_lapses_when_an_owner_revokes_its_author_off_the_log_in_either_order() {
    let roster = mesh();
    let (by_admin, by_owner) = (revoke(&roster, ADMIN, BOB), revoke(&roster, OWNER, ADMIN));
    let mut set = RevocationSet::default();
    set.insert(by_admin.clone(), &roster).unwrap();
    set.insert(by_owner.clone(), &roster).unwrap();
    assert!(!set.is_revoked(&id(BOB), &roster));
    let mut set = RevocationSet::default();
    set.insert(by_owner, &roster).unwrap();
    assert_eq!(set.insert(by_admin, &roster), Err(RevokeRefusal::Author(id(ADMIN))));
    assert!(!set.is_revoked(&id(BOB), &roster));
}

#[test]
fn who_left_by_its_own_word_stays_away() {
    let roster = mesh();
    let mut set = RevocationSet::default();
    set.insert(revoke(&roster, BOB, BOB), &roster).unwrap();
    assert!(set.is_revoked(&id(BOB), &roster));
}

#[test]
fn an_admin_revoked_off_the_log_takes_along_whom_it_admitted_since() {
    let mut roster = mesh();
    let head = roster.head();
    admit(&mut roster, ADMIN, EVE, "eve", Role::Member);
    let mut set = RevocationSet::default();
    let since = |head| revoke_kind(&roster, OWNER, id(ADMIN), RevokeKind::Member, head);
    set.insert(since(roster.head()), &roster).unwrap();
    assert!(!set.is_revoked(&id(EVE), &roster));
    assert_eq!(set.insert(since(head), &roster), Ok(true), "an earlier head says more");
    assert!(set.is_revoked(&id(EVE), &roster));
    assert!(!set.is_revoked(&id(BOB), &roster));
}

#[test]
fn a_session_is_revoked_by_its_member_or_from_above() {
    let roster = mesh();
    let session = id(40);
    let by = |who| {
        let mut set = RevocationSet::default();
        let revoke = revoke_kind(&roster, who, session, RevokeKind::Session, roster.head());
        set.insert(revoke, &roster).unwrap();
        set
    };
    assert!(by(BOB).is_key_revoked(&session, &id(BOB), &roster));
    assert!(by(ADMIN).is_key_revoked(&session, &id(BOB), &roster));
    assert!(by(OWNER).is_key_revoked(&session, &id(ADMIN), &roster));
    assert!(!by(BOB).is_key_revoked(&session, &id(ADMIN), &roster));
    assert!(!by(OTHER_ADMIN).is_key_revoked(&session, &id(ADMIN), &roster));
    assert!(!by(BOB).is_key_revoked(&id(41), &id(BOB), &roster));
}

#[test]
fn a_member_cannot_fill_the_set() {
    let roster = mesh();
    let mut set = RevocationSet::default();
    set.counts.insert(id(BOB), LOG_ENTRIES_PER_MEMBER_MAX);
    let session = revoke_kind(&roster, BOB, id(40), RevokeKind::Session, roster.head());
    assert_eq!(set.insert(session, &roster), Err(RevokeRefusal::Full(id(BOB))));
    assert_eq!(set.iter().count(), 0);
}

#[test]
fn a_revocation_of_another_mesh_or_signer_does_not_parse() {
    let roster = mesh();
    let good = revoke(&roster, ADMIN, BOB);
    let parse = |sig, mesh: &MeshId| SignedRevoke::parse_verified(good.stmt(), &sig, mesh);
    assert_eq!(parse(good.sig(), &roster.mesh_id()).as_ref(), Ok(&good));
    assert_eq!(parse(good.sig(), &MeshId([0; 32])), Err(RevokeError::Mesh));
    let forged = key(OWNER).sign(LABEL, &[good.stmt()]);
    assert_eq!(parse(forged, &roster.mesh_id()), Err(RevokeError::Signature));
}

proptest! {
    #[test]
    fn revocations_survive_the_wire(
        (mesh, target, author) in (strategies::mesh(), strategies::peer(), strategies::peer()),
        kind in proptest::sample::select(vec![
            RevokeKind::Member, RevokeKind::Session, RevokeKind::Service, RevokeKind::Prekey,
        ]),
        (reason, ts, size) in (strategies::uint(), strategies::time(), strategies::uint()),
    ) {
        let head = Head { size, hash: EntryHash([1; 32]) };
        let revoke = Revoke { mesh, kind, target, reason, ts, author, head };
        prop_assert_eq!(Revoke::parse(&revoke.encode()), Ok(revoke));
    }
}
