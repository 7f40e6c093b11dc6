//! Checks that need no secret and no state: whose envelope is this (protocol.md §5, step 3).

use crate::envelope::{Header, UnverifiedEnvelope};
use crate::id::{EnvHash, MeshId, PeerId};
use crate::key::{VerifyKey, signed_by};
use crate::reject::Reject;

/// An envelope that its `from` really signed. Whether `from` may say anything here is still open.
#[derive(Clone, Debug)]
pub struct VerifiedEnvelope(pub(crate) UnverifiedEnvelope);

impl UnverifiedEnvelope {
    /// Checks mesh and signature. `known` gives the checked key of a known signer, which saves
    /// decompressing it again; a stranger's key is parsed.
    pub fn verify<'a>(
        self,
        mesh: &MeshId,
        known: impl FnOnce(&PeerId) -> Option<&'a VerifyKey>,
    ) -> Result<VerifiedEnvelope, Reject> {
        if self.header.mesh != *mesh {
            return Err(Reject::Mesh);
        }
        let from = &self.header.from;
        let fields: [&[u8]; 2] = [&self.hdr, &self.ct_hash];
        let holds = match known(from) {
            Some(key) => key.accepts(&self.sig, "envelope", &fields),
            None => signed_by(from, &self.sig, "envelope", &fields),
        };
        if holds { Ok(VerifiedEnvelope(self)) } else { Err(Reject::Signature) }
    }
}

impl VerifiedEnvelope {
    /// The header, believed to be what `from` wrote.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// Names these bytes.
    pub fn env_hash(&self) -> EnvHash {
        self.0.env_hash()
    }
}
