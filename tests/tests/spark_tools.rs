//! What is around a Spark application: settings for programs of all kinds, pages and
//! logs, Spark's own client, the history server. With real Apache Spark, which
//! `./test.sh` installs.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, Mode, PATIENCE, Process, QUICK, clean_command, eventually, executors,
    http_get, nothing_is_left, places_of, prepared, spark_command,
};
use rustix::process::Signal;

const SPARK_4: &str = "MEZZ_TEST_SPARK_HOME";

/// One executor of each of two applications fits on each of two agents.
fn cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:2;mem:2800;disk:1000".to_owned(),
        ..Default::default()
    })
}

/// A Python program that says nothing of Mezz but the master's URL, if anything; it prints where
/// the logs of its two executors are, and then works until there is a file, or it is ended.
const PLAIN: &str = r#"
import json, os, sys, time, urllib.request
from pyspark.sql import SparkSession
name, end = sys.argv[1:]
builder = SparkSession.builder.appName(name)
if "MASTER_URL" in os.environ:
    builder = builder.master(os.environ["MASTER_URL"]).config("spark.cores.max", "2")
spark = (builder
    .config("spark.executor.memory", "512m")
    .config("spark.ui.port", "0")
    .config("spark.eventLog.enabled", "true")
    .config("spark.network.crypto.enabled", "true")
    .config("spark.io.encryption.enabled", "true")
    .getOrCreate())
sc = spark.sparkContext
pairs = sc.parallelize(range(2000), 4).map(lambda i: (i % 10, i)).reduceByKey(lambda a, b: a + b, 4)
print("sum", sum(v for _, v in pairs.collect()), flush=True)
logs = []
while len(logs) < 4:
    sc.parallelize([1]).count()
    with urllib.request.urlopen(f"{sc.uiWebUrl}/api/v1/applications/{sc.applicationId}/allexecutors") as answer:
        logs = [log for executor in json.load(answer) for log in executor["executorLogs"].items()]
for log in logs:
    print("log", *log)
print("id", sc.applicationId, flush=True)
while not os.path.exists(end):
    sc.parallelize([1]).count()
    time.sleep(0.1)
spark.stop()
"#;

/// What follows this word on a line of its own.
fn said<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
}

/// An application by that program, with settings by `mezz spark env`.
struct Plain {
    mode: Mode,
    conf: PathBuf,
    job: Process,
}

impl Plain {
    fn name(mode: Mode) -> &'static str {
        match mode {
            Mode::Coarse => "plain",
            Mode::Fine => "plain-fine",
        }
    }

    /// Its events go to this folder. One in fine-grained mode has the master, too, from the
    /// settings.
    fn start(cluster: &Cluster, mode: Mode, events: &Path) -> Result<Self> {
        let (folder, name) = (cluster.folder(), Self::name(mode));
        let conf = folder.join(format!("conf-{name}"));
        std::fs::create_dir(&conf)?;
        // PySpark puts what a program says on the command line of its JVM.
        let lines = format!(
            "spark.authenticate true\nspark.ssl.protocol TLSv1.3\n\
             spark.ssl.keyStorePassword hush-store\nspark.ssl.keyPassword hush-key\n\
             spark.executor.defaultJavaOptions {QUICK}\nspark.eventLog.dir file://{}\n",
            events.display()
        );
        std::fs::write(conf.join("spark-defaults.conf"), lines)?;
        let words: &[&str] = match mode {
            Mode::Coarse => &["env", "--write"],
            Mode::Fine => &["env", "--mode", "fine", "--write"],
        };
        let printed = spark_command(cluster, SPARK_4, words)?.arg(&conf).output()?;
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        ensure!(printed == format!("export SPARK_CONF_DIR={}\n", conf.display()), "{printed}");
        let program = folder.join("plain.py");
        std::fs::write(&program, PLAIN)?;
        let mut command = clean_command(prepared("MEZZ_TEST_PYTHON")?);
        command
            .env("SPARK_CONF_DIR", &conf)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .env("SPARK_SUBMIT_OPTS", QUICK)
            .current_dir(folder)
            .arg(&program)
            .args([name, &format!("end-{name}")]);
        if mode == Mode::Coarse {
            command.env("MASTER_URL", format!("spark-mezz://{}", cluster.master_address()));
        }
        Ok(Self { mode, conf, job: Process::start(name, folder, command)? })
    }

    /// Waits until it has said everything; returns the framework's id.
    fn id(&mut self) -> Result<String> {
        self.job.wait_for_output("\nid ", PATIENCE * 4)?;
        let stdout = self.job.stdout();
        ensure!(stdout.contains("sum 1999000"), "{stdout}");
        Ok((*said(&stdout, "id").first().context("an id")?).to_owned())
    }

    /// The secret that was made for it, for nobody else to read.
    fn secret(&self) -> Result<String> {
        let file = self.conf.join("spark-defaults.conf");
        let text = std::fs::read_to_string(&file)?;
        let secret = *said(&text, "spark.authenticate.secret").first().context("a secret")?;
        let mode = std::fs::metadata(file)?.permissions().mode() & 0o777;
        ensure!(secret.len() == 64 && mode == 0o600, "{secret} {mode:o}");
        Ok(secret.to_owned())
    }

    /// Logs are where Spark's pages say.
    fn logs_are_readable(&self) -> Result<()> {
        let stdout = self.job.stdout();
        let logs = said(&stdout, "log");
        ensure!(logs.len() == 4, "stdout and stderr of two executors: {logs:?}");
        let word = match self.mode {
            Mode::Coarse => "CoarseGrainedExecutorBackend",
            Mode::Fine => "Starting executor ID",
        };
        for log in logs {
            let (name, url) = log.split_once(' ').context("a name and an address")?;
            let (status, text) = http_get(url)?;
            ensure!(status == 200, "{url}: {status} {text}");
            ensure!(name == "stdout" || text.contains(word), "{url}: {text}");
        }
        Ok(())
    }
}

/// Stock `spark-submit` with these settings and this master.
fn spark_submit(cluster: &Cluster, conf: &Path, words: &[&str]) -> Result<Command> {
    let mut command = clean_command(prepared(SPARK_4)?.join("bin/spark-submit"));
    command
        .env("SPARK_CONF_DIR", conf)
        .env("SPARK_SUBMIT_OPTS", QUICK)
        .args(["--master", &format!("spark-mezz://{}", cluster.master_address())])
        .args(words);
    Ok(command)
}

/// One in each mode, at the same time.
#[test]
fn a_plain_python_program_is_seen_from_everywhere_and_ended_by_spark_submit() -> Result<()> {
    let cluster = cluster()?;
    let events = cluster.folder().join("events");
    std::fs::create_dir(&events)?;
    let mut coarse = Plain::start(&cluster, Mode::Coarse, &events)?;
    let mut fine = Plain::start(&cluster, Mode::Fine, &events)?;
    let (id, fine_id) = (coarse.id()?, fine.id()?);

    // Its pages, by our own list and by Spark's client.
    let frameworks = cluster.list("frameworks", &[])?;
    let framework = frameworks.iter().find(|f| f["id"] == id.as_str()).context("the framework")?;
    let page = framework["webui_url"].as_str().context("the address of its pages")?;
    ensure!(http_get(&format!("{page}/api/v1/version"))?.0 == 200, "{page}");
    let status = spark_submit(&cluster, &coarse.conf, &["--status", &id])?.output()?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(
        status.contains(&format!("application plain ({id})")) && status.contains(page),
        "{status}"
    );

    // What Spark needs before it can ask for more is on the command line, and nothing
    // that is secret is there, in a log or in a list.
    let jvms = executors(&cluster)?;
    ensure!(jvms.len() == 4, "{jvms:?}");
    for pid in jvms {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        for setting in ["network.crypto.enabled=true", "authenticate=true", "ssl.protocol=TLSv1.3"]
        {
            ensure!(line.contains(&format!("-Dspark.{setting}")), "no {setting}: {line}");
        }
    }
    let secrets = [coarse.secret()?, fine.secret()?];
    let seen = places_of(&cluster, &[&secrets[0], &secrets[1], "hush-store", "hush-key"])?;
    ensure!(seen.is_empty(), "secrets are seen: {seen:#?}");

    // While it runs and afterwards.
    for plain in [&coarse, &fine] {
        plain.logs_are_readable()?;
    }
    let kill = spark_submit(&cluster, &coarse.conf, &["--kill", &id])?.output()?;
    ensure!(kill.status.success(), "{}", String::from_utf8_lossy(&kill.stderr));
    let end = coarse.job.wait(PATIENCE)?;
    ensure!(end.code != Some(0), "{end}");
    std::fs::write(cluster.folder().join("end-plain-fine"), "")?;
    fine.job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    for plain in [&coarse, &fine] {
        plain.logs_are_readable()?;
    }

    history(&cluster, &events, [&id, &fine_id])?;
    cluster.stop()
}

/// The ended applications are in the history server's list, and with them where their
/// executors' logs are.
fn history(cluster: &Cluster, events: &Path, ids: [&str; 2]) -> Result<()> {
    let mut command = spark_command(cluster, SPARK_4, &["history", "--port", "0", "--log-dir"])?;
    command.arg(events);
    let mut server = Process::start("history", cluster.folder(), command)?;
    server.wait_for_output("with the event logs in file://", PATIENCE)?;
    let log = server.stderr();
    let address =
        log.split_whitespace().find(|w| w.starts_with("http://")).context("an address")?;
    let applications = format!("{address}/api/v1/applications");
    eventually(PATIENCE, "the applications are in the history server's list", || {
        Ok(match http_get(&applications) {
            Ok((200, body)) if ids.iter().all(|id| body.contains(id)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    for id in ids {
        let (status, body) = http_get(&format!("{applications}/{id}/allexecutors"))?;
        let links = body.matches(&format!("/files/download?framework={id}&task=")).count();
        ensure!(status == 200 && links == 4, "{links} links: {status} {body}");
    }
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
