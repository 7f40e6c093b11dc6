//! Every route of the local API, and the document that describes them: made from the same list, so
//! that neither can have what the other lacks.

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::routes::{doctor, events, inbox, invites, membership, network, outbox, peers, send, status};

/// The frame of the document; paths and schemas come from the routes.
#[derive(OpenApi)]
#[openapi(info(
    title = "Peerloom local API",
    description = "HTTP/1.1 with Server-Sent Events on the Unix socket `api.sock` in the node's home. Only the \
                   socket's owner may call. Every error is an ErrorDocument. Sends are idempotent by id."
))]
struct Frame;

/// Every route.
pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .routes(routes!(status::status))
        .routes(routes!(status::shutdown))
        .routes(routes!(status::openapi))
        .routes(routes!(doctor::doctor))
        .routes(routes!(peers::peers))
        .routes(routes!(peers::ping))
        .routes(routes!(network::network))
        .routes(routes!(network::way))
        .routes(routes!(peers::members))
        .routes(routes!(peers::revoke))
        .routes(routes!(send::send))
        .routes(routes!(send::batch))
        .routes(routes!(outbox::message))
        .routes(routes!(outbox::outbox))
        .routes(routes!(outbox::requeue))
        .routes(routes!(outbox::abort))
        .routes(routes!(inbox::inbox))
        .routes(routes!(inbox::cursor, inbox::move_cursor))
        .routes(routes!(events::events))
        .routes(routes!(invites::list, invites::create))
        .routes(routes!(invites::cancel))
        .routes(routes!(membership::init))
        .routes(routes!(membership::join))
        .routes(routes!(membership::leave))
}

/// The OpenAPI document as the node serves it.
pub fn document() -> utoipa::openapi::OpenApi {
    router().into_openapi()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method and path of everything the CLI and programs rely on.
    const ROUTES: [&str; 26] = [
        "DELETE /v1/invites/{id}",
        "GET /v1/cursors/{name}",
        "GET /v1/doctor",
        "GET /v1/events",
        "GET /v1/inbox",
        "GET /v1/invites",
        "GET /v1/members",
        "GET /v1/messages/{id}",
        "GET /v1/network",
        "GET /v1/openapi.json",
        "GET /v1/outbox",
        "GET /v1/peers",
        "GET /v1/peers/{peer}/way",
        "GET /v1/status",
        "POST /v1/invites",
        "POST /v1/leave",
        "POST /v1/members/revoke",
        "POST /v1/meshes/init",
        "POST /v1/meshes/join",
        "POST /v1/messages",
        "POST /v1/messages/batch",
        "POST /v1/outbox/abort",
        "POST /v1/outbox/requeue",
        "POST /v1/ping",
        "POST /v1/shutdown",
        "PUT /v1/cursors/{name}",
    ];

    #[test]
    fn the_document_covers_every_route_and_no_other() {
        let document = serde_json::to_value(document()).unwrap();
        let mut found = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["responses"].get("default").is_some(), "{method} {path} names no error");
                found.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        found.sort();
        let expected: Vec<&str> = ROUTES.into();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let text = serde_json::to_string(&document()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let prefix = "#/components/schemas/";
        let referred: Vec<&str> = text
            .match_indices(prefix)
            .filter_map(|(at, _)| text[at + prefix.len()..].split('"').next())
            .collect();
        assert!(referred.len() > 20, "only {} references", referred.len());
        for name in referred {
            assert!(schemas.contains_key(name), "{name} is referred to and not described");
        }
    }
}
