//! The policy's settings.

use std::time::Duration;

use super::{Constraints, FailureLimit, ServiceSize};

/// Where to put executors when several agents have room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On the agent with the fewest of ours: the loss of one costs least.
    #[default]
    Spread,
    /// On the agent with the most of ours: others stay whole for large tasks.
    Consolidate,
}

/// Settings of one application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyOptions {
    /// What a shuffle service holds on each agent; absent when there are to be none.
    pub shuffle: Option<ServiceSize>,
    /// `spark.cores.max`: cores over all executors; no bound when absent.
    pub cores_max: Option<u32>,
    /// `spark.mezz.executor.maxPerAgent`; no bound when absent.
    pub max_per_agent: Option<u32>,
    /// `spark.mezz.constraints`: which agents will do.
    pub constraints: Constraints,
    /// `spark.mezz.placement`.
    pub placement: Placement,
    /// When failed executors end the application.
    pub failures: FailureLimit,
    /// Used instead of [`LAUNCH_TIMEOUT`](super::LAUNCH_TIMEOUT).
    pub launch_timeout: Option<Duration>,
}
