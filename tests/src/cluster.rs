//! A master and agents as processes of their own.

use std::{
    ffi::OsStr,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    Folder, Network, PATIENCE, eventually,
    folder::{cgroup_root, started_in},
    process::{Finished, Process, clean_command, mezz_program},
};

/// Longer than a program takes that ends when it is told to, and shorter than one that does
/// not notice.
const LAST_BREATH: Duration = Duration::from_secs(15);

/// Arguments of a master that gives an agent up a few seconds after its last word.
pub const QUICK_LOSS: [&str; 3] =
    ["--ping-interval=1s", "--max-missed-pings=3", "--agent-reregister-timeout=3s"];

/// What the cluster under test is.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many masters. More than one need `--registry etcd://…` among `master_args`.
    pub masters: usize,
    /// How many agents.
    pub agents: usize,
    /// What each has, as text.
    pub resources: String,
    /// What single agents have instead, by number.
    pub resources_of_agents: Vec<String>,
    /// Further arguments of `mezz master`.
    pub master_args: Vec<String>,
    /// Further arguments of `mezz agent`.
    pub agent_args: Vec<String>,
    /// And those of single agents, by number.
    pub args_of_agents: Vec<Vec<String>>,
    /// Names of the agents' hosts; 127.0.0.1 for those beyond. All must mean this one.
    pub hostnames: Vec<String>,
    /// Where all of it is, if not on loopback: masters on the nodes master0, master1, …,
    /// agents on agent0, agent1, …, and whoever looks at the cluster on the node client.
    pub network: Option<Network>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            masters: 1,
            agents: 1,
            resources: "cpus:2;mem:2048;disk:1000;ports:[31000-31099]".to_owned(),
            resources_of_agents: Vec::new(),
            master_args: Vec::new(),
            agent_args: Vec::new(),
            args_of_agents: Vec::new(),
            hostnames: Vec::new(),
            network: None,
        }
    }
}

/// A running cluster; everything of it is killed when it is dropped.
pub struct Cluster {
    options: ClusterOptions,
    program: PathBuf,
    /// All of them, between commas.
    master_address: String,
    master_addresses: Vec<String>,
    agent_addresses: Vec<String>,
    masters: Vec<Option<Process>>,
    agents: Vec<Option<Process>>,
    // Last, so that the folder outlives the processes.
    folder: Folder,
}

impl Cluster {
    /// Starts a master and its agents, and waits until all agents are active.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let (masters, agents) = (options.masters, options.agents);
        let address = |kind: &str, n: usize, port: u16| match &options.network {
            Some(network) => Ok(format!("{}:{port}", network.ip(&format!("{kind}{n}"))?)),
            None => free_address(),
        };
        let master_addresses =
            (0..masters).map(|n| address("master", n, 5050)).collect::<Result<Vec<_>>>()?;
        let agent_addresses =
            (0..agents).map(|n| address("agent", n, 5051)).collect::<Result<_>>()?;
        let mut cluster = Self {
            program: mezz_program()?,
            master_address: master_addresses.join(","),
            master_addresses,
            agent_addresses,
            masters: (0..masters).map(|_| None).collect(),
            agents: (0..agents).map(|_| None).collect(),
            folder: Folder::new("e2e")?,
            options,
        };
        cluster.start_master()?;
        for n in 1..masters {
            cluster.spawn_master(n)?;
        }
        for n in 0..agents {
            cluster.start_agent(n)?;
        }
        cluster.wait_for_agents(agents)?;
        Ok(cluster)
    }

    /// host:port of the master, or of all of them, between commas.
    pub fn master_address(&self) -> &str {
        &self.master_address
    }

    /// host:port of one of several masters.
    pub fn address_of_master(&self, n: usize) -> &str {
        &self.master_addresses[n]
    }

    /// host:port of each of several masters.
    pub fn master_addresses(&self) -> &[String] {
        &self.master_addresses
    }

    /// host:port of each agent.
    pub fn agent_addresses(&self) -> &[String] {
        &self.agent_addresses
    }

    /// Where logs, work dirs and whatever a test puts there are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The running master.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn master(&mut self) -> Result<&mut Process> {
        self.master_of(0)
    }

    /// One of several masters.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn master_of(&mut self, n: usize) -> Result<&mut Process> {
        self.masters[n].as_mut().with_context(|| format!("master {n} is not running"))
    }

    /// A running agent.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn agent(&mut self, n: usize) -> Result<&mut Process> {
        self.agents[n].as_mut().with_context(|| format!("agent {n} is not running"))
    }

    /// Starts the master (again).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_master(&mut self) -> Result<()> {
        self.spawn_master(0)?;
        eventually(PATIENCE, "the master answers", || {
            if !self.master()?.running() {
                return Ok(Err("it has ended".to_owned()));
            }
            let list = self.mezz(["agents"])?;
            Ok(if list.code == Some(0) { Ok(()) } else { Err(list.stderr) })
        })
    }

    /// Starts one of several masters (again), and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_master(&mut self, n: usize) -> Result<()> {
        let name = if n == 0 { "master".to_owned() } else { format!("master{n}") };
        let mut command = self.command();
        command
            .args(["master", "--listen", &self.master_addresses[n], "--work-dir"])
            .arg(self.path(&name))
            .args(&self.options.master_args);
        let command = self.on(&format!("master{n}"), command)?;
        self.masters[n] = Some(Process::start(&name, self.folder.path(), command)?);
        Ok(())
    }

    /// Starts an agent (again), under the address and work dir it has had.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, n: usize) -> Result<()> {
        let command = self.agent_command(n)?;
        self.agents[n] = Some(Process::start(&format!("agent{n}"), self.folder.path(), command)?);
        Ok(())
    }

    /// Starts an agent again, after [`lose_agent`](Self::lose_agent), as on a machine that
    /// was started anew: the kernel has another boot id.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent_on_a_restarted_machine(&mut self, n: usize) -> Result<()> {
        let agent = self.agent_command(n)?;
        let boot_id = self.path(&format!("boot-id-{n}"));
        std::fs::write(&boot_id, format!("00000000-0000-4000-8000-{n:012}\n"))?;
        let mut command = clean_command("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"")
            .arg(boot_id)
            .arg(agent.get_program())
            .args(agent.get_args())
            .current_dir(self.folder.path());
        self.agents[n] = Some(Process::start(&format!("agent{n}"), self.folder.path(), command)?);
        Ok(())
    }

    fn agent_command(&self, n: usize) -> Result<Command> {
        let work_dir = self.path(&format!("agent{n}"));
        let name = format!("{}-{n}", self.cgroup_root());
        let hostname = match &self.options.network {
            Some(network) => network.ip(&format!("agent{n}"))?,
            None => self.options.hostnames.get(n).map_or("127.0.0.1", String::as_str).to_owned(),
        };
        let resources = self.options.resources_of_agents.get(n).unwrap_or(&self.options.resources);
        let mut command = self.command();
        command
            .args(["agent", "--master", &self.master_address])
            .args(["--listen", &self.agent_addresses[n], "--hostname", &hostname])
            .args(["--resources", resources, "--cgroup-root", &name, "--work-dir"])
            .arg(work_dir)
            .args(&self.options.agent_args)
            .args(self.options.args_of_agents.get(n).into_iter().flatten());
        self.on(&format!("agent{n}"), command)
    }

    /// Kills an agent with all that runs on it, as the death of its machine would.
    ///
    /// # Errors
    /// When it was not running.
    pub fn lose_agent(&mut self, n: usize) -> Result<()> {
        let mut agent = self.agents[n].take().with_context(|| format!("agent {n} is stopped"))?;
        agent.kill_9()?;
        let ours = started_in(self.folder.path())?;
        for pid in crate::processes_of(&self.path(&format!("agent{n}")))? {
            if ours.contains(&pid) {
                // It may have ended with another one.
                let _ = crate::signal(pid, Signal::KILL);
            }
        }
        Ok(())
    }

    /// Waits for the end of an agent that ends by itself.
    ///
    /// # Errors
    /// When it does not, or was not running.
    pub fn wait_for_end_of_agent(&mut self, n: usize) -> Result<Finished> {
        let mut agent = self.agents[n].take().with_context(|| format!("agent {n} is stopped"))?;
        agent.wait(PATIENCE)
    }

    /// The id by which the master knows an agent.
    ///
    /// # Errors
    /// When it does not.
    pub fn id_of_agent(&self, n: usize) -> Result<String> {
        let agents = self.list("agents", &[])?;
        let agent = agents.iter().find(|a| a["api_address"] == *self.agent_addresses[n]);
        let id = agent.and_then(|agent| agent["id"].as_str()).map(str::to_owned);
        id.with_context(|| format!("agent {n} among {agents:?}"))
    }

    /// Further arguments of `mezz master` from its next start on.
    pub fn set_master_args(&mut self, args: &[&str]) {
        self.options.master_args = args.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// Further arguments of one agent from its next start on.
    pub fn set_args_of_agent(&mut self, n: usize, args: &[&str]) {
        let of_agents = &mut self.options.args_of_agents;
        of_agents.resize(of_agents.len().max(n + 1), Vec::new());
        of_agents[n] = args.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// Names this cluster's cgroups; no other cluster has it.
    pub fn cgroup_root(&self) -> String {
        cgroup_root(self.folder.path())
    }

    /// Waits until so many agents are active.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait_for_agents(&self, count: usize) -> Result<()> {
        eventually(PATIENCE, &format!("{count} active agents"), || {
            let agents = self.list("agents", &[])?;
            let active = agents.iter().filter(|a| a["status"] == "active").count();
            Ok(if active == count { Ok(()) } else { Err(format!("{agents:?}")) })
        })
    }

    /// Runs `mezz` with this cluster as its master, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn mezz(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Finished> {
        let output = self.on("client", self.client(args))?.output()?;
        Ok(Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts `mezz` with this cluster as its master, in the background.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        &self,
        name: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Process> {
        let command = self.on("client", self.client(args))?;
        Process::start(name, self.folder.path(), command)
    }

    /// A `mezz` command for this cluster, if that is on loopback.
    pub fn client(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.command();
        command.env("MEZZ_MASTER", &self.master_address).args(args);
        command
    }

    /// What one of several masters answers at this path: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask_master(&self, n: usize, path: &str) -> Result<(u16, String)> {
        let ask = || crate::http_get(&format!("http://{}{path}", self.master_addresses[n]));
        match &self.options.network {
            Some(network) => network.within("client", ask),
            None => ask(),
        }
    }

    /// The same command on a node of the network, if there is one.
    fn on(&self, node: &str, command: Command) -> Result<Command> {
        match &self.options.network {
            Some(network) => network.command(node, &command),
            None => Ok(command),
        }
    }

    /// One of the lists (`agents`, `tasks`, …) as JSON objects.
    ///
    /// # Errors
    /// When the command fails or prints no list.
    pub fn list(&self, what: &str, args: &[&str]) -> Result<Vec<Value>> {
        let all = [&[what], args, &["--output", "json"]].concat();
        let printed = self.mezz(all)?.success()?.stdout;
        serde_json::from_str(&printed).with_context(|| format!("mezz {what} printed {printed}"))
    }

    /// Stops everything by SIGTERM and checks that no process is left behind.
    ///
    /// # Errors
    /// What was left.
    pub fn stop(mut self) -> Result<()> {
        for mut process in self.agents.drain(..).chain(self.masters.drain(..)).flatten() {
            process.signal(Signal::TERM)?;
            let end = process.wait(PATIENCE)?;
            ensure!(end.code == Some(0), "after SIGTERM: {:?}\n{end}", end.code);
        }
        // What its agent had told to end may still be at it.
        eventually(LAST_BREATH, "no process is left behind", || {
            let left = crate::processes_of(self.folder.path())?;
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
        })
    }

    fn command(&self) -> Command {
        let mut command = clean_command(&self.program);
        command.current_dir(self.folder.path());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that returns an error has not stopped it.
        if !std::thread::panicking() {
            self.masters.iter().chain(&self.agents).flatten().for_each(Process::show);
        }
        self.agents.clear();
        self.masters.clear();
        // Launchers outlive their agents by design; a test must not leave any.
        for pid in started_in(self.folder.path()).unwrap_or_default() {
            let _ = crate::signal(pid, Signal::KILL);
        }
    }
}

/// host:port on loopback that nobody listens on.
///
/// # Errors
/// When none can be had.
pub fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
