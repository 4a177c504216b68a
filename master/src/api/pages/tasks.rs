//! `/tasks`, and those of `/frameworks`.

use mezz_proto::{pages::TaskPage, v1};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::state::List;
use crate::shell::{read_state::TaskEntry, snapshot::Snapshot, view};

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
        let wanted =
            |task: &&TaskEntry| query.task.as_deref().is_none_or(|only| only == task.id.as_str());
        let mut found: Vec<(&TaskEntry, bool)> = Vec::new();
        for (record, _) in &self.snapshot.frameworks {
            let id = view::framework_id(&record.framework);
            if query.framework.as_deref().is_some_and(|only| only != id) {
                continue;
            }
            let aware = view::is_partition_aware(&record.framework);
            found
                .extend(self.snapshot.tasks_of(id).iter().filter(wanted).map(|task| (task, aware)));
        }
        found.sort_unstable_by_key(|(task, _)| task.number);
        if !query.ascending {
            found.reverse();
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(
            "tasks",
            &List(|| {
                found
                    .iter()
                    .skip(query.offset)
                    .take(query.limit)
                    .filter_map(|(task, aware)| Shown::of(task, *aware))
            }),
        )?;
        map.end()
    }
}

/// A task that its framework may still hear of.
pub(super) fn is_live(task: &TaskEntry) -> bool {
    !task.is_completed() && !is_unreachable(task)
}

pub(super) fn is_unreachable(task: &TaskEntry) -> bool {
    task.state == v1::TaskState::TaskUnreachable
}

/// A task, decoded when it is its turn to be written.
pub(super) struct Shown(v1::Task);

impl Shown {
    pub(super) fn of(entry: &TaskEntry, partition_aware: bool) -> Option<Self> {
        view::task(entry, partition_aware).map(Self)
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TaskPage(&self.0).serialize(serializer)
    }
}
