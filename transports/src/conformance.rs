//! The one list every adapter must pass. Each item panics with what was wrong.
//!
//! Links: 1. frames of every size arrive unaltered and in order  2. close is told to both, with its
//! reason  3. a dropped link is closed  4. oversize is an error, not a truncation  5. a reader that
//! does not read stops the writer within a bound  6. a slow one bounds what is under way  7. an
//! abandoned receive loses nothing
//! Transports, besides: 8. a wrong certificate, conn or dialler is refused  9. an expectation serves
//! one link  10. a silent address times out and a dropped dial leaves nothing behind  11. both ends
//! agree on the binding  12. shutting down ends every link

mod links;
mod transports;

use std::time::{Duration, Instant};

use tokio::time::timeout;

pub use links::links;
pub use transports::{TransportPair, all, connected};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
