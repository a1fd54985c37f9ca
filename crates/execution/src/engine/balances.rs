//! Which balances a transaction looked at.
//!
//! revm loads whole accounts, and most of the time nobody looks at the balance: the code is run, or ether
//! arrives. Such a balance is no read, and what came or went is a difference that ties the transaction to
//! no other. A balance is looked at by BALANCE, SELFBALANCE and SELFDESTRUCT, by the sender's payment and by
//! creations. Who sends ether along with a call needs it, and no more: that is a balance of at least so
//! much.

use super::outcome::{Difference, Read};
use alloy_primitives::{Address, U256};
use revm::state::{Account as EvmAccount, EvmState};

/// What a transaction asked of balances.
#[derive(Debug, Default)]
pub(crate) struct Balances {
    /// Whether anybody wants to know.
    noted: bool,
    looked_at: Vec<Address>,
    spent: Vec<Spent>,
}

/// A call that takes ether along.
#[derive(Debug)]
struct Spent {
    from: Address,
    wei: U256,
    /// What there was of it.
    balance: U256,
}

impl Balances {
    /// Starts a transaction.
    pub(crate) fn clear(&mut self, noted: bool) {
        self.noted = noted;
        self.looked_at.clear();
        self.spent.clear();
    }

    /// The balance itself matters.
    pub(crate) fn look_at(&mut self, address: Address) {
        if self.noted && !self.looked_at.contains(&address) {
            self.looked_at.push(address);
        }
    }

    /// A call takes ether along, if there is enough.
    pub(crate) fn spend(&mut self, from: Address, wei: U256, balance: U256) {
        if balance < wei {
            self.look_at(from);
        } else if self.noted {
            self.spent.push(Spent { from, wei, balance });
        }
    }

    /// Turns reads of accounts whose balance did not matter into reads of their shape, takes the change
    /// of their balances out of `state`, and returns it.
    pub(crate) fn release(
        &self,
        sender: Address,
        reads: &mut [Read],
        state: &mut EvmState,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        for read in reads {
            let Read::Account(address, Some(seen)) = read else { continue };
            let (address, seen) = (*address, *seen);
            if address == sender || seen.is_empty() || self.looked_at.contains(&address) {
                continue;
            }
            let Some(account) = state.get_mut(&address) else { continue };
            let info = &account.info;
            if info.nonce != seen.nonce || info.code_hash != seen.code_hash || is_replaced(account)
            {
                continue;
            }
            let wei = account.info.balance.wrapping_sub(seen.balance);
            if !wei.is_zero() {
                account.info.balance = seen.balance;
                differences.push(Difference { address, wei });
            }
            *read = Read::Shape(address, seen.code_hash, self.needed(address, seen.balance));
        }
        differences
    }

    /// The least balance at the start with which every call can take its ether along.
    fn needed(&self, address: Address, seen: U256) -> U256 {
        let spent = self.spent.iter().filter(|spent| spent.from == address);
        // What came in before the call need not have been there. A balance that was seen too early may be
        // below zero, which is nearly 2^256: the sum must not wrap.
        let needed = spent.map(|Spent { wei, balance, .. }| match balance.checked_sub(seen) {
            Some(came) => wei.saturating_sub(came),
            None => wei.saturating_add(seen - balance),
        });
        needed.max().unwrap_or_default()
    }
}

/// Whether it is another account than the one that was loaded.
fn is_replaced(account: &EvmAccount) -> bool {
    account.is_created() || account.is_selfdestructed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;
    use blockraft_primitives::Account;
    use revm::state::AccountInfo;

    const POOL: Address = Address::repeat_byte(1);
    const CODE: B256 = B256::repeat_byte(2);

    /// The pool had 100 wei and has `now`.
    fn release(balances: &Balances, now: u64) -> (Vec<Read>, Vec<Difference>) {
        let seen = Account { nonce: 1, balance: U256::from(100), code_hash: CODE };
        let mut reads = vec![Read::Account(POOL, Some(seen))];
        let mut info = AccountInfo { nonce: 1, balance: seen.balance, ..Default::default() };
        info.code_hash = CODE;
        let mut account = EvmAccount::from(info);
        account.info.balance = U256::from(now);
        account.mark_touch();
        let mut state = EvmState::from_iter([(POOL, account)]);
        let differences = balances.release(Address::ZERO, &mut reads, &mut state);
        assert!(differences.is_empty() || !state[&POOL].is_changed());
        (reads, differences)
    }

    fn noted() -> Balances {
        let mut balances = Balances::default();
        balances.clear(true);
        balances
    }

    #[test]
    fn what_comes_in_is_a_difference() {
        let (reads, differences) = release(&noted(), 130);
        assert_eq!(reads, [Read::Shape(POOL, CODE, U256::ZERO)]);
        assert_eq!(differences, [Difference { address: POOL, wei: U256::from(30) }]);
    }

    #[test]
    fn what_goes_out_must_have_been_there() {
        let mut balances = noted();
        // 20 came in before 50 went out, then 80 could be sent of what was left.
        balances.spend(POOL, U256::from(50), U256::from(120));
        balances.spend(POOL, U256::from(60), U256::from(70));
        let (reads, differences) = release(&balances, 10);
        assert_eq!(reads, [Read::Shape(POOL, CODE, U256::from(90))]);
        assert_eq!(differences[0].wei, U256::from(90).wrapping_neg());
    }

    #[test]
    fn balance_seen_below_zero_hides_nothing() {
        let below = U256::from(100).wrapping_neg();
        let mut balances = noted();
        balances.spend(POOL, U256::from(400), below + U256::from(3));
        assert_eq!(balances.needed(POOL, below), U256::from(397));
        balances.spend(POOL, U256::from(150), U256::from(200));
        assert!(balances.needed(POOL, below) > U256::from(1_000));
    }

    #[test]
    fn balance_that_is_looked_at_stays_a_read() {
        let mut looked_at = noted();
        looked_at.look_at(POOL);
        let mut short = noted();
        short.spend(POOL, U256::from(101), U256::from(100));
        for balances in [looked_at, short] {
            let (reads, differences) = release(&balances, 130);
            assert!(matches!(reads[..], [Read::Account(_, Some(_))]));
            assert!(differences.is_empty());
        }
    }
}
