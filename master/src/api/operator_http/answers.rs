//! Answers that are made of a snapshot.

use mezz_proto::{
    ids::FrameworkId,
    media::Format,
    pages::{Proto, Protos},
    v1::{
        self,
        master::{Response as Answer, response},
    },
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    api::pages::roles,
    shell::{snapshot::Snapshot, view},
};

/// Which answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    State,
    Agents,
    Frameworks,
    Executors,
    Tasks,
    Roles,
}

/// The answer, encoded.
pub(super) fn written(wanted: Wanted, snapshot: &Snapshot, form: Format) -> Vec<u8> {
    let answer = answer(wanted, snapshot);
    match form {
        Format::Protobuf => form.encode(&answer),
        // Keys are text and numbers finite or text: it does not fail.
        Format::Json => serde_json::to_vec(&WithLists(&answer)).unwrap_or_default(),
    }
}

fn answer(wanted: Wanted, snapshot: &Snapshot) -> Answer {
    let mut out = Answer::default();
    match wanted {
        Wanted::State => {
            out.set_type(response::Type::GetState);
            out.get_state = Some(state(snapshot));
        }
        Wanted::Agents => {
            out.set_type(response::Type::GetAgents);
            out.get_agents = Some(agents(snapshot));
        }
        Wanted::Frameworks => {
            out.set_type(response::Type::GetFrameworks);
            out.get_frameworks = Some(frameworks(snapshot));
        }
        Wanted::Executors => {
            out.set_type(response::Type::GetExecutors);
            out.get_executors = Some(executors(snapshot));
        }
        Wanted::Tasks => {
            out.set_type(response::Type::GetTasks);
            out.get_tasks = Some(tasks(snapshot));
        }
        Wanted::Roles => {
            out.set_type(response::Type::GetRoles);
            let roles = roles(snapshot).iter().map(|(name, role)| role.to_proto(name)).collect();
            out.get_roles = Some(response::GetRoles { roles });
        }
    }
    out
}

/// Everything.
pub(super) fn state(snapshot: &Snapshot) -> response::GetState {
    response::GetState {
        get_tasks: Some(tasks(snapshot)),
        get_executors: Some(executors(snapshot)),
        get_frameworks: Some(frameworks(snapshot)),
        get_agents: Some(agents(snapshot)),
    }
}

fn agents(snapshot: &Snapshot) -> response::GetAgents {
    use mezz_proto::mezz::v1::agent_state::Status;
    let mut out = response::GetAgents::default();
    for (agent, sums) in &snapshot.agents {
        if view::is_registered(agent.rest()) {
            out.agents.push(view::agent(agent, sums));
        } else if agent.rest().status() == Status::Recovering {
            out.recovered_agents.push(view::agent_info(agent));
        }
    }
    out
}

fn frameworks(snapshot: &Snapshot) -> response::GetFrameworks {
    let mut out = response::GetFrameworks::default();
    for (record, sums) in &snapshot.frameworks {
        let offers = snapshot.offers_of(view::framework_id(&record.framework));
        let framework = view::framework(record, sums, offers.iter().map(|o| &o.offer));
        let list =
            if view::is_live(record) { &mut out.frameworks } else { &mut out.completed_frameworks };
        list.push(framework);
    }
    out
}

fn executors(snapshot: &Snapshot) -> response::GetExecutors {
    let mut all: Vec<(&FrameworkId, _)> = snapshot.executors.iter().collect();
    all.sort_by_key(|(id, _)| id.as_str());
    let executors = all
        .into_iter()
        .flat_map(|(_, executors)| executors)
        .filter_map(|(key, entry)| view::executor(key, entry))
        .collect();
    response::GetExecutors { executors, ..Default::default() }
}

fn tasks(snapshot: &Snapshot) -> response::GetTasks {
    let mut out = response::GetTasks::default();
    for (record, _) in &snapshot.frameworks {
        let aware = view::is_partition_aware(&record.framework);
        for entry in snapshot.tasks_of(view::framework_id(&record.framework)) {
            let Some(task) = view::task(entry, aware) else { continue };
            let list = if entry.is_completed() {
                &mut out.completed_tasks
            } else if entry.state == v1::TaskState::TaskUnreachable {
                &mut out.unreachable_tasks
            } else {
                &mut out.tasks
            };
            list.push(task);
        }
    }
    out
}

/// In these answers Mesos writes the lists that are empty, too.
struct WithLists<'a>(&'a Answer);

impl Serialize for WithLists<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let answer = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", answer.r#type().as_str_name())?;
        if let Some(state) = &answer.get_state {
            map.serialize_entry("get_state", &State(state))?;
        }
        if let Some(agents) = &answer.get_agents {
            map.serialize_entry("get_agents", &Agents(agents))?;
        }
        if let Some(frameworks) = &answer.get_frameworks {
            map.serialize_entry("get_frameworks", &Frameworks(frameworks))?;
        }
        if let Some(executors) = &answer.get_executors {
            map.serialize_entry("get_executors", &Executors(executors))?;
        }
        if let Some(tasks) = &answer.get_tasks {
            map.serialize_entry("get_tasks", &Tasks(tasks))?;
        }
        if let Some(roles) = &answer.get_roles {
            map.serialize_entry("get_roles", &Proto(roles))?;
        }
        map.end()
    }
}

struct State<'a>(&'a response::GetState);

impl Serialize for State<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("get_tasks", &self.0.get_tasks.as_ref().map(Tasks))?;
        map.serialize_entry("get_executors", &self.0.get_executors.as_ref().map(Executors))?;
        map.serialize_entry("get_frameworks", &self.0.get_frameworks.as_ref().map(Frameworks))?;
        map.serialize_entry("get_agents", &self.0.get_agents.as_ref().map(Agents))?;
        map.end()
    }
}

struct Agents<'a>(&'a response::GetAgents);

impl Serialize for Agents<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("agents", &Protos(&self.0.agents))?;
        map.serialize_entry("recovered_agents", &Protos(&self.0.recovered_agents))?;
        map.end()
    }
}

struct Frameworks<'a>(&'a response::GetFrameworks);

impl Serialize for Frameworks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("frameworks", &Protos(&self.0.frameworks))?;
        map.serialize_entry("completed_frameworks", &Protos(&self.0.completed_frameworks))?;
        map.end()
    }
}

struct Executors<'a>(&'a response::GetExecutors);

impl Serialize for Executors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("executors", &Protos(&self.0.executors))?;
        map.end()
    }
}

struct Tasks<'a>(&'a response::GetTasks);

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tasks", &Protos(&self.0.tasks))?;
        map.serialize_entry("unreachable_tasks", &Protos(&self.0.unreachable_tasks))?;
        map.serialize_entry("completed_tasks", &Protos(&self.0.completed_tasks))?;
        map.end()
    }
}
