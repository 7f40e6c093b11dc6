//! What survives a crash: transactions that were committed, whole, and nothing else. One disk for a
//! node's store and one for the coordinator's, with the promises of the real ones: what is unique there
//! is unique here.

mod hub;
mod node;

pub(crate) use hub::HubDisk;
pub(crate) use node::{NodeDisk, Unique};
