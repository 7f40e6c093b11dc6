//! What an envelope can say once it is open (protocol.md §4 and §14). A body is canonical CBOR:
//! {0: content type, 1: bytes, 2: conversation fields, 3: sender's prekey}.

use bytes::Bytes;

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{Generation, MessageId};
use crate::key::Signature;
use crate::limits::INNER_BYTES_MAX;
use crate::wire::SignedBytes;

/// A message as a program gives and gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// A media type, e.g. `text/plain`; at most 127 bytes.
    pub content_type: String,
    /// The content itself.
    pub content: Bytes,
    /// The message this one answers.
    pub reply_to: Option<MessageId>,
}

/// A message's place among those of its sender to this recipient (protocol.md §14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// One life of the sender's counters.
    pub generation: Generation,
    /// Counts up by one.
    pub seq: u64,
    /// Everything below this is settled: nobody need wait for it.
    pub lowest: u64,
}

/// The plaintext of a dm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// What is said.
    pub message: Message,
    /// Its place in the conversation; none for what is not kept (signals).
    pub place: Option<Place>,
    /// The sender's current prekey.
    pub prekey: Option<SignedBytes>,
}

/// Content type of a signalling statement: consumed by the node, never shown.
pub const SIGNAL_TYPE: &str = "application/vnd.peerloom.signal";

impl Body {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut annex = Vec::new();
        if let Some(reply_to) = &self.message.reply_to {
            annex.push((0, Value::Bytes(&reply_to.0)));
        }
        if let Some(place) = &self.place {
            annex.push((1, Value::Bytes(&place.generation.0)));
            annex.push((2, Value::Uint(place.seq)));
            annex.push((3, Value::Uint(place.lowest)));
        }
        let mut pairs = vec![
            (0, Value::Text(&self.message.content_type)),
            (1, Value::Bytes(&self.message.content)),
            (2, Value::Map(annex)),
        ];
        if let Some(prekey) = &self.prekey {
            pairs.push((3, Value::Array(vec![Value::Bytes(&prekey.stmt), Value::Bytes(&prekey.sig.0)])));
        }
        encode(&map(pairs))
    }

    /// Reads a body, strictly. Its strings share `bytes`' memory.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut fields = decode(bytes, INNER_BYTES_MAX)?.fields()?;
        let content_type = fields.take(0)?.text()?.to_owned();
        if content_type.is_empty() || content_type.len() > CONTENT_TYPE_BYTES_MAX {
            return Err(DecodeError::Size);
        }
        let content = bytes.slice_ref(fields.take(1)?.bytes()?);
        let mut annex = fields.take(2)?.fields()?;
        let reply_to = annex.optional(0)?.map(|id| id.array().map(MessageId)).transpose()?;
        let place = match annex.optional(1)? {
            Some(generation) => Some(Place {
                generation: Generation(generation.array()?),
                seq: annex.take(2)?.uint()?,
                lowest: annex.take(3)?.uint()?,
            }),
            None => None,
        };
        annex.finish()?;
        let prekey = match fields.optional(3)? {
            Some(prekey) => {
                let [stmt, sig] = prekey.tuple()?;
                Some(SignedBytes { stmt: bytes.slice_ref(stmt.bytes()?), sig: Signature(sig.array()?) })
            }
            None => None,
        };
        fields.finish()?;
        Ok(Self { message: Message { content_type, content, reply_to }, place, prekey })
    }
}

/// A media type is a name, not a payload (RFC 6838 §4.2: 127 bytes).
pub const CONTENT_TYPE_BYTES_MAX: usize = 127;

#[cfg(test)]
mod tests;
