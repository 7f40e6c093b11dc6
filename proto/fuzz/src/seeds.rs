//! Where the fuzzers begin: the vectors' statements, good and bad, and a few scripts.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::ice::IceCredentials;
use peerloom_proto::paths::{Candidate, CandidateKind, Mapping, Nat, Ports, Reach};
use peerloom_proto::wire::{OnLink, ToCoordinator, ToNode};
use peerloom_proto::{
    Body, BoxSecretKey, CertHash, EnvHash, Generation, InviteLookup, Means, Message, MessageId, Place,
    Revoke, RevokeKind, Signal, Signature, SignedPrekey, UnixMs, Value, WebRtcMeans, encode, stun,
};
use serde_json::Value as Json;

use super::node::{empty_receipt, no_signature, step};
use super::vectors::{VECTORS, bytes, wire_entry};

/// A few files for each target.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let at = |path: &str| VECTORS.hex(path);
    let prekey = SignedPrekey::sign(
        &VECTORS.alice,
        VECTORS.mesh,
        BoxSecretKey::from_bytes([1; 32]).public(),
        VECTORS.now.minus(Duration::from_secs(60)),
    );
    let negative =
        |kind: &'static str| VECTORS.negatives().filter(move |(of, _)| *of == kind).map(|(_, case)| case);
    let mut envelopes: Vec<Vec<u8>> = vec![at("dm.wire_cbor")];
    envelopes.extend(negative("envelope").filter_map(|case| case.get("wire")).map(refused_envelope));
    let mut statements: Vec<Vec<u8>> =
        negative("decode").filter_map(|case| case.get("bytes")).map(bytes).collect();
    statements.push(at("dm.hdr"));
    statements.push(at("hello.challenge"));
    let mut entries: Vec<Vec<u8>> = VECTORS.entries().iter().map(|entry| entry.encode()).collect();
    let bad = negative("log").filter_map(|case| case.get("entries")?.as_array()?.last());
    entries.extend(bad.map(|entry| wire_entry(&entry[0], &entry[1], None).encode()));
    vec![
        ("attestation", vec![at("session_attestation.stmt"), attestation()]),
        ("bind", vec![at("bind.stmt")]),
        ("body", vec![at("dm.body"), body(None), body(Some((7, 3)))]),
        ("canonical", statements),
        ("endpoint_uplink", scripts()),
        ("envelope", envelopes),
        ("frame_on_link", on_link()),
        ("frame_to_coordinator", to_coordinator()),
        ("frame_to_node", to_node()),
        ("hello", vec![at("hello.hello")]),
        ("invite", invite()),
        ("log_entry", entries),
        ("origin_handle", texts()),
        ("prekey", vec![prekey.stmt().to_vec()]),
        ("receipt", vec![at("receipt.stmt"), empty_receipt()]),
        ("revoke", vec![revoke()]),
        ("signal", signals()),
        ("stun", datagrams()),
        ("welcome", vec![at("hello.challenge"), at("hello.welcome")]),
    ]
}

/// Requests and answers, with and without credentials, and one that asks for the unknown.
fn datagrams() -> Vec<Vec<u8>> {
    let seen = ["192.0.2.1:7", "[2001:db8::1]:9"].map(|text| text.parse().expect("an address"));
    let odd = hex::decode("000100042112a442b7e7a701bc34d686fa87dfae7abc0000").expect("hex");
    let written = [
        stun::binding_request(&[1; 12]),
        stun::signed_request(&[2; 12], "attempt", b"key"),
        stun::binding_success(&[3; 12], seen[0]),
        stun::signed_success(&[4; 12], seen[1], b"key"),
        stun::unknown_attributes(&[5; 12], &[0x7abc]),
        odd.into(),
    ];
    written.iter().map(|datagram| datagram.to_vec()).collect()
}

/// `[version, hdr, ct, sig]` of a case that must be refused.
fn refused_envelope(wire: &Json) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = (1..4).map(|part| bytes(&wire[part])).collect();
    let version = Value::Uint(wire[0].as_u64().expect("a version"));
    encode(&Value::Array(
        std::iter::once(version).chain(parts.iter().map(|part| Value::Bytes(part))).collect(),
    ))
}

fn attestation() -> Vec<u8> {
    let at = |path: &str| VECTORS.hex(&format!("session_attestation.{path}"));
    let (stmt, member, session) = (at("stmt"), at("sig_member"), at("sig_session"));
    let sigs = Value::Array(vec![Value::Bytes(&member), Value::Bytes(&session)]);
    encode(&Value::Array(vec![Value::Bytes(&stmt), sigs]))
}

fn body(place: Option<(u64, u64)>) -> Vec<u8> {
    let message = Message {
        content_type: "text/plain".to_owned(),
        content: Bytes::from_static(b"hi"),
        reply_to: place.map(|_| MessageId([1; 16])),
    };
    let place = place.map(|(seq, lowest)| Place { generation: Generation([2; 8]), seq, lowest });
    Body { message, place, prekey: place.map(|_| no_signature(vec![0xa0])) }.encode()
}

fn signals() -> Vec<Vec<u8>> {
    let candidates = [
        Candidate { kind: CandidateKind::Reflexive, addr: "192.0.2.7:7".parse().expect("v4") },
        Candidate { kind: CandidateKind::Host, addr: "[2001:db8::1]:9".parse().expect("v6") },
    ];
    let nat = Nat { mapping: Mapping::AddressDependent, ports: Ports::Block { first: 1, last: 9 } };
    let reach = Reach { candidates: candidates.to_vec(), nat, birthday: true };
    let (nonce, offer) = ([1; 16], [2; 16]);
    let ice = IceCredentials::chosen("abcd", "0123456789012345678901");
    let webrtc = Some(WebRtcMeans { cert: CertHash([7; 32]), ice });
    let means = Means { quic: Some(CertHash([8; 32])), webrtc };
    let all = [
        Signal::Offer { nonce, means: Means::quic(CertHash([8; 32])), reach: reach.clone() },
        Signal::Answer { nonce, offer, means, reach: reach.clone() },
        Signal::Decline { offer },
        Signal::Echo { nonce },
        Signal::EchoReply { nonce },
        Signal::Settled { generation: Generation([2; 8]), lowest: 9 },
        Signal::Candidates { nonce, reach },
    ];
    all.iter().map(Signal::encode).collect()
}

fn revoke() -> Vec<u8> {
    let (author, target) = (VECTORS.alice.id(), VECTORS.alice.id());
    let head = VECTORS.roster().head();
    let (mesh, ts) = (VECTORS.mesh, VECTORS.now);
    Revoke { mesh, kind: RevokeKind::Member, target, reason: 1, ts, author, head }.encode()
}

fn invite() -> Vec<Vec<u8>> {
    let at = |path: &str| VECTORS.hex(&format!("invite.{path}"));
    let blob = [at("blob_nonce"), at("blob")].concat();
    vec![at("cap"), at("claim"), at("blob"), blob, VECTORS.code.to_string().into_bytes()]
}

fn texts() -> Vec<Vec<u8>> {
    let texts =
        ["https://mesh.example", "http://[::1]:7700", "HTTP://Example.com:80/", "build-7", "deadbeef"];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn on_link() -> Vec<Vec<u8>> {
    let frames = [
        OnLink::Bind { bind: no_signature(VECTORS.hex("bind.stmt")), attestation: Bytes::new() },
        OnLink::Envelope { envelope: VECTORS.hex("dm.wire_cbor").into() },
        OnLink::Receipt { receipt: no_signature(VECTORS.hex("receipt.stmt")) },
        OnLink::Ping { nonce: 7 },
    ];
    frames.iter().map(|frame| frame.encode().to_vec()).collect()
}

fn to_coordinator() -> Vec<Vec<u8>> {
    let (lookup, request) = (InviteLookup([1; 16]), 3);
    let frames = [
        ToCoordinator::Hello { hello: no_signature(VECTORS.hex("hello.hello")), attestation: Bytes::new() },
        ToCoordinator::Put { envelope: VECTORS.hex("dm.wire_cbor").into() },
        ToCoordinator::Claim { messages: 10, bytes: 1_000 },
        ToCoordinator::Receipt { receipt: no_signature(VECTORS.hex("receipt.stmt")), claims: vec![1, 300] },
        ToCoordinator::Settle { claims: vec![0, 1, 70_000] },
        ToCoordinator::LogGet { from: 2 },
        ToCoordinator::LogAppend { request, entry: VECTORS.entries()[1].encode().into() },
        ToCoordinator::PrekeyGet { members: vec![VECTORS.alice.id()] },
        ToCoordinator::InvitePut {
            request,
            lookup,
            blob: VECTORS.hex("invite.blob").into(),
            exp: UnixMs(9),
            uses: 1,
        },
        ToCoordinator::InviteDelete { request, lookup },
        ToCoordinator::LogReturn { from: 1, entries: vec![VECTORS.hex("dm.wire_cbor").into()] },
        ToCoordinator::Goodbye,
        ToCoordinator::Ping { nonce: 0 },
    ];
    frames.iter().map(|frame| frame.encode().to_vec()).collect()
}

fn to_node() -> Vec<Vec<u8>> {
    frames_to_node().iter().map(|frame| frame.encode().to_vec()).collect()
}

fn frames_to_node() -> Vec<ToNode> {
    let entries: Vec<Bytes> = VECTORS.entries().iter().map(|entry| entry.encode().into()).collect();
    let (request, env_hash) = (3, EnvHash([1; 32]));
    vec![
        ToNode::Challenge { challenge: VECTORS.challenge.clone().into() },
        ToNode::Welcome { welcome: no_signature(VECTORS.hex("hello.welcome")) },
        ToNode::Accepted { env_hashes: vec![env_hash], commit: 1 },
        ToNode::Refused { env_hash, code: "recipient-full".to_owned(), retry_ms: 5_000 },
        ToNode::Deliver { claim: 1, queued: true, envelope: VECTORS.hex("dm.wire_cbor").into() },
        ToNode::Receipt { claim: 2, receipt: no_signature(VECTORS.hex("receipt.stmt")) },
        ToNode::Expired { claim: 3, env_hash },
        ToNode::Entries { from: 5, entries: entries[5..].to_vec(), size: 7 },
        ToNode::Appended { request, entry: entries[1].clone() },
        ToNode::Conflict { request, size: 9, reserved_ms: 2_000 },
        ToNode::Failed { request, code: "log-authority".to_owned(), text: "no".to_owned() },
        ToNode::Done { request, commit: 1 },
        ToNode::Prekeys { prekeys: vec![no_signature(vec![0xa0])] },
        ToNode::Presence { complete: false, peers: vec![(VECTORS.alice.id(), true)] },
        ToNode::GoingAway { reconnect_after_ms: 1_000 },
        ToNode::Error { code: "revoked".to_owned(), text: "gone".to_owned() },
        ToNode::LogWanted { from: 4, sig: Signature([3; 64]) },
        ToNode::Ping { nonce: 1 },
    ]
}

fn scripts() -> Vec<Vec<u8>> {
    let told: Vec<u8> = frames_to_node().iter().flat_map(|frame| step(0, &frame.encode())).collect();
    let mail = [step(1, &body(None)), step(1, &body(Some((1, 0)))), step(1, &body(Some((0, 0))))].concat();
    let signalled: Vec<u8> = signals().iter().flat_map(|signal| step(3, signal)).collect();
    let sending =
        [step(5, b"hi"), step(5, b"ho"), step(6, &empty_receipt()), step(4, b"abc"), step(8, b"")].concat();
    let again =
        [step(8, b""), step(4, b"z"), step(9, b""), step(5, b"\x01same"), step(5, b"\x01same")].concat();
    let linked = [step(10, &[1; 16]), step(7, &on_link()[0]), step(2, &body(None)), step(11, b"")].concat();
    vec![told, mail, signalled, sending, again, linked]
}
