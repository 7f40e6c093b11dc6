//! What each fuzz target does with its bytes. The same functions replay the corpora on stable, in
//! `proto/tests/fuzz_corpus.rs`.
//!
//! A target may refuse its bytes; it may not panic, and what it accepts must encode to the same bytes
//! again. Signatures would stop a fuzzer at the door, so a target also signs its bytes with the key
//! they name, where that is one of the vectors' keys, and goes on inside.

mod node;
mod reader;
mod seeds;
mod vectors;

use bytes::Bytes;
use peerloom_proto::limits::{FRAME_BYTES_MAX, RECEIPT_BYTES_MAX, STATEMENT_BYTES_MAX};
use peerloom_proto::stun::{StunKind, StunMessage, is_stun, public_answer};
use peerloom_proto::wire::{OnLink, ToCoordinator, ToNode};
use peerloom_proto::{
    Bind, BindCheck, Body, Challenge, EntryKind, Handle, Header, Hello, HelloCheck, InviteCap, InviteClaim,
    InviteCode, Origin, Prekey, Receipt, Revoke, Roster, SessionAttestation, Signal, SignedCap, SignedClaim,
    SignedHello, SignedPrekey, SignedRevoke, UnverifiedEnvelope, UnverifiedReceipt, Value,
    VerifiedAttestation, Welcome, WireEntry, crockford, decode, encode, verify_bind, verify_hello,
    verify_invite, verify_welcome,
};

pub use node::endpoint_uplink;
pub use seeds::seeds;
use vectors::VECTORS;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file and its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("attestation", attestation),
    ("bind", bind),
    ("body", body),
    ("canonical", canonical),
    ("endpoint_uplink", endpoint_uplink),
    ("envelope", envelope),
    ("frame_on_link", frame_on_link),
    ("frame_to_coordinator", frame_to_coordinator),
    ("frame_to_node", frame_to_node),
    ("hello", hello),
    ("invite", invite),
    ("log_entry", log_entry),
    ("origin_handle", origin_handle),
    ("prekey", prekey),
    ("receipt", receipt),
    ("revoke", revoke),
    ("signal", signal),
    ("stun", stun),
    ("welcome", welcome),
];

/// The strict decoder: what it takes has one spelling.
pub fn canonical(data: &[u8]) {
    if let Ok(value) = decode(data, FRAME_BYTES_MAX) {
        assert_eq!(encode(&value), data);
    }
}

/// Frames of nodes.
pub fn frame_to_coordinator(data: &[u8]) {
    if let Ok(frame) = ToCoordinator::decode(&Bytes::copy_from_slice(data), FRAME_BYTES_MAX) {
        assert_eq!(frame.encode(), data);
    }
}

/// Frames of coordinators.
pub fn frame_to_node(data: &[u8]) {
    if let Ok(frame) = ToNode::decode(&Bytes::copy_from_slice(data)) {
        assert_eq!(frame.encode(), data);
    }
}

/// Frames of peers.
pub fn frame_on_link(data: &[u8]) {
    if let Ok(frame) = OnLink::decode(&Bytes::copy_from_slice(data)) {
        assert_eq!(frame.encode(), data);
    }
}

/// Parse, verify and open for Bob; once as it is, once signed anew by the key it names.
pub fn envelope(data: &[u8]) {
    let Ok(parsed) = UnverifiedEnvelope::parse(Bytes::copy_from_slice(data)) else { return };
    let Ok(Value::Array(items)) = decode(data, FRAME_BYTES_MAX) else { panic!("it parsed") };
    let [version, Value::Bytes(hdr), Value::Bytes(ct), _] = items.as_slice() else { panic!("it parsed") };
    assert_eq!(Header::decode(hdr).map(|header| header.encode()).as_deref(), Ok(*hdr));
    let from = parsed.header().from;
    reader::open(parsed).unwrap_or_default();
    if let Some(key) = VECTORS.key_of(&from) {
        let sig = key.sign("envelope", &[hdr, &peerloom_proto::sha256(ct)]);
        let signed =
            Value::Array(vec![version.clone(), Value::Bytes(hdr), Value::Bytes(ct), Value::Bytes(&sig.0)]);
        let parsed = UnverifiedEnvelope::parse(encode(&signed).into()).expect("only the signature changed");
        if let Ok(body) = reader::open(parsed) {
            self::body(&body);
        }
    }
}

/// Plaintext of a dm.
pub fn body(data: &[u8]) {
    if let Ok(body) = Body::decode(&Bytes::copy_from_slice(data)) {
        assert_eq!(body.encode(), data);
    }
}

/// Plaintext of a signal. Addresses have several spellings; their meaning must survive.
pub fn signal(data: &[u8]) {
    if let Ok(signal) = Signal::decode(data) {
        assert_eq!(Signal::decode(&signal.encode()), Ok(signal));
    }
}

/// Datagrams of anyone. What the public responder says is short and reads back.
pub fn stun(data: &[u8]) {
    let peer = "192.0.2.1:32853".parse().expect("an address");
    let message = StunMessage::parse(data);
    if let Some(message) = &message {
        assert!(is_stun(data) && !message.is_by(b"not this one"));
    }
    let Some(answer) = public_answer(data, peer) else { return };
    assert!(answer.len() <= 44, "nothing to amplify");
    let answer = StunMessage::parse(&answer).expect("it was written here");
    assert_eq!(Some(answer.transaction), message.as_ref().map(|request| request.transaction));
    let mapped = (answer.kind == StunKind::Success).then_some(peer);
    assert_eq!(answer.mapped, mapped);
}

/// Parse, and check against the vectors' log at each of its lengths; also signed anew by its author.
pub fn log_entry(data: &[u8]) {
    let Ok(wire) = WireEntry::parse(data) else { return };
    assert_eq!(wire.encode(), data);
    let Ok(entry) = wire.entry() else { return };
    let mut candidates = vec![wire.clone()];
    if let Some(key) = VECTORS.key_of(&entry.author) {
        let sigs = vec![(entry.author, key.sign("log", &[&wire.stmt]))];
        candidates.push(WireEntry { sigs, ..wire });
    }
    for candidate in candidates {
        if let EntryKind::Genesis(_) = entry.kind
            && let Ok(roster) = Roster::begin(&candidate)
        {
            assert_eq!(roster.size(), 1);
        }
        for roster in &VECTORS.rosters {
            let mut grown = roster.clone();
            let checked = roster.check(&candidate);
            assert_eq!(grown.append(&candidate).map(drop), checked);
            assert_eq!(grown.size(), roster.size() + u64::from(checked.is_ok()));
        }
    }
}

/// Hello, as the coordinator of the vectors reads it.
pub fn hello(data: &[u8]) {
    let Ok(parsed) = Hello::parse(data) else { return };
    assert_eq!(parsed.encode(), data);
    let check = HelloCheck {
        challenge: &VECTORS.challenge,
        challenged_at: VECTORS.challenged_at(),
        coordinator: &VECTORS.coordinator.id(),
        origin: &VECTORS.origin(),
        now: VECTORS.challenged_at(),
    };
    let sig = VECTORS.signed_for(&parsed.id, "hello", data);
    if let Ok(hello) = verify_hello(data, &sig, &check) {
        assert_eq!(*hello, parsed);
    }
}

/// Challenge and welcome, as a node reads them.
pub fn welcome(data: &[u8]) {
    if let Ok(challenge) = Challenge::parse(data) {
        assert_eq!(challenge.encode(), data);
    }
    let answered = SignedHello::answer(data, &VECTORS.answer()).is_ok();
    assert!(!answered || Challenge::parse(data).is_ok());
    if let Ok(welcome) = Welcome::parse(data) {
        assert_eq!(welcome.encode(), data);
        let sig = VECTORS.coordinator.sign("welcome", &[data]);
        if let Ok(verified) = verify_welcome(data, &sig, &VECTORS.hello(), VECTORS.challenged_at()) {
            assert_eq!(*verified, welcome);
        }
    }
}

/// The first frame of a direct channel.
pub fn bind(data: &[u8]) {
    let Ok(parsed) = Bind::parse(data) else { return };
    assert_eq!(parsed.encode(), data);
    let expected = &VECTORS.bind;
    let check = BindCheck {
        mesh: expected.mesh,
        conn: expected.conn,
        from: expected.from,
        to: expected.to,
        role: expected.role,
        transport: expected.transport,
        cert_observed: expected.own_cert,
        cert_signalled: expected.own_cert,
        own_cert: expected.peer_cert,
        exporter: &expected.exporter,
        now: expected.epoch_exp,
    };
    let sig = VECTORS.signed_for(&parsed.from, "bind", data);
    if let Ok(bind) = verify_bind(data, &sig, &check) {
        assert_eq!(*bind, parsed);
    }
}

/// A recipient's receipt.
pub fn receipt(data: &[u8]) {
    let Ok(parsed) = Receipt::parse(data) else { return };
    assert_eq!(parsed.encode(), data);
    assert!(data.len() <= RECEIPT_BYTES_MAX);
    let sig = VECTORS.signed_for(&parsed.by, "receipt", data);
    let Ok(unverified) = UnverifiedReceipt::parse(Bytes::copy_from_slice(data), sig, &VECTORS.mesh) else {
        return;
    };
    if let Some(member) = VECTORS.roster().member(unverified.by())
        && let Ok(receipt) = unverified.verify(&member.verify_key)
    {
        assert_eq!(*receipt, parsed);
    }
}

/// A member's prekey.
pub fn prekey(data: &[u8]) {
    let Ok(parsed) = Prekey::parse(data) else { return };
    assert_eq!(parsed.encode(), data);
    let sig = VECTORS.signed_for(&parsed.member, "prekey", data);
    if let Ok(prekey) = SignedPrekey::parse_verified(data, &sig, &VECTORS.mesh, parsed.nbf) {
        assert_eq!(*prekey, parsed);
    }
}

/// A revocation met off the log.
pub fn revoke(data: &[u8]) {
    let Ok(parsed) = Revoke::parse(data) else { return };
    assert_eq!(parsed.encode(), data);
    let sig = VECTORS.signed_for(&parsed.author, "revoke", data);
    if let Ok(revoke) = SignedRevoke::parse_verified(data, &sig, &VECTORS.mesh) {
        for roster in &VECTORS.rosters {
            let mut set = peerloom_proto::RevocationSet::default();
            let taken = set.insert(revoke.clone(), roster).unwrap_or(false);
            assert_eq!(set.iter().count(), usize::from(taken));
        }
    }
}

/// A session's attestation, alone and in its wire form.
pub fn attestation(data: &[u8]) {
    if let Ok(attestation) = VerifiedAttestation::open(data, &VECTORS.mesh, VECTORS.now) {
        assert_eq!(attestation.encode(), data);
    }
    let Ok(parsed) = SessionAttestation::parse(data) else { return };
    let member = VECTORS.signed_for(&parsed.member, "session-attest", data);
    let session = VECTORS.signed_for(&parsed.session, "session-accept", data);
    if let Ok(attestation) = VerifiedAttestation::verify(data, &member, &session, &VECTORS.mesh, parsed.nbf) {
        assert_eq!(*attestation.get(), parsed);
    }
}

/// Cap, claim, blob and code.
pub fn invite(data: &[u8]) {
    let code = &VECTORS.code;
    code.open_blob(data).map(drop).unwrap_or_default();
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(code) = text.parse::<InviteCode>()
    {
        assert_eq!(code.to_string().parse::<InviteCode>().map(|again| again.lookup()), Ok(code.lookup()));
    }
    assert_eq!(crockford(data, 6).len(), 6);
    if let Ok(cap) = InviteCap::parse(data) {
        assert_eq!(cap.encode(), data);
        let sig = VECTORS.signed_for(&cap.inviter, "invite-cap", data);
        if let Ok(signed) = SignedCap::parse_verified(data, &sig) {
            assert!(code.seal_blob(&signed, [1; 24]).len() <= STATEMENT_BYTES_MAX);
            for roster in &VECTORS.rosters {
                signed.check_for_joiner(roster, VECTORS.now).unwrap_or_default();
                let claim = VECTORS.claim.claim();
                let (claim, proof) = ((&**claim.stmt(), &claim.sig()), VECTORS.claim.proof());
                verify_invite((data, &sig), claim, &proof, roster, VECTORS.now).map(drop).unwrap_or_default();
            }
        }
    }
    if let Ok(claim) = InviteClaim::parse(data) {
        assert_eq!(claim.encode(), data);
        let sig = VECTORS.signed_for(&claim.joiner, "invite-claim", data);
        let proof = code.signing_key().sign("invite-proof", &[data]);
        if let Ok(signed) = SignedClaim::parse_verified(data, &sig, &proof, &VECTORS.cap) {
            assert_eq!(**signed.claim(), claim);
        }
    }
}

/// The two texts people type.
pub fn origin_handle(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(origin) = Origin::parse(text) {
        assert_eq!(origin.as_str(), text);
        assert!(!origin.host().is_empty() && origin.port() != 0);
    }
    if let Ok(origin) = Origin::from_typed(text) {
        assert_eq!(Origin::parse(origin.as_str()), Ok(origin.clone()));
    }
    if let Ok(handle) = Handle::parse(text) {
        assert_eq!(handle.as_str(), text);
    }
    VECTORS.roster().resolve(text).map(drop).unwrap_or_default();
}
