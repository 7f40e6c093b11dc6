//! Bob reads an envelope.

use bytes::Bytes;
use crypto_box::SalsaBox;
use peerloom_proto::{
    AttestationHash, BoxPublicKey, GroupId, Kid, PeerId, Receiver, Reject, Roster, SessionAttestation,
    UnixMs, UnverifiedEnvelope, receiver_box,
};

use super::VECTORS;

#[derive(Default)]
struct Reader {
    shared: Option<SalsaBox>,
}

impl Receiver for Reader {
    fn roster(&self) -> &Roster {
        VECTORS.roster()
    }
    fn is_revoked(&self, key: &PeerId, _holder: &PeerId) -> bool {
        VECTORS.roster().member(key).is_some_and(|member| member.revoked.is_some())
    }
    fn is_me(&self, peer: &PeerId) -> bool {
        *peer == VECTORS.bob.id()
    }
    fn reads(&self, _group: &GroupId) -> bool {
        true
    }
    fn attestation(&self, hash: &AttestationHash) -> Option<&SessionAttestation> {
        (VECTORS.attestation.0 == *hash).then_some(&VECTORS.attestation.1)
    }
    fn holds(&self, kid: &Kid) -> bool {
        VECTORS.secret().public().kid() == *kid
    }
    fn shared_box(&mut self, _kid: &Kid, sender: &BoxPublicKey) -> Option<&SalsaBox> {
        Some(self.shared.insert(receiver_box(&VECTORS.secret(), sender)))
    }
    fn secret_key(&self, _kid: &Kid) -> Option<&[u8; 32]> {
        Some(&[7; 32])
    }
    fn now(&self) -> UnixMs {
        VECTORS.now
    }
    fn floor(&self) -> UnixMs {
        UnixMs(0)
    }
}

/// Every step from bytes to body.
pub(crate) fn open(envelope: UnverifiedEnvelope) -> Result<Bytes, Reject> {
    let known = |from: &PeerId| VECTORS.roster().member(from).map(|member| &member.verify_key);
    let fresh = envelope.verify(&VECTORS.mesh, known)?.admit(None).map_err(|_| Reject::Conflict)?;
    fresh.open(&mut Reader::default()).map(|opened| opened.body)
}
