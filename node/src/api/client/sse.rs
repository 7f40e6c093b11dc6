//! Reads Server-Sent Events (WHATWG HTML §9.2.6): `event`, `id` and `data` of each block.

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::failure::{Failure, Kind};

/// An event of the daemon's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Its type.
    pub(crate) name: String,
    /// Its data: JSON.
    pub(crate) data: String,
}

/// The stream. Ends when the daemon stops.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next event; none when the daemon ended the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<ServerEvent>, Failure> {
        loop {
            while let Some(block) = take_block(&mut self.buffer) {
                if let Some(event) = parse(&block) {
                    return Ok(Some(event));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => {
                    let text = format!("the daemon ended the stream of events: {error}");
                    return Err(
                        Failure::new(Kind::Unreachable, "daemon-gone", text).next("peerloom up --detach")
                    );
                }
                None => return Ok(None),
            }
        }
    }
}

/// Takes the bytes up to the next empty line.
fn take_block(buffer: &mut BytesMut) -> Option<String> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
    let block = buffer.split_to(end + 2);
    Some(String::from_utf8_lossy(&block).into_owned())
}

/// None for a block without data, such as a keep-alive comment.
fn parse(block: &str) -> Option<ServerEvent> {
    let mut event = ServerEvent::default();
    let mut data = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "data" => data.push(value),
            _ => {}
        }
    }
    if data.is_empty() {
        return None;
    }
    event.data = data.join("\n");
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_whole_however_they_arrive() {
        let mut buffer = BytesMut::from("event: inbox\nid: 3\ndata: {\"a\":1}\n\nevent: x");
        let block = take_block(&mut buffer).unwrap();
        assert_eq!(
            parse(&block).unwrap(),
            ServerEvent { name: "inbox".to_owned(), data: "{\"a\":1}".to_owned() }
        );
        assert_eq!(take_block(&mut buffer), None);
        buffer.extend_from_slice(b"\ndata: 2\n\n");
        assert_eq!(parse(&take_block(&mut buffer).unwrap()).unwrap().data, "2");
    }

    #[test]
    fn a_keep_alive_is_no_event() {
        assert_eq!(parse(": keep-alive\n\n"), None);
    }
}
