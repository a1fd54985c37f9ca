//! The bytes of batches and blocks in the log: nothing is said twice, and nothing that follows from the rest.
//!
//! Senders are named once a batch. A block names runs of transactions; a receipt is one byte where it is like
//! the one before and has no logs; addresses and topics that occur again are references.

use super::{
    AdmitBatch, BlockEntry, DropReason, DroppedTransaction, EntryError, decode_raw_transaction,
};
use crate::{
    Account, AccountChange, AccountDiff, AdmissionId, Receipt, SlotChange, StateDiff,
    compact::{Reader, Writer},
    limits::{BLOCK_LOG_BYTES_MAX, BLOCK_TX_COUNT_MAX},
};
use alloy_consensus::{Eip658Value, Header};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, LogData, map::AddressMap};
use alloy_rlp::{Decodable, Encodable};
use std::sync::Arc;

// The first byte of a receipt: its status, whether it took the gas of the one before, and the logs.
const STATUS_MASK: u8 = 0b11;
const STATUS_FAILED: u8 = 0;
const STATUS_SUCCEEDED: u8 = 1;
/// Before Byzantium.
const STATUS_ROOT: u8 = 2;
const SAME_GAS: u8 = 1 << 2;
const LOG_COUNT_SHIFT: u32 = 3;
/// The number of logs follows.
const LOGS_MANY: u8 = 31;

// The first byte of an account's change.
const CHANGE_MASK: u8 = 0b11;
const UNCHANGED: u8 = 0;
const DELETED: u8 = 1;
const SET: u8 = 2;
const SET_WITH_CODE: u8 = 3;
const WIPED: u8 = 1 << 2;
const HAS_STORAGE: u8 = 1 << 3;
const HAS_NONCE: u8 = 1 << 4;
const CHANGE_BITS: u8 = 0b1_1111;

/// Appends a batch.
pub(super) fn put_batch(batch: &AdmitBatch, out: &mut Writer) {
    let mut places = AddressMap::<u64>::default();
    out.count(batch.transactions.len());
    let mut raw = Vec::new();
    for tx in &batch.transactions {
        let next = places.len() as u64;
        let place = *places.entry(tx.signer()).or_insert(next);
        out.integer(place);
        if place == next {
            out.raw(tx.signer().as_slice());
        }
        raw.clear();
        tx.encode_2718(&mut raw);
        out.bytes(&raw);
    }
}

/// Reads [`put_batch`] back.
pub(super) fn take_batch(input: &mut Reader<'_>) -> Result<AdmitBatch, EntryError> {
    let count = input.count()?;
    let mut senders = Vec::new();
    let mut transactions = Vec::with_capacity(count);
    for _ in 0..count {
        let place = input.integer()?;
        if place == senders.len() as u64 {
            senders.push(Address::from_slice(input.raw(20)?));
        }
        let sender = usize::try_from(place).ok().and_then(|place| senders.get(place));
        let sender = *sender.ok_or(EntryError::Malformed("sender"))?;
        transactions.push(decode_raw_transaction(sender, input.bytes()?)?);
    }
    Ok(AdmitBatch { transactions })
}

/// Appends a block.
pub(super) fn put_block(block: &BlockEntry, out: &mut Writer) {
    block.header.encode(out.buffer());
    out.integer(block.pool_index);
    put_ids(&block.transactions, out);
    out.count(block.dropped.len());
    for dropped in &block.dropped {
        out.integer(dropped.id.0);
        out.byte(dropped.reason as u8);
    }
    put_diff(&block.diff, out);
    put_receipts(&block.receipts, out);
    out.bytes(&block.subtrie_roots);
}

/// Reads [`put_block`] back.
pub(super) fn take_block(input: &mut Reader<'_>) -> Result<BlockEntry, EntryError> {
    let header = Header::decode(input.buffer())?;
    let pool_index = input.integer()?;
    let transactions = take_ids(input)?;
    let dropped = (0..input.count()?).map(|_| {
        let id = AdmissionId(input.integer()?);
        Ok(DroppedTransaction { id, reason: drop_reason(input.byte()?)? })
    });
    let dropped = dropped.collect::<Result<_, EntryError>>()?;
    let diff = Arc::new(take_diff(input)?);
    let receipts = take_receipts(input)?;
    let subtrie_roots = Bytes::copy_from_slice(input.bytes()?);
    Ok(BlockEntry { header, transactions, dropped, receipts, diff, pool_index, subtrie_roots })
}

fn drop_reason(code: u8) -> Result<DropReason, EntryError> {
    match code {
        1 => Ok(DropReason::Invalid),
        2 => Ok(DropReason::Poison),
        _ => Err(EntryError::Malformed("drop reason")),
    }
}

/// The number of all, then runs of consecutive ids: how far from the end of the last one, and how long.
fn put_ids(ids: &[AdmissionId], out: &mut Writer) {
    out.count(ids.len());
    let mut end = 0;
    for run in ids.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0)) {
        out.difference(end, run[0].0);
        out.count(run.len());
        end = run[run.len() - 1].0.wrapping_add(1);
    }
}

fn take_ids(input: &mut Reader<'_>) -> Result<Vec<AdmissionId>, EntryError> {
    let count = transaction_count(input)?;
    let mut ids = Vec::with_capacity(count);
    let mut end: u64 = 0;
    while ids.len() < count {
        let start = input.difference(end)?;
        let length = input.integer()?;
        let left = (count - ids.len()) as u64;
        let last = start.checked_add(length.wrapping_sub(1));
        let (1.., Some(last)) = (if length <= left { length } else { 0 }, last) else {
            return Err(EntryError::Malformed("transaction run"));
        };
        ids.extend((start..=last).map(AdmissionId));
        end = last.wrapping_add(1);
    }
    Ok(ids)
}

fn transaction_count(input: &mut Reader<'_>) -> Result<usize, EntryError> {
    let count = input.integer()?;
    if count > BLOCK_TX_COUNT_MAX as u64 {
        return Err(EntryError::Malformed("transaction count"));
    }
    Ok(count as usize)
}

pub(super) fn put_diff(diff: &StateDiff, out: &mut Writer) {
    out.count(diff.accounts.len());
    for account in &diff.accounts {
        out.address(&account.address);
        put_account(account, out);
    }
    out.count(diff.codes.len());
    for code in &diff.codes {
        out.bytes(code);
    }
}

fn put_account(diff: &AccountDiff, out: &mut Writer) {
    let (kind, account) = match &diff.change {
        AccountChange::Unchanged => (UNCHANGED, None),
        AccountChange::Deleted => (DELETED, None),
        AccountChange::Set(account) if account.has_code() => (SET_WITH_CODE, Some(account)),
        AccountChange::Set(account) => (SET, Some(account)),
    };
    let mut head = kind;
    if diff.storage_wiped {
        head |= WIPED;
    }
    if !diff.storage.is_empty() {
        head |= HAS_STORAGE;
    }
    if account.is_some_and(|account| account.nonce != 0) {
        head |= HAS_NONCE;
    }
    out.byte(head);
    if let Some(account) = account {
        if account.nonce != 0 {
            out.integer(account.nonce);
        }
        out.number(account.balance);
        if account.has_code() {
            out.raw(account.code_hash.as_slice());
        }
    }
    if !diff.storage.is_empty() {
        out.count(diff.storage.len());
        for change in &diff.storage {
            out.number(change.slot);
            out.number(change.value);
        }
    }
}

pub(super) fn take_diff(input: &mut Reader<'_>) -> Result<StateDiff, EntryError> {
    let accounts = (0..input.count()?).map(|_| take_account(input));
    let accounts = accounts.collect::<Result<_, _>>()?;
    let codes = (0..input.count()?).map(|_| Ok(Bytes::copy_from_slice(input.bytes()?)));
    Ok(StateDiff { accounts, codes: codes.collect::<Result<_, EntryError>>()? })
}

fn take_account(input: &mut Reader<'_>) -> Result<AccountDiff, EntryError> {
    let address = input.address()?;
    let head = input.byte()?;
    if head & !CHANGE_BITS != 0 {
        return Err(EntryError::Malformed("account change"));
    }
    let change = match head & CHANGE_MASK {
        UNCHANGED => AccountChange::Unchanged,
        DELETED => AccountChange::Deleted,
        kind => {
            let nonce = if head & HAS_NONCE != 0 { input.integer()? } else { 0 };
            let balance = input.number()?;
            let code_hash = match kind {
                SET_WITH_CODE => B256::from_slice(input.raw(32)?),
                _ => KECCAK256_EMPTY,
            };
            AccountChange::Set(Account { nonce, balance, code_hash })
        }
    };
    let slots = if head & HAS_STORAGE != 0 { input.count()? } else { 0 };
    let storage =
        (0..slots).map(|_| Ok(SlotChange { slot: input.number()?, value: input.number()? }));
    let storage = storage.collect::<Result<_, EntryError>>()?;
    Ok(AccountDiff { address, change, storage_wiped: head & WIPED != 0, storage })
}

fn put_receipts(receipts: &[Receipt], out: &mut Writer) {
    out.count(receipts.len());
    let (mut cumulative, mut gas_before) = (0u64, 0u64);
    for receipt in receipts {
        let gas = receipt.cumulative_gas_used.wrapping_sub(cumulative);
        cumulative = receipt.cumulative_gas_used;
        let mut head = match receipt.status {
            Eip658Value::Eip658(false) => STATUS_FAILED,
            Eip658Value::Eip658(true) => STATUS_SUCCEEDED,
            Eip658Value::PostState(_) => STATUS_ROOT,
        };
        if gas == gas_before {
            head |= SAME_GAS;
        }
        let many = receipt.logs.len() >= usize::from(LOGS_MANY);
        let logs = if many { LOGS_MANY } else { receipt.logs.len() as u8 };
        out.byte(head | logs << LOG_COUNT_SHIFT);
        if let Eip658Value::PostState(root) = &receipt.status {
            out.raw(root.as_slice());
        }
        if gas != gas_before {
            out.integer(gas);
            gas_before = gas;
        }
        if many {
            out.count(receipt.logs.len());
        }
        for log in &receipt.logs {
            put_log(log, out);
        }
    }
}

/// Data that is whole words is written as such: most of it is small numbers and addresses.
fn put_log(log: &Log, out: &mut Writer) {
    out.address(&log.address);
    out.count(log.data.topics().len());
    for topic in log.data.topics() {
        out.word(topic);
    }
    let data = &log.data.data;
    out.count(data.len());
    if data.len().is_multiple_of(32) {
        for word in data.chunks_exact(32) {
            out.word(&B256::from_slice(word));
        }
    } else {
        out.raw(data);
    }
}

fn take_receipts(input: &mut Reader<'_>) -> Result<Vec<Receipt>, EntryError> {
    let count = transaction_count(input)?;
    let mut receipts = Vec::with_capacity(count);
    let (mut cumulative, mut gas) = (0u64, 0u64);
    let mut room = BLOCK_LOG_BYTES_MAX;
    for _ in 0..count {
        let head = input.byte()?;
        let status = match head & STATUS_MASK {
            STATUS_FAILED => Eip658Value::Eip658(false),
            STATUS_SUCCEEDED => Eip658Value::Eip658(true),
            STATUS_ROOT => Eip658Value::PostState(B256::from_slice(input.raw(32)?)),
            _ => return Err(EntryError::Malformed("receipt status")),
        };
        if head & SAME_GAS == 0 {
            gas = input.integer()?;
        }
        cumulative = cumulative.wrapping_add(gas);
        let logs = match head >> LOG_COUNT_SHIFT {
            LOGS_MANY => input.count()?,
            logs => usize::from(logs),
        };
        let logs = (0..logs).map(|_| take_log(input, &mut room)).collect::<Result<_, _>>()?;
        receipts.push(Receipt { status, cumulative_gas_used: cumulative, logs });
    }
    Ok(receipts)
}

fn take_log(input: &mut Reader<'_>, room: &mut usize) -> Result<Log, EntryError> {
    let address = input.address()?;
    let topics = (0..input.count()?).map(|_| input.word()).collect::<Result<Vec<_>, _>>()?;
    let length = usize::try_from(input.integer()?).unwrap_or(usize::MAX);
    let needed = length.saturating_add(32 * topics.len());
    *room = room.checked_sub(needed).ok_or(EntryError::Malformed("logs too long"))?;
    let data = if length.is_multiple_of(32) {
        let mut data = Vec::new();
        for _ in 0..length / 32 {
            data.extend_from_slice(input.word()?.as_slice());
        }
        data.into()
    } else {
        Bytes::copy_from_slice(input.raw(length)?)
    };
    Ok(Log { address, data: LogData::new_unchecked(topics, data) })
}
