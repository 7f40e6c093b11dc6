//! The frozen bytes of the protocol: every positive case holds, every negative one is refused for
//! exactly the reason it names.
//!
//! `PEERLOOM_VECTORS=FILE` reads another file of the same form. Envelopes, their bodies and topics
//! are in `envelope.rs`; everything else is here.

mod envelope;

use std::path::PathBuf;

use peerloom_proto::{
    AttestationHash, BindCheck, BindRole, BindTransport, BoxSecretKey, CapHash, CertHash, Challenge, ConnId,
    EntryHash, EntryKind, Head, Hello, HelloCheck, IdentityKey, InviteCode, InviteError, LogError, MeshId,
    PeerId, ReceiptCode, ReceiptStatus, Role, Roster, Signature, SignedCap, SignedClaim, SignedRevoke,
    UnixMs, UnverifiedReceipt, VerifiedAttestation, VerifyKey, WireEntry, crockford, decode, hash, signed_by,
    verify_bind, verify_hello, verify_invite, verify_welcome,
};
use serde_json::Value as Json;

/// A vector file, with accessors that name what is missing.
pub(crate) struct Vectors(Json);

impl Vectors {
    pub(crate) fn load() -> Self {
        let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/peerloom2.json"));
        let path = std::env::var_os("PEERLOOM_VECTORS").map_or_else(beside, PathBuf::from);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(serde_json::from_str(&text).expect("the vector file is JSON"))
    }

    /// The value at a dotted path.
    pub(crate) fn at(&self, path: &str) -> &Json {
        path.split('.').fold(&self.0, |json, key| field(json, key))
    }

    pub(crate) fn hex(&self, path: &str) -> Vec<u8> {
        bytes(self.at(path))
    }

    pub(crate) fn array<const N: usize>(&self, path: &str) -> [u8; N] {
        array(self.at(path))
    }

    pub(crate) fn sig(&self, path: &str) -> Signature {
        Signature(self.array(path))
    }

    pub(crate) fn key(&self, name: &str) -> IdentityKey {
        IdentityKey::from_seed(&array(field(field(self.at("keys"), name), "seed")))
    }

    pub(crate) fn id(&self, name: &str) -> PeerId {
        PeerId(array(field(field(self.at("keys"), name), "ed25519_pk")))
    }

    pub(crate) fn mesh(&self) -> MeshId {
        MeshId(self.array("log.mesh_id"))
    }

    /// The vector's log, replayed.
    pub(crate) fn roster(&self) -> Roster {
        let entries = self.at("log.entries").as_array().expect("log.entries is a list");
        let mut entries = entries.iter().map(wire_entry);
        let mut roster = Roster::begin(&entries.next().expect("a genesis")).expect("the genesis holds");
        for entry in entries {
            roster.append(&entry).expect("the log holds");
        }
        roster
    }
}

pub(crate) fn field<'a>(json: &'a Json, key: &str) -> &'a Json {
    json.get(key).unwrap_or_else(|| panic!("the vector file lacks {key:?}"))
}

pub(crate) fn bytes(json: &Json) -> Vec<u8> {
    hex::decode(json.as_str().expect("a hex text")).expect("hex digits")
}

pub(crate) fn array<const N: usize>(json: &Json) -> [u8; N] {
    bytes(json)
        .try_into()
        .unwrap_or_else(|found: Vec<u8>| panic!("{N} bytes expected, {} found", found.len()))
}

/// An entry given as {stmt, sig, seq?}; the one signer is the author.
fn wire_entry(json: &Json) -> WireEntry {
    let seq = json.get("seq").map(|seq| Signature(array(seq)));
    one_signature(bytes(field(json, "stmt")), Signature(array(field(json, "sig"))), seq)
}

fn one_signature(stmt: Vec<u8>, sig: Signature, seq: Option<Signature>) -> WireEntry {
    let mut entry = WireEntry { stmt: stmt.into(), sigs: Vec::new(), seq };
    // A statement that does not parse has no author; it is refused before signatures are looked at.
    let author = entry.entry().map_or(PeerId([0; 32]), |parsed| parsed.author);
    entry.sigs.push((author, sig));
    entry
}

#[test]
fn every_section_of_the_vector_file_is_known() {
    let known = [
        "note",
        "keys",
        "xkeys",
        "log",
        "session_attestation",
        "dm",
        "topic",
        "hello",
        "bind",
        "invite",
        "self_admission",
        "revoke_entry",
        "receipt",
        "negative",
    ];
    let vectors = Vectors::load();
    for section in known {
        vectors.at(section);
    }
    for section in vectors.0.as_object().expect("an object").keys() {
        assert!(known.contains(&section.as_str()), "no test knows the section {section:?}");
    }
}

#[test]
fn seeds_and_secrets_give_the_public_keys_and_kids_of_the_vectors() {
    let vectors = Vectors::load();
    for (name, key) in vectors.at("keys").as_object().expect("an object") {
        assert_eq!(vectors.key(name).id(), PeerId(array(field(key, "ed25519_pk"))), "{name}");
    }
    for (name, key) in vectors.at("xkeys").as_object().expect("an object") {
        let public = BoxSecretKey::from_bytes(array(field(key, "sk"))).public();
        assert_eq!(*public.as_bytes(), array::<32>(field(key, "x25519_pk")), "{name}");
        assert_eq!(public.kid().0, array(field(key, "kid")), "{name}");
    }
}

#[test]
fn the_log_of_the_vectors_replays_to_its_head() {
    let vectors = Vectors::load();
    let roster = vectors.roster();
    assert_eq!(roster.mesh_id(), vectors.mesh());
    let head = vectors.at("log.head").as_array().expect("[size, hash]");
    assert_eq!(
        roster.head(),
        Head { size: head[0].as_u64().expect("a size"), hash: EntryHash(array(&head[1])) }
    );
    let coordinator = VerifyKey::parse(&vectors.id("coord")).expect("a key");
    for (index, json) in vectors.at("log.entries").as_array().expect("a list").iter().enumerate() {
        let entry = wire_entry(json);
        assert_eq!(entry.entry_hash(), EntryHash(array(field(json, "hash"))), "entry {index}");
        assert_eq!(roster.entry_hash(index as u64), Some(entry.entry_hash()), "entry {index}");
        assert_eq!(entry.sequenced_by(&coordinator, &vectors.mesh()), index > 0, "entry {index}");
        assert_eq!(roster.verify_seq(&entry), index > 0, "entry {index}");
        assert_eq!(WireEntry::parse(&entry.encode()).as_ref(), Ok(&entry), "entry {index}");
    }
    let role = |name| roster.member(&vectors.id(name)).map(|member| (member.handle.as_str(), member.role));
    assert_eq!(role("admin"), Some(("ops", Role::Admin)));
    assert_eq!(role("bob"), Some(("bob", Role::Member)));
    assert_eq!(role("owner"), None);
}

#[test]
fn entries_signed_here_are_the_vectors_bytes() {
    let vectors = Vectors::load();
    let roster = vectors.roster();
    let revoke = wire_entry(vectors.at("revoke_entry"));
    let EntryKind::Revoke { stmt, sig, .. } = revoke.entry().expect("it parses").kind else {
        panic!("revoke_entry is a revoke")
    };
    let revoke_stmt = SignedRevoke::parse_verified(&stmt, &sig, &vectors.mesh()).expect("it is signed");
    let admin = vectors.key("admin");
    assert_eq!(SignedRevoke::sign(&admin, (*revoke_stmt).clone()), revoke_stmt);
    let mut built = roster.revoke_entry(&admin, &revoke_stmt, revoke.entry().expect("it parses").ts);
    built = built.sequence(&vectors.key("coord"), &vectors.mesh()).expect("it parses");
    assert_eq!(built, revoke);

    let (cap, _) = invite(&vectors, &roster);
    assert_eq!(SignedCap::sign(&admin, (*cap).clone()), cap);
}

#[test]
fn the_session_attestation_holds() {
    let vectors = Vectors::load();
    let verified = VerifiedAttestation::verify(
        &vectors.hex("session_attestation.stmt"),
        &vectors.sig("session_attestation.sig_member"),
        &vectors.sig("session_attestation.sig_session"),
        &vectors.mesh(),
        NOW,
    )
    .expect("the attestation holds");
    assert_eq!(verified.hash(), AttestationHash(vectors.array("session_attestation.hash")));
    assert_eq!(verified.get().member, vectors.id("alice"));
    assert_eq!(verified.get().session, vectors.id("alice-session"));
    assert!(vectors.roster().contains_head(&verified.get().head));
    let signed = verified.get().clone().sign(&vectors.key("alice"), &vectors.key("alice-session"));
    assert_eq!(signed, verified);
    assert_eq!(VerifiedAttestation::open(&verified.encode(), &vectors.mesh(), NOW), Ok(verified));
}

#[test]
fn hello_and_welcome_hold() {
    let vectors = Vectors::load();
    let challenge = vectors.hex("hello.challenge");
    let parsed = Challenge::parse(&challenge).expect("the challenge parses");
    assert_eq!(parsed.encode(), challenge);
    let check = HelloCheck {
        challenge: &challenge,
        challenged_at: parsed.ts,
        coordinator: &vectors.id("coord"),
        origin: &parsed.origin,
        now: NOW,
    };
    let stmt = vectors.hex("hello.hello");
    let hello = verify_hello(&stmt, &vectors.sig("hello.sig"), &check).expect("the hello holds");
    assert_eq!(hello.id, vectors.id("alice-session"));
    assert_eq!(Hello::encode(&hello), stmt);
    assert_eq!(vectors.key("alice-session").sign("hello", &[&stmt]), vectors.sig("hello.sig"));

    let stmt = vectors.hex("hello.welcome");
    let welcome =
        verify_welcome(&stmt, &vectors.sig("hello.welcome_sig"), &hello, NOW).expect("the welcome holds");
    assert_eq!(welcome.encode(), stmt);
    assert_eq!(welcome.frame_bytes_max, peerloom_proto::limits::FRAME_BYTES_MAX as u64);
    assert_eq!(welcome.lease, peerloom_proto::limits::PRESENCE_LEASE);
}

#[test]
fn the_bind_holds_for_the_reader_it_is_meant_for() {
    let vectors = Vectors::load();
    let stmt = vectors.hex("bind.stmt");
    let value = decode(&stmt, 4096).expect("it parses");
    let mut fields = value.fields().expect("a map");
    let mut raw = |key| fields.take(key).expect("a field");
    let (mesh, conn) = (MeshId(raw(0).array().expect("32 bytes")), ConnId(raw(1).array().expect("16 bytes")));
    let (from, to) = (PeerId(raw(2).array().expect("a key")), PeerId(raw(3).array().expect("a key")));
    let (_role, _transport) = (raw(4), raw(5));
    let own = CertHash(raw(6).array().expect("a hash"));
    let peer = CertHash(raw(7).array().expect("a hash"));
    let exporter = raw(8).bytes().expect("bytes").to_vec();
    assert_eq!((mesh, from, to), (vectors.mesh(), vectors.id("alice-session"), vectors.id("bob")));
    let check = BindCheck {
        mesh,
        conn,
        from,
        to,
        role: BindRole::Dialler,
        transport: BindTransport::Quic,
        cert_observed: own,
        cert_signalled: own,
        own_cert: peer,
        exporter: &exporter,
        now: NOW,
    };
    let bind = verify_bind(&stmt, &vectors.sig("bind.sig"), &check).expect("the bind holds");
    assert_eq!(bind.encode(), stmt);
}

#[test]
fn the_invite_opens_with_its_code_and_its_claim_holds() {
    let vectors = Vectors::load();
    let text = vectors.at("invite.code").as_str().expect("a text");
    let code: InviteCode = text.parse().expect("a code");
    assert_eq!(code.to_string(), text);
    assert_eq!(code.lookup().0, vectors.array("invite.lookup"));
    let nonce: [u8; 24] = vectors.array("invite.blob_nonce");
    let blob = [nonce.to_vec(), vectors.hex("invite.blob")].concat();
    let cap = code.open_blob(&blob).expect("the blob opens");
    assert_eq!(cap.stmt()[..], vectors.hex("invite.cap")[..]);
    assert_eq!(cap.sig(), vectors.sig("invite.cap_sig"));
    assert_eq!(cap.encode(), vectors.hex("invite.cap"));
    assert_eq!(cap.key, code.signing_key().id());
    assert_eq!(code.seal_blob(&cap, nonce), blob);

    let roster = vectors.roster();
    let (cap, claim) = invite(&vectors, &roster);
    assert_eq!(claim.claim().encode(), vectors.hex("invite.claim"));
    let CapHash(cap_hash) = cap.hash();
    assert_eq!(cap_hash, hash("invite-cap", &[cap.stmt()]));
    cap.check_for_joiner(&roster, NOW).expect("the log is the cap's");
}

#[test]
fn the_formulas_of_confirmed_invites_hold() {
    let vectors = Vectors::load();
    let (cap, claim) = (vectors.hex("invite.cap"), vectors.hex("invite.claim"));
    let nonce = vectors.hex("invite.admit_nonce");
    let commit = hash("claim-commit", &[&claim]);
    assert_eq!(commit, vectors.array("invite.claim_commit"));
    let sig = vectors.sig("invite.admit_nonce_sig");
    assert!(signed_by(&vectors.id("admin"), &sig, "admit-nonce", &[&commit, &nonce]));
    let sas = crockford(&hash("sas", &[&cap, &claim, &nonce])[..5], 6);
    assert_eq!(sas, vectors.at("invite.sas").as_str().expect("a text"));
    let sealing = BoxSecretKey::from_bytes(vectors.array("invite.joiner_seal_sk")).public();
    let claim = peerloom_proto::InviteClaim::parse(&claim).expect("the claim parses");
    assert_eq!(claim.sealing, sealing);
}

#[test]
fn the_self_admission_holds() {
    let vectors = Vectors::load();
    let mut roster = vectors.roster();
    let entry = wire_entry(vectors.at("self_admission"));
    assert_eq!(entry.entry_hash(), EntryHash(vectors.array("self_admission.hash")));
    assert!(roster.verify_seq(&entry));
    roster.append(&entry).expect("the joiner is admitted");
    let carol = roster.by_handle("carol").expect("carol is a member");
    assert_eq!(carol.role, Role::Member);
    assert_eq!(carol.admitted_by, vectors.id("admin"));
    let (cap, claim) = invite(&vectors, &vectors.roster());
    assert_eq!(carol.prekey, Some(claim.claim().prekey));
    assert_eq!(roster.invite_uses(&cap.hash()), 1);
}

#[test]
fn the_revoke_entry_holds() {
    let vectors = Vectors::load();
    let mut roster = vectors.roster();
    let entry = wire_entry(vectors.at("revoke_entry"));
    assert_eq!(entry.entry_hash(), EntryHash(vectors.array("revoke_entry.hash")));
    assert!(roster.verify_seq(&entry));
    roster.append(&entry).expect("mallory is revoked");
    assert!(roster.active(&vectors.id("mallory")).is_none());
    assert!(roster.active(&vectors.id("bob")).is_some());
}

#[test]
fn the_receipt_holds() {
    let vectors = Vectors::load();
    let stmt = vectors.hex("receipt.stmt");
    let receipt = UnverifiedReceipt::parse(stmt.clone().into(), vectors.sig("receipt.sig"), &vectors.mesh());
    let receipt = receipt.expect("the receipt parses");
    assert_eq!(*receipt.by(), vectors.id("bob"));
    let key = VerifyKey::parse(receipt.by()).expect("a key");
    let receipt = receipt.verify(&key).expect("the receipt holds");
    assert_eq!(receipt.encode(), stmt);
    assert_eq!(receipt.to, vectors.id("alice-session"));
    let rows: Vec<_> = receipt.rows.iter().map(|row| (row.status, row.code)).collect();
    let retry = (ReceiptStatus::Retry, Some(ReceiptCode::UNKNOWN_KID));
    assert_eq!(rows, [(ReceiptStatus::Stored, None), retry]);
}

#[test]
fn every_negative_vector_is_refused_for_the_reason_it_names() {
    let vectors = Vectors::load();
    let negatives = vectors.at("negative").as_array().expect("a list");
    let mut checked = 0;
    for case in negatives {
        let text = |key| field(case, key).as_str().expect("a text");
        let refused = match text("type") {
            "decode" => {
                decode(&bytes(field(case, "bytes")), usize::MAX).map(drop).map_err(|error| error.to_string())
            }
            "log" => replay(case).map_err(|error| error.reason()),
            "attestation" => attestation(&vectors, case),
            "invite" => negative_invite(&vectors, case).map_err(InviteError::reason),
            // In envelope.rs, with the steps of receiving.
            "envelope" => continue,
            other => panic!("no test knows the type {other:?} of {:?}", text("name")),
        };
        assert_eq!(refused, Err(text("want").to_owned()), "{}", text("name"));
        checked += 1;
    }
    assert!(checked > 0, "the file has no negatives");
}

/// Replays {entries: [[stmt, sig]…]} up to the first that is refused, by the coordinator's question
/// and by the node's step alike.
fn replay(case: &Json) -> Result<(), LogError> {
    let entries = field(case, "entries").as_array().expect("a list");
    let mut entries =
        entries.iter().map(|pair| one_signature(bytes(&pair[0]), Signature(array(&pair[1])), None));
    let mut roster = Roster::begin(&entries.next().expect("a genesis"))?;
    for entry in entries {
        roster.check(&entry)?;
        roster.append(&entry)?;
    }
    Ok(())
}

fn attestation(vectors: &Vectors, case: &Json) -> Result<(), String> {
    VerifiedAttestation::verify(
        &bytes(field(case, "stmt")),
        &Signature(array(field(case, "sig_member"))),
        &Signature(array(field(case, "sig_session"))),
        &vectors.mesh(),
        now(case),
    )
    .map(drop)
    .map_err(|error| error.to_string())
}

fn negative_invite(vectors: &Vectors, case: &Json) -> Result<(), InviteError> {
    let sig = |key| Signature(array(field(case, key)));
    let (cap, claim) = (bytes(field(case, "cap")), bytes(field(case, "claim")));
    let (cap, claim) = ((&*cap, &sig("cap_sig")), (&*claim, &sig("claim_sig")));
    verify_invite(cap, claim, &sig("claim_proof"), &vectors.roster(), now(case)).map(drop)
}

fn invite(vectors: &Vectors, roster: &Roster) -> (SignedCap, SignedClaim) {
    let (cap, claim) = (vectors.hex("invite.cap"), vectors.hex("invite.claim"));
    let cap = (&*cap, &vectors.sig("invite.cap_sig"));
    let claim = (&*claim, &vectors.sig("invite.claim_sig"));
    verify_invite(cap, claim, &vectors.sig("invite.claim_proof"), roster, NOW).expect("the invite holds")
}

fn now(case: &Json) -> UnixMs {
    case.get("now").map_or(NOW, |now| UnixMs(now.as_u64().expect("milliseconds")))
}

/// What the vectors are read at unless they say otherwise.
pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);
