//! `/metrics/snapshot` (rule 90): every name that a Mesos master has, for some exporters
//! stop at a missing one. What Mezz does not have or does not count is 0.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::Uri,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use mezz_proto::{
    pages::{Jsonp, parse_duration, system_metrics},
    resources::Resources,
};

use super::{
    Arguments, Page, Pages,
    answers::{Answers, NoPage},
    arguments, callback, json, unavailable,
};
use crate::{
    api::{refusal::Refusal, server::Identity},
    core::Counters,
    shell::{
        limits::HEALTH_TIMEOUT,
        metrics::{Metrics, Samples},
        snapshot::{Include, Snapshot},
        view,
    },
};

/// Names that are always there.
const NAMES: &str = include_str!("metric_names.txt");

/// What the page is made of.
struct Sources<'a> {
    /// Of the core; none at a standby, or while it does not answer.
    counters: Option<&'a Counters>,
    /// Agents and their sums, if this master leads.
    snapshot: Option<&'a Snapshot>,
    /// Tasks by state.
    tasks: &'a [(&'static str, u64)],
    /// What the shell counts.
    samples: &'a Samples,
    /// Since the process started.
    uptime: Duration,
    /// Operators that listen.
    subscribers: usize,
}

/// `/metrics/snapshot?timeout=5secs`.
pub(super) async fn metrics_snapshot(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let jsonp = asked(&arguments(&uri))?;
    Ok(match all_metrics(&pages).await {
        Ok(page) => json(page, jsonp.as_ref()),
        Err(error) => unavailable(&error),
    })
}

/// All metrics as one JSON object.
///
/// # Errors
/// [`NoPage`].
pub async fn all_metrics(pages: &Pages) -> Result<Bytes, NoPage> {
    let api = pages.api.clone();
    // Zeros in their place would look like a master that has started anew.
    let counters = async { api.core.probe(HEALTH_TIMEOUT).await.map_err(|_| NoPage::Silent) };
    let api = pages.api.clone();
    let make = move |counters| {
        let snapshot = api.model.snapshot(Include::NONE);
        let sources = Sources {
            counters: Some(&counters),
            snapshot: Some(&snapshot),
            tasks: &api.model.tasks_by_state(),
            samples: &api.metrics.samples(),
            uptime: api.identity.clock.now().since(api.identity.clock.start_time()),
            subscribers: api.model.subscribers(),
        };
        mezz_proto::pages::snapshot(&metrics(&sources)).into_bytes()
    };
    pages.metrics.get_after(&pages.quick, counters, make).await
}

/// The callback. A `timeout=5secs` beside it matters nothing, for nothing here takes long
/// enough; but a text that is no duration is refused, as in Mesos.
fn asked(arguments: &Arguments) -> Result<Option<Jsonp>, Refusal> {
    let jsonp = callback(arguments)?;
    match arguments.get("timeout").map(|given| parse_duration(given)) {
        None | Some(Ok(_)) => Ok(jsonp),
        Some(Err(error)) => Err(Refusal::bad(format!("Unable to parse timeout: {error}"))),
    }
}

/// `/metrics/snapshot` of a standby.
pub async fn standby_metrics(
    answers: &Answers,
    metrics_of: Arc<Metrics>,
    identity: Arc<Identity>,
    uri: &Uri,
) -> Response {
    let jsonp = match asked(&arguments(uri)) {
        Ok(jsonp) => jsonp,
        Err(refused) => return refused.into_response(),
    };
    // A standby takes part in the election: nothing slow runs where that does.
    let make = move || {
        let sources = Sources {
            counters: None,
            snapshot: None,
            tasks: &[],
            samples: &metrics_of.samples(),
            uptime: identity.clock.now().since(identity.clock.start_time()),
            subscribers: 0,
        };
        mezz_proto::pages::snapshot(&metrics(&sources)).into_bytes()
    };
    match answers.page(make).await {
        Ok(page) => json(page, jsonp.as_ref()),
        Err(error) => unavailable(&error),
    }
}

/// All metrics.
fn metrics(sources: &Sources<'_>) -> BTreeMap<String, f64> {
    let mut out: BTreeMap<String, f64> = NAMES.lines().map(|n| (n.to_owned(), 0.0)).collect();
    let mut set = |name: &str, value: f64| _ = out.insert(name.to_owned(), value);
    for (name, value) in machine() {
        set(name, value);
    }
    set("master/uptime_secs", sources.uptime.as_secs_f64());
    set("master/elected", f64::from(u8::from(sources.snapshot.is_some())));
    set("master/operator_event_stream_subscribers", sources.subscribers as f64);
    set("registrar/log/recovered", 1.0);
    set("registrar/log/ensemble_size", 1.0);
    for (state, count) in sources.tasks {
        // Ended ones are counted below, over all time.
        let name = format!("master/tasks_{}", state.trim_start_matches("TASK_").to_lowercase());
        if ["staging", "starting", "running", "killing", "unreachable"]
            .iter()
            .any(|live| name.ends_with(live))
        {
            set(&name, *count as f64);
        }
    }
    if let Some(counters) = sources.counters {
        of_core(counters, &mut set);
    }
    if let Some(snapshot) = sources.snapshot {
        of_agents(snapshot, &mut set);
    }
    of_shell(sources.samples, &mut set);
    out
}

fn machine() -> [(&'static str, f64); 6] {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    system_metrics(&text("/proc/loadavg"), &text("/proc/meminfo"), cpus)
}

fn of_core(counters: &Counters, set: &mut impl FnMut(&str, f64)) {
    let c = counters;
    for (name, value) in [
        ("master/outstanding_offers", c.offers_outstanding),
        ("master/slaves_connected", c.agents_active),
        ("master/slaves_disconnected", c.agents_disconnected),
        ("master/slaves_unreachable", c.agents_unreachable),
        ("master/frameworks_active", c.frameworks_active),
        ("master/frameworks_connected", c.frameworks_active),
        ("master/frameworks_disconnected", c.frameworks_disconnected + c.frameworks_recovered),
        ("master/frameworks_inactive", c.frameworks_disconnected + c.frameworks_recovered),
        ("master/slave_registrations", c.agent_registrations),
        ("master/slave_reregistrations", c.agent_reregistrations),
        ("master/slave_removals", c.agents_removed + c.agents_marked_unreachable),
        ("master/slave_removals/reason_unhealthy", c.agents_marked_unreachable),
        ("master/slave_removals/reason_unregistered", c.agents_removed),
        (
            "master/slave_unreachable_scheduled",
            c.agents_marked_unreachable + c.agent_losses_waiting,
        ),
        ("master/slave_unreachable_completed", c.agents_marked_unreachable),
        ("master/slave_unreachable_canceled", c.agent_losses_cancelled),
        ("master/messages_status_update", c.status_updates),
        ("master/valid_status_updates", c.status_updates),
        ("master/valid_status_update_acknowledgements", c.acknowledgements),
        ("allocator/mesos/allocation_runs", c.allocations),
    ] {
        set(name, value as f64);
    }
    for (state, count) in c.tasks_ended.iter() {
        let state = state.trim_start_matches("TASK_").to_lowercase();
        set(&format!("master/tasks_{state}"), count as f64);
    }
}

fn of_agents(snapshot: &Snapshot, set: &mut impl FnMut(&str, f64)) {
    let (mut total, mut used, mut offered) = (Resources::new(), Resources::new(), Resources::new());
    let mut active = 0;
    let mut registered = 0;
    for (agent, sums) in &snapshot.agents {
        let record = agent.rest();
        if !view::is_registered(record) {
            continue;
        }
        registered += 1;
        active += u32::from(
            record.status() == mezz_proto::mezz::v1::agent_state::Status::Active
                && !view::is_deactivated(record),
        );
        total += agent.total();
        used += &sums.allocated;
        offered += &sums.offered;
    }
    set("master/slaves_active", f64::from(active));
    set("master/slaves_inactive", f64::from(registered - active));
    let sum = |of: &Resources, name: &str, revocable: bool| -> f64 {
        of.filter(|r| r.identity.is_revocable() == revocable).scalar(name).to_f64()
    };
    let share = |used: f64, total: f64| if total > 0.0 { used / total } else { 0.0 };
    for name in ["cpus", "mem", "disk", "gpus"] {
        for (suffix, revocable) in [("", false), ("_revocable", true)] {
            let (has, uses) = (sum(&total, name, revocable), sum(&used, name, revocable));
            set(&format!("master/{name}{suffix}_total"), has);
            set(&format!("master/{name}{suffix}_used"), uses);
            set(&format!("master/{name}{suffix}_percent"), share(uses, has));
        }
        if name != "gpus" {
            let held = used.scalar(name).to_f64() + offered.scalar(name).to_f64();
            let of = format!("allocator/mesos/resources/{name}");
            set(&format!("{of}/total"), total.scalar(name).to_f64());
            set(&format!("{of}/offered_or_allocated"), held);
        }
    }
}

/// Names of Mesos, and the kinds of events that make them up.
const MESSAGES: &[(&str, &[&str])] = &[
    ("messages_decline_offers", &["call_decline"]),
    ("messages_exited_executor", &["agent_executor_terminated"]),
    ("messages_executor_to_framework", &["agent_executor_message"]),
    ("messages_framework_to_executor", &["call_message"]),
    ("messages_kill_task", &["call_kill"]),
    ("messages_launch_tasks", &["call_accept"]),
    ("messages_operation_status_update_acknowledgement", &["call_acknowledge_operation_status"]),
    ("messages_reconcile_operations", &["call_reconcile_operations"]),
    ("messages_reconcile_tasks", &["call_reconcile"]),
    ("messages_register_framework", &["call_subscribe"]),
    ("messages_register_slave", &["agent_register"]),
    ("messages_reregister_slave", &["agent_reregister"]),
    ("messages_resource_request", &["call_request"]),
    ("messages_revive_offers", &["call_revive"]),
    ("messages_status_update_acknowledgement", &["call_acknowledge"]),
    ("messages_suppress_offers", &["call_suppress"]),
    ("messages_unregister_framework", &["call_teardown"]),
    ("messages_unregister_slave", &["agent_unregister"]),
];

fn of_shell(samples: &Samples, set: &mut impl FnMut(&str, f64)) {
    for (name, kinds) in MESSAGES {
        let count: f64 = kinds.iter().map(|kind| samples.event(kind)).sum();
        set(&format!("master/{name}"), count);
    }
    set("master/event_queue_messages", samples.queue_depth);
    for (name, timing) in [
        ("allocator/mesos/allocation_run_ms", &samples.allocation),
        ("registrar/state_store_ms", &samples.registry_write),
    ] {
        set(&format!("{name}/count"), timing.count());
        // Mesos tells the last one here; ours is the median.
        set(name, timing.quantile(0.5) * 1e3);
        for (suffix, q) in [
            ("min", 0.0),
            ("p50", 0.5),
            ("p90", 0.9),
            ("p95", 0.95),
            ("p99", 0.99),
            ("p999", 0.999),
            ("p9999", 0.9999),
            ("max", 1.0),
        ] {
            set(&format!("{name}/{suffix}"), timing.quantile(q) * 1e3);
        }
    }
}
