//! The faults a scenario may name, and when each begins.

use serde::Deserialize;

use super::{Deed, Lie, Seconds, Sort, Who};

/// When a fault begins: once, again and again, or at random instants.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct When {
    pub(crate) at_s: Option<Seconds>,
    pub(crate) every_s: Option<Seconds>,
    pub(crate) until_s: Option<Seconds>,
    /// So many instants, uniform between `at_s` and `until_s`.
    pub(crate) random: Option<usize>,
}

/// Something goes wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// A process ends in order and starts again.
    Stop { when: When, who: Who, for_s: Seconds },
    /// A process is killed and starts again.
    Kill { when: When, who: Who, for_s: Seconds },
    /// A process is killed at its next commit.
    CrashAtCommit { when: When, who: Who, moment: Moment, for_s: Seconds },
    /// A node's connection to the coordinator breaks.
    CutUplink { when: When, who: Who },
    /// Every direct link breaks.
    CutLinks { when: When },
    /// Nothing passes between two hosts, or in one direction only.
    Partition {
        when: When,
        from: Who,
        to: Who,
        #[serde(default)]
        direction: Direction,
        for_s: Seconds,
    },
    /// The NATs before a node forget everything.
    NatReboot { when: When, who: Who },
    /// The outermost NAT before a node moves every mapping to another port.
    NatRebind { when: When, who: Who },
    /// A node comes to another network: the outermost NAT before it gets another address and forgets
    /// everything; a node without a NAT gets another address itself. Uplinks through it are dead, and
    /// nobody says so: only who sends from behind a NAT is answered with a reset.
    Renumber { when: When, who: Who },
    /// No new direct link can be made.
    NoDirect { when: When, for_s: Seconds },
    /// A wall clock is wrong by so many days.
    ClockJump { when: When, who: Who, days: f64, for_s: Seconds },
    /// A disk takes nothing.
    DiskFull { when: When, who: Who, for_s: Seconds },
    /// The coordinator's store is copied, and the copy put back `age_s` later; the coordinator is away for
    /// `away_s` then.
    RestoreBackup { when: When, age_s: Seconds, away_s: Seconds },
    /// Another process opens the coordinator's store and takes new connections; the one before does not
    /// know.
    SecondCoordinator { when: When },
    /// A stranger joins by a member's invite: it is no member before, and its node does not run.
    Join { when: When, by: usize, target: usize },
    /// A member is revoked by another, or leaves by itself.
    Revoke { when: When, by: usize, target: usize },
    /// The coordinator is not honest.
    Evil {
        when: When,
        #[serde(rename = "do")]
        deed: Deed,
        /// About what; everything otherwise.
        of: Option<Vec<Sort>>,
        /// What is not so, of a liar.
        lies: Option<Vec<Lie>>,
        /// Towards which nodes; all otherwise.
        towards: Option<Vec<usize>>,
        /// How often it takes the occasion.
        #[serde(default = "always")]
        percent: u8,
        /// For ever otherwise.
        for_s: Option<Seconds>,
    },
}

/// Where a crash falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Moment {
    /// Nothing of the transaction is kept.
    Before,
    /// Its sync has not ended: any part of its record may be on the disk.
    During,
    /// All of it is kept, and nothing that follows from it happens.
    After,
}

/// Which directions a partition takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    #[default]
    Both,
    /// From `from` to `to` only.
    OneWay,
}

impl Fault {
    /// Its word in the file.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Stop { .. } => "stop",
            Self::Kill { .. } => "kill",
            Self::CrashAtCommit { .. } => "crash_at_commit",
            Self::CutUplink { .. } => "cut_uplink",
            Self::CutLinks { .. } => "cut_links",
            Self::Partition { .. } => "partition",
            Self::NatReboot { .. } => "nat_reboot",
            Self::NatRebind { .. } => "nat_rebind",
            Self::Renumber { .. } => "renumber",
            Self::NoDirect { .. } => "no_direct",
            Self::ClockJump { .. } => "clock_jump",
            Self::DiskFull { .. } => "disk_full",
            Self::RestoreBackup { .. } => "restore_backup",
            Self::SecondCoordinator { .. } => "second_coordinator",
            Self::Join { .. } => "join",
            Self::Revoke { .. } => "revoke",
            Self::Evil { .. } => "evil",
        }
    }

    pub(crate) fn when(&self) -> When {
        match self {
            Self::Stop { when, .. }
            | Self::Kill { when, .. }
            | Self::CrashAtCommit { when, .. }
            | Self::CutUplink { when, .. }
            | Self::CutLinks { when }
            | Self::Partition { when, .. }
            | Self::NatReboot { when, .. }
            | Self::NatRebind { when, .. }
            | Self::Renumber { when, .. }
            | Self::NoDirect { when, .. }
            | Self::ClockJump { when, .. }
            | Self::DiskFull { when, .. }
            | Self::RestoreBackup { when, .. }
            | Self::SecondCoordinator { when }
            | Self::Join { when, .. }
            | Self::Revoke { when, .. }
            | Self::Evil { when, .. } => *when,
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(&self) -> Seconds {
        match self {
            Self::Stop { for_s, .. }
            | Self::Kill { for_s, .. }
            | Self::CrashAtCommit { for_s, .. }
            | Self::Partition { for_s, .. }
            | Self::NoDirect { for_s, .. }
            | Self::ClockJump { for_s, .. }
            | Self::DiskFull { for_s, .. } => *for_s,
            Self::RestoreBackup { age_s, .. } => *age_s,
            Self::Evil { for_s, .. } => for_s.unwrap_or_default(),
            Self::CutUplink { .. }
            | Self::CutLinks { .. }
            | Self::NatReboot { .. }
            | Self::NatRebind { .. }
            | Self::Renumber { .. }
            | Self::SecondCoordinator { .. }
            | Self::Join { .. }
            | Self::Revoke { .. } => Seconds::default(),
        }
    }

    /// The hosts that it names.
    pub(crate) fn hosts(&self) -> Vec<Who> {
        match self {
            Self::Stop { who, .. }
            | Self::Kill { who, .. }
            | Self::CrashAtCommit { who, .. }
            | Self::CutUplink { who, .. }
            | Self::NatReboot { who, .. }
            | Self::NatRebind { who, .. }
            | Self::Renumber { who, .. }
            | Self::ClockJump { who, .. }
            | Self::DiskFull { who, .. } => vec![*who],
            Self::Partition { from, to, .. } => vec![*from, *to],
            Self::Evil { towards, .. } => towards.iter().flatten().copied().map(Who::Node).collect(),
            Self::Join { by, target, .. } | Self::Revoke { by, target, .. } => {
                vec![Who::Node(*by), Who::Node(*target)]
            }
            Self::RestoreBackup { .. } | Self::SecondCoordinator { .. } => vec![Who::Coordinator],
            Self::CutLinks { .. } | Self::NoDirect { .. } => Vec::new(),
        }
    }

    /// What is wrong with it, whatever the rest of the file says.
    pub(super) fn nonsense(&self) -> Option<&'static str> {
        if let Self::CutUplink { who: Who::Coordinator, .. } = self {
            return Some("an uplink is named by its node");
        }
        let Self::Evil { deed, of, lies, towards, .. } = self else { return None };
        let right = match deed {
            Deed::Withhold | Deed::Replay | Deed::Reorder => lies.is_none(),
            Deed::Fork => lies.is_none() && of.is_none() && towards.is_some(),
            Deed::Lie => of.is_none() && lies.is_some(),
        };
        let what =
            "`of` goes with withhold, replay and reorder, `lies` with lie, and a fork says `towards` whom";
        (!right).then_some(what)
    }

    pub(super) fn times(&self) -> Vec<Seconds> {
        let when = self.when();
        let away_s = if let Self::RestoreBackup { away_s, .. } = self { Some(*away_s) } else { None };
        [when.at_s, when.every_s, when.until_s, Some(self.lasts()), away_s].into_iter().flatten().collect()
    }
}

fn always() -> u8 {
    100
}
