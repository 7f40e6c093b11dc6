//! `status`: the node, its meshes, and one line per peer.

use super::{Caller, DONE, Ended};
use crate::api::client::{Client, no_mesh};
use crate::api::shapes::{
    CoordinatorShape, MeShape, MeshShape, MeshStatus, OutboxCountsShape, PeerListShape, StatusShape,
};
use crate::clock::Clock;
use crate::failure::{Failure, Kind, SCHEMA_VERSION};
use crate::render::text::one_line;
use crate::render::time::span;

pub(super) async fn status(caller: &Caller) -> Ended {
    let client = caller.client()?;
    let status: StatusShape = match client.get("/v1/status", &[]).await {
        Ok(status) => status,
        Err(failure) if failure.code == "daemon-down" || failure.code == "no-mesh" => {
            return stopped(caller, failure);
        }
        Err(failure) => return Err(failure),
    };
    if caller.out.is_json() {
        caller.out.json(&status)?;
        return Ok(DONE);
    }
    for mesh in &status.meshes {
        for line in mesh_lines(mesh, Clock::start().now().wall.0) {
            caller.out.line(line)?;
        }
        let query = [("mesh", Some(mesh.mesh.id.clone()))];
        let list: PeerListShape = Client::new(&caller.home, None)?.get("/v1/peers", &query).await?;
        for line in super::peers::lines(&list) {
            caller.out.line(format!("  {line}"))?;
        }
    }
    caller.out.line(daemon_line(&status))?;
    if status.meshes.is_empty() {
        caller.out.next("peerloom join URL --name HANDLE");
    } else {
        caller.out.next("peerloom send PEER TEXT, or peerloom invite");
    }
    Ok(DONE)
}

fn mesh_lines(status: &MeshStatus, now_ms: u64) -> Vec<String> {
    let MeshStatus { mesh, me, coordinator, peers_online, outbox, alarms } = status;
    let role = me.role.as_deref().unwrap_or("member");
    let mut lines = vec![
        format!("{}  {} ({role})", one_line(&mesh.name), me.handle),
        format!("  coordinator  {}", coordinator_text(coordinator, now_ms)),
        format!("  peers        {peers_online} online"),
        format!("  outbox       {} on their way, {} failed", outbox.pending, outbox.dead),
    ];
    lines.extend(alarms.iter().map(|alarm| format!("  ALARM        {}", one_line(alarm))));
    lines
}

fn coordinator_text(coordinator: &CoordinatorShape, now_ms: u64) -> String {
    let why = coordinator.why.as_deref().map(|why| format!(": {}", one_line(why))).unwrap_or_default();
    let since = coordinator.since_ms.map(|since| format!(" for {}", span(now_ms.saturating_sub(since))));
    format!("{}  {}{}{why}", coordinator.origin, coordinator.state, since.unwrap_or_default())
}

fn daemon_line(status: &StatusShape) -> String {
    let pid = status.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let version = status.version.as_deref().unwrap_or("?");
    let up = status.uptime_ms.map(span).unwrap_or_default();
    format!("node  process {pid}, version {version}, up for {up}")
}

/// What can be said without a daemon: the meshes that the home holds.
fn stopped(caller: &Caller, failure: Failure) -> Ended {
    let mut meshes = caller.home.meshes()?;
    if let Some(selector) = &caller.mesh {
        meshes.retain(|mesh| mesh.name == *selector || mesh.id.to_string().starts_with(selector));
    }
    let first = meshes.first();
    let shape = StatusShape {
        schema_version: SCHEMA_VERSION,
        running: false,
        pid: None,
        version: None,
        uptime_ms: None,
        mesh: first.map(|mesh| MeshShape { id: mesh.id.to_string(), name: mesh.name.clone(), head: None }),
        me: first.and_then(|mesh| {
            let key = crate::keystore::read_key(&mesh.member_key_file()).ok()?;
            Some(MeShape { handle: mesh.handle.to_string(), member: key.id().to_string(), role: None })
        }),
        coordinator: first.map(|mesh| CoordinatorShape {
            origin: mesh.origin.to_string(),
            state: "offline".to_owned(),
            why: Some("the node is not running".to_owned()),
            since_ms: None,
            skew_ms: None,
        }),
        peers_online: 0,
        outbox: OutboxCountsShape::default(),
        alarms: Vec::new(),
        meshes: Vec::new(),
    };
    if caller.out.is_json() {
        caller.out.json(&shape)?;
        return Ok(if first.is_some() { Kind::Unreachable } else { Kind::NoMesh }.exit_code());
    }
    let now = Clock::start().now().wall.0;
    for mesh in &meshes {
        let age = span(now.saturating_sub(mesh.created_at.0));
        caller.out.line(format!(
            "{}  {}  at {}, here for {age}",
            one_line(&mesh.name),
            mesh.handle,
            mesh.origin
        ))?;
    }
    Err(if first.is_some() { failure } else { no_mesh(&caller.home) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offline_coordinator_says_why() {
        let coordinator = CoordinatorShape {
            origin: "https://mesh.example".to_owned(),
            state: "offline".to_owned(),
            why: Some("connection refused".to_owned()),
            since_ms: Some(1_000),
            skew_ms: None,
        };
        assert_eq!(
            coordinator_text(&coordinator, 8_000),
            "https://mesh.example  offline for 7 s: connection refused"
        );
    }
}
