use super::*;

fn agent() -> v1::AgentId {
    v1::AgentId { value: "S0".to_owned() }
}

fn status(id: &str, state: v1::TaskState, message: &str) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: v1::TaskId { value: id.to_owned() },
        state: state as i32,
        message: Some(message.to_owned()),
        source: Some(v1::task_status::Source::Agent as i32),
        ..Default::default()
    }
}

fn launched(instances: usize) -> Job {
    let mut job = Job::new("hello", instances);
    for _ in 0..instances {
        job.launch(&agent(), "web1").unwrap();
    }
    job
}

#[test]
fn all_finished_is_success() {
    let mut job = launched(2);
    assert_eq!((job.pending(), job.is_over()), (0, false));
    let news = job.update(&status("hello-1", v1::TaskState::TaskRunning, "")).unwrap();
    assert_eq!((news.text.as_str(), news.output_at), ("TASK_RUNNING on web1", Some(agent())));
    let news = job.update(&status("hello-1", v1::TaskState::TaskFinished, "")).unwrap();
    assert_eq!((news.text.as_str(), news.output_at), ("TASK_FINISHED", None));
    assert!(!job.is_over());
    // So quick that nobody saw it run: its output is there all the same.
    let news = job.update(&status("hello-2", v1::TaskState::TaskFinished, "")).unwrap();
    assert_eq!(news.output_at, Some(agent()));
    assert!(job.is_over());
    assert_eq!(job.exit_status(), 0);
    assert_eq!(job.summary(), "2 TASK_FINISHED");
}

#[test]
fn the_first_failure_gives_the_exit_status() {
    let mut job = launched(3);
    let failed = v1::TaskState::TaskFailed;
    let news = job.update(&status("hello-2", failed, "exited with status 3")).unwrap();
    assert_eq!(news.text, "TASK_FAILED: exited with status 3");
    job.update(&status("hello-1", failed, "exited with status 4"));
    assert!(!job.is_over());
    job.update(&status("hello-3", v1::TaskState::TaskFinished, ""));
    assert!(job.is_over());
    assert_eq!(job.exit_status(), 3);
}

#[test]
fn other_ends_are_failures_too() {
    for (state, message) in [
        (v1::TaskState::TaskFailed, "out of memory: the limit is 64.0 MiB"),
        (v1::TaskState::TaskKilled, ""),
        (v1::TaskState::TaskError, "task uses more than was offered"),
        (v1::TaskState::TaskGone, ""),
    ] {
        let mut job = launched(1);
        job.update(&status("hello-1", state, message));
        assert!(job.is_over());
        assert_eq!(job.exit_status(), 1, "{state:?}");
    }
}

#[test]
fn what_never_started_is_launched_again_but_not_for_ever() {
    let mut job = launched(1);
    for launch in 2..=MAX_LAUNCHES {
        let id = if launch == 2 { "hello-1".to_owned() } else { format!("hello-1.{}", launch - 1) };
        let news = job.update(&status(&id, v1::TaskState::TaskDropped, "")).unwrap();
        assert_eq!(news.output_at, None);
        assert_eq!(job.pending(), 1);
        assert_eq!(job.launch(&agent(), "web1"), Some(format!("hello-1.{launch}")));
    }
    job.update(&status("hello-1.5", v1::TaskState::TaskDropped, ""));
    assert!(job.is_over());
    assert_eq!(job.exit_status(), 1);
}

#[test]
fn repeated_and_foreign_updates_are_no_news() {
    let mut job = launched(1);
    assert!(job.update(&status("hello-1", v1::TaskState::TaskRunning, "")).is_some());
    assert_eq!(job.update(&status("hello-1", v1::TaskState::TaskRunning, "")), None);
    assert_eq!(job.update(&status("other", v1::TaskState::TaskRunning, "")), None);
}

#[test]
fn a_killed_job_waits_for_its_live_tasks_only() {
    let mut job = Job::new("hello", 2);
    job.launch(&agent(), "web1");
    assert_eq!(job.kill(), [("hello-1".to_owned(), agent())]);
    assert_eq!((job.pending(), job.is_over()), (0, false));
    job.update(&status("hello-1", v1::TaskState::TaskKilled, ""));
    assert!(job.is_over());
    assert_eq!(job.exit_status(), 1);
}

#[test]
fn an_end_that_is_only_retold_waits_for_the_agent_s_own_update() {
    let mut job = launched(1);
    let mut retold = status("hello-1", v1::TaskState::TaskFailed, "latest known state");
    retold.reason = Some(v1::task_status::Reason::Reconciliation as i32);
    assert_eq!(job.update(&retold), None);
    assert!(!job.is_over());
    job.update(&status("hello-1", v1::TaskState::TaskFailed, "exited with status 3"));
    assert_eq!((job.is_over(), job.exit_status()), (true, 3));
    let mut job = launched(1);
    let mut gone = status("hello-1", v1::TaskState::TaskGone, "");
    gone.reason = Some(v1::task_status::Reason::Reconciliation as i32);
    job.update(&gone);
    assert!(job.is_over());
}
