//! Status updates: at least once, one in flight per task (behaviour rules 35
//! and 36).

use std::{collections::VecDeque, net::IpAddr};

use mezz_proto::{
    ids::{FrameworkId, TaskId},
    mezz::v1::{self as mezz, agent_message},
    time::Time,
    v1::{self, TaskState, TaskStatus, task_status::Reason, task_status::Source},
};

use super::{
    Change, Core, Effect, Effects, StoreOp, TaskKey,
    environment::has_own_network,
    link::Link,
    outcome::limited,
    state::{Home, KillCause, Stage},
    timers::Timer,
};

/// Uuids that are remembered per task after their acknowledgement, so that an
/// executor's repetition is known as one.
const REMEMBERED_UUIDS: usize = 16;

/// What the agent says of a task by itself.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) state: TaskState,
    pub(super) reason: Option<Reason>,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn new(state: TaskState, reason: Reason, message: impl Into<String>) -> Self {
        Self { state, reason: Some(reason), message: message.into() }
    }
}

impl Core {
    /// Tells of a task what the agent itself found.
    pub(super) fn report(&mut self, now: Time, key: &TaskKey, verdict: Verdict, out: &mut Effects) {
        let status = self.status(key, verdict);
        self.push_update(now, key, status, out);
    }

    /// Tells of a task that is not kept, and so cannot be told again. When it is
    /// lost with the link, the master misses the task in the agent's list and
    /// ends it itself (rule 48); when the framework is away, it learns the end by
    /// reconciliation.
    pub(super) fn tell_once(
        &mut self,
        now: Time,
        key: &TaskKey,
        verdict: Verdict,
        out: &mut Effects,
    ) {
        if self.is_shutting_down(&key.framework) {
            return;
        }
        let state = verdict.state;
        let mut status = self.status(key, verdict);
        self.complete(now, key, &mut status);
        out.now.push(updated(key, &mut status));
        let update = mezz::StatusUpdate {
            framework_id: (&key.framework).into(),
            status,
            latest_state: state.into(),
        };
        out.now.extend(self.to_master(agent_message::Message::StatusUpdate(update)));
    }

    fn status(&mut self, key: &TaskKey, verdict: Verdict) -> TaskStatus {
        TaskStatus {
            task_id: (&key.task).into(),
            state: verdict.state.into(),
            message: (!verdict.message.is_empty()).then_some(verdict.message),
            source: Some(Source::Agent.into()),
            reason: verdict.reason.map(Into::into),
            uuid: Some(self.ids.uuid()),
            ..TaskStatus::default()
        }
    }

    /// Puts an update behind the others of its task. Its uuid is set.
    pub(super) fn push_update(
        &mut self,
        now: Time,
        key: &TaskKey,
        mut status: TaskStatus,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get_mut(key).filter(|task| task.is_live()) else { return };
        let state = status.state();
        task.latest = state;
        if state.is_terminal() {
            task.stage = Stage::Ended;
            self.live_tasks -= 1;
            self.timers.cancel(&Timer::Kill(key.clone()));
            self.timers.cancel(&Timer::Completion(key.clone()));
            self.stop_checks(key);
        }
        self.complete(now, key, &mut status);
        out.now.push(updated(key, &mut status));
        // Nobody listens to the tasks of a removed framework.
        if !self.is_shutting_down(&key.framework) {
            self.change_updates(key, out, |updates| updates.push_back(status));
            self.persist_state(key, out);
            self.send_head(now, key, out);
        }
        if state.is_terminal() {
            self.leave_executor(now, key, state, out);
            if self.is_shutting_down(&key.framework) {
                self.forget_task(key, out);
            }
        }
    }

    /// Adds what the agent knows better than whoever made the update.
    fn complete(&self, now: Time, key: &TaskKey, status: &mut TaskStatus) {
        let container = match self.tasks.get(key).map(|task| &task.home) {
            Some(Home::Command(container)) => Some(container),
            Some(Home::Member { executor, container }) => {
                status.executor_id = Some(executor.into());
                Some(container)
            }
            Some(Home::Executor(id)) => {
                status.executor_id = Some(id.into());
                self.executors.get(&key.executor(id)).map(|executor| &executor.container)
            }
            Some(Home::None) | None => None,
        };
        status.agent_id = self.agent_id.as_ref().map(Into::into);
        status.timestamp.get_or_insert(now.as_secs_f64());
        if let Some(container) = container {
            let known = status.container_status.get_or_insert_default();
            known.container_id.get_or_insert_with(|| container.into());
            if known.network_infos.is_empty() {
                known.network_infos.extend(self.network_of(key));
            }
        }
        self.add_checks(key, status);
    }

    /// Where a task is reached that has the machine's network: what finds services by
    /// tasks reads it in their statuses (rule 90).
    fn network_of(&self, key: &TaskKey) -> Option<v1::NetworkInfo> {
        let ip = self.options.executor_ip?;
        let task = self.tasks.get(key)?;
        let executor = task.home.executor().and_then(|id| self.executors.get(&key.executor(id)));
        let holder = executor.and_then(|executor| executor.info.container.as_ref());
        if has_own_network(task.info.container.as_ref()) || has_own_network(holder) {
            return None;
        }
        let protocol = match ip {
            IpAddr::V4(_) => v1::network_info::Protocol::IPv4,
            IpAddr::V6(_) => v1::network_info::Protocol::IPv6,
        };
        let address = v1::network_info::IpAddress {
            protocol: Some(protocol.into()),
            ip_address: Some(ip.to_string()),
        };
        Some(v1::NetworkInfo { ip_addresses: vec![address], ..Default::default() })
    }

    /// What the agent's own checks say of the task (rule 61): each status tells of the
    /// check; health is told while the task runs, and when it ends it.
    fn add_checks(&self, key: &TaskKey, status: &mut TaskStatus) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(checks) = &task.checks else { return };
        status.check_status = checks.status().cloned();
        let unhealthy = task.kill == Some(KillCause::Unhealthy);
        status.healthy = match status.state() {
            TaskState::TaskRunning => checks.healthy(),
            TaskState::TaskKilled | TaskState::TaskKilling => unhealthy.then_some(false),
            _ => None,
        };
    }

    pub(super) fn is_shutting_down(&self, framework: &FrameworkId) -> bool {
        self.frameworks.get(framework).is_some_and(|framework| framework.shutting_down)
    }

    pub(super) fn persist_state(&self, key: &TaskKey, out: &mut Effects) {
        if let Some(task) = self.tasks.get(key) {
            out.persist.push(StoreOp::PutTaskState(key.clone(), task.state_record()));
        }
    }

    /// Sends the oldest update, unless it is in flight or there is no master.
    fn send_head(&mut self, now: Time, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Link::Registered { .. } = self.link else { return };
        if task.retry.is_some() || task.updates.is_empty() {
            return;
        }
        let wait = self.options.update_retry.0;
        task.retry = Some(wait);
        self.timers.set(Timer::Retry(key.clone()), now + wait);
        self.transmit(key, out);
    }

    fn transmit(&self, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(status) = task.updates.front() else { return };
        let update = mezz::StatusUpdate {
            framework_id: (&key.framework).into(),
            status: status.clone(),
            latest_state: task.latest.into(),
        };
        // Always behind the store: what is acknowledged must not be forgotten.
        out.after_persist.extend(self.to_master(agent_message::Message::StatusUpdate(update)));
    }

    pub(super) fn on_retry(&mut self, now: Time, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(wait) = task.retry else { return };
        let wait = wait.saturating_mul(2).min(self.options.update_retry.1);
        task.retry = Some(wait);
        self.timers.set(Timer::Retry(key.clone()), now + wait);
        self.transmit(key, out);
    }

    /// A master was found: everything unacknowledged goes out again.
    pub(super) fn send_all(&mut self, now: Time, out: &mut Effects) {
        let keys: Vec<TaskKey> = self.tasks.keys().cloned().collect();
        for key in &keys {
            self.send_head(now, key, out);
        }
    }

    /// A framework came back: what it has not acknowledged goes out again, whenever
    /// the next try would have been.
    pub(super) fn send_again(&mut self, now: Time, framework: &FrameworkId, out: &mut Effects) {
        let keys: Vec<TaskKey> = self.tasks_of(framework).cloned().collect();
        for key in &keys {
            if let Some(task) = self.tasks.get_mut(key) {
                task.retry = None;
            }
            self.send_head(now, key, out);
        }
    }

    /// The master was lost: nothing is in flight any more.
    pub(super) fn pause_updates(&mut self) {
        for (key, task) in &mut self.tasks {
            if task.retry.take().is_some() {
                self.timers.cancel(&Timer::Retry(key.clone()));
            }
        }
    }

    /// One that does not match the oldest update is ignored (rule 35).
    pub(super) fn on_acknowledgement(
        &mut self,
        now: Time,
        ack: &mezz::StatusUpdateAcknowledgement,
        out: &mut Effects,
    ) {
        let key = TaskKey {
            framework: FrameworkId::from(&ack.framework_id),
            task: TaskId::from(&ack.task_id),
        };
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let matches =
            task.updates.front().is_some_and(|head| head.uuid.as_ref() == Some(&ack.uuid));
        if !matches {
            return;
        }
        remember(&mut task.acknowledged, ack.uuid.clone());
        task.retry = None;
        let done = task.updates.len() == 1 && !task.is_live();
        self.timers.cancel(&Timer::Retry(key.clone()));
        self.change_updates(&key, out, VecDeque::pop_front);
        self.catch_up(now, &key, out);
        if done {
            self.forget_task(&key, out);
        } else {
            self.persist_state(&key, out);
            self.send_head(now, &key, out);
        }
    }

    /// Takes the task out of all tables, and its framework with the last one.
    pub(super) fn forget_task(&mut self, key: &TaskKey, out: &mut Effects) {
        self.change_updates(key, out, VecDeque::clear);
        let Some(task) = self.tasks.remove(key) else { return };
        debug_assert!(!task.is_live());
        self.timers.cancel(&Timer::Retry(key.clone()));
        out.persist.push(StoreOp::RemoveTask(key.clone()));
        out.now.push(Effect::Change(Change::TaskForgotten(key.clone())));
        self.forget_idle_framework(&key.framework, out);
    }

    pub(super) fn forget_idle_framework(&mut self, id: &FrameworkId, out: &mut Effects) {
        let idle = self.tasks_of(id).next().is_none() && self.executors_of(id).next().is_none();
        if idle && self.frameworks.remove(id).is_some() {
            out.persist.push(StoreOp::RemoveFramework(id.clone()));
            out.now.push(Effect::Change(Change::FrameworkForgotten(id.clone())));
        }
    }

    pub(super) fn tasks_of(&self, framework: &FrameworkId) -> impl Iterator<Item = &TaskKey> {
        let first = TaskKey { framework: framework.clone(), task: TaskId::new("") };
        self.tasks.range(first..).map(|(key, _)| key).take_while({
            let framework = framework.clone();
            move |key| key.framework == framework
        })
    }

    /// What a partition-aware framework is told instead of TASK_LOST.
    pub(super) fn lost_or(&self, framework: &FrameworkId, aware: TaskState) -> TaskState {
        use v1::framework_info::capability::Type::PartitionAware;
        match self.frameworks.get(framework) {
            Some(framework) if framework.has(PartitionAware) => aware,
            _ => TaskState::TaskLost,
        }
    }

    /// What a task is told that was to end and did.
    pub(super) fn killed(&self, key: &TaskKey, cause: KillCause, ran: bool) -> Verdict {
        let limitation = self.tasks.get(key).and_then(|task| task.limitation.as_ref());
        match (cause, ran) {
            (KillCause::Limitation, _) if let Some(limitation) = limitation => limited(limitation),
            (KillCause::MaxCompletion, _) => Verdict::new(
                TaskState::TaskFailed,
                Reason::MaxCompletionTimeReached,
                "max_completion_time is over",
            ),
            (KillCause::Drain | KillCause::Gone, _) => Verdict::new(
                self.drained_state(key, cause),
                Reason::AgentDraining,
                "killed: the agent is being drained",
            ),
            (KillCause::Group, ran) => Verdict {
                state: TaskState::TaskKilled,
                reason: (!ran).then_some(Reason::TaskKilledDuringLaunch),
                message: "killed: another task of its group failed or was killed".to_owned(),
            },
            (_, false) => Verdict::new(
                TaskState::TaskKilled,
                Reason::TaskKilledDuringLaunch,
                "killed before it was started",
            ),
            (KillCause::Unhealthy, true) => Verdict {
                state: TaskState::TaskKilled,
                reason: None,
                message: "killed: its health check failed too often".to_owned(),
            },
            (_, true) => Verdict {
                state: TaskState::TaskKilled,
                reason: None,
                message: "killed on request".to_owned(),
            },
        }
    }
}

/// What readers see of an update.
fn updated(key: &TaskKey, status: &mut TaskStatus) -> Effect {
    // It may be large, and is for the framework alone.
    let data = status.data.take();
    let shown = Box::new(status.clone());
    status.data = data;
    let state = status.state();
    Effect::Change(Change::TaskUpdated { task: key.clone(), state, status: shown })
}

fn remember(acknowledged: &mut VecDeque<Vec<u8>>, uuid: Vec<u8>) {
    if acknowledged.len() == REMEMBERED_UUIDS {
        acknowledged.pop_front();
    }
    acknowledged.push_back(uuid);
}
