//! An etcd of one member, in a folder of its own.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{Folder, PATIENCE, Process, eventually, free_address, http_get};

/// A running etcd; killed when it is dropped.
pub struct Etcd {
    address: String,
    peer: String,
    args: Vec<String>,
    process: Process,
    // Last, so that the folder outlives the process.
    folder: Folder,
}

impl Etcd {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(args: &[&str]) -> Result<Self> {
        let folder = Folder::new("etcd")?;
        let (address, peer) = (free_address()?, free_address()?);
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let process = spawn(folder.path(), &address, &peer, &args)?;
        let etcd = Self { address, peer, args, process, folder };
        etcd.wait()?;
        Ok(etcd)
    }

    /// host:port for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What `mezz master --registry` is given.
    pub fn registry(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.address)
    }

    /// Stops it in the middle of whatever it does, until [`go_on`](Self::go_on).
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// After [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it is gone.
    pub fn go_on(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// `kill -9`, and a new start with the same data.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill_9()?;
        self.process = spawn(self.folder.path(), &self.address, &self.peer, &self.args)?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        // With TLS it cannot be asked so simply, but it writes that it serves.
        let tls = self.args.iter().any(|arg| arg.starts_with("--cert-file"));
        eventually(PATIENCE, "etcd answers", || {
            if tls {
                let log = self.process.stderr();
                let up = log.contains("ready to serve client requests");
                return Ok(if up { Ok(()) } else { Err(log) });
            }
            Ok(match http_get(&format!("http://{}/health", self.address)) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}\n{}", self.process.stderr())),
            })
        })
    }
}

fn spawn(folder: &Path, address: &str, peer: &str, args: &[String]) -> Result<Process> {
    let scheme =
        if args.iter().any(|arg| arg.starts_with("--cert-file")) { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://{address}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command
        .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(args);
    Process::start("etcd", folder, command)
        .context("etcd is missing: run ./test.sh, or `apt-get install etcd-server`")
}
