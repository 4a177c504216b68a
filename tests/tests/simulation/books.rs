//! What was asked for and what was told of it, as nobody in the cluster knows it.

use std::collections::{BTreeMap, BTreeSet};

use mezz_master::registry::RegistryOp;
use mezz_proto::{
    time::Time,
    v1::{self, TaskState},
};

/// A task's page.
#[derive(Debug)]
pub struct Job {
    /// The framework's number.
    pub framework: usize,
    /// The agent of the offer.
    pub agent: String,
    pub offer: String,
    pub asked: Time,
    /// What the framework heard last.
    pub view: Option<TaskState>,
    /// The framework heard that it never started.
    dropped: bool,
    /// The end that the agent told the framework.
    pub ended: Option<TaskState>,
    /// And that the framework has acknowledged.
    acknowledged: bool,
    /// The end that the agent has told a master.
    pub reported: Option<TaskState>,
    /// How often it was started.
    pub started: u32,
}

impl Job {
    /// The framework thinks that it may yet run.
    pub fn may_run(&self) -> bool {
        self.view.is_none_or(|state| !state.is_terminal())
    }
}

#[derive(Debug)]
pub struct Books {
    /// By framework id and task id.
    pub jobs: BTreeMap<(String, String), Job>,
    /// Frameworks that a master has decided to end: what they hold is free to it.
    ending: BTreeSet<String>,
    /// Frameworks that are ended for good: their tasks are nobody's.
    removed: BTreeSet<String>,
    /// Agents that the registry has known to be unreachable.
    pub lost_agents: BTreeSet<String>,
    /// Frameworks start tasks, and kill some.
    pub launching: bool,
    /// Terms that began to decide.
    pub terms: u64,
    pub faults: u64,
    /// The newest write of the registry: fence and number.
    pub written: (i64, u64),
}

impl Default for Books {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            ending: BTreeSet::new(),
            removed: BTreeSet::new(),
            lost_agents: BTreeSet::new(),
            launching: true,
            terms: 0,
            faults: 0,
            written: (0, 0),
        }
    }
}

fn key(framework: &str, task: &str) -> (String, String) {
    (framework.to_owned(), task.to_owned())
}

impl Books {
    /// A framework has asked for a task.
    pub fn asked(
        &mut self,
        now: Time,
        framework: usize,
        id: &str,
        task: &str,
        agent: &str,
        offer: &str,
    ) {
        let job = Job {
            framework,
            agent: agent.to_owned(),
            offer: offer.to_owned(),
            asked: now,
            view: None,
            dropped: false,
            ended: None,
            acknowledged: false,
            reported: None,
            started: 0,
        };
        self.jobs.insert(key(id, task), job);
    }

    pub fn job(&mut self, framework: &str, task: &str) -> Option<&mut Job> {
        self.jobs.get_mut(&key(framework, task))
    }

    pub fn known_job(&self, framework: &str, task: &str) -> Option<&Job> {
        self.jobs.get(&key(framework, task))
    }

    fn of<'a>(&'a self, framework: &'a str) -> impl Iterator<Item = (&'a String, &'a Job)> {
        let of = self.jobs.range(key(framework, "")..);
        of.take_while(move |((id, _), _)| id == framework).map(|((_, task), job)| (task, job))
    }

    /// Whose task this is: the last framework that asked for it.
    pub fn framework_of(&self, task: &str) -> Option<String> {
        let mut of = self.jobs.keys().rev().filter(|(_, name)| name == task);
        of.next().map(|(framework, _)| framework.clone())
    }

    /// How many tasks a framework thinks that it has.
    pub fn live(&self, framework: &str) -> usize {
        self.of(framework).filter(|(_, job)| job.may_run()).count()
    }

    /// The same, with the agent of each.
    pub fn not_ended(&self, framework: &str) -> Vec<(String, String)> {
        let live = self.of(framework).filter(|(_, job)| job.may_run());
        live.map(|(task, job)| (task.clone(), job.agent.clone())).collect()
    }

    /// A framework hears of a task.
    ///
    /// # Errors
    /// The rule that this breaks.
    pub fn updated(&mut self, framework: &str, status: &v1::TaskStatus) -> Result<(), String> {
        let (task, state) = (status.task_id.value.as_str(), status.state());
        let Some(job) = self.job(framework, task) else {
            return Err(format!("{framework} hears of {task}, which it never asked for"));
        };
        if let Some(end) = job.ended.filter(|end| *end != state) {
            let acknowledged = if job.acknowledged { ", which it has acknowledged" } else { "" };
            return Err(format!("{task} is {state:?} after its end, {end:?}{acknowledged}"));
        }
        let dropped = state == TaskState::TaskDropped;
        // An answer to a question that was asked before it heard of the end: the master keeps
        // nothing of what it dropped, and judges by the agent that is named (rule 38).
        if job.dropped && is_guess(status) {
            return Ok(());
        }
        if job.dropped && !dropped && (status.uuid.is_some() || !state.is_terminal()) {
            return Err(format!("{task} is {state:?} after it was dropped"));
        }
        job.dropped |= dropped;
        if state.is_terminal() && status.uuid.is_some() {
            job.ended = Some(state);
        }
        job.view = Some(state);
        Ok(())
    }

    /// A framework has sent an acknowledgement.
    pub fn acknowledged(&mut self, framework: &str, status: &v1::TaskStatus) {
        let ends = status.state().is_terminal();
        if let Some(job) = self.job(framework, &status.task_id.value) {
            job.acknowledged |= ends;
        }
    }

    /// An agent tells a master of an end.
    ///
    /// # Errors
    /// The rule that this breaks.
    pub fn reported(
        &mut self,
        framework: &str,
        task: &str,
        state: TaskState,
    ) -> Result<(), String> {
        let Some(job) = self.job(framework, task) else {
            return Err(format!("an agent reports {task}, which nobody asked for"));
        };
        match job.reported {
            Some(before) if before != state => {
                Err(format!("{task} has two ends: {before:?} and {state:?}"))
            }
            _ => {
                job.reported = Some(state);
                Ok(())
            }
        }
    }

    /// A master writes this.
    pub fn decided(&mut self, op: &RegistryOp) {
        if let RegistryOp::PutFramework(record) = op
            && record.completed_time.is_some()
            && let Some(id) = &record.framework.id
        {
            self.ending.insert(id.value.clone());
        }
    }

    /// The registry, or the framework itself, knows that it is no more.
    pub fn removed(&mut self, framework: &str) {
        self.removed.insert(framework.to_owned());
    }

    pub fn is_ending(&self, framework: &str) -> bool {
        self.ending.contains(framework) || self.removed.contains(framework)
    }

    pub fn is_removed(&self, framework: &str) -> bool {
        self.removed.contains(framework)
    }
}

/// What a master answers of a task that it does not know.
fn is_guess(status: &v1::TaskStatus) -> bool {
    status.reason() == v1::task_status::Reason::Reconciliation
        && matches!(status.state(), TaskState::TaskUnreachable | TaskState::TaskUnknown)
}
