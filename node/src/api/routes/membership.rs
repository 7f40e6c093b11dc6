//! Making, joining and leaving meshes while the daemon holds the home. Without a daemon the CLI runs
//! the same library in process.

use axum::Json;
use axum::extract::State;
use peerloom_proto::endpoint::LogChange;

use super::peers::append;
use crate::api::Api;
use crate::api::request::{MeshParam, Payload, Selected};
use crate::api::shapes::{DoneShape, InitRequest, InitShape, JoinRequest, JoinShape, RevokeReason};
use crate::failure::{ErrorDocument, Failure, SCHEMA_VERSION};
use crate::init::make_mesh;
use crate::join::join_mesh;
use crate::membership::{init_plan, join_plan, present_init, present_join, refuse_same_name};

/// Makes a mesh with this node as its admin, and starts it.
#[utoipa::path(post, path = "/v1/meshes/init", request_body = InitRequest, responses(
    (status = 200, body = InitShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn init(
    State(api): State<Api>,
    Payload(request): Payload<InitRequest>,
) -> Result<Json<InitShape>, Failure> {
    let plan = init_plan(&request)?;
    let present: Vec<_> = api.daemon.meshes().iter().map(|mesh| mesh.info().clone()).collect();
    refuse_same_name(&plan, &present)?;
    let made = make_mesh(plan, api.daemon.config().ca_file.as_deref(), api.daemon.clock().now().wall).await?;
    let (owner, member, recovery) = (made.owner, made.member, made.recovery);
    let mesh = api.daemon.create_mesh(made.mesh).await?;
    Ok(Json(present_init(mesh.info(), member, owner, &recovery)))
}

/// Joins a mesh by an invite, and starts it.
#[utoipa::path(post, path = "/v1/meshes/join", request_body = JoinRequest, responses(
    (status = 200, body = JoinShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn join(
    State(api): State<Api>,
    Payload(request): Payload<JoinRequest>,
) -> Result<Json<JoinShape>, Failure> {
    let present = api.daemon.meshes().iter().map(|mesh| mesh.id()).collect();
    let plan = join_plan(&request, present)?;
    let joined = join_mesh(plan, api.daemon.config().ca_file.as_deref(), api.daemon.clock()).await?;
    let (member, inviter, head) = (joined.member, joined.inviter, joined.head);
    let mesh = api.daemon.create_mesh(joined.mesh).await?;
    Ok(Json(present_join(mesh.info(), member, inviter, head)))
}

/// Revokes this node's own key in the mesh, stops the mesh, and puts its files aside.
#[utoipa::path(post, path = "/v1/leave", params(MeshParam), responses(
    (status = 200, body = DoneShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn leave(
    State(api): State<Api>,
    Selected(mesh): Selected,
) -> Result<Json<DoneShape>, Failure> {
    // Where somebody else removed it before, only the files are left to put aside.
    if mesh.view().members.iter().any(|member| member.is_me && !member.revoked) {
        append(&mesh, LogChange::Revoke { target: mesh.member(), reason: RevokeReason::Left.number() })
            .await?;
    }
    api.daemon.retire_mesh(mesh.id()).await?;
    let text = format!(
        "left {}; its files stay in {}",
        mesh.name(),
        api.daemon.home().root().join("meshes").display()
    );
    Ok(Json(DoneShape { schema_version: SCHEMA_VERSION, done: true, text }))
}
