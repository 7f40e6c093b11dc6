//! This node's place in the network, and the way to a peer.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use peerloom_proto::endpoint::PathKind;
use peerloom_proto::paths::{CandidateView, Mapping, Nat, NetworkView, Ports, ServerView};
use peerloom_proto::{Monotonic, Now};

use crate::api::Api;
use crate::api::present::{self, milliseconds};
use crate::api::request::{MeshParam, Selected};
use crate::api::shapes::{
    CandidateShape, CheckedShape, MappingLifeShape, MomentShape, NatShape, NetworkShape, StunShape, WayShape,
};
use crate::failure::{ErrorDocument, Failure, Kind, SCHEMA_VERSION};
use crate::views::{Change, Look, Moment, PeerStatus};

/// This node's place in the network: addresses, NAT, what STUN servers see.
#[utoipa::path(get, path = "/v1/network", params(MeshParam), responses(
    (status = 200, body = NetworkShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn network(
    State(api): State<Api>,
    Selected(mesh): Selected,
) -> Result<Json<NetworkShape>, Failure> {
    let Look { now, network, datagrams_dropped, .. } = mesh.look(None).await?;
    Ok(Json(NetworkShape {
        schema_version: SCHEMA_VERSION,
        mesh: mesh.name().to_owned(),
        udp: if api.daemon.config().direct { udp_word(&network) } else { "off" }.to_owned(),
        nat: nat(network.nat),
        candidates: network
            .candidates
            .iter()
            .map(|found| CandidateShape {
                kind: found.kind.name().to_owned(),
                address: found.addr.to_string(),
            })
            .collect(),
        stun: network.servers.iter().map(|seen| server(seen, now)).collect(),
        mapping_life: MappingLifeShape {
            at_least_ms: network.mapping_life.at_least.map(whole_milliseconds).filter(|ms| *ms >= 1_000),
            under_ms: network.mapping_life.under.map(whole_milliseconds),
        },
        skew_ms: mesh.view().skew_ms,
        datagrams_dropped,
    }))
}

/// The way to a peer: why it is no better one, what was tried, and what happened.
#[utoipa::path(get, path = "/v1/peers/{peer}/way",
    params(("peer" = String, Path, description = "Handle, or at least eight digits of the key"), MeshParam),
    responses((status = 200, body = WayShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn way(
    Path(asked): Path<String>,
    Selected(mesh): Selected,
) -> Result<Json<WayShape>, Failure> {
    let target = mesh.resolve(&asked)?;
    if target == mesh.member() {
        return Err(Failure::new(Kind::Usage, "to-self", "that is this node itself").next("peerloom peers"));
    }
    let Look { network, checks, moments, .. } = mesh.look(Some(target)).await?;
    let view = mesh.view();
    let status = view.peers.iter().find(|peer| peer.peer == target).ok_or_else(|| {
        Failure::new(Kind::NotFound, "peer-unknown", format!("nothing is known of {asked} yet"))
            .next("peerloom peers")
    })?;
    Ok(Json(WayShape {
        schema_version: SCHEMA_VERSION,
        peer: present::peer(status),
        why: why(status),
        here: nat(network.nat),
        there: checks.as_ref().map(|checks| nat(checks.peer_nat)),
        checked_at_ms: checks.as_ref().map(|checks| checks.since.0),
        candidates: checks.iter().flat_map(|checks| &checks.candidates).map(checked).collect(),
        timeline: moments.into_iter().map(moment).collect(),
    }))
}

/// Only what was seen is said: a server that answered, or none that did.
pub(super) fn udp_word(network: &NetworkView) -> &'static str {
    if network.servers.iter().any(|server| server.mapped.is_some()) {
        "works"
    } else if network.nat.mapping == Mapping::Blocked {
        "blocked"
    } else {
        "unknown"
    }
}

fn why(status: &PeerStatus) -> String {
    let handle = &status.handle;
    match (status.path, &status.why_not_direct) {
        (Some(PathKind::Direct), _) => {
            let over = status.transport.map(|transport| format!(" over {transport}")).unwrap_or_default();
            let at = status.remote.as_ref().map(|remote| format!(" at {remote}")).unwrap_or_default();
            format!("{handle} is reached directly{over}{at}; no better way is known")
        }
        (Some(PathKind::Relay), Some(why)) => format!("{handle} is reached over the relay: {why}"),
        (Some(PathKind::Relay), None) => format!(
            "{handle} is reached over the relay: nothing was sent to it yet, and a direct link begins with the first message"
        ),
        (Some(PathKind::Queue), _) => {
            format!("{handle} is away: what is sent waits for it at the coordinator")
        }
        (None, _) => format!(
            "the coordinator is not connected, and there is no direct link with {handle}: what is sent waits here"
        ),
    }
}

pub(super) fn nat(nat: Nat) -> NatShape {
    let mapping = match nat.mapping {
        Mapping::Unknown => "unknown",
        Mapping::Open => "none",
        Mapping::EndpointIndependent => "endpoint-independent",
        Mapping::AddressDependent => "address-dependent",
        Mapping::AddressAndPortDependent => "address-and-port-dependent",
        Mapping::Blocked => "blocked",
    };
    let ports = match nat.ports {
        Ports::Unknown => "unknown",
        Ports::Preserving => "preserving",
        Ports::Sequential { .. } => "sequential",
        Ports::Block { .. } => "block",
        Ports::Random => "random",
    };
    let text = match nat.ports {
        Ports::Unknown => nat.mapping.to_string(),
        Ports::Preserving | Ports::Sequential { .. } | Ports::Block { .. } | Ports::Random => {
            format!("{}, ports {}", nat.mapping, nat.ports)
        }
    };
    NatShape { mapping: mapping.to_owned(), ports: ports.to_owned(), text }
}

fn server(server: &ServerView, now: Now) -> StunShape {
    let age = |at: Monotonic| whole_milliseconds(now.monotonic.since(at));
    StunShape {
        address: server.addr.to_string(),
        mapped: server.mapped.map(|mapped| mapped.to_string()),
        rtt_ms: server.rtt_us.map(milliseconds),
        answered_at_ms: server.answered_at.map(|at| now.wall.0.saturating_sub(age(at))),
    }
}

fn checked(row: &CandidateView) -> CheckedShape {
    CheckedShape {
        kind: row.kind.name().to_owned(),
        address: row.addr.to_string(),
        state: row.state.name().to_owned(),
        rtt_ms: row.rtt_us.map(milliseconds),
    }
}

fn moment(moment: Moment) -> MomentShape {
    let (event, text) = match moment.change {
        Change::Online => ("online", None),
        Change::Away => ("away", None),
        Change::Direct(remote) => ("direct", remote),
        Change::Relay => ("relay", None),
        Change::NotDirect(why) => ("not-direct", Some(why)),
    };
    MomentShape { at_ms: moment.at.0, event: event.to_owned(), text }
}

fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_works_or_is_blocked_only_by_evidence() {
        let network = |mapping, mapped: Option<&str>| NetworkView {
            candidates: Vec::new(),
            nat: Nat { mapping, ports: Ports::Unknown },
            servers: vec![ServerView {
                addr: "192.0.2.1:3478".parse().unwrap(),
                mapped: mapped.map(|mapped| mapped.parse().unwrap()),
                rtt_us: None,
                answered_at: None,
            }],
            mapping_life: peerloom_proto::paths::MappingLife::default(),
        };
        assert_eq!(udp_word(&network(Mapping::Unknown, None)), "unknown");
        assert_eq!(udp_word(&network(Mapping::Unknown, Some("203.0.113.1:9"))), "works");
        assert_eq!(udp_word(&network(Mapping::Blocked, None)), "blocked");
    }

    #[test]
    fn a_nat_is_named_for_programs_and_told_to_people() {
        let shape = nat(Nat { mapping: Mapping::AddressAndPortDependent, ports: Ports::Random });
        assert_eq!((shape.mapping.as_str(), shape.ports.as_str()), ("address-and-port-dependent", "random"));
        assert!(shape.text.starts_with("an address- and port-dependent NAT, ports "), "{}", shape.text);
        assert_eq!(nat(Nat::default()).text, "an unknown NAT");
    }
}
