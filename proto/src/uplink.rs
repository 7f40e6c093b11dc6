//! The uplink: this node's session with its coordinator (protocol.md §6).
//!
//! Down → opening → challenged → welcomed → ready. The log comes first, then mail is claimed. Both
//! sides ping; a silent link is dropped; a lost one is tried again after a growing, jittered pause.

mod answers;
mod doubt;
mod recovered;
mod served;

use std::collections::BTreeMap;
use std::time::Duration;

use answers::Request;
use bytes::Bytes;

use crate::chain::Pending;
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Event, Output, Refusal, Token, UplinkStatus, earliest};
use crate::entropy::Entropy;
use crate::hello::{Answer, Challenge, HelloError, HelloRole, SignedHello, StoreMark, verify_welcome};
use crate::id::PeerId;
use crate::limits::{CLOCK_SKEW_MAX, HANDSHAKE_TIMEOUT, LINK_SILENCE_MAX, PING_EVERY};
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::{SignedBytes, ToCoordinator, ToNode};

/// The uplink's state.
#[derive(Debug)]
pub(crate) struct Uplink {
    state: State,
    status: UplinkStatus,
    /// Attempts since the last welcome.
    attempts: u32,
    /// Sockets of this process, counted for the coordinator.
    counter: u64,
    heard: Monotonic,
    pinged: Monotonic,
    /// Since when it may have died unnoticed.
    doubted: Option<Monotonic>,
    /// The coordinator asked for a rest.
    paused_until: Option<Monotonic>,
    /// It said when to come back.
    come_back_at: Option<Monotonic>,
    skew_ms: Option<i64>,
    /// Both clocks when the coordinator last agreed with them.
    vouched: Option<Now>,
    /// The furthest place of the coordinator's store that it told of.
    mark: Option<StoreMark>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    /// Since when log entries are asked for.
    log_asked: Option<Monotonic>,
    /// When the coordinator last answered anything it was asked.
    answered_at: Monotonic,
}

#[derive(Debug)]
enum State {
    Down {
        retry_at: Monotonic,
    },
    Opening {
        since: Monotonic,
    },
    AwaitChallenge {
        since: Monotonic,
    },
    AwaitWelcome {
        since: Monotonic,
        hello: Box<SignedHello>,
        /// From where the coordinator first and last asked for log entries that it lost.
        asked: Option<(u64, u64)>,
    },
    /// Welcomed; the log is being fetched.
    Syncing,
    Ready,
}

/// A request under way at the coordinator.
#[derive(Debug)]
enum Asked {
    Append(Pending),
    Plain { token: Token },
}

impl Uplink {
    /// Connects at the first timeout.
    pub(crate) fn new(now: Monotonic, mark: Option<StoreMark>) -> Self {
        Self {
            state: State::Down { retry_at: now },
            status: UplinkStatus::Connecting,
            attempts: 0,
            counter: 0,
            heard: now,
            pinged: now,
            doubted: None,
            paused_until: None,
            come_back_at: None,
            skew_ms: None,
            vouched: None,
            mark,
            requests: BTreeMap::new(),
            next_request: 1,
            log_asked: None,
            answered_at: now,
        }
    }

    /// Whether envelopes may be put.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Whether the coordinator knows who speaks.
    pub(crate) fn is_welcomed(&self) -> bool {
        matches!(self.state, State::Syncing | State::Ready)
    }

    pub(crate) fn status(&self) -> &UplinkStatus {
        &self.status
    }

    pub(crate) fn skew_ms(&self) -> Option<i64> {
        self.skew_ms
    }

    /// Whether the coordinator agreed with this wall clock, and it did not jump since.
    pub(crate) fn vouches_for(&self, now: Now) -> bool {
        self.is_ready() && self.vouched.is_some() && !self.clock_jumped(now)
    }

    /// Whether this wall clock jumped since a coordinator last agreed with it.
    pub(crate) fn clock_jumped(&self, now: Now) -> bool {
        self.vouched.as_ref().is_some_and(|then| {
            let expected = then.wall.plus(now.monotonic.since(then.monotonic));
            now.wall.distance(expected) > CLOCK_SKEW_MAX
        })
    }

    /// Whether the coordinator asked not to be sent envelopes yet.
    pub(crate) fn is_paused(&self, now: Monotonic) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        let due = match &self.state {
            State::Down { retry_at } => *retry_at,
            State::Opening { since }
            | State::AwaitChallenge { since }
            | State::AwaitWelcome { since, .. } => *since + HANDSHAKE_TIMEOUT,
            State::Syncing | State::Ready => {
                (self.heard + LINK_SILENCE_MAX).min(self.heard.max(self.pinged) + PING_EVERY)
            }
        };
        earliest([Some(due), self.paused_until, self.doubt_ends()])
    }

    /// The pause before the next attempt: doubling, up to half a minute, spread over its upper half so
    /// that a restarted coordinator is not met by all at once.
    fn pause(&mut self, now: Monotonic, entropy: &mut Entropy) -> Monotonic {
        if let Some(at) = self.come_back_at.take() {
            return at;
        }
        let full = RETRY_FIRST.saturating_mul(1 << self.attempts.min(7)).min(RETRY_MAX);
        self.attempts = self.attempts.saturating_add(1);
        let half = u64::try_from(full.as_millis() / 2).unwrap_or(u64::MAX);
        now + Duration::from_millis(half + entropy.below(half))
    }
}

impl Endpoint {
    pub(crate) fn uplink_timeout(&mut self, now: Now) {
        let answer_due = self.answer_due();
        let uplink = &mut self.uplink;
        if uplink.paused_until.is_some_and(|until| until <= now.monotonic) {
            uplink.paused_until = None;
        }
        match &uplink.state {
            State::Down { retry_at } if *retry_at <= now.monotonic => {
                uplink.state = State::Opening { since: now.monotonic };
                self.out(Output::ConnectUplink);
            }
            State::Opening { since }
            | State::AwaitChallenge { since }
            | State::AwaitWelcome { since, .. }
                if *since + HANDSHAKE_TIMEOUT <= now.monotonic =>
            {
                self.drop_uplink(now, "the coordinator did not answer in time");
            }
            State::Syncing | State::Ready if uplink.heard + LINK_SILENCE_MAX <= now.monotonic => {
                self.drop_uplink(now, "the coordinator went silent");
            }
            State::Syncing | State::Ready if answer_due.is_some_and(|due| due <= now.monotonic) => {
                self.drop_uplink(now, "the coordinator left a request without an answer");
            }
            State::Syncing | State::Ready
                if uplink.doubt_ends().is_some_and(|ends| ends <= now.monotonic) =>
            {
                self.drop_uplink(now, "the coordinator did not answer after the network changed");
            }
            State::Ready if uplink.clock_jumped(now) => self.clock_jumped(now),
            State::Syncing | State::Ready
                if uplink.heard.max(uplink.pinged) + PING_EVERY <= now.monotonic =>
            {
                uplink.pinged = now.monotonic;
                self.out(Output::SendUplink(ToCoordinator::Ping { nonce: 0 }.encode()));
            }
            State::Down { .. }
            | State::Opening { .. }
            | State::AwaitChallenge { .. }
            | State::AwaitWelcome { .. }
            | State::Syncing
            | State::Ready => {}
        }
    }

    pub(crate) fn uplink_opened(&mut self, now: Now) {
        self.uplink.heard = now.monotonic;
        self.uplink.pinged = now.monotonic;
        self.uplink.state = State::AwaitChallenge { since: now.monotonic };
    }

    pub(crate) fn uplink_closed(&mut self, now: Now, why: String) {
        if matches!(self.uplink.state, State::Down { .. }) {
            return;
        }
        let retry_at = match self.uplink.doubted.take() {
            Some(_) => now.monotonic,
            None => self.uplink.pause(now.monotonic, &mut self.entropy),
        };
        self.uplink.state = State::Down { retry_at };
        self.delivery.path_closed(Via::Uplink);
        self.delivery.copies_lost();
        self.offers_lost();
        // What was said last may have been lost with it.
        for peer in self.links.take_signals() {
            self.delivery.conversation(peer).unheard();
        }
        self.peers.lose_coordinator();
        for asked in self.uplink.unanswered() {
            match asked {
                Asked::Append(pending) => self.append_later(now, pending),
                Asked::Plain { token } => self.refuse(token, Refusal::CoordinatorAway),
            }
        }
        self.show_uplink(UplinkStatus::Offline(why));
    }

    /// Ends this node's presence before its socket closes.
    pub(crate) fn say_goodbye(&mut self) {
        if self.uplink.is_ready() {
            self.out(Output::SendUplink(ToCoordinator::Goodbye.encode()));
        }
    }

    /// Closes from this side.
    fn drop_uplink(&mut self, now: Now, why: &str) {
        self.out(Output::CloseUplink(why.to_owned()));
        self.uplink_closed(now, why.to_owned());
    }

    fn show_uplink(&mut self, status: UplinkStatus) {
        if self.uplink.status != status {
            self.uplink.status = status.clone();
            self.event(Event::Uplink(status));
        }
    }

    /// Nothing that comes is judged by this clock: the next hello compares it with the coordinator's
    /// again, and says what is wrong.
    fn clock_jumped(&mut self, now: Now) {
        self.drop_uplink(now, "this machine's clock jumped");
    }

    pub(crate) fn uplink_frame(&mut self, now: Now, frame: &Bytes) {
        self.uplink.heard = now.monotonic;
        self.uplink.doubted = None;
        if self.uplink.is_ready() && self.uplink.clock_jumped(now) {
            return self.clock_jumped(now);
        }
        let frame = match ToNode::decode(frame) {
            Ok(frame) => frame,
            Err(error) => {
                return self.drop_uplink(now, &format!("the coordinator sent a malformed frame: {error}"));
            }
        };
        match (&self.uplink.state, frame) {
            (State::AwaitChallenge { .. }, ToNode::Challenge { challenge }) => {
                self.challenged(now, &challenge)
            }
            (State::AwaitWelcome { .. }, ToNode::Welcome { welcome }) => self.welcomed(now, &welcome),
            (State::AwaitWelcome { .. }, ToNode::LogWanted { from, sig }) => self.log_wanted(now, from, &sig),
            (_, ToNode::Error { code, text }) => self.drop_uplink(now, &format!("{text} ({code})")),
            (_, ToNode::Ping { nonce }) => {
                self.out(Output::SendUplink(ToCoordinator::Pong { nonce }.encode()))
            }
            (_, ToNode::Pong { .. }) => {}
            (_, ToNode::GoingAway { reconnect_after_ms }) => {
                let at = now.monotonic + Duration::from_millis(reconnect_after_ms).min(RETRY_MAX);
                self.uplink.come_back_at = Some(at);
            }
            (State::Syncing | State::Ready, frame) => self.served(now, frame),
            (
                State::Down { .. }
                | State::Opening { .. }
                | State::AwaitChallenge { .. }
                | State::AwaitWelcome { .. },
                _,
            ) => self.drop_uplink(now, "the coordinator spoke before its welcome"),
        }
    }

    fn challenged(&mut self, now: Now, challenge: &Bytes) {
        self.uplink.counter += 1;
        let answer = Answer {
            identity: &self.me.key,
            role: HelloRole::ControlPlane,
            auth: None,
            mesh: self.me.mesh,
            coordinators: self.roster.coordinators(),
            origin: &self.me.origin,
            nonce: self.entropy.bytes(),
            features: &[],
            head: self.roster.head(),
            instance: self.me.instance,
            counter: self.uplink.counter,
            mark: self.uplink.mark,
            now: now.wall,
        };
        match SignedHello::answer(challenge, &answer) {
            Ok(hello) => {
                let signed = SignedBytes { stmt: hello.stmt().clone(), sig: hello.sig() };
                let frame = ToCoordinator::Hello { hello: signed, attestation: Bytes::new() };
                self.uplink.state =
                    State::AwaitWelcome { since: now.monotonic, hello: Box::new(hello), asked: None };
                self.uplink.skew_ms =
                    Challenge::parse(challenge).ok().map(|theirs| skew_ms(now.wall, theirs.ts));
                self.out(Output::SendUplink(frame.encode()));
            }
            Err(error) => self.hello_failed(now, &error),
        }
    }

    fn hello_failed(&mut self, now: Now, error: &HelloError) {
        if let HelloError::Skew { ours, theirs } = error {
            self.uplink.skew_ms = Some(skew_ms(*ours, *theirs));
            let minutes = ours.distance(*theirs).as_secs() / 60;
            let which = if ours > theirs { "ahead of" } else { "behind" };
            let text = format!(
                "this machine's clock is {minutes} minutes {which} the coordinator's (at most {} are allowed): \
                 set it right; nothing is lost meanwhile",
                CLOCK_SKEW_MAX.as_secs() / 60
            );
            return self.drop_uplink(now, &text);
        }
        self.drop_uplink(now, &error.to_string());
    }

    fn welcomed(&mut self, now: Now, welcome: &SignedBytes) {
        let State::AwaitWelcome { hello, asked, .. } = &self.uplink.state else { return };
        let asked = *asked;
        let welcome = match verify_welcome(&welcome.stmt, &welcome.sig, hello, now.wall) {
            Ok(welcome) => welcome,
            Err(error) => return self.hello_failed(now, &error),
        };
        let ahead = i128::from(now.wall.0) - i128::from(welcome.ts.0);
        self.uplink.skew_ms = i64::try_from(ahead).ok();
        self.uplink.vouched = Some(now);
        self.uplink.attempts = 0;
        self.uplink.state = State::Syncing;
        self.show_uplink(UplinkStatus::Connected);
        if let Some(store) = welcome.store {
            self.coordinator_store(now, store);
        }
        if let Some((first, _)) = asked.filter(|(_, last)| *last < welcome.head.size) {
            self.log_returned(first);
        }
        if !self.coordinator_head(now, welcome.head) {
            self.synced(now);
        }
    }

    /// The log is as long as the coordinator's: mail may flow.
    pub(crate) fn synced(&mut self, now: Now) {
        if !matches!(self.uplink.state, State::Syncing) {
            return;
        }
        self.uplink.state = State::Ready;
        self.publish_prekey(now);
        let members = self.roster.members().map(|member| member.id).filter(|id| *id != self.me.id);
        let members: Vec<PeerId> = members.take(PREKEYS_ASKED_MAX).collect();
        if !members.is_empty() {
            self.out(Output::SendUplink(ToCoordinator::PrekeyGet { members }.encode()));
        }
        let claim = ToCoordinator::Claim { messages: CLAIM_MESSAGES, bytes: CLAIM_BYTES };
        self.out(Output::SendUplink(claim.encode()));
        self.appends_again(now);
        self.relay_returned(now);
    }

    pub(crate) fn publish_prekey(&mut self, now: Now) {
        if self.uplink.is_ready()
            && let Some(prekey) = self.keyring.current(now.wall).cloned()
        {
            self.out(Output::SendUplink(ToCoordinator::PrekeyPut { prekey }.encode()));
        }
    }
}

/// How far `ours` is ahead of `theirs`, milliseconds.
fn skew_ms(ours: UnixMs, theirs: UnixMs) -> i64 {
    let size = i64::try_from(ours.0.abs_diff(theirs.0)).unwrap_or(i64::MAX);
    if ours < theirs { -size } else { size }
}

/// First pause before another attempt; doubles from there.
const RETRY_FIRST: Duration = Duration::from_millis(250);

/// Longest pause before another attempt. An hour of outage costs 120 attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The shortest pause after a refused signal: a coordinator whose clock is wrong refuses each of them,
/// and they must not go round at the speed of the network.
const SIGNAL_REST: Duration = Duration::from_secs(5);

/// Longest rest a coordinator can ask for at once.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Unreceipted messages taken at once: a commit of hundreds never starves the socket.
const CLAIM_MESSAGES: u64 = 2_048;

/// Unreceipted bytes taken at once.
const CLAIM_BYTES: u64 = 8 << 20;

/// Members whose prekeys are asked for at connect: as many as a coordinator answers at once. Others are
/// sealed to by the key in the log, and teach theirs with their first message.
const PREKEYS_ASKED_MAX: usize = 256;
