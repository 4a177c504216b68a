//! `/state`, `/state-summary`, and the lists that have parts of them (rules 84 to 87).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mezz_proto::{
    mezz::v1 as mezz,
    pages::{
        AGENT_CAPABILITIES, AttributesPage, ExecutorPage, FrameworkNames, LabelsPage,
        MESOS_VERSION, OfferPage, Proto, Protos, Reserved, ResourcesPage, TaskPage, Version,
        capability_names, full,
    },
    resources::{Dialect, Resources},
    v1,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    api::server::Identity,
    core::master_info,
    shell::{
        read_state::{AgentEntry, Sums, TaskEntry},
        snapshot::Snapshot,
        view,
    },
};

/// States that summaries count, in the order of Mesos.
const COUNTED: [v1::TaskState; 10] = [
    v1::TaskState::TaskStaging,
    v1::TaskState::TaskStarting,
    v1::TaskState::TaskRunning,
    v1::TaskState::TaskKilling,
    v1::TaskState::TaskFinished,
    v1::TaskState::TaskKilled,
    v1::TaskState::TaskFailed,
    v1::TaskState::TaskLost,
    v1::TaskState::TaskError,
    v1::TaskState::TaskUnreachable,
];

/// A list of what can be written.
struct List<F>(F);

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// `/state`.
pub struct StatePage<'a> {
    /// Who answers.
    pub identity: &'a Identity,
    /// Since when it leads, in seconds since the epoch.
    pub elected: f64,
    /// What there is.
    pub snapshot: &'a Snapshot,
}

impl Serialize for StatePage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { identity, snapshot, .. } = self;
        let info = master_info(&identity.id, &identity.address);
        let mut map = serializer.serialize_map(None)?;
        Version::of_build().write(&mut map)?;
        map.serialize_entry("start_time", &identity.clock.start_time().as_secs_f64())?;
        map.serialize_entry("elected_time", &self.elected)?;
        map.serialize_entry("id", &identity.id)?;
        map.serialize_entry("pid", info.pid())?;
        map.serialize_entry("hostname", info.hostname())?;
        let capabilities: Vec<_> =
            info.capabilities.iter().map(|c| c.r#type().as_str_name()).collect();
        map.serialize_entry("capabilities", &capabilities)?;
        let registered = || snapshot.agents.iter().filter(|(a, _)| view::is_registered(a.rest()));
        let active = registered().filter(|(a, _)| is_active(a.rest())).count();
        let unreachable = mezz::agent_state::Status::Unreachable;
        let lost = snapshot.agents.iter().filter(|(a, _)| a.rest().status() == unreachable);
        map.serialize_entry("activated_slaves", &(active as f64))?;
        map.serialize_entry("deactivated_slaves", &((registered().count() - active) as f64))?;
        map.serialize_entry("unreachable_slaves", &(lost.count() as f64))?;
        if let Some(cluster) = &identity.cluster {
            map.serialize_entry("cluster", cluster)?;
        }
        map.serialize_entry("leader", info.pid())?;
        map.serialize_entry("leader_info", &Leader(&info))?;
        map.serialize_entry("flags", &identity.flags)?;
        write_agents(&mut map, snapshot, None, false)?;
        write_frameworks(&mut map, snapshot, None)?;
        map.serialize_entry::<_, [(); 0]>("orphan_tasks", &[])?;
        map.serialize_entry::<_, [(); 0]>("unregistered_frameworks", &[])?;
        map.end()
    }
}

struct Leader<'a>(&'a v1::MasterInfo);

impl Serialize for Leader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.0.id)?;
        map.serialize_entry("pid", self.0.pid())?;
        map.serialize_entry("port", &self.0.port)?;
        map.serialize_entry("hostname", self.0.hostname())?;
        map.end()
    }
}

fn is_active(agent: &mezz::AgentState) -> bool {
    agent.status() == mezz::agent_state::Status::Active && !view::is_deactivated(agent)
}

fn write_agents<M: SerializeMap>(
    map: &mut M,
    snapshot: &Snapshot,
    only: Option<&str>,
    full: bool,
) -> Result<(), M::Error> {
    let wanted = |agent: &AgentEntry| only.is_none_or(|id| id == id_of(agent));
    map.serialize_entry(
        "slaves",
        &List(|| {
            snapshot
                .agents
                .iter()
                .filter(|(agent, _)| view::is_registered(agent.rest()) && wanted(agent))
                .map(|(agent, sums)| AgentPage { agent, sums, full })
        }),
    )?;
    map.serialize_entry(
        "recovered_slaves",
        &List(|| {
            snapshot
                .agents
                .iter()
                .filter(|(a, _)| {
                    a.rest().status() == mezz::agent_state::Status::Recovering && wanted(a)
                })
                .map(|(a, _)| RecoveredPage(a))
        }),
    )
}

fn id_of(agent: &AgentEntry) -> &str {
    agent.rest().agent.id.as_ref().map_or("", |id| &id.value)
}

fn write_agent_info<M: SerializeMap>(
    map: &mut M,
    agent: &mezz::AgentState,
) -> Result<(), M::Error> {
    let info = &agent.agent;
    map.serialize_entry("id", info.id.as_ref().map_or("", |id| &id.value))?;
    map.serialize_entry("hostname", &info.hostname)?;
    map.serialize_entry("port", &info.port())?;
    map.serialize_entry("attributes", &AttributesPage(&info.attributes))?;
    if let Some(domain) = &info.domain {
        map.serialize_entry("domain", &Proto(domain))?;
    }
    Ok(())
}

struct RecoveredPage<'a>(&'a AgentEntry);

impl Serialize for RecoveredPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_agent_info(&mut map, self.0.rest())?;
        map.end()
    }
}

struct AgentPage<'a> {
    agent: &'a AgentEntry,
    sums: &'a Sums,
    /// With resources as messages, too.
    full: bool,
}

impl AgentPage<'_> {
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let record = self.agent.rest();
        write_agent_info(map, record)?;
        map.serialize_entry("pid", &view::agent_pid(record))?;
        map.serialize_entry("registered_time", &record.registered_time.unwrap_or_default())?;
        if let Some(time) = record.reregistered_time {
            map.serialize_entry("reregistered_time", &time)?;
        }
        let parts = Reserved::of(self.agent.total());
        map.serialize_entry("resources", &ResourcesPage::of(self.agent.total()))?;
        map.serialize_entry("used_resources", &ResourcesPage::of(&self.sums.allocated))?;
        map.serialize_entry("offered_resources", &ResourcesPage::of(&self.sums.offered))?;
        map.serialize_entry("reserved_resources", &parts.page())?;
        map.serialize_entry("unreserved_resources", &ResourcesPage::of(&parts.unreserved))?;
        map.serialize_entry("active", &is_active(record))?;
        map.serialize_entry("deactivated", &view::is_deactivated(record))?;
        map.serialize_entry("version", MESOS_VERSION)?;
        map.serialize_entry("capabilities", &AGENT_CAPABILITIES.map(|c| c.as_str_name()))?;
        if let Some(drain) = &record.drain {
            map.serialize_entry("drain_info", &Proto(drain))?;
        }
        if self.full {
            let wire = |of: &Resources| full(of.to_proto(Dialect::Refined, None));
            let reserved: BTreeMap<_, _> = parts.full().into_iter().collect();
            map.serialize_entry("reserved_resources_full", &Lists(&reserved))?;
            map.serialize_entry("unreserved_resources_full", &Protos(&wire(&parts.unreserved)))?;
            map.serialize_entry("used_resources_full", &Protos(&wire(&self.sums.allocated)))?;
            map.serialize_entry("offered_resources_full", &Protos(&wire(&self.sums.offered)))?;
        }
        Ok(())
    }
}

struct Lists<'a>(&'a BTreeMap<&'a str, Vec<v1::Resource>>);

impl Serialize for Lists<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(role, all)| (role, Protos(all))))
    }
}

impl Serialize for AgentPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.write(&mut map)?;
        map.end()
    }
}

/// Which frameworks; `None`: all.
fn write_frameworks<M: SerializeMap>(
    map: &mut M,
    snapshot: &Snapshot,
    only: Option<&str>,
) -> Result<(), M::Error> {
    let list = |live: bool| {
        List(move || {
            snapshot
                .frameworks
                .iter()
                .filter(move |(f, _)| view::is_live(f) == live)
                .filter(move |(f, _)| only.is_none_or(|id| id == framework_id(f)))
                .map(|(record, sums)| FrameworkPage { record, sums, snapshot })
        })
    };
    map.serialize_entry("frameworks", &list(true))?;
    map.serialize_entry("completed_frameworks", &list(false))
}

fn framework_id(framework: &mezz::FrameworkState) -> &str {
    framework.framework.id.as_ref().map_or("", |id| &id.value)
}

struct FrameworkPage<'a> {
    record: &'a mezz::FrameworkState,
    sums: &'a Sums,
    snapshot: &'a Snapshot,
}

impl FrameworkPage<'_> {
    fn write_summary<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        use mezz::framework_state::Status;
        let info = &self.record.framework;
        let connected = self.record.status() == Status::Active;
        map.serialize_entry("id", framework_id(self.record))?;
        map.serialize_entry("name", &info.name)?;
        map.serialize_entry("used_resources", &ResourcesPage::of(&self.sums.allocated))?;
        map.serialize_entry("offered_resources", &ResourcesPage::of(&self.sums.offered))?;
        map.serialize_entry("capabilities", &capability_names(info))?;
        map.serialize_entry("hostname", info.hostname())?;
        map.serialize_entry("webui_url", info.webui_url())?;
        map.serialize_entry("active", &connected)?;
        map.serialize_entry("connected", &connected)?;
        map.serialize_entry("recovered", &(self.record.status() == Status::Recovered))
    }
}

impl Serialize for FrameworkPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, sums, snapshot } = self;
        let (info, id) = (&record.framework, framework_id(record));
        let mut map = serializer.serialize_map(None)?;
        self.write_summary(&mut map)?;
        map.serialize_entry("user", &info.user)?;
        map.serialize_entry("failover_timeout", &info.failover_timeout())?;
        map.serialize_entry("checkpoint", &info.checkpoint())?;
        map.serialize_entry("registered_time", &record.registered_time.unwrap_or_default())?;
        map.serialize_entry("unregistered_time", &record.unregistered_time.unwrap_or_default())?;
        if let Some(principal) = &info.principal {
            map.serialize_entry("principal", principal)?;
        }
        let all = sums.allocated.clone() + &sums.offered;
        map.serialize_entry("resources", &ResourcesPage::of(&all))?;
        if let Some(time) = record.reregistered_time {
            map.serialize_entry("reregistered_time", &time)?;
        }
        FrameworkNames(info).write(&mut map)?;
        let aware = view::is_partition_aware(info);
        let tasks = snapshot.tasks_of(id);
        let list = |keep: fn(&TaskEntry) -> bool| {
            List(move || {
                tasks.iter().filter(move |t| keep(t)).filter_map(move |t| Shown::of(t, aware))
            })
        };
        map.serialize_entry("tasks", &list(is_live))?;
        map.serialize_entry("unreachable_tasks", &list(is_unreachable))?;
        map.serialize_entry("completed_tasks", &list(TaskEntry::is_completed))?;
        let offers = || snapshot.offers_of(id).iter().map(|record| OfferPage(&record.offer));
        map.serialize_entry("offers", &List(offers))?;
        let executors = snapshot.executors_of(id);
        map.serialize_entry(
            "executors",
            &List(|| {
                executors
                    .iter()
                    .filter_map(|(key, entry)| Some(ShownExecutor(entry.decode()?, key.0.as_str())))
            }),
        )?;
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        let constraints = record.offer_constraints.clone().unwrap_or_default();
        map.serialize_entry("offer_constraints", &Proto(&constraints))?;
        map.end()
    }
}

struct ShownExecutor<'a>(v1::ExecutorInfo, &'a str);

impl Serialize for ShownExecutor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ExecutorPage { info: &self.0, agent: Some(self.1) }.serialize(serializer)
    }
}

/// A task that its framework may still hear of.
fn is_live(task: &TaskEntry) -> bool {
    !task.is_completed() && !is_unreachable(task)
}

fn is_unreachable(task: &TaskEntry) -> bool {
    task.state == v1::TaskState::TaskUnreachable
}

/// A task, decoded when it is its turn to be written.
struct Shown(v1::Task);

impl Shown {
    fn of(entry: &TaskEntry, partition_aware: bool) -> Option<Self> {
        view::task(entry, partition_aware).map(Self)
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TaskPage(&self.0).serialize(serializer)
    }
}

/// `/slaves?slave_id=…`.
pub struct SlavesPage<'a> {
    /// What there is.
    pub snapshot: &'a Snapshot,
    /// Only this one.
    pub only: Option<&'a str>,
}

impl Serialize for SlavesPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_agents(&mut map, self.snapshot, self.only, true)?;
        map.end()
    }
}

/// `/frameworks?framework_id=…`.
pub struct FrameworksPage<'a> {
    /// What there is.
    pub snapshot: &'a Snapshot,
    /// Only this one.
    pub only: Option<&'a str>,
}

impl Serialize for FrameworksPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_frameworks(&mut map, self.snapshot, self.only)?;
        map.serialize_entry::<_, [(); 0]>("unregistered_frameworks", &[])?;
        map.end()
    }
}

/// What `/tasks` is asked for.
#[derive(Clone, Debug)]
pub struct TasksQuery {
    /// At most so many.
    pub limit: usize,
    /// After so many others.
    pub offset: usize,
    /// Oldest first rather than newest.
    pub ascending: bool,
    /// Only those of this framework.
    pub framework: Option<String>,
    /// Only the one (of each framework) with this id.
    pub task: Option<String>,
}

/// `/tasks`: of all states, in the order in which the master came to know them.
pub struct TasksPage<'a> {
    /// What there is.
    pub snapshot: &'a Snapshot,
    /// What is wanted of it.
    pub query: &'a TasksQuery,
}

impl Serialize for TasksPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let query = self.query;
        let mut found: Vec<(&TaskEntry, bool)> = Vec::new();
        for (record, _) in &self.snapshot.frameworks {
            let id = framework_id(record);
            if query.framework.as_deref().is_some_and(|only| only != id) {
                continue;
            }
            let aware = view::is_partition_aware(&record.framework);
            found.extend(self.snapshot.tasks_of(id).iter().map(|task| (task, aware)));
        }
        found.sort_unstable_by_key(|(task, _)| task.number);
        if !query.ascending {
            found.reverse();
        }
        let tasks = found
            .iter()
            .filter_map(|(task, aware)| Shown::of(task, *aware))
            .filter(|shown| query.task.as_deref().is_none_or(|only| only == shown.0.task_id.value))
            .skip(query.offset)
            .take(query.limit);
        let mut map = serializer.serialize_map(None)?;
        let tasks: Vec<_> = tasks.collect();
        map.serialize_entry("tasks", &tasks)?;
        map.end()
    }
}

/// `/state-summary`.
pub struct SummaryPage<'a> {
    /// The master's.
    pub hostname: &'a str,
    /// What there is.
    pub snapshot: &'a Snapshot,
}

/// How many tasks are in which state, and on the other side of them: frameworks of an
/// agent, agents of a framework.
#[derive(Default)]
struct Counts<'a> {
    states: [u64; COUNTED.len()],
    others: BTreeSet<&'a str>,
}

impl Counts<'_> {
    fn add(&mut self, state: v1::TaskState) {
        if let Some(at) = COUNTED.iter().position(|counted| *counted == state) {
            self.states[at] += 1;
        }
    }

    fn write<M: SerializeMap>(&self, map: &mut M, others: &'static str) -> Result<(), M::Error> {
        for (state, count) in COUNTED.iter().zip(self.states) {
            map.serialize_entry(state.as_str_name(), &count)?;
        }
        map.serialize_entry(others, &self.others)
    }
}

struct Counted<'a, P>(&'a P, &'a Counts<'a>);

impl Serialize for Counted<'_, AgentPage<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.write(&mut map)?;
        self.1.write(&mut map, "framework_ids")?;
        map.end()
    }
}

impl Serialize for Counted<'_, FrameworkPage<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.write_summary(&mut map)?;
        self.1.write(&mut map, "slave_ids")?;
        map.end()
    }
}

impl Serialize for SummaryPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let snapshot = self.snapshot;
        let mut of_agent: HashMap<&str, Counts<'_>> = HashMap::new();
        let mut of_framework: HashMap<&str, Counts<'_>> = HashMap::new();
        for (record, _) in &snapshot.frameworks {
            let (id, aware) = (framework_id(record), view::is_partition_aware(&record.framework));
            for task in snapshot.tasks_of(id) {
                let state = view::shown_state(task.state, aware);
                let agent = of_agent.entry(task.agent.as_str()).or_default();
                agent.add(state);
                agent.others.insert(id);
                let framework = of_framework.entry(id).or_default();
                framework.add(state);
                framework.others.insert(task.agent.as_str());
            }
        }
        let none = Counts::default();
        let agents: Vec<_> = snapshot
            .agents
            .iter()
            .filter(|(agent, _)| view::is_registered(agent.rest()))
            .map(|(agent, sums)| AgentPage { agent, sums, full: false })
            .collect();
        let frameworks: Vec<_> = snapshot
            .frameworks
            .iter()
            .filter(|(record, _)| view::is_live(record))
            .map(|(record, sums)| FrameworkPage { record, sums, snapshot })
            .collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("hostname", self.hostname)?;
        map.serialize_entry(
            "slaves",
            &List(|| {
                agents
                    .iter()
                    .map(|page| (page, of_agent.get(id_of(page.agent)).unwrap_or(&none)))
                    .map(|(page, counts)| Counted(page, counts))
            }),
        )?;
        map.serialize_entry(
            "frameworks",
            &List(|| {
                frameworks
                    .iter()
                    .map(|page| {
                        (page, of_framework.get(framework_id(page.record)).unwrap_or(&none))
                    })
                    .map(|(page, counts)| Counted(page, counts))
            }),
        )?;
        map.end()
    }
}
