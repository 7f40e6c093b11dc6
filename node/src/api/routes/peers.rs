//! Members: who they are, how they are reached, and removing one.

use std::time::Duration;

use axum::Json;
use peerloom_proto::PeerId;
use peerloom_proto::endpoint::{LogChange, PathKind, PingSample, Reply, Request};
use tokio::time::Instant;

use super::uplink;
use crate::api::present::{self, Names, milliseconds, path_word};
use crate::api::request::{MeshParam, Payload, Selected};
use crate::api::shapes::{
    DoneShape, MemberListShape, PeerListShape, PingRequest, PingShape, RevokeRequest, SampleShape,
};
use crate::failure::{ErrorDocument, Failure, Kind, SCHEMA_VERSION};
use crate::mesh::{Mesh, ResolveError};
use crate::views::PeerStatus;

/// The other members, as far as they can be seen.
#[utoipa::path(get, path = "/v1/peers", params(MeshParam), responses(
    (status = 200, body = PeerListShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn peers(Selected(mesh): Selected) -> Json<PeerListShape> {
    let mut peers: Vec<_> = mesh.view().peers.iter().map(present::peer).collect();
    peers.sort_by(|a, b| a.handle.cmp(&b.handle));
    Json(PeerListShape { schema_version: SCHEMA_VERSION, peers })
}

/// Everyone the log ever admitted.
#[utoipa::path(get, path = "/v1/members", params(MeshParam), responses(
    (status = 200, body = MemberListShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn members(Selected(mesh): Selected) -> Json<MemberListShape> {
    let members = mesh.view().members.iter().map(present::member).collect();
    Json(MemberListShape { schema_version: SCHEMA_VERSION, members })
}

/// Removes a member for ever.
#[utoipa::path(post, path = "/v1/members/revoke", params(MeshParam), request_body = RevokeRequest, responses(
    (status = 200, body = DoneShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn revoke(
    Selected(mesh): Selected,
    Payload(RevokeRequest { peer, reason }): Payload<RevokeRequest>,
) -> Result<Json<DoneShape>, Failure> {
    let done = |text| Json(DoneShape { schema_version: SCHEMA_VERSION, done: true, text });
    let target = match mesh.resolve(&peer) {
        Ok(target) => target,
        Err(ResolveError::Revoked { handle }) => return Ok(done(format!("{handle} was revoked before"))),
        Err(error) => return Err(error.into()),
    };
    if target == mesh.member() {
        return Err(Failure::usage("that is this node itself").next("peerloom leave"));
    }
    append(&mesh, LogChange::Revoke { target, reason: reason.number() }).await?;
    Ok(done(format!("{peer} is revoked")))
}

/// Appends to the mesh log; gives the entry's index.
pub(in crate::api) async fn append(mesh: &Mesh, change: LogChange) -> Result<u64, Failure> {
    uplink::settle(mesh).await;
    match mesh.request(Request::Append(change)).await? {
        Reply::Appended(index) => Ok(index),
        Reply::Refused(refusal) => Err(refusal.into()),
        other @ (Reply::Sent { .. } | Reply::Done | Reply::Requeued(_) | Reply::Pong(_)) => {
            unreachable!("an append was answered by {other:?}")
        }
    }
}

/// Measures round trips over the relay and, as soon as there is one, the direct path.
#[utoipa::path(post, path = "/v1/ping", params(MeshParam), request_body = PingRequest, responses(
    (status = 200, body = PingShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn ping(
    Selected(mesh): Selected,
    Payload(PingRequest { peer, timeout_ms }): Payload<PingRequest>,
) -> Result<Json<PingShape>, Failure> {
    let target = mesh.resolve(&peer)?;
    if target == mesh.member() {
        return Err(Failure::new(Kind::Usage, "to-self", "that is this node itself").next("peerloom peers"));
    }
    let timeout_ms = timeout_ms.unwrap_or(TIMEOUT_MS);
    if timeout_ms > TIMEOUT_MS_MAX {
        return Err(Failure::usage(format!("a ping waits {} s at most", TIMEOUT_MS_MAX / 1_000))
            .next("name a shorter timeout, or repeat the ping"));
    }
    let timeout = Duration::from_millis(timeout_ms);
    uplink::settle(&mesh).await;
    let began = Instant::now();
    let mut samples: Vec<PingSample> = Vec::new();
    connect(&mesh, target).await?;
    let mut upgrading = false;
    loop {
        samples.extend(ping_once(&mesh, target).await?);
        let direct = samples.iter().any(is_direct);
        if direct || began.elapsed() >= timeout {
            let upgraded = (direct && upgrading).then(|| began.elapsed());
            return present_ping(&mesh, &peer, target, &samples, upgraded);
        }
        upgrading = true;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(mesh: &Mesh, target: PeerId) -> Result<(), Failure> {
    match mesh.request(Request::Connect(target)).await? {
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done | Reply::Sent { .. } | Reply::Requeued(_) | Reply::Pong(_) | Reply::Appended(_) => Ok(()),
    }
}

async fn ping_once(mesh: &Mesh, target: PeerId) -> Result<Vec<PingSample>, Failure> {
    match mesh.request(Request::Ping(target)).await? {
        Reply::Pong(samples) => Ok(samples),
        Reply::Refused(refusal) => Err(refusal.into()),
        other @ (Reply::Sent { .. } | Reply::Done | Reply::Requeued(_) | Reply::Appended(_)) => {
            unreachable!("a ping was answered by {other:?}")
        }
    }
}

fn present_ping(
    mesh: &Mesh,
    asked: &str,
    target: PeerId,
    samples: &[PingSample],
    upgraded: Option<Duration>,
) -> Result<Json<PingShape>, Failure> {
    let view = mesh.view();
    let status: Option<&PeerStatus> = view.peers.iter().find(|peer| peer.peer == target);
    let handle = status.map_or_else(|| asked.to_owned(), |peer| peer.handle.to_string());
    if samples.iter().all(|sample| sample.rtt_us.is_none()) {
        let why = match status {
            Some(PeerStatus { path: None, .. }) | None => "the coordinator is not connected",
            Some(PeerStatus { online: true, .. }) => "it does not answer",
            Some(PeerStatus { online: false, .. }) => "it is away",
        };
        return Err(Failure::new(
            Kind::Unreachable,
            "peer-unreachable",
            format!("no round trip to {handle}: {why}"),
        )
        .next("peerloom peers; mail for it is queued and not lost"));
    }
    let names = Names::of(&view);
    let direct = samples.iter().any(is_direct);
    Ok(Json(PingShape {
        schema_version: SCHEMA_VERSION,
        peer: handle,
        samples: samples.iter().map(|sample| shape(sample, &names, &target)).collect(),
        direct,
        why_not_direct: if direct { None } else { status.and_then(present::why_not_direct) },
        upgraded_after_ms: upgraded.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        remote: if direct { status.and_then(|peer| peer.remote.clone()) } else { None },
    }))
}

fn is_direct(sample: &PingSample) -> bool {
    sample.path == PathKind::Direct && sample.rtt_us.is_some()
}

fn shape(sample: &PingSample, names: &Names, peer: &PeerId) -> SampleShape {
    SampleShape {
        path: path_word(sample.path).to_owned(),
        transport: names.transport(sample.path, peer).map(str::to_owned),
        rtt_ms: sample.rtt_us.map(milliseconds),
    }
}

/// A direct path between nodes that can reach each other takes well under this.
const TIMEOUT_MS: u64 = 3_000;
/// Nobody waits longer in front of a screen.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// Between two round trips.
const PAUSE: Duration = Duration::from_millis(100);
