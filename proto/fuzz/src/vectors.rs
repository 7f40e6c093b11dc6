//! The mesh of the vector file: keys, log, and one of each statement.

use std::sync::LazyLock;

use peerloom_proto::{
    Answer, AttestationHash, Bind, BoxSecretKey, Challenge, HelloRole, IdentityKey, InstanceId, InviteCode,
    MeshId, Origin, PeerId, Roster, SessionAttestation, Signature, SignedCap, SignedClaim, SignedHello,
    UnixMs, WireEntry, hash, verify_hello,
};
use serde_json::Value as Json;

/// Read once.
pub(crate) static VECTORS: LazyLock<Vectors> = LazyLock::new(Vectors::load);

const FILE: &str = include_str!("../../../tests/vectors/peerloom2.json");

pub(crate) struct Vectors {
    json: Json,
    keys: Vec<IdentityKey>,
    pub(crate) mesh: MeshId,
    /// The log at each of its lengths.
    pub(crate) rosters: Vec<Roster>,
    pub(crate) coordinator: IdentityKey,
    pub(crate) alice: IdentityKey,
    pub(crate) bob: IdentityKey,
    pub(crate) challenge: Vec<u8>,
    pub(crate) bind: Bind,
    pub(crate) code: InviteCode,
    pub(crate) cap: SignedCap,
    pub(crate) claim: SignedClaim,
    pub(crate) attestation: (AttestationHash, SessionAttestation),
    pub(crate) now: UnixMs,
}

impl Vectors {
    fn load() -> Self {
        let json: Json = serde_json::from_str(FILE).expect("the vector file is JSON");
        let keys = json["keys"].as_object().expect("keys").values();
        let key = |name: &str| IdentityKey::from_seed(&array(&json["keys"][name]["seed"]));
        let entries: Vec<WireEntry> =
            json["log"]["entries"].as_array().expect("a log").iter().map(named_entry).collect();
        let mut rosters = vec![Roster::begin(&entries[0]).expect("a genesis")];
        for entry in &entries[1..] {
            let mut roster = rosters[rosters.len() - 1].clone();
            roster.append(entry).expect("the log holds");
            rosters.push(roster);
        }
        let stmt = bytes(&json["session_attestation"]["stmt"]);
        let attested = SessionAttestation::parse(&stmt).expect("an attestation");
        let invite = &json["invite"];
        let sig = |name: &str| Signature(array(&invite[name]));
        let cap = SignedCap::parse_verified(&bytes(&invite["cap"]), &sig("cap_sig")).expect("a cap");
        let claim = bytes(&invite["claim"]);
        let claim = SignedClaim::parse_verified(&claim, &sig("claim_sig"), &sig("claim_proof"), &cap)
            .expect("a claim");
        Self {
            keys: keys.map(|key| IdentityKey::from_seed(&array(&key["seed"]))).collect(),
            mesh: rosters[0].mesh_id(),
            rosters,
            coordinator: key("coord"),
            alice: key("alice"),
            bob: key("bob"),
            challenge: bytes(&json["hello"]["challenge"]),
            bind: Bind::parse(&bytes(&json["bind"]["stmt"])).expect("a bind"),
            code: invite["code"].as_str().expect("a text").parse().expect("a code"),
            cap,
            claim,
            attestation: (AttestationHash(hash("attest", &[&stmt])), attested),
            now: UnixMs(1_800_000_000_000),
            json,
        }
    }

    /// Hex at a dotted path.
    pub(crate) fn hex(&self, path: &str) -> Vec<u8> {
        bytes(path.split('.').fold(&self.json, |json, key| &json[key]))
    }

    /// Cases that must be refused: their kind, and the bytes they have.
    pub(crate) fn negatives(&self) -> impl Iterator<Item = (&str, &Json)> {
        let cases = self.json["negative"].as_array().expect("cases");
        cases.iter().map(|case| (case["type"].as_str().expect("a text"), case))
    }

    pub(crate) fn entries(&self) -> Vec<WireEntry> {
        let log = self.json["log"]["entries"].as_array().expect("a log");
        let more = [&self.json["self_admission"], &self.json["revoke_entry"]];
        log.iter().chain(more).map(named_entry).collect()
    }

    pub(crate) fn secret(&self) -> BoxSecretKey {
        BoxSecretKey::from_bytes(array(&self.json["xkeys"]["bob-x"]["sk"]))
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.rosters[self.rosters.len() - 1]
    }

    pub(crate) fn key_of(&self, id: &PeerId) -> Option<&IdentityKey> {
        self.keys.iter().find(|key| key.id() == *id)
    }

    /// The signature of whoever is named, as far as its key is known.
    pub(crate) fn signed_for(&self, id: &PeerId, label: &str, stmt: &[u8]) -> Signature {
        self.key_of(id).map_or(Signature([0; 64]), |key| key.sign(label, &[stmt]))
    }

    pub(crate) fn origin(&self) -> Origin {
        self.roster().coordinators()[0].1.clone()
    }

    pub(crate) fn challenged_at(&self) -> UnixMs {
        Challenge::parse(&self.challenge).expect("a challenge").ts
    }

    pub(crate) fn hello(&self) -> SignedHello {
        let at = self.challenged_at();
        let check = peerloom_proto::HelloCheck {
            challenge: &self.challenge,
            challenged_at: at,
            coordinator: &self.coordinator.id(),
            origin: &self.origin(),
            now: at,
        };
        let sig = Signature(array(&self.json["hello"]["sig"]));
        verify_hello(&self.hex("hello.hello"), &sig, &check).expect("a hello")
    }

    pub(crate) fn answer(&self) -> Answer<'_> {
        static ORIGIN: LazyLock<Origin> = LazyLock::new(|| VECTORS.origin());
        Answer {
            identity: &self.bob,
            role: HelloRole::ControlPlane,
            auth: None,
            mesh: self.mesh,
            coordinators: self.roster().coordinators(),
            origin: &ORIGIN,
            nonce: [1; 32],
            features: &[],
            head: self.roster().head(),
            instance: InstanceId([2; 16]),
            counter: 1,
            mark: None,
            now: self.challenged_at(),
        }
    }
}

fn named_entry(json: &Json) -> WireEntry {
    wire_entry(&json["stmt"], &json["sig"], json.get("seq"))
}

/// An entry with its author's signature.
pub(crate) fn wire_entry(stmt: &Json, sig: &Json, seq: Option<&Json>) -> WireEntry {
    let seq = seq.map(|seq| Signature(array(seq)));
    let mut entry = WireEntry { stmt: bytes(stmt).into(), sigs: Vec::new(), seq };
    let author = entry.entry().map_or(PeerId([0; 32]), |parsed| parsed.author);
    entry.sigs.push((author, Signature(array(sig))));
    entry
}

pub(crate) fn bytes(json: &Json) -> Vec<u8> {
    hex::decode(json.as_str().expect("a hex text")).expect("hex digits")
}

fn array<const N: usize>(json: &Json) -> [u8; N] {
    bytes(json).try_into().expect("as many bytes as the protocol says")
}
