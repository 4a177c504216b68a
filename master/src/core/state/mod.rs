//! What the core knows: plain data with no decisions in it.

mod agent;
mod counters;
mod framework;
mod intern;
mod offer;
mod records;
mod removals;
mod slab;
mod task;
mod timers;

pub(in crate::core) use agent::{Agent, AgentLink, Duty, Executor, Ping};
pub use counters::{Counters, TaskEnds};
pub(in crate::core) use framework::{
    Abilities, AllTasks, CompletedFramework, CompletedTask, Framework, FrameworkLink, Reconciling,
};
pub(in crate::core) use intern::Interner;
pub(in crate::core) use offer::{Offer, OfferKey};
pub(in crate::core) use records::Records;
pub(in crate::core) use removals::Removals;
pub(in crate::core) use slab::{Slab, SlotKey};
pub(in crate::core) use task::{
    Charge, StatusRecord, Task, TaskExtra, TaskKey, reported_state, state_from_wire, state_name,
};
pub(in crate::core) use timers::{Timer, Timers};
