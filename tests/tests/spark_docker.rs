//! Executors of Spark in Docker containers, and what agents fetch for them.
//! `./test.sh` makes the image from `deploy/spark.Dockerfile`.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    ARCHIVED_SPARK, Cluster, ClusterOptions, Containers, DockerNetwork, FileServer, PATIENCE,
    Process, Registry, docker, eventually, mezz_program, nothing_is_left, prepared, prepared_value,
    sidecar, spark_archive, spark_command, volumes_of_this_machine,
};
use rustix::process::Signal;

const SPARK_3: &str = "MEZZ_TEST_SPARK_3_HOME";

/// Two agents, of which only the first has an engine.
struct InDocker {
    // Before the cluster, in whose folder their label is.
    containers: Containers,
    cluster: Cluster,
}

impl InDocker {
    /// The second agent is told of this engine.
    fn start(engine: &str) -> Result<Self> {
        Self::with(vec![Vec::new(), vec!["--docker".to_owned(), engine.to_owned()]])
    }

    /// An agent for each of these arguments.
    fn with(args_of_agents: Vec<Vec<String>>) -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions {
            agents: args_of_agents.len(),
            resources: "cpus:2;mem:2000;disk:1000".to_owned(),
            args_of_agents,
            ..Default::default()
        })?;
        Ok(Self { containers: Containers::of(cluster.folder().join("agent0")), cluster })
    }

    /// Runs both examples as one application, and this after them; returns it when it has said
    /// where its tasks ran.
    fn examples(&self, conf: &[&str], more: &str) -> Result<Process> {
        let folder = self.cluster.folder();
        // Agents fetch with the rights of the executors' user.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let data = folder.join("data");
        fs::create_dir(&data)?;
        let text = data.join("text.txt");
        fs::write(&text, "to be or not to be\n".repeat(20_000))?;
        let program = folder.join("examples.py");
        fs::write(&program, EXAMPLES.to_owned() + more + "stop(spark)\n")?;
        let volumes = format!("{0}:{0}:ro", data.display());
        let volumes = format!("spark.mezz.executor.docker.volumes={volumes},/scratch");
        let image = prepared_value("MEZZ_TEST_SPARK_IMAGE")?;
        let image = format!("spark.mezz.executor.docker.image={image}");
        let parameters = "spark.mezz.executor.docker.parameters=init=true,ulimit=nofile=4321:4321";
        let uris = format!("spark.mezz.uris={}", text.display());
        let conf = [&[volumes.as_str(), &image, &uris, parameters], conf].concat();
        let mut command = submit(&self.cluster, &conf)?;
        // What is in an image is its own affair, and Python's path is the application's.
        let path = std::env::var("PATH")?;
        command
            .env("PATH", format!("/of/the/driver:{path}"))
            .env("PYSPARK_PYTHON", "python3")
            .arg(&program)
            .arg(example(""))
            .arg(&text);
        let mut job = Process::start("spark", folder, command)?;
        job.wait_for_output("that is all", PATIENCE * 3)?;
        let said = job.stdout();
        ensure!(said.contains("pi is roughly 3.1"), "{said}");
        for word in ["to", "be"] {
            let right = said.lines().any(|l| l.contains(word) && l.contains("40,000"));
            ensure!(right, "no line with {word} and 40,000: {said}");
        }
        Ok(job)
    }

    /// Nothing ever ran where no engine is.
    fn stop(self) -> Result<()> {
        let (mut used, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for task in self.cluster.list("tasks", &["--completed"])? {
            let said = task["message"].as_str().unwrap_or_default();
            let without = ["needs a Docker engine", "the Docker engine does not answer"];
            let without = without.iter().any(|words| said.contains(words));
            let agents = if without { &mut refused } else { &mut used };
            agents.insert(task["agent_id"].to_string());
        }
        ensure!(used.len() == 1, "{used:?} ran tasks");
        ensure!(refused.len() == 1 && used.is_disjoint(&refused), "{refused:?} refused some");
        self.containers_are_gone()?;
        self.cluster.stop()
    }

    fn containers_are_gone(&self) -> Result<()> {
        nothing_is_left(&self.cluster)?;
        self.containers.wait_until_gone()
    }
}

/// Says where its tasks run, and then what the examples do, in one application.
const EXAMPLES: &str = r#"
import os, resource, runpy, sys
from pyspark.sql import SparkSession
stop, SparkSession.stop = SparkSession.stop, lambda self: None
examples, text = sys.argv[1:]
for name, arguments in [("pi.py", ["4"]), ("wordcount.py", [text])]:
    sys.argv = [name] + arguments
    runpy.run_path(os.path.join(examples, name), run_name="__main__")
def look(i):
    with open("/scratch/x", "a") as scratch:
        scratch.write("x")
    return " ".join(map(str, [
        os.getuid(), os.getcwd(), os.environ["SPARK_HOME"], os.path.exists("/.dockerenv"),
        "/of/the/driver" in os.environ["PATH"], os.path.exists("text.txt"), os.path.exists("scratch/x"),
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    ]))
spark = SparkSession.builder.getOrCreate()
print("where", set(spark.sparkContext.parallelize(range(8), 8).map(look).collect()))
print("that is all", flush=True)
"#;

/// `mezz spark submit`, without the program.
fn submit(cluster: &Cluster, conf: &[&str]) -> Result<Command> {
    submit_with("MEZZ_TEST_SPARK_HOME", cluster, conf)
}

/// The same, with the Spark that this variable names.
fn submit_with(spark: &str, cluster: &Cluster, conf: &[&str]) -> Result<Command> {
    let mut command = spark_command(cluster, spark, &["submit"])?;
    command.env("PYSPARK_DRIVER_PYTHON", prepared("MEZZ_TEST_PYTHON")?);
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false"].iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    Ok(command)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spark-framework/examples").join(name)
}

#[test]
fn pi_and_word_count_run_in_an_image_as_another_user() -> Result<()> {
    let all = InDocker::start("none")?;
    let conf = ["spark.executor.instances=2", "spark.mezz.executor.docker.user=nobody"];
    let mut job = all.examples(&conf, "")?;
    let said = job.wait(PATIENCE)?.success()?.stdout;
    let expected = "where {'65534 /mnt/mesos/sandbox /opt/spark True False True True 4321'}";
    ensure!(said.contains(expected), "{said}");
    all.stop()
}

/// And a killed sidecar ends the job, with the right error, and its containers.
#[test]
fn pi_and_word_count_run_in_an_image_in_fine_grained_mode() -> Result<()> {
    let all = InDocker::start("unix:///no/such/engine")?;
    let conf = ["spark.mezz.coarse=false", "spark.mezz.failoverTimeout=1s"];
    let endless = "import time\n\
        spark.sparkContext.parallelize([1], 1).map(lambda i: time.sleep(600)).count()\n";
    let mut job = all.examples(&conf, endless)?;
    let expected = "where {'0 /mnt/mesos/sandbox /opt/spark True False True True 4321'}";
    ensure!(job.stdout().contains(expected), "{}", job.stdout());
    eventually(PATIENCE, "the last task runs", || {
        let tasks = all.cluster.list("tasks", &[])?;
        let runs = tasks.iter().any(|task| task["state"] == "TASK_RUNNING");
        Ok(if runs { Ok(()) } else { Err(format!("{tasks:?}")) })
    })?;
    mezz_tests::signal(sidecar(&all.cluster)?, Signal::KILL)?;
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0) && end.stderr.contains("spark-sidecar"), "{end}");
    all.stop()
}

/// One after the other: an executor's container, the agent's program, the master, the agent's
/// machine with all that is on it, and the driver.
#[test]
fn faults_under_executors_in_docker_leave_the_answer_right_and_nothing_behind() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        resources: "cpus:2;mem:2000;disk:1000".to_owned(),
        ..Default::default()
    })?;
    let containers = Containers::of(cluster.folder().join("agent0"));
    let program = cluster.folder().join("faults.py");
    let go = cluster.folder().join("go");
    fs::write(
        &program,
        format!(
            r#"
import os, time
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("faults").getOrCreate().sparkContext
pairs = sc.parallelize(range(2000), 8).map(lambda i: (i % 10, i)).reduceByKey(lambda a, b: a + b, 4)
pairs.cache()
print("first", sum(v for _, v in pairs.collect()), flush=True)
while not os.path.exists({go:?}):
    time.sleep(0.05)
print("second", sum(v for _, v in pairs.collect()), flush=True)
while not os.path.exists({go:?} + "-on"):
    time.sleep(0.05)
print("third", sum(v for _, v in pairs.collect()), flush=True)
sc.parallelize([1], 1).map(lambda i: time.sleep(600)).count()
"#
        ),
    )?;
    let image = prepared_value("MEZZ_TEST_SPARK_IMAGE")?;
    let image = format!("spark.mezz.executor.docker.image={image}");
    let conf = [
        image.as_str(),
        "spark.executor.instances=2",
        "spark.executor.cores=1",
        // Both are there when the first job begins.
        "spark.scheduler.minRegisteredResourcesRatio=1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime=60s",
    ];
    let mut command = submit(&cluster, &conf)?;
    command.env("PYSPARK_PYTHON", "python3").arg(&program);
    let mut job = Process::start("spark", cluster.folder(), command)?;
    job.wait_for_output("first 1999000", PATIENCE * 2)?;
    let list = || -> Result<BTreeSet<String>> {
        Ok(containers.list()?.split_whitespace().map(str::to_owned).collect())
    };
    let before = list()?;
    let mut both = before.iter();
    let (killed, other) = (both.next().context("a container")?, both.next().context("another")?);
    docker(&["kill", killed])?;
    eventually(PATIENCE, "there is another container", || {
        let now = list()?;
        Ok(if now.is_subset(&before) { Err(format!("{now:?}")) } else { Ok(()) })
    })?;
    cluster.agent(0)?.kill_9()?;
    cluster.start_agent(0)?;
    cluster.wait_for_agents(1)?;
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    cluster.wait_for_agents(1)?;
    fs::write(&go, "")?;
    job.wait_for_output("second 1999000", PATIENCE * 2)?;
    let runs = docker(&["inspect", "-f", "{{.State.Running}}", other])?;
    ensure!(runs == "true", "the other one outlived agent and master: {runs}");

    let lost = list()?;
    cluster.lose_agent(0)?;
    for id in &lost {
        // It may have ended already.
        let _ = docker(&["kill", id]);
    }
    cluster.start_agent_on_a_restarted_machine(0)?;
    fs::write(go.with_file_name("go-on"), "")?;
    job.wait_for_output("third 1999000", PATIENCE * 2)?;
    eventually(PATIENCE, "other containers alone", || {
        let now = list()?;
        let others = !now.is_empty() && now.is_disjoint(&lost);
        Ok(if others { Ok(()) } else { Err(format!("{lost:?}, now {now:?}")) })
    })?;
    job.kill_9()?;
    nothing_is_left(&cluster)?;
    job.signal_group(Signal::KILL)?;
    containers.wait_until_gone()?;
    cluster.stop()
}

#[test]
fn what_executors_need_is_fetched_once_for_all_of_an_agent_in_both_modes() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions {
        resources: "cpus:4;mem:3700;disk:1000".to_owned(),
        ..Default::default()
    })?;
    let packed = tempfile::tempdir()?;
    let server = FileServer::start(vec![
        ("/spark.tgz", fs::read(spark_archive("MEZZ_TEST_SPARK_HOME", packed.path())?)?),
        ("/words.txt", b"to be or not to be".to_vec()),
    ])?;
    let address = &server.address;
    let program = cluster.folder().join("fetched.py");
    fs::write(
        &program,
        r#"
import os, time
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("fetched").getOrCreate().sparkContext
def look(i):
    time.sleep(0.3)
    home = os.path.relpath(os.environ["SPARK_HOME"], os.getcwd())
    return os.getcwd(), home, open("words.txt").read()
found = sc.parallelize(range(16), 16).map(look).collect()
print("executors", len({f[0] for f in found}), {f[1:] for f in found})
"#,
    )?;
    let jars = prepared("MEZZ_TEST_SPARK_HOME")?.join("jars");
    let archive = format!("http://{address}/spark.tgz");
    let in_settings = format!("spark.executor.uri={archive}");
    let conf = [
        format!("spark.mezz.uris=http://{address}/words.txt"),
        format!("spark.executor.extraClassPath={}/*", jars.display()),
        // Four of them on two processors: no time for the second compiler.
        "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1".to_owned(),
        "spark.executor.instances=4".to_owned(),
        "spark.scheduler.minRegisteredResourcesRatio=1.0".to_owned(),
        "spark.scheduler.maxRegisteredResourcesWaitingTime=60s".to_owned(),
    ];
    let conf: Vec<&str> = conf.iter().map(String::as_str).collect();
    let fine = "spark.mezz.coarse=false";
    for (mode, executors) in [(&[in_settings.as_str()], 4), (&[fine], 1)] {
        let mut command = submit(&cluster, &[conf.as_slice(), mode].concat())?;
        command.arg(&program);
        if mode == &[fine] {
            command.env("SPARK_EXECUTOR_URI", &archive);
        }
        let mut job = Process::start(&format!("spark{executors}"), cluster.folder(), command)?;
        let end = job.wait(PATIENCE * 3)?.success()?;
        let found = format!("{{('{ARCHIVED_SPARK}', 'to be or not to be')}}");
        ensure!(end.stdout.contains(&format!("executors {executors} {found}")), "{mode:?}: {end}");
    }
    let asked = server.asked();
    ensure!(asked.len() == 2, "one download of each: {asked:?}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Sums, and says in what.
const WHERE: &str = r#"
import os
from pyspark import SparkContext
sc = SparkContext()
def look(i):
    return i, os.environ["SPARK_HOME"], os.environ.get("PULLED"), os.path.exists("/.dockerenv")
seen = sc.parallelize(range(10), 2).map(look).collect()
print("Spark", sc.version[:3], sum(s[0] for s in seen), {s[1:] for s in seen})
"#;

/// Spark's folder is mounted. In a network that was made for them, executors of the first
/// application are reached by its addresses; the second's image is not what this engine
/// has by that name, and can be had from a registry alone.
#[test]
fn spark_3_5_runs_in_images_of_which_one_is_pulled_each_time() -> Result<()> {
    let all = InDocker::with(vec![Vec::new()])?;
    // Before what has the containers, so that it goes after them.
    let (network, all) = (DockerNetwork::create(all.cluster.folder())?, all);
    let folder = all.cluster.folder();
    let program = folder.join("where.py");
    fs::write(&program, WHERE)?;
    let home = prepared(SPARK_3)?;
    let image = prepared_value("MEZZ_TEST_SPARK_IMAGE")?;
    let settings = [
        "spark.executor.instances=1".to_owned(),
        format!("spark.mezz.executor.docker.image={image}"),
        format!("spark.mezz.executor.docker.volumes={}:/opt/spark-3.5:ro", home.display()),
        format!("spark.mezz.executor.docker.network={}", network.name),
        "spark.mezz.executor.home=/opt/spark-3.5".to_owned(),
        format!("spark.driver.host={}", network.gateway()?),
        "spark.driver.bindAddress=0.0.0.0".to_owned(),
    ];
    let run = |name: &str, settings: &[String], python: &str| -> Result<String> {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let mut command = submit_with(SPARK_3, &all.cluster, &settings)?;
        command.env("PYSPARK_PYTHON", python).arg(&program);
        Ok(Process::start(name, folder, command)?.wait(PATIENCE * 3)?.success()?.stdout)
    };
    let said = run("network", &settings, "python3")?;
    ensure!(said.contains("Spark 3.5 45 {('/opt/spark-3.5', None, True)}"), "{said}");

    let registry = Registry::start(folder)?;
    let image = Image::push(&registry)?;
    let python = prepared("MEZZ_TEST_PYTHON")?;
    let bridge = prepared("MEZZ_SPARK_BRIDGE")?;
    let paths =
        [home.clone(), python.clone(), python.canonicalize()?, bridge.clone(), mezz_program()?];
    let settings = [
        "spark.mezz.coarse=false".to_owned(),
        format!("spark.mezz.executor.docker.image={}", image.name),
        "spark.mezz.executor.docker.forcePullImage=true".to_owned(),
        format!("spark.mezz.executor.docker.volumes={}", volumes_of_this_machine(&paths)?),
        format!("spark.mezz.executor.home={}", home.display()),
        format!("spark.mezz.executor.bin={}", mezz_program()?.display()),
        format!("spark.mezz.executor.bridge={}", bridge.display()),
    ];
    let said = run("pulled", &settings, &python.display().to_string())?;
    let right = format!("Spark 3.5 45 {{('{}', 'yes', True)}}", home.display());
    ensure!(said.contains(&right), "{said}");
    all.containers_are_gone()?;
    drop((image, registry));
    all.cluster.stop()
}

/// An image by a name that means another one in the registry.
struct Image {
    name: String,
    /// Of the one in the registry.
    id: String,
}

impl Image {
    fn push(registry: &Registry) -> Result<Self> {
        let plain = prepared_value("MEZZ_TEST_DOCKER_IMAGE")?;
        let name = format!("{}/mezz/spark:3.5", registry.address);
        let container = docker(&["create", &plain, "true"])?;
        let commit = docker(&["commit", "--change", "ENV PULLED=yes", &container, &name]);
        docker(&["rm", &container])?;
        let image = Self { id: commit?, name };
        docker(&["push", "-q", &image.name])?;
        docker(&["tag", &plain, &image.name])?;
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Once pulled, it is also known by its digest.
        for image in [&self.name, &self.id] {
            let _ = docker(&["rmi", "-f", image]);
        }
    }
}
