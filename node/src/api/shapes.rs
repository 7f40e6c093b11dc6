//! The JSON of the local API and of the CLI's `--json`: one set of types, written by the server,
//! read by the client, described by the OpenAPI document. Fields may be added, never renamed.
//!
//! Keys, hashes and ids are lower-case hex; content that is not UTF-8 text is unpadded base64url;
//! times are Unix milliseconds; round trips are milliseconds with fractions.

mod doctor;
mod mail;
mod mesh;
mod network;

pub use doctor::{CheckLevel, DoctorCheck, DoctorShape};
pub use mail::{
    AbortRequest, BatchAnswer, Cursor, CursorMove, EventShape, InboxPage, InboxShape, MessageShape, Name,
    OutboxPage, OutboxShape, RecipientShape, RequeueRequest, RequeueShape, RequeuedShape, SendRequest,
    SendShape, Wait,
};
pub use mesh::{
    CoordinatorShape, DoneShape, HeadShape, InitRequest, InitShape, InviteListShape, InviteRequest,
    InviteRow, InviteShape, JoinRequest, JoinShape, MeShape, MemberListShape, MemberShape, MeshShape,
    MeshStatus, OutboxCountsShape, PeerListShape, PeerShape, PingRequest, PingShape, RevokeReason,
    RevokeRequest, SampleShape, StatusShape,
};
pub use network::{
    CandidateShape, CheckedShape, MappingLifeShape, MomentShape, NatShape, NetworkShape, StunShape, WayShape,
};

#[cfg(test)]
mod tests;
