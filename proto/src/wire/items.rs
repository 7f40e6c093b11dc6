//! A frame's array, taken apart and put together.

use bytes::Bytes;

use super::SignedBytes;
use crate::canonical::{DecodeError, Value, decode};
use crate::id::PeerId;
use crate::key::Signature;

/// Takes a frame's array apart, sharing the frame's memory.
pub(super) struct Items<'a> {
    frame: &'a Bytes,
    rest: std::vec::IntoIter<Value<'a>>,
}

impl<'a> Items<'a> {
    pub(super) fn of(frame: &'a Bytes, cap: usize) -> Result<Self, DecodeError> {
        Ok(Self { frame, rest: decode(frame, cap)?.items()?.into_iter() })
    }

    pub(super) fn next(&mut self) -> Result<Value<'a>, DecodeError> {
        self.rest.next().ok_or(DecodeError::MissingField)
    }

    pub(super) fn uint(&mut self) -> Result<u64, DecodeError> {
        self.next()?.uint()
    }

    pub(super) fn uints(&mut self) -> Result<Vec<u64>, DecodeError> {
        self.next()?.items()?.iter().map(Value::uint).collect()
    }

    pub(super) fn truth(&mut self) -> Result<bool, DecodeError> {
        if let Value::Bool(truth) = self.next()? { Ok(truth) } else { Err(DecodeError::Type) }
    }

    pub(super) fn text(&mut self) -> Result<String, DecodeError> {
        self.next()?.text().map(str::to_owned)
    }

    pub(super) fn share(&self, value: &Value<'a>) -> Result<Bytes, DecodeError> {
        value.bytes().map(|bytes| self.frame.slice_ref(bytes))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let value = self.next()?;
        self.share(&value)
    }

    pub(super) fn byte_strings(&mut self) -> Result<Vec<Bytes>, DecodeError> {
        let list = self.next()?.items()?;
        list.iter().map(|item| self.share(item)).collect()
    }

    pub(super) fn signed(&mut self) -> Result<SignedBytes, DecodeError> {
        let stmt = self.bytes()?;
        Ok(SignedBytes { stmt, sig: Signature(self.next()?.array()?) })
    }

    pub(super) fn signed_list(&mut self) -> Result<Vec<SignedBytes>, DecodeError> {
        let list = self.next()?.items()?;
        list.into_iter()
            .map(|item| {
                let [stmt, sig] = item.tuple()?;
                Ok(SignedBytes { stmt: self.share(&stmt)?, sig: Signature(sig.array()?) })
            })
            .collect()
    }

    pub(super) fn presence(&mut self) -> Result<Vec<(PeerId, bool)>, DecodeError> {
        let list = self.next()?.items()?;
        list.into_iter()
            .map(|item| {
                let [peer, online] = item.tuple()?;
                let Value::Bool(online) = online else { return Err(DecodeError::Type) };
                Ok((PeerId(peer.array()?), online))
            })
            .collect()
    }

    pub(super) fn finish<T>(mut self, read: T) -> Result<T, DecodeError> {
        if self.rest.next().is_some() { Err(DecodeError::UnknownField) } else { Ok(read) }
    }
}

pub(super) fn uint<'a>(number: u64) -> Value<'a> {
    Value::Uint(number)
}

pub(super) fn byte_strings(list: &[Bytes]) -> Value<'_> {
    Value::Array(list.iter().map(|bytes| Value::Bytes(bytes)).collect())
}

pub(super) fn uints<'a>(numbers: &[u64]) -> Value<'a> {
    Value::Array(numbers.iter().copied().map(Value::Uint).collect())
}

pub(super) fn stmt(signed: &SignedBytes) -> Value<'_> {
    Value::Bytes(&signed.stmt)
}

pub(super) fn sig(signed: &SignedBytes) -> Value<'_> {
    Value::Bytes(&signed.sig.0)
}

pub(super) const PING: u64 = 12;
pub(super) const PONG: u64 = 13;
