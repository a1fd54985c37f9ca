//! Every limit of the system, in one place. A full queue is a typed refusal, never a growing buffer.

/// A raw transaction, bytes (geth: 128 KiB).
pub const TX_SIZE_MAX: usize = 128 * 1024;
/// Blobs of one transaction (EIP-7594).
pub const BLOBS_PER_TX_MAX: usize = 6;
/// A raw transaction with its blobs and their proofs, bytes (geth: 1 MiB). One fits into an `Admit` entry.
pub const BLOB_TX_SIZE_MAX: usize = 1000 * 1024;

// Pool.

/// Transactions in the replicated pool.
pub const POOL_TX_COUNT_MAX: usize = 200_000;
/// Bytes of raw transactions in the replicated pool.
pub const POOL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Transactions of one sender in the pool.
pub const POOL_TX_PER_SENDER_MAX: usize = 16_384;
/// Blob transactions of one sender in the pool (geth: 16). Blobs count among the pool's bytes.
pub const POOL_BLOB_TX_PER_SENDER_MAX: usize = 16;
/// How far a nonce may lie beyond the sender's next one.
pub const POOL_NONCE_GAP_MAX: u64 = 64;
/// What a replacement must pay more, percent (geth: PriceBump).
pub const POOL_PRICE_BUMP_PERCENT: u128 = 10;
/// What a replacement with blobs must pay more, percent (geth: blobpool's PriceBump).
pub const POOL_BLOB_PRICE_BUMP_PERCENT: u128 = 100;

// Raft log.

/// Transactions in one `Admit` entry.
pub const ADMIT_TX_COUNT_MAX: usize = 2_000;
/// Bytes of raw transactions in one `Admit` entry.
pub const ADMIT_BYTES_MAX: usize = 1024 * 1024;
/// Transactions in one block.
pub const BLOCK_TX_COUNT_MAX: usize = 65_536;
/// How long a transaction may run in a block that is built, seconds, and not quite one more. Gas bounds it
/// far below that, unless the executor is at fault.
pub const TX_RUN_SECONDS_MAX: u32 = 20;
/// Topics and data of the logs of one block, bytes: more does not come out of an entry, however small it is.
pub const BLOCK_LOG_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Blocks that a leader has proposed and that are not applied yet: while there are so many, none is begun.
pub const PIPELINE_BLOCK_COUNT_MAX: usize = 2;
/// Entries that a leader has proposed and keeps decoded until it applies them: more than are ever on their way.
pub const OWN_ENTRY_COUNT_MAX: usize = 8;
/// Blocks whose stage times are kept (`blockraft_txTimeline`).
pub const TIMELINE_BLOCK_COUNT_MAX: usize = 256;
/// Transactions in those blocks; also those in no block yet whose times are kept.
pub const TIMELINE_TX_COUNT_MAX: usize = 200_000;
/// Entries in one append call.
pub const APPEND_ENTRY_COUNT_MAX: u64 = 256;
/// Bytes of one frame between nodes; a longer one closes the connection before any allocation.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a snapshot chunk on the wire.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;
/// Applied entries between two snapshots.
pub const SNAPSHOT_ENTRY_INTERVAL: u64 = 20_000;
/// Applied entries kept in the log behind a snapshot, for followers that lag a little.
pub const LOG_ENTRIES_KEPT: u64 = 10_000;

// Distributed execution.

/// Longest wait for an executor beyond the time that its share is thought to take, before the share goes to another
/// one, microseconds; and then once more.
pub const HEDGE_US_MAX: u64 = 250_000;
/// Longest run of a share that is waited for, microseconds.
pub const UNIT_RUN_US_MAX: u64 = 2_000_000;
/// Shortest such wait, microseconds.
pub const HEDGE_US_MIN: u64 = 5_000;
/// How long an executor waits for the parent of a unit's block to be applied, and a leader for that to begin, milliseconds.
pub const UNIT_PARENT_WAIT_MS: u64 = 2_000;
/// How long an answer to a unit is listened for, milliseconds: long after it is of use, it is still compared.
pub const UNIT_ANSWER_WAIT_MS: u64 = 10_000;
/// Units that wait at one executor.
pub const UNIT_QUEUE_LEN_MAX: usize = 16;
/// Finished gatherings whose late answers are still compared.
pub const CLOSED_GATHER_COUNT_MAX: usize = 16;
/// Changed keys that subtries of other owners may be behind by before they are brought up to date.
pub const TRIE_LAG_KEY_COUNT_MAX: usize = 50_000;
/// Files of evidence that a node keeps of its own state having been wrong.
pub const EVIDENCE_FILE_COUNT_MAX: usize = 16;
/// Disagreements between executors that are kept.
pub const UNIT_EVIDENCE_COUNT_MAX: usize = 8;
/// Kinds of transactions (callee and selector) whose costs and writes are remembered.
pub const PREDICTED_KIND_COUNT_MAX: usize = 4_096;

// Gateway.

/// Batches whose senders one other member recovers at a time for a gateway.
pub const RECOVERY_IN_FLIGHT_MAX: usize = 2;
/// How long a gateway waits for recovered senders before it recovers them itself, milliseconds.
pub const RECOVERY_WAIT_MS: u64 = 500;
/// How long a member that did not recover a batch in time is given none the first time, microseconds.
pub const RECOVERY_PAUSE_US: u64 = 1_000_000;

/// Transactions that wait at one node for a verdict.
pub const SUBMISSION_QUEUE_LEN_MAX: usize = 32_768;
/// How long a write waits for a leader before it fails, milliseconds.
pub const LEADER_WAIT_MS: u64 = 10_000;
/// Connections that a node accepts from other nodes.
pub const PEER_CONNECTION_COUNT_MAX: usize = 256;

// Storage.

/// Blocks that may be visible and not yet persisted; beyond it applying waits for the disk.
pub const OVERLAY_BLOCK_COUNT_MAX: usize = 256;
/// Changed keys in blocks that may be visible and not yet persisted.
pub const OVERLAY_KEY_COUNT_MAX: usize = 2_000_000;
/// Blocks whose state can be read back, unless the configuration says otherwise.
pub const HISTORY_BLOCK_COUNT_DEFAULT: u64 = 100_000;
/// Address space of one MDBX environment, bytes.
pub const MDBX_MAP_BYTES_MAX: usize = 256 * 1024 * 1024 * 1024;

// Import.

/// RLP of one block of a chain file, bytes; a longer one is no block of any fork.
pub const IMPORT_BLOCK_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Blocks that are decoded and whose senders are recovered in one go, ahead of execution.
pub const IMPORT_BATCH_BLOCK_COUNT_MAX: usize = 256;
/// Bytes of blocks from which on such a batch takes no further one.
pub const IMPORT_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Such batches that wait for their execution.
pub const IMPORT_BATCH_QUEUE_LEN_MAX: usize = 2;
/// Imported blocks from which on they are written in one go.
pub const IMPORT_WRITE_BLOCK_COUNT: usize = 1024;
/// Changed keys in imported blocks from which on they are written in one go.
pub const IMPORT_WRITE_KEY_COUNT: usize = 250_000;
/// How often such batches may wait to be written, before the import waits for the disk.
pub const IMPORT_WRITE_QUEUE_LEN_MAX: usize = 3;
/// Blocks that an import may take back for a better branch, within the history that is kept.
pub const IMPORT_REORG_BLOCK_COUNT_MAX: u64 = 4096;
/// Valid blocks beside the best branch that an import remembers.
pub const IMPORT_SIDE_BLOCK_COUNT_MAX: usize = 8192;
/// Changed keys in those blocks.
pub const IMPORT_SIDE_KEY_COUNT_MAX: usize = 4_000_000;

// RPC.

/// Body of a request, bytes (geth: 5 MiB).
pub const RPC_REQUEST_BYTES_MAX: u32 = 5 * 1024 * 1024;
/// Body of an answer, bytes (geth: 25 MB a batch).
pub const RPC_RESPONSE_BYTES_MAX: u32 = 25 * 1024 * 1024;
/// Calls in a batch (geth: 1000).
pub const RPC_BATCH_LEN_MAX: u32 = 1000;
/// Connections to the RPC port.
pub const RPC_CONNECTION_COUNT_MAX: u32 = 2_000;
/// Subscriptions of one connection.
pub const RPC_SUBSCRIPTION_COUNT_MAX: u32 = 1024;
/// Messages that may wait for one slow WebSocket client before it is cut off.
pub const RPC_WS_BUFFER_LEN_MAX: u32 = 1024;
/// Gas of an `eth_call` (geth: 50 million).
pub const RPC_GAS_CAP: u64 = 50_000_000;
/// Time that an `eth_call` may take, milliseconds (geth: 5 s).
pub const RPC_EVM_TIMEOUT_MS: u64 = 5_000;
/// Time that any other read may take, milliseconds; none keeps one database snapshot for so long.
pub const RPC_READ_TIMEOUT_MS: u64 = 30_000;
/// Blocks that one `eth_getLogs` may span.
pub const RPC_LOGS_BLOCK_RANGE_MAX: u64 = 100_000;
/// Logs that one `eth_getLogs` may return.
pub const RPC_LOGS_COUNT_MAX: usize = 20_000;
/// Addresses, and topics a position, of one filter (geth: 1000).
pub const RPC_FILTER_ITEM_COUNT_MAX: usize = 1000;
/// Blocks of one `eth_feeHistory` (geth: 1024).
pub const RPC_FEE_HISTORY_BLOCK_COUNT_MAX: u64 = 1024;
/// Keys of one `eth_getProof` (geth: 1024).
pub const RPC_PROOF_KEY_COUNT_MAX: usize = 1024;
/// Changed keys that a proof of an older block takes back in the head's trie, which waits meanwhile; for
/// more, the subtries of that block are built beside it.
pub const RPC_PROOF_REWIND_KEY_COUNT_MAX: usize = 1_000;
/// Older blocks whose subtrie roots are kept for further proofs, about 25 kB each.
pub const PROOF_BLOCK_CACHE_COUNT_MAX: usize = 64;
/// Codes that are kept ready to run from block to block, bytes.
pub const CODE_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Default wait of `eth_sendRawTransactionSync` (EIP-7966), milliseconds.
pub const RPC_SYNC_TIMEOUT_DEFAULT_MS: u64 = 2_000;
/// Longest wait of `eth_sendRawTransactionSync`, milliseconds.
pub const RPC_SYNC_TIMEOUT_MAX_MS: u64 = 30_000;
/// Filters that one node keeps.
pub const RPC_FILTER_COUNT_MAX: usize = 1000;
/// A filter not asked about for this long is forgotten, milliseconds (geth: 5 min).
pub const RPC_FILTER_IDLE_MS: u64 = 300_000;

// Engine API.

/// Body of a request to the Engine API, bytes (geth: 128 MiB).
pub const ENGINE_REQUEST_BYTES_MAX: u32 = 128 * 1024 * 1024;
/// Body of an answer of the Engine API, bytes.
pub const ENGINE_RESPONSE_BYTES_MAX: u32 = 256 * 1024 * 1024;
/// Connections to the Engine API's port.
pub const ENGINE_CONNECTION_COUNT_MAX: u32 = 64;
/// Calls of the Engine API that wait for their turn.
pub const ENGINE_CALL_QUEUE_LEN_MAX: usize = 64;
/// Block bodies that one `engine_getPayloadBodies` may ask for (geth: 1024).
pub const ENGINE_BODIES_COUNT_MAX: u64 = 1024;
/// Blocks that a consensus client may take back at once.
pub const ENGINE_REORG_BLOCK_COUNT_MAX: u64 = 256;
/// Valid payloads kept in memory, whether they are on the head's branch or not.
pub const ENGINE_PAYLOAD_COUNT_MAX: usize = 512;
/// Changed keys in those payloads.
pub const ENGINE_PAYLOAD_KEY_COUNT_MAX: usize = 4_000_000;
/// Hashes of invalid payloads that are remembered.
pub const ENGINE_INVALID_COUNT_MAX: usize = 512;
/// Blocks that are being built for a consensus client.
pub const ENGINE_BUILD_COUNT_MAX: usize = 16;
/// Blobs that one `engine_getBlobs` may ask for.
pub const ENGINE_BLOBS_COUNT_MAX: usize = 128;
