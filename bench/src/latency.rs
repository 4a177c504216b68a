//! From a freed resource to the next offer.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mezz_proto::{resources::Resources, v1};
use mezz_sdk::scheduler::Event;

use crate::{
    agents::{self, AgentsOptions},
    cluster::{Process, mezz_program, raise_file_limit},
    framework::Framework,
    report::{Measurement, Report},
};

/// Options of `latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// Simulated agents beside the one that is measured; they are refused for good
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// TCP connections that they share; 0 is one for each agent
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// How often it is measured
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

impl LatencyArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        raise_file_limit(self.agents, self.connections)?;
        let mezz = mezz_program(self.mezz.as_deref())?;
        let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
        let one = AgentsOptions {
            masters: vec![master.address.clone()],
            agents: 1,
            connections: 0,
            resources: "cpus:1;mem:1024".to_owned(),
            finish: true,
            returns: false,
        };
        // Too small for the task, so that every offer of them is declined for good.
        let others = AgentsOptions {
            agents: self.agents,
            connections: self.connections,
            resources: "cpus:0.5;mem:1024".to_owned(),
            ..one.clone()
        };
        let busy = agents::start(&others, None)?;
        busy.wait_registered(self.agents).await?;
        let measured = agents::start(&one, None)?;
        measured.wait_registered(1).await?;
        let mut framework =
            Framework::connect(&master.address, "bench", Resources::parse("cpus:1;mem:1024")?)?;
        let mut millis = Vec::with_capacity(self.samples);
        let mut freed = None;
        while millis.len() < self.samples {
            match framework.next().await? {
                Event::Offers(offers) => {
                    let now = std::time::Instant::now();
                    let launched = framework.fill(offers, 1).await?;
                    if launched == 1
                        && let Some(at) = freed.take()
                    {
                        millis.push(now.duration_since(at).as_secs_f64() * 1e3);
                    }
                }
                Event::Update(status) if status.state() == v1::TaskState::TaskFinished => {
                    freed = measured.seen.last_terminal();
                }
                _ => {}
            }
        }
        report.add(
            Measurement::new("latency.freed_to_offer", "ms", millis)
                .with("agents", self.agents + 1),
        );
        Ok(())
    }
}
