//! An agent that comes back.

use std::{fs, time::Duration};

use mezz_proto::ids::ContainerId;
use nix::libc::SIGKILL;
use std::os::unix::process::ExitStatusExt as _;

use crate::{
    engine::OwnEngine,
    fixture::{Docker, docker, label, name, status},
    support::until,
};

#[tokio::test]
async fn what_runs_and_what_ended_meanwhile_are_found_again() {
    let mut d = Docker::new();
    let count =
        "n=0; while [ $n -lt 200 ]; do n=$((n+1)); echo $n; echo e$n >&2; sleep 0.01; done; exit 3";
    let ends = d.run(count).await;
    let stays = d.run("echo before; while [ ! -e /mnt/mesos/sandbox/go ]; do sleep 0.02; done; echo after; sleep 1000").await;
    d.says(&ends, "50\n").await;
    d.says(&stays, "before").await;
    d.restart();
    let recovery = d.recover(&[&ends, &stays, &ContainerId::new("never")]).await;
    let found = |id: &str| recovery.known[&ContainerId::new(id)];
    assert!(found(ends.as_str()) && found(stays.as_str()) && !found("never"), "{recovery:?}");
    // Once more in the middle of it.
    d.says(&ends, "100\n").await;
    d.restart();
    d.recover(&[&ends, &stays]).await;
    assert_eq!(status(&d.agent().wait(&ends).await).code(), Some(3));
    let numbers = |prefix| (1..=200).map(|n| format!("{prefix}{n}\n")).collect::<String>();
    assert_eq!(d.agent().output(&ends, "stdout"), numbers(""), "each line once");
    assert_eq!(d.agent().output(&ends, "stderr"), numbers("e"), "each line once");
    d.agent().touch(&stays, "go");
    d.says(&stays, "after").await;
    assert_eq!(d.agent().output(&stays, "stdout"), "before\nafter\n");
    d.agent().it.destroy(&stays).await.unwrap();
    assert_eq!(status(&d.agent().wait(&stays).await).signal(), Some(SIGKILL));
    for id in [&ends, &stays] {
        d.agent().it.remove(id).await.unwrap();
    }
    assert_eq!(d.all(), "");
}

#[tokio::test]
async fn an_end_while_no_agent_ran_is_told_with_all_output() {
    let mut d = Docker::new();
    let id = d.run("echo ready; while [ ! -e /mnt/mesos/sandbox/go ]; do sleep 0.02; done; seq 1 1000; exit 9").await;
    d.says(&id, "ready").await;
    d.stop();
    d.agent().touch(&id, "go");
    until("it has ended", || {
        docker(&["inspect", "-f", "{{.State.Status}}", &name(&id)]) == "exited"
    })
    .await;
    d.start();
    assert!(d.recover(&[&id]).await.known[&id]);
    assert_eq!(status(&d.agent().wait(&id).await).code(), Some(9));
    let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(d.agent().output(&id, "stdout"), format!("ready\n{expected}"));
}

#[tokio::test]
async fn strangers_are_ended_and_those_of_other_agents_are_not() {
    let mut d = Docker::new();
    let other = Docker::new();
    let theirs = other.run("sleep 1000").await;
    let known = d.run("sleep 1000").await;
    let stranger = d.run("trap '' TERM; sleep 1000").await;
    d.restart();
    let recovery = d.recover(&[&known]).await;
    assert!(recovery.known[&known] && recovery.unended.is_empty(), "{recovery:?}");
    assert_eq!(d.all(), name(&known), "{} is ended", name(&stranger));
    assert_eq!(other.inspect(&theirs, "{{.State.Running}}"), "true");
    assert!(!d.agent().options.work_dir.join("docker").join(stranger.as_str()).exists());
}

#[tokio::test]
async fn what_was_made_and_not_started_never_will_be() {
    let mut d = Docker::new();
    let id = d.run("sleep 1000").await;
    let work_dir = fs::canonicalize(&d.agent().options.work_dir).unwrap();
    // As an agent leaves it that dies between two calls.
    let made = ContainerId::new(format!("made-{}", std::process::id()));
    let agent = label(&work_dir).unwrap();
    docker(&[
        "create",
        "--name",
        &name(&made),
        "-l",
        &agent,
        "-l",
        &format!("dev.mezz.container={made}"),
        &super::fixture::image(),
    ]);
    fs::write(work_dir.join("docker").join(made.as_str()), "").unwrap();
    d.restart();
    let recovery = d.recover(&[&id, &made]).await;
    assert_eq!((recovery.known[&id], recovery.known[&made]), (true, false));
    assert_eq!(d.all(), name(&id));
    assert!(!work_dir.join("docker").join(made.as_str()).exists());
}

#[tokio::test]
async fn what_was_removed_while_no_agent_ran_has_ended() {
    let mut d = Docker::new();
    let id = d.run("echo ready; sleep 1000").await;
    d.says(&id, "ready").await;
    d.stop();
    docker(&["rm", "-f", &name(&id)]);
    d.start();
    assert!(d.recover(&[&id]).await.known[&id], "it did start");
    let end = d.agent().wait(&id).await;
    assert_eq!((end.wait_status, end.failure), (None, None));
}

#[tokio::test]
async fn two_agents_with_a_path_of_the_same_name_leave_each_other_alone() {
    // As in two machines' or containers' own views: a folder is moved aside, and another
    // agent has one by the same path.
    let mut d = Docker::new();
    let theirs = d.run("sleep 1000").await;
    d.stop();
    let work_dir = d.agent().options.work_dir.clone();
    let aside = work_dir.with_file_name("aside");
    fs::rename(&work_dir, &aside).unwrap();
    d.start();
    let own = d.run("sleep 1000").await;
    d.restart();
    let recovery = d.recover(&[&own]).await;
    assert!(recovery.known[&own] && recovery.unended.is_empty(), "{recovery:?}");
    assert_eq!(d.inspect(&theirs, "{{.State.Running}}"), "true");
    assert!(d.all().contains(&name(&theirs)), "under the first one's label");
    d.agent().it.destroy(&own).await.unwrap();
    d.agent().it.remove(&own).await.unwrap();
}

#[tokio::test]
async fn what_runs_in_an_engine_is_not_left_behind_for_another_or_none() {
    let other = OwnEngine::start(&[]);
    let mut d = Docker::new();
    let id = d.run("echo ready; sleep 1000").await;
    d.says(&id, "ready").await;

    d.stop();
    let error = d.refuses_to_start(&[&id]).await;
    let advice = format!("remove {}", d.agent().options.work_dir.join("docker").display());
    assert!(error.contains("started without one (--docker)"), "{error}");
    assert!(error.contains(&advice), "{error}");

    d.start_at(&other.address());
    let error = d.refuses_to_start(&[&id]).await;
    assert!(error.contains("is not the one that was used before: its id is"), "{error}");
    assert!(error.contains(&advice) && error.contains(&other.address()), "{error}");
    until("it is an ability's problem", || {
        d.ability().problem.is_some_and(|why| why.contains(&advice))
    })
    .await;

    d.start();
    assert!(d.recover(&[&id]).await.known[&id], "it is still there");
    d.agent().it.destroy(&id).await.unwrap();
    d.agent().it.remove(&id).await.unwrap();
    d.start_at(&other.address());
    assert_eq!(d.recover(&[]).await, Default::default(), "now it may go elsewhere");
    d.start();
}

#[tokio::test]
async fn an_engine_in_the_place_of_another_does_not_tell_the_ends_of_its_containers() {
    let mut engine = OwnEngine::start(&["--live-restore"]);
    let d = Docker::at(&engine.address());
    let id = d.run("echo ready; sleep 1000").await;
    d.says(&id, "ready").await;
    engine.end(nix::sys::signal::Signal::SIGKILL);
    engine.come_back_as_another();
    until("it is recognised", || {
        d.ability().problem.is_some_and(|why| why.contains("is not the one that was used before"))
    })
    .await;
    let error = d.refused(d.spec("true")).await;
    assert!(error.contains("is not the one that was used before"), "{error}");
    let early = tokio::time::timeout(Duration::from_millis(500), d.agent().it.wait(&id)).await;
    assert!(early.is_err(), "nobody knows: {early:?}");
    engine.end(nix::sys::signal::Signal::SIGTERM);
    engine.come_back_as_itself();
    d.agent().it.destroy(&id).await.unwrap();
    assert_eq!(status(&d.agent().wait(&id).await).signal(), Some(SIGKILL));
}
