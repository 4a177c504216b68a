//! `/metrics/snapshot` of an agent (rule 90).

use std::{collections::BTreeMap, fs};

use mezz_proto::{
    pages::{resource_quantities, system_metrics},
    v1::TaskState,
};

use super::{super::Served, state::allocated};

/// Everything that Mesos counts and that does not happen here, or is not counted under this
/// name: some exporters stop at a name that is missing.
const NEVER: [&str; 25] = [
    "containerizer/mesos/container_destroy_errors",
    "containerizer/mesos/provisioner/bind/remove_rootfs_errors",
    "containerizer/mesos/provisioner/remove_container_errors",
    "containerizer/fetcher/cache_size_used_bytes",
    "containerizer/fetcher/task_fetches_failed",
    "containerizer/fetcher/task_fetches_succeeded",
    "gc/path_removals_failed",
    "gc/path_removals_succeeded",
    "resource_provider_manager/events/disconnect",
    "resource_provider_manager/events/subscribe",
    "resource_provider_manager/subscribed",
    "slave/executors_preempted",
    "slave/executors_terminating",
    "slave/invalid_framework_messages",
    "slave/invalid_status_updates",
    "slave/recovery_errors",
    "slave/recovery_time_secs",
    "slave/tasks_killing",
    "slave/tasks_starting",
    "slave/valid_framework_messages",
    "slave/executors_registering",
    "slave/executor_directory_max_allowed_age_secs",
    "slave/tasks_staging",
    "slave/tasks_running",
    "gc/path_removals_pending",
];

/// By name.
pub(crate) fn metrics(served: &Served) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, f64> =
        NEVER.iter().map(|name| ((*name).to_owned(), 0.0)).collect();
    let mut set = |name: &str, value: f64| {
        all.insert(name.to_owned(), value);
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, value) in system_metrics(&read("/proc/loadavg"), &read("/proc/meminfo"), cpus) {
        set(name, value);
    }

    let frameworks = served.roster.frameworks();
    let totals = served.roster.totals();
    let used = allocated(&frameworks);
    for revocable in [false, true] {
        let of = |resources: &mezz_proto::resources::Resources| {
            let these = resources.iter().filter(|r| r.identity.is_revocable() == revocable);
            resource_quantities(these)
        };
        let (total, used) = (of(&served.about.resources), of(&used));
        let kind = if revocable { "_revocable" } else { "" };
        for name in ["cpus", "mem", "disk", "gpus"] {
            let of = |all: &BTreeMap<String, f64>| all.get(name).copied().unwrap_or(0.0);
            let (total, used) = (of(&total), of(&used));
            set(&format!("slave/{name}{kind}_total"), total);
            set(&format!("slave/{name}{kind}_used"), used);
            let share = if total > 0.0 { used / total } else { 0.0 };
            set(&format!("slave/{name}{kind}_percent"), share);
        }
    }

    for (name, state) in [
        ("failed", TaskState::TaskFailed),
        ("finished", TaskState::TaskFinished),
        ("gone", TaskState::TaskGone),
        ("killed", TaskState::TaskKilled),
        ("lost", TaskState::TaskLost),
    ] {
        let count = totals.ended.get(&state).copied().unwrap_or(0);
        set(&format!("slave/tasks_{name}"), count as f64);
    }
    let executors = frameworks.active.iter().flat_map(|framework| &framework.executors);
    let mut running = 0u32;
    for executor in executors {
        running += u32::from(executor.is_running());
        let states = executor.launched().map(mezz_proto::v1::Task::state);
        let queued = executor.queued().map(|_| TaskState::TaskStaging);
        for state in states.chain(queued) {
            let name = match state {
                TaskState::TaskStaging => "slave/tasks_staging",
                TaskState::TaskStarting => "slave/tasks_starting",
                TaskState::TaskRunning => "slave/tasks_running",
                TaskState::TaskKilling => "slave/tasks_killing",
                _ => continue,
            };
            *all.entry(name.to_owned()).or_default() += 1.0;
        }
    }
    let mut set = |name: &str, value: f64| {
        all.insert(name.to_owned(), value);
    };
    set("slave/executors_running", running.into());
    set("slave/executors_terminated", totals.executors_terminated as f64);
    set("slave/frameworks_active", frameworks.active.len() as f64);
    set("slave/container_launch_errors", totals.launch_errors as f64);
    set("slave/valid_status_updates", totals.updates as f64);
    set("slave/registered", f64::from(u8::from(served.index.master().is_some())));
    let uptime = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |now| now.as_secs_f64() - served.about.start_time);
    set("slave/uptime_secs", uptime.max(0.0));
    set("containerizer/fetcher/cache_size_total_bytes", served.about.fetcher_cache_bytes as f64);
    all
}
