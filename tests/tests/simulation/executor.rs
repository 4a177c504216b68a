//! Custom executors: programs in containers that run tasks themselves. They outlive their
//! agent as all containers do, and come back to the next one with what it has not heard.

use std::{collections::BTreeMap, time::Duration};

use mezz_agent::core::{ConnectionId, Event, Proof};
use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId, TaskId},
    resources::Resources,
    v1::{
        self, TaskState, TaskStatus,
        executor::{Call, call, event},
        task_status::Source,
    },
};
use rand::RngExt as _;

use crate::{
    machine,
    world::{Node, What, World},
};

/// From one to the other, within the machine: in order.
const LINK: Duration = Duration::from_millis(1);

/// What is next for an executor.
#[derive(Clone, Debug)]
pub enum Step {
    /// It looks for its agent.
    Connect,
    Hears(ConnectionId, Box<v1::executor::Event>),
    Closed(ConnectionId),
    Ends(TaskId, TaskState),
}

/// An executor's program.
#[derive(Clone, Debug)]
pub struct Executor {
    framework: FrameworkId,
    id: ExecutorId,
    token: String,
    connection: Option<ConnectionId>,
    /// Tasks that have not ended, and what they use.
    pub live: BTreeMap<TaskId, Resources>,
    /// Tasks of which no update was acknowledged.
    unheard: BTreeMap<TaskId, v1::TaskInfo>,
    /// Without acknowledgement, oldest first.
    updates: Vec<TaskStatus>,
}

impl Executor {
    /// What such an environment starts, if that is an executor.
    pub fn of(framework: &FrameworkId, environment: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            framework: framework.clone(),
            id: ExecutorId::new(environment.get("MESOS_EXECUTOR_ID")?),
            token: environment.get("MEZZ_EXECUTOR_TOKEN")?.clone(),
            connection: None,
            live: BTreeMap::new(),
            unheard: BTreeMap::new(),
            updates: Vec::new(),
        })
    }

    fn call(&self, kind: call::Type) -> Call {
        Call {
            framework_id: (&self.framework).into(),
            executor_id: (&self.id).into(),
            r#type: Some(kind as i32),
            ..Default::default()
        }
    }
}

impl World {
    /// The program of a container, if it is an executor that runs.
    fn executor(&mut self, n: usize, id: &ContainerId) -> Option<&mut Executor> {
        let container = self.agents[n].machine.containers.get_mut(id)?;
        container.executor.as_mut().filter(|_| container.state == machine::State::Running)
    }

    fn executor_later(&mut self, n: usize, after: Duration, id: &ContainerId, step: Step) {
        self.machine_later(n, after, id, machine::Step::Executor(step));
    }

    /// Its program has begun.
    pub fn executor_begins(&mut self, n: usize, id: &ContainerId) {
        // Some never come.
        if self.rng.random_ratio(29, 30) {
            let wait = Duration::from_millis(self.rng.random_range(1..300));
            self.executor_later(n, wait, id, Step::Connect);
        }
    }

    /// Its program has ended; its agent finds that the connection is closed.
    pub fn executor_ended(&mut self, n: usize, executor: &Executor) {
        if let Some(connection) = executor.connection {
            let event = Event::ExecutorDisconnected { connection };
            self.later(LINK, Some(Node::Agent(n)), What::Container(event));
        }
    }

    /// The agent is gone, and its connections with it.
    pub fn executors_lose_agent(&mut self, n: usize) {
        let containers = &self.agents[n].machine.containers;
        let connected = containers.iter().filter_map(|(id, container)| {
            Some((id.clone(), container.executor.as_ref()?.connection?))
        });
        for (id, connection) in connected.collect::<Vec<_>>() {
            self.executor_later(n, LINK, &id, Step::Closed(connection));
        }
    }

    /// The agent says something to an executor, or, without a word, closes its connection.
    pub fn tell_executor(
        &mut self,
        n: usize,
        connection: ConnectionId,
        event: Option<Box<v1::executor::Event>>,
    ) {
        let mut containers = self.agents[n].machine.containers.iter();
        let has = |container: &machine::Container| {
            container.executor.as_ref().is_some_and(|e| e.connection == Some(connection))
        };
        let Some((id, _)) = containers.find(|(_, container)| has(container)) else { return };
        let id = id.clone();
        let step = match event {
            Some(event) => Step::Hears(connection, event),
            None => Step::Closed(connection),
        };
        self.executor_later(n, LINK, &id, step);
    }

    pub fn executor_step(&mut self, n: usize, id: &ContainerId, step: Step) {
        let up = self.status(Node::Agent(n)).up;
        let pause = Duration::from_millis(self.rng.random_range(50..1_200));
        let next = &mut self.agents[n].machine.connections;
        *next += 1;
        let next = ConnectionId(*next);
        let Some(executor) = self.executor(n, id) else { return };
        match step {
            Step::Connect if executor.connection.is_some() => {}
            Step::Connect if !up => self.executor_later(n, pause, id, Step::Connect),
            Step::Connect => {
                executor.connection = Some(next);
                let subscribe = call::Subscribe {
                    unacknowledged_tasks: executor.unheard.values().cloned().collect(),
                    unacknowledged_updates: executor
                        .updates
                        .iter()
                        .map(|status| call::Update { status: status.clone() })
                        .collect(),
                };
                let call = executor.call(call::Type::Subscribe);
                let name = executor.id.clone();
                self.say(|| format!("{name} on agent{n}: subscribes"));
                self.executor_says(n, id, Call { subscribe: Some(subscribe), ..call });
            }
            Step::Closed(connection) => {
                if executor.connection == Some(connection) {
                    executor.connection = None;
                    self.executor_later(n, pause, id, Step::Connect);
                }
            }
            Step::Hears(connection, event) => {
                if executor.connection == Some(connection) {
                    self.executor_hears(n, id, *event);
                }
            }
            Step::Ends(task, state) => {
                if executor.live.remove(&task).is_some() {
                    self.executor_tells(n, id, &task, state);
                }
            }
        }
    }

    fn executor_hears(&mut self, n: usize, id: &ContainerId, event: v1::executor::Event) {
        let soon = Duration::from_millis(self.rng.random_range(1..2_000));
        let lasts = Duration::from_millis(self.rng.random_range(5..60_000));
        let ends = !self.books.launching || self.rng.random_ratio(3, 4);
        let failed = self.rng.random_ratio(1, 5);
        let Some(executor) = self.executor(n, id) else { return };
        match event.r#type() {
            event::Type::Launch => {
                let Some(info) = event.launch.map(|launch| launch.task) else { return };
                let task = TaskId::from(&info.task_id);
                let uses = Resources::from_proto(&info.resources).unwrap_or_default();
                executor.live.insert(task.clone(), uses);
                executor.unheard.insert(task.clone(), info);
                let framework = executor.framework.clone();
                self.check_start(n, &framework, &task);
                self.check_held(n, id);
                self.executor_tells(n, id, &task, TaskState::TaskRunning);
                if ends {
                    let state =
                        if failed { TaskState::TaskFailed } else { TaskState::TaskFinished };
                    self.executor_later(n, lasts, id, Step::Ends(task, state));
                }
            }
            event::Type::Kill => {
                let Some(kill) = event.kill else { return };
                let task = TaskId::from(&kill.task_id);
                self.executor_later(n, soon, id, Step::Ends(task, TaskState::TaskKilled));
            }
            event::Type::Acknowledged => {
                let Some(acknowledged) = event.acknowledged else { return };
                executor.updates.retain(|status| status.uuid() != acknowledged.uuid);
                executor.unheard.remove(&TaskId::from(&acknowledged.task_id));
            }
            event::Type::Shutdown => {
                // Some end their tasks before themselves, and some do not.
                let live: Vec<TaskId> = executor.live.keys().filter(|_| ends).cloned().collect();
                for task in live {
                    self.executor_later(n, LINK, id, Step::Ends(task, TaskState::TaskKilled));
                }
                self.machine_later(n, soon, id, machine::Step::Exit(0));
            }
            _ => {}
        }
    }

    /// An update, which is sent until it is acknowledged.
    fn executor_tells(&mut self, n: usize, id: &ContainerId, task: &TaskId, state: TaskState) {
        let uuid: [u8; 16] = self.rng.random();
        let Some(executor) = self.executor(n, id) else { return };
        let status = TaskStatus {
            task_id: task.into(),
            state: state as i32,
            source: Some(Source::Executor as i32),
            executor_id: Some((&executor.id).into()),
            uuid: Some(uuid.to_vec()),
            ..Default::default()
        };
        executor.updates.push(status.clone());
        let call = executor.call(call::Type::Update);
        self.executor_says(n, id, Call { update: Some(call::Update { status }), ..call });
    }

    /// If it is connected; the next agent hears of it otherwise.
    fn executor_says(&mut self, n: usize, id: &ContainerId, call: Call) {
        let Some(executor) = self.executor(n, id) else { return };
        let Some(connection) = executor.connection else { return };
        let (proof, call) = (Proof::token(&executor.token), Box::new(call));
        let event = Event::ExecutorCall { connection, proof, call };
        self.later(LINK, Some(Node::Agent(n)), What::Container(event));
    }
}
