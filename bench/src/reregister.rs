//! Agents with running tasks that come back to a restarted master.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use clap::Args;
use mezz_proto::{resources::Resources, v1};

use crate::{
    agents::{self, AgentsOptions, Carried},
    cluster::{Process, mezz_program, raise_file_limit},
    report::{Measurement, Report},
};

/// Options of `reregister`.
#[derive(Debug, Args)]
pub struct ReregisterArgs {
    /// Simulated agents
    #[arg(long, default_value_t = 20_000)]
    agents: usize,
    /// Running tasks of each
    #[arg(long, default_value_t = 5)]
    tasks: usize,
    /// TCP connections that the agents share; 0 is one for each agent
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// Rounds, each with a fresh master
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

impl ReregisterArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        raise_file_limit(self.agents, self.connections)?;
        let mezz = mezz_program(self.mezz.as_deref())?;
        let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
        let (mut processor, mut idle) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
            let options = AgentsOptions {
                masters: vec![master.address.clone()],
                agents: self.agents,
                connections: self.connections,
                resources: "cpus:24;mem:4096;disk:4096;ports:[31000-32000]".to_owned(),
                finish: false,
                returns: false,
            };
            let carried = Carried {
                framework: v1::FrameworkInfo {
                    id: Some(v1::FrameworkId { value: "before-0000".to_owned() }),
                    user: "root".to_owned(),
                    name: "bench".to_owned(),
                    failover_timeout: Some(3600.0),
                    ..Default::default()
                },
                tasks: self.tasks,
                resources: Resources::cpus_mem(1.0, 128.0),
            };
            let start = Instant::now();
            let agents = agents::start(&options, Some(carried))?;
            agents.wait_registered(self.agents).await?;
            seconds.push(start.elapsed().as_secs_f64());
            let memory = master.memory()?;
            peaks.push(memory.peak as f64 / 1e6);
            idle.push(memory.now as f64 / 1e6);
            processor.push(master.cpu()?.as_secs_f64());
        }
        for (name, unit, values) in [
            ("reregister.time", "s", seconds),
            ("reregister.master_cpu", "s", processor),
            ("reregister.peak", "MB", peaks),
            ("reregister.after", "MB", idle),
        ] {
            report.add(
                Measurement::new(name, unit, values)
                    .with("agents", self.agents)
                    .with("tasks_each", self.tasks)
                    .with("connections", self.connections),
            );
        }
        Ok(())
    }
}
