//! Sets of partitions: of the 256 parts into which the first byte of a hashed address divides the state.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of partitions.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionSet([u64; 4]);

impl PartitionSet {
    /// None of them.
    pub const NONE: Self = Self([0; 4]);
    /// All 256.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// Whether a partition is among them.
    pub const fn contains(&self, partition: u8) -> bool {
        self.0[(partition >> 6) as usize] & (1 << (partition & 63)) != 0
    }

    /// Adds a partition.
    pub const fn insert(&mut self, partition: u8) {
        self.0[(partition >> 6) as usize] |= 1 << (partition & 63);
    }

    /// Whether all of `others` are among them.
    pub fn contains_all(&self, others: &Self) -> bool {
        others.0.iter().zip(self.0).all(|(theirs, ours)| theirs & !ours == 0)
    }

    /// Those that are in both.
    pub fn and(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & others.0[word]))
    }

    /// Those that are in either.
    pub fn or(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | others.0[word]))
    }

    /// Those that are not among them.
    pub fn others(&self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|partition| self.contains(*partition))
    }
}

impl FromIterator<u8> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = u8>>(partitions: I) -> Self {
        let mut set = Self::NONE;
        partitions.into_iter().for_each(|partition| set.insert(partition));
        set
    }
}

impl fmt::Debug for PartitionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} partitions {:x?}", self.len(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let few = PartitionSet::from_iter([0, 63, 64, 255]);
        assert_eq!(few.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert_eq!((few.len(), few.others().len()), (4, 252));
        assert_eq!(few.or(&few.others()), PartitionSet::ALL);
        assert_eq!(few.and(&few.others()), PartitionSet::NONE);
        assert!(PartitionSet::ALL.contains_all(&few) && !few.contains_all(&PartitionSet::ALL));
        assert!(few.contains_all(&PartitionSet::from_iter([64])) && few.contains(64));
        assert!(PartitionSet::NONE.is_empty() && !few.is_empty() && !few.contains(65));
    }
}
