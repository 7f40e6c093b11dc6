//! Messages that were sent: their delivery, and what to do with those that failed.

use axum::Json;
use axum::extract::Path;
use serde::Deserialize;

use crate::api::present::Names;
use crate::api::request::{MeshParam, Params, Payload, Selected, message_id};
use crate::api::shapes::{
    AbortRequest, DoneShape, MessageShape, OutboxPage, RequeueRequest, RequeueShape, RequeuedShape,
};
use crate::failure::{ErrorDocument, Failure, Kind, SCHEMA_VERSION};
use crate::views::{OutboxFilter, OutboxQuery, RequeueSelector};

/// A message's delivery, recipient by recipient.
#[utoipa::path(get, path = "/v1/messages/{id}", params(MeshParam, ("id" = String, Path, description = "32 hex digits")),
    responses((status = 200, body = MessageShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn message(
    Selected(mesh): Selected,
    Path(id): Path<String>,
) -> Result<Json<MessageShape>, Failure> {
    let id = message_id(&id)?;
    let rows = mesh.message(id).await?;
    if rows.is_empty() {
        return Err(Failure::new(
            Kind::NotFound,
            "unknown-message",
            format!("this node sent no message {id}"),
        )
        .next("peerloom outbox list --all"));
    }
    let names = Names::of(&mesh.view());
    let recipients = rows.into_iter().map(|row| names.status(row)).collect();
    Ok(Json(MessageShape { schema_version: SCHEMA_VERSION, id: id.to_string(), recipients }))
}

/// Which rows to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct OutboxParams {
    /// `open` (on their way or failed; the default), `failed`, `delivered` or `all`.
    state: Option<String>,
    /// At most this many; 100 unless given.
    limit: Option<u32>,
}

/// Rows of the outbox, newest first.
#[utoipa::path(get, path = "/v1/outbox", params(MeshParam, OutboxParams), responses(
    (status = 200, body = OutboxPage), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn outbox(
    Selected(mesh): Selected,
    Params(OutboxParams { state, limit }): Params<OutboxParams>,
) -> Result<Json<OutboxPage>, Failure> {
    let filters: &[OutboxFilter] = match state.as_deref() {
        None | Some("open") => &[OutboxFilter::Unsettled, OutboxFilter::Failed],
        Some("failed") => &[OutboxFilter::Failed],
        Some("delivered") => &[OutboxFilter::Delivered],
        Some("all") => &[OutboxFilter::All],
        Some(other) => {
            return Err(Failure::usage(format!("{other:?} is no choice of rows"))
                .next("use state=open, failed, delivered or all"));
        }
    };
    let names = Names::of(&mesh.view());
    let mut rows = Vec::new();
    for filter in filters {
        let found = mesh.outbox(OutboxQuery { filter: *filter, limit: limit.unwrap_or_default() }).await?;
        rows.extend(found.into_iter().map(|item| names.outbox(item)));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.created_at_ms));
    Ok(Json(OutboxPage { schema_version: SCHEMA_VERSION, rows }))
}

/// Sends failed rows again under fresh ids; the old ids are retired for ever.
#[utoipa::path(post, path = "/v1/outbox/requeue", params(MeshParam), request_body = RequeueRequest, responses(
    (status = 200, body = RequeueShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn requeue(
    Selected(mesh): Selected,
    Payload(RequeueRequest { ids, all }): Payload<RequeueRequest>,
) -> Result<Json<RequeueShape>, Failure> {
    if all != ids.is_empty() {
        return Err(Failure::usage("requeue takes either ids or all").next("pass ids, or all: true"));
    }
    let asked = ids.len();
    let selector = if all {
        RequeueSelector::All
    } else {
        RequeueSelector::Ids(ids.iter().map(|id| message_id(id)).collect::<Result<_, _>>()?)
    };
    let requeued = mesh.requeue(selector).await?;
    if requeued.is_empty() && asked > 0 {
        return Err(Failure::new(Kind::NotFound, "not-failed", "none of these messages has a failed row")
            .next("peerloom outbox list --failed"));
    }
    let names = Names::of(&mesh.view());
    let requeued = requeued.iter().map(|row| RequeuedShape {
        old: row.old.to_string(),
        id: row.id.to_string(),
        to: names.name(&row.to),
    });
    Ok(Json(RequeueShape { schema_version: SCHEMA_VERSION, requeued: requeued.collect() }))
}

/// Gives up a message that was never transmitted.
#[utoipa::path(post, path = "/v1/outbox/abort", params(MeshParam), request_body = AbortRequest, responses(
    (status = 200, body = DoneShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn abort(
    Selected(mesh): Selected,
    Payload(AbortRequest { id }): Payload<AbortRequest>,
) -> Result<Json<DoneShape>, Failure> {
    let id = message_id(&id)?;
    mesh.abort(id).await?;
    Ok(Json(DoneShape { schema_version: SCHEMA_VERSION, done: true, text: format!("{id} is aborted") }))
}
