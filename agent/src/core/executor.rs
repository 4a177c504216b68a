//! Custom executors (behaviour rules 37, 40, 53 and 54).

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    mezz::v1::{self as mezz, agent_message},
    time::Time,
    v1::{
        self, TaskState, TaskStatus,
        executor::{Call, Event, call, event},
        task_status::Source,
    },
};

use super::{
    CallError, Change, ConnectionId, Core, Effect, Effects, ExecutorKey, Proof, TaskKey,
    state::{Home, Stage},
};

impl Core {
    pub(super) fn on_executor_call(
        &mut self,
        now: Time,
        connection: ConnectionId,
        proof: &Proof,
        call: Call,
        out: &mut Effects,
    ) {
        let done = match self.connections.get(&connection).cloned() {
            None if call.r#type() == call::Type::Subscribe => {
                self.on_subscribe(now, connection, proof, call, out)
            }
            None => self.on_lone_call(now, connection, proof, call, out),
            Some(key) => self.on_subscribed_call(now, Some(connection), &key, call, out),
        };
        if let Err(error) = done {
            self.on_executor_disconnected(now, connection);
            out.now.push(Effect::CloseExecutor { connection, error: Some(error) });
        }
    }

    /// A call on a connection of its own, as over HTTP. Once its executor has subscribed it is
    /// heard, as Mesos does it (rule 54), also while there is no stream of events: one may be
    /// on its way while that ends. What is to be told of it then comes with the next stream.
    fn on_lone_call(
        &mut self,
        now: Time,
        connection: ConnectionId,
        proof: &Proof,
        call: Call,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let key = ExecutorKey {
            framework: FrameworkId::from(&call.framework_id),
            executor: ExecutorId::from(&call.executor_id),
        };
        self.identify(&key, proof)?;
        let executor = self.executors.get(&key).filter(|executor| executor.subscribed_once);
        let Some(executor) = executor.filter(|_| proof.is_apart()) else {
            return Err(CallError::NotAllowed("Executor is not subscribed".to_owned()));
        };
        self.on_subscribed_call(now, executor.connection, &key, call, out)?;
        out.now.push(Effect::CloseExecutor { connection, error: None });
        Ok(())
    }

    /// `stream` is where the executor hears events, if anywhere.
    fn on_subscribed_call(
        &mut self,
        now: Time,
        stream: Option<ConnectionId>,
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
                Some(update) => self.on_update(now, stream, key, update.status, out),
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

    pub(super) fn on_update(
        &mut self,
        now: Time,
        stream: Option<ConnectionId>,
        key: &ExecutorKey,
        mut status: TaskStatus,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let uuid = check_update(key, &status).map_err(CallError::Invalid)?;
        let task_key = key.task(&TaskId::from(&status.task_id));
        let acknowledged =
            event::Acknowledged { task_id: status.task_id.clone(), uuid: uuid.clone() };
        let intake = self.intake(key);
        // What is late, repeated or of no task of this executor is acknowledged
        // all the same, so that it does not come for ever (rule 36).
        if let Some(task) = self.tasks.get_mut(&task_key)
            && task.home == Home::Executor(key.executor.clone())
            && matches!(task.stage, Stage::Launching | Stage::Running)
            && !task.acknowledged.contains(&uuid)
            && !task.updates.iter().any(|update| update.uuid.as_ref() == Some(&uuid))
        {
            task.stage = Stage::Running;
            if !intake.takes(&status) {
                // Of a SUBSCRIBE, or overtaken by one: others wait before they come here. Not
                // acknowledged, so the executor keeps it.
                if let Some(executor) = self.executors.get_mut(key) {
                    executor.behind = true;
                }
                return Ok(());
            }
            self.say_drained(&task_key, &mut status);
            self.push_update(now, &task_key, status, out);
        }
        if let Some(stream) = stream {
            let event = Event {
                r#type: Some(event::Type::Acknowledged.into()),
                acknowledged: Some(acknowledged),
                ..Event::default()
            };
            out.after_persist.push(send(stream, event));
        }
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

    /// Sends the tasks that wait, if the executor is there. As with containers that does not
    /// wait for the store, which then writes a short task's start together with its end: a
    /// task that the store does not know is killed when the executor comes back to the next
    /// agent. What the executor says of it does wait.
    pub(super) fn deliver_pending(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        let Some(connection) = executor.connection else { return };
        for pending in std::mem::take(&mut executor.pending) {
            let mut infos = Vec::with_capacity(pending.tasks.len());
            for task in &pending.tasks {
                let key = key.task(task);
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.stage = Stage::Launching;
                    infos.push(task.info.clone());
                    out.now.push(Effect::Change(Change::TaskLaunched(key)));
                }
            }
            if pending.group {
                let task_group = v1::TaskGroupInfo { tasks: infos };
                out.now.push(send(
                    connection,
                    Event {
                        r#type: Some(event::Type::LaunchGroup.into()),
                        launch_group: Some(event::LaunchGroup { task_group }),
                        ..Event::default()
                    },
                ));
            } else {
                out.now.extend(infos.into_iter().map(|task| {
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
        // One that is told of a kill must not hear otherwise after a restart.
        out.after_persist.push(send(
            connection,
            Event { r#type: Some(event::Type::Kill.into()), kill: Some(kill), ..Event::default() },
        ));
    }

    /// A task that ended holds nothing of its executor any more.
    pub(super) fn leave_executor(
        &mut self,
        now: Time,
        key: &TaskKey,
        state: TaskState,
        out: &mut Effects,
    ) {
        let Some(id) = self.tasks.get(key).and_then(|task| task.home.executor()) else { return };
        let executor_key = key.executor(id);
        let Some(executor) = self.executors.get_mut(&executor_key) else { return };
        executor.tasks.remove(&key.task);
        for pending in &mut executor.pending {
            pending.tasks.retain(|task| *task != key.task);
        }
        executor.pending.retain(|pending| !pending.tasks.is_empty());
        if executor.is_pod() {
            self.member_ended(now, key, &executor_key, state, out);
        } else {
            self.update_limits(&executor_key, out);
            self.end_idle(now, &executor_key, out);
        }
    }

    pub(super) fn live_tasks_of(&self, key: &ExecutorKey) -> Vec<TaskKey> {
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

/// What an executor may say of a task (rule 37), in Mesos' words and order. An end that only
/// masters know of is refused here, though Mesos takes it.
pub(crate) fn check_update(key: &ExecutorKey, status: &TaskStatus) -> Result<Vec<u8>, String> {
    let ExecutorKey { framework, executor } = key;
    let uuid = match &status.uuid {
        Some(uuid) if uuid.len() == 16 => uuid.clone(),
        Some(_) => return Err("Not a valid UUID".to_owned()),
        None => return Err("Expecting 'uuid' to be present".to_owned()),
    };
    if let Some(other) = status.executor_id.as_ref().filter(|id| id.value != executor.as_str()) {
        return Err(format!(
            "ExecutorID in Call: {executor} does not match ExecutorID in TaskStatus: {}",
            other.value
        ));
    }
    if status.source != Some(Source::Executor.into()) {
        return Err(format!(
            "Received Call from executor {executor} of framework {framework} with invalid \
             source, expecting 'SOURCE_EXECUTOR'"
        ));
    }
    match TaskState::try_from(status.state) {
        Ok(TaskState::TaskStaging) => Err(format!(
            "Received TASK_STAGING from executor {executor} of framework {framework} which is \
             not allowed"
        )),
        Ok(TaskState::TaskUnreachable | TaskState::TaskUnknown | TaskState::TaskGoneByOperator)
        | Err(_) => Err("update.status.state must be one that an executor can know".to_owned()),
        Ok(_) => Ok(uuid),
    }
}

pub(super) fn send(connection: ConnectionId, event: Event) -> Effect {
    Effect::SendExecutor { connection, event: Box::new(event) }
}
