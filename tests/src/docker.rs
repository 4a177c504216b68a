//! Containers of an engine, in tests.

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{PATIENCE, Process, eventually};

/// What `docker` prints.
///
/// # Errors
/// When it fails: what it says.
pub fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(args).output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The containers of the agent with this work dir; what a failed test has left of them
/// goes with this.
pub struct Containers(PathBuf);

impl Containers {
    /// Nothing is looked for yet.
    pub fn of(work_dir: PathBuf) -> Self {
        Self(work_dir)
    }

    /// Their ids, running or not.
    ///
    /// # Errors
    /// When the agent has no engine yet, or that does not answer.
    pub fn list(&self) -> Result<String> {
        let known = fs::read(self.0.join("docker.json"))?;
        let known: serde_json::Value = serde_json::from_slice(&known)?;
        let agent = known["agent"].as_str().context("the agent's label")?;
        docker(&["ps", "-aq", "--filter", &format!("label=dev.mezz.agent={agent}")])
    }

    /// An agent that stops leaves to the next one what it has not removed yet.
    ///
    /// # Errors
    /// When some are still there.
    pub fn wait_until_gone(&self) -> Result<()> {
        eventually(PATIENCE, "the containers are removed", || {
            let left = self.list()?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for id in self.list().unwrap_or_default().split_whitespace() {
            let _ = docker(&["rm", "-f", id]);
        }
    }
}

/// A network of the engine's, by its name; it goes with this, so this has to outlive the
/// containers in it.
pub struct DockerNetwork {
    /// As `docker network ls` shows it.
    pub name: String,
}

impl DockerNetwork {
    /// A new one, for a test with this folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(folder: &Path) -> Result<Self> {
        let label = label(folder);
        let name = label.replace(['=', '.'], "-");
        docker(&["network", "create", "--label", &label, &name])?;
        Ok(Self { name })
    }

    /// The machine's own address in it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn gateway(&self) -> Result<String> {
        let gateway = "{{(index .IPAM.Config 0).Gateway}}";
        docker(&["network", "inspect", &self.name, "-f", gateway])
    }
}

impl Drop for DockerNetwork {
    fn drop(&mut self) {
        let _ = docker(&["network", "rm", &self.name]);
    }
}

/// By it networks are known whose tests were killed.
pub(crate) fn label(folder: &Path) -> String {
    format!("mezz-test.folder={}", folder.file_name().unwrap_or_default().to_string_lossy())
}

/// Volumes, as settings of Spark on Mezz list them, that give an image with hardly more
/// than a shell this machine's own programs, and what else is below the top folders of
/// these paths.
///
/// # Errors
/// When a path is not absolute.
pub fn volumes_of_this_machine(paths: &[PathBuf]) -> Result<String> {
    let mut volumes = BTreeSet::from(["/etc:/etc:ro".to_owned()]);
    for (host, container) in
        [("/usr", "/usr"), ("/usr/lib", "/lib"), ("/usr/lib64", "/lib64"), ("/usr/bin", "/bin")]
    {
        volumes.insert(format!("{host}:{container}:ro"));
    }
    for path in paths {
        let top = path.components().nth(1).context("an absolute path")?;
        let top = top.as_os_str().to_string_lossy().into_owned();
        if top != "usr" {
            volumes.insert(format!("/{top}:/{top}:ro"));
        }
    }
    Ok(volumes.into_iter().collect::<Vec<_>>().join(","))
}

/// A registry of images on loopback, for as long as this lives.
pub struct Registry {
    /// host:port of it.
    pub address: String,
    _process: Process,
}

impl Registry {
    /// Starts one that keeps its images in this folder.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start(folder: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = folder.join("registry.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \
                 {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
                folder.join("registry").display()
            ),
        )?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let process = Process::start("registry", folder, command)
            .context("this test needs docker-registry: see ensure_registry in scripts/docker.sh")?;
        eventually(PATIENCE, "the registry answers", || {
            Ok(TcpStream::connect(&address).map(drop).map_err(|error| error.to_string()))
        })?;
        Ok(Self { address, _process: process })
    }
}
