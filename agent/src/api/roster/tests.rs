use std::iter;

use super::*;
use crate::core::Token;

fn task(id: &str, executor: Option<&str>) -> v1::Task {
    v1::Task {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        framework_id: v1::FrameworkId { value: "F".into() },
        executor_id: executor.map(|id| v1::ExecutorId { value: id.into() }),
        ..Default::default()
    }
}

fn key(id: &str) -> TaskKey {
    TaskKey { framework: "F".into(), task: TaskId::new(id) }
}

fn framework(id: &str) -> Change {
    let id = Some(v1::FrameworkId { value: id.into() });
    Change::Framework(Box::new(v1::FrameworkInfo { id, ..Default::default() }))
}

fn command_task(id: &str) -> Change {
    let own = Some((ContainerId::new(format!("c-{id}")), format!("Command Executor {id}")));
    Change::Task { task: Box::new(task(id, None)), own, queued: false }
}

fn updated(id: &str, state: TaskState) -> Change {
    let status = v1::TaskStatus { state: state.into(), ..Default::default() };
    Change::TaskUpdated { task: key(id), state, status: Box::new(status) }
}

fn roster(changes: impl IntoIterator<Item = Change>) -> Roster {
    let roster = Roster::default();
    for change in changes {
        roster.apply(&change);
    }
    roster
}

fn ids<'a>(tasks: impl Iterator<Item = &'a v1::Task>) -> Vec<&'a str> {
    tasks.map(|task| &*task.task_id.value).collect()
}

#[test]
fn a_command_task_is_its_own_executor() {
    let roster = roster([framework("F"), command_task("a"), updated("a", TaskState::TaskRunning)]);
    let all = roster.frameworks();
    let executor = &all.active[0].executors[0];
    assert_eq!(executor.info.executor_id.value, "a");
    assert_eq!((executor.info.source(), executor.container.as_str()), ("a", "c-a"));
    assert_eq!(ids(executor.launched()), ["a"]);
    assert!(executor.is_running());

    roster.apply(&updated("a", TaskState::TaskFinished));
    let all = roster.frameworks();
    let executor = &all.active[0].executors[0];
    assert!(!executor.is_running(), "though its end is not acknowledged");
    assert_eq!((ids(executor.launched()).len(), ids(executor.terminated())), (0, vec!["a"]));

    roster.apply(&Change::TaskForgotten(key("a")));
    let all = roster.frameworks();
    assert!(all.active[0].executors.is_empty());
    assert_eq!(roster.totals().executors_terminated, 1);
    assert_eq!(ids(all.active[0].completed[0].completed()), ["a"]);

    roster.apply(&Change::FrameworkForgotten("F".into()));
    let all = roster.frameworks();
    assert!(all.active.is_empty());
    assert_eq!(ids(all.completed[0].completed[0].completed()), ["a"]);

    // It comes back with what it had.
    roster.apply(&framework("F"));
    let all = roster.frameworks();
    assert_eq!((all.completed.len(), all.active[0].completed.len()), (0, 1));
    assert_eq!(roster.totals().ended[&TaskState::TaskFinished], 1);
}

#[test]
fn an_executor_lasts_until_its_last_update_is_acknowledged() {
    let executor = ExecutorKey { framework: "F".into(), executor: "E".into() };
    let added = Change::ExecutorAdded {
        executor: executor.clone(),
        container: "c".into(),
        token: Token("secret".into()),
        info: Box::new(v1::ExecutorInfo {
            executor_id: v1::ExecutorId { value: "E".into() },
            data: Some(b"secret".to_vec()),
            ..Default::default()
        }),
    };
    let queued = Change::Task { task: Box::new(task("a", Some("E"))), own: None, queued: true };
    // The core tells of the task first.
    let roster = roster([framework("F"), queued, added]);
    let all = roster.frameworks();
    let shown = &all.active[0].executors[0];
    assert_eq!((shown.container.as_str(), &shown.info.data), ("c", &None));
    assert_eq!(ids(shown.queued()), ["a"]);
    roster.apply(&Change::TaskLaunched(key("a")));
    assert_eq!(ids(roster.frameworks().active[0].executors[0].launched()), ["a"]);

    roster.apply(&updated("a", TaskState::TaskFailed));
    roster.apply(&Change::ExecutorForgotten(executor));
    assert_eq!(roster.frameworks().active[0].executors.len(), 1);
    roster.apply(&Change::TaskForgotten(key("a")));
    let all = roster.frameworks();
    assert_eq!((all.active[0].executors.len(), all.active[0].completed.len()), (0, 1));
    // What a reader took does not change under it.
    assert_eq!(ids(shown.queued()), ["a"]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let roster = roster([framework("F")]);
    let long = "x".repeat(100_000);
    for n in 0..MAX_ALL_TASKS + 500 {
        let id = n.to_string();
        let mut of = task(&id, Some("E"));
        of.labels = Some(v1::Labels { labels: vec![v1::Label { key: long.clone(), value: None }] });
        roster.apply(&Change::Task { task: Box::new(of), own: None, queued: false });
        roster.apply(&updated(&id, TaskState::TaskFinished));
        roster.apply(&Change::TaskForgotten(key(&id)));
    }
    let all = roster.frameworks();
    let executor = &all.active[0].executors[0];
    assert_eq!(executor.completed().count(), MAX_TASKS);
    assert!(executor.completed().all(|task| task.labels.is_none()), "and small");

    for n in 0..MAX_EXECUTORS + 5 {
        let id = format!("c{n}");
        roster.apply(&command_task(&id));
        roster.apply(&updated(&id, TaskState::TaskFinished));
        roster.apply(&Change::TaskForgotten(key(&id)));
    }
    assert_eq!(roster.frameworks().active[0].completed.len(), MAX_EXECUTORS);

    for n in 0..MAX_FRAMEWORKS + 5 {
        let id = format!("F{n}");
        roster.apply(&framework(&id));
        roster.apply(&Change::FrameworkForgotten(FrameworkId::new(id)));
    }
    assert_eq!(roster.frameworks().completed.len(), MAX_FRAMEWORKS);
}

#[test]
fn a_state_that_repeats_is_kept_once() {
    let states = iter::repeat_n(updated("a", TaskState::TaskRunning), 3);
    let roster = roster([framework("F"), command_task("a")].into_iter().chain(states));
    let all = roster.frameworks();
    let executor = &all.active[0].executors[0];
    assert_eq!(executor.launched().next().map(|task| task.statuses.len()), Some(1));
}
