//! A node over a data directory, and a small client for it.

use crate::files::blockraft;
use blockraft_node::JwtSecret;
use jsonrpsee::http_client::{HeaderMap, HeaderValue, HttpClientBuilder};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, SystemTime},
};

/// A running `blockraft dev`; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) banner: Value,
    address: String,
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Serves a directory, and waits until it does.
    pub(crate) fn dev(datadir: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let mut command = blockraft();
        command.args(["dev", "-o", "json", "--port", &port.to_string()]).args(more);
        command.arg("--datadir").arg(datadir).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut server = Self { child, banner: Value::Null, address };
        let mut text = String::new();
        for line in BufReader::new(server.child.stdout.take().unwrap()).lines() {
            text += &line.unwrap();
            if text.ends_with('}')
                && text.starts_with('{')
                && let Ok(banner) = serde_json::from_str(&text)
            {
                server.banner = banner;
                return server;
            }
        }
        panic!("the node ended without a banner: {text}");
    }

    /// Serves a directory as `blockraft node` does by default.
    pub(crate) fn node(datadir: &Path, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = blockraft();
        command.args(["node", "--rpc-addr", &address]).args(more).arg("--datadir").arg(datadir);
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, banner: Value::Null, address };
        for _ in 0..400 {
            if TcpStream::connect(&server.address).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the node does not listen");
    }

    /// One request as it stands, and the answer.
    pub(crate) fn post(&self, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.post(&body.to_string())
    }

    /// The result of a call that succeeds.
    pub(crate) fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to stop, so that all of its blocks are on disk; it may have ended already.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// What a consensus client says to a port of the Engine API.
pub(crate) async fn engine_call(
    port: u16,
    secret: &JwtSecret,
    method: &str,
    params: Value,
) -> Value {
    use jsonrpsee::core::client::ClientT;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let bearer = HeaderValue::from_str(&format!("Bearer {}", secret.token(now))).unwrap();
    let headers = HeaderMap::from_iter([("authorization".parse().unwrap(), bearer)]);
    let url = format!("http://127.0.0.1:{port}");
    let client = HttpClientBuilder::default().set_headers(headers).build(url).unwrap();
    let mut array = jsonrpsee::rpc_params![];
    for param in params.as_array().unwrap() {
        array.insert(param).unwrap();
    }
    client.request(method, array).await.unwrap()
}
