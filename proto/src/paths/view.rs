//! What people are told of paths: tables for `netcheck`, `why` and `trace`.

use std::net::SocketAddr;
use std::time::Duration;

use super::candidate::{Candidate, CandidateKind};
use super::check::{Check, Pair};
use super::gather::{Gathering, MappingLife};
use super::nat::Nat;
use crate::time::{Monotonic, UnixMs};

/// This node's own place in the network.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The addresses it announces.
    pub candidates: Vec<Candidate>,
    /// Its NAT.
    pub nat: Nat,
    /// What each STUN server saw.
    pub servers: Vec<ServerView>,
    /// How long the NAT keeps a mapping that is not used.
    pub mapping_life: MappingLife,
}

/// What one STUN server saw.
#[derive(Clone, Copy, Debug)]
pub struct ServerView {
    /// Which.
    pub addr: SocketAddr,
    /// Where it saw this node; none if it did not answer.
    pub mapped: Option<SocketAddr>,
    /// Its round trip, microseconds.
    pub rtt_us: Option<u64>,
    /// When it answered last.
    pub answered_at: Option<Monotonic>,
}

/// The last attempt at a direct link with a peer.
#[derive(Clone, Debug)]
pub struct ChecksView {
    /// When the checks began, by this machine's wall clock.
    pub since: UnixMs,
    /// The peer's NAT, by its own word.
    pub peer_nat: Nat,
    /// Every address tried.
    pub candidates: Vec<CandidateView>,
}

/// One of a peer's addresses, as far as it was checked.
#[derive(Clone, Copy, Debug)]
pub struct CandidateView {
    /// How it is known.
    pub kind: CandidateKind,
    /// Where.
    pub addr: SocketAddr,
    /// How far the checks got.
    pub state: CandidateState,
    /// Its round trip, microseconds, if it is proven.
    pub rtt_us: Option<u64>,
}

/// How far the check of an address got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateState {
    /// Nothing was sent there yet.
    Waiting,
    /// Asked; no answer.
    Silent,
    /// The peer was heard from there, but has not answered.
    Heard,
    /// It answered.
    Proven,
}

impl CandidateState {
    /// The word people see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Silent => "silent",
            Self::Heard => "heard",
            Self::Proven => "proven",
        }
    }
}

impl NetworkView {
    pub(crate) fn of(gathering: &Gathering) -> Self {
        let servers = gathering.servers().iter().map(|server| ServerView {
            addr: server.addr,
            mapped: server.mapped,
            rtt_us: server.rtt.map(micros),
            answered_at: server.answered_at,
        });
        Self {
            candidates: gathering.candidates(),
            nat: gathering.nat(),
            servers: servers.collect(),
            mapping_life: gathering.life(),
        }
    }
}

impl ChecksView {
    pub(crate) fn of(since: UnixMs, peer_nat: Nat, check: &Check) -> Self {
        let row = |pair: &Pair| CandidateView {
            kind: pair.kind,
            addr: pair.remote,
            state: match (pair.rtt, pair.heard, pair.is_tried()) {
                (Some(_), _, _) => CandidateState::Proven,
                (None, true, _) => CandidateState::Heard,
                (None, false, true) => CandidateState::Silent,
                (None, false, false) => CandidateState::Waiting,
            },
            rtt_us: pair.rtt.map(micros),
        };
        Self { since, peer_nat, candidates: check.pairs().iter().map(row).collect() }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
