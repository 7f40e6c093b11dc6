//! `netcheck`, `why` and `trace`: this node's place in the network, and the way to a peer.

use super::peers::measured;
use super::{Caller, DONE, Ended};
use crate::api::client::segment;
use crate::api::shapes::{MomentShape, NetworkShape, StunShape, WayShape};
use crate::cli::WayArgs;
use crate::clock::Clock;
use crate::render::table;
use crate::render::text::one_line;
use crate::render::time::{moment as precise, round_trip, span};

pub(super) async fn netcheck(caller: &Caller) -> Ended {
    let network: NetworkShape = caller.client()?.get("/v1/network", &[]).await?;
    caller.out.both(&network, || network_lines(&network, Clock::start().now().wall.0))?;
    caller.out.next(match network.udp.as_str() {
        "blocked" => "let UDP out of this network, or live with the relay",
        "off" => "start the node without PEERLOOM_DIRECT=false, or live with the relay",
        _ => "peerloom ping PEER --until direct",
    });
    Ok(DONE)
}

fn network_lines(network: &NetworkShape, now_ms: u64) -> Vec<String> {
    let mut lines =
        vec![one_line(&network.mesh), field("udp", &udp(network, now_ms)), field("nat", &network.nat.text)];
    if !matches!(network.nat.mapping.as_str(), "none" | "unknown" | "blocked") {
        lines.push(field("mapping kept", &life(network)));
    }
    lines.push(field("clock", &network.skew_ms.map_or_else(|| "not compared yet".to_owned(), skew)));
    if network.datagrams_dropped > 0 {
        lines.push(field("stun dropped", &network.datagrams_dropped.to_string()));
    }
    let candidates: Vec<_> =
        network.candidates.iter().map(|found| [found.kind.clone(), found.address.clone()]).collect();
    lines.extend(indented("addresses", table::lines(["KIND", "ADDRESS"], &candidates)));
    let servers: Vec<_> = network.stun.iter().map(|server| server_row(server, now_ms)).collect();
    lines.extend(indented("stun servers", table::lines(["SERVER", "SEES", "RTT", "ANSWERED"], &servers)));
    lines
}

/// The word and what it rests on.
fn udp(network: &NetworkShape, now_ms: u64) -> String {
    let answers = || network.stun.iter().filter(|server| server.mapped.is_some());
    let newest = answers().filter_map(|server| server.answered_at_ms).max();
    let evidence = match network.udp.as_str() {
        "works" => newest.map(|at| {
            let (answered, asked) = (answers().count(), network.stun.len());
            format!("{answered} of {asked} STUN servers answered, last {} ago", age(at, now_ms))
        }),
        "blocked" => Some(format!("none of {} STUN servers answered", network.stun.len())),
        "off" => Some("direct links are switched off here".to_owned()),
        "unknown" if network.stun.is_empty() => Some("no STUN server is known".to_owned()),
        _ => None,
    };
    evidence.map_or_else(|| network.udp.clone(), |evidence| format!("{}: {evidence}", network.udp))
}

fn age(at_ms: u64, now_ms: u64) -> String {
    span(now_ms.saturating_sub(at_ms))
}

fn server_row(server: &StunShape, now_ms: u64) -> [String; 4] {
    [
        server.address.clone(),
        server.mapped.clone().unwrap_or_else(|| "no answer".to_owned()),
        server.rtt_ms.map_or_else(dash, round_trip),
        server.answered_at_ms.map_or_else(dash, |at| format!("{} ago", age(at, now_ms))),
    ]
}

fn life(network: &NetworkShape) -> String {
    let life = network.mapping_life;
    match (life.at_least_ms, life.under_ms) {
        (None, None) => "not known yet".to_owned(),
        (Some(least), None) => format!("at least {}", span(least)),
        (None, Some(under)) => format!("less than {}", span(under)),
        (Some(least), Some(under)) => format!("at least {}, less than {}", span(least), span(under)),
    }
}

fn skew(skew_ms: i64) -> String {
    format!("{skew_ms} ms off the coordinator's, at the last welcome")
}

pub(super) async fn why(caller: &Caller, args: WayArgs) -> Ended {
    let way = look(caller, &args).await?;
    caller.out.both(&way, || why_lines(&way, Clock::start().now().wall.0))?;
    caller.out.next(format!("peerloom trace {}", way.peer.handle));
    Ok(DONE)
}

fn why_lines(way: &WayShape, now_ms: u64) -> Vec<String> {
    let peer = &way.peer;
    let mut lines = vec![one_line(&way.why)];
    lines.extend(peer.since_ms.map(|since| field("for", &age(since, now_ms))));
    if peer.path != "none" {
        let rtt = peer.rtt_ms.map(|rtt_ms| measured(rtt_ms, peer.rtt_at_ms, now_ms));
        lines.push(field("round trip", &rtt.unwrap_or_else(|| "not measured yet".to_owned())));
    }
    lines.push(field("here", &way.here.text));
    let Some(at) = way.checked_at_ms else {
        lines.push(field("last tried", "never"));
        return lines;
    };
    lines.extend(way.there.as_ref().map(|there| field("there", &there.text)));
    lines.push(field("last tried", &format!("{} ago", age(at, now_ms))));
    lines
}

pub(super) async fn trace(caller: &Caller, args: WayArgs) -> Ended {
    let way = look(caller, &args).await?;
    caller.out.both(&way, || trace_lines(&way, Clock::start().now().wall.0))?;
    caller.out.next(format!("peerloom ping {} --until direct", way.peer.handle));
    Ok(DONE)
}

fn trace_lines(way: &WayShape, now_ms: u64) -> Vec<String> {
    let mut lines = why_lines(way, now_ms);
    let rows: Vec<_> = way
        .candidates
        .iter()
        .map(|row| {
            let rtt = row.rtt_ms.map_or_else(dash, round_trip);
            [row.kind.clone(), row.address.clone(), row.state.clone(), rtt]
        })
        .collect();
    lines.extend(indented("addresses tried", table::lines(["KIND", "ADDRESS", "STATE", "RTT"], &rows)));
    let moments: Vec<_> = way.timeline.iter().map(|moment| moment_row(moment, now_ms)).collect();
    lines.extend(indented("timeline", table::lines(["TIME", "EVENT", ""], &moments)));
    lines
}

fn moment_row(moment: &MomentShape, now_ms: u64) -> [String; 3] {
    let text = moment.text.as_deref().map(one_line).unwrap_or_default();
    [precise(moment.at_ms, now_ms), moment.event.clone(), text]
}

async fn look(caller: &Caller, args: &WayArgs) -> Result<WayShape, crate::failure::Failure> {
    caller.client()?.get(&format!("/v1/peers/{}/way", segment(args.peer.trim())), &[]).await
}

fn field(name: &str, text: &str) -> String {
    format!("  {name:<13}  {}", one_line(text))
}

/// A titled table; what would be empty is one line.
fn indented(title: &str, table: Vec<String>) -> Vec<String> {
    if table.len() < 2 {
        return vec![field(title, "none")];
    }
    let rows = table.into_iter().map(|line| format!("    {line}"));
    std::iter::once(format!("  {title}")).chain(rows).collect()
}

fn dash() -> String {
    "-".to_owned()
}
