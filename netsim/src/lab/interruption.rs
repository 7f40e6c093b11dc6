//! What may come over two hosts that talk, and how it ends.

use anyhow::Context;
use clap::ValueEnum;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;

use super::daemon::{Coordinator, Host};
use super::site::{Place, Site};
use super::timeline::{LAB, Timeline};
use super::wire::Wire;

/// The first port of mappings after a rebinding. The next rebinding of a site begins 100 higher.
pub(super) const REBOUND_PORT: u16 = 40_000;

/// Something that is played on a host and its way to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Interruption {
    /// Nothing passes between the two sites; the coordinator is reached.
    Cut,
    /// The NAT forgets its mappings and gives other ones. Needs `conntrack`.
    Rebind,
    /// The site gets another public address.
    Renumber,
    /// The host's interface loses its link.
    Link,
    /// The daemon gets no processor time.
    Suspend,
    /// The coordinator is killed and started again.
    Coordinator,
}

/// Where they are played.
pub(crate) struct Ground<'a> {
    pub(crate) wire: &'a Wire,
    pub(crate) victim: &'a Host,
    pub(crate) other: &'a Host,
    pub(crate) coordinator: &'a mut Coordinator,
    pub(crate) timeline: &'a Timeline,
}

impl Interruption {
    /// Whether it can be undone; else it has ended when it has begun.
    pub(crate) fn lasts(self) -> bool {
        match self {
            Self::Cut | Self::Link | Self::Suspend | Self::Coordinator => true,
            Self::Rebind | Self::Renumber => false,
        }
    }

    /// Whether it does anything to a host of that site.
    pub(crate) fn can_hit(self, site: &Site) -> bool {
        match self {
            Self::Rebind => !site.routers.is_empty() && site.nat.has_ipv4(),
            Self::Renumber => site.nat.has_ipv4(),
            Self::Cut | Self::Link | Self::Suspend | Self::Coordinator => true,
        }
    }

    /// Begins; `turn` counts them up for this victim.
    pub(crate) fn begin(self, ground: &mut Ground<'_>, turn: u16) -> anyhow::Result<()> {
        self.note(ground, "begins");
        let Ground { wire, victim, other, coordinator, .. } = ground;
        match self {
            Self::Cut => {
                wire.sky().weather.cut(victim.site.port(), other.site.port());
                Ok(())
            }
            Self::Rebind => victim.site.rebind(Place::Home, REBOUND_PORT + turn % 200 * 100),
            Self::Renumber => victim.site.move_to(place(turn).other()),
            Self::Link => victim.site.link_down(),
            Self::Suspend => victim.node.signal(Signal::STOP),
            Self::Coordinator => coordinator.kill(),
        }
        .with_context(|| format!("{self:?} at {}", victim.handle))
    }

    /// Ends.
    pub(crate) fn end(self, ground: &mut Ground<'_>) -> anyhow::Result<()> {
        let Ground { wire, victim, other, coordinator, .. } = ground;
        match self {
            Self::Cut => {
                wire.sky().weather.heal(victim.site.port(), other.site.port());
                Ok(())
            }
            Self::Rebind | Self::Renumber => return Ok(()),
            Self::Link => victim.site.link_up(),
            Self::Suspend => victim.node.signal(Signal::CONT),
            Self::Coordinator => coordinator.start(),
        }
        .with_context(|| format!("the end of {self:?} at {}", victim.handle))?;
        self.note(ground, "ends");
        Ok(())
    }

    fn note(self, ground: &Ground<'_>, what: &str) {
        let Ground { victim, other, timeline, .. } = ground;
        timeline.note(LAB, json!({what: self, "victim": victim.handle, "other": other.handle}));
    }
}

/// Where a site is after so many moves.
fn place(moves: u16) -> Place {
    if moves.is_multiple_of(2) { Place::Home } else { Place::Away }
}
