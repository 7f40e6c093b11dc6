//! As much HTTP/1.1 as a bench needs: requests on a kept connection, bodies by length or in chunks,
//! and a stream of lines. Written by hand because the load client shares two cores with what it
//! measures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// Nothing that is asked takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(crate) struct Http<S> {
    stream: BufReader<S>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn tcp(addr: SocketAddr) -> anyhow::Result<Http<TcpStream>> {
    let stream = TcpStream::connect_timeout(&addr, ANSWER_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(Http::new(stream))
}

pub(crate) fn unix(path: &Path) -> anyhow::Result<Http<UnixStream>> {
    let stream = UnixStream::connect(path).with_context(|| format!("failed to reach {}", path.display()))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(Http::new(stream))
}

impl Answer {
    pub(crate) fn text(self) -> anyhow::Result<String> {
        String::from_utf8(self.body).context("the answer is no text")
    }
}

impl Http<UnixStream> {
    /// The connection itself, to end it from another thread.
    pub(crate) fn stream(&self) -> anyhow::Result<UnixStream> {
        self.stream.get_ref().try_clone().context("failed to share a connection")
    }

    /// Lets a stream be silent for as long as it likes.
    pub(crate) fn wait_for_ever(&self) -> anyhow::Result<()> {
        self.stream.get_ref().set_read_timeout(None).context("failed to lift a timeout")
    }
}

#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl<S: Read + Write> Http<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(64 << 10, stream) }
    }

    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.request("GET", path, "application/json", b"")
    }

    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Answer> {
        self.request("POST", path, content_type, body)
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let mut request = head(method, path, content_type, body.len()).into_bytes();
        request.extend_from_slice(body);
        self.send(&request)?;
        self.answer()
    }

    /// Sends a request that [`head`] began.
    pub(crate) fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.get_mut().write_all(request).context("failed to send a request")
    }

    /// Reads an answer to its end.
    pub(crate) fn answer(&mut self) -> anyhow::Result<Answer> {
        let head = self.read_head()?;
        let mut body = Vec::new();
        if head.chunked {
            while self.chunk(&mut body)? {}
        } else {
            body.resize(head.length.unwrap_or(0), 0);
            self.stream.read_exact(&mut body)?;
        }
        Ok(Answer { status: head.status, body })
    }

    /// Asks for a stream, to be read with [`Self::chunk`].
    pub(crate) fn open_stream(&mut self, path: &str) -> anyhow::Result<()> {
        self.send(head("GET", path, "text/event-stream", 0).as_bytes())?;
        let head = self.read_head()?;
        ensure!(head.status == 200 && head.chunked, "{path} gave no stream: status {}", head.status);
        Ok(())
    }

    /// Appends the next chunk. False at the end.
    pub(crate) fn chunk(&mut self, into: &mut Vec<u8>) -> anyhow::Result<bool> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let size =
            usize::from_str_radix(line.trim(), 16).with_context(|| format!("{line:?} is no chunk size"))?;
        let before = into.len();
        into.resize(before + size, 0);
        self.stream.read_exact(&mut into[before..])?;
        line.clear();
        self.stream.read_line(&mut line)?;
        Ok(size > 0)
    }

    fn read_head(&mut self) -> anyhow::Result<Head> {
        let mut head = Head::default();
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("the connection was closed before the answer");
            }
            let text = line.trim_end();
            if text.is_empty() {
                return Ok(head);
            }
            if head.status == 0 {
                let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
                head.status = status.with_context(|| format!("{text:?} is no status line"))?;
            } else if let Some((name, value)) = text.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    head.length = Some(value.trim().parse()?);
                } else if name.eq_ignore_ascii_case("transfer-encoding") {
                    head.chunked = value.trim().eq_ignore_ascii_case("chunked");
                }
            }
        }
    }
}

/// The head of a request with a body of `length` bytes.
pub(crate) fn head(method: &str, path: &str, content_type: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn an_answer_has_its_length_or_comes_in_chunks() {
        let said = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
                    HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
        let mut http = Http::new(Cursor::new(said.as_bytes().to_vec()));
        let first = http.answer().unwrap();
        assert_eq!((first.status, first.text().unwrap().as_str()), (200, "abc"));
        let second = http.answer().unwrap();
        assert_eq!((second.status, second.text().unwrap().as_str()), (404, "def"));
        assert!(http.answer().is_err());
    }
}
