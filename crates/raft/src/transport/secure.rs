//! The seam for TLS: every connection passes here once, on either side, before its hello.

use std::io;
use tokio::net::TcpStream;

/// What carries frames.
pub(super) type Channel = TcpStream;

/// Prepares a dialled connection.
pub(super) async fn dialled(stream: TcpStream) -> io::Result<Channel> {
    prepare(stream)
}

/// Prepares an accepted connection.
pub(super) async fn accepted(stream: TcpStream) -> io::Result<Channel> {
    prepare(stream)
}

fn prepare(stream: TcpStream) -> io::Result<Channel> {
    // Requests are small and somebody waits for each.
    stream.set_nodelay(true)?;
    Ok(stream)
}
