//! `peers`, `member list` and `revoke`.

use super::{Caller, DONE, Ended};
use crate::api::shapes::{DoneShape, MemberListShape, MemberShape, PeerListShape, PeerShape, RevokeRequest};
use crate::cli::RevokeArgs;
use crate::clock::Clock;
use crate::render::table;
use crate::render::text::one_line;
use crate::render::time::{round_trip, span, stamp};

pub(super) async fn peers(caller: &Caller) -> Ended {
    let list: PeerListShape = caller.client()?.get("/v1/peers", &[]).await?;
    caller.out.both(&list, || lines(&list))?;
    if list.peers.is_empty() {
        caller.out.note("no other members yet");
        caller.out.next("peerloom invite");
    } else {
        caller.out.next("peerloom ping PEER, or peerloom send PEER TEXT");
    }
    Ok(DONE)
}

/// A table, one line per peer; nothing without peers.
pub(super) fn lines(list: &PeerListShape) -> Vec<String> {
    if list.peers.is_empty() {
        return Vec::new();
    }
    let now = Clock::start().now().wall.0;
    let rows: Vec<_> = list.peers.iter().map(|peer| row(peer, now)).collect();
    table::lines(["PEER", "KEY", "STATE", "PATH", "RTT", "SINCE", "WHY NOT DIRECT"], &rows)
}

fn row(peer: &PeerShape, now_ms: u64) -> [String; 7] {
    let dash = || "-".to_owned();
    let path = match (peer.path.as_str(), &peer.transport, &peer.remote) {
        ("none", _, _) => dash(),
        (path, Some(transport), Some(remote)) => format!("{path} {transport} {remote}"),
        (path, _, _) => path.to_owned(),
    };
    [
        peer.handle.clone(),
        peer.key.chars().take(8).collect(),
        peer.presence.clone(),
        one_line(&path),
        peer.rtt_ms.map_or_else(dash, |rtt_ms| measured(rtt_ms, peer.rtt_at_ms, now_ms)),
        peer.since_ms.map_or_else(dash, |since| span(now_ms.saturating_sub(since))),
        peer.why_not_direct.as_deref().map_or_else(dash, one_line),
    ]
}

/// A round trip, and its age if it is not of the last second.
pub(super) fn measured(rtt_ms: f64, at_ms: Option<u64>, now_ms: u64) -> String {
    let age = at_ms.map(|at| format!(", {} ago", span(now_ms.saturating_sub(at)))).unwrap_or_default();
    format!("{}{age}", round_trip(rtt_ms))
}

pub(super) async fn members(caller: &Caller) -> Ended {
    let list: MemberListShape = caller.client()?.get("/v1/members", &[]).await?;
    caller.out.both(&list, || {
        let rows: Vec<_> = list.members.iter().map(member_row).collect();
        table::lines(["MEMBER", "KEY", "ROLE", "SINCE", "BY"], &rows)
    })?;
    caller.out.next("peerloom invite, or peerloom revoke MEMBER");
    Ok(DONE)
}

fn member_row(member: &MemberShape) -> [String; 5] {
    let mut role = member.role.clone();
    if member.me {
        role.push_str(", this node");
    }
    if member.revoked {
        role.push_str(", revoked");
    }
    let by = member
        .invite
        .as_ref()
        .map_or_else(|| "admin or owner".to_owned(), |invite| format!("invite {invite}"));
    [member.handle.clone(), member.key.chars().take(16).collect(), role, stamp(member.admitted_at_ms), by]
}

pub(super) async fn revoke(caller: &Caller, args: RevokeArgs) -> Ended {
    let request = RevokeRequest { peer: args.member, reason: args.reason };
    let done: DoneShape = caller.client()?.post("/v1/members/revoke", &request).await?;
    caller
        .out
        .both(&done, || vec![format!("{}; it is refused everywhere, for ever", one_line(&done.text))])?;
    caller.out.next("peerloom member list");
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerShape {
        PeerShape {
            handle: "build".to_owned(),
            key: "ab".repeat(32),
            kind: "member".to_owned(),
            online: true,
            presence: "online".to_owned(),
            status: "idle".to_owned(),
            path: "direct".to_owned(),
            transport: Some("quic".to_owned()),
            rtt_ms: Some(11.3),
            rtt_at_ms: None,
            groups: Vec::new(),
            summary: String::new(),
            remote: Some("203.0.113.7:52114".to_owned()),
            since_ms: Some(1_000),
            why_not_direct: None,
        }
    }

    #[test]
    fn a_direct_peer_shows_where_and_since_when() {
        assert_eq!(
            row(&peer(), 181_000),
            ["build", "abababab", "online", "direct quic 203.0.113.7:52114", "11.3 ms", "3 min", "-"]
        );
    }

    #[test]
    fn a_peer_that_is_away_says_why_it_is_not_direct() {
        let away = PeerShape {
            online: false,
            presence: "away".to_owned(),
            path: "none".to_owned(),
            transport: None,
            rtt_ms: None,
            remote: None,
            since_ms: Some(1_000),
            why_not_direct: Some("it is away".to_owned()),
            ..peer()
        };
        assert_eq!(row(&away, 3_000), ["build", "abababab", "away", "-", "-", "2 s", "it is away"]);
    }

    #[test]
    fn a_round_trip_over_the_relay_says_how_old_it_is() {
        assert_eq!(measured(48.2, Some(1_000), 181_000), "48.2 ms, 3 min ago");
        assert_eq!(measured(11.3, None, 181_000), "11.3 ms");
    }
}
