//! `mezz spark` with a Spark that only prints how it was called.

#![allow(clippy::unwrap_used)] // in a function that clippy does not know as a test's

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::{mezz, stderr, stdout};

/// A folder that looks like Spark's, and the command that uses it.
fn fake_spark(dir: &Path) -> Command {
    for folder in ["bin", "jars"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    for program in ["spark-submit", "spark-shell", "pyspark", "spark-sql"] {
        let path = dir.join("bin").join(program);
        fs::write(&path, "#!/bin/sh\necho \"$(basename \"$0\") $*\"\nexit 9\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let jar = dir.join("bridge.jar");
    fs::write(&jar, "").unwrap();
    let mut command = mezz();
    command.env("SPARK_HOME", dir).env("MEZZ_SPARK_BRIDGE", jar).arg("spark");
    command
}

#[test]
fn spark_s_own_command_gets_the_cluster_and_everything_else() {
    for (name, program) in [
        ("submit", "spark-submit"),
        ("shell", "spark-shell"),
        ("pyspark", "pyspark"),
        ("sql", "spark-sql"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = fake_spark(dir.path());
        command.args([name, "--conf", "a=b", "--master", "h:5050", "app.py", "--help", "--master"]);
        let output = command.output().unwrap();
        // Its exit status is ours.
        assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
        let line = stdout(&output);
        assert!(line.starts_with(&format!("{program} ")), "{line}");
        assert!(line.contains("--conf a=b"), "{line}");
        assert!(line.contains("--master spark-mezz://h:5050"), "{line}");
        assert!(line.ends_with(" app.py --help --master\n"), "{line}");
    }
}

#[test]
fn the_master_can_come_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = fake_spark(dir.path());
    let output = command.args(["submit", "app.py"]).env("MEZZ_MASTER", "a:1,b:2").output().unwrap();
    assert!(stdout(&output).contains("--master spark-mezz://a:1,b:2"), "{}", stdout(&output));
}

#[test]
fn the_mode_becomes_a_setting_of_spark_s() {
    for (mode, setting) in
        [("fine", "spark.mezz.coarse=false"), ("coarse", "spark.mezz.coarse=true")]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut command = fake_spark(dir.path());
        let output = command.args(["pyspark", "--mode", mode, "app.py"]).output().unwrap();
        assert!(stdout(&output).contains(&format!("--conf {setting}")), "{}", stdout(&output));
    }
    let dir = tempfile::tempdir().unwrap();
    let output = fake_spark(dir.path()).args(["submit", "--mode", "x", "a.py"]).output().unwrap();
    assert!(stderr(&output).contains("--mode is `x`; it is coarse or fine"), "{}", stderr(&output));
}

#[test]
fn no_spark_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = fake_spark(dir.path());
    let output =
        command.args(["submit", "app.py"]).env("SPARK_HOME", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("SPARK_HOME is /nonexistent"), "{}", stderr(&output));
}

#[test]
fn help_begins_with_our_own_options() {
    let own = [
        "--master HOST:PORT",
        "--mode coarse|fine",
        "--spark-home DIR",
        "--bridge-jar FILE",
        "MEZZ_MASTER",
    ];
    for name in ["submit", "shell", "pyspark", "sql"] {
        for flag in ["--help", "-h"] {
            let dir = tempfile::tempdir().unwrap();
            let mut command = fake_spark(dir.path());
            // No plugin is needed for it.
            command.env_remove("MEZZ_SPARK_BRIDGE");
            let output = command.args([name, "--verbose", flag]).output().unwrap();
            let text = stdout(&output);
            let spark = text.find("--help\n").unwrap_or_else(|| panic!("{text}"));
            for option in own {
                assert!(text.find(option).is_some_and(|at| at < spark), "{option}: {text}");
            }
        }
    }
    // Without Spark they are still said, and what to do.
    let dir = tempfile::tempdir().unwrap();
    let mut command = fake_spark(dir.path());
    command.env("SPARK_HOME", "/nonexistent").args(["submit", "--help"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for text in own.into_iter().chain(["SPARK_HOME is /nonexistent"]) {
        assert!(stdout(&output).contains(text), "{text}: {}", stdout(&output));
    }
}

#[test]
fn settings_are_printed_or_written_for_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = fake_spark(dir.path());
    let printed = command.args(["env", "--master", "a:1,b:2", "--mode", "fine"]).output().unwrap();
    let text = stdout(&printed);
    for line in [
        "spark.master spark-mezz://a:1,b:2".to_owned(),
        "spark.mezz.coarse false".to_owned(),
        format!("spark.driver.extraClassPath {}/bridge.jar", dir.path().display()),
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text} {}", stderr(&printed));
    }
    let conf = dir.path().join("conf");
    let mut command = mezz();
    command.env("MEZZ_SPARK_BRIDGE", dir.path().join("bridge.jar"));
    let written = command.args(["spark", "env", "--write"]).arg(&conf).output().unwrap();
    assert_eq!(stdout(&written), format!("export SPARK_CONF_DIR={}\n", conf.display()));
    let text = fs::read_to_string(conf.join("spark-defaults.conf")).unwrap();
    assert!(text.contains("spark.master spark-mezz://127.0.0.1:5050\n"), "{text}");
}

#[test]
fn the_history_server_is_spark_s_own_with_its_address_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = fake_spark(dir.path());
    let program = dir.path().join("bin/spark-class");
    fs::write(&program, "#!/bin/sh\necho \"$* $SPARK_HISTORY_OPTS\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    command.args(["history", "--port", "18099", "--log-dir"]).arg(dir.path());
    let output = command.output().unwrap();
    let said = stderr(&output);
    assert!(said.starts_with("http://127.0.0.1:18099 with the event logs in file:///"), "{said}");
    let line = stdout(&output);
    assert!(line.starts_with("org.apache.spark.deploy.history.HistoryServer "), "{line}");
    assert!(line.contains("-Dspark.history.ui.port=18099"), "{line}");
}
