//! A packet socket on the wire's end of one site's veth pair.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, socket};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// One site's access to the internet.
#[derive(Debug)]
pub(crate) struct Port {
    socket: OwnedFd,
    site_mac: [u8; 6],
}

impl Port {
    /// Opens one on an interface of this thread's namespace; `site_mac` is the other end's address.
    ///
    /// The site's end must have segmentation and checksum offload off: what arrives here is then
    /// what would be on a cable, with its checksum, and no larger than the MTU.
    ///
    /// rustix and socket2 cannot say which interface without unsafe code, nix can: the system's own
    /// list has each interface's link-layer address, and the protocol is that of the socket. Only
    /// what others send is seen: nothing but this socket sends on this end.
    pub(crate) fn open(interface: &str, site_mac: [u8; 6]) -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
            .context("failed to open a packet socket")?;
        let address = getifaddrs()
            .context("failed to list the interfaces")?
            .filter(|listed| listed.interface_name == interface)
            .find_map(|listed| listed.address.filter(|address| address.as_link_addr().is_some()))
            .with_context(|| format!("there is no interface {interface}"))?;
        bind(socket.as_raw_fd(), &address).with_context(|| format!("failed to bind to {interface}"))?;
        Ok(Self { socket, site_mac })
    }

    /// The link-layer address of the site's end.
    pub(super) fn site_mac(&self) -> [u8; 6] {
        self.site_mac
    }

    /// The next frame from the site: its length. None when there is no more, or the link is down.
    pub(super) fn get(&self, buffer: &mut [u8]) -> Option<usize> {
        recv(&self.socket, buffer, RecvFlags::empty()).ok().map(|(_, bytes)| bytes)
    }

    /// Gives a frame to the site. One that a full or downed interface refuses is lost, as it would be.
    pub(super) fn put(&self, frame: &[u8]) {
        send(&self.socket, frame, SendFlags::empty()).map(drop).unwrap_or_default();
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
