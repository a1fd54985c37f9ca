//! As much HTTP as the tests need, so that they see status, headers and body as they are.

use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Asks one server.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {}", self.body))
    }

    /// The value of a header; names in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr }
    }

    /// A request with exactly these headers beside those that HTTP needs.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let headers = format!("{headers}Content-Length: {length}\r\n");
        self.exchange(&format!(
            "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n{body}"
        ))
        .await
    }

    /// Sends these bytes and reads until the server closes.
    pub(crate) async fn exchange(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("receive");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "Host: localhost\r\n", "").await
    }

    pub(crate) async fn post(&self, body: &str) -> Answer {
        let headers = "Host: localhost\r\nContent-Type: application/json\r\n";
        self.send("POST", "/", headers, body).await
    }

    /// A call's whole answer.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.post(&request.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut answer = answer.json();
        let fields = answer.as_object_mut().expect("an object");
        assert_eq!(fields.remove("jsonrpc"), Some(json!("2.0")));
        assert_eq!(fields.remove("id"), Some(json!(1)));
        answer
    }

    /// A call's result.
    pub(crate) async fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params).await;
        answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    /// A call's error.
    pub(crate) async fn error(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params).await;
        answer.get("error").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    /// A call's error, code and text alone.
    pub(crate) async fn refusal(&self, method: &str, params: Value) -> (i64, String) {
        let error = self.error(method, params).await;
        let text = error["message"].as_str().expect("a message").to_owned();
        (error["code"].as_i64().expect("a code"), text)
    }
}
