//! The data directory: one owner, one process at a time, and the two secrets beside the database.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use peerloom_proto::{IdentityKey, hex_of};
use zeroize::Zeroizing;

use crate::server::io_exit_code;
use crate::store::{Identity, ServesMeshes};

const KEY_FILE: &str = "coordinator.key";
const TOKEN_FILE: &str = "mesh-token";
const LOCK_FILE: &str = "lock";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another coordinator has it.
    #[error(
        "{path} is in use by another peerloom-coordinator: stop that one, or give this one its own --data"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else owns it.
    #[error("{path} belongs to user {owner}, not to the user running this: use a --data of your own")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// The key file is not one.
    #[error(
        "{path} is not a coordinator key (64 hexadecimal digits); it was left as it is: restore it from a backup"
    )]
    KeyDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The meshes here name a coordinator whose key is gone.
    #[error(
        "{path} is missing although this data directory serves meshes, whose logs name that key: restore it from a backup"
    )]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("failed to {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl DataDirError {
    /// See [`ServeError::exit_code`](crate::server::ServeError::exit_code).
    pub(crate) fn exit_code(&self) -> (u8, &'static str) {
        match self {
            Self::InUse { .. } => (8, "in-use"),
            Self::NotOurs { .. } => (5, "denied"),
            Self::KeyDamaged { .. } => (9, "damaged"),
            Self::KeyMissing { .. } => (11, "missing"),
            Self::Io { source, .. } => io_exit_code(source),
        }
    }
}

/// An exclusively locked data directory. The lock ends with the process, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) if need be, takes it away from other users, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
        let metadata = fs::metadata(path).map_err(failed("inspect", path))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(DataDirError::NotOurs { path: path.to_owned(), owner: metadata.uid() });
        }
        if metadata.mode() & 0o077 != 0 {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(path, private).map_err(failed("restrict access to", path))?;
        }
        let lock_path = path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path)(source)),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store may expect: a database exists exactly when a key does.
    pub fn identity(&self) -> Identity {
        if self.path.join(KEY_FILE).exists() { Identity::Exists } else { Identity::None }
    }

    /// The coordinator's key: read, or made on the first start.
    ///
    /// Comes after the store was opened, so that a first start cut short leaves a database without
    /// a key, which is a first start again; `serves_meshes` tells that apart from a lost key.
    pub fn key(&self, serves_meshes: ServesMeshes) -> Result<IdentityKey, DataDirError> {
        let path = self.path.join(KEY_FILE);
        if let Some(text) = read_secret(&path)? {
            let mut seed = Zeroizing::new([0; 32]);
            return match hex::decode_to_slice(text.trim(), &mut *seed) {
                Ok(()) => Ok(IdentityKey::from_seed(&seed)),
                Err(_) => Err(DataDirError::KeyDamaged { path }),
            };
        }
        match serves_meshes {
            ServesMeshes::Some => Err(DataDirError::KeyMissing { path }),
            ServesMeshes::None => {
                let seed = random()?;
                write_secret(&self.path, KEY_FILE, &Zeroizing::new(hex_of(&*seed)))?;
                Ok(IdentityKey::from_seed(&seed))
            }
        }
    }

    /// The token that may create meshes: read, or made and then to be shown once.
    pub fn mesh_token(&self) -> Result<MeshToken, DataDirError> {
        let path = self.path.join(TOKEN_FILE);
        if let Some(text) = read_secret(&path)?.filter(|text| !text.trim().is_empty()) {
            return Ok(MeshToken { text: Zeroizing::new(text.trim().to_owned()), origin: TokenOrigin::Kept });
        }
        let text = Zeroizing::new(hex_of(&*random()?));
        write_secret(&self.path, TOKEN_FILE, &text)?;
        Ok(MeshToken { text, origin: TokenOrigin::Made })
    }
}

/// The bearer token of `POST /v2/meshes`.
pub struct MeshToken {
    /// 64 hexadecimal digits, or what the operator wrote into the file.
    pub text: Zeroizing<String>,
    /// Whether it was shown before.
    pub origin: TokenOrigin,
}

/// See [`MeshToken::origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// From the file.
    Kept,
    /// By this start.
    Made,
}

fn random() -> Result<Zeroizing<[u8; 32]>, DataDirError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| DataDirError::Io {
        action: "read",
        path: "the system's entropy".into(),
        source: io::Error::other(error),
    })?;
    Ok(bytes)
}

fn read_secret(path: &Path) -> Result<Option<Zeroizing<String>>, DataDirError> {
    /// Far more than a key or token; a file larger than this is neither.
    const SECRET_BYTES_MAX: u64 = 4 << 10;
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DataDirError::KeyDamaged { path: path.to_owned() })
        }
        Err(source) => Err(DataDirError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Whole or not at all, also across a power cut: temporary file, fsync, rename, fsync of the directory.
fn write_secret(dir: &Path, name: &str, text: &str) -> Result<(), DataDirError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.part"));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|source| DataDirError::Io { action: "write", path, source })
}

#[cfg(test)]
mod tests;
