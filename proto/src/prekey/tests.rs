use proptest::prelude::*;

use super::*;
use crate::strategies;

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const MESH: MeshId = MeshId([1; 32]);

fn member() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn prekey() -> Prekey {
    let key = crate::BoxSecretKey::from_bytes([2; 32]).public();
    Prekey { mesh: MESH, member: member().id(), key, nbf: NOW, exp: NOW.plus(PREKEY_LIFE) }
}

fn verify(prekey: &Prekey, signer: &IdentityKey, now: UnixMs) -> Result<SignedPrekey, PrekeyError> {
    let stmt = prekey.encode();
    SignedPrekey::parse_verified(&stmt, &signer.sign(LABEL, &[&stmt]), &MESH, now)
}

#[test]
fn a_prekey_is_good_from_a_little_before_to_a_little_after_its_week() {
    let signed = SignedPrekey::sign(&member(), MESH, prekey().key, NOW);
    assert_eq!(*signed, prekey());
    let exp = signed.exp;
    for now in [NOW.minus(CLOCK_SKEW_MAX), NOW, exp.plus(CLOCK_SKEW_MAX)] {
        assert_eq!(verify(&prekey(), &member(), now).as_ref(), Ok(&signed));
    }
    for now in [UnixMs(NOW.minus(CLOCK_SKEW_MAX).0 - 1), UnixMs(exp.plus(CLOCK_SKEW_MAX).0 + 1)] {
        assert_eq!(verify(&prekey(), &member(), now), Err(PrekeyError::NotNow { nbf: NOW, exp, now }));
    }
}

#[test]
fn a_prekey_of_another_signer_mesh_or_length_is_refused() {
    let stranger = IdentityKey::from_seed(&[9; 32]);
    assert_eq!(verify(&prekey(), &stranger, NOW), Err(PrekeyError::Signature));
    let elsewhere = Prekey { mesh: MeshId([9; 32]), ..prekey() };
    assert_eq!(verify(&elsewhere, &member(), NOW), Err(PrekeyError::Mesh));
    let exp = NOW.plus(PREKEY_LIFE + CLOCK_SKEW_MAX);
    assert!(verify(&Prekey { exp, ..prekey() }, &member(), NOW).is_ok());
    for exp in [UnixMs(exp.0 + 1), NOW] {
        let refused = verify(&Prekey { exp, ..prekey() }, &member(), NOW);
        assert_eq!(refused, Err(PrekeyError::Window { nbf: NOW, exp }));
    }
}

#[test]
fn a_low_order_key_and_a_later_kind_do_not_parse() {
    let stmt = prekey().encode();
    let place = stmt.windows(32).position(|window| window == prekey().key.as_bytes()).unwrap();
    let mut low = stmt.clone();
    low[place..place + 32].fill(0);
    assert_eq!(Prekey::parse(&low), Err(DecodeError::Type));
    let mut later = stmt;
    assert_eq!(later[place + 32..place + 34], [3, 1]);
    later[place + 33] = 2;
    assert_eq!(Prekey::parse(&later), Err(DecodeError::Type));
}

proptest! {
    #[test]
    fn prekeys_survive_the_wire(
        mesh in strategies::mesh(), member in strategies::peer(), key in strategies::box_key(),
        nbf in strategies::time(), exp in strategies::time(),
    ) {
        let prekey = Prekey { mesh, member, key, nbf, exp };
        prop_assert_eq!(Prekey::parse(&prekey.encode()), Ok(prekey));
    }
}
