//! What the internet of the lab saw, for people with a packet analyser.
//!
//! The last packets are kept in memory and written as pcapng when something failed: each as it
//! came from its site, on an interface of the site's name, with a comment if it did not arrive.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// Bytes kept of a packet: all headers and the beginning of what is sealed anyway.
const SNAP_BYTES: usize = 160;

/// Packets kept; older ones go. About 40 MB, a minute at the highest rate the lab drives.
const PACKETS_MAX: usize = 200_000;

/// The last packets of the wire.
#[derive(Debug)]
pub(crate) struct Capture {
    sites: Vec<String>,
    packets: VecDeque<Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Duration,
    from: usize,
    length: usize,
    bytes: Vec<u8>,
    comment: Option<&'static str>,
}

impl Capture {
    /// Of the sites of these names, in the order of the wire's ports.
    pub(crate) fn new(sites: Vec<String>) -> Self {
        Self { sites, packets: VecDeque::new() }
    }

    pub(super) fn record(&mut self, from: usize, frame: &[u8], comment: Option<&'static str>) {
        if self.packets.len() == PACKETS_MAX {
            self.packets.pop_front();
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let bytes = frame[..frame.len().min(SNAP_BYTES)].to_vec();
        self.packets.push_back(Seen { at, from, length: frame.len(), bytes, comment });
    }

    /// Writes it all to a file.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
        let mut file = BufWriter::new(file);
        let written = self.write_to(&mut file).and_then(|()| file.flush());
        written.with_context(|| format!("failed to write {}", path.display()))
    }

    /// The blocks of pcapng: draft-ietf-opsawg-pcapng, section 4.
    fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut header = Vec::new();
        header.extend(0x1a2b_3c4d_u32.to_le_bytes());
        header.extend([1, 0, 0, 0]);
        header.extend(u64::MAX.to_le_bytes());
        block(out, 0x0a0d_0d0a, &header)?;
        for site in &self.sites {
            let mut interface = Vec::new();
            // LINKTYPE_ETHERNET, and no more than so many bytes of a packet.
            interface.extend([1, 0, 0, 0]);
            interface.extend((SNAP_BYTES as u32).to_le_bytes());
            option(&mut interface, 2, site.as_bytes());
            // Times are nanoseconds.
            option(&mut interface, 9, &[9]);
            option(&mut interface, 0, &[]);
            block(out, 1, &interface)?;
        }
        self.packets.iter().try_for_each(|seen| block(out, 6, &seen.packet_block()))
    }
}

impl Seen {
    fn packet_block(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let at = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        let words =
            [self.from as u64, at >> 32, at & 0xffff_ffff, self.bytes.len() as u64, self.length as u64];
        for word in words {
            body.extend(u32::try_from(word).unwrap_or(u32::MAX).to_le_bytes());
        }
        body.extend(&self.bytes);
        pad(&mut body);
        if let Some(comment) = self.comment {
            option(&mut body, 1, comment.as_bytes());
            option(&mut body, 0, &[]);
        }
        body
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (u32::try_from(body.len()).unwrap_or(u32::MAX) + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// To a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_says_its_length_at_both_ends_and_packets_keep_their_order() {
        let mut capture = Capture::new(vec!["a".to_owned(), "coordinator".to_owned()]);
        capture.record(0, &[7; 61], None);
        capture.record(1, &[8; 400], Some("lost"));
        let mut bytes = Vec::new();
        capture.write_to(&mut bytes).unwrap();
        let mut kinds = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert_eq!((length % 4, word(length - 4) as usize), (0, length));
            kinds.push(word(0));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 6]);
    }

    #[test]
    fn the_oldest_packets_go_first() {
        let mut capture = Capture::new(vec!["a".to_owned()]);
        for number in 0..=PACKETS_MAX {
            capture.record(0, &(number as u32).to_le_bytes(), None);
        }
        assert_eq!(capture.packets.len(), PACKETS_MAX);
        assert_eq!(capture.packets[0].bytes, 1_u32.to_le_bytes());
    }
}
