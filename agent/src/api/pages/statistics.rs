//! What containers use: `/monitor/statistics`, `/containers` and GET_CONTAINERS.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use mezz_proto::{
    ids::ContainerId,
    json::to_value,
    pages::resource_quantities,
    resources::Resources,
    v1::{self, agent::response::get_containers::Container},
};
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::Instant};

use super::{
    super::{Served, index::Entry},
    Asked, page_at, turn,
};
use crate::containerizer::Statistics;

/// Who asks within this time gets the same numbers: containers are asked twice a second
/// at most, however many poll (rule 89).
const FRESH: Duration = Duration::from_millis(500);

/// What is not known by then is left out.
const DEADLINE: Duration = Duration::from_secs(5);

/// Containers that are asked at one time.
const QUESTIONS: usize = 64;

/// One executor's container, with what its members use.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) container: Container,
    source: String,
}

/// The last answer.
pub(super) type Measured = Arc<Mutex<Option<(Instant, Arc<Vec<Usage>>)>>>;

/// What runs uses, sorted by framework and executor.
pub(crate) async fn containers(served: &Arc<Served>) -> Arc<Vec<Usage>> {
    let mut last = Arc::clone(&served.pages.measured).lock_owned().await;
    if let Some((at, known)) = &*last
        && at.elapsed() < FRESH
    {
        return Arc::clone(known);
    }
    let served = Arc::clone(served);
    // By itself: who asks and goes must not let the next one ask all containers again.
    let measuring = tokio::spawn(async move {
        let now = Arc::new(measure(&served).await);
        *last = Some((Instant::now(), Arc::clone(&now)));
        now
    });
    measuring.await.unwrap_or_default()
}

async fn measure(served: &Served) -> Vec<Usage> {
    let deadline = Instant::now() + DEADLINE;
    let mut asked = served.index.running();
    // Processes wait for no engine.
    asked.sort_by_cached_key(|Entry { record, .. }| {
        served.containerizer.is_of_engine(&ContainerId::new(&record.container_id))
    });
    let answers: Vec<(Entry, Option<Statistics>)> = stream::iter(asked)
        .map(|entry| async move {
            let id = ContainerId::new(&entry.record.container_id);
            let statistics =
                tokio::time::timeout_at(deadline, served.containerizer.statistics(&id));
            (entry, statistics.await.ok().and_then(Result::ok))
        })
        .buffer_unordered(QUESTIONS)
        .collect()
        .await;
    let mut groups = BTreeMap::<(String, String), Vec<(Entry, Option<Statistics>)>>::new();
    for (entry, statistics) in answers {
        let key = (entry.record.framework_id.clone(), entry.record.executor_id.clone());
        groups.entry(key).or_default().push((entry, statistics));
    }
    let mut executors = HashMap::new();
    let frameworks = served.roster.frameworks();
    for executor in frameworks.active.iter().flat_map(|framework| &framework.executors) {
        executors.insert(executor.container.clone(), Arc::clone(executor));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut all = Vec::with_capacity(groups.len());
    for ((framework, executor), group) in groups {
        // A member's sandbox lies in its pod's.
        let of_executor = |(entry, _): &&(Entry, Option<Statistics>)| {
            Path::new(&entry.record.path).parent().is_some_and(|folder| folder.ends_with("runs"))
        };
        // Two with one name are a command task and an executor: each for itself.
        for (entry, own) in group.iter().filter(of_executor) {
            let id = ContainerId::new(&entry.record.container_id);
            let members = group.iter().filter(|(member, _)| {
                member.record.path.starts_with(&*entry.record.path)
                    && member.record.container_id != entry.record.container_id
            });
            let used = own.iter().chain(members.filter_map(|(_, used)| used.as_ref()));
            let known = executors.get(&id);
            let held = known.map(|known| {
                let wire: Vec<v1::Resource> = known.resources().cloned().collect();
                Resources::from_proto(&wire).unwrap_or_default()
            });
            let statistics = sum(now, used, &held.unwrap_or_default());
            let info = known.map(|known| &known.info);
            all.push(Usage {
                source: info.map_or("", |info| info.source()).to_owned(),
                container: Container {
                    framework_id: Some(v1::FrameworkId { value: framework.clone() }),
                    executor_id: Some(v1::ExecutorId { value: executor.clone() }),
                    executor_name: Some(info.map_or("", |info| info.name()).to_owned()),
                    container_id: (&id).into(),
                    container_status: Some(v1::ContainerStatus {
                        container_id: Some((&id).into()),
                        executor_pid: entry.pid,
                        ..Default::default()
                    }),
                    resource_statistics: Some(statistics),
                },
            });
        }
    }
    all
}

/// What containers have used together, and what they may.
fn sum<'a>(
    timestamp: f64,
    used: impl Iterator<Item = &'a Statistics>,
    held: &Resources,
) -> v1::ResourceStatistics {
    let held = resource_quantities(held.iter());
    let cpus = held.get("cpus").copied();
    let memory = held.get("mem").map(|mib| (mib * 1_048_576.0) as u64);
    let mut total = v1::ResourceStatistics {
        timestamp,
        cpus_limit: cpus,
        cpus_soft_limit: cpus,
        mem_limit_bytes: memory,
        mem_soft_limit_bytes: memory,
        ..Default::default()
    };
    fn add<T: std::ops::Add<Output = T> + Copy>(total: &mut Option<T>, more: Option<T>) {
        *total = match (*total, more) {
            (Some(total), Some(more)) => Some(total + more),
            (total, more) => total.or(more),
        };
    }
    let small = |count: Option<u64>| count.map(|n| u32::try_from(n).unwrap_or(u32::MAX / 2));
    for one in used {
        add(&mut total.cpus_user_time_secs, one.cpus_user_secs);
        add(&mut total.cpus_system_time_secs, one.cpus_system_secs);
        add(&mut total.cpus_throttled_time_secs, one.cpus_throttled_secs);
        add(&mut total.mem_rss_bytes, one.mem_rss_bytes);
        add(&mut total.mem_swap_bytes, one.mem_swap_bytes);
        add(&mut total.processes, one.pids);
        let count = |total: &mut Option<u32>, more: Option<u64>| {
            *total = match (*total, small(more)) {
                (Some(total), Some(more)) => Some(total.saturating_add(more)),
                (total, more) => total.or(more),
            };
        };
        count(&mut total.cpus_nr_periods, one.cpus_nr_periods);
        count(&mut total.cpus_nr_throttled, one.cpus_nr_throttled);
    }
    total
}

impl Usage {
    /// As the older pages have it: keys sorted.
    fn page(&self, with_container: bool) -> Value {
        let of = &self.container;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let statistics = of.resource_statistics.as_ref().map(|s| sorted(to_value(s)));
        let mut page = BTreeMap::from([
            ("executor_id", json!(of.executor_id.as_ref().map_or("", |id| &id.value))),
            ("executor_name", json!(text(&of.executor_name))),
            ("framework_id", json!(of.framework_id.as_ref().map_or("", |id| &id.value))),
            ("source", json!(self.source)),
            ("statistics", statistics.unwrap_or_default()),
        ]);
        if with_container {
            page.insert("container_id", json!(of.container_id.value));
            let status = of.container_status.as_ref().map(|status| sorted(to_value(status)));
            page.insert("status", status.unwrap_or_default());
        }
        json!(page)
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => json!(map.into_iter().collect::<BTreeMap<String, Value>>()),
        other => other,
    }
}

async fn listed(served: Arc<Served>, asked: Asked, with_container: bool) -> Response {
    // Before the wait for containers and engines: those who wait are bounded.
    let turn = match turn(&served) {
        Ok(turn) => turn,
        Err(refusal) => return refusal.into_response(),
    };
    let used = containers(&served).await;
    let text = move |_: &Served| {
        let all: Vec<Value> = used.iter().map(|usage| usage.page(with_container)).collect();
        Ok(json!(all).to_string())
    };
    let page = page_at(turn, &served, asked.jsonp.as_deref(), text).await;
    page.unwrap_or_else(IntoResponse::into_response)
}

pub(super) async fn statistics_page(
    State(served): State<Arc<Served>>,
    Query(asked): Query<Asked>,
) -> Response {
    listed(served, asked, false).await
}

pub(super) async fn containers_page(
    State(served): State<Arc<Served>>,
    Query(asked): Query<Asked>,
) -> Response {
    listed(served, asked, true).await
}
