//! Publishing: events as they happen, and the view that the local API reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use peerloom_proto::endpoint::{Endpoint, Event, Input, OutboxState, PathKind, PeerView, Reply, Write};
use peerloom_proto::{BindTransport, Handle, PeerId, Roster, UnixMs, WireEntry};
use tokio::sync::{broadcast, watch};
use tracing::error;

use super::timeline::Timelines;
use crate::views::{MemberView, MeshView, Moment, OutboxCounts, PeerStatus};

/// The engine's end of what it publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    events: broadcast::Sender<Arc<Event>>,
    view: watch::Sender<Arc<MeshView>>,
    /// When each log entry says it was written.
    times: Vec<UnixMs>,
    /// Outbox rows that failed and were not requeued.
    failed: u64,
    alarms: Vec<String>,
    members_changed: bool,
    peers_changed: bool,
    /// [`Endpoint::reasons_changed`] as it was published last.
    reasons: u64,
    /// A failed row may turn out to have arrived after all.
    recount: bool,
    timelines: Timelines,
}

type Published = (Publisher, broadcast::Sender<Arc<Event>>, watch::Receiver<Arc<MeshView>>);

impl Publisher {
    pub(super) fn new(endpoint: &Endpoint, times: Vec<UnixMs>, failed: u64) -> Published {
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let first = MeshView {
            head: endpoint.roster().head(),
            roster: endpoint.roster().clone(),
            members: members(endpoint, &times),
            uplink: endpoint.uplink_status().clone(),
            uplink_since: None,
            skew_ms: endpoint.clock_skew_ms(),
            peers: peers(endpoint).into(),
            outbox: counts(endpoint, failed),
            alarms: Vec::new(),
        };
        let (view, watching) = watch::channel(Arc::new(first));
        let publisher = Self {
            events: events.clone(),
            view,
            times,
            failed,
            alarms: Vec::new(),
            members_changed: false,
            peers_changed: false,
            reasons: endpoint.reasons_changed(),
            recount: false,
            timelines: Timelines::default(),
        };
        (publisher, events, watching)
    }

    /// The machine was rebuilt from the store.
    pub(super) fn restart(&mut self, times: Vec<UnixMs>, failed: u64) {
        self.times = times;
        self.failed = failed;
        self.members_changed = true;
        self.peers_changed = true;
    }

    pub(super) fn note_input(&mut self, input: &Input) {
        if matches!(input, Input::LinkRtt(..) | Input::DialFailed(..) | Input::LinkClosed(_)) {
            self.peers_changed = true;
        }
    }

    /// A ping measures the relay, of which no event tells.
    pub(super) fn note_reply(&mut self, reply: &Reply) {
        if matches!(reply, Reply::Pong(_)) {
            self.peers_changed = true;
        }
    }

    pub(super) fn note_write(&mut self, write: &Write) {
        match write {
            Write::Entry { entry, .. } => {
                // The machine has replayed it, so it parses; its time is only shown.
                let ts = WireEntry::parse(entry).and_then(|wire| wire.entry()).map(|entry| entry.ts);
                self.times.push(ts.unwrap_or_default());
                self.members_changed = true;
            }
            Write::Revocation(_) | Write::Hold(_) | Write::Unhold(_) => self.members_changed = true,
            Write::OutboxState { state, .. } => self.failed += u64::from(is_failed(state)),
            Write::Retire { .. } => self.failed = self.failed.saturating_sub(1),
            Write::LateReceipt { .. } => self.recount = self.failed > 0,
            Write::Outbox(_)
            | Write::Reseal { .. }
            | Write::Inbox(_)
            | Write::Release { .. }
            | Write::Surfaced { .. }
            | Write::Conversation { .. }
            | Write::Prekey(_)
            | Write::PrekeyGone(_)
            | Write::PeerPrekey { .. }
            | Write::Floor(_)
            | Write::CoordinatorMark(_) => {}
        }
    }

    /// Whether only the store can say how many rows failed.
    pub(super) fn wants_recount(&self) -> bool {
        self.recount
    }

    pub(super) fn recounted(&mut self, failed: u64) {
        self.recount = false;
        self.failed = failed;
    }

    pub(super) fn event(&mut self, event: Event) {
        match &event {
            Event::Presence { .. } | Event::Path { .. } | Event::Uplink(_) => self.peers_changed = true,
            Event::Log { .. } | Event::Admitted { .. } => self.members_changed = true,
            Event::Alarm(text) => {
                error!(%text, "Someone must look at this mesh.");
                if self.alarms.len() == ALARMS_KEPT {
                    self.alarms.remove(0);
                }
                self.alarms.push(text.clone());
            }
            Event::Outbox { .. } | Event::Inbox { .. } | Event::Rejected { .. } => {}
        }
        // An error only says that nobody listens.
        if self.events.receiver_count() > 0 && self.events.send(Arc::new(event)).is_err() {
            tracing::trace!("The last listener left.");
        }
    }

    /// What happened to the way to a peer, oldest first.
    pub(super) fn moments(&self, peer: &PeerId) -> Vec<Moment> {
        self.timelines.of(peer)
    }

    /// Replaces the view if anything in it changed.
    pub(super) fn publish(&mut self, endpoint: &Endpoint, now: UnixMs) {
        let outbox = counts(endpoint, self.failed);
        let old = self.view.borrow().clone();
        if self.reasons != endpoint.reasons_changed() {
            self.reasons = endpoint.reasons_changed();
            self.peers_changed = true;
        }
        let head = endpoint.roster().head();
        let same_uplink = old.uplink == *endpoint.uplink_status() && old.skew_ms == endpoint.clock_skew_ms();
        let same_state =
            std::mem::discriminant(&old.uplink) == std::mem::discriminant(endpoint.uplink_status());
        let changed = self.members_changed || self.peers_changed || !same_uplink;
        if !changed && old.outbox == outbox && old.alarms.len() == self.alarms.len() && old.head == head {
            return;
        }
        let members_changed = std::mem::take(&mut self.members_changed) || old.head != head;
        let peers_changed = std::mem::take(&mut self.peers_changed) || members_changed || !same_uplink;
        let view = MeshView {
            head,
            roster: endpoint.roster().clone(),
            members: if members_changed { members(endpoint, &self.times) } else { old.members.clone() },
            uplink: endpoint.uplink_status().clone(),
            uplink_since: if same_state { old.uplink_since } else { Some(now) },
            skew_ms: endpoint.clock_skew_ms(),
            peers: if peers_changed { dated(peers(endpoint), &old.peers, now) } else { old.peers.clone() },
            outbox,
            alarms: self.alarms.clone(),
        };
        if peers_changed {
            self.timelines.note(now, &old.peers, &view.peers);
        }
        self.view.send_replace(Arc::new(view));
    }
}

fn members(endpoint: &Endpoint, times: &[UnixMs]) -> Arc<[MemberView]> {
    let me = endpoint.member();
    let mut members: Vec<_> = endpoint
        .roster()
        .members()
        .map(|member| MemberView {
            key: member.id,
            handle: member.handle.clone(),
            role: member.role,
            revoked: endpoint.is_revoked(&member.id),
            index: member.admitted_at,
            admitted_at: usize::try_from(member.admitted_at)
                .ok()
                .and_then(|index| times.get(index).copied())
                .unwrap_or_default(),
            invite: member.invite.map(|used| used.invite),
            is_me: member.id == me,
        })
        .collect();
    members.sort_by_key(|member| member.index);
    members.into()
}

fn peers(endpoint: &Endpoint) -> Vec<PeerStatus> {
    let roster = endpoint.roster();
    endpoint.peer_views().into_iter().filter_map(|view| status(roster, view)).collect()
}

/// Only a direct link knows since when it is there; of other ways this is when they were first seen.
fn dated(mut peers: Vec<PeerStatus>, old: &[PeerStatus], now: UnixMs) -> Arc<[PeerStatus]> {
    let old: BTreeMap<PeerId, &PeerStatus> = old.iter().map(|peer| (peer.peer, peer)).collect();
    for peer in peers.iter_mut().filter(|peer| peer.since.is_none()) {
        let same = old.get(&peer.peer).filter(|old| (old.path, old.online) == (peer.path, peer.online));
        peer.since = same.map_or(Some(now), |old| old.since);
    }
    peers.into()
}

fn status(roster: &Roster, view: PeerView) -> Option<PeerStatus> {
    let handle: Handle = roster.member(&view.peer)?.handle.clone();
    let transport = view.path.and_then(|path| match (path, view.transport) {
        (PathKind::Direct, Some(BindTransport::Dtls)) => Some("webrtc"),
        (PathKind::Direct, Some(BindTransport::Quic) | None) => Some("quic"),
        (PathKind::Relay, _) => Some("websocket"),
        (PathKind::Queue, _) => None,
    });
    Some(PeerStatus {
        peer: view.peer,
        handle,
        online: view.online,
        path: view.path,
        transport,
        remote: view.remote,
        rtt_us: view.rtt_us,
        rtt_at: view.rtt_at,
        since: view.since,
        why_not_direct: view.why_not_direct,
    })
}

fn counts(endpoint: &Endpoint, failed: u64) -> OutboxCounts {
    let counts = endpoint.outbox_counts();
    OutboxCounts { pending: (counts.pending + counts.accepted) as u64, dead: failed }
}

fn is_failed(state: &OutboxState) -> bool {
    match state {
        OutboxState::Rejected(_) | OutboxState::Expired(_) | OutboxState::Dead(_) => true,
        OutboxState::Pending
        | OutboxState::InFlight
        | OutboxState::Accepted
        | OutboxState::Stored
        | OutboxState::Surfaced
        | OutboxState::Aborted => false,
    }
}

/// Events a slow subscriber may be behind before it is told that it missed some: about a second of
/// the fastest traffic.
const EVENTS_KEPT: usize = 16_384;

/// Alarms shown; older ones stand in the log file.
const ALARMS_KEPT: usize = 16;
