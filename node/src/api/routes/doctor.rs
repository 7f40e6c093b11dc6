//! What the daemon itself can say of its health. The CLI adds what can be seen from outside.

use axum::Json;
use axum::extract::State;
use peerloom_proto::endpoint::UplinkStatus;
use peerloom_proto::limits::CLOCK_SKEW_MAX;

use super::network::{nat, udp_word};
use crate::api::Api;
use crate::api::shapes::{CheckLevel, DoctorCheck, DoctorShape};
use crate::daemon::Daemon;
use crate::failure::{ErrorDocument, SCHEMA_VERSION, chain};
use crate::mesh::Mesh;
use crate::views::{InboxQuery, MeshView};

/// Checks every mesh: store, coordinator, clock, network, outbox, alarms.
#[utoipa::path(get, path = "/v1/doctor", responses(
    (status = 200, body = DoctorShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn doctor(State(api): State<Api>) -> Json<DoctorShape> {
    let text = format!("{} (process {})", Daemon::VERSION, std::process::id());
    let mut checks = vec![check("version", CheckLevel::Ok, text, "")];
    for mesh in api.daemon.meshes() {
        checks.extend(check_mesh(&mesh, &api).await);
    }
    let level = checks.iter().map(|check| check.level).max().unwrap_or(CheckLevel::Ok);
    Json(DoctorShape { schema_version: SCHEMA_VERSION, level, checks })
}

async fn check_mesh(mesh: &Mesh, api: &Api) -> Vec<DoctorCheck> {
    let view = mesh.view();
    vec![
        store(mesh).await,
        coordinator(mesh, &view),
        clock(mesh, &view),
        network(mesh, api).await,
        outbox(mesh, &view),
        alarms(mesh, &view),
    ]
}

async fn store(mesh: &Mesh) -> DoctorCheck {
    let name = format!("store {}", mesh.name());
    match mesh.inbox(InboxQuery { limit: 1, ..InboxQuery::default() }).await {
        Ok(_) => check(name, CheckLevel::Ok, mesh.info().store_file().display().to_string(), ""),
        Err(error) => check(
            name,
            CheckLevel::Fail,
            chain(&error),
            "stop the node, keep a copy of the file, restore a backup",
        ),
    }
}

fn coordinator(mesh: &Mesh, view: &MeshView) -> DoctorCheck {
    let name = format!("coordinator {}", mesh.name());
    let origin = mesh.origin();
    match &view.uplink {
        UplinkStatus::Connected => check(name, CheckLevel::Ok, format!("connected to {origin}"), ""),
        UplinkStatus::Connecting => {
            check(name, CheckLevel::Warn, format!("connecting to {origin}"), "wait a moment, then look again")
        }
        UplinkStatus::Offline(why) => check(
            name,
            CheckLevel::Fail,
            format!("{origin} is not reachable: {why}"),
            "check the network and that peerloom-coordinator runs there; mail waits in the outbox",
        ),
    }
}

fn clock(mesh: &Mesh, view: &MeshView) -> DoctorCheck {
    let name = format!("clock {}", mesh.name());
    let limit = i64::try_from(CLOCK_SKEW_MAX.as_millis()).unwrap_or(i64::MAX);
    match view.skew_ms {
        None => check(name, CheckLevel::Warn, "not compared with the coordinator yet", "connect to it first"),
        Some(skew) if skew.abs() > limit => check(
            name,
            CheckLevel::Fail,
            format!("{} s off the coordinator's; nothing is sent beyond {} s", skew / 1_000, limit / 1_000),
            "set this machine's clock: timedatectl set-ntp true",
        ),
        Some(skew) if skew.abs() > limit / 5 => check(
            name,
            CheckLevel::Warn,
            format!("{} s off the coordinator's", skew / 1_000),
            "set this machine's clock: timedatectl set-ntp true",
        ),
        Some(skew) => check(name, CheckLevel::Ok, format!("{skew} ms off the coordinator's"), ""),
    }
}

async fn network(mesh: &Mesh, api: &Api) -> DoctorCheck {
    let name = format!("network {}", mesh.name());
    if !api.daemon.config().direct {
        return check(name, CheckLevel::Ok, "direct links are switched off", "");
    }
    match mesh.look(None).await {
        Ok(look) if udp_word(&look.network) == "blocked" => check(
            name,
            CheckLevel::Warn,
            "UDP does not get out: no STUN server answered; everything goes over the relay",
            "let UDP out of this network, or live with the relay; peerloom netcheck shows what was asked",
        ),
        Ok(look) => check(name, CheckLevel::Ok, nat(look.network.nat).text, ""),
        Err(error) => check(name, CheckLevel::Fail, chain(&error), "peerloom logs"),
    }
}

fn outbox(mesh: &Mesh, view: &MeshView) -> DoctorCheck {
    let name = format!("outbox {}", mesh.name());
    let text = format!("{} on their way, {} failed", view.outbox.pending, view.outbox.dead);
    if view.outbox.dead > 0 {
        check(name, CheckLevel::Warn, text, "peerloom outbox list --failed, peerloom outbox requeue --all")
    } else {
        check(name, CheckLevel::Ok, text, "")
    }
}

fn alarms(mesh: &Mesh, view: &MeshView) -> DoctorCheck {
    let name = format!("alarms {}", mesh.name());
    match view.alarms.last() {
        None => check(name, CheckLevel::Ok, "none", ""),
        Some(last) => {
            check(name, CheckLevel::Fail, last, "tell the mesh's owner and the coordinator's operator")
        }
    }
}

fn check(
    name: impl Into<String>,
    level: CheckLevel,
    text: impl Into<String>,
    next: impl Into<String>,
) -> DoctorCheck {
    DoctorCheck { name: name.into(), level, text: text.into(), next: next.into() }
}
