//! The offer policy of fine-grained mode: one cluster task for each Spark task,
//! which holds cores only while it runs. Pure, as its coarse-grained sibling is.
//!
//! Which task runs where is Spark's own decision, because only the driver knows
//! where data is; the policy decides which offers the driver is shown, on which
//! executor of an agent tasks run, and sees that every offer is answered: by the
//! driver, or without it when it takes too long. A driver that has nothing left to
//! start is offered nothing until it asks again.

mod ahead;
mod answers;
mod executors;
mod offers;
mod shuffle;
mod types;

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Resources, Scalar},
    time::Time,
};
use thiserror::Error;

pub use self::types::{
    Answer, FineAction, FineEvent, FineLaunch, FineOptions, Shown, TaskAsk, TaskNo,
};
use super::{
    ExecutorNo, Exit, ExitKind,
    doubt::Doubts,
    failures::Failures,
    limit::Limit,
    notice::{Notice, Unable},
    shuffle::Services,
};

/// How long an offer stays refused while the driver has tasks that would rather
/// run elsewhere: Spark waits so long in steps of this order (`spark.locality.wait`).
pub const SHORT_REFUSAL: Duration = Duration::from_secs(1);

/// How long an offer stays refused while `spark.cores.max` is reached. What becomes
/// free by our own tasks' ends is offered all the same.
pub const FULL_REFUSAL: Duration = Duration::from_secs(5);

/// How long the driver may look at offers. One that hangs must not keep others
/// from them.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An executor that is to go, and was not seen to, is told so again after this time;
/// each time after twice the time before. Its agent may be away.
pub const FIRST_REMINDER: Duration = Duration::from_secs(5);

/// The longest time between two such words.
pub const LAST_REMINDER: Duration = Duration::from_secs(300);

/// For so long an executor is told so: later its agent, should it come back, tells of it
/// with its tasks or its first offer.
pub const REMINDED_FOR: Duration = Duration::from_secs(24 * 3600);

/// So many executors are told so; of more than that the oldest are left to their agents'
/// words. Together they cost the master four calls a second at most, in the long run.
pub const MAX_REMINDED: usize = 1000;

/// Bytes of tasks that go with one offer: a master takes calls of 4 MiB.
pub const MAX_LAUNCH_BYTES: usize = 3 << 20;

/// How far an executor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Only a number yet, which the driver was shown.
    Proposed,
    /// Tasks were sent to it.
    Launched,
    /// Heard of since then.
    Up(Time),
}

/// Whether an executor's end is certain. If not, it may live on, or come back with its
/// agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Yes,
    No,
}

#[derive(Clone, Debug)]
struct Executor {
    no: ExecutorNo,
    /// Counts launches. Numbers are given before it is known whether they will be used.
    launch: ExecutorNo,
    hostname: String,
    progress: Progress,
    /// Whether it has ended a task, whatever way.
    done: bool,
    resources: Resources,
}

#[derive(Clone, Debug)]
struct Task {
    executor: ExecutorNo,
    agent: AgentId,
    cpus: Scalar,
}

/// When an executor is told again that it is to go.
#[derive(Clone, Copy, Debug)]
struct Reminder {
    since: Time,
    at: Time,
    pause: Duration,
}

/// The offers of one agent and role, shown as one.
#[derive(Clone, Debug)]
struct Group {
    offers: Vec<OfferId>,
    agent: AgentId,
    role: Option<String>,
    executor: ExecutorNo,
    free: Resources,
    /// What the driver may take of it for tasks.
    cpus: Scalar,
}

#[derive(Clone, Debug)]
struct Batch {
    groups: Vec<Group>,
    until: Time,
}

/// A broken promise of the policy; seeing one is a bug.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FineViolation {
    /// More cores than `spark.cores.max`.
    #[error("tasks hold {held} cores, spark.cores.max is {max}")]
    TooManyCores {
        /// Held by all tasks.
        held: Scalar,
        /// Allowed.
        max: u32,
    },
    /// A task on an executor that is not there.
    #[error("task {task} is on executor {executor}, which is gone")]
    Orphan {
        /// The task.
        task: TaskNo,
        /// Its executor.
        executor: ExecutorNo,
    },
    /// An executor in use that is to end.
    #[error("executor {executor} on agent {agent} is in use and is to end")]
    Undead {
        /// Where.
        agent: AgentId,
        /// Which.
        executor: ExecutorNo,
    },
}

/// The policy's whole state. See the [module](self).
#[derive(Clone, Debug)]
pub struct FinePolicy {
    options: FineOptions,
    services: Services,
    /// One for each agent.
    executors: BTreeMap<AgentId, Executor>,
    last: ExecutorNo,
    last_launch: ExecutorNo,
    tasks: BTreeMap<TaskNo, Task>,
    /// Those that the master does not know.
    doubts: Doubts<TaskNo>,
    /// What all of `tasks` hold.
    held: Scalar,
    /// Shown to the driver and not yet answered.
    batches: BTreeMap<u64, Batch>,
    last_batch: u64,
    /// Executors that were given up, and may live or come back with their agents.
    abandoned: BTreeMap<(AgentId, ExecutorNo), Reminder>,
    /// Hosts where tasks that wait would rather run.
    preferred: BTreeSet<String>,
    revivals: u64,
    suppressed: bool,
    /// Whether an offer was refused since the last revival.
    refused: bool,
    /// Agents that had no room for an executor, since the last revival. What they
    /// offered then is refused for long, and is enough once an executor is there.
    unfit: BTreeSet<AgentId>,
    failures: Failures,
    limit: Limit,
    given_up: bool,
    /// Executors that are still to be started on the first offers, unless the driver has
    /// tasks before; absent after that.
    ahead: Option<usize>,
    unable: Unable,
    notice: Notice,
}

impl FinePolicy {
    /// Before it is subscribed; see [`wants_offers`](Self::wants_offers).
    pub fn new(options: FineOptions) -> Self {
        Self {
            ahead: Some(options.ahead).filter(|count| *count > 0),
            services: Services::new(options.shuffle),
            limit: Limit::new(options.failures),
            options,
            executors: BTreeMap::new(),
            last: ExecutorNo(0),
            last_launch: ExecutorNo(0),
            tasks: BTreeMap::new(),
            doubts: Doubts::default(),
            held: Scalar::default(),
            batches: BTreeMap::new(),
            last_batch: 0,
            abandoned: BTreeMap::new(),
            preferred: BTreeSet::new(),
            revivals: 0,
            suppressed: true,
            refused: false,
            unfit: BTreeSet::new(),
            failures: Failures::default(),
            given_up: false,
            unable: Unable::default(),
            notice: Notice::default(),
        }
    }

    /// Takes in one event and appends what is to be done about it. An event that
    /// comes twice, or late, does no harm.
    pub fn handle(&mut self, now: Time, event: FineEvent, out: &mut Vec<FineAction>) {
        self.failures.pass(now);
        match event {
            FineEvent::Offers(offers) => self.offered(now, offers, out),
            FineEvent::Present { agent, executors } => self.present(now, &agent, &executors, out),
            FineEvent::Unable { agent, why } => self.unable.learn(now, agent, why),
            FineEvent::Answer(answer) => self.answered(answer, out),
            FineEvent::Prefer(hosts) => self.preferred = hosts,
            FineEvent::Revive(number) => self.revive(number, out),
            FineEvent::Kill(executors) => {
                for no in executors {
                    let exit = Exit {
                        kind: ExitKind::Silent,
                        code: -1,
                        by_app: true,
                        reason: "its heartbeats to the driver have stopped".to_owned(),
                    };
                    self.executor_ended(now, no, exit, Seen::No, out);
                }
            }
            FineEvent::Running { task, on } => self.running(now, task, on, out),
            FineEvent::Alive { task, on } => self.alive(task, on, out),
            FineEvent::Unknown(task) => {
                if self.tasks.contains_key(&task) {
                    self.doubts.raise(now, task);
                }
            }
            FineEvent::Done(task) => self.done(now, task, out),
            FineEvent::Undone { task, by_app, reason } => {
                self.undone(now, task, by_app, reason, out);
            }
            FineEvent::LostWith { task, exit } => {
                if let Some(executor) = self.tasks.get(&task).map(|t| t.executor) {
                    let seen = if exit.kind == ExitKind::Lost { Seen::No } else { Seen::Yes };
                    self.executor_ended(now, executor, exit, seen, out);
                }
            }
            FineEvent::ExecutorEnded { executor, exit } => {
                self.abandoned.retain(|(_, no), _| *no != executor);
                self.executor_ended(now, executor, exit, Seen::Yes, out);
            }
            FineEvent::AgentLost(agent) => {
                let lost = Exit::lost("it was lost with its agent");
                self.end(now, &agent, lost, Seen::No, out);
            }
            FineEvent::ServiceRunning { service, agent } => {
                self.service_runs(now, service, agent, out)
            }
            FineEvent::Disconnected => {
                self.doubts.clear();
                self.services.clear_doubts();
            }
            FineEvent::ServiceUnknown(service) => self.services.doubt(now, service),
            FineEvent::ServiceEnded { service, exit } => {
                self.service_ended(now, service, exit, out);
            }
            FineEvent::Tick => {}
        }
        self.time_out(now, out);
        self.say_avoided(out);
        self.say_waiting(now, out);
    }

    /// Whether it wants offers before the driver has tasks; if not, it is to be subscribed
    /// with its roles suppressed.
    pub fn wants_offers(&self) -> bool {
        self.ahead.is_some()
    }

    /// When to send [`FineEvent::Tick`]; earlier ticks are harmless.
    pub fn next_deadline(&self) -> Option<Time> {
        let batches = self.batches.values().map(|b| b.until);
        let reminders = self.abandoned.values().map(|r| r.at);
        let doubts = self.doubts.next().into_iter().chain(self.services.next_doubt());
        batches.chain(reminders).chain(doubts).chain(self.notice.next_deadline()).min()
    }

    /// Where a task runs, if it does.
    pub fn place_of(&self, task: TaskNo) -> Option<(ExecutorNo, &AgentId)> {
        self.tasks.get(&task).map(|t| (t.executor, &t.agent))
    }

    /// Checks what must always hold.
    ///
    /// # Errors
    /// The first [`FineViolation`] found.
    pub fn check_invariants(&self) -> Result<(), FineViolation> {
        if let Some(max) = self.options.cores_max
            && self.held > Scalar::from_units(u64::from(max))
        {
            return Err(FineViolation::TooManyCores { held: self.held, max });
        }
        if let Some((agent, executor)) =
            self.abandoned.keys().find(|(a, no)| self.executors.get(a).is_some_and(|e| e.no == *no))
        {
            let (agent, executor) = (agent.clone(), *executor);
            return Err(FineViolation::Undead { agent, executor });
        }
        for (no, task) in &self.tasks {
            let there = self.executors.get(&task.agent);
            if !there.is_some_and(|e| e.no == task.executor && e.progress != Progress::Proposed) {
                return Err(FineViolation::Orphan { task: *no, executor: task.executor });
            }
        }
        Ok(())
    }
}
