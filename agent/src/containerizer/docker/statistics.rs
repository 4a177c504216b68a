//! What a container uses.

use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use futures_util::StreamExt as _;
use mezz_proto::ids::ContainerId;

use super::{ContainerError, Inner, engine::EngineError, operation};
use crate::containerizer::Statistics;

const NANOS: f64 = 1e9;

impl Inner {
    pub(super) async fn statistics(&self, id: &ContainerId) -> Result<Statistics, ContainerError> {
        let container = self.containers.get(id)?;
        if container.has_ended() {
            return Ok(Statistics::default());
        }
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let name = &container.name;
        let answer = self
            .engine
            .call(|link| async move { link.stats(name, Some(options)).next().await.transpose() })
            .await;
        match answer {
            Ok(Some(answer)) => Ok(translate(&answer)),
            Ok(None) => Ok(Statistics::default()),
            Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(Statistics::default()),
            Err(error) => Err(operation(id, "reading its statistics")(error)),
        }
    }
}

fn translate(from: &ContainerStatsResponse) -> Statistics {
    let cpu = from.cpu_stats.as_ref();
    let usage = cpu.and_then(|cpu| cpu.cpu_usage.as_ref());
    let throttling = cpu.and_then(|cpu| cpu.throttling_data.as_ref());
    let memory = from.memory_stats.as_ref();
    let seconds = |nanos: Option<u64>| nanos.map(|nanos| nanos as f64 / NANOS);
    // v1 and v2 have other names for the same.
    let counter = |names: [&str; 2]| {
        let stats = memory.and_then(|memory| memory.stats.as_ref());
        names.iter().find_map(|name| stats?.get(*name).copied())
    };
    Statistics {
        cpus_user_secs: seconds(usage.and_then(|usage| usage.usage_in_usermode)),
        cpus_system_secs: seconds(usage.and_then(|usage| usage.usage_in_kernelmode)),
        cpus_nr_periods: throttling.and_then(|throttling| throttling.periods),
        cpus_throttled_secs: seconds(throttling.and_then(|throttling| throttling.throttled_time)),
        cpus_nr_throttled: throttling.and_then(|throttling| throttling.throttled_periods),
        mem_rss_bytes: counter(["rss", "anon"]),
        mem_peak_bytes: memory.and_then(|memory| memory.max_usage),
        mem_swap_bytes: counter(["swap", "swap"]),
        mem_limit_bytes: memory.and_then(|memory| memory.limit),
        oom_kills: None,
        pids: from
            .pids_stats
            .as_ref()
            .and_then(|pids| pids.current)
            .map(|pids| pids.try_into().unwrap_or(u32::MAX)),
    }
}
