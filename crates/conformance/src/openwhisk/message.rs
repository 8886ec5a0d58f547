//! HTTP/1.1 by hand, a new connection for each message, as OpenWhisk's invoker does it by default: what is to be seen here are the very
//! heads, which a library would interpret.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Outcome;

/// Time for an exchange.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest message.
const LONGEST: usize = 64 << 20;

/// A request or an answer.
#[derive(Debug)]
pub(super) struct Message {
    /// The first line.
    pub(super) line: String,
    /// The other lines of the head, in small letters.
    headers: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        let word = self.line.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    /// The value of a header.
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.iter();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    /// The answer's JSON object. An error if the head is one that OpenWhisk takes for no answer.
    pub(super) fn object(&self) -> Outcome<serde_json::Value> {
        if self.header("content-length").is_none() {
            return Err(format!("there is no content-length in {:?}", self.headers));
        }
        let body: serde_json::Value = serde_json::from_slice(&self.body)
            .map_err(|error| format!("the body is no JSON: {error}"))?;
        if body.is_object() {
            return Ok(body);
        }
        Err(format!("the body is no object: {body}"))
    }
}

/// Sends a body and reads the answer.
pub(super) async fn post(address: SocketAddr, path: &str, body: &[u8]) -> Outcome<Message> {
    let exchange = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await
        };
        sent.await.map_err(|e| e.to_string())?;
        read(&mut stream).await
    };
    let exchanged = timeout(LIMIT, exchange).await;
    let exchanged = exchanged.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    exchanged.map_err(|error| format!("POST {path}: {error}"))
}

/// Answers a request.
pub(super) async fn answer(
    stream: &mut TcpStream,
    status: u16,
    media_type: &str,
    body: &[u8],
) -> Outcome<()> {
    let head = format!(
        "HTTP/1.1 {status} Answer\r\ncontent-type: {media_type}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sent = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.shutdown().await
    };
    sent.await.map_err(|e| e.to_string())
}

/// Reads a message: as long as its content-length says, or to the end of the connection.
pub(super) async fn read(stream: &mut TcpStream) -> Outcome<Message> {
    let mut bytes = Vec::new();
    loop {
        if let Some(message) = whole(&bytes) {
            return Ok(message);
        }
        if bytes.len() > LONGEST {
            return Err("the message has no end".to_owned());
        }
        let read = stream.read_buf(&mut bytes).await;
        if read.map_err(|e| e.to_string())? == 0 {
            let (head, body) = split(&bytes).ok_or("the connection ended within the head")?;
            return Ok(message(head, body));
        }
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 4..)?))
}

fn message(head: &[u8], body: &[u8]) -> Message {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    Message {
        line: lines.next().unwrap_or_default().to_owned(),
        headers: lines.map(str::to_ascii_lowercase).collect(),
        body: body.to_vec(),
    }
}

fn whole(bytes: &[u8]) -> Option<Message> {
    let (head, body) = split(bytes)?;
    let head = message(head, &[]);
    let length: usize = head.header("content-length")?.parse().ok()?;
    let body = body.get(..length)?.to_vec();
    Some(Message { body, ..head })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_message_is_whole_when_its_body_is() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..text.len() {
            assert!(whole(text.get(..end).unwrap()).is_none(), "{end}");
        }
        let message = whole(text).unwrap();
        assert_eq!((message.status(), &message.body[..]), (200, &b"{}"[..]));
        assert!(message.object().is_ok());
    }

    #[test]
    fn an_answer_without_a_length_is_none() {
        let (head, body) =
            split(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}").unwrap();
        let error = message(head, body).object().unwrap_err();
        assert!(error.contains("content-length"), "{error}");
    }
}
