//! The local API: HTTP with Server-Sent Events on the home's Unix socket, under `/v1`, described by
//! the OpenAPI document that it serves. The CLI is its thin client.
//!
//! Reading order: [`shapes`] (what is said), `server` (who may call), `openapi` (every route),
//! `routes` (what each does), `present` (from the mesh's views to shapes), `client`.

pub(crate) mod client;
pub mod openapi;
mod present;
mod request;
mod routes;
pub mod server;
pub mod shapes;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::failure::Failure;

/// What every route can reach.
#[derive(Clone, Debug)]
pub struct Api {
    daemon: Daemon,
    stop: CancellationToken,
}

impl Api {
    /// An API over `daemon`; `stop` ends both when it is cancelled.
    pub fn new(daemon: Daemon, stop: CancellationToken) -> Self {
        Self { daemon, stop }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.http_status()).expect("every class has a valid status");
        (status, Json(self.to_json())).into_response()
    }
}
