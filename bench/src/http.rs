//! HTTP/1.1 for JSON-RPC and nothing else. A load generator that shares the machine with what it
//! measures must cost less than it, so a request is one write, and an answer is read in place.

use std::{fmt, io, str::FromStr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes of an answer that is accepted.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of an answer's headers that are accepted.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes read at a time, at least.
const READ_BYTES: usize = 16 * 1024;

/// Where a node serves JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    /// A port on loopback.
    pub(crate) fn local(port: u16) -> Self {
        Self { host: "127.0.0.1".into(), port, path: "/".into() }
    }

    /// Host and port, to connect to.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.host.as_str(), self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("only http:// URLs are supported")?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let port = port.parse().map_err(|_| format!("`{port}` is not a port"))?;
        Ok(Self { host: host.trim_matches(['[', ']']).into(), port, path: path.into() })
    }
}

/// One connection, kept alive. After an error it is of no further use.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Request head up to the value of Content-Length.
    head: Vec<u8>,
    /// The request being written.
    output: Vec<u8>,
    /// What was read and belongs to the answer being read.
    input: Vec<u8>,
    /// A chunked answer's body, put together.
    unchunked: Vec<u8>,
    closing: bool,
}

/// How the end of an answer's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
}

/// What matters of an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    len: usize,
    status: u16,
    body: Body,
    closing: bool,
}

impl Connection {
    /// Opens a connection.
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = TcpStream::connect(endpoint.address()).await?;
        stream.set_nodelay(true)?;
        let Endpoint { host, port, path } = endpoint;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: "
        );
        Ok(Self {
            stream,
            head: head.into_bytes(),
            output: Vec::new(),
            input: Vec::new(),
            unchunked: Vec::new(),
            closing: false,
        })
    }

    /// True when the node said that it closes the connection after the last answer.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Posts a body and returns that of the answer. An answer other than 200 is an error that holds
    /// its text.
    pub(crate) async fn post(&mut self, body: &[u8]) -> io::Result<&[u8]> {
        self.output.clear();
        self.output.extend_from_slice(&self.head);
        self.output.extend_from_slice(body.len().to_string().as_bytes());
        self.output.extend_from_slice(b"\r\n\r\n");
        self.output.extend_from_slice(body);
        self.stream.write_all(&self.output).await?;
        self.input.clear();
        let head = self.read_head().await?;
        self.closing = head.closing;
        let body = match head.body {
            Body::Length(len) => {
                if len > ANSWER_BYTES_MAX {
                    return Err(invalid("the answer is too long"));
                }
                let end = head.len + len;
                self.input.reserve(end.saturating_sub(self.input.len()));
                while self.input.len() < end {
                    self.read_more().await?;
                }
                &self.input[head.len..end]
            }
            Body::Chunked => {
                self.read_chunks(head.len).await?;
                &self.unchunked
            }
        };
        if head.status != 200 {
            let text = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
            return Err(io::Error::other(format!("HTTP status {}: {text}", head.status)));
        }
        Ok(body)
    }

    async fn read_head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(head) = parse_head(&self.input)? {
                return Ok(head);
            }
            if self.input.len() > HEAD_BYTES_MAX {
                return Err(invalid("the answer's head is too long"));
            }
            self.read_more().await?;
        }
    }

    async fn read_chunks(&mut self, mut at: usize) -> io::Result<()> {
        self.unchunked.clear();
        loop {
            let line_len = loop {
                match self.input[at..].windows(2).position(|pair| pair == b"\r\n") {
                    Some(len) => break len,
                    None => self.read_more().await?,
                }
            };
            let len = chunk_len(&self.input[at..at + line_len])?;
            if self.unchunked.len() + len > ANSWER_BYTES_MAX {
                return Err(invalid("the answer is too long"));
            }
            let start = at + line_len + 2;
            let end = start + len + 2;
            while self.input.len() < end {
                self.read_more().await?;
            }
            if len == 0 {
                return Ok(());
            }
            self.unchunked.extend_from_slice(&self.input[start..start + len]);
            at = end;
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// `None` until the whole head is there.
fn parse_head(input: &[u8]) -> io::Result<Option<Head>> {
    let Some(len) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&input[..len]).map_err(|_| invalid("the head is not ASCII"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| invalid("the answer is not HTTP/1.x"))?;
    let mut head = Head { len: len + 4, status, body: Body::Length(0), closing: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let len = value.parse().map_err(|_| invalid("Content-Length is not a number"))?;
            head.body = Body::Length(len);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = Body::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.closing = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

fn chunk_len(line: &[u8]) -> io::Result<usize> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok())
        .ok_or_else(|| invalid("a chunk's length is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Serves one connection: an answer a request, then closes.
    async fn posts_against(answers: &'static [&'static [u8]]) -> Vec<Result<String, String>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::local(listener.local_addr().unwrap().port());
        let server = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 1024];
            for answer in answers {
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                // A few bytes at a time: an answer may be cut anywhere.
                for part in answer.chunks(7) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        };
        let client = async move {
            let mut connection = Connection::open(&endpoint).await.unwrap();
            let mut results = Vec::new();
            for _ in answers {
                let result = connection.post(b"{}").await;
                results.push(match result {
                    Ok(body) => Ok(String::from_utf8(body.to_vec()).unwrap()),
                    Err(error) => Err(error.to_string()),
                });
            }
            results
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn answers_are_read_by_length_and_by_chunk_on_one_connection() {
        let found = posts_against(&[
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3;x=1\r\nond\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ])
        .await;
        assert_eq!(found, [Ok("first".into()), Ok("second".into()), Ok(String::new())]);
    }

    #[tokio::test]
    async fn other_statuses_and_garbage_are_errors() {
        let refused =
            posts_against(&[b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"]).await;
        assert_eq!(refused, [Err("HTTP status 403: no".into())]);
        let garbage = posts_against(&[b"SSH-2.0-OpenSSH\r\n\r\n"]).await;
        assert_eq!(garbage, [Err("the answer is not HTTP/1.x".into())]);
    }

    #[test]
    fn urls_are_parsed() {
        let endpoint = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        for (text, expected) in [
            ("http://127.0.0.1:8545", Ok("http://127.0.0.1:8545/".to_owned())),
            ("http://node/rpc", Ok("http://node:80/rpc".to_owned())),
            ("https://node", Err("only http:// URLs are supported".to_owned())),
            ("http://node:x", Err("`x` is not a port".to_owned())),
        ] {
            assert_eq!(endpoint(text), expected, "{text}");
        }
    }
}
