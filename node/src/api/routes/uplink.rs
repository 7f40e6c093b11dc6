//! What needs the coordinator, asked of a node that has only just started: a moment's patience.

use std::time::Duration;

use peerloom_proto::endpoint::UplinkStatus;

use crate::mesh::Mesh;

/// Waits a few seconds for an uplink that is being made. Without one the engine says what is missing.
pub(super) async fn settle(mesh: &Mesh) {
    let settled = mesh.view_when(|view| view.uplink != UplinkStatus::Connecting);
    // Late or stopping: the request that follows gives the clear answer.
    drop(tokio::time::timeout(PATIENCE, settled).await);
}

/// A welcome takes three round trips and a signature.
const PATIENCE: Duration = Duration::from_secs(5);
