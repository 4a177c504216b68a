use futures_util::FutureExt;
use mezz::{agent_state::Status as AgentStatus, framework_state::Status as FrameworkStatus};
use mezz_proto::ids::{FrameworkId, TaskId};
use prost::Message;

use super::*;
use crate::core::{ShownAgent, ShownTask};

fn agent(id: &str) -> Change {
    let mut record = mezz::AgentState {
        agent: v1::AgentInfo {
            id: Some(v1::AgentId { value: id.to_owned() }),
            hostname: format!("host-{id}"),
            ..Default::default()
        },
        api_address: Some(format!("{id}:5051")),
        ..Default::default()
    };
    record.set_status(AgentStatus::Active);
    Change::Agent(Box::new(ShownAgent { record, total: Resources::cpus_mem(8.0, 1000.0) }))
}

fn framework(id: &str, status: FrameworkStatus) -> Change {
    let mut record = mezz::FrameworkState {
        framework: v1::FrameworkInfo {
            id: Some(v1::FrameworkId { value: id.to_owned() }),
            ..Default::default()
        },
        ..Default::default()
    };
    record.set_status(status);
    Change::Framework(Box::new(record))
}

fn task(framework: &str, id: &str, agent: &str, state: v1::TaskState) -> Change {
    let mut task = v1::Task {
        name: id.to_owned(),
        task_id: v1::TaskId { value: id.to_owned() },
        framework_id: v1::FrameworkId { value: framework.to_owned() },
        agent_id: v1::AgentId { value: agent.to_owned() },
        resources: Resources::cpus_mem(1.0, 100.0).to_proto(Dialect::Refined, Some("*")),
        ..Default::default()
    };
    task.set_state(state);
    Change::Task(ShownTask {
        framework: framework.into(),
        id: id.into(),
        agent: agent.into(),
        state,
        waits: false,
        resources: Arc::new(Resources::cpus_mem(1.0, 100.0)),
        role: "*".into(),
        record: task.encode_to_vec().into(),
    })
}

fn offer(id: &str, framework: &str, agent: &str, cpus: f64) -> Change {
    Change::Offer(Box::new(mezz::OfferRecord {
        offer: v1::Offer {
            id: v1::OfferId { value: id.to_owned() },
            framework_id: v1::FrameworkId { value: framework.to_owned() },
            agent_id: v1::AgentId { value: agent.to_owned() },
            resources: Resources::cpus_mem(cpus, 0.0).to_proto(Dialect::Refined, Some("*")),
            ..Default::default()
        },
        role: "*".to_owned(),
        made_time: 0.0,
    }))
}

fn events(stream: &mut Subscription) -> Vec<Arc<crate::shell::stream::Told>> {
    stream.next(100).now_or_never().flatten().unwrap_or_default()
}

fn sums(model: &ReadModel) -> Vec<(String, String, String, u32)> {
    let text = |r: &[v1::Resource]| Resources::from_proto(r).unwrap().to_string();
    let agents = model.agents().into_iter().map(|a| {
        (a.agent.id.clone().unwrap().value, text(&a.allocated), text(&a.offered), a.tasks)
    });
    let frameworks = model.frameworks(true).into_iter().map(|f| {
        (f.framework.id.clone().unwrap().value, text(&f.allocated), text(&f.offered), f.tasks)
    });
    agents.chain(frameworks).collect()
}

fn row(id: &str, allocated: &str, offered: &str, tasks: u32) -> (String, String, String, u32) {
    (id.to_owned(), allocated.to_owned(), offered.to_owned(), tasks)
}

use v1::{TaskState::*, task_status::Reason};

#[test]
fn sums_follow_tasks_and_offers() {
    let model = ReadModel::default();
    model.apply(vec![
        agent("a2"),
        agent("a1"),
        framework("f", FrameworkStatus::Active),
        offer("o1", "f", "a1", 3.0),
        offer("o2", "f", "a2", 2.0),
        task("f", "t1", "a1", TaskStaging),
        task("f", "t2", "a1", TaskStaging),
        task("f", "t1", "a1", TaskRunning),
    ]);
    let want = [
        row("a1", "cpus:2; mem:200", "cpus:3", 2),
        row("a2", "", "cpus:2", 0),
        row("f", "cpus:2; mem:200", "cpus:5", 2),
    ];
    assert_eq!(sums(&model), want);
    let share = model.frameworks(false)[0].dominant_share;
    assert!((share - 7.0 / 16.0).abs() < 1e-9, "{share}");
    let totals = model.totals();
    let want =
        Totals { agents_active: 2, frameworks_active: 1, tasks_live: 2, offers_outstanding: 2 };
    assert_eq!(totals, want);

    model.apply(vec![
        Change::OfferRemoved("o1".into()),
        Change::OfferRemoved("never".into()),
        offer("o2", "f", "a2", 1.0), // the same offer told again counts once
        task("f", "t1", "a1", TaskFinished),
        task("f", "t2", "a1", TaskUnreachable),
    ]);
    let want = [row("a1", "", "", 1), row("a2", "", "cpus:1", 0), row("f", "", "cpus:1", 1)];
    assert_eq!(sums(&model), want);

    model.apply(vec![
        task("f", "t2", "a1", TaskRunning),
        Change::TaskRemoved(FrameworkId::new("f"), TaskId::new("t1")),
    ]);
    assert_eq!(sums(&model)[0], row("a1", "cpus:1; mem:100", "", 1));
    model.apply(vec![
        Change::TaskRemoved(FrameworkId::new("f"), TaskId::new("t2")),
        Change::TaskRemoved(FrameworkId::new("f"), TaskId::new("t2")),
    ]);
    assert_eq!(sums(&model)[0], row("a1", "", "", 0));
    assert!(model.tasks_by_state().iter().all(|(_, count)| *count == 0));
}

#[test]
fn a_task_id_used_again_on_another_agent_moves() {
    let model = ReadModel::default();
    model.apply(vec![agent("a1"), agent("a2")]);
    model.apply(vec![task("f", "t", "a1", TaskRunning), task("f", "t", "a2", TaskRunning)]);
    let want = [row("a1", "", "", 0), row("a2", "cpus:1; mem:100", "", 1)];
    assert_eq!(sums(&model), want);
    assert_eq!(model.tasks_by_state(), [("TASK_RUNNING", 1)]);
}

/// Rule 28: its framework knows that the first has ended.
#[test]
fn a_task_id_used_again_on_the_same_agent_is_a_new_task() {
    let model = ReadModel::default();
    model.apply(vec![
        agent("a"),
        task("f", "t", "a", TaskFinished),
        task("f", "u", "a", TaskRunning),
    ]);
    let (_, mut stream) = model.subscribe();
    model.apply(vec![task("f", "t", "a", TaskStaging)]);
    let event = events(&mut stream)[0].event();
    assert_eq!(event.task_added.as_ref().unwrap().task.task_id.value, "t", "{event:?}");
    assert_eq!(sums(&model), [row("a", "cpus:2; mem:200", "", 2)]);
    assert_eq!(
        model.tasks_by_state().into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(),
        [("TASK_RUNNING", 1), ("TASK_STAGING", 1)]
    );
    // It is the newest.
    let newest = model.tasks(&mezz::ListTasksRequest { limit: Some(1), ..Default::default() });
    assert_eq!(newest.tasks[0].task.task_id.value, "t");
}

#[test]
fn nobody_is_told_the_password_of_a_link() {
    let model = ReadModel::default();
    let (_, mut stream) = model.subscribe();
    let Change::Framework(mut linked) = framework("f", FrameworkStatus::Active) else {
        unreachable!()
    };
    linked.framework.webui_url = Some("http://u:hidden@host".to_owned());
    model.apply(vec![Change::Framework(linked)]);
    let told = format!("{:?}{:?}", model.frameworks(true), events(&mut stream));
    assert!(!told.contains("hidden") && told.contains("http://host"), "{told}");
}

#[test]
fn of_long_descriptions_of_executors_little_is_kept() {
    let model = ReadModel::default();
    let executor = |id: &str, variable: usize, data: usize| {
        let mut info = v1::ExecutorInfo {
            executor_id: v1::ExecutorId { value: id.to_owned() },
            name: Some("name".to_owned()),
            data: Some(vec![b'x'; data]),
            ..Default::default()
        };
        info.command.get_or_insert_default().value = Some("v".repeat(variable));
        let held = Arc::new(Resources::cpus_mem(1.0, 0.0));
        Change::Executor("a".into(), "f".into(), id.into(), held, info.into(), "dev".into())
    };
    model.apply([agent("a"), executor("long", 20 << 10, 0), executor("short", 9, 20 << 10)]);
    let snapshot = model.snapshot(Include::ALL);
    let shown = |id: &str| {
        let mut all = snapshot.executors_of("f").iter();
        all.find(|(key, _)| key.2.as_str() == id).unwrap().1.decode().unwrap()
    };
    assert_eq!((shown("long").command, shown("long").name()), (None, "name"));
    assert_eq!((shown("short").command.unwrap().value().len(), shown("short").data), (9, None));
    let role = shown("long").resources[0].allocation_info.clone().unwrap().role;
    assert_eq!(role.as_deref(), Some("dev"));
    assert_eq!(sums(&model)[0], row("a", "cpus:2", "", 0));
    model.apply(
        ["long", "short"].map(|id| Change::ExecutorRemoved("a".into(), "f".into(), id.into())),
    );
    assert_eq!(sums(&model), [row("a", "", "", 0)]);
}

#[test]
fn records_and_sums_may_come_and_go_in_any_order() {
    let model = ReadModel::default();
    model.apply(vec![task("f", "t", "a", TaskRunning), offer("o", "f", "a", 1.0)]);
    assert_eq!(sums(&model), []);
    model.apply(vec![agent("a"), framework("f", FrameworkStatus::Active)]);
    assert_eq!(sums(&model)[0], row("a", "cpus:1; mem:100", "cpus:1", 1));
    model.apply(vec![
        Change::AgentRemoved("a".into()),
        Change::FrameworkRemoved("f".into()),
        Change::OfferRemoved("o".into()),
        Change::TaskRemoved("f".into(), "t".into()),
    ]);
    assert_eq!(sums(&model), []);
    let empty = format!("{:?}", State::default());
    let state = format!("{:?}", model.read());
    let tables = |s: &str| s.split("by_state").next().unwrap().to_owned();
    assert_eq!(tables(&state), tables(&empty), "nothing is kept");
}

/// Rule 81: of agents that are marked gone streams do not tell.
#[test]
fn streams_tell_of_what_came_after_they_joined() {
    use v1::master::event::Type;
    let model = ReadModel::default();
    model.apply(vec![agent("a")]);
    let (_, mut old) = model.subscribe();
    model.apply(vec![agent("b")]);
    let (snapshot, mut new) = model.subscribe();
    assert_eq!(snapshot.agents.len(), 2);
    model.apply(vec![Change::AgentRemoved("a".into()), Change::AgentGone("b".into())]);
    for (stream, wanted) in [
        (&mut old, vec![Type::AgentAdded, Type::AgentRemoved]),
        (&mut new, vec![Type::AgentRemoved]),
    ] {
        let told: Vec<_> = events(stream).iter().map(|told| told.event().r#type()).collect();
        assert_eq!(told, wanted);
    }
}

/// Its state, and states, reasons and results of checks of its statuses.
fn told_task(state: v1::TaskState, statuses: &[(v1::TaskState, Option<Reason>, bool)]) -> Change {
    let Change::Task(mut task) = task("f", "t", "a", state) else { unreachable!() };
    let mut record = task.decode();
    record.statuses = statuses
        .iter()
        .map(|(state, reason, healthy)| v1::TaskStatus {
            task_id: record.task_id.clone(),
            state: *state as i32,
            reason: reason.map(|reason| reason as i32),
            healthy: Some(*healthy),
            ..Default::default()
        })
        .collect();
    task.record = record.encode_to_vec().into();
    Change::Task(task)
}

/// Mesos' `Master::updateTask`.
#[test]
fn streams_tell_of_each_new_state_and_of_each_result_of_a_check() {
    use Reason::*;
    let model = ReadModel::default();
    model.apply([agent("a"), told_task(TaskStaging, &[])]);
    let (_, mut stream) = model.subscribe();
    let mut updated = |change: Change| {
        model.apply([change]);
        let told = events(&mut stream);
        assert!(told.len() < 2, "{told:?}");
        let updated = told.first()?.event().task_updated?;
        Some((updated.state(), updated.status.state(), updated.status.healthy()))
    };
    // It is further than its framework knows.
    let running = (TaskRunning, None, false);
    let told = updated(told_task(TaskRunning, &[running]));
    assert_eq!(told, Some((TaskRunning, TaskRunning, false)));
    assert_eq!(updated(told_task(TaskRunning, &[running])), None, "acknowledged");
    let other = (TaskRunning, Some(Reconciliation), true);
    assert_eq!(updated(told_task(TaskRunning, &[other])), None, "no new state, and no check");
    let well = (TaskRunning, Some(TaskHealthCheckStatusUpdated), true);
    let told = updated(told_task(TaskRunning, &[well]));
    assert_eq!(told, Some((TaskRunning, TaskRunning, true)));
    assert_eq!(updated(told_task(TaskRunning, &[well])), None, "the same again");
    let ill = (TaskRunning, Some(TaskCheckStatusUpdated), false);
    let told = updated(told_task(TaskFinished, &[ill]));
    assert_eq!(told, Some((TaskFinished, TaskRunning, false)));
    let told = updated(told_task(TaskFinished, &[ill, (TaskFinished, None, false)]));
    assert_eq!(told, Some((TaskFinished, TaskFinished, false)));
}

/// Who is not aware of partitions was told that it is lost, and may have forgotten it.
#[test]
fn a_task_that_is_back_is_told_of_as_a_whole() {
    use v1::master::event::Type;
    let model = ReadModel::default();
    model.apply([agent("a"), task("f", "t", "a", TaskRunning)]);
    let (_, mut stream) = model.subscribe();
    let mut told = |state| {
        model.apply([task("f", "t", "a", state)]);
        events(&mut stream).iter().map(|told| told.event().r#type()).collect::<Vec<_>>()
    };
    assert_eq!(told(TaskUnreachable), [Type::TaskUpdated]);
    assert_eq!(told(TaskRunning), [Type::TaskAdded]);
    assert_eq!(told(TaskUnreachable), [Type::TaskUpdated]);
    assert_eq!(told(TaskGoneByOperator), [Type::TaskUpdated]);
}

/// In Mesos FRAMEWORK_UPDATED says that it has subscribed again, or has changed.
#[test]
fn streams_do_not_tell_that_a_framework_is_away() {
    use v1::master::event::Type;
    let model = ReadModel::default();
    let (_, mut stream) = model.subscribe();
    let mut told = |status| {
        model.apply([framework("f", status)]);
        events(&mut stream).iter().map(|told| told.event().r#type()).collect::<Vec<_>>()
    };
    assert_eq!(told(FrameworkStatus::Active), [Type::FrameworkAdded]);
    assert_eq!(told(FrameworkStatus::Disconnected), []);
    assert_eq!(told(FrameworkStatus::Active), [Type::FrameworkUpdated]);
    assert_eq!(told(FrameworkStatus::Disconnected), []);
    assert_eq!(told(FrameworkStatus::Completed), [Type::FrameworkRemoved]);
    assert_eq!(told(FrameworkStatus::Completed), []);
}

#[test]
fn tasks_are_found_sorted_and_cut() {
    let model = ReadModel::default();
    model.apply(vec![
        agent("a1"),
        task("f2", "x", "a1", TaskRunning),
        task("f1", "b", "a1", TaskRunning),
        task("f1", "a", "a2", TaskRunning),
        task("f1", "done", "a1", TaskFailed),
    ]);
    let ids = |request: mezz::ListTasksRequest| -> Vec<String> {
        model
            .tasks(&request)
            .tasks
            .into_iter()
            .map(|r| format!("{}/{}", r.task.framework_id.value, r.task.task_id.value))
            .collect()
    };
    let text = |s: &str| Some(s.to_owned());
    assert_eq!(ids(Default::default()), ["f1/a", "f1/b", "f2/x"]);
    assert_eq!(
        ids(mezz::ListTasksRequest { completed: Some(true), ..Default::default() }),
        ["f1/a", "f1/b", "f1/done", "f2/x"]
    );
    assert_eq!(
        ids(mezz::ListTasksRequest { framework_id: text("f2"), ..Default::default() }),
        ["f2/x"]
    );
    assert_eq!(
        ids(mezz::ListTasksRequest { agent_id: text("a2"), ..Default::default() }),
        ["f1/a"]
    );
    assert_eq!(ids(mezz::ListTasksRequest { task_id: text("b"), ..Default::default() }), ["f1/b"]);
    assert_eq!(
        ids(mezz::ListTasksRequest { limit: Some(2), ..Default::default() }),
        ["f1/a", "f1/b"]
    );
    assert_eq!(
        ids(mezz::ListTasksRequest { framework_id: text("no"), ..Default::default() }),
        Vec::<String>::new()
    );
    let records = model.tasks(&Default::default()).tasks;
    assert_eq!(records[1].agent_hostname.as_deref(), Some("host-a1"));
    assert_eq!(records[1].agent_api_address.as_deref(), Some("a1:5051"));
    assert_eq!(records[0].agent_hostname, None);
}

/// However many there are, and are asked for.
#[test]
fn lists_of_tasks_end() {
    let model = ReadModel::default();
    let most = MAX_LISTED_TASKS as usize;
    model.apply((0..most).map(|n| task("f", &n.to_string(), "a", TaskRunning)));
    let list = |limit| model.tasks(&mezz::ListTasksRequest { limit, ..Default::default() });
    assert_eq!((list(None).tasks.len(), list(None).truncated), (most, None));
    model.apply([task("f", "newest", "a", TaskRunning)]);
    let cut = list(Some(u32::MAX));
    assert_eq!((cut.tasks.len(), cut.truncated), (most, Some(true)));
    assert_eq!(cut.tasks[0].task.task_id.value, "newest");
    // What was asked for is all there.
    assert_eq!(list(Some(1)).truncated, None);
}

#[test]
fn completed_frameworks_and_offers_are_listed() {
    let model = ReadModel::default();
    model.apply(vec![
        framework("b", FrameworkStatus::Completed),
        framework("a", FrameworkStatus::Disconnected),
        offer("o2", "a", "x", 1.0),
        offer("o1", "a", "x", 1.0),
    ]);
    assert_eq!(model.frameworks(false).len(), 1);
    let ids: Vec<_> =
        model.frameworks(true).into_iter().map(|f| f.framework.id.unwrap().value).collect();
    assert_eq!(ids, ["a", "b"]);
    let offers: Vec<_> = model.offers().into_iter().map(|o| o.offer.id.value).collect();
    assert_eq!(offers, ["o1", "o2"]);
}
