//! Blob transactions: every rule, with geth's text.

use super::*;
use alloy_consensus::{TxEip4844, TxEip4844WithSidecar};
use alloy_eips::{
    eip4844::{Blob, BlobTransactionSidecar, env_settings::EnvKzgSettings},
    eip7594::{BlobTransactionSidecarEip7594, BlobTransactionSidecarVariant},
};

type WithBlobs = TxEip4844WithSidecar<BlobTransactionSidecarVariant>;

fn prague() -> AdmissionRules {
    rules_of(&ChainConfig { osaka_time: None, ..osaka() })
}

/// A blob with the proofs of its cells (EIP-7594).
fn cells() -> BlobTransactionSidecarVariant {
    let blobs = vec![Blob::repeat_byte(1)];
    BlobTransactionSidecarVariant::Eip7594(
        BlobTransactionSidecarEip7594::try_from_blobs(blobs).unwrap(),
    )
}

/// The same blob with one proof (EIP-4844).
fn whole() -> BlobTransactionSidecarVariant {
    let blobs = vec![Blob::repeat_byte(1)];
    let settings = EnvKzgSettings::Default.get();
    let sidecar = BlobTransactionSidecar::try_from_blobs_with_settings(blobs, settings);
    BlobTransactionSidecarVariant::Eip4844(sidecar.unwrap())
}

fn carrying(sidecar: BlobTransactionSidecarVariant) -> WithBlobs {
    let tx = TxEip4844 {
        chain_id: CHAIN_ID,
        gas_limit: 21_000,
        max_fee_per_gas: 2,
        max_priority_fee_per_gas: 1,
        max_fee_per_blob_gas: 1,
        blob_versioned_hashes: sidecar.versioned_hashes().collect(),
        ..TxEip4844::default()
    };
    WithBlobs { tx, sidecar }
}

fn changed(change: impl FnOnce(&mut WithBlobs)) -> TxEnvelope {
    let mut tx = carrying(cells());
    change(&mut tx);
    sign(tx)
}

#[test]
fn blobs_come_with_the_proofs_of_their_fork() {
    let (with_cells, with_whole) = (sign(carrying(cells())), sign(carrying(whole())));
    let raw = with_cells.encoded_2718();
    let tx = decode(&raw, &rules()).unwrap();
    assert_eq!((tx.inner(), tx.signer()), (&with_cells, signer().address()));
    // The hash is that of the transaction without blobs, whatever comes along.
    let bare: TxEnvelope = sign(carrying(cells()).tx);
    assert_eq!(tx.tx_hash(), bare.tx_hash());
    assert_eq!(hash_of(&raw), *bare.tx_hash());
    assert_eq!(hash_of(&bare.encoded_2718()), *bare.tx_hash());

    assert_eq!(verdict(with_whole.clone(), &prague()), Ok(()));
    refused(with_whole, "unexpected sidecar version, want: 1, got: 0");
    let text = verdict(with_cells.clone(), &prague()).unwrap_err().to_string();
    assert_eq!(text, "unexpected sidecar version, want: 0, got: 1");
    refused(bare, "missing sidecar in blob transaction");

    let shanghai =
        ChainConfig { cancun_time: None, prague_time: None, osaka_time: None, ..osaka() };
    let text = verdict(with_cells, &rules_of(&shanghai)).unwrap_err().to_string();
    assert_eq!(text, "transaction type not supported: type 3 rejected, pool not yet in Cancun");
}

#[test]
fn blobs_hashes_and_proofs_are_as_many_as_belong_together() {
    refused(
        changed(|tx| tx.tx.max_fee_per_blob_gas = 0),
        "transaction gas price below minimum: blob fee cap 0, minimum needed 1",
    );
    refused(changed(|tx| tx.tx.blob_versioned_hashes.clear()), "blobless blob transaction");
    refused(
        changed(|tx| tx.tx.blob_versioned_hashes = vec![B256::repeat_byte(1); 7]),
        "too many blobs in transaction: have 7, permitted 6",
    );
    refused(
        changed(|tx| tx.tx.blob_versioned_hashes.push(B256::ZERO)),
        "invalid number of 1 blobs compared to 2 blob hashes",
    );
    let cells_of = |tx: &mut WithBlobs, change: fn(&mut BlobTransactionSidecarEip7594)| {
        let BlobTransactionSidecarVariant::Eip7594(sidecar) = &mut tx.sidecar else {
            unreachable!("made so above")
        };
        change(sidecar);
    };
    refused(
        changed(|tx| cells_of(tx, |sidecar| sidecar.commitments.clear())),
        "invalid number of 0 blob commitments compared to 1 blob hashes",
    );
    refused(
        changed(|tx| {
            cells_of(tx, |sidecar| {
                let _ = sidecar.cell_proofs.pop();
            })
        }),
        "invalid number of 127 blob proofs expected 128",
    );
}

#[test]
fn blobs_are_those_that_were_committed_to() {
    let computed = carrying(cells()).tx.blob_versioned_hashes[0];
    let named = B256::repeat_byte(1);
    refused(
        changed(|tx| tx.tx.blob_versioned_hashes[0] = named),
        &format!("blob 0: computed hash {computed} mismatches transaction one {named}"),
    );
    for wrong in [cells(), whole()] {
        let mut tx = carrying(wrong);
        let rules = if tx.sidecar.is_eip7594() { rules() } else { prague() };
        match &mut tx.sidecar {
            BlobTransactionSidecarVariant::Eip4844(sidecar) => sidecar.blobs[0][31] ^= 1,
            BlobTransactionSidecarVariant::Eip7594(sidecar) => sidecar.blobs[0][31] ^= 1,
        }
        let error = verdict(sign(tx), &rules).unwrap_err();
        assert!(error.to_string().starts_with("KZG verification error: "), "{error}");
    }
}

#[test]
fn damaged_blobs_are_refused_and_nothing_panics() {
    let raw = sign(carrying(cells())).encoded_2718();
    for len in (0..raw.len()).step_by(997) {
        assert!(decode(&raw[..len], &rules()).is_err());
    }
    for at in [1, 5, 200, 400, 131_000, raw.len() - 1] {
        let mut damaged = raw.clone();
        damaged[at] ^= 0x40;
        assert!(decode(&damaged, &rules()).is_err(), "{at}");
    }
    let mut long = vec![3];
    long.resize(limits::BLOB_TX_SIZE_MAX + 1, 0);
    garbage(&long, "oversized data: transaction size 1024001, limit 1024000");
}
