use bytes::Bytes;
use proptest::prelude::*;

use super::{OnLink, SignedBytes, ToCoordinator, ToNode};
use crate::canonical::DecodeError;
use crate::id::{EnvHash, InviteLookup};
use crate::key::Signature;
use crate::limits::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX};
use crate::strategies::{peer, text, time, uint};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from)
}

fn signed() -> impl Strategy<Value = SignedBytes> {
    (bytes(), any::<[u8; 64]>()).prop_map(|(stmt, sig)| SignedBytes { stmt, sig: Signature(sig) })
}

fn env_hash() -> impl Strategy<Value = EnvHash> {
    any::<[u8; 32]>().prop_map(EnvHash)
}

fn lookup() -> impl Strategy<Value = InviteLookup> {
    any::<[u8; 16]>().prop_map(InviteLookup)
}

fn list<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..5)
}

fn to_coordinator() -> impl Strategy<Value = ToCoordinator> {
    prop_oneof![
        (signed(), bytes()).prop_map(|(hello, attestation)| ToCoordinator::Hello { hello, attestation }),
        bytes().prop_map(|envelope| ToCoordinator::Put { envelope }),
        (uint(), uint()).prop_map(|(messages, bytes)| ToCoordinator::Claim { messages, bytes }),
        (signed(), list(uint())).prop_map(|(receipt, claims)| ToCoordinator::Receipt { receipt, claims }),
        list(uint()).prop_map(|claims| ToCoordinator::Settle { claims }),
        uint().prop_map(|from| ToCoordinator::LogGet { from }),
        (uint(), bytes()).prop_map(|(request, entry)| ToCoordinator::LogAppend { request, entry }),
        signed().prop_map(|prekey| ToCoordinator::PrekeyPut { prekey }),
        list(peer()).prop_map(|members| ToCoordinator::PrekeyGet { members }),
        (uint(), lookup(), bytes(), time(), uint()).prop_map(|(request, lookup, blob, exp, uses)| {
            ToCoordinator::InvitePut { request, lookup, blob, exp, uses }
        }),
        (uint(), lookup()).prop_map(|(request, lookup)| ToCoordinator::InviteDelete { request, lookup }),
        (uint(), list(bytes())).prop_map(|(from, entries)| ToCoordinator::LogReturn { from, entries }),
        Just(ToCoordinator::Goodbye),
        uint().prop_map(|nonce| ToCoordinator::Ping { nonce }),
        uint().prop_map(|nonce| ToCoordinator::Pong { nonce }),
    ]
}

fn to_node() -> impl Strategy<Value = ToNode> {
    prop_oneof![
        bytes().prop_map(|challenge| ToNode::Challenge { challenge }),
        signed().prop_map(|welcome| ToNode::Welcome { welcome }),
        (list(env_hash()), uint()).prop_map(|(env_hashes, commit)| ToNode::Accepted { env_hashes, commit }),
        (env_hash(), text(), uint()).prop_map(|(env_hash, code, retry_ms)| ToNode::Refused {
            env_hash,
            code,
            retry_ms
        }),
        (uint(), any::<bool>(), bytes()).prop_map(|(claim, queued, envelope)| ToNode::Deliver {
            claim,
            queued,
            envelope
        }),
        (uint(), signed()).prop_map(|(claim, receipt)| ToNode::Receipt { claim, receipt }),
        (uint(), env_hash()).prop_map(|(claim, env_hash)| ToNode::Expired { claim, env_hash }),
        (uint(), list(bytes()), uint()).prop_map(|(from, entries, size)| ToNode::Entries {
            from,
            entries,
            size
        }),
        (uint(), bytes()).prop_map(|(request, entry)| ToNode::Appended { request, entry }),
        (uint(), uint(), uint()).prop_map(|(request, size, reserved_ms)| ToNode::Conflict {
            request,
            size,
            reserved_ms
        }),
        (uint(), text(), text()).prop_map(|(request, code, text)| ToNode::Failed { request, code, text }),
        (uint(), uint()).prop_map(|(request, commit)| ToNode::Done { request, commit }),
        list(signed()).prop_map(|prekeys| ToNode::Prekeys { prekeys }),
        (any::<bool>(), list((peer(), any::<bool>())))
            .prop_map(|(complete, peers)| ToNode::Presence { complete, peers }),
        uint().prop_map(|reconnect_after_ms| ToNode::GoingAway { reconnect_after_ms }),
        (text(), text()).prop_map(|(code, text)| ToNode::Error { code, text }),
        uint().prop_map(|nonce| ToNode::Ping { nonce }),
        uint().prop_map(|nonce| ToNode::Pong { nonce }),
    ]
}

fn on_link() -> impl Strategy<Value = OnLink> {
    prop_oneof![
        (signed(), bytes()).prop_map(|(bind, attestation)| OnLink::Bind { bind, attestation }),
        bytes().prop_map(|envelope| OnLink::Envelope { envelope }),
        signed().prop_map(|receipt| OnLink::Receipt { receipt }),
        uint().prop_map(|nonce| OnLink::Ping { nonce }),
        uint().prop_map(|nonce| OnLink::Pong { nonce }),
    ]
}

/// Flips one bit, drops the end, or adds a byte.
fn damaged(frame: &Bytes, place: usize, how: u8) -> Bytes {
    let mut bytes = frame.to_vec();
    let place = place % bytes.len();
    match how % 3 {
        0 => bytes[place] ^= 1 << (how / 3 % 8),
        1 => bytes.truncate(place),
        _ => bytes.push(how),
    }
    bytes.into()
}

proptest! {
    #[test]
    fn what_a_node_says_reads_back_as_written(frame in to_coordinator(), place: usize, how: u8) {
        let encoded = frame.encode();
        let decoded = ToCoordinator::decode(&encoded, FRAME_BYTES_MAX);
        prop_assert_eq!(decoded.as_ref(), Ok(&frame));
        let damaged = damaged(&encoded, place, how);
        if let Ok(other) = ToCoordinator::decode(&damaged, FRAME_BYTES_MAX) {
            prop_assert_eq!(other.encode(), damaged, "one frame, one spelling");
        }
    }

    #[test]
    fn what_a_coordinator_says_reads_back_as_written(frame in to_node(), place: usize, how: u8) {
        let encoded = frame.encode();
        prop_assert_eq!(ToNode::decode(&encoded), Ok(frame.clone()));
        let damaged = damaged(&encoded, place, how);
        if let Ok(other) = ToNode::decode(&damaged) {
            prop_assert_eq!(other.encode(), damaged, "one frame, one spelling");
        }
    }

    #[test]
    fn what_two_nodes_say_reads_back_as_written(frame in on_link(), place: usize, how: u8) {
        let encoded = frame.encode();
        prop_assert_eq!(OnLink::decode(&encoded), Ok(frame.clone()));
        let damaged = damaged(&encoded, place, how);
        if let Ok(other) = OnLink::decode(&damaged) {
            prop_assert_eq!(other.encode(), damaged, "one frame, one spelling");
        }
    }

    #[test]
    fn noise_is_refused_and_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let noise = Bytes::from(noise);
        for reencoded in [
            ToCoordinator::decode(&noise, FRAME_BYTES_MAX).map(|frame| frame.encode()),
            ToNode::decode(&noise).map(|frame| frame.encode()),
            OnLink::decode(&noise).map(|frame| frame.encode()),
        ].into_iter().flatten() {
            prop_assert_eq!(&reencoded, &noise);
        }
    }
}

#[test]
fn no_frame_is_understood_by_the_wrong_side() {
    let ping = ToNode::GoingAway { reconnect_after_ms: 1 }.encode();
    assert_eq!(ToCoordinator::decode(&ping, FRAME_BYTES_MAX), Err(DecodeError::UnknownField));
    assert_eq!(OnLink::decode(&ping), Err(DecodeError::UnknownField));
    let put = ToCoordinator::Put { envelope: Bytes::new() }.encode();
    assert_eq!(ToNode::decode(&put), Err(DecodeError::UnknownField));
}

#[test]
fn a_frame_before_hello_is_held_to_a_smaller_size() {
    let envelope = Bytes::from(vec![0; HELLO_FRAME_BYTES_MAX]);
    let put = ToCoordinator::Put { envelope }.encode();
    assert_eq!(ToCoordinator::decode(&put, HELLO_FRAME_BYTES_MAX), Err(DecodeError::Size));
    assert!(ToCoordinator::decode(&put, FRAME_BYTES_MAX).is_ok());
}

#[test]
fn byte_strings_share_the_memory_of_their_frame() {
    let put = ToCoordinator::Put { envelope: Bytes::from_static(b"sealed") }.encode();
    let Ok(ToCoordinator::Put { envelope }) = ToCoordinator::decode(&put, FRAME_BYTES_MAX) else {
        panic!("a put")
    };
    assert!(put.as_ptr_range().contains(&envelope.as_ptr()));
}
