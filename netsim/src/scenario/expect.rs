//! What a run must have been.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Seconds;

/// What the run must have been, so that a scenario cannot pass by doing nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    #[serde(default)]
    pub(crate) delivered: Delivered,
    #[serde(default)]
    pub(crate) direct_min: u64,
    #[serde(default)]
    pub(crate) relay_min: u64,
    #[serde(default)]
    pub(crate) queue_min: u64,
    #[serde(default)]
    pub(crate) expired_min: u64,
    #[serde(default)]
    pub(crate) repeats_min: u64,
    #[serde(default)]
    pub(crate) crashes_min: u64,
    /// Strangers that became members.
    #[serde(default)]
    pub(crate) joined_min: u64,
    /// Coordinators that another took the store over from.
    #[serde(default)]
    pub(crate) fenced_min: u64,
    /// Log entries that a coordinator had lost and nodes gave back.
    #[serde(default)]
    pub(crate) log_regained_min: u64,
    /// Hellos that knew more than the coordinator.
    #[serde(default)]
    pub(crate) marks_lost_min: u64,
    #[serde(default)]
    pub(crate) reconnects_min: u64,
    #[serde(default)]
    pub(crate) store_failures_min: u64,
    #[serde(default)]
    pub(crate) refused_full_min: u64,
    #[serde(default)]
    pub(crate) refused_rate_min: u64,
    /// Dedupe rows that nodes dropped below their floors.
    #[serde(default)]
    pub(crate) forgotten_min: u64,
    #[serde(default)]
    pub(crate) alarms_min: u64,
    /// Inbound envelopes dropped, by reason.
    #[serde(default)]
    pub(crate) rejected_min: BTreeMap<String, u64>,
    /// What a dishonest coordinator and hostile members did, by its word.
    #[serde(default)]
    pub(crate) deeds_min: BTreeMap<String, u64>,
    /// Every pair that talks has a direct link if its NATs allow one, and none if they do not.
    #[serde(default)]
    pub(crate) direct_as_owed: bool,
    #[serde(default)]
    pub(crate) pairs_met_min: u64,
    #[serde(default)]
    pub(crate) pairs_by_birthday_min: u64,
    #[serde(default)]
    pub(crate) packets_lost_min: u64,
    #[serde(default)]
    pub(crate) packets_repeated_min: u64,
    /// Longest time from the first message of a pair whose NATs owe it a direct link to that link.
    pub(crate) direct_within_s: Option<Seconds>,
    /// Longest time from the sender's acknowledgement to the reader.
    pub(crate) stall_max_s: Option<Seconds>,
    /// Happenings of the whole run: something that goes round at the speed of the network has more.
    pub(crate) events_max: Option<u64>,
}

/// What must become of acknowledged messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Delivered {
    /// Every one is shown.
    #[default]
    All,
    /// Every one is shown, or its sender is told why not.
    AllOrTold,
}
