//! From the mesh's views to shapes: keys get their handles, states and paths their words.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peerloom_proto::endpoint::{OutboxState, PathKind, UplinkStatus};
use peerloom_proto::{PeerId, Priority, UnixMs};

use super::shapes::{
    CoordinatorShape, HeadShape, InboxShape, MeShape, MemberShape, MeshShape, MeshStatus, Name,
    OutboxCountsShape, OutboxShape, PeerShape, RecipientShape,
};
use crate::failure::SCHEMA_VERSION;
use crate::mesh::Mesh;
use crate::views::{InboxMessage, MemberView, MeshView, OutboxItem, PeerStatus, RecipientStatus};

/// Handles by key, as the log has them, and what carries the direct links of the moment.
#[derive(Debug)]
pub(super) struct Names {
    handles: BTreeMap<PeerId, String>,
    links: BTreeMap<PeerId, &'static str>,
}

impl Names {
    pub(super) fn of(view: &MeshView) -> Self {
        let direct = view.peers.iter().filter(|peer| peer.path == Some(PathKind::Direct));
        Self {
            handles: view.members.iter().map(|member| (member.key, member.handle.to_string())).collect(),
            links: direct.filter_map(|peer| Some((peer.peer, peer.transport?))).collect(),
        }
    }

    /// A key the log does not know is shown by its beginning.
    pub(super) fn handle(&self, peer: &PeerId) -> String {
        self.handles.get(peer).cloned().unwrap_or_else(|| peer.short())
    }

    /// What carries that path to a peer. Rows remember the path and not the link: of a direct one that
    /// has gone nobody knows any more.
    pub(super) fn transport(&self, path: PathKind, peer: &PeerId) -> Option<&'static str> {
        match path {
            PathKind::Direct => self.links.get(peer).copied(),
            PathKind::Relay | PathKind::Queue => Some("websocket"),
        }
    }

    /// Its link is another one, or none.
    pub(super) fn forget_link(&mut self, peer: &PeerId) {
        self.links.remove(peer);
    }

    pub(super) fn name(&self, peer: &PeerId) -> Name {
        Name { handle: self.handle(peer), key: peer.to_string() }
    }

    pub(super) fn inbox(&self, message: InboxMessage) -> InboxShape {
        let is_text = std::str::from_utf8(&message.content).is_ok();
        InboxShape {
            schema_version: SCHEMA_VERSION,
            id: message.id.to_string(),
            from: self.name(&message.from),
            channel: "dm".to_owned(),
            content_b64: (!is_text).then(|| URL_SAFE_NO_PAD.encode(&message.content)),
            text: is_text.then(|| String::from_utf8_lossy(&message.content).into_owned()),
            sent_at_ms: message.sent_at.0,
            received_at_ms: message.received_at.0,
            path: path_word(message.path).to_owned(),
            transport: self.transport(message.path, &message.from).map(str::to_owned),
            priority: priority_word(message.priority).to_owned(),
            reply_to: message.reply_to.map(|id| id.to_string()),
            position: message.position,
            content_type: message.content_type,
            surfaced_at_ms: message.surfaced_at.map(|at| at.0),
        }
    }

    pub(super) fn outbox(&self, item: OutboxItem) -> OutboxShape {
        OutboxShape {
            schema_version: SCHEMA_VERSION,
            id: item.id.to_string(),
            to: self.name(&item.to),
            code: item.state.code().map(str::to_owned),
            state: item.state.name().to_owned(),
            path: item.path.map(|path| path_word(path).to_owned()),
            priority: priority_word(item.priority).to_owned(),
            created_at_ms: item.created_at.0,
            at_ms: item.at.0,
            expires_at_ms: item.exp.0,
            replaced_by: item.replaced_by.map(|id| id.to_string()),
        }
    }

    pub(super) fn status(&self, status: RecipientStatus) -> RecipientShape {
        let RecipientStatus { to, state, path, at, replaced_by, .. } = status;
        RecipientShape {
            replaced_by: replaced_by.map(|id| id.to_string()),
            ..self.recipient(&to, &state, path, at)
        }
    }

    pub(super) fn recipient(
        &self,
        to: &PeerId,
        state: &OutboxState,
        path: Option<PathKind>,
        at: UnixMs,
    ) -> RecipientShape {
        RecipientShape {
            handle: self.handle(to),
            key: to.to_string(),
            state: state.name().to_owned(),
            code: state.code().map(str::to_owned),
            path: path.map(|path| path_word(path).to_owned()),
            transport: path.and_then(|path| self.transport(path, to)).map(str::to_owned),
            remote: None,
            at_ms: at.0,
            replaced_by: None,
        }
    }
}

/// A mesh for `status`.
pub(super) fn mesh_status(mesh: &Mesh) -> MeshStatus {
    let view = mesh.view();
    let me = view.members.iter().find(|member| member.is_me);
    let (state, why) = uplink_words(&view.uplink);
    MeshStatus {
        mesh: MeshShape {
            id: mesh.id().to_string(),
            name: mesh.name().to_owned(),
            head: Some(HeadShape { size: view.head.size, hash: view.head.hash.to_string() }),
        },
        me: MeShape {
            handle: mesh.handle().to_string(),
            member: mesh.member().to_string(),
            role: me.map(role_word),
        },
        coordinator: CoordinatorShape {
            origin: mesh.origin().to_string(),
            state: state.to_owned(),
            why,
            since_ms: view.uplink_since.map(|since| since.0),
            skew_ms: view.skew_ms,
        },
        peers_online: u64::try_from(view.peers.iter().filter(|peer| peer.online).count()).unwrap_or(u64::MAX),
        outbox: OutboxCountsShape { pending: view.outbox.pending, dead: view.outbox.dead },
        alarms: view.alarms.clone(),
    }
}

fn role_word(member: &MemberView) -> String {
    if member.revoked { "revoked".to_owned() } else { member.role.to_string() }
}

/// A peer for `peers`.
pub(super) fn peer(peer: &PeerStatus) -> PeerShape {
    let path = match peer.path {
        Some(PathKind::Direct) => "direct",
        Some(PathKind::Relay) => "relay",
        Some(PathKind::Queue) | None => "none",
    };
    PeerShape {
        handle: peer.handle.to_string(),
        key: peer.peer.to_string(),
        kind: "member".to_owned(),
        online: peer.online,
        presence: presence_word(peer).to_owned(),
        status: "idle".to_owned(),
        path: path.to_owned(),
        transport: peer.transport.map(str::to_owned),
        rtt_ms: peer.rtt_us.map(milliseconds),
        rtt_at_ms: peer.rtt_at.map(|at| at.0),
        groups: Vec::new(),
        summary: String::new(),
        remote: peer.remote.clone(),
        since_ms: peer.since.map(|since| since.0),
        why_not_direct: why_not_direct(peer),
    }
}

fn presence_word(peer: &PeerStatus) -> &'static str {
    match peer.path {
        Some(_) if peer.online => "online",
        Some(_) => "away",
        None => "unknown",
    }
}

/// Why messages do not go directly; none if they do.
pub(super) fn why_not_direct(peer: &PeerStatus) -> Option<String> {
    let tried = || peer.why_not_direct.clone();
    match peer.path {
        Some(PathKind::Direct) => None,
        Some(PathKind::Relay) => tried().or_else(|| Some("not tried yet: nothing was sent".to_owned())),
        Some(PathKind::Queue) => Some("it is away".to_owned()),
        None => Some("the coordinator is not connected, and no direct link was left".to_owned()),
    }
}

/// A member for `member list`.
pub(super) fn member(member: &MemberView) -> MemberShape {
    MemberShape {
        handle: member.handle.to_string(),
        key: member.key.to_string(),
        role: member.role.to_string(),
        revoked: member.revoked,
        index: member.index,
        admitted_at_ms: member.admitted_at.0,
        invite: member.invite.as_ref().map(|invite| peerloom_proto::crockford(&invite.0, 8)),
        me: member.is_me,
    }
}

/// The uplink's word, and why it is offline.
pub(super) fn uplink_words(uplink: &UplinkStatus) -> (&'static str, Option<String>) {
    match uplink {
        UplinkStatus::Connected => ("connected", None),
        UplinkStatus::Connecting => ("connecting", None),
        UplinkStatus::Offline(why) => ("offline", Some(why.clone())),
    }
}

/// The word people and programs see.
pub(super) fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::Queue => "queue",
    }
}

/// The word people and programs see.
pub(super) fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Next => "next",
        Priority::Now => "now",
    }
}

/// Microseconds as milliseconds with fractions.
pub(super) fn milliseconds(microseconds: u64) -> f64 {
    // Exact below 2^53 µs, which is 285 years.
    microseconds as f64 / 1_000.0
}
