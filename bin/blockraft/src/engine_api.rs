//! The Engine API's settings, and the secret that node and consensus client share.

use crate::{cli::AuthRpcArgs, output};
use alloy_primitives::B256;
use anyhow::Context;
use blockraft_node::{EngineApiConfig, JwtSecret};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

/// The port of the specification.
const PORT: u16 = 8551;
/// The secret's name in a data directory.
const SECRET_FILE: &str = "jwtsecret";

/// What the flags ask for; `None` when they do not.
pub(crate) fn config(
    args: &AuthRpcArgs,
    datadir: &Path,
) -> anyhow::Result<Option<EngineApiConfig>> {
    if !args.is_on() {
        return Ok(None);
    }
    let address = args.addr.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let secret = match &args.jwtsecret {
        Some(path) => secret(path)?,
        None => secret(&datadir.join(SECRET_FILE))?,
    };
    Ok(Some(EngineApiConfig {
        listen: SocketAddr::new(address, args.port.unwrap_or(PORT)),
        secret,
        virtual_hosts: args.vhosts.clone().unwrap_or_default(),
    }))
}

/// The settings that the nodes of a devnet in `root` have in common: one secret, which exists from now on.
pub(crate) fn shared(args: &AuthRpcArgs, root: &Path) -> anyhow::Result<AuthRpcArgs> {
    let Some(config) = config(args, root)? else { return Ok(AuthRpcArgs::default()) };
    Ok(AuthRpcArgs {
        port: Some(config.listen.port()),
        jwtsecret: Some(args.jwtsecret.clone().unwrap_or_else(|| root.join(SECRET_FILE))),
        ..args.clone()
    })
}

/// The settings of the devnet's node at `offset`.
pub(crate) fn of_node(shared: &AuthRpcArgs, offset: u16) -> anyhow::Result<AuthRpcArgs> {
    let port = shared.port.map(|port| {
        port.checked_add(offset).context("--authrpc.port is too high for that many nodes")
    });
    Ok(AuthRpcArgs { port: port.transpose()?, ..shared.clone() })
}

/// Reads the secret, or makes one where there is none.
fn secret(path: &Path) -> anyhow::Result<JwtSecret> {
    match fs::read_to_string(path) {
        Ok(text) => JwtSecret::from_hex(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(path),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read the JWT secret {}", path.display()))
        }
    }
}

fn make_secret(path: &Path) -> anyhow::Result<JwtSecret> {
    let secret = JwtSecret::new(B256::random().0);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    write_private(path, &secret.to_hex())
        .with_context(|| format!("cannot write the JWT secret {}", path.display()))?;
    output::progress(&format!("made a JWT secret for the Engine API: {}", path.display()));
    Ok(secret)
}

/// Nobody else may read it.
#[cfg(unix)]
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(not(unix))]
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_read_ever_after() {
        let datadir = tempfile::tempdir().unwrap();
        assert!(config(&AuthRpcArgs::default(), datadir.path()).unwrap().is_none());
        let args = AuthRpcArgs { port: Some(8552), ..AuthRpcArgs::default() };
        let made = config(&args, datadir.path()).unwrap().unwrap();
        assert_eq!(made.listen, "127.0.0.1:8552".parse().unwrap());
        let read = config(&args, datadir.path()).unwrap().unwrap();
        assert_eq!(made.secret, read.secret);
        let path = datadir.path().join(SECRET_FILE);
        assert_eq!(fs::read_to_string(&path).unwrap(), made.secret.to_hex());

        fs::write(&path, "0x12").unwrap();
        let refused = config(&args, datadir.path()).unwrap_err();
        assert!(format!("{refused:#}").contains("invalid JWT secret"), "{refused:#}");
        let elsewhere = AuthRpcArgs { jwtsecret: Some(datadir.path().join("a/b")), ..args };
        assert_ne!(config(&elsewhere, datadir.path()).unwrap().unwrap().secret, made.secret);
    }

    #[test]
    fn nodes_of_a_devnet_share_a_secret_and_have_a_port_each() {
        let root = tempfile::tempdir().unwrap();
        assert!(!shared(&AuthRpcArgs::default(), root.path()).unwrap().is_on());
        let args = AuthRpcArgs { port: Some(9000), ..AuthRpcArgs::default() };
        let shared = shared(&args, root.path()).unwrap();
        let nodes = [0, 2].map(|offset| of_node(&shared, offset).unwrap());
        assert_eq!(nodes.clone().map(|node| node.port), [Some(9000), Some(9002)]);
        assert!(nodes[1].jwtsecret.as_ref().is_some_and(|path| path.exists()));
        assert!(of_node(&AuthRpcArgs { port: Some(u16::MAX), ..shared }, 1).is_err());
    }
}
