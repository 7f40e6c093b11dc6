//! `lab check`: whether this machine can do it, and whether the lab is what it says.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::enter;
use super::internet::{Cables, access_for};
use super::interruption::{Interruption, REBOUND_PORT};
use super::probe::{Class, Observers};
use super::router::Nat;
use super::site::{Place, Site};

/// Programs that must be there, and the Debian package each is in.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("unshare", "--version", "util-linux"),
    ("mount", "--version", "mount"),
    ("ip", "-V", "iproute2"),
    ("nft", "--version", "nftables"),
    ("ethtool", "--version", "ethtool"),
];

/// Programs without which some of the lab is missing.
const USEFUL: [(&str, &str, &str); 1] = [("conntrack", "--version", "conntrack")];

/// The round trip that is programmed and then measured.
const PROGRAMMED: Duration = Duration::from_millis(50);

/// Round trips measured.
const TRIPS: usize = 20;

/// Every kind that has IPv4.
const KINDS: [Nat; 8] = [
    Nat::None,
    Nat::FullCone,
    Nat::AddressRestricted,
    Nat::PortRestricted,
    Nat::Symmetric,
    Nat::UdpBlocked,
    Nat::Cgnat,
    Nat::DualStack,
];

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    what: String,
    ok: bool,
    /// What was found, or how to mend it.
    says: String,
}

impl Finding {
    /// Whether the lab can do with it.
    pub(super) fn is_ok(&self) -> bool {
        self.ok
    }
}

/// What can be said before any namespace is entered. Nothing more can be said if one is not ok.
pub(super) fn outside() -> Vec<Finding> {
    let mut findings: Vec<Finding> = PROGRAMS.iter().map(|program| look_for(*program, false)).collect();
    findings.extend(USEFUL.iter().map(|program| look_for(*program, true)));
    findings.push(match enter::flags() {
        Ok(flags) => {
            Finding { what: "namespaces".to_owned(), ok: true, says: format!("unshare {}", flags.join(" ")) }
        }
        Err(error) => Finding { what: "namespaces".to_owned(), ok: false, says: format!("{error:#}") },
    });
    findings
}

fn look_for((program, version, package): (&str, &str, &str), is_optional: bool) -> Finding {
    let found = enter::has(program, version);
    let says = match (found, is_optional) {
        (true, _) => "installed".to_owned(),
        (false, false) => format!("missing: apt-get install {package}"),
        (false, true) => format!("missing, rebindings cannot be played: apt-get install {package}"),
    };
    Finding { what: program.to_owned(), ok: found || is_optional, says }
}

/// What can be said inside: the wire's precision and each NAT's class, by probes.
pub(super) fn inside() -> anyhow::Result<Vec<Finding>> {
    let nats: Vec<Nat> = [Nat::None, Nat::None].into_iter().chain(KINDS).collect();
    let cables = Cables::lay(&nats, access_for(PROGRAMMED), 1)?;
    let (observing, observed) = cables.sites.split_at(2);
    let observers = Observers::open(&observing[0], &observing[1])?;
    let within = PROGRAMMED * 3;
    let trips = observers.round_trips(TRIPS, within)?;
    let median = trips[TRIPS / 2];
    let mut findings = vec![Finding {
        what: "wire".to_owned(),
        ok: median >= PROGRAMMED,
        says: format!(
            "{} ms programmed, {:.2} ms measured (least {:.2}, most {:.2})",
            PROGRAMMED.as_millis(),
            median.as_secs_f64() * 1e3,
            trips[0].as_secs_f64() * 1e3,
            trips[TRIPS - 1].as_secs_f64() * 1e3,
        ),
    }];
    for (mark, site) in (1..).zip(observed) {
        let class = observers.classify(site, mark, within)?;
        findings.push(Finding {
            what: site.nat.word().to_owned(),
            ok: Some(class) == Class::of(site.nat),
            says: class.to_string(),
        });
    }
    if enter::has("conntrack", "--version") {
        findings.push(rebindings(&observers, observed, within)?);
    }
    Ok(findings)
}

/// Whether every NAT can be made to forget a mapping and give another one, and stays what it is.
fn rebindings(observers: &Observers, sites: &[Site], within: Duration) -> anyhow::Result<Finding> {
    let mut wrong = Vec::new();
    for (mark, site) in (1_u8..).zip(sites) {
        if !Interruption::Rebind.can_hit(site) || site.nat == Nat::UdpBlocked {
            continue;
        }
        let moved = observers.moves(site, mark, within, || site.rebind(Place::Home, REBOUND_PORT))?;
        let class = observers.classify(site, mark, within)?;
        if moved != Some(true) || Some(class) != Class::of(site.nat) {
            wrong.push(format!("{}: moved {moved:?}, then {class}", site.nat));
        }
    }
    let says = if wrong.is_empty() { "every mapping moves".to_owned() } else { wrong.join("; ") };
    Ok(Finding { what: "rebinding".to_owned(), ok: wrong.is_empty(), says })
}

/// Prints them. True if all are ok.
pub(super) fn print(findings: &[Finding], json: bool) -> anyhow::Result<bool> {
    let ok = findings.iter().all(|finding| finding.ok);
    let mut out = std::io::stdout().lock();
    if json {
        let document = serde_json::json!({"schema_version": 1, "ok": ok, "findings": findings});
        writeln!(out, "{document}")?;
        return Ok(ok);
    }
    for Finding { what, ok, says } in findings {
        writeln!(out, "{:<5}{what:<20}{says}", if *ok { "ok" } else { "NO" })?;
    }
    Ok(ok)
}
