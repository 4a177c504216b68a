//! Executors that come and go (behaviour rules 52 and 53).

use std::collections::BTreeSet;

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    time::Time,
    v1::{
        TaskState,
        executor::{Call, Event, event},
        task_status::Reason,
    },
};

use super::{
    CallError, ConnectionId, Core, Effect, Effects, ExecutorKey, Proof, TaskKey,
    environment::RECOVERY_TIMEOUT,
    executor::{check_update, send},
    state::Stage,
    timers::Timer,
    update::Verdict,
};

impl Core {
    /// A connection is over, from whichever side. Its container tells when the
    /// executor ends; until then it may come back, for as long as executors try.
    pub(super) fn on_executor_disconnected(&mut self, now: Time, connection: ConnectionId) {
        let Some(key) = self.connections.remove(&connection) else { return };
        let Some(executor) = self.executors.get_mut(&key) else { return };
        executor.connection = None;
        // One that is to end has its deadline already.
        if executor.doom.is_none() {
            self.timers.set(Timer::Disconnected(key), now + RECOVERY_TIMEOUT);
        }
    }

    /// Its program runs, and has so long to subscribe: not with what had to be fetched
    /// before, which has bounds of its own. Nobody comes from a pod.
    pub(super) fn await_registration(&mut self, now: Time, key: &ExecutorKey) {
        let Some(executor) = self.executors.get(key) else { return };
        // It may be faster than the word that it runs.
        if !executor.subscribed_once && !executor.is_pod() && executor.doom.is_none() {
            let timeout = now + self.options.executor_registration_timeout;
            self.timers.set(Timer::Registration(key.clone()), timeout);
        }
    }

    /// It is here, or it is to end: nothing waits for it to come.
    pub(super) fn await_executor_no_more(&mut self, key: &ExecutorKey) {
        for timer in [Timer::Registration, Timer::Reregistration, Timer::Disconnected] {
            self.timers.cancel(&timer(key.clone()));
        }
    }

    pub(super) fn on_subscribe(
        &mut self,
        now: Time,
        connection: ConnectionId,
        proof: &Proof,
        call: Call,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let key = ExecutorKey {
            framework: FrameworkId::from(call.framework_id),
            executor: ExecutorId::from(call.executor_id),
        };
        let agent = self.agent_info();
        let framework = self.frameworks.get(&key.framework).map(|framework| framework.info.clone());
        self.identify(&key, proof)?;
        let executor = self.executors.get_mut(&key).ok_or(CallError::Unauthenticated)?;
        if executor.doom.is_some() {
            return Err(CallError::NotAllowed("the executor is being shut down".to_owned()));
        }
        // Nothing is changed before all of the call is known to be right: a wrong
        // one must not cost an executor its connection, nor stop its deadline.
        let subscribe = call.subscribe.unwrap_or_default();
        for update in &subscribe.unacknowledged_updates {
            check_update(&key, &update.status).map_err(|text| {
                CallError::Invalid(format!("subscribe.unacknowledged_updates: {text}"))
            })?;
        }
        let shown = proof.given().is_some();
        let changed = !executor.subscribed_once || shown && !executor.proven;
        executor.subscribed_once = true;
        executor.proven |= shown;
        executor.behind = false;
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
        self.await_executor_no_more(&key);
        if changed {
            self.persist_executor(&key, out);
            // Before it hears that it is subscribed, for then it calls.
            if let Some(executor) = self.executors.get(&key) {
                Self::announce_subscribed(&key, executor, out);
            }
        }
        out.now.push(send(
            connection,
            Event {
                r#type: Some(event::Type::Subscribed.into()),
                subscribed: Some(subscribed),
                ..Event::default()
            },
        ));
        for update in subscribe.unacknowledged_updates {
            self.on_update(now, Some(connection), &key, update.status, out)?;
        }
        let known: BTreeSet<TaskId> =
            subscribe.unacknowledged_tasks.iter().map(|task| TaskId::from(&task.task_id)).collect();
        self.drop_unknown(now, &key, &known, out);
        self.end_unknown(connection, &key, &known, out);
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

    /// Tasks that the returning executor has and of which the agent knows nothing: they were
    /// sent by an agent that died before it had stored them. Nobody waits for them, and they
    /// may be running elsewhere by now.
    fn end_unknown(
        &self,
        connection: ConnectionId,
        key: &ExecutorKey,
        known: &BTreeSet<TaskId>,
        out: &mut Effects,
    ) {
        let unknown = known.iter().filter(|task| !self.tasks.contains_key(&key.task(task)));
        out.now.extend(unknown.map(|task| {
            let kill = event::Kill { task_id: task.into(), kill_policy: None };
            let r#type = Some(event::Type::Kill.into());
            send(connection, Event { r#type, kill: Some(kill), ..Event::default() })
        }));
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
}
