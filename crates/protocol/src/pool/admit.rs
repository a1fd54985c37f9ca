//! How a transaction enters the pool.

use super::{
    InFlight, Pool,
    sender::{Sender, cost_of},
};
use crate::{AdmissionRules, PoolError, checks::check_block_gas};
use alloy_consensus::Transaction as _;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, U256, map::AddressMap};
use blockraft_primitives::{
    Account, AdmissionId, AdmitBatch, PoolChange, PoolRecord, Transaction, limits,
};

/// What an applied `Admit` entry came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// One a transaction of the batch, in its order.
    pub verdicts: Vec<Result<AdmissionId, PoolError>>,
    /// What storage writes.
    pub changes: Vec<PoolChange>,
}

/// A batch without what is certain to be refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sifted {
    /// What goes on, in order.
    pub passed: Vec<Transaction>,
    /// One a transaction of the batch: why it does not go on.
    refused: Vec<Option<PoolError>>,
}

impl Sifted {
    /// The verdicts on the whole batch, given those on what passed.
    pub fn merge(self, verdicts: Vec<Result<(), PoolError>>) -> Vec<Result<(), PoolError>> {
        let mut passed = verdicts.into_iter();
        let verdict = |refused: Option<PoolError>| match refused {
            Some(error) => Err(error),
            None => passed.next().expect("as many verdicts as transactions passed"),
        };
        self.refused.into_iter().map(verdict).collect()
    }
}

impl Pool {
    /// Whether the transaction would be admitted now.
    pub fn check(
        &self,
        tx: &Transaction,
        account: Account,
        rules: &AdmissionRules,
    ) -> Result<(), PoolError> {
        let pooled = self.senders.get(&tx.signer());
        self.check_outset(tx, account, rules)?;
        let gapped = pooled.map_or(account.nonce, |s| s.next);
        // Blobs are too large to wait behind a gap.
        let gap_max = if tx.is_eip4844() { 0 } else { limits::POOL_NONCE_GAP_MAX };
        if tx.nonce() > gapped.saturating_add(gap_max) {
            return Err(PoolError::NonceTooHigh { nonce: tx.nonce(), gapped });
        }
        if let Some(sender) = pooled {
            check_beside_pooled(tx, account.balance, sender)?;
        }
        self.check_room(tx)
    }

    /// What a leader checks before it proposes: refuses only what is certain to be refused when the
    /// entry is applied, or is void. Entries on their way may still close a nonce gap, so gaps,
    /// replacements and sums wait for [`Pool::admit`]. A nonce that is in a block on its way is used.
    pub fn check_early(
        &self,
        in_flight: &InFlight,
        tx: &Transaction,
        account: Account,
        rules: &AdmissionRules,
    ) -> Result<(), PoolError> {
        let nonce = in_flight.next_nonce(tx.signer()).unwrap_or(0).max(account.nonce);
        self.check_outset(tx, Account { nonce, ..account }, rules)?;
        self.check_room(tx)
    }

    /// [`Self::check_early`] for a batch: what a leader's shell does with transactions before it hands
    /// them to the [`Leader`](crate::Leader). `is_contract` tells accounts whose code is a contract from
    /// delegations (EIP-7702): contracts send nothing (EIP-3607).
    pub fn sift(
        &self,
        in_flight: &InFlight,
        transactions: Vec<Transaction>,
        mut account_of: impl FnMut(Address) -> Account,
        mut is_contract: impl FnMut(&Account) -> bool,
        rules: &AdmissionRules,
    ) -> Sifted {
        let mut accounts = AddressMap::<Account>::default();
        let mut sifted = Sifted::default();
        for tx in transactions {
            let sender = tx.signer();
            let account = *accounts.entry(sender).or_insert_with(|| account_of(sender));
            let mut verdict = self.check_early(in_flight, &tx, account, rules);
            if verdict.is_ok() && account.has_code() && is_contract(&account) {
                let code_hash = account.code_hash;
                verdict = Err(PoolError::SenderNotEoa { address: sender, code_hash });
            }
            let refused = verdict.err();
            if refused.is_none() {
                sifted.passed.push(tx);
            }
            sifted.refused.push(refused);
        }
        sifted
    }

    /// Applies the `Admit` entry at log index `index`. `account_of` reads the state of the last applied
    /// block, and `rules` are those on top of it.
    pub fn admit(
        &mut self,
        index: u64,
        batch: &AdmitBatch,
        mut account_of: impl FnMut(Address) -> Account,
        rules: &AdmissionRules,
    ) -> Admitted {
        let mut accounts = AddressMap::<Account>::default();
        let mut verdicts = Vec::with_capacity(batch.transactions.len());
        let mut changes = Vec::with_capacity(batch.transactions.len());
        for tx in &batch.transactions {
            let sender = tx.signer();
            let account = *accounts.entry(sender).or_insert_with(|| account_of(sender));
            let verdict = self.check(tx, account, rules);
            verdicts.push(verdict.map(|()| self.enter(index, tx, account.nonce, &mut changes)));
        }
        Admitted { verdicts, changes }
    }

    fn enter(
        &mut self,
        index: u64,
        tx: &Transaction,
        state_nonce: u64,
        changes: &mut Vec<PoolChange>,
    ) -> AdmissionId {
        let id = self.next_id;
        let record =
            PoolRecord { id, admitted_at: index, replaced_at: None, transaction: tx.clone() };
        if let Some(old) = self.put_live(id, tx, state_nonce) {
            changes.push(self.retire_record(old.id, index));
        }
        changes.push(PoolChange::Put(record.clone()));
        self.put_record(record);
        id
    }

    /// In geth's order, so that of two reasons the same one is given.
    fn check_outset(
        &self,
        tx: &Transaction,
        account: Account,
        rules: &AdmissionRules,
    ) -> Result<(), PoolError> {
        if self.by_hash.contains_key(tx.tx_hash()) {
            return Err(PoolError::AlreadyKnown);
        }
        check_block_gas(tx, rules)?;
        if tx.nonce() < account.nonce {
            return Err(PoolError::NonceTooLow { next: account.nonce, nonce: tx.nonce() });
        }
        let (balance, cost) = (account.balance, cost_of(tx));
        if cost > balance {
            return Err(PoolError::Funds { balance, cost });
        }
        Ok(())
    }

    fn check_room(&self, tx: &Transaction) -> Result<(), PoolError> {
        let full = self.records.len() >= limits::POOL_TX_COUNT_MAX
            || self.bytes + tx.encode_2718_len() > limits::POOL_BYTES_MAX;
        if full { Err(PoolError::PoolFull) } else { Ok(()) }
    }
}

fn check_beside_pooled(tx: &Transaction, balance: U256, sender: &Sender) -> Result<(), PoolError> {
    let (cost, queued) = (cost_of(tx), sender.cost);
    let blobs = tx.is_eip4844();
    if sender.by_nonce.values().next().is_some_and(|slot| slot.transaction.is_eip4844() != blobs) {
        return Err(PoolError::AddressReserved);
    }
    let Some(old) = sender.by_nonce.get(&tx.nonce()) else {
        let need = queued.saturating_add(cost);
        if need > balance {
            return Err(PoolError::QueuedFunds { balance, queued, cost });
        }
        let pooled = sender.by_nonce.len();
        let max = if blobs {
            limits::POOL_BLOB_TX_PER_SENDER_MAX
        } else {
            limits::POOL_TX_PER_SENDER_MAX
        };
        if pooled >= max {
            return Err(PoolError::AccountLimit { pooled: pooled as u64 });
        }
        return Ok(());
    };
    let need = (queued - old.cost).saturating_add(cost);
    // A cheaper replacement is always affordable.
    if cost > old.cost && need > balance {
        return Err(PoolError::BumpedFunds { balance, queued, bump: cost - old.cost });
    }
    let percent =
        if blobs { limits::POOL_BLOB_PRICE_BUMP_PERCENT } else { limits::POOL_PRICE_BUMP_PERCENT };
    let old = &old.transaction;
    let blob_fee = |tx: &Transaction| tx.max_fee_per_blob_gas().unwrap_or_default();
    let pays_more = outbids(tx.max_fee_per_gas(), old.max_fee_per_gas(), percent)
        && outbids(tip_cap(tx), tip_cap(old), percent)
        && (!blobs || outbids(blob_fee(tx), blob_fee(old), percent));
    if pays_more { Ok(()) } else { Err(PoolError::ReplacementUnderpriced) }
}

fn tip_cap(tx: &Transaction) -> u128 {
    tx.max_priority_fee_per_gas().unwrap_or_else(|| tx.max_fee_per_gas())
}

/// geth's price bump: more, and at least the bump, rounded down.
fn outbids(new: u128, old: u128, percent: u128) -> bool {
    let bumped = U256::from(old) * U256::from(100 + percent);
    new > old && U256::from(new) >= bumped / U256::from(100)
}
