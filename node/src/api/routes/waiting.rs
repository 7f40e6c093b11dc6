//! Waiting for a send. Every word is the fact: what is reported as stored was receipted by the
//! recipient, what is reported as accepted is on the coordinator's disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peerloom_proto::endpoint::{Event, OutboxState, PathKind, Request, Send, UplinkStatus};
use peerloom_proto::{MessageId, PeerId, UnixMs};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};

use super::send::tracked;
use crate::api::present::{Names, path_word};
use crate::api::shapes::{SendShape, Wait};
use crate::clock::Clock;
use crate::failure::{Failure, SCHEMA_VERSION};
use crate::mesh::{EngineError, Mesh};
use crate::views::MeshView;

/// Records a message and follows it until every recipient is where the caller wants it, or cannot
/// get there now, or time is up.
pub(super) async fn send_and_wait(
    mesh: &Mesh,
    send: Send,
    wait: Wait,
    timeout: Duration,
) -> Result<SendShape, Failure> {
    let began = Instant::now();
    // Before the request: an event between the two must not be missed.
    let mut events = mesh.events();
    let mut tracked = tracked(mesh.request(Request::Send(send)).await?)?;
    if tracked.repeated {
        tracked.read_again(mesh).await?;
    }
    while !tracked.is_done(wait, &mesh.view()) {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => tracked.take(&event),
                Err(RecvError::Lagged(_)) => tracked.read_again(mesh).await?,
                Err(RecvError::Closed) => return Err(EngineError::Stopped.into()),
            },
            // Whether a peer is away shows in the view, without an event of this message.
            () = sleep(LOOK_AGAIN) => {}
            () = sleep_until(began + timeout) => break,
        }
    }
    Ok(tracked.present(&Sight::of(mesh), wait, began.elapsed()))
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Tracked {
    id: MessageId,
    repeated: bool,
    rows: BTreeMap<PeerId, Progress>,
}

#[derive(Debug)]
struct Progress {
    state: OutboxState,
    path: Option<PathKind>,
    at: UnixMs,
}

/// The mesh as it is when an answer is given.
pub(super) struct Sight {
    view: Arc<MeshView>,
    names: Names,
}

impl Sight {
    pub(super) fn of(mesh: &Mesh) -> Self {
        let view = mesh.view();
        Self { names: Names::of(&view), view }
    }
}

impl Tracked {
    pub(super) fn new(id: MessageId, recipients: Vec<(PeerId, OutboxState)>, repeated: bool) -> Self {
        let at = Clock::start().now().wall;
        let rows = recipients.into_iter().map(|(to, state)| (to, Progress { state, path: None, at }));
        Self { id, repeated, rows: rows.collect() }
    }

    fn take(&mut self, event: &Event) {
        if let Event::Outbox { id, to, state, path, at } = event
            && *id == self.id
            && let Some(row) = self.rows.get_mut(to)
        {
            *row = Progress { state: state.clone(), path: path.or(row.path), at: *at };
        }
    }

    async fn read_again(&mut self, mesh: &Mesh) -> Result<(), Failure> {
        for status in mesh.message(self.id).await? {
            if let Some(row) = self.rows.get_mut(&status.to) {
                *row = Progress { state: status.state, path: status.path, at: status.at };
            }
        }
        Ok(())
    }

    fn is_done(&self, wait: Wait, view: &MeshView) -> bool {
        self.rows.iter().all(|(peer, row)| is_done(&row.state, wait, || is_away(view, peer)))
    }

    /// What is known, as of now.
    pub(super) fn present(&self, sight: &Sight, wait: Wait, elapsed: Duration) -> SendShape {
        let Sight { view, names } = sight;
        let least_of = self.rows.iter().min_by_key(|(_, row)| rank(&row.state));
        let least = least_of.map(|(_, row)| row);
        let open = self.rows.iter().find(|(peer, row)| !is_done(&row.state, wait, || is_away(view, peer)));
        let (mut code, mut why) = (least.and_then(|row| row.state.code().map(str::to_owned)), None);
        if let Some((peer, row)) = open {
            let (open_code, open_why) = why_open(&row.state, &view.uplink, &names.handle(peer));
            (code, why) = (code.or(Some(open_code)), Some(open_why));
        }
        let recipients = self.rows.iter().map(|(peer, row)| {
            let mut shape = names.recipient(peer, &row.state, row.path, row.at);
            if row.path == Some(PathKind::Direct) {
                let found = view.peers.iter().find(|status| status.peer == *peer);
                shape.remote = found.and_then(|status| status.remote.clone());
            }
            shape
        });
        SendShape {
            schema_version: SCHEMA_VERSION,
            id: self.id.to_string(),
            state: least.map_or("queued", |row| word(&row.state)).to_owned(),
            path: least.and_then(|row| row.path).map(|path| path_word(path).to_owned()),
            transport: least_of.and_then(|(peer, row)| names.transport(row.path?, peer)).map(str::to_owned),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            repeated: self.repeated,
            recipients: recipients.collect(),
            done: open.is_none(),
            code,
            why,
        }
    }
}

fn is_done(state: &OutboxState, wait: Wait, is_away: impl FnOnce() -> bool) -> bool {
    match wait {
        Wait::None => true,
        Wait::Accepted => state.is_settled() || *state == OutboxState::Accepted,
        Wait::Stored => state.is_settled() || (*state == OutboxState::Accepted && is_away()),
    }
}

/// Known to be away: the coordinator is there and says so.
fn is_away(view: &MeshView, peer: &PeerId) -> bool {
    let online = view.peers.iter().any(|status| status.peer == *peer && status.online);
    view.uplink == UplinkStatus::Connected && !online
}

fn why_open(state: &OutboxState, uplink: &UplinkStatus, handle: &str) -> (String, String) {
    let on_disk = match state {
        OutboxState::Accepted => "it is on the coordinator's disk",
        OutboxState::Pending
        | OutboxState::InFlight
        | OutboxState::Stored
        | OutboxState::Surfaced
        | OutboxState::Rejected(_)
        | OutboxState::Expired(_)
        | OutboxState::Dead(_)
        | OutboxState::Aborted => "it is in this node's outbox",
    };
    match uplink {
        UplinkStatus::Connected => (
            "timed-out".to_owned(),
            format!("{handle} is online and has not stored it yet; {on_disk} and not lost"),
        ),
        UplinkStatus::Connecting => (
            "coordinator-away".to_owned(),
            format!("the coordinator is not connected yet; {on_disk} and not lost"),
        ),
        UplinkStatus::Offline(why) => (
            "coordinator-away".to_owned(),
            format!("the coordinator is not reachable ({why}); {on_disk} and not lost"),
        ),
    }
}

/// The word of `send`: on its way is still queued to the one who asked.
fn word(state: &OutboxState) -> &'static str {
    if *state == OutboxState::InFlight { OutboxState::Pending.name() } else { state.name() }
}

/// Failures come first, then the least advanced.
fn rank(state: &OutboxState) -> u8 {
    match state {
        OutboxState::Rejected(_) | OutboxState::Expired(_) | OutboxState::Dead(_) | OutboxState::Aborted => 0,
        OutboxState::Pending | OutboxState::InFlight => 1,
        OutboxState::Accepted => 2,
        OutboxState::Stored => 3,
        OutboxState::Surfaced => 4,
    }
}

/// How often the view is looked at while nothing happens to the message.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_to_someone_away_is_done_when_the_coordinator_has_it() {
        assert!(is_done(&OutboxState::Accepted, Wait::Stored, || true));
        assert!(!is_done(&OutboxState::Accepted, Wait::Stored, || false));
        assert!(!is_done(&OutboxState::Pending, Wait::Stored, || true));
    }

    #[test]
    fn a_failure_ends_every_wait() {
        let rejected = OutboxState::Rejected("revoked".to_owned());
        for wait in [Wait::Stored, Wait::Accepted, Wait::None] {
            assert!(is_done(&rejected, wait, || false));
        }
    }

    #[test]
    fn the_state_of_a_send_is_that_of_its_worst_recipient() {
        let recipients = vec![
            (PeerId([1; 32]), OutboxState::Stored),
            (PeerId([2; 32]), OutboxState::InFlight),
            (PeerId([3; 32]), OutboxState::Accepted),
        ];
        let tracked = Tracked::new(MessageId([7; 16]), recipients, false);
        let least = tracked.rows.values().min_by_key(|row| rank(&row.state)).unwrap();
        assert_eq!(word(&least.state), "queued");
    }

    #[test]
    fn an_event_of_another_message_changes_nothing() {
        let peer = PeerId([1; 32]);
        let mut tracked = Tracked::new(MessageId([7; 16]), vec![(peer, OutboxState::Pending)], false);
        let event = |id| Event::Outbox {
            id: MessageId([id; 16]),
            to: peer,
            state: OutboxState::Stored,
            path: Some(PathKind::Direct),
            at: UnixMs(5),
        };
        tracked.take(&event(8));
        assert_eq!(tracked.rows[&peer].state, OutboxState::Pending);
        tracked.take(&event(7));
        assert_eq!(tracked.rows[&peer].state, OutboxState::Stored);
        assert_eq!(tracked.rows[&peer].path, Some(PathKind::Direct));
    }
}
