//! Counts for metrics.

use std::collections::BTreeMap;

use mezz_proto::v1;

/// What the core has counted. The first part only grows; the gauges say how many
/// there are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Offers sent to frameworks.
    pub offers_sent: u64,
    /// Offers accepted with at least one operation.
    pub offers_accepted: u64,
    /// Offers declined, or accepted with no operation.
    pub offers_declined: u64,
    /// Offers taken back while their framework was there to be told.
    pub offers_rescinded: u64,
    /// Offers that their timeout ended.
    pub offers_expired: u64,
    /// ACCEPT calls whose offers were not valid (any more).
    pub accepts_invalid: u64,
    /// Allocations that were run.
    pub allocations: u64,
    /// Tasks sent to agents.
    pub tasks_launched: u64,
    /// Tasks learnt from agents that came back.
    pub tasks_recovered: u64,
    /// Tasks refused with TASK_ERROR, or dropped for their offers; they never
    /// lived.
    pub tasks_refused: u64,
    /// Tasks that left the live list, by their last state.
    pub tasks_ended: TaskEnds,
    /// Status updates from agents.
    pub status_updates: u64,
    /// Acknowledgements from frameworks.
    pub acknowledgements: u64,
    /// Agents admitted for the first time.
    pub agent_registrations: u64,
    /// Agents that came back.
    pub agent_reregistrations: u64,
    /// Agents refused.
    pub agent_refusals: u64,
    /// Agents that became unreachable.
    pub agents_marked_unreachable: u64,
    /// Agents that were to become unreachable, but had to wait for their turn.
    pub agent_losses_delayed: u64,
    /// Of these, the ones that came back, or left, before it.
    pub agent_losses_cancelled: u64,
    /// Agents that said goodbye.
    pub agents_removed: u64,
    /// Messages from agents that broke the protocol.
    pub invalid_agent_messages: u64,
    /// Calls from frameworks that broke the protocol.
    pub invalid_calls: u64,
    /// Frameworks that ended.
    pub frameworks_completed: u64,

    /// Gauge: agents that are linked.
    pub agents_active: u64,
    /// Gauge: agents whose link broke.
    pub agents_disconnected: u64,
    /// Gauge: agents known from the registry that are not yet back.
    pub agents_recovering: u64,
    /// Gauge: unreachable agents.
    pub agents_unreachable: u64,
    /// Gauge: agents that wait for their turn to become unreachable.
    pub agent_losses_waiting: u64,
    /// Gauge: subscribed frameworks.
    pub frameworks_active: u64,
    /// Gauge: frameworks whose connection ended.
    pub frameworks_disconnected: u64,
    /// Gauge: frameworks not yet back since the master started.
    pub frameworks_recovered: u64,
    /// Gauge: tasks in the live list, unreachable ones included.
    pub tasks_live: u64,
    /// Gauge: of those, the unreachable ones.
    pub tasks_unreachable: u64,
    /// Gauge: outstanding offers.
    pub offers_outstanding: u64,
}

/// Ended tasks by their last state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEnds(BTreeMap<&'static str, u64>);

impl TaskEnds {
    /// One more.
    pub(in crate::core) fn count(&mut self, state: v1::TaskState) {
        *self.0.entry(state.as_str_name()).or_default() += 1;
    }

    /// State names (`TASK_FINISHED`) with counts, sorted by name; states that no
    /// task ended in are left out.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, n)| (*name, *n))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}
