//! The tasks of `mezz run` and what becomes of them. No I/O.

use std::collections::BTreeMap;

use mezz_sdk::v1;

/// A task that never started is launched again this often.
const MAX_LAUNCHES: u32 = 5;

/// The exit status of a task that did not say one.
const NO_STATUS: u8 = 1;

/// One of the instances.
#[derive(Debug)]
struct Instance {
    /// Its number, from 1.
    number: usize,
    launches: u32,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Waits for an offer.
    Pending,
    /// Launched under this id; the newest state that was told.
    Launched { id: String, agent: v1::AgentId, host: String, state: v1::TaskState },
    /// Ended with this exit status.
    Ended(u8),
}

/// Something that happened to an instance.
#[derive(Debug, PartialEq)]
pub struct News {
    /// The task's id.
    pub task_id: String,
    /// The instance's number, from 1.
    pub number: usize,
    /// For the user.
    pub text: String,
    /// Where its output can be read from now on.
    pub output_at: Option<v1::AgentId>,
}

/// All instances of one command.
#[derive(Debug)]
pub struct Job {
    name: String,
    instances: Vec<Instance>,
    /// Of the first that failed.
    failure: Option<u8>,
    killed: bool,
}

impl Job {
    /// Nothing launched.
    pub fn new(name: &str, instances: usize) -> Self {
        Self {
            name: name.to_owned(),
            instances: (1..=instances)
                .map(|number| Instance { number, launches: 0, state: State::Pending })
                .collect(),
            failure: None,
            killed: false,
        }
    }

    /// The user's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many wait for an offer; none once the user has killed the job.
    pub fn pending(&self) -> usize {
        if self.killed {
            return 0;
        }
        self.instances.iter().filter(|i| i.state == State::Pending).count()
    }

    /// Whether there is nothing more to wait for.
    pub fn is_over(&self) -> bool {
        self.instances.iter().all(|i| match i.state {
            State::Pending => self.killed,
            State::Launched { .. } => false,
            State::Ended(_) => true,
        })
    }

    /// The exit status: 0 if all finished, else that of the first that failed.
    pub fn exit_status(&self) -> u8 {
        let unfinished = self.instances.iter().any(|i| i.state != State::Ended(0));
        self.failure.unwrap_or(if unfinished { NO_STATUS } else { 0 })
    }

    /// The next pending instance goes to this agent; the id of its task.
    pub fn launch(&mut self, agent: &v1::AgentId, host: &str) -> Option<String> {
        let instance = self.instances.iter_mut().find(|i| i.state == State::Pending)?;
        instance.launches += 1;
        let mut id = format!("{}-{}", self.name, instance.number);
        if instance.launches > 1 {
            id = format!("{id}.{}", instance.launches);
        }
        instance.state = State::Launched {
            id: id.clone(),
            agent: agent.clone(),
            host: host.to_owned(),
            state: v1::TaskState::TaskStaging,
        };
        Some(id)
    }

    /// The user wants it to end: the tasks to kill.
    pub fn kill(&mut self) -> Vec<(String, v1::AgentId)> {
        self.killed = true;
        let live = |i: &Instance| match &i.state {
            State::Launched { id, agent, .. } => Some((id.clone(), agent.clone())),
            _ => None,
        };
        self.instances.iter().filter_map(live).collect()
    }

    /// A task's status; `None` when it is no news.
    pub fn update(&mut self, status: &v1::TaskStatus) -> Option<News> {
        let task_id = &status.task_id.value;
        let killed = self.killed;
        let instance = self
            .instances
            .iter_mut()
            .find(|i| matches!(&i.state, State::Launched { id, .. } if id == task_id))?;
        let State::Launched { agent, host, state: last, .. } = &mut instance.state else {
            return None;
        };
        let state = status.state();
        // After a reconnection the master tells how a task ended, but not all: the
        // agent's own update follows, for nobody has acknowledged it yet.
        let retold = status.reason == Some(v1::task_status::Reason::Reconciliation as i32)
            && matches!(
                state,
                v1::TaskState::TaskFinished | v1::TaskState::TaskFailed | v1::TaskState::TaskKilled
            );
        if *last == state || retold {
            return None;
        }
        // What was never started has no sandbox, and neither has what the master
        // refused.
        let ran = state == v1::TaskState::TaskRunning
            || (state.is_terminal()
                && !matches!(*last, v1::TaskState::TaskRunning | v1::TaskState::TaskKilling)
                && status.source() != v1::task_status::Source::Master
                && status.reason != Some(v1::task_status::Reason::ContainerLaunchFailed as i32)
                && state != v1::TaskState::TaskDropped);
        let news = News {
            task_id: task_id.clone(),
            number: instance.number,
            text: describe(status, host),
            output_at: ran.then(|| agent.clone()),
        };
        *last = state;
        if state.is_terminal() {
            let again =
                state == v1::TaskState::TaskDropped && !killed && instance.launches < MAX_LAUNCHES;
            let code = exit_status(status);
            instance.state = if again { State::Pending } else { State::Ended(code) };
            if !again && code != 0 && self.failure.is_none() {
                self.failure = Some(code);
            }
        }
        Some(news)
    }

    /// How many tasks are in which state, for a line of progress.
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for instance in &self.instances {
            let state = match &instance.state {
                State::Pending => "waiting for offers".to_owned(),
                State::Launched { state, .. } => state.as_str_name().to_owned(),
                State::Ended(0) => "TASK_FINISHED".to_owned(),
                State::Ended(_) => "not finished".to_owned(),
            };
            *counts.entry(state).or_default() += 1;
        }
        let parts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
        parts.join(", ")
    }
}

/// `TASK_RUNNING on web1`, `TASK_FAILED: exited with status 3`.
fn describe(status: &v1::TaskStatus, host: &str) -> String {
    let state = status.state().as_str_name().to_owned();
    let message = status.message.as_deref().unwrap_or("").trim();
    match status.state() {
        v1::TaskState::TaskRunning => format!("{state} on {host}"),
        v1::TaskState::TaskFinished => state,
        _ if message.is_empty() => match status.reason {
            Some(_) => format!("{state}: {}", status.reason().as_str_name()),
            None => state,
        },
        _ => format!("{state}: {message}"),
    }
}

/// The status with which a task's program ended. The agent tells it in words:
/// the wire has no field for it.
fn exit_status(status: &v1::TaskStatus) -> u8 {
    if status.state() == v1::TaskState::TaskFinished {
        return 0;
    }
    let message = status.message.as_deref().unwrap_or("");
    message
        .strip_prefix("exited with status ")
        .and_then(|number| number.trim().parse().ok())
        .filter(|code| *code != 0)
        .unwrap_or(NO_STATUS)
}

#[cfg(test)]
mod tests;
