//! Two implementations of secp256k1 recover the same senders: the C library that the binary uses, and
//! k256 in pure Rust, which stays as the oracle (docs/decisions/0002).

use alloy_consensus::{SignableTransaction, TxLegacy};
use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};

fn by_k256(signature: &Signature, hash: B256) -> Option<Address> {
    let (parsed, id) = (signature.to_k256().ok()?, RecoveryId::new(signature.v(), false));
    let key = VerifyingKey::recover_from_prehash(hash.as_slice(), &parsed, id).ok()?;
    Some(Address::from_public_key(&key))
}

#[test]
fn both_implementations_recover_the_same_sender() {
    for seed in 1..=200u64 {
        let secret = keccak256(seed.to_be_bytes());
        let key = SigningKey::from_slice(secret.as_slice()).unwrap();
        let tx = TxLegacy { nonce: seed, gas_price: 1, gas_limit: 21_000, ..Default::default() };
        let hash = tx.signature_hash();
        let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).unwrap();
        let signature = Signature::from((signature, id));
        let expected = Address::from_private_key(&key);
        assert_eq!(by_k256(&signature, hash), Some(expected));
        assert_eq!(tx.clone().into_signed(signature).recover_signer().ok(), Some(expected));

        // Another message, or a damaged signature, gives both the same other sender or none.
        let damaged =
            Signature::new(signature.r() ^ U256::from(seed), signature.s(), signature.v());
        let recovered = tx.into_signed(damaged).recover_signer().ok();
        assert_eq!(recovered, by_k256(&damaged, hash), "seed {seed}");
    }
}
