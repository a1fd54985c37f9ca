//! Contracts that make transactions depend on each other.

use crate::chain::{Chain, ETHER, FEE_RECIPIENT};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, Bytes, U256, address, bytes};

/// Code, and what it does. An argument is the first word of the call's data.
pub(crate) const CONTRACTS: [(Address, Bytes); 20] = [
    // Adds one to slot 0: hot.
    (address!("0000000000000000000000000000000000c00001"), bytes!("5f546001015f5500")),
    // Adds one to the caller's slot: independent.
    (address!("0000000000000000000000000000000000c00002"), bytes!("3354600101335500")),
    // Keeps the balance of the argument.
    (address!("0000000000000000000000000000000000c00003"), bytes!("5f35315f5500")),
    // Keeps the balance of the fee recipient.
    (address!("0000000000000000000000000000000000c00004"), bytes!("41315f5500")),
    // Calls the argument with the value it got; keeps whether that went well.
    (address!("0000000000000000000000000000000000c00005"), bytes!("5f5f5f5f345f355af15f5500")),
    // Delegates to the argument.
    (address!("0000000000000000000000000000000000c00006"), bytes!("5f5f5f5f5f355af45f5500")),
    // CREATE2 of a contract that self-destructs when called, by the argument as salt.
    (
        address!("0000000000000000000000000000000000c00007"),
        bytes!("6a6133ff6000526002601ef35f525f35600b601534f55f355500"),
    ),
    // Counts in transient storage, then keeps the count.
    (address!("0000000000000000000000000000000000c00008"), bytes!("5f5c6001015f5d5f5c5f5500")),
    // Flips the caller's slot: refunds.
    (address!("0000000000000000000000000000000000c00009"), bytes!("335415335500")),
    // Keeps the history contract's answer for the parent.
    (
        address!("0000000000000000000000000000000000c0000a"),
        bytes!(
            "600143035f5260205f60205f730000f90827f1c53a10cb7a02335b1753200029355afa505f515f5500"
        ),
    ),
    // A token: moves one from the caller to the argument, and logs.
    (
        address!("0000000000000000000000000000000000c0000b"),
        bytes!("33546001900333555f35546001015f35555f5fa000"),
    ),
    // Counts, then reverts.
    (address!("0000000000000000000000000000000000c0000c"), bytes!("5f546001015f555f5ffd")),
    // Self-destructs in favour of the caller.
    (address!("0000000000000000000000000000000000c0000d"), bytes!("33ff")),
    // Keeps its own balance: reads what plain credits brought.
    (address!("0000000000000000000000000000000000c0000e"), bytes!("475f5500")),
    // Runs for ever.
    (address!("0000000000000000000000000000000000c0000f"), bytes!("5b5f56")),
    // Keeps the hash of the parent.
    (address!("0000000000000000000000000000000000c00010"), bytes!("60014303405f5500")),
    // Keeps the random value of the block.
    (address!("0000000000000000000000000000000000c00011"), bytes!("445f5500")),
    // A pool: takes what the argument says of one thing and gives the other by constant product, to the
    // caller's slot; logs.
    (
        address!("0000000000000000000000000000000000c00012"),
        bytes!(
            "5f3561ffff166001015f54810160015480830282900490819003600155815f5533540133555f525060205fa000"
        ),
    ),
    // Calls the pool with its own data, then the token.
    (
        address!("0000000000000000000000000000000000c00013"),
        bytes!(
            "365f5f375f5f365f5f730000000000000000000000000000000000c000125af1505f5f365f5f730000000000000000000000000000000000c0000b5af15f5500"
        ),
    ),
    // Pays the caller 400 wei while it can, and logs whether it could.
    (
        address!("0000000000000000000000000000000000c00014"),
        bytes!("5f5f5f5f610190335af15f5260205fa000"),
    ),
];

/// Places in [`CONTRACTS`].
pub(crate) const COUNTER: usize = 0;
pub(crate) const FACTORY: usize = 6;
pub(crate) const TOKEN: usize = 10;
pub(crate) const POOL: usize = 17;
pub(crate) const PAYER: usize = 19;

/// What [`CONTRACTS`] creates at [`FACTORY`]: a contract that self-destructs when it is called.
pub(crate) const CHILD_CREATION_CODE: Bytes = bytes!("6133ff6000526002601ef3");

/// Puts the contracts on a chain, in code that its rules know.
pub(crate) fn deploy(chain: &mut Chain) {
    let shanghai = chain.spec.is_shanghai_active_at_timestamp(chain.head.timestamp);
    for (address, code) in &CONTRACTS {
        let code = if shanghai { code.clone() } else { without_push0(code) };
        chain.deploy(*address, code);
        chain.fund(*address, 1_000);
    }
    let reserves = [0, 1].map(|slot| (U256::from(slot), U256::from(1_000_000)));
    chain.state.storage.insert(CONTRACTS[POOL].0, reserves.into_iter().collect());
    chain.fund(FEE_RECIPIENT, 10 * ETHER);
}

/// The same code for forks before Shanghai: `PUSH1 0` in place of `PUSH0`. Nothing here jumps but to its
/// beginning.
fn without_push0(code: &[u8]) -> Bytes {
    let (mut out, mut at) = (Vec::with_capacity(code.len()), 0);
    while let Some(&opcode) = code.get(at) {
        let data = usize::from(opcode.saturating_sub(0x5f)).min(32) * usize::from(opcode < 0x80);
        let end = (at + 1 + data).min(code.len());
        match opcode {
            0x5f => out.extend([0x60, 0]),
            _ => out.extend(&code[at..end]),
        }
        at = end;
    }
    out.into()
}
