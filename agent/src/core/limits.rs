//! What an executor's container is held to (behaviour rule 63).

use std::collections::BTreeMap;

use mezz_proto::{resources::Resources, v1};

use super::{Core, Effect, Effects, ExecutorKey, state::Limits};

impl Core {
    /// The executor's own and its live tasks' (rule 63); a pod's members have
    /// containers of their own.
    pub(super) fn limits_of(&self, key: &ExecutorKey) -> Limits {
        let Some(executor) = self.executors.get(key) else { return Limits::default() };
        let mut sum = Limits { resources: executor.resources.clone(), limits: BTreeMap::new() };
        if executor.is_pod() {
            return sum;
        }
        let tasks: Vec<_> =
            executor.tasks.iter().filter_map(|task| self.tasks.get(&key.task(task))).collect();
        for task in &tasks {
            sum.resources += &task.resources;
        }
        // A limit of one task lifts the whole container's; the others count with
        // what they asked for.
        for name in ["cpus", "mem"] {
            let asked = |resources: &Resources| resources.scalar(name).to_f64();
            let all: Vec<_> = tasks.iter().map(|task| (limits(&task.info), task)).collect();
            if all.iter().any(|(limits, _)| limits.contains_key(name)) {
                let of_tasks = all.iter().map(|(limits, task)| {
                    limits.get(name).copied().unwrap_or_else(|| asked(&task.resources))
                });
                let limit = asked(&executor.resources) + of_tasks.sum::<f64>();
                sum.limits.insert(name.to_owned(), limit);
            }
        }
        sum
    }

    /// Tells the container what it is held to, if that changed.
    pub(super) fn update_limits(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let limits = self.limits_of(key);
        let Some(executor) = self.executors.get_mut(key) else { return };
        let running = self.containers.get(&executor.container).is_some_and(|found| found.running);
        if running && executor.held != limits {
            executor.held = limits.clone();
            out.now.push(Effect::Update {
                container: executor.container.clone(),
                resources: limits.resources,
                limits: limits.limits,
            });
        }
    }
}

/// `TaskInfo.limits`.
pub(super) fn limits(info: &v1::TaskInfo) -> BTreeMap<String, f64> {
    info.limits.iter().map(|(name, scalar)| (name.clone(), scalar.value)).collect()
}
