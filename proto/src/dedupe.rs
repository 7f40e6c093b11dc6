//! Whether this sender already gave us this message (protocol.md §5, step 4, and §12).
//!
//! It follows verify: before it, a stranger could use up ids and make us drop the real message.

use crate::endpoint::SeenRow;
use crate::envelope::Header;
use crate::id::EnvHash;
use crate::verify::VerifiedEnvelope;

/// A verified envelope whose (from, id) was never recorded here.
#[derive(Clone, Debug)]
pub struct Fresh(pub(crate) VerifiedEnvelope);

/// What a recorded (from, id) means for another envelope under it.
#[derive(Debug)]
pub enum Known {
    /// The same request: acknowledge these bytes too, and stop.
    Repeated {
        /// Names the bytes that came this time.
        env_hash: EnvHash,
        /// Whether it was surfaced since.
        surfaced: bool,
    },
    /// Another request under a used id: the first wins.
    Conflict,
}

impl VerifiedEnvelope {
    /// Judges by the recorded row, if there is one.
    pub fn admit(self, seen: Option<&SeenRow>) -> Result<Fresh, Known> {
        match seen {
            None => Ok(Fresh(self)),
            Some(row) if row.fp == self.header().fp => {
                Err(Known::Repeated { env_hash: self.env_hash(), surfaced: row.surfaced })
            }
            Some(_) => Err(Known::Conflict),
        }
    }
}

impl Fresh {
    /// The header, believed to be what `from` wrote.
    pub fn header(&self) -> &Header {
        self.0.header()
    }

    /// Names these bytes.
    pub fn env_hash(&self) -> EnvHash {
        self.0.env_hash()
    }
}
