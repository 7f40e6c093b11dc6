//! The bytes of RFC 5769 and RFC 8489, and what is none of them.

use proptest::prelude::*;

use super::*;
use crate::transcript::sha256;

/// RFC 5769 §2.1, sample request with long attributes: SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME,
/// MESSAGE-INTEGRITY and FINGERPRINT.
const RFC5769_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
    802200105354554e207465737420636c69656e74\
    002400046e0001ff\
    80290008932ff9b151263b36\
    000600096576746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";

/// RFC 8489 appendix B.1: USERHASH, NONCE, REALM, PASSWORD-ALGORITHM, MESSAGE-INTEGRITY-SHA256.
const RFC8489_REQUEST: &str = "000100902112a44278ad3433c6ad72c029da412e\
    001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704\
    001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c394653547679363473410000\
    00\
    0014000b6578616d706c652e6f726700\
    001d000400020000\
    001c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

const TRANSACTION: TransactionId = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

fn answered(request: &str, peer: &str) -> Option<String> {
    let request = hex::decode(request).unwrap();
    public_answer(&request, peer.parse().unwrap()).map(hex::encode)
}

#[test]
fn the_sample_request_gets_the_mapped_address_of_the_sample_ipv4_response() {
    // RFC 5769 §2.2: 192.0.2.1 port 32853.
    let expected = "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643";
    assert_eq!(answered(RFC5769_REQUEST, "192.0.2.1:32853").as_deref(), Some(expected));
}

#[test]
fn the_sample_request_gets_the_mapped_address_of_the_sample_ipv6_response() {
    // RFC 5769 §2.3: 2001:db8:1234:5678:11:2233:4455:6677 port 32853.
    let expected = "010100182112a442b7e7a701bc34d686fa87dfae\
        002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9";
    let peer = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
    assert_eq!(answered(RFC5769_REQUEST, peer).as_deref(), Some(expected));
}

#[test]
fn an_ipv4_peer_of_a_dual_stack_socket_is_told_its_ipv4_address() {
    let plain = "000100002112a442b7e7a701bc34d686fa87dfae";
    assert_eq!(answered(plain, "[::ffff:192.0.2.1]:32853"), answered(plain, "192.0.2.1:32853"));
}

#[test]
fn an_unknown_required_attribute_is_answered_with_420_and_its_name() {
    let request = "000100042112a442b7e7a701bc34d686fa87dfae7abc0000";
    let expected = "011100102112a442b7e7a701bc34d686fa87dfae000900040000041\
        4000a00027abc0000";
    assert_eq!(answered(request, "192.0.2.1:1"), Some(expected.to_owned()));
}

#[test]
fn what_is_no_binding_request_gets_no_answer() {
    for garbage in [
        "",
        "00",
        "0001000021",
        // Another method, a response, an indication.
        "000300002112a442b7e7a701bc34d686fa87dfae",
        "010100002112a442b7e7a701bc34d686fa87dfae",
        "001100002112a442b7e7a701bc34d686fa87dfae",
        // No cookie, a length that lies, an attribute that overruns.
        "000100002112a443b7e7a701bc34d686fa87dfae",
        "000100042112a442b7e7a701bc34d686fa87dfae",
        "000100042112a442b7e7a701bc34d686fa87dfae80220008",
    ] {
        assert_eq!(answered(garbage, "192.0.2.1:1"), None, "{garbage}");
    }
}

#[test]
fn the_integrity_of_the_rfcs_sample_holds_under_its_key_and_no_other() {
    let bytes = hex::decode(RFC8489_REQUEST).unwrap();
    let message = StunMessage::parse(&bytes).unwrap();
    let key = sha256("マトリックス:example.org:TheMatrIX".as_bytes());
    assert!(message.is_by(&key));
    assert!(!message.is_by(&[0; 32]));
    assert_eq!(message.unknown, [0x001e, 0x001d]);
}

#[test]
fn requests_and_answers_read_back_as_written() {
    let seen = "[2001:db8::1]:9".parse().unwrap();
    let request = signed_request(&TRANSACTION, "attempt", b"key");
    let answer = signed_success(&TRANSACTION, seen, b"key");
    let request = StunMessage::parse(&request).unwrap();
    let answer = StunMessage::parse(&answer).unwrap();
    assert_eq!((request.kind, request.username), (StunKind::Request, Some(&b"attempt"[..])));
    assert_eq!((answer.kind, answer.mapped), (StunKind::Success, Some(seen)));
    assert_eq!((request.transaction, answer.transaction), (TRANSACTION, TRANSACTION));
    assert!(request.is_by(b"key") && answer.is_by(b"key"));
}

#[test]
fn a_bit_changed_anywhere_in_a_proven_message_is_noticed() {
    let request = signed_request(&TRANSACTION, "attempt", b"key");
    for place in 0..request.len() * 8 {
        let mut bytes = request.to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        let holds = StunMessage::parse(&bytes).is_some_and(|message| message.is_by(b"key"));
        assert!(!holds, "bit {place}");
    }
}

#[test]
fn what_follows_the_integrity_is_not_read() {
    let request = signed_request(&TRANSACTION, "attempt", b"key");
    let mut bytes = request.to_vec();
    bytes.extend(hex::decode("000600046576696c").unwrap());
    let length = u16::try_from(bytes.len() - HEADER_BYTES).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let message = StunMessage::parse(&bytes).unwrap();
    assert!(message.is_by(b"key"));
    assert_eq!(message.username, Some(&b"attempt"[..]));
}

#[test]
fn quic_and_short_datagrams_are_not_taken_for_stun() {
    assert!(is_stun(&binding_request(&TRANSACTION)));
    assert!(!is_stun(b""));
    assert!(!is_stun(&[0x40; 64]), "a short QUIC header");
    assert!(!is_stun(&[0xc0; 64]), "a long QUIC header");
    assert!(!is_stun(&[0; 64]), "no cookie");
}

proptest! {
    #[test]
    fn no_datagram_makes_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(start) = bytes.get_mut(..8) {
            let length = u16::try_from(start.len()).unwrap();
            start[..2].copy_from_slice(&[1, 1]);
            start[4..].copy_from_slice(&MAGIC_COOKIE);
            start[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if bytes.len() >= HEADER_BYTES {
            let length = u16::try_from(bytes.len() - HEADER_BYTES).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if let Some(message) = StunMessage::parse(&bytes) {
            prop_assert!(!message.is_by(b"key"));
        }
    }
}

#[test]
fn an_error_is_read_with_its_code_and_a_code_outside_the_range_is_no_stun() {
    let refusal = unauthenticated(&TRANSACTION);
    let read = StunMessage::parse(&refusal).unwrap();
    assert_eq!((read.kind, read.error, read.transaction), (StunKind::Error, Some(401), TRANSACTION));
    for [class, number] in [[2, 0], [7, 0], [4, 100]] {
        let mut wrong = refusal.to_vec();
        wrong[26..28].copy_from_slice(&[class, number]);
        assert_eq!(StunMessage::parse(&wrong), None);
    }
}
