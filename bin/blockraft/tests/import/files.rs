//! The public chains, and the command over them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A chain of the public packs: its genesis file and its blocks.
pub(crate) struct Chain {
    pub(crate) folder: PathBuf,
    pub(crate) blocks: u64,
    pub(crate) head: &'static str,
}

/// 54 blocks, one fork every three of them, from Frontier to the second blob-parameter fork.
pub(crate) fn every_fork(target: &Path) -> Option<Chain> {
    Some(Chain {
        folder: unpack("execution-apis.tar.zst", "execution-apis/tests", target)?,
        blocks: 54,
        head: "0xd226371d0b1551adb03fb52b71f08e3e11247fe9b1af994768af8cdaa8e7dcd7",
    })
}

/// 600 blocks, merged from the beginning, Shanghai to Prague.
pub(crate) fn merged(target: &Path) -> Option<Chain> {
    Some(Chain {
        folder: unpack("mainnet-blocks.tar.zst", "geth-ethtest", target)?,
        blocks: 600,
        head: "0x44e3809c9a3cda717f00aea3a9da336d149612c8d5657fbc0028176ef8d94d2a",
    })
}

/// A folder of a pack, unpacked. Loudly nothing where the packs are not on this machine.
fn unpack(pack: &str, folder: &str, target: &Path) -> Option<PathBuf> {
    let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let pack = packs.join(pack);
    if !pack.exists() {
        eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", pack.display());
        return None;
    }
    let mut tar = Command::new("tar");
    tar.args(["--zstd", "-xf"]).arg(&pack).arg("-C").arg(target).arg(folder);
    let status = tar.status();
    assert!(status.unwrap().success(), "cannot unpack {}", pack.display());
    Some(target.join(folder))
}

impl Chain {
    pub(crate) fn genesis(&self) -> PathBuf {
        self.folder.join("genesis.json")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("chain.rlp")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    /// Imports a file of this chain.
    pub(crate) fn import(&self, file: &Path, datadir: &Path, more: &[&str]) -> Output {
        import_command(&self.genesis(), file, datadir).args(more).output().unwrap()
    }
}

pub(crate) fn blockraft() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockraft"));
    command.env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
    command
}

pub(crate) fn import_command(genesis: &Path, file: &Path, datadir: &Path) -> Command {
    let mut command = blockraft();
    command.arg("import").arg("--genesis").arg(genesis).arg("--chain").arg(file);
    command.arg("--datadir").arg(datadir);
    command
}

pub(crate) fn export(datadir: &Path, range: &[&str]) -> Output {
    let mut command = blockraft();
    command.arg("export").arg("--datadir").arg(datadir).args(range).args(["--out", "-"]);
    command.output().unwrap()
}

/// The blocks of a directory's chain after block 0.
pub(crate) fn exported(datadir: &Path) -> Vec<u8> {
    let output = export(datadir, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    output.stdout
}

/// The last line of what a command printed.
pub(crate) fn last_line(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The blocks of a file, each with its RLP header.
pub(crate) fn blocks_of(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let mut rest = bytes;
        let header = alloy_rlp::Header::decode(&mut rest).unwrap();
        let length = bytes.len() - rest.len() + header.payload_length;
        blocks.push(bytes[..length].to_vec());
        bytes = &bytes[length..];
    }
    blocks
}
