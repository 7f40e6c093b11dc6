//! `ping`: round trips over the relay and directly.

use std::time::Duration;

use super::{Caller, DONE, Ended};
use crate::api::shapes::{PingRequest, PingShape, SampleShape};
use crate::cli::{PingArgs, Until};
use crate::failure::Kind;
use crate::render::progress::Progress;
use crate::render::text::one_line;
use crate::render::time::round_trip;

pub(super) async fn ping(caller: &Caller, args: PingArgs) -> Ended {
    let patience = if args.until.is_some() { UNTIL_TIMEOUT } else { TIMEOUT };
    let timeout_ms = Some(u64::try_from(args.timeout.unwrap_or(patience).as_millis()).unwrap_or(u64::MAX));
    let request = PingRequest { peer: args.peer, timeout_ms };
    let waiting = Progress::spinner(caller.out, "measuring");
    let pong: PingShape = caller.client()?.post("/v1/ping", &request).await?;
    drop(waiting);
    caller.out.both(&pong, || vec![line(&pong)])?;
    if let Some(why) = &pong.why_not_direct {
        caller.out.note(format!("not direct: {}", one_line(why)));
    }
    if args.until == Some(Until::Direct) && !pong.direct {
        caller.out.next(format!("peerloom why {}", pong.peer));
        return Ok(Kind::TimedOut.exit_code());
    }
    caller.out.next(format!("peerloom send {} TEXT", pong.peer));
    Ok(DONE)
}

/// `relay 48.2 ms · direct quic 11.3 ms (upgraded after 180 ms)`.
fn line(pong: &PingShape) -> String {
    let best = |path: &str| {
        let answered = pong.samples.iter().filter(|sample| sample.path == path);
        answered.filter_map(|sample| Some((sample, sample.rtt_ms?))).min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let mut parts = Vec::new();
    if let Some((_, rtt_ms)) = best("relay") {
        parts.push(format!("relay {}", round_trip(rtt_ms)));
    }
    if let Some((SampleShape { transport, .. }, rtt_ms)) = best("direct") {
        let upgraded =
            pong.upgraded_after_ms.map(|ms| format!(" (upgraded after {ms} ms)")).unwrap_or_default();
        let transport = transport.as_deref().map(|word| format!("{word} ")).unwrap_or_default();
        parts.push(format!("direct {transport}{}{upgraded}", round_trip(rtt_ms)));
    }
    parts.join(" · ")
}

/// A direct path between nodes that can reach each other takes well under this.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Who waits for a direct path on purpose waits longer.
const UNTIL_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_people_is_the_documented_one() {
        let sample = |path: &str, transport: &str, rtt_ms| SampleShape {
            path: path.to_owned(),
            transport: Some(transport.to_owned()),
            rtt_ms,
        };
        let pong = PingShape {
            schema_version: 1,
            peer: "build".to_owned(),
            samples: vec![
                sample("relay", "websocket", Some(48.2)),
                sample("relay", "websocket", None),
                sample("direct", "quic", Some(11.3)),
            ],
            direct: true,
            why_not_direct: None,
            upgraded_after_ms: Some(180),
            remote: None,
        };
        assert_eq!(line(&pong), "relay 48.2 ms · direct quic 11.3 ms (upgraded after 180 ms)");
    }
}
