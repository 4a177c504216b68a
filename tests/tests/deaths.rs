//! `kill -9` of an agent at each step of a task's life. When it is back, the task runs
//! and can be killed, or has exactly one end, the right one; and nothing is left.
//!
//! The agent is the real program; its master is the test's own, which decides what is
//! acknowledged when.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../../agent/tests/cluster/master.rs"]
mod master;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message::Message, master_message::Message as Said},
    v1::{self, TaskState, TaskStatus, task_status::Reason},
};
use mezz_tests::{Folder, Process, clean_command, eventually, mezz_program, processes_of};
use rustix::process::Signal;
use tempfile::TempDir;

use master::{FakeMaster, PATIENCE, task};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

/// A master, an agent and their folder.
struct World {
    master: FakeMaster,
    agent: Option<Process>,
    address: String,
    // Last, so that it outlives the processes.
    folder: Folder,
}

impl World {
    /// An agent that has joined.
    async fn new() -> Self {
        Self::running(&mezz_program().unwrap()).await
    }

    async fn running(program: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut world = Self {
            master: FakeMaster::start().await,
            agent: None,
            address: address.to_string(),
            folder: Folder::new("deaths").unwrap(),
        };
        world.start(program);
        world.master.welcome().await;
        world
    }

    fn start(&mut self, program: &Path) {
        let mut command = clean_command(program);
        command
            .args(["agent", "--master", &self.master.address.to_string()])
            .args(["--listen", &self.address, "--hostname", "127.0.0.1"])
            .args(["--resources", "cpus:4;mem:1024;disk:1000", "--cgroup-root", &self.cgroup()])
            .args(["--register-backoff-min", "10ms", "--register-backoff-max", "100ms"])
            .arg("--work-dir")
            .arg(self.path("work"))
            .current_dir(self.folder.path());
        self.agent = Some(Process::start("agent", self.folder.path(), command).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cgroup(&self) -> String {
        self.folder.path().file_name().unwrap().to_string_lossy().replace('.', "-")
    }

    fn kill_9(&mut self) {
        self.agent.take().expect("it runs").kill_9().unwrap();
    }

    /// It is started again, and taken in. What it said last before its death was not
    /// heard.
    async fn come_back(&mut self) {
        self.master.forget_links();
        self.start(&mezz_program().unwrap());
        loop {
            match self.master.hear().await {
                Message::Reregister(_) => break,
                Message::Register(_) => panic!("it does not know who it is"),
                _ => {}
            }
        }
        self.master.take_in().await;
    }

    /// Runs `script` as task `t`.
    async fn run(&self, script: &str) {
        self.master.run(vec![task("t", script)]).await;
    }

    /// The same, until its RUNNING is acknowledged.
    async fn run_on(&mut self, script: &str) {
        self.run(script).await;
        self.master.expect("t", TaskState::TaskRunning).await;
    }

    /// Until all that it was told is on its disk: a launch may begin before, and is
    /// undone by the next agent if it never got there. What the agent says of a later
    /// task is stored behind it.
    async fn until_stored(&mut self) {
        let refused = v1::TaskInfo { command: None, ..task("refused", "") };
        self.master.run(vec![refused]).await;
        self.master.expect("refused", TaskState::TaskError).await;
    }

    fn until_there(&self, name: &str) {
        let path = self.path(name);
        eventually(PATIENCE, &format!("{name} is there"), || {
            Ok(if path.exists() { Ok(()) } else { Err(String::new()) })
        })
        .unwrap();
    }

    fn make(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    /// Pids of what runs, the agent aside.
    fn left(&self) -> Vec<i32> {
        let agent = self.agent.as_ref().map(Process::pid);
        let mut left = processes_of(self.folder.path()).unwrap();
        left.retain(|pid| Some(*pid) != agent);
        left
    }

    fn until_nothing_runs(&self) {
        eventually(PATIENCE, "nothing of the task runs", || {
            let left = self.left();
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .unwrap();
    }

    /// The task's one end is acknowledged; nothing more comes, and nothing is left but
    /// the sandbox, to be read.
    async fn ends(mut self, state: TaskState, reason: Option<Reason>) {
        let end = self.master.expect("t", state).await;
        assert_eq!(end.reason.map(|_| end.reason()), reason, "{end:?}");
        // Behind the acknowledgement.
        self.master.say(Said::Ping(mezz::Ping { number: 7 })).await;
        loop {
            match self.master.hear().await {
                Message::Pong(_) => break,
                Message::StatusUpdate(update) => panic!("after its end: {update:?}"),
                _ => {}
            }
        }
        self.agent.as_ref().expect("it runs").signal(Signal::TERM).unwrap();
        let stopped = self.agent.take().unwrap().wait(PATIENCE).unwrap();
        assert_eq!(stopped.code, Some(0), "{stopped}");
        self.start(&mezz_program().unwrap());
        loop {
            match self.master.hear().await {
                Message::StatusUpdate(update) => panic!("after its end: {update:?}"),
                Message::Reregister(back) => {
                    assert!(back.tasks.is_empty(), "it is not forgotten: {back:?}");
                    assert!(back.frameworks.is_empty(), "{back:?}");
                    break;
                }
                _ => {}
            }
        }
        self.until_nothing_runs();
        let run = self.path("work/slaves/S0/frameworks/F-0/executors/t/runs/latest/stdout");
        assert!(run.is_file(), "its sandbox is gone");
        let runtime = self.path("work/containers");
        let kept: Vec<_> = fs::read_dir(&runtime).into_iter().flatten().flatten().collect();
        assert!(kept.is_empty(), "{kept:?}");
        self.agent.take().unwrap().kill_9().unwrap();
        for cgroup in cgroups(&self.cgroup()) {
            // Only an empty one can be removed.
            fs::remove_dir(&cgroup).unwrap_or_else(|e| panic!("{}: {e}", cgroup.display()));
        }
    }

    /// The task runs, and can be killed as ever.
    async fn goes_on(self) {
        assert!(!self.left().is_empty(), "it does not run");
        self.master.kill("t", Some(Duration::ZERO)).await;
        self.ends(TaskState::TaskKilled, None).await;
    }
}

/// A test that failed leaves no processes either.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.agent = None;
            for pid in self.left() {
                let _ = mezz_tests::signal(pid, Signal::KILL);
            }
        }
    }
}

/// Every directory of this name right below a cgroup mount.
fn cgroups(name: &str) -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| Path::new(path).join(name))
        })
        .filter(|path| path.is_dir())
        .collect()
}

fn same(one: &TaskStatus, other: &TaskStatus) {
    assert_eq!((one.state(), &one.uuid), (other.state(), &other.uuid));
}

/// Runs until `go` is there; `ran` tells that it was started.
fn until_go(world: &World, last: &str) -> String {
    let folder = world.folder.path().display();
    format!("touch {folder}/ran; while [ ! -e {folder}/go ]; do sleep 0.02; done; {last}")
}

/// The same, and it ignores SIGTERM, of which `asked` tells.
fn stubborn(world: &World) -> String {
    format!(
        "trap 'touch {}/asked' TERM; {}",
        world.folder.path().display(),
        until_go(world, "exit 0")
    )
}

/// A program to be started in place of the agent's: a copy of it that is replaced, once
/// the agent runs, by a script that waits for `on` before it is what it was.
fn slow_launcher(world: &World, program: &Path) {
    let (real, folder) = (mezz_program().unwrap(), world.folder.path().display());
    let script = format!(
        "#!/bin/sh\ntouch {folder}/begun\nwhile [ ! -e {folder}/on ]; do sleep 0.02; done\nexec {} \"$@\"\n",
        real.display()
    );
    let fresh = program.with_extension("sh");
    fs::write(&fresh, script).unwrap();
    fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(fresh, program).unwrap();
}

/// An agent of which the next launcher waits, with task `t` on its way.
async fn being_made() -> (World, TempDir) {
    let folder = tempfile::Builder::new().prefix("mezz-copy-").tempdir().unwrap();
    let copy = folder.path().join("mezz");
    fs::copy(mezz_program().unwrap(), &copy).unwrap();
    let mut world = World::running(&copy).await;
    slow_launcher(&world, &copy);
    world.run(&until_go(&world, "exit 0")).await;
    world.until_there("begun");
    world.until_stored().await;
    (world, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_fetches() {
    let mut world = World::new().await;
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut info = task("t", &until_go(&world, "exit 0"));
    info.command.as_mut().unwrap().uris = vec![v1::command_info::Uri {
        value: format!("http://{}/file", silent.local_addr().unwrap()),
        ..Default::default()
    }];
    world.master.run(vec![info]).await;
    let (fetching, _) = silent.accept().unwrap();
    world.until_stored().await;
    world.kill_9();
    drop(fetching);
    world.come_back().await;
    assert!(!world.path("ran").exists());
    world.ends(TaskState::TaskFailed, Some(Reason::ExecutorTerminated)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_container_is_made_which_the_next_agent_prevents() {
    let (mut world, _copy) = being_made().await;
    world.kill_9();
    world.come_back().await;
    world.make("on");
    world.until_nothing_runs();
    assert!(!world.path("ran").exists(), "it was started after its end");
    world.ends(TaskState::TaskFailed, Some(Reason::ExecutorTerminated)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_container_is_made_which_goes_on_alone() {
    let (mut world, _copy) = being_made().await;
    world.kill_9();
    world.make("on");
    world.until_there("ran");
    world.come_back().await;
    world.master.expect("t", TaskState::TaskRunning).await;
    world.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_after_the_launch() {
    let mut world = World::new().await;
    world.run(&until_go(&world, "exit 0")).await;
    let running = world.master.update().await;
    assert_eq!(running.state(), TaskState::TaskRunning);
    world.kill_9();
    world.come_back().await;
    same(&world.master.expect("t", TaskState::TaskRunning).await, &running);
    world.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_runs() {
    let mut world = World::new().await;
    world.run_on(&until_go(&world, "exit 0")).await;
    world.until_there("ran");
    world.kill_9();
    world.come_back().await;
    world.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_runs_and_then_ends() {
    let mut world = World::new().await;
    world.run_on(&until_go(&world, "exit 3")).await;
    world.kill_9();
    world.make("go");
    world.until_nothing_runs();
    world.come_back().await;
    world.ends(TaskState::TaskFailed, Some(Reason::CommandExecutorFailed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_last_update_is_not_acknowledged() {
    let mut world = World::new().await;
    world.run_on("exit 0").await;
    let finished = world.master.update().await;
    assert_eq!(finished.state(), TaskState::TaskFinished);
    world.kill_9();
    world.come_back().await;
    same(&world.master.update().await, &finished);
    // As if that had been lost, too.
    world.master.hang_up();
    world.master.welcome().await;
    world.ends(TaskState::TaskFinished, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_has_no_master_to_tell_of_the_end() {
    let mut world = World::new().await;
    world.run_on(&until_go(&world, "exit 0")).await;
    // Its greeting gets no answer.
    world.master.hang_up();
    while !matches!(world.master.hear().await, Message::Reregister(_)) {}
    world.make("go");
    world.until_nothing_runs();
    world.kill_9();
    world.come_back().await;
    world.ends(TaskState::TaskFinished, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_kill_is_in_its_grace() {
    let mut world = World::new().await;
    world.run_on(&stubborn(&world)).await;
    world.until_there("ran");
    world.master.kill("t", Some(Duration::from_secs(2))).await;
    world.until_there("asked");
    world.kill_9();
    assert!(!world.left().is_empty());
    world.come_back().await;
    world.ends(TaskState::TaskKilled, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_what_then_ended_by_itself() {
    let mut world = World::new().await;
    world.run_on(&stubborn(&world)).await;
    world.until_there("ran");
    world.master.kill("t", Some(LONG)).await;
    world.until_there("asked");
    world.kill_9();
    world.make("go");
    world.until_nothing_runs();
    world.come_back().await;
    world.ends(TaskState::TaskKilled, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_that_was_done_and_not_acknowledged() {
    let mut world = World::new().await;
    world.run_on(&until_go(&world, "exit 0")).await;
    world.master.kill("t", Some(Duration::ZERO)).await;
    let killed = world.master.update().await;
    assert_eq!(killed.state(), TaskState::TaskKilled);
    world.kill_9();
    world.come_back().await;
    let again = world.master.update().await;
    same(&again, &killed);
    world.master.hang_up();
    world.master.welcome().await;
    world.ends(TaskState::TaskKilled, None).await;
}
