//! Real Spark through the plugin, the line protocol, the session and the policy;
//! only the cluster is made up. `./test.sh` installs Spark and runs them.

mod support;

use support::{Job, alive, kill_9};

#[test]
fn words_are_counted_with_authentication_and_the_secret_stays_out_of_sight() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "the cat and the dog\n".repeat(1000) + "the end\n").unwrap();
    let settings = [
        ("spark.authenticate", "true"),
        ("spark.authenticate.secret", "hush-hush"),
        ("spark.cores.max", "4"),
        ("spark.executor.cores", "2"),
    ];
    let mut job = Job::start(&settings, "examples/wordcount.py", &[text.to_str().unwrap()]);
    job.wait_for("an executor", |j| !j.events("registered").is_empty());
    for pid in job.executors().values() {
        let argv = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(argv.contains("CoarseGrainedExecutorBackend"), "{argv}");
        assert!(!argv.contains("hush-hush"), "{argv}");
    }
    assert!(job.finish().success(), "{}", job.all());
    let log = job.read("log");
    let counts = log.lines().find(|l| l.starts_with("the ")).unwrap_or_default();
    assert_eq!(counts.split_whitespace().collect::<Vec<_>>(), ["the", "2,001"], "{}", job.all());
    assert!(!log.contains("hush-hush"), "the secret is in the log");
    // 4 cores in executors of 2, spread over the agents; 512 MiB of heap and the
    // least overhead.
    let launched = job.events("launch").join("\n");
    assert_eq!(launched.matches("with cpus:2; mem:896").count(), 2, "{launched}");
    assert!(launched.contains("agent-1") && launched.contains("agent-2"), "{launched}");
    assert!(job.read("events").ends_with("over well\n"), "{}", job.all());
}

#[test]
fn a_killed_executor_is_replaced_and_the_work_goes_on() {
    let mut job = Job::start(&[], "tests/apps/steady.py", &["@"]);
    job.wait_for("two executors and a job", |j| {
        j.events("registered").len() == 2 && j.read("progress").contains("job 2")
    });
    kill_9(job.executors()[&1]);
    job.wait_for("a replacement", |j| j.events("registered").contains(&"registered 3".to_owned()));
    let before = job.read("progress").lines().count();
    job.wait_for("more jobs", |j| j.read("progress").lines().count() > before + 1);
    job.touch("stop");
    assert!(job.finish().success(), "{}", job.all());
    assert_eq!(job.executors().len(), 3, "{}", job.all());
    assert!(job.read("log").contains("Executor 1 ended: killed by signal 9"), "{}", job.all());
}

#[test]
fn dynamic_allocation_grows_and_shrinks_and_grows_again() {
    let settings = [
        ("spark.dynamicAllocation.enabled", "true"),
        ("spark.dynamicAllocation.shuffleTracking.enabled", "true"),
        ("spark.dynamicAllocation.initialExecutors", "1"),
        ("spark.dynamicAllocation.maxExecutors", "3"),
        ("spark.dynamicAllocation.executorIdleTimeout", "2s"),
        ("spark.dynamicAllocation.schedulerBacklogTimeout", "1s"),
    ];
    let mut job = Job::start(&settings, "tests/apps/waves.py", &["@"]);
    job.wait_for("the first wave", |j| j.read("progress").contains("wave 1"));
    let first = job.executors().len();
    assert!((2..=3).contains(&first), "{}", job.all());
    job.wait_for("all executors to be given back", |j| j.events("end").len() == first);
    assert_eq!(job.events("kill").len(), first, "{}", job.all());
    job.touch("go-on-1");
    job.wait_for("the second wave", |j| j.read("progress").contains("wave 2"));
    assert!(job.executors().len() > first, "{}", job.all());
    job.touch("go-on-2");
    assert!(job.finish().success(), "{}", job.all());
}

#[test]
fn a_stage_may_have_a_resource_profile_of_its_own() {
    let settings = [
        ("spark.dynamicAllocation.enabled", "true"),
        ("spark.dynamicAllocation.shuffleTracking.enabled", "true"),
        ("spark.dynamicAllocation.maxExecutors", "2"),
    ];
    let mut job = Job::start(&settings, "tests/apps/own_profile.py", &[]);
    assert!(job.finish().success(), "{}", job.all());
    assert!(job.read("log").contains("sum 5050"), "{}", job.all());
    let launched = job.events("launch").join("\n");
    assert!(launched.contains("with cpus:3; mem:1012"), "{launched}");
}

#[test]
fn nothing_is_left_of_a_driver_that_is_killed() {
    let mut job = Job::start(&[], "tests/apps/steady.py", &["@"]);
    job.wait_for("a job", |j| j.read("progress").contains("job 1"));
    let executors = job.executors();
    let sidecar = job.sidecar_pid();
    kill_9(job.driver_pid());
    job.finish();
    job.wait_for("the sidecar's end", |j| j.read("events").ends_with("eof\nover well\n"));
    job.wait_for("all processes to be gone", |_| {
        !alive(sidecar) && executors.values().all(|pid| !alive(*pid))
    });
}

#[test]
fn a_driver_that_loses_its_sidecar_fails_and_says_so() {
    let mut job = Job::start(&[], "tests/apps/steady.py", &["@"]);
    job.wait_for("a job", |j| j.read("progress").contains("job 1"));
    let executors = job.executors();
    let sidecar = job.sidecar_pid();
    kill_9(sidecar);
    assert!(!job.finish().success(), "{}", job.all());
    let log = job.read("log");
    let message = format!("pid {sidecar}) is lost: it ended by signal 9");
    assert!(log.contains(&message), "{}", job.all());
    // Here the sidecar cannot end them; the driver's end does.
    job.wait_for("executors to end", |_| executors.values().all(|pid| !alive(*pid)));
}

#[test]
fn executors_that_cannot_start_fail_the_job_after_a_few_attempts() {
    let settings = [("spark.mezz.executor.home", "/no/spark/here")];
    let mut job = Job::start(&settings, "examples/pi.py", &[]);
    assert!(!job.finish().success(), "{}", job.all());
    let log = job.read("log");
    assert!(log.contains("5 attempts in a row to start executors failed"), "{}", job.all());
    assert!(log.contains("exited with status 1"), "{}", job.all());
    // Two at first, then one at a time.
    assert_eq!(job.executors().len(), 6, "{}", job.all());
}

#[test]
fn wrong_settings_are_named_before_anything_starts() {
    for (key, value, said) in [
        ("spark.mezz.placement", "everywhere", "it is spread or consolidate"),
        ("spark.mezz.bin", "/no/such/mezz", "set spark.mezz.bin or MEZZ_BIN"),
        ("spark.mezz.constraints", "rack:", "constraint `rack:`"),
    ] {
        let mut job = Job::start(&[(key, value)], "examples/pi.py", &[]);
        assert!(!job.finish().success(), "{}", job.all());
        assert!(job.read("log").contains(said), "{}", job.all());
        assert_eq!(job.executors().len(), 0, "{}", job.all());
    }
}
