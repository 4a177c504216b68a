//! Engines that are absent, die and come back: never the machine's own one.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mezz_agent::containerizer::Termination;
use tempfile::TempDir;

use crate::{
    fixture::{Docker, SOCKET, docker_at, image, name},
    support::{PATIENCE, alive, until},
};

/// An engine of the test's own, with the image. It ends with this.
pub struct OwnEngine {
    dir: TempDir,
    daemon: Option<Child>,
    args: Vec<String>,
    /// Of the folder with all that it has.
    data: &'static str,
}

impl OwnEngine {
    /// Waits until it answers.
    pub fn start(args: &[&str]) -> Self {
        // Sockets have short paths.
        let dir = tempfile::Builder::new().prefix("mezz-d").tempdir_in("/tmp").unwrap();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut engine = Self { dir, daemon: None, args, data: "data" };
        engine.come_back();
        let archive = engine.dir.path().join("image.tar");
        docker_at(SOCKET, &["save", "-o", archive.to_str().unwrap(), &image()]);
        docker_at(&engine.address(), &["load", "-i", archive.to_str().unwrap()]);
        engine
    }

    pub fn address(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    pub fn come_back(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let log = std::fs::File::create(at("log")).unwrap();
        // In a network of its own: an engine makes and removes bridges.
        let daemon = Command::new("unshare")
            .args([
                "--net",
                "dockerd",
                "-H",
                &self.address(),
                "--data-root",
                &at(self.data),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--pidfile", &at("pid"), "--iptables=false", "--ip-masq=false"])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("these tests need the program `dockerd`: see scripts/docker.sh");
        self.daemon = Some(daemon);
        let end = Instant::now() + PATIENCE;
        let answers = || {
            let output = Command::new("docker").args(["-H", &self.address(), "version"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        while !answers() {
            let log = std::fs::read_to_string(at("log")).unwrap();
            assert!(Instant::now() < end, "the second engine does not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An engine that knows nothing of this one's containers.
    pub fn come_back_as_another(&mut self) {
        self.data = "other";
        self.come_back();
    }

    pub fn come_back_as_itself(&mut self) {
        self.data = "data";
        self.come_back();
    }

    /// By a signal; waits for its end.
    pub fn end(&mut self, signal: nix::sys::signal::Signal) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = nix::unistd::Pid::from_raw(daemon.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        daemon.wait().unwrap();
        // Its helper dies with it, though a moment later.
        let file = self.dir.path().join("exec/containerd/containerd.pid");
        let helper = std::fs::read_to_string(&file).ok().and_then(|pid| pid.trim().parse().ok());
        let end = Instant::now() + PATIENCE;
        while helper.is_some_and(alive) {
            assert!(Instant::now() < end, "containerd does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Where nobody reaps orphans, the next engine would take it for alive.
        let _ = std::fs::remove_file(file);
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            // What a killed one left is ended by one that ends well.
            self.come_back();
        }
        self.end(nix::sys::signal::Signal::SIGTERM);
        let below = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        mounts.retain(|path| path.starts_with(&below));
        for path in mounts.into_iter().rev() {
            nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
        if !std::thread::panicking() {
            std::fs::remove_dir_all(self.dir.path()).expect("nothing holds it any more");
        }
    }
}

#[tokio::test]
async fn without_an_engine_a_launch_fails_at_once_and_names_the_socket() {
    let docker = Docker::without_engine("unix:///nowhere/mezz.sock");
    let started = Instant::now();
    let error = docker.refused(docker.spec("true")).await;
    let expected = "the Docker engine does not answer at unix:///nowhere/mezz.sock";
    assert!(error.contains(expected), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let spec = docker.spec("true");
    let error = docker.agent().it.prepare(&spec).await.unwrap_err();
    assert!(mezz_proto::error::chain(&error).contains(expected));
    let ability = docker.ability();
    assert!(ability.problem.is_some_and(|why| why.contains(expected)));
    assert_eq!(docker.recover(&[]).await, Default::default());
}

#[tokio::test]
async fn its_version_is_known_when_it_answers() {
    let docker = Docker::new();
    until("the engine was asked", || docker.ability().problem.is_none()).await;
    let version = docker_at(SOCKET, &["version", "--format", "{{.Server.Version}}"]);
    assert_eq!(docker.ability().version, Some(version));
}

#[tokio::test]
async fn an_engine_that_restarts_keeps_what_it_kept_alive() {
    let mut engine = OwnEngine::start(&["--live-restore"]);
    let docker = Docker::at(&engine.address());
    let command = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo $n; sleep 0.02; done; exit 4";
    let mut spec = docker.spec(command);
    spec.limits = [("mem".to_owned(), f64::INFINITY)].into();
    let id = docker.agent().start(spec).await;
    docker.says(&id, "20\n").await;
    engine.end(nix::sys::signal::Signal::SIGKILL);
    let error = docker.agent().it.destroy(&id).await.unwrap_err();
    let error = mezz_proto::error::chain(&error);
    assert!(error.contains("does not answer"), "{error}");
    engine.come_back();
    let end = tokio::time::timeout(PATIENCE, docker.agent().it.wait(&id)).await;
    let end = end.expect("its end is noticed").unwrap();
    assert_eq!(end, Termination { wait_status: Some(4 << 8), out_of_memory: None, failure: None });
    let said = docker.agent().output(&id, "stdout");
    let expected: String = (1..=400).map(|n| format!("{n}\n")).collect();
    assert_eq!(said, expected, "each line once");
    docker.agent().it.remove(&id).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_restarts_without_its_containers_tells_their_end() {
    let mut engine = OwnEngine::start(&[]);
    let docker = Docker::at(&engine.address());
    let id = docker.run("echo ready; sleep 1000").await;
    docker.says(&id, "ready").await;
    engine.end(nix::sys::signal::Signal::SIGTERM);
    until("it is missed", || docker.ability().problem.is_some()).await;
    let early = tokio::time::timeout(Duration::from_millis(500), docker.agent().it.wait(&id)).await;
    assert!(early.is_err(), "nobody knows: {early:?}");
    engine.come_back();
    let end = tokio::time::timeout(PATIENCE, docker.agent().it.wait(&id)).await.unwrap().unwrap();
    assert_eq!((&end.failure, end.out_of_memory), (&None, None));
    assert_eq!(end.wait_status, Some(nix::libc::SIGKILL), "{end:?}");
    let id = docker.run("exit 6").await;
    assert_eq!(docker.agent().wait(&id).await.wait_status, Some(6 << 8), "it goes on");
}

#[tokio::test]
async fn an_agent_that_starts_without_the_engine_waits_for_it() {
    let mut engine = OwnEngine::start(&["--live-restore"]);
    let mut docker = Docker::at(&engine.address());
    let lives = docker.run("echo ready; sleep 1000").await;
    let ended = docker.run("exit 3").await;
    let stranger = docker.run("sleep 1000").await;
    docker.says(&lives, "ready").await;
    docker.agent().wait(&ended).await;
    docker.stop();
    engine.end(nix::sys::signal::Signal::SIGKILL);
    docker.start();
    let started = Instant::now();
    let recovery = docker.recover(&[&lives, &ended]).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(recovery.known[&lives] && recovery.known[&ended], "not given up: {recovery:?}");
    engine.come_back();
    assert_eq!(docker.agent().wait(&ended).await.wait_status, Some(3 << 8));
    // Looked for every ten seconds.
    until("the stranger is ended", || !docker.all().contains(&name(&stranger))).await;
    docker.agent().it.destroy(&lives).await.unwrap();
    let end = docker.agent().wait(&lives).await;
    assert_eq!(end.wait_status, Some(nix::libc::SIGKILL));
}

#[tokio::test]
async fn an_engine_that_says_nothing_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    // It takes connections, and no more.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let docker = Docker::without_engine(&format!("unix://{}", socket.display()));
    let started = Instant::now();
    assert_eq!(docker.recover(&[]).await, Default::default());
    let error = docker.refused(docker.spec("true")).await;
    assert!(error.contains("said nothing for 5s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let problem = docker.ability().problem.unwrap();
    assert!(problem.contains("said nothing for 5s"), "{problem}");
}

#[tokio::test]
async fn an_agent_may_have_no_docker() {
    let mut docker = Docker::new();
    let spec = docker.spec("true");
    docker.stop();
    let error = docker.refused(spec).await;
    assert!(error.contains("container.type is DOCKER") && error.contains("--docker"), "{error}");
    assert!(docker.agent().it.abilities().iter().all(|ability| ability.name != "docker"));
}
