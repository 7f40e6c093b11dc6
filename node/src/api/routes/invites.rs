//! Invites: made, listed, withdrawn. A code is told once, in the answer that made it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use peerloom_proto::limits::INVITE_LIFE;
use peerloom_proto::{InviteId, crockford};

use super::uplink;
use crate::api::Api;
use crate::api::request::{MeshParam, Payload, Selected};
use crate::api::shapes::{DoneShape, InviteListShape, InviteRequest, InviteRow, InviteShape};
use crate::failure::{ErrorDocument, Failure, Kind, SCHEMA_VERSION};
use crate::invite::{InvitePlan, make_invite};
use crate::membership::parse_handle;
use crate::mesh::Mesh;
use crate::views::InviteRecord;

/// Makes an invite and deposits it at the coordinator.
#[utoipa::path(post, path = "/v1/invites", params(MeshParam), request_body = InviteRequest, responses(
    (status = 200, body = InviteShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn create(
    State(api): State<Api>,
    Selected(mesh): Selected,
    Payload(InviteRequest { life_s, uses, handle: only_for }): Payload<InviteRequest>,
) -> Result<Json<InviteShape>, Failure> {
    let plan = InvitePlan {
        life: life_s.map_or(INVITE_LIFE, Duration::from_secs),
        uses: uses.unwrap_or(1),
        handle: only_for.map(|text| parse_handle(&text)).transpose()?,
    };
    uplink::settle(&mesh).await;
    let made = make_invite(&mesh, plan, api.daemon.clock().now().wall).await?;
    Ok(Json(InviteShape {
        schema_version: SCHEMA_VERSION,
        url: made.link.to_string(),
        code: made.code.to_string(),
        expires_at_ms: made.exp.0,
        uses: made.uses,
        id: made.link.id,
    }))
}

/// Invites that this node made and that have not ended.
#[utoipa::path(get, path = "/v1/invites", params(MeshParam), responses(
    (status = 200, body = InviteListShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    Selected(mesh): Selected,
) -> Result<Json<InviteListShape>, Failure> {
    let now = api.daemon.clock().now().wall;
    let mut invites: Vec<InviteRow> = live(&mesh, now).await?.iter().map(row).collect();
    invites.sort_by_key(|invite| invite.created_at_ms);
    Ok(Json(InviteListShape { schema_version: SCHEMA_VERSION, invites }))
}

/// Withdraws an invite: nobody can join by it any more.
#[utoipa::path(delete, path = "/v1/invites/{id}",
    params(MeshParam, ("id" = String, Path, description = "as GET /v1/invites shows it")),
    responses((status = 200, body = DoneShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn cancel(
    Selected(mesh): Selected,
    Path(asked): Path<String>,
) -> Result<Json<DoneShape>, Failure> {
    let not_found = || {
        Failure::new(Kind::NotFound, "unknown-invite", format!("this node made no invite {asked}"))
            .next("peerloom invite list")
    };
    let wanted = asked.to_ascii_uppercase();
    let records = mesh.invites().await?;
    let record = records.iter().find(|record| shown(&record.id) == wanted).ok_or_else(not_found)?;
    uplink::settle(&mesh).await;
    if !mesh.invite_cancel(record.id).await? {
        return Err(not_found());
    }
    Ok(Json(DoneShape {
        schema_version: SCHEMA_VERSION,
        done: true,
        text: format!("invite {wanted} is withdrawn"),
    }))
}

async fn live(mesh: &Mesh, now: peerloom_proto::UnixMs) -> Result<Vec<InviteRecord>, Failure> {
    let mut records = mesh.invites().await?;
    records.retain(|record| record.exp > now && record.used < record.uses);
    Ok(records)
}

fn row(record: &InviteRecord) -> InviteRow {
    InviteRow {
        id: shown(&record.id),
        url: record.url.clone(),
        created_at_ms: record.created_at.0,
        expires_at_ms: record.exp.0,
        uses: record.uses,
        used: record.used,
    }
}

fn shown(id: &InviteId) -> String {
    crockford(&id.0, 8)
}
