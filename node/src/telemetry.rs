//! Logs: to stderr, and to files in the home that rotate by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::Config;
use crate::home::{Home, HomeError};

/// Why nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The home cannot be made.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The filter in the configuration means nothing.
    #[error("the log filter {filter:?} is not understood")]
    Filter {
        /// What it says.
        filter: String,
        /// Where it goes wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The file cannot be opened.
    #[error("failed to open {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This process logs somewhere already.
    #[error("logging was set up before")]
    Twice(#[from] TryInitError),
}

/// Sends this process's events to stderr and to the home's log files. Once in a process.
pub fn install(home: &Home, config: &Config) -> Result<(), TelemetryError> {
    // What somebody wrote stands last, and wins.
    let filter = EnvFilter::try_new(format!("{QUIETER},{}", config.log))
        .map_err(|source| TelemetryError::Filter { filter: config.log.clone(), source })?;
    home.create()?;
    let path = home.log_file();
    let file = RotatingFile::open(path.clone(), FILE_BYTES_MAX)
        .map_err(|source| TelemetryError::File { path, source })?;
    let file = fmt::layer().with_ansi(false).with_writer(LogFile(Arc::new(Mutex::new(file))));
    let stderr = fmt::layer().with_ansi(false).with_writer(io::stderr);
    tracing_subscriber::registry().with(filter).with(file).with(stderr).try_init()?;
    Ok(())
}

/// WebRTC's crates tell at `info` what every session does and at `warn` what strangers send.
const QUIETER: &str = "rtc=error";

/// One log file: enough for weeks at `info`.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Files kept, the one that is written to included; the oldest is dropped.
const FILES_MAX: u32 = 4;

/// A file that starts anew when it is full; its predecessors are named `.1` (the youngest) and up.
#[derive(Debug)]
struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: u64,
}

impl RotatingFile {
    fn open(path: PathBuf, size_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, size_max })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..FILES_MAX).rev() {
            let younger = if age == 1 { self.path.clone() } else { aged(&self.path, age - 1) };
            match fs::rename(younger, aged(&self.path, age)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        *self = Self::open(self.path.clone(), self.size_max)?;
        Ok(())
    }
}

fn aged(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.size_max {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Shares the file among threads; an event is one write.
struct LogFile(Arc<Mutex<RotatingFile>>);

struct LogWriter(Arc<Mutex<RotatingFile>>);

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LogWriter;
    fn make_writer(&'a self) -> LogWriter {
        LogWriter(self.0.clone())
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A panic of another thread between two lines leaves the file whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peerloom.log");
        let mut log = RotatingFile::open(path.clone(), 10).unwrap();
        for line in ["one...\n", "two...\n", "three..\n", "four..\n", "five..\n", "six...\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(path.clone()), "six...\n");
        assert_eq!(read(aged(&path, 1)), "five..\n");
        assert_eq!(read(aged(&path, 3)), "three..\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_file_of_an_earlier_run_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peerloom.log");
        fs::write(&path, "before\n").unwrap();
        let mut log = RotatingFile::open(path.clone(), 100).unwrap();
        log.write_all(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
    }
}
