//! A TCP proxy between the nodes and their coordinator that keeps every byte of both directions and
//! can be cut. It knows HTTP and WebSocket just well enough to unmask what clients said.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::ports;

/// One TCP connection as it was seen.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// What the client said, raw.
    pub up: Vec<u8>,
    /// What the server said, raw.
    pub down: Vec<u8>,
}

/// What was said over a WebSocket, a message each.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// By the client.
    pub up: Vec<Vec<u8>>,
    /// By the server.
    pub down: Vec<Vec<u8>>,
}

impl Conversation {
    /// The messages of a WebSocket connection, unmasked. None when it was plain HTTP.
    pub fn messages(&self) -> Option<Messages> {
        let up = after_head(&self.up)?;
        let down = after_head(&self.down)?;
        if !self.down.starts_with(b"HTTP/1.1 101") {
            return None;
        }
        Some(Messages { up: messages(up), down: messages(down) })
    }

    /// Everything that can be read in it: raw bytes, and the messages unmasked and joined.
    pub fn readable(&self) -> Vec<u8> {
        let mut all = [&self.up[..], &self.down[..]].concat();
        if let Some(messages) = self.messages() {
            all.extend(messages.up.concat());
            all.extend(messages.down.concat());
        }
        all
    }
}

fn after_head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&bytes[end + 4..])
}

/// Data messages of a WebSocket stream; an unfinished frame at the end is left out.
fn messages(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    while let Some((first, payload, after)) = frame(rest) {
        rest = after;
        let opcode = first & 0x0f;
        if opcode >= 8 {
            continue;
        }
        message.extend(payload);
        if first & 0x80 != 0 {
            messages.push(std::mem::take(&mut message));
        }
    }
    messages
}

/// The first frame: its first byte, its unmasked payload, and what follows (RFC 6455 §5.2).
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (&second, rest) = rest.split_first()?;
    let (length, rest) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), &rest[2..]),
        127 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?), &rest[8..]),
        short => (u64::from(short), rest),
    };
    let (mask, rest) =
        if second & 0x80 == 0 { ([0; 4], rest) } else { (rest.get(..4)?.try_into().ok()?, &rest[4..]) };
    let length = usize::try_from(length).ok()?;
    let payload = rest.get(..length)?.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    Some((first, payload.collect(), &rest[length..]))
}

/// A running proxy. Ends with the process; its threads end with their connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    conversations: Mutex<Vec<Arc<Mutex<Conversation>>>>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Stands in front of a loopback port.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(upstream: u16) -> Self {
        let port = ports::free();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port was free just before");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !accepting.cut.load(Ordering::SeqCst) {
                    accepting.join(client, upstream);
                }
            }
        });
        Self { port, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything seen since the beginning, a connection each.
    pub fn conversations(&self) -> Vec<Conversation> {
        locked(&self.shared.conversations).iter().map(|one| locked(one).clone()).collect()
    }

    /// Ends every connection and takes no more.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for socket in locked(&self.shared.sockets).drain(..) {
            // One that is closed already needs no closing.
            socket.shutdown(Shutdown::Both).unwrap_or(());
        }
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn join(&self, client: TcpStream, upstream: u16) {
        // Nobody is there: the client sees its connection closed, as it would without us.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else { return };
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
        if let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) {
            locked(&self.sockets).extend([client, server]);
        }
        let conversation = Arc::new(Mutex::new(Conversation::default()));
        locked(&self.conversations).push(Arc::clone(&conversation));
        let down = Arc::clone(&conversation);
        thread::spawn(move || copy(client, server, |bytes| locked(&conversation).up.extend(bytes)));
        thread::spawn(move || copy(server_too, client_too, |bytes| locked(&down).down.extend(bytes)));
    }
}

/// Copies until either side ends, and then ends both.
fn copy(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        keep(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for socket in [from, to] {
        // The other thread may have been first.
        socket.shutdown(Shutdown::Both).unwrap_or(());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_message_in_two_frames_is_joined_and_unmasked() {
        // RFC 6455 §5.7: "Hello" masked; then "Hel" and "lo" unmasked in two frames.
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
        let bytes = [&masked[..], &fragments[..], &[0x82, 0x7e]].concat();
        assert_eq!(messages(&bytes), [b"Hello".to_vec(), b"Hello".to_vec()]);
    }
}
