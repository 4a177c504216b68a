//! An etcd of one or more members, in a folder of its own.

use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{Folder, Network, PATIENCE, Process, eventually, free_address, http_get};

/// A running etcd; killed when it is dropped.
pub struct Etcd {
    members: Vec<Member>,
    args: Vec<String>,
    network: Option<Network>,
    // Last, so that the folder outlives the processes.
    folder: Folder,
}

struct Member {
    name: String,
    address: String,
    peer: String,
    process: Option<Process>,
}

impl Etcd {
    /// Starts one of one member and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(args: &[&str]) -> Result<Self> {
        Self::start_members(1, None, args)
    }

    /// Starts one of so many members and waits until all answer. On a network they are the
    /// nodes etcd0, etcd1, ….
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start_members(count: usize, network: Option<&Network>, args: &[&str]) -> Result<Self> {
        let member = |n: usize| -> Result<Member> {
            let name = format!("etcd{n}");
            let (address, peer) = match network {
                Some(network) => {
                    let ip = network.ip(&name)?;
                    (format!("{ip}:2379"), format!("{ip}:2380"))
                }
                None => (free_address()?, free_address()?),
            };
            Ok(Member { name, address, peer, process: None })
        };
        let mut etcd = Self {
            members: (0..count).map(member).collect::<Result<_>>()?,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            network: network.cloned(),
            folder: Folder::new("etcd")?,
        };
        etcd.start_all()?;
        Ok(etcd)
    }

    /// host:port for clients, of the first member.
    pub fn address(&self) -> &str {
        &self.members[0].address
    }

    /// host:port for clients, of each member.
    pub fn addresses(&self) -> Vec<&str> {
        self.members.iter().map(|m| m.address.as_str()).collect()
    }

    /// What `mezz master --registry` is given.
    pub fn registry(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.addresses().join(","))
    }

    /// Stops all of it in the middle of whatever it does, until [`go_on`](Self::go_on).
    ///
    /// # Errors
    /// When one is gone.
    pub fn pause(&self) -> Result<()> {
        (0..self.members.len()).try_for_each(|n| self.signal_member(n, Signal::STOP))
    }

    /// After [`pause`](Self::pause).
    ///
    /// # Errors
    /// When one is gone.
    pub fn go_on(&self) -> Result<()> {
        (0..self.members.len()).try_for_each(|n| self.signal_member(n, Signal::CONT))
    }

    /// Sends a member a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal_member(&self, n: usize, signal: Signal) -> Result<()> {
        self.members[n].process.as_ref().context("the member is not running")?.signal(signal)
    }

    /// `kill -9`, and a new start with the same data, of all members at once.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        for n in 0..self.members.len() {
            self.kill_member(n)?;
        }
        self.start_all()
    }

    /// `kill -9` of a member; nothing when it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_member(&mut self, n: usize) -> Result<()> {
        self.members[n].process.take().map_or(Ok(()), |mut process| process.kill_9())
    }

    /// Starts a member again, with the same data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_member(&mut self, n: usize) -> Result<()> {
        self.spawn(n)?;
        self.wait(n)
    }

    /// Starts all members that are not running, and waits until all answer.
    ///
    /// # Errors
    /// When one does not.
    pub fn start_all(&mut self) -> Result<()> {
        for n in 0..self.members.len() {
            if self.members[n].process.is_none() {
                self.spawn(n)?;
            }
        }
        (0..self.members.len()).try_for_each(|n| self.wait(n))
    }

    fn wait(&self, n: usize) -> Result<()> {
        let Member { name, address, process, .. } = &self.members[n];
        let Some(process) = process else { bail!("{name} is not running") };
        // With TLS it cannot be asked so simply, but it writes that it serves.
        let tls = self.tls();
        eventually(PATIENCE, &format!("{name} answers"), || {
            if tls {
                let log = process.stderr();
                let up = log.contains("ready to serve client requests");
                return Ok(if up { Ok(()) } else { Err(log) });
            }
            let ask = || http_get(&format!("http://{address}/health"));
            let answer = match &self.network {
                Some(network) => network.within(name, ask),
                None => ask(),
            };
            Ok(match answer {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}\n{}", process.stderr())),
            })
        })
    }

    fn spawn(&mut self, n: usize) -> Result<()> {
        let Member { name, address, peer, .. } = &self.members[n];
        let mut command = Command::new("etcd");
        let scheme = if self.tls() { "https" } else { "http" };
        let client = format!("{scheme}://{address}");
        let of = |m: &Member| format!("{}=http://{}", m.name, m.peer);
        let all: Vec<String> = self.members.iter().map(of).collect();
        let peer = format!("http://{peer}");
        command
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args(["--name", name, "--data-dir"])
            .arg(self.folder.path().join(name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(",")])
            .args(&self.args);
        if let Some(network) = &self.network {
            command = network.command(name, &command)?;
        }
        let process = Process::start(name, self.folder.path(), command)
            .context("etcd is missing: run ./test.sh, or `apt-get install etcd-server`")?;
        self.members[n].process = Some(process);
        Ok(())
    }

    fn tls(&self) -> bool {
        self.args.iter().any(|arg| arg.starts_with("--cert-file"))
    }
}
