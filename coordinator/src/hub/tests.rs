//! The hub's promises, each against an imagined disk and imagined nodes.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the frames it is about")]

mod joining;
mod log;
mod mail;
mod regained;
mod trouble;
pub(crate) mod world;
