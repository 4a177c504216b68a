//! The cluster of `deploy/`, in containers: it comes up, passes its tour, and goes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    COMPOSE_PROJECT, Folder, PATIENCE, Process, clean_command, docker, eventually, free_address,
    mezz_program, prepared_value, processes_of,
};

/// For each script; they have deadlines of their own for each step.
const SCRIPT: Duration = Duration::from_secs(600);

struct World {
    /// Begins the names of all that is made, and is nobody else's.
    project: String,
    ports: Vec<String>,
    gone: bool,
    // Last, so that it outlives what is in it.
    folder: Folder,
}

impl World {
    fn new() -> Result<Self> {
        let port = || -> Result<String> {
            let address = free_address()?;
            Ok(address.rsplit(':').next().context("a port")?.to_owned())
        };
        let folder = Folder::new("compose")?;
        let project = format!("mezz-test-{}", std::process::id());
        // For whoever clears up, should this test be killed.
        fs::write(folder.path().join(COMPOSE_PROJECT), &project)?;
        let ports = (0..4).map(|_| port()).collect::<Result<_>>()?;
        Ok(Self { project, ports, gone: false, folder })
    }

    /// Of the agent with the engine.
    fn compose_dir(&self) -> PathBuf {
        self.folder.path().join("compose")
    }

    /// Runs a script of `deploy/` to its end; returns what it told.
    fn run(&self, script: &str, args: &[&str]) -> Result<String> {
        let begin = Instant::now();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(script);
        let mut command = clean_command(path);
        command
            .args(args)
            .env("MEZZ_HOME", self.folder.path())
            .env("MEZZ_DEPLOY_MEZZ", mezz_program()?)
            .env("MEZZ_DEPLOY_SPARK_IMAGE", prepared_value("MEZZ_TEST_SPARK_IMAGE")?)
            .env("MEZZ_COMPOSE_PROJECT", &self.project)
            .env("MEZZ_COMPOSE_DIR", self.compose_dir())
            .env("MEZZ_COMPOSE_LEASE", "3s");
        let names = ["MEZZ_PORT_1", "MEZZ_PORT_2", "MEZZ_PORT_3", "MEZZ_DISPATCHER_PORT"];
        command.envs(names.iter().zip(&self.ports));
        let mut process = Process::start(script, self.folder.path(), command)?;
        let end = process.wait(SCRIPT)?;
        let told = end.stdout + &end.stderr;
        eprintln!("{script} took {:.0} s", begin.elapsed().as_secs_f64());
        // All of it: the logs of a dozen services are there.
        ensure!(end.code == Some(0), "{script} ended with {:?}:\n{told}", end.code);
        Ok(told)
    }

    /// What there still is of the cluster.
    fn left(&self) -> Result<Vec<String>> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let images = format!("reference={}-*", self.project);
        let name = format!("name={}", self.project);
        let mut left = Vec::new();
        for (what, args) in [
            ("container", &["ps", "-a", "--filter", &label][..]),
            ("container", &["ps", "-a", "--filter", &name]),
            ("network", &["network", "ls", "--filter", &name]),
            ("volume", &["volume", "ls", "--filter", &name]),
            ("image", &["images", "--filter", &images]),
        ] {
            // The first line is the heading.
            left.extend(docker(args)?.lines().skip(1).map(|line| format!("{what} {line}")));
        }
        let dir = self.compose_dir();
        if dir.exists() {
            left.push(dir.display().to_string());
        }
        left.extend(processes_of(&dir)?.iter().map(|pid| format!("process {pid}")));
        let mounts = fs::read_to_string("/proc/mounts")?;
        let below = self.folder.path().to_string_lossy();
        left.extend(mounts.lines().filter(|line| line.contains(&*below)).map(str::to_owned));
        self.cgroups(Path::new("/sys/fs/cgroup"), &mut left);
        Ok(left)
    }

    fn cgroups(&self, folder: &Path, left: &mut Vec<String>) {
        // A cgroup may go while it is looked at.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&self.project) {
                    left.push(entry.path().display().to_string());
                }
                self.cgroups(&entry.path(), left);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) = self.run("down.sh", &["--all"])
        {
            eprintln!("the cluster of {} is not removed: {error:#}", self.project);
        }
    }
}

#[test]
fn the_cluster_in_containers_comes_up_passes_its_tour_and_goes() -> Result<()> {
    let mut world = World::new()?;
    let told = world.run("up.sh", &[])?;
    ensure!(told.contains("the cluster works") && told.contains("mezz spark submit"), "{told}");
    ensure!(!world.left()?.is_empty(), "what is looked for is not what the cluster consists of");
    let told = world.run("tour.sh", &[])?;
    ensure!(told.matches("pi is roughly 3.1").count() == 5, "{told}");
    world.run("down.sh", &["--all"])?;
    eventually(PATIENCE, "nothing of it is left", || {
        let left = world.left()?;
        Ok(if left.is_empty() { Ok(()) } else { Err(left.join("\n")) })
    })?;
    world.gone = true;
    Ok(())
}
