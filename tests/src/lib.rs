//! The words that facts over real processes are told in. Every word starts, asks, breaks or awaits
//! something real: the programs as they are built, on free loopback ports, in directories of their
//! own. Whatever is started ends with the value that names it, also when a test panics.
//!
//! ```text
//! let mut mesh = Mesh::start();                        a coordinator, `laptop` (owner) and `build`, all up
//! mesh.node("laptop").send("build", "hello");          exit 0, and what `send --json` said
//! mesh.node_mut("build").kill9();                      as a power cut would
//! mesh.node_mut("build").up();                         the same home again, until it is connected
//! mesh.node("build").await_texts(&["hello"]);          polls with a deadline; a failure shows the logs
//! ```

// What it is built from.
pub mod ports;
mod process;
pub mod wait;
// Talking to what runs.
mod answer;
pub mod http;
mod shape;
// What runs.
mod coordinator;
mod joiner;
mod node;
mod pair;
mod puppet;
// What stands between, and what is found there.
pub mod disk;
pub mod history;
mod proxy;
pub mod secrets;
pub mod source;
pub mod sql;
// What chance and the machine decide.
mod chance;
mod skip;

pub use answer::Answer;
pub use chance::Chance;
pub use coordinator::{Coordinator, CoordinatorPlan};
pub use joiner::join_with_key;
pub use node::{Invite, Node};
pub use pair::{Mesh, Plan};
pub use process::{Process, program, run};
pub use proxy::{Conversation, Proxy};
pub use puppet::{Captured, Puppet};
pub use shape::has_shape;
pub use skip::skip;
