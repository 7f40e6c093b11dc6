//! `lab cuts`: a conversation at a steady rate that is interrupted again and again.
//!
//! 1. [`run`]      two hosts, talking directly; a thread sends when a message is due
//! 2. [`play`]     begins, waits, ends, and waits until messages go directly again
//! 3. [`Account`]  every message against the recipient's inbox: how late, how lost

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;

use super::daemon::Host;
use super::internet::{Internet, access_for};
use super::interruption::{Ground, Interruption};
use super::keep::keep;
use super::router::Nat;
use super::talk::{Order, talk, text};
use super::timeline::{Timeline, millis};
use crate::bench::process::Binaries;
use crate::chance::Chance;

/// Numbers of this conversation's messages; [`talk`] makes the path direct as run 0.
const RUN: u32 = 1;

/// How long the last messages may take before they count as lost: longer than any silence is borne.
const DRAIN: Duration = Duration::from_secs(120);

/// Arguments of `lab cuts`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CutsArgs {
    /// Interruptions.
    #[arg(long, value_name = "N", default_value_t = 200)]
    count: u16,
    /// Messages a second.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// What comes over them.
    #[arg(long, value_enum, default_value = "cut")]
    what: Interruption,
    /// The longest, in milliseconds; each is drawn from a twentieth of it up.
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    longest: u64,
    /// The sender's and the recipient's NAT.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        num_args = 1,
        default_value = "port_restricted,port_restricted"
    )]
    nat: Vec<Nat>,
    /// Round trip of every path, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    rtt: u64,
    /// How long it may take to be direct again, in seconds.
    #[arg(long, value_name = "S", default_value_t = 10)]
    patience: u64,
    /// Decides when interruptions come, and how long they last.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What it came to.
#[derive(Debug, Serialize)]
struct Report {
    schema_version: u32,
    what: Interruption,
    from: Nat,
    to: Nat,
    rtt_ms: u64,
    count: u16,
    rate: u32,
    sent: usize,
    lost: usize,
    doubled: usize,
    reordered: usize,
    /// Of the whole conversation, from the daemon's acceptance until the recipient's readers see it.
    latency: Quantiles,
    /// The latest message of each interruption.
    stall: Quantiles,
    /// From the end of an interruption until the first message that is sent and goes directly.
    direct_again: Quantiles,
    /// Interruptions after which nothing went directly in time.
    never_again: usize,
    kept: Option<String>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    fn of(mut values: Vec<Duration>) -> Self {
        values.sort();
        let at = |share: usize| {
            let place = (values.len() * share).div_ceil(100).saturating_sub(1);
            values.get(place).copied().map(millis).unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// When messages were accepted by the sender's daemon, by number.
type Accepted = Mutex<Vec<Instant>>;

/// One interruption as it was.
#[derive(Clone, Copy, Debug)]
struct Played {
    began: Instant,
    ended: Instant,
}

/// Plays it. True when nothing was lost, doubled or reordered.
pub(super) fn run(args: &CutsArgs, binaries: &Binaries, json: bool) -> anyhow::Result<bool> {
    let [from, to] = args.nat[..] else {
        anyhow::bail!("--nat takes two kinds: the sender's, the recipient's")
    };
    let access = access_for(Duration::from_millis(args.rtt));
    let mut internet = Internet::build(binaries, &[from, to], access, args.seed)?;
    let [sender, recipient] = &internet.hosts[..] else { unreachable!("two were built") };
    let first = talk(sender, recipient, &internet.timeline, 0, Duration::from_secs(args.patience))?;
    ensure!(first.path == "direct", "{from} and {to} are not direct: {:?}", first.why_not_direct);
    let begin = internet.timeline.len();
    let (accepted, over) = (Accepted::default(), AtomicBool::new(false));
    let played = interrupted(args, &mut internet, begin, &accepted, &over)?;
    let account = Account::draw(&internet, begin, accepted)?;
    let mut report = account.report(args, (from, to), &played);
    let whole = report.lost + report.doubled + report.reordered == 0;
    if !whole || report.never_again > 0 {
        report.kept = Some(keep(&internet, "cuts")?);
    }
    report.print(json)?;
    Ok(whole)
}

/// The conversation with everything that comes over it.
fn interrupted(
    args: &CutsArgs,
    internet: &mut Internet,
    begin: usize,
    accepted: &Accepted,
    over: &AtomicBool,
) -> anyhow::Result<Vec<Played>> {
    let Internet { wire, hosts, coordinator, timeline } = internet;
    let [sender, recipient] = &hosts[..] else { unreachable!("two were built") };
    let patience = Duration::from_secs(args.patience);
    let mut chance = Chance::new(args.seed, "cuts", "times");
    let both = [(recipient, sender), (sender, recipient)];
    let hit: Vec<_> = both.into_iter().filter(|(victim, _)| args.what.can_hit(&victim.site)).collect();
    ensure!(
        !hit.is_empty(),
        "{:?} means nothing to {} and {}",
        args.what,
        sender.site.nat,
        recipient.site.nat
    );
    let sides: u16 = if hit.len() == 2 { 2 } else { 1 };
    let mut one = |turn: u16| {
        let (victim, other) = hit[usize::from(turn % sides)];
        let mut ground = Ground { wire, victim, other, coordinator, timeline };
        let played = play(args, &mut ground, turn / sides, &mut chance)?;
        await_direct(timeline, begin, accepted, recipient, played.ended, patience);
        Ok(played)
    };
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, recipient, args.rate, accepted, over));
        let played: anyhow::Result<Vec<Played>> = (0..args.count).map(&mut one).collect();
        over.store(true, Ordering::Release);
        sending.join().expect("no panic")?;
        played
    })
}

/// Begins, lasts and ends; before that the conversation has a moment of peace.
fn play(args: &CutsArgs, ground: &mut Ground<'_>, turn: u16, chance: &mut Chance) -> anyhow::Result<Played> {
    let longest = Duration::from_millis(args.longest);
    std::thread::sleep(chance.between(Duration::from_millis(200), Duration::from_millis(1_000)));
    let began = Instant::now();
    args.what.begin(ground, turn)?;
    if args.what.lasts() {
        std::thread::sleep(chance.between(longest / 20, longest));
    }
    args.what.end(ground)?;
    Ok(Played { began, ended: Instant::now() })
}

/// An open loop: a message is sent when it is due, whatever became of those before.
fn send(from: &Host, to: &Host, rate: u32, accepted: &Accepted, over: &AtomicBool) -> anyhow::Result<()> {
    let apart = Duration::from_secs(1) / rate;
    let mut mouth = from.mouth()?;
    let mut due = Instant::now();
    for number in 0.. {
        if over.load(Ordering::Acquire) {
            return Ok(());
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += apart;
        mouth.say(&to.handle, &format!("{RUN:08x}{number:024x}"), &text(RUN, number))?;
        accepted.lock().expect("no panic").push(Instant::now());
    }
    Ok(())
}

/// Until a message that was sent after `ended` has arrived directly, or patience is over.
fn await_direct(
    timeline: &Timeline,
    begin: usize,
    accepted: &Accepted,
    recipient: &Host,
    ended: Instant,
    patience: Duration,
) {
    let later = |number: usize| {
        accepted.lock().expect("no panic").get(number).is_some_and(|accepted| *accepted > ended)
    };
    timeline.await_line(begin, Instant::now() + patience, |entry| {
        entry.at > ended
            && entry.who == recipient.handle
            && entry.what["type"] == "inbox"
            && entry.what["message"]["path"] == "direct"
            && number_of(&entry.what["message"]["text"]).is_some_and(later)
    });
}

fn number_of(text: &serde_json::Value) -> Option<usize> {
    let (run, number) = text.as_str()?.split_once(' ')?;
    (run == RUN.to_string()).then(|| number.parse().ok())?
}

/// Every message and what became of it.
struct Account {
    accepted: Vec<Instant>,
    /// When the recipient's readers saw it, and whether it came directly.
    readable: BTreeMap<usize, (Instant, bool)>,
    order: Order,
}

impl Account {
    /// Once everything has arrived, or nothing more will.
    fn draw(internet: &Internet, begin: usize, accepted: Accepted) -> anyhow::Result<Self> {
        let [sender, recipient] = &internet.hosts[..] else { unreachable!("two were built") };
        let accepted = accepted.into_inner().expect("no panic");
        let last = accepted.len().checked_sub(1).context("nothing was sent")?;
        internet.timeline.await_line(begin, Instant::now() + DRAIN, |entry| {
            entry.who == recipient.handle && number_of(&entry.what["message"]["text"]) == Some(last)
        });
        let lines = internet
            .timeline
            .lines(begin, |entry| entry.who == recipient.handle && entry.what["type"] == "inbox");
        let readable = lines.iter().filter_map(|entry| {
            let message = &entry.what["message"];
            Some((number_of(&message["text"])?, (entry.at, message["path"] == "direct")))
        });
        let order = Order::of(&recipient.texts_from(&sender.handle)?, RUN, accepted.len());
        Ok(Self { readable: readable.collect(), accepted, order })
    }

    fn latency(&self, number: usize) -> Option<Duration> {
        let (readable, _) = self.readable.get(&number)?;
        Some(readable.saturating_duration_since(self.accepted[number]))
    }

    /// The latest of the messages that were under way at some time of the interruption, or sent
    /// before the next one began.
    fn stall(&self, played: Played, next: Option<Instant>) -> Duration {
        let touched = |number: &usize| {
            let accepted = self.accepted[*number];
            let arrived = self.readable.get(number).is_none_or(|(at, _)| *at >= played.began);
            arrived && next.is_none_or(|next| accepted < next)
        };
        let numbers = (0..self.accepted.len()).filter(touched);
        numbers.filter_map(|number| self.latency(number)).max().unwrap_or_default()
    }

    fn direct_again(&self, played: Played) -> Option<Duration> {
        let first = self.accepted.partition_point(|accepted| *accepted <= played.ended);
        let direct = |number: &usize| self.readable.get(number).is_some_and(|(_, direct)| *direct);
        let number = (first..self.accepted.len()).find(direct)?;
        Some(self.accepted[number] - played.ended)
    }

    fn report(&self, args: &CutsArgs, (from, to): (Nat, Nat), played: &[Played]) -> Report {
        let patience = Duration::from_secs(args.patience);
        let again: Vec<Option<Duration>> = played.iter().map(|one| self.direct_again(*one)).collect();
        let in_time = |again: &Option<Duration>| again.is_some_and(|again| again <= patience);
        let nexts = played.iter().skip(1).map(|next| Some(next.began)).chain([None]);
        let stalls = played.iter().zip(nexts).map(|(one, next)| self.stall(*one, next)).collect();
        Report {
            schema_version: 1,
            what: args.what,
            from,
            to,
            rtt_ms: args.rtt,
            count: args.count,
            rate: args.rate,
            sent: self.accepted.len(),
            lost: self.order.lost,
            doubled: self.order.doubled,
            reordered: self.order.reordered,
            latency: Quantiles::of((0..self.accepted.len()).filter_map(|n| self.latency(n)).collect()),
            stall: Quantiles::of(stalls),
            never_again: again.iter().filter(|again| !in_time(again)).count(),
            direct_again: Quantiles::of(again.into_iter().flatten().collect()),
            kept: None,
        }
    }
}

impl Report {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        let Self { sent, rate, rtt_ms, lost, doubled, reordered, .. } = self;
        writeln!(
            out,
            "{} x {:?}, {} to {}, {rtt_ms} ms round trip",
            self.count, self.what, self.from, self.to
        )?;
        writeln!(
            out,
            "messages      {sent} at {rate}/s: {lost} lost, {doubled} doubled, {reordered} reordered"
        )?;
        let rows = [("latency", self.latency), ("stall", self.stall), ("direct again", self.direct_again)];
        for (name, Quantiles { p50, p99, max }) in rows {
            writeln!(out, "{name:<14}p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms")?;
        }
        if self.never_again > 0 {
            writeln!(out, "not direct again in time: {} of {}", self.never_again, self.count)?;
        }
        if let Some(kept) = &self.kept {
            writeln!(out, "capture, timeline and NAT tables are in {kept}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Messages 20 ms apart with these latencies; none for one that never arrived, a mark for one
    /// that came directly.
    fn account(began: Instant, arrivals: &[Option<(u32, bool)>]) -> Account {
        let accepted: Vec<Instant> = (0_u32..).zip(arrivals).map(|(n, _)| began + MS * 20 * n).collect();
        let readable = arrivals.iter().enumerate().filter_map(|(number, arrival)| {
            let (latency, direct) = (*arrival)?;
            Some((number, (accepted[number] + MS * latency, direct)))
        });
        Account { readable: readable.collect(), accepted, order: Order::default() }
    }

    #[test]
    fn the_stall_of_a_cut_is_its_latest_message_and_ends_where_the_next_begins() {
        let began = Instant::now();
        let arrivals = [(90, true), (5, true), (60, false), (40, false), (5, true), (200, false)];
        let account = account(began, &arrivals.map(Some));
        let cut = Played { began: began + MS * 100, ended: began + MS * 115 };
        assert_eq!(account.stall(cut, Some(began + MS * 90)), MS * 60);
        assert_eq!(account.stall(cut, None), MS * 200);
    }

    #[test]
    fn direct_again_is_the_first_message_sent_after_the_end_that_goes_directly() {
        let began = Instant::now();
        let arrivals = [Some((5, true)), Some((9, false)), None, Some((5, true))];
        let account = account(began, &arrivals);
        let cut = Played { began: began + MS * 2, ended: began + MS * 10 };
        assert_eq!(account.direct_again(cut), Some(MS * 50));
        assert_eq!(account.direct_again(Played { began, ended: began + MS * 70 }), None);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let Quantiles { p50, p99, max } = Quantiles::of((1..=100).map(|n| MS * n).collect());
        assert_eq!([p50, p99, max], [50.0, 99.0, 100.0]);
        assert_eq!(Quantiles::of(Vec::new()).max.to_bits(), 0);
    }
}
