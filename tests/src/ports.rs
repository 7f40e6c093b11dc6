//! Ports that a restarted server finds free again.
//!
//! They lie below the range from which the system takes the near ends of outgoing connections, so
//! nothing takes one while its server is down, and each test process starts at its own place.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A loopback port that is free for TCP and for UDP, and given to nobody else in this process; nor is the
/// next one up, on which a coordinator answers STUN too.
///
/// # Panics
/// When there is none.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 200).expect("below 200") * 100;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(2, Ordering::Relaxed) % COUNT) % COUNT;
        let address = ("127.0.0.1", port);
        if TcpListener::bind(address).is_ok()
            && UdpSocket::bind(address).is_ok()
            && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok()
        {
            return port;
        }
    }
    panic!("no free loopback port in {FIRST}..{}", FIRST + COUNT)
}
