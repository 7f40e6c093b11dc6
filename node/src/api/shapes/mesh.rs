//! Shapes of the mesh: status, peers, members, invites and joining.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mail::Name;

/// The daemon and its meshes. The fields of the first mesh (by name) or of the selected one stand at
/// the top; they are null in a home without a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusShape {
    /// 1.
    pub schema_version: u32,
    /// Whether a daemon answered.
    pub running: bool,
    /// The daemon's process.
    pub pid: Option<u32>,
    /// The daemon's version.
    #[serde(default)]
    pub version: Option<String>,
    /// Milliseconds since the daemon started.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
    /// Which mesh.
    pub mesh: Option<MeshShape>,
    /// This node in it.
    pub me: Option<MeShape>,
    /// The way to its coordinator.
    pub coordinator: Option<CoordinatorShape>,
    /// Peers that are there.
    pub peers_online: u64,
    /// Unsettled and failed messages.
    pub outbox: OutboxCountsShape,
    /// What someone must look at.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Every mesh of this home, when no single one was selected.
    #[serde(default)]
    pub meshes: Vec<MeshStatus>,
}

/// One mesh of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeshStatus {
    /// Which mesh.
    pub mesh: MeshShape,
    /// This node in it.
    pub me: MeShape,
    /// The way to its coordinator.
    pub coordinator: CoordinatorShape,
    /// Peers that are there.
    pub peers_online: u64,
    /// Unsettled and failed messages.
    pub outbox: OutboxCountsShape,
    /// What someone must look at.
    #[serde(default)]
    pub alarms: Vec<String>,
}

/// A mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeshShape {
    /// Hash of its genesis.
    pub id: String,
    /// Its name in the genesis.
    pub name: String,
    /// How far its log goes; none while no daemon runs.
    #[serde(default)]
    pub head: Option<HeadShape>,
}

/// The head of a mesh log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeadShape {
    /// Entries.
    pub size: u64,
    /// Hash of the last one.
    pub hash: String,
}

/// This node in a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeShape {
    /// Its handle.
    pub handle: String,
    /// Its ed25519 key.
    pub member: String,
    /// `member`, `admin` or `owner`.
    #[serde(default)]
    pub role: Option<String>,
}

/// The way to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorShape {
    /// Where it is.
    pub origin: String,
    /// `connected`, `connecting` or `offline`.
    pub state: String,
    /// Why it is offline.
    #[serde(default)]
    pub why: Option<String>,
    /// Since when it is in this state.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Its clock minus this one's, at the last welcome.
    #[serde(default)]
    pub skew_ms: Option<i64>,
}

/// Unsettled and failed messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxCountsShape {
    /// Not yet on the recipient's disk, and still tried.
    pub pending: u64,
    /// Given up: dead, expired or rejected, and not requeued since.
    pub dead: u64,
}

/// The other members, as far as they can be seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerListShape {
    /// 1.
    pub schema_version: u32,
    /// By handle.
    pub peers: Vec<PeerShape>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerShape {
    /// Its handle.
    pub handle: String,
    /// Its ed25519 key.
    pub key: String,
    /// `member`.
    pub kind: String,
    /// Whether it is there.
    pub online: bool,
    /// `online` when the coordinator or a direct link says that it is there, `away` when the
    /// coordinator says that it is not, `unknown` when nobody can say.
    #[serde(default)]
    pub presence: String,
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// `direct`, `relay` or `none`.
    pub path: String,
    /// `quic`, `webrtc`, `websocket` or none.
    pub transport: Option<String>,
    /// Round trip on this path: of a direct link the one of the last second, of the relay that of the
    /// last ping.
    pub rtt_ms: Option<f64>,
    /// When that ping was.
    #[serde(default)]
    pub rtt_at_ms: Option<u64>,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// What it says of itself.
    pub summary: String,
    /// The other end of a direct link.
    #[serde(default)]
    pub remote: Option<String>,
    /// Since when the path is this one; none if it never changed since the node started.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Why the path is not direct; none if it is.
    #[serde(default)]
    pub why_not_direct: Option<String>,
}

/// Whom to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Handle or key prefix.
    pub peer: String,
    /// Longest time to wait for a direct path; 3000 unless given, at most 60000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Round trips to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PingShape {
    /// 1.
    pub schema_version: u32,
    /// Handle.
    pub peer: String,
    /// In the order they were taken.
    pub samples: Vec<SampleShape>,
    /// Whether a direct path was measured.
    pub direct: bool,
    /// Why none was.
    pub why_not_direct: Option<String>,
    /// From the first sample to the direct one; none if the peer was reached directly from the start.
    #[serde(default)]
    pub upgraded_after_ms: Option<u64>,
    /// The other end of the direct link.
    #[serde(default)]
    pub remote: Option<String>,
}

/// One round trip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleShape {
    /// `direct` or `relay`.
    pub path: String,
    /// `quic`, `webrtc` or `websocket`; none for a direct link that has gone since.
    pub transport: Option<String>,
    /// None if nothing came back.
    pub rtt_ms: Option<f64>,
}

/// Everyone the log ever admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberListShape {
    /// 1.
    pub schema_version: u32,
    /// In the order of admission.
    pub members: Vec<MemberShape>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberShape {
    /// Handle.
    pub handle: String,
    /// ed25519 key.
    pub key: String,
    /// `member`, `admin` or `owner`.
    pub role: String,
    /// Whether it was removed.
    pub revoked: bool,
    /// Index of the admitting log entry.
    pub index: u64,
    /// Time of the admitting log entry.
    pub admitted_at_ms: u64,
    /// The invite it came by.
    pub invite: Option<String>,
    /// Whether it is this node.
    pub me: bool,
}

/// Whom to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Handle or key prefix.
    pub peer: String,
    /// Why, for people who read the log later.
    #[serde(default)]
    pub reason: RevokeReason,
}

/// Why a member is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RevokeReason {
    /// Not said.
    #[default]
    Unsaid,
    /// It left, or its machine was given away.
    Left,
    /// Its key is lost.
    Lost,
    /// Someone else may have its key.
    Compromised,
}

impl RevokeReason {
    /// The number in the log.
    pub const fn number(self) -> u64 {
        match self {
            Self::Unsaid => 0,
            Self::Left => 1,
            Self::Lost => 2,
            Self::Compromised => 3,
        }
    }
}

/// It was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoneShape {
    /// 1.
    pub schema_version: u32,
    /// True.
    pub done: bool,
    /// What was done, for people.
    #[serde(default)]
    pub text: String,
}

/// An invite to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Seconds it is valid; 86400 unless given, at most 2592000 (30 d).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_s: Option<u64>,
    /// Admissions it serves; 1 unless given, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// The only handle it may be used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
}

/// An invite as it is given to a joiner. The code is told once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteShape {
    /// 1.
    pub schema_version: u32,
    /// Where to join; no secret.
    pub url: String,
    /// The secret.
    pub code: String,
    /// When it ends.
    pub expires_at_ms: u64,
    /// Admissions it serves.
    pub uses: u64,
    /// For `invite cancel`.
    #[serde(default)]
    pub id: String,
}

/// Invites that this node made and that have not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteListShape {
    /// 1.
    pub schema_version: u32,
    /// In the order they were made.
    pub invites: Vec<InviteRow>,
}

/// An invite without its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteRow {
    /// For `invite cancel`.
    pub id: String,
    /// Where to join.
    pub url: String,
    /// When it was made.
    pub created_at_ms: u64,
    /// When it ends.
    pub expires_at_ms: u64,
    /// Admissions it serves.
    pub uses: u64,
    /// Members who came by it.
    pub used: u64,
}

/// A mesh to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// Its name, 1 to 64 bytes.
    pub name: String,
    /// The coordinator's origin.
    pub coordinator: String,
    /// This node's handle.
    pub handle: String,
    /// The coordinator's token for new meshes, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A mesh just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InitShape {
    /// 1.
    pub schema_version: u32,
    /// The mesh.
    pub mesh: MeshShape,
    /// This node in it.
    pub me: MeShape,
    /// Its coordinator.
    pub origin: String,
    /// Public key of the owner; the secret is in the mesh's directory.
    pub owner: String,
    /// Where the owner key is.
    pub owner_key_file: String,
    /// The recovery secret, told once and kept nowhere.
    pub recovery_key: String,
}

/// A mesh to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The invite's address, without its code.
    pub url: String,
    /// The invite's code.
    pub code: String,
    /// This node's handle; the invite's, if it names one, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
}

/// A mesh just joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinShape {
    /// 1.
    pub schema_version: u32,
    /// The mesh.
    pub mesh: MeshShape,
    /// This node in it.
    pub me: MeShape,
    /// Its coordinator.
    pub origin: String,
    /// `joined` once another member's signed head covers this node's entry, else `admitted`.
    pub state: String,
    /// Who invited.
    pub inviter: Name,
}
