//! `logs`: the end of the log file, and what comes. Works without a daemon.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::{Caller, DONE, Ended};
use crate::cli::LogsArgs;
use crate::failure::{Failure, Kind, SCHEMA_VERSION};
use crate::render::Out;
use crate::render::text::printable;

pub(super) async fn logs(caller: &Caller, args: &LogsArgs) -> Ended {
    let path = caller.home.log_file();
    let mut log = Log::open(&path)?;
    let mut end = std::collections::VecDeque::new();
    while let Some(line) = log.next_line()? {
        if end.len() == args.lines {
            end.pop_front();
        }
        if args.lines > 0 {
            end.push_back(line);
        }
    }
    for line in &end {
        show(caller.out, line)?;
    }
    if !args.follow {
        caller.out.next("peerloom logs -f, or peerloom doctor");
        return Ok(DONE);
    }
    loop {
        while let Some(line) = log.next_line()? {
            show(caller.out, &line)?;
        }
        tokio::select! {
            () = sleep(LOOK_AGAIN) => {}
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map(|()| DONE).map_err(|error| Failure::failed("signal", &error));
            }
        }
        log.follow_rotation(&path)?;
    }
}

struct Log {
    reader: BufReader<File>,
    inode: u64,
    partial: String,
}

impl Log {
    fn open(path: &Path) -> Result<Self, Failure> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.ino(), file)));
        match opened {
            Ok((inode, file)) => Ok(Self { reader: BufReader::new(file), inode, partial: String::new() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("there is no log yet: {} does not exist", path.display());
                Err(Failure::new(Kind::NotFound, "no-log", text).next("peerloom up --detach"))
            }
            Err(error) => {
                Err(Failure::new(Kind::Failed, "log", format!("failed to read {}: {error}", path.display())))
            }
        }
    }

    /// The next whole line; none if it is not there yet.
    fn next_line(&mut self) -> Result<Option<String>, Failure> {
        let mut bytes = Vec::new();
        self.reader.read_until(b'\n', &mut bytes).map_err(|error| Failure::failed("log", &error))?;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        if !self.partial.ends_with('\n') {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.partial);
        Ok(Some(line.trim_end().to_owned()))
    }

    /// Goes on in the file that took this one's name, or at the start of one that was cut.
    fn follow_rotation(&mut self, path: &Path) -> Result<(), Failure> {
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
        let position = self.reader.stream_position().map_err(|error| Failure::failed("log", &error))?;
        if metadata.ino() != self.inode {
            *self = Self::open(path)?;
        } else if metadata.len() < position {
            self.reader.seek(SeekFrom::Start(0)).map_err(|error| Failure::failed("log", &error))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct LogLine<'a> {
    schema_version: u32,
    line: &'a str,
}

fn show(out: Out, line: &str) -> Result<(), Failure> {
    out.both(&LogLine { schema_version: SCHEMA_VERSION, line }, || vec![printable(line)])
}

/// Fast enough to look alive, slow enough to cost nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_rotated_log_is_followed_into_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peerloom.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.next_line().unwrap().as_deref(), Some("one"));
        assert_eq!(log.next_line().unwrap(), None);
        File::options().append(true).open(&path).unwrap().write_all(b"o\n").unwrap();
        assert_eq!(log.next_line().unwrap().as_deref(), Some("two"));

        std::fs::rename(&path, dir.path().join("peerloom.log.1")).unwrap();
        std::fs::write(&path, "three\n").unwrap();
        log.follow_rotation(&path).unwrap();
        assert_eq!(log.next_line().unwrap().as_deref(), Some("three"));
    }

    #[test]
    fn a_missing_log_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let failure = Log::open(&dir.path().join("peerloom.log")).err().unwrap();
        assert_eq!(failure.kind.exit_code(), 4);
    }
}
