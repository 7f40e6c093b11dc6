//! The hub's promises, each against an imagined disk and imagined nodes.

mod joining;
mod log;
mod mail;
mod trouble;
mod world;
