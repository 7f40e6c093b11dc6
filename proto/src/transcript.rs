//! LP, T, HASH and the signing input (protocol.md §1): every hash and signature is over bytes
//! that name their purpose.

use sha2::{Digest, Sha256};

/// T(label, f…) = LP("peerloom2/" ‖ label) ‖ LP(f1) ‖ … where LP(x) = u32be(len x) ‖ x.
pub(crate) fn transcript(label: &str, fields: &[&[u8]]) -> Vec<u8> {
    let total: usize = fields.iter().map(|field| field.len() + 4).sum();
    let mut out = Vec::with_capacity(total + label.len() + 16);
    write_lp(&mut out, &[b"peerloom2/", label.as_bytes()]);
    for field in fields {
        write_lp(&mut out, &[field]);
    }
    out
}

/// HASH(label, f…) = SHA-256(T("hash/" ‖ label, f…)).
pub fn hash(label: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hash_lp(&mut hasher, &[b"peerloom2/hash/", label.as_bytes()]);
    for field in fields {
        hash_lp(&mut hasher, &[field]);
    }
    hasher.finalize().into()
}

/// The first 16 bytes of HASH(label, f…).
pub fn hash16(label: &str, fields: &[&[u8]]) -> [u8; 16] {
    let full = hash(label, fields);
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

/// Plain SHA-256, the only hash of the protocol.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The bytes an ed25519 key signs for `label`.
pub(crate) fn signing_input(label: &str, fields: &[&[u8]]) -> Vec<u8> {
    transcript(&format!("sig/{label}"), fields)
}

fn length(parts: &[&[u8]]) -> [u8; 4] {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    u32::try_from(total).expect("transcript fields are capped far below 4 GiB").to_be_bytes()
}

fn write_lp(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(&length(parts));
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn hash_lp(hasher: &mut Sha256, parts: &[&[u8]]) {
    hasher.update(length(parts));
    for part in parts {
        hasher.update(part);
    }
}
