//! Putting an engine together.

use peerloom_proto::endpoint::Endpoint;
use peerloom_transports::{CandidateScope, TlsTrust};
use tokio::runtime::{Builder, Handle};

use super::settings::Identity;
use super::view::Publisher;
use super::waiting::Waiting;
use super::{Engine, EngineHandle, Inlet};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::StartError;
use crate::home::MeshInfo;
use crate::links::{Links, StunFinder};
use crate::mesh::Mesh;
use crate::store::Store;
use crate::uplink::Uplink;

/// Opens the store, rebuilds the machine, starts the thread and the sockets.
pub(crate) async fn start(
    info: MeshInfo,
    config: &Config,
    clock: Clock,
    port: u16,
) -> Result<Mesh, StartError> {
    let (engine, mesh) = assemble(info, config, clock, port).await?;
    engine.spawn(mesh.info())?;
    Ok(mesh)
}

/// Everything but the thread.
pub(super) async fn assemble(
    info: MeshInfo,
    config: &Config,
    clock: Clock,
    port: u16,
) -> Result<(Engine, Mesh), StartError> {
    let identity = Identity::read(&info, config.paths.clone())?;
    let member = identity.member();
    let path = info.store_file();
    let unusable = |source| StartError::Store { path: path.clone(), source };
    let (writer, reader, loaded) = Store::open(&path).await.map_err(unusable)?;
    let failed = loaded.failed;
    let rebuilt = identity.rebuild(loaded).map_err(unusable)?;
    let endpoint = Endpoint::new(rebuilt.settings, clock.now());

    let (inlet, queue) = Inlet::new();
    let runtime = Handle::current();
    let trust = TlsTrust { extra_ca: config.ca_file.clone() };
    let uplink = Uplink::new(info.origin.clone(), trust, inlet.clone(), runtime.clone());
    let mut links = if config.direct {
        let scope = if config.allow_loopback || info.origin.is_loopback() {
            CandidateScope::WithLoopback
        } else {
            CandidateScope::Routable
        };
        let stun = StunFinder::new(info.origin.clone(), config.ca_file.clone());
        let links = Links::on(port, scope, config.transports, stun, inlet.clone(), runtime);
        links.map_err(|source| StartError::Socket { port, source })?
    } else {
        Links::off(inlet.clone(), runtime)
    };
    links.announce();
    let (publisher, events, view) = Publisher::new(&endpoint, rebuilt.times, failed);
    let engine = Engine {
        runtime: Builder::new_current_thread().enable_time().build().map_err(StartError::Thread)?,
        clock,
        path,
        identity,
        endpoint,
        writer: Some(writer),
        reader: reader.clone(),
        queue,
        uplink,
        links,
        waiting: Waiting::default(),
        publisher,
        follow_ups: Vec::new(),
        failures: 0,
        stop: None,
    };
    let handle = EngineHandle { works: inlet.works().clone(), events, view };
    Ok((engine, Mesh::new(info, member, handle, reader)))
}
