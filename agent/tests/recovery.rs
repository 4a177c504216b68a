//! An agent restarts; its containers do not care.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{fs, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use mezz_agent::{
    containerizer::{Addressee, Recovery, Termination},
    launcher::{process, record},
    options::Containment,
};
use mezz_proto::ids::ContainerId;
use support::{Agent, SmallDisk, until};

const BOTH: [Containment; 2] = [Containment::Cgroup, Containment::None];

fn status(termination: &Termination) -> ExitStatus {
    ExitStatus::from_raw(termination.wait_status.expect("a status"))
}

#[tokio::test]
async fn running_and_ended_containers_are_found_again() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let running = agent.run("while [ ! -e stop ]; do sleep 0.01; done; echo bye; exit 4").await;
        let ended = agent.run("exit 5").await;
        let ends_meanwhile = agent.run("while [ ! -e stop ]; do sleep 0.01; done; exit 6").await;
        agent.wait(&ended).await;

        let agent = agent.restart();
        agent.touch(&ends_meanwhile, "stop");
        until("it has ended", || agent.exit_is_on_record(&ends_meanwhile)).await;
        let never = ContainerId::new("never-started");
        let known = vec![running.clone(), ended.clone(), ends_meanwhile.clone(), never.clone()];
        let found = agent.it.recover(known).await.unwrap();
        let expected = [(&running, true), (&ended, true), (&ends_meanwhile, true), (&never, false)];
        assert_eq!(found.known, expected.map(|(id, f)| (id.clone(), f)).into());

        assert_eq!(status(&agent.wait(&ended).await).code(), Some(5));
        assert_eq!(status(&agent.wait(&ends_meanwhile).await).code(), Some(6));
        assert!(!agent.living(&running).is_empty());
        agent.touch(&running, "stop");
        assert_eq!(status(&agent.wait(&running).await).code(), Some(4));
        assert_eq!(agent.output(&running, "stdout"), "bye\n");
        for id in [&running, &ended, &ends_meanwhile] {
            agent.remove(id).await;
        }
    }
}

#[tokio::test]
async fn a_recovered_container_is_controlled_like_any_other() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done").await;
        let other = agent.run("setsid sleep 1000 & setsid sleep 1000; :").await;
        until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
        let agent = agent.restart();
        agent.it.recover(vec![id.clone(), other.clone()]).await.unwrap();
        agent.it.signal(&id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
        assert_eq!(status(&agent.wait(&id).await).code(), Some(9));
        let pids = agent.living(&other);
        assert!(!pids.is_empty());
        agent.it.destroy(&other).await.unwrap();
        assert!(pids.into_iter().all(|pid| !support::alive(pid)));
        agent.remove(&other).await;
    }
}

#[test]
fn a_recovered_container_out_of_memory_ends_as_a_whole() {
    let agent = Agent::new(Containment::Cgroup);
    let hog = "while [ ! -e go ]; do sleep 0.01; done; tail /dev/zero; sleep 1000";
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    // With this runtime ends whatever the first agent watches with.
    let (early, late) = runtime().block_on(async { (agent.run(hog).await, agent.run(hog).await) });
    runtime().block_on(async {
        agent.touch(&early, "go");
        until("the kernel kills", || agent.out_of_memory(&early)).await;
        let agent = agent.restart();
        agent.it.recover(vec![late.clone(), early.clone()]).await.unwrap();
        agent.touch(&late, "go");
        for id in [&early, &late] {
            assert!(agent.wait(id).await.out_of_memory.is_some());
            agent.remove(id).await;
        }
    });
}

#[tokio::test]
async fn containers_that_nobody_knows_are_ended_and_removed() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let running = agent.run("setsid sleep 1000 & sleep 1000; :").await;
        let ended = agent.run("true").await;
        agent.wait(&ended).await;
        until("it runs", || agent.living(&running).len() >= 3).await;
        let pids = agent.living(&running);
        let agent = agent.restart();
        assert_eq!(agent.it.recover(vec![]).await.unwrap(), Recovery::default());
        assert!(pids.into_iter().all(|pid| !support::alive(pid)), "{containment:?}");
        agent.assert_nothing_left(&running);
        agent.assert_nothing_left(&ended);
    }
}

#[tokio::test]
async fn a_cgroup_without_records_is_emptied_and_removed() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("sleep 1000").await;
    let pids = agent.living(&id);
    let agent = agent.restart();
    fs::remove_dir_all(agent.runtime(&id)).unwrap();
    let found = agent.it.recover(vec![id.clone()]).await.unwrap();
    assert_eq!(found.known, [(id.clone(), false)].into());
    for pid in pids {
        until("it is dead", || !support::alive(pid)).await;
    }
    agent.assert_nothing_left(&id);
}

#[tokio::test]
async fn a_launch_that_had_not_begun_never_will() {
    let agent = Agent::new(Containment::None);
    let id = agent.run("true").await;
    agent.wait(&id).await;
    let plan = fs::read_to_string(agent.runtime(&id).join("plan.json")).unwrap();

    let late = ContainerId::new("late");
    fs::create_dir(agent.runtime(&late)).unwrap();
    let path = agent.runtime(&late).join("plan.json");
    fs::write(&path, &plan).unwrap();
    mezz_agent::launcher::record::cancel(&agent.runtime(&late)).unwrap();
    let before = agent.output(&id, "stdout");
    let output = support::launcher().arg(&path).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "the launch was cancelled by the agent's recovery\n");
    assert_eq!(agent.output(&id, "stdout"), before);

    let agent = agent.restart();
    let found = agent.it.recover(vec![late.clone()]).await.unwrap();
    assert_eq!(found.known, [(late.clone(), false)].into());
    agent.assert_nothing_left(&late);
}

#[tokio::test]
async fn a_killed_launcher_takes_its_container_with_it() {
    for containment in BOTH {
        for while_agent_is_away in [false, true] {
            let mut agent = Agent::new(containment);
            let id = agent.run("sleep 1000 & echo $!; sleep 1001; :").await;
            until("it runs", || agent.living(&id).len() >= 3).await;
            let pids = agent.living(&id);
            let launcher = agent.launcher_pid(&id);
            if while_agent_is_away {
                agent = agent.restart();
            }
            mezz_agent::launcher::process::send(launcher, 9).unwrap();
            if while_agent_is_away {
                agent.it.recover(vec![id.clone()]).await.unwrap();
            }
            let end = agent.wait(&id).await;
            // It ran: not knowing its status is no failure to start.
            assert_eq!((end.wait_status, end.failure), (None, None));
            for pid in pids {
                until("it is dead", || !support::alive(pid)).await;
            }
            agent.remove(&id).await;
        }
    }
}

#[tokio::test]
async fn a_launcher_ignores_what_stops_agents() {
    let agent = Agent::new(Containment::None);
    let id = agent.run("while [ ! -e stop ]; do sleep 0.01; done; exit 4").await;
    for signal in [nix::libc::SIGTERM, nix::libc::SIGINT, nix::libc::SIGHUP] {
        mezz_agent::launcher::process::send(agent.launcher_pid(&id), signal).unwrap();
    }
    agent.touch(&id, "stop");
    assert_eq!(status(&agent.wait(&id).await).code(), Some(4));
}

#[tokio::test]
async fn a_pid_of_another_start_of_the_machine_means_nothing() {
    let agent = Agent::new(Containment::None);
    let id = agent.run("true").await;
    agent.wait(&id).await;
    let agent = agent.restart();
    // As it would look when the machine went down under it, and some other process
    // (this one) had the launcher's pid and start now.
    let me = mezz_agent::launcher::process::Process::of(std::process::id() as i32).unwrap();
    let record = agent.runtime(&id).join("pid.json");
    let started = mezz_agent::launcher::record::Started {
        v: 1,
        boot_id: "another".into(),
        launcher: me,
        child: me,
    };
    fs::write(&record, serde_json::to_vec(&started).unwrap()).unwrap();
    fs::remove_file(agent.runtime(&id).join("exit.json")).unwrap();
    agent.it.recover(vec![id.clone()]).await.unwrap();
    let end = agent.wait(&id).await;
    assert_eq!((end.wait_status, end.failure), (None, None));
}

#[tokio::test]
async fn a_full_disk_costs_no_container_that_runs() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let disk = SmallDisk::at(&agent.options.work_dir);
        let agent = agent.restart();
        let id = agent.run("while [ ! -e stop ]; do sleep 0.01; done; exit 4").await;
        disk.fill();
        let agent = agent.restart();
        let found = agent.it.recover(vec![id.clone()]).await.unwrap();
        assert_eq!(found.known, [(id.clone(), true)].into());
        agent.touch(&id, "stop");
        assert_eq!(status(&agent.wait(&id).await).code(), Some(4));
        agent.remove(&id).await;
        drop(agent);
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_fails_the_recovery_and_harms_nothing() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("while [ ! -e stop ]; do sleep 0.01; done; exit 4").await;
        // Those that it starts come and go.
        let program = agent.living(&id)[0];
        let (record, aside) =
            (agent.runtime(&id).join("pid.json"), agent.runtime(&id).join("aside"));
        fs::rename(&record, &aside).unwrap();
        fs::create_dir(&record).unwrap();
        let agent = agent.restart();
        let error = agent.it.recover(vec![id.clone()]).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("/pid.json: "), "{source}");
        assert!(support::alive(program), "{containment:?}");

        fs::remove_dir(&record).unwrap();
        fs::rename(&aside, &record).unwrap();
        let found = agent.it.recover(vec![id.clone()]).await.unwrap();
        assert_eq!(found.known, [(id.clone(), true)].into());
        agent.touch(&id, "stop");
        assert_eq!(status(&agent.wait(&id).await).code(), Some(4));
    }
}

#[tokio::test]
async fn a_container_of_a_malformed_record_is_ended_with_its_launcher() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("setsid sleep 1000 & sleep 1001; :").await;
        until("it runs", || agent.living(&id).len() >= 3).await;
        let mut pids = agent.living(&id);
        pids.push(agent.launcher_pid(&id));
        fs::write(agent.runtime(&id).join("pid.json"), "{").unwrap();
        let agent = agent.restart();
        let found = agent.it.recover(vec![id.clone()]).await.unwrap();
        assert_eq!(found, Recovery { known: [(id.clone(), false)].into(), ..Recovery::default() });
        let left: Vec<_> = pids.iter().filter(|pid| support::alive(**pid)).collect();
        for pid in &left {
            process::send(**pid, nix::libc::SIGKILL).unwrap();
        }
        assert!(left.is_empty(), "{containment:?}");
        agent.assert_nothing_left(&id);
    }
}

#[tokio::test]
async fn what_does_not_end_keeps_no_agent_from_starting() {
    let agent = Agent::new(Containment::None);
    let stuck = agent.run("sleep 1000").await;
    let other = agent.run("sleep 1000").await;
    let (launcher, pids) = (agent.launcher_pid(&stuck), agent.living(&stuck));
    process::send(launcher, nix::libc::SIGSTOP).unwrap();
    let agent = agent.restart();
    let found = agent.it.recover(vec![]).await;
    let after = (agent.runtime(&stuck).exists(), agent.runtime(&other).exists());
    process::send(launcher, nix::libc::SIGCONT).unwrap();
    assert_eq!(found.unwrap().unended, [stuck.clone()].into());
    assert_eq!(after, (true, false), "the one does not hold up the other");
    until("it is ended in the background", || !agent.runtime(&stuck).exists()).await;
    assert!(!pids.into_iter().any(support::alive));
    agent.assert_nothing_left(&stuck);
}

#[test]
fn a_slow_launcher_finds_no_moment_to_start() {
    let agent = Agent::new(Containment::None);
    let slow = agent.runtime(&ContainerId::new("slow"));
    fs::create_dir(&slow).unwrap();
    assert_eq!(record::cancel(&slow).unwrap(), record::Beginning::Cancelled);
    // So that removing the folder takes a while.
    for n in 0..2000 {
        fs::write(slow.join(n.to_string()), "").unwrap();
    }
    // The last step of a launcher's record, over and over.
    let (from, to) = (agent.dir.path().join("pid.tmp"), slow.join("pid.json"));
    fs::write(&from, "").unwrap();
    let launcher = std::thread::spawn(move || {
        loop {
            match fs::hard_link(&from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => return other,
            }
        }
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(agent.it.recover(vec![])).unwrap();
    let error = launcher.join().unwrap().expect_err("it was cancelled");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
