//! What an agent measures, bounds and removes, with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use cluster::{FRAMEWORK, FakeMaster, PATIENCE, TestAgent, request, task};
use mezz_agent::options::Containment;
use mezz_proto::{
    mezz::v1::{self as mezz, ListContainersRequest},
    resources::{Dialect, Resources},
    v1::{self, TaskState, task_status::Reason},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Waits until `holds`; a level, looked at again and again.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn with(id: &str, line: &str, resources: &str) -> v1::TaskInfo {
    let all = Resources::parse(&format!("cpus:0.1;mem:64;{resources}")).unwrap();
    v1::TaskInfo { resources: all.to_proto(Dialect::Refined, Some("*")), ..task(id, line) }
}

fn quick(agent: &mut TestAgent) {
    agent.options.resources =
        Resources::parse("cpus:4;mem:4096;disk:1000;ports:[31000-31010]").unwrap();
    let monitor = &mut agent.options.monitor;
    monitor.container_disk_interval = Duration::from_millis(50);
    monitor.container_ports_interval = Duration::from_millis(50);
}

async fn started(master: &mut FakeMaster, change: impl FnOnce(&mut TestAgent)) -> TestAgent {
    let mut agent = TestAgent::new(master);
    quick(&mut agent);
    change(&mut agent);
    agent.start().await;
    master.welcome().await;
    agent
}

async fn statistics(agent: &TestAgent) -> Vec<mezz::ContainerStatistics> {
    let listed = agent.api().await.list_containers(ListContainersRequest {}).await.unwrap();
    listed.into_inner().containers.into_iter().filter_map(|c| c.statistics).collect()
}

/// The value of a metric; labels count as part of the name.
async fn metric(agent: &TestAgent, name: &str) -> f64 {
    let (status, text) = agent.get("/metrics").await;
    assert_eq!(status, 200);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(f64::NAN, |value| value.parse().unwrap())
}

#[test_log::test(tokio::test)]
async fn a_full_sandbox_is_measured_and_only_by_option_ends_its_task() {
    let line = "head -c 3000000 /dev/zero >data; exec sleep 1000";
    let mut master = FakeMaster::start().await;
    let agent = started(&mut master, |a| a.options.containment = Containment::Cgroup).await;
    master.run(vec![with("t", line, "disk:2")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    until("it is measured", async || {
        let all = statistics(&agent).await;
        all.iter().any(|s| s.disk_used_bytes() > 3_000_000 && s.disk_limit_bytes() == 2 << 20)
    })
    .await;
    until("and summed", async || {
        metric(&agent, "mezz_agent_containers_disk_used_bytes").await > 3e6
    })
    .await;
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;

    let agent = started(&mut master, |a| a.options.monitor.enforce_disk_quota = true).await;
    let unbounded = line.replace("data", "more");
    master.run(vec![with("unbounded", &unbounded, "")]).await;
    master.expect("unbounded", TaskState::TaskRunning).await;
    master.run(vec![with("t", line, "disk:2")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let failed = master.expect("t", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLimitationDisk);
    let message = failed.message.unwrap();
    assert!(message.contains("its disk resource of 2.0 MiB"), "{message}");
    let limited = "mezz_agent_containers_limited_total{resource=\"disk\"}";
    assert_eq!(metric(&agent, limited).await, 1.0);
    master.kill("unbounded", Some(Duration::ZERO)).await;
    master.expect("unbounded", TaskState::TaskKilled).await;
    agent.finish().await;
}

/// The port on which the test below listens.
const LISTEN: &str = "MEZZ_TEST_LISTEN";

/// A program for tasks rather than a test: listens until it is killed.
#[test]
fn listener() {
    let Ok(port) = std::env::var(LISTEN) else { return };
    let _it = std::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    println!("listens");
    std::thread::sleep(Duration::from_secs(1000));
}

fn listen(port: u16) -> String {
    let program = std::env::current_exe().unwrap();
    format!("exec env {LISTEN}={port} {} --exact listener --nocapture", program.display())
}

async fn until_it_listens(agent: &TestAgent, task: &str) {
    let said = async || agent.read(task, "stdout").await.unwrap_or_default();
    until("it listens", async || said().await.contains("listens")).await;
}

#[test_log::test(tokio::test)]
async fn a_listener_on_a_foreign_port_ends_only_by_option_also_after_a_restart() {
    let mut master = FakeMaster::start().await;
    let mut agent = started(&mut master, |a| a.options.monitor.enforce_ports = false).await;
    // Of a range that no other test uses.
    master.run(vec![with("stray", &listen(31007), "ports:[31001-31002]")]).await;
    master.expect("stray", TaskState::TaskRunning).await;
    until_it_listens(&agent, "stray").await;
    master.run(vec![with("holds", &listen(31008), "ports:[31008-31008]")]).await;
    master.expect("holds", TaskState::TaskRunning).await;
    agent.stop().await;
    // What ran under the earlier agent is judged by what it holds, too.
    agent.options.monitor.enforce_ports = true;
    agent.options.monitor.check_agent_port_range_only = true;
    agent.start().await;
    master.welcome().await;
    let failed = master.expect("stray", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLimitation);
    assert_eq!(
        failed.message.as_deref(),
        Some("it listens on TCP port 31007, which it does not hold; it holds ports [31001-31002]")
    );
    // Out of the agent's range, and so not looked at.
    master.run(vec![with("outside", &listen(0), "")]).await;
    master.expect("outside", TaskState::TaskRunning).await;
    until_it_listens(&agent, "outside").await;
    let looks = tokio::time::sleep(Duration::from_millis(300));
    tokio::select! {
        update = master.update() => panic!("{update:?}"),
        () = looks => {}
    }
    for task in ["holds", "outside"] {
        master.kill(task, Some(Duration::ZERO)).await;
        master.expect(task, TaskState::TaskKilled).await;
    }
    agent.finish().await;
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(text).count()
    }
}

#[tokio::test]
async fn abilities_and_stray_listeners_are_logged_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(subscriber);
    let mut master = FakeMaster::start().await;
    let agent = started(&mut master, |_| ()).await;
    assert_eq!(log.count("containers can be run name=\"none\""), 1);
    master.run(vec![with("t", &listen(31006), "")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let report = "goes on: it listens on TCP port 31006, which it does not hold; it holds no ports";
    until("it is reported", async || log.count(report) > 0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(log.count(report), 1);
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn long_logs_are_put_aside_and_followed_over_it() {
    let mut master = FakeMaster::start().await;
    let agent = started(&mut master, |a| a.options.monitor.log_max_bytes = 100_000).await;
    // 600 kB in small steps, so that it is put aside several times.
    let line = "n=0; while [ $n -lt 60 ]; do seq -f '%09.0f' $((n * 1000)) $((n * 1000 + 999)); \
                n=$((n + 1)); sleep 0.1; done";
    master.run(vec![task("t", line)]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let follow = mezz::ReadSandboxRequest { follow: Some(true), ..request("t") };
    let mut stream = agent.api().await.read_sandbox(follow).await.unwrap().into_inner();
    let (mut text, mut end, mut starts) = (Vec::new(), 0, 0);
    while let Some(chunk) = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap()
    {
        if chunk.offset != end {
            assert_eq!(chunk.offset, 0);
            starts += 1;
        }
        end = chunk.offset + chunk.data.len() as u64;
        text.extend(chunk.data);
    }
    master.expect("t", TaskState::TaskFinished).await;
    // What was written in the very moment of a cut is lost, and may tear a line.
    let whole = |line: &str| Some(line).filter(|l| l.len() == 9)?.parse::<u64>().ok();
    let lines: Vec<_> = String::from_utf8(text).unwrap().lines().filter_map(whole).collect();
    assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "nothing comes twice");
    // On a busy machine such a moment may last for several steps.
    assert!(lines.len() > 40_000 && lines.last() == Some(&59_999), "{} lines", lines.len());
    assert!(starts > 1, "put aside {starts} times");
    let names = ["stdout", "stdout.1", "stdout.2"];
    let mut sizes = Vec::new();
    for name in names {
        sizes.push(agent.read("t", name).await.unwrap().len());
    }
    assert!(sizes[0] < 600_000 && sizes[1] >= 100_000 && sizes[2] >= 100_000, "{sizes:?}");
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn totals_are_kept_of_what_containers_used() {
    let mut master = FakeMaster::start().await;
    let agent = started(&mut master, |a| a.options.containment = Containment::Cgroup).await;
    let busy = "n=0; while [ $n -lt 50000 ]; do n=$((n + 1)); done";
    master.run(vec![task("t", busy)]).await;
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    let used = metric(&agent, "mezz_agent_containers_cpu_seconds{mode=\"user\"}").await
        + metric(&agent, "mezz_agent_containers_cpu_seconds{mode=\"system\"}").await;
    assert!(used > 0.01, "{used}");
    master.run(vec![with("greedy", "exec tail /dev/zero", "")]).await;
    master.expect("greedy", TaskState::TaskRunning).await;
    master.expect("greedy", TaskState::TaskFailed).await;
    assert!(metric(&agent, "mezz_agent_containers_oom_kills_total").await >= 1.0);
    master.run(vec![task("lives", "exec sleep 1000")]).await;
    master.expect("lives", TaskState::TaskRunning).await;
    until("the sums are made", async || {
        metric(&agent, "mezz_agent_containers_running{containerizer=\"process\"}").await == 1.0
            && metric(&agent, "mezz_agent_containers_memory_rss_bytes").await > 0.0
    })
    .await;
    master.kill("lives", Some(Duration::ZERO)).await;
    master.expect("lives", TaskState::TaskKilled).await;
    agent.finish().await;
}

/// A file system at a folder, which is made.
struct Disk(PathBuf);

impl Disk {
    fn at(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let none = None::<&str>;
        mount(none, path, Some("tmpfs"), MsFlags::empty(), Some("size=64m"))
            .expect("these tests need the right to mount");
        Self(path.to_path_buf())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test_log::test(tokio::test)]
async fn a_full_disk_takes_the_sandboxes_of_the_ended_and_of_no_other() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    quick(&mut agent);
    let disk = Disk::at(&agent.options.work_dir);
    let orphan = "slaves/S-1/frameworks/F/executors/E/runs/C";
    let orphan = agent.options.work_dir.join(orphan);
    fs::create_dir_all(&orphan).unwrap();
    agent.options.sandbox_retention = Duration::from_secs(7 * 86_400);
    // Of no other test: their disk may be full.
    agent.options.monitor.disk_watch_interval = Duration::from_millis(50);
    agent.start().await;
    master.welcome().await;
    for id in ["ended", "also"] {
        master.run(vec![task(id, "echo out")]).await;
        master.expect(id, TaskState::TaskRunning).await;
        master.expect(id, TaskState::TaskFinished).await;
    }
    master.run(vec![task("runs", "echo alive; exec sleep 1000")]).await;
    master.expect("runs", TaskState::TaskRunning).await;
    until("the disk is looked at", async || {
        let used = metric(&agent, "mezz_agent_work_dir_disk_used_ratio").await;
        used > 0.0 && used < 0.5
    })
    .await;
    assert_eq!(agent.read("ended", "stdout").await.unwrap(), "out\n", "there is room");
    assert!(orphan.exists());
    fs::write(disk.0.join("filling"), vec![1; 60 << 20]).unwrap();
    until("they are gone", async || {
        let gone = agent.read("ended", "stdout").await.is_err()
            && agent.read("also", "stdout").await.is_err();
        gone && !orphan.exists()
    })
    .await;
    let executors = format!("slaves/S0/frameworks/{FRAMEWORK}/executors");
    let left: Vec<_> = fs::read_dir(disk.0.join(executors)).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(agent.read("runs", "stdout").await.unwrap(), "alive\n");
    master.kill("runs", Some(Duration::ZERO)).await;
    master.expect("runs", TaskState::TaskKilled).await;
    agent.finish().await;
    drop(disk);
}
