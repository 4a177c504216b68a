//! The servers of a local cluster: started together, ended with all that runs.

use std::{path::Path, time::Duration};

use anyhow::anyhow;
use mezz_agent::{detect, options::AgentOptions};
use mezz_master::options::{CoreOptions, MasterOptions, RegistryOptions};
use mezz_proto::mezz::v1::{
    ListAgentsRequest, ListContainersRequest, ListFrameworksRequest, TeardownRequest,
    agent_state::Status,
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Local;
use crate::{
    client::{self, Operator},
    commands::{frameworks, launch},
    resources,
    server::{self, Listen},
    text, units,
};

/// All agents are there within this.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Tasks have ended within this after the frameworks were torn down: more than
/// an executor's and a task's grace together.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Between two looks at what is still running.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The master and the agents.
pub struct Cluster {
    /// Each ends with its name and how it ended.
    servers: JoinSet<(String, anyhow::Result<()>)>,
    master_shutdown: CancellationToken,
    agents_shutdown: CancellationToken,
    agents: Vec<AgentOptions>,
}

impl Cluster {
    /// Starts all of them. The agents come up by and by, see
    /// [`ready`](Self::ready).
    ///
    /// # Errors
    /// What kept one from starting.
    pub async fn start(
        local: &Local,
        listener: TcpListener,
        address: &str,
        work_dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut cluster = Self {
            servers: JoinSet::new(),
            master_shutdown: CancellationToken::new(),
            agents_shutdown: CancellationToken::new(),
            agents: Vec::new(),
        };
        let options = MasterOptions {
            advertise: Some(address.to_owned()),
            cluster: Some("local".to_owned()),
            registry: RegistryOptions::Memory,
            authentication: None,
            core: CoreOptions {
                master_id: uuid::Uuid::new_v4().to_string(),
                address: address.to_owned(),
                ..CoreOptions::default()
            },
        };
        let shutdown = cluster.master_shutdown.clone();
        cluster.servers.spawn(async move {
            let result = mezz_master::serve(options, listener, shutdown).await;
            ("the master".to_owned(), result.map_err(Into::into))
        });
        let launcher = launch::command()?;
        let machine = detect::detect_resources(work_dir);
        for index in 0..local.agents {
            let name = format!("agent-{}", index + 1);
            let listener = Listen::default().bind("--agents").await?;
            let agent_address = listener.local_addr()?.to_string();
            let part = resources::part(&machine, index as u64, local.agents as u64);
            let options = AgentOptions {
                masters: vec![address.to_owned()],
                advertise: Some(agent_address),
                work_dir: work_dir.join(&name),
                resources: match &local.resources {
                    Some(own) => resources::with_detected(own.clone(), &part),
                    None => part,
                },
                cgroup_root: format!("mezz-local-{}-{}", std::process::id(), index + 1),
                launcher: launcher.clone(),
                ..local.template.clone()
            };
            server::make_work_dir(&options.work_dir)?;
            cluster.agents.push(options.clone());
            let shutdown = cluster.agents_shutdown.clone();
            cluster.servers.spawn(async move {
                let result = mezz_agent::serve(options, listener, shutdown).await;
                (name, result.map_err(Into::into))
            });
        }
        Ok(cluster)
    }

    /// Waits until all agents are there.
    ///
    /// # Errors
    /// When they are not in time, or a server fails.
    pub async fn ready(&mut self, address: &str) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            failure = failed(&mut self.servers) => Err(failure),
            ready = all_active(address, self.agents.len()) => ready,
        }
    }

    /// Why the first server that ended did so: none should.
    pub async fn failed(&mut self) -> anyhow::Error {
        failed(&mut self.servers).await
    }

    /// Ends the frameworks and their tasks, then the agents, then the master:
    /// agents that end by themselves would leave their tasks running.
    pub async fn stop(mut self, address: &str) {
        let end = async {
            if let Ok(mut operator) = connect(address).await {
                teardown_all(&mut operator).await;
                for address in self.agents.iter().filter_map(|a| a.advertise.as_ref()) {
                    no_containers(address).await;
                }
            }
        };
        if tokio::time::timeout(STOP_DEADLINE, end).await.is_err() {
            eprintln!("some tasks do not end; killing them");
        }
        // The agents first, so that none loses its master.
        self.agents_shutdown.cancel();
        let servers = async {
            while self.servers.len() > 1 {
                self.servers.join_next().await;
            }
            self.master_shutdown.cancel();
            while self.servers.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_DEADLINE, servers).await.is_err() {
            eprintln!("some servers did not stop in time");
        }
        for options in &self.agents {
            if let Err(error) = mezz_agent::cleanup(options).await {
                eprintln!("some tasks may be left: {}", mezz_proto::error::chain(&error));
            }
            remove_cgroups(&options.cgroup_root);
        }
    }
}

async fn failed(servers: &mut JoinSet<(String, anyhow::Result<()>)>) -> anyhow::Error {
    match servers.join_next().await {
        Some(Ok((name, Err(error)))) => error.context(format!("{name} failed")),
        Some(Ok((name, Ok(())))) => anyhow!("{name} ended by itself"),
        Some(Err(error)) => anyhow!("a server broke down: {error}"),
        None => anyhow!("no server runs"),
    }
}

async fn connect(address: &str) -> anyhow::Result<Operator> {
    client::operator(&[address.to_owned()], START_DEADLINE).await
}

async fn all_active(address: &str, agents: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    let mut operator = connect(address).await?;
    loop {
        let answer = operator.list_agents(ListAgentsRequest {}).await?.into_inner();
        let active = answer.agents.iter().filter(|a| a.status() == Status::Active).count();
        if active >= agents {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(anyhow!(
                "only {active} of {} came up within {}",
                text::count(agents, "agent"),
                units::show_duration(START_DEADLINE)
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn teardown_all(operator: &mut Operator) {
    let Ok(answer) =
        operator.list_frameworks(ListFrameworksRequest { completed: Some(false) }).await
    else {
        return;
    };
    for framework in &answer.into_inner().frameworks {
        let framework_id = frameworks::id(framework).to_owned();
        if let Err(status) = operator.teardown(TeardownRequest { framework_id }).await {
            tracing::warn!(%status, "a framework could not be torn down");
        }
    }
}

/// Waits until the agent has no container left.
async fn no_containers(address: &str) {
    let Ok(mut agent) = client::agent(address).await else { return };
    while let Ok(answer) = agent.list_containers(ListContainersRequest {}).await {
        if answer.into_inner().containers.is_empty() {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Removes the agent's own cgroup, empty by now, from every hierarchy.
fn remove_cgroups(name: &str) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next()) {
            // In most there is none; and what is not empty is not ours to remove.
            let _ = std::fs::remove_dir(Path::new(point).join(name));
        }
    }
}
