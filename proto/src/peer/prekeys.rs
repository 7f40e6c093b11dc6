//! Where a peer's prekeys come from: its own messages, the store, and the coordinator's directory.

use crate::endpoint::{Endpoint, Write};
use crate::id::PeerId;
use crate::prekey::{Prekey, SignedPrekey};
use crate::time::Now;
use crate::wire::SignedBytes;

impl Endpoint {
    /// Keeps a prekey that came in a peer's own message, if it really signed it.
    pub(crate) fn learn_prekey(&mut self, now: Now, of: PeerId, prekey: &SignedBytes) {
        let Ok(verified) = SignedPrekey::parse_verified(&prekey.stmt, &prekey.sig, &self.me.mesh, now.wall)
        else {
            return;
        };
        if verified.member == of && self.peers.entry(of).learn(verified) {
            self.write(Write::PeerPrekey { peer: of, prekey: prekey.clone() });
        }
    }

    /// The directory has a prekey of somebody. One that still waits to be checked is checked before
    /// another takes its place, so that no forgery puts an honest one out.
    pub(crate) fn hear_of_prekey(&mut self, now: Now, prekey: SignedBytes) {
        let Ok(Prekey { member, .. }) = Prekey::parse(&prekey.stmt) else { return };
        if self.roster.member(&member).is_none() || self.peers.knows_prekey(&member, &prekey) {
            return;
        }
        self.check_prekey(now, member);
        self.peers.hear_of_prekey(member, prekey, false);
    }

    /// Checks what the store or the directory gave of a peer, before something is sealed to it.
    pub(crate) fn check_prekey(&mut self, now: Now, of: PeerId) {
        if let Some(prekey) = self.peers.check_prekey(of, &self.me.mesh, now) {
            self.write(Write::PeerPrekey { peer: of, prekey });
        }
    }
}
