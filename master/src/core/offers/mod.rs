//! Offers: made from the allocator's grants, answered by frameworks, taken back.

mod accept;
mod allocation;
mod decline;
mod demand;
mod launch;
mod withdraw;

pub(in crate::core) use allocation::AllocationClock;
