//! The agent's metrics. Each agent has its own recorder, so that many agents
//! can live in one process.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Unit, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use mezz_proto::v1::TaskState;
use tokio_util::sync::CancellationToken;

use crate::{
    containerizer::{LimitationKind, Statistics},
    core::Change,
};

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
const CPU_SECONDS: &str = "mezz_agent_containers_cpu_seconds";
const THROTTLED_SECONDS: &str = "mezz_agent_containers_cpu_throttled_seconds";
const THROTTLED: &str = "mezz_agent_containers_cpu_throttled_periods_total";
const OOM_KILLS: &str = "mezz_agent_containers_oom_kills_total";
const MEMORY: &str = "mezz_agent_containers_memory_rss_bytes";
const PROCESSES: &str = "mezz_agent_containers_processes";
const DISK: &str = "mezz_agent_containers_disk_used_bytes";
const RUNNING: &str = "mezz_agent_containers_running";
const LIMITED: &str = "mezz_agent_containers_limited_total";
const DISK_USE: &str = "mezz_agent_work_dir_disk_used_ratio";

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
    cpu_user: Gauge,
    cpu_system: Gauge,
    throttled_seconds: Gauge,
    throttled: Counter,
    oom_kills: Counter,
    pub(crate) containers: ContainerTotals,
    limited_disk: Counter,
    limited_ports: Counter,
    pub(crate) disk_use: Gauge,
}

/// Sums over the containers that run.
pub(crate) struct ContainerTotals {
    pub(crate) memory: Gauge,
    pub(crate) processes: Gauge,
    pub(crate) disk: Gauge,
    pub(crate) by_launcher: Gauge,
    pub(crate) by_docker: Gauge,
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
            metrics::describe_gauge!(
                CPU_SECONDS,
                Unit::Seconds,
                "Processor time of all containers since the agent's start; only grows"
            );
            metrics::describe_gauge!(
                THROTTLED_SECONDS,
                Unit::Seconds,
                "Time that containers were kept from running by their quota, since the agent's \
                 start; only grows"
            );
            metrics::describe_counter!(THROTTLED, "Periods in which a quota was used up");
            metrics::describe_counter!(OOM_KILLS, "Processes killed for their container's memory");
            metrics::describe_gauge!(MEMORY, Unit::Bytes, "Resident memory of all that run");
            metrics::describe_gauge!(PROCESSES, "Processes of all containers that run");
            metrics::describe_gauge!(DISK, Unit::Bytes, "Disk used by sandboxes of all that run");
            metrics::describe_gauge!(RUNNING, "Containers that run, by what runs them");
            metrics::describe_counter!(
                LIMITED,
                "Containers that the agent ended for what they had taken"
            );
            metrics::describe_gauge!(
                DISK_USE,
                "Share of the work folder's disk that is in use, from 0 to 1"
            );
            Self {
                handle,
                cpu_user: metrics::gauge!(CPU_SECONDS, "mode" => "user"),
                cpu_system: metrics::gauge!(CPU_SECONDS, "mode" => "system"),
                throttled_seconds: metrics::gauge!(THROTTLED_SECONDS),
                throttled: metrics::counter!(THROTTLED),
                oom_kills: metrics::counter!(OOM_KILLS),
                containers: ContainerTotals {
                    memory: metrics::gauge!(MEMORY),
                    processes: metrics::gauge!(PROCESSES),
                    disk: metrics::gauge!(DISK),
                    by_launcher: metrics::gauge!(RUNNING, "containerizer" => "process"),
                    by_docker: metrics::gauge!(RUNNING, "containerizer" => "docker"),
                },
                limited_disk: metrics::counter!(LIMITED, "resource" => "disk"),
                limited_ports: metrics::counter!(LIMITED, "resource" => "ports"),
                disk_use: metrics::gauge!(DISK_USE),
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
            Change::Framework(_)
            | Change::FrameworkForgotten(_)
            | Change::ExecutorAdded { .. }
            | Change::ExecutorSubscribed { .. }
            | Change::Intake { .. }
            | Change::ExecutorForgotten(_)
            | Change::Task { .. }
            | Change::TaskLaunched(_)
            | Change::TaskForgotten(_)
            | Change::Drain(_)
            | Change::ContainerRunning { .. } => {}
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

    /// What a container has used since `before`; nothing when that is not known.
    pub(crate) fn container_used(&self, before: Option<&Statistics>, now: &Statistics) {
        let Some(before) = before else { return };
        let seconds = |gauge: &Gauge, before: Option<f64>, now: Option<f64>| {
            let more = now.unwrap_or(0.0) - before.unwrap_or(0.0);
            gauge.increment(more.max(0.0));
        };
        let count = |counter: &Counter, before: Option<u64>, now: Option<u64>| {
            counter.increment(now.unwrap_or(0).saturating_sub(before.unwrap_or(0)));
        };
        seconds(&self.cpu_user, before.cpus_user_secs, now.cpus_user_secs);
        seconds(&self.cpu_system, before.cpus_system_secs, now.cpus_system_secs);
        seconds(&self.throttled_seconds, before.cpus_throttled_secs, now.cpus_throttled_secs);
        count(&self.throttled, before.cpus_nr_throttled, now.cpus_nr_throttled);
        count(&self.oom_kills, before.oom_kills, now.oom_kills);
    }

    pub(crate) fn limited(&self, kind: LimitationKind) {
        match kind {
            LimitationKind::Disk => self.limited_disk.increment(1),
            LimitationKind::Ports => self.limited_ports.increment(1),
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
