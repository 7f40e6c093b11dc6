//! What a world computed before: the simulator's alone (feature `memo`, which no program of ours turns
//! on).
//!
//! Whether a signature holds depends on key, bytes and signature only, and the box between two keys on
//! these keys only. A world in one process asks for the same at the sender's, the coordinator's and the
//! recipient's machine, and that is half of what the world costs. What this thread made or found to hold
//! is not computed again; everything else is. The machines cannot tell: a run has the same trace with it
//! and without.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crypto_box::SalsaBox;

use crate::id::{Kid, PeerId};
use crate::key::Signature;
use crate::transcript::sha256;

/// Results kept of one generation; two are kept, 8 MiB in all. A world of 1,000 nodes that chat makes as
/// many in two minutes, and asks for most of them within a second.
const GENERATION_RESULTS: usize = 16_384;

/// What a signature was found to say: its signer, and the hash of what was signed.
type Claim = (PeerId, [u8; 32]);

/// The two ends of a box: the key to open with, and the sender's.
type Ends = (Kid, [u8; 32]);

/// Results by what they depend on.
struct Memo<K, V> {
    young: BTreeMap<K, V>,
    old: BTreeMap<K, V>,
}

impl<K: Copy + Ord, V: Clone> Memo<K, V> {
    const fn empty() -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new() }
    }

    /// What is asked for again stays; what is not goes with its generation.
    fn keep(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION_RESULTS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(value.clone());
        }
        let value = self.old.remove(&key)?;
        self.keep(key, value.clone());
        Some(value)
    }
}

thread_local! {
    static SIGNATURES: RefCell<Memo<[u8; 64], Claim>> = const { RefCell::new(Memo::empty()) };
    static BOXES: RefCell<Memo<Ends, Arc<SalsaBox>>> = const { RefCell::new(Memo::empty()) };
}

/// This thread made the signature or verified it.
pub(crate) fn learn_signature(signer: PeerId, signature: Signature, input: &[u8]) {
    SIGNATURES.with_borrow_mut(|known| known.keep(signature.0, (signer, sha256(input))));
}

/// Whether this very signature by this signer over these bytes is known to hold.
pub(crate) fn is_known(signer: PeerId, signature: Signature, input: &[u8]) -> bool {
    let claim = SIGNATURES.with_borrow_mut(|known| known.get(signature.0));
    claim.is_some_and(|claim| claim == (signer, sha256(input)))
}

/// A sender made the box between its own key and the one that `kid` names.
pub(crate) fn learn_box(kid: Kid, sender: [u8; 32], shared: &Arc<SalsaBox>) {
    BOXES.with_borrow_mut(|known| known.keep((kid, sender), Arc::clone(shared)));
}

/// The same box at its other end.
pub(crate) fn known_box(kid: Kid, sender: [u8; 32]) -> Option<Arc<SalsaBox>> {
    BOXES.with_borrow_mut(|known| known.get((kid, sender)))
}
