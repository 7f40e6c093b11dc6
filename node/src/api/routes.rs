//! What each route does, grouped by noun. A route reads its request, asks the mesh, and presents the
//! answer; it decides nothing about messages.

pub(super) mod doctor;
pub(super) mod events;
pub(super) mod inbox;
pub(super) mod invites;
pub(super) mod membership;
pub(super) mod network;
pub(super) mod outbox;
pub(super) mod peers;
pub(super) mod send;
pub(super) mod status;
mod uplink;
mod waiting;
