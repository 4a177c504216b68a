//! Frameworks on a cluster inside this process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../examples/batch_queue/queue.rs"]
mod queue;

use std::time::Duration;

use mezz_sdk::{
    build::{CommandBuilder, ExecutorBuilder, FrameworkBuilder, TaskBuilder},
    matcher::{self, Want},
    resources::Resources,
    scheduler::{AcknowledgeMode, Event, Events, Scheduler, SchedulerOptions},
    testing::{Behaviour, TestCluster},
    v1::{self, TaskState},
};
use queue::{Job, Summary};

const SECOND: Duration = Duration::from_secs(1);

fn resources(text: &str) -> Resources {
    Resources::parse(text).unwrap()
}

/// A framework that may be away for ten minutes.
fn options() -> SchedulerOptions {
    let framework = FrameworkBuilder::new("test")
        .user("nobody")
        .failover_timeout(600 * SECOND)
        .checkpoint(true)
        .build();
    SchedulerOptions::new(["unused:1"], framework)
}

fn connect(cluster: &TestCluster) -> (Scheduler, Events) {
    cluster.connect(options()).unwrap()
}

fn job(total: usize) -> Job {
    Job {
        total,
        parallel: 4,
        retries: 3,
        resources: resources("cpus:1;mem:64"),
        command: "true".to_owned(),
    }
}

/// Runs a job of 20 runs of 5 s each on three agents, while `trouble` happens.
async fn run_through(
    trouble: impl AsyncFnOnce(&TestCluster),
) -> (anyhow::Result<Summary>, Vec<String>) {
    let cluster = TestCluster::start();
    for host in ["a", "b", "c"] {
        cluster.add_agent(host, resources("cpus:2;mem:1024;ports:[31000-31099]"));
    }
    cluster.on_launch(|_| Behaviour::finish_after(5 * SECOND));
    let (scheduler, mut events) = connect(&cluster);
    let mut lines = Vec::new();
    let run = queue::run(&scheduler, &mut events, job(20), |line| lines.push(line));
    let (result, ()) = tokio::join!(run, trouble(&cluster));
    drop(events);
    (result, lines)
}

#[tokio::test(start_paused = true)]
async fn the_queue_runs_to_its_end() {
    let start = tokio::time::Instant::now();
    let (result, lines) = run_through(async |_| {}).await;
    assert_eq!(result.unwrap(), Summary { done: 20, retried: 0 });
    assert_eq!(lines.last().unwrap(), "20/20 done");
    let took = start.elapsed();
    assert!(took >= 25 * SECOND && took < 27 * SECOND, "five rounds of 5 s: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn two_runs_are_the_same() {
    let trouble = async |cluster: &TestCluster| {
        cluster.advance(7 * SECOND).await;
        cluster.restart_master();
    };
    let (_, first) = run_through(trouble).await;
    let (_, second) = run_through(trouble).await;
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn the_queue_survives_master_restarts() {
    let (result, lines) = run_through(async |cluster| {
        for _ in 0..3 {
            cluster.advance(6 * SECOND).await;
            cluster.restart_master();
        }
        cluster.advance(3 * SECOND).await;
        cluster.stop_master();
        cluster.advance(20 * SECOND).await;
        cluster.start_master();
    })
    .await;
    assert_eq!(result.unwrap(), Summary { done: 20, retried: 0 }, "{lines:#?}");
    assert!(lines.iter().any(|l| l.starts_with("disconnected")), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_queue_survives_the_loss_of_an_agent() {
    let (result, lines) = run_through(async |cluster| {
        cluster.advance(2 * SECOND).await;
        cluster.kill_agent("a");
    })
    .await;
    let summary = result.unwrap();
    assert_eq!(summary.done, 20);
    assert!(summary.retried > 0, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_queue_survives_failing_tasks_but_not_without_end() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    // Every first attempt fails.
    cluster.on_launch(|task| match task.task_id.value.ends_with("-0") {
        true => Behaviour::fail_after(SECOND),
        false => Behaviour::finish_after(SECOND),
    });
    let (scheduler, mut events) = connect(&cluster);
    let summary = queue::run(&scheduler, &mut events, job(6), |_| {}).await.unwrap();
    assert_eq!(summary, Summary { done: 6, retried: 6 });
    cluster.on_launch(|_| Behaviour::fail_after(SECOND));
    let (scheduler, mut events) = connect(&cluster);
    let error = queue::run(&scheduler, &mut events, job(1), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("failed 4 times"), "{error}");
}

/// Launches one task and waits until it runs.
async fn one_running_task(cluster: &TestCluster) -> (Scheduler, Events) {
    one_running(cluster, options(), TaskBuilder::new("t").shell("sleep 9")).await
}

async fn one_running(
    cluster: &TestCluster,
    options: SchedulerOptions,
    task: TaskBuilder,
) -> (Scheduler, Events) {
    let (scheduler, mut events) = cluster.connect(options).unwrap();
    let want = [Want { resources: resources("cpus:1;mem:64"), count: 1, ..Want::default() }];
    loop {
        match events.next().await.unwrap() {
            Event::Offers(offers) => {
                for launch in matcher::place(&offers, &want).unwrap().launches {
                    let task = task.clone().place(&launch.tasks[0]);
                    scheduler.launch(launch.offers, vec![task.unwrap()]).await.unwrap();
                }
                scheduler.suppress(&[]).await.unwrap();
            }
            Event::Update(status) if status.state() == TaskState::TaskRunning => {
                return (scheduler, events);
            }
            _ => {}
        }
    }
}

/// The states that are seen from now on, until one of them is `last`.
async fn states_until(events: &mut Events, last: TaskState) -> Vec<TaskState> {
    let mut states = Vec::new();
    while states.last() != Some(&last) {
        if let Event::Update(status) = events.next().await.unwrap() {
            states.push(status.state());
        }
    }
    states
}

#[tokio::test(start_paused = true)]
async fn a_kill_reaches_a_task_over_a_master_restart() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let (scheduler, mut events) = one_running_task(&cluster).await;
    cluster.stop_master();
    while !matches!(events.next().await, Some(Event::Disconnected { .. })) {}
    let task = v1::TaskId { value: "t".to_owned() };
    scheduler.kill(task, None, None).await.unwrap();
    cluster.advance(5 * SECOND).await;
    assert_eq!(cluster.tasks().await[0].state, TaskState::TaskRunning);
    cluster.start_master();
    states_until(&mut events, TaskState::TaskKilled).await;
    // Its acknowledgement lets the agent forget the task.
    let waiting = tokio::spawn(async move { events.next().await });
    cluster.advance(SECOND).await;
    assert!(cluster.tasks().await.is_empty());
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_agent_is_unreachable_and_comes_back() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let (_scheduler, mut events) = one_running_task(&cluster).await;
    cluster.partition_agent("a");
    states_until(&mut events, TaskState::TaskUnreachable).await;
    cluster.heal_agent("a");
    states_until(&mut events, TaskState::TaskRunning).await;
    cluster.end_task("t", TaskState::TaskFinished, "done");
    states_until(&mut events, TaskState::TaskFinished).await;
}

#[tokio::test(start_paused = true)]
async fn teardown_ends_the_tasks() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let (scheduler, _events) = one_running_task(&cluster).await;
    assert_eq!(cluster.tasks().await.len(), 1);
    scheduler.teardown().await.unwrap();
    assert!(cluster.tasks().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_cluster_ends_its_frameworks() {
    let cluster = TestCluster::start();
    let (_scheduler, mut events) = connect(&cluster);
    assert!(matches!(events.next().await, Some(Event::Subscribed { .. })));
    drop(cluster);
    loop {
        match events.next().await.unwrap() {
            Event::Error(message) => break assert!(message.contains("stopped")),
            Event::Disconnected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_takes_the_framework_over() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let (_first, mut first_events) = one_running_task(&cluster).await;
    let mut options = options();
    // The first framework of the first master.
    let id = "00000000-0000-4000-8000-000000000001-0000".to_owned();
    options.framework.id = Some(v1::FrameworkId { value: id.clone() });
    let (_second, mut events) = cluster.connect(options).unwrap();
    match events.next().await {
        Some(Event::Subscribed { framework_id, .. }) => assert_eq!(framework_id.value, id),
        other => panic!("{other:?}"),
    }
    assert_eq!(states_until(&mut events, TaskState::TaskRunning).await.len(), 1);
    loop {
        match first_events.next().await {
            Some(Event::Error(message)) => break assert!(message.contains("failed over")),
            Some(_) => {}
            None => panic!("the first process was not told"),
        }
    }
    assert_eq!(first_events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_is_shut_down_fails_its_tasks() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let executor = ExecutorBuilder::new("e", CommandBuilder::argv(["/bin/executor"]))
        .resources(&resources("cpus:0.1;mem:32"));
    let task = TaskBuilder::new("t").executor(executor);
    let (scheduler, mut events) = one_running(&cluster, options(), task).await;
    let agent = v1::AgentId { value: "00000000-0000-4000-8000-000000000001-S0".to_owned() };
    let executor = v1::ExecutorId { value: "e".to_owned() };
    scheduler.shutdown_executor(executor.clone(), agent.clone()).await.unwrap();
    let (mut failed, mut told) = (false, false);
    while !failed || !told {
        match events.next().await.unwrap() {
            Event::Update(status) => failed |= status.state() == TaskState::TaskFailed,
            Event::Failure { agent_id, executor_id, .. } => {
                assert_eq!((agent_id, executor_id), (Some(agent.clone()), Some(executor.clone())));
                told = true;
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_comes_again_until_it_is_acknowledged() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let explicit = SchedulerOptions { acknowledge: AcknowledgeMode::Explicit, ..options() };
    let task = TaskBuilder::new("t").shell("sleep 9");
    let (scheduler, mut events) = one_running(&cluster, explicit, task).await;
    cluster.end_task("t", TaskState::TaskFinished, "done");
    let again = loop {
        if let Event::Update(status) = events.next().await.unwrap() {
            break status;
        }
    };
    assert_eq!(again.state(), TaskState::TaskRunning, "one update is in flight at a time");
    scheduler.acknowledge(&again).await.unwrap();
    let last = loop {
        if let Event::Update(status) = events.next().await.unwrap() {
            break status;
        }
    };
    assert_eq!(last.state(), TaskState::TaskFinished);
    assert_eq!(cluster.tasks().await.len(), 1);
    scheduler.acknowledge(&last).await.unwrap();
    cluster.advance(SECOND).await;
    assert!(cluster.tasks().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_framework_that_stays_away_is_ended_with_its_tasks() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let (scheduler, _events) = one_running_task(&cluster).await;
    scheduler.stop().await.unwrap();
    cluster.advance(599 * SECOND).await;
    assert_eq!(cluster.tasks().await.len(), 1);
    cluster.advance(2 * SECOND).await;
    assert!(cluster.tasks().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_before_the_subscription_counts() {
    let cluster = TestCluster::start();
    cluster.add_agent("a", resources("cpus:4;mem:1024"));
    let (scheduler, mut events) = connect(&cluster);
    scheduler.suppress(&[]).await.unwrap();
    assert!(matches!(events.next().await, Some(Event::Subscribed { .. })));
    let next = tokio::time::timeout(60 * SECOND, events.next()).await;
    // An offer may have been on its way, but none comes after that.
    if let Ok(event) = next {
        let Some(Event::Offers(offers)) = event else { panic!("{event:?}") };
        let ids = offers.into_iter().map(|o| o.id).collect();
        scheduler.decline(ids, Some(Duration::ZERO)).await.unwrap();
        let next = tokio::time::timeout(60 * SECOND, events.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
    scheduler.revive(&[]).await.unwrap();
    assert!(matches!(events.next().await, Some(Event::Offers(_))));
}
