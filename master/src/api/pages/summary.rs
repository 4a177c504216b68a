//! `/state-summary`.

use std::collections::{BTreeSet, HashMap};

use mezz_proto::v1;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{agents::AgentPage, frameworks::FrameworkPage, state::List};
use crate::{
    api::server::Identity,
    core::master_info,
    shell::{snapshot::Snapshot, view},
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

/// `/state-summary`.
pub struct SummaryPage<'a> {
    /// Who answers.
    pub identity: &'a Identity,
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
        // Of those that have ended neither table tells.
        for (record, _) in snapshot.frameworks.iter().filter(|(f, _)| view::is_live(f)) {
            let (id, aware) = (
                view::framework_id(&record.framework),
                view::is_partition_aware(&record.framework),
            );
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
        let info = master_info(&self.identity.id, &self.identity.address);
        map.serialize_entry("hostname", info.hostname())?;
        if let Some(cluster) = &self.identity.cluster {
            map.serialize_entry("cluster", cluster)?;
        }
        map.serialize_entry(
            "slaves",
            &List(|| {
                agents
                    .iter()
                    .map(|page| {
                        (
                            page,
                            of_agent.get(view::agent_id(&page.agent.rest().agent)).unwrap_or(&none),
                        )
                    })
                    .map(|(page, counts)| Counted(page, counts))
            }),
        )?;
        map.serialize_entry(
            "frameworks",
            &List(|| {
                frameworks
                    .iter()
                    .map(|page| {
                        (
                            page,
                            of_framework
                                .get(view::framework_id(&page.record.framework))
                                .unwrap_or(&none),
                        )
                    })
                    .map(|(page, counts)| Counted(page, counts))
            }),
        )?;
        map.end()
    }
}
