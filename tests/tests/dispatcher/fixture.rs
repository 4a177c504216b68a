//! A cluster with dispatchers, and what the tests do with it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, Etcd, PATIENCE, Process, QUICK, clean_command, eventually,
    free_address, http_get, mezz_program, prepared,
};
use rustix::process::Signal;
use serde_json::Value;

pub const SPARK_4: &str = "MEZZ_TEST_SPARK_HOME";
pub const SPARK_3: &str = "MEZZ_TEST_SPARK_3_HOME";

/// Everything, to standard error; a client mutes what is not named.
const LOG: &str = "rootLogger.level = info\n\
                   rootLogger.appenderRef.console.ref = console\n\
                   logger.rest.name = org.apache.spark.deploy.rest\n\
                   logger.rest.level = debug\n\
                   appender.console.type = Console\n\
                   appender.console.name = console\n\
                   appender.console.target = SYSTEM_ERR\n\
                   appender.console.layout.type = PatternLayout\n\
                   appender.console.layout.pattern = %m%n\n";

/// A cluster of one agent and a dispatcher; a driver and an executor fit.
pub struct Dispatched {
    // Before the cluster, whose folder they are in.
    dispatchers: Vec<Option<Process>>,
    /// Of each.
    pub addresses: Vec<String>,
    /// Of all of them, between commas.
    pub address: String,
    /// Further arguments of each.
    args: Vec<String>,
    pub cluster: Cluster,
    // Last, so that nobody sees it go.
    _etcd: Option<Etcd>,
}

impl Dispatched {
    pub fn start() -> Result<Self> {
        Self::start_with(Vec::new())
    }

    pub fn start_with(master_args: Vec<String>) -> Result<Self> {
        Self::start_on(ClusterOptions { master_args, ..small_cluster() })
    }

    pub fn start_on(options: ClusterOptions) -> Result<Self> {
        let mut all = Self::prepare(options, 1, None)?;
        all.start_dispatcher(0)?;
        Ok(all)
    }

    /// Two dispatchers with one store and one folder of files, of which the first leads.
    pub fn start_two(lease: &str) -> Result<Self> {
        let etcd = Etcd::start(&[])?;
        let registry = etcd.registry("mezz");
        let mut all = Self::prepare(small_cluster(), 2, Some(etcd))?;
        let uploads = all.cluster.folder().join("uploads").display().to_string();
        let args = ["--registry", &registry, "--leader-lease", lease, "--upload-dir", &uploads];
        all.args = args.map(str::to_owned).to_vec();
        all.start_dispatcher(0)?;
        all.spawn_dispatcher(1)?;
        all.wait_for_page(1, &format!("the leader is {}", all.addresses[0]))?;
        Ok(all)
    }

    fn prepare(options: ClusterOptions, dispatchers: usize, etcd: Option<Etcd>) -> Result<Self> {
        let cluster = Cluster::start(options)?;
        let addresses = (0..dispatchers).map(|_| free_address()).collect::<Result<Vec<_>>>()?;
        let address = addresses.join(",");
        let dispatchers = (0..dispatchers).map(|_| None).collect();
        Ok(Self { dispatchers, addresses, address, args: Vec::new(), cluster, _etcd: etcd })
    }

    /// One that was started.
    pub fn dispatcher(&mut self, n: usize) -> Result<&mut Process> {
        self.dispatchers[n].as_mut().with_context(|| format!("dispatcher {n} is not running"))
    }

    /// Waits until its health says this.
    pub fn wait_for_page(&self, n: usize, text: &str) -> Result<()> {
        let url = format!("http://{}/health", self.addresses[n]);
        eventually(PATIENCE, &format!("dispatcher {n} says `{text}`"), || {
            Ok(match http_get(&url) {
                Ok((200, page)) if page.contains(text) => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
    }

    /// Starts one (again), where it was.
    pub fn spawn_dispatcher(&mut self, n: usize) -> Result<()> {
        let name = if n == 0 { "dispatcher".to_owned() } else { format!("dispatcher{n}") };
        let listen = &self.addresses[n];
        let mut command = self.cluster.client(["spark", "dispatcher", "--listen", listen]);
        command
            .arg("--work-dir")
            .arg(self.cluster.folder().join(&name))
            .args(&self.args)
            .arg("--spark-home")
            .arg(prepared(SPARK_4)?)
            .arg("--agent-mezz")
            .arg(mezz_program()?)
            .arg("--agent-bridge-jar")
            .arg(prepared("MEZZ_SPARK_BRIDGE")?);
        self.dispatchers[n] = Some(Process::start(&name, self.cluster.folder(), command)?);
        Ok(())
    }

    /// The same, and waits until it answers.
    pub fn start_dispatcher(&mut self, n: usize) -> Result<()> {
        self.spawn_dispatcher(n)?;
        eventually(PATIENCE, "the dispatcher answers", || {
            let list = self.mezz(&["list"])?;
            Ok(if list.status.success() { Ok(()) } else { Err(text(&list.stderr)) })
        })
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.client(["spark"]);
        command.args(args).env("MEZZ_DISPATCHER", &self.address);
        command
    }

    pub fn mezz(&self, args: &[&str]) -> Result<std::process::Output> {
        Ok(self.command(args).output()?)
    }

    pub fn drivers(&self) -> Result<Vec<Value>> {
        let output = self.mezz(&["list", "--output", "json"])?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub fn driver(&self, id: &str) -> Result<Value> {
        let all = self.drivers()?;
        all.into_iter().find(|d| d["id"] == id).with_context(|| format!("no driver {id}"))
    }

    /// Waits for a state, and fails when another is the last.
    pub fn wait_for(&self, id: &str, state: &str) -> Result<Value> {
        eventually(PATIENCE * 3, &format!("{id} is {state}"), || {
            let driver = self.driver(id)?;
            if driver["state"] == state {
                return Ok(Ok(driver));
            }
            ensure!(driver["ended"] == false, "it has ended: {driver}\n{}", self.logs(id)?);
            Ok(Err(driver.to_string()))
        })
    }

    /// All that the driver wrote.
    pub fn logs(&self, id: &str) -> Result<String> {
        let mut all = String::new();
        for args in [vec!["logs", id], vec!["logs", id, "--stderr"]] {
            let output = self.mezz(&args)?;
            all += &(text(&output.stdout) + &text(&output.stderr));
        }
        Ok(all)
    }

    pub fn wait_for_log(&self, id: &str, what: &str) -> Result<()> {
        eventually(PATIENCE * 3, &format!("{id} writes {what}"), || {
            let logs = self.logs(id)?;
            Ok(if logs.contains(what) { Ok(()) } else { Err(logs) })
        })
    }

    /// By `mezz spark submit`; returns the driver's id.
    pub fn submit(&self, conf: &[&str], program: &Path, args: &[&str]) -> Result<String> {
        let mut command = self.command(&["submit", "--deploy-mode", "cluster"]);
        for pair in small()?.iter().map(String::as_str).chain(conf.iter().copied()) {
            command.args(["--conf", pair]);
        }
        let output = command.arg(program).args(args).output()?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(text(&output.stdout).trim().to_owned())
    }

    /// By Spark's own program; returns the driver's id.
    pub fn spark_submit(&self, spark: &str, conf: &[&str], args: &[&str]) -> Result<String> {
        let mut command = self.spark(spark)?;
        command.args(["--deploy-mode", "cluster"]);
        for pair in small()?.iter().map(String::as_str).chain(conf.iter().copied()) {
            command.args(["--conf", pair]);
        }
        let output = command.args(args).output()?;
        let said = text(&output.stderr) + &text(&output.stdout);
        ensure!(output.status.success(), "{said}");
        let id = said.split(|c: char| !(c.is_alphanumeric() || c == '-'));
        let id = id.into_iter().find(|word| word.starts_with("driver-"));
        Ok(id.with_context(|| format!("no id: {said}"))?.to_owned())
    }

    pub fn spark(&self, spark: &str) -> Result<Command> {
        let home = prepared(spark)?;
        // Without it, the client says nothing of a driver's status.
        let conf = self.cluster.folder().join("conf");
        std::fs::create_dir_all(&conf)?;
        std::fs::write(conf.join("log4j2.properties"), LOG)?;
        let mut command = clean_command(home.join("bin/spark-submit"));
        command
            .env("SPARK_HOME", home)
            .env("SPARK_CONF_DIR", conf)
            .env("SPARK_SUBMIT_OPTS", QUICK)
            .args(["--master", &format!("spark://{}", self.address)])
            .args(["--conf", "spark.master.rest.enabled=true"])
            .current_dir(self.cluster.folder());
        Ok(command)
    }

    /// Kills a dispatcher, which is not started again by itself.
    pub fn kill_9(&mut self, n: usize) -> Result<()> {
        let mut dispatcher = self.dispatchers[n].take().context("it is not running")?;
        dispatcher.kill_9()
    }

    pub fn nothing_is_left(&self) -> Result<()> {
        eventually(PATIENCE, "only the dispatcher's framework is left", || {
            let tasks = self.cluster.list("tasks", &[])?;
            let frameworks = self.cluster.list("frameworks", &[])?;
            let alone = tasks.is_empty() && frameworks.len() == 1;
            Ok(if alone { Ok(()) } else { Err(format!("{tasks:?} {frameworks:?}")) })
        })
    }

    pub fn stop(mut self) -> Result<()> {
        for mut dispatcher in self.dispatchers.drain(..).flatten() {
            dispatcher.signal(Signal::TERM)?;
            let end = dispatcher.wait(PATIENCE)?;
            ensure!(end.code == Some(0), "after SIGTERM: {:?}\n{end}", end.code);
        }
        self.cluster.stop()
    }
}

/// Room for a driver and an executor.
fn small_cluster() -> ClusterOptions {
    ClusterOptions {
        agents: 1,
        resources: "cpus:2;mem:1900;disk:1000".to_owned(),
        ..Default::default()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Settings for a small machine.
pub fn small() -> Result<Vec<String>> {
    Ok(vec![
        "spark.driver.memory=512m".to_owned(),
        "spark.executor.memory=512m".to_owned(),
        "spark.cores.max=1".to_owned(),
        "spark.ui.enabled=false".to_owned(),
        format!("spark.driver.defaultJavaOptions={QUICK}"),
        format!("spark.executor.defaultJavaOptions={QUICK}"),
        format!("spark.pyspark.python={}", prepared("MEZZ_TEST_PYTHON")?.display()),
    ])
}

/// A program of the test's own.
pub fn program(all: &Dispatched, name: &str, lines: &str) -> Result<PathBuf> {
    let path = all.cluster.folder().join(name);
    std::fs::write(&path, lines)?;
    Ok(path)
}

/// Says that it runs, and goes on until there is a file `go`.
pub fn waiting_program(all: &Dispatched) -> Result<PathBuf> {
    let go = all.cluster.folder().join("go");
    program(
        all,
        "waiting.py",
        &format!(
            "import os, time\n\
             from pyspark.sql import SparkSession\n\
             sc = SparkSession.builder.getOrCreate().sparkContext\n\
             print('first', sc.parallelize(range(10), 2).sum(), flush=True)\n\
             while not os.path.exists({go:?}):\n    time.sleep(0.05)\n\
             print('second', sc.parallelize(range(100), 2).sum(), flush=True)\n"
        ),
    )
}

/// What stands for Spark where only the dispatchers matter: runs the Python program.
pub fn plain_home(all: &Dispatched) -> Result<String> {
    let home = all.cluster.folder().join("plain");
    std::fs::create_dir_all(home.join("bin"))?;
    let script = home.join("bin/spark-submit");
    let lines = "#!/bin/sh\nfor a; do case $a in *.py) exec python3 \"$a\";; esac; done\n";
    std::fs::write(&script, lines)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(format!("spark.mezz.driver.home={}", home.display()))
}

/// Ends at once.
pub fn quick(all: &Dispatched) -> Result<PathBuf> {
    program(all, "quick.py", "print('quick', flush=True)\n")
}
