//! Signatures known to hold: the simulator's alone (feature `memo`, which no program of ours turns on).
//!
//! Whether a signature holds depends on key, bytes and signature only. A world in one process asks it of
//! the same three at the sender's, the coordinator's and the recipient's machine, and that is a third of
//! what the world costs. What this thread signed or found to hold is not computed again; everything
//! else is. The machines cannot tell: a run has the same trace with it and without.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Signature;
use crate::id::PeerId;
use crate::transcript::sha256;

/// Signatures kept of one generation; two are kept, 4 MiB. A world of 1,000 nodes that chat makes as many
/// in two minutes, and asks for most of them within a second.
const GENERATION_SIGNATURES: usize = 16_384;

/// What a signature was found to say.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Claim {
    signer: PeerId,
    input: [u8; 32],
}

#[derive(Default)]
struct Known {
    young: BTreeMap<[u8; 64], Claim>,
    old: BTreeMap<[u8; 64], Claim>,
}

impl Known {
    /// What is asked for again stays; what is not goes with its generation.
    fn keep(&mut self, signature: Signature, claim: Claim) {
        if self.young.len() >= GENERATION_SIGNATURES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(signature.0, claim);
    }
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// This thread made the signature or verified it.
pub(super) fn learn(signer: PeerId, signature: Signature, input: &[u8]) {
    let claim = Claim { signer, input: sha256(input) };
    KNOWN.with_borrow_mut(|known| known.keep(signature, claim));
}

/// Whether this very signature by this signer over these bytes is known to hold.
pub(super) fn holds(signer: PeerId, signature: Signature, input: &[u8]) -> bool {
    KNOWN.with_borrow_mut(|known| {
        if let Some(claim) = known.young.get(&signature.0) {
            return *claim == Claim { signer, input: sha256(input) };
        }
        let Some(claim) = known.old.remove(&signature.0) else { return false };
        known.keep(signature, claim);
        claim == Claim { signer, input: sha256(input) }
    })
}
