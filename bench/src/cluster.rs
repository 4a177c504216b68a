//! A master in a process of its own, for measurements over real sockets.

use std::{
    net::TcpListener as StdListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

/// The kernel's unit of times in `/proc` (USER_HZ), the same on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// Open files beside the agents' connections.
const OTHER_FILES: usize = 100;

/// A `mezz` process that is killed when dropped.
pub struct Process {
    child: Child,
    /// host:port of its API.
    pub address: String,
}

impl Process {
    /// Starts `mezz master` with these further arguments on a free port, or on
    /// `address` when given, and waits until it accepts connections.
    pub async fn master(mezz: &Path, address: Option<&str>, args: &[&str]) -> Result<Self> {
        let address = match address {
            Some(a) => a.to_owned(),
            None => free_address()?,
        };
        Self::start(mezz, "master", address, args).await
    }

    /// Starts `mezz agent` for this master, likewise.
    pub async fn agent(mezz: &Path, master: &str, args: &[&str]) -> Result<Self> {
        let all: Vec<&str> = ["--master", master].iter().chain(args).copied().collect();
        Self::start(mezz, "agent", free_address()?, &all).await
    }

    async fn start(mezz: &Path, role: &str, address: String, args: &[&str]) -> Result<Self> {
        let child = Command::new(mezz)
            .arg(role)
            .args(["--listen", &address, "--log-level", "warn"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C is for us, who then end what runs on the agent.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", mezz.display()))?;
        let mut process = Self { child, address };
        for _ in 0..1500 {
            if TcpStream::connect(&process.address).await.is_ok() {
                return Ok(process);
            }
            if let Some(status) = process.child.try_wait()? {
                bail!("mezz {role} ended at its start: {status}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("mezz {role} does not listen on {} after 15 s", process.address)
    }

    /// Its memory now and at its highest, in bytes.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find(|l| l.starts_with(name)).context("no such line")?;
            let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
            Ok(kib * 1024)
        };
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// Processor time, user and system, that it has used since its start.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(Stat::of(self.child.id())?.own)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// And that of all below it that have ended and been waited for.
    pub fn cpu_of_ended(&self) -> Result<Duration> {
        Ok(Stat::of(self.child.id())?.ended)
    }

    /// Asks it to end, by SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, Signal::TERM).context("SIGTERM")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Whose child it is.
    pub parent: u32,
    /// Processor time, user and system, since its start.
    pub own: Duration,
    /// And that of its ended descendants.
    pub ended: Duration,
}

impl Stat {
    /// Of the process with this id.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        // The second field may hold spaces; it ends with the last parenthesis.
        let (_, rest) = stat.rsplit_once(')').context("no command name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field =
            |at: usize| -> Result<u64> { Ok(fields.get(at).context("too few fields")?.parse()?) };
        let time = |at: usize| -> Result<Duration> {
            Ok(Duration::from_millis((field(at)? + field(at + 1)?) * 1000 / TICKS_PER_SECOND))
        };
        Ok(Self { parent: field(1)?.try_into()?, own: time(11)?, ended: time(13)? })
    }
}

/// Processor time, user and system, of the load generator itself.
pub fn cpu_of_this_process() -> Result<Duration> {
    Ok(Stat::of(std::process::id())?.own)
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The most since the process's start.
    pub peak: u64,
}

/// The `mezz` program: the given path, or the one beside this program.
pub fn mezz_program(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("mezz"),
    };
    if !path.exists() {
        bail!(
            "{} is not there: build it with `cargo build --release -p mezz`, or give --mezz PATH",
            path.display()
        );
    }
    Ok(path)
}

/// An address on loopback that nobody listens on.
pub fn free_address() -> Result<String> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// As many open files as the system lets us have, for this process and the master
/// that it starts: one for each connection of `agents` simulated agents.
pub fn raise_file_limit(agents: usize, connections: usize) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("raising RLIMIT_NOFILE")?;
    let needed = if connections == 0 { agents } else { connections } + OTHER_FILES;
    match maximum {
        Some(limit) if limit < needed as u64 => bail!(
            "a process may have {limit} open files here, and this needs {needed}: raise that \
             limit (`ulimit -Hn`), or let the agents share connections with --connections"
        ),
        _ => Ok(()),
    }
}
