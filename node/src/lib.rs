//! The node: a daemon that keeps a home's meshes running, its local API, and the command line.
//!
//! A message's way out: `cli` → `commands` → `api` → `mesh` → `engine` → `proto::endpoint` → `store`,
//! then `uplink` or `links`. The way in is the reverse.

pub mod api;
mod cli;
pub mod clock;
pub mod commands;
pub mod config;
mod coordinator_http;
pub mod daemon;
mod demo;
mod engine;
pub mod failure;
pub mod home;
mod init;
mod invite;
mod join;
pub mod keystore;
mod links;
mod local_coordinator;
mod membership;
pub mod mesh;
mod outlet;
mod process;
mod render;
pub mod store;
pub mod telemetry;
mod uplink;
pub mod views;
