//! Custom executors (behaviour rules 37, 40, 53 and 54).

use std::collections::{BTreeMap, BTreeSet};

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    mezz::v1::{self as mezz, agent_message},
    resources::Resources,
    time::Time,
    v1::{
        self, TaskState, TaskStatus,
        executor::{Call, Event, call, event},
        task_status::{Reason, Source},
    },
};

use super::{
    CallError, ConnectionId, Core, Effect, Effects, ExecutorKey, StoreOp, TaskKey,
    ids::same_secret,
    launch::limits,
    state::{Doom, Home, Limits, Stage},
    timers::Timer,
    update::Verdict,
};

/// Updates of one task that may wait for acknowledgement; an executor that does
/// not heed them is cut off.
const MAX_UNACKNOWLEDGED: usize = 256;

impl Core {
    pub(super) fn on_executor_call(
        &mut self,
        now: Time,
        connection: ConnectionId,
        token: &str,
        call: Call,
        out: &mut Effects,
    ) {
        let done = match self.connections.get(&connection).cloned() {
            None if call.r#type() == call::Type::Subscribe => {
                self.on_subscribe(now, connection, token, call, out)
            }
            None => Err(CallError::NotAllowed("the first call must be SUBSCRIBE".to_owned())),
            Some(key) => self.on_subscribed_call(now, connection, &key, call, out),
        };
        if let Err(error) = done {
            if let Some(key) = self.connections.remove(&connection)
                && let Some(executor) = self.executors.get_mut(&key)
            {
                executor.connection = None;
            }
            out.now.push(Effect::CloseExecutor { connection, error: Some(error) });
        }
    }

    pub(super) fn on_executor_disconnected(&mut self, connection: ConnectionId) {
        // Its container tells when it ends; until then it may come back.
        if let Some(key) = self.connections.remove(&connection)
            && let Some(executor) = self.executors.get_mut(&key)
        {
            executor.connection = None;
        }
    }

    fn on_subscribe(
        &mut self,
        now: Time,
        connection: ConnectionId,
        token: &str,
        call: Call,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let key = ExecutorKey {
            framework: FrameworkId::from(call.framework_id),
            executor: ExecutorId::from(call.executor_id),
        };
        let agent = self.agent_info();
        let framework = self.frameworks.get(&key.framework).map(|framework| framework.info.clone());
        let executor = self
            .executors
            .get_mut(&key)
            .filter(|executor| same_secret(&executor.token.0, token))
            .ok_or(CallError::Unauthenticated)?;
        if executor.doom.is_some() {
            return Err(CallError::NotAllowed("the executor is being shut down".to_owned()));
        }
        executor.subscribed_once = true;
        let subscribed = event::Subscribed {
            executor_info: executor.info.clone(),
            framework_info: framework.unwrap_or_default(),
            agent_info: agent,
            container_id: Some((&executor.container).into()),
        };
        if let Some(old) = executor.connection.replace(connection) {
            self.connections.remove(&old);
            let error = CallError::NotAllowed("the executor subscribed again".to_owned());
            out.now.push(Effect::CloseExecutor { connection: old, error: Some(error) });
        }
        self.connections.insert(connection, key.clone());
        self.timers.cancel(&Timer::Registration(key.clone()));
        self.timers.cancel(&Timer::Reregistration(key.clone()));
        out.now.push(send(
            connection,
            Event {
                r#type: Some(event::Type::Subscribed.into()),
                subscribed: Some(subscribed),
                ..Event::default()
            },
        ));
        let subscribe = call.subscribe.unwrap_or_default();
        for update in subscribe.unacknowledged_updates {
            self.on_update(now, connection, &key, update.status, out)?;
        }
        let known: BTreeSet<TaskId> =
            subscribe.unacknowledged_tasks.iter().map(|task| TaskId::from(&task.task_id)).collect();
        self.drop_unknown(now, &key, &known, out);
        let killed: Vec<TaskKey> = self
            .live_tasks_of(&key)
            .into_iter()
            .filter(|task| self.tasks.get(task).is_some_and(|task| task.kill.is_some()))
            .collect();
        for task in killed {
            self.ask_executor_to_kill(&key, &task, out);
        }
        self.deliver_pending(&key, out);
        Ok(())
    }

    /// Tasks that were sent and of which the returning executor knows nothing
    /// (rule 52).
    fn drop_unknown(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        known: &BTreeSet<TaskId>,
        out: &mut Effects,
    ) {
        for task_key in self.live_tasks_of(key) {
            let lost = self.tasks.get(&task_key).is_some_and(|task| task.stage == Stage::Launching)
                && !known.contains(&task_key.task);
            if lost {
                let state = self.lost_or(&key.framework, TaskState::TaskDropped);
                let message = "the executor came back without having got the task";
                let verdict = Verdict::new(state, Reason::AgentRestarted, message);
                self.report(now, &task_key, verdict, out);
            }
        }
    }

    fn on_subscribed_call(
        &mut self,
        now: Time,
        connection: ConnectionId,
        key: &ExecutorKey,
        call: Call,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let invalid = |text: &str| Err(CallError::Invalid(text.to_owned()));
        if call.framework_id.value != key.framework.as_str()
            || call.executor_id.value != key.executor.as_str()
        {
            return invalid("framework_id and executor_id must be those of the subscription");
        }
        match call.r#type() {
            call::Type::Subscribe => {
                Err(CallError::NotAllowed("SUBSCRIBE: already subscribed".to_owned()))
            }
            call::Type::Update => match call.update {
                Some(update) => self.on_update(now, connection, key, update.status, out),
                None => invalid("UPDATE: update is not set"),
            },
            call::Type::Message => match call.message {
                Some(message) => {
                    let message = mezz::ExecutorMessage {
                        framework_id: (&key.framework).into(),
                        executor_id: (&key.executor).into(),
                        data: message.data,
                    };
                    out.now
                        .extend(self.to_master(agent_message::Message::ExecutorMessage(message)));
                    Ok(())
                }
                None => invalid("MESSAGE: message is not set"),
            },
            call::Type::Heartbeat => Ok(()),
            call::Type::Unknown => invalid("type must be SUBSCRIBE, UPDATE, MESSAGE or HEARTBEAT"),
        }
    }

    fn on_update(
        &mut self,
        now: Time,
        connection: ConnectionId,
        key: &ExecutorKey,
        status: TaskStatus,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let uuid = check_update(&status).map_err(|text| CallError::Invalid(text.to_owned()))?;
        let task_key = key.task(&TaskId::from(&status.task_id));
        let acknowledged = send(
            connection,
            Event {
                r#type: Some(event::Type::Acknowledged.into()),
                acknowledged: Some(event::Acknowledged {
                    task_id: status.task_id.clone(),
                    uuid: uuid.clone(),
                }),
                ..Event::default()
            },
        );
        // What is late, repeated or of no task of this executor is acknowledged
        // all the same, so that it does not come for ever (rule 36).
        if let Some(task) = self.tasks.get_mut(&task_key)
            && task.home == Home::Executor(key.executor.clone())
            && matches!(task.stage, Stage::Launching | Stage::Running)
            && !task.acknowledged.contains(&uuid)
            && !task.updates.iter().any(|update| update.uuid.as_ref() == Some(&uuid))
        {
            if task.updates.len() >= MAX_UNACKNOWLEDGED {
                return Err(CallError::NotAllowed(format!(
                    "task {} has {MAX_UNACKNOWLEDGED} updates that its framework has not \
                     acknowledged",
                    task_key.task
                )));
            }
            task.stage = Stage::Running;
            self.push_update(now, &task_key, status, out);
        }
        out.after_persist.push(acknowledged);
        Ok(())
    }

    /// At most once (rule 41).
    pub(super) fn on_framework_message(&self, message: mezz::ExecutorMessage, out: &mut Effects) {
        let key = ExecutorKey {
            framework: FrameworkId::from(message.framework_id),
            executor: ExecutorId::from(message.executor_id),
        };
        if let Some(connection) = self.executors.get(&key).and_then(|found| found.connection) {
            out.now.push(send(
                connection,
                Event {
                    r#type: Some(event::Type::Message.into()),
                    message: Some(event::Message { data: message.data }),
                    ..Event::default()
                },
            ));
        }
    }

    /// Sends the tasks that wait, if the executor is there.
    pub(super) fn deliver_pending(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        let Some(connection) = executor.connection else { return };
        for pending in std::mem::take(&mut executor.pending) {
            let mut infos = Vec::with_capacity(pending.tasks.len());
            for task in &pending.tasks {
                if let Some(task) = self.tasks.get_mut(&key.task(task)) {
                    task.stage = Stage::Launching;
                    infos.push(task.info.clone());
                }
            }
            if pending.group {
                let task_group = v1::TaskGroupInfo { tasks: infos };
                out.after_persist.push(send(
                    connection,
                    Event {
                        r#type: Some(event::Type::LaunchGroup.into()),
                        launch_group: Some(event::LaunchGroup { task_group }),
                        ..Event::default()
                    },
                ));
            } else {
                out.after_persist.extend(infos.into_iter().map(|task| {
                    let event = Event {
                        r#type: Some(event::Type::Launch.into()),
                        launch: Some(event::Launch { task }),
                        ..Event::default()
                    };
                    send(connection, event)
                }));
            }
        }
    }

    pub(super) fn ask_executor_to_kill(
        &self,
        key: &ExecutorKey,
        task: &TaskKey,
        out: &mut Effects,
    ) {
        let Some(connection) = self.executors.get(key).and_then(|found| found.connection) else {
            return;
        };
        let kill = event::Kill {
            task_id: (&task.task).into(),
            kill_policy: self.tasks.get(task).and_then(|task| task.kill_policy),
        };
        out.now.push(send(
            connection,
            Event { r#type: Some(event::Type::Kill.into()), kill: Some(kill), ..Event::default() },
        ));
    }

    pub(super) fn on_registration_timeout(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let wait = self.options.executor_registration_timeout;
        let doom = Doom {
            state: TaskState::TaskFailed,
            reason: Reason::ExecutorRegistrationTimeout,
            message: format!("the executor did not subscribe within {wait:?}"),
        };
        self.give_up(key, doom, out);
    }

    pub(super) fn on_reregistration_timeout(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let wait = self.options.executor_reregistration_timeout;
        let doom = Doom {
            state: self.lost_or(&key.framework, TaskState::TaskGone),
            reason: Reason::ExecutorReregistrationTimeout,
            message: format!("the executor did not come back within {wait:?} of the agent's start"),
        };
        self.give_up(key, doom, out);
    }

    fn give_up(&mut self, key: &ExecutorKey, doom: Doom, out: &mut Effects) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        executor.doom.get_or_insert(doom);
        out.now.push(Effect::Destroy { container: executor.container.clone() });
    }

    /// Its container is gone. Its tasks' updates come before the word of its own
    /// end, so that no framework sees a dead executor with live tasks.
    pub(super) fn executor_ended(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        verdict: Verdict,
        wait_status: Option<i32>,
        out: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        let verdict = match &executor.doom {
            Some(doom) if verdict.reason != Some(Reason::ContainerLimitationMemory) => {
                Verdict::new(doom.state, doom.reason, &doom.message)
            }
            _ => verdict,
        };
        executor.pending.clear();
        for task in self.live_tasks_of(key) {
            self.report(now, &task, verdict.clone(), out);
        }
        let Some(executor) = self.executors.remove(key) else { return };
        if let Some(connection) = executor.connection {
            self.connections.remove(&connection);
            out.now.push(Effect::CloseExecutor { connection, error: None });
        }
        for timer in [Timer::Registration, Timer::Reregistration, Timer::Shutdown] {
            self.timers.cancel(&timer(key.clone()));
        }
        out.persist.push(StoreOp::RemoveExecutor(key.clone()));
        if !self.is_shutting_down(&key.framework) {
            let terminated = mezz::ExecutorTerminated {
                framework_id: (&key.framework).into(),
                executor_id: (&key.executor).into(),
                status: wait_status.unwrap_or(-1),
            };
            out.after_persist
                .extend(self.to_master(agent_message::Message::ExecutorTerminated(terminated)));
        }
        self.forget_idle_framework(&key.framework, out);
    }

    /// A task that ended holds nothing of its executor any more.
    pub(super) fn leave_executor(&mut self, key: &TaskKey, out: &mut Effects) {
        let Some(Home::Executor(id)) = self.tasks.get(key).map(|task| task.home.clone()) else {
            return;
        };
        let executor_key = key.executor(&id);
        let Some(executor) = self.executors.get_mut(&executor_key) else { return };
        executor.tasks.remove(&key.task);
        for pending in &mut executor.pending {
            pending.tasks.retain(|task| *task != key.task);
        }
        executor.pending.retain(|pending| !pending.tasks.is_empty());
        self.update_limits(&executor_key, out);
    }

    /// The executor's own and its live tasks' (rule 63).
    pub(super) fn limits_of(&self, key: &ExecutorKey) -> Limits {
        let Some(executor) = self.executors.get(key) else { return Limits::default() };
        let mut sum = Limits { resources: executor.resources.clone(), limits: BTreeMap::new() };
        let tasks: Vec<_> =
            executor.tasks.iter().filter_map(|task| self.tasks.get(&key.task(task))).collect();
        for task in &tasks {
            sum.resources += &task.resources;
        }
        // A limit of one task lifts the whole container's; the others count with
        // what they asked for.
        for name in ["cpus", "mem"] {
            let asked = |resources: &Resources| resources.scalar(name).to_f64();
            let all: Vec<_> = tasks.iter().map(|task| (limits(&task.info), task)).collect();
            if all.iter().any(|(limits, _)| limits.contains_key(name)) {
                let of_tasks = all.iter().map(|(limits, task)| {
                    limits.get(name).copied().unwrap_or_else(|| asked(&task.resources))
                });
                let limit = asked(&executor.resources) + of_tasks.sum::<f64>();
                sum.limits.insert(name.to_owned(), limit);
            }
        }
        sum
    }

    /// Tells the container what it is held to, if that changed.
    pub(super) fn update_limits(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let limits = self.limits_of(key);
        let Some(executor) = self.executors.get_mut(key) else { return };
        let running = self.containers.get(&executor.container).is_some_and(|found| found.running);
        if running && executor.held != limits {
            executor.held = limits.clone();
            out.now.push(Effect::Update {
                container: executor.container.clone(),
                resources: limits.resources,
                limits: limits.limits,
            });
        }
    }

    fn live_tasks_of(&self, key: &ExecutorKey) -> Vec<TaskKey> {
        let tasks = self.executors.get(key).map(|executor| executor.tasks.iter());
        tasks.into_iter().flatten().map(|task| key.task(task)).collect()
    }

    pub(super) fn executors_of(
        &self,
        framework: &FrameworkId,
    ) -> impl Iterator<Item = &ExecutorKey> {
        let first = ExecutorKey { framework: framework.clone(), executor: ExecutorId::new("") };
        let framework = framework.clone();
        self.executors
            .range(first..)
            .map(|(key, _)| key)
            .take_while(move |key| key.framework == framework)
    }
}

/// Rule 37.
fn check_update(status: &TaskStatus) -> Result<Vec<u8>, &'static str> {
    let uuid = match &status.uuid {
        Some(uuid) if uuid.len() == 16 => uuid.clone(),
        Some(_) => return Err("update.status.uuid must have 16 bytes"),
        None => return Err("update.status.uuid is not set"),
    };
    if status.source != Some(Source::Executor.into()) {
        return Err("update.status.source must be SOURCE_EXECUTOR");
    }
    match TaskState::try_from(status.state) {
        Ok(TaskState::TaskStaging) => Err("update.status.state must not be TASK_STAGING"),
        Ok(TaskState::TaskUnreachable | TaskState::TaskUnknown | TaskState::TaskGoneByOperator)
        | Err(_) => Err("update.status.state must be one that an executor can know"),
        Ok(_) => Ok(uuid),
    }
}

fn send(connection: ConnectionId, event: Event) -> Effect {
    Effect::SendExecutor { connection, event: Box::new(event) }
}
