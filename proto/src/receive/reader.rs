//! This node as the reader of its mail.

use crypto_box::SalsaBox;

use crate::id::{AttestationHash, GroupId, Kid, PeerId};
use crate::identity::SessionAttestation;
use crate::key::BoxPublicKey;
use crate::keyring::Keyring;
use crate::open::Receiver;
use crate::revocation::RevocationSet;
use crate::roster::Roster;
use crate::time::UnixMs;

/// The endpoint as [`open`](crate::open) sees it.
pub(super) struct Reader<'a> {
    pub(super) me: PeerId,
    pub(super) roster: &'a Roster,
    pub(super) revocations: &'a RevocationSet,
    pub(super) keyring: &'a mut Keyring,
    pub(super) now: UnixMs,
    pub(super) floor: UnixMs,
}

impl Receiver for Reader<'_> {
    fn roster(&self) -> &Roster {
        self.roster
    }
    fn is_revoked(&self, key: &PeerId, holder: &PeerId) -> bool {
        if key == holder {
            self.revocations.is_revoked(key, self.roster)
        } else {
            self.revocations.is_key_revoked(key, holder, self.roster)
        }
    }
    fn is_me(&self, peer: &PeerId) -> bool {
        *peer == self.me
    }
    fn reads(&self, _group: &GroupId) -> bool {
        false
    }
    fn attestation(&self, _hash: &AttestationHash) -> Option<&SessionAttestation> {
        None
    }
    fn holds(&self, kid: &Kid) -> bool {
        self.keyring.holds(kid)
    }
    fn shared_box(&mut self, kid: &Kid, sender: &BoxPublicKey) -> Option<&SalsaBox> {
        self.keyring.shared_box(kid, sender)
    }
    fn secret_key(&self, _kid: &Kid) -> Option<&[u8; 32]> {
        None
    }
    fn now(&self) -> UnixMs {
        self.now
    }
    fn floor(&self) -> UnixMs {
        self.floor
    }
}
