//! The agent's metrics. Each agent has its own recorder, so that many agents
//! can live in one process.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Unit, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use mezz_proto::v1::TaskState;
use tokio_util::sync::CancellationToken;

use crate::core::Change;

const UPKEEP: Duration = Duration::from_secs(5);

const TASKS_LAUNCHED: &str = "mezz_agent_tasks_launched_total";
const TASKS_ENDED: &str = "mezz_agent_tasks_ended_total";
const TASKS_LIVE: &str = "mezz_agent_tasks_live";
const CONTAINERS_LIVE: &str = "mezz_agent_containers_live";
const REGISTERED: &str = "mezz_agent_registered";
const EVENT_SECONDS: &str = "mezz_agent_event_seconds";
const EVENT_QUEUE: &str = "mezz_agent_event_queue_length";
const STORE_WAIT: &str = "mezz_agent_store_batches_waiting";
const UPDATES_SENT: &str = "mezz_agent_status_updates_sent_total";

/// All terminal states; the label `state` of ended tasks.
const ENDS: [TaskState; 8] = [
    TaskState::TaskFinished,
    TaskState::TaskFailed,
    TaskState::TaskKilled,
    TaskState::TaskLost,
    TaskState::TaskError,
    TaskState::TaskDropped,
    TaskState::TaskGone,
    TaskState::TaskGoneByOperator,
];

pub(crate) struct Metrics {
    handle: PrometheusHandle,
    tasks_launched: Counter,
    tasks_ended: Vec<(TaskState, Counter)>,
    tasks_live: Gauge,
    containers_live: Gauge,
    registered: Gauge,
    pub(crate) event_seconds: Histogram,
    pub(crate) event_queue: Gauge,
    pub(crate) store_waiting: Gauge,
    pub(crate) updates_sent: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            metrics::describe_counter!(TASKS_LAUNCHED, "Tasks taken in to be run");
            metrics::describe_counter!(TASKS_ENDED, "Tasks that ended, by state");
            metrics::describe_gauge!(TASKS_LIVE, "Tasks that have not ended");
            metrics::describe_gauge!(CONTAINERS_LIVE, "Containers that have not ended");
            metrics::describe_gauge!(REGISTERED, "1 while a master has taken the agent in");
            metrics::describe_histogram!(
                EVENT_SECONDS,
                Unit::Seconds,
                "Time that the core takes for one event"
            );
            metrics::describe_gauge!(EVENT_QUEUE, "Events that wait for the core");
            metrics::describe_gauge!(STORE_WAIT, "Batches that are not yet on the disk");
            metrics::describe_counter!(UPDATES_SENT, "Status updates sent, repetitions included");
            Self {
                handle,
                tasks_launched: metrics::counter!(TASKS_LAUNCHED),
                tasks_ended: ENDS
                    .map(|state| {
                        (state, metrics::counter!(TASKS_ENDED, "state" => state.as_str_name()))
                    })
                    .into(),
                tasks_live: metrics::gauge!(TASKS_LIVE),
                containers_live: metrics::gauge!(CONTAINERS_LIVE),
                registered: metrics::gauge!(REGISTERED),
                event_seconds: metrics::histogram!(EVENT_SECONDS),
                event_queue: metrics::gauge!(EVENT_QUEUE),
                store_waiting: metrics::gauge!(STORE_WAIT),
                updates_sent: metrics::counter!(UPDATES_SENT),
            }
        })
    }

    /// In Prometheus' text form.
    pub(crate) fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Keeps histograms from growing while nobody reads them.
    pub(crate) async fn upkeep(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
            self.handle.run_upkeep();
        }
    }

    pub(crate) fn count(&self, change: &Change) {
        match change {
            Change::Registered { .. } => self.registered.set(1.0),
            Change::Disconnected => self.registered.set(0.0),
            Change::ContainerAdded(_) => self.containers_live.increment(1.0),
            Change::ContainerRunning { .. } => {}
            Change::ContainerEnded { .. } => self.containers_live.decrement(1.0),
            Change::TaskAdded { .. } => self.tasks_launched.increment(1),
            Change::TaskUpdated { state, .. } => {
                if state.is_terminal()
                    && let Some((_, ended)) = self.tasks_ended.iter().find(|(of, _)| of == state)
                {
                    ended.increment(1);
                }
            }
        }
    }

    pub(crate) fn live_tasks(&self, live: usize) {
        self.tasks_live.set(live as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.live_tasks(3);
        assert!(one.render().contains("mezz_agent_tasks_live 3"), "{}", one.render());
        assert!(other.render().contains("mezz_agent_tasks_live 0"), "{}", other.render());
    }
}
