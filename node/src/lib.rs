//! The node: a daemon that keeps a home's meshes running, its local API, and the command line.
//!
//! A message's way out: `cli` → `commands` → `api` → `mesh` → `engine` → `proto::endpoint` → `store`,
//! then `uplink` or `links`. The way in is the reverse.

pub mod clock;
pub mod config;
pub mod daemon;
mod engine;
pub mod failure;
pub mod home;
pub mod keystore;
mod links;
pub mod mesh;
mod outlet;
pub mod store;
pub mod telemetry;
mod uplink;
pub mod views;
