//! What the agent decides: a state machine without a clock, sockets, files or
//! a random source of its own.
//!
//! The shell feeds [`Event`]s, carries out [`Effects`] and calls
//! [`Core::on_deadline`] when [`Core::next_deadline`] has come. Rules are those
//! of the behaviour digest.

mod admission;
mod backlog;
mod check;
mod container;
mod describe;
mod doom;
mod drain;
mod effect;
mod environment;
mod event;
mod executor;
mod executor_launch;
mod gone;
mod ids;
mod invariants;
mod kill;
mod launch;
mod limits;
mod link;
mod outcome;
mod pod;
mod proof;
mod records;
mod recovery;
mod sandbox;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod timers;
mod update;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use mezz_proto::{
    ids::{AgentId, ContainerId, FrameworkId},
    time::Time,
    v1,
};

use self::{
    backlog::Backlog,
    ids::IdSource,
    link::Link,
    outcome::End,
    state::{Container, Executor, Framework, Task},
    timers::{Timer, Timers},
};
pub use self::{
    backlog::Intake,
    check::{Answer, NoAnswer, Probe, ProbeId},
    effect::{CallError, Change, Effect, Effects, Launch},
    event::{ConnectionId, Event, LinkId},
    invariants::Violation,
    proof::Proof,
    records::{
        DoomRecord, ExecutorRecord, LimitationRecord, SandboxRecord, StoreOp, TaskRecord,
        TaskStateRecord,
    },
    recovery::Recovered,
    sandbox::escape,
    state::{ExecutorKey, TaskKey, Token},
};
pub(crate) use self::{environment::DEFAULT_PATH, executor::check_update};

/// What the core needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// What the agent is, without `id`.
    pub agent: v1::AgentInfo,
    /// The program's version.
    pub version: String,
    /// The kernel's boot id, where there is one.
    pub boot_id: Option<String>,
    /// host:port of the agent's own API, told to the master and to executors.
    pub api_address: String,
    /// Sandboxes lie below it; absolute.
    pub work_dir: PathBuf,
    /// Native library of Mesos' JVM API, named to containers that see this machine's files.
    pub native_library: Option<PathBuf>,
    /// Whether containers can run as another user than the agent's own.
    pub switch_user: bool,
    /// What containers it can run.
    pub abilities: Abilities,
    /// Between SIGTERM and SIGKILL where no policy says.
    pub kill_grace: Duration,
    /// An executor that has not subscribed so long after its container began to run is
    /// killed.
    pub executor_registration_timeout: Duration,
    /// After a restart, executors have so long to come back.
    pub executor_reregistration_timeout: Duration,
    /// Between telling an executor to shut down and killing it.
    pub executor_shutdown_grace: Duration,
    /// Every executor has to show its token, those on this machine too.
    pub authenticate_executors: bool,
    /// What executors on this machine may listen on, for those that ask libprocess.
    pub executor_ip: Option<IpAddr>,
    /// First and longest wait before an update is sent again.
    pub update_retry: (Duration, Duration),
    /// More live tasks than this are refused.
    pub max_tasks: usize,
    /// Ids, uuids and tokens are drawn from it: random for each start.
    pub seed: [u8; 32],
}

/// What containers an agent can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// `ContainerInfo.type` DOCKER.
    pub docker: bool,
    /// `ContainerInfo.mesos.image`: there is a folder of unpacked images.
    pub images: bool,
    /// Namespaces, mounts and capabilities: the agent is root.
    pub isolation: bool,
}

/// The agent's state machine.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    ids: IdSource,
    agent_id: Option<AgentId>,
    /// How often the process was started, by its store.
    starts: u64,
    link: Link,
    frameworks: BTreeMap<FrameworkId, Framework>,
    tasks: BTreeMap<TaskKey, Task>,
    executors: BTreeMap<ExecutorKey, Executor>,
    containers: BTreeMap<ContainerId, Container>,
    connections: BTreeMap<ConnectionId, ExecutorKey>,
    timers: Timers,
    backlog: Backlog,
    /// Tasks that have not ended; what `max_tasks` bounds.
    live_tasks: usize,
    /// The number of the last attempt of a check.
    last_probe: u64,
    /// The master wants it empty, and starts nothing here.
    draining: Option<drain::Draining>,
    /// It was given up, and ends.
    leaving: Option<gone::Leaving>,
    /// What [`Event::Started`] has to look at.
    lost: recovery::Lost,
}

impl Core {
    /// Takes one event and appends what is to be done.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Effects) {
        match event {
            Event::Started => self.on_started(now, out),
            Event::LinkUp { link, master } => self.on_link_up(now, link, master, out),
            Event::LinkDown { link } => self.on_link_down(link, out),
            Event::Master { link, message } => self.on_master_message(now, link, *message, out),
            Event::ExecutorCall { connection, proof, call } => {
                self.on_executor_call(now, connection, &proof, *call, out);
            }
            Event::ExecutorDisconnected { connection } => {
                self.on_executor_disconnected(now, connection);
            }
            Event::ContainerLaunched { container, pid } => {
                self.on_container_launched(now, &container, pid, out);
            }
            Event::LaunchFailed { container, error } => {
                self.on_launch_failed(now, &container, error, out);
            }
            Event::ContainerLimited { container, limitation } => {
                self.on_container_limited(now, &container, limitation, out);
            }
            Event::ContainerEnded { container, termination, stderr_tail } => {
                let end = End { termination, stderr_tail };
                self.on_container_ended(now, &container, &end, out);
            }
            Event::Probed { container, probe, outcome } => {
                self.on_probed(now, &container, probe, &outcome, out);
            }
        }
        self.settle(out);
    }

    /// Does what is due at `now`. To be called when
    /// [`next_deadline`](Self::next_deadline) has come; harmless otherwise.
    pub fn on_deadline(&mut self, now: Time, out: &mut Effects) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Ping => self.on_ping_timeout(out),
                Timer::Retry(task) => self.on_retry(now, &task, out),
                Timer::Kill(task) => self.on_kill_grace_over(&task, out),
                Timer::Completion(task) => self.on_max_completion(now, &task, out),
                Timer::Registration(executor) => self.on_registration_timeout(now, &executor, out),
                Timer::Reregistration(executor) => {
                    self.on_reregistration_timeout(now, &executor, out);
                }
                Timer::Disconnected(executor) => {
                    self.on_executor_away_too_long(now, &executor, out);
                }
                Timer::Shutdown(executor) => self.on_shutdown_grace_over(now, &executor, out),
                Timer::Probe(task, kind) => self.on_probe_due(&task, kind, out),
                Timer::Leave => self.on_leaving_too_long(now, out),
            }
        }
        self.settle(out);
    }

    /// What every call ends with.
    fn settle(&mut self, out: &mut Effects) {
        self.finish_drain(out);
        self.finish_leaving(out);
    }

    /// When [`on_deadline`](Self::on_deadline) is to be called next, if at all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The agent's id, once a master gave one.
    pub fn agent_id(&self) -> Option<&AgentId> {
        self.agent_id.as_ref()
    }

    /// Tasks that have not ended.
    pub fn live_tasks(&self) -> usize {
        self.live_tasks
    }
}
