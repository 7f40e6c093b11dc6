//! The local API seen from the CLI: HTTP/1.1 over the home's Unix socket, one connection a call.

mod sse;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

pub(crate) use self::sse::Events;
use crate::failure::{ErrorDocument, Failure, Kind};
use crate::home::Home;

/// A caller of the daemon that holds a home.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    home: Home,
    socket: PathBuf,
    mesh: Option<String>,
}

impl Client {
    /// For the daemon of `home`; `mesh` is sent along with every call.
    pub(crate) fn new(home: &Home, mesh: Option<&str>) -> Result<Self, Failure> {
        let socket = home.socket()?;
        Ok(Self { home: home.clone(), socket, mesh: mesh.map(str::to_owned) })
    }

    /// Whether a daemon accepts connections.
    pub(crate) async fn is_up(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// Reads.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
    ) -> Result<T, Failure> {
        self.call(Method::GET, path, query, Bytes::new()).await
    }

    /// Acts.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, &[], to_bytes(body)).await
    }

    /// Replaces.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::PUT, path, &[], to_bytes(body)).await
    }

    /// Removes.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, &[], Bytes::new()).await
    }

    /// Posts JSON lines and gives the lines of the answer.
    pub(crate) async fn post_lines(&self, path: &str, lines: String) -> Result<String, Failure> {
        let answer = self.send(Method::POST, path, &[], Bytes::from(lines), JSON_LINES).await?;
        let body = read_body(answer).await?;
        String::from_utf8(body.into()).map_err(|error| Failure::failed("api", &error))
    }

    /// Opens the stream of events.
    pub(crate) async fn events(&self, query: &[(&str, Option<String>)]) -> Result<Events, Failure> {
        let answer = self.send(Method::GET, "/v1/events", query, Bytes::new(), JSON).await?;
        Ok(Events::new(answer.into_body()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, Option<String>)],
        body: Bytes,
    ) -> Result<T, Failure> {
        let answer = self.send(method, path, query, body, JSON).await?;
        let body = read_body(answer).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new(Kind::Failed, "api", format!("the daemon's answer is not understood: {error}"))
                .next("the daemon may be of another version: peerloom down, then peerloom up --detach")
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, Option<String>)],
        body: Bytes,
        content_type: &'static str,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_daemon(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::failed("api", &error))?;
        // Its error also reaches the request's future, which is where it is told.
        tokio::spawn(async move { connection.await.unwrap_or(()) });
        let request = Request::builder()
            .method(method)
            .uri(self.target(path, query))
            .header(HOST, "peerloom")
            .header(ACCEPT, "*/*")
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| Failure::failed("api", &error))?;
        let answer = sender.send_request(request).await.map_err(|error| {
            Failure::new(Kind::Unreachable, "daemon-gone", format!("the daemon ended the call: {error}"))
                .next("peerloom logs")
        })?;
        if answer.status().is_success() { Ok(answer) } else { Err(read_failure(answer).await) }
    }

    fn target(&self, path: &str, query: &[(&str, Option<String>)]) -> String {
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in query {
            if let Some(value) = value {
                pairs.append_pair(name, value);
            }
        }
        if let Some(mesh) = &self.mesh {
            pairs.append_pair("mesh", mesh);
        }
        let query = pairs.finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// Why nobody answered on the socket.
    fn no_daemon(&self, error: &io::Error) -> Failure {
        let root = self.home.root().display();
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Failure::new(
                Kind::Denied,
                "socket-denied",
                format!("the socket in {root} belongs to another user"),
            )
            .next("set PEERLOOM_HOME to a home of your own");
        }
        match self.home.meshes() {
            Ok(meshes) if meshes.is_empty() => no_mesh(&self.home),
            Ok(_) => Failure::new(
                Kind::Unreachable,
                "daemon-down",
                format!("no node runs for {root}{}", unusual(error)),
            )
            .next("peerloom up --detach"),
            Err(error) => Failure::failed("home", &error).next("peerloom doctor"),
        }
    }
}

/// Why a socket gave no connection, unless it is only not there or left behind.
fn unusual(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        return String::new();
    }
    format!(" ({error})")
}

/// The home has no mesh.
pub(crate) fn no_mesh(home: &Home) -> Failure {
    Failure::new(Kind::NoMesh, "no-mesh", format!("{} holds no mesh", home.root().display()))
        .next("peerloom up --new NAME --name HANDLE --detach, or peerloom join URL --name HANDLE")
}

/// A path segment that may hold anything.
pub(crate) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn to_bytes(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("shapes have string keys and finite numbers").into()
}

async fn read_body(answer: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = answer.into_body().collect().await.map_err(|error| {
        Failure::new(Kind::Unreachable, "daemon-gone", format!("the daemon ended the call: {error}"))
            .next("peerloom logs")
    })?;
    Ok(body.to_bytes())
}

async fn read_failure(answer: Response<Incoming>) -> Failure {
    let status = answer.status();
    let body = match read_body(answer).await {
        Ok(body) => body,
        Err(failure) => return failure,
    };
    match serde_json::from_slice::<ErrorDocument>(&body) {
        Ok(document) => Failure::from_json(status.as_u16(), document),
        Err(_) => Failure::new(Kind::Failed, "api", format!("the daemon answered {status}"))
            .next("the daemon may be of another version: peerloom down, then peerloom up --detach"),
    }
}

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_escaped_and_the_mesh_is_sent_along() {
        let client = Client::new(&Home::at("/tmp/h"), Some("ac me")).unwrap();
        let target = client.target("/v1/inbox", &[("from", Some("a&b".to_owned())), ("limit", None)]);
        assert_eq!(target, "/v1/inbox?from=a%26b&mesh=ac+me");
    }

    #[test]
    fn a_path_segment_cannot_leave_its_place() {
        assert_eq!(segment("a/../b c?"), "a%2F..%2Fb%20c%3F");
    }

    #[tokio::test]
    async fn a_home_without_a_mesh_is_told_apart_from_a_stopped_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&Home::at(dir.path()), None).unwrap();
        let failure = client.get::<serde_json::Value>("/v1/status", &[]).await.unwrap_err();
        assert_eq!((failure.kind, failure.code.as_str()), (Kind::NoMesh, "no-mesh"));
    }
}
