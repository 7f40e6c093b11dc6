use proptest::prelude::*;

use super::*;
use crate::strategies::{text, uint};

/// A value that owns what it says.
#[derive(Clone, Debug)]
enum Owned {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Bool(bool),
    Array(Vec<Self>),
    Map(Vec<(u64, Self)>),
}

impl Owned {
    fn borrow(&self) -> Value<'_> {
        match self {
            Self::Uint(number) => Value::Uint(*number),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Text(text) => Value::Text(text),
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Array(items) => Value::Array(items.iter().map(Self::borrow).collect()),
            Self::Map(pairs) => map(pairs.iter().map(|(key, item)| (*key, item.borrow()))),
        }
    }
}

fn value() -> impl Strategy<Value = Owned> {
    let leaf = prop_oneof![
        uint().prop_map(Owned::Uint),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Owned::Bytes),
        text().prop_map(Owned::Text),
        any::<bool>().prop_map(Owned::Bool),
    ];
    let depth = u32::try_from(CONTAINER_DEPTH_MAX).expect("a small number");
    leaf.prop_recursive(depth, 64, 6, |inner| {
        let pairs = proptest::collection::btree_map(uint(), inner.clone(), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..6).prop_map(Owned::Array),
            pairs.prop_map(|pairs| Owned::Map(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(value in value()) {
        let bytes = encode(&value.borrow());
        prop_assert_eq!(decode(&bytes, usize::MAX), Ok(value.borrow()));
        prop_assert_eq!(decode(&bytes, bytes.len() - 1), Err(DecodeError::Size));
    }

    #[test]
    fn what_decodes_is_the_only_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(value) = decode(&bytes, usize::MAX) {
            prop_assert_eq!(encode(&value), bytes);
        }
    }

    #[test]
    fn a_changed_byte_never_decodes_to_the_same_value(
        value in value(), place in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let mut bytes = encode(&value.borrow());
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        prop_assert_ne!(decode(&bytes, usize::MAX), Ok(value.borrow()));
    }
}

#[track_caller]
fn refused(bytes: &str, error: DecodeError) {
    assert_eq!(decode(&hex::decode(bytes).unwrap(), usize::MAX), Err(error), "{bytes}");
}

#[test]
fn a_second_spelling_is_refused() {
    refused("1800", DecodeError::NonCanonical); // 0 in two bytes
    refused("5801ff", DecodeError::NonCanonical); // a length in two bytes
    refused("9f01ff", DecodeError::NonCanonical); // an array without a length
    refused("bf0001ff", DecodeError::NonCanonical); // a map without a length
    refused("5f41ffff", DecodeError::NonCanonical); // bytes in pieces
    refused("a200010001", DecodeError::NonCanonical); // a key twice
    refused("a201000001", DecodeError::NonCanonical); // keys out of order
    refused("0000", DecodeError::NonCanonical); // something behind it
    refused("8201", DecodeError::NonCanonical); // cut short
    refused("", DecodeError::NonCanonical);
}

#[test]
fn what_statements_do_not_use_is_refused() {
    refused("20", DecodeError::Type); // -1
    refused("1b8000000000000000", DecodeError::Type); // 2^63
    refused("f6", DecodeError::Type); // null
    refused("f7", DecodeError::Type); // undefined
    refused("f93c00", DecodeError::Type); // a float
    refused("c100", DecodeError::Type); // a tag
    refused("610a", DecodeError::Type); // a control character
    refused("62c285", DecodeError::Type); // U+0085
    refused("a1616100", DecodeError::Type); // a text key
}

#[test]
fn a_value_stands_inside_at_most_eight_containers() {
    let nested = |depth: usize| format!("{}00", "81".repeat(depth));
    assert!(decode(&hex::decode(nested(8)).unwrap(), usize::MAX).is_ok());
    refused(&nested(9), DecodeError::Depth);
    refused(&nested(4000), DecodeError::Depth);
}

#[test]
fn a_map_gives_up_exactly_the_fields_that_are_asked_for() {
    let bytes = encode(&map([(1, Value::Uint(7)), (3, Value::Bool(true))]));
    let fields = || decode(&bytes, 64).unwrap().fields().unwrap();
    let mut all = fields();
    assert_eq!(all.take(1), Ok(Value::Uint(7)));
    assert_eq!(all.optional(2), Ok(None));
    assert_eq!(all.take(3), Ok(Value::Bool(true)));
    assert_eq!(all.take(4), Err(DecodeError::MissingField));
    assert_eq!(all.finish(), Ok(()));
    assert_eq!(fields().take(0), Err(DecodeError::MissingField));
    assert_eq!(fields().take(3), Err(DecodeError::UnknownField));
    assert_eq!(fields().finish(), Err(DecodeError::UnknownField));
}
