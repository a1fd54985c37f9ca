//! Building blocks: which candidates go in, and what the header then says.

use crate::{
    BlockAttributes, BuildInput, ExecutionError,
    env::{evm_env, next_header},
    late::{LateParent, Parent, Patience},
    roots::{receipts_root_and_bloom, transactions_root},
    runner::{Aids, Course, Finished, Refusal, Runner, Transfers},
    validate::Commitments,
};
use alloy_consensus::{Header, Sealable, Sealed, Transaction as _};
use alloy_eips::{
    eip2718::Encodable2718,
    eip4844::DATA_GAS_PER_BLOB,
    eip4895::{Withdrawal, Withdrawals},
    eip7685::Requests,
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, map::AddressSet};
use blockraft_primitives::{
    ChainSpec, CommittedBlock, DropReason, Receipt, SealedBlock, StateDiff, StateReader,
    Transaction, limits::BLOCK_TX_COUNT_MAX,
};
use revm::context_interface::result::InvalidTransaction;
use std::sync::Arc;

/// Bytes of transactions in a block from Osaka on: EIP-7934 allows 8 MiB of RLP for the whole block; the
/// rest is for the header and the withdrawals.
const BLOCK_TX_BYTES_MAX: usize = 8 * 1024 * 1024 - 64 * 1024;

/// The least gas that any transaction uses.
pub(crate) const TX_GAS_MIN: u64 = 21_000;

/// A block that was executed but has no state root yet, so no hash.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltBlock {
    /// Complete but for the state root, which is zero until [`BuiltBlock::seal`].
    pub header: Header,
    /// Indices of the candidates that are in the block, ascending.
    pub included: Vec<usize>,
    /// Indices of candidates that may run in a later block, ascending.
    pub skipped: Vec<usize>,
    /// Indices of candidates that should leave the pool, and why, ascending.
    pub dropped: Vec<(usize, DropReason)>,
    /// The included transactions, in block order.
    pub transactions: Vec<Transaction>,
    /// One an included transaction.
    pub receipts: Vec<Receipt>,
    /// Net change of the state.
    pub diff: StateDiff,
    /// Gas of all transactions.
    pub gas_used: u64,
    /// EIP-4895; `None` before Shanghai.
    pub withdrawals: Option<Withdrawals>,
    /// EIP-7685; empty before Prague.
    pub requests: Requests,
}

impl BuiltBlock {
    /// Completes the header.
    pub fn seal(mut self, state_root: B256) -> CommittedBlock {
        self.header.state_root = state_root;
        let block = SealedBlock {
            header: self.header.seal_slow(),
            transactions: self.transactions,
            receipts: self.receipts,
            ommers: Vec::new(),
            withdrawals: self.withdrawals,
        };
        CommittedBlock { block: Arc::new(block), diff: Arc::new(self.diff) }
    }
}

/// Builds the block that follows `parent`, whose state is `state`.
///
/// `candidates` come in the order in which they shall run, each sender's in nonce order. A candidate that
/// cannot run in this block is skipped, and with it all later ones of its sender; one that can never run,
/// or that makes the EVM panic, is dropped, and the block goes on as if it had not been there. An empty
/// block is a block. Errors only when the state cannot be read or the attributes fit no block.
pub fn build_block<S: StateReader>(
    spec: &ChainSpec,
    state: S,
    parent: &Sealed<Header>,
    attributes: &BlockAttributes,
    candidates: &[Transaction],
) -> Result<BuiltBlock, ExecutionError> {
    let input = BuildInput { spec, parent, attributes, candidates };
    run(&input, state, Aids::default(), None)
}

/// Builds a block on this thread. `touched` gets all that the block looked at, as it is after it.
pub(crate) fn run<S: StateReader>(
    input: &BuildInput<'_>,
    state: S,
    aids: Aids,
    touched: Option<&mut StateDiff>,
) -> Result<BuiltBlock, ExecutionError> {
    let BuildInput { spec, parent, attributes, candidates } = *input;
    check_attributes(parent, attributes)?;
    let mut header = next_header(spec, parent, attributes);
    let env = evm_env(spec, &header);
    let expected = candidates.len().min((header.gas_limit / TX_GAS_MIN) as usize);
    let late = aids.parent.clone();
    let course = Course { transfers: Transfers::Direct, tx_count: expected, aids };
    let mut runner = Runner::begin(spec, env, state, &header, course)?;
    let mut selection = Selection::new(spec, &header, attributes, expected);
    for (index, tx) in candidates.iter().enumerate() {
        if !selection.admits(runner.gas_left(), runner.blob_gas_used(), tx) {
            selection.skip(index, tx.signer());
            continue;
        }
        match runner.run(tx) {
            Ok(()) => selection.include(index, tx),
            Err(Refusal::State(error)) => return Err(ExecutionError::State(error)),
            Err(refusal) => {
                if matches!(refusal, Refusal::Panicked) {
                    runner = runner.recover();
                }
                selection.leave_out(index, tx, refusal);
            }
        }
    }
    let finished = runner.finish(&[], &attributes.withdrawals, touched)?;
    complete(&mut header, late)?;
    Ok(assemble(spec, header, &attributes.withdrawals, selection, finished))
}

/// Writes what the parent's hash decides into the header of its child.
pub(crate) fn complete(
    header: &mut Header,
    late: Option<LateParent>,
) -> Result<(), ExecutionError> {
    let parent = Parent::of(header, late);
    header.parent_hash = parent.hash(Patience::Wait)?;
    if let Some(prev_randao) = parent.prev_randao(Patience::Wait)? {
        header.mix_hash = prev_randao;
    }
    Ok(())
}

/// The block that a selection and its execution make.
pub(crate) fn assemble(
    spec: &ChainSpec,
    mut header: Header,
    withdrawals: &[Withdrawal],
    selection: Selection,
    finished: Finished,
) -> BuiltBlock {
    let transactions = selection.transactions;
    let (transactions_root, receipts) = rayon::join(
        || transactions_root(&transactions),
        || receipts_root_and_bloom(&transactions, &finished.receipts),
    );
    header.transactions_root = transactions_root;
    Commitments::new(spec, header.timestamp, &finished, receipts).write(&mut header);
    BuiltBlock {
        withdrawals: header.withdrawals_root.map(|_| Withdrawals::new(withdrawals.to_vec())),
        header,
        included: selection.included,
        skipped: selection.skipped,
        dropped: selection.dropped,
        transactions,
        receipts: finished.receipts,
        diff: finished.diff,
        gas_used: finished.gas_used,
        requests: finished.requests,
    }
}

/// Whether a block can have these attributes.
pub(crate) fn check_attributes(
    parent: &Header,
    attributes: &BlockAttributes,
) -> Result<(), ExecutionError> {
    if attributes.timestamp < parent.timestamp {
        return Err(ExecutionError::Timestamp {
            got: attributes.timestamp,
            parent: parent.timestamp,
        });
    }
    if attributes.extra_data.len() > 32 {
        return Err(ExecutionError::ExtraData { got: attributes.extra_data.len() });
    }
    Ok(())
}

/// What became of the candidates so far.
#[derive(Debug)]
pub(crate) struct Selection {
    transactions: Vec<Transaction>,
    included: Vec<usize>,
    skipped: Vec<usize>,
    dropped: Vec<(usize, DropReason)>,
    /// Senders whose later transactions must wait for an earlier one.
    waiting: AddressSet,
    bytes: usize,
    bytes_max: usize,
    blob_gas_max: u64,
    /// The largest gas limit that a block may come to have.
    gas_limit_max: u64,
}

impl Selection {
    /// Nothing selected yet; `expected` is a guess at how many will be.
    pub(crate) fn new(
        spec: &ChainSpec,
        header: &Header,
        attributes: &BlockAttributes,
        expected: usize,
    ) -> Self {
        let time = header.timestamp;
        let blobs = spec.blob_params(time).map_or(0, |params| params.max_blob_count);
        let osaka = spec.is_osaka_active_at_timestamp(time);
        Self {
            transactions: Vec::with_capacity(expected),
            included: Vec::with_capacity(expected),
            skipped: Vec::new(),
            dropped: Vec::new(),
            waiting: AddressSet::default(),
            bytes: 0,
            bytes_max: if osaka { BLOCK_TX_BYTES_MAX } else { usize::MAX },
            blob_gas_max: blobs * DATA_GAS_PER_BLOB,
            gas_limit_max: header.gas_limit.max(attributes.gas_limit),
        }
    }

    /// Whether the transaction may be tried at all.
    pub(crate) fn admits(&self, gas_left: u64, blob_gas_used: u64, tx: &Transaction) -> bool {
        let blob_gas = tx.blob_gas_used().unwrap_or_default();
        gas_left >= TX_GAS_MIN
            && self.transactions.len() < BLOCK_TX_COUNT_MAX
            && (self.waiting.is_empty() || !self.waiting.contains(&tx.signer()))
            && (blob_gas == 0 || blob_gas_used + blob_gas <= self.blob_gas_max)
            && (self.bytes_max == usize::MAX || self.bytes + tx.encode_2718_len() <= self.bytes_max)
    }

    /// It is in the block.
    pub(crate) fn include(&mut self, index: usize, tx: &Transaction) {
        self.included.push(index);
        self.transactions.push(tx.clone());
        if self.bytes_max != usize::MAX {
            self.bytes += tx.encode_2718_len();
        }
    }

    /// It was refused: it waits, or leaves the pool.
    pub(crate) fn leave_out(&mut self, index: usize, tx: &Transaction, refusal: Refusal) {
        match self.verdict(refusal, tx) {
            Some(reason) => self.dropped.push((index, reason)),
            None => self.skip(index, tx.signer()),
        }
    }

    /// It waits, and with it all later ones of its sender.
    pub(crate) fn skip(&mut self, index: usize, sender: Address) {
        self.skipped.push(index);
        self.waiting.insert(sender);
    }

    /// Why to drop a refused transaction; `None` where it may run later.
    fn verdict(&self, refusal: Refusal, tx: &Transaction) -> Option<DropReason> {
        use InvalidTransaction as I;
        match refusal {
            Refusal::Panicked | Refusal::Overdue | Refusal::Failed(_) => Some(DropReason::Poison),
            Refusal::Gas { .. } if tx.gas_limit() <= self.gas_limit_max => None,
            Refusal::Invalid(
                I::GasPriceLessThanBasefee
                | I::BlobGasPriceGreaterThanMax { .. }
                | I::LackOfFundForMaxFee { .. }
                | I::NonceTooHigh { .. },
            ) => None,
            Refusal::Gas { .. } | Refusal::Invalid(_) => Some(DropReason::Invalid),
            Refusal::State(_) => unreachable!("a failing state ends the block"),
        }
    }
}
