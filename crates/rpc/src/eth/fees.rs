//! What gas costs: from the blocks of late, as geth's oracle does it, and exact where it can be.

use crate::{
    api::Api,
    args::Args,
    errors::{RpcError, RpcResult},
    registry::Registry,
};
use alloy_consensus::{Header, Transaction as _};
use alloy_eips::{BlockNumberOrTag, eip1559::BaseFeeParams};
use alloy_primitives::U256;
use alloy_rpc_types_eth::FeeHistory;
use blockraft_execution::{BlockAttributes, next_header};
use blockraft_primitives::{SealedBlock, limits::RPC_FEE_HISTORY_BLOCK_COUNT_MAX};

/// Blocks that the tip oracle looks back (geth: 20).
const ORACLE_BLOCK_COUNT: u64 = 20;
/// Lowest tips of each block that it looks at (geth: 3).
const ORACLE_TIPS_PER_BLOCK: usize = 3;
/// Which of the tips it answers (geth: 60 %).
const ORACLE_PERCENTILE: usize = 60;
/// What it answers when there was nothing to look at, wei. A priority fee buys no place here.
const TIP_DEFAULT: u128 = 1;
/// Percentiles of one `eth_feeHistory` (geth: 100).
const PERCENTILE_COUNT_MAX: usize = 100;

pub(crate) fn register(registry: &mut Registry) {
    registry.read("eth_gasPrice", 0, |api, _| {
        let base_fee = u128::from(api.next_base_fee().unwrap_or(0));
        Ok(U256::from(base_fee + api.suggested_tip()?))
    });
    registry.read("eth_maxPriorityFeePerGas", 0, |api, _| Ok(U256::from(api.suggested_tip()?)));
    registry.quick("eth_baseFee", 0, |api, _| Ok(api.next_base_fee().map(U256::from)));
    registry.quick("eth_blobBaseFee", 0, |api, _| Ok(U256::from(api.blob_base_fee())));
    registry.read("eth_feeHistory", 3, fee_history);
}

impl Api {
    /// Wei a gas that a transaction should add to the base fee.
    pub(crate) fn suggested_tip(&self) -> RpcResult<u128> {
        if self.is_gasless() {
            return Ok(0);
        }
        let head = self.store.head().number;
        // Every wallet asks before every transaction, and large blocks take long to look through.
        if let Some((_, tip)) = self.tip_at.lock().filter(|(number, _)| *number == head) {
            return Ok(tip);
        }
        let tip = self.tip_of_late(head)?;
        *self.tip_at.lock() = Some((head, tip));
        Ok(tip)
    }

    fn tip_of_late(&self, head: u64) -> RpcResult<u128> {
        let mut tips = Vec::new();
        for number in head.saturating_sub(ORACLE_BLOCK_COUNT - 1)..=head {
            let Some(block) = self.store.block(number)? else { continue };
            let mut of_block: Vec<u128> =
                (0..block.transactions.len()).filter_map(|index| tip(&block, index)).collect();
            of_block.sort_unstable();
            tips.extend(of_block.into_iter().filter(|tip| *tip > 0).take(ORACLE_TIPS_PER_BLOCK));
        }
        tips.sort_unstable();
        let place = tips.len().saturating_sub(1) * ORACLE_PERCENTILE / 100;
        Ok(tips.get(place).copied().unwrap_or(TIP_DEFAULT))
    }

    /// Base fee of the block to come; `None` before London.
    pub(crate) fn next_base_fee(&self) -> Option<u64> {
        let head = self.store.head();
        if self.is_gasless() {
            return head.base_fee_per_gas.map(|_| 0);
        }
        head.next_block_base_fee(BaseFeeParams::ethereum())
    }

    /// The header of the block to come, as far as it is known. Its time is the head's: the node that cuts
    /// the block has the clock.
    pub(crate) fn next_header(&self) -> Header {
        let head = self.store.head();
        let genesis = self.store.genesis();
        let attributes = BlockAttributes {
            timestamp: head.timestamp,
            fee_recipient: genesis.options.fee_recipient,
            gas_limit: genesis.block_gas_limit(),
            gasless: genesis.options.gasless,
            ..Default::default()
        };
        next_header(&genesis.spec, &head, &attributes)
    }

    /// Wei a blob gas in the block to come; 0 before Cancun.
    fn blob_base_fee(&self) -> u128 {
        let head = self.store.head();
        let params = self.spec().blob_params(head.timestamp);
        params.and_then(|params| head.next_block_blob_fee(params)).unwrap_or(0)
    }
}

fn tip(block: &SealedBlock, index: usize) -> Option<u128> {
    block.transactions[index].effective_tip_per_gas(block.header.base_fee_per_gas.unwrap_or(0))
}

fn fee_history(api: &Api, args: &Args) -> RpcResult<FeeHistory> {
    let block_count = args.quantity(0)?;
    let newest: BlockNumberOrTag = args.required(1)?;
    let percentiles: Vec<f64> = args.optional(2)?.unwrap_or_default();
    check_percentiles(&percentiles)?;
    if block_count == 0 {
        return Ok(FeeHistory::default());
    }
    let head = api.store.head().number;
    let newest = api.number(newest);
    if newest > head {
        let text = format!("request beyond head block: requested {newest}, head {head}");
        return Err(RpcError::server(text));
    }
    let count = block_count.min(RPC_FEE_HISTORY_BLOCK_COUNT_MAX).min(newest + 1);
    let oldest = newest + 1 - count;

    let mut history = FeeHistory { oldest_block: oldest, ..Default::default() };
    let mut rewards = Vec::new();
    for number in oldest..=newest {
        let header = api.store.header(number)?.ok_or_else(RpcError::header_not_found)?;
        history.base_fee_per_gas.push(header.base_fee_per_gas.unwrap_or(0).into());
        history.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
        let params = api.spec().blob_params(header.timestamp);
        let blob_fee = params.and_then(|params| header.blob_fee(params)).unwrap_or(0);
        history.base_fee_per_blob_gas.push(blob_fee);
        let blob_gas_max = params.map_or(0, |params| params.max_blob_gas_per_block());
        history.blob_gas_used_ratio.push(ratio(header.blob_gas_used.unwrap_or(0), blob_gas_max));
        if !percentiles.is_empty() {
            let block = api.store.block(number)?.ok_or_else(RpcError::header_not_found)?;
            rewards.push(block_rewards(&block, &percentiles));
        }
        if number == newest {
            let (base_fee, blob_fee) = following(api, &header);
            history.base_fee_per_gas.push(base_fee);
            history.base_fee_per_blob_gas.push(blob_fee);
        }
    }
    history.reward = (!percentiles.is_empty()).then_some(rewards);
    Ok(history)
}

fn check_percentiles(percentiles: &[f64]) -> RpcResult<()> {
    if percentiles.len() > PERCENTILE_COUNT_MAX {
        let text =
            format!("invalid reward percentile: over the query limit {PERCENTILE_COUNT_MAX}");
        return Err(RpcError::server(text));
    }
    for (index, percentile) in percentiles.iter().enumerate() {
        if !(0.0..=100.0).contains(percentile) {
            let text = format!("invalid reward percentile: {percentile}");
            return Err(RpcError::server(text));
        }
        if index > 0 && *percentile <= percentiles[index - 1] {
            let before = percentiles[index - 1];
            let text = format!(
                "invalid reward percentile: #{}:{before} >= #{index}:{percentile}",
                index - 1
            );
            return Err(RpcError::server(text));
        }
    }
    Ok(())
}

/// Base fee and blob base fee of the block after this one.
fn following(api: &Api, header: &Header) -> (u128, u128) {
    let base_fee = match api.is_gasless() {
        true => 0,
        false => header.next_block_base_fee(BaseFeeParams::ethereum()).unwrap_or(0),
    };
    let params = api.spec().blob_params(header.timestamp);
    let blob_fee = params.and_then(|params| header.next_block_blob_fee(params)).unwrap_or(0);
    (base_fee.into(), blob_fee)
}

/// The tip at each percentile of the block's gas, transactions ordered by tip.
fn block_rewards(block: &SealedBlock, percentiles: &[f64]) -> Vec<u128> {
    let mut by_tip: Vec<(u128, u64)> = (0..block.transactions.len())
        .map(|index| (tip(block, index).unwrap_or(0), block.gas_used_by(index)))
        .collect();
    by_tip.sort_unstable();
    let mut rewards = Vec::with_capacity(percentiles.len());
    let mut place = 0;
    let mut gas = by_tip.first().map_or(0, |(_, gas)| *gas);
    for percentile in percentiles {
        let threshold = (block.header.gas_used as f64 * percentile / 100.0) as u64;
        while gas < threshold && place + 1 < by_tip.len() {
            place += 1;
            gas += by_tip[place].1;
        }
        rewards.push(by_tip.get(place).map_or(0, |(tip, _)| *tip));
    }
    rewards
}

fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 }
}
