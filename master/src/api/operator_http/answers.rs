//! Answers that are made of a snapshot: message by message, for decoded all together they
//! take many times the room of the answer.

use mezz_proto::{
    media::Format,
    mezz::v1::agent_state::Status,
    pages::Proto,
    v1::{
        self,
        master::{Event, Response as Answer, event, response},
    },
};
use prost::{
    Message, Name,
    encoding::{WireType, encode_key, encode_varint},
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    api::pages::{List, roles},
    shell::{limits::SUBSCRIBER_HEARTBEAT, read_state::TaskEntry, snapshot::Snapshot, view},
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

impl Wanted {
    /// The parts of GET_STATE, in its order.
    const PARTS: [Self; 4] = [Self::Tasks, Self::Executors, Self::Frameworks, Self::Agents];

    fn kind(self) -> response::Type {
        match self {
            Self::State => response::Type::GetState,
            Self::Agents => response::Type::GetAgents,
            Self::Frameworks => response::Type::GetFrameworks,
            Self::Executors => response::Type::GetExecutors,
            Self::Tasks => response::Type::GetTasks,
            Self::Roles => response::Type::GetRoles,
        }
    }

    /// Its field in JSON.
    fn field(self) -> &'static str {
        match self {
            Self::State => "get_state",
            Self::Agents => "get_agents",
            Self::Frameworks => "get_frameworks",
            Self::Executors => "get_executors",
            Self::Tasks => "get_tasks",
            Self::Roles => "get_roles",
        }
    }

    /// Its field's number in master.proto, in `Response`.
    fn number(self) -> u32 {
        match self {
            Self::State => 9,
            Self::Agents => 10,
            Self::Frameworks => 11,
            Self::Executors => 12,
            Self::Tasks => 13,
            Self::Roles => 14,
        }
    }

    /// And in `Response.GetState`.
    fn number_in_state(self) -> u32 {
        match self {
            Self::Tasks => 1,
            Self::Executors => 2,
            Self::Frameworks => 3,
            _ => 4,
        }
    }
}

/// The answer, encoded.
pub(super) fn written(wanted: Wanted, snapshot: &Snapshot, form: Format) -> Vec<u8> {
    match form {
        Format::Protobuf => {
            let kind = Some(wanted.kind() as i32);
            let mut out = Answer { r#type: kind, ..Default::default() }.encode_to_vec();
            nest(wanted.number(), &encoded(wanted, snapshot), &mut out);
            out
        }
        // Keys are text and numbers finite or text: it does not fail.
        Format::Json => serde_json::to_vec(&Written { wanted, snapshot }).unwrap_or_default(),
    }
}

/// The first event of a stream, encoded.
pub(super) fn subscribed(snapshot: &Snapshot, form: Format) -> Vec<u8> {
    let heartbeat = SUBSCRIBER_HEARTBEAT.as_secs_f64();
    let kind = event::Type::Subscribed;
    match form {
        Format::Protobuf => {
            let rest = event::Subscribed {
                heartbeat_interval_seconds: Some(heartbeat),
                ..Default::default()
            };
            let mut inner = Vec::new();
            // Numbers of master.proto: `Subscribed.get_state`, `Event.subscribed`.
            nest(1, &encoded(Wanted::State, snapshot), &mut inner);
            inner.extend(rest.encode_to_vec());
            let mut out = Event { r#type: Some(kind as i32), ..Default::default() }.encode_to_vec();
            nest(2, &inner, &mut out);
            out
        }
        Format::Json => {
            #[derive(Serialize)]
            struct Subscribed<'a> {
                get_state: State<'a>,
                heartbeat_interval_seconds: f64,
            }
            #[derive(Serialize)]
            struct First<'a> {
                r#type: &'static str,
                subscribed: Subscribed<'a>,
            }
            let get_state = State { snapshot, with_empty: false };
            let subscribed = Subscribed { get_state, heartbeat_interval_seconds: heartbeat };
            let first = First { r#type: kind.as_str_name(), subscribed };
            serde_json::to_vec(&first).unwrap_or_default()
        }
    }
}

fn nest(number: u32, message: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// Messages that have a part each: one after the other they are the whole.
fn joined<M: Message>(parts: impl Iterator<Item = M>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&part.encode_to_vec());
    }
    out
}

fn encoded(wanted: Wanted, snapshot: &Snapshot) -> Vec<u8> {
    use response::{GetAgents, GetExecutors, GetFrameworks, GetTasks};
    match wanted {
        Wanted::State => {
            let mut out = Vec::new();
            for part in Wanted::PARTS {
                nest(part.number_in_state(), &encoded(part, snapshot), &mut out);
            }
            out
        }
        Wanted::Agents => {
            let agents = agents(snapshot);
            let agents = agents.map(|a| GetAgents { agents: vec![a], ..Default::default() });
            let others = recovered(snapshot)
                .map(|a| GetAgents { recovered_agents: vec![a], ..Default::default() });
            joined(agents.chain(others))
        }
        Wanted::Frameworks => {
            let live = frameworks(snapshot, true)
                .map(|f| GetFrameworks { frameworks: vec![f], ..Default::default() });
            let ended = frameworks(snapshot, false)
                .map(|f| GetFrameworks { completed_frameworks: vec![f], ..Default::default() });
            joined(live.chain(ended))
        }
        Wanted::Executors => joined(
            executors(snapshot).map(|e| GetExecutors { executors: vec![e], ..Default::default() }),
        ),
        Wanted::Tasks => {
            let live = tasks(snapshot, TaskEntry::is_live)
                .map(|t| GetTasks { tasks: vec![t], ..Default::default() });
            let completed = tasks(snapshot, TaskEntry::is_completed)
                .map(|t| GetTasks { completed_tasks: vec![t], ..Default::default() });
            let unreachable = tasks(snapshot, TaskEntry::is_unreachable)
                .map(|t| GetTasks { unreachable_tasks: vec![t], ..Default::default() });
            joined(live.chain(completed).chain(unreachable))
        }
        Wanted::Roles => get_roles(snapshot).encode_to_vec(),
    }
}

fn agents(snapshot: &Snapshot) -> impl Iterator<Item = response::get_agents::Agent> {
    let registered = snapshot.agents.iter().filter(|(a, _)| view::is_registered(a.rest()));
    registered.map(|(agent, sums)| view::agent(agent, sums))
}

fn recovered(snapshot: &Snapshot) -> impl Iterator<Item = v1::AgentInfo> {
    let recovering =
        snapshot.agents.iter().filter(|(a, _)| a.rest().status() == Status::Recovering);
    recovering.map(|(agent, _)| view::agent_info(agent))
}

fn frameworks(
    snapshot: &Snapshot,
    live: bool,
) -> impl Iterator<Item = response::get_frameworks::Framework> {
    let wanted = snapshot.frameworks.iter().filter(move |(f, _)| view::is_live(f) == live);
    wanted.map(|(record, sums)| {
        let offers = snapshot.offers_of(view::framework_id(&record.framework));
        view::framework(record, sums, offers.iter().map(|o| &o.offer))
    })
}

fn executors(snapshot: &Snapshot) -> impl Iterator<Item = response::get_executors::Executor> {
    let mut all: Vec<_> = snapshot.executors.iter().collect();
    all.sort_by_key(|(id, _)| id.as_str());
    let all = all.into_iter().flat_map(|(_, executors)| executors);
    all.filter_map(|(key, entry)| view::executor(key, entry))
}

fn tasks(snapshot: &Snapshot, wanted: fn(&TaskEntry) -> bool) -> impl Iterator<Item = v1::Task> {
    snapshot.frameworks.iter().flat_map(move |(record, _)| {
        let aware = view::is_partition_aware(&record.framework);
        let tasks = snapshot.tasks_of(view::framework_id(&record.framework));
        let tasks = tasks.iter().filter(move |task| wanted(task));
        tasks.filter_map(move |task| view::task(task, aware))
    })
}

fn get_roles(snapshot: &Snapshot) -> response::GetRoles {
    let roles = roles(snapshot).iter().map(|(name, role)| role.to_proto(name)).collect();
    response::GetRoles { roles }
}

/// An answer in JSON.
struct Written<'a> {
    wanted: Wanted,
    snapshot: &'a Snapshot,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { wanted, snapshot } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", wanted.kind().as_str_name())?;
        match wanted {
            Wanted::State => {
                map.serialize_entry(wanted.field(), &State { snapshot, with_empty: true })?;
            }
            Wanted::Roles => map.serialize_entry(wanted.field(), &Proto(&get_roles(snapshot)))?,
            part => {
                map.serialize_entry(part.field(), &Part { part, snapshot, with_empty: true })?;
            }
        }
        map.end()
    }
}

struct State<'a> {
    snapshot: &'a Snapshot,
    with_empty: bool,
}

impl Serialize for State<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { snapshot, with_empty } = *self;
        serializer.collect_map(
            Wanted::PARTS.map(|part| (part.field(), Part { part, snapshot, with_empty })),
        )
    }
}

/// The lists of one part. In answers Mesos writes those that are empty, too; in events it
/// does not.
struct Part<'a> {
    part: Wanted,
    snapshot: &'a Snapshot,
    with_empty: bool,
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { snapshot, .. } = *self;
        let mut map = serializer.serialize_map(None)?;
        match self.part {
            Wanted::Agents => {
                self.list(&mut map, "agents", || agents(snapshot))?;
                self.list(&mut map, "recovered_agents", || recovered(snapshot))?;
            }
            Wanted::Frameworks => {
                self.list(&mut map, "frameworks", || frameworks(snapshot, true))?;
                self.list(&mut map, "completed_frameworks", || frameworks(snapshot, false))?;
            }
            Wanted::Executors => self.list(&mut map, "executors", || executors(snapshot))?,
            _ => {
                let of = |wanted: fn(&TaskEntry) -> bool| move || tasks(snapshot, wanted);
                self.list(&mut map, "tasks", of(TaskEntry::is_live))?;
                self.list(&mut map, "unreachable_tasks", of(TaskEntry::is_unreachable))?;
                self.list(&mut map, "completed_tasks", of(TaskEntry::is_completed))?;
            }
        }
        map.end()
    }
}

impl Part<'_> {
    fn list<S: SerializeMap, I: Iterator<Item: Message + Name>>(
        &self,
        map: &mut S,
        name: &'static str,
        list: impl Fn() -> I,
    ) -> Result<(), S::Error> {
        if !self.with_empty && list().next().is_none() {
            return Ok(());
        }
        map.serialize_entry(name, &List(|| list().map(Owned)))
    }
}

/// A message that is dropped once it is written.
struct Owned<M>(M);

impl<M: Message + Name> Serialize for Owned<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Proto(&self.0).serialize(serializer)
    }
}
