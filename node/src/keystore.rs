//! Secret seeds on disk: hexadecimal text in a 0600 file of its own, refused when others can read it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use peerloom_proto::{IdentityKey, hex_of};
use zeroize::Zeroizing;

use crate::home::{HomeError, write_private};

/// Why a key file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The file cannot be read.
    #[error("failed to read the key {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("failed to write the key {}", path.display())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<HomeError>,
    },
    /// Other users can read it.
    #[error("the key {} is readable by others (mode {mode:o}); make it 0600 and consider it known", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hexadecimal digits.
    #[error("the key {} is not 64 hexadecimal digits", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// Writes a seed, on disk when this returns.
pub fn write_seed(path: &Path, seed: &[u8; 32]) -> Result<(), KeystoreError> {
    let mut text = Zeroizing::new(hex_of(seed));
    text.push('\n');
    write_private(path, text.as_bytes())
        .map_err(|source| KeystoreError::Unwritable { path: path.to_owned(), source: Box::new(source) })
}

/// Reads the signing key whose seed stands in `path`.
pub fn read_key(path: &Path) -> Result<IdentityKey, KeystoreError> {
    let unreadable = |source| KeystoreError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeystoreError::Exposed { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), &mut *seed)
        .map_err(|_| KeystoreError::Malformed { path: path.to_owned() })?;
    Ok(IdentityKey::from_seed(&seed))
}

/// Fresh bytes from the operating system.
///
/// # Panics
/// If the operating system has no entropy to give: no key made then would be one.
pub fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).expect("the operating system gives entropy");
    bytes
}
