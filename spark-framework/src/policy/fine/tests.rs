use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::policy::{
    AttributeValue, Constraints, DOUBT, FailureLimit, LONG_REFUSAL, PolicyOffer, ServiceNo,
    ServiceSize,
};

pub(super) struct Env {
    pub(super) policy: FinePolicy,
    pub(super) now: Time,
    offers: u32,
}

pub(super) fn options() -> FineOptions {
    FineOptions {
        cores_max: None,
        shuffle: None,
        constraints: Constraints::default(),
        failures: FailureLimit::default(),
        task_cpus: Scalar::from_units(1),
        executor_cpus: Scalar::default(),
        task_bytes: (1000, 10_000),
        executor_mem_mib: 1000,
        ahead: 0,
    }
}

impl Env {
    pub(super) fn new(options: FineOptions) -> Self {
        Self { policy: FinePolicy::new(options), now: Time::from_secs(1000), offers: 0 }
    }

    /// With tasks to run.
    pub(super) fn busy(options: FineOptions) -> Self {
        let mut env = Self::new(options);
        assert_eq!(env.send(FineEvent::Revive(1)), [FineAction::Revive]);
        env
    }

    pub(super) fn send(&mut self, event: FineEvent) -> Vec<FineAction> {
        let mut out = Vec::new();
        self.policy.handle(self.now, event, &mut out);
        self.policy.check_invariants().unwrap();
        out
    }

    pub(super) fn offer(&mut self, agent: &str, cpus: f64, mem: f64) -> PolicyOffer {
        self.offers += 1;
        PolicyOffer {
            id: OfferId::new(format!("o{}", self.offers)),
            agent: AgentId::new(agent),
            hostname: format!("{agent}.host"),
            role: Some("spark".into()),
            resources: Resources::cpus_mem(cpus, mem),
            attributes: Vec::new(),
        }
    }

    /// Offers of these agents with these cpus and enough memory.
    pub(super) fn offers(&mut self, agents: &[(&str, f64)]) -> Vec<FineAction> {
        let offers = agents.iter().map(|(a, cpus)| self.offer(a, *cpus, 4000.0)).collect();
        self.send(FineEvent::Offers(offers))
    }

    /// Answers the last batch with tasks of one core, so many for each offer.
    pub(super) fn answer(&mut self, first: u64, counts: &[u64], waiting: bool) -> Vec<FineAction> {
        let mut next = first;
        let mut launches = Vec::new();
        for (at, count) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            launches.push((at, (next..next + count).map(ask).collect()));
            next += count;
        }
        let (batch, seen) = (self.policy.last_batch, self.policy.revivals);
        self.send(FineEvent::Answer(Answer { batch, seen, waiting, launches }))
    }

    /// With shuffle services, and the first executor on `a1` with its own.
    fn served(n: u32) -> Self {
        let size = ServiceSize { cpus: Scalar::from_millis(100), mem_mib: 256 };
        let mut env = Self::busy(FineOptions { shuffle: Some(size), ..options() });
        env.serve(n);
        env
    }

    /// An executor that runs, and its service that does.
    fn serve(&mut self, n: u32) {
        let agent = AgentId::new(format!("a{n}"));
        let resources = Resources::parse("cpus:2.1;mem:1256;ports:[31000-31009]").unwrap();
        let offer = PolicyOffer { resources, ..self.offer(agent.as_str(), 0.0, 0.0) };
        assert_eq!(shown(&self.send(FineEvent::Offers(vec![offer]))).len(), 1);
        let out = self.answer(u64::from(n), &[1], true);
        let on = (launched(&out).executor, agent.clone());
        self.send(FineEvent::ServiceRunning { service: ServiceNo(n), agent });
        self.send(FineEvent::Running { task: TaskNo(n.into()), on });
    }

    /// An executor on `a` that runs task 1.
    pub(super) fn running() -> Self {
        let mut env = Self::busy(options());
        env.offers(&[("a", 2.0)]);
        env.answer(1, &[1], true);
        let running = || FineEvent::Running { task: TaskNo(1), on: (ExecutorNo(1), "a".into()) };
        assert_eq!(env.send(running()), [FineAction::Up(ExecutorNo(1))]);
        assert_eq!(env.send(running()), []);
        env
    }
}

/// Spark takes what it is shown together in any order.
#[test]
fn agents_with_gpus_are_shown_last() {
    let mut env = Env::busy(options());
    let mut gpus = env.offer("a", 1.0, 4000.0);
    gpus.resources = Resources::parse("cpus:1;mem:4000;gpus:1").unwrap();
    let plain = env.offer("b", 1.0, 4000.0);
    let out = env.send(FineEvent::Offers(vec![gpus, plain]));
    let batches = out.iter().filter_map(|action| match action {
        FineAction::Show { offers, .. } => Some(offers),
        _ => None,
    });
    let agents: Vec<Vec<&str>> =
        batches.map(|offers| offers.iter().map(|o| o.agent.as_str()).collect()).collect();
    assert_eq!(agents, [["b"], ["a"]]);
}

pub(super) fn ask(task: u64) -> TaskAsk {
    TaskAsk { task: TaskNo(task), cpus: Scalar::from_units(1), bytes: 100 }
}

pub(super) fn shown(actions: &[FineAction]) -> Vec<(u32, String, f64)> {
    let show = actions.iter().filter_map(|a| match a {
        FineAction::Show { offers, .. } => Some(offers),
        _ => None,
    });
    show.flatten().map(|o| (o.executor.0, o.agent.to_string(), o.cpus.to_f64())).collect()
}

pub(super) fn launched(actions: &[FineAction]) -> &FineLaunch {
    let launch = actions.iter().find_map(|a| match a {
        FineAction::Launch(launch) => Some(launch),
        _ => None,
    });
    launch.unwrap_or_else(|| panic!("no launch in {actions:?}"))
}

pub(super) fn declined(actions: &[FineAction]) -> Vec<u64> {
    let declined = actions.iter().filter_map(|a| match a {
        FineAction::Decline { refuse, .. } => Some(refuse.as_secs()),
        _ => None,
    });
    declined.collect()
}

pub(super) fn failed() -> Exit {
    Exit { kind: ExitKind::Failed, code: 1, by_app: true, reason: "exited with status 1".into() }
}

pub(super) const LONG: u64 = LONG_REFUSAL.as_secs();

#[test]
fn an_offer_becomes_an_executor_that_holds_memory_and_tasks_that_hold_cores() {
    let mut env = Env::busy(options());
    let out = env.offers(&[("a", 2.0), ("b", 1.0)]);
    assert_eq!(shown(&out), [(1, "a".into(), 2.0), (2, "b".into(), 1.0)]);
    let out = env.answer(1, &[2, 0], true);
    let first = launched(&out);
    assert_eq!((first.executor.0, first.up, first.tasks.len()), (1, false, 2));
    assert_eq!(first.executor_resources.to_string(), "mem:1000");
    assert_eq!(first.tasks[0].1.to_string(), "cpus:1");
    // Nothing is left of it that would be of use; the other offer may be, soon.
    assert_eq!(first.refuse, LONG_REFUSAL);
    assert_eq!(declined(&out), [1]);
    // The executor is there now: the next offer of its agent needs no memory.
    env.send(FineEvent::Done(TaskNo(1)));
    let again = env.offer("a", 1.0, 0.0);
    let out = env.send(FineEvent::Offers(vec![again]));
    assert_eq!(shown(&out), [(1, "a".into(), 1.0)]);
    let out = env.answer(3, &[1], true);
    assert!(launched(&out).up);
    assert_eq!(launched(&out).executor_resources, Resources::parse("mem:1000").unwrap());
}

#[test]
fn a_driver_with_nothing_to_run_is_offered_nothing() {
    let mut env = Env::new(options());
    let out = env.offers(&[("a", 2.0)]);
    assert_eq!((shown(&out), declined(&out)), (vec![], vec![LONG]));
    assert_eq!(env.send(FineEvent::Revive(1)), [FineAction::Revive]);
    env.offers(&[("a", 2.0)]);
    let out = env.answer(1, &[1], false);
    assert_eq!(out.last(), Some(&FineAction::Suppress));
    // What is on its way still.
    assert_eq!(declined(&env.offers(&[("b", 2.0)])), [LONG]);
    assert_eq!(env.send(FineEvent::Revive(2)), [FineAction::Revive]);
    // With nothing refused since, there is nothing to revive.
    assert_eq!(env.send(FineEvent::Revive(3)), []);
}

/// A job may begin while the driver answers that it has nothing to run.
#[test]
fn a_request_for_offers_wins_over_an_older_answer() {
    let mut env = Env::busy(options());
    env.offers(&[("a", 2.0)]);
    let answer = Answer { batch: 1, seen: 1, waiting: false, launches: vec![] };
    env.send(FineEvent::Revive(2));
    let out = env.send(FineEvent::Answer(answer));
    assert!(!out.contains(&FineAction::Suppress), "{out:?}");
    // The same offer comes at once, for the driver to look at it again.
    assert_eq!(declined(&out), [0]);
    assert!(!shown(&env.offers(&[("a", 2.0)])).is_empty());
}

#[test]
fn offers_that_are_of_no_use_are_refused_at_once() {
    let mut env = Env::busy(FineOptions {
        constraints: Constraints::parse("ssd:true").unwrap(),
        executor_cpus: Scalar::from_units(1),
        ..options()
    });
    let ssd = || vec![("ssd".to_owned(), AttributeValue::Text("true".into()))];
    let offers = vec![
        env.offer("a", 8.0, 4000.0),
        PolicyOffer { attributes: ssd(), ..env.offer("b", 8.0, 999.0) },
        PolicyOffer { attributes: ssd(), ..env.offer("c", 1.5, 4000.0) },
        PolicyOffer { attributes: ssd(), ..env.offer("d", 2.5, 4000.0) },
    ];
    let out = env.send(FineEvent::Offers(offers));
    assert_eq!(declined(&out), [LONG, LONG, LONG]);
    assert_eq!(shown(&out), [(1, "d".into(), 1.5)]);
    let out = env.answer(1, &[1], true);
    assert_eq!(launched(&out).executor_resources.to_string(), "cpus:1; mem:1000");
}

/// The cores of a dead executor's tasks are free before its memory is; what is
/// refused for want of memory then must not stay refused when there is a new one.
#[test]
fn what_was_too_little_for_an_executor_is_asked_for_once_there_is_one() {
    let mut env = Env::busy(options());
    let small = env.offer("a", 1.0, 500.0);
    assert_eq!(declined(&env.send(FineEvent::Offers(vec![small]))), [LONG]);
    env.offers(&[("a", 1.0)]);
    let out = env.answer(1, &[1], true);
    assert_eq!(launched(&out).tasks.len(), 1);
    assert_eq!(out.last(), Some(&FineAction::Revive));
    let small = env.offer("a", 1.0, 500.0);
    assert_eq!(shown(&env.send(FineEvent::Offers(vec![small]))).len(), 1);
    // Once is enough.
    assert!(!env.answer(2, &[1], true).contains(&FineAction::Revive));
}

#[test]
fn it_is_said_now_and_then_why_tasks_wait() {
    let said = |out: &[FineAction]| {
        out.iter().find_map(|a| match a {
            FineAction::Waiting { message } => Some(message.clone()),
            _ => None,
        })
    };
    let mut env = Env::busy(options());
    let why = || "has no Docker engine".to_owned();
    assert_eq!(env.send(FineEvent::Unable { agent: "a".into(), why: why() }), []);
    let out = env.offers(&[("a", 9.0)]);
    assert_eq!(declined(&out), [LONG_REFUSAL.as_secs()]);
    assert_eq!(
        said(&out).as_deref(),
        Some(
            "no agent that is offered has room for an executor (cpus:0; mem:1000) and a task \
             (cpus:1): a.host has no Docker engine"
        )
    );
    let small = env.offer("b", 2.0, 500.0);
    assert_eq!(said(&env.send(FineEvent::Offers(vec![small]))), None, "not so soon");
    let next = env.now + crate::policy::NOTICE_INTERVAL;
    assert_eq!(env.policy.next_deadline(), Some(next));
    env.now = next;
    let again = said(&env.send(FineEvent::Tick)).unwrap();
    assert!(again.ends_with("a.host has no Docker engine; b.host has only mem:500"), "{again}");
    // What can be used is looked at.
    assert_eq!(shown(&env.offers(&[("c", 1.0)])), [(1, "c".into(), 1.0)]);
    assert_eq!(env.policy.next_deadline(), Some(env.now + ANSWER_TIMEOUT));
    // An idle application waits for nothing.
    env.answer(1, &[0], false);
    assert_eq!(env.policy.next_deadline(), None);
    // An executor that is up needs cores for its tasks.
    let mut env = Env::running();
    env.send(FineEvent::Done(TaskNo(1)));
    env.send(FineEvent::Revive(2));
    let out = env.offers(&[("a", 0.0)]);
    assert!(said(&out).unwrap().ends_with(": a.host has only cpus:0"), "{out:?}");
    // While tasks run, nobody has to know.
    let mut env = Env::running();
    env.send(FineEvent::Unable { agent: "b".into(), why: why() });
    assert_eq!(said(&env.offers(&[("b", 9.0)])), None);
}

#[test]
fn a_driver_that_does_not_answer_loses_the_offer_and_not_its_tasks() {
    let mut env = Env::busy(options());
    env.offers(&[("a", 2.0)]);
    assert_eq!(env.policy.next_deadline(), Some(env.now + ANSWER_TIMEOUT));
    env.now = env.now + ANSWER_TIMEOUT;
    assert_eq!(declined(&env.send(FineEvent::Tick)), [1]);
    assert_eq!(env.policy.next_deadline(), None);
    let out = env.answer(1, &[1], true);
    assert!(
        matches!(&out[..], [FineAction::Undone { tasks, by_app: false, .. }] if tasks == &[TaskNo(1)]),
        "{out:?}"
    );
}

#[test]
fn cores_max_bounds_the_tasks_that_run() {
    let mut env = Env::busy(FineOptions { cores_max: Some(3), ..options() });
    let out = env.offers(&[("a", 2.0), ("b", 2.0), ("c", 2.0)]);
    assert_eq!(shown(&out), [(1, "a".into(), 2.0), (2, "b".into(), 1.0)]);
    env.answer(1, &[2, 1], true);
    assert_eq!(declined(&env.offers(&[("c", 2.0)])), [FULL_REFUSAL.as_secs()]);
    env.send(FineEvent::Done(TaskNo(3)));
    assert_eq!(shown(&env.offers(&[("c", 2.0)])), [(3, "c".into(), 1.0)]);
}

#[test]
fn a_lost_executor_takes_its_tasks_along_and_gets_a_new_number() {
    let mut env = Env::running();
    let out = env.send(FineEvent::LostWith { task: TaskNo(1), exit: failed() });
    let ended = FineAction::Ended { executor: ExecutorNo(1), exit: failed(), ran: vec![TaskNo(1)] };
    // Tasks on their way would start it again.
    let shut = FineAction::ShutDown { executor: ExecutorNo(1), agent: "a".into() };
    assert_eq!(out, [shut.clone(), ended]);
    assert_eq!(env.policy.place_of(TaskNo(1)), None);
    // Its other words come too late.
    assert_eq!(env.send(FineEvent::LostWith { task: TaskNo(1), exit: failed() }), []);
    let gone = FineEvent::ExecutorEnded { executor: ExecutorNo(1), exit: failed() };
    assert_eq!(env.send(gone), []);
    let late = FineEvent::Running { task: TaskNo(1), on: (ExecutorNo(1), "a".into()) };
    assert_eq!(env.send(late), [shut]);
    assert_eq!(shown(&env.offers(&[("a", 2.0)])), [(2, "a".into(), 2.0)]);
}

#[test]
fn an_executor_that_hangs_is_ended_and_its_tasks_are_to_blame() {
    let mut env = Env::running();
    let out = env.send(FineEvent::Kill(vec![ExecutorNo(1)]));
    assert!(matches!(&out[0], FineAction::ShutDown { .. }), "{out:?}");
    let FineAction::Ended { exit, ran, .. } = &out[1] else { panic!("{out:?}") };
    assert!(exit.by_app && ran == &[TaskNo(1)], "{out:?}");
    assert_eq!(env.send(FineEvent::Kill(vec![ExecutorNo(1), ExecutorNo(9)])), []);
}

#[test]
fn an_executor_that_comes_back_with_its_agent_is_turned_out() {
    let mut env = Env::running();
    let out = env.send(FineEvent::AgentLost("a".into()));
    assert!(out.iter().any(|a| matches!(a, FineAction::Ended { .. })), "{out:?}");
    let out = env.offers(&[("a", 2.0)]);
    let shut = FineAction::ShutDown { executor: ExecutorNo(1), agent: "a".into() };
    assert_eq!(out[0], shut);
    assert_eq!(shown(&out), [(2, "a".into(), 2.0)]);
    assert!(!env.offers(&[("a", 2.0)]).contains(&shut), "once is enough");
}

#[test]
fn an_answer_for_an_executor_that_was_lost_meanwhile_comes_back() {
    let mut env = Env::running();
    env.offers(&[("a", 1.0)]);
    env.send(FineEvent::ExecutorEnded { executor: ExecutorNo(1), exit: failed() });
    let out = env.answer(2, &[1], true);
    assert!(matches!(&out[0], FineAction::Undone { by_app: false, .. }), "{out:?}");
    assert_eq!(declined(&out), [1]);
}

#[test]
fn a_task_that_never_ran_is_told_and_its_cores_are_free() {
    let mut env = Env::running();
    env.offers(&[("a", 1.0)]);
    env.answer(2, &[1], true);
    let event = || FineEvent::Undone { task: TaskNo(2), by_app: false, reason: "gone".into() };
    let out = env.send(event());
    assert!(
        matches!(&out[..], [FineAction::Undone { executor, .. }] if executor.0 == 1),
        "{out:?}"
    );
    assert_eq!(env.policy.held, Scalar::from_units(1));
    assert_eq!(env.send(event()), []);

    // The only task of an executor that has not begun: there is no executor.
    let mut env = Env::busy(options());
    env.offers(&[("a", 2.0)]);
    env.answer(2, &[1], true);
    let out = env.send(event());
    assert!(out.iter().any(|a| matches!(a, FineAction::Ended { .. })), "{out:?}");
    assert_eq!(shown(&env.offers(&[("a", 2.0)])), [(2, "a".into(), 2.0)]);
}

#[test]
fn executors_that_fail_are_tried_more_slowly_and_then_no_more() {
    let mut env = Env::busy(options());
    let mut times = Vec::new();
    let mut task = 0;
    let message = loop {
        let out = env.offers(&[("a", 1.0), ("b", 1.0)]);
        if shown(&out).is_empty() {
            env.now = env.now + Duration::from_secs(1);
            continue;
        }
        times.push(env.now.since(Time::from_secs(1000)).as_secs());
        task += 1;
        env.answer(task, &[1], true);
        let out = env.send(FineEvent::LostWith { task: TaskNo(task), exit: failed() });
        if let Some(FineAction::GiveUp { message }) =
            out.iter().find(|a| matches!(a, FineAction::GiveUp { .. }))
        {
            break message.clone();
        }
    };
    assert_eq!(times, [0, 0, 1, 3, 7]);
    assert!(message.contains("exited with status 1"), "{message}");
    assert_eq!(shown(&env.offers(&[("a", 1.0)])), []);
}

#[test]
fn more_failed_executors_than_allowed_end_the_application() {
    let failures = FailureLimit { max: Some(0), within: None };
    let mut env = Env::busy(FineOptions { failures, ..options() });
    env.offers(&[("a", 1.0)]);
    env.answer(1, &[1], true);
    let out = env.send(FineEvent::LostWith { task: TaskNo(1), exit: failed() });
    let gives_up = |a: &FineAction| matches!(a, FineAction::GiveUp { message } if message.contains("maxNumFailures is 0"));
    assert!(out.iter().any(gives_up), "{out:?}");

    // One that the master refuses to start counts, and one that went silent does not.
    let mut env = Env::busy(FineOptions { failures, ..options() });
    env.offers(&[("a", 1.0)]);
    env.answer(1, &[1], true);
    let reason = "the master refused it".to_owned();
    let out = env.send(FineEvent::Undone { task: TaskNo(1), by_app: true, reason });
    assert!(out.iter().any(gives_up), "{out:?}");
    let mut env = Env::busy(FineOptions { failures, ..options() });
    env.offers(&[("a", 1.0)]);
    env.answer(1, &[1], true);
    let out = env.send(FineEvent::Kill(vec![ExecutorNo(1)]));
    assert!(out.iter().any(|a| matches!(a, FineAction::Ended { .. })), "{out:?}");
    assert!(!out.iter().any(gives_up), "{out:?}");
}

/// While it is not known whether executors can be started at all.
#[test]
fn after_a_failed_start_one_executor_is_tried_at_a_time() {
    let mut env = Env::busy(options());
    assert_eq!(shown(&env.offers(&[("a", 1.0), ("b", 1.0), ("c", 1.0)])).len(), 3);
    env.answer(1, &[1], true);
    env.send(FineEvent::LostWith { task: TaskNo(1), exit: failed() });
    let out = env.offers(&[("b", 1.0), ("c", 1.0), ("d", 1.0)]);
    assert_eq!((shown(&out), declined(&out)), (vec![(2, "b".into(), 1.0)], vec![1, 1]));
    // Not even in another offer.
    assert_eq!(shown(&env.offers(&[("c", 1.0)])), []);
    let twice = env.answer(2, &[1], true);
    assert_eq!(launched(&twice).executor, ExecutorNo(2));
    assert_eq!(shown(&env.offers(&[("c", 1.0)])), []);
    env.send(FineEvent::Running { task: TaskNo(2), on: (ExecutorNo(2), "b".into()) });
    assert_eq!(shown(&env.offers(&[("c", 1.0), ("d", 1.0)])).len(), 2);
}

/// Numbers are given when offers are shown; what counts is the order of the launches.
#[test]
fn every_failed_start_counts_whatever_its_number() {
    let mut env = Env::busy(options());
    env.offers(&[("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0), ("e", 1.0)]);
    env.answer(0, &[], true);
    let mut given_up = false;
    for (task, agent) in (1..).zip(["e", "d", "c", "b", "a"]) {
        env.now = env.now + Duration::from_secs(10);
        assert_eq!(shown(&env.offers(&[(agent, 1.0)])).len(), 1, "{agent}");
        env.answer(task, &[1], true);
        let out = env.send(FineEvent::LostWith { task: TaskNo(task), exit: failed() });
        given_up = out.iter().any(|a| matches!(a, FineAction::GiveUp { .. }));
    }
    assert!(given_up);
}

/// An idle application is offered nothing, so it would not see that the agent is back.
#[test]
fn an_executor_that_comes_back_to_an_idle_application_is_turned_out() {
    let mut env = Env::running();
    env.send(FineEvent::Done(TaskNo(1)));
    env.send(FineEvent::AgentLost("a".into()));
    let shut = FineAction::ShutDown { executor: ExecutorNo(1), agent: "a".into() };
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let at = env.policy.next_deadline().unwrap();
        pauses.push(at.since(env.now).as_secs());
        assert_eq!(env.send(FineEvent::Tick), [], "too early");
        env.now = at;
        assert_eq!(env.send(FineEvent::Tick), std::slice::from_ref(&shut));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
    // It has ended, as the agent says.
    env.send(FineEvent::ExecutorEnded { executor: ExecutorNo(1), exit: failed() });
    assert_eq!(env.policy.next_deadline(), None);
    // One whose end is certain is not told anything.
    let mut env = Env::running();
    env.send(FineEvent::ExecutorEnded { executor: ExecutorNo(1), exit: Exit::lost("unseen") });
    assert_eq!(env.policy.next_deadline(), None);
}

#[test]
fn a_stranger_is_turned_out_by_its_words() {
    let mut env = Env::running();
    let on = || (ExecutorNo(7), AgentId::new("a"));
    let shut = FineAction::ShutDown { executor: ExecutorNo(7), agent: "a".into() };
    let alive = FineEvent::Alive { task: TaskNo(9), on: on() };
    assert_eq!(env.send(alive), std::slice::from_ref(&shut));
    assert_eq!(env.send(FineEvent::Running { task: TaskNo(9), on: on() }), [shut]);
    let own = (ExecutorNo(1), AgentId::new("a"));
    assert_eq!(env.send(FineEvent::Alive { task: TaskNo(9), on: own }), []);
}

#[test]
fn an_executor_that_ended_unheard_is_missed_when_its_agent_offers() {
    let present = |executors: &[u32]| FineEvent::Present {
        agent: "a".into(),
        executors: executors.iter().copied().map(ExecutorNo).collect(),
    };
    let mut env = Env::running();
    env.send(FineEvent::Done(TaskNo(1)));
    assert_eq!(env.send(present(&[1])), []);
    let out = env.send(present(&[]));
    let ended = |a: &FineAction| matches!(a, FineAction::Ended { exit, .. } if !exit.by_app);
    assert!(out.iter().any(ended), "{out:?}");
    // What runs next brings along what its executor needs to begin.
    assert_eq!(shown(&env.offers(&[("a", 2.0)])), [(2, "a".into(), 2.0)]);
    // This one is just being launched: the offer is older.
    assert!(!launched(&env.answer(2, &[1], true)).up);
    assert_eq!(env.send(present(&[])), []);
}

/// A master without a registry, started again: it knows nothing until agents are back.
#[test]
fn what_the_master_does_not_know_may_turn_up() {
    let unknown = || FineEvent::Unknown(TaskNo(1));
    let mut env = Env::running();
    assert_eq!(env.send(unknown()), []);
    env.now = env.now + DOUBT / 2;
    env.send(FineEvent::Running { task: TaskNo(1), on: (ExecutorNo(1), "a".into()) });
    env.now = env.now + DOUBT;
    assert_eq!(env.send(FineEvent::Tick), []);
    assert_eq!(env.policy.next_deadline(), None);

    assert_eq!(env.send(unknown()), []);
    env.now = env.now + DOUBT / 2;
    // Asked twice, it is waited for no longer.
    assert_eq!(env.send(unknown()), []);
    assert_eq!(env.policy.next_deadline(), Some(env.now + DOUBT / 2));
    env.now = env.now + DOUBT / 2;
    let out = env.send(FineEvent::Tick);
    let ended = |a: &FineAction| matches!(a, FineAction::Ended { exit, .. } if !exit.by_app);
    assert!(out.iter().any(ended), "{out:?}");
    assert_eq!(env.send(unknown()), []);
}

/// The agents whose offers the driver was shown, look by look.
fn looks(actions: &[FineAction]) -> Vec<Vec<String>> {
    let looks = actions.iter().filter_map(|a| match a {
        FineAction::Show { offers, .. } => Some(offers),
        _ => None,
    });
    looks.map(|offers| offers.iter().map(|o| o.agent.to_string()).collect()).collect()
}

#[test]
fn an_executor_with_free_cores_is_used_before_another_is_started() {
    let mut env = Env::running();
    let out = env.offers(&[("a", 1.0), ("b", 2.0)]);
    assert_eq!(looks(&out), [["a"], ["b"]]);
    // All that is left goes to the next.
    env.answer(2, &[1], false);
    // It is lost: what is there is used first, and not what it leaves behind.
    env.send(FineEvent::AgentLost("a".into()));
    let out = env.offers(&[("a", 2.0), ("b", 1.0)]);
    assert!(looks(&out).is_empty(), "nothing waits: {out:?}");
    env.send(FineEvent::Revive(2));
    let out = env.offers(&[("a", 2.0), ("b", 1.0)]);
    assert_eq!(looks(&out), [["b"], ["a"]]);
}

#[test]
fn under_cores_max_an_executor_with_free_cores_comes_first() {
    let mut env = Env::busy(FineOptions { cores_max: Some(2), ..options() });
    env.offers(&[("b", 1.0)]);
    env.answer(1, &[1], true);
    let out = env.offers(&[("a", 1.0), ("b", 1.0)]);
    assert_eq!((looks(&out), declined(&out)), (vec![vec!["b".to_owned()]], vec![5]));
}

/// A host with the data is worth a new executor.
#[test]
fn hosts_where_tasks_would_rather_run_are_shown_at_once() {
    let mut env = Env::running();
    env.send(FineEvent::Prefer(["c.host".to_owned()].into()));
    let out = env.offers(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
    assert_eq!(looks(&out), [vec!["a", "c"], vec!["b"]]);
    env.send(FineEvent::Prefer(BTreeSet::new()));
    let out = env.offers(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
    assert_eq!(looks(&out), [vec!["a"], vec!["b", "c"]]);
}

/// Spark finds an executor's blocks by its id and its host: both stay.
#[test]
fn an_agent_is_shown_as_the_same_executor_on_the_same_host() {
    let mut env = Env::running();
    for _ in 0..3 {
        let out = env.offers(&[("a", 1.0)]);
        let FineAction::Show { offers, .. } = &out[0] else { panic!("{out:?}") };
        assert_eq!((offers[0].executor, offers[0].hostname.as_str()), (ExecutorNo(1), "a.host"));
        env.answer(0, &[0], true);
    }
}

/// They come up, say that a task runs, and end with it.
#[test]
fn executors_that_end_no_task_and_fail_at_once_are_given_up() {
    let mut env = Env::busy(options());
    let mut pauses = Vec::new();
    let message = loop {
        let task = pauses.len() as u64 + 1;
        let agent = format!("a{task}");
        let start = env.now;
        while shown(&env.offers(&[(&agent, 1.0)])).is_empty() {
            env.now = env.now + Duration::from_secs(1);
        }
        pauses.push(env.now.since(start).as_secs());
        let out = env.answer(task, &[1], true);
        let on = (launched(&out).executor, AgentId::new(&agent));
        env.send(FineEvent::Running { task: TaskNo(task), on });
        env.now = env.now + Duration::from_secs(2);
        let out = env.send(FineEvent::LostWith { task: TaskNo(task), exit: failed() });
        if let Some(FineAction::GiveUp { message }) =
            out.iter().find(|a| matches!(a, FineAction::GiveUp { .. }))
        {
            break message.clone();
        }
        assert!(pauses.len() < 20, "never gives up");
    };
    assert_eq!(pauses, [0, 0, 1, 2, 4]);
    assert!(message.contains("exited with status 1"), "{message}");
}

#[test]
fn executors_that_end_tasks_are_never_given_up() {
    let mut env = Env::busy(options());
    for n in 1..=20 {
        let agent = format!("a{n}");
        while shown(&env.offers(&[(&agent, 2.0)])).is_empty() {
            env.now = env.now + Duration::from_secs(1);
        }
        env.answer(2 * n, &[2], true);
        env.send(FineEvent::Done(TaskNo(2 * n)));
        let out = env.send(FineEvent::LostWith { task: TaskNo(2 * n + 1), exit: failed() });
        assert!(!out.iter().any(|a| matches!(a, FineAction::GiveUp { .. })), "{n}");
    }
}

/// An executor that was given up and whose agent is back.
#[test]
fn an_executor_that_an_offer_lists_and_that_is_not_ours_any_more_is_turned_out() {
    let mut env = Env::running();
    env.send(FineEvent::AgentLost("a".into()));
    env.now = env.now + REMINDED_FOR;
    env.send(FineEvent::Tick);
    assert_eq!(env.policy.next_deadline(), None, "it is not told for ever");
    let agent = AgentId::new("a");
    let there = FineEvent::Present { agent: agent.clone(), executors: vec![ExecutorNo(1)] };
    assert_eq!(env.send(there), [FineAction::ShutDown { executor: ExecutorNo(1), agent }]);
}

#[test]
fn those_that_are_told_to_go_are_bounded() {
    let mut env = Env::busy(options());
    for n in 1..=MAX_REMINDED as u64 + 5 {
        let agent = format!("a{n}");
        env.offers(&[(&agent, 1.0)]);
        env.answer(n, &[1], true);
        env.send(FineEvent::Done(TaskNo(n)));
        env.send(FineEvent::AgentLost(AgentId::new(&agent)));
        env.now = env.now + Duration::from_secs(1);
    }
    assert_eq!(env.policy.abandoned.len(), MAX_REMINDED);
    let first = (AgentId::new("a1"), ExecutorNo(1));
    assert!(!env.policy.abandoned.contains_key(&first), "the oldest went first");
}

#[test]
fn tasks_beyond_what_a_master_takes_at_once_wait() {
    let mut env = Env::busy(options());
    env.offers(&[("a", 3.0)]);
    let big = |task| TaskAsk { bytes: MAX_LAUNCH_BYTES / 2 - 11_000, ..ask(task) };
    let launches = vec![(0, vec![big(1), big(2), big(3)])];
    let out = env.send(FineEvent::Answer(Answer { batch: 1, seen: 1, waiting: false, launches }));
    assert!(
        matches!(&out[0], FineAction::Undone { tasks, .. } if tasks == &[TaskNo(3)]),
        "{out:?}"
    );
    assert_eq!(launched(&out).tasks.len(), 2);
}

#[test]
fn nothing_is_given_up_while_no_master_could_hear_of_it() {
    let mut env = Env::running();
    env.send(FineEvent::Unknown(TaskNo(1)));
    assert_eq!(env.send(FineEvent::Disconnected), []);
    env.now = env.now + DOUBT;
    assert_eq!(env.send(FineEvent::Tick), []);
    // The next master is asked.
    env.send(FineEvent::Unknown(TaskNo(1)));
    env.now = env.now + DOUBT;
    assert_ne!(env.send(FineEvent::Tick), []);
}

#[test]
fn ids_of_tasks_are_read_as_they_are_written() {
    for (text, no) in [("0", TaskNo(0)), ("17", TaskNo(17))] {
        assert_eq!((no.to_string().as_str(), TaskNo::parse(text)), (text, Some(no)));
    }
    let high = u64::MAX.to_string();
    for text in ["", "start-", "start-x", "start--1", "x", "-1", high.as_str()] {
        assert_eq!(TaskNo::parse(text), None, "{text}");
    }
}

#[test]
fn an_executor_has_a_shuffle_service_beside_it_and_ends_with_it() {
    let size = ServiceSize { cpus: Scalar::from_millis(100), mem_mib: 256 };
    let mut env = Env::busy(FineOptions { shuffle: Some(size), ..options() });
    // Without ports there is no room for one.
    assert_eq!(declined(&env.offers(&[("a", 4.0)])), [LONG]);
    let ports = Resources::parse("cpus:2.1;mem:1256;ports:[31000-31009]").unwrap();
    let offer = PolicyOffer { resources: ports, ..env.offer("b", 0.0, 0.0) };
    let out = env.send(FineEvent::Offers(vec![offer]));
    assert_eq!(shown(&out), [(1, "b".into(), 2.0)]);
    let out = env.answer(1, &[2], true);
    let served = launched(&out).served.clone().unwrap();
    let (no, agent) = (served.start.unwrap().no, AgentId::new("b"));
    assert_eq!(served.port, 31000);
    let runs = |agent: &str| FineEvent::ServiceRunning { service: no, agent: AgentId::new(agent) };
    assert_eq!(env.send(runs("b")), []);
    // A master that has forgotten it hears of it from its agent.
    assert_eq!(env.send(FineEvent::ServiceUnknown(no)), []);
    assert_eq!(env.policy.next_deadline(), Some(env.now + DOUBT));
    assert_eq!(env.send(runs("b")), []);
    assert_eq!(env.policy.next_deadline(), None);
    let out = env.send(FineEvent::ServiceEnded { service: no, exit: failed() });
    let (hostname, reason) = ("b.host".to_owned(), "exited with status 1".to_owned());
    assert_eq!(out[0], FineAction::ServiceLost { agent: agent.clone(), hostname, reason });
    assert!(out.contains(&FineAction::ShutDown { executor: ExecutorNo(1), agent }), "{out:?}");
    let told = out.iter().find_map(|a| match a {
        FineAction::Ended { exit, .. } => Some(exit),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(told.reason, "the shuffle service of its agent is gone: exited with status 1");
    assert!(!told.by_app);
    assert_eq!(
        env.send(runs("b")),
        [FineAction::EndService { service: no, agent: AgentId::new("b") }]
    );
}

/// Its agent does not bring it back.
#[test]
fn a_service_that_stays_unknown_is_lost() {
    let mut env = Env::served(1);
    env.send(FineEvent::ServiceUnknown(ServiceNo(1)));
    env.now = env.now + DOUBT;
    let out = env.send(FineEvent::Tick);
    assert!(matches!(&out[0], FineAction::ServiceLost { .. }), "{out:?}");
    let ended = |a: &FineAction| matches!(a, FineAction::Ended { exit, .. } if !exit.by_app);
    assert!(out.iter().any(ended), "{out:?}");
}

#[test]
fn services_that_never_come_up_end_the_application() {
    let mut env = Env::served(1);
    let mut last = Vec::new();
    for n in 1..=5 {
        if n > 1 {
            env.now = env.now + Duration::from_secs(2000);
            env.serve(n);
        }
        let exit = failed();
        last = env.send(FineEvent::ServiceEnded { service: ServiceNo(n), exit });
        let given_up = last.iter().any(|a| matches!(a, FineAction::GiveUp { .. }));
        assert_eq!(given_up, n == 5, "{n}: {last:?}");
    }
    let said = format!("{last:?}");
    assert!(said.contains("the shuffle service of its agent is gone"), "{said}");
}
