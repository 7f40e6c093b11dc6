//! Programs that send: each hands its message over under an id of its own, and again until the node
//! answered, whatever happens to the node meanwhile.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::endpoint::{Refusal, Reply, Request, Send};
use peerloom_proto::limits::MESSAGE_LIFE_MAX;
use peerloom_proto::{Message, MessageId, Priority};

use crate::chance::{Chance, seed_for};
use crate::host::Asked;
use crate::model::{Fact, Planned};
use crate::mutant::Mutant;
use crate::queue::Event;
use crate::world::World;

/// A program whose node does not answer tries again after this.
const PROGRAM_RETRY: Duration = Duration::from_secs(1);

impl World {
    /// Plans every message of the run: when, from whom, to whom.
    pub(crate) fn plan_messages(&mut self) {
        self.draw_messages();
        for (number, listed) in self.scenario.workload.clone().listed() {
            self.plan_message(listed.at_s.duration(), number, listed.from, listed.to);
        }
        self.unanswered = self.history.messages.len();
    }

    fn draw_messages(&mut self) {
        let workload = self.scenario.workload.clone();
        let mut chance = Chance::new(self.seed, "workload", "messages");
        let strangers = self.scenario.strangers();
        let everybody: Vec<usize> = (0..self.nodes.len()).filter(|node| !strangers.contains(node)).collect();
        let senders = workload.senders.unwrap_or_else(|| everybody.clone());
        let recipients = workload.recipients.unwrap_or(everybody);
        let until = workload.until_s.unwrap_or(self.scenario.duration_s).duration();
        let from = workload.from_s.duration().min(until);
        if let Some(every) = workload.every_s {
            return self.draw_chatter((senders, recipients), (from, until), every.duration(), &mut chance);
        }
        let mut number = 0;
        while number < workload.messages {
            let at = chance.between(from, until);
            let sender = senders[chance.below(senders.len())];
            let others = all_but(&recipients, sender);
            if others.is_empty() {
                // The only sender is the only recipient: the scenario has nothing to say.
                return;
            }
            let to = others[chance.below(others.len())];
            for _ in 0..workload.burst.min(workload.messages - number) {
                self.plan_message(at, number, sender, to);
                number += 1;
            }
        }
    }

    /// Each sender says something in every span, at an instant of its own.
    fn draw_chatter(
        &mut self,
        (senders, recipients): (Vec<usize>, Vec<usize>),
        (from, until): (Duration, Duration),
        every: Duration,
        chance: &mut Chance,
    ) {
        let burst = self.scenario.workload.burst;
        for sender in senders {
            let others = all_but(&recipients, sender);
            let mut begins = from;
            while begins < until && !others.is_empty() {
                let at = chance.between(begins, until.min(begins + every));
                let to = others[chance.below(others.len())];
                for _ in 0..burst {
                    self.plan_message(at, self.history.messages.len(), sender, to);
                }
                begins += every;
            }
        }
    }

    fn plan_message(&mut self, at: Duration, number: usize, from: usize, to: usize) {
        let id = seed_for(self.seed, &format!("message {number}"), "id");
        let id = MessageId(*id.first_chunk().expect("a hash has sixteen bytes"));
        let mut text = format!("{number} {:.<width$}", "", width = self.scenario.workload.bytes);
        if let Some(outside) = &self.network.outside {
            text = outside.text(number, text.len());
        }
        let message = self.history.messages.len();
        self.by_id.entry(id).or_default().push(message);
        self.history.messages.push(Planned { at, number, id, from, to, text });
        self.queue.at(at, Event::Submits { message });
    }

    /// A program hands its message over.
    pub(crate) fn submits(&mut self, message: usize) {
        let planned = self.history.messages[message].clone();
        if !self.nodes[planned.from].serves() || self.content_delays(&planned) {
            return self.queue.after(PROGRAM_RETRY, Event::Submits { message });
        }
        self.history.note(self.queue.now(), Fact::Submitted { message });
        let life = self.scenario.workload.life_s.map_or(MESSAGE_LIFE_MAX, |life| life.duration());
        let content = Bytes::from(planned.text.into_bytes());
        let picks = self.is_planted(Mutant::ContentPicksPriority);
        let chosen = if picks { usize::from(content[0]) } else { planned.number };
        let priority = match chosen % 3 {
            0 => Priority::Low,
            1 => Priority::Next,
            _ => Priority::Now,
        };
        let send = Send {
            id: Some(planned.id),
            to: vec![self.nodes[planned.to].id],
            message: Message { content_type: "text/plain".to_owned(), content, reply_to: None },
            priority,
            life,
        };
        self.ask_node(planned.from, Asked::Message(message), Request::Send(send));
    }

    /// A planted fault: some of what is said is handed over a second late.
    fn content_delays(&self, planned: &Planned) -> bool {
        let waits = planned.text.as_bytes().first().is_some_and(|first| first.is_multiple_of(2));
        self.is_planted(Mutant::ContentDelays) && waits && self.queue.now() == planned.at
    }

    pub(crate) fn message_answered(&mut self, message: usize, reply: Reply) {
        let at = self.queue.now();
        match reply {
            Reply::Sent { repeated, .. } => {
                self.tally.repeats += u64::from(repeated);
                self.unanswered -= 1;
                self.history.note(at, Fact::Acknowledged { message });
            }
            // There will be room.
            Reply::Refused(Refusal::OutboxFull { .. }) => {
                self.queue.after(PROGRAM_RETRY, Event::Submits { message });
            }
            Reply::Refused(why) => {
                self.unanswered -= 1;
                self.history.note(at, Fact::Refused { message, why: why.to_string() });
            }
            Reply::Done | Reply::Requeued(_) | Reply::Pong(_) | Reply::Appended(_) => {
                unreachable!("a send is answered as one")
            }
        }
    }
}

fn all_but(recipients: &[usize], sender: usize) -> Vec<usize> {
    recipients.iter().copied().filter(|to| *to != sender).collect()
}
