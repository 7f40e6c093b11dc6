//! A disk that is soon full: a small file system of its own, seen only by what is run through
//! [`SmallDisk::enter`]. Needs mount namespaces, which root has and other users often have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wait::{self, SOON};
use crate::{Answer, Process, run};

/// A mounted small file system, in a mount namespace that one waiting process holds.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    holder: Process,
}

impl SmallDisk {
    /// Mounts one of so many bytes at `path`, or says why this machine does not let us.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let log = path.with_extension("mount.out");
        let mut command = Command::new("unshare");
        command.args(namespaces()).args(["--mount", "sh", "-c"]);
        command.arg(format!(
            "mount -t tmpfs -o size={bytes},mode=0700 tmpfs '{}' && echo mounted && exec sleep 3600",
            path.display()
        ));
        let mut holder = Process::start("the mount", command, &log);
        wait::until("a small disk to be mounted", SOON, || {
            if holder.printed().contains("mounted") || holder.ended().is_some() {
                Ok(())
            } else {
                Err(holder.tail())
            }
        });
        if holder.ended().is_some() {
            return Err(format!("no small disk can be mounted here: {}", holder.printed().trim()));
        }
        Ok(Self { path: path.to_owned(), holder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The words before a command that make it see the disk.
    pub fn enter(&self) -> Vec<String> {
        let mut words =
            vec!["nsenter".to_owned(), format!("--target={}", self.holder.pid()), "--mount".to_owned()];
        if !is_root() {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.push("--".to_owned());
        words
    }

    /// The root directory of those who see the disk, as this process reaches it.
    pub(crate) fn seen_from_outside(&self) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/proc/{}/root", self.holder.pid())))
    }

    /// Runs a command that sees the disk.
    pub fn run(&self, words: &[&str]) -> Answer {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(words);
        run(command, b"")
    }

    /// Leaves not one byte free.
    pub fn fill(&self) {
        let filler = self.filler();
        // Small blocks last, so that no crumb is left.
        for size in ["bs=65536", "bs=4096", "bs=512"] {
            let into = format!("of={filler}");
            self.run(&["dd", "if=/dev/zero", &into, "oflag=append", "conv=notrunc", size]).exits(1);
        }
    }

    /// Gives the space back.
    pub fn free(&self) {
        self.run(&["rm", &self.filler()]).ok();
    }

    fn filler(&self) -> String {
        self.path.join("filler").display().to_string()
    }
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn namespaces() -> &'static [&'static str] {
    if is_root() { &[] } else { &["--user", "--map-root-user"] }
}
