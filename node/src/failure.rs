//! What a verb or an API call ends with when it fails: a class with its exit code and HTTP status,
//! a code for programs, a sentence that says what was tried and found, and what to do next.
//!
//! One document serves both doors: the API's error body and the CLI's `--json` error are the same
//! bytes, so the CLI passes on what the daemon said.

mod causes;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of every JSON shape of the CLI and the local API.
pub const SCHEMA_VERSION: u32 = 1;

/// The class of a failure: who should act, and how a script sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It did not work; the text says why. Exit 1, HTTP 500.
    Failed,
    /// What was asked makes no sense or a value is missing. Exit 2, HTTP 400.
    Usage,
    /// What was given is over a limit. Exit 2, HTTP 413.
    TooLarge,
    /// This home has no mesh, or not that one. Exit 3, HTTP 404.
    NoMesh,
    /// A name means nobody or several. Exit 4, HTTP 404.
    NotFound,
    /// Someone with authority said no. Exit 5, HTTP 403.
    Denied,
    /// Nobody answers: the daemon, the coordinator or the peer. Exit 6, HTTP 503.
    Unreachable,
    /// Not reached in time; queued, not lost. Exit 7, HTTP 504.
    TimedOut,
    /// The same name for something else. Exit 8, HTTP 409.
    Conflict,
    /// A queue is full or someone is throttled: later. Exit 1, HTTP 429.
    Busy,
    /// No space left: nothing was recorded. Exit 1, HTTP 507.
    DiskFull,
}

impl Kind {
    /// The process's exit code (product.md).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::Busy | Self::DiskFull => 1,
            Self::Usage | Self::TooLarge => 2,
            Self::NoMesh => 3,
            Self::NotFound => 4,
            Self::Denied => 5,
            Self::Unreachable => 6,
            Self::TimedOut => 7,
            Self::Conflict => 8,
        }
    }

    /// The status of the API's answer.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Failed => 500,
            Self::Usage => 400,
            Self::TooLarge => 413,
            Self::NoMesh | Self::NotFound => 404,
            Self::Denied => 403,
            Self::Unreachable => 503,
            Self::TimedOut => 504,
            Self::Conflict => 409,
            Self::Busy => 429,
            Self::DiskFull => 507,
        }
    }

    /// The class behind an answer of the API.
    pub const fn of_answer(status: u16, exit_code: u8) -> Self {
        match (status, exit_code) {
            (400, _) => Self::Usage,
            (413, _) => Self::TooLarge,
            (429, _) => Self::Busy,
            (507, _) => Self::DiskFull,
            (_, 2) => Self::Usage,
            (_, 3) => Self::NoMesh,
            (_, 4) => Self::NotFound,
            (_, 5) => Self::Denied,
            (_, 6) => Self::Unreachable,
            (_, 7) => Self::TimedOut,
            (_, 8) => Self::Conflict,
            (_, _) => Self::Failed,
        }
    }
}

/// A failure on its way to a person or a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its class.
    pub kind: Kind,
    /// For programs: stable, kebab-case; the protocol's reason name where there is one.
    pub code: String,
    /// What was tried and what was found, without a final period.
    pub text: String,
    /// What to do next: a command or a sentence; may be empty.
    pub next: String,
}

impl Failure {
    /// A failure without advice.
    pub fn new(kind: Kind, code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, code: code.into(), text: text.into(), next: String::new() }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// Wrong or missing input.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "usage", text)
    }

    /// An error with its chain of sources, as one sentence.
    pub fn failed(code: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::new(Kind::Failed, code, chain(error))
    }

    /// The document of the API and of `--json`.
    pub fn to_json(&self) -> ErrorDocument {
        ErrorDocument {
            schema_version: SCHEMA_VERSION,
            error: ErrorBody { code: self.code.clone(), text: self.text.clone(), next: self.next.clone() },
            exit_code: self.kind.exit_code(),
        }
    }

    /// Reads the API's document back.
    pub fn from_json(status: u16, document: ErrorDocument) -> Self {
        let ErrorBody { code, text, next } = document.error;
        Self { kind: Kind::of_answer(status, document.exit_code), code, text, next }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// `{"schema_version":1,"error":{…},"exit_code":n}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorDocument {
    /// 1.
    pub schema_version: u32,
    /// What happened.
    pub error: ErrorBody,
    /// What the CLI exits with.
    #[serde(default)]
    pub exit_code: u8,
}

/// What happened and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// For programs; stable.
    pub code: String,
    /// What was tried and found.
    pub text: String,
    /// What to do next; may be empty.
    #[serde(default)]
    pub next: String,
}

/// `error: source: its source`, leaving out a source whose text the error already ends with.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 11] = [
        Kind::Failed,
        Kind::Usage,
        Kind::TooLarge,
        Kind::NoMesh,
        Kind::NotFound,
        Kind::Denied,
        Kind::Unreachable,
        Kind::TimedOut,
        Kind::Conflict,
        Kind::Busy,
        Kind::DiskFull,
    ];

    #[test]
    fn a_failure_keeps_its_class_on_the_way_through_the_api() {
        for kind in KINDS {
            let failure = Failure::new(kind, "some-code", "what was found").next("what to do");
            let read = Failure::from_json(kind.http_status(), failure.to_json());
            assert_eq!(read, failure);
        }
    }

    #[test]
    fn the_error_document_is_the_documented_one() {
        let failure = Failure::new(Kind::NotFound, "unknown-peer", "no member is called \"bob\"")
            .next("peerloom peers");
        assert_eq!(
            serde_json::to_string(&failure.to_json()).unwrap(),
            r#"{"schema_version":1,"error":{"code":"unknown-peer","text":"no member is called \"bob\"","next":"peerloom peers"},"exit_code":4}"#
        );
    }

    #[test]
    fn exit_codes_are_those_of_the_product() {
        let codes: Vec<u8> = KINDS.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes, [1, 2, 2, 3, 4, 5, 6, 7, 8, 1, 1]);
    }
}
