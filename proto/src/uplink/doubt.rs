//! Doubt: a direct link fell silent, or the network changed under this node. If the uplink died of the same
//! cause, nothing says so until something is sent on it, so something is; and then it is this node that
//! moved, not the coordinator that went, and it comes back at once.

use std::time::Duration;

use super::Uplink;
use crate::endpoint::{Endpoint, Output};
use crate::time::{Monotonic, Now};
use crate::wire::ToCoordinator;

impl Uplink {
    /// When a doubted uplink is given up.
    pub(super) fn doubt_ends(&self) -> Option<Monotonic> {
        self.doubted.map(|since| since + ANSWER_WITHIN)
    }
}

impl Endpoint {
    /// Asks the coordinator for a sign of life, once until it gives one.
    pub(crate) fn doubt_uplink(&mut self, now: Now) {
        if self.uplink.is_welcomed() && self.uplink.doubted.is_none() {
            self.uplink.doubted = Some(now.monotonic);
            self.uplink.pinged = now.monotonic;
            self.out(Output::SendUplink(ToCoordinator::Ping { nonce: 0 }.encode()));
        }
    }
}

/// A coordinator that is there answers sooner, however busy; a socket whose address is gone never does.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
