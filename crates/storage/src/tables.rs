//! Every table on disk: its name, key, value, and why it is there.
//!
//! Numbers in keys are big-endian, so that key order is number order. `hashed` means keccak256.
//! A change of any of these bytes changes [`FORMAT_VERSION`].
//!
//! | environment | files | durability |
//! |---|---|---|
//! | log | `log/` | every write is synced: this is what an acknowledgement rests on |
//! | chain | `chain/` | synced by `persist`, after the shards |
//! | state shards | `state-00/` .. | written unsynced, synced before the chain is |

/// Version of all of the bytes below, checked when a directory is opened.
pub(crate) const FORMAT_VERSION: u32 = 3;

/// A table of one of the environments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// MDBX name.
    pub(crate) name: &'static str,
    /// Place in its environment's list.
    pub(crate) slot: usize,
}

// The Raft log.

/// `index (8)` -> `crc32c of index and entry (4), entry`. The log itself.
pub(crate) const LOG_ENTRIES: Table = Table { name: "entries", slot: 0 };
/// `vote`, `committed`, `purged` -> opaque bytes of the raft crate; `version` -> `FORMAT_VERSION (4)`.
pub(crate) const LOG_META: Table = Table { name: "meta", slot: 1 };

/// Tables of the log environment.
pub(crate) const LOG_TABLES: &[Table] = &[LOG_ENTRIES, LOG_META];

// The chain.

/// `block (8)` -> `hash (32), header RLP`. The hash is kept so that nobody computes it again.
pub(crate) const HEADERS: Table = Table { name: "headers", slot: 0 };
/// `block (8)` -> the transactions with their senders, as `encode_transactions` has them; the ommers; from
/// Shanghai on the withdrawals. See `body.rs`.
pub(crate) const BODIES: Table = Table { name: "bodies", slot: 1 };
/// `block (8)` -> the receipts, as in a `Block` entry.
pub(crate) const RECEIPTS: Table = Table { name: "receipts", slot: 2 };
/// `block hash (32)` -> `block (8)`. Blocks are asked for by hash.
pub(crate) const BLOCK_HASHES: Table = Table { name: "block_hashes", slot: 3 };
/// `transaction hash (32)` -> `block (8), index (4)`. Transactions and receipts are asked for by hash.
pub(crate) const TRANSACTIONS: Table = Table { name: "transactions", slot: 4 };
/// `section (4), fingerprint (8), block within section (2)` -> nothing. Which blocks hold a log with an
/// address or topic, without reading receipts. A section is `LOG_SECTION_BLOCKS` blocks, so that
/// writes stay together; a fingerprint is the first bytes of a hash, so that keys stay small: the
/// index may name a block too many, never one too few.
pub(crate) const LOG_INDEX: Table = Table { name: "log_index", slot: 5 };
/// `admission id (8)` -> pool record. The replicated pool at the applied position.
pub(crate) const POOL: Table = Table { name: "pool", slot: 6 };
/// `state` -> how far the chain has come, see `chain::ChainMeta`. Written with what it speaks of.
pub(crate) const CHAIN_META: Table = Table { name: "meta", slot: 7 };

/// Tables of the chain environment.
pub(crate) const CHAIN_TABLES: &[Table] =
    &[HEADERS, BODIES, RECEIPTS, BLOCK_HASHES, TRANSACTIONS, LOG_INDEX, POOL, CHAIN_META];

/// Blocks in one section of the log index.
pub(crate) const LOG_SECTION_BLOCKS: u64 = 1024;

// A state shard.

/// `hashed address (32)` -> `address (20), account RLP, trail`. The address is kept for dumps and for
/// reverse diffs; storing it here is smaller than a table of its own. The trail says at which blocks the
/// key changed, see `trail.rs`. A *tombstone* has `[0]` for the account: it was removed within the history.
pub(crate) const ACCOUNTS: Table = Table { name: "accounts", slot: 0 };
/// `hashed address (32), hashed slot (32)` -> `length of slot (1), slot, length of value (1), value, trail`,
/// numbers without leading zeros. A tombstone has the value zero.
pub(crate) const STORAGE: Table = Table { name: "storage", slot: 1 };
/// `code hash (32)` -> code. In the shard of the code hash, since it is read by it alone.
pub(crate) const CODES: Table = Table { name: "codes", slot: 2 };
/// `block (8), highest key in the chunk (32 or 64)` -> `crc32c (4), records`: what keys held before the
/// block, in key order, see `reverse.rs`. Only ever appended to and cut at its ends. A key's trail leads to
/// the block; the chunk with the key in it is the first at or after block and key.
pub(crate) const REVERSE_DIFFS: Table = Table { name: "reverse_diffs", slot: 3 };
/// `block (8), key (32 or 64)` -> nothing: the block removed the key. When the block leaves the history, a
/// tombstone that has seen no change since goes with it.
pub(crate) const REMOVALS: Table = Table { name: "removals", slot: 4 };
/// `marker` -> `version (4), shard (1), shards (1), block (8), block hash (32), oldest (8)`: the block
/// that this shard is at and the oldest one that it can still show.
pub(crate) const SHARD_META: Table = Table { name: "meta", slot: 5 };

/// Tables of a state shard.
pub(crate) const SHARD_TABLES: &[Table] =
    &[ACCOUNTS, STORAGE, CODES, REVERSE_DIFFS, REMOVALS, SHARD_META];
