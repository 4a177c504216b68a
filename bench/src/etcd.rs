//! A real etcd of one member, on loopback, with its data in a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use etcd_client::Client;
use mezz_master::etcd::Keys;
use serde_json::Value;

use crate::cluster::free_address;

/// A running etcd; killed, and its data deleted, when it is dropped.
pub struct Etcd {
    child: Child,
    /// host:port for clients.
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Etcd {
    /// Starts one with its data below `folder`, and waits until it answers.
    pub async fn start(folder: Option<&Path>) -> Result<Self> {
        let parent = folder.map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = tempfile::tempdir_in(parent)?;
        let (address, peer) = (free_address()?, free_address()?);
        let (client, peer) = (format!("http://{address}"), format!("http://{peer}"));
        let child = Command::new("etcd")
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting etcd: `apt-get install etcd-server`")?;
        let etcd = Self { child, address, _folder: folder };
        for _ in 0..1500 {
            if let Ok(mut client) = etcd.client().await
                && client.get("x", None).await.is_ok()
            {
                return Ok(etcd);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("etcd does not answer at {} after 15 s", etcd.address)
    }

    /// A client of it.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect([&self.address], None).await?)
    }

    /// What `mezz master --registry` is given.
    pub fn registry(&self) -> String {
        format!("etcd://{}{PREFIX}", self.address)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the cluster's keys are.
pub const PREFIX: &str = "/bench";

/// Waits until the master at this address leads, as etcd has it.
pub async fn wait_for_leader(client: &mut Client, address: &str) -> Result<()> {
    let key = Keys::new(PREFIX).leader();
    loop {
        let got = client.get(key.as_str(), None).await?;
        let leader = got.kvs().first().and_then(|kv| {
            let value: Value = serde_json::from_slice(kv.value()).ok()?;
            Some(value["address"].as_str()? == address)
        });
        if leader == Some(true) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
