//! What is around a Spark application: settings for programs of all kinds, pages and
//! logs, Spark's own client, the history server. With real Apache Spark, which
//! `./test.sh` installs.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, clean_command, eventually, executors, http_get,
    nothing_is_left, places_of, prepared, spark_command,
};
use rustix::process::Signal;

const SPARK_4: &str = "MEZZ_TEST_SPARK_HOME";

fn cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        ..Default::default()
    })
}

/// A Python program that says nothing of Mezz but the master's URL; it prints where its
/// executors' logs are, and then works until it is ended.
const PLAIN: &str = r#"
import json, os, time, urllib.request
from pyspark.sql import SparkSession
spark = (SparkSession.builder.master(os.environ["MASTER_URL"]).appName("plain")
    .config("spark.executor.memory", "512m")
    .config("spark.cores.max", "2")
    .config("spark.ui.port", "0")
    .config("spark.eventLog.enabled", "true")
    .config("spark.network.crypto.enabled", "true")
    .config("spark.io.encryption.enabled", "true")
    .getOrCreate())
sc = spark.sparkContext
pairs = sc.parallelize(range(2000), 4).map(lambda i: (i % 10, i)).reduceByKey(lambda a, b: a + b, 4)
print("sum", sum(v for _, v in pairs.collect()), flush=True)
with urllib.request.urlopen(f"{sc.uiWebUrl}/api/v1/applications/{sc.applicationId}/allexecutors") as answer:
    for executor in json.load(answer):
        for name, url in executor["executorLogs"].items():
            print("log", name, url, flush=True)
print("id", sc.applicationId, flush=True)
while True:
    sc.parallelize([1]).count()
    time.sleep(0.1)
"#;

/// What follows this word on a line of its own.
fn said<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
}

/// Settings by `mezz spark env`, and the folder of event logs.
fn settings(cluster: &Cluster) -> Result<(PathBuf, PathBuf)> {
    let (conf, events) = (cluster.folder().join("conf"), cluster.folder().join("events"));
    for folder in [&conf, &events] {
        std::fs::create_dir(folder)?;
    }
    // PySpark puts what a program says on the command line of its JVM.
    let lines = format!(
        "spark.authenticate true\nspark.ssl.protocol TLSv1.3\n\
         spark.ssl.keyStorePassword hush-store\nspark.ssl.keyPassword hush-key\n\
         spark.eventLog.dir file://{}\n",
        events.display()
    );
    std::fs::write(conf.join("spark-defaults.conf"), lines)?;
    let mut env = spark_command(cluster, SPARK_4, &["env", "--write"])?;
    let printed = env.arg(&conf).output()?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    ensure!(printed == format!("export SPARK_CONF_DIR={}\n", conf.display()), "{printed}");
    Ok((conf, events))
}

/// Stock `spark-submit` with these settings and this master.
fn spark_submit(cluster: &Cluster, conf: &PathBuf, words: &[&str]) -> Result<Command> {
    let mut command = clean_command(prepared(SPARK_4)?.join("bin/spark-submit"));
    command
        .env("SPARK_CONF_DIR", conf)
        .args(["--master", &format!("spark-mezz://{}", cluster.master_address())])
        .args(words);
    Ok(command)
}

#[test]
fn a_plain_python_program_is_seen_from_everywhere_and_ended_by_spark_submit() -> Result<()> {
    let cluster = cluster()?;
    let (conf, events) = settings(&cluster)?;
    // One was made, for nobody else to read.
    let file = conf.join("spark-defaults.conf");
    let text = std::fs::read_to_string(&file)?;
    let secret = said(&text, "spark.authenticate.secret");
    let secrets = [*secret.first().context("a secret")?, "hush-store", "hush-key"];
    let mode = std::fs::metadata(file)?.permissions().mode() & 0o777;
    ensure!(secret[0].len() == 64 && mode == 0o600, "{secret:?} {mode:o}");
    let program = cluster.folder().join("plain.py");
    std::fs::write(&program, PLAIN)?;
    let mut command = clean_command(prepared("MEZZ_TEST_PYTHON")?);
    command
        .env("SPARK_CONF_DIR", &conf)
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .env("MASTER_URL", format!("spark-mezz://{}", cluster.master_address()))
        .current_dir(cluster.folder())
        .arg(&program);
    let mut job = Process::start("plain", cluster.folder(), command)?;
    job.wait_for_output("\nid ", PATIENCE * 4)?;
    let stdout = job.stdout();
    ensure!(stdout.contains("sum 1999000"), "{stdout}");

    // Its pages, by our own list and by Spark's client.
    let frameworks = cluster.list("frameworks", &[])?;
    let page = frameworks[0]["webui_url"].as_str().context("the address of its pages")?;
    ensure!(http_get(&format!("{page}/api/v1/version"))?.0 == 200, "{page}");
    let id = said(&stdout, "id").first().copied().context("an id")?;
    let status = spark_submit(&cluster, &conf, &["--status", id])?.output()?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(
        status.contains(&format!("application plain ({id})")) && status.contains(page),
        "{status}"
    );

    // What Spark needs before it can ask for more is on the command line, and nothing
    // that is secret is there, in a log or in a list.
    let jvms = executors(&cluster)?;
    ensure!(jvms.len() == 2, "{jvms:?}");
    for pid in jvms {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        for setting in ["network.crypto.enabled=true", "authenticate=true", "ssl.protocol=TLSv1.3"]
        {
            ensure!(line.contains(&format!("-Dspark.{setting}")), "no {setting}: {line}");
        }
    }
    let seen = places_of(&cluster, &secrets)?;
    ensure!(seen.is_empty(), "secrets are seen: {seen:#?}");

    // Logs are where Spark's pages say, while it runs and afterwards.
    let logs = said(&stdout, "log");
    ensure!(logs.len() == 4, "stdout and stderr of two executors: {logs:?}");
    let readable = || -> Result<()> {
        for log in &logs {
            let (name, url) = log.split_once(' ').context("a name and an address")?;
            let (status, text) = http_get(url)?;
            ensure!(status == 200, "{url}: {status} {text}");
            ensure!(name == "stdout" || text.contains("CoarseGrainedExecutorBackend"), "{text}");
        }
        Ok(())
    };
    readable()?;
    let kill = spark_submit(&cluster, &conf, &["--kill", id])?.output()?;
    ensure!(kill.status.success(), "{}", String::from_utf8_lossy(&kill.stderr));
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0), "{end}");
    nothing_is_left(&cluster)?;
    readable()?;

    history(&cluster, &events, id)?;
    cluster.stop()
}

/// The ended application is in the history server's list.
fn history(cluster: &Cluster, events: &PathBuf, id: &str) -> Result<()> {
    let mut command = spark_command(cluster, SPARK_4, &["history", "--port", "0", "--log-dir"])?;
    command.arg(events);
    let mut server = Process::start("history", cluster.folder(), command)?;
    server.wait_for_output("with the event logs in file://", PATIENCE)?;
    let log = server.stderr();
    let address =
        log.split_whitespace().find(|w| w.starts_with("http://")).context("an address")?;
    eventually(PATIENCE, "the application is in the history server's list", || {
        let answer = http_get(&format!("{address}/api/v1/applications"));
        Ok(match answer {
            Ok((200, body)) if body.contains(id) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    server.signal(Signal::TERM)?;
    server.wait(PATIENCE)?;
    Ok(())
}

#[test]
fn a_failed_job_says_where_and_what_was_said_last() -> Result<()> {
    let cluster = cluster()?;
    let program = cluster.folder().join("none.py");
    std::fs::write(
        &program,
        "from pyspark.sql import SparkSession\n\
         SparkSession.builder.getOrCreate().sparkContext.parallelize([1], 1).count()\n",
    )?;
    let mut command = spark_command(&cluster, SPARK_4, &["submit"])?;
    command
        .args(["--conf", "spark.mezz.executor.home=/no/spark/here"])
        .args(["--conf", "spark.executor.memory=512m"])
        .arg(program);
    let mut job = Process::start("spark", cluster.folder(), command)?;
    let end = job.wait(PATIENCE * 4)?;
    ensure!(end.code != Some(0), "{end}");
    let agents = cluster.list("agents", &[])?;
    let named = agents.iter().filter_map(|a| a["id"].as_str()).any(|id| {
        end.stderr.contains(&format!(
            "exited with status 1 (agent {id}); its last words: Error: Could not find or load \
             main class org.apache.spark.executor.CoarseGrainedExecutorBackend"
        )) || end.stderr.contains(&format!(
            "exited with status 1 (agent {id}); its last words: Caused by: \
             java.lang.ClassNotFoundException: org.apache.spark.executor"
        ))
    });
    ensure!(named, "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}
