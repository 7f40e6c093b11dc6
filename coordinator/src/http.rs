//! The HTTP side: what a joiner needs before it is a member, the door to the link, and what an
//! operator looks at. Routes translate; the hub decides.

mod answer;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Extension, MatchedPath, Query, Request, State};
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use peerloom_proto::limits::LOG_ENTRY_BYTES_MAX;
use peerloom_proto::{InviteLookup, Origin, PeerId};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::engine::Engine;
use crate::hub::{HttpReply, HttpRequest};
use crate::metrics::{Metrics, RouteLabel};
use crate::proxy::{AddressBlock, client_address};
use crate::server::ConnectionGuard;
use crate::session;
use crate::store::{Health, Writable};
use answer::Failure;

/// A request other than a link is answered within this, or given up: a body that trickles in holds
/// a connection no longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Entries a new mesh may begin with: genesis, the first admin, a few more.
const FIRST_ENTRIES_MAX: usize = 16;

/// Largest request body: those entries in base64, and their frame.
const BODY_BYTES_MAX: usize = FIRST_ENTRIES_MAX * LOG_ENTRY_BYTES_MAX * 4 / 3 + 4_096;

/// What the routes share.
pub(crate) struct App {
    /// The hub's handle.
    pub(crate) engine: Engine,
    /// This coordinator's public key.
    pub(crate) coordinator: PeerId,
    /// What nodes know it as.
    pub(crate) origin: Origin,
    /// Who may create meshes.
    pub(crate) creation: Creation,
    /// Where the STUN responders are.
    pub(crate) stun: StunPlaces,
    /// Proxies whose word on addresses counts.
    pub(crate) trusted_proxies: Vec<AddressBlock>,
    /// Whether the disk takes writes.
    pub(crate) store: Health,
    /// Set once the process was asked to end.
    pub(crate) draining: AtomicBool,
    /// Counted here and rendered here.
    pub(crate) metrics: Metrics,
    /// Of `metrics`.
    pub(crate) registry: Registry,
}

/// The STUN responders as a node sees them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StunPlaces {
    /// UDP ports at the origin's host, the first responder's first.
    pub(crate) ports: Vec<u16>,
    /// Responders elsewhere.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl StunPlaces {
    /// A second responder is elsewhere only if it was given an address of its own.
    pub(crate) fn new(first: Option<SocketAddr>, second: Option<SocketAddr>) -> Self {
        let mut places = Self { ports: first.iter().map(SocketAddr::port).collect(), addresses: Vec::new() };
        match second {
            Some(second) if !second.ip().is_unspecified() && Some(second.ip()) != first.map(|at| at.ip()) => {
                places.addresses.push(second);
            }
            Some(second) => places.ports.push(second.port()),
            None => {}
        }
        places
    }
}

/// Who may create meshes.
pub(crate) enum Creation {
    /// Anyone who reaches the port: it is this machine's own.
    Open,
    /// Who presents this.
    Token(Zeroizing<String>),
}

type Shared = State<Arc<App>>;

/// Every route.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v2/info", get(info))
        .route("/v2/meshes", post(create_mesh))
        .route("/v2/invites/lookup", post(look_up_invite))
        .route("/v2/log", get(read_log).post(append_log))
        .route("/v2/link", get(link))
        .route("/i/{id}", get(answer::page))
        .route("/health", get(answer::healthy))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { Failure::NoRoute.answer() })
        .method_not_allowed_fallback(|| async { Failure::Method.answer() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), watch))
        .with_state(app)
}

/// Bounds the time of a request, names the client, counts the answer.
async fn watch(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let forwarded = request.headers().get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let client = client_address(peer.ip(), forwarded.collect::<Vec<_>>().into_iter(), &app.trusted_proxies);
    request.extensions_mut().insert(Client(client));
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::Timeout.answer(),
    };
    app.metrics.http.get_or_create(&RouteLabel { route, status: response.status().as_u16() }).inc();
    response
}

/// Who is asking, as throttles see it.
#[derive(Clone, Copy)]
struct Client(IpAddr);

async fn info(State(app): Shared) -> Response {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    answer::info(&app, now)
}

#[derive(Deserialize)]
struct CreateMesh {
    entries: Vec<String>,
}

async fn create_mesh(
    State(app): Shared,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer::of(async {
        if !app.creation.allows(bearer(&headers)) {
            return Err(Failure::Token);
        }
        let CreateMesh { entries } = read(body)?;
        if entries.len() > FIRST_ENTRIES_MAX {
            return Err(Failure::Malformed(format!("more than {FIRST_ENTRIES_MAX} entries")));
        }
        let entries = entries.iter().map(|entry| answer::from_base64(entry)).collect::<Result<_, _>>()?;
        app.ask(client, HttpRequest::MeshCreate { entries }).await
    })
    .await
}

#[derive(Deserialize)]
struct LookUp {
    lookup: InviteLookup,
}

async fn look_up_invite(
    State(app): Shared,
    Extension(client): Extension<Client>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer::of(async {
        let LookUp { lookup } = read(body)?;
        app.ask(client, HttpRequest::InviteLookup { lookup }).await
    })
    .await
}

#[derive(Deserialize)]
struct From {
    #[serde(default)]
    from: u64,
}

async fn read_log(
    State(app): Shared,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    query: Result<Query<From>, QueryRejection>,
) -> Response {
    answer::of(async {
        let bearer = invite_bearer(&headers)?;
        let Query(From { from }) = query.map_err(|error| Failure::Malformed(error.to_string()))?;
        app.ask(client, HttpRequest::LogRead { bearer, from }).await
    })
    .await
}

#[derive(Deserialize)]
struct AppendLog {
    entry: String,
}

async fn append_log(
    State(app): Shared,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer::of(async {
        let bearer = invite_bearer(&headers)?;
        let AppendLog { entry } = read(body)?;
        let entry = answer::from_base64(&entry)?;
        app.ask(client, HttpRequest::LogAppend { bearer, entry }).await
    })
    .await
}

/// The connection's guard goes along: a link counts against the cap until it ends.
async fn link(
    State(app): Shared,
    Extension(client): Extension<Client>,
    Extension(guard): Extension<Arc<ConnectionGuard>>,
    request: Request,
) -> Response {
    if app.draining.load(Ordering::Relaxed) {
        return Failure::Draining.answer();
    }
    session::accept(request, client.0, &app.engine, guard)
}

async fn ready(State(app): Shared) -> Response {
    answer::ready(app.unready())
}

async fn metrics(State(app): Shared) -> Response {
    answer::metrics(Metrics::render(&app.registry))
}

impl App {
    async fn ask(&self, client: Client, request: HttpRequest) -> Result<HttpReply, Failure> {
        self.engine.http(client.0, request).await.ok_or(Failure::Hub)
    }

    /// Why this process should get no traffic.
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if !self.engine.is_alive() {
            Some("hub")
        } else {
            match self.store.writable() {
                Writable::Yes => None,
                Writable::No => Some("store"),
            }
        }
    }
}

impl Creation {
    /// Hashes are compared, so that the time tells nothing about the token.
    fn allows(&self, presented: Option<&str>) -> bool {
        let digest = |text: &str| peerloom_proto::sha256(text.as_bytes());
        match self {
            Self::Open => true,
            Self::Token(token) => presented.is_some_and(|presented| digest(presented) == digest(token)),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A bearer that is no lookup gets the answer of an unknown one.
fn invite_bearer(headers: &HeaderMap) -> Result<InviteLookup, Failure> {
    bearer(headers).and_then(|token| token.parse().ok()).ok_or(Failure::Invite)
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = body.map_err(|error| Failure::Body(error.status()))?;
    serde_json::from_slice(&body).map_err(|error| Failure::Malformed(error.to_string()))
}
