//! Spark's drivers on a real cluster, by `mezz spark dispatcher`. `./test.sh`
//! installs Spark.

mod failover;
mod fixture;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use fixture::{
    Dispatched, SPARK_3, SPARK_4, plain_home, program, quick, small, text, waiting_program,
};
use mezz_tests::{
    ARCHIVED_SPARK, ClusterOptions, Containers, PATIENCE, Process, eventually, executors,
    mezz_program, places_of, prepared, prepared_value, processes_of, sidecar, spark_archive,
};
use rustix::process::Signal;
use serde_json::Value;

/// A jar with a class that counts by Spark.
fn jar(all: &Dispatched) -> Result<PathBuf> {
    let folder = all.cluster.folder().join("java");
    std::fs::create_dir(&folder)?;
    let source = folder.join("App.java");
    std::fs::write(
        &source,
        "package org.example;\n\
         import java.util.*;\n\
         import org.apache.spark.sql.SparkSession;\n\
         import org.apache.spark.api.java.JavaSparkContext;\n\
         public class App {\n\
           public static void main(String[] args) {\n\
             SparkSession spark = SparkSession.builder().getOrCreate();\n\
             JavaSparkContext sc = new JavaSparkContext(spark.sparkContext());\n\
             List<Integer> all = new ArrayList<>();\n\
             for (int i = 1; i <= Integer.parseInt(args[0]); i++) all.add(i);\n\
             int sum = sc.parallelize(all, 4).map(i -> i + 1).reduce((a, b) -> a + b);\n\
             System.out.println(\"the sum is \" + sum + args[1]);\n\
             spark.stop();\n\
           }\n\
         }\n",
    )?;
    let classes = folder.join("classes");
    let jars = format!("{}/jars/*", prepared(SPARK_4)?.display());
    let run = |command: &mut Command| -> Result<()> {
        let output = command.output()?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(())
    };
    run(Command::new("javac")
        .args(["--release", "17", "-cp", &jars, "-d"])
        .arg(&classes)
        .arg(source))?;
    let jar = folder.join("app.jar");
    run(Command::new("jar")
        .arg("cfe")
        .arg(&jar)
        .arg("org.example.App")
        .arg("-C")
        .arg(&classes)
        .arg("."))?;
    Ok(jar)
}

/// Spark's own client asks after a driver that runs, and ends it.
fn kill_by_stock_client(all: &Dispatched, spark: &str, options: &[&str], id: &str) -> Result<()> {
    all.wait_for(id, "RUNNING")?;
    for (operation, right) in
        [("--status", "RUNNING"), ("--kill", &*format!("Kill request for {id} submitted"))]
    {
        let output = all.spark(spark)?.args(options).args([operation, id]).output()?;
        let said = text(&output.stdout) + &text(&output.stderr);
        ensure!(output.status.success() && said.contains(right), "{operation}: {said}");
    }
    all.wait_for(id, "KILLED")?;
    Ok(())
}

#[test]
fn a_stock_spark_submit_runs_jars_and_python_on_the_cluster() -> Result<()> {
    let all = Dispatched::start()?;
    let jar = jar(&all)?.display().to_string();
    let args = ["--class", "org.example.App", &jar, "100", "; it's $HOME"];
    let id = all.spark_submit(SPARK_4, &[], &args)?;
    all.wait_for(&id, "FINISHED")?;
    let logs = all.logs(&id)?;
    ensure!(logs.contains("the sum is 5150; it's $HOME"), "{logs}");
    // Spark's client asks the dispatcher that our plugin knows.
    for operation in ["--status", "--kill"] {
        let mut command = all.spark(SPARK_4)?;
        command.args(["--master", &format!("spark-mezz://{}", all.cluster.master_address())]);
        command.arg("--driver-class-path").arg(prepared("MEZZ_SPARK_BRIDGE")?);
        let (mezz, dispatcher) = (mezz_program()?, &all.address);
        command.args(["--conf", &format!("spark.mezz.bin={}", mezz.display())]);
        command.args(["--conf", &format!("spark.mezz.dispatcher={dispatcher}")]);
        let output = command.args([operation, &id]).output()?;
        let said = text(&output.stdout) + &text(&output.stderr);
        let right = if operation == "--status" { "FINISHED" } else { "already finished" };
        ensure!(said.contains(right), "{operation}: {said}");
    }

    // Ours finds the dispatcher in Spark's file of settings, and the class in the jar.
    let defaults = all.cluster.folder().join("client");
    std::fs::create_dir(&defaults)?;
    let named = format!("spark.mezz.dispatcher {}\n", all.address);
    std::fs::write(defaults.join("spark-defaults.conf"), named)?;
    let ours = |args: &[&str]| -> Result<String> {
        let mut command = all.command(args);
        command.env_remove("MEZZ_DISPATCHER").env("SPARK_CONF_DIR", &defaults);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(text(&output.stdout).trim().to_owned())
    };
    let conf = small()?;
    let conf = conf.iter().flat_map(|pair| ["--conf", pair.as_str()]);
    let args: Vec<&str> = ["submit", "--deploy-mode", "cluster", "--mode", "fine"]
        .into_iter()
        .chain(conf)
        .chain([jar.as_str(), "10", " by us"])
        .collect();
    let jar_id = ours(&args)?;
    all.wait_for(&jar_id, "FINISHED")?;
    let logs = all.logs(&jar_id)?;
    ensure!(logs.contains("the sum is 65 by us"), "{logs}");
    let ended = ours(&["status", &jar_id])?;

    let app = format!("file:{}", waiting_program(&all)?.display());
    let runner = ["--class", "org.apache.spark.deploy.PythonRunner", "spark-internal", &app, ""];
    let id = all.spark_submit(SPARK_4, &[], &runner)?;
    all.wait_for_log(&id, "first 45")?;
    // Its number alone is enough for us.
    let number = id.rsplit('-').next().context("a number")?;
    let runs = ours(&["status", number, "--output", "wide"])?;
    kill_by_stock_client(&all, SPARK_4, &[], &id)?;
    let killed = ours(&["status", &id])?;
    for (said, name, state) in [
        (&ended, "app.jar", "FINISHED"),
        (&runs, "waiting.py", "RUNNING"),
        (&killed, "waiting.py", "KILLED"),
    ] {
        let (head, row) = said.split_once('\n').with_context(|| said.clone())?;
        let head: Vec<&str> = head.split_whitespace().collect();
        ensure!(head.starts_with(&["ID", "NAME", "STATE", "HOST", "CPUS", "MEM"]), "{said}");
        let row: Vec<&str> = row.split_whitespace().collect();
        let right = row[0].starts_with("driver-") && row[1..5] == [name, state, "127.0.0.1", "1"];
        ensure!(right && said.lines().count() == 2, "{said}");
    }
    ensure!(ended.contains(jar_id.as_str()) && killed.contains(&id), "{ended}\n{killed}");
    all.nothing_is_left()?;
    all.stop()
}

/// As if the dispatcher were that of Mesos, to which this client gives Python too.
#[test]
fn spark_3_5_s_client_is_served_with_its_own_spark() -> Result<()> {
    let all = Dispatched::start()?;
    let app = program(
        &all,
        "version.py",
        "import sys, time\n\
         from pyspark import SparkContext\n\
         sc = SparkContext()\n\
         n = int(sys.argv[1])\n\
         print('Spark', sc.version[:3], sc.parallelize(range(n), 2).sum(), flush=True)\n\
         time.sleep(3600)\n",
    )?;
    let home = format!("spark.mezz.driver.home={}", prepared(SPARK_3)?.display());
    let (master, app) = (format!("mesos://{}", all.address), format!("file:{}", app.display()));
    let id = all.spark_submit(SPARK_3, &[&home], &["--master", &master, &app, "10"])?;
    all.wait_for_log(&id, "Spark 3.5 45")?;
    kill_by_stock_client(&all, SPARK_3, &["--master", &master], &id)?;
    all.nothing_is_left()?;
    all.stop()
}

#[test]
fn our_own_submit_brings_its_files_and_keeps_its_secrets() -> Result<()> {
    let all = Dispatched::start()?;
    program(&all, "helper.py", "def greet(name): return 'hello ' + name\n")?;
    let app = program(
        &all,
        "app.py",
        "import sys, time, os\n\
         from pyspark.sql import SparkSession\n\
         from helper import greet\n\
         from pyspark import SparkFiles\n\
         sc = SparkSession.builder.getOrCreate().sparkContext\n\
         def look(name):\n\
         \x20   found = [open(SparkFiles.get(n)).read() for n in ('a.txt', 'inner/b.txt')]\n\
         \x20   return ' '.join([greet(name)] + found)\n\
         with open(os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY, 0o600), 'w') as file:\n\
         \x20   file.write(sc.getConf().get('spark.authenticate.secret'))\n\
         print(sc.parallelize([sys.argv[1]], 1).map(look).collect()[0], flush=True)\n\
         while not os.path.exists(sys.argv[3]):\n    time.sleep(0.05)\n",
    )?;
    let a = program(&all, "a.txt", "from a file,")?;
    program(&all, "b.txt", "an archive")?;
    let archive = a.with_file_name("packed.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(all.cluster.folder()).arg("b.txt");
    ensure!(tar.status()?.success(), "no {}", archive.display());
    // Not in the folder that is searched for secrets.
    let elsewhere = tempfile::tempdir()?;
    let path = |name: &str| elsewhere.path().join(name).display().to_string();
    let (own, go) = (path("secret"), path("go"));
    let helper = all.cluster.folder().join("helper.py");
    let conf = [
        "spark.authenticate=true".to_owned(),
        "spark.hadoop.some.token=hush-token".to_owned(),
        format!("spark.submit.pyFiles={}", helper.display()),
        format!("spark.files={}", a.display()),
        format!("spark.archives={}#inner", archive.display()),
    ];
    let conf: Vec<&str> = conf.iter().map(String::as_str).collect();
    let id = all.submit(&conf, &app, &["world", &own, &go])?;
    all.wait_for_log(&id, "hello world from a file, an archive")?;
    // While it runs, its secrets are in no list, no command line and no file of it.
    let made = std::fs::read_to_string(&own)?;
    ensure!(made.len() == 64, "{made}");
    let seen = places_of(&all.cluster, &[&made, "hush-token"])?;
    ensure!(seen.is_empty(), "secrets are seen: {seen:#?}");
    for (place, text) in [("list", all.driver(&id)?.to_string()), ("log", all.logs(&id)?)] {
        let seen = text.contains(&made) || text.contains("hush-token");
        ensure!(!seen, "a secret is in the {place}: {text}");
    }
    std::fs::write(go, "")?;
    all.wait_for(&id, "FINISHED")?;
    all.nothing_is_left()?;
    all.stop()
}

#[test]
fn a_killed_dispatcher_loses_neither_what_runs_nor_what_waits() -> Result<()> {
    let mut all = Dispatched::start()?;
    let app = waiting_program(&all)?;
    let running = all.submit(&[], &app, &[])?;
    all.wait_for_log(&running, "first 45")?;
    // No room for it beside the other and its executor.
    let queued = all.submit(&[&plain_home(&all)?], &quick(&all)?, &[])?;
    ensure!(all.driver(&queued)?["state"] == "SUBMITTED", "{:?}", all.drivers()?);
    all.dispatcher(0)?.kill_9()?;
    all.start_dispatcher(0)?;
    all.wait_for(&running, "RUNNING")?;
    std::fs::write(all.cluster.folder().join("go"), "")?;
    let first = all.wait_for(&running, "FINISHED")?;
    ensure!(first["launches"] == 1, "{first}");
    let second = all.wait_for(&queued, "FINISHED")?;
    ensure!(second["launches"] == 1, "{second}");
    ensure!(all.logs(&running)?.contains("second 4950"), "{}", all.logs(&running)?);
    all.nothing_is_left()?;
    all.stop()
}

/// However it ends: by its status, by a signal, or with its agent.
#[test]
fn a_supervised_driver_is_started_again_and_a_kill_ends_it_for_good() -> Result<()> {
    let mut all = Dispatched::start()?;
    let mark = all.cluster.folder().join("mark");
    let secrets = all.cluster.folder().join("secrets");
    let app = program(
        &all,
        "failing.py",
        &format!(
            "import os, sys, time\n\
             from pyspark import SparkContext\n\
             SparkContext._ensure_initialized()\n\
             get = SparkContext._jvm.java.lang.System.getProperty\n\
             with open({secrets:?}, 'a') as file:\n\
             \x20   print(get('spark.authenticate.secret'), file=file)\n\
             if not os.path.exists({mark:?}):\n    open({mark:?}, 'w').close()\n    sys.exit(7)\n\
             print('not the first time', flush=True)\n\
             time.sleep(3600)\n"
        ),
    )?;
    let conf = ["spark.driver.supervise=true", "spark.authenticate=true"];
    let id = all.submit(&conf, &app, &[])?;
    let runs = |all: &Dispatched, launches: u64| {
        eventually(PATIENCE, &format!("launch {launches} runs"), || {
            let driver = all.driver(&id)?;
            let runs = driver["launches"] == launches && driver["state"] == "RUNNING";
            Ok(if runs { Ok(()) } else { Err(driver.to_string()) })
        })?;
        all.wait_for_log(&id, "not the first time")
    };
    runs(&all, 2)?;
    let secrets = std::fs::read_to_string(secrets)?;
    let secrets: Vec<&str> = secrets.lines().collect();
    let right = secrets.len() == 2 && secrets[0] != secrets[1];
    ensure!(right && secrets.iter().all(|s| s.len() == 64), "one for each run: {secrets:?}");
    let mut logs = Process::start("logs", all.cluster.folder(), all.command(&["logs", "-f", &id]))?;
    logs.wait_for_output("not the first time", PATIENCE)?;
    for pid in processes_of(all.cluster.folder())? {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = text(&line);
        if line.contains("failing.py")
            && line.split('\0').next().is_some_and(|p| p.ends_with("java"))
        {
            mezz_tests::signal(pid, Signal::KILL)?;
        }
    }
    runs(&all, 3)?;
    all.cluster.lose_agent(0)?;
    all.cluster.start_agent(0)?;
    runs(&all, 4)?;
    let kill = all.mezz(&["kill", &id])?;
    ensure!(kill.status.success(), "{}", text(&kill.stderr));
    all.wait_for(&id, "KILLED")?;
    // Following ends with the driver.
    logs.wait(PATIENCE)?.success()?;
    let again = all.mezz(&["kill", &id])?;
    ensure!(text(&again.stderr).contains("has already finished"), "{}", text(&again.stderr));
    all.nothing_is_left()?;
    all.stop()
}

/// One after the other: an executor, the agent's program, and the driver's sidecar.
#[test]
fn faults_under_a_driver_give_the_right_answer_or_the_right_error() -> Result<()> {
    let mut all = Dispatched::start()?;
    let app = waiting_program(&all)?;
    let endless = "sc.parallelize([1], 1).map(lambda i: time.sleep(600)).count()\n";
    std::fs::write(&app, std::fs::read_to_string(&app)? + endless)?;
    let id = all.submit(&["spark.mezz.failoverTimeout=1s"], &app, &[])?;
    all.wait_for_log(&id, "first 45")?;
    let before = executors(&all.cluster)?;
    for pid in &before {
        mezz_tests::signal(*pid, Signal::KILL)?;
    }
    eventually(PATIENCE, "another executor", || {
        let now = executors(&all.cluster)?;
        Ok(if !now.is_empty() && now.is_disjoint(&before) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        })
    })?;
    all.cluster.agent(0)?.kill_9()?;
    all.cluster.start_agent(0)?;
    all.cluster.wait_for_agents(1)?;
    std::fs::write(all.cluster.folder().join("go"), "")?;
    all.wait_for_log(&id, "second 4950")?;
    mezz_tests::signal(sidecar(&all.cluster)?, Signal::KILL)?;
    let driver = all.wait_for(&id, "FAILED")?;
    ensure!(driver["launches"] == 1, "{driver}");
    ensure!(all.logs(&id)?.contains("spark-sidecar"), "{}", all.logs(&id)?);
    all.nothing_is_left()?;
    all.stop()
}

#[test]
fn a_dispatcher_whose_framework_is_torn_down_begins_anew() -> Result<()> {
    let all = Dispatched::start()?;
    let app = program(
        &all,
        "sleeping.py",
        "import time\nprint('it sleeps', flush=True)\ntime.sleep(3600)\n",
    )?;
    let id = all.submit(&["spark.driver.supervise=true"], &app, &[])?;
    all.wait_for_log(&id, "it sleeps")?;
    let before = all.driver(&id)?["framework_id"].clone();
    let framework = before.as_str().context("a framework")?;
    all.cluster.mezz(["framework", "teardown", framework])?.success()?;
    eventually(PATIENCE, "it is launched under another framework", || {
        let driver = all.driver(&id)?;
        let again = driver["launches"] == 2 && driver["state"] == "RUNNING";
        Ok(if again { Ok(()) } else { Err(driver.to_string()) })
    })?;
    ensure!(all.driver(&id)?["framework_id"] != before, "{:?}", all.drivers()?);
    all.mezz(&["kill", &id])?;
    all.wait_for(&id, "KILLED")?;
    all.nothing_is_left()?;
    all.stop()
}

/// With and without a registry that remembers agents over the restart.
#[test]
fn a_master_restart_under_a_driver_changes_nothing() -> Result<()> {
    for registry in ["file", "memory"] {
        let mut all = Dispatched::start_with(vec!["--registry".to_owned(), registry.to_owned()])?;
        let go = all.cluster.folder().join("go");
        let app = program(
            &all,
            "waiting.py",
            &format!(
                "import os, time\nprint('it runs', flush=True)\n\
                 while not os.path.exists({go:?}):\n    time.sleep(0.05)\n"
            ),
        )?;
        let id = all.submit(&[], &app, &[])?;
        all.wait_for(&id, "RUNNING")?;
        all.cluster.master()?.kill_9()?;
        all.cluster.start_master()?;
        all.cluster.wait_for_agents(1)?;
        all.wait_for(&id, "RUNNING")?;
        std::fs::write(&go, "")?;
        let driver = all.wait_for(&id, "FINISHED")?;
        ensure!(driver["launches"] == 1, "{registry}: {driver}");
        all.nothing_is_left()?;
        all.stop()?;
    }
    Ok(())
}

/// With all that is needed in the image, of `deploy/spark.Dockerfile`: nothing is said of where.
#[test]
fn a_driver_and_its_executors_run_in_docker_containers() -> Result<()> {
    let all = Dispatched::start()?;
    let image = prepared_value("MEZZ_TEST_SPARK_IMAGE")?;
    let conf = [
        format!("spark.mezz.driver.docker.image={image}"),
        format!("spark.mezz.executor.docker.image={image}"),
        "spark.pyspark.python=python3".to_owned(),
        "spark.mezz.coarse=false".to_owned(),
        "spark.mezz.driver.docker.parameters=ulimit=nofile=4321:4321".to_owned(),
        "spark.mezz.driverEnv.WHERE=here".to_owned(),
    ];
    let app = program(
        &all,
        "where.py",
        "import os, resource\n\
         from pyspark.sql import SparkSession\n\
         sc = SparkSession.builder.getOrCreate().sparkContext\n\
         homes = sc.parallelize(range(2), 2).map(\n\
             lambda _: (os.environ['SPARK_HOME'], os.path.exists('/.dockerenv'))).collect()\n\
         files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n\
         print('in', os.getcwd(), os.environ['WHERE'], set(homes), os.environ['SPARK_HOME'], files)\n",
    )?;
    let conf: Vec<&str> = conf.iter().map(String::as_str).collect();
    let id = all.submit(&conf, &app, &[])?;
    all.wait_for(&id, "FINISHED")?;
    let logs = all.logs(&id)?;
    let right = "in /mnt/mesos/sandbox here {('/opt/spark', True)} /opt/spark 4321";
    ensure!(logs.contains(right), "{logs}");
    all.nothing_is_left()?;
    Containers::of(all.cluster.folder().join("agent0")).wait_until_gone()?;
    all.stop()
}

/// Drivers that need no executors, and all processors of the one agent.
#[test]
fn of_drivers_that_wait_the_higher_goes_first_and_killed_ones_go_nowhere() -> Result<()> {
    let all = Dispatched::start()?;
    let failing = program(&all, "failing.py", "import sys\nsys.exit(7)\n")?;
    let quick = program(&all, "quick.py", "print('done')\n")?;
    let go = all.cluster.folder().join("go");
    let lines =
        format!("import os, time\nwhile not os.path.exists({go:?}):\n    time.sleep(0.05)\n");
    let blocking = program(&all, "blocking.py", &lines)?;
    let submit = |priority: i32, more: &[&str], program: &Path| {
        let priority = format!("spark.mezz.dispatcher.priority={priority}");
        all.submit(&[&["spark.driver.cores=2", priority.as_str()], more].concat(), program, &[])
    };
    // One that has no room anywhere says so.
    let large = all.submit(&["spark.driver.cores=9"], &quick, &[])?;
    eventually(PATIENCE, "it is known why a driver waits", || {
        let driver = all.driver(&large)?;
        let why = driver["message"].as_str().is_some_and(|m| m.contains("has only cpus:2"));
        Ok(if why { Ok(()) } else { Err(driver.to_string()) })
    })?;
    let kill = all.mezz(&["kill", &large])?;
    ensure!(kill.status.success(), "{}", text(&kill.stderr));
    let again = submit(9, &["spark.driver.supervise=true"], &failing)?;
    let blocking = submit(0, &[], &blocking)?;

    // It waits to be started again, and its place is taken meanwhile.
    eventually(PATIENCE, "the first has failed", || {
        let driver = all.driver(&again)?;
        let failed = driver["message"].as_str().is_some_and(|m| m.contains("status 7"));
        Ok(if failed { Ok(()) } else { Err(driver.to_string()) })
    })?;
    // A busy machine may start it once more before.
    all.wait_for(&blocking, "RUNNING")?;
    let kill = all.mezz(&["kill", &again])?;
    ensure!(kill.status.success(), "{}", text(&kill.stderr));
    let killed = all.driver(&again)?;
    ensure!(killed["state"] == "KILLED", "{killed}");

    let low = submit(-1, &[], &quick)?;
    let middle = submit(0, &[], &quick)?;
    let high = submit(5, &[], &quick)?;
    let doomed = submit(99, &[], &quick)?;
    let kill = all.mezz(&["kill", &doomed])?;
    ensure!(kill.status.success(), "{}", text(&kill.stderr));
    std::fs::write(&go, "")?;
    let mut started = Vec::new();
    for id in [&high, &middle, &low] {
        let driver = all.wait_for(id, "FINISHED")?;
        started.push(driver["started_time"].as_f64().context("a time")?);
    }
    ensure!(started.is_sorted(), "they started at {started:?}");
    ensure!(all.driver(&again)? == killed, "{}", all.driver(&again)?);
    let driver = all.driver(&doomed)?;
    ensure!(driver["state"] == "KILLED" && driver["launches"] == 0, "{driver}");
    all.nothing_is_left()?;
    all.stop()
}

/// What can be said of a driver in cluster mode, in one submission that is waited for.
#[test]
fn a_driver_and_its_executors_have_gpus_and_all_that_is_said_of_drivers() -> Result<()> {
    let rack = |name: &str| vec!["--attributes".to_owned(), format!("rack:{name}")];
    let all = Dispatched::start_on(ClusterOptions {
        agents: 2,
        resources: "cpus:2;mem:1900;disk:1000;gpus:3".to_owned(),
        args_of_agents: vec![rack("a"), rack("b")],
        hostnames: vec!["127.0.0.2".to_owned(), "127.0.0.3".to_owned()],
        ..Default::default()
    })?;
    let folder = all.cluster.folder();
    let path = |name: &str| folder.join(name).display().to_string();
    let app = program(
        &all,
        "gpus.py",
        r#"
import os, sys, time
from pyspark import SparkContext, TaskContext
sc = SparkContext()
print("driver has", sc.resources["gpu"].addresses, flush=True)
print("home", os.path.relpath(os.environ["SPARK_HOME"], os.getcwd()), flush=True)
print("told", os.environ["OF_DEFAULTS"], os.environ["TOKEN"], open("words.txt").read(), flush=True)
print("by", sc.getConf().get("spark.mezz.bin"), sc.getConf().get("spark.driver.extraClassPath"))
def look(_):
    time.sleep(1)
    return [TaskContext.get().resources()["gpu"].addresses]
print("tasks have", sorted(sc.parallelize(range(2), 2).mapPartitions(look).collect()), flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"#,
    )?;
    std::fs::write(folder.join("words.txt"), "to be")?;
    let defaults = folder.join("client");
    std::fs::create_dir(&defaults)?;
    std::fs::write(defaults.join("spark-defaults.conf"), "spark.mezz.driverEnv.OF_DEFAULTS yes\n")?;
    let installed = prepared(SPARK_4)?;
    // Its driver's Spark is fetched, but for jars, which are large.
    let packed = tempfile::tempdir()?;
    let archive = spark_archive(SPARK_4, packed.path())?.display().to_string();
    std::os::unix::fs::symlink(mezz_program()?, folder.join("another-mezz"))?;
    std::os::unix::fs::symlink(prepared("MEZZ_SPARK_BRIDGE")?, folder.join("another.jar"))?;
    let mut command = all.command(&["submit", "--deploy-mode", "cluster"]);
    let (bin, jar) = (path("another-mezz"), path("another.jar"));
    let settings = [
        "spark.standalone.submit.waitAppCompletion=true".to_owned(),
        "spark.driver.cores=0.5".to_owned(),
        "spark.driver.memoryOverhead=400m".to_owned(),
        "spark.driver.resource.gpu.amount=1".to_owned(),
        "spark.executor.cores=2".to_owned(),
        "spark.cores.max=2".to_owned(),
        "spark.executor.resource.gpu.amount=2".to_owned(),
        "spark.task.resource.gpu.amount=1".to_owned(),
        "spark.mezz.driver.constraints=rack:b".to_owned(),
        "spark.mezz.driver.labels=team:search".to_owned(),
        "spark.mezz.driverEnv.TOKEN=hush-hush".to_owned(),
        format!("spark.mezz.driver.uris={},{archive}", path("words.txt")),
        format!("spark.mezz.driver.home={ARCHIVED_SPARK}"),
        format!("spark.mezz.driverEnv.SPARK_DIST_CLASSPATH={}/jars/*", installed.display()),
        format!("spark.mezz.executor.home={}", installed.display()),
        format!("spark.mezz.driver.bin={bin}"),
        format!("spark.mezz.driver.bridgeJar={jar}"),
    ];
    for pair in small()?.iter().chain(&settings) {
        command.args(["--conf", pair]);
    }
    command.env("SPARK_CONF_DIR", defaults).arg(app).arg(path("go"));
    let mut waiting = Process::start("submit", folder, command)?;
    waiting.wait_for_output("driver-", PATIENCE)?;
    let id = waiting.stdout().trim().to_owned();
    all.wait_for_log(&id, "tasks have [['0'], ['1']]")?;

    let logs = all.logs(&id)?;
    let home = format!("home {ARCHIVED_SPARK}");
    let by = format!("by {bin} {jar}");
    for line in ["driver has ['0']", "told yes hush-hush to be", &home, &by] {
        ensure!(logs.contains(line), "no `{line}` in {logs}");
    }
    let tasks = all.cluster.list("tasks", &[])?;
    let driver = tasks.iter().find(|task| task["id"] == id.as_str()).context("its task")?;
    let has = &driver["resources"];
    ensure!(has["cpus"] == 0.5 && has["mem"] == 912.0 && has["gpus"] == 1.0, "{driver}");
    ensure!(driver["agent_hostname"] == "127.0.0.3", "{driver}");
    ensure!(driver["labels"][0]["value"] == "search", "{driver}");
    ensure!(!format!("{tasks:?}").contains("hush-hush"), "{tasks:?}");
    let frameworks = all.cluster.list("frameworks", &[])?;
    let page = |f: &Value| f["webui_url"].as_str().is_some_and(|url| url.contains(&all.address));
    ensure!(frameworks.iter().any(page), "{frameworks:?}");
    ensure!(waiting.running(), "the client does not wait");

    std::fs::write(path("go"), "")?;
    waiting.wait(PATIENCE)?.success()?;
    all.nothing_is_left()?;
    all.stop()
}
