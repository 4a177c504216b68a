//! A new agent with launchers that an older one started, and their files. What those
//! look like stands here as text, and the launcher of then in `fixtures/launcher_v1`, so
//! that no change of ours changes it too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use mezz_agent::{
    containerizer::{Addressee, ContainerError, ExecSpec, Program},
    options::Containment,
};
use mezz_proto::{ids::ContainerId, resources::Resources};
use support::{Agent, until};

const BOTH: [Containment; 2] = [Containment::Cgroup, Containment::None];

/// A launcher, started as the agents of version 1 did; it is still there after them.
struct Old {
    agent: Agent,
    id: ContainerId,
    launcher: Child,
}

impl Drop for Old {
    fn drop(&mut self) {
        let _ = self.launcher.wait();
    }
}

/// Written by version 1 of the agent, to the letter.
fn plan(sandbox: &str, command: &str, join: &[PathBuf]) -> String {
    let join: Vec<String> = join.iter().map(|path| format!("\"{}\"", path.display())).collect();
    format!(
        r#"{{"v":1,"program":{{"Shell":"{command}"}},"environment":{{"GREETING":"hello","PATH":"/usr/bin:/bin"}},"user":{{"uid":65534,"gid":65534,"groups":[65534]}},"directory":"{sandbox}","stdout":"{sandbox}/stdout","stderr":"{sandbox}/stderr","join":[{}]}}"#,
        join.join(",")
    )
}

impl Old {
    /// Under the launcher of then.
    fn start(containment: Containment, command: &str) -> Self {
        let launcher = Command::new(env!("CARGO_BIN_EXE_mezz-launcher-v1"));
        Self::start_under(launcher, containment, command)
    }

    fn start_under(mut launcher: Command, containment: Containment, command: &str) -> Self {
        let agent = Agent::new(containment);
        let id = ContainerId::new("old");
        let sandbox = agent.sandbox(&id);
        fs::create_dir_all(&sandbox).unwrap();
        std::os::unix::fs::chown(&sandbox, Some(65534), Some(65534)).unwrap();
        fs::create_dir(agent.runtime(&id)).unwrap();
        let mut join = Vec::new();
        for cgroup in support::cgroups(&agent.options.cgroup_root) {
            let cgroup = cgroup.join("old");
            fs::create_dir(&cgroup).unwrap();
            let v1 = cgroup.join("tasks");
            join.push(if v1.exists() { v1 } else { cgroup.join("cgroup.procs") });
        }
        let path = agent.runtime(&id).join("plan.json");
        fs::write(&path, plan(sandbox.to_str().unwrap(), command, &join)).unwrap();
        let mut launcher = launcher.arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("started "), "{line}");
        Self { agent, id, launcher }
    }

    async fn recover(&self) {
        let found = self.agent.it.recover(vec![self.id.clone()]).await.unwrap();
        assert_eq!(found.known, [(self.id.clone(), true)].into());
    }

    /// Replaces the version in a file; returns the text that was there.
    fn make_newer(&self, file: &str) -> String {
        let path = self.agent.runtime(&self.id).join(file);
        let before = fs::read_to_string(&path).unwrap();
        let version = before.find("\"v\":").unwrap();
        let comma = version + before[version..].find(',').unwrap();
        let after = format!("{}\"v\":9{}", &before[..version], &before[comma..]);
        fs::write(&path, after).unwrap();
        before
    }
}

fn echo() -> ExecSpec {
    ExecSpec {
        program: Program::Shell("echo $GREETING $(id -u) $(pwd)".into()),
        environment: BTreeMap::new(),
        stdin: false,
        terminal: None,
    }
}

const UNTIL_STOPPED: &str = "while [ ! -e stop ]; do sleep 0.01; done; exit 4";

#[tokio::test]
async fn an_old_launcher_is_waited_for() {
    for containment in BOTH {
        let old = Old::start(containment, UNTIL_STOPPED);
        old.recover().await;
        old.agent.touch(&old.id, "stop");
        let end = old.agent.wait(&old.id).await;
        assert_eq!(ExitStatus::from_raw(end.wait_status.unwrap()).code(), Some(4));
        old.agent.remove(&old.id).await;
    }
}

/// While an old agent still runs, the program in its place may be the new one already.
#[tokio::test]
async fn an_old_agents_plan_is_carried_out_by_the_launcher_of_today() {
    for containment in BOTH {
        let command = format!("echo $GREETING $(id -u); {UNTIL_STOPPED}");
        let old = Old::start_under(support::launcher(), containment, &command);
        old.recover().await;
        until("it speaks", || old.agent.output(&old.id, "stdout") == "hello 65534\n").await;
        old.agent.touch(&old.id, "stop");
        let end = old.agent.wait(&old.id).await;
        assert_eq!(ExitStatus::from_raw(end.wait_status.unwrap()).code(), Some(4));
        old.agent.remove(&old.id).await;
    }
}

#[tokio::test]
async fn the_old_launcher_is_old() {
    let agent = Agent::new(Containment::None);
    let id = ContainerId::new("new");
    fs::create_dir(agent.runtime(&id)).unwrap();
    let path = agent.runtime(&id).join("plan.json");
    fs::write(&path, plan("/", "true", &[]).replace("\"v\":1", "\"v\":2")).unwrap();
    let mut old = Command::new(env!("CARGO_BIN_EXE_mezz-launcher-v1"));
    let said = old.arg(&path).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("has version 2, but this launcher knows only version 1"), "{said}");
}

#[tokio::test]
async fn an_old_launcher_is_signalled_killed_and_asked() {
    for containment in BOTH {
        let tree =
            "trap 'echo got it' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.01; done";
        let old = Old::start(containment, tree);
        old.recover().await;
        let (agent, id) = (&old.agent, &old.id);
        until("it is ready", || agent.output(id, "stdout") == "ready\n").await;
        agent.it.signal(id, nix::libc::SIGTERM, Addressee::Tree).await.unwrap();
        until("it got it", || agent.output(id, "stdout") == "ready\ngot it\n").await;
        agent.it.statistics(id).await.unwrap();
        agent.it.update(id, Resources::cpus_mem(0.5, 64.0), BTreeMap::new()).await.unwrap();
        assert_eq!(agent.it.network(id).await.unwrap(), None);
        let pids = agent.living(id);
        agent.it.destroy(id).await.unwrap();
        let end = agent.wait(id).await;
        assert_eq!(ExitStatus::from_raw(end.wait_status.unwrap()).signal(), Some(9));
        assert!(!pids.into_iter().any(support::alive));
        agent.remove(id).await;
    }
}

#[tokio::test]
async fn a_program_is_run_in_an_old_container() {
    for containment in BOTH {
        let old = Old::start(containment, UNTIL_STOPPED);
        old.recover().await;
        let mut exec = old.agent.it.exec(&old.id, echo()).await.unwrap();
        let (_, text) = exec.output.recv().await.unwrap();
        let expected = format!("hello 65534 {}\n", old.agent.sandbox(&old.id).display());
        assert_eq!(text, expected.as_bytes());
        assert_eq!(exec.ended.await.unwrap(), 0);
        old.agent.it.destroy(&old.id).await.unwrap();
    }
}

#[tokio::test]
async fn without_its_plan_a_program_is_refused_and_all_else_goes_on() {
    let old = Old::start(Containment::Cgroup, UNTIL_STOPPED);
    old.recover().await;
    let refusal = async || match old.agent.it.exec(&old.id, echo()).await.err() {
        Some(ContainerError::Unsupported { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    old.make_newer("plan.json");
    let text = refusal().await;
    assert!(text.contains("has version 9, but this program knows only versions 1 to 2"), "{text}");
    fs::remove_file(old.agent.runtime(&old.id).join("plan.json")).unwrap();
    let text = refusal().await;
    assert!(text.contains("plan.json: No such file"), "{text}");
    old.agent.it.destroy(&old.id).await.unwrap();
    old.agent.remove(&old.id).await;
}

#[tokio::test]
async fn what_an_old_launcher_left_is_read() {
    let agent = Agent::new(Containment::None);
    let id = ContainerId::new("old");
    fs::create_dir(agent.runtime(&id)).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    // No pid is that large.
    let started = format!(
        r#"{{"v":1,"boot_id":"{}","launcher":{{"pid":2147483646,"start":7}},"child":{{"pid":2147483647,"start":8}}}}"#,
        boot.trim()
    );
    fs::write(agent.runtime(&id).join("pid.json"), started).unwrap();
    let ended = r#"{"v":1,"wait_status":1280,"failure":null}"#;
    fs::write(agent.runtime(&id).join("exit.json"), format!("{ended:4096}")).unwrap();
    agent.it.recover(vec![id.clone()]).await.unwrap();
    let end = agent.wait(&id).await;
    assert_eq!((end.wait_status, end.failure), (Some(5 << 8), None));
    agent.remove(&id).await;
}

#[tokio::test]
async fn records_of_a_newer_version_fail_the_start_and_harm_nothing() {
    for containment in BOTH {
        let old = Old::start(containment, UNTIL_STOPPED);
        let program = old.agent.living(&old.id)[0];
        let before = old.make_newer("pid.json");
        for known in [vec![old.id.clone()], vec![]] {
            let error = old.agent.it.recover(known).await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("pid.json: it has version 9"), "{source}");
            assert!(source.contains("knows only versions up to 1"), "{source}");
        }
        assert!(support::alive(program));
        fs::write(old.agent.runtime(&old.id).join("pid.json"), before).unwrap();

        old.agent.touch(&old.id, "stop");
        until("it has ended", || old.agent.exit_is_on_record(&old.id)).await;
        let before = old.make_newer("exit.json");
        let error = old.agent.it.recover(vec![old.id.clone()]).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("exit.json: it has version 9"), "{source}");
        fs::write(old.agent.runtime(&old.id).join("exit.json"), before).unwrap();
        old.recover().await;
        let end = old.agent.wait(&old.id).await;
        assert_eq!(ExitStatus::from_raw(end.wait_status.unwrap()).code(), Some(4));
        old.agent.remove(&old.id).await;
    }
}
