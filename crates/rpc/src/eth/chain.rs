//! What chain this is and how far it is.

use crate::registry::Registry;
use alloy_primitives::{Address, U64};

pub(crate) fn register(registry: &mut Registry) {
    registry.quick("eth_chainId", 0, |api, _| Ok(U64::from(api.spec().chain_id)));
    registry.quick("eth_blockNumber", 0, |api, _| Ok(U64::from(api.store.head().number)));
    // A node that answers at all answers from committed blocks; how far it lags is in `/readyz`.
    registry.quick("eth_syncing", 0, |_, _| Ok(false));
    // Keys are the clients' own.
    registry.quick("eth_accounts", 0, |_, _| Ok(Vec::<Address>::new()));
    registry.quick("eth_coinbase", 0, |api, _| Ok(api.store.genesis().options.fee_recipient));
    registry.quick("eth_mining", 0, |_, _| Ok(false));
    // eth/68, the last version of the wire protocol that has receipts and headers as here.
    registry.quick("eth_protocolVersion", 0, |_, _| Ok(U64::from(68)));
}
