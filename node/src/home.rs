//! A node's home: every file of its state, and the one lock on all of them.
//!
//! Directories are 0700 and files 0600. A mesh directory appears in one rename, complete, or not
//! at all; what looks half there is refused and never repaired by making it anew.

mod files;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use peerloom_proto::{BoxSecretKey, Handle, MeshId, Origin, UnixMs};
use zeroize::Zeroizing;

pub(crate) use self::files::write_private;
use self::files::{FILE_MODE, make_dir, remove_draft, sync_dir};
use crate::clock::Clock;
use crate::keystore::{self, KeystoreError};
use crate::store::{Store, StoreError};

/// Why the home cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Neither `PEERLOOM_HOME` nor `HOME` says where the home is.
    #[error("no home: set PEERLOOM_HOME to a directory")]
    Nowhere,
    /// Another process holds it.
    #[error("{} is in use by process {}", root.display(), pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The home.
        root: PathBuf,
        /// Who holds it, if it said so.
        pid: Option<u32>,
    },
    /// The socket's path does not fit into an address.
    #[error("{} is longer than {SOCKET_PATH_BYTES_MAX} bytes; set PEERLOOM_HOME to a shorter directory", path.display())]
    SocketPathTooLong {
        /// Where the socket would be.
        path: PathBuf,
    },
    /// The mesh is here already.
    #[error("{} exists already", dir.display())]
    MeshExists {
        /// Its directory.
        dir: PathBuf,
    },
    /// A mesh has keys but no store: something deleted it, and with it mail that was acknowledged.
    #[error("{} is missing although the mesh's keys are there; restore it from a backup", path.display())]
    StoreMissing {
        /// Where the store should be.
        path: PathBuf,
    },
    /// A file does not say what it should.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        what: String,
    },
    /// A key file is not usable.
    #[error(transparent)]
    Key(#[from] KeystoreError),
    /// The new store could not be written.
    #[error("failed to write {}", path.display())]
    Store {
        /// Which store.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The file system said no.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A node's home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// Proof that this process alone uses the home. Released when dropped, and by the kernel when the
/// process dies.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// What `mesh.json` says, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshInfo {
    /// The mesh's real name.
    pub id: MeshId,
    /// The name people gave it.
    pub name: String,
    /// This node's handle in it.
    pub handle: Handle,
    /// Its coordinator.
    pub origin: Origin,
    /// When this node made or joined it.
    pub created_at: UnixMs,
    /// Its directory.
    pub dir: PathBuf,
}

/// Everything a mesh directory begins with.
#[derive(Debug)]
pub struct NewMesh {
    /// HASH("mesh", genesis).
    pub id: MeshId,
    /// The name people gave it.
    pub name: String,
    /// This node's handle in it.
    pub handle: Handle,
    /// Its coordinator.
    pub origin: Origin,
    /// Seed of the member key.
    pub member_seed: Zeroizing<[u8; 32]>,
    /// Seed of the owner key, where the mesh was made.
    pub owner_seed: Option<Zeroizing<[u8; 32]>>,
    /// The log so far, as wire entries, from index 0 up to and with this member's own.
    pub entries: Vec<Bytes>,
    /// The secret of the x25519 key in this member's log entry.
    pub prekey: BoxSecretKey,
}

/// The daemon's own note, for `status` and `down`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DaemonNote {
    /// Process id.
    pub pid: u32,
    /// Unix milliseconds.
    pub started_at_ms: u64,
    /// Version of the program.
    pub version: String,
}

impl Home {
    /// The home at a directory, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the optional configuration stands.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Where the log files stand.
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The log file that is written to.
    pub fn log_file(&self) -> PathBuf {
        self.log_dir().join("peerloom.log")
    }

    /// The local API's socket.
    ///
    /// # Errors
    /// [`HomeError::SocketPathTooLong`] if no socket can have that address.
    pub fn socket(&self) -> Result<PathBuf, HomeError> {
        let path = self.root.join("api.sock");
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(HomeError::SocketPathTooLong { path });
        }
        Ok(path)
    }

    /// Makes the directories that are missing, 0700.
    pub fn create(&self) -> Result<(), HomeError> {
        make_dir(&self.root)?;
        make_dir(&self.meshes_dir())?;
        make_dir(&self.log_dir())
    }

    /// Takes the home for this process; makes it if it is missing.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        self.create()?;
        let path = self.root.join("home.lock");
        let failed = |source| HomeError::Io { action: "lock", path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(HomeError::Locked { root: self.root.clone(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The pid inside is for the message of the next one who asks; the lock itself is the kernel's.
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(HomeLock { _file: file })
    }

    /// The meshes in this home, by name and then id. Empty if the home does not exist.
    pub fn meshes(&self) -> Result<Vec<MeshInfo>, HomeError> {
        let dir = self.meshes_dir();
        let listing = match fs::read_dir(&dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(HomeError::Io { action: "list", path: dir, source }),
        };
        let mut meshes = Vec::new();
        for item in listing {
            let item = item.map_err(|source| HomeError::Io { action: "list", path: dir.clone(), source })?;
            // Other names are directories that a crash left before their rename, or that a person put there.
            if let Some(id) = item.file_name().to_str().and_then(|name| name.parse().ok()) {
                meshes.push(self.mesh(id)?);
            }
        }
        meshes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(meshes)
    }

    /// One mesh of this home.
    ///
    /// # Errors
    /// [`HomeError::StoreMissing`] if its keys are there and its store is not.
    pub fn mesh(&self, id: MeshId) -> Result<MeshInfo, HomeError> {
        let dir = self.meshes_dir().join(id.to_string());
        let path = dir.join("mesh.json");
        let text = fs::read_to_string(&path).map_err(|source| HomeError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let file: MeshFile = serde_json::from_str(&text)
            .map_err(|error| HomeError::Damaged { path: path.clone(), what: error.to_string() })?;
        if file.id != id {
            return Err(HomeError::Damaged { path, what: format!("it names mesh {}", file.id) });
        }
        let info = MeshInfo {
            id,
            name: file.name,
            handle: file.handle,
            origin: file.coordinator,
            created_at: file.created_at_ms,
            dir,
        };
        if !info.store_file().exists() {
            return Err(HomeError::StoreMissing { path: info.store_file() });
        }
        Ok(info)
    }

    /// Makes a mesh's directory with its keys and a store that holds the log so far and the first
    /// prekey. It appears complete, on disk, or not at all. The caller holds the home's lock.
    pub async fn create_mesh(&self, mesh: NewMesh) -> Result<MeshInfo, HomeError> {
        self.create()?;
        let dir = self.meshes_dir().join(mesh.id.to_string());
        if dir.exists() {
            return Err(HomeError::MeshExists { dir });
        }
        let draft = self.meshes_dir().join(format!(".draft-{}", mesh.id));
        remove_draft(&draft)?;
        make_dir(&draft)?;
        let created_at = Clock::start().now().wall;
        keystore::write_seed(&draft.join(MEMBER_KEY), &mesh.member_seed)?;
        if let Some(owner) = &mesh.owner_seed {
            keystore::write_seed(&draft.join(OWNER_KEY), owner)?;
        }
        let store = draft.join(STORE);
        Store::create(&store, &mesh.entries, &mesh.prekey)
            .await
            .map_err(|source| HomeError::Store { path: store.clone(), source })?;
        let file = MeshFile {
            id: mesh.id,
            name: mesh.name,
            handle: mesh.handle,
            coordinator: mesh.origin,
            created_at_ms: created_at,
        };
        let text = serde_json::to_vec_pretty(&file).expect("ids, names and numbers have a JSON form");
        write_private(&draft.join("mesh.json"), &text)?;
        sync_dir(&draft)?;
        fs::rename(&draft, &dir).map_err(|source| HomeError::Io {
            action: "rename",
            path: draft.clone(),
            source,
        })?;
        sync_dir(&self.meshes_dir())?;
        self.mesh(mesh.id)
    }

    /// Puts a mesh that was left aside: its directory stays, under a name that is not read again.
    /// Gives where it is.
    pub fn retire_mesh(&self, id: MeshId) -> Result<PathBuf, HomeError> {
        let from = self.meshes_dir().join(id.to_string());
        let at = Clock::start().now().wall.0;
        let to = self.meshes_dir().join(format!("left-{}-{at}", id.short()));
        fs::rename(&from, &to).map_err(|source| HomeError::Io { action: "rename", path: from, source })?;
        sync_dir(&self.meshes_dir())?;
        Ok(to)
    }

    /// What the running daemon wrote about itself; none if there is no note. A note alone does not
    /// mean that the daemon lives.
    pub fn daemon_note(&self) -> Option<DaemonNote> {
        let text = fs::read_to_string(self.note_file()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the daemon's note.
    pub(crate) fn write_daemon_note(&self, note: &DaemonNote) -> Result<(), HomeError> {
        let text = serde_json::to_vec(note).expect("numbers and text have a JSON form");
        let draft = self.root.join(".daemon.json");
        write_private(&draft, &text)?;
        let path = self.note_file();
        fs::rename(&draft, &path).map_err(|source| HomeError::Io { action: "rename", path, source })
    }

    /// Removes the daemon's note, if there is one.
    pub(crate) fn remove_daemon_note(&self) -> Result<(), HomeError> {
        let path = self.note_file();
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(HomeError::Io { action: "remove", path, source }),
        }
    }

    fn note_file(&self) -> PathBuf {
        self.root.join("daemon.json")
    }

    fn meshes_dir(&self) -> PathBuf {
        self.root.join("meshes")
    }
}

impl MeshInfo {
    /// The seed of this node's member key.
    pub fn member_key_file(&self) -> PathBuf {
        self.dir.join(MEMBER_KEY)
    }

    /// The seed of the mesh's owner key; exists only where the mesh was made, until it is moved away.
    pub fn owner_key_file(&self) -> PathBuf {
        self.dir.join(OWNER_KEY)
    }

    /// The store.
    pub fn store_file(&self) -> PathBuf {
        self.dir.join(STORE)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct MeshFile {
    id: MeshId,
    name: String,
    handle: Handle,
    coordinator: Origin,
    created_at_ms: UnixMs,
}

const MEMBER_KEY: &str = "member.key";
const OWNER_KEY: &str = "owner.key";
const STORE: &str = "node.db";

/// A Unix socket address holds 108 bytes on Linux and 104 on macOS (sun_path), with a final zero.
const SOCKET_PATH_BYTES_MAX: usize = 100;

#[cfg(test)]
mod tests;
