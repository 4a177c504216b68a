//! From a container's start to its end.

use std::time::{Duration, Instant};

use mezz_agent::containerizer::{Addressee, ContainerError, OutOfMemory, Program};
use mezz_proto::resources::Resources;
use nix::libc::{SIGKILL, SIGTERM};

use crate::{
    fixture::{Docker, docker, name, status},
    support::until,
};
use std::os::unix::process::ExitStatusExt as _;

#[tokio::test]
async fn output_goes_to_the_sandbox_and_the_status_comes_back() {
    let docker = Docker::new();
    let id = docker.run("echo out; echo err >&2; printf 'no end'; exit 7").await;
    let end = docker.agent().wait(&id).await;
    assert_eq!(status(&end).code(), Some(7));
    assert_eq!(end.out_of_memory, None);
    assert_eq!(docker.agent().output(&id, "stdout"), "out\nno end");
    assert_eq!(docker.agent().output(&id, "stderr"), "err\n");
    assert_eq!(docker.agent().wait(&id).await, end, "a second wait answers the same");
    assert_eq!(docker.all(), name(&id));
    docker.agent().it.remove(&id).await.unwrap();
    assert_eq!(docker.all(), "");
    assert!(!docker.agent().options.work_dir.join("docker").join(id.as_str()).exists());
    assert!(matches!(docker.agent().it.wait(&id).await, Err(ContainerError::Unknown(_))));
}

#[tokio::test]
async fn output_comes_while_it_runs_and_binary_stays_as_it_is() {
    let docker = Docker::new();
    let id = docker.run("printf 'a\\377\\0b\\n'; echo ready; read x </dev/zero; sleep 1000").await;
    docker.says(&id, "ready").await;
    docker.agent().it.destroy(&id).await.unwrap();
    let said = std::fs::read(docker.agent().sandbox(&id).join("stdout")).unwrap();
    assert_eq!(said, b"a\xff\0b\nready\n");
}

#[tokio::test]
async fn much_output_is_complete() {
    let docker = Docker::new();
    // More than the engine keeps in one file, unless told to.
    let id = docker
        .run("awk 'BEGIN { for (i = 1; i <= 60000; i++) printf \"%d %0500d\\n\", i, 0 }'")
        .await;
    let end = tokio::time::timeout(Duration::from_secs(60), docker.agent().it.wait(&id)).await;
    assert_eq!(status(&end.unwrap().unwrap()).code(), Some(0));
    let said = docker.agent().output(&id, "stdout");
    let mut expected = 0;
    for line in said.lines() {
        expected += 1;
        assert_eq!(line.len(), 501 + expected.to_string().len());
        assert!(line.starts_with(&format!("{expected} 0")), "{line} and not {expected}");
    }
    assert_eq!(expected, 60_000);
}

#[tokio::test]
async fn a_lack_of_memory_is_told_apart() {
    let docker = Docker::new();
    let id = docker.run("echo x >&2; tail /dev/zero").await;
    let end = docker.agent().wait(&id).await;
    let limit = 32 << 20;
    let expected = OutOfMemory { limit_bytes: limit, peak_bytes: limit };
    assert_eq!(end.out_of_memory, Some(expected), "{end:?}");
    let id = docker.run("kill -9 $(echo $PPID) 2>/dev/null; exit 137").await;
    assert_eq!(docker.agent().wait(&id).await.out_of_memory, None);
}

#[tokio::test]
async fn a_signal_ends_it_and_is_told() {
    let docker = Docker::new();
    let id = docker
        .run("trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    docker.says(&id, "ready").await;
    docker.agent().it.signal(&id, SIGTERM, Addressee::Tree).await.unwrap();
    assert_eq!(status(&docker.agent().wait(&id).await).code(), Some(5));
    assert_eq!(docker.agent().output(&id, "stdout"), "ready\ngot it\n");
    docker.agent().it.signal(&id, SIGTERM, Addressee::Tree).await.expect("too late is no error");
    docker.agent().it.destroy(&id).await.expect("too late is no error");

    let id = docker.run("echo ready; while :; do sleep 0.05; done").await;
    docker.says(&id, "ready").await;
    docker.agent().it.signal(&id, SIGKILL, Addressee::Tree).await.unwrap();
    assert_eq!(status(&docker.agent().wait(&id).await).signal(), Some(SIGKILL));
}

#[tokio::test]
async fn the_image_may_say_by_which_signal_it_stops() {
    let docker = Docker::new();
    let mut spec =
        docker.spec("trap 'echo usr1; exit 0' USR1; echo ready; while :; do sleep 0.05; done");
    super::inside::parameter(&mut spec, "stop-signal", "SIGUSR1");
    let id = docker.agent().start(spec).await;
    docker.says(&id, "ready").await;
    docker.agent().it.signal(&id, SIGTERM, Addressee::Tree).await.unwrap();
    assert_eq!(status(&docker.agent().wait(&id).await).code(), Some(0));
    assert_eq!(docker.agent().output(&id, "stdout"), "ready\nusr1\n");
}

#[tokio::test]
async fn destroying_kills_what_ignores_every_signal() {
    let docker = Docker::new();
    let id =
        docker.run("trap '' TERM; (trap '' TERM; sleep 1000) & echo ready; sleep 1000; true").await;
    docker.says(&id, "ready").await;
    let pids = docker.agent().it.processes(&id).await.unwrap();
    assert_eq!(pids.len(), 3, "the shell and two sleeps: {pids:?}");
    docker.agent().it.destroy(&id).await.unwrap();
    assert_eq!(status(&docker.agent().wait(&id).await).signal(), Some(SIGKILL));
    until("all are gone", || !pids.iter().any(|pid| crate::support::alive(*pid))).await;
    assert!(docker.agent().it.processes(&id).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_somebody_else_removes_has_ended_nobody_knows_how() {
    let d = Docker::new();
    let id = d.run("echo ready; sleep 1000").await;
    d.says(&id, "ready").await;
    docker(&["rm", "-f", &name(&id)]);
    let end = d.agent().wait(&id).await;
    assert_eq!((&end.failure, end.out_of_memory), (&None, None));
    // The kill may be seen before the removal.
    assert!([None, Some(SIGKILL)].contains(&end.wait_status), "{end:?}");
    d.agent().it.remove(&id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let docker = Docker::new();
    let mut spec = docker.spec("");
    spec.program = Program::Exec { path: "/no/such/program".into(), argv: vec![] };
    let error = docker.refused(spec).await;
    assert!(error.contains("/no/such/program") && error.contains("no such file"), "{error}");
    let mut spec = docker.spec("");
    spec.program = Program::Exec { path: "/etc/passwd".into(), argv: vec![] };
    let error = docker.refused(spec).await;
    assert!(error.contains("permission denied"), "{error}");
    let spec = docker.spec_with("true", |info| {
        info.volumes.push(super::inside::volume("/there", Some("/no/such/folder")));
    });
    let error = docker.refused(spec).await;
    assert!(error.contains("/no/such/folder"), "{error}");
    assert_eq!(docker.all(), "");
}

#[tokio::test]
async fn many_start_at_once() {
    let docker = Docker::new();
    let ids: Vec<_> = (0..8).map(|n| docker.spec(&format!("echo {n}"))).collect();
    let started = Instant::now();
    let all = ids.into_iter().map(|spec| docker.agent().start(spec));
    let ids = futures_util::future::join_all(all).await;
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(status(&docker.agent().wait(id).await).code(), Some(0));
        assert_eq!(docker.agent().output(id, "stdout"), format!("{n}\n"));
    }
    println!("8 containers in {:?}", started.elapsed());
}

#[tokio::test]
async fn bounds_are_the_engines_and_change() {
    let docker = Docker::new();
    let mut spec = docker.spec("echo ready; sleep 1000; true");
    spec.resources = Resources::cpus_mem(0.5, 64.0);
    spec.limits = [("cpus".to_owned(), 1.0), ("mem".to_owned(), 128.0)].into();
    let id = docker.agent().start(spec).await;
    let template = "{{.HostConfig.CpuShares}} {{.HostConfig.CpuQuota}} {{.HostConfig.Memory}} \
                    {{.HostConfig.MemoryReservation}} {{.HostConfig.PidsLimit}}";
    assert_eq!(docker.inspect(&id, template), "512 100000 134217728 67108864 16384");
    docker.says(&id, "ready").await;
    let limits = [("mem".to_owned(), 256.0)].into();
    docker.agent().it.update(&id, Resources::cpus_mem(1.0, 96.0), limits).await.unwrap();
    let bounds = docker.inspect(&id, template);
    assert!(bounds.starts_with("1024 -1 268435456 100663296"), "{bounds}");
    let limits = [("mem".to_owned(), f64::INFINITY)].into();
    docker.agent().it.update(&id, Resources::cpus_mem(1.0, 96.0), limits).await.unwrap();

    let used = docker.agent().it.statistics(&id).await.unwrap();
    assert!(used.cpus_user_secs.is_some() && used.cpus_system_secs.is_some(), "{used:?}");
    assert!(used.mem_rss_bytes.is_some_and(|b| b < 64 << 20), "{used:?}");
    assert!(used.mem_limit_bytes.is_some_and(|b| b > 256 << 20), "{used:?}");
    assert_eq!(used.pids, Some(2));
    docker.agent().it.destroy(&id).await.unwrap();
    assert_eq!(docker.agent().it.statistics(&id).await.unwrap().pids, None);
}
