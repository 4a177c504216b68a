//! Every example in `spark-framework/examples`, in both modes, on two agents: what
//! Spark is used for. Each checks its own answer. `./test.sh` installs Spark and
//! PostgreSQL.

#![allow(clippy::expect_used)]

use std::{
    fs::Permissions,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, Folder, PATIENCE, Process, clean_command, eventually, executors,
    nothing_is_left, prepared,
};
use rustix::process::Signal;

/// All examples take about a minute, and the machines are small.
const SEEDS_PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn the_seeds_of_real_use_are_right_in_coarse_mode() -> Result<()> {
    all_seeds("coarse")
}

#[test]
fn the_seeds_of_real_use_are_right_in_fine_mode() -> Result<()> {
    all_seeds("fine")
}

#[test]
fn graphx_is_right_in_a_shell_in_coarse_mode() -> Result<()> {
    graphx("coarse")
}

#[test]
fn graphx_is_right_in_a_shell_in_fine_mode() -> Result<()> {
    graphx("fine")
}

/// Those in Python, in one application.
fn all_seeds(mode: &str) -> Result<()> {
    let cluster = cluster()?;
    let database = Database::start()?;
    let shared = cluster.folder().join("shared");
    std::fs::create_dir(&shared)?;
    let programs = programs()?;
    let py_files: Vec<_> = programs.iter().map(|p| p.display().to_string()).collect();

    let mut command = spark(&cluster, "submit", mode)?;
    command
        .arg("--jars")
        .arg(prepared("MEZZ_TEST_JDBC_JAR")?)
        .args(["--py-files", &py_files.join(",")])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/all_seeds.py"))
        .arg(&shared)
        .arg(database.url());
    let mut job = Process::start("seeds", cluster.folder(), command)?;
    let end = job.wait(SEEDS_PATIENCE);
    println!("{}", job.stdout());
    let end = end?.success()?;
    for program in programs {
        let name = program.file_stem().context("a name")?.to_string_lossy().into_owned();
        let said = end.stdout.lines().any(|line| line.starts_with(&format!("right {name} ")));
        // That one is a part of others.
        ensure!(said || name == "executor_tools", "{name} was not run: {end}");
    }
    database.stop()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// The one in Scala: its functions come to the executors from the shell.
fn graphx(mode: &str) -> Result<()> {
    let cluster = cluster()?;
    let mut command = spark(&cluster, "shell", mode)?;
    command.arg("-i").arg(examples().join("graphx.scala"));
    let mut job = Process::start("shell", cluster.folder(), command)?;
    job.wait_for_output("ranks: page", PATIENCE * 2)?;
    let end = job.wait(PATIENCE)?.success()?;
    let components = "components: 1 with 3 vertices, 10 with 5 vertices, 100 with 7 vertices";
    ensure!(end.stdout.contains(components), "{end}");
    nothing_is_left(&cluster)?;
    ensure!(executors(&cluster)?.is_empty(), "executors are left");
    cluster.stop()
}

/// One executor and one task at a time fit on each agent; the driver is outside.
fn cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1600;disk:1000".to_owned(),
        ..Default::default()
    })
}

fn spark(cluster: &Cluster, what: &str, mode: &str) -> Result<Command> {
    let mut command = cluster.client(["spark", what, "--mode", mode]);
    command
        .env("SPARK_HOME", prepared("MEZZ_TEST_SPARK_HOME")?)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("MEZZ_SPARK_BRIDGE", prepared("MEZZ_SPARK_BRIDGE")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false", "spark.cores.max=2"] {
        command.args(["--conf", pair]);
    }
    // Short runs of much code: compiling it well costs more than it gives.
    for side in ["driver", "executor"] {
        let option = format!("spark.{side}.extraJavaOptions=-XX:TieredStopAtLevel=1");
        command.args(["--conf", &option]);
    }
    Ok(command)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spark-framework/examples")
}

/// The examples in Python.
fn programs() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(examples())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "py") {
            found.push(path);
        }
    }
    Ok(found)
}

/// A PostgreSQL with a port and a data folder of its own.
struct Database {
    server: Process,
    port: u16,
    // Last, so that the folder outlives the server.
    _folder: Folder,
}

impl Database {
    /// Starts it, and waits until it answers.
    fn start() -> Result<Self> {
        let folder = Folder::new("postgres")?;
        // It refuses to run as root; Debian's package has made a user for it.
        let (user, group) = postgres_user()?;
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        chown(&data, Some(user), Some(group))?;
        let program = |name: &str| -> Result<Command> {
            let mut command = clean_command("setpriv");
            command
                .args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups"])
                .arg(prepared("MEZZ_TEST_POSTGRES")?.join(name))
                .current_dir(folder.path());
            Ok(command)
        };
        let made = program("initdb")?
            .args(["--pgdata=data", "--username=mezz", "--auth=trust", "--no-sync"])
            // Whatever the language of whoever runs the tests.
            .args(["--no-locale", "--encoding=UTF8"])
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = program("postgres")?;
        command
            .args(["-D", "data", "-F", "-p", &port.to_string()])
            .args(["--listen_addresses=127.0.0.1", "--unix_socket_directories="]);
        let server = Process::start("postgres", folder.path(), command)?;
        let mut database = Self { server, port, _folder: folder };
        eventually(PATIENCE, "PostgreSQL answers", || {
            ensure!(database.server.running(), "it has ended: {}", database.server.stderr());
            let asked = Command::new(prepared("MEZZ_TEST_POSTGRES")?.join("pg_isready"))
                .args(["--host=127.0.0.1", &format!("--port={port}")])
                .output()?;
            let said = String::from_utf8_lossy(&asked.stdout).into_owned();
            Ok(if asked.status.success() { Ok(()) } else { Err(said) })
        })?;
        Ok(database)
    }

    fn url(&self) -> String {
        format!("jdbc:postgresql://127.0.0.1:{}/postgres?user=mezz", self.port)
    }

    fn stop(mut self) -> Result<()> {
        self.server.signal(Signal::INT)?;
        self.server.wait(PATIENCE)?.success()?;
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Its own processes have groups of their own, and go when it ends in an orderly way.
        if self.server.running() && self.server.signal(Signal::INT).is_ok() {
            let _ = self.server.wait(Duration::from_secs(10));
        }
    }
}

/// The user and the group that PostgreSQL runs as.
fn postgres_user() -> Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|l| l.starts_with("postgres:"));
    let line = line.context("there is no user `postgres`: run the tests by ./test.sh")?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    let mut next = || -> Result<u32> { Ok(numbers.next().context("a short line")??) };
    Ok((next()?, next()?))
}
