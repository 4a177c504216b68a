//! What the application holds: the calls and the events.

use std::time::Duration;

use mezz_proto::v1::{self, scheduler::call};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{command::Command, driver::acknowledgement};
use crate::drive;

type Request = drive::Request<Command>;

/// The driver has ended: after [`Scheduler::stop`] or [`Scheduler::teardown`],
/// after [`Event::Error`], or because [`Events`] was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the scheduler driver has ended")]
pub struct Closed;

/// An event and what acknowledges it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Delivery {
    pub event: Event,
    pub acknowledge: Option<call::Acknowledge>,
}

/// Something that the master, or the driver, tells the application.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The framework is subscribed: for the first time, or again after
    /// [`Disconnected`](Event::Disconnected).
    Subscribed {
        /// The framework's id. It stays the same over resubscriptions; keep it to
        /// take the framework over with another process.
        framework_id: v1::FrameworkId,
        /// The leading master, if it says.
        master: Option<v1::MasterInfo>,
    },
    /// Resources that may be used: accept or decline each offer.
    Offers(Vec<v1::Offer>),
    /// An offer is gone.
    Rescind(v1::OfferId),
    /// A task's status. May come more than once.
    Update(v1::TaskStatus),
    /// From an executor, at most once.
    Message {
        /// Its agent.
        agent_id: v1::AgentId,
        /// Which.
        executor_id: v1::ExecutorId,
        /// What it says.
        data: Vec<u8>,
    },
    /// An executor, or without `executor_id` a whole agent, is gone. Its tasks
    /// are reported by updates of their own.
    Failure {
        /// The agent.
        agent_id: Option<v1::AgentId>,
        /// The executor.
        executor_id: Option<v1::ExecutorId>,
        /// The wait status of the executor's process; -1 when it is not known.
        status: Option<i32>,
    },
    /// The subscription ended, or an attempt to (re)subscribe failed; the driver
    /// goes on trying. All offers are gone. Tasks go on running for the
    /// framework's failover timeout.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// The master refuses the framework for good, for example because it was
    /// torn down or another process took it over. The last event.
    Error(String),
}

/// The events of one framework.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Delivery>,
    commands: mpsc::Sender<Request>,
    /// Of the event before.
    acknowledge: Option<call::Acknowledge>,
}

impl Events {
    pub(super) fn new(queue: mpsc::Receiver<Delivery>, commands: mpsc::Sender<Request>) -> Self {
        Self { queue, commands, acknowledge: None }
    }

    /// The next event; `None` when the driver has ended and all events were
    /// taken. With [`AcknowledgeMode::Automatic`](super::AcknowledgeMode) this
    /// acknowledges the update that the call before returned.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        if self.acknowledge.is_some()
            // Fails only when the driver has ended; then the update comes again to
            // the framework's next subscription.
            && let Ok(permit) = self.commands.reserve().await
            && let Some(acknowledge) = self.acknowledge.take()
        {
            permit.send(Request { command: Command::Acknowledge(acknowledge), done: None });
        }
        let delivery = self.queue.recv().await?;
        self.acknowledge = delivery.acknowledge;
        Some(delivery.event)
    }
}

/// The calls of one framework. Clones share the subscription.
///
/// Every method returns when the driver has taken the call, not when the master
/// has; while the driver is behind, they wait. See the [module](super) for what
/// becomes of a call while no master is there.
///
/// # Errors
/// Every method fails with [`Closed`], and with nothing else.
#[derive(Clone, Debug)]
pub struct Scheduler {
    commands: mpsc::Sender<Request>,
}

impl Scheduler {
    pub(super) fn new(commands: mpsc::Sender<Request>) -> Self {
        Self { commands }
    }

    /// Uses offers, which must all be of one agent and role, for these operations
    /// in order. What is left is declined with `filters` (default: refused for
    /// 5 s).
    ///
    /// The master answers an operation or task that it cannot use with an update
    /// (`TASK_ERROR`), but refuses a malformed call (gRPC `INVALID_ARGUMENT`):
    /// that ends the driver with [`Event::Error`]. Of a call of more than 4 MiB the largest
    /// tasks (groups aside) are left out until it fits, and reported as `TASK_DROPPED` (or
    /// `TASK_LOST`); if it never does, all are, and the offers go back.
    pub async fn accept(
        &self,
        offers: Vec<v1::OfferId>,
        operations: Vec<v1::offer::Operation>,
        filters: Option<v1::Filters>,
    ) -> Result<(), Closed> {
        self.tell(Command::Accept { offers, operations, filters }).await
    }

    /// Launches tasks on offers of one agent. What is left is offered again at
    /// once.
    pub async fn launch(
        &self,
        offers: Vec<v1::OfferId>,
        tasks: Vec<v1::TaskInfo>,
    ) -> Result<(), Closed> {
        let launch = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch as i32),
            launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
            ..Default::default()
        };
        let filters = refuse_for(Some(Duration::ZERO));
        self.accept(offers, vec![launch], filters).await
    }

    /// Gives offers back. The same resources are not offered again for `refuse`
    /// (default: 5 s; at most 365 days), or until [`revive`](Self::revive).
    pub async fn decline(
        &self,
        offers: Vec<v1::OfferId>,
        refuse: Option<Duration>,
    ) -> Result<(), Closed> {
        self.decline_with(offers, refuse_for(refuse)).await
    }

    /// As [`decline`](Self::decline), with filters as they are: the master reads a
    /// `refuse_seconds` that is missing, negative or no number as 5 s (behaviour rule 30).
    pub async fn decline_with(
        &self,
        offers: Vec<v1::OfferId>,
        filters: Option<v1::Filters>,
    ) -> Result<(), Closed> {
        self.tell(Command::Decline { offers, filters }).await
    }

    /// Gives back all offers, and those that still come, of which [`Events`] says nothing; and
    /// suppresses all roles. For good: not even [`revive`](Self::revive) brings any. Tasks go
    /// on.
    pub async fn withdraw(&self) -> Result<(), Closed> {
        self.tell(Command::Withdraw).await
    }

    /// Wants no offers for these roles (all of the framework's when empty). Roles
    /// that are not the framework's are left out.
    pub async fn suppress(&self, roles: &[String]) -> Result<(), Closed> {
        self.tell(Command::Suppress(roles.to_vec())).await
    }

    /// Wants offers for these roles (all of the framework's when empty) and takes
    /// back every refusal. Roles that are not the framework's are left out.
    pub async fn revive(&self, roles: &[String]) -> Result<(), Closed> {
        self.tell(Command::Revive(roles.to_vec())).await
    }

    /// Ends a task. The kill is repeated over reconnections until the task has
    /// ended.
    pub async fn kill(
        &self,
        task_id: v1::TaskId,
        agent_id: Option<v1::AgentId>,
        kill_policy: Option<v1::KillPolicy>,
    ) -> Result<(), Closed> {
        self.tell(Command::Kill(call::Kill { task_id, agent_id, kill_policy })).await
    }

    /// Ends an executor and its tasks.
    pub async fn shutdown_executor(
        &self,
        executor_id: v1::ExecutorId,
        agent_id: v1::AgentId,
    ) -> Result<(), Closed> {
        let (executor, agent) = (executor_id.into(), agent_id.into());
        self.tell(Command::ShutdownExecutor { executor, agent }).await
    }

    /// Sends to an executor, at most once. More than 4 MiB are dropped.
    pub async fn message(
        &self,
        agent_id: v1::AgentId,
        executor_id: v1::ExecutorId,
        data: impl Into<Vec<u8>>,
    ) -> Result<(), Closed> {
        let data = data.into();
        self.tell(Command::Message(call::Message { agent_id, executor_id, data })).await
    }

    /// Asks for the state of these tasks, until each has been answered; with no
    /// tasks, for whatever the master knows of the framework. The driver does both
    /// by itself after a resubscription.
    pub async fn reconcile(
        &self,
        tasks: impl IntoIterator<Item = (v1::TaskId, Option<v1::AgentId>)>,
    ) -> Result<(), Closed> {
        let tasks = tasks.into_iter().map(|(t, a)| (t.into(), a.map(Into::into))).collect();
        self.tell(Command::Reconcile(tasks)).await
    }

    /// Acknowledges an update, for
    /// [`AcknowledgeMode::Explicit`](super::AcknowledgeMode). Updates that need
    /// none (no `uuid`) are let pass.
    pub async fn acknowledge(&self, status: &v1::TaskStatus) -> Result<(), Closed> {
        match acknowledgement(status) {
            Some(acknowledge) => self.tell(Command::Acknowledge(acknowledge)).await,
            None if self.commands.is_closed() => Err(Closed),
            None => Ok(()),
        }
    }

    /// Changes the framework: its roles, name, labels and so on, the roles that want no offers
    /// and what offers it wants; `None` is every offer. The id stays; `user`, `checkpoint` and
    /// `principal` may not change. A framework that the master refuses (gRPC
    /// `INVALID_ARGUMENT`) ends the driver with [`Event::Error`]; one of more than 4 MiB changes
    /// nothing, with a warning in the log.
    pub async fn update_framework(
        &self,
        info: v1::FrameworkInfo,
        suppressed_roles: &[String],
        constraints: Option<v1::scheduler::OfferConstraints>,
    ) -> Result<(), Closed> {
        let (info, suppressed) = (Box::new(info), suppressed_roles.to_vec());
        self.tell(Command::UpdateFramework { info, suppressed, constraints }).await
    }

    /// Ends the framework and all of its tasks and executors, for good. Returns
    /// when the master has confirmed it; while no master can be reached, that is
    /// waited for (use a timeout and then [`stop`](Self::stop) to give up: a
    /// teardown that still waits then fails). It fails, too, when the master ends
    /// the subscription for another reason, which [`Event::Error`] tells: another
    /// process has taken the framework over, for one. [`Events`] need not be read meanwhile;
    /// what they have no room for is dropped.
    pub async fn teardown(&self) -> Result<(), Closed> {
        self.wait_for_end(Command::Teardown).await
    }

    /// Disconnects and ends the driver, after what was sent before. The framework
    /// and its tasks stay for its failover timeout. [`Events`] need not be read
    /// meanwhile; what they have no room for is dropped, and updates come again to
    /// the framework's next subscription.
    pub async fn stop(&self) -> Result<(), Closed> {
        self.wait_for_end(Command::Stop).await
    }

    async fn tell(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(Request { command, done: None }).await.map_err(|_| Closed)
    }

    async fn wait_for_end(&self, command: Command) -> Result<(), Closed> {
        let (done, ended) = oneshot::channel();
        self.commands.send(Request { command, done: Some(done) }).await.map_err(|_| Closed)?;
        ended.await.map_err(|_| Closed)
    }
}

fn refuse_for(refuse: Option<Duration>) -> Option<v1::Filters> {
    refuse.map(|d| v1::Filters { refuse_seconds: Some(d.as_secs_f64()) })
}
