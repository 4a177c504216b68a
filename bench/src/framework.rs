//! The framework of the measurements: launches no-op tasks through the SDK, as
//! many as offers hold, until it has launched what it was asked for.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use mezz_proto::{
    resources::{Dialect, Resources},
    v1,
};
use mezz_sdk::scheduler::{Event, Events, Scheduler, SchedulerOptions, connect};
use tokio::signal::unix::{SignalKind, signal};

/// How long the end of a measurement's containers may take.
const LONGEST_END: Duration = Duration::from_secs(120);

/// Waits for a measurement, but no longer than until Ctrl-C or SIGTERM.
///
/// # Errors
/// Those of the measurement, and that it was broken off.
pub async fn unless_broken_off(measured: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = measured => measured,
        _ = tokio::signal::ctrl_c() => bail!("broken off by Ctrl-C"),
        _ = terminated.recv() => bail!("broken off by SIGTERM"),
    }
}

/// Whether the agent with this work dir has records of containers.
fn any_left(work_dir: &str) -> bool {
    let entries = ["containers", "docker"]
        .into_iter()
        .flat_map(|kind| std::fs::read_dir(Path::new(work_dir).join(kind)).into_iter().flatten());
    entries.count() > 0
}

/// A connected framework.
pub struct Framework {
    /// To call.
    pub scheduler: Scheduler,
    /// To hear.
    pub events: Events,
    resources: Resources,
    command: v1::CommandInfo,
    container: Option<v1::ContainerInfo>,
    launched: usize,
}

impl Framework {
    /// Subscribes with `name` at one of these masters (between commas); each task asks for `resources` and runs `true`.
    pub fn connect(masters: &str, name: &str, resources: Resources) -> Result<Self> {
        let framework = v1::FrameworkInfo {
            user: "root".to_owned(),
            name: name.to_owned(),
            roles: vec!["*".to_owned()],
            capabilities: [
                v1::framework_info::capability::Type::MultiRole,
                v1::framework_info::capability::Type::ReservationRefinement,
                v1::framework_info::capability::Type::PartitionAware,
            ]
            .into_iter()
            .map(|t| v1::framework_info::Capability { r#type: Some(t as i32) })
            .collect(),
            ..Default::default()
        };
        let (scheduler, events) = connect(SchedulerOptions::new(masters.split(','), framework))?;
        let framework = Self {
            scheduler,
            events,
            resources,
            command: v1::CommandInfo::default(),
            container: None,
            launched: 0,
        };
        Ok(framework.command("true", &[]))
    }

    /// Has each task run this program.
    pub fn command(mut self, program: &str, arguments: &[&str]) -> Self {
        self.command = v1::CommandInfo {
            value: Some(program.to_owned()),
            shell: Some(false),
            arguments: [program].iter().chain(arguments).map(ToString::to_string).collect(),
            ..Default::default()
        };
        self
    }

    /// Has each task run in such a container.
    pub fn container(mut self, container: Option<v1::ContainerInfo>) -> Self {
        self.container = container;
        self
    }

    /// Ends it and all that it runs on the agent with this work dir. A Docker engine would
    /// keep what an agent that is killed leaves behind.
    pub async fn end(self, work_dir: &str) -> Result<()> {
        self.scheduler.teardown().await?;
        let end = Instant::now() + LONGEST_END;
        while any_left(work_dir) {
            ensure!(Instant::now() < end, "containers are still there after {LONGEST_END:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// The next event.
    pub async fn next(&mut self) -> Result<Event> {
        match self.events.next().await {
            Some(Event::Error(error)) => bail!("the master ended the framework: {error}"),
            Some(event) => Ok(event),
            None => bail!("the scheduler driver has ended"),
        }
    }

    /// Fills the offers with tasks, `wanted` at most, and declines those that it
    /// needs not. Returns how many it launched.
    pub async fn fill(&mut self, offers: Vec<v1::Offer>, wanted: usize) -> Result<usize> {
        let before = self.launched;
        for offer in offers {
            let mut left = Resources::from_proto(&offer.resources)?;
            let mut tasks = Vec::new();
            while self.launched - before < wanted && left.contains(&self.resources) {
                left.try_sub(&self.resources)?;
                tasks.push(self.task(&offer));
                self.launched += 1;
            }
            if tasks.is_empty() {
                self.scheduler.decline(vec![offer.id], Some(Duration::from_secs(3600))).await?;
            } else {
                self.scheduler.launch(vec![offer.id], tasks).await?;
            }
        }
        Ok(self.launched - before)
    }

    fn task(&self, offer: &v1::Offer) -> v1::TaskInfo {
        let role = offer.allocation_info.as_ref().and_then(|a| a.role.as_deref());
        v1::TaskInfo {
            name: "noop".to_owned(),
            task_id: v1::TaskId { value: format!("t{}", self.launched) },
            agent_id: offer.agent_id.clone(),
            resources: self.resources.to_proto(Dialect::Refined, role),
            command: Some(self.command.clone()),
            container: self.container.clone(),
            ..Default::default()
        }
    }

    /// Launches `count` tasks and waits until so many have come to `state`.
    /// Returns the time from the first accept to the last update.
    pub async fn run_tasks(&mut self, count: usize, state: v1::TaskState) -> Result<Duration> {
        let (mut launched, mut reached) = (0, 0);
        let mut start = None;
        while reached < count {
            match self.next().await? {
                Event::Offers(offers) => {
                    start.get_or_insert_with(Instant::now);
                    launched += self.fill(offers, count - launched).await?;
                }
                Event::Update(status) if status.state() == state => reached += 1,
                Event::Update(status) if status.state().is_terminal() => {
                    bail!(
                        "task {} came to {:?}: {}",
                        status.task_id.value,
                        status.state(),
                        status.message()
                    )
                }
                _ => {}
            }
        }
        Ok(start.map(|s| s.elapsed()).unwrap_or_default())
    }
}
