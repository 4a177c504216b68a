//! `docs/spark-migration.md`: every row that has an answer is tried, here or by the test
//! that is named. With real Apache Spark; `./test.sh` installs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, FileServer, PATIENCE, Process, eventually, nothing_is_left,
    spark_command,
};
use serde_json::Value;

/// How a row is tried.
enum Trial {
    /// By what is seen of an application in coarse-grained mode.
    Coarse(fn(&Seen) -> Result<()>),
    /// By what is seen of one in fine-grained mode.
    Fine(fn(&Seen) -> Result<()>),
    /// By a test elsewhere.
    Test(&'static str),
}

use Trial::{Coarse, Fine, Test};

/// What is seen of an application that runs.
struct Seen {
    /// Its framework, as it is listed.
    framework: Value,
    /// Its tasks.
    tasks: Vec<Value>,
    /// What a task of Spark's said.
    said: Value,
    /// The driver's log.
    log: String,
    /// Where its files are.
    folder: String,
    /// What agents fetched for executors.
    fetched: Vec<String>,
}

impl Seen {
    fn equal(&self, what: &str, is: &Value, wanted: Value) -> Result<()> {
        ensure!(*is == wanted, "{what} is {is}, not {wanted}: {:?}", self.tasks);
        Ok(())
    }

    fn says(&self, key: &str, wanted: &str) -> Result<()> {
        self.equal(key, &self.said[key], wanted.into())
    }

    /// Of each task of the cluster.
    fn each(&self, of: impl Fn(&Value) -> Value, wanted: Value) -> Result<()> {
        self.tasks.iter().try_for_each(|task| self.equal("a task's", &of(task), wanted.clone()))
    }

    fn labels(&self) -> Result<()> {
        let wanted = serde_json::json!([
            {"key": "team", "value": "search"}, {"key": "cost", "value": "a:b"},
        ]);
        // Beside those that Mezz itself puts on executors.
        let theirs = |task: &Value| {
            let all = task["labels"].as_array().cloned().unwrap_or_default();
            let ours = |l: &Value| l["key"].as_str().is_some_and(|k| k.starts_with("dev.mezz."));
            all.into_iter().filter(|l| !ours(l)).collect::<Vec<_>>().into()
        };
        self.each(theirs, wanted)
    }

    fn role(&self) -> Result<()> {
        self.equal("roles", &self.framework["roles"], serde_json::json!(["etl"]))
    }

    fn memory(&self) -> Result<()> {
        self.each(|task| task["resources"]["mem"].clone(), 812.0.into())
    }

    fn agents(&self) -> Vec<&Value> {
        let mut all: Vec<_> = self.tasks.iter().map(|task| &task["agent_hostname"]).collect();
        all.dedup();
        all
    }

    /// Of three agents two may be used, and one is enough.
    fn placement(&self) -> Result<()> {
        ensure!(self.agents().len() == 1, "not consolidated: {:?}", self.tasks);
        self.constraints()
    }

    fn constraints(&self) -> Result<()> {
        ensure!(!self.agents().contains(&&Value::from("127.0.0.4")), "rack c: {:?}", self.tasks);
        Ok(())
    }

    fn two_executors(&self) -> Result<()> {
        ensure!(self.tasks.len() == 2, "{:?}", self.tasks);
        self.each(|task| task["resources"]["cpus"].clone(), 1.0.into())
    }

    fn secret_variable(&self) -> Result<()> {
        self.says("password", "hush")?;
        let shown = format!("{:?} {:?} {}", self.tasks, self.framework, self.log);
        ensure!(!shown.contains("hush"), "the secret is shown: {shown}");
        Ok(())
    }
}

/// Rows by the first code of their first cell.
const MESOS: &[(&str, Trial)] = &[
    ("spark.mesos.principal", Test(ASKED)),
    ("--master mesos://HOST:5050", Test(PLAIN_PYTHON)),
    ("--master mesos://DISPATCHER:7077", Test("spark_3_5_s_client_is_served_with_its_own_spark")),
    ("sbin/start-mesos-dispatcher.sh", Test(STOCK_SUBMIT)),
    (
        "MesosClusterDispatcher --zk",
        Test("a_killed_dispatcher_loses_neither_what_runs_nor_what_waits"),
    ),
    ("sbin/start-mesos-shuffle-service.sh", Test(SHUFFLE)),
    ("spark.executor.uri", Test(FETCHED)),
    ("spark.mesos.coarse", Fine(|seen| seen.labels())),
    (
        "spark.mesos.mesosExecutor.cores",
        Fine(|seen| seen.equal("held", &seen.framework["allocated"]["cpus"], 1.5.into())),
    ),
    ("spark.mesos.role", Coarse(Seen::role)),
    ("spark.mesos.constraints", Coarse(Seen::constraints)),
    ("spark.mesos.uris", Test(FETCHED)),
    (
        // True elsewhere.
        "spark.mesos.fetcherCache.enable",
        Coarse(|seen| {
            ensure!(seen.fetched.len() == seen.tasks.len(), "not once each: {:?}", seen.fetched);
            Ok(())
        }),
    ),
    ("spark.mesos.task.labels", Coarse(Seen::labels)),
    ("spark.mesos.executor.memoryOverhead", Coarse(Seen::memory)),
    ("spark.mesos.executor.home", Test(IMAGE_3_5)),
    ("spark.mesos.executor.docker.image", Test(IN_IMAGE)),
    ("spark.mesos.executor.docker.forcePullImage", Test(IMAGE_3_5)),
    ("spark.mesos.network.name", Test(IMAGE_3_5)),
    ("spark.mesos.executor.secret.names", Coarse(Seen::secret_variable)),
    ("spark.mesos.driver.secret.names", Test(DRIVER_GPU)),
    ("spark.mesos.gpus.max", Test(GPUS)),
    ("spark.mesos.driver.constraints", Test(DRIVER_GPU)),
    ("spark.mesos.driver.labels", Test(DRIVER_GPU)),
    ("spark.mesos.driver.memoryOverhead", Test(DRIVER_GPU)),
    ("spark.mesos.driver.failoverTimeout", Test("a_driver_killed_with_its_sidecar_leaves_nothing")),
    (
        "spark.mesos.driver.webui.url",
        Coarse(|seen| {
            seen.equal("page", &seen.framework["webui_url"], "http://pages.example/app".into())
        }),
    ),
    ("spark.mesos.driverEnv.NAME", Test(DRIVER_GPU)),
    ("spark.mesos.dispatcher.queue", Test(QUEUE)),
    ("spark.mesos.dispatcher.driverDefault.NAME", Test(DRIVER_GPU)),
    ("spark.mesos.dispatcher.webui.url", Test(DRIVER_GPU)),
    ("spark.mesos.dispatcher.historyServer.url", Test(PLAIN_PYTHON)),
    ("spark.mesos.maxDrivers", Test("a_full_queue_says_so")),
    ("spark.mesos.retainedDrivers", Test("history_is_bounded_and_can_be_cleared")),
];

const STANDALONE: &[(&str, Trial)] = &[
    ("--master spark://HOST:7077", Test(PLAIN_PYTHON)),
    ("--deploy-mode cluster", Test(STOCK_SUBMIT)),
    ("--supervise", Test("a_supervised_driver_is_started_again_and_a_kill_ends_it_for_good")),
    ("--kill ID", Test(PLAIN_PYTHON)),
    ("spark.standalone.submit.waitAppCompletion", Test(DRIVER_GPU)),
    ("--total-executor-cores", Coarse(Seen::two_executors)),
    ("spark.deploy.spreadOut", Coarse(Seen::placement)),
    ("spark.deploy.maxExecutorRetries", Test(FAILING)),
    ("spark.deploy.maxDrivers", Test("a_full_queue_says_so")),
    ("spark.deploy.retainedDrivers", Test("history_is_bounded_and_can_be_cleared")),
    ("spark.deploy.retainedApplications", Test(REMEMBERED)),
    ("spark.deploy.recoveryMode", Test("master_killed_and_back_with_a_file_registry")),
    ("spark.deploy.zookeeper.url", Test("the_leader_is_killed_and_etcd_is_away")),
    ("sbin/start-master.sh", Test(TWO_AGENTS)),
    ("sbin/start-worker.sh", Test(TWO_AGENTS)),
    (
        "sbin/decommission-worker.sh",
        Test("blocks_move_from_a_drained_agent_and_are_computed_again_after_a_dead_one"),
    ),
    ("sbin/start-history-server.sh", Test(PLAIN_PYTHON)),
    ("SPARK_WORKER_CORES", Test(GPUS)),
    ("SPARK_WORKER_DIR", Test(TWO_AGENTS)),
    ("SPARK_WORKER_INSTANCES", Test(TWO_AGENTS)),
    ("SPARK_MASTER_HOST", Test(TWO_AGENTS)),
    (
        "SPARK_PUBLIC_DNS",
        Coarse(|seen| {
            ensure!(seen.agents()[0].as_str().is_some_and(|h| h.starts_with("127.0.0.")));
            Ok(())
        }),
    ),
    (
        "SPARK_LOCAL_DIRS",
        Coarse(|seen| {
            let dirs = seen.said["dirs"].as_str().unwrap_or_default();
            ensure!(dirs.starts_with(&format!("{}/scratch/", seen.folder)), "{dirs}");
            Ok(())
        }),
    ),
    ("spark.worker.cleanup.enabled", Test("old_sandboxes_are_collected")),
    (
        "spark.worker.timeout",
        Test("an_agent_that_answers_no_pings_is_unreachable_until_it_returns"),
    ),
    ("spark.executor.logs.rolling.strategy", Test("long_logs_are_put_aside_and_followed_over_it")),
    ("spark.shuffle.service.enabled", Test(SHUFFLE)),
    ("spark.driver.resource.NAME.amount", Test(DRIVER_GPU)),
];

const YARN: &[(&str, Trial)] = &[
    ("--master yarn", Test(PLAIN_PYTHON)),
    ("--master yarn --deploy-mode cluster", Test(DRIVER_GPU)),
    ("--queue", Coarse(Seen::role)),
    ("--num-executors", Coarse(Seen::two_executors)),
    ("spark.yarn.priority", Test(QUEUE)),
    ("spark.yarn.tags", Coarse(Seen::labels)),
    ("spark.yarn.executor.memoryOverhead", Coarse(Seen::memory)),
    ("spark.yarn.driver.memoryOverhead", Test(DRIVER_GPU)),
    ("spark.yarn.executor.nodeLabelExpression", Coarse(Seen::constraints)),
    ("spark.yarn.am.nodeLabelExpression", Test(DRIVER_GPU)),
    ("spark.yarn.executor.resource.NAME.amount", Test(GPUS)),
    ("spark.yarn.driver.resource.NAME.amount", Test(DRIVER_GPU)),
    ("spark.yarn.dist.files", Coarse(|seen| seen.says("file", "to be"))),
    ("spark.yarn.dist.archives", Coarse(|seen| seen.says("archive", "or not to be"))),
    ("spark.yarn.dist.jars", Test("an_application_brings_its_files_and_speaks_tls_in_coarse_mode")),
    ("spark.yarn.jars", Test(FETCHED)),
    ("spark.yarn.appMasterEnv.NAME", Test(DRIVER_GPU)),
    ("YARN_CONTAINER_RUNTIME_DOCKER_IMAGE", Test(IN_IMAGE)),
    ("spark.yarn.max.executor.failures", Test(FAILING)),
    ("spark.yarn.executor.failuresValidityInterval", Test(FAILING)),
    (
        "spark.yarn.maxAppAttempts",
        Test("a_supervised_driver_is_started_again_and_a_kill_ends_it_for_good"),
    ),
    ("spark.yarn.submit.waitAppCompletion", Test(DRIVER_GPU)),
    ("spark.yarn.historyServer.address", Test(PLAIN_PYTHON)),
    ("spark.yarn.includeDriverLogsLink", Test("lists_kill_logs_explain_and_teardown")),
    ("spark.yarn.rolledLog.includePattern", Test("long_logs_are_put_aside_and_followed_over_it")),
    ("yarn application -list", Test("lists_kill_logs_explain_and_teardown")),
    ("yarn application -kill", Test("lists_kill_logs_explain_and_teardown")),
    ("spark_shuffle", Test(SHUFFLE)),
    ("spark.scheduler.minRegisteredResourcesRatio", Test(GPUS)),
];

const PLAIN_PYTHON: &str =
    "a_plain_python_program_is_seen_from_everywhere_and_ended_by_spark_submit";
const STOCK_SUBMIT: &str = "a_stock_spark_submit_runs_jars_and_python_on_the_cluster";
const SHUFFLE: &str = "shuffle_services_outlive_executors_and_their_own_crash";
const FETCHED: &str = "what_executors_need_is_fetched_once_for_all_of_an_agent_in_both_modes";
const IN_IMAGE: &str = "pi_and_word_count_run_in_an_image_as_another_user";
const IMAGE_3_5: &str = "spark_3_5_runs_in_images_of_which_one_is_pulled_each_time";
const GPUS: &str = "spark_3_5_executors_have_gpus_and_all_executors_are_waited_for";
const TWO_AGENTS: &str = "the_same_jar_serves_spark_3_5";
const ASKED: &str = TWO_AGENTS;
const REMEMBERED: &str = "only_so_many_completed_frameworks_are_remembered";
const DRIVER_GPU: &str = "a_driver_and_its_executors_have_gpus_and_all_that_is_said_of_drivers";
const QUEUE: &str = "of_drivers_that_wait_the_higher_goes_first_and_killed_ones_go_nowhere";
const FAILING: &str = "more_failed_executors_than_allowed_end_the_application_at_once";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows below a heading: the first code of the first cell, and the second cell.
fn rows(heading: &str) -> Result<Vec<(String, String)>> {
    let page = fs::read_to_string(root().join("docs/spark-migration.md"))?;
    let section = page.split("\n## ").find(|s| s.starts_with(heading));
    let lines = section.context("the section is missing")?.lines();
    let cells = lines.filter(|l| l.starts_with("| `")).map(|row| {
        let mut cells = row.split(" | ");
        let old = cells.next()?.split('`').nth(1)?;
        Some((old.to_owned(), cells.next()?.trim_end_matches(" |").to_owned()))
    });
    cells.map(|row| row.context("a row with two cells")).collect()
}

/// All sources of tests, as one text.
fn sources(folder: &Path, into: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !["target", ".git", "bench"].contains(&&*name) {
            sources(&path, into)?;
        } else if name.ends_with(".rs") {
            into.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Whether there is a test of this name.
fn is_test(sources: &str, name: &str) -> bool {
    sources.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let mut before = sources[..at].lines().rev().take(3);
        before.any(|line| line.starts_with("#[") && line.contains("test"))
    })
}

#[test]
fn every_row_with_an_answer_is_tried() -> Result<()> {
    let mut all = String::new();
    sources(&root(), &mut all)?;
    for (heading, trials) in
        [("From Mesos", MESOS), ("From Standalone", STANDALONE), ("From YARN", YARN)]
    {
        let rows = rows(heading)?;
        for (old, here) in &rows {
            let trial = trials.iter().find(|(name, _)| name == old).map(|(_, trial)| trial);
            match trial {
                Some(_) if here.starts_with("none") => {
                    bail!("{heading}: {old} has no answer, but a trial")
                }
                None if !here.starts_with("none") => bail!("{heading}: {old} is not tried"),
                Some(Test(name)) => {
                    ensure!(is_test(&all, name), "{heading}: {old}: there is no test {name}");
                }
                _ => {}
            }
        }
        for (name, _) in trials {
            ensure!(rows.iter().any(|(old, _)| old == name), "{heading}: there is no row {name}");
        }
    }
    Ok(())
}

/// Tries the rows that are tried by this application.
fn tried(seen: &Seen, by: impl Fn(&Trial) -> Option<fn(&Seen) -> Result<()>>) -> Result<()> {
    for (row, trial) in [MESOS, STANDALONE, YARN].into_iter().flatten() {
        if let Some(trial) = by(trial) {
            trial(seen).with_context(|| format!("{row}; the driver's log:\n{}", seen.log))?;
        }
    }
    Ok(())
}

/// Agents in racks a, b and c; plain executors go to those with GPUs, if there are no others.
fn cluster() -> Result<Cluster> {
    let rack = |name: &str| vec!["--attributes".to_owned(), format!("rack:{name}")];
    Cluster::start(ClusterOptions {
        agents: 3,
        resources: "cpus:2;mem:2000;disk:1000;gpus:1".to_owned(),
        args_of_agents: ["a", "b", "c"].map(rack).to_vec(),
        hostnames: ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(str::to_owned).to_vec(),
        ..Default::default()
    })
}

/// A file, and an archive with a file.
fn files(folder: &Path) -> Result<[PathBuf; 2]> {
    let (file, archive) = (folder.join("words.txt"), folder.join("words.tgz"));
    fs::write(&file, "to be")?;
    let inner = folder.join("inner");
    fs::create_dir(&inner)?;
    fs::write(inner.join("more.txt"), "or not to be")?;
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(inner).arg(".");
    ensure!(tar.status()?.success(), "tar failed");
    Ok([file, archive])
}

/// Looks around in a task, and waits for `go`; the second word is for a task that lasts.
fn program(cluster: &Cluster, lasting: bool) -> Result<PathBuf> {
    let path = cluster.folder().join("moved.py");
    let go = cluster.folder().join("go");
    let text = format!(
        r#"
import json, os, time
from pyspark import SparkContext, SparkFiles
sc = SparkContext(appName="moved")
def read(*path):
    with open(os.path.join(SparkFiles.getRootDirectory(), *path)) as file:
        return file.read()
def wait():
    while not os.path.exists({go:?}):
        time.sleep(0.05)
def look(_):
    return [{{
        "dirs": os.environ["SPARK_LOCAL_DIRS"], "password": os.environ["DB_PASSWORD"],
        "file": read("words.txt"), "archive": read("words", "more.txt"),
    }}]
def last(_):
    wait()
    return [{{}}]
lasting = {}
seen = sc.parallelize([0], 1).mapPartitions(last if lasting else look).collect()
print("seen", json.dumps(seen[0]), flush=True)
wait()
"#,
        if lasting { "True" } else { "False" }
    );
    fs::write(&path, text)?;
    Ok(path)
}

/// Starts an application by these arguments of `mezz spark submit`.
fn start(cluster: &Cluster, conf: &[&str], args: &[&str], program: &Path) -> Result<Process> {
    let mut command = spark_command(cluster, "MEZZ_TEST_SPARK_HOME", &["submit"])?;
    for pair in ["spark.ui.enabled=false", "spark.mezz.executor.labels=team:search,cost:a\\:b"]
        .iter()
        .chain(conf)
    {
        command.args(["--conf", pair]);
    }
    command.args(["--executor-memory", "512m"]).args(args).arg(program);
    Process::start("moved", cluster.folder(), command)
}

/// What there is to see when so many tasks run.
fn see(cluster: &Cluster, job: &Process, tasks: usize) -> Result<Seen> {
    let tasks = eventually(PATIENCE, "the tasks run", || {
        let all = cluster.list("tasks", &[])?;
        let run = all.iter().filter(|task| task["state"] == "TASK_RUNNING").count();
        Ok(if run == tasks { Ok(all) } else { Err(format!("{all:?}")) })
    })?;
    let said = job.stdout();
    let said = said.lines().find_map(|line| line.strip_prefix("seen ")).unwrap_or("null");
    Ok(Seen {
        framework: cluster.list("frameworks", &[])?.into_iter().next().context("a framework")?,
        tasks,
        said: serde_json::from_str(said)?,
        log: job.stderr(),
        folder: cluster.folder().display().to_string(),
        fetched: Vec::new(),
    })
}

fn finish(cluster: Cluster, mut job: Process) -> Result<()> {
    fs::write(cluster.folder().join("go"), "")?;
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn settings_of_a_coarse_grained_application_do_what_the_page_says() -> Result<()> {
    let cluster = cluster()?;
    let [file, archive] = files(cluster.folder())?;
    let scratch = cluster.folder().join("scratch");
    fs::create_dir(&scratch)?;
    let scratch = format!("spark.local.dir={}", scratch.display());
    let server = FileServer::start(vec![("/lines.txt", b"that is the question".to_vec())])?;
    let uris = format!("spark.mezz.uris=http://{}/lines.txt", server.address);
    let conf = [
        "spark.mezz.role=etl",
        "spark.mezz.constraints=rack:a,b",
        "spark.mezz.placement=consolidate",
        "spark.mezz.driver.webui.url=http://pages.example/app",
        "spark.executor.instances=2",
        "spark.executor.memoryOverhead=300m",
        "spark.executorEnv.DB_PASSWORD=hush",
        // Of Mesos, and misspelt.
        "spark.mesos.role=web",
        "spark.mezz.excutor.home=/nowhere",
        &scratch,
        &uris,
        "spark.mezz.fetcherCache.enable=false",
    ];
    let (file, archive) = (file.display().to_string(), format!("{}#words", archive.display()));
    let args = ["--total-executor-cores", "2", "--executor-cores", "1"];
    let args = [&args[..], &["--files", &file, "--archives", &archive]].concat();
    let mut job = start(&cluster, &conf, &args, &program(&cluster, false)?)?;
    job.wait_for_output("seen {", PATIENCE * 2)?;
    let mut seen = see(&cluster, &job, 2)?;
    seen.fetched = server.asked();
    tried(&seen, |trial| if let Coarse(trial) = trial { Some(*trial) } else { None })?;
    for warning in [
        "spark.mesos.role is of Mesos and does nothing here: use spark.mezz.role;",
        "spark.mezz.excutor.home is no setting of Mezz and does nothing; is it \
         spark.mezz.executor.home?",
    ] {
        let times = seen.log.lines().filter(|l| l.contains("WARN") && l.contains(warning)).count();
        ensure!(times == 1, "{times} times `{warning}` in {}", seen.log);
    }
    finish(cluster, job)
}

#[test]
fn settings_of_a_fine_grained_application_do_what_the_page_says() -> Result<()> {
    let cluster = cluster()?;
    let conf = [
        "spark.mezz.coarse=false",
        "spark.mezz.executor.cores=0.5",
        "spark.mezz.constraints=rack:b",
    ];
    let job = start(&cluster, &conf, &[], &program(&cluster, true)?)?;
    let seen = see(&cluster, &job, 1)?;
    ensure!(seen.agents() == [&Value::from("127.0.0.3")], "rack b: {:?}", seen.tasks);
    tried(&seen, |trial| if let Fine(trial) = trial { Some(*trial) } else { None })?;
    finish(cluster, job)
}

#[test]
fn more_failed_executors_than_allowed_end_the_application_at_once() -> Result<()> {
    let cluster = cluster()?;
    let conf = [
        "spark.executor.maxNumFailures=1",
        "spark.executor.failuresValidityInterval=1h",
        "spark.executor.instances=1",
        "spark.mezz.executor.home=/no/such/spark",
    ];
    let mut job = start(&cluster, &conf, &[], &program(&cluster, false)?)?;
    let end = job.wait(PATIENCE * 2)?;
    let said = "2 executors failed within 3600 s, and spark.executor.maxNumFailures is 1; the last";
    ensure!(end.code != Some(0) && end.stderr.contains(said), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}
