//! One request, one answer, over a socket that is closed afterwards. No library: what a test sends
//! must be what is on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for one read.
const READ_MAX: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status; 0 when what came was no HTTP.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in {} {:?}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Asks the server on a Unix socket. An error means that it could not be reached, or hung up.
pub fn on_socket(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Response, String> {
    let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(READ_MAX)).map_err(|error| error.to_string())?;
    exchange(stream, &request("localhost", method, path, &[], body))
}

/// Asks the server on a loopback port, with further header lines.
pub fn on_port(
    port: u16,
    method: &str,
    path: &str,
    headers: &[&str],
    body: Option<&Value>,
) -> Result<Response, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(READ_MAX)).map_err(|error| error.to_string())?;
    exchange(stream, &request(&format!("127.0.0.1:{port}"), method, path, headers, body))
}

fn request(host: &str, method: &str, path: &str, headers: &[&str], body: Option<&Value>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        text.push_str("Content-Type: application/json\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Result<Response, String> {
    stream.write_all(request).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    if bytes.is_empty() {
        return Err(read
            .err()
            .map_or_else(|| "closed without an answer".to_owned(), |error| error.to_string()));
    }
    parse(&bytes).ok_or_else(|| format!("an answer that was cut off: {:?}", String::from_utf8_lossy(&bytes)))
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let response = Response { status, head, body: bytes[end + 4..].to_vec() };
    let body = match (response.header("transfer-encoding"), response.header("content-length")) {
        (Some("chunked"), _) => unchunked(&response.body)?,
        (_, Some(length)) => response.body.get(..length.parse().ok()?)?.to_vec(),
        (_, None) => response.body.clone(),
    };
    Some(Response { body, ..response })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + length)?);
        rest = rest.get(line + 4 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_a_cut_one_is_no_answer() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let response = parse(whole).expect("it is whole");
        assert_eq!((response.status, response.text().as_str()), (200, "abcde"));
        assert!(parse(&whole[..whole.len() - 8]).is_none());
    }
}
