//! What the routes answer: JSON of a fixed shape, errors as `{"error":{"code":…,"text":…}}`.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{App, Creation};
use crate::hub::HttpReply;
use crate::page;

/// A request that got no further than the route, or no answer from the hub.
#[derive(Debug)]
pub(super) enum Failure {
    NoRoute,
    Method,
    Malformed(String),
    Body(StatusCode),
    Token,
    Invite,
    Timeout,
    Draining,
    Hub,
}

impl Failure {
    pub(super) fn answer(self) -> Response {
        let (status, code, text) = match self {
            Self::NoRoute => (StatusCode::NOT_FOUND, "not-found", "there is nothing at this path".into()),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "not by this method".into()),
            Self::Malformed(text) => (StatusCode::BAD_REQUEST, "malformed", text),
            Self::Body(status) => (status, "malformed", "the body is too large or was cut off".into()),
            Self::Token => {
                let text =
                    "creating a mesh here needs the token of the coordinator's mesh-token file as bearer";
                (StatusCode::UNAUTHORIZED, "token", text.into())
            }
            Self::Invite => return no_invite(),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long".into()),
            Self::Draining => {
                (StatusCode::SERVICE_UNAVAILABLE, "draining", "about to stop; come back".into())
            }
            Self::Hub => (StatusCode::SERVICE_UNAVAILABLE, "hub", "the coordinator is stopping".into()),
        };
        error(status, code, &text, json!({}))
    }
}

/// Runs a route that asks the hub.
pub(super) async fn of(asked: impl Future<Output = Result<HttpReply, Failure>>) -> Response {
    match asked.await {
        Ok(reply) => answer(reply),
        Err(failure) => failure.answer(),
    }
}

fn answer(reply: HttpReply) -> Response {
    match reply {
        HttpReply::MeshCreated { entries } => {
            json_answer(StatusCode::CREATED, &json!({ "entries": all_base64(&entries) }))
        }
        HttpReply::Blob(blob) => json_answer(StatusCode::OK, &json!({ "blob": to_base64(&blob) })),
        HttpReply::Log { from, entries, size } => {
            let body = json!({ "from": from, "size": size, "entries": all_base64(&entries) });
            json_answer(StatusCode::OK, &body)
        }
        HttpReply::Appended { entry } => json_answer(StatusCode::OK, &json!({ "entry": to_base64(&entry) })),
        HttpReply::Conflict { size } => {
            let text = "the log has grown: fetch the rest and sign again; your place is kept for 2 s";
            error(StatusCode::CONFLICT, "conflict", text, json!({ "size": size }))
        }
        HttpReply::Throttled { retry_after_s } => {
            let mut response = error(
                StatusCode::TOO_MANY_REQUESTS,
                "throttled",
                "too many lookups from this address",
                json!({}),
            );
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
            response
        }
        HttpReply::NoInvite => no_invite(),
        HttpReply::Exists => error(StatusCode::CONFLICT, "exists", "this mesh is already here", json!({})),
        HttpReply::Refused { code, text } => {
            let status = match code.as_str() {
                "store" | "comparing" => StatusCode::SERVICE_UNAVAILABLE,
                "reserved" => StatusCode::FORBIDDEN,
                _ => StatusCode::BAD_REQUEST,
            };
            error(status, &code, &text, json!({}))
        }
    }
}

/// One body for unknown, expired, used and withdrawn.
fn no_invite() -> Response {
    error(StatusCode::NOT_FOUND, "invite", "no such invite: unknown, expired or used", json!({}))
}

pub(super) fn info(app: &App, now: Duration) -> Response {
    let token_required = match app.creation {
        Creation::Open => false,
        Creation::Token(_) => true,
    };
    let body = json!({
        "schema_version": 1,
        "coordinator": app.coordinator,
        "origin": app.origin.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "now_ms": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        "token_required": token_required,
        "stun_port": app.stun.ports.first(),
        "stun_ports": app.stun.ports,
        "stun_addresses": app.stun.addresses,
    });
    json_answer(StatusCode::OK, &body)
}

pub(super) async fn healthy() -> Response {
    json_answer(StatusCode::OK, &json!({ "healthy": true }))
}

pub(super) fn ready(unready: Option<&str>) -> Response {
    match unready {
        None => json_answer(StatusCode::OK, &json!({ "ready": true })),
        Some(why) => json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "why": why })),
    }
}

pub(super) fn metrics(text: String) -> Response {
    with_headers(StatusCode::OK, crate::metrics::CONTENT_TYPE, Body::from(text), &[])
}

/// The consent page. The id is not even read.
pub(super) async fn page() -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
        // The address of the page is half of an invite.
        (REFERRER_POLICY, "no-referrer"),
    ];
    with_headers(StatusCode::OK, "text/html; charset=utf-8", Body::from(page::HTML), &headers)
}

/// `extra` is merged beside `error`.
fn error(status: StatusCode, code: &str, text: &str, extra: Value) -> Response {
    let mut body = json!({ "error": { "code": code, "text": text } });
    if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
        body.extend(extra);
    }
    json_answer(status, &body)
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    with_headers(status, "application/json", Body::from(body.to_string()), &[])
}

fn with_headers(
    status: StatusCode,
    content_type: &'static str,
    body: Body,
    extra: &[(HeaderName, &'static str)],
) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    for (name, value) in extra {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn all_base64(entries: &[Bytes]) -> Vec<String> {
    entries.iter().map(|entry| to_base64(entry)).collect()
}

pub(super) fn from_base64(text: &str) -> Result<Bytes, Failure> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map(Bytes::from).map_err(|error| Failure::Malformed(format!("not unpadded base64url: {error}")))
}
