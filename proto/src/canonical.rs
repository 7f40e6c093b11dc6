//! The one byte encoding (protocol.md §1): deterministic CBOR, strict both ways.
//!
//! [`decode`] reads a [`Value`], encodes it again and compares, so a second spelling of the same
//! statement cannot exist. [`Fields`] then takes a map apart and refuses what nobody asked for.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::limits::CONTAINER_DEPTH_MAX;

/// Why bytes are not a statement of the expected shape. The names are the protocol's reason names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the cap for its type.
    #[error("size")]
    Size,
    /// Decodes, but is not the one way to write it.
    #[error("non-canonical")]
    NonCanonical,
    /// A type that statements do not use, or a value outside its range.
    #[error("type")]
    Type,
    /// A value inside more than eight containers.
    #[error("depth")]
    Depth,
    /// A byte string of the wrong length.
    #[error("length")]
    Length,
    /// A required key is absent.
    #[error("missing-field")]
    MissingField,
    /// A key nobody defined.
    #[error("unknown-field")]
    UnknownField,
}

/// A decoded statement, borrowing its strings from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Unsigned, below 2⁶³.
    Uint(u64),
    /// Byte string.
    Bytes(&'a [u8]),
    /// Text without control characters.
    Text(&'a str),
    /// Truth value.
    Bool(bool),
    /// Sequence.
    Array(Vec<Self>),
    /// Unsigned keys, ascending.
    Map(Vec<(u64, Self)>),
}

/// Decodes one statement of at most `cap` bytes that fills `bytes` exactly.
pub fn decode(bytes: &[u8], cap: usize) -> Result<Value<'_>, DecodeError> {
    if bytes.len() > cap {
        return Err(DecodeError::Size);
    }
    let mut decoder = Decoder::new(bytes);
    let value = read(&mut decoder, 0)?;
    if decoder.position() != bytes.len() || encode(&value) != bytes {
        return Err(DecodeError::NonCanonical);
    }
    Ok(value)
}

/// Encodes a value. Map keys must already ascend; [`map`] sees to that.
pub fn encode(value: &Value<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(64));
    write(&mut encoder, value);
    encoder.into_writer()
}

/// A map value from pairs in ascending key order.
pub fn map<'a>(pairs: impl IntoIterator<Item = (u64, Value<'a>)>) -> Value<'a> {
    let pairs: Vec<_> = pairs.into_iter().collect();
    debug_assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0), "map keys must ascend");
    Value::Map(pairs)
}

impl<'a> Value<'a> {
    /// The number, or `type`.
    pub fn uint(&self) -> Result<u64, DecodeError> {
        if let Self::Uint(number) = self { Ok(*number) } else { Err(DecodeError::Type) }
    }

    /// The byte string, or `type`.
    pub fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(DecodeError::Type) }
    }

    /// A byte string of exactly `N` bytes, or `length`.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.bytes()?.try_into().map_err(|_| DecodeError::Length)
    }

    /// The text, or `type`.
    pub fn text(&self) -> Result<&'a str, DecodeError> {
        if let Self::Text(text) = self { Ok(text) } else { Err(DecodeError::Type) }
    }

    /// The items, or `type`.
    pub fn items(self) -> Result<Vec<Self>, DecodeError> {
        if let Self::Array(items) = self { Ok(items) } else { Err(DecodeError::Type) }
    }

    /// The items of an array of exactly `N`, or `length`.
    pub fn tuple<const N: usize>(self) -> Result<[Self; N], DecodeError> {
        self.items()?.try_into().map_err(|_| DecodeError::Length)
    }

    /// The map's fields, or `type`.
    pub fn fields(self) -> Result<Fields<'a>, DecodeError> {
        if let Self::Map(pairs) = self {
            Ok(Fields { rest: pairs.into_iter().peekable() })
        } else {
            Err(DecodeError::Type)
        }
    }
}

/// Takes a map apart in ascending key order.
#[derive(Debug)]
pub struct Fields<'a> {
    rest: std::iter::Peekable<std::vec::IntoIter<(u64, Value<'a>)>>,
}

impl<'a> Fields<'a> {
    /// The value under `key`. Keys must be asked for in ascending order; a skipped one is unknown.
    pub fn take(&mut self, key: u64) -> Result<Value<'a>, DecodeError> {
        self.optional(key)?.ok_or(DecodeError::MissingField)
    }

    /// The value under `key` if it is there.
    pub fn optional(&mut self, key: u64) -> Result<Option<Value<'a>>, DecodeError> {
        match self.rest.peek() {
            Some((found, _)) if *found == key => Ok(self.rest.next().map(|(_, value)| value)),
            Some((found, _)) if *found < key => Err(DecodeError::UnknownField),
            Some(_) | None => Ok(None),
        }
    }

    /// Refuses what is left.
    pub fn finish(mut self) -> Result<(), DecodeError> {
        if self.rest.next().is_some() { Err(DecodeError::UnknownField) } else { Ok(()) }
    }
}

fn read<'a>(decoder: &mut Decoder<'a>, depth: usize) -> Result<Value<'a>, DecodeError> {
    if depth > CONTAINER_DEPTH_MAX {
        return Err(DecodeError::Depth);
    }
    // What minicbor refuses by itself is cut short or malformed: no other encoder wrote it.
    let broken = |_| DecodeError::NonCanonical;
    match decoder.datatype().map_err(broken)? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            let number = decoder.u64().map_err(broken)?;
            if number >> 63 == 0 { Ok(Value::Uint(number)) } else { Err(DecodeError::Type) }
        }
        Type::Bytes => decoder.bytes().map(Value::Bytes).map_err(broken),
        Type::String => {
            let text = decoder.str().map_err(broken)?;
            let control = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
            if text.contains(control) { Err(DecodeError::Type) } else { Ok(Value::Text(text)) }
        }
        Type::Bool => decoder.bool().map(Value::Bool).map_err(broken),
        Type::Array => {
            let count = decoder.array().map_err(broken)?.ok_or(DecodeError::NonCanonical)?;
            let mut items = Vec::with_capacity(capacity(decoder, count));
            for _ in 0..count {
                items.push(read(decoder, depth + 1)?);
            }
            Ok(Value::Array(items))
        }
        Type::Map => {
            let count = decoder.map().map_err(broken)?.ok_or(DecodeError::NonCanonical)?;
            let mut pairs: Vec<(u64, Value<'a>)> = Vec::with_capacity(capacity(decoder, count));
            for _ in 0..count {
                let key = read(decoder, depth + 1)?.uint()?;
                if pairs.last().is_some_and(|(last, _)| *last >= key) {
                    return Err(DecodeError::NonCanonical);
                }
                pairs.push((key, read(decoder, depth + 1)?));
            }
            Ok(Value::Map(pairs))
        }
        Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef => {
            Err(DecodeError::NonCanonical)
        }
        Type::Null
        | Type::Undefined
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int
        | Type::F16
        | Type::F32
        | Type::F64
        | Type::Simple
        | Type::Tag
        | Type::Break
        | Type::Unknown(_) => Err(DecodeError::Type),
    }
}

/// A claimed count is not believed beyond what the rest of the input could hold.
fn capacity(decoder: &Decoder<'_>, count: u64) -> usize {
    let left = decoder.input().len().saturating_sub(decoder.position());
    usize::try_from(count).unwrap_or(usize::MAX).min(left).min(64)
}

fn write(encoder: &mut Encoder<Vec<u8>>, value: &Value<'_>) {
    let written = match value {
        Value::Uint(number) => encoder.u64(*number).map(drop),
        Value::Bytes(bytes) => encoder.bytes(bytes).map(drop),
        Value::Text(text) => encoder.str(text).map(drop),
        Value::Bool(truth) => encoder.bool(*truth).map(drop),
        Value::Array(items) => {
            let opened = encoder.array(items.len() as u64).map(drop);
            items.iter().for_each(|item| write(encoder, item));
            opened
        }
        Value::Map(pairs) => {
            let opened = encoder.map(pairs.len() as u64).map(drop);
            for (key, item) in pairs {
                write(encoder, &Value::Uint(*key));
                write(encoder, item);
            }
            opened
        }
    };
    written.expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests;
