//! What a task's state means for its driver.

use std::time::Duration;

use mezz_proto::{
    time::Time,
    v1::{self, TaskState, task_status::Reason},
};

use super::{
    ASK_AGAIN, Attempt, Core, DriverState, FIRST_PAUSE, GOOD_RUN, LONGEST_PAUSE, Output,
    Submission, UNKNOWN_FOR, short,
};
use crate::{docker, policy::DOUBT};

impl Core {
    pub(super) fn update(&mut self, now: Time, status: &v1::TaskStatus, out: &mut Vec<Output>) {
        let Ok(state) = TaskState::try_from(status.state) else { return };
        let task = &status.task_id.value;
        let Some(id) = self.tasks.get(task).cloned() else {
            // A run that was given up, come back.
            if !state.is_terminal() && !absent(state) {
                let agent = status.agent_id.as_ref().map(|a| a.value.clone());
                out.push(Output::Kill { task: task.clone(), agent });
            }
            return;
        };
        if state != TaskState::TaskUnknown {
            self.unknown.remove(&id);
        }
        let text = status.message.as_deref().unwrap_or("").trim();
        let reason = status.reason.and_then(|r| Reason::try_from(r).ok());
        match state {
            TaskState::TaskStaging | TaskState::TaskStarting | TaskState::TaskKilling => {
                self.found(&id, out);
            }
            TaskState::TaskRunning => self.running(now, &id, out),
            TaskState::TaskFinished => self.end(now, &id, DriverState::Finished, "", out),
            TaskState::TaskError => self.end(now, &id, DriverState::Error, text, out),
            TaskState::TaskFailed => self.failed(now, &id, reason, text, out),
            TaskState::TaskKilled => {
                let drained = matches!(reason, Some(Reason::AgentDraining));
                match self.submissions.get(&id) {
                    Some(s) if drained && !s.kill => {
                        self.gone(now, &id, or(text, "its agent is drained"), out);
                    }
                    Some(s) if s.kill => {
                        self.end(now, &id, DriverState::Killed, "it was killed on request", out);
                    }
                    _ => self.end(now, &id, DriverState::Killed, or(text, "it was killed"), out),
                }
            }
            TaskState::TaskUnreachable => self.unreachable(now, &id, text, out),
            TaskState::TaskUnknown => self.unknown(now, &id, text, out),
            // Lost, gone, dropped.
            _ => {
                let message = format!(
                    "it was lost with its agent or offer: {}",
                    or(text, state.as_str_name())
                );
                self.gone(now, &id, &message, out);
            }
        }
    }

    fn running(&mut self, now: Time, id: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        let Some(attempt) = &mut submission.attempt else { return };
        if submission.kill {
            // Whoever did not know it may not have had the kill.
            let (task, agent) = (attempt.task.clone(), Some(attempt.agent.clone()));
            out.push(Output::Kill { task, agent });
        }
        if attempt.running.is_some() && submission.state == DriverState::Running {
            return;
        }
        attempt.running.get_or_insert(now.as_nanos());
        submission.state = DriverState::Running;
        submission.message = None;
        out.push(Output::Put(Box::new(submission.clone())));
    }

    fn failed(
        &mut self,
        now: Time,
        id: &str,
        reason: Option<Reason>,
        text: &str,
        out: &mut Vec<Output>,
    ) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        if submission.kill {
            let message = format!("it was killed on request: {}", or(text, "it failed"));
            return self.end(now, id, DriverState::Killed, &message, out);
        }
        if submission.job.docker.is_some()
            && let Some(why) = docker::lacks_engine(reason, text)
            && let Some(attempt) = &submission.attempt
        {
            let message = format!("{} {why}", attempt.host);
            self.unable.learn(now, attempt.agent.as_str().into(), why.to_owned());
            return self.requeue(id, &message, out);
        }
        // The dispatcher that served its files has gone meanwhile.
        let elsewhere = |a: &Attempt| a.running.is_none() && a.by != self.options.address;
        if reason == Some(Reason::ContainerLaunchFailed)
            && !submission.job.uploads.is_empty()
            && submission.attempt.as_ref().is_some_and(elsewhere)
        {
            return self.requeue(id, text, out);
        }
        let host = submission.attempt.as_ref().map_or("", |a| a.host.as_str());
        let mut message = format!(
            "{} on {host}; `mezz spark logs {id} --stderr` shows what it wrote",
            or(text, "it failed, and the agent did not say how")
        );
        if reason == Some(Reason::ContainerLimitationMemory) {
            message = format!(
                "killed by the agent for exceeding its memory limit of {} MiB; raise \
                 spark.driver.memoryOverhead or spark.driver.memory ({message})",
                submission.job.mem_mib
            );
        }
        self.relaunch_or_fail(now, id, &message, out);
    }

    fn unreachable(&mut self, now: Time, id: &str, text: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        let message = format!("its agent cannot be reached: {}", or(text, "no reason given"));
        if submission.job.supervise && !submission.kill {
            return self.relaunch_or_fail(now, id, &message, out);
        }
        if submission.state != DriverState::Unknown {
            submission.state = DriverState::Unknown;
            submission.message = Some(short(&message));
            out.push(Output::Put(Box::new(submission.clone())));
        }
    }

    /// Its agent has it, and that is all that is told.
    fn found(&mut self, id: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        if submission.state != DriverState::Unknown {
            return;
        }
        submission.state = match submission.live() {
            Some(attempt) if attempt.running.is_some() => DriverState::Running,
            _ => starting(submission),
        };
        submission.message = None;
        out.push(Output::Put(Box::new(submission.clone())));
    }

    /// The master does not know the task: its agent may have it. One that was never heard
    /// to run is waited for as long as agents may take to come back.
    fn unknown(&mut self, now: Time, id: &str, text: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        let ran = submission.live().is_some_and(|a| a.running.is_some());
        let (since, ask) = self.unknown.entry(id.to_owned()).or_insert((now, now));
        *ask = now + ASK_AGAIN;
        let message = or(text, "the master does not know it");
        let patience = if ran { UNKNOWN_FOR } else { DOUBT };
        if now.since(*since) >= patience {
            self.unknown.remove(id);
            return self.gone(now, id, &format!("it was lost: {message}"), out);
        }
        if submission.state != DriverState::Unknown {
            submission.state = DriverState::Unknown;
            submission.message = Some(short(message));
            out.push(Output::Put(Box::new(submission.clone())));
        }
    }

    /// The task is no more, by no fault of its own.
    fn gone(&mut self, now: Time, id: &str, message: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get(id) else { return };
        let ran = submission.live().is_some_and(|a| a.running.is_some());
        match submission.kill {
            true => self.end(now, id, DriverState::Killed, message, out),
            // It never ran: nothing is done twice.
            false if !ran => self.requeue(id, message, out),
            false => self.relaunch_or_fail(now, id, message, out),
        }
    }

    /// Back to its place in the queue.
    fn requeue(&mut self, id: &str, message: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        submission.state = starting(submission);
        submission.message = Some(short(message));
        if let Some(attempt) = &mut submission.attempt {
            attempt.live = false;
            self.tasks.remove(&attempt.task);
        }
        out.push(Output::Put(Box::new(submission.clone())));
    }

    fn relaunch_or_fail(&mut self, now: Time, id: &str, message: &str, out: &mut Vec<Output>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        if !submission.job.supervise {
            return self.end(now, id, DriverState::Failed, message, out);
        }
        submission.not_before = Some((now + pause(now, submission)).as_nanos());
        submission.failures = submission.failures.saturating_add(1);
        self.requeue(id, message, out);
    }

    /// Every task of ours has been ended by the master.
    pub(super) fn forgotten(&mut self, now: Time, out: &mut Vec<Output>) {
        self.unknown.clear();
        let live: Vec<String> = self.tasks.values().cloned().collect();
        for id in live {
            self.gone(now, &id, "the master has ended the dispatcher's framework", out);
        }
    }
}

/// The state of a driver that is to be started or starts.
fn starting(submission: &Submission) -> DriverState {
    if submission.failures > 0 { DriverState::Relaunching } else { DriverState::Submitted }
}

/// Before it is started again. Forgets failures that were followed by a good run.
fn pause(now: Time, submission: &mut Submission) -> Duration {
    let since = submission.attempt.as_ref().and_then(|a| a.running);
    if since.is_some_and(|at| now.since(Time::from_nanos(at)) >= GOOD_RUN) {
        submission.failures = 0;
    }
    let factor = 1u32.checked_shl(submission.failures).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// The master says that it does not have the task, now or for good.
fn absent(state: TaskState) -> bool {
    matches!(state, TaskState::TaskUnreachable | TaskState::TaskUnknown)
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
