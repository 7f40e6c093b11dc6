//! The whole server in this process, spoken to over real sockets.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{ConfigFile, Env, RawConfig};

struct Server {
    url: String,
    stun: Option<SocketAddr>,
    stun_second: Option<SocketAddr>,
    mesh_token: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, settings).await.unwrap()
    }

    async fn start_in(dir: tempfile::TempDir, settings: &str) -> Result<Self, ServeError> {
        let config = config(dir.path(), settings);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let mut task = tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap_or_default() };
            serve(&config, shutdown, |started| assert!(tell.send(started).is_ok())).await
        });
        let started = tokio::select! {
            ended = &mut task => return Err(ended.unwrap().expect_err("it ended before it was ready")),
            started = told => started.unwrap(),
        };
        let Started { url, stun, stun_second, mesh_token, .. } = started;
        Ok(Self { url, stun, stun_second, mesh_token, stop: Some(stop), task, _dir: dir })
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Sends bytes, reads to the end.
    async fn raw(&self, request: &str) -> String {
        let mut socket = self.connect().await;
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, header: &str, body: &str) -> String {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n");
        self.raw(&format!("{head}{header}\r\n{body}")).await
    }

    async fn stop(mut self) -> Result<(), ServeError> {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap()
    }
}

fn config(data: &Path, settings: &str) -> Config {
    let file = format!("data = {data:?}\nlisten = \"127.0.0.1:0\"\n{settings}");
    let file = ConfigFile::parse(&file, Path::new("test.toml")).unwrap();
    Config::resolve(&RawConfig::default(), &Env::default(), &file).unwrap()
}

/// Status code and JSON body.
fn json(answer: &str) -> (u16, serde_json::Value) {
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}")))
}

fn code(answer: &str) -> (u16, String) {
    let (status, body) = json(answer);
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

const LOOKUP: &str = r#"{"lookup":"000102030405060708090a0b0c0d0e0f"}"#;

#[tokio::test]
async fn the_operators_routes_tell_that_it_lives_takes_mail_and_what_it_counts() {
    let server = Server::start("").await;
    assert_eq!(json(&server.get("/health").await), (200, serde_json::json!({ "healthy": true })));
    assert_eq!(json(&server.get("/ready").await), (200, serde_json::json!({ "ready": true })));
    let metrics = server.get("/metrics").await;
    assert!(
        metrics.contains("peerloom_coordinator_http_answers_total{route=\"/ready\",status=\"200\"} 1"),
        "{metrics}"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn info_names_key_origin_and_stun_ports() {
    let server = Server::start("").await;
    let (status, info) = json(&server.get("/v2/info").await);
    assert_eq!((status, info["schema_version"].as_u64()), (200, Some(1)));
    assert_eq!(info["origin"], server.url);
    assert_eq!(info["coordinator"].as_str().map(str::len), Some(64));
    assert_eq!(info["token_required"], false);
    let ports = [server.stun.unwrap().port(), server.stun_second.unwrap().port()];
    assert_ne!(ports[0], ports[1]);
    assert_eq!(info["stun_port"], ports[0]);
    assert_eq!(info["stun_ports"], serde_json::json!(ports));
    assert_eq!(info["stun_addresses"], serde_json::json!([]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_invite_page_is_the_same_for_every_id_and_allows_no_script() {
    let server = Server::start("").await;
    let body = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let one = server.get("/i/7Q2M9KXA").await;
    assert!(
        one.starts_with("HTTP/1.1 200") && one.contains("content-security-policy: default-src 'none'"),
        "{one}"
    );
    assert_eq!(body(one), body(server.get("/i/%3Cscript%3E").await));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn creating_a_mesh_off_loopback_needs_the_token_that_was_shown() {
    let server = Server::start("origin = \"https://mesh.example\"").await;
    let token = server.mesh_token.clone().unwrap();
    assert_eq!(code(&server.post("/v2/meshes", "", "{\"entries\":[]}").await), (401, "token".to_owned()));
    let wrong = "authorization: Bearer 00\r\n";
    assert_eq!(code(&server.post("/v2/meshes", wrong, "{\"entries\":[]}").await), (401, "token".to_owned()));
    let right = format!("authorization: Bearer {token}\r\n");
    assert_eq!(json(&server.post("/v2/meshes", &right, "{\"entries\":[]}").await).0, 400);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_invites_look_alike_and_a_sixth_lookup_in_a_minute_waits() {
    let server = Server::start("trusted-proxy = \"127.0.0.1\"").await;
    let from = |address: &str| format!("x-forwarded-for: {address}\r\n");
    let first = server.post("/v2/invites/lookup", &from("192.0.2.1"), LOOKUP).await;
    assert_eq!(code(&first), (404, "invite".to_owned()));
    for _ in 0..4 {
        assert_eq!(json(&server.post("/v2/invites/lookup", &from("192.0.2.1"), LOOKUP).await), json(&first));
    }
    let throttled = server.post("/v2/invites/lookup", &from("192.0.2.1"), LOOKUP).await;
    assert_eq!(code(&throttled), (429, "throttled".to_owned()));
    assert!(throttled.contains("retry-after: "), "{throttled}");
    assert_eq!(json(&server.post("/v2/invites/lookup", &from("192.0.2.2"), LOOKUP).await), json(&first));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn every_wrong_request_gets_a_json_error_with_its_own_code() {
    let server = Server::start("").await;
    assert_eq!(code(&server.get("/v1/info").await), (404, "not-found".to_owned()));
    assert_eq!(code(&server.get("/v2/meshes").await), (405, "method".to_owned()));
    assert_eq!(code(&server.post("/v2/meshes", "", "{").await), (400, "malformed".to_owned()));
    assert_eq!(
        code(&server.post("/v2/meshes", "", "{\"entries\":[\"a+b\"]}").await),
        (400, "malformed".to_owned())
    );
    assert_eq!(code(&server.get("/v2/log").await), (404, "invite".to_owned()));
    let large = format!("{{\"entries\":[\"{}\"]}}", "A".repeat(300_000));
    assert_eq!(code(&server.post("/v2/meshes", "", &large).await), (413, "malformed".to_owned()));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn garbage_closes_its_own_connection_and_nothing_else() {
    let server = Server::start("").await;
    for garbage in
        ["\x16\x03\x01\x02\x00\x01\x00", "GET /\u{0} HTTP/9\r\n\r\n", "\r\n\r\n\r\n\r\nx y z\r\n\r\n"]
    {
        let mut socket = server.connect().await;
        socket.write_all(garbage.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _closed = socket.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
    assert_eq!(json(&server.get("/ready").await).0, 200);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_beyond_the_cap_is_closed_and_a_freed_place_is_taken_again() {
    let server = Server::start("connections-max = 1").await;
    let first = server.connect().await;
    // The cap counts what was accepted: an answered request proves that this one was.
    let mut first = first;
    first.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_ne!(first.read(&mut [0; 512]).await.unwrap(), 0);
    let mut second = server.connect().await;
    assert!(matches!(second.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    drop(first);
    let mut answered = String::new();
    while answered.is_empty() {
        let mut third = server.connect().await;
        let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        if third.write_all(request).await.is_ok() && third.read_to_string(&mut answered).await.is_err() {
            answered.clear();
        }
    }
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn stun_answers_beside_the_listener_and_at_a_second_port_with_the_address_it_sees() {
    let server = Server::start("").await;
    let (first, second) = (server.stun.unwrap(), server.stun_second.unwrap());
    assert_eq!(first.to_string(), server.address());
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut request = hex::decode("000100002112a442").unwrap();
    request.extend([7; 12]);
    for stun in [first, second] {
        client.send_to(&request, stun).await.unwrap();
        let mut answer = [0; 64];
        let (length, from) = client.recv_from(&mut answer).await.unwrap();
        assert_eq!(from, stun);
        let expected = peerloom_proto::stun::public_answer(&request, client.local_addr().unwrap());
        assert_eq!(Some(&answer[..length]), expected.as_deref());
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_stun_responder_may_have_an_address_of_its_own_and_is_announced_there() {
    let server = Server::start("stun-second = \"127.0.0.2:0\"").await;
    let (_, info) = json(&server.get("/v2/info").await);
    assert_eq!(info["stun_ports"], serde_json::json!([server.stun.unwrap().port()]));
    assert_eq!(info["stun_addresses"], serde_json::json!([server.stun_second.unwrap().to_string()]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn without_stun_there_is_nothing_to_announce() {
    let server = Server::start("stun = \"off\"").await;
    let (_, info) = json(&server.get("/v2/info").await);
    let announced = [&info["stun_port"], &info["stun_ports"], &info["stun_addresses"]];
    assert_eq!(announced, [&serde_json::json!(null), &serde_json::json!([]), &serde_json::json!([])]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_same_key_serves_after_a_restart_and_the_token_is_shown_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let settings = "origin = \"http://192.0.2.1:7700\"";
    let mut seen = Vec::new();
    for _ in 0..2 {
        let config = config(&data, settings);
        let (tell, told) = oneshot::channel();
        serve(&config, async {}, |started| {
            tell.send((started.coordinator, started.mesh_token.is_some())).unwrap()
        })
        .await
        .unwrap();
        seen.push(told.await.unwrap());
    }
    assert_eq!(seen[0].0, seen[1].0);
    assert_eq!([seen[0].1, seen[1].1], [true, false]);
}

#[tokio::test]
async fn a_taken_port_and_a_taken_directory_each_say_so() {
    let server = Server::start("").await;
    let taken = format!("listen = {:?}", server.address());
    let dir = tempfile::tempdir().unwrap();
    let file = format!("data = {:?}\n{taken}", dir.path());
    let file = ConfigFile::parse(&file, Path::new("test.toml")).unwrap();
    let config = Config::resolve(&RawConfig::default(), &Env::default(), &file).unwrap();
    let refused = serve(&config, async {}, |_| ()).await.unwrap_err();
    assert!(matches!(refused, ServeError::Listen { .. }), "{refused:?}");

    let config = self::config(server._dir.path(), "");
    let refused = serve(&config, async {}, |_| ()).await.unwrap_err();
    assert_eq!(refused.exit_code(), (8, "in-use"), "{refused:?}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn tls_is_spoken_with_the_files_that_were_named() {
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = format!("tls-cert = {chain:?}\ntls-key = {key:?}");
    let server = Server::start(&settings).await;
    let address = server.url.strip_prefix("https://").unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut socket = TlsConnector::from(Arc::new(client)).connect(name, socket).await.unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await.unwrap();
}
