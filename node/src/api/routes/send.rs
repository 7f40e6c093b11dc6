//! Sending: one message with a wait, or many in one commit.

use std::time::Duration;

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use peerloom_proto::endpoint::{Reply, Request, Send};
use peerloom_proto::limits::MESSAGE_LIFE_MAX;
use peerloom_proto::{CONTENT_TYPE_BYTES_MAX, Message, Priority};

use super::waiting::{self, Tracked};
use crate::api::request::{Body, MeshParam, Payload, Selected, message_id};
use crate::api::shapes::{BatchAnswer, SendRequest, SendShape, Wait};
use crate::failure::{ErrorDocument, Failure, Kind};
use crate::mesh::Mesh;

/// Sends a message and waits as far as was asked.
#[utoipa::path(post, path = "/v1/messages", params(MeshParam), request_body = SendRequest, responses(
    (status = 200, body = SendShape), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn send(
    Selected(mesh): Selected,
    Payload(request): Payload<SendRequest>,
) -> Result<Json<SendShape>, Failure> {
    let wait = request.wait.unwrap_or_default();
    let timeout = Duration::from_millis(request.timeout_ms.unwrap_or(TIMEOUT_MS).min(TIMEOUT_MS_MAX));
    let send = read(&mesh, request)?;
    Ok(Json(waiting::send_and_wait(&mesh, send, wait, timeout).await?))
}

/// Sends many messages in one commit and waits for none of them: a JSON array or JSON lines, answered
/// in the same form and order.
#[utoipa::path(post, path = "/v1/messages/batch", params(MeshParam), request_body = Vec<SendRequest>, responses(
    (status = 200, body = Vec<BatchAnswer>), (status = "default", body = ErrorDocument)))]
pub(in crate::api) async fn batch(Selected(mesh): Selected, Body(body): Body) -> Result<Response, Failure> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let sends: Vec<Result<Send, Failure>> =
        if is_array { read_array(&mesh, &body)? } else { read_lines(&mesh, &body) };
    if sends.len() > BATCH_MESSAGES_MAX {
        let text = format!("{} messages are over the limit of {BATCH_MESSAGES_MAX} a batch", sends.len());
        return Err(Failure::new(Kind::TooLarge, "too-large", text).next("send several batches"));
    }
    let answers = record(&mesh, sends).await;
    if is_array {
        return Ok(Json(answers).into_response());
    }
    let mut lines = Vec::with_capacity(answers.len() * 256);
    for answer in &answers {
        serde_json::to_writer(&mut lines, answer).expect("shapes have string keys and finite numbers");
        lines.push(b'\n');
    }
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

/// Records what could be read, in one batch of the engine; answers stand in the order asked.
async fn record(mesh: &Mesh, sends: Vec<Result<Send, Failure>>) -> Vec<BatchAnswer> {
    let began = tokio::time::Instant::now();
    let mut requests = Vec::with_capacity(sends.len());
    let mut answers: Vec<Option<BatchAnswer>> = Vec::with_capacity(sends.len());
    for send in sends {
        match send {
            Ok(send) => {
                requests.push(Request::Send(send));
                answers.push(None);
            }
            Err(failure) => answers.push(Some(BatchAnswer::Failed(failure.to_json()))),
        }
    }
    let mut replies = mesh.request_many(requests).await.into_iter();
    let view = waiting::Sight::of(mesh);
    let fill = |answer: Option<BatchAnswer>| {
        answer.unwrap_or_else(|| {
            let tracked = match replies.next() {
                Some(Ok(reply)) => tracked(reply),
                Some(Err(error)) => Err(error.into()),
                None => Err(crate::mesh::EngineError::Stopped.into()),
            };
            match tracked {
                Ok(tracked) => BatchAnswer::Sent(tracked.present(&view, Wait::None, began.elapsed())),
                Err(failure) => BatchAnswer::Failed(failure.to_json()),
            }
        })
    };
    answers.into_iter().map(fill).collect()
}

/// What the engine says of a send.
pub(super) fn tracked(reply: Reply) -> Result<Tracked, Failure> {
    match reply {
        Reply::Sent { id, recipients, repeated } => Ok(Tracked::new(id, recipients, repeated)),
        Reply::Refused(refusal) => Err(refusal.into()),
        other @ (Reply::Done | Reply::Requeued(_) | Reply::Pong(_) | Reply::Appended(_)) => {
            unreachable!("a send was answered by {other:?}")
        }
    }
}

fn read_array(mesh: &Mesh, body: &Bytes) -> Result<Vec<Result<Send, Failure>>, Failure> {
    let requests: Vec<SendRequest> = serde_json::from_slice(body)
        .map_err(|error| Failure::usage(format!("bad JSON in the body: {error}")))?;
    Ok(requests.into_iter().map(|request| read(mesh, request)).collect())
}

fn read_lines(mesh: &Mesh, body: &Bytes) -> Vec<Result<Send, Failure>> {
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    filled
        .map(|(index, line)| {
            let request = serde_json::from_slice(line).map_err(|error| bad_line(index + 1, &error))?;
            read(mesh, request)
        })
        .collect()
}

/// The parser counts lines within the one line it was given.
fn bad_line(line: usize, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    Failure::usage(format!("bad JSON on line {line}, column {}: {what}", error.column()))
        .next(r#"a line looks like {"to":["build"],"text":"hello"}"#)
}

/// Checks what was asked and finds its recipients.
fn read(mesh: &Mesh, request: SendRequest) -> Result<Send, Failure> {
    let SendRequest { to, text, content_b64, content_type, id, reply_to, priority, life_s, .. } = request;
    if to.is_empty() {
        return Err(Failure::usage("no recipient").next("name at least one in `to`"));
    }
    let mut recipients = Vec::with_capacity(to.len());
    for name in &to {
        let peer = mesh.resolve(name)?;
        if !recipients.contains(&peer) {
            recipients.push(peer);
        }
    }
    let (content, default_type) = match (text, content_b64) {
        (Some(text), None) => (Bytes::from(text), "text/plain"),
        (None, Some(encoded)) => {
            let content = URL_SAFE_NO_PAD
                .decode(encoded)
                .map_err(|error| Failure::usage(format!("content_b64 is not unpadded base64url: {error}")))?;
            (Bytes::from(content), "application/octet-stream")
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(
                Failure::usage("a message has either text or content_b64").next("give exactly one of them")
            );
        }
    };
    let content_type = content_type.unwrap_or_else(|| default_type.to_owned());
    check_content_type(&content_type)?;
    Ok(Send {
        id: id.map(|id| message_id(&id)).transpose()?,
        to: recipients,
        message: Message { content_type, content, reply_to: reply_to.map(|id| message_id(&id)).transpose()? },
        priority: read_priority(priority.as_deref())?,
        life: read_life(life_s)?,
    })
}

fn check_content_type(text: &str) -> Result<(), Failure> {
    let sound = (1..=CONTENT_TYPE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !sound {
        return Err(Failure::usage(format!(
            "a content type has 1 to {CONTENT_TYPE_BYTES_MAX} printable ASCII characters"
        )));
    }
    if text.starts_with(RESERVED_TYPES) {
        return Err(Failure::usage(format!(
            "content types beginning with {RESERVED_TYPES} are the node's own"
        )));
    }
    Ok(())
}

fn read_priority(text: Option<&str>) -> Result<Priority, Failure> {
    match text {
        None | Some("next") => Ok(Priority::Next),
        Some("low") => Ok(Priority::Low),
        Some("now") => Ok(Priority::Now),
        Some(other) => Err(Failure::usage(format!("{other:?} is no priority")).next("use low, next or now")),
    }
}

fn read_life(life_s: Option<u64>) -> Result<Duration, Failure> {
    let life = life_s.map_or(MESSAGE_LIFE_MAX, Duration::from_secs);
    if life.is_zero() || life > MESSAGE_LIFE_MAX {
        return Err(Failure::usage(format!(
            "a message lives from 1 s to {} s (7 d), not {} s",
            MESSAGE_LIFE_MAX.as_secs(),
            life.as_secs()
        )));
    }
    Ok(life)
}

/// As long as a person waits for a command.
const TIMEOUT_MS: u64 = 10_000;
/// A call that waits longer should watch the events.
const TIMEOUT_MS_MAX: u64 = 600_000;
/// One batch is one commit; larger ones gain nothing.
const BATCH_MESSAGES_MAX: usize = 10_000;
/// What the node consumes itself is never accepted from programs.
const RESERVED_TYPES: &str = "application/vnd.peerloom.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_has_three_words() {
        assert_eq!(read_priority(None), Ok(Priority::Next));
        assert_eq!(read_priority(Some("now")), Ok(Priority::Now));
        assert_eq!(read_priority(Some("urgent")).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn a_message_lives_at_most_a_week() {
        assert_eq!(read_life(None), Ok(MESSAGE_LIFE_MAX));
        assert_eq!(read_life(Some(60)), Ok(Duration::from_secs(60)));
        assert_eq!(read_life(Some(0)).unwrap_err().kind, Kind::Usage);
        assert_eq!(read_life(Some(604_801)).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn a_program_cannot_send_what_the_node_itself_consumes() {
        assert!(check_content_type("application/vnd.peerloom.signal").is_err());
        assert!(check_content_type("application/json").is_ok());
        assert!(check_content_type("text/plain\n").is_err());
        assert!(check_content_type("").is_err());
    }
}
