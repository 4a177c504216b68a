//! The pure driver. That of the task around it is in `tests/executor.rs`.

use std::time::Duration;

use mezz_proto::{
    time::Time,
    v1::{
        self,
        executor::{
            Call,
            call::Type,
            event::{Acknowledged, Launch, Subscribed, Type as EventType},
        },
    },
};

use tokio::sync::oneshot;

use super::{
    Closed, Event, ExecutorOptions, UpdateError,
    driver::{Command, Driver, MAX_UPDATES},
};
use crate::drive::{Action, Driver as _, LinkEnd};

struct Env {
    driver: Driver,
    now: Time,
    connects: Vec<Call>,
    calls: Vec<Call>,
    events: Vec<Event>,
    ended: bool,
    half_closed: bool,
}

impl Env {
    fn new(recovery_timeout: Option<Duration>) -> Self {
        let options = ExecutorOptions {
            agent: "a:1".into(),
            framework_id: "F".into(),
            executor_id: "E".into(),
            token: None,
            recovery_timeout,
            backoff_max: Duration::from_secs(1),
            shutdown_grace_period: Duration::from_secs(5),
        };
        let now = Time::from_secs(1_700_000_000);
        Self {
            driver: Driver::new(now, options, 1),
            now,
            connects: vec![],
            calls: vec![],
            events: vec![],
            ended: false,
            half_closed: false,
        }
    }

    fn subscribed(recovery_timeout: Option<Duration>) -> Self {
        let mut env = Self::new(recovery_timeout);
        env.wait();
        env.subscribe();
        env.events.clear();
        env
    }

    fn act(&mut self, f: impl FnOnce(&mut Driver, Time, &mut Vec<Action<Driver>>)) {
        let mut out = Vec::new();
        f(&mut self.driver, self.now, &mut out);
        for action in out {
            match action {
                Action::Connect { first, .. } => self.connects.push(*first),
                Action::Send(call) => self.calls.push(*call),
                Action::Deliver(event) => self.events.push(*event),
                Action::HalfClose => self.half_closed = true,
                Action::Abandon | Action::CallOff => {}
                Action::End => self.ended = true,
            }
        }
    }

    fn wait(&mut self) {
        self.now = self.now.max(self.driver.next_deadline().expect("there is a deadline"));
        self.act(|d, now, out| d.on_timeout(now, out));
    }

    fn event(&mut self, kind: EventType, fill: impl FnOnce(&mut v1::executor::Event)) {
        let mut event = v1::executor::Event { r#type: Some(kind as i32), ..Default::default() };
        fill(&mut event);
        self.act(|d, now, out| d.on_event(now, event, out));
    }

    fn subscribe(&mut self) {
        let agent_info =
            v1::AgentInfo { id: Some(v1::AgentId { value: "S".into() }), ..Default::default() };
        self.event(EventType::Subscribed, |e| {
            e.subscribed = Some(Subscribed { agent_info, ..Default::default() });
        });
    }

    fn launch(&mut self, id: &str) {
        let task = v1::TaskInfo { task_id: task_id(id), ..Default::default() };
        self.event(EventType::Launch, |e| e.launch = Some(Launch { task }));
    }

    fn acknowledge(&mut self, status: &v1::TaskStatus) {
        let acknowledged =
            Acknowledged { task_id: status.task_id.clone(), uuid: status.uuid.clone().unwrap() };
        self.event(EventType::Acknowledged, |e| e.acknowledged = Some(acknowledged));
    }

    fn command(&mut self, command: Command) {
        self.act(|d, now, out| d.on_command(now, command, out));
    }

    fn update(&mut self, id: &str, state: v1::TaskState) {
        assert_eq!(self.try_update(id, state), Ok(()));
    }

    fn try_update(&mut self, id: &str, state: v1::TaskState) -> Result<(), UpdateError> {
        let status =
            v1::TaskStatus { task_id: task_id(id), state: state as i32, ..Default::default() };
        let (taken, mut answer) = oneshot::channel();
        self.command(Command::Update { status: Box::new(status), taken });
        answer.try_recv().expect("answered at once")
    }

    /// One whose `data` has so many bytes.
    fn update_with(&mut self, id: &str, bytes: usize) -> Result<(), UpdateError> {
        let status = v1::TaskStatus {
            task_id: task_id(id),
            state: v1::TaskState::TaskFinished as i32,
            data: Some(vec![0; bytes]),
            ..Default::default()
        };
        let (taken, mut answer) = oneshot::channel();
        self.command(Command::Update { status: Box::new(status), taken });
        answer.try_recv().expect("answered at once")
    }

    fn lose(&mut self) {
        self.act(|d, now, out| d.on_link_end(now, LinkEnd::Lost("cable".into()), out));
    }

    fn sent_updates(&mut self) -> Vec<v1::TaskStatus> {
        self.calls.drain(..).filter_map(|c| Some(c.update?.status)).collect()
    }
}

fn task_id(id: &str) -> v1::TaskId {
    v1::TaskId { value: id.into() }
}

const LONG: Option<Duration> = Some(Duration::from_secs(900));

#[test]
fn fills_in_updates() {
    let mut env = Env::subscribed(LONG);
    env.update("t", v1::TaskState::TaskRunning);
    env.update("t", v1::TaskState::TaskFinished);
    let sent = env.sent_updates();
    assert_eq!(sent[0].uuid.as_ref().unwrap().len(), 16);
    assert_ne!(sent[0].uuid, sent[1].uuid);
    assert_eq!(sent[0].source(), v1::task_status::Source::Executor);
    assert_eq!(sent[0].agent_id.as_ref().unwrap().value, "S");
    assert_eq!(sent[0].executor_id.as_ref().unwrap().value, "E");
    assert!(sent[0].timestamp() >= 1.7e9);
}

#[test]
fn tells_what_is_not_acknowledged_after_a_reconnection() {
    let mut env = Env::subscribed(LONG);
    env.launch("t1");
    env.launch("t2");
    env.launch("t2");
    assert_eq!(env.events.len(), 2, "the second launch of t2 is the first again");
    env.update("t1", v1::TaskState::TaskRunning);
    env.update("t1", v1::TaskState::TaskFinished);
    let sent = env.sent_updates();
    env.acknowledge(&sent[0]);
    env.lose();
    env.update("t2", v1::TaskState::TaskRunning);
    env.wait();
    env.update("t2", v1::TaskState::TaskFailed);
    assert!(env.calls.is_empty());
    let subscribe = env.connects.pop().unwrap().subscribe.unwrap();
    let tasks: Vec<_> =
        subscribe.unacknowledged_tasks.iter().map(|t| t.task_id.value.as_str()).collect();
    assert_eq!(tasks, ["t2"]);
    let states: Vec<_> =
        subscribe.unacknowledged_updates.iter().map(|u| u.status.state()).collect();
    assert_eq!(states, [v1::TaskState::TaskFinished, v1::TaskState::TaskRunning]);
    env.subscribe();
    let late: Vec<_> = env.sent_updates().iter().map(v1::TaskStatus::state).collect();
    assert_eq!(late, [v1::TaskState::TaskFailed], "only what SUBSCRIBE did not tell");
}

#[test]
fn shuts_down_when_the_agent_stays_away() {
    let mut env = Env::subscribed(LONG);
    let start = env.now;
    env.lose();
    while !env.ended {
        env.wait();
        if !env.ended && env.connects.pop().is_some() {
            env.lose();
        }
    }
    assert_eq!(env.now.since(start), Duration::from_secs(900));
    assert_eq!(env.events.last(), Some(&Event::Shutdown));
    // At once for frameworks without checkpoint.
    let mut env = Env::subscribed(None);
    env.lose();
    assert!(env.ended);
    assert_eq!(env.events.last(), Some(&Event::Shutdown));
}

#[test]
fn may_report_ends_after_shutdown() {
    let mut env = Env::subscribed(LONG);
    env.event(EventType::Shutdown, |_| {});
    assert_eq!(env.events, [Event::Shutdown]);
    env.update("t", v1::TaskState::TaskKilled);
    let sent = env.sent_updates();
    env.command(Command::Stop);
    assert!(!env.half_closed, "an acknowledgement is missing");
    env.acknowledge(&sent[0]);
    assert!(env.half_closed);
    env.act(|d, now, out| d.on_link_end(now, LinkEnd::Closed, out));
    assert!(env.ended);
}

#[test]
fn stop_does_not_wait_for_ever() {
    let mut env = Env::subscribed(LONG);
    env.update("t", v1::TaskState::TaskKilled);
    env.command(Command::Stop);
    env.wait();
    assert!(env.half_closed);
    env.wait();
    assert!(env.ended);
    let mut env = Env::new(LONG);
    env.command(Command::Stop);
    assert!(env.ended);
}

#[test]
fn refusals_are_final_and_every_call_names_its_sender() {
    let mut env = Env::subscribed(LONG);
    env.command(Command::Message(vec![1]));
    let call = env.calls.pop().unwrap();
    assert_eq!((call.r#type(), call.executor_id.value.as_str()), (Type::Message, "E"));
    assert_eq!(call.framework_id.value, "F");
    env.act(|d, now, out| d.on_link_end(now, LinkEnd::Refused("who?".into()), out));
    assert_eq!(env.events, [Event::Error("who?".into())]);
    assert!(env.ended);
}

#[test]
fn updates_for_an_agent_that_is_away_are_limited() {
    let mut env = Env::subscribed(LONG);
    env.update("first", v1::TaskState::TaskRunning);
    let first = env.sent_updates().remove(0);
    env.lose();
    for i in 1..MAX_UPDATES {
        env.update(&format!("t{i}"), v1::TaskState::TaskRunning);
    }
    let more = env.try_update("more", v1::TaskState::TaskRunning);
    assert_eq!(more, Err(UpdateError::TooMany { limit: MAX_UPDATES, bytes: 256 << 20 }));
    env.wait();
    let subscribe = env.connects.pop().unwrap().subscribe.unwrap();
    assert_eq!(subscribe.unacknowledged_updates.len(), MAX_UPDATES);
    env.subscribe();
    env.acknowledge(&first);
    env.update("more", v1::TaskState::TaskRunning);
}

#[test]
fn updates_after_the_end_are_refused() {
    let mut env = Env::subscribed(LONG);
    env.update("t", v1::TaskState::TaskRunning);
    env.command(Command::Stop);
    // An acknowledgement is waited for; until then the link is whole.
    env.update("t", v1::TaskState::TaskKilled);
    for status in env.sent_updates() {
        env.acknowledge(&status);
    }
    assert!(env.half_closed);
    let late = env.try_update("t", v1::TaskState::TaskFailed);
    assert_eq!(late, Err(UpdateError::Closed(Closed)));
    assert!(env.calls.is_empty());
}

#[test]
fn asking_again_does_not_put_off_the_end() {
    let mut env = Env::subscribed(LONG);
    env.update("t", v1::TaskState::TaskKilled);
    env.command(Command::Stop);
    let end = env.driver.next_deadline();
    env.now = env.now + Duration::from_secs(4);
    env.command(Command::Stop);
    env.act(|d, now, out| d.on_unheard(now, out));
    assert_eq!(env.driver.next_deadline(), end);
}

#[test]
fn what_no_agent_takes_is_not_sent() {
    let mut env = Env::subscribed(LONG);
    let refused = env.update_with("t", 16 << 20);
    assert!(
        matches!(refused, Err(UpdateError::TooLarge { bytes, limit }) if bytes > limit),
        "{refused:?}"
    );
    env.command(Command::Message(vec![0; 16 << 20]));
    assert!(env.calls.is_empty());
    env.update("t", v1::TaskState::TaskFailed);
    assert_eq!(env.sent_updates().len(), 1);
}

/// Together they are more than an agent takes in one message.
#[test]
fn large_updates_follow_the_subscription() {
    let mut env = Env::subscribed(LONG);
    env.lose();
    for i in 0..20 {
        env.update_with(&i.to_string(), 1 << 20).unwrap();
    }
    env.wait();
    let told = env.connects.pop().unwrap().subscribe.unwrap().unacknowledged_updates;
    assert_eq!(told.len(), 7);
    env.subscribe();
    let all: Vec<_> = told.into_iter().map(|u| u.status).chain(env.sent_updates()).collect();
    let ids: Vec<_> = all.iter().map(|status| status.task_id.value.clone()).collect();
    assert_eq!(ids, (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
}
