//! This member's own prekeys (protocol.md §2 and §3): which one senders should use, which ones still
//! open mail, and when the next is due.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crypto_box::SalsaBox;

use crate::endpoint::{HeldPrekey, Holding};
use crate::entropy::Entropy;
use crate::id::{Kid, MeshId};
use crate::key::{BoxPublicKey, BoxSecretKey, IdentityKey};
use crate::limits::{CLOCK_SKEW_MAX, PREKEY_LIFE, PREKEY_SECRET_GRACE};
use crate::open::receiver_box;
use crate::prekey::SignedPrekey;
use crate::time::UnixMs;
use crate::wire::SignedBytes;

/// Prekey secrets, and the boxes made from them.
#[derive(Default)]
pub(crate) struct Keyring {
    held: BTreeMap<Kid, HeldPrekey>,
    boxes: BTreeMap<(Kid, [u8; 32]), Arc<SalsaBox>>,
    order: VecDeque<(Kid, [u8; 32])>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} prekeys, ..)", self.held.len())
    }
}

impl Keyring {
    /// From the store.
    pub(crate) fn new(held: Vec<HeldPrekey>) -> Self {
        let held = held.into_iter().map(|prekey| (prekey.kid, prekey)).collect();
        Self { held, ..Self::default() }
    }

    /// The statement senders should use, if one is valid.
    pub(crate) fn current(&self, now: UnixMs) -> Option<&SignedBytes> {
        self.held
            .values()
            .filter(|prekey| prekey.exp > now && has_begun(prekey, now))
            .filter_map(|prekey| prekey.signed.as_ref().map(|signed| (prekey.exp, signed)))
            .max_by_key(|(exp, _)| *exp)
            .map(|(_, signed)| signed)
    }

    /// Mints the next prekey when the current one has a day or less to live.
    pub(crate) fn rotate(
        &mut self,
        now: UnixMs,
        mesh: MeshId,
        member: &IdentityKey,
        entropy: &mut Entropy,
    ) -> Option<HeldPrekey> {
        let soon = now.plus(ROTATE_AHEAD);
        let lasts = |prekey: &HeldPrekey| prekey.exp > soon && has_begun(prekey, now);
        if self.held.values().any(|prekey| prekey.signed.is_some() && lasts(prekey)) {
            return None;
        }
        let secret = BoxSecretKey::from_bytes(entropy.bytes());
        let key = secret.public();
        let signed = SignedPrekey::sign(member, mesh, key, now.minus(CLOCK_SKEW_MAX));
        let exp = signed.exp;
        let signed = SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() };
        let minted = HeldPrekey { kid: key.kid(), secret, signed: Some(signed), exp };
        self.held.insert(minted.kid, minted.clone());
        Some(minted)
    }

    /// Forgets secrets that no message in flight can need; gives their names.
    pub(crate) fn retire(&mut self, now: UnixMs) -> Vec<Kid> {
        let gone: Vec<Kid> = self
            .held
            .values()
            .filter(|prekey| prekey.signed.is_some() && prekey.exp.plus(PREKEY_SECRET_GRACE) <= now)
            .map(|prekey| prekey.kid)
            .collect();
        for kid in &gone {
            self.held.remove(kid);
            self.boxes.retain(|(of, _), _| of != kid);
            self.order.retain(|(of, _)| of != kid);
        }
        gone
    }

    pub(crate) fn holdings(&self) -> [Holding; 2] {
        [
            Holding::new("prekey secrets", self.held.len(), SECRETS_MAX),
            Holding::new("boxes to open with", self.boxes.len(), BOXES_MAX),
        ]
    }

    /// Whether the secret of `kid` is held.
    pub(crate) fn holds(&self, kid: &Kid) -> bool {
        self.held.contains_key(kid)
    }

    /// The box between `kid`'s secret and a sender's key: made once, kept while it is in use.
    pub(crate) fn shared_box(&mut self, kid: &Kid, sender: &BoxPublicKey) -> Option<&SalsaBox> {
        let key = (*kid, *sender.as_bytes());
        if !self.boxes.contains_key(&key) {
            let secret = &self.held.get(kid)?.secret;
            #[cfg(feature = "memo")]
            let made = crate::memo::known_box(*kid, *sender.as_bytes())
                .unwrap_or_else(|| Arc::new(receiver_box(secret, sender)));
            #[cfg(not(feature = "memo"))]
            let made = Arc::new(receiver_box(secret, sender));
            if self.order.len() == BOXES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.boxes.remove(&oldest);
            }
            self.order.push_back(key);
            self.boxes.insert(key, made);
        }
        self.boxes.get(&key).map(Arc::as_ref)
    }
}

/// Whether others accept it by now. One that was minted while this clock was ahead is of no use until
/// its time comes.
fn has_begun(prekey: &HeldPrekey, now: UnixMs) -> bool {
    prekey.exp.minus(PREKEY_LIFE) <= now.plus(CLOCK_SKEW_MAX)
}

/// Boxes kept: one Diffie-Hellman (60 µs) each. The oldest goes first.
const BOXES_MAX: usize = 4_096;

/// Prekey secrets that a node holds: the one in its log entry, and one for each week that mail may still be
/// sealed to, with one to spare for a clock that was ahead. Retiring keeps the number; nothing is refused.
const SECRETS_MAX: usize = 6;

/// A prekey is replaced this long before it ends, so that no sender meets an expired one.
const ROTATE_AHEAD: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
