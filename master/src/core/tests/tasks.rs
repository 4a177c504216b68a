//! Tasks' life.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message, master_message::Message},
    v1::{
        self, TaskState,
        scheduler::{self, call},
        task_status::Reason,
    },
};

use super::env::{Env, SchedulerEvent, command_task, executor, executor_task, text};
use crate::core::{Effects, Event};

fn with_task() -> Env {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.offers("f1");
    env.agent_inbox("a1");
    env.inbox("f1");
    env
}

#[test]
fn a_task_leaves_the_list_when_its_last_update_is_acknowledged() {
    let mut env = with_task();
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    assert_eq!(env.live_tasks().len(), 1);
    let update = env.update("f1");
    env.acknowledge("f1", &update);
    assert!(env.live_tasks().is_empty());
    assert!(matches!(env.agent_inbox("a1")[..], [Message::Acknowledgement(_)]));
    let ended: Vec<_> = env.core.counters().tasks_ended.iter().collect();
    assert_eq!(ended, [("TASK_FINISHED", 1)]);
    // A finished id may be used again (rule 28).
    let offer = env.offers("f1").pop().unwrap();
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:64")]);
    assert_eq!(env.live_tasks().len(), 1);
}

/// Rule 36.
#[test]
fn the_latest_state_frees_resources_before_the_framework_knows() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:4;mem:1024")]);
    assert!(env.offers("f1").is_empty());
    env.report_late("a1", "f1", "t1", TaskState::TaskRunning, TaskState::TaskFinished);
    assert_eq!(env.update("f1").state(), TaskState::TaskRunning);
    assert_eq!(text(&env.offer("f1").resources), "cpus:4; mem:1024");
    // Rule 38: reconciliation answers what the framework has not acknowledged.
    env.reconcile("f1", &[("t1", None)]);
    assert_eq!(env.update("f1").state(), TaskState::TaskRunning);
}

#[test]
fn updates_wait_for_a_framework_that_is_away() {
    let mut env = with_task();
    env.framework_leaves("f1");
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    assert!(env.updates("f1").is_empty());
    env.subscribe("f1");
    // The agent sends it again.
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    let update = env.update("f1");
    env.acknowledge("f1", &update);
    assert!(env.live_tasks().is_empty());
}

#[test]
fn an_acknowledgement_of_something_else_changes_nothing() {
    let mut env = with_task();
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    let update = env.update("f1");
    let other = v1::TaskStatus { uuid: Some(vec![9; 16]), ..update };
    env.acknowledge("f1", &other);
    assert_eq!(env.live_tasks().len(), 1);
}

#[test]
fn an_update_without_a_proper_uuid_ends_the_link() {
    let mut env = with_task();
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: "t1".to_owned() },
        state: TaskState::TaskRunning as i32,
        uuid: Some(vec![1]),
        ..Default::default()
    };
    let update = mezz::StatusUpdate {
        framework_id: v1::FrameworkId { value: env.framework_id("f1") },
        latest_state: status.state,
        status,
    };
    env.agent_says("a1", agent_message::Message::StatusUpdate(update));
    assert!(env.agents["a1"].connection.is_none());
    assert_eq!(env.core.counters().agents_disconnected, 1);
}

/// Rule 39.
#[test]
fn kill() {
    let mut env = with_task();
    env.kill("f1", "t1");
    let told = env.agent_inbox("a1");
    assert!(matches!(&told[..], [Message::KillTask(k)] if k.task_id.value == "t1"), "{told:?}");
    env.kill("f1", "nothing");
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskUnknown);
    assert_eq!(update.reason(), Reason::Reconciliation);
    // With another agent's id it is ignored.
    let kill = call::Kill {
        task_id: v1::TaskId { value: "t1".to_owned() },
        agent_id: Some(v1::AgentId { value: "other".to_owned() }),
        kill_policy: None,
    };
    env.call("f1", call::Type::Kill, |c| c.kill = Some(kill));
    assert!(env.agent_inbox("a1").is_empty() && env.updates("f1").is_empty());
}

/// Rule 38.
#[test]
fn reconciliation_answers_each_case() {
    let mut env = with_task();
    let a1 = env.agent_id("a1");
    let answer = |env: &mut Env, task: &str, agent: Option<&str>| {
        env.updates("f1");
        env.reconcile("f1", &[(task, agent)]);
        let updates = env.updates("f1");
        assert!(updates.iter().all(|u| u.uuid.is_none() && u.reason() == Reason::Reconciliation));
        updates.first().map(v1::TaskStatus::state)
    };
    assert_eq!(answer(&mut env, "t1", None), Some(TaskState::TaskRunning));
    assert_eq!(answer(&mut env, "x", Some(&a1)), Some(TaskState::TaskGone));
    assert_eq!(answer(&mut env, "x", Some("other")), Some(TaskState::TaskUnknown));
    assert_eq!(answer(&mut env, "x", None), Some(TaskState::TaskUnknown));
    env.reconcile("f1", &[]);
    assert_eq!(env.update("f1").task_id.value, "t1");

    env.restart_master();
    env.subscribe("f1");
    assert_eq!(answer(&mut env, "t1", Some(&a1)), None, "the agent may still bring it");
    assert_eq!(answer(&mut env, "t1", None), None);
    env.pass(std::time::Duration::from_secs(601));
    assert_eq!(answer(&mut env, "t1", Some(&a1)), Some(TaskState::TaskUnreachable));
}

/// A write of what became of an agent may be under way, and the next leader would not know
/// of it (found by the simulation).
#[test]
fn who_asks_for_tasks_that_are_not_there_hears_nothing_that_is_not_written() {
    let mut env = with_task();
    let (a1, id) = (env.agent_id("a1"), env.frameworks["f1"].info.id.clone());
    let reconcile = |env: &mut Env, tasks: &[&str]| {
        let named = tasks.iter().map(|task| call::reconcile::Task {
            task_id: v1::TaskId { value: (*task).to_owned() },
            agent_id: Some(v1::AgentId { value: a1.clone() }),
        });
        let call = scheduler::Call {
            framework_id: id.clone(),
            r#type: Some(call::Type::Reconcile as i32),
            reconcile: Some(call::Reconcile { tasks: named.collect() }),
            ..Default::default()
        };
        let connection = env.frameworks["f1"].connection.unwrap();
        let mut out = Effects::default();
        let event = Event::SchedulerCall { connection, call: Box::new(call) };
        env.core.handle(env.now, event, &mut out);
        (out.now.len(), out.after_persist.len(), out.waits)
    };
    assert_eq!(reconcile(&mut env, &["t1"]), (1, 0, false));
    // The order of a connection is kept.
    assert_eq!(reconcile(&mut env, &["t1", "x"]), (0, 2, true));
    env.agent_link_breaks("a1");
    env.pass(std::time::Duration::from_secs(601));
    for task in ["t1", "x"] {
        assert_eq!(reconcile(&mut env, &[task]), (0, 1, true), "{task}");
    }
}

#[test]
fn without_partition_aware_every_such_answer_is_lost() {
    let mut env = Env::new();
    env.agent("a1", "cpus:1;mem:64");
    env.describe_framework("f1", &["ads"]);
    env.frameworks.get_mut("f1").unwrap().info.capabilities.truncate(1);
    env.subscribe("f1");
    let a1 = env.agent_id("a1");
    for agent in [None, Some(a1.as_str()), Some("other")] {
        env.reconcile("f1", &[("x", agent)]);
        assert_eq!(env.update("f1").state(), TaskState::TaskLost);
    }
}

/// Rules 28, 40, 41 and 42.
#[test]
fn an_executor_is_charged_once_and_its_end_is_told() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    let own = executor("e1", "cpus:1;mem:100");
    let tasks = ["t1", "t2"].map(|id| executor_task(id, &offer, "cpus:1;mem:100", &own));
    env.launch("f1", &offer, tasks.into());
    assert!(env.updates("f1").is_empty());
    let offer = env.offer("f1");
    assert_eq!(text(&offer.resources), "cpus:1; mem:724");
    assert_eq!(offer.executor_ids[0].value, "e1");

    // Another executor with the same id is refused.
    let other = executor("e1", "cpus:0.5;mem:100");
    env.launch("f1", &offer, vec![executor_task("t3", &offer, "cpus:0.1;mem:1", &other)]);
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskError);
    assert!(update.message().starts_with("executor:"), "{}", update.message());
    env.offer("f1");

    let framework_id = v1::FrameworkId { value: env.framework_id("f1") };
    let executor_id = v1::ExecutorId { value: "e1".to_owned() };
    let agent_id = v1::AgentId { value: env.agent_id("a1") };
    env.agent_inbox("a1");
    env.inbox("f1");
    env.call("f1", call::Type::Message, |c| {
        c.message = Some(call::Message {
            agent_id: agent_id.clone(),
            executor_id: executor_id.clone(),
            data: b"down".to_vec(),
        });
    });
    env.call("f1", call::Type::Shutdown, |c| {
        c.shutdown = Some(call::Shutdown { agent_id, executor_id: executor_id.clone() });
    });
    let told = env.agent_inbox("a1");
    assert!(
        matches!(told[..], [Message::ExecutorMessage(_), Message::ShutdownExecutor(_)]),
        "{told:?}"
    );
    env.agent_says(
        "a1",
        agent_message::Message::ExecutorMessage(mezz::ExecutorMessage {
            framework_id: framework_id.clone(),
            executor_id: executor_id.clone(),
            data: b"up".to_vec(),
        }),
    );
    env.agent_says(
        "a1",
        agent_message::Message::ExecutorTerminated(mezz::ExecutorTerminated {
            framework_id,
            executor_id,
            status: 9,
        }),
    );
    env.settle();
    let events = env.inbox("f1");
    let types: Vec<_> = events.iter().map(|e| e.r#type()).collect();
    assert_eq!(types[..2], [SchedulerEvent::Message, SchedulerEvent::Failure]);
    assert_eq!(events[1].failure.as_ref().unwrap().status, Some(9));
    // What it held itself is offered; its tasks end by their own updates.
    let freed = events.iter().filter_map(|e| e.offers.as_ref()).next().unwrap();
    assert_eq!(text(&freed.offers[0].resources), "cpus:1; mem:100");
    assert_eq!(env.live_tasks().len(), 2);
}

/// A framework with more tasks than the queue to it holds is told of all of them.
#[test]
fn many_tasks_are_reconciled_bit_by_bit() {
    let mut env = Env::new();
    env.agent("a1", "cpus:20000;mem:20000").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:1");
    let (key, task) =
        env.agents["a1"].tasks.first_key_value().map(|(k, t)| (k.clone(), t.clone())).unwrap();
    for n in 0..12_000 {
        let id = format!("many-{n:05}");
        let task_id = v1::TaskId { value: id.clone() };
        let task = v1::Task { task_id, ..task.clone() };
        env.agents.get_mut("a1").unwrap().tasks.insert((key.0.clone(), id), task);
    }
    env.reregister("a1");
    env.inbox("f1");
    env.reconcile("f1", &[]);
    let mut told = vec![env.updates("f1").len()];
    for _ in 0..3 {
        env.pass(Duration::from_millis(100));
        told.push(env.updates("f1").len());
    }
    assert_eq!(told, [5_000, 5_000, 2_001, 0]);
    // Asked again meanwhile it begins again at its end, and a new subscription asks anew.
    env.reconcile("f1", &[]);
    env.reconcile("f1", &[]);
    let mut told = vec![env.updates("f1").len()];
    for _ in 0..3 {
        env.pass(Duration::from_millis(100));
        env.reconcile("f1", &[]);
        told.push(env.updates("f1").len());
    }
    assert_eq!(told, [5_000, 5_000, 2_001, 5_000]);
    env.subscribe("f1");
    env.pass(Duration::from_secs(1));
    assert!(env.updates("f1").is_empty());
}

/// As many as a call may name do not come at once; what is asked meanwhile waits its turn.
#[test]
fn many_named_tasks_are_reconciled_bit_by_bit() {
    let mut env = Env::with(|options| options.reconciliation_page = 10);
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let names: Vec<String> = (0..25).map(|i| format!("x{i:02}")).collect();
    let named: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    let told = |env: &mut Env| -> Vec<String> {
        env.updates("f1").into_iter().map(|update| update.task_id.value).collect()
    };
    env.reconcile("f1", &named);
    assert_eq!(told(&mut env), names[..10]);
    // Few, and all, behind those.
    env.reconcile("f1", &[("late", None)]);
    env.reconcile("f1", &[]);
    assert!(told(&mut env).is_empty());
    env.pass(Duration::from_millis(100));
    assert_eq!(told(&mut env), names[10..20]);
    env.pass(Duration::from_millis(100));
    let rest: Vec<_> = names[20..].iter().cloned().chain(["late".into(), "t1".into()]).collect();
    assert_eq!(told(&mut env), rest);
    env.pass(Duration::from_secs(1));
    assert!(told(&mut env).is_empty());
    // Who leaves is told no more.
    env.reconcile("f1", &named);
    env.framework_leaves("f1");
    env.subscribe("f1");
    told(&mut env);
    env.pass(Duration::from_secs(1));
    assert!(told(&mut env).is_empty());
}
