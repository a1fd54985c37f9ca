//! Work on a data directory while no node runs over it: finding damage of the state and healing it.
//!
//! MDBX has no checksums, so what is on disk is believed only as far as it hashes to the header's state
//! root ([`scrub`]). Where it does not, the shards are built anew from a snapshot or the genesis and the
//! blocks of the log ([`locate`], [`repair`]), and compared record by record: that names the place.

mod fetch;
mod heal;
mod rebuild;
mod scrub;

pub use blockraft_storage::{Damage, EnvironmentSize, Maintenance, StoreOptions, TableSizes};
pub(crate) use fetch::{FETCH_KIND, answer as answer_fetch};
pub use fetch::{SnapshotPeer, fetch_snapshot};
pub use heal::heal;
pub use rebuild::{Repaired, Source, locate, repair};
pub use scrub::{Progress, ScrubReport, scrub};

#[cfg(test)]
mod tests;
