//! A script with real daemons: messages handed over and deeds done when they are due.
//!
//! 1. [`play`]   a thread for each sender, and this one for what is done to the lab
//! 2. [`gather`] every inbox, once all has arrived or nothing more will

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use peerloom_proto::MessageId;
use serde_json::json;

use super::daemon::{Coordinator, Host};
use super::internet::Internet;
use super::interruption::REBOUND_PORT;
use super::script::{Deed, Script};
use super::site::Place as Whereabouts;
use super::timeline::{LAB, Timeline};
use super::wire::Wire;
use crate::model::Planned;
use crate::network::Place;

/// A program whose node does not answer tries again after this.
const PROGRAM_RETRY: Duration = Duration::from_millis(250);

/// Between two looks at the inboxes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Ports between two rebindings of one site.
const REBOUND_APART: u16 = 100;

/// The wire's port of the coordinator.
const COORDINATOR_PORT: usize = 0;

/// One message as its recipient's readers see it.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) id: String,
    /// `direct`, `relay` or `queue`.
    pub(super) path: String,
}

/// A message's id as the API writes it.
pub(super) fn id_of(id: &MessageId) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Plays it. Gives each node's inbox, in the readers' order.
pub(super) fn play(script: &Script, internet: &mut Internet) -> anyhow::Result<Vec<Vec<Arrived>>> {
    let Internet { wire, hosts, coordinator, timeline } = internet;
    wire.sky().weather.lay(COORDINATOR_PORT, script.coordinators_line);
    let handles: Vec<String> = hosts.iter().map(|host| host.handle.clone()).collect();
    let hosts: Vec<Mutex<&mut Host>> = hosts.iter_mut().map(Mutex::new).collect();
    let began = Instant::now();
    let give_up = began + script.scenario.duration_s.duration() + script.scenario.settle_s.duration();
    let mut stage = Stage { wire, hosts: &hosts, coordinator, timeline, moves: vec![(0, 0); hosts.len()] };
    std::thread::scope(|scope| {
        let speaking: Vec<_> = (0..hosts.len())
            .map(|node| {
                let messages = script.messages.iter().filter(move |planned| planned.from == node);
                let (host, handles) = (&hosts[node], &handles);
                scope.spawn(move || speak(host, messages, handles, began, give_up))
            })
            .collect();
        for (at, deed) in &script.deeds {
            std::thread::sleep((began + *at).saturating_duration_since(Instant::now()));
            stage.act(*deed).with_context(|| format!("{deed:?} at {} s", at.as_secs_f64()))?;
        }
        speaking.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    gather(script, &hosts, give_up)
}

fn lock<'a, 'b>(host: &'a Mutex<&'b mut Host>) -> MutexGuard<'a, &'b mut Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands one node's messages over, each when it is due and again until the node has it.
fn speak<'a>(
    host: &Mutex<&mut Host>,
    messages: impl Iterator<Item = &'a Planned>,
    handles: &[String],
    began: Instant,
    give_up: Instant,
) -> anyhow::Result<()> {
    for planned in messages {
        std::thread::sleep((began + planned.at).saturating_duration_since(Instant::now()));
        let (to, id) = (&handles[planned.to], id_of(&planned.id));
        let say = || lock(host).mouth().and_then(|mut mouth| mouth.say(to, &id, &planned.text));
        while let Err(error) = say() {
            if Instant::now() > give_up {
                return Err(error);
            }
            std::thread::sleep(PROGRAM_RETRY);
        }
    }
    Ok(())
}

/// Every inbox, once each message is in its recipient's, or at `give_up`.
fn gather(
    script: &Script,
    hosts: &[Mutex<&mut Host>],
    give_up: Instant,
) -> anyhow::Result<Vec<Vec<Arrived>>> {
    let mut expected: BTreeMap<usize, usize> = BTreeMap::new();
    for planned in &script.messages {
        *expected.entry(planned.to).or_default() += 1;
    }
    loop {
        let inboxes: Vec<Vec<Arrived>> =
            hosts.iter().map(|host| inbox(&lock(host))).collect::<anyhow::Result<_>>()?;
        let all = expected.iter().all(|(node, count)| inboxes[*node].len() >= *count);
        if all || Instant::now() > give_up {
            return Ok(inboxes);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn inbox(host: &Host) -> anyhow::Result<Vec<Arrived>> {
    let word = |message: &serde_json::Value, name: &str| {
        let word = message[name].as_str().map(str::to_owned);
        word.with_context(|| format!("a message of an inbox has no {name}: {message}"))
    };
    let messages = host.inbox("")?;
    messages
        .iter()
        .map(|message| Ok(Arrived { id: word(message, "id")?, path: word(message, "path")? }))
        .collect()
}

/// What deeds are done to.
struct Stage<'a, 'b> {
    wire: &'a Wire,
    hosts: &'a [Mutex<&'b mut Host>],
    coordinator: &'a mut Coordinator,
    timeline: &'a Timeline,
    /// How often each site got another address, and how often its mappings moved.
    moves: Vec<(u16, u16)>,
}

impl Stage<'_, '_> {
    fn act(&mut self, deed: Deed) -> anyhow::Result<()> {
        self.timeline.note(LAB, json!({"does": format!("{deed:?}")}));
        match deed {
            Deed::Cut(one, other) => {
                let [one, other] = [one, other].map(|place| self.port(place));
                self.wire.sky().weather.cut(one, other);
            }
            Deed::Heal(one, other) => {
                let [one, other] = [one, other].map(|place| self.port(place));
                self.wire.sky().weather.heal(one, other);
            }
            Deed::Reboot(node) => lock(&self.hosts[node]).site.reboot(self.whereabouts(node))?,
            Deed::Rebind(node) => {
                let host = lock(&self.hosts[node]);
                // A host without a router has no mapping to move, here as in the simulator.
                if !host.site.routers.is_empty() {
                    let first = REBOUND_PORT + self.moves[node].1 % 200 * REBOUND_APART;
                    self.moves[node].1 += 1;
                    host.site.rebind(self.whereabouts(node), first)?;
                }
            }
            Deed::Renumber(node) => {
                self.moves[node].0 += 1;
                lock(&self.hosts[node]).site.move_to(self.whereabouts(node))?;
            }
            Deed::Stop(Place::Coordinator) => self.coordinator.stop(),
            Deed::Kill(Place::Coordinator) => self.coordinator.kill()?,
            Deed::Start(Place::Coordinator) => self.coordinator.start()?,
            Deed::Stop(Place::Node(node)) => lock(&self.hosts[node]).down(),
            Deed::Kill(Place::Node(node)) => lock(&self.hosts[node]).kill()?,
            Deed::Start(Place::Node(node)) => lock(&self.hosts[node]).up()?,
        }
        Ok(())
    }

    fn port(&self, place: Place) -> usize {
        match place {
            Place::Node(node) => lock(&self.hosts[node]).site.port(),
            Place::Coordinator => COORDINATOR_PORT,
        }
    }

    fn whereabouts(&self, node: usize) -> Whereabouts {
        if self.moves[node].0.is_multiple_of(2) { Whereabouts::Home } else { Whereabouts::Away }
    }
}
