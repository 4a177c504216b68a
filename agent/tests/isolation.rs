//! Containers that are kept apart, on the real kernel; needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "isolation/devices.rs"]
mod devices;
#[path = "isolation/images.rs"]
mod images;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use mezz_agent::{
    containerizer::{
        Addressee, ContainerError, ContainerSpec, Exec, ExecSpec, Program, Termination,
    },
    options::{Containment, Isolator},
};
use mezz_proto::{
    ids::ContainerId,
    v1::{
        CapabilityInfo, ContainerInfo, Image, LinuxInfo, NetworkInfo, RLimitInfo, Volume,
        capability_info::Capability,
        container_info::{self, MesosInfo},
        image,
        linux_info::IpcMode,
        r_limit_info::{RLimit, r_limit},
        volume::{self, Mode, Source, source, source::SandboxPath, source::sandbox_path},
    },
};
use support::{Agent, until};

const BOTH: [Containment; 2] = [Containment::Cgroup, Containment::None];

fn status(termination: &Termination) -> ExitStatus {
    assert_eq!(termination.failure, None);
    ExitStatus::from_raw(termination.wait_status.expect("a status"))
}

fn info() -> ContainerInfo {
    ContainerInfo { r#type: container_info::Type::Mesos.into(), ..Default::default() }
}

fn linux(linux: LinuxInfo) -> ContainerInfo {
    ContainerInfo { linux_info: Some(linux), ..info() }
}

fn own_pids() -> ContainerInfo {
    linux(LinuxInfo { share_pid_namespace: Some(false), ..Default::default() })
}

fn with(agent: &Agent, command: &str, info: ContainerInfo) -> ContainerSpec {
    ContainerSpec { info: Some(Box::new(info)), ..agent.spec(command) }
}

/// Runs to the end; the output, and how it ended.
async fn outcome(agent: &Agent, spec: ContainerSpec) -> (String, Termination) {
    let id = agent.start(spec).await;
    let end = agent.wait(&id).await;
    let path = agent.sandbox(&id).join("stdout");
    let text = fs::read_to_string(path).unwrap_or_default();
    agent.remove(&id).await;
    (text, end)
}

async fn output(agent: &Agent, spec: ContainerSpec) -> String {
    let sandbox = spec.sandbox.clone();
    let (text, end) = outcome(agent, spec).await;
    let errors = fs::read_to_string(sandbox.join("stderr")).unwrap_or_default();
    assert!(status(&end).success(), "{end:?} {text} {errors}");
    text
}

fn always(isolators: &[Isolator]) -> Agent {
    let (dir, mut options) = support::options(Containment::Cgroup);
    options.isolation.always = isolators.iter().copied().collect();
    Agent::with((dir, options))
}

async fn refusal(agent: &Agent, info: ContainerInfo) -> String {
    let spec = with(agent, "true", info);
    let id = spec.id.clone();
    let error = agent.it.launch(spec).await.unwrap_err();
    agent.assert_nothing_left(&id);
    assert!(matches!(error, ContainerError::Unsupported { .. }), "{error:?}");
    error.to_string()
}

fn shell(command: &str) -> ExecSpec {
    ExecSpec {
        program: Program::Shell(command.into()),
        environment: BTreeMap::new(),
        stdin: false,
        terminal: None,
    }
}

async fn exec(agent: &Agent, id: &ContainerId, command: &str) -> String {
    let Exec { mut output, ended, .. } = agent.it.exec(id, shell(command)).await.unwrap();
    let mut text = Vec::new();
    while let Some((_, piece)) = output.recv().await {
        text.extend(piece);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(ended.await.unwrap(), 0, "{text}");
    text
}

fn namespace(pid: impl std::fmt::Display, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

// ---------------------------------------------------------------- processes

#[tokio::test]
async fn it_sees_only_its_own_processes() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let show = "for p in /proc/[0-9]*; do echo ${p#/proc/}; done | sort -n | head -n 2; \
                    echo me $$; (sleep 0.01; exit 3); exit 5";
        let (text, end) = outcome(&agent, with(&agent, show, own_pids())).await;
        assert_eq!(text, "1\n2\nme 2\n", "{containment:?}");
        assert_eq!(status(&end).code(), Some(5));
    }
}

#[tokio::test]
async fn signals_and_statuses_pass_the_init() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let (_, end) = outcome(&agent, with(&agent, "kill -9 $$", own_pids())).await;
        assert_eq!(status(&end).signal(), Some(9));

        let trap = "trap 'n=$((n+1)); echo got it' TERM; echo ready; \
                    while [ -z \"$n\" ]; do sleep 0.01; done; sleep 0.1; exit $n";
        let id = agent.start(with(&agent, trap, own_pids())).await;
        until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
        agent.it.signal(&id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
        assert_eq!(status(&agent.wait(&id).await).code(), Some(1), "it comes once");
        agent.remove(&id).await;

        // The program's child has no init to be told by.
        // No `wait`: the signal may come before it.
        let both = "trap 'n=1; echo got it' TERM; sh -c 'echo ready; exec sleep 1000' & \
                    while [ -z \"$n\" ]; do sleep 0.01; done; \
                    kill -0 $! && echo and its child lives";
        let id = agent.start(with(&agent, both, own_pids())).await;
        until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
        agent.it.signal(&id, nix::libc::SIGTERM, Addressee::FirstProcess).await.unwrap();
        assert_eq!(status(&agent.wait(&id).await).code(), Some(0));
        assert_eq!(agent.output(&id, "stdout"), "ready\ngot it\nand its child lives\n");
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn a_signal_ends_no_program_that_entered_and_heeds_it() {
    let agent = Agent::new(Containment::Cgroup);
    let own = "trap : TERM; echo ready; while :; do sleep 0.02; done";
    let id = agent.start(with(&agent, own, own_pids())).await;
    until("it is ready", || agent.output(&id, "stdout") == "ready\n").await;
    let entered = "trap 'echo got it; exit 3' TERM; echo up; while :; do sleep 0.02; done";
    let Exec { mut output, ended, .. } = agent.it.exec(&id, shell(entered)).await.unwrap();
    let (_, up) = output.recv().await.unwrap();
    assert_eq!(up, "up\n");
    agent.it.signal(&id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
    let mut text = Vec::new();
    while let Some((_, piece)) = output.recv().await {
        text.extend(piece);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let end = ExitStatus::from_raw(ended.await.unwrap());
    assert!(text.contains("got it"), "{text:?} {end:?}");
    assert_eq!(end.code(), Some(3));
    agent.it.destroy(&id).await.unwrap();
    agent.remove(&id).await;
}

#[tokio::test]
async fn the_init_reaps_and_everything_ends_with_the_program() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let hide = "(setsid sleep 1000 &) ; (sleep 0.01 &); sleep 0.2; \
                    grep -l '^State:.Z' /proc/[0-9]*/status; exit 4";
        let id = agent.start(with(&agent, hide, own_pids())).await;
        until("it has processes", || agent.living(&id).len() >= 4).await;
        let pids = agent.living(&id);
        assert_eq!(status(&agent.wait(&id).await).code(), Some(4));
        assert_eq!(agent.output(&id, "stdout"), "", "no zombies");
        for pid in pids {
            assert!(!support::alive(pid), "{containment:?}: {pid} lives");
        }
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn killing_is_exact_with_own_processes_too() {
    let agent = Agent::new(Containment::Cgroup);
    let bomb = "i=0; while [ $i -lt 20 ]; do (while :; do (:) & done) & i=$((i+1)); done; wait";
    let id = agent.start(with(&agent, bomb, own_pids())).await;
    // The loops; how many of their children live at one moment is chance.
    until("it forks", || agent.living(&id).len() > 20).await;
    agent.it.destroy(&id).await.unwrap();
    assert_eq!(status(&agent.wait(&id).await).signal(), Some(9));
    agent.remove(&id).await;
}

#[tokio::test]
async fn a_killed_launcher_takes_the_namespace_with_it() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let hide = "(setsid sleep 1000 &); exec sleep 1001";
        let id = agent.start(with(&agent, hide, own_pids())).await;
        until("it runs", || agent.living(&id).len() >= 3).await;
        let pids = agent.living(&id);
        mezz_agent::launcher::process::send(agent.launcher_pid(&id), 9).unwrap();
        assert_eq!(agent.wait(&id).await.wait_status, None);
        for pid in pids {
            until("it is dead", || !support::alive(pid)).await;
        }
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn out_of_memory_is_told_with_an_init() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = with(&agent, "tail /dev/zero; exec sleep 1000", own_pids());
    spec.resources = mezz_proto::resources::Resources::cpus_mem(1.0, 48.0);
    let (_, end) = outcome(&agent, spec).await;
    assert_eq!(end.out_of_memory.expect("out of memory").limit_bytes, 48 << 20);
}

#[tokio::test]
async fn what_cannot_run_says_why_under_an_init() {
    let agent = Agent::new(Containment::Cgroup);
    let mut spec = with(&agent, "", own_pids());
    spec.program = Program::Exec { path: "/no/such".into(), argv: vec![] };
    let end = outcome(&agent, spec).await.1;
    assert_eq!(end.wait_status, None);
    assert_eq!(end.failure.unwrap(), "no such program `/no/such`: No such file or directory");
}

#[tokio::test]
async fn a_recovered_container_with_namespaces_is_controlled() {
    let agent = always(&[Isolator::Pid, Isolator::Mount, Isolator::Ipc, Isolator::Network]);
    let id = agent.run("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done").await;
    until("the trap is set", || agent.output(&id, "stdout") == "ready\n").await;
    let agent = agent.restart();
    agent.it.recover(vec![id.clone()]).await.unwrap();
    assert!(agent.it.network(&id).await.unwrap().is_some());
    assert_eq!(exec(&agent, &id, "cat /proc/1/comm").await.trim(), "mezz-launcher");
    agent.it.signal(&id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
    assert_eq!(status(&agent.wait(&id).await).code(), Some(9));
    agent.remove(&id).await;
}

// ---------------------------------------------------------------- other namespaces

#[tokio::test]
async fn without_being_asked_nothing_is_kept_apart() {
    let agent = Agent::new(Containment::Cgroup);
    let id = agent.run("exec sleep 1000").await;
    let pid = agent.living(&id)[0];
    for kind in ["pid", "mnt", "ipc", "uts", "net"] {
        assert_eq!(namespace(pid, kind), namespace("self", kind), "{kind}");
    }
    assert_eq!(agent.it.network(&id).await.unwrap(), None);
    agent.it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn a_hostname_is_its_own() {
    let agent = Agent::new(Containment::Cgroup);
    let before = fs::read("/proc/sys/kernel/hostname").unwrap();
    let spec = with(
        &agent,
        "cat /proc/sys/kernel/hostname",
        ContainerInfo { hostname: Some("box".into()), ..info() },
    );
    assert_eq!(output(&agent, spec).await, "box\n");
    assert_eq!(fs::read("/proc/sys/kernel/hostname").unwrap(), before);
}

#[tokio::test]
async fn a_network_of_its_own_has_a_loopback_device_that_is_up() {
    let agent = Agent::new(Containment::Cgroup);
    let network = NetworkInfo { name: Some("none".into()), ..Default::default() };
    let spec = with(
        &agent,
        "ip -o link; ip -o addr show lo; echo ready; exec sleep 1000",
        ContainerInfo { network_infos: vec![network], ..info() },
    );
    let id = agent.start(spec).await;
    until("it is ready", || agent.output(&id, "stdout").ends_with("ready\n")).await;
    let text = agent.output(&id, "stdout");
    assert!(text.contains("127.0.0.1/8") && text.contains("LOOPBACK,UP"), "{text}");
    assert!(!text.contains("2: e"), "{text}");
    let path = agent.it.network(&id).await.unwrap().expect("its own");
    assert_eq!(fs::read_link(path).unwrap(), namespace(agent.living(&id)[0], "net"));
    assert_eq!(exec(&agent, &id, "ip -o link").await.lines().count(), 1);
    agent.it.destroy(&id).await.unwrap();
    assert_eq!(agent.it.network(&id).await.unwrap(), None);
}

#[tokio::test]
async fn shared_memory_is_its_own_and_bounded() {
    let agent = Agent::new(Containment::Cgroup);
    let name = format!("/dev/shm/mezz-test-{}", std::process::id());
    let spec = with(
        &agent,
        &format!("touch {name}; grep ' /dev/shm ' /proc/self/mounts | tail -n 1"),
        linux(LinuxInfo {
            ipc_mode: Some(IpcMode::Private.into()),
            shm_size: Some(2),
            ..Default::default()
        }),
    );
    let text = output(&agent, spec).await;
    assert!(text.contains("size=2048k"), "{text}");
    assert!(!Path::new(&name).exists());
}

// ---------------------------------------------------------------- rights

fn capabilities(all: &[Capability]) -> Option<CapabilityInfo> {
    Some(CapabilityInfo { capabilities: all.iter().map(|c| (*c).into()).collect() })
}

const SHOW_CAPABILITIES: &str = "grep ^Cap /proc/self/status";

#[tokio::test]
async fn capabilities_are_bounded() {
    let agent = Agent::new(Containment::Cgroup);
    let bounding = capabilities(&[Capability::Kill, Capability::NetBindService]);
    let limited = linux(LinuxInfo { bounding_capabilities: bounding, ..Default::default() });
    let text = output(&agent, with(&agent, SHOW_CAPABILITIES, limited)).await;
    assert!(text.contains("CapBnd:\t0000000000000420"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000420"), "{text}");
}

#[tokio::test]
async fn effective_capabilities_are_held_by_root_and_by_users() {
    for user in [None, Some("nobody".to_owned())] {
        let agent = Agent::new(Containment::Cgroup);
        let effective = capabilities(&[Capability::NetBindService]);
        let bounding = capabilities(&[Capability::Kill, Capability::NetBindService]);
        let limited = linux(LinuxInfo {
            effective_capabilities: effective,
            bounding_capabilities: bounding,
            ..Default::default()
        });
        let spec = ContainerSpec { user, ..with(&agent, SHOW_CAPABILITIES, limited) };
        let text = output(&agent, spec).await;
        assert!(text.contains("CapBnd:\t0000000000000420"), "{text}");
        for set in ["CapEff", "CapPrm", "CapAmb"] {
            assert!(text.contains(&format!("{set}:\t0000000000000400")), "{text}");
        }
    }
}

#[tokio::test]
async fn a_user_without_a_wish_has_none() {
    let agent = Agent::new(Containment::Cgroup);
    let spec = ContainerSpec { user: Some("nobody".into()), ..agent.spec(SHOW_CAPABILITIES) };
    let text = output(&agent, spec).await;
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
}

#[tokio::test]
async fn new_privileges_are_refused_when_the_agent_says_so() {
    let agent = always(&[Isolator::NoNewPrivileges]);
    let id = agent.run("grep NoNewPrivs /proc/self/status; exec sleep 1000").await;
    until("it runs", || agent.output(&id, "stdout") == "NoNewPrivs:\t1\n").await;
    assert_eq!(exec(&agent, &id, "grep NoNewPrivs /proc/self/status").await, "NoNewPrivs:\t1\n");
    agent.it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn limits_of_processes_are_set() {
    let agent = Agent::new(Containment::Cgroup);
    let limit = |kind: r_limit::Type, soft, hard| RLimit { r#type: Some(kind.into()), soft, hard };
    let rlimits = RLimitInfo {
        rlimits: vec![
            limit(r_limit::Type::RlmtNofile, Some(100), Some(200)),
            limit(r_limit::Type::RlmtCore, None, None),
        ],
    };
    let spec = with(
        &agent,
        "ulimit -Sn; ulimit -Hn; ulimit -c",
        ContainerInfo { rlimit_info: Some(rlimits), ..info() },
    );
    assert_eq!(output(&agent, spec).await, "100\n200\nunlimited\n");
}

// ---------------------------------------------------------------- mounts

#[tokio::test]
async fn tmp_is_a_folder_of_the_sandbox() {
    let agent = always(&[Isolator::Mount]);
    for user in [None, Some("nobody".to_owned())] {
        let name = format!("mezz-test-{}", std::process::id());
        let spec = ContainerSpec { user, ..agent.spec(&format!("echo x > /tmp/{name}; pwd")) };
        let sandbox = spec.sandbox.clone();
        assert_eq!(output(&agent, spec).await, format!("{}\n", sandbox.display()));
        assert_eq!(fs::read_to_string(sandbox.join(".tmp").join(&name)).unwrap(), "x\n");
        assert!(!Path::new("/tmp").join(&name).exists());
    }
}

#[tokio::test]
async fn a_link_in_place_of_tmp_leads_nowhere() {
    let agent = always(&[Isolator::Mount]);
    let spec = agent.spec("true");
    symlink("/etc", spec.sandbox.join(".tmp")).unwrap();
    let end = outcome(&agent, spec).await.1;
    let failure = end.failure.expect("it is refused");
    assert!(failure.starts_with("cannot open .tmp in "), "{failure}");
}

#[tokio::test]
async fn a_read_only_root_leaves_the_sandbox_and_tmp() {
    let agent = always(&[Isolator::ReadOnlyRoot, Isolator::Pid]);
    let id = agent
        .run(
            "echo x > file && echo y > /tmp/file && echo z > /dev/null && \
             touch /dev/shm/mezz-$$ && rm /dev/shm/mezz-$$ && echo fine; \
             touch /etc/mezz-test /root/mezz-test; touch /usr/mezz-test; exec sleep 1000",
        )
        .await;
    let errors = || fs::read_to_string(agent.sandbox(&id).join("stderr")).unwrap();
    until("it has tried", || errors().matches('\n').count() >= 3).await;
    assert_eq!(agent.output(&id, "stdout"), "fine\n");
    assert_eq!(errors().matches("Read-only file system").count(), 3, "{}", errors());
    assert_eq!(exec(&agent, &id, "touch /etc/x 2>&1 || cat file").await.lines().count(), 2);
    agent.it.destroy(&id).await.unwrap();
    agent.remove(&id).await;
}

fn volume(to: &str, host_path: Option<&str>, mode: Mode) -> Volume {
    Volume {
        container_path: to.into(),
        host_path: host_path.map(Into::into),
        mode: mode.into(),
        ..Default::default()
    }
}

fn volumes(volumes: Vec<Volume>) -> ContainerInfo {
    ContainerInfo { volumes, ..info() }
}

#[tokio::test]
async fn volumes_are_mounted_and_only_for_the_container() {
    let agent = Agent::new(Containment::Cgroup);
    let host = agent.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "hello\n").unwrap();
    let from = host.to_str().unwrap();
    let spec = with(
        &agent,
        "cat data/file; echo more > data/new; cat deep/er/file; touch deep/er/x; cat /root/file; \
         echo y > own/y; echo $(ls w)",
        volumes(vec![
            volume("data", Some(from), Mode::Rw),
            volume("deep/er", Some(from), Mode::Ro),
            volume("/root", Some(from), Mode::Ro),
            volume("w", Some("own"), Mode::Rw),
        ]),
    );
    let sandbox = spec.sandbox.clone();
    let id = agent.start(ContainerSpec { user: Some("root".into()), ..spec }).await;
    agent.wait(&id).await;
    assert_eq!(agent.output(&id, "stdout"), "hello\nhello\nhello\ny\n");
    assert!(agent.output(&id, "stderr").contains("Read-only file system"));
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "more\n");
    assert!(!Path::new("/root/file").exists() && !sandbox.join("data/file").exists());
    agent.remove(&id).await;
}

#[tokio::test]
async fn volumes_lead_out_of_no_sandbox() {
    let agent = Agent::new(Containment::Cgroup);
    let spec = with(&agent, "true", volumes(vec![volume("in", Some("link/x"), Mode::Rw)]));
    symlink("/etc", spec.sandbox.join("link")).unwrap();
    let failure = outcome(&agent, spec).await.1.failure.expect("it is refused");
    assert!(failure.starts_with("cannot open link/x in "), "{failure}");

    let from = agent.dir.path().to_str().unwrap().to_owned();
    let spec = with(&agent, "true", volumes(vec![volume("link/x", Some(&from), Mode::Rw)]));
    symlink(agent.dir.path(), spec.sandbox.join("link")).unwrap();
    let failure = outcome(&agent, spec).await.1.failure.expect("it is refused");
    assert!(failure.starts_with("cannot open link/x in "), "{failure}");
    assert!(!agent.dir.path().join("x").exists());
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let agent = Agent::new(Containment::Cgroup);
    let named = |name: &str| NetworkInfo { name: Some(name.into()), ..Default::default() };
    let text = refusal(&agent, ContainerInfo { network_infos: vec![named("calico")], ..info() });
    let text = text.await;
    assert!(
        text.contains("container.network_infos[0].name: there is no network `calico`"),
        "{text}"
    );
    let docker = ContainerInfo { r#type: container_info::Type::Docker.into(), ..info() };
    assert!(refusal(&agent, docker).await.contains("container.type"));
    let text = refusal(&agent, volumes(vec![volume("x/../..", Some("/"), Mode::Rw)])).await;
    assert!(text.contains("container.volumes[0].container_path"), "{text}");
}

// ---------------------------------------------------------------- bounds of the agent

#[tokio::test]
async fn an_agents_bounds_on_capabilities_and_host_paths_are_kept() {
    let (dir, mut options) = support::options(Containment::Cgroup);
    let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
    for folder in [&open, &closed] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), "x\n").unwrap();
    }
    symlink(&closed, open.join("link")).unwrap();
    symlink(&open, dir.path().join("way")).unwrap();
    options.isolation.bounding = Some(1 << 5 | 1 << 10);
    options.isolation.host_paths = Some(vec![open.clone()]);
    let agent = Agent::with((dir, options));
    let text = output(&agent, agent.spec(SHOW_CAPABILITIES)).await;
    assert!(text.contains("CapBnd:\t0000000000000420"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000420"), "{text}");
    let admin = capabilities(&[Capability::Kill, Capability::SysAdmin]);
    let admin = linux(LinuxInfo { effective_capabilities: admin, ..Default::default() });
    let text = refusal(&agent, admin).await;
    assert!(
        text.contains(
            "container.linux_info.effective_capabilities: SYS_ADMIN is none that \
             this agent allows (its --bounding-capabilities)"
        ),
        "{text}"
    );

    for path in [open.clone(), agent.dir.path().join("way")] {
        let info = volumes(vec![volume("v", path.to_str(), Mode::Ro)]);
        assert_eq!(output(&agent, with(&agent, "cat v/file", info)).await, "x\n");
    }
    for path in [closed.clone(), open.join("link"), open.join("link/file"), open.join("..")] {
        let text = refusal(&agent, volumes(vec![volume("v", path.to_str(), Mode::Ro)])).await;
        assert!(text.contains("container.volumes[0].host_path: `"), "{text}");
        assert!(text.contains("is nowhere below what this agent allows ("), "{text}");
    }
}

// ---------------------------------------------------------------- pods

async fn pod(agent: &Agent, info: ContainerInfo) -> ContainerId {
    let spec = ContainerSpec { program: Program::Hold, ..with(agent, "", info) };
    agent.start(spec).await
}

#[tokio::test]
async fn a_pods_containers_share_its_namespaces() {
    for containment in BOTH {
        let agent = Agent::new(containment);
        let network = NetworkInfo { name: Some("none".into()), ..Default::default() };
        let mut shared = linux(LinuxInfo {
            ipc_mode: Some(IpcMode::Private.into()),
            share_pid_namespace: Some(false),
            ..Default::default()
        });
        shared.network_infos = vec![network];
        shared.hostname = Some("pod".into());
        let holder = pod(&agent, shared).await;
        let held = agent.living(&holder)[0];
        let member = |info: Option<ContainerInfo>| ContainerSpec {
            pod: Some(holder.clone()),
            info: info.map(Box::new),
            ..agent
                .spec("cat /proc/sys/kernel/hostname; echo x >> /dev/shm/shared; exec sleep 1000")
        };
        let share = linux(LinuxInfo { share_pid_namespace: Some(true), ..Default::default() });
        let (one, two) = (agent.start(member(None)).await, agent.start(member(Some(share))).await);
        for id in [&one, &two] {
            until("it runs", || agent.output(id, "stdout") == "pod\n").await;
            let pid = agent.living(id)[0];
            for kind in ["net", "ipc", "uts"] {
                assert_eq!(namespace(pid, kind), namespace(held, kind), "{kind}");
                assert_ne!(namespace(pid, kind), namespace("self", kind), "{kind}");
            }
        }
        let pids = |id: &ContainerId| namespace(agent.living(id)[0], "pid");
        assert_eq!((pids(&one), pids(&two)), (namespace("self", "pid"), pids(&holder)));
        assert_eq!(
            agent.it.network(&one).await.unwrap().map(|p| fs::read_link(p).unwrap()),
            Some(namespace(held, "net"))
        );
        assert!(!Path::new("/dev/shm/shared").exists());
        assert_eq!(exec(&agent, &holder, "cat /dev/shm/shared").await, "x\nx\n");
        for id in [&one, &two, &holder] {
            agent.it.destroy(id).await.unwrap();
            agent.remove(id).await;
        }
    }
}

#[tokio::test]
async fn a_holder_ends_when_told_to() {
    for info in [info(), own_pids()] {
        let agent = Agent::new(Containment::Cgroup);
        let holder = pod(&agent, info).await;
        agent.it.signal(&holder, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
        assert_eq!(status(&agent.wait(&holder).await).code(), Some(0));
        agent.remove(&holder).await;
    }
}

#[tokio::test]
async fn a_pods_sandbox_is_shared_by_volume() {
    let agent = Agent::new(Containment::Cgroup);
    let holder = pod(&agent, own_pids()).await;
    let path =
        SandboxPath { r#type: Some(sandbox_path::Type::Parent.into()), path: "shared".into() };
    let source = Source {
        r#type: Some(source::Type::SandboxPath.into()),
        sandbox_path: Some(path),
        ..Default::default()
    };
    let shared = volume::Source::clone(&source);
    let volume = Volume { source: Some(shared), ..volume("here", None, Mode::Rw) };
    let mut spec = with(&agent, "echo x > here/file", volumes(vec![volume]));
    spec.pod = Some(holder.clone());
    output(&agent, spec).await;
    let file = agent.sandbox(&holder).join("shared/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "x\n");
    agent.it.destroy(&holder).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_has_ended_takes_nobody_in() {
    let agent = Agent::new(Containment::Cgroup);
    let holder = pod(&agent, own_pids()).await;
    agent.it.destroy(&holder).await.unwrap();
    let spec = ContainerSpec { pod: Some(holder), ..agent.spec("true") };
    let error = agent.it.launch(spec).await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the pod has ended");
}

// ---------------------------------------------------------------- leftovers

#[tokio::test]
async fn no_mounts_are_left() {
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let agent = always(&[Isolator::Pid, Isolator::Mount, Isolator::Ipc, Isolator::ReadOnlyRoot]);
    let place = agent.dir.path().to_str().unwrap().to_owned();
    for _ in 0..3 {
        output(&agent, agent.spec("grep -c . /proc/self/mounts")).await;
    }
    assert!(!mounts().iter().any(|mount| mount.contains(&place)));
}
