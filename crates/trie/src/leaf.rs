//! The two kinds of leaves: storage slots and accounts.

use crate::{encode, storage_trie::StorageTrie};
use alloy_primitives::{B256, KECCAK256_EMPTY, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use blockraft_primitives::Account;

/// What a subtrie keeps at the end of a key.
pub(crate) trait Leaf: Clone + Default + std::fmt::Debug + Send + Sync {
    /// What the leaves of one subtrie keep beside them.
    type Side: Clone + Default + std::fmt::Debug + Send + Sync;
    /// The hashed address or slot.
    fn key(&self) -> &B256;
    /// What a stub keeps of the leaves below it beside their count: what the flat state does not say.
    type Kept: Clone + Default + std::fmt::Debug + Send + Sync;
    /// Adds what must be kept of this leaf to `kept`. `false` if the leaf cannot be dropped now.
    fn keep(&self, side: &Self::Side, kept: &mut Self::Kept) -> bool;
    /// Adds what an older stub keeps.
    fn keep_again(older: &Self::Kept, kept: &mut Self::Kept);
    /// Bytes that it takes beside its own.
    fn kept_bytes(kept: &Self::Kept) -> usize;
    /// Takes the leaf out of one subtrie for another.
    fn carry(&self, from: &mut Self::Side, to: &mut Self::Side) -> Self;
    /// Writes the value as the trie stores it, replacing what `out` holds.
    fn encode_value(&self, side: &Self::Side, out: &mut Vec<u8>);
}

/// A slot that is not zero.
#[derive(Clone, Debug, Default)]
#[repr(align(64))] // One cache line.
pub(crate) struct SlotLeaf {
    pub(crate) key: B256,
    pub(crate) value: U256,
}

impl Leaf for SlotLeaf {
    type Side = ();
    type Kept = ();

    fn keep(&self, (): &(), (): &mut ()) -> bool {
        true
    }

    fn keep_again((): &(), (): &mut ()) {}

    fn kept_bytes((): &()) -> usize {
        0
    }

    fn carry(&self, (): &mut (), (): &mut ()) -> Self {
        self.clone()
    }

    fn key(&self) -> &B256 {
        &self.key
    }

    fn encode_value(&self, (): &(), out: &mut Vec<u8>) {
        out.clear();
        encode_uint(&self.value, out);
    }
}

/// An account. What only few accounts have is kept aside, so that a leaf is one cache line.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub(crate) struct AccountLeaf {
    pub(crate) key: B256,
    nonce: u64,
    /// Limbs 0 and 1 of the balance.
    balance_low: [u64; 2],
    extra: ExtraIndex,
}

/// Place of an account's extra in its subtrie; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtraIndex(u32);

/// The rest of an account that has code, storage or 2^128 wei and more.
#[derive(Clone, Debug)]
pub(crate) struct AccountExtra {
    code_hash: B256,
    balance_high: [u64; 2],
    pub(crate) storage: Storage,
    /// As of the last time that storage was hashed.
    pub(crate) storage_root: B256,
    /// Whether `storage_root` must be taken again.
    pub(crate) storage_dirty: bool,
}

/// The storage of an account.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Empty,
    /// Dropped: its root says what it was.
    Cold,
    Hot(Box<StorageTrie>),
}

impl Storage {
    pub(crate) fn hot(&self) -> Option<&StorageTrie> {
        match self {
            Self::Hot(storage) => Some(storage),
            _ => None,
        }
    }
}

impl Default for AccountExtra {
    fn default() -> Self {
        Self {
            code_hash: KECCAK256_EMPTY,
            balance_high: [0; 2],
            storage: Storage::Empty,
            storage_root: EMPTY_ROOT_HASH,
            storage_dirty: false,
        }
    }
}

/// The extras of one subtrie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    items: Vec<AccountExtra>,
    free: Vec<ExtraIndex>,
    /// Those whose storage root must be taken again; may name one twice.
    pub(crate) dirty: Vec<ExtraIndex>,
}

impl Extras {
    pub(crate) fn get(&self, index: ExtraIndex) -> Option<&AccountExtra> {
        (index.0 != 0).then(|| &self.items[index.0 as usize - 1])
    }

    pub(crate) fn get_mut(&mut self, index: ExtraIndex) -> Option<&mut AccountExtra> {
        (index.0 != 0).then(|| &mut self.items[index.0 as usize - 1])
    }

    fn insert(&mut self) -> ExtraIndex {
        self.free.pop().unwrap_or_else(|| {
            crate::arena::reserve(&mut self.items, 1);
            self.items.push(AccountExtra::default());
            ExtraIndex(self.items.len() as u32)
        })
    }

    fn remove(&mut self, index: ExtraIndex) {
        if let Some(extra) = self.get_mut(index) {
            *extra = AccountExtra::default();
            self.free.push(index);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.items.capacity() * size_of::<AccountExtra>()
            + (self.free.capacity() + self.dirty.capacity()) * size_of::<ExtraIndex>()
            + self
                .items
                .iter()
                .filter_map(|extra| extra.storage.hot())
                .map(StorageTrie::memory_bytes)
                .sum::<usize>()
    }
}

impl AccountLeaf {
    pub(crate) fn new(key: B256) -> Self {
        Self { key, ..Default::default() }
    }

    pub(crate) fn account(&self, extras: &Extras) -> Account {
        let extra = extras.get(self.extra);
        let [high_0, high_1] = extra.map_or([0; 2], |e| e.balance_high);
        Account {
            nonce: self.nonce,
            balance: U256::from_limbs([self.balance_low[0], self.balance_low[1], high_0, high_1]),
            code_hash: extra.map_or(KECCAK256_EMPTY, |e| e.code_hash),
        }
    }

    /// Writes nonce, balance and code hash; storage stays.
    pub(crate) fn set_account(&mut self, account: &Account, extras: &mut Extras) {
        let [low_0, low_1, high_0, high_1] = *account.balance.as_limbs();
        self.nonce = account.nonce;
        self.balance_low = [low_0, low_1];
        if self.extra == ExtraIndex(0) && (account.has_code() || (high_0 | high_1) != 0) {
            self.extra = extras.insert();
        }
        if let Some(extra) = extras.get_mut(self.extra) {
            extra.code_hash = account.code_hash;
            extra.balance_high = [high_0, high_1];
        }
    }

    /// The storage of this account, to be changed. It must not be cold.
    pub(crate) fn storage_mut<'a>(&mut self, extras: &'a mut Extras) -> &'a mut StorageTrie {
        if self.extra == ExtraIndex(0) {
            self.extra = extras.insert();
        }
        self.mark_storage_dirty(extras);
        let extra = extras.get_mut(self.extra).expect("just inserted");
        if matches!(extra.storage, Storage::Empty) {
            extra.storage = Storage::Hot(Box::default());
        }
        match &mut extra.storage {
            Storage::Hot(storage) => storage,
            _ => unreachable!("cold storage is read before it is changed"),
        }
    }

    /// Puts storage in place that hashes to `root`.
    pub(crate) fn set_clean_storage(&mut self, storage: Storage, root: B256, extras: &mut Extras) {
        if self.extra == ExtraIndex(0) {
            self.extra = extras.insert();
        }
        let extra = extras.get_mut(self.extra).expect("just inserted");
        extra.storage = storage;
        extra.storage_root = root;
    }

    /// Forgets the storage. Says whether there was any.
    pub(crate) fn wipe_storage(&mut self, extras: &mut Extras) -> bool {
        let had_storage = self.has_storage(extras);
        if had_storage {
            self.mark_storage_dirty(extras);
            extras.get_mut(self.extra).expect("has storage").storage = Storage::Empty;
        }
        had_storage
    }

    pub(crate) fn has_storage(&self, extras: &Extras) -> bool {
        self.extra(extras).is_some_and(|e| !matches!(e.storage, Storage::Empty))
    }

    /// The root of storage that was dropped.
    pub(crate) fn cold_root(&self, extras: &Extras) -> Option<B256> {
        let extra = self.extra(extras)?;
        matches!(extra.storage, Storage::Cold).then_some(extra.storage_root)
    }

    pub(crate) fn extra<'a>(&self, extras: &'a Extras) -> Option<&'a AccountExtra> {
        extras.get(self.extra)
    }

    pub(crate) fn extra_mut<'a>(&self, extras: &'a mut Extras) -> Option<&'a mut AccountExtra> {
        extras.get_mut(self.extra)
    }

    /// Gives back what the account keeps aside, before its leaf is dropped.
    pub(crate) fn release(&mut self, extras: &mut Extras) {
        extras.remove(self.extra);
        self.extra = ExtraIndex(0);
    }

    fn mark_storage_dirty(&self, extras: &mut Extras) {
        let extra = extras.get_mut(self.extra).expect("an account with storage has an extra");
        if !extra.storage_dirty {
            extra.storage_dirty = true;
            extras.dirty.push(self.extra);
        }
    }
}

impl Leaf for AccountLeaf {
    type Side = Extras;
    /// Keys and storage roots of the accounts that have storage, in order.
    type Kept = Vec<(B256, B256)>;

    fn keep(&self, extras: &Extras, kept: &mut Self::Kept) -> bool {
        let Some(extra) = self.extra(extras) else { return true };
        match extra.storage {
            Storage::Empty => true,
            Storage::Cold => {
                kept.push((self.key, extra.storage_root));
                true
            }
            Storage::Hot(_) => false,
        }
    }

    fn keep_again(older: &Self::Kept, kept: &mut Self::Kept) {
        kept.extend_from_slice(older);
    }

    fn kept_bytes(kept: &Self::Kept) -> usize {
        kept.capacity() * size_of::<(B256, B256)>()
    }

    fn carry(&self, from: &mut Extras, to: &mut Extras) -> Self {
        let mut leaf = self.clone();
        if let Some(extra) = from.get_mut(self.extra) {
            let extra = std::mem::take(extra);
            let is_dirty = extra.storage_dirty;
            leaf.extra = to.insert();
            *to.get_mut(leaf.extra).expect("just inserted") = extra;
            if is_dirty {
                to.dirty.push(leaf.extra);
            }
        }
        leaf
    }

    fn key(&self) -> &B256 {
        &self.key
    }

    fn encode_value(&self, extras: &Extras, out: &mut Vec<u8>) {
        let extra = extras.get(self.extra);
        let (root, code_hash) =
            extra.map_or((EMPTY_ROOT_HASH, KECCAK256_EMPTY), |e| (e.storage_root, e.code_hash));
        out.clear();
        // At least 66 bytes of hashes and at most 9 + 33 of numbers: a list with a two-byte header.
        out.extend_from_slice(&[0xf8, 0]);
        encode_uint(&U256::from(self.nonce), out);
        encode_uint(&self.account(extras).balance, out);
        encode::string(root.as_slice(), out);
        encode::string(code_hash.as_slice(), out);
        out[1] = (out.len() - 2) as u8;
    }
}

/// RLP of a number: its bytes without leading zeros, as a string.
fn encode_uint(value: &U256, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes::<32>();
    encode::string(&bytes[value.leading_zeros() / 8..], out);
}
