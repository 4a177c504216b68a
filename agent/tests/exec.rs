//! Programs that are run in a running container.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use mezz_agent::{
    containerizer::{Exec, ExecSpec, Program, Stream, WindowSize},
    options::Containment,
};
use mezz_proto::v1::{ContainerInfo, LinuxInfo, container_info};
use support::{Agent, until};
use tokio::io::AsyncWriteExt as _;

const BOTH: [Containment; 2] = [Containment::Cgroup, Containment::None];

fn shell(command: &str) -> ExecSpec {
    ExecSpec {
        program: Program::Shell(command.into()),
        environment: BTreeMap::new(),
        stdin: false,
        terminal: None,
    }
}

/// What it wrote to both, and how it ended.
async fn all(mut exec: Exec) -> (String, String, ExitStatus) {
    drop(exec.stdin);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read = async {
        while let Some((stream, piece)) = exec.output.recv().await {
            match stream {
                Stream::Stdout => out.extend(piece),
                Stream::Stderr => err.extend(piece),
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, read).await.expect("the output ends");
    let ended = tokio::time::timeout(support::PATIENCE, exec.ended).await.expect("it ends");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), ExitStatus::from_raw(ended.unwrap()))
}

#[tokio::test]
async fn a_program_runs_where_the_container_does() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let mut spec = agent.spec("exec sleep 1000");
        spec.user = Some("nobody".into());
        spec.environment.insert("GREETING".into(), "hello".into());
        let sandbox = spec.sandbox.clone();
        let id = agent.start(spec).await;
        let mut exec = shell("echo $GREETING $MORE $(pwd) $(id -u); echo oops >&2; cat; exit 7");
        exec.environment.insert("MORE".into(), "world".into());
        let exec = agent.it.exec(&id, exec).await.unwrap();
        let (out, err, status) = all(exec).await;
        assert_eq!(out, format!("hello world {} 65534\n", sandbox.display()));
        assert_eq!((err.as_str(), status.code()), ("oops\n", Some(7)));
        agent.it.destroy(&id).await.unwrap();
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn it_is_in_the_containers_cgroup() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("exec sleep 1000").await;
    let mut exec =
        agent.it.exec(&id, shell("cat /proc/self/cgroup; exec sleep 1001")).await.unwrap();
    let (_, cgroups) = exec.output.recv().await.unwrap();
    assert!(std::str::from_utf8(&cgroups).unwrap().contains(id.as_str()), "{cgroups:?}");
    until("both are in it", || agent.control_pids(&id) == 2).await;
    assert_eq!(agent.it.processes(&id).await.unwrap().len(), 2);
    agent.it.destroy(&id).await.unwrap();
    assert_eq!(all(exec).await.2.signal(), Some(9), "it ends with its container");
}

#[tokio::test]
async fn it_ends_with_its_container() {
    let agent = Agent::new(Containment::None);
    let id = agent.run("while [ ! -e stop ]; do sleep 0.01; done").await;
    let exec = agent.it.exec(&id, shell("setsid sleep 1001 & exec sleep 1002")).await.unwrap();
    agent.touch(&id, "stop");
    agent.wait(&id).await;
    assert_eq!(all(exec).await.2.signal(), Some(9));
}

#[tokio::test]
async fn input_is_passed_and_ended() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("exec sleep 1000").await;
    let mut exec = agent.it.exec(&id, ExecSpec { stdin: true, ..shell("cat") }).await.unwrap();
    // More than fits into what is between.
    let sent = vec![b'x'; 1 << 20];
    let mut stdin = exec.stdin.take().expect("it was asked for");
    let bytes = sent.clone();
    let writer = tokio::spawn(async move { stdin.write_all(&bytes).await.unwrap() });
    let (out, _, status) = all(exec).await;
    writer.await.unwrap();
    assert_eq!((out.len(), status.code()), (sent.len(), Some(0)));
}

#[tokio::test]
async fn a_slow_reader_makes_the_program_wait() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("exec sleep 1000").await;
    let command =
        "i=0; while [ $i -lt 64 ]; do echo $i >&2; head -c 65536 /dev/zero; i=$((i+1)); done";
    let exec = agent.it.exec(&id, shell(&format!("({command}) 2> progress"))).await.unwrap();
    let progress = || agent.output(&id, "progress").lines().count();
    until("it writes", || agent.sandbox(&id).join("progress").exists() && progress() > 0).await;
    let mut last = 0;
    until("it stands still", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = progress();
        std::mem::replace(&mut last, now) == now
    })
    .await;
    assert!(last < 32, "{last} times 64 KiB are somewhere in between");
    assert_eq!(all(exec).await.0.len(), 64 * 65_536);
}

#[tokio::test]
async fn it_is_killed_with_its_children_when_nobody_wants_it() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("exec sleep 1000").await;
        let hide = "setsid sleep 1001 & echo $! $$; exec sleep 1002";
        let mut exec = agent.it.exec(&id, shell(hide)).await.unwrap();
        let (_, pids) = exec.output.recv().await.unwrap();
        let pids: Vec<i32> = std::str::from_utf8(&pids)
            .unwrap()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert!(pids.iter().all(|pid| support::alive(*pid)));
        drop(exec);
        for pid in pids {
            until("it is dead", || !support::alive(pid)).await;
        }
        assert_eq!(agent.living(&id).len(), 1, "the container goes on");
    }
}

#[tokio::test]
async fn nothing_of_it_outlives_it() {
    for (containment, own_pids) in
        [(Containment::Cgroup, false), (Containment::Cgroup, true), (Containment::None, true)]
    {
        let agent = Agent::new(containment);
        let linux = LinuxInfo { share_pid_namespace: Some(!own_pids), ..Default::default() };
        let mut spec = agent.spec("exec sleep 1000");
        spec.info = Some(Box::new(ContainerInfo {
            r#type: container_info::Type::Mesos.into(),
            linux_info: Some(linux),
            ..Default::default()
        }));
        let id = agent.start(spec).await;
        let before = agent.living(&id).len();
        // Orphans, which keep its output open, and fork.
        let hide = "(setsid sh -c 'while :; do sleep 0.01; done' &); \
                    (sh -c 'trap \"\" TERM HUP; sleep 1000 & sleep 1000' &); sleep 0.1;";
        for terminal in [None, Some(WindowSize { rows: 24, columns: 80 })] {
            // Sooner than output is waited for: nobody holds it. A busy machine may need more.
            let mut tries = 0;
            loop {
                let spec = ExecSpec { terminal, ..shell(&format!("{hide} exit 6")) };
                let exec = agent.it.exec(&id, spec).await.unwrap();
                let begun = std::time::Instant::now();
                assert_eq!(all(exec).await.2.code(), Some(6), "{containment:?} {own_pids}");
                assert_eq!(agent.living(&id).len(), before, "{containment:?} {own_pids}");
                if begun.elapsed() < std::time::Duration::from_secs(5) {
                    break;
                }
                tries += 1;
                assert!(tries < 3, "{containment:?} {own_pids}");
            }
        }
        // And so when nobody wants it any more.
        let mut exec = agent.it.exec(&id, shell(&format!("{hide} echo x; exec sleep 1000"))).await;
        exec.as_mut().unwrap().output.recv().await.unwrap();
        drop(exec);
        if containment == Containment::Cgroup {
            until("it has gone", || agent.control_pids(&id) == before).await;
        }
        agent.it.destroy(&id).await.unwrap();
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn output_that_somebody_else_holds_is_not_waited_for_for_ever() {
    let agent = Agent::new(Containment::Cgroup);
    let take = "while [ ! -s pid ]; do sleep 0.01; done; exec 7>/proc/$(cat pid)/fd/1; \
                touch taken; exec sleep 1000";
    let id = agent.run(take).await;
    let give = "echo hello; echo $$ > pid.new; mv pid.new pid; \
                while [ ! -e taken ]; do sleep 0.01; done; exit 3";
    let (out, _, status) = all(agent.it.exec(&id, shell(give)).await.unwrap()).await;
    assert_eq!((out.as_str(), status.code()), ("hello\n", Some(3)));
    agent.it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn a_terminal_is_one() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("exec sleep 1000");
    spec.user = Some("nobody".into());
    let id = agent.start(spec).await;
    // The size is set by another task than the one that writes.
    let command = "tty; stty size; read line; echo \"got $line\"; n=0; \
                   until [ \"$(stty size)\" = '50 132' ] || [ $n = 300 ]; do \
                   n=$((n + 1)); sleep 0.1; done; \
                   stty size; echo x > /dev/tty; ps -o tty= -p $$; exit 3";
    let size = WindowSize { rows: 24, columns: 80 };
    let spec = ExecSpec { stdin: true, terminal: Some(size), ..shell(command) };
    let mut exec = agent.it.exec(&id, spec).await.unwrap();
    let mut text = String::new();
    while !text.contains("24 80") {
        let (stream, piece) = exec.output.recv().await.expect("more");
        assert_eq!(stream, Stream::Stdout);
        text += std::str::from_utf8(&piece).unwrap();
    }
    exec.resize.send(WindowSize { rows: 50, columns: 132 }).await.unwrap();
    exec.stdin.as_mut().unwrap().write_all(b"a line\n").await.unwrap();
    let (rest, _, status) = all(exec).await;
    text += &rest;
    assert!(text.starts_with("/dev/pts/"), "{text}");
    assert!(text.contains("got a line\r\n50 132\r\nx\r\n"), "{text}");
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("while [ ! -e stop ]; do sleep 0.01; done").await;
    let why = async |program: Program| {
        let spec = ExecSpec { program, ..shell("") };
        let error = agent.it.exec(&id, spec).await.err().expect("it fails");
        std::error::Error::source(&error).unwrap().to_string()
    };
    let missing = Program::Exec { path: "/no/such".into(), argv: vec![] };
    assert_eq!(why(missing).await, "no such program `/no/such`: No such file or directory");
    agent.touch(&id, "stop");
    agent.wait(&id).await;
    assert_eq!(why(Program::Shell("true".into())).await, "it has ended");
}

#[tokio::test]
async fn a_recovered_container_can_be_entered() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("exec sleep 1000").await;
    let agent = agent.restart();
    agent.it.recover(vec![id.clone()]).await.unwrap();
    let exec = agent.it.exec(&id, shell("echo here")).await.unwrap();
    assert_eq!(all(exec).await.0, "here\n");
}
