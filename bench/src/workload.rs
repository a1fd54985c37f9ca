//! A workload file: signed transactions, one JSON object a line, in the order of sending.

use alloy_primitives::{Address, B256};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

/// One line: a signed transaction and what a reader needs without decoding it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedTx {
    /// The EIP-2718 envelope, `0x` hex: the parameter of `eth_sendRawTransaction` as it is.
    pub(crate) raw: String,
    /// Its hash.
    pub(crate) hash: B256,
    /// Who signed it.
    pub(crate) from: Address,
    /// Its nonce.
    pub(crate) nonce: u64,
    /// `setup` for what must be included before the rest is sent, and is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<Phase>,
}

/// A part of a workload that is not what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Deployments and funding.
    Setup,
}

/// A file's content. Every sender's nonces are consecutive and in order, setup first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Sent first, and included before anything else is sent.
    pub(crate) setup: Vec<SignedTx>,
    /// What is measured.
    pub(crate) measured: Vec<SignedTx>,
}

impl Workload {
    /// Splits lines by phase. Errors when a sender's nonces have a gap or run backwards, or a setup
    /// line comes late: what follows could never be included.
    pub(crate) fn new(lines: Vec<SignedTx>) -> anyhow::Result<Self> {
        let mut next_nonces = BTreeMap::<Address, u64>::new();
        let mut workload = Self::default();
        for tx in lines {
            let next = next_nonces.entry(tx.from).or_insert(tx.nonce);
            ensure!(tx.nonce == *next, "{}: nonce {} follows {}", tx.from, tx.nonce, *next - 1);
            *next += 1;
            match tx.phase {
                None => workload.measured.push(tx),
                Some(Phase::Setup) => {
                    ensure!(workload.measured.is_empty(), "{}: setup after the rest", tx.hash);
                    workload.setup.push(tx);
                }
            }
        }
        Ok(workload)
    }

    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut lines = Vec::new();
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let place = || format!("{}:{}", path.display(), index + 1);
            lines.push(serde_json::from_str(&line.with_context(place)?).with_context(place)?);
        }
        Self::new(lines).with_context(|| path.display().to_string())
    }

    /// Every transaction in file order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &SignedTx> {
        self.setup.iter().chain(&self.measured)
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut out = BufWriter::new(file);
        for tx in self.lines() {
            serde_json::to_writer(&mut out, tx)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    }

    /// Nonce that each sender must have on the chain before the first line is sent.
    pub(crate) fn first_nonces(&self) -> BTreeMap<Address, u64> {
        let mut first = BTreeMap::new();
        for tx in self.lines() {
            first.entry(tx.from).or_insert(tx.nonce);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(from: u8, nonce: u64, phase: Option<Phase>) -> SignedTx {
        let hash = B256::with_last_byte(nonce as u8);
        SignedTx { raw: "0x".into(), hash, from: Address::repeat_byte(from), nonce, phase }
    }

    #[test]
    fn broken_orders_are_refused() {
        let setup = Some(Phase::Setup);
        for (lines, accepted) in [
            (vec![tx(1, 0, setup), tx(1, 1, None), tx(2, 5, None), tx(2, 6, None)], true),
            (vec![tx(1, 0, None), tx(1, 2, None)], false),
            (vec![tx(1, 1, None), tx(1, 0, None)], false),
            (vec![tx(1, 0, None), tx(1, 1, setup)], false),
        ] {
            assert_eq!(Workload::new(lines.clone()).is_ok(), accepted, "{lines:?}");
        }
    }

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let lines = vec![tx(1, 3, Some(Phase::Setup)), tx(1, 4, None), tx(2, 0, None)];
        let workload = Workload::new(lines).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        workload.write(file.path()).unwrap();
        assert_eq!(Workload::read(file.path()).unwrap(), workload);
        let expected = [(Address::repeat_byte(1), 3), (Address::repeat_byte(2), 0)];
        assert_eq!(workload.first_nonces(), expected.into());
    }
}
