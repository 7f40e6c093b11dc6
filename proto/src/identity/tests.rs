use proptest::prelude::*;

use super::*;
use crate::id::EntryHash;
use crate::strategies;

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

fn attestation() -> SessionAttestation {
    SessionAttestation {
        mesh: MeshId([1; 32]),
        member: key(1).id(),
        session: key(2).id(),
        key: crate::BoxSecretKey::from_bytes([3; 32]).public(),
        sid: [4; 16],
        nbf: NOW,
        exp: NOW.plus(SESSION_LIFE_MAX),
        caps: [Capability::DmSend, Capability::TopicRead].into_iter().collect(),
        head: Head { size: 1, hash: EntryHash([5; 32]) },
    }
}

fn verify(attestation: &VerifiedAttestation, now: UnixMs) -> Result<VerifiedAttestation, AttestationError> {
    VerifiedAttestation::open(&attestation.encode(), &MeshId([1; 32]), now)
}

#[test]
fn an_attestation_holds_in_its_window_and_nowhere_else() {
    let signed = attestation().sign(&key(1), &key(2));
    let exp = signed.get().exp;
    for now in [NOW.minus(CLOCK_SKEW_MAX), NOW, exp] {
        assert_eq!(verify(&signed, now), Ok(signed.clone()));
    }
    for now in [UnixMs(NOW.minus(CLOCK_SKEW_MAX).0 - 1), UnixMs(exp.0 + 1)] {
        assert_eq!(verify(&signed, now), Err(AttestationError::Window));
    }
}

#[test]
fn an_attestation_needs_both_keys_the_right_mesh_and_a_short_life() {
    let signed = |change: fn(&mut SessionAttestation), member: u8, session: u8| {
        let mut attestation = attestation();
        change(&mut attestation);
        verify(&attestation.sign(&key(member), &key(session)), NOW).unwrap_err()
    };
    assert_eq!(signed(|_| {}, 9, 2), AttestationError::Signature);
    assert_eq!(signed(|_| {}, 1, 9), AttestationError::Possession);
    assert_eq!(signed(|a| a.mesh = MeshId([9; 32]), 1, 2), AttestationError::Mesh);
    assert_eq!(signed(|a| a.exp.0 += 1, 1, 2), AttestationError::Ttl);
    assert_eq!(signed(|a| a.exp = a.nbf, 1, 2), AttestationError::Ttl);
}

#[test]
fn capabilities_grant_what_is_written_and_nothing_else() {
    let caps = attestation().caps;
    let granted: Vec<_> = Capability::ALL.into_iter().filter(|capability| caps.allows(*capability)).collect();
    assert_eq!(granted, [Capability::DmSend, Capability::TopicRead]);
    assert!(Capability::ALL.iter().all(|capability| Capabilities::EVERYTHING.allows(*capability)));
    assert!(!Capability::ALL.iter().any(|capability| Capabilities::default().allows(*capability)));
    let unknown = Value::Array(vec![Value::Text("dm.send.all"), Value::Text("rpc.call")]);
    let caps = Capabilities::from_value(unknown).unwrap();
    assert_eq!(caps, [Capability::RpcCall].into_iter().collect());
}

#[test]
fn handles_follow_the_rule() {
    for good in ["a", "0", "build-3", "deadbee", "deadbeeg", "deadbeef-", &"x".repeat(32)] {
        assert_eq!(Handle::parse(good).map(|handle| handle.to_string()), Ok(good.to_owned()));
    }
    assert_eq!(Handle::parse(""), Err(HandleError::Length(0)));
    assert_eq!(Handle::parse(&"x".repeat(33)), Err(HandleError::Length(33)));
    assert_eq!(Handle::parse("-a"), Err(HandleError::Character('-')));
    assert_eq!(Handle::parse("Bob"), Err(HandleError::Character('B')));
    assert_eq!(Handle::parse("b_b"), Err(HandleError::Character('_')));
    assert_eq!(Handle::parse("аlice"), Err(HandleError::Character('а')));
    assert_eq!(Handle::parse("deadbeef"), Err(HandleError::LooksLikeKey));
    assert_eq!(Handle::parse("0123456789"), Err(HandleError::LooksLikeKey));
}

#[test]
fn an_origin_has_one_spelling() {
    for good in [
        "https://mesh.example",
        "http://127.0.0.1:7700",
        "http://[::1]:7700",
        "https://[2001:db8::1]",
        "http://localhost:443",
        "https://my_host-1:80",
    ] {
        assert_eq!(Origin::parse(good).map(|origin| origin.to_string()), Ok(good.to_owned()));
    }
    for (bad, why) in [
        ("mesh.example", OriginError::Scheme),
        ("HTTPS://mesh.example", OriginError::Scheme),
        ("ws://mesh.example", OriginError::Scheme),
        ("https://Mesh.example", OriginError::Host),
        ("https://", OriginError::Host),
        ("https://mesh..example", OriginError::Host),
        ("https://-mesh.example", OriginError::Host),
        ("https://127.0.0.01", OriginError::Host),
        ("https://127.1", OriginError::Host),
        ("https://[0:0::1]", OriginError::Host),
        ("https://[::1", OriginError::Host),
        ("https://::1", OriginError::Host),
        ("https://mesh.example/", OriginError::Trailing),
        ("https://mesh.example#a", OriginError::Trailing),
        ("https://user@mesh.example", OriginError::Trailing),
        ("https://mesh.example:443", OriginError::Port),
        ("http://mesh.example:80", OriginError::Port),
        ("http://mesh.example:080", OriginError::Port),
        ("http://mesh.example:+81", OriginError::Port),
        ("http://mesh.example:0", OriginError::Port),
        ("http://mesh.example:65536", OriginError::Port),
        ("http://mesh.example:", OriginError::Port),
    ] {
        assert_eq!(Origin::parse(bad), Err(why), "{bad}");
    }
}

#[test]
fn an_origin_knows_its_parts_and_whether_it_is_this_machine() {
    let parts = |text: &str| {
        let origin = Origin::parse(text).unwrap();
        (origin.host().to_owned(), origin.port(), origin.is_secure(), origin.is_loopback())
    };
    assert_eq!(parts("https://mesh.example"), ("mesh.example".to_owned(), 443, true, false));
    assert_eq!(parts("http://127.9.9.9:7700"), ("127.9.9.9".to_owned(), 7700, false, true));
    assert_eq!(parts("http://[::1]:7700"), ("::1".to_owned(), 7700, false, true));
    assert_eq!(parts("http://localhost"), ("localhost".to_owned(), 80, false, true));
    assert_eq!(parts("http://localhost.example"), ("localhost.example".to_owned(), 80, false, false));
    assert_eq!(parts("http://10.0.0.1"), ("10.0.0.1".to_owned(), 80, false, false));
}

#[test]
fn what_a_person_types_becomes_the_one_spelling() {
    let typed = |text| Origin::from_typed(text).unwrap().to_string();
    assert_eq!(typed(" HTTPS://Mesh.Example:443/ "), "https://mesh.example");
    assert_eq!(typed("http://mesh.example:80"), "http://mesh.example");
    assert_eq!(typed("http://mesh.example:443"), "http://mesh.example:443");
    assert_eq!(Origin::from_typed("https://mesh.example/path"), Err(OriginError::Trailing));
}

proptest! {
    #[test]
    fn attestations_survive_the_wire(
        (mesh, member, session, key) in
            (strategies::mesh(), strategies::peer(), strategies::peer(), strategies::box_key()),
        (nbf, exp, head) in (strategies::time(), strategies::time(), strategies::head()),
        sid in any::<[u8; 16]>(),
        caps in proptest::sample::subsequence(Capability::ALL.to_vec(), 0..8),
    ) {
        let caps = caps.into_iter().collect();
        let attestation = SessionAttestation { mesh, member, session, key, sid, nbf, exp, caps, head };
        prop_assert_eq!(SessionAttestation::parse(&attestation.encode()), Ok(attestation));
    }
}
