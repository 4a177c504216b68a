//! The pure driver. That of the task around it is in `tests/scheduler.rs`.

mod fairness;
mod masters;
mod random;

use std::time::Duration;

use mezz_proto::{
    time::Time,
    v1::{
        self,
        scheduler::{
            Call,
            call::Type,
            event::{Offers, Rescind, Subscribed, Type as EventType, Update},
        },
    },
};

use super::{AcknowledgeMode, Event, SchedulerOptions, command::Command, driver::Driver};
use crate::{
    build::{FrameworkBuilder, TaskBuilder},
    drive::{Action, Driver as _, LinkEnd},
    resources::Resources,
};

/// The driver with what it asked for since the last look.
struct Env {
    driver: Driver,
    now: Time,
    connects: Vec<(String, Call)>,
    /// What a standby is told by the last of them.
    tried: Option<String>,
    calls: Vec<Call>,
    events: Vec<Event>,
    acknowledge: Vec<bool>,
    other: Vec<&'static str>,
}

impl Env {
    fn new(masters: &[&str]) -> Self {
        Self::with(options(masters))
    }

    fn with(options: SchedulerOptions) -> Self {
        let now = Time::from_secs(1000);
        Self {
            driver: Driver::new(now, options, 7),
            now,
            connects: vec![],
            tried: None,
            calls: vec![],
            events: vec![],
            acknowledge: vec![],
            other: vec![],
        }
    }

    /// One that is subscribed as F.
    fn subscribed() -> Self {
        let mut env = Self::new(&["m1:1"]);
        env.tick();
        env.subscribe();
        env.forget();
        env
    }

    fn act(&mut self, f: impl FnOnce(&mut Driver, Time, &mut Vec<Action<Driver>>)) {
        let mut out = Vec::new();
        f(&mut self.driver, self.now, &mut out);
        for action in out {
            match action {
                Action::Connect { target, tried, first } => {
                    self.connects.push((target, *first));
                    self.tried = tried;
                }
                Action::Send(call) => self.calls.push(*call),
                Action::Deliver(delivery) => {
                    self.acknowledge.push(delivery.acknowledge.is_some());
                    self.events.push(delivery.event);
                }
                Action::HalfClose => self.other.push("half-close"),
                Action::Abandon => self.other.push("abandon"),
                Action::CallOff => self.other.push("call-off"),
                Action::End => self.other.push("end"),
            }
        }
    }

    fn tick(&mut self) {
        self.act(|d, now, out| d.on_timeout(now, out));
    }

    /// To the next deadline, and past it.
    fn wait(&mut self) -> Duration {
        let until = self.driver.next_deadline().expect("there is a deadline");
        let waited = until.since(self.now);
        self.now = self.now.max(until);
        self.tick();
        waited
    }

    fn command(&mut self, command: Command) {
        self.act(|d, now, out| d.on_command(now, command, out));
    }

    fn event(&mut self, event: v1::scheduler::Event) {
        self.act(|d, now, out| d.on_event(now, event, out));
    }

    fn end(&mut self, end: LinkEnd) {
        self.act(|d, now, out| d.on_link_end(now, end, out));
    }

    fn error(&mut self, message: &str) {
        self.event(v1::scheduler::Event {
            r#type: Some(EventType::Error as i32),
            error: Some(v1::scheduler::event::Error { message: message.into() }),
            ..Default::default()
        });
    }

    fn subscribe(&mut self) {
        let subscribed = Subscribed {
            framework_id: v1::FrameworkId { value: "F".into() },
            heartbeat_interval_seconds: Some(10.0),
            master_info: None,
        };
        self.event(v1::scheduler::Event {
            r#type: Some(EventType::Subscribed as i32),
            subscribed: Some(subscribed),
            ..Default::default()
        });
    }

    fn offer(&mut self, id: &str) {
        let offer = v1::Offer {
            id: offer_id(id),
            agent_id: v1::AgentId { value: "S".into() },
            ..Default::default()
        };
        self.event(v1::scheduler::Event {
            r#type: Some(EventType::Offers as i32),
            offers: Some(Offers { offers: vec![offer] }),
            ..Default::default()
        });
    }

    fn update(&mut self, task: &str, state: v1::TaskState) {
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            agent_id: Some(v1::AgentId { value: "S".into() }),
            uuid: Some(vec![1; 16]),
            state: state as i32,
            ..Default::default()
        };
        self.event(v1::scheduler::Event {
            r#type: Some(EventType::Update as i32),
            update: Some(Update { status }),
            ..Default::default()
        });
    }

    fn launch(&mut self, offer: &str, task: &str) {
        let task = TaskBuilder::new(task)
            .shell("true")
            .resources(Resources::cpus_mem(1.0, 1.0))
            .build(v1::AgentId { value: "S".into() })
            .unwrap();
        let operation = v1::offer::Operation {
            launch: Some(v1::offer::operation::Launch { task_infos: vec![task] }),
            ..Default::default()
        };
        self.command(Command::Accept {
            offers: vec![offer_id(offer)],
            operations: vec![operation],
            filters: None,
        });
    }

    fn kinds(&mut self) -> Vec<Type> {
        self.calls.drain(..).map(|c| c.r#type()).collect()
    }

    fn states(&mut self) -> Vec<v1::TaskState> {
        let updates = self.events.drain(..).filter_map(|e| match e {
            Event::Update(status) => Some(status.state()),
            _ => None,
        });
        updates.collect()
    }

    fn forget(&mut self) {
        self.connects.clear();
        self.calls.clear();
        self.events.clear();
        self.acknowledge.clear();
        self.other.clear();
    }
}

fn options(masters: &[&str]) -> SchedulerOptions {
    let framework = FrameworkBuilder::new("f").roles(["ads", "web"]).build();
    SchedulerOptions::new(masters.iter().copied(), framework)
}

fn offer_id(id: &str) -> v1::OfferId {
    v1::OfferId { value: id.into() }
}

fn kill(task: &str) -> Command {
    let task_id = v1::TaskId { value: task.into() };
    Command::Kill(v1::scheduler::call::Kill { task_id, ..Default::default() })
}

fn lost() -> LinkEnd {
    LinkEnd::Lost("cable".into())
}

/// A standby answers at once.
fn not_leading(leader: &str) -> LinkEnd {
    after(Duration::ZERO, leader)
}

/// A standby answers after this time.
fn after(after: Duration, leader: &str) -> LinkEnd {
    let leader = Some(leader.to_owned()).filter(|leader| !leader.is_empty());
    LinkEnd::NotLeading { leader, after }
}

#[test]
fn resubscribes_with_its_id_and_reconciles_until_answered() {
    let mut env = Env::subscribed();
    env.offer("O1");
    env.launch("O1", "t1");
    assert_eq!(env.kinds(), [Type::Accept]);
    env.end(lost());
    assert_eq!(env.events.last(), Some(&Event::Disconnected { reason: "cable".into() }));
    env.wait();
    let (target, call) = env.connects.pop().unwrap();
    assert_eq!(target, "m1:1");
    let info = call.subscribe.unwrap().framework_info;
    assert_eq!(
        (call.framework_id, info.id.unwrap().value.as_str()),
        (Some(v1::FrameworkId { value: "F".into() }), "F")
    );
    env.subscribe();
    let calls = std::mem::take(&mut env.calls);
    let asked: Vec<usize> =
        calls.iter().filter_map(|c| Some(c.reconcile.as_ref()?.tasks.len())).collect();
    assert_eq!(asked, [0, 1], "first everything, then what is known");
    // Silence: asked again after 1 s, then 2 s.
    assert_eq!(env.wait(), Duration::from_secs(1));
    assert_eq!(env.kinds(), [Type::Reconcile]);
    assert_eq!(env.wait(), Duration::from_secs(2));
    assert_eq!(env.kinds(), [Type::Reconcile]);
    env.update("t1", v1::TaskState::TaskRunning);
    assert_eq!(env.wait(), Duration::from_secs(30), "only the heartbeat is waited for");
}

#[test]
fn first_subscription_has_nothing_to_reconcile() {
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    assert_eq!(env.connects[0].1.framework_id, None);
    env.subscribe();
    assert!(env.calls.is_empty());
}

#[test]
fn dead_offers_are_dropped_and_their_tasks_reported() {
    let mut env = Env::subscribed();
    env.launch("never", "t1");
    assert_eq!(env.states(), [v1::TaskState::TaskDropped]);
    env.offer("O1");
    env.end(lost());
    env.forget();
    env.launch("O1", "t2");
    env.command(Command::Decline { offers: vec![offer_id("O1")], filters: None });
    assert_eq!(env.states(), [v1::TaskState::TaskDropped]);
    assert!(env.calls.is_empty());
    // One dead offer spoils the accept; the live one goes back without a filter.
    env.wait();
    env.subscribe();
    env.forget();
    env.offer("O2");
    env.event(v1::scheduler::Event {
        r#type: Some(EventType::Rescind as i32),
        rescind: Some(Rescind { offer_id: offer_id("O1") }),
        ..Default::default()
    });
    env.command(Command::Accept {
        offers: vec![offer_id("O1"), offer_id("O2")],
        operations: vec![],
        filters: None,
    });
    let call = env.calls.pop().unwrap();
    let decline = call.decline.unwrap();
    assert_eq!(decline.offer_ids, [offer_id("O2")]);
    assert_eq!(decline.filters.unwrap().refuse_seconds, Some(0.0));
}

/// The master would end the subscription for it, and perhaps the framework.
#[test]
fn what_is_too_large_is_not_sent() {
    let mut env = Env::subscribed();
    env.offer("O1");
    let large = |id: &str| v1::TaskInfo {
        task_id: v1::TaskId { value: id.into() },
        data: Some(vec![0; 3 << 20]),
        ..Default::default()
    };
    let launch = |tasks| Command::Accept {
        offers: vec![offer_id("O1")],
        operations: vec![v1::offer::Operation {
            launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
            ..Default::default()
        }],
        filters: None,
    };
    env.forget();
    env.command(launch(vec![large("t1"), large("t2")]));
    let Some(Event::Update(status)) = env.events.first() else { panic!("{:?}", env.events) };
    assert_eq!(status.reason(), v1::task_status::Reason::TaskInvalid);
    assert!(status.message().contains("4194304 are allowed"), "{}", status.message());
    assert_eq!(status.task_id.value, "t2");
    assert_eq!(env.states(), [v1::TaskState::TaskDropped]);
    let accept = env.calls.pop().unwrap().accept.unwrap();
    let launched = &accept.operations[0].launch.as_ref().unwrap().task_infos;
    assert_eq!(launched.iter().map(|t| &*t.task_id.value).collect::<Vec<_>>(), ["t1"]);
    assert!(env.calls.is_empty());
    env.forget();
    // What fits goes, wherever it stands; one that never fits is left out.
    env.offer("O1");
    let huge = v1::TaskInfo { data: Some(vec![0; 5 << 20]), ..large("huge") };
    env.forget();
    env.command(launch(vec![huge.clone(), large("small")]));
    assert_eq!(env.kinds(), [Type::Accept]);
    env.offer("O1");
    env.forget();
    env.command(launch(vec![huge.clone()]));
    assert_eq!(env.states(), [v1::TaskState::TaskDropped]);
    assert_eq!(env.kinds(), [Type::Decline], "the offer is given back");
    // A group starts as a whole, or not at all.
    env.offer("O1");
    env.forget();
    let mut group = launch(vec![]);
    if let Command::Accept { operations, .. } = &mut group {
        let task_group = v1::TaskGroupInfo { tasks: vec![large("a"), large("b")] };
        let launch = v1::offer::operation::LaunchGroup { task_group, ..Default::default() };
        operations[0] =
            v1::offer::Operation { launch_group: Some(Box::new(launch)), ..Default::default() };
    }
    env.command(group);
    assert_eq!(env.states(), [v1::TaskState::TaskDropped; 2]);
    assert_eq!(env.kinds(), [Type::Decline]);
    env.forget();
    let data = vec![0; 5 << 20];
    env.command(Command::Message(v1::scheduler::call::Message { data, ..Default::default() }));
    assert!(env.calls.is_empty() && env.other.is_empty());
}

#[test]
fn frameworks_that_are_not_partition_aware_see_lost() {
    let framework = v1::FrameworkInfo { name: "f".into(), ..Default::default() };
    let mut env = Env::with(SchedulerOptions::new(["m1:1"], framework));
    env.launch("O1", "t1");
    assert_eq!(env.states(), [v1::TaskState::TaskLost]);
}

#[test]
fn wishes_survive_a_disconnection() {
    let mut env = Env::subscribed();
    env.end(lost());
    env.forget();
    env.command(Command::Suppress(vec!["ads".into(), "not ours".into()]));
    env.command(kill("t1"));
    env.command(Command::ShutdownExecutor { executor: "e".into(), agent: "S".into() });
    env.command(Command::ShutdownExecutor { executor: "e".into(), agent: "S".into() });
    env.command(Command::Message(Default::default()));
    env.command(Command::Acknowledge(Default::default()));
    assert!(env.calls.is_empty());
    env.wait();
    assert_eq!(env.connects[0].1.subscribe.as_ref().unwrap().suppressed_roles, ["ads"]);
    env.subscribe();
    assert_eq!(
        env.kinds(),
        [Type::Shutdown, Type::Kill, Type::Reconcile, Type::Reconcile],
        "no message, no acknowledgement; the killed task is asked for"
    );
    env.command(Command::Revive(vec![]));
    assert_eq!(env.calls[0].revive.as_ref().unwrap().roles, ["ads", "web"]);
    env.end(lost());
    env.forget();
    env.wait();
    assert!(env.connects[0].1.subscribe.as_ref().unwrap().suppressed_roles.is_empty());
    env.subscribe();
    assert_eq!(env.kinds()[0], Type::Kill, "until the task has ended");
}

#[test]
fn a_kill_is_repeated_until_the_task_has_ended() {
    let mut env = Env::subscribed();
    env.command(kill("t1"));
    env.forget();
    env.update("t1", v1::TaskState::TaskRunning);
    assert_eq!(env.kinds(), [Type::Kill]);
    // Those would be answered the same way for ever.
    env.update("t1", v1::TaskState::TaskUnreachable);
    env.update("t1", v1::TaskState::TaskKilling);
    assert!(env.calls.is_empty());
    env.update("t1", v1::TaskState::TaskKilled);
    env.update("t1", v1::TaskState::TaskRunning);
    assert!(env.calls.is_empty());
}

#[test]
fn acknowledges_only_what_needs_it_and_only_automatically() {
    let mut env = Env::subscribed();
    env.update("t1", v1::TaskState::TaskRunning);
    env.launch("never", "t2");
    assert_eq!(env.acknowledge, [true, false]);
    let mut env = Env::with(SchedulerOptions {
        acknowledge: AcknowledgeMode::Explicit,
        ..options(&["m1:1"])
    });
    env.tick();
    env.subscribe();
    env.forget();
    env.update("t1", v1::TaskState::TaskRunning);
    assert_eq!(env.acknowledge, [false]);
}

#[test]
fn silence_means_death() {
    let mut env = Env::subscribed();
    assert_eq!(env.wait(), Duration::from_secs(30));
    assert_eq!(env.other, ["abandon"]);
    assert!(matches!(&env.events[0], Event::Disconnected { reason } if reason.contains("30 s")));
    env.wait();
    env.forget();
    // Nor may SUBSCRIBED be waited for without end.
    assert_eq!(env.wait(), super::driver::SUBSCRIBE_TIMEOUT);
    assert_eq!(env.other, ["abandon"]);
}

#[test]
fn a_master_that_is_not_read_is_not_blamed() {
    let mut env = Env::subscribed();
    env.now = env.now + Duration::from_secs(100);
    let now = env.now;
    env.driver.not_reading(now);
    env.tick();
    assert!(env.other.is_empty());
    assert_eq!(env.driver.next_deadline(), Some(now + Duration::from_secs(30)));
}

#[test]
fn refusals_are_final() {
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    env.end(LinkEnd::Refused("no such role".into()));
    assert_eq!(env.events, [Event::Error("no such role".into())]);
    assert_eq!(env.other, ["abandon", "end"]);
    assert_eq!(env.driver.next_deadline(), None);
    let mut env = Env::subscribed();
    env.error("gone");
    assert_eq!(env.events, [Event::Error("gone".into())]);
}

#[test]
fn teardown_is_repeated_until_confirmed() {
    let mut env = Env::subscribed();
    env.command(Command::Teardown);
    assert_eq!(env.kinds(), [Type::Teardown]);
    env.end(lost());
    assert!(env.other.is_empty());
    env.wait();
    env.subscribe();
    assert_eq!(env.kinds(), [Type::Teardown]);
    env.end(LinkEnd::Closed);
    assert_eq!(env.other, ["end"]);
    // Without a framework there is nothing to tear down.
    let mut env = Env::new(&["m1:1"]);
    env.command(Command::Teardown);
    assert_eq!(env.other, ["end"]);
    // The framework may just be in the making.
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    env.command(Command::Teardown);
    env.subscribe();
    assert_eq!(env.kinds(), [Type::Teardown]);
    // This confirms it too.
    env.error("Framework has been removed");
    assert_eq!(env.other, ["end"]);
    assert!(env.events.iter().all(|e| !matches!(e, Event::Error(_))));
}

/// Another process took it over, or the master does not want it any more: the
/// framework may live on.
#[test]
fn other_errors_do_not_confirm_a_teardown() {
    let taken_over: fn(&mut Env) = |env| env.error("Framework failed over");
    let refused: fn(&mut Env) = |env| env.end(LinkEnd::Refused("who are you?".into()));
    for (fails, text) in [(taken_over, "Framework failed over"), (refused, "who are you?")] {
        let mut env = Env::subscribed();
        env.command(Command::Teardown);
        fails(&mut env);
        assert_eq!(env.other, ["abandon", "call-off", "end"]);
        assert_eq!(env.events, [Event::Error(text.into())]);
    }
}

#[test]
fn stop_flushes_and_does_not_wait_long() {
    let mut env = Env::subscribed();
    env.command(kill("t"));
    env.command(Command::Stop);
    assert_eq!(env.other, ["half-close"]);
    env.wait();
    assert_eq!(env.other, ["half-close", "abandon", "end"]);
    assert_eq!(env.driver.next_deadline(), None);
}

#[test]
fn changes_of_the_framework_are_kept() {
    let mut env = Env::subscribed();
    let info = FrameworkBuilder::new("f2").roles(["web"]).build();
    let constraints = v1::scheduler::OfferConstraints {
        role_constraints: ["web", "ads"].map(|role| (role.to_owned(), Default::default())).into(),
    };
    env.command(Command::UpdateFramework {
        info: Box::new(info),
        suppressed: vec!["ads".into()],
        constraints: Some(constraints),
    });
    let update = env.calls.pop().unwrap().update_framework.unwrap();
    assert_eq!(update.framework_info.id.as_ref().unwrap().value, "F");
    assert!(update.suppressed_roles.is_empty(), "a foreign role would be an error");
    env.end(lost());
    env.wait();
    let subscribe = env.connects.pop().unwrap().1.subscribe.unwrap();
    assert_eq!(subscribe.framework_info, update.framework_info);
    let roles = subscribe.offer_constraints.unwrap().role_constraints;
    assert_eq!(roles.into_keys().collect::<Vec<_>>(), ["web"]);
}

/// No master takes it, and so it is not tried for ever.
#[test]
fn a_framework_that_is_too_large_is_refused_at_once() {
    let too_large = |name: &str| v1::FrameworkInfo {
        webui_url: Some("x".repeat(5 << 20)),
        ..FrameworkBuilder::new(name).roles(["web"]).build()
    };
    // The one that is known stays.
    let mut env = Env::subscribed();
    let info = Box::new(too_large("f2"));
    env.command(Command::UpdateFramework { info, suppressed: vec![], constraints: None });
    assert!(env.calls.is_empty());
    env.end(lost());
    env.wait();
    let subscribe = env.connects.pop().unwrap().1.subscribe.unwrap();
    assert_ne!(subscribe.framework_info.name, "f2");

    let mut env = Env::with(SchedulerOptions::new(["m1:1"], too_large("f")));
    env.tick();
    assert!(env.connects.is_empty());
    let [Event::Error(text)] = &env.events[..] else { panic!("{:?}", env.events) };
    assert!(text.contains("4194304 are allowed"), "{text}");
    assert_eq!(env.driver.next_deadline(), None);
}

#[test]
fn who_withdraws_holds_no_offers_any_more() {
    let mut env = Env::subscribed();
    env.offer("O1");
    env.forget();
    env.command(Command::Withdraw);
    assert_eq!(env.kinds(), [Type::Suppress, Type::Decline]);
    env.forget();
    env.offer("O2");
    assert_eq!(env.kinds(), [Type::Decline]);
    assert!(env.events.is_empty());
}

#[test]
fn many_tasks_are_asked_for_in_parts() {
    let mut env = Env::subscribed();
    let tasks = (0..2500).map(|i| (format!("t{i}").into(), None)).collect();
    env.command(Command::Reconcile(tasks));
    let sizes: Vec<usize> =
        env.calls.iter().map(|c| c.reconcile.as_ref().unwrap().tasks.len()).collect();
    assert_eq!(sizes, [1000, 1000, 500]);
}

#[test]
fn wishes_while_subscribing_are_not_lost() {
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    env.command(Command::Suppress(vec!["ads".into()]));
    env.subscribe();
    let update = env.calls.pop().unwrap().update_framework.unwrap();
    assert_eq!(update.suppressed_roles, ["ads"]);
    assert!(env.calls.is_empty());
    // The next SUBSCRIBE says it.
    env.end(lost());
    env.wait();
    env.subscribe();
    assert!(!env.kinds().contains(&Type::UpdateFramework));
}

#[test]
fn odd_heartbeats_do_no_harm() {
    for odd in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e300] {
        let mut env = Env::new(&["m1:1"]);
        env.tick();
        let subscribed = Subscribed { heartbeat_interval_seconds: Some(odd), ..Default::default() };
        env.event(v1::scheduler::Event {
            r#type: Some(EventType::Subscribed as i32),
            subscribed: Some(subscribed),
            ..Default::default()
        });
        let patience = env.driver.next_deadline().unwrap().since(env.now);
        assert!(patience >= Duration::from_millis(300), "{odd}: {patience:?}");
    }
}

#[test]
fn an_end_that_was_asked_for_stands_when_the_events_are_dropped() {
    for command in [Command::Teardown, Command::Stop] {
        let mut env = Env::subscribed();
        env.command(command);
        env.forget();
        env.act(|d, now, out| d.on_unheard(now, out));
        assert!(env.other.is_empty(), "{:?}", env.other);
    }
    // Nor does asking twice cut the first short.
    let mut env = Env::subscribed();
    env.command(Command::Stop);
    env.command(Command::Stop);
    assert_eq!(env.other, ["half-close"]);
}

#[test]
fn teardown_while_stopping_takes_another_link() {
    let mut env = Env::subscribed();
    env.act(|d, now, out| d.on_unheard(now, out));
    env.command(Command::Teardown);
    assert_eq!(env.other, ["half-close", "abandon"]);
    assert_eq!(env.wait(), Duration::ZERO);
    assert_eq!(env.connects.len(), 1);
    env.subscribe();
    assert_eq!(env.kinds(), [Type::Teardown]);
    env.end(LinkEnd::Closed);
    assert_eq!(env.other, ["half-close", "abandon", "end"]);
}

#[test]
fn stop_gives_a_teardown_up() {
    let mut env = Env::subscribed();
    assert!(!env.driver.calls_off(&Command::Stop));
    env.command(Command::Teardown);
    assert!(env.driver.calls_off(&Command::Stop));
    assert!(!env.driver.calls_off(&Command::Teardown));
    env.command(Command::Stop);
    assert_eq!(env.other, ["half-close"], "the teardown may still get through");
    env.end(lost());
    assert_eq!(env.other, ["half-close", "end"]);
}

#[test]
fn a_kill_that_the_master_is_silent_about_is_repeated() {
    // A new process takes over; the master has restarted and t1's agent is not back.
    let mut options = options(&["m1:1"]);
    options.framework.id = Some(v1::FrameworkId { value: "F".into() });
    let mut env = Env::with(options);
    env.tick();
    env.subscribe();
    env.forget();
    env.command(kill("t1"));
    assert_eq!(env.kinds(), [Type::Kill]);
    assert_eq!(env.wait(), Duration::from_secs(1));
    let asked = env.calls.pop().unwrap().reconcile.unwrap().tasks;
    assert_eq!(asked[0].task_id.value, "t1");
    assert_eq!(env.wait(), Duration::from_secs(1), "until it is answered");
    env.forget();
    env.update("t1", v1::TaskState::TaskRunning);
    assert_eq!(env.kinds(), [Type::Kill]);
    assert_eq!(env.wait(), Duration::from_secs(30), "only the heartbeat is waited for");
    // A live task is asked for at each resubscription and not besides.
    let mut env = Env::subscribed();
    env.update("t2", v1::TaskState::TaskRunning);
    env.command(kill("t2"));
    assert_eq!(env.wait(), Duration::from_secs(30));
}

#[test]
fn a_task_that_nobody_knows_is_not_asked_for_again() {
    let mut env = Env::subscribed();
    env.command(Command::Reconcile(vec![("t1".into(), None)]));
    env.update("t1", v1::TaskState::TaskUnknown);
    env.end(lost());
    env.wait();
    env.forget();
    env.subscribe();
    assert!(env.calls.iter().all(|c| c.reconcile.as_ref().is_some_and(|r| r.tasks.is_empty())));
}
