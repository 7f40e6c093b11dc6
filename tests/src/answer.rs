//! What a program said when it ended.

use serde_json::Value;

/// A command, how it ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As it was run, for messages.
    pub command: String,
    /// Exit code; −1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Goes on only with this exit code.
    ///
    /// # Panics
    /// With everything the program said, on any other.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code of {}\nstdout: {}\nstderr: {}",
            self.command, self.stdout, self.stderr
        );
        self
    }

    /// Exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Standard output as exactly one JSON document with a `schema_version`.
    #[track_caller]
    pub fn json(&self) -> Value {
        let lines = self.lines();
        let [value] = &lines[..] else {
            panic!("{} printed {} documents, not one", self.command, lines.len())
        };
        value.clone()
    }

    /// Standard output as JSON lines, each with a `schema_version`.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| -> Value {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("{} printed no JSON ({error}): {line:?}\n{}", self.command, self.stderr)
            });
            assert_eq!(value["schema_version"], 1, "schema_version of {} in {line}", self.command);
            value
        };
        self.stdout.lines().map(parse).collect()
    }

    /// This exit code, and a complete JSON error document on standard output; gives its code word.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        let answer = self.exits(code);
        let document = answer.json();
        let error = &document["error"];
        for field in ["code", "text", "next"] {
            assert!(error[field].is_string(), "error.{field} of {} in {document}", answer.command);
        }
        assert!(!text_of(error, "text").is_empty(), "{} gave no text: {document}", answer.command);
        assert_eq!(document["exit_code"], code, "{}: {document}", answer.command);
        text_of(error, "code")
    }

    /// The text of the JSON error on standard output.
    #[track_caller]
    pub fn error_text(&self) -> String {
        text_of(&self.json()["error"], "text")
    }
}

/// A text in a document.
#[track_caller]
fn text_of(value: &Value, field: &str) -> String {
    let text = value[field].as_str();
    text.unwrap_or_else(|| panic!("{field} is no text in {value}")).to_owned()
}
