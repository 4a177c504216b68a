mod uploads;

use mezz_proto::{
    resources::{Dialect, Resources},
    v1::{TaskState, task_status::Reason},
};
use serde_json::json;

use super::*;
use crate::dispatcher::job::{self, tests::request};
use mezz_proto::v1;

pub(super) fn options() -> CoreOptions {
    CoreOptions {
        masters: vec!["a:5050".into(), "b:5050".into()],
        role: "*".into(),
        spark_home: "/opt/spark".into(),
        mezz: "/usr/bin/mezz".into(),
        bridge_jar: "/usr/share/mezz/bridge.jar".into(),
        max_queued: 5,
        max_ended: 3,
        address: "d:7077".into(),
    }
}

pub(super) fn job(properties: serde_json::Value) -> Job {
    Job::read(request(properties)).unwrap()
}

pub(super) fn offer(id: &str, agent: &str, resources: &str) -> v1::Offer {
    v1::Offer {
        id: v1::OfferId { value: id.into() },
        agent_id: v1::AgentId { value: agent.into() },
        hostname: format!("{agent}.example"),
        resources: Resources::parse(resources).unwrap().to_proto(Dialect::Refined, Some("*")),
        allocation_info: Some(v1::resource::AllocationInfo { role: Some("*".into()) }),
        ..Default::default()
    }
}

pub(super) fn status(task: &str, state: TaskState) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: v1::TaskId { value: task.into() },
        agent_id: Some(v1::AgentId { value: "s1".into() }),
        state: state as i32,
        ..Default::default()
    }
}

/// A core and what it put out, at a time of its own.
struct World {
    core: Core,
    now: Time,
}

impl World {
    fn new() -> Self {
        // 2026-01-31 12:00:00.
        let now = Time::from_secs(1_769_860_800);
        Self { core: Core::new(options(), Vec::new(), 1, now), now }
    }

    fn submit(&mut self, properties: serde_json::Value) -> String {
        let mut out = Vec::new();
        let id = self.core.submit(self.now, job(properties), &mut out).unwrap();
        assert!(matches!(out[0], Output::Put(_)), "{out:?}");
        assert_eq!(out[1..], [Output::Revive]);
        id
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        let mut out = Vec::new();
        self.core.handle(self.now, event, &mut out);
        self.core.check_invariants().unwrap();
        out
    }

    fn offers(&mut self, offers: Vec<v1::Offer>) -> Vec<Output> {
        self.event(Event::Offers(offers))
    }

    /// Ids of the tasks that these offers started, by offer.
    fn launched(&mut self, offers: Vec<v1::Offer>) -> Vec<(String, v1::TaskInfo)> {
        let out = self.offers(offers);
        let launch = |o| match o {
            Output::Launch { offers, task } => Some((offers[0].value.clone(), *task)),
            _ => None,
        };
        out.into_iter().filter_map(launch).collect()
    }

    fn start(&mut self, properties: serde_json::Value) -> String {
        let id = self.submit(properties);
        assert_eq!(self.launched(vec![offer("o", "s1", "cpus:4;mem:4096")]).len(), 1);
        self.update(&id, TaskState::TaskRunning);
        id
    }

    fn update(&mut self, task: &str, state: TaskState) -> Vec<Output> {
        self.event(Event::Update(Box::new(status(task, state))))
    }

    fn state(&self, id: &str) -> DriverState {
        self.core.get(id).unwrap().state
    }

    fn after(&mut self, secs: u64) -> Vec<Output> {
        self.now = self.now + Duration::from_secs(secs);
        let mut out = Vec::new();
        self.core.on_deadline(self.now, &mut out);
        out
    }
}

#[test]
fn a_driver_s_life() {
    let mut w = World::new();
    assert!(!w.core.wants_offers());
    let id = w.submit(json!({}));
    assert_eq!(id, "driver-20260131120000-0001");
    let out =
        w.offers(vec![offer("o1", "s1", "cpus:2;mem:2048"), offer("o2", "s2", "cpus:2;mem:2048")]);
    let [
        Output::Put(stored),
        Output::Launch { offers, task },
        Output::Decline { offers: rest, .. },
        Output::Suppress,
    ] = out.as_slice()
    else {
        panic!("{out:?}")
    };
    assert_eq!(stored.live().unwrap().task, task.task_id.value, "stored before it is launched");
    assert_eq!((offers[0].value.as_str(), rest[0].value.as_str()), ("o1", "o2"));
    assert_eq!(task.task_id.value, id);
    assert_eq!(
        Resources::from_proto(&task.resources).unwrap().to_string(),
        "cpus(allocated: *):1; mem(allocated: *):1408".replace("(allocated: *)", "")
    );
    w.update(&id, TaskState::TaskRunning);
    assert_eq!(w.state(&id), DriverState::Running);
    assert_eq!(w.update(&id, TaskState::TaskRunning), [], "nothing new");
    w.update(&id, TaskState::TaskFinished);
    assert_eq!(w.state(&id), DriverState::Finished);
    assert_eq!(w.update(&id, TaskState::TaskFinished), [], "nothing new");
    assert_eq!(w.core.kill(w.now, &id, &mut Vec::new()), KillAnswer::Ended);
}

#[test]
fn the_highest_priority_goes_first_then_the_oldest() {
    let mut w = World::new();
    let old = w.submit(json!({}));
    let low = w.submit(json!({"spark.mezz.dispatcher.priority": "-1"}));
    let high = w.submit(json!({"spark.mezz.dispatcher.priority": "7"}));
    let big = w.submit(json!({"spark.mezz.dispatcher.priority": "9", "spark.driver.cores": "8"}));
    let mut order = Vec::new();
    for _ in 0..4 {
        let launched = w.launched(vec![offer("o", "s1", "cpus:4;mem:4096")]);
        order.extend(launched.into_iter().map(|(_, t)| t.task_id.value));
    }
    assert_eq!(order, [high, old, low], "one that fits nowhere is overtaken");
    assert_eq!(w.launched(vec![offer("o", "s1", "cpus:8;mem:4096")])[0].1.task_id.value, big);
}

#[test]
fn several_drivers_start_from_one_round_of_offers() {
    let mut w = World::new();
    let constrained = json!({"spark.mezz.driver.constraints": "rack:b"});
    let first = w.submit(constrained);
    let second = w.submit(json!({}));
    let mut rack_b = offer("o2", "s2", "cpus:1;mem:2048");
    rack_b.attributes.push(v1::Attribute {
        name: "rack".into(),
        r#type: v1::value::Type::Text as i32,
        text: Some(v1::value::Text { value: "b".into() }),
        ..Default::default()
    });
    // Two offers of one agent are used together.
    let offers = vec![
        offer("o1", "s1", "cpus:0.5;mem:1024"),
        rack_b,
        offer("o3", "s1", "cpus:0.5;mem:1024"),
    ];
    let launched = w.launched(offers);
    let places: Vec<_> = launched.iter().map(|(o, t)| (o.as_str(), &t.task_id.value)).collect();
    assert_eq!(places, [("o2", &first), ("o1", &second)]);
}

#[test]
fn a_full_queue_says_so() {
    let mut w = World::new();
    for _ in 0..5 {
        w.submit(json!({}));
    }
    let error = w.core.submit(w.now, job(json!({})), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with("5 drivers wait already"), "{error}");
    // One that runs waits no more.
    w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    w.submit(json!({}));
}

#[test]
fn kills() {
    let mut w = World::new();
    let waiting = w.submit(json!({}));
    let mut out = Vec::new();
    assert_eq!(w.core.kill(w.now, &waiting, &mut out), KillAnswer::Removed);
    assert_eq!(w.state(&waiting), DriverState::Killed);
    assert!(matches!(out.as_slice(), [Output::Put(_), Output::Suppress]), "{out:?}");

    let running = w.start(json!({"spark.driver.supervise": "true"}));
    let mut out = Vec::new();
    assert_eq!(w.core.kill(w.now, &running, &mut out), KillAnswer::Asked);
    assert!(matches!(out.as_slice(), [Output::Put(s), Output::Kill { .. }] if s.kill), "{out:?}");
    // A driver that is ended badly is ended all the same.
    w.update(&running, TaskState::TaskFailed);
    assert_eq!(w.state(&running), DriverState::Killed);
    assert_eq!(w.core.kill(w.now, "driver-none", &mut Vec::new()), KillAnswer::Unknown);

    let by_operator = w.start(json!({"spark.driver.supervise": "true"}));
    w.update(&by_operator, TaskState::TaskKilled);
    assert_eq!(w.state(&by_operator), DriverState::Killed);
}

#[test]
fn a_supervised_driver_is_started_again_after_growing_pauses() {
    let mut w = World::new();
    let id = w.start(json!({"spark.driver.supervise": "true"}));
    for (retry, pause) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let task = if retry == 0 { id.clone() } else { format!("{id}-retry-{retry}") };
        w.update(&task, TaskState::TaskFailed);
        assert_eq!(w.state(&id), DriverState::Relaunching);
        assert_eq!(w.core.next_deadline(), Some(w.now + Duration::from_secs(pause)), "{retry}");
        assert_eq!(w.after(pause - 1), []);
        assert!(w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]).is_empty());
        assert_eq!(w.after(1), [Output::Revive]);
        let launched = w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
        assert_eq!(launched[0].1.task_id.value, format!("{id}-retry-{}", retry + 1));
        w.update(&format!("{id}-retry-{}", retry + 1), TaskState::TaskRunning);
    }
    // After a good run the pauses begin anew.
    w.now = w.now + Duration::from_secs(60);
    w.update(&format!("{id}-retry-8"), TaskState::TaskFailed);
    assert_eq!(w.core.next_deadline(), Some(w.now + Duration::from_secs(1)));
    // A good end is the end.
    w.after(1);
    w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    w.update(&format!("{id}-retry-9"), TaskState::TaskFinished);
    assert_eq!(w.state(&id), DriverState::Finished);
}

#[test]
fn a_driver_that_is_ready_again_is_not_held_up_by_one_that_fits_nowhere() {
    let mut w = World::new();
    let id = w.start(json!({"spark.driver.supervise": "true"}));
    w.submit(json!({"spark.driver.cores": "64"}));
    w.update(&id, TaskState::TaskFailed);
    // Its agent is offered at once, and refused: it does for neither.
    assert!(w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]).is_empty());
    assert_eq!(w.core.next_deadline(), Some(w.now + Duration::from_secs(1)));
    assert_eq!(w.after(1), [Output::Revive]);
    assert_eq!(w.core.next_deadline(), None);
    assert_eq!(w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]).len(), 1);
}

#[test]
fn what_was_lost() {
    for supervise in ["false", "true"] {
        let supervised = json!({"spark.driver.supervise": supervise});
        // Before it ran, nothing is done twice: it goes back to the queue.
        let mut w = World::new();
        let id = w.submit(supervised.clone());
        w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
        let out = w.update(&id, TaskState::TaskDropped);
        assert!(matches!(out.as_slice(), [Output::Put(_), Output::Revive]), "{out:?}");
        assert_eq!(w.state(&id), DriverState::Submitted);
        // Should the old one turn up, it is ended.
        let out = w.update(&id, TaskState::TaskRunning);
        let kill = Output::Kill { task: id.clone(), agent: Some("s1".into()) };
        assert_eq!(out, [kill]);
        // After it ran, only a supervised one is started again.
        w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
        let task = format!("{id}-retry-1");
        w.update(&task, TaskState::TaskRunning);
        w.update(&task, TaskState::TaskGone);
        let wanted =
            if supervise == "true" { DriverState::Relaunching } else { DriverState::Failed };
        assert_eq!(w.state(&id), wanted);
    }
}

#[test]
fn an_unreachable_driver_is_waited_for_unless_it_is_supervised() {
    let mut w = World::new();
    let id = w.start(json!({}));
    w.update(&id, TaskState::TaskUnreachable);
    assert_eq!(w.state(&id), DriverState::Unknown);
    w.update(&id, TaskState::TaskRunning);
    assert_eq!(w.state(&id), DriverState::Running);
    let other = w.start(json!({"spark.driver.supervise": "true"}));
    w.update(&other, TaskState::TaskUnreachable);
    assert_eq!(w.state(&other), DriverState::Relaunching);
    let kill = Output::Kill { task: other.clone(), agent: Some("s1".into()) };
    assert_eq!(w.update(&other, TaskState::TaskRunning), [kill]);
}

#[test]
fn a_run_that_the_master_has_forgotten_is_asked_after_before_it_is_given_up() {
    let mut w = World::new();
    let id = w.start(json!({}));
    let asked = [Output::Reconcile(vec![(id.clone(), "s1".to_owned())])];
    w.update(&id, TaskState::TaskUnknown);
    assert_eq!(w.state(&id), DriverState::Unknown);
    assert_eq!(w.core.next_deadline(), Some(w.now + Duration::from_secs(5)));
    assert_eq!(w.after(5), asked);
    w.update(&id, TaskState::TaskRunning);
    assert_eq!((w.state(&id), w.core.next_deadline()), (DriverState::Running, None));
    // One that is to end meanwhile ends when it is found again.
    w.update(&id, TaskState::TaskUnknown);
    assert_eq!(w.core.kill(w.now, &id, &mut Vec::new()), KillAnswer::Asked);
    let kill = Output::Kill { task: id.clone(), agent: Some("s1".into()) };
    assert_eq!(w.update(&id, TaskState::TaskRunning)[0], kill);

    let mut w = World::new();
    let id = w.start(json!({}));
    for _ in 0..120 {
        w.update(&id, TaskState::TaskUnknown);
        assert_eq!(w.state(&id), DriverState::Unknown);
        assert_eq!(w.after(5), asked);
    }
    w.update(&id, TaskState::TaskUnknown);
    assert_eq!((w.state(&id), w.core.next_deadline()), (DriverState::Failed, None));
}

/// A master that was restarted without its registry while the driver started: it is not
/// run twice, if its agent comes back.
#[test]
fn a_start_that_the_master_has_forgotten_is_waited_for_too() {
    for (back, wanted) in [
        (TaskState::TaskRunning, DriverState::Running),
        (TaskState::TaskStarting, DriverState::Submitted),
    ] {
        let mut w = World::new();
        let id = w.submit(json!({}));
        w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
        w.update(&id, TaskState::TaskUnknown);
        assert_eq!(w.state(&id), DriverState::Unknown);
        assert!(w.launched(vec![offer("p", "s2", "cpus:1;mem:2048")]).is_empty());
        w.after(85);
        w.update(&id, TaskState::TaskUnknown);
        w.update(&id, back);
        assert_eq!((w.state(&id), w.core.next_deadline()), (wanted, None));
    }
    let mut w = World::new();
    let id = w.submit(json!({}));
    w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    w.update(&id, TaskState::TaskUnknown);
    w.after(90);
    w.update(&id, TaskState::TaskUnknown);
    assert_eq!((w.state(&id), w.core.next_deadline()), (DriverState::Submitted, None));
    assert_eq!(w.launched(vec![offer("p", "s2", "cpus:1;mem:2048")]).len(), 1);
}

#[test]
fn agents_without_an_engine_are_not_tried_twice() {
    let mut w = World::new();
    let id = w.submit(json!({"spark.mezz.driver.docker.image": "i"}));
    w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    let mut failed = status(&id, TaskState::TaskFailed);
    failed.reason = Some(Reason::ContainerLaunchFailed as i32);
    failed.message = Some(
        "container.type: DOCKER needs a Docker engine, and this agent has none (its --docker)"
            .into(),
    );
    w.event(Event::Update(Box::new(failed.clone())));
    assert_eq!(w.state(&id), DriverState::Submitted);
    let offers = || vec![offer("o", "s1", "cpus:1;mem:2048"), offer("p", "s2", "cpus:1;mem:2048")];
    assert!(w.launched(offers()[..1].to_vec()).is_empty());
    let launched = w.launched(offers());
    assert_eq!(launched[0].0, "p");
    let container = launched[0].1.container.as_ref().unwrap();
    assert_eq!(container.docker.as_ref().unwrap().image, "i");
    // One that does not answer is no fault of the driver's either.
    failed.task_id = launched[0].1.task_id.clone();
    let agent = || w.core.get(&id).unwrap().attempt.as_ref().unwrap().agent.clone();
    assert_eq!(agent(), "s2");
    failed.message =
        Some("getting its image: the Docker engine does not answer at unix:///x".to_owned());
    w.event(Event::Update(Box::new(failed)));
    assert_eq!(w.state(&id), DriverState::Submitted);
    assert!(w.launched(offers()).is_empty());
    let said = crate::dispatcher::view::DriverView::of(w.core.get(&id).unwrap(), None).message;
    let said = said.unwrap();
    assert!(said.starts_with("s2.example cannot reach its Docker engine; no agent"), "{said}");
    assert!(
        said.ends_with(
            "s1.example has no Docker engine; s2.example cannot reach its Docker engine"
        ),
        "{said}"
    );
    // Others do not care, and engines may come back.
    let plain = w.submit(json!({"spark.mezz.dispatcher.priority": "1"}));
    assert_eq!(w.launched(offers()[..1].to_vec())[0].1.task_id.value, plain);
    w.now = w.now + REFUSAL;
    assert_eq!(w.launched(offers()).len(), 1);
}

#[test]
fn a_driver_that_waits_says_what_agents_lack() {
    let mut w = World::new();
    let id = w.submit(json!({
        "spark.driver.cores": "2", "spark.driver.resource.gpu.amount": "1",
        "spark.mezz.driver.constraints": "rack:a",
    }));
    let said =
        |w: &World| crate::dispatcher::view::DriverView::of(w.core.get(&id).unwrap(), None).message;
    assert_eq!(said(&w), None, "nothing was offered");
    w.offers(vec![offer("o", "s1", "cpus:9;mem:9999;gpus:9")]);
    let mut small = offer("p", "s2", "cpus:1;mem:9999");
    let rack = |value: &str| v1::Attribute {
        name: "rack".into(),
        r#type: v1::value::Type::Text as i32,
        text: Some(v1::value::Text { value: value.into() }),
        ..Default::default()
    };
    small.attributes = vec![rack("a")];
    w.offers(vec![small.clone()]);
    assert_eq!(
        said(&w).as_deref(),
        Some(
            "no agent that is offered has room for it (cpus:2; mem:1408): s1.example does not \
             meet spark.mezz.driver.constraints; s2.example has only cpus:1, gpus:0"
        )
    );
    assert!(w.core.notices.contains_key(&id));
    small.resources = offer("p", "s2", "cpus:2;mem:2048;gpus:1").resources;
    assert_eq!(w.launched(vec![small]).len(), 1);
    assert_eq!((said(&w), w.core.notices.len()), (None, 0));
}

#[test]
fn a_driver_with_gpus_gets_them_and_is_told_which() {
    let mut w = World::new();
    w.submit(json!({
        "spark.driver.resource.gpu.amount": "2", "spark.driver.resource.fpga.amount": "1",
        "spark.driver.resource.seen.amount": "1", "spark.driver.resource.seen.discoveryScript": "/s",
        "spark.mezz.driver.labels": "team:search", "spark.mezz.driver.uris": "/data/a,http://h/b",
    }));
    let small = offer("o1", "s1", "cpus:4;mem:4096;gpus:1;fpga:{f1};seen:1");
    let large = offer("o2", "s2", "cpus:4;mem:4096;gpus:4;fpga:{f2,f3};seen:1");
    let launched = w.launched(vec![small, large]);
    assert_eq!(launched[0].0, "o2");
    let task = &launched[0].1;
    let got = Resources::from_proto(&task.resources).unwrap();
    assert_eq!((got.scalar("gpus").to_f64(), got.scalar("seen").to_f64()), (2.0, 1.0));
    assert_eq!(got.named("fpga").next().unwrap().amount.to_string(), "{f2}");
    assert_eq!(task.labels.as_ref().unwrap().labels[0].key, "team");
    let command = task.command.as_ref().unwrap();
    let uris: Vec<_> = command.uris.iter().map(|u| (u.value.as_str(), u.cache())).collect();
    assert!(uris.ends_with(&[("/data/a", true), ("http://h/b", true)]), "{uris:?}");
    let script = command.value.as_deref().unwrap();
    assert!(
        script.starts_with("printf %s \"$MEZZ_SPARK_RESOURCES\" >\"$MESOS_SANDBOX/"),
        "{script}"
    );
    let secret = |name: &str| {
        let all = &command.environment.as_ref().unwrap().variables;
        let one = all.iter().find(|v| v.name == name).unwrap();
        let value = one.secret.as_ref().unwrap().value.as_ref().unwrap();
        String::from_utf8(value.data.clone()).unwrap()
    };
    let told = secret("MEZZ_SPARK_RESOURCES");
    for (name, addresses) in [("gpu", r#"["0","1"]"#), ("fpga", r#"["f2"]"#)] {
        let one = format!(
            r#"{{"id":{{"componentName":"spark.driver","resourceName":"{name}"}},"addresses":{addresses}}}"#
        );
        assert!(told.contains(&one), "{told}");
    }
    assert!(!told.contains("seen"), "{told}");
    let settings = secret("MEZZ_SPARK_PROPERTIES");
    assert!(settings.contains("spark.driver.resourcesFile=spark-resources.json"), "{settings}");
}

#[test]
fn a_driver_without_gpus_leaves_them_to_others() {
    let mut w = World::new();
    w.submit(json!({}));
    let gpus = || offer("o1", "s1", "cpus:4;mem:4096;gpus:4");
    let launched = w.launched(vec![gpus(), offer("o2", "s2", "cpus:4;mem:4096")]);
    assert_eq!(launched[0].0, "o2");
    assert!(launched[0].1.labels.is_none());
    w.submit(json!({}));
    assert_eq!(w.launched(vec![gpus()])[0].0, "o1");
}

#[test]
fn a_failure_says_what_to_do() {
    let mut w = World::new();
    let id = w.start(json!({}));
    let mut failed = status(&id, TaskState::TaskFailed);
    failed.reason = Some(Reason::ContainerLimitationMemory as i32);
    w.event(Event::Update(Box::new(failed)));
    let message = w.core.get(&id).unwrap().message.clone().unwrap();
    assert!(message.contains("limit of 1408 MiB; raise spark.driver.memoryOverhead"), "{message}");
    let id = w.start(json!({}));
    let mut failed = status(&id, TaskState::TaskFailed);
    failed.message = Some("exited with status 3".into());
    w.event(Event::Update(Box::new(failed)));
    assert_eq!(
        w.core.get(&id).unwrap().message.as_deref().unwrap(),
        format!(
            "exited with status 3 on s1.example; `mezz spark logs {id} --stderr` shows what it \
             wrote"
        )
    );
}

#[test]
fn history_is_bounded_and_can_be_cleared() {
    let mut w = World::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = w.start(json!({}));
        w.now = w.now + Duration::from_secs(1);
        w.update(&id, TaskState::TaskFinished);
        ids.push(id);
    }
    let left: Vec<_> = w.core.list().into_iter().map(|s| s.id.clone()).collect();
    assert_eq!(left, ids[2..]);
    let live = w.start(json!({}));
    let mut out = Vec::new();
    assert_eq!(w.core.clear(&mut out), 3);
    assert_eq!(out.len(), 3);
    assert_eq!(w.core.list().len(), 1);
    assert_eq!(w.core.kill_all(w.now, &mut Vec::new()), 1);
    assert!(w.core.get(&live).unwrap().kill);
}

#[test]
fn a_restart_asks_after_what_ran_and_ends_again_what_was_to_end() {
    let mut w = World::new();
    let id = w.start(json!({}));
    let dying = w.start(json!({}));
    let waiting = w.submit(json!({}));
    w.core.kill(w.now, &dying, &mut Vec::new());
    let stored: Vec<Submission> = w.core.list().into_iter().cloned().collect();
    let mut again = World { core: Core::new(options(), stored, 0, w.now), now: w.now };
    assert!(again.core.wants_offers());
    let out = again.event(Event::Subscribed);
    let asked = vec![(id.clone(), "s1".to_owned()), (dying.clone(), "s1".to_owned())];
    let kill = Output::Kill { task: dying, agent: Some("s1".into()) };
    assert_eq!(out, [Output::Reconcile(asked), kill]);
    again.update(&id, TaskState::TaskFinished);
    assert_eq!(again.state(&id), DriverState::Finished);
    assert_eq!(
        again.launched(vec![offer("o", "s1", "cpus:1;mem:2048")])[0].1.task_id.value,
        waiting
    );
    // Numbers go on.
    assert!(again.submit(json!({})).ends_with("-0004"));
}

#[test]
fn a_framework_that_was_ended_leaves_the_queue_as_it_is() {
    let mut w = World::new();
    let ran = w.start(json!({}));
    let supervised = w.start(json!({"spark.driver.supervise": "true"}));
    let waiting = w.submit(json!({}));
    w.event(Event::Forgotten);
    assert_eq!(w.state(&ran), DriverState::Failed);
    assert_eq!(w.state(&supervised), DriverState::Relaunching);
    assert_eq!(w.state(&waiting), DriverState::Submitted);
}

/// The shell line and the settings of a driver.
fn launch_of(mut request: job::CreateRequest) -> (v1::CommandInfo, BTreeMap<String, String>) {
    request.environment_variables =
        Some(BTreeMap::from([("SPARK_USER".into(), Some("ann".into()))]));
    let mut w = World::new();
    w.core.submit(w.now, Job::read(request).unwrap(), &mut Vec::new()).unwrap();
    let (_, task) = w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]).remove(0);
    let command = task.command.unwrap();
    let variables = &command.environment.as_ref().unwrap().variables;
    assert!(variables.iter().all(|v| v.value.is_none()), "each is a secret");
    let text = variables.iter().find(|v| v.name == "MEZZ_SPARK_PROPERTIES").unwrap();
    let text = text.secret.as_ref().unwrap().value.as_ref().unwrap().data.clone();
    let settings = crate::dispatcher::properties::read(std::str::from_utf8(&text).unwrap());
    (command, settings)
}

#[test]
fn an_image_has_what_a_driver_needs_where_executors_have_it() {
    let image = ("spark.mezz.driver.docker.image", "i");
    let (command, settings) = launch_of(request(json!({image.0: image.1})));
    let line = command.value.unwrap();
    assert!(line.contains(" exec \"${SPARK_HOME:?"), "{line}");
    let variables = command.environment.unwrap().variables;
    assert!(variables.iter().all(|v| v.name != "SPARK_HOME"));
    assert_eq!(settings["spark.mezz.bin"], "/opt/mezz/mezz");
    assert_eq!(settings["spark.driver.extraClassPath"], "/opt/mezz/mezz-spark-bridge.jar");
    let (command, settings) = launch_of(request(json!({
        image.0: image.1, "spark.mezz.driver.home": "/s", "spark.mezz.driver.bin": "/m",
        "spark.mezz.driver.bridgeJar": "/b.jar",
    })));
    assert!(command.value.unwrap().contains(" exec '/s/bin/spark-submit' "));
    assert!(command.environment.unwrap().variables.iter().any(|v| v.name == "SPARK_HOME"));
    assert_eq!(settings["spark.mezz.bin"], "/m");
    assert_eq!(settings["spark.driver.extraClassPath"], "/b.jar");
}

#[test]
fn the_command_has_no_secret_and_the_settings_are_the_driver_s() {
    let mut r = request(json!({
        "spark.authenticate.secret": "hush",
        "spark.driver.host": "client",
        "spark.submit.deployMode": "cluster",
        "spark.driver.extraClassPath": "/x.jar",
        "spark.mezz.bin": "/home/ann/mezz",
        "spark.app.id": "mine",
    }));
    r.app_args = Some(vec!["it's".into(), "$(boom)".into()]);
    let (command, settings) = launch_of(r);
    let line = command.value.unwrap();
    assert!(!line.contains("hush"), "{line}");
    assert!(
        line.ends_with(
            "exec '/opt/spark/bin/spark-submit' '--master' 'spark-mezz://a:5050,b:5050' \
             '--deploy-mode' 'client' '--properties-file' '/proc/self/fd/3' '--class' \
             'org.example.Pi' 'file:/opt/app.jar' 'it'\\''s' '$(boom)'"
        ),
        "{line}"
    );
    let pairs: Vec<_> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("spark.app.id", "mine"),
            ("spark.app.name", "pi"),
            ("spark.authenticate.secret", "hush"),
            ("spark.driver.bindAddress", "0.0.0.0"),
            ("spark.driver.extraClassPath", "/x.jar:/usr/share/mezz/bridge.jar"),
            ("spark.driver.host", "s1.example"),
            ("spark.mezz.bin", "/usr/bin/mezz"),
        ]
    );
}

/// The line is run here, with a `spark-submit` that shows what it is given.
#[test]
fn a_driver_that_asks_for_authentication_gets_a_new_secret_in_each_run() {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("bin/spark-submit");
    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::write(&program, "#!/bin/sh\ncat /proc/self/fd/3\nenv\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let home = folder.path().to_str().unwrap();
    let run = |settings: serde_json::Value| {
        let (command, properties) = launch_of(request(settings));
        let output = Command::new("sh")
            .arg("-c")
            .arg(command.value.unwrap())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("MESOS_SANDBOX", home)
            .env("TMPDIR", home)
            .env("MEZZ_SPARK_PROPERTIES", crate::dispatcher::properties::write(&properties))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("spark.app.name=pi\n"), "{said}");
        let secrets: Vec<String> = said
            .lines()
            .filter_map(|line| line.strip_prefix("spark.authenticate.secret="))
            .map(str::to_owned)
            .collect();
        assert_eq!(said.matches("secret").count(), secrets.len(), "elsewhere too: {said}");
        secrets
    };
    let wanted = json!({"spark.authenticate": "true", "spark.mezz.driver.home": home});
    let (one, other) = (run(wanted.clone()), run(wanted));
    assert!(one.len() == 1 && one[0].len() == 64 && one != other, "{one:?} {other:?}");
    assert!(run(json!({"spark.mezz.driver.home": home})).is_empty());
    let given = json!({"spark.authenticate": "true", "spark.authenticate.secret": "mine",
        "spark.mezz.driver.home": home});
    assert_eq!(run(given), ["mine"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no file is left");
}

/// Of an archive that `spark.mezz.driver.uris` brings; run here, too.
#[test]
fn spark_s_folder_may_be_what_the_agent_fetched() {
    use std::{fs, process::Command};
    let (command, _) = launch_of(request(json!({"spark.mezz.driver.home": "it's spark"})));
    let (line, variables) = (command.value.unwrap(), command.environment.unwrap().variables);
    assert!(variables.iter().all(|v| v.name != "SPARK_HOME"));
    let sandbox = tempfile::tempdir().unwrap();
    let run = || {
        let sandbox = sandbox.path();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&line).env("MESOS_SANDBOX", sandbox).env("TMPDIR", sandbox);
        let output = shell.env("MEZZ_SPARK_PROPERTIES", "").output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = run();
    let lacking = "spark.mezz.driver.home: no it's spark/bin/spark-submit was fetched\n";
    assert_eq!((code, said.as_str()), (Some(1), lacking));
    let bin = sandbox.path().join("it's spark/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("spark-submit"), "#!/bin/sh\necho \"$SPARK_HOME\"\n").unwrap();
    fs::set_permissions(
        bin.join("spark-submit"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let home = bin.parent().unwrap().display();
    assert_eq!(run(), (Some(0), format!("{home}\n")));
}

#[test]
fn what_comes_by_http_is_fetched_ours_from_the_cache_and_the_rest_is_spark_s() {
    let ours = "http://d:7077/mezz/v1/files/0123456789abcdef0123456789abcdef/words.txt";
    let mut r = request(json!({
        "spark.jars": "http://h/d/app.jar,hdfs://n/b.jar,local:/c.jar",
        "spark.archives": "https://h/env.tar.gz?x=1#environment",
        "spark.files": ours,
    }));
    r.app_resource = Some("http://h/d/app.jar".into());
    let (command, settings) = launch_of(r);
    let uris: Vec<_> = command
        .uris
        .iter()
        .map(|u| (u.value.as_str(), u.output_file.as_deref().unwrap(), u.cache(), u.extract()))
        .collect();
    assert_eq!(
        uris,
        [
            ("http://h/d/app.jar", "mezz-files/0/app.jar", false, false),
            (ours, "mezz-files/1/words.txt", true, false),
            ("https://h/env.tar.gz?x=1", "mezz-files/2/env.tar.gz", false, false),
        ]
    );
    assert!(command.value.unwrap().contains("'mezz-files/0/app.jar' '20'"));
    assert_eq!(settings["spark.jars"], "mezz-files/0/app.jar,hdfs://n/b.jar,local:/c.jar");
    assert_eq!(settings["spark.archives"], "mezz-files/2/env.tar.gz#environment");
}

#[test]
fn temporary_files_are_in_the_sandbox_unless_somebody_says_where() {
    let line = |properties| launch_of(request(properties)).0.value.unwrap();
    let sandbox = "export SPARK_LOCAL_DIRS=\"$MESOS_SANDBOX\" && ";
    assert!(line(json!({})).starts_with(sandbox));
    assert!(!line(json!({"spark.local.dir": "/scratch"})).contains("SPARK_LOCAL_DIRS"));
}

#[test]
fn dates() {
    for (secs, text) in [
        (0, "19700101000000"),
        (951_782_399, "20000228235959"),
        (951_782_400, "20000229000000"),
        (1_709_251_199, "20240229235959"),
        (1_709_251_200, "20240301000000"),
        (4_102_444_799, "20991231235959"),
    ] {
        assert_eq!(date(Time::from_secs(secs)), text);
    }
}
