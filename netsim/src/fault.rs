//! Faults: drawn once at the beginning of a run, then carried out and undone at their instants.

use std::time::Duration;

use peerloom_proto::endpoint::{LogChange, Request};

use crate::chance::Chance;
use crate::host::Asked;
use crate::internet::Internet;
use crate::network::{Place, Purpose, StreamId};
use crate::queue::Event;
use crate::scenario::{Direction, Fault, When, Who};
use crate::world::World;

/// One side of a fault: it begins, or it ends.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) at: Duration,
    /// Its place among the scenario's faults.
    pub(crate) fault: usize,
    pub(crate) hosts: [Place; 2],
    pub(crate) begins: bool,
}

impl World {
    /// Draws instants and hosts. Gives when the last fault is over.
    pub(crate) fn plan_faults(&mut self) -> Duration {
        let faults = self.scenario.faults.clone();
        let mut over = self.scenario.duration_s.duration();
        for (number, fault) in faults.iter().enumerate() {
            let mut chance = Chance::new(self.seed, &format!("fault {number}"), "plan");
            for at in instants(&fault.when(), self.scenario.duration_s.duration(), &mut chance) {
                let hosts = self.draw_hosts(fault, &mut chance);
                let ends = at + fault.lasts().duration();
                over = over.max(ends);
                for (at, begins) in [(at, true), (ends, false)] {
                    let index = self.plan.len();
                    self.plan.push(Turn { at, fault: number, hosts, begins });
                    self.queue.at(at, Event::Fault { index });
                }
            }
        }
        over
    }

    fn draw_hosts(&self, fault: &Fault, chance: &mut Chance) -> [Place; 2] {
        let nodes = self.nodes.len();
        let mut draw = |who: Who| match who {
            Who::Node(node) => Place::Node(node),
            Who::Coordinator => Place::Coordinator,
            Who::Any => Place::Node(chance.below(nodes)),
        };
        match fault {
            Fault::Stop { who, .. }
            | Fault::Kill { who, .. }
            | Fault::CrashAtCommit { who, .. }
            | Fault::CutUplink { who, .. }
            | Fault::NatReboot { who, .. }
            | Fault::NatRebind { who, .. }
            | Fault::Renumber { who, .. }
            | Fault::ClockJump { who, .. }
            | Fault::DiskFull { who, .. } => [draw(*who), Place::Coordinator],
            Fault::Partition { from, to, .. } => [draw(*from), draw(*to)],
            Fault::Join { by, target, .. } | Fault::Revoke { by, target, .. } => {
                [Place::Node(*by), Place::Node(*target)]
            }
            Fault::CutLinks { .. }
            | Fault::NoDirect { .. }
            | Fault::RestoreBackup { .. }
            | Fault::SecondCoordinator { .. }
            | Fault::Evil { .. } => [Place::Coordinator; 2],
        }
    }

    /// A fault begins or ends.
    pub(crate) fn fault(&mut self, index: usize) {
        let Turn { at: _, fault: number, hosts: [host, other], begins } = self.plan[index].clone();
        let fault = self.scenario.faults[number].clone();
        if begins {
            *self.tally.faults.entry(fault.name()).or_default() += 1;
        }
        match fault {
            Fault::Stop { for_s, .. } if begins => match host {
                Place::Node(node) => self.stop_node(node, for_s.duration()),
                Place::Coordinator => self.kill_hub(for_s.duration()),
            },
            Fault::Kill { for_s, .. } if begins => match host {
                Place::Node(node) => self.kill_node(node, for_s.duration()),
                Place::Coordinator => self.kill_hub(for_s.duration()),
            },
            // Both start again by themselves.
            Fault::Stop { .. } | Fault::Kill { .. } => {}
            Fault::CrashAtCommit { moment, for_s, .. } => {
                let crash = begins.then_some((moment, for_s.duration()));
                match host {
                    Place::Node(node) => self.nodes[node].crash = crash,
                    Place::Coordinator => self.coordinator.crash = crash,
                }
            }
            Fault::CutUplink { .. } if begins => self.cut_uplink(host),
            Fault::CutLinks { .. } if begins => self.cut_links(),
            Fault::NatReboot { .. } if begins => {
                self.change_nat(host, |internet, _, node| internet.reboot(node));
            }
            Fault::NatRebind { .. } if begins => {
                self.change_nat(host, |internet, now, node| internet.rebind(now, node));
            }
            Fault::Renumber { .. } if begins => self.renumber(host),
            Fault::CutUplink { .. }
            | Fault::CutLinks { .. }
            | Fault::NatReboot { .. }
            | Fault::NatRebind { .. }
            | Fault::Renumber { .. } => {}
            Fault::Partition { direction, .. } => {
                let both = direction == Direction::Both;
                for (from, to) in [(host, other), (other, host)].into_iter().take(1 + usize::from(both)) {
                    if begins {
                        self.network.block(from, to);
                    } else {
                        self.network.unblock(&mut self.queue, from, to);
                    }
                }
            }
            Fault::NoDirect { .. } if begins => self.no_direct += 1,
            Fault::NoDirect { .. } => self.no_direct -= 1,
            Fault::ClockJump { days, .. } => self.jump_clock(host, if begins { days } else { -days }),
            Fault::DiskFull { .. } => {
                let full = match host {
                    Place::Node(node) => &mut self.nodes[node].full,
                    Place::Coordinator => &mut self.coordinator.full,
                };
                *full = if begins { *full + 1 } else { *full - 1 };
            }
            Fault::RestoreBackup { .. } if begins => self.copy_store(number),
            Fault::RestoreBackup { away_s, .. } => self.put_back(number, away_s.duration()),
            Fault::SecondCoordinator { .. } if begins => self.open_hub(),
            Fault::SecondCoordinator { .. } => {}
            Fault::Evil { .. } if begins => self.evil_begins(number),
            // One without an end ends with the run.
            Fault::Evil { for_s, .. } => drop(for_s.map(|_| self.evil.end(number))),
            Fault::Join { by, target, .. } if begins => {
                self.queue.after(Duration::ZERO, Event::Invites { by, node: target });
            }
            Fault::Revoke { by, target, .. } if begins => {
                self.queue.after(Duration::ZERO, Event::Revokes { by, target });
            }
            Fault::Join { .. } | Fault::Revoke { .. } => {}
        }
    }

    fn jump_clock(&mut self, host: Place, days: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "a month of milliseconds is far below 2^63")]
        let jump = (days * 86_400_000.0) as i64;
        match host {
            Place::Node(node) => self.nodes[node].ahead_ms += jump,
            Place::Coordinator => self.coordinator.ahead_ms += jump,
        }
    }

    fn cut_links(&mut self) {
        let links: Vec<StreamId> = self.network.direct_streams().into_iter().map(|(id, _)| id).collect();
        links.into_iter().for_each(|id| self.network.cut(&mut self.queue, id));
    }

    fn change_nat(&mut self, host: Place, change: impl FnOnce(&mut Internet, Duration, usize)) {
        if let Place::Node(node) = host {
            change(&mut self.network.internet, self.queue.now(), node);
        }
    }

    fn renumber(&mut self, host: Place) {
        let Place::Node(node) = host else { return };
        if self.network.renumber(node) {
            self.uplinks_of(host).into_iter().for_each(|id| self.network.strand(id));
            return self.announce(node);
        }
        for node in self.network.internet.household(node) {
            let uplinks = self.uplinks_of(Place::Node(node));
            uplinks.into_iter().for_each(|id| self.network.strand_outside(id));
        }
    }

    fn cut_uplink(&mut self, host: Place) {
        self.uplinks_of(host).into_iter().for_each(|id| self.network.cut(&mut self.queue, id));
    }

    fn uplinks_of(&self, host: Place) -> Vec<StreamId> {
        let uplinks = self.network.ends_of(host).into_iter().map(|(id, _)| id).filter(|id| {
            self.network.streams.get(id).is_some_and(|stream| match stream.purpose {
                Purpose::Uplink => true,
                Purpose::Direct { .. } => false,
            })
        });
        uplinks.collect()
    }

    /// An admin revokes a member, and tries again until the log has it.
    pub(crate) fn revokes(&mut self, by: usize, target: usize) {
        if !self.nodes[by].serves() {
            return self.queue.after(Duration::from_secs(1), Event::Revokes { by, target });
        }
        let target_id = self.nodes[target].id;
        let request = Request::Append(LogChange::Revoke { target: target_id, reason: 0 });
        self.ask_node(by, Asked::Revoke { target }, request);
    }
}

/// When a fault begins.
fn instants(when: &When, duration: Duration, chance: &mut Chance) -> Vec<Duration> {
    let from = when.at_s.map_or(Duration::ZERO, |at| at.duration());
    let until = when.until_s.map_or(duration, |until| until.duration()).max(from);
    match (when.random, when.every_s) {
        (Some(count), _) => (0..count).map(|_| chance.between(from, until)).collect(),
        (None, None) => vec![from],
        (None, Some(every)) => {
            let (mut at, every) = (from, every.duration());
            let mut all = Vec::new();
            while at <= until {
                all.push(at);
                at += every;
            }
            all
        }
    }
}
