//! Messages that came, and the places of those who read them.

use axum::Json;
use axum::extract::Path;
use serde::Deserialize;

use crate::api::present::Names;
use crate::api::request::{MeshParam, Params, Payload, Selected};
use crate::api::shapes::{Cursor, CursorMove, InboxPage};
use crate::failure::{ErrorDocument, Failure, SCHEMA_VERSION};
use crate::views::InboxQuery;

/// Which messages to read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct InboxParams {
    /// Only those beyond this position. With neither bound: the newest `limit`.
    after: Option<u64>,
    /// Only those that this cursor has not passed.
    cursor: Option<String>,
    /// At most this many; 100 unless given, at most 1000. A page of large messages ends earlier.
    limit: Option<u32>,
    /// Only those of one peer: handle or key prefix.
    from: Option<String>,
}

/// Reads messages in the readers' order; changes nothing.
#[utoipa::path(get, path = "/v1/inbox", params(MeshParam, InboxParams), responses(
    (status = 200, body = InboxPage), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn inbox(
    Selected(mesh): Selected,
    Params(InboxParams { after, cursor, limit, from }): Params<InboxParams>,
) -> Result<Json<InboxPage>, Failure> {
    let from = from.map(|name| sender(&mesh, &name)).transpose()?;
    let query = InboxQuery {
        after_position: after,
        unread_for_cursor: cursor,
        from,
        limit: limit.unwrap_or_default(),
    };
    let messages = mesh.inbox(query).await?;
    let names = Names::of(&mesh.view());
    let next_after = messages.last().map_or_else(|| after.unwrap_or_default(), |message| message.position);
    let messages = messages.into_iter().map(|message| names.inbox(message)).collect();
    Ok(Json(InboxPage { schema_version: SCHEMA_VERSION, messages, next_after }))
}

/// A sender to filter by: revoked ones too, their messages stay.
pub(super) fn sender(mesh: &crate::mesh::Mesh, name: &str) -> Result<peerloom_proto::PeerId, Failure> {
    match mesh.resolve(name) {
        Ok(peer) => Ok(peer),
        Err(error) => {
            let view = mesh.view();
            let known = view.members.iter().find(|member| member.handle.as_str() == name);
            known.map(|member| member.key).ok_or_else(|| error.into())
        }
    }
}

/// A reader's place.
#[utoipa::path(get, path = "/v1/cursors/{name}",
    params(MeshParam, ("name" = String, Path, description = "chosen by the reader")),
    responses((status = 200, body = Cursor), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn cursor(
    Selected(mesh): Selected,
    Path(name): Path<String>,
) -> Result<Json<Cursor>, Failure> {
    check_name(&name)?;
    let position = mesh.cursor(&name).await?;
    Ok(Json(Cursor { schema_version: SCHEMA_VERSION, name, position }))
}

/// Moves a reader's place forward: what it passed counts as surfaced, and the senders are told.
#[utoipa::path(put, path = "/v1/cursors/{name}",
    params(MeshParam, ("name" = String, Path, description = "chosen by the reader")), request_body = CursorMove,
    responses((status = 200, body = Cursor), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn move_cursor(
    Selected(mesh): Selected,
    Path(name): Path<String>,
    Payload(CursorMove { position }): Payload<CursorMove>,
) -> Result<Json<Cursor>, Failure> {
    check_name(&name)?;
    let position = mesh.move_cursor(&name, position).await?;
    Ok(Json(Cursor { schema_version: SCHEMA_VERSION, name, position }))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let sound = (1..=CURSOR_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if sound {
        Ok(())
    } else {
        Err(Failure::usage(format!(
            "a cursor's name has 1 to {CURSOR_NAME_BYTES_MAX} bytes, no control characters"
        )))
    }
}

/// Names are typed by people.
const CURSOR_NAME_BYTES_MAX: usize = 64;
