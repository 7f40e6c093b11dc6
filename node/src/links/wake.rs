//! Noticing that the machine slept: every mapping and link is then in doubt.

use std::time::Duration;

use peerloom_proto::endpoint::Input;

use super::report;
use crate::clock;
use crate::engine::{Inlet, Source};

/// Tells the machine when this one has slept.
pub(super) async fn watch(inlet: Inlet) {
    let mut last = clock::slept();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let slept = clock::slept();
        if slept.saturating_sub(last) > SLEEP_MIN {
            tracing::debug!(slept = ?slept.saturating_sub(last), "This machine slept.");
            report(&inlet, Source::Transport, Input::Woke).await;
        }
        last = slept;
    }
}

/// The runtime's timers stand still during a sleep, so it is noticed within this after waking.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A shorter one breaks no NAT mapping and no link.
const SLEEP_MIN: Duration = Duration::from_secs(5);
