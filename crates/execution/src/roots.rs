//! Roots and blooms of a block's body: on the caller's rayon pool, four hashes at a time, and each log is
//! hashed into a bloom once.

use alloy_consensus::{EMPTY_ROOT_HASH, RlpEncodableReceipt, Typed2718};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{B256, Bloom, BloomInput, bytes::BufMut, keccak256, map::HashMap};
use alloy_rlp::Encodable;
use alloy_trie::{HashBuilder, Nibbles};
use blockraft_primitives::{Receipt, Transaction};
use blockraft_trie::hash_all;
use rayon::prelude::*;

/// Receipts whose blooms one thread makes, at least.
const BLOOM_CHUNK: usize = 64;

/// Groups of leaves that one thread hashes, at least.
const GROUP_CHUNK: usize = 4;

/// Receipts root and block bloom.
pub fn receipts_root_and_bloom(
    transactions: &[Transaction],
    receipts: &[Receipt],
) -> (B256, Bloom) {
    let blooms: Vec<Bloom> = receipts.par_chunks(BLOOM_CHUNK).flat_map_iter(blooms).collect();
    let block_bloom = blooms.iter().fold(Bloom::ZERO, |all, bloom| all | *bloom);
    let root = ordered_root(receipts.len(), |index, out| {
        let tx_type = transactions[index].ty();
        if tx_type != 0 {
            out.put_u8(tx_type);
        }
        receipts[index].rlp_encode_with_bloom(&blooms[index], out);
    });
    (root, block_bloom)
}

/// Root of the transaction trie.
pub(crate) fn transactions_root(transactions: &[Transaction]) -> B256 {
    ordered_root(transactions.len(), |index, out| transactions[index].encode_2718(out))
}

fn blooms(receipts: &[Receipt]) -> Vec<Bloom> {
    // What is logged repeats itself: the same contracts, the same events.
    let mut numbers: HashMap<&[u8], u32> = HashMap::default();
    let mut inputs: Vec<&[u8]> = Vec::new();
    let mut number = |input| {
        *numbers.entry(input).or_insert_with(|| {
            inputs.push(input);
            inputs.len() as u32 - 1
        })
    };
    let logs = receipts.iter().flat_map(|receipt| &receipt.logs);
    let logged: Vec<u32> = logs
        .flat_map(|log| {
            std::iter::once(log.address.as_slice()).chain(log.topics().iter().map(|t| t.as_slice()))
        })
        .map(&mut number)
        .collect();
    let hashes = hash_all(&inputs, |input, out| out.extend_from_slice(input));
    let mut logged = logged.into_iter().map(|number| hashes[number as usize]);
    let bloom = |receipt: &Receipt| {
        let count = receipt.logs.iter().map(|log| 1 + log.topics().len()).sum();
        let mut bloom = Bloom::ZERO;
        logged.by_ref().take(count).for_each(|hash| bloom.accrue(BloomInput::Hash(hash)));
        bloom
    };
    receipts.iter().map(bloom).collect()
}

/// Neighbours in the trie: up to sixteen leaves under one branch, by the last nibble of their keys.
struct Group {
    first: usize,
    len: usize,
}

/// The root of a trie of values of 32 bytes or more under their RLP-encoded indices. `encode` adds to a buffer.
fn ordered_root(count: usize, encode: impl Fn(usize, &mut Vec<u8>) + Sync) -> B256 {
    if count == 0 {
        return EMPTY_ROOT_HASH;
    }
    let groups = groups(count);
    let hashes: Vec<Option<B256>> = groups
        .par_iter()
        .with_min_len(GROUP_CHUNK)
        .map(|group| (group.len > 1).then(|| group.branch_hash(&encode)))
        .collect();
    let mut builder = HashBuilder::default();
    let mut value = Vec::new();
    for (group, hash) in groups.iter().zip(hashes) {
        let key = key_of(group.first);
        match hash {
            Some(hash) => builder.add_branch(key.slice(..key.len() - 1), hash, false),
            None => {
                value.clear();
                encode(group.first, &mut value);
                builder.add_leaf(key, &value);
            }
        }
    }
    builder.root()
}

/// All indices in the order of their keys: index zero has the key 0x80, between 127 and 128.
fn groups(count: usize) -> Vec<Group> {
    let group = |first: usize, end: usize| Group { first, len: end.min(count) - first };
    let mut groups = Vec::with_capacity(count / 16 + 2);
    groups.extend((1..count.min(2)).map(|first| group(first, 16)));
    groups.extend((16..count.min(128)).step_by(16).map(|first| group(first, first + 16)));
    groups.push(group(0, 1));
    groups.extend((128..count).step_by(16).map(|first| group(first, first + 16)));
    groups
}

fn key_of(index: usize) -> Nibbles {
    Nibbles::unpack(alloy_rlp::encode(index))
}

impl Group {
    /// The hash of the branch over leaves whose keys end in its nibble.
    fn branch_hash(&self, encode: &(impl Fn(usize, &mut Vec<u8>) + Sync)) -> B256 {
        let indices: Vec<usize> = (self.first..self.first + self.len).collect();
        let leaves = hash_all(&indices, |index, out| {
            let mut value = Vec::with_capacity(1024);
            encode(*index, &mut value);
            let payload_length = 1 + value.as_slice().length();
            alloy_rlp::Header { list: true, payload_length }.encode(out);
            // A leaf whose path ends above it.
            out.put_u8(0x20);
            value.as_slice().encode(out);
        });
        let mut children = [None; 17];
        for (index, hash) in indices.iter().zip(leaves) {
            children[index % 16] = Some(hash);
        }
        let payload_length =
            children.iter().map(|child| child.map_or(1, |hash: B256| hash.length())).sum();
        let mut branch = Vec::with_capacity(payload_length + 3);
        alloy_rlp::Header { list: true, payload_length }.encode(&mut branch);
        for child in children {
            match child {
                Some(hash) => hash.encode(&mut branch),
                None => branch.put_u8(alloy_rlp::EMPTY_STRING_CODE),
            }
        }
        keccak256(branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::proofs::ordered_trie_root_with_encoder;

    #[test]
    fn root_is_that_of_a_trie_built_leaf_by_leaf() {
        let counts = (0..300).chain([511, 512, 513, 4_095, 4_097, 66_000]);
        for count in counts {
            // Some longer than four blocks of keccak.
            let value = |index: usize| vec![index as u8 | 1; 32 + index % 700];
            let items: Vec<Vec<u8>> = (0..count).map(value).collect();
            let expected = ordered_trie_root_with_encoder(&items, |item, out| out.put_slice(item));
            let root = ordered_root(count, |index, out| out.extend_from_slice(&items[index]));
            assert_eq!(root, expected, "{count}");
        }
    }
}
