//! The composition root: takes the home, starts every mesh in it, and stops them. It decides nothing.

use std::sync::{Arc, Mutex, PoisonError};

use peerloom_proto::{MeshId, UnixMs};

use crate::clock::Clock;
use crate::config::Config;
use crate::engine;
use crate::home::{DaemonNote, Home, HomeError, HomeLock, MeshInfo, NewMesh};
use crate::keystore::KeystoreError;
use crate::mesh::Mesh;
use crate::store::StoreError;

/// Why a daemon, or one of its meshes, does not start. The operator must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A mesh's keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeystoreError),
    /// A mesh's store cannot be used. It is left as it was found.
    #[error("the store {} cannot be used", path.display())]
    Store {
        /// Which store.
        path: std::path::PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The UDP socket of direct links cannot be had.
    #[error("no UDP socket for direct links on port {port}")]
    Socket {
        /// The port asked for; 0 is any.
        port: u16,
        /// Why not.
        source: peerloom_transports::BindError,
    },
    /// A thread cannot be started.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// This daemon already runs that mesh.
    #[error("mesh {0} is running already")]
    Running(MeshId),
}

/// Why a selector means no mesh of this daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The home has no mesh.
    #[error("this node is in no mesh")]
    None,
    /// No mesh is called so.
    #[error("no mesh here is called {selector:?}")]
    NotFound {
        /// What was asked for.
        selector: String,
        /// Names of those that are here.
        have: Vec<String>,
    },
    /// Several meshes answer to it, or none was named and there are several.
    #[error("several meshes answer to {}", selector.as_deref().unwrap_or("no name"))]
    Ambiguous {
        /// What was asked for.
        selector: Option<String>,
        /// Name and id of each.
        candidates: Vec<(String, MeshId)>,
    },
}

/// All meshes of one home in one process. Cheap to clone; the home is released when the last clone
/// is dropped or [`Daemon::stop`] returns.
#[derive(Clone, Debug)]
pub struct Daemon {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    config: Config,
    clock: Clock,
    started_at: UnixMs,
    lock: Mutex<Option<HomeLock>>,
    meshes: Mutex<Vec<Mesh>>,
}

impl Daemon {
    /// Takes the home's lock and starts every mesh in it; a home without meshes is fine.
    pub async fn start(home: Home, config: Config) -> Result<Self, StartError> {
        let lock = home.lock()?;
        let clock = Clock::start();
        let started_at = clock.now().wall;
        let known = home.meshes()?;
        let note = DaemonNote {
            pid: std::process::id(),
            started_at_ms: started_at.0,
            version: Self::VERSION.to_owned(),
        };
        let inner = Inner {
            home,
            config,
            clock,
            started_at,
            lock: Mutex::new(Some(lock)),
            meshes: Mutex::new(Vec::new()),
        };
        let daemon = Self { inner: Arc::new(inner) };
        for info in known {
            if let Err(error) = daemon.start_mesh(info).await {
                daemon.stop().await;
                return Err(error);
            }
        }
        daemon.inner.home.write_daemon_note(&note)?;
        Ok(daemon)
    }

    /// Version of the program.
    pub const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// The home.
    pub fn home(&self) -> &Home {
        &self.inner.home
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// When it started.
    pub fn started_at(&self) -> UnixMs {
        self.inner.started_at
    }

    /// The node's clocks.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// The meshes that run, in the order they were started.
    pub fn meshes(&self) -> Vec<Mesh> {
        self.running().clone()
    }

    /// Finds a mesh by name, or by the beginning of its id; without a selector there must be
    /// exactly one.
    pub fn mesh(&self, selector: Option<&str>) -> Result<Mesh, SelectError> {
        select(&self.meshes(), selector)
    }

    /// Starts a mesh whose directory stands in the home.
    pub async fn add_mesh(&self, id: MeshId) -> Result<Mesh, StartError> {
        let info = self.inner.home.mesh(id)?;
        self.start_mesh(info).await
    }

    /// Makes a mesh's directory and starts it.
    pub async fn create_mesh(&self, mesh: NewMesh) -> Result<Mesh, StartError> {
        let info = self.inner.home.create_mesh(mesh).await?;
        self.start_mesh(info).await
    }

    /// Stops a mesh and puts its directory aside; for a mesh that this node left.
    pub async fn retire_mesh(&self, id: MeshId) -> Result<(), HomeError> {
        let leaving = self.running().iter().find(|mesh| mesh.id() == id).cloned();
        if let Some(mesh) = leaving {
            mesh.stop().await;
        }
        self.running().retain(|mesh| mesh.id() != id);
        self.inner.home.retire_mesh(id)?;
        Ok(())
    }

    /// Stops every mesh once what it has begun is on disk, then releases the home.
    pub async fn stop(&self) {
        for mesh in self.meshes() {
            mesh.stop().await;
        }
        if let Err(error) = self.inner.home.remove_daemon_note() {
            tracing::warn!(%error, "The daemon's note stays behind.");
        }
        *self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn start_mesh(&self, info: MeshInfo) -> Result<Mesh, StartError> {
        let place = {
            let running = self.running();
            if running.iter().any(|mesh| mesh.id() == info.id) {
                return Err(StartError::Running(info.id));
            }
            running.len()
        };
        let offset = u16::try_from(place).unwrap_or(u16::MAX);
        let port = match self.inner.config.udp_port {
            0 => 0,
            first => first.saturating_add(offset),
        };
        let mesh = engine::start(info, &self.inner.config, self.inner.clock, port).await?;
        self.running().push(mesh.clone());
        Ok(mesh)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Mesh>> {
        // A panic elsewhere cannot leave a list of handles half changed.
        self.inner.meshes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn select(meshes: &[Mesh], selector: Option<&str>) -> Result<Mesh, SelectError> {
    if meshes.is_empty() {
        return Err(SelectError::None);
    }
    let answers = |mesh: &&Mesh| match selector {
        None => true,
        Some(text) => mesh.name() == text || is_id_prefix(text, mesh.id()),
    };
    let found: Vec<&Mesh> = meshes.iter().filter(answers).collect();
    match (found.as_slice(), selector) {
        ([mesh], _) => Ok((*mesh).clone()),
        ([], selector) => Err(SelectError::NotFound {
            selector: selector.unwrap_or_default().to_owned(),
            have: meshes.iter().map(|mesh| mesh.name().to_owned()).collect(),
        }),
        ([_, _, ..], selector) => Err(SelectError::Ambiguous {
            selector: selector.map(str::to_owned),
            candidates: found.iter().map(|mesh| (mesh.name().to_owned(), mesh.id())).collect(),
        }),
    }
}

fn is_id_prefix(text: &str, id: MeshId) -> bool {
    text.len() >= ID_PREFIX_DIGITS_MIN && id.to_string().starts_with(&text.to_ascii_lowercase())
}

/// Hex digits from which on a text may name a mesh by its id.
const ID_PREFIX_DIGITS_MIN: usize = 8;
