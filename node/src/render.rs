//! What reaches a terminal or a script: lines, JSON, hints and bars.
//!
//! Results go to standard output, everything else to standard error. Whatever a peer wrote passes
//! [`text::printable`] on its way to people; in JSON the same characters are escaped, so that
//! nothing is lost to programs.

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::{Failure, Kind};

/// Code of the failure that means nobody reads standard output any more; it is not reported.
pub(crate) const STDOUT_CLOSED: &str = "stdout-closed";

/// Where a verb's words go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
    stderr_is_terminal: bool,
}

impl Out {
    /// For people, or for programs with `json`.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, stderr_is_terminal: io::stderr().is_terminal() }
    }

    /// Whether programs read this.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether bars may be drawn.
    pub(crate) const fn may_draw(self) -> bool {
        !self.json && self.stderr_is_terminal
    }

    /// A result for people: a line on standard output. Nothing in JSON mode.
    pub(crate) fn line(self, line: impl AsRef<str>) -> Result<(), Failure> {
        if self.json { Ok(()) } else { write_stdout(line.as_ref()) }
    }

    /// A result for programs: one JSON document on one line. Nothing outside JSON mode.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        if self.json { write_stdout(&json_line(value)) } else { Ok(()) }
    }

    /// A result for either: the value for programs, the lines for people.
    pub(crate) fn both(
        self,
        value: &impl Serialize,
        lines: impl FnOnce() -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.json {
            return self.json(value);
        }
        lines().iter().try_for_each(|line| self.line(line))
    }

    /// Beside the result: on standard error, for people only.
    pub(crate) fn note(self, note: impl AsRef<str>) {
        if !self.json {
            write_stderr(note.as_ref());
        }
    }

    /// The likely next command.
    pub(crate) fn next(self, next: impl AsRef<str>) {
        self.note(format!("next: {}", next.as_ref()));
    }

    /// How a verb failed: JSON on standard output, or lines on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.code == STDOUT_CLOSED {
            return;
        }
        if self.json {
            // Nobody is left to tell when standard output is closed.
            write_stdout(&json_line(&failure.to_json())).unwrap_or(());
            return;
        }
        write_stderr(&format!("error: {}", text::printable(&failure.text)));
        if !failure.next.is_empty() {
            write_stderr(&format!("next: {}", text::printable(&failure.next)));
        }
    }
}

/// One line of JSON in which nothing can command a terminal.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    let plain = serde_json::to_string(value).expect("shapes have string keys and finite numbers");
    text::escape_in_json(&plain)
}

fn write_stdout(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::new(Kind::Failed, STDOUT_CLOSED, "standard output is closed")
        } else {
            Failure::failed("stdout", &error)
        }
    })
}

fn write_stderr(line: &str) {
    // A closed standard error leaves nobody to tell.
    writeln!(io::stderr().lock(), "{line}").unwrap_or(());
}

/// Asks on the terminal; none without one. With [`Echo::Off`] what is typed stays invisible.
pub(crate) fn ask(question: &str, echo: Echo) -> Result<Option<String>, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    write!(io::stderr().lock(), "{question}: ").map_err(|error| Failure::failed("stderr", &error))?;
    let hidden = match echo {
        Echo::On => None,
        Echo::Off => Some(HiddenInput::begin()?),
    };
    let mut answer = String::new();
    let read = stdin.read_line(&mut answer);
    if hidden.is_some() {
        write_stderr("");
    }
    read.map_err(|error| Failure::failed("stdin", &error))?;
    Ok(Some(answer.trim().to_owned()))
}

/// Whether what is typed can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// As usual.
    On,
    /// For secrets.
    Off,
}

/// Switches the terminal's echo off for as long as it lives.
struct HiddenInput {
    before: rustix::termios::Termios,
}

impl HiddenInput {
    fn begin() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| Failure::failed("terminal", &io::Error::from(error));
        let before = rustix::termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &silent)
            .map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // A terminal that went away needs no echo.
        rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &self.before)
            .unwrap_or(());
    }
}
