//! Envelopes of the vector file: sealed to the same bytes, opened, and refused for the reason named.

use std::collections::BTreeSet;

use bytes::Bytes;
use crypto_box::SalsaBox;
use peerloom_proto::{
    AttestationHash, Body, BoxPublicKey, BoxSecretKey, Fresh, GroupId, Header, Kid, Opened, PeerId, Receiver,
    Reject, Roster, SenderBox, SessionAttestation, UnixMs, UnverifiedEnvelope, Value, encode, hash,
    receiver_box, seal,
};
use serde_json::Value as Json;

use super::{NOW, Vectors, array, bytes, field};

/// Bob as the vectors describe him, changed by a case's context.
struct Reader {
    roster: Roster,
    me: BTreeSet<PeerId>,
    revoked: BTreeSet<PeerId>,
    attestation: (AttestationHash, SessionAttestation),
    secret: Option<BoxSecretKey>,
    shared: Option<SalsaBox>,
    topic: Option<(GroupId, Kid, [u8; 32])>,
    now: UnixMs,
}

impl Reader {
    fn of(vectors: &Vectors, context: &Json) -> Self {
        let stmt = vectors.hex("session_attestation.stmt");
        let attestation = SessionAttestation::parse(&stmt).expect("the attestation of the vectors");
        let topic = Header::decode(&vectors.hex("topic.hdr")).expect("the topic header");
        let peerloom_proto::Recipient::Group(group) = topic.to else { panic!("a topic id") };
        let keys = |name: &str| context.get(name).map(|list| list.as_array().expect("a list").clone());
        let ids = |name| keys(name).map(|list| list.iter().map(|key| PeerId(array(key))).collect());
        let closed = context.get("no_keys").is_some_and(|no| no.as_bool().expect("a truth value"));
        Self {
            roster: vectors.roster(),
            me: ids("me").unwrap_or_else(|| BTreeSet::from([vectors.id("bob")])),
            revoked: ids("revs").unwrap_or_default(),
            attestation: (AttestationHash(hash("attest", &[&stmt])), attestation),
            secret: (!closed).then(|| BoxSecretKey::from_bytes(vectors.array("xkeys.bob-x.sk"))),
            shared: None,
            topic: Some((group, topic.kid, vectors.array("topic.key"))),
            now: context.get("now").map_or(NOW, |now| UnixMs(now.as_u64().expect("milliseconds"))),
        }
    }

    fn read(&mut self, vectors: &Vectors, wire: Vec<u8>) -> Result<Opened, Reject> {
        let envelope = UnverifiedEnvelope::parse(Bytes::from(wire))?;
        let fresh: Fresh = envelope
            .verify(&vectors.mesh(), |from| self.roster.member(from).map(|member| &member.verify_key))?
            .admit(None)
            .expect("nothing was seen before");
        fresh.open(self)
    }
}

impl Receiver for Reader {
    fn roster(&self) -> &Roster {
        &self.roster
    }
    fn is_revoked(&self, key: &PeerId, _holder: &PeerId) -> bool {
        self.revoked.contains(key)
    }
    fn is_me(&self, peer: &PeerId) -> bool {
        self.me.contains(peer)
    }
    fn reads(&self, group: &GroupId) -> bool {
        self.topic.is_some_and(|(topic, _, _)| topic == *group)
    }
    fn attestation(&self, hash: &AttestationHash) -> Option<&SessionAttestation> {
        (self.attestation.0 == *hash).then_some(&self.attestation.1)
    }
    fn holds(&self, kid: &Kid) -> bool {
        self.secret.as_ref().is_some_and(|secret| secret.public().kid() == *kid)
    }
    fn shared_box(&mut self, _kid: &Kid, sender: &BoxPublicKey) -> Option<&SalsaBox> {
        self.shared = self.secret.as_ref().map(|secret| receiver_box(secret, sender));
        self.shared.as_ref()
    }
    fn secret_key(&self, kid: &Kid) -> Option<&[u8; 32]> {
        self.topic.as_ref().filter(|(_, known, _)| known == kid).map(|(_, _, key)| key)
    }
    fn now(&self) -> UnixMs {
        self.now
    }
    fn floor(&self) -> UnixMs {
        UnixMs(0)
    }
}

fn frame(parts: [&[u8]; 3], version: u64) -> Vec<u8> {
    let [hdr, ct, sig] = parts.map(Value::Bytes);
    encode(&Value::Array(vec![Value::Uint(version), hdr, ct, sig]))
}

#[test]
fn the_dm_seals_to_the_vectors_bytes() {
    let vectors = Vectors::load();
    let header = Header::decode(&vectors.hex("dm.hdr")).expect("the header of the vectors");
    let secret = BoxSecretKey::from_bytes(vectors.array("dm.eph_sk"));
    let recipient = BoxPublicKey::parse(vectors.array("xkeys.bob-x.x25519_pk")).expect("bob's key");
    let sender = SenderBox::new(&secret, &recipient);
    let body = vectors.hex("dm.body");
    let sealed = seal(header, &body, &sender, &vectors.array("dm.rng32"), &vectors.key("alice-session"));
    let sealed = sealed.expect("it fits");
    assert_eq!(sealed.wire, vectors.hex("dm.wire_cbor"));
    assert_eq!(sealed.env_hash.0, vectors.array("dm.env_hash"));
    assert_eq!(hash("hdr", &[&vectors.hex("dm.hdr")]), vectors.array("dm.hdr_hash"));
}

#[test]
fn the_dm_opens_to_its_body() {
    let vectors = Vectors::load();
    let mut reader = Reader::of(&vectors, &Json::Null);
    let opened = reader.read(&vectors, vectors.hex("dm.wire_cbor")).expect("it opens");
    assert_eq!(opened.body, vectors.hex("dm.body"));
    assert_eq!(opened.env_hash.0, vectors.array("dm.env_hash"));
    let body = Body::decode(&opened.body).expect("a body");
    assert_eq!(
        (body.message.content_type.as_str(), &*body.message.content),
        ("text/plain", &b"hello bob"[..])
    );
    assert_eq!(Bytes::from(body.encode()), opened.body);
}

#[test]
fn the_topic_message_opens_under_its_committed_key() {
    let vectors = Vectors::load();
    let (hdr, ct, sig) = (vectors.hex("topic.hdr"), vectors.hex("topic.ct"), vectors.hex("topic.sig"));
    let mut reader = Reader::of(&vectors, &Json::Null);
    let opened = reader.read(&vectors, frame([&hdr, &ct, &sig], 2)).expect("it opens");
    Body::decode(&opened.body).expect("a body");
    let (group, kid, key) = reader.topic.expect("a topic");
    let epoch = u32::try_from(vectors.at("topic.epoch").as_u64().expect("a number")).expect("32 bits");
    let commit = hash("topic-key", &[&vectors.mesh().0, &group.0, &epoch.to_be_bytes(), &key]);
    assert_eq!(commit, vectors.array("topic.commit"));
    assert_eq!(kid.0[..], commit[..16]);
}

#[test]
fn every_negative_envelope_is_refused_for_the_reason_it_names() {
    let vectors = Vectors::load();
    let negatives = vectors.at("negative").as_array().expect("a list");
    let mut checked = 0;
    for case in negatives.iter().filter(|case| field(case, "type") == "envelope") {
        let wire = field(case, "wire").as_array().expect("a list");
        let [hdr, ct, sig] = [1, 2, 3].map(|part| bytes(&wire[part]));
        let wire = frame([&hdr, &ct, &sig], wire[0].as_u64().expect("a version"));
        let mut reader = Reader::of(&vectors, field(case, "ctx"));
        let refused = reader.read(&vectors, wire).map(|_| "opened".to_owned()).map_err(Reject::reason);
        let want = field(case, "want").as_str().expect("a text").to_owned();
        assert_eq!(refused, Err(want), "{}", field(case, "name"));
        checked += 1;
    }
    assert!(checked > 0, "the file has no envelope negatives");
}
