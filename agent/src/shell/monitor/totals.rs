//! What all containers use, in sums: a metric for each would be too many.

use std::sync::Arc;

use super::Monitor;
use crate::containerizer::BoxFuture;

pub(super) fn run(monitor: Arc<Monitor>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            tokio::time::sleep(monitor.options.container_disk_interval).await;
            look(&monitor).await;
        }
    })
}

async fn look(monitor: &Monitor) {
    let (mut memory, mut processes, mut ours, mut others) = (0, 0, 0_u32, 0_u32);
    for container in monitor.registry.running() {
        if monitor.is_ours(&container) {
            ours += 1
        } else {
            others += 1
        }
        // One that has just ended has none.
        let Ok(now) = monitor.containerizer.statistics(&container.id).await else { continue };
        memory += now.mem_rss_bytes.unwrap_or(0);
        processes += now.pids.unwrap_or(0);
        let before = container.replace_used(now);
        monitor.metrics.container_used(before.as_ref(), &now);
    }
    let totals = &monitor.metrics.containers;
    totals.memory.set(memory as f64);
    totals.processes.set(processes);
    totals.by_launcher.set(ours);
    totals.by_docker.set(others);
}
