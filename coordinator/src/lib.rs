//! The light, blind coordinator. It sees headers, sizes and times; it holds no key that opens a box.
//! Modules in reading order.

// From the command line to a listening process.
pub mod config;
pub mod datadir;
mod http;
pub mod server;
// What it keeps.
pub mod store;
// The machine, without sockets, clock and disk: what enters and leaves it, then its rooms.
mod admission;
pub mod arrived;
pub mod batch;
mod draw;
mod expiry;
mod gossip;
pub mod hub;
mod invites;
mod mailbox;
mod mesh;
mod meshlog;
mod prekeys;
pub mod rate;
mod recent;
mod regained;
pub mod runs;
// The machine's threads, and the sockets.
pub mod engine;
mod outbox;
mod session;
// What it counts.
pub mod counters;
pub mod metrics;
// Small rooms.
mod page;
pub mod proxy;
pub mod stun;
pub mod tls;
