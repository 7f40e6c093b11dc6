//! What survives a crash. One disk for a node's store and one for the coordinator's, with the promises
//! of the real ones: what is unique there is unique here. Below both lies the journal, which decides
//! what a death leaves of the commit under way.

mod hub;
mod journal;
mod node;

pub(crate) use hub::HubDisk;
pub(crate) use journal::{Journal, Recovery};
pub(crate) use node::{NodeDisk, Unique};
