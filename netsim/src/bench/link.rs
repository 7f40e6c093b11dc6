//! A coordinator link spoken by hand: frames are masked with zero, which is a legal key, so that
//! they can be made before the clock runs and written as they are.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use peerloom_proto::wire::{SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{Answer, Head, HelloRole, IdentityKey, InstanceId, MeshId, Origin, PeerId, SignedHello};

/// Longest silence of a coordinator that has something to say.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 << 10;

/// Where load clients say that they are: 10.0.0.1 and up.
const FIRST_ADDRESS: u32 = 0x0a00_0001;

/// Who says hello, and to whom.
pub(crate) struct Caller<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) origin: &'a Origin,
    pub(crate) mesh: MeshId,
    pub(crate) coordinators: &'a [(PeerId, Origin)],
    pub(crate) head: Head,
    pub(crate) identity: &'a IdentityKey,
    /// Tells its address from those of others.
    pub(crate) number: u32,
}

/// A WebSocket to the coordinator.
pub(crate) struct Link {
    stream: TcpStream,
    frames: Frames,
    out: Vec<u8>,
}

/// Whole frames in what was read.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Link {
    /// Connects as if from `client`, since hellos are throttled by address.
    pub(crate) fn connect(addr: SocketAddr, client: Ipv4Addr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&addr, READ_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let upgrade = format!(
            "GET /v2/link HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nx-forwarded-for: {client}\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes())?;
        let mut head = Vec::new();
        let mut frames = Frames::default();
        while frames.buffer.is_empty() && !head.ends_with(b"\r\n\r\n") {
            let mut part = [0; 1_024];
            let read = stream.read(&mut part)?;
            ensure!(read > 0, "the coordinator closed the connection");
            head.extend_from_slice(&part[..read]);
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                frames.push(&head[end + 4..]);
                head.truncate(end + 4);
            }
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "no WebSocket: {}", String::from_utf8_lossy(&head));
        Ok(Self { stream, frames, out: Vec::new() })
    }

    /// Connects and says hello.
    pub(crate) fn hello(caller: &Caller<'_>) -> anyhow::Result<Self> {
        let mut link = Self::connect(caller.addr, Ipv4Addr::from(FIRST_ADDRESS + caller.number))?;
        let ToNode::Challenge { challenge } = link.receive()? else {
            bail!("the first frame is no challenge")
        };
        let seed = peerloom_proto::sha256(&challenge);
        let hello = SignedHello::answer(
            &challenge,
            &Answer {
                identity: caller.identity,
                role: HelloRole::ControlPlane,
                auth: None,
                mesh: caller.mesh,
                coordinators: caller.coordinators,
                origin: caller.origin,
                nonce: seed,
                features: &[],
                head: caller.head,
                instance: InstanceId(seed[..16].try_into().expect("16 of 32 bytes")),
                counter: 1,
                mark: None,
                now: super::now(),
            },
        )?;
        let hello = SignedBytes { stmt: hello.stmt().clone(), sig: hello.sig() };
        link.send(&ToCoordinator::Hello { hello, attestation: Bytes::new() })?;
        let answer = link.receive()?;
        ensure!(matches!(answer, ToNode::Welcome { .. }), "no welcome but {answer:?}");
        Ok(link)
    }

    pub(crate) fn send(&mut self, frame: &ToCoordinator) -> anyhow::Result<()> {
        self.out.clear();
        write_frame(&mut self.out, &frame.encode());
        self.stream.write_all(&self.out).context("failed to write to the coordinator")
    }

    /// Writes whole frames as they are.
    pub(crate) fn write(&mut self, frames: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(frames).context("failed to write to the coordinator")
    }

    /// The next frame that is not about being there.
    pub(crate) fn receive(&mut self) -> anyhow::Result<ToNode> {
        loop {
            let frame = self.receive_bytes()?;
            let frame = ToNode::decode(&Bytes::from(frame)).context("the coordinator sent no frame")?;
            match frame {
                ToNode::Ping { nonce } => self.send(&ToCoordinator::Pong { nonce })?,
                ToNode::Error { code, text } => bail!("the coordinator closes the link: {code}: {text}"),
                ToNode::Presence { .. } | ToNode::Pong { .. } => {}
                other @ (ToNode::Challenge { .. }
                | ToNode::Welcome { .. }
                | ToNode::Accepted { .. }
                | ToNode::Refused { .. }
                | ToNode::Deliver { .. }
                | ToNode::Receipt { .. }
                | ToNode::Expired { .. }
                | ToNode::LogWanted { .. }
                | ToNode::Entries { .. }
                | ToNode::Appended { .. }
                | ToNode::Conflict { .. }
                | ToNode::Failed { .. }
                | ToNode::Done { .. }
                | ToNode::Prekeys { .. }
                | ToNode::GoingAway { .. }) => return Ok(other),
            }
        }
    }

    /// The next frame as bytes, whatever it is.
    pub(crate) fn receive_bytes(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.frames.next()? {
                return Ok(frame.to_vec());
            }
            self.frames.fill(&mut self.stream)?;
        }
    }

    /// The frames that are here; blocks for the first.
    pub(crate) fn arrived(&mut self) -> anyhow::Result<&mut Frames> {
        if !self.frames.has_whole()? {
            self.frames.fill(&mut self.stream)?;
        }
        Ok(&mut self.frames)
    }

    /// A second handle that writes while this one reads.
    pub(crate) fn writer(&self) -> anyhow::Result<TcpStream> {
        self.stream.try_clone().context("failed to share a socket")
    }

    /// The socket itself; what was read and not taken is dropped.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection.
    pub(crate) fn close(self) {
        // It may be closed already from the other side.
        self.stream.shutdown(Shutdown::Both).unwrap_or(());
    }
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn fill(&mut self, stream: &mut TcpStream) -> anyhow::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + READ_BYTES, 0);
        let read = stream.read(&mut self.buffer[before..]).context("the coordinator is silent")?;
        self.buffer.truncate(before + read);
        ensure!(read > 0, "the coordinator closed the connection");
        Ok(())
    }

    fn has_whole(&self) -> anyhow::Result<bool> {
        Ok(whole(&self.buffer[self.at..])?.is_some())
    }

    /// The next whole frame's payload.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<&[u8]>> {
        let rest = &self.buffer[self.at..];
        let Some((head, end)) = whole(rest)? else { return Ok(None) };
        let from = self.at;
        self.at += end;
        Ok(Some(&self.buffer[from + head..from + end]))
    }
}

/// Where the payload of the first frame begins and ends, if it is whole.
fn whole(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let [first, length, ..] = bytes else { return Ok(None) };
    ensure!(*first == FIN_BINARY, "no binary message but {first:#x}: the coordinator closes the link");
    let (head, length) = match length {
        126 => match bytes.get(2..4) {
            Some(long) => (4, usize::from(u16::from_be_bytes(long.try_into().expect("two bytes")))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(long) => (10, usize::try_from(u64::from_be_bytes(long.try_into().expect("eight bytes")))?),
            None => return Ok(None),
        },
        short => (2, usize::from(*short)),
    };
    Ok((bytes.len() >= head + length).then_some((head, head + length)))
}

/// Appends a whole binary message, masked with zero.
pub(crate) fn write_frame(into: &mut Vec<u8>, payload: &[u8]) {
    const MASKED: u8 = 0x80;
    into.push(FIN_BINARY);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => into.push(MASKED | short),
        (_, Ok(medium)) => {
            into.push(MASKED | 126);
            into.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            into.push(MASKED | 127);
            into.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(payload);
}

const FIN_BINARY: u8 = 0x82;

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a server sends it: without the mask.
    fn from_server(payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        write_frame(&mut masked, payload);
        let mask_at = masked.len() - payload.len() - 4;
        masked.drain(mask_at..mask_at + 4);
        masked[1] &= 0x7f;
        masked
    }

    #[test]
    fn frames_of_every_length_are_found_however_they_arrive() {
        let payloads: Vec<Vec<u8>> =
            [0, 1, 125, 126, 65_535, 65_536].iter().map(|length| vec![7; *length]).collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| from_server(payload)).collect();
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for part in stream.chunks(1_000) {
            frames.push(part);
            while let Some(frame) = frames.next().unwrap() {
                found.push(frame.to_vec());
            }
        }
        assert_eq!(found, payloads);
    }

    #[test]
    fn a_close_is_an_error_and_no_frame() {
        let mut frames = Frames::default();
        frames.push(&[0x88, 0x02, 0x03, 0xe8]);
        assert!(frames.next().is_err());
    }

    #[test]
    fn a_frame_to_the_server_is_masked_with_zero() {
        let mut frame = Vec::new();
        write_frame(&mut frame, b"ab");
        assert_eq!(frame, [0x82, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }
}
