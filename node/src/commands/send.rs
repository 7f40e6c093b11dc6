//! `send`: one message.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Caller, DONE, Ended};
use crate::api::shapes::{RecipientShape, SendRequest, SendShape};
use crate::cli::SendArgs;
use crate::failure::{Failure, Kind};
use crate::render::progress::Progress;
use crate::render::text::one_line;

pub(super) async fn send(caller: &Caller, args: SendArgs) -> Ended {
    let (to, text) = recipients_and_text(args.peer_and_text, args.to)?;
    let (text, content_b64) = if text == "-" { read_stdin()? } else { (Some(text), None) };
    let request = SendRequest {
        to,
        text,
        content_b64,
        content_type: args.content_type,
        id: args.id,
        reply_to: args.reply_to,
        priority: args.priority,
        life_s: args.life.map(|life| life.as_secs()),
        wait: Some(args.wait.unwrap_or_default()),
        timeout_ms: Some(u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX)),
    };
    let waiting = Progress::spinner(caller.out, "sending");
    let sent: SendShape = caller.client()?.post("/v1/messages", &request).await?;
    drop(waiting);
    caller.out.both(&sent, || lines(&sent))?;
    let code = exit_code(&sent);
    if code != DONE
        && let Some(why) = &sent.why
    {
        caller.out.note(one_line(why));
    }
    caller.out.next(format!("peerloom message {}", sent.id));
    Ok(code)
}

/// What stands where: with `--to`, a single word is the text.
fn recipients_and_text(
    mut words: Vec<String>,
    mut to: Vec<String>,
) -> Result<(Vec<String>, String), Failure> {
    let text = words.pop();
    match (words.pop(), text) {
        (Some(peer), Some(text)) => {
            to.insert(0, peer);
            Ok((to, text))
        }
        (None, Some(text)) if !to.is_empty() => Ok((to, text)),
        (None, Some(peer)) => Err(Failure::usage("no TEXT was given")
            .next(format!("peerloom send {peer} TEXT, or - to read standard input"))),
        (_, None) => Err(Failure::usage("no PEER and TEXT were given")
            .next("peerloom send PEER TEXT, or peerloom send --to PEER TEXT, or peerloom send --batch")),
    }
}

/// The content from standard input: text if it is UTF-8, else bytes.
fn read_stdin() -> Result<(Option<String>, Option<String>), Failure> {
    let mut content = Vec::new();
    let read = std::io::stdin().lock().take(STDIN_BYTES_MAX + 1).read_to_end(&mut content);
    read.map_err(|error| Failure::failed("stdin", &error))?;
    if content.len() as u64 > STDIN_BYTES_MAX {
        let text = format!(
            "standard input holds more than {STDIN_BYTES_MAX} bytes, far over the limit of a message"
        );
        return Err(
            Failure::new(Kind::TooLarge, "too-large", text).next("split the content into several messages")
        );
    }
    Ok(match String::from_utf8(content) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(URL_SAFE_NO_PAD.encode(error.as_bytes()))),
    })
}

fn lines(sent: &SendShape) -> Vec<String> {
    sent.recipients.iter().map(|recipient| line(sent, recipient)).collect()
}

/// `stored at build in 41 ms, direct (quic 203.0.113.7:52114)`.
fn line(sent: &SendShape, recipient: &RecipientShape) -> String {
    let RecipientShape { handle, state, code, path, transport, remote, .. } = recipient;
    let verb = match state.as_str() {
        "stored" | "surfaced" => format!("{state} at {handle}"),
        "rejected" | "expired" | "dead" => {
            return format!("{state} for {handle}: {}", code.as_deref().unwrap_or("no reason given"));
        }
        "in-flight" => format!("queued for {handle}"),
        _ => format!("{state} for {handle}"),
    };
    let repeated = if sent.repeated { " (sent before under this id)" } else { "" };
    let way = match (path.as_deref(), transport, remote) {
        (None, _, _) => String::new(),
        (Some(path), Some(transport), Some(remote)) => format!(", {path} ({transport} {remote})"),
        (Some(path), _, _) => format!(", {path}"),
    };
    let away = if state == "accepted" && sent.done { "; it is away and gets it when it returns" } else { "" };
    format!("{verb} in {} ms{way}{away}{repeated}", sent.elapsed_ms)
}

/// Exit code of what became of a send.
pub(super) fn exit_code(sent: &SendShape) -> u8 {
    match (sent.state.as_str(), sent.code.as_deref()) {
        ("rejected", _) => Kind::Denied.exit_code(),
        ("expired" | "dead" | "aborted", _) => Kind::Failed.exit_code(),
        (_, Some("coordinator-away")) => Kind::Unreachable.exit_code(),
        (_, Some(_)) if !sent.done => Kind::TimedOut.exit_code(),
        (_, _) => DONE,
    }
}

/// Larger than any message: beyond it the daemon need not be asked.
const STDIN_BYTES_MAX: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn sent(state: &str, done: bool, code: Option<&str>) -> SendShape {
        SendShape {
            schema_version: 1,
            id: "07".repeat(16),
            state: state.to_owned(),
            path: None,
            transport: None,
            elapsed_ms: 41,
            repeated: false,
            recipients: Vec::new(),
            done,
            code: code.map(str::to_owned),
            why: None,
        }
    }

    fn recipient(state: &str, path: Option<&str>, remote: Option<&str>) -> RecipientShape {
        RecipientShape {
            handle: "build".to_owned(),
            key: String::new(),
            state: state.to_owned(),
            code: None,
            path: path.map(str::to_owned),
            transport: Some("quic".to_owned()),
            remote: remote.map(str::to_owned),
            at_ms: 0,
            replaced_by: None,
        }
    }

    #[test]
    fn with_to_a_single_word_is_the_text() {
        let found = recipients_and_text(words(&["hello"]), words(&["a", "b"])).unwrap();
        assert_eq!(found, (words(&["a", "b"]), "hello".to_owned()));
        let found = recipients_and_text(words(&["a", "hello"]), words(&["b"])).unwrap();
        assert_eq!(found, (words(&["a", "b"]), "hello".to_owned()));
    }

    #[test]
    fn a_missing_text_is_a_usage_error_that_names_it() {
        let failure = recipients_and_text(words(&["build"]), Vec::new()).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.text.contains("TEXT"), "{}", failure.text);
    }

    #[test]
    fn the_exit_code_says_what_became_of_it() {
        assert_eq!(exit_code(&sent("stored", true, None)), 0);
        assert_eq!(exit_code(&sent("accepted", true, None)), 0);
        assert_eq!(exit_code(&sent("accepted", false, Some("timed-out"))), 7);
        assert_eq!(exit_code(&sent("queued", false, Some("coordinator-away"))), 6);
        assert_eq!(exit_code(&sent("rejected", true, Some("revoked"))), 5);
        assert_eq!(exit_code(&sent("expired", true, Some("expired"))), 1);
    }

    #[test]
    fn the_line_for_people_is_the_documented_one() {
        let stored = recipient("stored", Some("direct"), Some("203.0.113.7:52114"));
        assert_eq!(
            line(&sent("stored", true, None), &stored),
            "stored at build in 41 ms, direct (quic 203.0.113.7:52114)"
        );
        let away = recipient("accepted", Some("queue"), None);
        assert_eq!(
            line(&sent("accepted", true, None), &away),
            "accepted for build in 41 ms, queue; it is away and gets it when it returns"
        );
    }
}
