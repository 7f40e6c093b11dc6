//! The daemon itself.

use axum::Json;
use axum::extract::State;

use crate::api::present::mesh_status;
use crate::api::request::{MeshParam, Params};
use crate::api::shapes::{DoneShape, MeshStatus, OutboxCountsShape, StatusShape};
use crate::api::{Api, openapi};
use crate::daemon::Daemon;
use crate::failure::{ErrorDocument, Failure, SCHEMA_VERSION};

/// The daemon, its meshes, their coordinators and outboxes.
#[utoipa::path(get, path = "/v1/status", params(MeshParam), responses(
    (status = 200, body = StatusShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn status(
    State(api): State<Api>,
    Params(MeshParam { mesh }): Params<MeshParam>,
) -> Result<Json<StatusShape>, Failure> {
    let mut meshes: Vec<MeshStatus> = match mesh {
        Some(selector) => vec![mesh_status(&api.daemon.mesh(Some(&selector))?)],
        None => api.daemon.meshes().iter().map(mesh_status).collect(),
    };
    meshes.sort_by(|a, b| (&a.mesh.name, &a.mesh.id).cmp(&(&b.mesh.name, &b.mesh.id)));
    let now = api.daemon.clock().now().wall;
    let first = meshes.first().cloned();
    let bare = StatusShape {
        schema_version: SCHEMA_VERSION,
        running: true,
        pid: Some(std::process::id()),
        version: Some(Daemon::VERSION.to_owned()),
        uptime_ms: Some(now.0.saturating_sub(api.daemon.started_at().0)),
        mesh: None,
        me: None,
        coordinator: None,
        peers_online: 0,
        outbox: OutboxCountsShape::default(),
        alarms: Vec::new(),
        meshes,
    };
    Ok(Json(match first {
        None => bare,
        Some(MeshStatus { mesh, me, coordinator, peers_online, outbox, alarms }) => StatusShape {
            mesh: Some(mesh),
            me: Some(me),
            coordinator: Some(coordinator),
            peers_online,
            outbox,
            alarms,
            ..bare
        },
    }))
}

/// Stops the daemon once this answer is given; what it has begun is on disk by then.
#[utoipa::path(post, path = "/v1/shutdown", responses(
    (status = 200, body = DoneShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn shutdown(State(api): State<Api>) -> Json<DoneShape> {
    api.stop.cancel();
    Json(DoneShape { schema_version: SCHEMA_VERSION, done: true, text: "the node is stopping".to_owned() })
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json"),
    (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::document())
}
