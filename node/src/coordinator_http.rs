//! What a node asks its coordinator over HTTP: before it is a member, there is no other way.
//!
//! Answers are foreign bytes: bounded, decoded strictly, and believed only after the caller has
//! replayed and verified them.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peerloom_proto::{InviteLookup, LogError, Origin, PeerId, UnixMs, WireEntry};
use peerloom_transports::{TlsTrust, TrustError, client_config, provider};
use reqwest::{RequestBuilder, StatusCode, redirect};
use serde::{Deserialize, Serialize};

/// Why the coordinator gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CoordinatorError {
    /// Its certificate could not be checked at all.
    #[error("no trust for {origin}")]
    Trust {
        /// Whom we wanted to ask.
        origin: Origin,
        /// Why.
        source: TrustError,
    },
    /// Nobody answered, or the connection broke.
    #[error("{origin} does not answer")]
    Unreachable {
        /// Whom we asked.
        origin: Origin,
        /// Why.
        source: reqwest::Error,
    },
    /// It said no.
    #[error("{origin} refused: {text} ({code})")]
    Refused {
        /// Whom we asked.
        origin: Origin,
        /// HTTP status.
        status: u16,
        /// The protocol's reason name, or the coordinator's own.
        code: String,
        /// Its sentence.
        text: String,
        /// Seconds after which it may be asked again.
        retry_after_s: Option<u64>,
    },
    /// It is no coordinator of this protocol version, or it is broken.
    #[error("{origin} is no Peerloom coordinator, or one of another version: {what}")]
    Malformed {
        /// Whom we asked.
        origin: Origin,
        /// What was not understood.
        what: String,
    },
}

/// What `GET /v2/info` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct CoordinatorInfo {
    /// The key it signs sequences and welcomes with.
    pub(crate) coordinator: PeerId,
    /// What it calls itself; what stands in genesis entries.
    pub(crate) origin: Origin,
    /// Its software.
    pub(crate) version: String,
    /// Its clock.
    pub(crate) now_ms: UnixMs,
    /// Whether making a mesh needs a token.
    pub(crate) token_required: bool,
    /// UDP ports of its STUN responders at its own host.
    #[serde(default)]
    pub(crate) stun_ports: Vec<u16>,
    /// STUN responders elsewhere.
    #[serde(default)]
    pub(crate) stun_addresses: Vec<SocketAddr>,
}

/// A part of a mesh log.
#[derive(Clone, Debug)]
pub(crate) struct LogPage {
    /// Entries in the whole log.
    pub(crate) size: u64,
    /// From the asked index on; possibly not to the end.
    pub(crate) entries: Vec<WireEntry>,
}

/// What became of an entry.
#[derive(Clone, Debug)]
pub(crate) enum AppendOutcome {
    /// Sequenced; the entry with the coordinator's signature.
    Sequenced(Box<WireEntry>),
    /// Another entry came first.
    Conflict,
}

/// A coordinator, asked over HTTP.
pub(crate) struct CoordinatorHttp {
    http: reqwest::Client,
    origin: Origin,
}

impl fmt::Debug for CoordinatorHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoordinatorHttp({})", self.origin)
    }
}

impl CoordinatorHttp {
    /// For the coordinator at `origin`. Redirects and proxies are not followed: an origin is signed,
    /// and the uplink would not follow them either.
    /// `ca_file` names certificate authorities to trust beside the machine's own.
    pub(crate) fn new(origin: &Origin, ca_file: Option<&Path>) -> Result<Self, CoordinatorError> {
        let config = if origin.is_secure() {
            let config = client_config(&TlsTrust { extra_ca: ca_file.map(Path::to_owned) });
            (*config.map_err(|source| CoordinatorError::Trust { origin: origin.clone(), source })?).clone()
        } else {
            no_tls()
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(|source| CoordinatorError::Unreachable { origin: origin.clone(), source })?;
        Ok(Self { http, origin: origin.clone() })
    }

    /// Who it is and what time it has.
    pub(crate) async fn info(&self) -> Result<CoordinatorInfo, CoordinatorError> {
        self.call(self.http.get(self.url("/v2/info"))).await
    }

    /// Deposits a new mesh; gives its entries, sequenced.
    pub(crate) async fn create_mesh(
        &self,
        entries: &[WireEntry],
        token: Option<&str>,
    ) -> Result<Vec<WireEntry>, CoordinatorError> {
        let body = Entries { entries: entries.iter().map(to_base64).collect() };
        let mut request = self.http.post(self.url("/v2/meshes")).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer: Entries = self.call(request).await?;
        answer.entries.iter().map(|entry| self.read_entry(entry)).collect()
    }

    /// The sealed cap under a lookup.
    pub(crate) async fn invite_blob(&self, lookup: &InviteLookup) -> Result<Vec<u8>, CoordinatorError> {
        let body = Lookup { lookup: lookup.to_string() };
        let answer: Blob = self.call(self.http.post(self.url("/v2/invites/lookup")).json(&body)).await?;
        self.read_base64(&answer.blob)
    }

    /// The log of the mesh that an invite is for.
    pub(crate) async fn log(&self, lookup: &InviteLookup, from: u64) -> Result<LogPage, CoordinatorError> {
        let request = self.http.get(self.url(&format!("/v2/log?from={from}"))).bearer_auth(lookup);
        let answer: LogAnswer = self.call(request).await?;
        let entries = answer.entries.iter().map(|entry| self.read_entry(entry));
        Ok(LogPage { size: answer.size, entries: entries.collect::<Result<_, _>>()? })
    }

    /// Offers an entry for the next place in that log.
    pub(crate) async fn append(
        &self,
        lookup: &InviteLookup,
        entry: &WireEntry,
    ) -> Result<AppendOutcome, CoordinatorError> {
        let body = OneEntry { entry: to_base64(entry) };
        let request = self.http.post(self.url("/v2/log")).bearer_auth(lookup).json(&body);
        let (status, body) = self.send(request).await?;
        // Other conflicts, such as a taken handle, are refusals that no second attempt mends.
        if status == StatusCode::CONFLICT
            && serde_json::from_slice::<RefusedBody>(&body).is_ok_and(|body| body.error.code == "conflict")
        {
            return Ok(AppendOutcome::Conflict);
        }
        let answer: OneEntry = self.read(status, &body, None)?;
        Ok(AppendOutcome::Sequenced(Box::new(self.read_entry(&answer.entry)?)))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, CoordinatorError> {
        let (status, body) = self.send(request).await?;
        self.read(status, &body, None)
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), CoordinatorError> {
        let unreachable = |source| CoordinatorError::Unreachable { origin: self.origin.clone(), source };
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let wait = answer.headers().get(reqwest::header::RETRY_AFTER);
            let seconds = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
            let body = answer.bytes().await.map_err(unreachable)?;
            return self
                .read::<serde::de::IgnoredAny>(status, &body, seconds)
                .map(|_| (status, body.to_vec()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.malformed(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        status: StatusCode,
        body: &[u8],
        retry_after_s: Option<u64>,
    ) -> Result<T, CoordinatorError> {
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|error| self.malformed(error.to_string()));
        }
        match serde_json::from_slice::<RefusedBody>(body) {
            Ok(RefusedBody { error }) => Err(CoordinatorError::Refused {
                origin: self.origin.clone(),
                status: status.as_u16(),
                code: error.code,
                text: error.text,
                retry_after_s,
            }),
            Err(_) => Err(self.malformed(format!("it answered {status}"))),
        }
    }

    fn read_base64(&self, text: &str) -> Result<Vec<u8>, CoordinatorError> {
        URL_SAFE_NO_PAD.decode(text).map_err(|error| self.malformed(error.to_string()))
    }

    fn read_entry(&self, text: &str) -> Result<WireEntry, CoordinatorError> {
        let bytes = self.read_base64(text)?;
        WireEntry::parse(&bytes).map_err(|error: LogError| self.malformed(error.to_string()))
    }

    fn malformed(&self, what: String) -> CoordinatorError {
        CoordinatorError::Malformed { origin: self.origin.clone(), what }
    }
}

/// A configuration that trusts nobody, for origins that use no TLS: reading the machine's roots for
/// them would cost milliseconds and may fail.
fn no_tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn to_base64(entry: &WireEntry) -> String {
    URL_SAFE_NO_PAD.encode(entry.encode())
}

#[derive(Serialize, Deserialize)]
struct Entries {
    entries: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct OneEntry {
    entry: String,
}

#[derive(Serialize)]
struct Lookup {
    lookup: String,
}

#[derive(Deserialize)]
struct Blob {
    blob: String,
}

#[derive(Deserialize)]
struct LogAnswer {
    size: u64,
    entries: Vec<String>,
}

#[derive(Deserialize)]
struct RefusedBody {
    error: RefusedError,
}

#[derive(Deserialize)]
struct RefusedError {
    code: String,
    #[serde(default)]
    text: String,
}

/// A coordinator that needs longer to accept is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole call: the longest log page over a slow line.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of the log: thousands of entries; more is refused, not buffered.
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests;
