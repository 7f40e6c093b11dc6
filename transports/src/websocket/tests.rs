use std::path::PathBuf;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{accept_async, accept_async_with_config};

use super::*;
use crate::conformance;
use crate::tls::{TlsTrust, provider};

type Server = WebSocketStream<TcpStream>;

fn deadline() -> std::time::Instant {
    std::time::Instant::now() + Duration::from_secs(10)
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, origin)
}

/// Our link at one end, the bare library at the other.
async fn linked() -> (Box<dyn PeerLink>, Server) {
    let (listener, origin) = listen().await;
    let connector = WebSocketConnector::default();
    let (link, server) = tokio::join!(connector.connect(&origin, deadline()), async {
        let (socket, _) = listener.accept().await.unwrap();
        accept_async(socket).await.unwrap()
    });
    (link.unwrap(), server)
}

async fn refusal(answer: &'static [u8]) -> ConnectError {
    let (listener, origin) = listen().await;
    let connector = WebSocketConnector::default();
    let (refused, ()) = tokio::join!(connector.connect(&origin, deadline()), async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(answer).await.unwrap();
    });
    refused.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let connector = WebSocketConnector::default();
    conformance::links(|| async {
        let (listener, origin) = listen().await;
        let (near, far) = tokio::join!(connector.connect(&origin, deadline()), async {
            let (socket, addr) = listener.accept().await.unwrap();
            let server = accept_async_with_config(socket, Some(config())).await.unwrap();
            WebSocketLink::new(server, LinkRole::Acceptor, Some(addr))
        });
        (near.unwrap(), Box::new(far) as Box<dyn PeerLink>)
    })
    .await;
}

#[tokio::test]
async fn a_frame_is_one_binary_message_and_a_batch_keeps_its_order() {
    let (link, mut server) = linked().await;
    let frames: Vec<Bytes> = (0..100).map(|n| Bytes::from(vec![n; 10])).collect();
    link.send_many(frames.clone()).await.unwrap();
    for frame in frames {
        assert_eq!(server.next().await.unwrap().unwrap(), Message::Binary(frame));
    }
}

#[tokio::test]
async fn a_text_message_ends_the_link_and_the_peer_is_told_why() {
    let (link, mut server) = linked().await;
    server.send(Message::text("hello")).await.unwrap();
    assert_eq!(link.recv().await, Err(LinkError::Malformed { what: "text message" }));
    let Message::Close(Some(frame)) = server.next().await.unwrap().unwrap() else { panic!("no close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4005, "misbehaved"));
}

#[tokio::test]
async fn an_oversize_message_ends_the_link() {
    let (link, mut server) = linked().await;
    let large = Message::binary(vec![0; FRAME_BYTES_MAX + 1]);
    let (received, sent) = tokio::join!(link.recv(), server.send(large));
    assert_eq!(received, Err(LinkError::Malformed { what: "message over the frame limit" }));
    // Whether the rest of it still found a socket is the kernel's affair.
    drop(sent);
}

#[tokio::test]
async fn bytes_that_are_no_websocket_frames_end_the_link() {
    let (link, server) = linked().await;
    let mut socket = server.into_inner();
    socket.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(link.recv().await, Err(LinkError::Malformed { what: "not WebSocket" }));
}

#[tokio::test]
async fn a_vanished_server_is_a_lost_link() {
    let (link, server) = linked().await;
    drop(server.into_inner());
    assert!(matches!(link.recv().await, Err(LinkError::Lost(_))));
}

#[tokio::test]
async fn the_close_codes_of_proxies_and_servers_are_understood() {
    for (code, reason) in [
        (1000, CloseReason::Finished),
        (1001, CloseReason::ShuttingDown),
        (1008, CloseReason::Refused),
        (1009, CloseReason::Misbehaved),
        (4002, CloseReason::Superseded),
        (4004, CloseReason::Revoked),
    ] {
        let (link, mut server) = linked().await;
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::default() };
        server.send(Message::Close(Some(frame))).await.unwrap();
        assert_eq!(link.recv().await, Err(LinkError::Closed(reason)), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_pinged_and_then_given_up() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let socket = WebSocketStream::from_raw_socket(near, tungstenite_role(), None).await;
    let link = WebSocketLink::new(socket, LinkRole::Dialler, None);
    let started = Instant::now();
    assert_eq!(link.recv().await, Err(LinkError::Lost(io::ErrorKind::TimedOut)));
    assert_eq!(started.elapsed(), LINK_SILENCE_MAX);
    drop(link);
    let mut sent = Vec::new();
    let mut far = far;
    far.read_to_end(&mut sent).await.unwrap();
    // Masked pings of eight bytes: one at 30 s, one at 60 s; then the close frame.
    assert_eq!((sent[0], sent[1], sent[14], sent[28]), (0x89, 0x88, 0x89, 0x88));
}

#[tokio::test(start_paused = true)]
async fn an_answered_ping_gives_the_round_trip_and_keeps_the_link() {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let (near, far) = tokio::io::duplex(1 << 16);
    let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    let link = WebSocketLink::new(near, LinkRole::Dialler, None);
    let serving = async {
        let mut pinged = 0;
        // Reading is what lets the library answer.
        let listening = async {
            while let Some(Ok(Message::Ping(_))) = far.next().await {
                pinged += 1;
            }
        };
        assert!(timeout(PING_EVERY * 9 / 2, listening).await.is_err(), "the link was given up");
        assert_eq!(pinged, 4);
        far.send(Message::binary(b"still here".to_vec())).await.unwrap();
    };
    let (received, ()) = tokio::join!(link.recv(), serving);
    assert_eq!(received.as_deref(), Ok(&b"still here"[..]));
    assert!(link.rtt().is_some());
}

#[tokio::test]
async fn each_failed_step_of_connecting_has_its_own_error() {
    let connector = WebSocketConnector::default();
    let connect =
        |origin: String| async move { WebSocketConnector::default().connect(&origin, deadline()).await };
    assert!(matches!(connect("mesh.example".into()).await, Err(ConnectError::BadOrigin { .. })));
    assert!(matches!(connect("http://no.such.name.invalid".into()).await, Err(ConnectError::Dns { .. })));

    let (listener, origin) = listen().await;
    let soon = std::time::Instant::now() + Duration::from_millis(50);
    assert!(matches!(connector.connect(&origin, soon).await, Err(ConnectError::TimedOut { .. })));
    drop(listener);
    assert!(matches!(connect(origin).await, Err(ConnectError::Refused { .. })));
}

#[tokio::test]
async fn an_http_answer_is_reported_with_its_status_and_when_to_come_back() {
    let busy = refusal(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").await;
    let after = Some(Duration::from_secs(7));
    assert!(
        matches!(busy, ConnectError::Http { status: 503, retry_after } if retry_after == after),
        "{busy:?}"
    );
    let garbage = refusal(b"\x00\x01\x02 this is not HTTP\r\n\r\n").await;
    assert!(matches!(garbage, ConnectError::NotWebSocket(_)), "{garbage:?}");
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_named_and_not_otherwise() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // A client that does not trust us ends the handshake; the next one is served.
            if let Ok(stream) = acceptor.accept(socket).await {
                let mut server = accept_async(stream).await.unwrap();
                server.send(Message::binary(b"trusted".to_vec())).await.unwrap();
                while server.next().await.is_some() {}
            }
        }
    });

    let directory = tempfile::tempdir().unwrap();
    let ca: PathBuf = directory.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let trusting = WebSocketConnector::new(TlsTrust { extra_ca: Some(ca) });
    let link = trusting.connect(&origin, deadline()).await.unwrap();
    assert_eq!(link.recv().await.as_deref(), Ok(&b"trusted"[..]));
    drop(link);

    let refused = WebSocketConnector::default().connect(&origin, deadline()).await;
    assert!(matches!(refused, Err(ConnectError::Tls(_) | ConnectError::Trust(_))), "{refused:?}");
    server.abort();
}

fn tungstenite_role() -> tokio_tungstenite::tungstenite::protocol::Role {
    tokio_tungstenite::tungstenite::protocol::Role::Client
}
