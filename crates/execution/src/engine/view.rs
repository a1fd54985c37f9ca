//! The memory as the EVM reads it at one place of the block.

use super::{
    access_list::{Location, loaded},
    balances::Balances,
    memory::{Mark, Place, Seen},
    outcome::{Read, Writes},
    source::Source,
};
use crate::{
    collision::is_open,
    database::{DatabaseError, account_info, bytecode},
    instructions::BlockDatabase,
    late::Patience,
    watchdog::Watch,
};
use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map},
};
use blockraft_primitives::{Account, StateReader};
use revm::{
    DatabaseCommit,
    database_interface::Database,
    state::{Account as EvmAccount, AccountInfo, Bytecode},
};
use std::fmt;

/// A revm database at one place. Committing publishes at that place and moves on to the next, which is
/// how system calls follow one another.
pub(crate) struct View<'a, M> {
    pub(crate) memory: &'a M,
    pub(crate) place: Place,
    /// Who sends the transaction: its nonce is one at least by the time that anything is created.
    pub(crate) sender: Option<Address>,
    /// What the transaction has read; stays empty where nobody asks.
    pub(crate) reads: Vec<Read>,
    /// The memory's counters before each read, where others write meanwhile.
    pub(crate) marks: Vec<Mark>,
    /// Which of `reads` saw what the block itself wrote, where nobody writes meanwhile; ascending.
    pub(crate) inner: Vec<u32>,
    pub(crate) balances: Balances,
    /// Whether to note reads.
    pub(crate) traced: bool,
    /// What to do when the parent's hash is asked for and not there.
    pub(crate) patience: Patience,
    pub(crate) watch: Watch,
    /// What was committed, in order.
    pub(crate) committed: Vec<Writes>,
    /// What was loaded for each of these; only noted if `traced`.
    pub(crate) loaded: Vec<Vec<Location>>,
    /// The first failure of the parent state's reader.
    pub(crate) failure: Option<DatabaseError>,
    /// Contracts that no transaction of the block has written to as accounts, and their marks.
    still: AddressMap<(Mark, Account)>,
    /// Codes that were run here.
    codes: B256Map<Code>,
}

/// A code and how often it was asked for.
struct Code {
    bytecode: Bytecode,
    uses: usize,
}

/// A code that is asked for so often, and once more for so many bytes, gets a copy for this thread alone: threads
/// that count references to one and the same code wait for one another, and a copy takes as long as it is large.
const USES_OF_SHARED_CODE: usize = 16;
const BYTES_PER_USE: usize = 64;

impl<'a, M: Source> View<'a, M> {
    pub(crate) fn new(memory: &'a M, place: Place, watch: Watch) -> Self {
        Self {
            memory,
            place,
            sender: None,
            reads: Vec::new(),
            marks: Vec::new(),
            inner: Vec::new(),
            balances: Balances::default(),
            traced: false,
            patience: Patience::Wait,
            watch,
            committed: Vec::new(),
            loaded: Vec::new(),
            failure: None,
            still: AddressMap::default(),
            codes: B256Map::default(),
        }
    }

    /// The account, noted as read.
    pub(crate) fn account(&mut self, address: Address) -> Result<Option<Account>, DatabaseError> {
        let account = if M::IS_SHARED {
            let mark = self.memory.account_mark(address);
            self.mark(|_| mark);
            self.shared_account(address, mark)?
        } else {
            let found = self.memory.account_and_stillness(address, self.place);
            let (account, is_still) = self.noting(found)?;
            self.note_stillness(is_still);
            account
        };
        self.note(Read::Account(address, account));
        Ok(account)
    }

    /// The account, from this thread's own notes where nobody has written to it.
    fn shared_account(
        &mut self,
        address: Address,
        mark: Mark,
    ) -> Result<Option<Account>, DatabaseError> {
        if let Some((still, account)) = self.still.get(&address)
            && *still == mark
        {
            return Ok(Some(*account));
        }
        let found = self.memory.account_and_stillness(address, self.place);
        let (account, is_still) = self.noting(found)?;
        if let Some(account) = account.filter(|account| is_still && account.has_code()) {
            self.still.insert(address, (mark, account));
        }
        Ok(account)
    }

    /// What says that the transaction's reads hold, as long as none of these counters has moved.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = |(read, mark): (&Read, &Mark)| match read {
            Read::Account(address, _) | Read::Shape(address, ..) if !read.ignores_balance() => {
                self.memory.seen_value(*address, *mark)
            }
            _ => mark.shape(),
        };
        self.reads.iter().zip(&self.marks).map(seen).collect()
    }

    /// Whether the account has no code; only a yes is noted.
    pub(crate) fn is_codeless(&mut self, address: Address) -> Result<bool, DatabaseError> {
        let mark = self.memory.account_mark(address);
        let found = if M::IS_SHARED {
            self.memory.has_code(address, self.place).map(|has_code| (has_code, false))
        } else {
            let found = self.memory.account_and_stillness(address, self.place);
            found.map(|(account, is_still)| (account.is_some_and(|a| a.has_code()), is_still))
        };
        let (has_code, is_still) = self.noting(found)?;
        let codeless = !has_code;
        if codeless {
            self.mark(|_| mark);
            self.note_stillness(is_still);
            self.note(Read::Codeless(address));
        }
        Ok(codeless)
    }

    /// Whether an account without nonce and code has storage, noted as read.
    fn has_storage(&mut self, address: Address) -> Result<bool, DatabaseError> {
        self.mark(|memory| memory.account_mark(address));
        let has_storage = self.memory.has_storage(address, self.place);
        let has_storage = self.noting(has_storage)?;
        self.note_stillness(false);
        self.note(Read::HasStorage(address, has_storage));
        Ok(has_storage)
    }

    /// Takes the counters of what is read next; each call is followed by one of [`Self::note`], or the
    /// transaction fails.
    fn mark(&mut self, mark: impl FnOnce(&M) -> Mark) {
        if M::IS_SHARED && self.traced {
            let mark = mark(self.memory);
            self.marks.push(mark);
        }
    }

    /// Says of the read that is noted next whether it saw the parent state.
    fn note_stillness(&mut self, is_still: bool) {
        if !M::IS_SHARED && self.traced && !is_still {
            self.inner.push(self.reads.len() as u32);
        }
    }

    /// Notes a read that nobody asked for.
    pub(crate) fn note_unasked(&mut self, read: Read) {
        self.note_stillness(false);
        self.note(read);
    }

    fn note(&mut self, read: Read) {
        if self.traced {
            self.reads.push(read);
        }
    }

    fn noting<T>(&mut self, result: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        if let Err(error) = &result {
            self.failure.get_or_insert_with(|| error.clone());
        }
        result
    }
}

impl<M> fmt::Debug for View<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<M: Source> Database for View<'_, M> {
    type Error = DatabaseError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        let Some(account) = self.account(address)? else { return Ok(None) };
        let open = is_open(&account) && self.sender != Some(address);
        let taken = open && self.has_storage(address)?;
        Ok(Some(account_info(account, taken)))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        if let Some(known) = self.codes.get_mut(&code_hash) {
            known.uses += 1;
            let uses_max = USES_OF_SHARED_CODE + known.bytecode.len() / BYTES_PER_USE;
            if M::IS_SHARED && known.uses == uses_max {
                known.bytecode = bytecode(known.bytecode.original_byte_slice().to_vec().into());
            }
            return Ok(known.bytecode.clone());
        }
        let code = self.memory.code(code_hash);
        let bytecode = self.noting(code)?;
        self.codes.insert(code_hash, Code { bytecode: bytecode.clone(), uses: 1 });
        Ok(bytecode)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.mark(|memory| memory.slot_mark(address, slot));
        // Who is noted there was read from the parent state: that spares a look which all threads would take
        // at the same place.
        let is_there = || self.still.contains_key(&address);
        let found = self.memory.slot_and_stillness(address, slot, self.place, is_there);
        let found = found.and_then(|(value, is_still)| {
            let value = self.memory.parent().resolve(address, value, self.patience)?;
            Ok((value, is_still))
        });
        let (value, is_still) = self.noting(found)?;
        self.note_stillness(is_still);
        self.note(Read::Slot(address, slot, value));
        Ok(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        let waits = !self.memory.parent().is_settled();
        let hash = match self.memory.parent().hash_of(number, self.patience) {
            Some(hash) => hash,
            None => self.memory.reader().block_hash(number).map_err(DatabaseError::from),
        };
        if waits {
            self.watch.restart();
        }
        self.noting(hash)
    }
}

impl<M: Source> BlockDatabase for View<'_, M> {
    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn balances(&mut self) -> Option<&mut Balances> {
        Some(&mut self.balances)
    }

    fn is_late(&self) -> bool {
        self.memory.parent().is_late()
    }

    fn prev_randao(&mut self) -> Result<Option<B256>, DatabaseError> {
        let waits = !self.memory.parent().is_settled();
        let value = self.memory.parent().prev_randao(self.patience);
        if waits {
            self.watch.restart();
        }
        self.noting(value)
    }
}

impl<M: Source> DatabaseCommit for View<'_, M> {
    fn commit(&mut self, mut changes: AddressMap<EvmAccount>) {
        if self.traced {
            self.loaded.push(loaded(&changes));
        }
        let writes = Writes::from_evm(&mut changes);
        self.memory.publish(self.place, &writes);
        self.committed.push(writes);
        self.place += 1;
    }
}
