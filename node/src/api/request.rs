//! How a request becomes values, with failures in the API's own form.

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use peerloom_proto::MessageId;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Api;
use crate::failure::{Failure, Kind};
use crate::mesh::Mesh;

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| Failure::usage(format!("bad query: {}", error.body_text())))
    }
}

/// A JSON body.
pub(super) struct Payload<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Payload<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let Body(bytes) = Body::from_request(request, state).await?;
        let read = serde_json::from_slice(&bytes);
        read.map(Self).map_err(|error| Failure::usage(format!("bad JSON in the body: {error}")))
    }
}

/// A body of any kind.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|error| match error.status().as_u16() {
            413 => Failure::new(Kind::TooLarge, "too-large", "the body is over the limit of the local API")
                .next("split it into several calls"),
            _ => Failure::usage(format!("unreadable body: {}", error.body_text())),
        })
    }
}

/// The mesh that `?mesh=` selects, or the only one.
pub(super) struct Selected(pub(super) Mesh);

impl FromRequestParts<Api> for Selected {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failure> {
        let Params(MeshParam { mesh }) = Params::from_request_parts(parts, api).await?;
        Ok(Self(api.daemon.mesh(mesh.as_deref())?))
    }
}

/// Selects a mesh.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct MeshParam {
    /// A mesh's name or the beginning of its id; needed only when the node is in several.
    pub(super) mesh: Option<String>,
}

/// Reads a message id.
pub(super) fn message_id(text: &str) -> Result<MessageId, Failure> {
    text.trim().parse().map_err(|error| {
        Failure::usage(format!("{text:?} is no message id: {error}"))
            .next("ids are 32 hex digits, as `peerloom send` prints")
    })
}
