use proptest::prelude::*;

use super::*;
use crate::id::{EntryHash, RunId};
use crate::strategies;

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

fn mesh_origin() -> Origin {
    Origin::parse("https://mesh.example").unwrap()
}

fn head() -> Head {
    Head { size: 3, hash: EntryHash([3; 32]) }
}

fn challenge() -> Challenge {
    Challenge {
        coordinator: key(1).id(),
        nonce: [2; 32],
        ts: NOW,
        protocols: vec![2],
        features: vec!["log".to_owned()],
        origin: mesh_origin(),
    }
}

fn answer_at(challenge: &Challenge, now: UnixMs) -> Result<SignedHello, HelloError> {
    let with = Answer {
        identity: &key(5),
        role: HelloRole::ControlPlane,
        auth: None,
        mesh: MeshId([6; 32]),
        coordinators: &[(key(1).id(), mesh_origin())],
        origin: &mesh_origin(),
        nonce: [7; 32],
        features: &["log"],
        head: head(),
        instance: InstanceId([8; 16]),
        counter: 1,
        mark: None,
        now,
    };
    SignedHello::answer(&challenge.encode(), &with)
}

fn hello() -> SignedHello {
    answer_at(&challenge(), NOW).unwrap()
}

/// Checks `hello` with `change` made to the coordinator's own view.
fn receive(hello: &SignedHello, change: impl FnOnce(&mut HelloCheck<'_>)) -> Result<SignedHello, HelloError> {
    let (challenge, coordinator, origin) = (challenge().encode(), key(1).id(), mesh_origin());
    let mut check = HelloCheck {
        challenge: &challenge,
        challenged_at: NOW,
        coordinator: &coordinator,
        origin: &origin,
        now: NOW,
    };
    change(&mut check);
    verify_hello(hello.stmt(), &hello.sig(), &check)
}

fn welcome(to: &SignedHello) -> SignedWelcome {
    let lease = Duration::from_secs(90);
    let welcome = Welcome {
        hello: to.transcript(),
        ts: NOW,
        head: head(),
        lease,
        frame_bytes_max: 1 << 20,
        store: None,
    };
    SignedWelcome::sign(&key(1), welcome)
}

#[test]
fn a_node_and_its_coordinator_recognise_each_other() {
    let hello = hello();
    let received = receive(&hello, |_| {}).unwrap();
    assert_eq!(received, hello);
    assert_eq!((received.id, received.head, received.counter), (key(5).id(), head(), 1));
    let welcome = welcome(&received);
    assert_eq!(verify_welcome(welcome.stmt(), &welcome.sig(), &hello, NOW), Ok(welcome));
}

#[test]
fn a_node_answers_only_the_coordinator_of_its_log_at_the_origin_it_dialled() {
    let elsewhere = Origin::parse("https://evil.example").unwrap();
    let moved = Challenge { origin: elsewhere.clone(), ..challenge() };
    let refused = HelloError::WrongOrigin { expected: mesh_origin(), found: elsewhere };
    assert_eq!(answer_at(&moved, NOW), Err(refused));
    let impostor = Challenge { coordinator: key(9).id(), ..challenge() };
    assert_eq!(answer_at(&impostor, NOW), Err(HelloError::WrongCoordinator(key(9).id())));
    let older = Challenge { protocols: vec![1, 3], ..challenge() };
    assert_eq!(answer_at(&older, NOW), Err(HelloError::Version(vec![1, 3])));
}

#[test]
fn clocks_that_differ_by_more_than_five_minutes_are_told_to_both_sides() {
    let hour = Duration::from_secs(3600);
    for ours in [NOW.plus(hour), NOW.minus(hour)] {
        assert_eq!(answer_at(&challenge(), ours), Err(HelloError::Skew { ours, theirs: NOW }));
    }
    let ours = NOW.plus(CLOCK_SKEW_MAX);
    let late = answer_at(&challenge(), ours).unwrap();
    assert!(receive(&late, |_| {}).is_ok());
    let theirs = ours;
    let before = UnixMs(NOW.0 - 1);
    assert_eq!(receive(&late, |check| check.now = before), Err(HelloError::Skew { ours: before, theirs }));
}

#[test]
fn a_hello_is_good_once_here_and_for_ten_seconds() {
    let hello = hello();
    assert!(receive(&hello, |check| check.now = NOW.plus(CHALLENGE_LIFE)).is_ok());
    let late = UnixMs(NOW.plus(CHALLENGE_LIFE).0 + 1);
    let age = CHALLENGE_LIFE + Duration::from_millis(1);
    assert_eq!(receive(&hello, |check| check.now = late), Err(HelloError::StaleChallenge(age)));
    let next = Challenge { nonce: [3; 32], ..challenge() }.encode();
    let refused = {
        let (coordinator, origin) = (key(1).id(), mesh_origin());
        let check = HelloCheck {
            challenge: &next,
            challenged_at: NOW,
            coordinator: &coordinator,
            origin: &origin,
            now: NOW,
        };
        verify_hello(hello.stmt(), &hello.sig(), &check)
    };
    assert_eq!(refused, Err(HelloError::WrongChallenge));
}

#[test]
fn a_hello_for_another_coordinator_or_by_another_key_is_refused() {
    let hello = hello();
    let (other_key, other_origin) = (key(9).id(), Origin::parse("https://evil.example").unwrap());
    let (challenge, coordinator, origin) = (challenge().encode(), key(1).id(), mesh_origin());
    let check = |coordinator, origin| {
        let check = HelloCheck { challenge: &challenge, challenged_at: NOW, coordinator, origin, now: NOW };
        verify_hello(hello.stmt(), &hello.sig(), &check).unwrap_err()
    };
    assert_eq!(check(&other_key, &origin), HelloError::WrongCoordinator(coordinator));
    let refused = HelloError::WrongOrigin { expected: other_origin.clone(), found: origin.clone() };
    assert_eq!(check(&coordinator, &other_origin), refused);
    let forged =
        Signed::verified(hello.stmt().clone(), key(9).sign(LABEL_HELLO, &[hello.stmt()]), hello.into_value());
    assert_eq!(receive(&forged, |_| {}), Err(HelloError::Signature));
}

#[test]
fn a_welcome_answers_one_hello_with_the_coordinators_key() {
    let hello = hello();
    let good = welcome(&hello);
    let other = answer_at(&challenge(), UnixMs(NOW.0 + 1)).unwrap();
    assert_eq!(verify_welcome(good.stmt(), &good.sig(), &other, NOW), Err(HelloError::WrongHello));
    let forged = key(9).sign("welcome", &[good.stmt()]);
    assert_eq!(verify_welcome(good.stmt(), &forged, &hello, NOW), Err(HelloError::Signature));
}

#[test]
fn an_attestation_is_named_exactly_by_those_who_have_one() {
    let parse = |role, auth| Hello::parse(&Hello { role, auth, ..hello().into_value() }.encode());
    let auth = Some(AttestationHash([1; 32]));
    assert_eq!(parse(HelloRole::ControlPlane, auth), Err(DecodeError::UnknownField));
    assert_eq!(parse(HelloRole::Session, None), Err(DecodeError::MissingField));
    assert_eq!(parse(HelloRole::Service, None), Err(DecodeError::MissingField));
    assert!(parse(HelloRole::Session, auth).is_ok());
}

#[test]
fn only_the_coordinator_that_the_hello_names_can_ask_for_the_log() {
    let hello = hello();
    let sig = want_log(&key(1), &hello, 7);
    assert!(log_wanted_by(&hello, 7, &sig));
    assert!(!log_wanted_by(&hello, 8, &sig));
    assert!(!log_wanted_by(&hello, 7, &want_log(&key(2), &hello, 7)));
    let other = answer_at(&Challenge { nonce: [9; 32], ..challenge() }, NOW).unwrap();
    assert!(!log_wanted_by(&other, 7, &sig));
}

fn mark() -> impl Strategy<Value = StoreMark> {
    (any::<[u8; 16]>(), strategies::uint()).prop_map(|(run, commit)| StoreMark { run: RunId(run), commit })
}

proptest! {
    #[test]
    fn challenges_survive_the_wire(
        (coordinator, nonce, ts) in (strategies::peer(), any::<[u8; 32]>(), strategies::time()),
        protocols in proptest::collection::vec(strategies::uint(), 0..4),
        features in proptest::collection::vec(strategies::text(), 0..4),
        origin in strategies::origin(),
    ) {
        let challenge = Challenge { coordinator, nonce, ts, protocols, features, origin };
        prop_assert_eq!(Challenge::parse(&challenge.encode()), Ok(challenge));
    }

    #[test]
    fn hellos_survive_the_wire(
        (mesh, id, coordinator, origin) in
            (strategies::mesh(), strategies::peer(), strategies::peer(), strategies::origin()),
        (nonce, challenge, auth) in
            (any::<[u8; 32]>(), any::<[u8; 32]>(), proptest::option::of(any::<[u8; 32]>())),
        features in proptest::collection::vec(strategies::text(), 0..4),
        (ts, head, counter) in (strategies::time(), strategies::head(), strategies::uint()),
        (binding_kind, binding) in (strategies::text(), proptest::collection::vec(any::<u8>(), 0..40)),
        mark in proptest::option::of(mark()),
    ) {
        let role = if auth.is_some() { HelloRole::Session } else { HelloRole::ControlPlane };
        let (auth, instance, binding) = (auth.map(AttestationHash), InstanceId([1; 16]), Bytes::from(binding));
        let hello = Hello {
            mesh, role, id, auth, nonce, challenge, coordinator, origin, ts, features, head, instance, counter,
            binding_kind, binding, mark,
        };
        prop_assert_eq!(Hello::parse(&hello.encode()), Ok(hello));
    }

    #[test]
    fn welcomes_survive_the_wire(
        (hello, ts, head) in (any::<[u8; 32]>(), strategies::time(), strategies::head()),
        (lease, frame_bytes_max) in (strategies::uint(), strategies::uint()),
        store in proptest::option::of((mark(), any::<bool>()).prop_map(|(mark, kept)| StoreView { mark, kept })),
    ) {
        let welcome = Welcome { hello, ts, head, lease: Duration::from_secs(lease), frame_bytes_max, store };
        prop_assert_eq!(Welcome::parse(&welcome.encode()), Ok(welcome));
    }
}
