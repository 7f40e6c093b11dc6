//! The workspace as text, for the facts about its shape.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's root directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the workspace")
}

/// A Rust file of the workspace.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path from the root.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// The text with what is compiled for tests only left blank, so that line numbers stay.
    pub fn without_tests(&self) -> String {
        let mut left = String::with_capacity(self.text.len());
        let mut skipping: Option<&str> = None;
        for line in self.text.lines() {
            let indent = &line[..line.len() - line.trim_start().len()];
            if skipping.is_none() && line.trim() == "#[cfg(test)]" {
                skipping = Some(indent);
            }
            match skipping {
                // The item ends with a brace, or a semicolon, as far in as it began.
                Some(begin) if indent == begin && (line.trim() == "}" || line.ends_with([';', ','])) => {
                    skipping = None
                }
                Some(_) => {}
                None => left.push_str(line),
            }
            left.push('\n');
        }
        left
    }

    /// Whether it is a test, a bench or harness as a whole.
    pub fn is_test(&self) -> bool {
        let is = |part: &str| self.path.starts_with(part);
        is("tests/")
            || self.path.contains("/benches/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
    }

    /// The lines that are code, numbered from 1: no comments, no tests.
    pub fn code_lines(&self) -> Vec<(usize, String)> {
        let text = self.without_tests();
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.to_owned()));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
    }
}

/// Every Rust file of a crate, by path.
///
/// # Panics
/// When the crate is not there.
pub fn rust_files(of: &str) -> Vec<SourceFile> {
    let files: Vec<SourceFile> = files_with(&root().join(of), &["rs"]);
    assert!(!files.is_empty(), "{of} holds no Rust file");
    files
}

/// Every Rust file of the workspace, by path.
pub fn all_rust_files() -> Vec<SourceFile> {
    ["proto", "transports", "coordinator", "node", "netsim", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .collect()
}

/// Files below a directory with one of these endings, build directories left out, by path.
pub fn files_with(dir: &Path, endings: &[&str]) -> Vec<SourceFile> {
    let mut found = Vec::new();
    collect(dir, endings, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(dir: &Path, endings: &[&str], found: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(dir).expect("a source directory can be read") {
        let path: PathBuf = entry.expect("a source directory can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "corpus" | "artifacts") {
                collect(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            let relative = path.strip_prefix(root()).expect("it stands below the root").display().to_string();
            found.push(SourceFile {
                path: relative,
                text: fs::read_to_string(&path).expect("sources are UTF-8"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_for_tests_is_left_out_and_lines_keep_their_numbers() {
        let text = "a\n#[cfg(test)]\nuse x;\nb\nimpl T {\n    #[cfg(test)]\n    fn f() {\n        c\n    }\n    d\n}\n#[cfg(test)]\nmod tests {\n    e\n}\n";
        let file = SourceFile { path: "a.rs".to_owned(), text: text.to_owned() };
        let kept: Vec<(usize, String)> =
            file.code_lines().into_iter().filter(|(_, line)| !line.is_empty()).collect();
        let kept: Vec<(usize, &str)> = kept.iter().map(|(at, line)| (*at, line.trim())).collect();
        assert_eq!(kept, [(1, "a"), (4, "b"), (5, "impl T {"), (10, "d"), (11, "}")]);
    }
}
