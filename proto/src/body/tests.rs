use proptest::prelude::*;

use super::*;
use crate::strategies::uint;

fn body() -> impl Strategy<Value = Body> {
    let place = (any::<[u8; 8]>(), uint(), uint()).prop_map(|(generation, seq, lowest)| Place {
        generation: Generation(generation),
        seq,
        lowest,
    });
    let prekey = (prop::collection::vec(any::<u8>(), 0..80), any::<[u8; 64]>())
        .prop_map(|(stmt, sig)| SignedBytes { stmt: stmt.into(), sig: Signature(sig) });
    let message =
        ("[a-z]{1,20}/[a-z]{1,20}", prop::collection::vec(any::<u8>(), 0..300), any::<Option<[u8; 16]>>())
            .prop_map(|(content_type, content, reply_to)| Message {
                content_type,
                content: content.into(),
                reply_to: reply_to.map(MessageId),
            });
    (message, prop::option::of(place), prop::option::of(prekey)).prop_map(|(message, place, prekey)| Body {
        message,
        place,
        prekey,
    })
}

proptest! {
    #[test]
    fn a_body_reads_back_as_written(body in body()) {
        prop_assert_eq!(Body::decode(&body.encode().into()), Ok(body));
    }

    #[test]
    fn a_damaged_body_is_refused_or_is_another_body(body in body(), place: usize, bit in 0..8_u8) {
        let mut bytes = body.encode();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Body::decode(&bytes.clone().into()) {
            prop_assert_ne!(&other, &body);
            prop_assert_eq!(other.encode(), bytes.clone());
        }
        bytes.truncate(place);
        prop_assert!(Body::decode(&bytes.into()).is_err());
    }
}

fn minimal() -> Body {
    let message =
        Message { content_type: "text/plain".to_owned(), content: Bytes::from_static(b"hi"), reply_to: None };
    Body { message, place: None, prekey: None }
}

#[test]
fn a_body_without_a_place_encodes_as_documented() {
    let hex = "a3006a746578742f706c61696e0142686902a0";
    assert_eq!(hex::encode(minimal().encode()), hex);
}

#[test]
fn a_body_with_half_a_place_is_refused() {
    let annex = map([(1, Value::Bytes(&[0; 8])), (2, Value::Uint(1))]);
    let body = encode(&map([(0, Value::Text("text/plain")), (1, Value::Bytes(b"hi")), (2, annex)]));
    assert_eq!(Body::decode(&body.into()), Err(DecodeError::MissingField));
    let annex = map([(2, Value::Uint(1)), (3, Value::Uint(0))]);
    let body = encode(&map([(0, Value::Text("text/plain")), (1, Value::Bytes(b"hi")), (2, annex)]));
    assert_eq!(Body::decode(&body.into()), Err(DecodeError::UnknownField));
}

#[test]
fn a_content_type_is_neither_empty_nor_long() {
    let mut body = minimal();
    body.message.content_type = String::new();
    assert_eq!(Body::decode(&body.encode().into()), Err(DecodeError::Size));
    body.message.content_type = "x".repeat(CONTENT_TYPE_BYTES_MAX);
    assert_eq!(Body::decode(&body.encode().into()).as_ref(), Ok(&body));
    body.message.content_type.push('x');
    assert_eq!(Body::decode(&body.encode().into()), Err(DecodeError::Size));
}
