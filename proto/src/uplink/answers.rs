//! Answers that the coordinator owes. One that answers pings and nothing else would hold up mail and log
//! for ever: it is left, and tried again.

use std::time::Duration;

use super::{Asked, Uplink};
use crate::delivery::Via;
use crate::endpoint::{Endpoint, earliest};
use crate::time::Monotonic;

/// What the coordinator was asked, and since when.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    since: Monotonic,
}

impl Uplink {
    /// Numbers a request.
    pub(super) fn ask(&mut self, now: Monotonic, asked: Asked) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, Request { asked, since: now });
        request
    }

    /// Log entries were asked for.
    pub(crate) fn asked_for_log(&mut self, now: Monotonic) {
        self.log_asked.get_or_insert(now);
    }

    /// Log entries came.
    pub(super) fn log_answered(&mut self) {
        self.log_asked = None;
    }

    /// The request is answered; what it was.
    pub(super) fn answered(&mut self, request: u64) -> Option<Asked> {
        self.requests.remove(&request).map(|request| request.asked)
    }

    /// The socket is gone, and with it every answer. What was asked.
    pub(super) fn unanswered(&mut self) -> impl Iterator<Item = Asked> + use<> {
        self.log_asked = None;
        std::mem::take(&mut self.requests).into_values().map(|request| request.asked)
    }
}

impl Endpoint {
    /// When the coordinator has owed an answer for too long. An answer to anything counts, so that a slow
    /// path, on which everything takes its turn, is not taken for a silent coordinator.
    pub(crate) fn answer_due(&self) -> Option<Monotonic> {
        let uplink = &self.uplink;
        let request = uplink.requests.values().next().map(|request| request.since);
        let owed = earliest([uplink.log_asked, request, self.delivery.oldest_on(Via::Uplink)])?;
        Some(owed.max(uplink.answered_at) + ANSWER_WAIT_MAX)
    }
}

/// Longest wait for an answer while none comes. A coordinator commits within milliseconds; a message of a
/// mebibyte passes 280 kbit/s in this time.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
