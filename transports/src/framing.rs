//! Frames on a byte stream: u32be length, then the frame (protocol.md §9). The reader holds at most
//! one unfinished frame beside one read, and grows its buffer as bytes arrive, never on the word of
//! a length prefix.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerloom_proto::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Smallest room offered to one read.
const READ_BYTES_MIN: usize = 64 << 10;

/// Frames up to this size are copied next to their neighbours; a copy is cheaper than a segment.
const COALESCE_BYTES_MAX: usize = 16 << 10;

const LENGTH_BYTES: usize = 4;

/// Why no further frame can be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// A length prefix over [`FRAME_BYTES_MAX`].
    Oversize,
    /// The stream ended inside a frame.
    Cut,
    /// The stream ended between two frames.
    Ended,
    Io(io::Error),
}

#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Waits for at least one frame and takes what is buffered, until `frames_max` or `bytes_max` is
    /// reached. Cancel safe: bytes stay in the buffer until they leave as frames.
    pub(crate) async fn recv_many(
        &mut self,
        frames_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, FrameError> {
        loop {
            let frames = self.take_buffered(frames_max, bytes_max)?;
            if !frames.is_empty() {
                return Ok(frames);
            }
            // Doubling keeps a large frame at a constant number of copies per byte.
            self.buffer.reserve(READ_BYTES_MIN.max(self.buffer.len().min(FRAME_BYTES_MAX)));
            if self.stream.read_buf(&mut self.buffer).await.map_err(FrameError::Io)? == 0 {
                return Err(if self.buffer.is_empty() { FrameError::Ended } else { FrameError::Cut });
            }
        }
    }

    fn take_buffered(&mut self, frames_max: usize, bytes_max: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        loop {
            match self.take_one() {
                Ok(Some(frame)) => {
                    bytes += frame.len();
                    frames.push(frame);
                    if frames.len() >= frames_max || bytes >= bytes_max {
                        return Ok(frames);
                    }
                }
                Ok(None) => return Ok(frames),
                // The bad prefix stays in the buffer, so the next call reports it.
                Err(_) if !frames.is_empty() => return Ok(frames),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_one(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| FrameError::Oversize)?;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::Oversize);
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// The bytes of `frames` on the stream, in as few chunks as is cheap; empties `frames`.
pub(crate) fn encode(frames: &mut Vec<Bytes>) -> Vec<Bytes> {
    let small: usize =
        frames.iter().map(Bytes::len).filter(|length| *length <= COALESCE_BYTES_MAX).sum::<usize>();
    let mut buffer = BytesMut::with_capacity(small + LENGTH_BYTES * frames.len());
    let mut chunks = Vec::with_capacity(1);
    for frame in frames.drain(..) {
        buffer.put_u32(u32::try_from(frame.len()).expect("a queued frame is at most FRAME_BYTES_MAX"));
        if frame.len() <= COALESCE_BYTES_MAX {
            buffer.put_slice(&frame);
        } else {
            chunks.push(buffer.split().freeze());
            chunks.push(frame);
        }
    }
    if !buffer.is_empty() {
        chunks.push(buffer.freeze());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> (Vec<Bytes>, FrameError) {
        let mut reader = FrameReader::new(bytes);
        let mut frames = Vec::new();
        loop {
            match reader.recv_many(2, usize::MAX).await {
                Ok(more) => frames.extend(more),
                Err(error) => return (frames, error),
            }
        }
    }

    #[tokio::test]
    async fn frames_of_every_size_come_back_as_they_were() {
        let sizes = [0, 1, COALESCE_BYTES_MAX, COALESCE_BYTES_MAX + 1, 0, READ_BYTES_MIN, FRAME_BYTES_MAX, 3];
        let sent: Vec<Bytes> = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();
        let stream = encode(&mut sent.clone()).concat();
        let (frames, error) = read_all(&stream).await;
        assert_eq!(frames, sent);
        assert!(matches!(error, FrameError::Ended));
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_any_room_is_made_for_it() {
        for length in [u32::MAX, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1] {
            let prefix: [u8; 4] = length.to_be_bytes();
            let mut reader = FrameReader::new(&prefix[..]);
            assert!(matches!(reader.recv_many(1, 1).await, Err(FrameError::Oversize)));
            assert!(reader.buffer.capacity() <= 2 * READ_BYTES_MIN);
        }
    }

    #[tokio::test]
    async fn good_frames_before_a_bad_prefix_are_delivered_first() {
        let mut stream = encode(&mut vec![Bytes::from_static(b"good")]).concat();
        stream.extend([0xff; 4]);
        let (frames, error) = read_all(&stream).await;
        assert_eq!(frames, [Bytes::from_static(b"good")]);
        assert!(matches!(error, FrameError::Oversize));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_cut_not_ended() {
        let (frames, error) = read_all(&[0, 0, 0, 9, 1, 2]).await;
        assert!(frames.is_empty());
        assert!(matches!(error, FrameError::Cut));
    }
}
