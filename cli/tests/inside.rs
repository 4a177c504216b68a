//! `mezz exec`, `mezz attach` and `mezz agent drain` on a whole cluster.

#![allow(clippy::unwrap_used)] // in functions that clippy does not know as a test's

mod common;

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
};

use common::{Cluster, Running, stderr, stdout, wait_until};

const SMALL: &str = "cpus:0.1;mem:32";

/// A task that is running, `NAME-1`, and what started it.
fn start(cluster: &Cluster, name: &str, script: &str) -> Running {
    let run =
        ["run", "--name", name, "--resources", SMALL, "--env", "GREETING=hi", "--", "sh", "-c"];
    let mut command = cluster.mezz(&run);
    command.arg(script);
    let running = Running::start(command);
    wait_until("the task runs", || {
        cluster.tasks("TASK_RUNNING").contains(&format!("{name}-1")).then_some(())
    });
    running
}

fn exec(cluster: &Cluster, options: &[&str], command: &[&str]) -> std::process::Output {
    let all = [&["exec"], options, &["t", "--"], command].concat();
    cluster.run(&all)
}

#[test]
fn a_command_runs_inside_of_a_task() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let _task = start(&cluster, "t", "echo 1 > file; sleep 1000");

    let script = "cat file; echo $GREETING; echo err >&2; exit 7";
    let output = exec(&cluster, &[], &["sh", "-c", script]);
    assert_eq!((&*stdout(&output), &*stderr(&output)), ("1\nhi\n", "err\n"));
    assert_eq!(output.status.code(), Some(7));
    let output = exec(&cluster, &[], &["sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(128 + 15), "{}", stderr(&output));
    let output = exec(&cluster, &[], &["/no/such/program"]);
    assert!(!output.status.success() && !stderr(&output).is_empty());
    // Without -i it reads nothing.
    assert_eq!(stdout(&exec(&cluster, &[], &["cat"])), "");
    // A terminal is one, and has both outputs.
    let output = exec(&cluster, &["-t"], &["sh", "-c", "test -t 1 && stty size && echo e >&2"]);
    assert_eq!(stdout(&output), "24 80\r\ne\r\n", "{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    let missing = cluster.run(&["exec", "nothing", "--", "true"]);
    assert!(stderr(&missing).contains("no task `nothing`; `mezz tasks`"), "{}", stderr(&missing));
    let usage = cluster.run(&["exec", "t"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn input_goes_in_and_much_comes_out() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let _task = start(&cluster, "t", "sleep 1000");
    let sizes: Vec<u8> = (0..4_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut command = cluster.mezz(&["exec", "-i", "t", "--", "cat"]);
    let mut cat = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, data) = (cat.stdin.take().unwrap(), sizes.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let mut read = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == sizes, "{} of {} bytes came back", read.len(), sizes.len());
    assert!(cat.wait().unwrap().success());
    writer.join().unwrap().unwrap();
}

/// Nothing that was run for somebody outlives him.
#[test]
fn a_command_ends_with_who_started_it() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let _task = start(&cluster, "t", "sleep 1000");
    let script = "echo $$; sleep 1000";
    let mut exec = Running::start(cluster.mezz(&["exec", "t", "--", "sh", "-c", script]));
    let pid = exec.wait_out("").trim().to_owned();
    // Its own namespace has no other numbers: the agent runs without isolation.
    let alive = || fs::exists(format!("/proc/{pid}")).unwrap();
    assert!(alive());
    exec.interrupt();
    exec.wait();
    wait_until("the command ends", || (!alive()).then_some(()));
}

/// A person's terminal: keys go in as they are typed, and its size goes along.
#[test]
fn a_terminal_goes_through() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let _task = start(&cluster, "t", "sleep 1000");
    // `script` gives it a terminal of its own.
    let inner = format!(
        "stty rows 33 cols 99; {} exec --master {} -it t -- sh -c 'stty size; read x; echo got $x'; \
         stty -a | grep -o -e '-\\?icanon'",
        env!("CARGO_BIN_EXE_mezz"),
        cluster.address
    );
    let mut script = Command::new("script")
        .args(["-q", "-c", &inner, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = script.stdin.take().unwrap();
    stdin.write_all(b"key\r").unwrap();
    let mut text = String::new();
    script.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    drop(stdin);
    script.wait().unwrap();
    for part in ["33 99", "got key"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.trim_end().ends_with("icanon"), "the terminal is as it was: {text}");
    assert!(!text.contains("-icanon"), "{text}");
}

#[test]
fn attach_prints_what_is_written_from_now_on() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let script = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo out; echo err >&2; \
                  while [ ! -e end ]; do sleep 0.05; done; echo last";
    let mut task = start(&cluster, "t", script);
    wait_until("the first line", || {
        (stdout(&cluster.run(&["logs", "t"])) == "before\n").then_some(())
    });
    let mut attached = Running::start(cluster.mezz(&["attach", "t"]));
    // Whether it listens cannot be seen: what it misses is written again.
    wait_until("a line", || {
        exec(&cluster, &[], &["sh", "-c", "echo ping >> stdout"]);
        attached.has_out("ping").then_some(())
    });
    assert!(exec(&cluster, &[], &["touch", "go"]).status.success());
    attached.wait_out("out");
    attached.wait_err("err");
    assert!(exec(&cluster, &[], &["touch", "end"]).status.success());
    attached.wait_out("last");
    assert!(attached.wait().success());
    assert!(!attached.out.iter().any(|line| line == "before"));
    task.wait();
    let late = cluster.run(&["attach", "t"]);
    assert!(stderr(&late).contains("no task `t`"), "{}", stderr(&late));
}

#[test]
fn an_agent_is_drained_and_offered_again() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let agents = || cluster.json(&["agents"])[0].clone();
    let id = agents()["id"].as_str().unwrap().to_owned();
    // Ends with SIGTERM only after its time.
    let script = "trap '' TERM; while true; do sleep 1000 & wait; done";
    let mut task = start(&cluster, "t", script);

    let output = cluster.run(&["agent", "drain", "S0", "--grace", "100ms", "--wait"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("agent {id} on ")), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("is drained\n"), "{}", stderr(&output));
    assert_eq!(agents()["status"], "drained");
    assert_eq!(cluster.tasks("TASK_KILLED"), ["t-1"]);
    task.wait();

    // Nothing starts there until it is wanted.
    let mut waiting =
        Running::start(cluster.mezz(&["run", "--name", "u", "--resources", SMALL, "--", "true"]));
    waiting.wait_err("1 agent: not active");
    let output = cluster.run(&["agent", "reactivate", "S0"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(waiting.wait().success());
    assert_eq!(agents()["status"], "active");

    let output = cluster.run(&["agent", "deactivate", &id]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(agents()["status"], "deactivated");
    let output = cluster.run(&["agent", "drain", "nobody"]);
    assert!(stderr(&output).contains("no agent `nobody`; `mezz agents`"), "{}", stderr(&output));

    for typed in ["nobody", ""] {
        let output = cluster.run(&["agent", "gone", typed]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(&format!("`{typed}`")), "{}", stderr(&output));
    }
    let output = cluster.run(&["agent", "gone", "S0"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("is given up; it had 0 tasks\n"), "{}", stderr(&output));
}
