//! Two masters and a real etcd: how soon the second follows the first, what it stands
//! when all agents come at once, and how fast the registry is written.

mod registry;
mod storm;
mod takeover;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::report::Report;

/// Options of `failover`.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_value = "takeover,storm,registry")]
    parts: Vec<Part>,
    /// Rounds of a takeover and of a storm
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leader's leases of takeovers by `kill -9`, as `mezz master` takes them
    #[arg(long, value_delimiter = ',', default_value = "10s,2s")]
    leases: Vec<String>,
    /// Simulated agents of a storm
    #[arg(long, value_delimiter = ',', default_value = "10000,40000")]
    agents: Vec<usize>,
    /// Running tasks of each
    #[arg(long, default_value_t = 10)]
    tasks: usize,
    /// TCP connections that the agents share; 0 is one for each agent
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How the leader of a storm ends
    #[arg(long, value_enum, default_value = "kill")]
    ends_by: EndsBy,
    /// Seconds of each measurement of the registry
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Folder for etcd's data, on the disk that is to be measured [default: the
    /// machine's for temporary files]
    #[arg(long)]
    etcd_dir: Option<PathBuf>,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From the end of the leader to the first offer of the next
    Takeover,
    /// All agents back at the next leader
    Storm,
    /// The registry against plain puts
    Registry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EndsBy {
    /// `kill -9`: the agents wait at the standby until the lease has ended
    Kill,
    /// SIGTERM: it hands over at once
    Term,
}

impl FailoverArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        for part in &self.parts {
            match part {
                Part::Takeover => takeover::run(self, report).await?,
                Part::Storm => storm::run(self, report).await?,
                Part::Registry => registry::run(self, report).await?,
            }
        }
        Ok(())
    }
}
