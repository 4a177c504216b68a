//! An agent that pretends to run tasks. Pure: it is told of messages and of time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use mezz_master::core::ConnectionId;
use mezz_proto::{
    LINK_PROTOCOL,
    mezz::v1::{self as mezz, agent_message::Message, master_message},
    resources::{Dialect, Resources},
    time::Time,
    v1::{
        self, TaskState,
        agent_info::{Capability, capability},
        task_status::{Reason, Source},
    },
};

use super::{AgentTask, Behaviour, world::Script};

/// An update that is not acknowledged is sent again after this (behaviour rule
/// 35, without its doubling).
const RESEND: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct FakeAgent {
    pub hostname: String,
    resources: Resources,
    attributes: Vec<v1::Attribute>,
    /// Makes its uuids differ from those of others.
    number: u64,
    uuids: u64,
    id: Option<v1::AgentId>,
    pub link: Option<ConnectionId>,
    pub partitioned: bool,
    /// When to look for the master again; only without a link.
    pub reconnect: Option<Time>,
    frameworks: BTreeMap<String, v1::FrameworkInfo>,
    /// By framework and executor id.
    executors: BTreeMap<(String, String), v1::ExecutorInfo>,
    /// By framework and task id.
    tasks: BTreeMap<(String, String), FakeTask>,
}

#[derive(Debug)]
struct FakeTask {
    framework: v1::FrameworkId,
    info: v1::TaskInfo,
    /// The newest.
    state: TaskState,
    starts: Option<Time>,
    ends: Option<(Time, TaskState, String)>,
    unacknowledged: VecDeque<v1::TaskStatus>,
    resend: Option<Time>,
}

impl FakeAgent {
    pub fn new(
        number: u64,
        hostname: String,
        resources: Resources,
        attributes: Vec<v1::Attribute>,
        now: Time,
    ) -> Self {
        Self {
            hostname,
            resources,
            attributes,
            number,
            uuids: 0,
            id: None,
            link: None,
            partitioned: false,
            reconnect: Some(now),
            frameworks: BTreeMap::new(),
            executors: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        let tasks = self.tasks.values().flat_map(|t| {
            [t.starts, t.ends.as_ref().map(|e| e.0), t.resend.filter(|_| self.link.is_some())]
        });
        tasks.chain([self.reconnect]).flatten().min()
    }

    /// The first message on a new link.
    pub fn hello(&self) -> Message {
        let description = self.description();
        if self.id.is_none() {
            return Message::Register(mezz::Register { description });
        }
        Message::Reregister(mezz::Reregister {
            description,
            tasks: self.tasks.values().map(|t| t.report(self.id.clone())).collect(),
            frameworks: self.frameworks.values().cloned().collect(),
            executors: self.executors.values().cloned().collect(),
            attempt: None,
        })
    }

    pub fn on_message(
        &mut self,
        now: Time,
        message: master_message::Message,
        script: &mut Script,
        out: &mut Vec<Message>,
    ) {
        use master_message::Message as M;
        match message {
            M::Registered(registered) => {
                self.id = Some(registered.agent_id);
                for framework in registered.completed_frameworks {
                    self.forget_framework(&framework.value);
                }
                for task in self.tasks.values_mut() {
                    task.resend = (!task.unacknowledged.is_empty()).then_some(now);
                }
                self.on_deadline(now, out);
                if let Some(drain) = registered.drain {
                    self.drain(now, drain, out);
                }
            }
            M::Ping(ping) => out.push(Message::Pong(mezz::Pong { number: ping.number })),
            M::RunTasks(run) => self.run_tasks(now, run, script, out),
            M::KillTask(kill) => {
                let key = (kill.framework_id.value, kill.task_id.value);
                self.end_task(now, &key, TaskState::TaskKilled, "killed", None, out);
            }
            M::Acknowledgement(ack) => self.acknowledged(now, ack, out),
            M::ShutdownExecutor(shutdown) => {
                self.shutdown_executor(now, shutdown, out);
            }
            M::ShutdownFramework(shutdown) => self.forget_framework(&shutdown.framework_id.value),
            M::UpdateFramework(update) => {
                if let Some(id) = &update.framework.id {
                    self.frameworks.insert(id.value.clone(), update.framework);
                }
            }
            M::Drain(drain) => self.drain(now, drain, out),
            // No executor runs here that could read it. A refusal ends the link. A
            // drain kills what runs; that nothing comes later is the master's part.
            M::ExecutorMessage(_) | M::Refused(_) | M::Reactivate(_) => {}
        }
    }

    /// All ends at once here, and so is this order carried out at once.
    fn drain(&mut self, now: Time, drain: mezz::Drain, out: &mut Vec<Message>) {
        for key in self.tasks.keys().cloned().collect::<Vec<_>>() {
            self.end_task(now, &key, TaskState::TaskKilled, "drained", None, out);
        }
        for (framework_id, executor_id) in std::mem::take(&mut self.executors).into_keys() {
            out.push(Message::ExecutorTerminated(mezz::ExecutorTerminated {
                framework_id: v1::FrameworkId { value: framework_id },
                executor_id: v1::ExecutorId { value: executor_id },
                status: 0,
            }));
        }
        out.push(Message::Drained(mezz::Drained { number: drain.number }));
    }

    pub fn on_deadline(&mut self, now: Time, out: &mut Vec<Message>) {
        let due = |time: Option<Time>| time.is_some_and(|t| t <= now);
        let keys: Vec<_> = self.tasks.keys().cloned().collect();
        for key in keys {
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            if due(task.starts) {
                task.starts = None;
                self.change(now, &key, TaskState::TaskRunning, "", None, out);
            }
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            if let Some((_, state, message)) = task.ends.take_if(|e| e.0 <= now) {
                self.end_task(now, &key, state, &message, None, out);
            }
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            if due(task.resend) {
                task.send_head(now, out);
            }
        }
    }

    /// Ends a task by its id alone, of whichever framework.
    pub fn end_by_id(
        &mut self,
        now: Time,
        id: &str,
        state: TaskState,
        message: &str,
        out: &mut Vec<Message>,
    ) {
        let keys: Vec<_> = self.tasks.keys().filter(|(_, task)| task == id).cloned().collect();
        for key in keys {
            self.end_task(now, &key, state, message, None, out);
        }
    }

    pub fn tasks(&self) -> impl Iterator<Item = AgentTask> {
        self.tasks.iter().map(|((_, task_id), task)| AgentTask {
            hostname: self.hostname.clone(),
            task_id: task_id.clone(),
            state: task.state,
        })
    }

    fn run_tasks(
        &mut self,
        now: Time,
        run: mezz::RunTasks,
        script: &mut Script,
        out: &mut Vec<Message>,
    ) {
        let Some(framework) = run.framework.id.clone() else { return };
        self.frameworks.insert(framework.value.clone(), run.framework);
        for mut info in run.tasks {
            if let Some(executor) = run.group_executor.as_ref().or(info.executor.as_ref()) {
                let mut executor = executor.clone();
                executor.framework_id = Some(framework.clone());
                info.executor = Some(executor.clone());
                let key = (framework.value.clone(), executor.executor_id.value.clone());
                self.executors.entry(key).or_insert(executor);
            }
            let Behaviour { starts_after, ends } = (script.0)(&info);
            let starts = now + starts_after;
            let key = (framework.value.clone(), info.task_id.value.clone());
            let task = FakeTask {
                framework: framework.clone(),
                info,
                state: TaskState::TaskStaging,
                starts: Some(starts),
                ends: ends.map(|(time, state, message)| (starts + time, state, message)),
                unacknowledged: VecDeque::new(),
                resend: None,
            };
            self.tasks.insert(key, task);
        }
        self.on_deadline(now, out);
    }

    fn acknowledged(
        &mut self,
        now: Time,
        ack: mezz::StatusUpdateAcknowledgement,
        out: &mut Vec<Message>,
    ) {
        let key = (ack.framework_id.value, ack.task_id.value);
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.unacknowledged.front().and_then(|u| u.uuid.as_ref()) != Some(&ack.uuid) {
            return;
        }
        task.unacknowledged.pop_front();
        task.resend = None;
        if !task.unacknowledged.is_empty() {
            task.send_head(now, out);
        } else if task.state.is_terminal() {
            self.tasks.remove(&key);
        }
    }

    fn shutdown_executor(
        &mut self,
        now: Time,
        shutdown: mezz::ShutdownExecutor,
        out: &mut Vec<Message>,
    ) {
        let mezz::ShutdownExecutor { framework_id, executor_id } = shutdown;
        let key = (framework_id.value.clone(), executor_id.value.clone());
        if self.executors.remove(&key).is_none() {
            return;
        }
        let of_it = |t: &FakeTask| {
            t.framework == framework_id
                && t.info.executor.as_ref().is_some_and(|e| e.executor_id == executor_id)
        };
        let keys: Vec<_> =
            self.tasks.iter().filter(|(_, t)| of_it(t)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            // Rule 42.
            let reason = Some(Reason::ExecutorTerminated);
            self.end_task(now, &key, TaskState::TaskFailed, "executor shut down", reason, out);
        }
        out.push(Message::ExecutorTerminated(mezz::ExecutorTerminated {
            framework_id,
            executor_id,
            status: 0,
        }));
    }

    fn end_task(
        &mut self,
        now: Time,
        key: &(String, String),
        state: TaskState,
        message: &str,
        reason: Option<Reason>,
        out: &mut Vec<Message>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if !task.state.is_terminal() {
            (task.starts, task.ends) = (None, None);
            self.change(now, key, state, message, reason, out);
        }
    }

    fn change(
        &mut self,
        now: Time,
        key: &(String, String),
        state: TaskState,
        message: &str,
        reason: Option<Reason>,
        out: &mut Vec<Message>,
    ) {
        self.uuids += 1;
        let uuid = (u128::from(self.number) << 64 | u128::from(self.uuids)).to_be_bytes();
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.state = state;
        task.unacknowledged.push_back(v1::TaskStatus {
            task_id: task.info.task_id.clone(),
            agent_id: self.id.clone(),
            executor_id: task.info.executor.as_ref().map(|e| e.executor_id.clone()),
            state: state as i32,
            message: (!message.is_empty()).then(|| message.to_owned()),
            reason: reason.map(|r| r as i32),
            source: Some(Source::Executor as i32),
            timestamp: Some(now.as_secs_f64()),
            uuid: Some(uuid.to_vec()),
            ..Default::default()
        });
        // One in flight for each task.
        if task.unacknowledged.len() == 1 {
            task.send_head(now, out);
        }
    }

    fn forget_framework(&mut self, id: &str) {
        self.frameworks.remove(id);
        self.executors.retain(|(framework, _), _| framework != id);
        self.tasks.retain(|(framework, _), _| framework != id);
    }

    fn description(&self) -> mezz::AgentDescription {
        use capability::Type::*;
        let capabilities = [MultiRole, HierarchicalRole, ReservationRefinement, TaskResourceLimits];
        mezz::AgentDescription {
            agent: v1::AgentInfo {
                hostname: self.hostname.clone(),
                resources: self.resources.to_proto(Dialect::Refined, None),
                attributes: self.attributes.clone(),
                id: self.id.clone(),
                ..Default::default()
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: LINK_PROTOCOL,
            boot_id: None,
            capabilities: capabilities.map(|c| Capability { r#type: Some(c as i32) }).to_vec(),
            api_address: format!("{}:5051", self.hostname),
        }
    }
}

impl FakeTask {
    fn send_head(&mut self, now: Time, out: &mut Vec<Message>) {
        let Some(status) = self.unacknowledged.front() else { return };
        self.resend = Some(now + RESEND);
        out.push(Message::StatusUpdate(mezz::StatusUpdate {
            framework_id: self.framework.clone(),
            status: status.clone(),
            latest_state: self.state as i32,
        }));
    }

    fn report(&self, agent: Option<v1::AgentId>) -> v1::Task {
        let head = self.unacknowledged.front();
        v1::Task {
            name: self.info.name.clone(),
            task_id: self.info.task_id.clone(),
            framework_id: self.framework.clone(),
            executor_id: self.info.executor.as_ref().map(|e| e.executor_id.clone()),
            agent_id: agent.unwrap_or_default(),
            state: self.state as i32,
            resources: self.info.resources.clone(),
            statuses: head.cloned().into_iter().collect(),
            status_update_state: head.map(|h| h.state),
            status_update_uuid: head.and_then(|h| h.uuid.clone()),
            labels: self.info.labels.clone(),
            ..Default::default()
        }
    }
}
