//! What the cluster decides, without a clock, a socket, a file or an EVM: it *orders* work as commands
//! and hears of results as events, so it can be tested in microseconds.
//!
//! **Door**: a gateway calls [`decode`] on raw transactions; every node applies log entries to its
//! [`Pool`]; nodes talk in [`Request`]s and [`Response`]s; each node's shell feeds a [`Leader`] with
//! events and carries out its commands. Where a consensus client drives the chain, [`Payloads`] holds what
//! it has named and [`plan_head`] says how to get where it wants. A [`Dispatcher`] shares a leader's blocks
//! out to other members, and a [`RootSharer`] their hashing; the others' [`Gate`]s let fitting units in.
//! [`Recoverers`] say who recovers a gateway's senders.
//!
//! **Invariants**: the same entries give the same pool on every node; the same events give the same
//! commands; nothing iterates a hash map into output; every queue has a limit from
//! [`limits`](blockraft_primitives::limits).

mod blob_error;
mod checks;
mod dispatch;
mod error;
mod gathering;
mod intrinsic;
mod leader;
mod message;
mod partition;
mod payloads;
mod plan;
mod pool;
mod recovery;
mod roots;
#[cfg(test)]
mod testing;
mod units;

pub use blob_error::BlobError;
pub use checks::{
    AdmissionRules, SubmissionRules, Unpayable, decode, hash_of, parse, recover, unpayable,
    with_sender,
};
pub use dispatch::{
    BlockWork, CutBlock, DispatchCommand, DispatchEvent, Dispatcher, Evidence, Settled, WorkSource,
};
pub use error::{PoolError, Refusal};
pub use gathering::{DispatchCounters, Micros};
pub use intrinsic::{IntrinsicInput, IntrinsicRules, floor_gas, intrinsic_gas};
pub use leader::{AdmitId, BuildId, Command, Event, Head, Leader, Now, ProposalFailure, Ticket};
pub use message::{NodeStatus, Request, Response, WIRE_VERSION, WireError};
pub use partition::{PARTITION_COUNT, PartitionId, PartitionMap};
pub use payloads::{Branch, Candidate, HeadGoal, HeadPlan, InvalidPayload, Payloads, plan_head};
pub use plan::{
    Distribution, Footprint, Kind, Lane, LocalReason, Plan, Planner, Predictor, Share,
    WriteLocation, anchor,
};
pub use pool::{Admitted, InFlight, IncludeError, Included, Pool, SenderContent, Sifted};
pub use recovery::{RecoverAt, Recoverers, SignedHash};
pub use roots::{RootCommand, RootEvent, RootEvidence, RootSharer, RootWork};
pub use units::{
    Admittance, Fence, Gate, GivenWork, PooledWork, RootAnswer, RootUnit, Standing, Unit,
    UnitAnswer, UnitId, UnitRefusal, UnitRefused, UnitWork,
};
