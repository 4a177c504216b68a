//! What all containers use, in sums: a metric for each would be too many.

use std::{sync::Arc, time::Instant};

use super::{Answer, Monitor, rest};
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
    let (mut memory, mut processes) = (0, 0);
    let containers = monitor.engines_last();
    let of_engine =
        containers.iter().filter(|it| monitor.containerizer.is_of_engine(&it.id)).count();
    for container in &containers {
        let begun = Instant::now();
        let asked = monitor.containerizer.statistics(&container.id);
        let now = match monitor.ask(container, asked).await {
            Answer::Given(now) => now,
            Answer::None => continue,
            Answer::Hung => break,
        };
        memory += now.mem_rss_bytes.unwrap_or(0);
        processes += now.pids.unwrap_or(0);
        let before = container.replace_used(now);
        monitor.metrics.container_used(before.as_ref(), &now);
        rest(begun).await;
    }
    let totals = &monitor.metrics.containers;
    totals.memory.set(memory as f64);
    totals.processes.set(processes);
    totals.by_launcher.set((containers.len() - of_engine) as f64);
    totals.by_docker.set(of_engine as f64);
}
