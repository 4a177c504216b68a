//! Containers on the real kernel: with the machine's cgroups (v1 or v2, as root) and
//! without. The tests fail where cgroups cannot be used; they are of no use then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        process::ExitStatusExt as _,
    },
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use mezz_agent::{
    containerizer::{Addressee, ContainerError, Program, Termination},
    options::Containment,
};
use mezz_proto::{ids::ContainerId, resources::Resources};
use support::{Agent, SmallDisk, until};

const BOTH: [Containment; 2] = [Containment::Cgroup, Containment::None];

fn status(termination: &Termination) -> ExitStatus {
    assert_eq!(termination.failure, None);
    ExitStatus::from_raw(termination.wait_status.expect("a status"))
}

#[tokio::test]
async fn output_goes_to_the_sandbox_and_the_status_comes_back() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("echo out; echo err >&2; exit 7").await;
        let end = agent.wait(&id).await;
        assert_eq!(status(&end).code(), Some(7));
        assert_eq!(end.out_of_memory, None);
        assert_eq!(agent.output(&id, "stdout"), "out\n");
        assert_eq!(agent.output(&id, "stderr"), "err\n");
        assert_eq!(agent.wait(&id).await, end, "a second wait answers the same");
        agent.remove(&id).await;
        assert!(matches!(agent.it.wait(&id).await, Err(ContainerError::Unknown(_))));
    }
}

#[tokio::test]
async fn output_is_appended() {
    let agent = Agent::new(Containment::None);
    let spec = agent.spec("echo second");
    fs::write(spec.sandbox.join("stdout"), "first\n").unwrap();
    let id = agent.start(spec).await;
    agent.wait(&id).await;
    assert_eq!(agent.output(&id, "stdout"), "first\nsecond\n");
}

#[tokio::test]
async fn a_signal_ends_it_and_is_told() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("trap '' TERM; echo ready; while :; do sleep 0.01; done").await;
        until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
        agent.it.signal(&id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
        agent.it.signal(&id, nix::libc::SIGKILL, Addressee::Tree).await.unwrap();
        assert_eq!(status(&agent.wait(&id).await).signal(), Some(nix::libc::SIGKILL));
        agent
            .it
            .signal(&id, nix::libc::SIGTERM, Addressee::Tree)
            .await
            .expect("too late is no error");
    }
}

#[tokio::test]
async fn a_signal_reaches_descendants() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let inner = "trap \"echo got it; exit 5\" TERM; echo ready; while :; do sleep 0.01; done";
        let id = agent.run(&format!("trap : TERM; sh -c '{inner}'; exit $?")).await;
        until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
        agent.it.signal(&id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
        assert_eq!(status(&agent.wait(&id).await).code(), Some(5));
        assert_eq!(agent.output(&id, "stdout"), "ready\ngot it\n");
    }
}

/// Its children go on until it ends, also when it is found again, and have nobody to tell
/// them apart from it but their parent.
#[tokio::test]
async fn a_signal_to_the_first_process_alone_reaches_no_other() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let inner = "trap \"echo wrong\" TERM; echo ready; while [ ! -e go ]; do sleep 0.01; done; echo well";
        let outer = format!("trap 'echo got it' TERM; sh -c '{inner}' & wait; wait; exit 4");
        let id = agent.run(&outer).await;
        until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
        let agent = agent.restart();
        agent.it.recover(vec![id.clone()]).await.unwrap();
        agent.it.signal(&id, nix::libc::SIGTERM, Addressee::FirstProcess).await.unwrap();
        until("it is told", || agent.output(&id, "stdout") == "ready\ngot it\n").await;
        fs::write(agent.sandbox(&id).join("go"), "").unwrap();
        assert_eq!(status(&agent.wait(&id).await).code(), Some(4));
        assert_eq!(agent.output(&id, "stdout"), "ready\ngot it\nwell\n");
        let late = agent.it.signal(&id, nix::libc::SIGTERM, Addressee::FirstProcess).await;
        late.expect("too late is no error");
    }
}

#[tokio::test]
async fn real_time_signals_are_told_too() {
    let agent = Agent::new(Containment::None);
    let id = agent.run("kill -40 $$").await;
    assert_eq!(status(&agent.wait(&id).await).signal(), Some(40));
}

#[tokio::test]
async fn a_program_starts_with_a_clean_slate() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("");
    let show =
        "env | sort; grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd; pwd; ulimit -c";
    spec.program = Program::Exec {
        path: "sh".into(),
        argv: ["bash-like", "-c", show].map(String::from).into(),
    };
    spec.environment.insert("GREETING".into(), "hello world".into());
    let sandbox = spec.sandbox.clone();
    let id = agent.start(spec).await;
    assert_eq!(status(&agent.wait(&id).await).code(), Some(0));
    // glibc's posix_spawn leaves its own two signals, 32 and 33, ignored.
    let text = agent
        .output(&id, "stdout")
        .replace("SigIgn:\t0000000180000000", "SigIgn:\t0000000000000000");
    let expected = format!(
        "GREETING=hello world\nPATH={}\nPWD={}\n\
         SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n{}\n0\n",
        support::PATH,
        sandbox.display(),
        sandbox.display()
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let agent = Agent::new(Containment::Cgroup);
    let cases: [(&str, &[u8], u32, &str); 5] = [
        (
            "no-such-program",
            b"",
            0,
            "no such program `no-such-program`: it is in no directory of PATH",
        ),
        ("./absent", b"", 0, "no such program `./absent`: No such file or directory"),
        ("./plain", b"#!/bin/sh\n", 0o644, "cannot run `./plain`: Permission denied"),
        ("./orphan", b"#!/no/shell\n", 0o755, "the interpreter that it names does not exist"),
        ("./noise", b"\x01\x02\x03", 0o755, "neither a program for this machine nor a script"),
    ];
    for (path, content, mode, expected) in cases {
        let mut spec = agent.spec("");
        spec.program = Program::Exec { path: path.into(), argv: vec![] };
        if mode != 0 {
            support::write_with_mode(&spec.sandbox.join(path), content, mode);
        }
        let id = agent.start(spec).await;
        let end = agent.wait(&id).await;
        assert_eq!(end.wait_status, None);
        let failure = end.failure.expect("a failure");
        assert!(failure.contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn bad_values_in_a_plan_say_which() {
    let agent = Agent::new(Containment::None);
    let mut spec = agent.spec("true");
    spec.environment.insert("BAD".into(), "nul\0".into());
    let id = agent.start(spec).await;
    let failure = agent.wait(&id).await.failure.expect("a failure");
    assert_eq!(failure, "the environment variable BAD holds a NUL byte");

    let mut spec = agent.spec("true");
    spec.sandbox = "/no/such/sandbox".into();
    let id = agent.start(spec).await;
    let failure = agent.wait(&id).await.failure.expect("a failure");
    assert_eq!(failure, "cannot enter the directory /no/such/sandbox: No such file or directory");
}

#[tokio::test]
async fn a_planted_link_is_not_followed() {
    let agent = Agent::new(Containment::None);
    let spec = agent.spec("echo pwned");
    let target = agent.dir.path().join("victim");
    fs::write(&target, "safe").unwrap();
    symlink(&target, spec.sandbox.join("stdout")).unwrap();
    let id = agent.start(spec).await;
    let failure = agent.wait(&id).await.failure.expect("a failure");
    assert!(failure.contains("/stdout: "), "{failure}");
    assert_eq!(fs::read_to_string(target).unwrap(), "safe");
}

#[tokio::test]
async fn it_runs_as_its_user() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let mut spec = agent.spec("id -un; id -Gn; touch mine && echo wrote");
        spec.user = Some("nobody".into());
        let sandbox = spec.sandbox.clone();
        let id = agent.start(spec).await;
        assert_eq!(status(&agent.wait(&id).await).code(), Some(0));
        let text = agent.output(&id, "stdout");
        assert!(text.starts_with("nobody\n") && text.ends_with("\nwrote\n"), "{text}");
        assert_eq!(owner(&sandbox.join("stdout")), owner(&sandbox.join("mine")));
        assert_ne!(owner(&sandbox.join("mine")), 0);
    }
}

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().uid()
}

#[tokio::test]
async fn the_sandbox_is_given_to_its_user_with_all_in_it_and_nothing_else() {
    let agent = Agent::new(Containment::None);
    let mut spec = agent.spec("test -O deep/er/file && echo new > deep/er/file && echo done");
    spec.user = Some("nobody".into());
    let sandbox = spec.sandbox.clone();
    let outside = agent.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    fs::create_dir_all(sandbox.join("deep/er")).unwrap();
    fs::write(sandbox.join("deep/er/file"), "").unwrap();
    symlink(outside.join("victim"), sandbox.join("deep/link")).unwrap();
    symlink(&outside, sandbox.join("folder")).unwrap();
    let id = agent.start(spec).await;
    assert_eq!(status(&agent.wait(&id).await).code(), Some(0));
    assert_eq!(agent.output(&id, "stdout"), "done\n");
    for name in ["", "deep", "deep/er", "deep/er/file", "deep/link", "folder", "stdout"] {
        assert_ne!(owner(&sandbox.join(name)), 0, "{name}");
    }
    assert_eq!((owner(&outside), owner(&outside.join("victim"))), (0, 0));
}

/// A hard link is no link that could be refused; the user's own rights are what counts.
#[tokio::test]
async fn logs_are_opened_with_the_rights_of_the_user() {
    let agent = Agent::new(Containment::None);
    let mut spec = agent.spec("echo pwned");
    spec.user = Some("nobody".into());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    nix::unistd::chown(&spec.sandbox, Some(nobody.uid), Some(nobody.gid)).unwrap();
    let victim = agent.dir.path().join("victim");
    support::write_with_mode(&victim, b"safe", 0o600);
    fs::hard_link(&victim, spec.sandbox.join("stdout")).unwrap();
    let id = agent.start(spec).await;
    let failure = agent.wait(&id).await.failure.expect("a failure");
    assert!(failure.contains("/stdout: Permission denied"), "{failure}");
    assert_eq!((owner(&victim), fs::read_to_string(&victim).unwrap()), (0, "safe".into()));
}

#[tokio::test]
async fn a_task_that_fills_the_disk_still_tells_its_status() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let _disk = SmallDisk::at(&agent.options.work_dir);
        let agent = agent.restart();
        let mut spec = agent.spec("cat /dev/zero > filling 2> /dev/null; exit 7");
        spec.sandbox = agent.options.work_dir.join("sandbox");
        fs::create_dir(&spec.sandbox).unwrap();
        let id = agent.start(spec).await;
        assert_eq!(status(&agent.wait(&id).await).code(), Some(7));
        agent.remove(&id).await;
        drop(agent);
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_launch_before_anything_runs() {
    let agent = Agent::new(Containment::None);
    let disk = SmallDisk::at(&agent.options.work_dir);
    let agent = agent.restart();
    disk.fill();
    let spec = agent.spec("touch ran");
    let (id, sandbox) = (spec.id.clone(), spec.sandbox.clone());
    let error = agent.it.launch(spec).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("No space left on device"), "{source}");
    assert!(!sandbox.join("ran").exists());
    agent.assert_nothing_left(&id);
    drop(agent);
}

#[tokio::test]
async fn an_unknown_user_fails_the_launch_and_leaves_nothing() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("true");
    spec.user = Some("nobody-of-that-name".into());
    let id = spec.id.clone();
    let error = agent.it.launch(spec).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("container {id} could not be started: looking up its user")
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "this machine has no user `nobody-of-that-name`");
    agent.assert_nothing_left(&id);
}

#[tokio::test]
async fn a_missing_launcher_fails_the_launch_and_leaves_nothing() {
    let mut options = support::options(Containment::Cgroup);
    options.1.launcher.program = "/no/launcher".into();
    let agent = Agent::with(options);
    let spec = agent.spec("true");
    let id = spec.id.clone();
    let error = agent.it.launch(spec).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("cannot run /no/launcher: No such file"), "{source}");
    agent.assert_nothing_left(&id);
    assert!(matches!(agent.it.wait(&id).await, Err(ContainerError::Unknown(_))));
}

#[tokio::test]
async fn a_launcher_that_refuses_is_quoted() {
    let mut options = support::options(Containment::None);
    options.1.launcher.args = vec!["surplus".into()];
    let agent = Agent::with(options);
    let error = agent.it.launch(agent.spec("true")).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("usage: launch <plan>"), "{source}");
}

#[tokio::test]
async fn ids_that_lead_elsewhere_or_are_taken_are_refused() {
    let agent = Agent::new(Containment::Cgroup);
    for bad in ["../x", "a/b", "", ".."] {
        let mut spec = agent.spec("true");
        spec.id = ContainerId::new(bad);
        assert!(matches!(agent.it.launch(spec).await, Err(ContainerError::Launch { .. })), "{bad}");
    }
    let id = agent.run("sleep 100").await;
    let mut again = agent.spec("true");
    again.id = id.clone();
    assert!(matches!(agent.it.launch(again).await, Err(ContainerError::Launch { .. })));
    agent.it.destroy(&id).await.unwrap();
    assert_eq!(status(&agent.wait(&id).await).signal(), Some(9), "the first was left alone");
}

/// Forks that hide: in sessions of their own, orphaned, deaf to SIGTERM.
const TREE: &str = "
    setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & wait' &
    (setsid setsid sleep 1001 &) &
    nohup sh -c 'sleep 1002; :' >/dev/null 2>&1 &
    echo $$; while :; do sleep 0.05; done";

#[tokio::test]
async fn destroy_kills_the_whole_tree() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run(TREE).await;
        until("the tree is grown", || agent.living(&id).len() >= 6).await;
        let pids = agent.living(&id);
        agent.it.destroy(&id).await.unwrap();
        assert_eq!(status(&agent.wait(&id).await).signal(), Some(9));
        for pid in pids {
            assert!(!support::alive(pid), "{containment:?}: {pid} lives");
        }
        agent.it.destroy(&id).await.expect("again is no error");
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn when_the_first_process_ends_the_others_do() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let id = agent.run("setsid sleep 1000 & echo $!; sleep 1001 & echo $!; exit 3").await;
        assert_eq!(status(&agent.wait(&id).await).code(), Some(3));
        for pid in agent.output(&id, "stdout").lines() {
            assert!(!support::alive(pid.parse().unwrap()), "{containment:?}: {pid} lives");
        }
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn a_fork_bomb_dies() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent
        .run("i=0; while [ $i -lt 20 ]; do (while :; do (:) & done) & i=$((i+1)); done; wait")
        .await;
    // The loops; how many of their children live at one moment is chance.
    until("it forks", || agent.living(&id).len() > 20).await;
    agent.it.destroy(&id).await.unwrap();
    agent.wait(&id).await;
    agent.remove(&id).await;
}

/// There is one for each container.
#[tokio::test]
async fn a_launcher_is_small() {
    const MOST_KIB: u64 = 2048;
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("exec sleep 1000").await;
    let path = format!("/proc/{}/status", agent.launcher_pid(&id));
    let resident = || {
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    until("it has given back what it does not need", || resident() <= MOST_KIB).await;
    agent.it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn limits_are_in_force() {
    let mut options = support::options(Containment::Cgroup);
    options.1.isolation.pids_limit = 1234;
    let agent = Agent::with(options);
    let mut spec = agent.spec("exec sleep 1000");
    spec.resources = Resources::cpus_mem(0.5, 64.0);
    spec.limits = BTreeMap::from([("cpus".into(), 1.5)]);
    let id = agent.start(spec).await;
    let v1 = agent.it.name() == "cgroup-v1";
    let expected: &[(&str, &str, &str)] = if v1 {
        &[
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "150000"),
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "67108864"),
            ("memory", "memory.memsw.limit_in_bytes", "67108864"),
            ("pids", "pids.max", "1234"),
        ]
    } else {
        &[
            ("", "cpu.weight", "50"),
            ("", "cpu.max", "150000 100000"),
            ("", "memory.max", "67108864"),
            ("", "memory.low", "67108864"),
            ("", "memory.swap.max", "0"),
            ("", "memory.oom.group", "1"),
            ("", "pids.max", "1234"),
        ]
    };
    for (controller, file, value) in expected {
        assert_eq!(agent.control(controller, &id, file), *value, "{file}");
    }

    // Raised, lowered again, and lifted.
    let (hard, none) =
        if v1 { ("memory.limit_in_bytes", "9223372036854771712") } else { ("memory.max", "max") };
    let controller = if v1 { "memory" } else { "" };
    for (mem, limit, expected) in [
        (128.0, None, "134217728"),
        (40.0, None, "41943040"),
        (40.0, Some(f64::INFINITY), none),
        (40.0, Some(80.0), "83886080"),
    ] {
        let limits = limit.map(|l| ("mem".to_owned(), l)).into_iter().collect();
        agent.it.update(&id, Resources::cpus_mem(0.5, mem), limits).await.unwrap();
        assert_eq!(agent.control(controller, &id, hard), expected);
    }
    // The kernel sums up what is resident every two seconds only.
    let counted = async {
        loop {
            let used = agent.it.statistics(&id).await.unwrap();
            if used.mem_rss_bytes.is_some_and(|rss| rss > 0) {
                break used;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let used = tokio::time::timeout(support::PATIENCE, counted).await.expect("it has memory");
    assert_eq!(used.mem_limit_bytes, Some(83_886_080));
    assert_eq!(used.pids, Some(1));
    assert!(used.mem_peak_bytes.is_some_and(|peak| peak > 0), "{used:?}");
    assert!(used.cpus_system_secs.is_some() && used.cpus_user_secs.is_some(), "{used:?}");
    assert_eq!(used.oom_kills, Some(0));
    // Where the kernel counts swap at all.
    assert_eq!(used.mem_swap_bytes.unwrap_or_default(), 0);
    agent.it.destroy(&id).await.unwrap();
    agent.remove(&id).await;
}

#[tokio::test]
async fn a_quota_throttles() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("while :; do :; done");
    spec.limits = BTreeMap::from([("cpus".into(), 0.1)]);
    let id = agent.start(spec).await;
    let end = tokio::time::Instant::now() + support::PATIENCE;
    loop {
        let used = agent.it.statistics(&id).await.unwrap();
        if used.cpus_nr_throttled.is_some_and(|n| n > 0) {
            assert!(used.cpus_nr_periods >= used.cpus_nr_throttled, "{used:?}");
            assert!(used.cpus_throttled_secs.is_some_and(|secs| secs > 0.0), "{used:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < end, "never throttled: {used:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.it.destroy(&id).await.unwrap();
}

/// The limit is one of all processes and threads together.
#[tokio::test]
async fn too_many_processes_are_not_made() {
    let mut options = support::options(Containment::Cgroup);
    options.1.isolation.pids_limit = 5;
    let agent = Agent::with(options);
    let many = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all; wait";
    let id = agent.run(many).await;
    until("it fails", || agent.output(&id, "stderr").to_lowercase().contains("fork")).await;
    assert!(agent.living(&id).len() <= 5);
    agent.it.destroy(&id).await.unwrap();
    agent.remove(&id).await;
}

#[tokio::test]
async fn too_much_memory_is_told_with_limit_and_peak() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("exec tail /dev/zero");
    spec.resources = Resources::cpus_mem(1.0, 48.0);
    let id = agent.start(spec).await;
    let end = agent.wait(&id).await;
    assert_eq!(status(&end).signal(), Some(nix::libc::SIGKILL));
    let oom = end.out_of_memory.expect("out of memory");
    assert_eq!(oom.limit_bytes, 48 << 20);
    assert!(oom.peak_bytes > 40 << 20 && oom.peak_bytes <= oom.limit_bytes, "{oom:?}");
    agent.remove(&id).await;
}

/// The first process would live on: the kernel of cgroup v1 kills only the hog.
#[tokio::test]
async fn one_process_out_of_memory_ends_the_whole_container() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("tail /dev/zero; echo survived; exec sleep 1000");
    spec.resources = Resources::cpus_mem(1.0, 48.0);
    let id = agent.start(spec).await;
    let end = agent.wait(&id).await;
    assert_eq!(status(&end).signal(), Some(nix::libc::SIGKILL));
    assert_eq!(end.out_of_memory.expect("out of memory").limit_bytes, 48 << 20);
    agent.remove(&id).await;
}

#[tokio::test]
async fn success_after_a_kill_for_memory_is_out_of_memory_all_the_same() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = agent.spec("tail /dev/zero; exit 0");
    spec.resources = Resources::cpus_mem(1.0, 48.0);
    let id = agent.start(spec).await;
    assert!(agent.wait(&id).await.out_of_memory.is_some());
    agent.remove(&id).await;
}

#[tokio::test]
async fn a_kill_that_was_not_for_memory_is_not_told_as_such() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("kill -9 $$").await;
    let end = agent.wait(&id).await;
    assert_eq!(status(&end).signal(), Some(9));
    assert_eq!(end.out_of_memory, None);
}

#[tokio::test]
async fn only_an_ended_container_is_removed() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("sleep 1000").await;
    assert!(matches!(agent.it.remove(&id).await, Err(ContainerError::Operation { .. })));
    agent.it.destroy(&id).await.unwrap();
    agent.remove(&id).await;
}

#[tokio::test]
async fn cgroups_need_a_plain_name() {
    let (_dir, mut options) = support::options(Containment::Cgroup);
    options.cgroup_root = "../mezz".into();
    let error = mezz_agent::containerizer::open(&options).err().expect("refused").to_string();
    assert!(error.starts_with("--cgroup-root: `../mezz` is no name for a cgroup"), "{error}");
}
