//! A cluster inside the test process: a real master core, agents that only
//! pretend to run tasks, and virtual time. (Feature `testing`.)
//!
//! The framework under test gets the same [`Scheduler`] and [`Events`] as in
//! production; only the link to the master is memory instead of gRPC. Time is
//! tokio's: in a test with `start_paused = true` it stands still while anything
//! can happen and jumps to the next deadline when nothing can, so that ten virtual
//! minutes take milliseconds and every run is the same. Not much use without it:
//! then a task of five seconds takes five seconds.
//!
//! ```
//! use std::time::Duration;
//! use mezz_sdk::{
//!     build::{FrameworkBuilder, TaskBuilder},
//!     matcher::{self, Want},
//!     resources::Resources,
//!     scheduler::{Event, SchedulerOptions},
//!     testing::{Behaviour, TestCluster},
//!     v1::TaskState,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?
//! #     .block_on(async {
//! // In a test: #[tokio::test(start_paused = true)]
//! let cluster = TestCluster::start();
//! cluster.add_agent("host1", Resources::parse("cpus:4;mem:1024")?);
//! cluster.on_launch(|_task| Behaviour::finish_after(Duration::from_secs(5)));
//!
//! let framework = FrameworkBuilder::new("mine").build();
//! let (scheduler, mut events) = cluster.connect(SchedulerOptions::new(["any:1"], framework))?;
//! let want = [Want { resources: Resources::parse("cpus:1;mem:64")?, count: 1, ..Want::default() }];
//! loop {
//!     match events.next().await.ok_or("the end")? {
//!         Event::Offers(offers) => {
//!             for launch in matcher::place(&offers, &want)?.launches {
//!                 let task = TaskBuilder::new("t1").shell("sleep 5").place(&launch.tasks[0])?;
//!                 scheduler.launch(launch.offers, vec![task]).await?;
//!             }
//!             scheduler.suppress(&[]).await?;
//!         }
//!         Event::Update(status) if status.state() == TaskState::TaskFinished => break,
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agent;

mod link;
mod registry;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mezz_master::options::CoreOptions;
use mezz_proto::{resources::Resources, v1};
use tokio::sync::{mpsc, oneshot};

use crate::scheduler::{self, Events, OptionsError, Scheduler, SchedulerOptions};
use link::MemoryTransport;
use world::{Input, World};

/// What a task does once it is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long until it runs.
    pub starts_after: Duration,
    /// How long it then runs, and the state and message that it ends with. `None`:
    /// until it is killed.
    pub ends: Option<(Duration, v1::TaskState, String)>,
}

impl Behaviour {
    /// Runs at once, until it is killed.
    pub fn run() -> Self {
        Self { starts_after: Duration::ZERO, ends: None }
    }

    /// Runs at once, and finishes.
    pub fn finish_after(time: Duration) -> Self {
        let ends = (time, v1::TaskState::TaskFinished, "exited with status 0".to_owned());
        Self { ends: Some(ends), ..Self::run() }
    }

    /// Runs at once, and fails.
    pub fn fail_after(time: Duration) -> Self {
        let ends = (time, v1::TaskState::TaskFailed, "exited with status 1".to_owned());
        Self { ends: Some(ends), ..Self::run() }
    }
}

/// A task as its agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTask {
    /// The agent's hostname.
    pub hostname: String,
    /// The task.
    pub task_id: String,
    /// Its newest state.
    pub state: v1::TaskState,
}

/// The cluster. Dropping it stops it, and its frameworks get
/// [`Event::Error`](scheduler::Event::Error).
///
/// The methods that change something return at once; it is done before anything
/// that the test awaits afterwards.
///
/// Every event of the master's core is followed by its invariants' check; a
/// violation panics in the cluster's task.
#[derive(Debug)]
pub struct TestCluster {
    inputs: mpsc::UnboundedSender<Input>,
    connections: AtomicU64,
}

impl TestCluster {
    /// A cluster with one master and no agents. Tasks run until they are killed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start() -> Self {
        Self::with_options(CoreOptions::default())
    }

    /// The same with other settings of the master.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn with_options(options: CoreOptions) -> Self {
        // Unbounded, for the world never waits, and a test's frameworks are tame.
        let (inputs, queue) = mpsc::unbounded_channel();
        tokio::spawn(World::new(options).run(queue));
        Self { inputs, connections: AtomicU64::new(0) }
    }

    /// Connects the framework under test; `options.masters` is not used.
    ///
    /// # Errors
    /// As [`scheduler::connect`].
    pub fn connect(&self, options: SchedulerOptions) -> Result<(Scheduler, Events), OptionsError> {
        let masters = vec![world::ADDRESS.to_owned()];
        let seed = self.connections.fetch_add(1, Ordering::Relaxed);
        // Weak, for the cluster must end when its owner drops it.
        let transport = MemoryTransport { inputs: self.inputs.downgrade() };
        scheduler::connect_with(SchedulerOptions { masters, ..options }, transport, seed)
    }

    /// Adds an agent of this (unique) hostname.
    pub fn add_agent(&self, hostname: &str, resources: Resources) {
        self.add_agent_with(hostname, resources, Vec::new());
    }

    /// Adds an agent that has attributes.
    pub fn add_agent_with(
        &self,
        hostname: &str,
        resources: Resources,
        attributes: Vec<v1::Attribute>,
    ) {
        self.tell(Input::AddAgent { hostname: hostname.to_owned(), resources, attributes });
    }

    /// Decides what tasks that are launched from now on do.
    pub fn on_launch(&self, script: impl FnMut(&v1::TaskInfo) -> Behaviour + Send + 'static) {
        self.tell(Input::Script(world::Script(Box::new(script))));
    }

    /// Ends a task on its agent, whatever its script says.
    pub fn end_task(&self, task_id: &str, state: v1::TaskState, message: &str) {
        let (task_id, message) = (task_id.to_owned(), message.to_owned());
        self.tell(Input::EndTask { task_id, state, message });
    }

    /// The machine dies, and its tasks with it. The master notices at once that the
    /// link is gone, and gives the agent up after its `agent_reregister_timeout`.
    pub fn kill_agent(&self, hostname: &str) {
        self.tell(Input::KillAgent(hostname.to_owned()));
    }

    /// The network between this agent and the master loses everything. Tasks go on.
    pub fn partition_agent(&self, hostname: &str) {
        self.tell(Input::Partition(hostname.to_owned(), true));
    }

    /// Ends [`partition_agent`](Self::partition_agent).
    pub fn heal_agent(&self, hostname: &str) {
        self.tell(Input::Partition(hostname.to_owned(), false));
    }

    /// Kills the master. Its registry stays.
    pub fn stop_master(&self) {
        self.tell(Input::StopMaster);
    }

    /// Starts a new master on the registry of the last. Agents come back to it
    /// within a second.
    pub fn start_master(&self) {
        self.tell(Input::StartMaster);
    }

    /// [`stop_master`](Self::stop_master), then [`start_master`](Self::start_master).
    pub fn restart_master(&self) {
        self.stop_master();
        self.start_master();
    }

    /// Lets this much time pass.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// All tasks that agents know, by agent and task; those that have ended are
    /// known until that is acknowledged.
    ///
    /// # Panics
    /// When an invariant of the master was violated.
    pub async fn tasks(&self) -> Vec<AgentTask> {
        let (reply, tasks) = oneshot::channel();
        self.tell(Input::Tasks(reply));
        match tasks.await {
            Ok(tasks) => tasks,
            Err(_) => panic!("the test cluster has stopped; its own panic tells why"),
        }
    }

    fn tell(&self, input: Input) {
        // A stopped cluster shows in the next `tasks` and in every framework.
        let _ = self.inputs.send(input);
    }
}
