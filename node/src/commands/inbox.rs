//! `inbox`: the history, or what comes.

use std::time::Duration;

use tokio::time::sleep;

use super::{Caller, DONE, Ended};
use crate::api::client::{Client, Events, segment};
use crate::api::shapes::{Cursor, CursorMove, EventShape, InboxPage, InboxShape};
use crate::cli::InboxArgs;
use crate::clock::Clock;
use crate::failure::{Failure, Kind};
use crate::render::Out;
use crate::render::text::{one_line, printable};
use crate::render::time::clock;

pub(super) async fn inbox(caller: &Caller, args: InboxArgs) -> Ended {
    let client = caller.client()?;
    if args.follow {
        return follow(caller, &client, args).await;
    }
    let messages = match args {
        InboxArgs { cursor: None, limit: Some(limit), from, .. } if limit <= PAGE_MAX => {
            page(&client, None, limit, from.as_deref()).await?.messages
        }
        InboxArgs { cursor: Some(cursor), limit, from, .. } => {
            let after = read_cursor(&client, &cursor).await?;
            read(&client, after, from.as_deref(), limit.map(End::Oldest)).await?
        }
        InboxArgs { cursor: None, limit, from, .. } => {
            read(&client, 0, from.as_deref(), limit.map(End::Newest)).await?
        }
    };
    for message in &messages {
        show(caller.out, message)?;
    }
    if messages.is_empty() {
        caller.out.note("no messages");
    }
    caller.out.next("peerloom inbox --follow");
    Ok(DONE)
}

/// Which end a limit keeps.
#[derive(Clone, Copy, Debug)]
enum End {
    Oldest(usize),
    Newest(usize),
}

async fn read(
    client: &Client,
    mut after: u64,
    from: Option<&str>,
    end: Option<End>,
) -> Result<Vec<InboxShape>, Failure> {
    let mut messages = Vec::new();
    loop {
        let found = page(client, Some(after), PAGE_MAX, from).await?;
        if found.messages.is_empty() {
            return Ok(messages);
        }
        after = found.next_after;
        messages.extend(found.messages);
        match end {
            Some(End::Oldest(limit)) if messages.len() >= limit => {
                messages.truncate(limit);
                return Ok(messages);
            }
            Some(End::Newest(limit)) => drop(messages.drain(..messages.len().saturating_sub(limit))),
            Some(End::Oldest(_)) | None => {}
        }
    }
}

async fn page(
    client: &Client,
    after: Option<u64>,
    limit: usize,
    from: Option<&str>,
) -> Result<InboxPage, Failure> {
    let query = [
        ("after", after.map(|after| after.to_string())),
        ("limit", Some(limit.to_string())),
        ("from", from.map(str::to_owned)),
    ];
    client.get("/v1/inbox", &query).await
}

async fn read_cursor(client: &Client, name: &str) -> Result<u64, Failure> {
    let cursor: Cursor = client.get(&format!("/v1/cursors/{}", segment(name)), &[]).await?;
    Ok(cursor.position)
}

/// Prints what the cursor has not passed, then what comes, and moves it past what was printed.
async fn follow(caller: &Caller, client: &Client, args: InboxArgs) -> Ended {
    let name = args.cursor.unwrap_or_else(|| CURSOR.to_owned());
    let after = read_cursor(client, &name).await?;
    let query =
        [("types", Some("inbox".to_owned())), ("after", Some(after.to_string())), ("from", args.from)];
    let events = client.events(&query).await?;
    let mut reader = Reader { out: caller.out, client, name, printed: None, unmoved: 0, left: args.limit };
    reader.run(events).await
}

struct Reader<'a> {
    out: Out,
    client: &'a Client,
    name: String,
    /// The last position printed that the cursor has not passed.
    printed: Option<u64>,
    unmoved: usize,
    /// Messages still wanted.
    left: Option<usize>,
}

impl Reader<'_> {
    async fn run(&mut self, mut events: Events) -> Ended {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while self.left != Some(0) {
            tokio::select! {
                event = events.next() => match event? {
                    None => {
                        self.move_cursor().await?;
                        return Err(Failure::new(Kind::Unreachable, "daemon-gone", "the node stopped")
                            .next("peerloom up --detach"));
                    }
                    Some(event) => self.take(&event.data).await?,
                },
                // One write on disk for everything that came together.
                () = sleep(MOVE_AFTER), if self.printed.is_some() => self.move_cursor().await?,
                _ = &mut interrupted => break,
            }
        }
        self.move_cursor().await?;
        Ok(DONE)
    }

    async fn take(&mut self, data: &str) -> Result<(), Failure> {
        // Other events were not asked for, and newer daemons may know more of them.
        let Ok(EventShape::Inbox { message }) = serde_json::from_str(data) else { return Ok(()) };
        show(self.out, &message)?;
        self.printed = Some(message.position);
        self.unmoved += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.unmoved >= MOVE_EVERY { self.move_cursor().await } else { Ok(()) }
    }

    async fn move_cursor(&mut self) -> Result<(), Failure> {
        let Some(position) = self.printed else { return Ok(()) };
        let path = format!("/v1/cursors/{}", segment(&self.name));
        let moved: Cursor = self.client.put(&path, &CursorMove { position }).await?;
        debug_assert!(moved.position >= position, "a cursor never moves back");
        self.printed = None;
        self.unmoved = 0;
        Ok(())
    }
}

fn show(out: Out, message: &InboxShape) -> Result<(), Failure> {
    let now = Clock::start().now().wall.0;
    out.both(message, || vec![line(message, now)])
}

/// `10:42:07  laptop  hello from behind a NAT  direct`; further lines of the text are indented, so
/// that none can look like a message of its own.
fn line(message: &InboxShape, now_ms: u64) -> String {
    let text = match (&message.text, &message.content_b64) {
        (Some(text), _) => printable(text).trim_end().replace('\n', "\n          "),
        (None, content) => {
            let bytes = content.as_ref().map_or(0, |content| content.len() * 3 / 4);
            format!("[{bytes} bytes of {}]", one_line(&message.content_type))
        }
    };
    let time = clock(message.received_at_ms, now_ms);
    format!("{time}  {}  {text}  {}", one_line(&message.from.handle), message.path)
}

/// The cursor of people who follow without naming one.
const CURSOR: &str = "cli";
/// As the API has it.
const PAGE_MAX: usize = 1_000;
/// A cursor is moved when nothing more came for so long,
const MOVE_AFTER: Duration = Duration::from_millis(20);
/// or after so many messages.
const MOVE_EVERY: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shapes::Name;

    fn message(text: &str) -> InboxShape {
        InboxShape {
            schema_version: 1,
            id: "07".repeat(16),
            from: Name { handle: "laptop".to_owned(), key: "ab".repeat(32) },
            channel: "dm".to_owned(),
            text: Some(text.to_owned()),
            sent_at_ms: 0,
            received_at_ms: 38_527_000,
            path: "direct".to_owned(),
            transport: Some("quic".to_owned()),
            priority: "next".to_owned(),
            reply_to: None,
            position: 1,
            content_type: "text/plain".to_owned(),
            content_b64: None,
            surfaced_at_ms: None,
        }
    }

    #[test]
    fn a_line_shows_time_sender_text_and_path() {
        assert_eq!(
            line(&message("hello from behind a NAT"), 38_528_000),
            "10:42:07  laptop  hello from behind a NAT  direct"
        );
    }

    #[test]
    fn a_text_can_neither_command_the_terminal_nor_fake_a_message() {
        let hostile = message("\u{1b}[2Jhi\n10:42:08  admin  send me the key  direct");
        assert_eq!(
            line(&hostile, 38_528_000),
            "10:42:07  laptop  hi\n          10:42:08  admin  send me the key  direct  direct"
        );
    }

    #[test]
    fn bytes_are_counted_and_not_printed() {
        let mut binary = message("");
        binary.text = None;
        binary.content_b64 = Some("AAECAwQF".to_owned());
        binary.content_type = "image/png".to_owned();
        assert_eq!(line(&binary, 38_528_000), "10:42:07  laptop  [6 bytes of image/png]  direct");
    }
}
