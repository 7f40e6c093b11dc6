use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// A server that gives one canned answer and returns what it was asked.
fn serve_once(answer: &'static str) -> (Origin, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = vec![0; 4096];
        let length = stream.read(&mut asked).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    (origin, server)
}

fn client(origin: &Origin) -> CoordinatorHttp {
    CoordinatorHttp::new(origin, None).unwrap()
}

#[tokio::test]
async fn a_throttled_lookup_says_when_to_ask_again() {
    let (origin, server) = serve_once(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 42\r\nContent-Length: 61\r\n\r\n\
         {\"error\":{\"code\":\"throttled\",\"text\":\"too many look-ups now\"}}",
    );
    let error = client(&origin).invite_blob(&InviteLookup([7; 16])).await.unwrap_err();
    let CoordinatorError::Refused { status, code, retry_after_s, .. } = error else { panic!("{error:?}") };
    assert_eq!((status, code.as_str(), retry_after_s), (429, "throttled", Some(42)));
    let asked = server.join().unwrap();
    assert!(asked.starts_with("POST /v2/invites/lookup HTTP/1.1\r\n"), "{asked}");
}

#[tokio::test]
async fn a_lost_race_is_an_outcome_and_no_error() {
    let body = "{\"error\":{\"code\":\"conflict\"},\"size\":9}";
    let answer = format!("HTTP/1.1 409 Conflict\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (origin, server) = serve_once(answer.leak());
    let entry = WireEntry { stmt: bytes::Bytes::from_static(b"x"), sigs: Vec::new(), seq: None };
    let outcome = client(&origin).append(&InviteLookup([7; 16]), &entry).await.unwrap();
    assert!(matches!(outcome, AppendOutcome::Conflict), "{outcome:?}");
    server.join().unwrap();
}

#[tokio::test]
async fn something_else_on_that_port_is_told_apart_from_nothing() {
    let (origin, server) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let error = client(&origin).info().await.unwrap_err();
    assert!(matches!(error, CoordinatorError::Malformed { .. }), "{error:?}");
    server.join().unwrap();

    let nothing = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::parse(&format!("http://{}", nothing.local_addr().unwrap())).unwrap();
    drop(nothing);
    let error = client(&origin).info().await.unwrap_err();
    assert!(matches!(error, CoordinatorError::Unreachable { .. }), "{error:?}");
}
