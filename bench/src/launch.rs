//! Tasks per second through one master, and its memory for each running task,
//! over real sockets with simulated agents.

use std::{path::PathBuf, sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use clap::Args;
use mezz_proto::{resources::Resources, v1};

use crate::{
    agents::{self, AgentsOptions},
    cluster::{Process, mezz_program, raise_file_limit},
    framework::Framework,
    report::{Measurement, Report},
};

/// Options of `launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Simulated agents
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// TCP connections that they share; 0 is one for each agent
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// No-op tasks in each round
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Tasks that are left running to measure the master's memory
    #[arg(long, default_value_t = 100_000)]
    running: usize,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

const AGENT: &str = "cpus:24;mem:4096;disk:4096;ports:[31000-32000]";
/// So that the tasks of a round need many agents.
const TASK: &str = "cpus:1;mem:128";
/// So that very many tasks run at once.
const SMALL_TASK: &str = "cpus:0.1;mem:16";

impl LaunchArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        raise_file_limit(self.agents, self.connections)?;
        self.rate(report).await?;
        self.memory(report).await
    }

    async fn rate(&self, report: &mut Report) -> Result<()> {
        let (master, _agents, mut framework) = self.cluster(true, TASK).await?;
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            framework.scheduler.revive(&[]).await?;
            let cpu = master.cpu()?;
            let took = framework.run_tasks(self.tasks, v1::TaskState::TaskFinished).await?;
            rates.push(self.tasks as f64 / took.as_secs_f64());
            costs.push((master.cpu()? - cpu).as_secs_f64() * 1e6 / self.tasks as f64);
        }
        let memory = master.memory()?;
        for (name, unit, values) in
            [("launch.rate", "tasks/s", rates), ("launch.master_cpu", "us/task", costs)]
        {
            report.add(
                Measurement::new(name, unit, values)
                    .with("agents", self.agents)
                    .with("connections", self.connections)
                    .with("tasks", self.tasks)
                    .with("master_rss_mb", memory.now / 1_000_000),
            );
        }
        Ok(())
    }

    async fn memory(&self, report: &mut Report) -> Result<()> {
        let (master, agents, mut framework) = self.cluster(false, SMALL_TASK).await?;
        // The first tasks bring in what is not for each task: buffers, code, tables.
        let first = self.running / 10;
        framework.run_tasks(first, v1::TaskState::TaskRunning).await?;
        settle().await;
        let before = master.memory()?.now;
        framework.scheduler.revive(&[]).await?;
        framework.run_tasks(self.running, v1::TaskState::TaskRunning).await?;
        settle().await;
        let grown = master.memory()?.now.saturating_sub(before);
        report.add(
            Measurement::new(
                "launch.memory",
                "bytes/task",
                vec![grown as f64 / self.running as f64],
            )
            .with("agents", self.agents)
            .with("connections", self.connections)
            .with("running", agents.seen.launched.load(Ordering::Relaxed)),
        );
        Ok(())
    }

    async fn cluster(
        &self,
        finish: bool,
        task: &str,
    ) -> Result<(Process, agents::Agents, Framework)> {
        let mezz = mezz_program(self.mezz.as_deref())?;
        let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
        let options = AgentsOptions {
            masters: vec![master.address.clone()],
            agents: self.agents,
            connections: self.connections,
            resources: AGENT.to_owned(),
            finish,
            returns: false,
        };
        let agents = agents::start(&options, None)?;
        agents.wait_registered(self.agents).await?;
        let framework = Framework::connect(&master.address, "bench", Resources::parse(task)?)?;
        Ok((master, agents, framework))
    }
}

/// Lets acknowledgements that are under way arrive.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
