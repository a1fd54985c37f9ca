//! Ports that must be free before a process is started on them.

use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// The loopback address at `base + offset`.
pub(crate) fn loopback(base: u16, offset: u16) -> anyhow::Result<SocketAddr> {
    let port = base.checked_add(offset).context("port numbers end at 65535")?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

/// Fails, naming the address and the flag to change, when somebody listens there.
pub(crate) fn check_free(address: SocketAddr, flag: &str) -> anyhow::Result<()> {
    TcpListener::bind(address)
        .map(drop)
        .with_context(|| format!("{address} is not free; choose another with {flag}"))
}

/// A loopback address that nobody uses now.
pub(crate) fn any_free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
    Ok(listener.local_addr()?)
}
