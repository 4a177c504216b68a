//! Settings of a master, with their defaults.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{allocator::AllocatorOptions, credentials::Credentials};

pub use crate::etcd::{EtcdOptions, Password, TlsFiles};

/// Where the registry is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryOptions {
    /// Nowhere: a restarted master learns of agents and frameworks from them.
    Memory,
    /// In this file (made when it is missing).
    File(PathBuf),
    /// In etcd, shared with other masters, of which one leads.
    Etcd(EtcdOptions),
}

/// So many agents in so long a time, evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalRate {
    /// How many; from 1.
    pub agents: u32,
    /// In which time; more than 0.
    pub per: Duration,
}

impl RemovalRate {
    /// From one agent to the next.
    pub fn interval(&self) -> Duration {
        self.per / self.agents.max(1)
    }
}

/// How frameworks prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Who may be a framework.
    pub credentials: Arc<Credentials>,
    /// Where they were read, for people.
    pub file: Option<PathBuf>,
}

/// Settings of a master.
#[derive(Clone, Debug, PartialEq)]
pub struct MasterOptions {
    /// host:port that peers are told; the bound address when absent.
    pub advertise: Option<String>,
    /// Name of the cluster, for people.
    pub cluster: Option<String>,
    /// Where the registry is kept.
    pub registry: RegistryOptions,
    /// Frameworks have to prove who they are, over HTTP and gRPC; nobody is asked when absent
    /// (Mesos' `--authenticate_http_frameworks`: off).
    pub authentication: Option<Authentication>,
    /// What the core needs.
    pub core: CoreOptions,
}

/// Settings of the master's core.
#[derive(Clone, Debug, PartialEq)]
pub struct CoreOptions {
    /// Begins every id that this master makes; new at each start. A UUID.
    pub master_id: String,
    /// host:port that peers are told.
    pub address: String,
    /// How often agents are pinged (rule 45: 15 s).
    pub ping_interval: Duration,
    /// An agent that missed so many pings is unreachable (rule 45: 5).
    pub max_missed_pings: u32,
    /// An agent whose link broke, or that the registry knows and that did not
    /// come back, is unreachable after this (rule 45: 10 min).
    pub agent_reregister_timeout: Duration,
    /// No more agents become unreachable in a time than this, whatever happened to
    /// them; the others wait, and need not if they return (rule 45: no limit).
    pub agent_removal_rate_limit: Option<RemovalRate>,
    /// An agent that has been unreachable for so long is forgotten with its tasks
    /// (rule 76: 14 days).
    pub unreachable_retention: Duration,
    /// Unused offers are rescinded after this; never when absent (rule 22).
    pub offer_timeout: Option<Duration>,
    /// Changes within this time are answered by one allocation.
    pub allocation_batch: Duration,
    /// A filter lasts at least this long (rule 30 has one allocation interval).
    pub min_filter: Duration,
    /// Heartbeats to frameworks (rule 11: 15 s).
    pub heartbeat_interval: Duration,
    /// The allocator's settings.
    pub allocator: AllocatorOptions,
    /// Initial weights of roles; the registry's win over them (rule 76).
    pub weights: Vec<(String, f64)>,
    /// More agents than this are refused.
    pub max_agents: usize,
    /// More live frameworks than this are refused.
    pub max_frameworks: usize,
    /// More live tasks than this are refused with TASK_ERROR; those of
    /// unreachable agents do not count.
    pub max_tasks: usize,
    /// A framework that asks for all of its tasks is told of so many at a time, for the
    /// queue to it is bounded; from 1.
    pub reconciliation_page: usize,
    /// Ended frameworks that are remembered (rule 76: 50).
    pub max_completed_frameworks: usize,
    /// Ended tasks that are remembered for each framework (rule 76: 1000).
    pub max_completed_tasks: usize,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            master_id: String::new(),
            address: String::new(),
            ping_interval: Duration::from_secs(15),
            max_missed_pings: 5,
            agent_reregister_timeout: Duration::from_secs(600),
            // A rack is told of within half a minute; but of a large cluster that a broken
            // switch hides from the master little is given up before somebody has looked.
            agent_removal_rate_limit: Some(RemovalRate {
                agents: 100,
                per: Duration::from_secs(60),
            }),
            unreachable_retention: Duration::from_secs(14 * 24 * 3600),
            offer_timeout: None,
            allocation_batch: Duration::from_millis(2),
            min_filter: Duration::ZERO,
            heartbeat_interval: Duration::from_secs(15),
            allocator: AllocatorOptions::default(),
            weights: Vec::new(),
            max_agents: 100_000,
            max_frameworks: 10_000,
            max_tasks: 4_000_000,
            reconciliation_page: 5_000,
            max_completed_frameworks: 50,
            max_completed_tasks: 1000,
        }
    }
}
