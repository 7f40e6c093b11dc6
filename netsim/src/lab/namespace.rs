//! Network namespaces: made by `ip`, entered by one thread at a time.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::enter::fed;

/// A network namespace of the lab, by name. It lasts as long as the lab.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes them all in one go.
    pub(super) fn make(names: &[String]) -> anyhow::Result<Vec<Self>> {
        let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        fed("ip", &["-batch", "-"], &lines).context("failed to make the namespaces")?;
        let made: Vec<Self> = names.iter().map(|name| Self { name: name.clone() }).collect();
        made.iter().try_for_each(|namespace| namespace.ip("link set lo up\n"))?;
        Ok(made)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Lines for `ip -batch` inside.
    pub(super) fn ip(&self, lines: &str) -> anyhow::Result<()> {
        fed("ip", &["-n", &self.name, "-batch", "-"], lines)
            .map(drop)
            .with_context(|| format!("in namespace {self}: {lines}"))
    }

    /// Sets a kernel parameter below `/proc/sys/net`.
    pub(super) fn set(&self, parameter: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/net/{parameter}");
        self.within(|| std::fs::write(&path, value).with_context(|| format!("failed to set {path}")))
    }

    /// Does something on a thread that has entered it. Sockets opened and processes started there
    /// stay there.
    pub(crate) fn within<T: Send>(
        &self,
        act: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let path = format!("/run/netns/{}", self.name);
                let file = File::open(&path).with_context(|| format!("there is no {path}"))?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("failed to enter {path}"))?;
                act()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
