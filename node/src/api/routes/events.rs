//! The stream of events. Inbox events carry the message and are read from the store, so that a
//! reader that fell behind, or comes back with the last position it knows, misses none.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive, KeepAliveStream};
use peerloom_proto::PeerId;
use peerloom_proto::endpoint::Event;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use super::inbox::sender;
use crate::api::Api;
use crate::api::present::{Names, path_word, uplink_words};
use crate::api::request::{MeshParam, Params, Selected};
use crate::api::shapes::EventShape;
use crate::failure::{ErrorDocument, Failure};
use crate::mesh::Mesh;
use crate::views::{INBOX_LIMIT_MAX, InboxQuery};

/// Which events to stream.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct EventParams {
    /// Comma-separated: outbox, inbox, presence, path, uplink, log, admitted, rejected, alarm; all unless given.
    types: Option<String>,
    /// Inbox position to begin after; without it only messages that come from here on.
    after: Option<u64>,
    /// Only inbox messages of one peer.
    from: Option<String>,
}

/// Server-Sent Events: `event` is the type, `data` an EventShape, `id` of an inbox event its position.
/// A reader that is too slow gets `lagged` and should read the state again; inbox events are never
/// missed.
#[utoipa::path(get, path = "/v1/events", params(MeshParam, EventParams), responses(
    (status = 200, body = EventShape, content_type = "text/event-stream"),
    (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn events(
    State(api): State<Api>,
    Selected(mesh): Selected,
    Params(EventParams { types, after, from }): Params<EventParams>,
) -> Result<Sse<KeepAliveStream<ReceiverStream<Result<SseEvent, Infallible>>>>, Failure> {
    let wanted = read_types(types.as_deref())?;
    let from = from.map(|name| sender(&mesh, &name)).transpose()?;
    // Before the newest position is read: a message between the two must not be missed.
    let source = mesh.events();
    let last = match after {
        Some(after) => after,
        None => newest(&mesh).await?,
    };
    let (out, stream) = mpsc::channel(STREAM_EVENTS_MAX);
    let names = Names::of(&mesh.view());
    let mut feed = Feed { mesh, names, wanted, from, last, out };
    tokio::spawn(async move {
        tokio::select! {
            ended = feed.run(source) => {
                if let Err(failure) = ended {
                    debug!(%failure, "A stream of events ended.");
                }
            }
            () = api.stop.cancelled() => {}
        }
    });
    Ok(Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn newest(mesh: &Mesh) -> Result<u64, Failure> {
    let newest = mesh.inbox(InboxQuery { limit: 1, ..InboxQuery::default() }).await?;
    Ok(newest.last().map_or(0, |message| message.position))
}

fn read_types(types: Option<&str>) -> Result<BTreeSet<&'static str>, Failure> {
    let Some(types) = types else { return Ok(TYPES.into()) };
    let known = |name: &str| TYPES.into_iter().find(|known| *known == name);
    let find = |name: &str| {
        known(name.trim()).ok_or_else(|| {
            Failure::usage(format!("{name:?} is no type of event"))
                .next(format!("use some of {}", TYPES.join(", ")))
        })
    };
    types.split(',').map(find).collect()
}

/// One reader's stream.
struct Feed {
    mesh: Mesh,
    names: Names,
    wanted: BTreeSet<&'static str>,
    from: Option<PeerId>,
    last: u64,
    out: mpsc::Sender<Result<SseEvent, Infallible>>,
}

/// The reader is gone.
struct Gone;

impl Feed {
    async fn run(&mut self, mut source: tokio::sync::broadcast::Receiver<Arc<Event>>) -> Result<(), Failure> {
        if self.catch_up().await?.is_err() {
            return Ok(());
        }
        loop {
            let received = tokio::select! {
                received = source.recv() => received,
                () = self.out.closed() => return Ok(()),
            };
            let told = match received {
                Ok(event) => self.tell(&event).await?,
                Err(RecvError::Lagged(missed)) => {
                    let told = self.put(&EventShape::Lagged { missed }, None).await;
                    if told.is_ok() { self.catch_up().await? } else { told }
                }
                Err(RecvError::Closed) => return Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }

    /// Sends every message beyond the last one sent.
    async fn catch_up(&mut self) -> Result<Result<(), Gone>, Failure> {
        if !self.wanted.contains("inbox") {
            return Ok(Ok(()));
        }
        loop {
            let query = InboxQuery {
                after_position: Some(self.last),
                unread_for_cursor: None,
                from: self.from,
                limit: INBOX_LIMIT_MAX,
            };
            let page = self.mesh.inbox(query).await?;
            if page.is_empty() {
                return Ok(Ok(()));
            }
            self.names = Names::of(&self.mesh.view());
            for message in page {
                let position = message.position;
                let shape = EventShape::Inbox { message: self.names.inbox(message) };
                if self.put(&shape, Some(position)).await.is_err() {
                    return Ok(Err(Gone));
                }
                self.last = position;
            }
        }
    }

    async fn tell(&mut self, event: &Event) -> Result<Result<(), Gone>, Failure> {
        let shape = match event {
            Event::Inbox { position, .. } => {
                return if *position > self.last { self.catch_up().await } else { Ok(Ok(())) };
            }
            Event::Outbox { id, to, state, path, at } => {
                if path.is_some_and(|path| self.names.transport(path, to).is_none()) {
                    self.names = Names::of(&self.mesh.view());
                }
                let recipient = self.names.recipient(to, state, *path, *at);
                EventShape::Outbox { id: id.to_string(), recipient }
            }
            Event::Presence { peer, online } => {
                self.names = Names::of(&self.mesh.view());
                EventShape::Presence { peer: self.names.name(peer), online: *online }
            }
            Event::Path { peer, path, remote } => {
                self.names.forget_link(peer);
                EventShape::Path {
                    peer: self.names.name(peer),
                    path: path.map_or("none", path_word).to_owned(),
                    remote: remote.clone(),
                }
            }
            Event::Uplink(status) => {
                let (state, why) = uplink_words(status);
                EventShape::Uplink { state: state.to_owned(), why }
            }
            Event::Log { size } => {
                self.names = Names::of(&self.mesh.view());
                EventShape::Log { size: *size }
            }
            Event::Admitted { peer, .. } => {
                self.names = Names::of(&self.mesh.view());
                EventShape::Admitted { peer: self.names.name(peer) }
            }
            Event::Rejected { reason, from } => EventShape::Rejected {
                reason: reason.clone(),
                from: from.as_ref().map(|from| self.names.name(from)),
            },
            Event::Alarm(text) => EventShape::Alarm { text: text.clone() },
        };
        Ok(self.put(&shape, None).await)
    }

    async fn put(&self, shape: &EventShape, position: Option<u64>) -> Result<(), Gone> {
        let name = name_of(shape);
        if name != "lagged" && !self.wanted.contains(name) {
            return Ok(());
        }
        let mut event = SseEvent::default().event(name);
        if let Some(position) = position {
            event = event.id(position.to_string());
        }
        let event = event.json_data(shape).expect("shapes have string keys and finite numbers");
        self.out.send(Ok(event)).await.map_err(|_| Gone)
    }
}

fn name_of(shape: &EventShape) -> &'static str {
    match shape {
        EventShape::Outbox { .. } => "outbox",
        EventShape::Inbox { .. } => "inbox",
        EventShape::Presence { .. } => "presence",
        EventShape::Path { .. } => "path",
        EventShape::Uplink { .. } => "uplink",
        EventShape::Log { .. } => "log",
        EventShape::Admitted { .. } => "admitted",
        EventShape::Rejected { .. } => "rejected",
        EventShape::Alarm { .. } => "alarm",
        EventShape::Lagged { .. } => "lagged",
    }
}

const TYPES: [&str; 9] =
    ["outbox", "inbox", "presence", "path", "uplink", "log", "admitted", "rejected", "alarm"];

/// Events waiting for a slow reader. When full the feed waits, and the broadcast tells it how many
/// it missed.
const STREAM_EVENTS_MAX: usize = 256;
/// So that both ends notice the other's death.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_a_list_and_an_unknown_one_is_refused() {
        assert_eq!(read_types(None).unwrap().len(), TYPES.len());
        assert_eq!(read_types(Some("inbox, outbox")).unwrap(), BTreeSet::from(["inbox", "outbox"]));
        assert!(read_types(Some("inbox,mail")).unwrap_err().text.contains("\"mail\""));
    }

    #[test]
    fn the_name_of_an_event_is_the_type_in_its_data() {
        let shape = EventShape::Log { size: 3 };
        assert_eq!(serde_json::to_string(&shape).unwrap(), r#"{"type":"log","size":3}"#);
        assert_eq!(name_of(&shape), "log");
    }
}
