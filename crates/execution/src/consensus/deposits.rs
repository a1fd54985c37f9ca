//! The layout of deposit events (EIP-6110).

use alloy_eips::eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS;
use alloy_evm::{block::BlockValidationError, eth::spec::EthExecutorSpec};
use alloy_primitives::{B256, b256};
use blockraft_primitives::{ChainSpec, Receipt};

/// keccak256 of `DepositEvent(bytes,bytes,bytes,bytes,bytes)`.
const DEPOSIT_EVENT: B256 =
    b256!("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5");
/// Offset and length of each field; the contract emits no other layout.
const FIELDS: [(usize, usize); 5] = [(160, 48), (256, 32), (320, 8), (384, 96), (512, 8)];
const DATA_LEN: usize = 576;

/// A deposit event that is not laid out as the deposit contract lays them out makes its block invalid,
/// even where an ABI decoder would make sense of it.
pub(crate) fn check_deposit_logs(
    spec: &ChainSpec,
    receipts: &[Receipt],
) -> Result<(), BlockValidationError> {
    let contract = spec.deposit_contract_address().unwrap_or(MAINNET_DEPOSIT_CONTRACT_ADDRESS);
    let mut logs = receipts
        .iter()
        .flat_map(|receipt| &receipt.logs)
        .filter(|log| log.address == contract && log.topics().first() == Some(&DEPOSIT_EVENT));
    if logs.all(|log| is_deposit_layout(&log.data.data)) {
        return Ok(());
    }
    Err(BlockValidationError::DepositRequestDecode("invalid deposit event layout".to_owned()))
}

fn is_deposit_layout(data: &[u8]) -> bool {
    let word = |at: usize| {
        let (high, low) = data[at..at + 32].split_at(24);
        let low = u64::from_be_bytes(low.try_into().expect("eight bytes"));
        high.iter().all(|byte| *byte == 0).then_some(low)
    };
    data.len() == DATA_LEN
        && FIELDS.iter().enumerate().all(|(index, (offset, length))| {
            word(index * 32) == Some(*offset as u64) && word(*offset) == Some(*length as u64)
        })
}
