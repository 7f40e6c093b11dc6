//! Hearing of changed addresses when they change.

use std::time::Duration;

use tokio::time::sleep;

/// Says when this machine's interfaces or addresses may have changed.
#[derive(Debug)]
pub struct AddressWatch {
    #[cfg(target_os = "linux")]
    news: Option<tokio::net::UnixDatagram>,
}

impl AddressWatch {
    /// Must be called on a Tokio runtime.
    #[cfg(target_os = "linux")]
    pub fn new() -> Self {
        let news = linux::listen();
        if let Err(error) = &news {
            tracing::debug!(%error, "The kernel tells no news of addresses; they are looked at instead.");
        }
        Self { news: news.ok() }
    }

    /// Must be called on a Tokio runtime.
    #[cfg(not(target_os = "linux"))]
    pub fn new() -> Self {
        Self {}
    }

    /// Waits until something may have changed: within milliseconds where the kernel tells it, else
    /// [`LOOK_EVERY`]. Several changes at once may count as one. Cancel safe.
    pub async fn changed(&self) {
        #[cfg(target_os = "linux")]
        if let Some(news) = &self.news {
            linux::news(news).await;
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Default for AddressWatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    use tokio::net::UnixDatagram;

    // rtnetlink(7): interfaces and the addresses of both families.
    const RTMGRP_LINK: u32 = 0x1;
    const RTMGRP_IPV4_IFADDR: u32 = 0x10;
    const RTMGRP_IPV6_IFADDR: u32 = 0x100;

    /// The kernel's news. To tokio a datagram socket is one, whatever its family.
    pub(super) fn listen() -> io::Result<UnixDatagram> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))?;
        UnixDatagram::from_std(socket.into())
    }

    /// Waits for news and takes what there is. What it says is looked up afresh, so that an overrun,
    /// which is news too, loses nothing.
    pub(super) async fn news(socket: &UnixDatagram) {
        let mut cut_off = [0; 16];
        if let Err(error) = socket.recv(&mut cut_off).await {
            tracing::trace!(%error, "More changes at once than the kernel keeps.");
        }
        while socket.try_recv(&mut cut_off).is_ok() {}
    }
}

/// How often addresses are looked at where the kernel does not tell: listing them is one system call.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::process::Command;

    use tokio::time::timeout;

    use super::*;
    use crate::udp::{CandidateScope, candidates};

    /// In a network namespace of its own, where addresses can be changed.
    #[test]
    fn a_changed_address_is_heard_of_before_it_would_be_looked_at() {
        let this = std::env::current_exe().unwrap();
        let inside = ["--exact", "udp::watch::tests::inside_the_namespace", "--ignored", "--nocapture"];
        let run = Command::new("unshare").arg("-Urn").arg(this).args(inside).output();
        match run {
            Ok(run) if String::from_utf8_lossy(&run.stdout).contains("test result") => {
                assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
                assert!(String::from_utf8_lossy(&run.stdout).contains("1 passed"));
            }
            refused => eprintln!("SKIPPED: no network namespace to be had: {refused:?}"),
        }
    }

    #[tokio::test]
    #[ignore = "changes addresses; a_changed_address_is_heard_of runs it in a namespace"]
    async fn inside_the_namespace() {
        let watch = AddressWatch::new();
        let ours = || candidates("[::]:9".parse().unwrap(), CandidateScope::WithLoopback);
        let extra: SocketAddr = "192.0.2.7:9".parse().unwrap();
        assert!(ours().is_empty(), "a fresh namespace has no interface that is up: {:?}", ours());
        for (change, found) in [
            ("link set lo up", vec!["127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()]),
            ("addr add 192.0.2.7/24 dev lo", vec![extra]),
            ("link set lo down", vec![]),
        ] {
            let ip = Command::new("ip").args(change.split(' ')).status().unwrap();
            assert!(ip.success(), "ip {change}");
            timeout(LOOK_EVERY / 2, watch.changed()).await.expect("news");
            for addr in &found {
                assert!(ours().contains(addr), "{addr} after {change}: {:?}", ours());
            }
            assert_eq!(found.is_empty(), ours().is_empty(), "after {change}: {:?}", ours());
        }
    }
}
