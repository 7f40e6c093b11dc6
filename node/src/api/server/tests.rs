use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::client::Client;
use crate::config::{Config, Env, RawConfig};
use crate::daemon::Daemon;

/// A daemon without a mesh, its API served on a socket of its own.
struct Served {
    home: Home,
    client: Client,
    daemon: Daemon,
    serving: JoinHandle<io::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let config = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap();
        let daemon = Daemon::start(home.clone(), config).await.unwrap();
        let socket = ApiSocket::bind(&home).unwrap();
        let api = Api::new(daemon.clone(), CancellationToken::new());
        let serving = tokio::spawn(socket.serve(api));
        let client = Client::new(&home, None).unwrap();
        Self { home, client, daemon, serving, _dir: dir }
    }

    async fn refusal_of_get(&self, path: &str) -> Failure {
        self.client.get::<Value>(path, &[]).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_daemon_without_a_mesh_has_a_status_and_refuses_the_rest_with_exit_3() {
    let served = Served::start().await;

    let status: Value = served.client.get("/v1/status", &[]).await.unwrap();
    assert_eq!(status["running"], json!(true));
    assert_eq!(status["pid"], json!(std::process::id()));
    assert_eq!(status["mesh"], Value::Null);

    for path in ["/v1/peers", "/v1/inbox", "/v1/outbox", "/v1/members", "/v1/invites", "/v1/events"] {
        let failure = served.refusal_of_get(path).await;
        assert_eq!((failure.kind, failure.code.as_str()), (Kind::NoMesh, "no-mesh"), "{path}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_in_the_form_of_every_error() {
    let served = Served::start().await;

    assert_eq!(served.refusal_of_get("/v1/nope").await.code, "no-route");
    assert_eq!(served.client.put::<Value>("/v1/status", &json!({})).await.unwrap_err().code, "no-method");
    let request = json!({ "name": "a", "coordinator": "x", "handle": "a" });
    let failure = served.client.post::<Value>("/v1/meshes/init", &request).await.unwrap_err();
    assert_eq!(failure.code, "origin");
}

#[tokio::test]
async fn the_served_document_is_the_one_that_is_tested() {
    let served = Served::start().await;
    let document: Value = served.client.get("/v1/openapi.json", &[]).await.unwrap();
    assert_eq!(document, serde_json::to_value(openapi::document()).unwrap());
}

#[tokio::test]
async fn only_the_owner_can_reach_the_socket() {
    let served = Served::start().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&served.home.socket().unwrap()), 0o600);
    assert_eq!(mode(served.home.root()), 0o700);
}

#[tokio::test]
async fn a_shutdown_is_answered_and_then_the_socket_is_gone() {
    let served = Served::start().await;

    let done: Value = served.client.post("/v1/shutdown", &json!({})).await.unwrap();
    assert_eq!(done["done"], json!(true));
    served.serving.await.unwrap().unwrap();
    served.daemon.stop().await;

    assert!(!served.home.socket().unwrap().exists());
    assert_eq!(served.client.get::<Value>("/v1/status", &[]).await.unwrap_err().code, "no-mesh");
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    home.create().unwrap();
    drop(std::os::unix::net::UnixListener::bind(home.socket().unwrap()).unwrap());
    assert!(ApiSocket::bind(&home).is_ok());
}
