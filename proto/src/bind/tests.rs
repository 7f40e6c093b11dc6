use proptest::prelude::*;

use super::*;
use crate::id::EntryHash;
use crate::strategies;

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const EXPORTER: [u8; 32] = [8; 32];

fn alice() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn bind() -> Bind {
    Bind {
        mesh: MeshId([1; 32]),
        conn: ConnId([2; 16]),
        from: alice().id(),
        to: PeerId([3; 32]),
        role: BindRole::Dialler,
        transport: BindTransport::Quic,
        own_cert: CertHash([4; 32]),
        peer_cert: CertHash([5; 32]),
        exporter: Bytes::copy_from_slice(&EXPORTER),
        epoch_key: crate::BoxSecretKey::from_bytes([6; 32]).public(),
        epoch_exp: NOW.plus(DIRECT_LIFE_MAX),
        head: Head { size: 1, hash: EntryHash([7; 32]) },
    }
}

fn check() -> BindCheck<'static> {
    BindCheck {
        mesh: MeshId([1; 32]),
        conn: ConnId([2; 16]),
        from: alice().id(),
        to: PeerId([3; 32]),
        role: BindRole::Acceptor.mirrored(),
        transport: BindTransport::Quic,
        cert_observed: CertHash([4; 32]),
        cert_signalled: CertHash([4; 32]),
        own_cert: CertHash([5; 32]),
        exporter: &EXPORTER,
        now: NOW,
    }
}

fn accept(change: impl FnOnce(&mut BindCheck<'static>)) -> Result<Bind, BindError> {
    let signed = SignedBind::sign(&alice(), bind());
    let mut check = check();
    change(&mut check);
    verify_bind(signed.stmt(), &signed.sig(), &check).map(Signed::into_value)
}

#[test]
fn a_bind_that_mirrors_the_readers_view_is_accepted() {
    assert_eq!(accept(|_| {}), Ok(bind()));
}

#[test]
fn a_bind_that_differs_anywhere_from_the_readers_view_is_refused() {
    let other = PeerId([99; 32]);
    let found = alice().id();
    assert_eq!(accept(|view| view.mesh = MeshId([9; 32])), Err(BindError::Mesh));
    assert_eq!(accept(|view| view.conn = ConnId([9; 16])), Err(BindError::Conn));
    assert_eq!(accept(|view| view.from = other), Err(BindError::WrongPeer { expected: other, found }));
    assert_eq!(accept(|view| view.to = other), Err(BindError::NotForMe(PeerId([3; 32]))));
    assert_eq!(accept(|view| view.role = BindRole::Acceptor), Err(BindError::Role));
    assert_eq!(accept(|view| view.transport = BindTransport::Dtls), Err(BindError::Transport));
    assert_eq!(accept(|view| view.cert_observed = CertHash([9; 32])), Err(BindError::PeerCert));
    assert_eq!(accept(|view| view.cert_signalled = CertHash([9; 32])), Err(BindError::PeerCert));
    assert_eq!(accept(|view| view.own_cert = CertHash([9; 32])), Err(BindError::OwnCert));
    assert_eq!(accept(|view| view.exporter = &[9; 32]), Err(BindError::Exporter));
}

#[test]
fn a_bind_by_another_key_is_refused() {
    let stmt = bind().encode();
    let stranger = IdentityKey::from_seed(&[9; 32]);
    let refused = verify_bind(&stmt, &stranger.sign(LABEL, &[&stmt]), &check());
    assert_eq!(refused.unwrap_err(), BindError::Signature);
}

#[test]
fn an_epoch_key_lives_for_an_hour_give_or_take_the_clocks() {
    let exp = bind().epoch_exp;
    let at = |now| accept(|view| view.now = now);
    assert!(at(NOW.minus(CLOCK_SKEW_MAX)).is_ok());
    assert!(at(exp.plus(CLOCK_SKEW_MAX)).is_ok());
    for now in [UnixMs(NOW.minus(CLOCK_SKEW_MAX).0 - 1), UnixMs(exp.plus(CLOCK_SKEW_MAX).0 + 1)] {
        assert_eq!(at(now), Err(BindError::Epoch { exp, now }));
    }
}

#[test]
fn an_exporter_stands_exactly_where_the_transport_has_one() {
    let with = |transport, exporter: &'static [u8]| {
        Bind::parse(&Bind { transport, exporter: Bytes::from_static(exporter), ..bind() }.encode()).is_ok()
    };
    assert!(with(BindTransport::Quic, &EXPORTER));
    assert!(with(BindTransport::Dtls, &[]));
    assert!(!with(BindTransport::Quic, &[]));
    assert!(!with(BindTransport::Dtls, &EXPORTER));
}

proptest! {
    #[test]
    fn binds_survive_the_wire(
        (mesh, from, to, head) in
            (strategies::mesh(), strategies::peer(), strategies::peer(), strategies::head()),
        (conn, own, peer) in (any::<[u8; 16]>(), any::<[u8; 32]>(), any::<[u8; 32]>()),
        exporter in proptest::option::of(any::<[u8; 32]>()),
        (epoch_key, epoch_exp) in (strategies::box_key(), strategies::time()),
        role in prop_oneof![Just(BindRole::Dialler), Just(BindRole::Acceptor)],
    ) {
        let transport = if exporter.is_some() { BindTransport::Quic } else { BindTransport::Dtls };
        let exporter = exporter.map_or_else(Bytes::new, |exporter| Bytes::copy_from_slice(&exporter));
        let (conn, own_cert, peer_cert) = (ConnId(conn), CertHash(own), CertHash(peer));
        let bind = Bind {
            mesh, conn, from, to, role, transport, own_cert, peer_cert, exporter, epoch_key, epoch_exp, head,
        };
        prop_assert_eq!(Bind::parse(&bind.encode()), Ok(bind));
    }
}
