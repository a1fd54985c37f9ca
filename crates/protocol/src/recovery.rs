//! Who recovers the senders of a batch. It takes fifty microseconds a transaction and needs nothing but a hash and a
//! signature, so a leader, which has the blocks to make, leaves it to the others ([`RecoverAt::Auto`]).

use crate::{AdmissionRules, Micros, PoolError, checks::is_strict};
use alloy_consensus::{TxEnvelope, crypto::secp256k1};
use alloy_primitives::{Address, B256, Signature};
use blockraft_primitives::{
    NodeId,
    limits::{RECOVERY_IN_FLIGHT_MAX, RECOVERY_PAUSE_US},
};
use std::collections::BTreeMap;

/// A smaller batch is recovered where it is: the way to another member would take longer.
const BATCH_LEN_MIN: usize = 16;
/// Bytes of a [`SignedHash`].
const SIGNED_HASH_BYTES: usize = 32 + 65;
/// Bytes of an answer to one.
const SENDER_BYTES: usize = 1 + 20;

/// Who fails again and again is left alone for up to so many doublings of the first pause.
const PAUSE_DOUBLINGS_MAX: u32 = 5;

/// Which member recovers senders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoverAt {
    /// The one that the transactions came to, and for a leader the others, as far as they keep up.
    #[default]
    Auto,
    /// The one that the transactions came to.
    Gateway,
    /// The leader.
    Leader,
}

/// What a sender is recovered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHash {
    hash: B256,
    signature: [u8; 65],
}

impl SignedHash {
    /// Of a transaction. From Homestead on a high s is no signature (EIP-2): that is seen here, so that whoever
    /// recovers need not know the fork.
    pub fn of(tx: &TxEnvelope, rules: &AdmissionRules) -> Result<Self, PoolError> {
        let signature = tx.signature();
        if is_strict(rules) && signature.normalize_s().is_some() {
            return Err(PoolError::Signature);
        }
        Ok(Self { hash: tx.signature_hash(), signature: signature.as_bytes() })
    }

    /// Who signed; `None` if nobody did.
    pub fn recover(&self) -> Option<Address> {
        let signature = Signature::from_raw_array(&self.signature).ok()?;
        secp256k1::recover_signer_unchecked(&signature, self.hash).ok()
    }

    pub(crate) fn encode_all(all: &[Self]) -> Vec<u8> {
        all.iter().flat_map(|one| [one.hash.as_slice(), &one.signature].concat()).collect()
    }

    /// `None` for bytes that are no whole number of them.
    pub(crate) fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (chunks, []) = bytes.as_chunks::<SIGNED_HASH_BYTES>() else { return None };
        let decode = |chunk: &[u8; SIGNED_HASH_BYTES]| {
            let (hash, signature) = chunk.split_at(32);
            Some(Self { hash: B256::from_slice(hash), signature: signature.try_into().ok()? })
        };
        chunks.iter().map(decode).collect()
    }
}

pub(crate) fn encode_senders(senders: &[Option<Address>]) -> Vec<u8> {
    let encode = |sender: &Option<Address>| {
        let address = sender.unwrap_or_default();
        std::iter::once(u8::from(sender.is_some())).chain(address.0.0)
    };
    senders.iter().flat_map(encode).collect()
}

/// `None` for bytes that are no whole number of them.
pub(crate) fn decode_senders(bytes: &[u8]) -> Option<Vec<Option<Address>>> {
    let (chunks, []) = bytes.as_chunks::<SENDER_BYTES>() else { return None };
    let decode = |[known, address @ ..]: &[u8; SENDER_BYTES]| match known {
        0 => Some(None),
        1 => Some(Some(Address::from_slice(address))),
        _ => None,
    };
    chunks.iter().map(decode).collect()
}

/// A node's choice of who recovers its next batch.
#[derive(Clone, Debug, Default)]
pub struct Recoverers {
    recover_at: RecoverAt,
    peers: BTreeMap<NodeId, Peer>,
    batches: u64,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    /// Batches that it has been given and has not answered.
    in_flight: usize,
    /// When it was last given one, counted in batches.
    last: u64,
    /// It has failed so many times in a row, and is left alone until then.
    failures: u32,
    avoided_until: Micros,
}

impl Recoverers {
    /// Nothing is on its way.
    pub fn new(recover_at: RecoverAt) -> Self {
        Self { recover_at, ..Self::default() }
    }

    /// Who is to recover a batch of so many transactions; `None` for this node. What is given away must be
    /// reported back ([`Self::done`]). `others` are the other voters.
    pub fn choose(
        &mut self,
        now: Micros,
        (node, leader): (NodeId, Option<NodeId>),
        others: impl IntoIterator<Item = NodeId>,
        count: usize,
    ) -> Option<NodeId> {
        let leads = leader == Some(node);
        let may = |peer: &NodeId| match self.recover_at {
            RecoverAt::Auto => leads && count >= BATCH_LEN_MIN,
            RecoverAt::Gateway => false,
            RecoverAt::Leader => leader == Some(*peer),
        };
        let is_free = |peer: &NodeId| {
            self.peers.get(peer).is_none_or(|known| {
                known.in_flight < RECOVERY_IN_FLIGHT_MAX && known.avoided_until <= now
            })
        };
        let free = others.into_iter().filter(|peer| *peer != node && may(peer) && is_free(peer));
        let burden = |peer: &NodeId| self.peers.get(peer).map(|p| (p.in_flight, p.last));
        let chosen = free.min_by_key(burden)?;
        self.batches += 1;
        let peer = self.peers.entry(chosen).or_default();
        peer.in_flight += 1;
        peer.last = self.batches;
        Some(chosen)
    }

    /// A batch has come back, or will not.
    pub fn done(&mut self, now: Micros, peer: NodeId, recovered: bool) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        peer.in_flight = peer.in_flight.saturating_sub(1);
        if recovered {
            peer.failures = 0;
        } else if peer.avoided_until <= now {
            // What was on its way together fails together, and once.
            peer.avoided_until = now.after(RECOVERY_PAUSE_US << peer.failures);
            peer.failures = (peer.failures + 1).min(PAUSE_DOUBLINGS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rules;
    use alloy_consensus::{
        SignableTransaction, TxEip1559, TxLegacy, transaction::SignerRecoverable,
    };
    use alloy_primitives::U256;

    const NOW: Micros = Micros(5);

    fn choose(recoverers: &mut Recoverers, node: NodeId, count: usize) -> Option<NodeId> {
        recoverers.choose(NOW, (node, Some(1)), [1, 2, 3], count)
    }

    #[test]
    fn a_leader_gives_batches_to_all_in_turn_and_no_more_than_they_can_take() {
        let mut recoverers = Recoverers::new(RecoverAt::Auto);
        let mut given = Vec::new();
        while let Some(peer) = choose(&mut recoverers, 1, 50) {
            given.push(peer);
        }
        assert_eq!(given, [2, 3].repeat(RECOVERY_IN_FLIGHT_MAX));
        recoverers.done(NOW, 3, true);
        assert_eq!(choose(&mut recoverers, 1, 50), Some(3));
        assert_eq!(choose(&mut recoverers, 1, 50), None);
    }

    #[test]
    fn who_failed_is_left_alone_for_a_while() {
        let mut recoverers = Recoverers::new(RecoverAt::Auto);
        assert_eq!(choose(&mut recoverers, 1, 50), Some(2));
        recoverers.done(NOW, 2, false);
        assert_eq!(choose(&mut recoverers, 1, 50), Some(3));
        assert_eq!(choose(&mut recoverers, 1, 50), Some(3));
        let later = NOW.after(RECOVERY_PAUSE_US);
        assert_eq!(recoverers.choose(later, (1, Some(1)), [2, 3], 50), Some(2));
    }

    #[test]
    fn who_fails_again_is_left_alone_for_longer() {
        let mut recoverers = Recoverers::new(RecoverAt::Auto);
        let choose =
            |recoverers: &mut Recoverers, at: Micros| recoverers.choose(at, (1, Some(1)), [2], 50);
        let mut now = NOW;
        for pause in [1, 2, 4, 8, 16, 32, 32] {
            // Two are on their way when it stops, and fail one after the other.
            assert_eq!(choose(&mut recoverers, now), Some(2));
            assert_eq!(choose(&mut recoverers, now), Some(2));
            recoverers.done(now, 2, false);
            recoverers.done(now.after(1), 2, false);
            let until = now.after(RECOVERY_PAUSE_US * pause);
            assert_eq!(choose(&mut recoverers, Micros(until.0 - 1)), None);
            now = until;
        }
        assert_eq!(choose(&mut recoverers, now), Some(2));
        recoverers.done(now, 2, true);
        assert_eq!(choose(&mut recoverers, now), Some(2));
        recoverers.done(now, 2, false);
        assert_eq!(choose(&mut recoverers, now.after(RECOVERY_PAUSE_US)), Some(2));
    }

    #[test]
    fn who_recovers_depends_on_the_setting_and_on_who_leads() {
        let chosen =
            |recover_at, node, count| choose(&mut Recoverers::new(recover_at), node, count);
        assert_eq!(chosen(RecoverAt::Auto, 1, 1), None, "too few");
        assert_eq!(chosen(RecoverAt::Auto, 2, 50), None, "a gateway that does not lead");
        assert_eq!(chosen(RecoverAt::Gateway, 1, 50), None);
        assert_eq!(chosen(RecoverAt::Leader, 1, 50), None, "it is the leader");
        assert_eq!(chosen(RecoverAt::Leader, 2, 1), Some(1));
        let mut recoverers = Recoverers::new(RecoverAt::Leader);
        assert_eq!(recoverers.choose(NOW, (2, None), [1, 3], 50), None, "nobody leads");
    }

    #[test]
    fn the_sender_is_the_one_that_the_transaction_has() {
        let signature = Signature::test_signature();
        let legacy = TxLegacy { nonce: 3, ..TxLegacy::default() };
        let eip1559 = TxEip1559 { chain_id: 1337, nonce: 4, ..TxEip1559::default() };
        for tx in [
            TxEnvelope::from(legacy.into_signed(signature)),
            TxEnvelope::from(eip1559.into_signed(signature)),
        ] {
            let signed = SignedHash::of(&tx, &rules()).unwrap();
            assert_eq!(signed.recover(), tx.recover_signer().ok());
            assert!(signed.recover().is_some());
        }
    }

    #[test]
    fn what_nobody_can_have_signed_has_no_sender() {
        let sign = |r: U256, s: U256| {
            TxEnvelope::from(TxEip1559::default().into_signed(Signature::new(r, s, false)))
        };
        let high = sign(U256::from(7), U256::MAX >> 1);
        assert_eq!(SignedHash::of(&high, &rules()), Err(PoolError::Signature));
        let none = SignedHash::of(&sign(U256::ZERO, U256::ZERO), &rules()).unwrap();
        assert_eq!(none.recover(), None);
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let one = SignedHash { hash: B256::repeat_byte(1), signature: [2; 65] };
        let bytes = SignedHash::encode_all(&[one, one]);
        assert_eq!(SignedHash::decode_all(&bytes), Some(vec![one, one]));
        assert_eq!(SignedHash::decode_all(&bytes[1..]), None);
        let senders = [None, Some(Address::repeat_byte(3))];
        let bytes = encode_senders(&senders);
        assert_eq!(decode_senders(&bytes), Some(senders.to_vec()));
        assert_eq!(decode_senders(&bytes[1..]), None);
        assert_eq!(decode_senders(&[2; SENDER_BYTES]), None);
    }
}
