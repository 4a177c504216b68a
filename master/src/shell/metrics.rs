//! The master's metrics. Each master has a recorder of its own, so that several
//! may live in one process; nothing is installed globally.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::kinds::{EFFECT_KINDS, EVENT_KINDS};
pub use super::samples::Samples;
use crate::core::Counters;

/// Events that the core handled, by `kind`.
pub const EVENTS: &str = "mezz_master_events_total";
/// Seconds that the core took for one event, by `kind`.
pub const EVENT_SECONDS: &str = "mezz_master_event_seconds";
/// Effects that the core wanted, by `name`.
pub const EFFECTS: &str = "mezz_master_effects_total";
/// Inputs that waited for the core when it last looked.
pub const QUEUE_DEPTH: &str = "mezz_master_queue_depth";
/// Open streams, by `peer`: `framework`, `agent`.
pub const CONNECTIONS: &str = "mezz_master_connections";
/// Peers disconnected because they read too slowly, by `peer`.
pub const SLOW_PEERS: &str = "mezz_master_slow_peers_total";
/// Seconds of the core's calls that ran the allocator.
pub const ALLOCATION_SECONDS: &str = "mezz_master_allocation_seconds";
/// Seconds of one write of the registry.
pub const REGISTRY_WRITE_SECONDS: &str = "mezz_master_registry_write_seconds";
/// Records in one write of the registry.
pub const REGISTRY_WRITE_OPS: &str = "mezz_master_registry_write_ops";
/// Whether this master leads: 0 or 1.
pub const LEADING: &str = "mezz_master_leading";
/// Whether this master knows which one leads: 0 or 1.
pub const LEADER_KNOWN: &str = "mezz_master_leader_known";
/// Seconds since the master started.
pub const UPTIME: &str = "mezz_master_uptime_seconds";
/// Live tasks by `state`, as the read model knows them.
pub const TASKS: &str = "mezz_master_tasks";
/// Agents by `status`.
pub const AGENTS: &str = "mezz_master_agents";
/// Frameworks by `status`.
pub const FRAMEWORKS: &str = "mezz_master_frameworks";
/// Offers that are neither used nor declined.
pub const OFFERS: &str = "mezz_master_offers_outstanding";
/// Agents whose time is up and that wait until the rate lets them become unreachable.
pub const AGENT_LOSSES_WAITING: &str = "mezz_master_agent_losses_waiting";
/// Tasks that ended, by their last `state`.
pub const TASKS_ENDED: &str = "mezz_master_tasks_ended_total";

const SECONDS_BUCKETS: &[f64] = &[
    2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5,
    1.0, 5.0,
];
const OPS_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// The recorder of one master, and handles for what is counted often.
#[derive(Debug)]
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// The handles.
    pub hot: Hot,
}

/// Metrics that are counted often: looked up once.
#[derive(Debug)]
pub struct Hot {
    events: Vec<(Counter, Histogram)>,
    effects: Vec<Counter>,
    /// [`QUEUE_DEPTH`].
    pub queue_depth: Gauge,
    /// [`CONNECTIONS`] of frameworks.
    pub frameworks_connected: Gauge,
    /// [`CONNECTIONS`] of agents.
    pub agents_connected: Gauge,
    /// [`SLOW_PEERS`], frameworks.
    pub slow_frameworks: Counter,
    /// [`SLOW_PEERS`], agents.
    pub slow_agents: Counter,
    /// [`ALLOCATION_SECONDS`].
    pub allocation_seconds: Histogram,
    /// [`REGISTRY_WRITE_SECONDS`].
    pub registry_write_seconds: Histogram,
    /// [`REGISTRY_WRITE_OPS`].
    pub registry_write_ops: Histogram,
}

impl Hot {
    fn new() -> Self {
        let event = |kind: &&'static str| {
            (counter!(EVENTS, "kind" => *kind), histogram!(EVENT_SECONDS, "kind" => *kind))
        };
        Self {
            events: EVENT_KINDS.iter().map(event).collect(),
            effects: EFFECT_KINDS.iter().map(|name| counter!(EFFECTS, "name" => *name)).collect(),
            queue_depth: gauge!(QUEUE_DEPTH),
            frameworks_connected: gauge!(CONNECTIONS, "peer" => "framework"),
            agents_connected: gauge!(CONNECTIONS, "peer" => "agent"),
            slow_frameworks: counter!(SLOW_PEERS, "peer" => "framework"),
            slow_agents: counter!(SLOW_PEERS, "peer" => "agent"),
            allocation_seconds: histogram!(ALLOCATION_SECONDS),
            registry_write_seconds: histogram!(REGISTRY_WRITE_SECONDS),
            registry_write_ops: histogram!(REGISTRY_WRITE_OPS),
        }
    }

    /// Counts one event of this [kind](EVENT_KINDS).
    pub fn event(&self, kind: usize, took: Duration) {
        if let Some((count, seconds)) = self.events.get(kind) {
            count.increment(1);
            seconds.record(took.as_secs_f64());
        }
    }

    /// Counts one effect of this [kind](EFFECT_KINDS).
    pub fn effect(&self, kind: usize) {
        if let Some(count) = self.effects.get(kind) {
            count.increment(1);
        }
    }
}

impl Metrics {
    /// With all of them at zero.
    ///
    /// # Errors
    /// [`BuildError`] only if a table of buckets above were empty.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(REGISTRY_WRITE_OPS.to_owned()), OPS_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        let hot = with_local_recorder(&recorder, || {
            describe();
            Hot::new()
        });
        Ok(Self { recorder, handle, hot })
    }

    /// Folds samples into buckets; to be called now and then, for until then
    /// each sample takes memory.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// What is counted here, as numbers.
    pub fn samples(&self) -> Samples {
        Samples::read(&self.handle.render())
    }

    /// The text that Prometheus reads, with what is only looked up for it.
    pub fn render(
        &self,
        counters: Option<&Counters>,
        tasks_by_state: &[(&'static str, u64)],
        uptime: Duration,
        leader_known: bool,
    ) -> String {
        with_local_recorder(&self.recorder, || {
            gauge!(LEADING).set(f64::from(u8::from(counters.is_some())));
            gauge!(LEADER_KNOWN).set(f64::from(u8::from(leader_known)));
            gauge!(UPTIME).set(uptime.as_secs_f64());
            for (state, count) in tasks_by_state {
                gauge!(TASKS, "state" => *state).set(*count as f64);
            }
            if let Some(counters) = counters {
                export(counters);
            }
        });
        self.handle.render()
    }
}

/// Counters of the core that are exported as they are, with what they count.
type CoreCounter = (&'static str, &'static str, fn(&Counters) -> u64);

const CORE_COUNTERS: &[CoreCounter] = &[
    ("mezz_master_offers_sent_total", "Offers sent to frameworks", |c| c.offers_sent),
    ("mezz_master_offers_accepted_total", "Offers used", |c| c.offers_accepted),
    ("mezz_master_offers_declined_total", "Offers declined", |c| c.offers_declined),
    ("mezz_master_offers_rescinded_total", "Offers taken back", |c| c.offers_rescinded),
    ("mezz_master_offers_expired_total", "Offers ended by their timeout", |c| c.offers_expired),
    ("mezz_master_accepts_invalid_total", "ACCEPT calls with invalid offers", |c| {
        c.accepts_invalid
    }),
    ("mezz_master_allocations_total", "Runs of the allocator", |c| c.allocations),
    ("mezz_master_tasks_launched_total", "Tasks sent to agents", |c| c.tasks_launched),
    ("mezz_master_tasks_recovered_total", "Tasks learnt from returning agents", |c| {
        c.tasks_recovered
    }),
    ("mezz_master_tasks_refused_total", "Tasks refused or dropped before they lived", |c| {
        c.tasks_refused
    }),
    ("mezz_master_status_updates_total", "Status updates from agents", |c| c.status_updates),
    ("mezz_master_acknowledgements_total", "Acknowledgements from frameworks", |c| {
        c.acknowledgements
    }),
    ("mezz_master_agent_registrations_total", "Agents admitted for the first time", |c| {
        c.agent_registrations
    }),
    ("mezz_master_agent_reregistrations_total", "Agents that came back", |c| {
        c.agent_reregistrations
    }),
    ("mezz_master_agent_refusals_total", "Agents refused", |c| c.agent_refusals),
    ("mezz_master_agents_marked_unreachable_total", "Agents that became unreachable", |c| {
        c.agents_marked_unreachable
    }),
    ("mezz_master_agent_losses_delayed_total", "Agents not made unreachable at once", |c| {
        c.agent_losses_delayed
    }),
    (
        "mezz_master_agent_losses_cancelled_total",
        "Of these, agents that came back, left or were replaced before",
        |c| c.agent_losses_cancelled,
    ),
    ("mezz_master_agents_removed_total", "Agents that said goodbye", |c| c.agents_removed),
    ("mezz_master_invalid_agent_messages_total", "Agent messages against the protocol", |c| {
        c.invalid_agent_messages
    }),
    ("mezz_master_invalid_calls_total", "Framework calls against the protocol", |c| {
        c.invalid_calls
    }),
    ("mezz_master_frameworks_completed_total", "Frameworks that ended", |c| c.frameworks_completed),
];

fn export(counters: &Counters) {
    for (name, _, value) in CORE_COUNTERS {
        counter!(*name).absolute(value(counters));
    }
    for (state, count) in counters.tasks_ended.iter() {
        counter!(TASKS_ENDED, "state" => state).absolute(count);
    }
    let agents = [
        ("active", counters.agents_active),
        ("disconnected", counters.agents_disconnected),
        ("recovering", counters.agents_recovering),
        ("unreachable", counters.agents_unreachable),
    ];
    for (status, count) in agents {
        gauge!(AGENTS, "status" => status).set(count as f64);
    }
    let frameworks = [
        ("active", counters.frameworks_active),
        ("disconnected", counters.frameworks_disconnected),
        ("recovered", counters.frameworks_recovered),
    ];
    for (status, count) in frameworks {
        gauge!(FRAMEWORKS, "status" => status).set(count as f64);
    }
    gauge!(AGENT_LOSSES_WAITING).set(counters.agent_losses_waiting as f64);
    gauge!(OFFERS).set(counters.offers_outstanding as f64);
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(EVENTS, "Events that the core handled, by kind");
    describe_histogram!(EVENT_SECONDS, Unit::Seconds, "Time of one event in the core, by kind");
    describe_counter!(EFFECTS, "Effects that the core wanted, by name");
    describe_gauge!(QUEUE_DEPTH, "Inputs waiting for the core when it last looked");
    describe_gauge!(CONNECTIONS, "Open streams, by peer");
    describe_counter!(SLOW_PEERS, "Peers disconnected because they read too slowly");
    describe_histogram!(ALLOCATION_SECONDS, Unit::Seconds, "Calls that ran the allocator");
    describe_histogram!(REGISTRY_WRITE_SECONDS, Unit::Seconds, "One write of the registry");
    describe_histogram!(REGISTRY_WRITE_OPS, "Records in one write of the registry");
    describe_gauge!(LEADING, "Whether this master leads");
    describe_gauge!(LEADER_KNOWN, "Whether this master knows which one leads");
    describe_gauge!(UPTIME, Unit::Seconds, "Since the master started");
    describe_gauge!(TASKS, "Live tasks by state");
    describe_gauge!(AGENTS, "Agents by status");
    describe_gauge!(AGENT_LOSSES_WAITING, "Agents that wait to become unreachable");
    describe_gauge!(FRAMEWORKS, "Frameworks by status");
    describe_gauge!(OFFERS, "Offers neither used nor declined");
    describe_counter!(TASKS_ENDED, "Ended tasks by their last state");
    for (name, description, _) in CORE_COUNTERS {
        describe_counter!(*name, *description);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_masters_in_one_process_count_apart() {
        let (a, b) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        a.hot.event(1, Duration::from_micros(3));
        a.hot.slow_agents.increment(1);
        let counters = Counters { offers_sent: 7, agents_active: 2, ..Default::default() };
        let text = a.render(Some(&counters), &[("TASK_RUNNING", 3)], Duration::from_secs(9), true);
        for line in [
            "mezz_master_events_total{kind=\"call_subscribe\"} 1",
            "mezz_master_event_seconds_bucket{kind=\"call_subscribe\",le=\"0.000005\"} 1",
            "mezz_master_slow_peers_total{peer=\"agent\"} 1",
            "mezz_master_offers_sent_total 7",
            "mezz_master_agents{status=\"active\"} 2",
            "mezz_master_tasks{state=\"TASK_RUNNING\"} 3",
            "mezz_master_uptime_seconds 9",
            "mezz_master_leading 1",
            "mezz_master_leader_known 1",
            "# HELP mezz_master_offers_sent_total Offers sent to frameworks",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in:\n{text}");
        }
        let text = b.render(None, &[], Duration::ZERO, false);
        assert!(text.contains("mezz_master_events_total{kind=\"call_subscribe\"} 0"), "{text}");
    }
}
