use proptest::prelude::*;

use super::*;
use crate::id::EntryHash;
use crate::strategies;

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

fn cap(code: &InviteCode) -> SignedCap {
    let cap = InviteCap {
        mesh: MeshId([1; 32]),
        id: InviteId([2; 16]),
        inviter: key(3).id(),
        role: Role::Member,
        max_uses: 1,
        nbf: UnixMs(10),
        exp: UnixMs(20),
        mode: InviteMode::Auto,
        head: Head { size: 1, hash: EntryHash([4; 32]) },
        origin: Origin::parse("https://mesh.example").unwrap(),
        key: code.signing_key().id(),
        handle: None,
    };
    SignedCap::sign(&key(3), cap)
}

#[test]
fn a_code_reads_as_people_write_it() {
    for (typed, shown) in [
        ("0123456789ABCDEF", "0123-4567-89AB-CDEF"),
        (" o123 4567 89ab-cdef\n", "0123-4567-89AB-CDEF"),
        ("OIL3-4567-89aB-CDEF", "0113-4567-89AB-CDEF"),
        ("oil3-4567-89ab-cdef", "0113-4567-89AB-CDEF"),
        ("z-z-z-z-z-z-z-z-z-z-z-z-z-z-z-z", "ZZZZ-ZZZZ-ZZZZ-ZZZZ"),
    ] {
        let code: InviteCode = typed.parse().unwrap();
        assert_eq!(code.to_string(), shown, "{typed:?}");
    }
}

#[test]
fn a_text_that_is_no_code_is_refused_without_repeating_it() {
    let read = |text: &str| text.parse::<InviteCode>().unwrap_err();
    assert_eq!(read(""), InviteCodeError::Length(0));
    assert_eq!(read("0123-4567-89AB-CDE"), InviteCodeError::Length(15));
    assert_eq!(read("0123-4567-89AB-CDEF-0"), InviteCodeError::Length(17));
    assert_eq!(read("U123-4567-89AB-CDEF"), InviteCodeError::Character);
    assert_eq!(read("é123-4567-89AB-CDEF"), InviteCodeError::Character);
    assert_eq!(read(&"0".repeat(10_000)), InviteCodeError::Length(10_000));
}

#[test]
fn a_code_is_never_printed_for_debugging() {
    let code = InviteCode::from_bytes([0xab; 10]);
    assert_eq!(format!("{code:?}"), "InviteCode(..)");
}

#[test]
fn a_blob_opens_with_its_code_only() {
    let code = InviteCode::from_bytes([7; 10]);
    let cap = cap(&code);
    let blob = code.seal_blob(&cap, [9; 24]);
    assert_eq!(code.open_blob(&blob), Ok(cap.clone()));
    assert_eq!(InviteCode::from_bytes([8; 10]).open_blob(&blob), Err(InviteError::Blob));
    for length in [0, 23, 24, blob.len() - 1] {
        assert_eq!(code.open_blob(&blob[..length]), Err(InviteError::Blob));
    }
    let mut changed = blob;
    changed[30] ^= 1;
    assert_eq!(code.open_blob(&changed), Err(InviteError::Blob));
    assert_eq!(code.open_blob(&vec![0; STATEMENT_BYTES_MAX + 1]), Err(InviteError::Blob));
}

#[test]
fn a_blob_with_another_invites_cap_is_refused() {
    let (code, other) = (InviteCode::from_bytes([7; 10]), InviteCode::from_bytes([8; 10]));
    let blob = code.seal_blob(&cap(&other), [9; 24]);
    assert_eq!(code.open_blob(&blob), Err(InviteError::CodeProof));
}

#[test]
fn a_cap_grants_between_one_and_a_hundred_uses() {
    let code = InviteCode::from_bytes([7; 10]);
    for (max_uses, sound) in [(0, false), (1, true), (100, true), (101, false)] {
        let cap = InviteCap { max_uses, ..cap(&code).into_value() };
        assert_eq!(InviteCap::parse(&cap.encode()).is_ok(), sound, "{max_uses}");
    }
}

proptest! {
    #[test]
    fn codes_survive_being_told(bytes in any::<[u8; 10]>()) {
        let code = InviteCode::from_bytes(bytes);
        let told: InviteCode = code.to_string().to_lowercase().parse().expect("a shown code parses");
        prop_assert_eq!(told.to_string(), code.to_string());
        prop_assert_eq!(told.lookup(), code.lookup());
    }

    #[test]
    fn caps_survive_the_wire(
        (mesh, inviter, head, origin) in
            (strategies::mesh(), strategies::peer(), strategies::head(), strategies::origin()),
        (id, key, max_uses) in (any::<[u8; 16]>(), strategies::peer(), 1..=INVITE_USES_MAX),
        (nbf, exp) in (strategies::time(), strategies::time()),
        role in prop_oneof![Just(Role::Member), Just(Role::Admin)],
        mode in prop_oneof![Just(InviteMode::Auto), Just(InviteMode::Confirm), Just(InviteMode::Bound)],
        handle in proptest::option::of(strategies::handle()),
    ) {
        let id = InviteId(id);
        let cap = InviteCap { mesh, id, inviter, role, max_uses, nbf, exp, mode, head, origin, key, handle };
        prop_assert_eq!(InviteCap::parse(&cap.encode()), Ok(cap));
    }

    #[test]
    fn claims_survive_the_wire(
        (mesh, joiner, prekey, sealing) in
            (strategies::mesh(), strategies::peer(), strategies::box_key(), strategies::box_key()),
        (invite, nonce) in (any::<[u8; 16]>(), any::<[u8; 32]>()),
        (ts, handle) in (strategies::time(), strategies::handle()),
    ) {
        let invite = InviteId(invite);
        let claim = InviteClaim { mesh, invite, joiner, prekey, sealing, nonce, ts, handle };
        prop_assert_eq!(InviteClaim::parse(&claim.encode()), Ok(claim));
    }
}
