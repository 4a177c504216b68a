use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::policy::{AttributeValue, Constraints, LONG_REFUSAL, PolicyOffer, ServiceSize};

struct Env {
    policy: FinePolicy,
    now: Time,
    offers: u32,
}

fn options() -> FineOptions {
    FineOptions {
        cores_max: None,
        shuffle: None,
        constraints: Constraints::default(),
        task_cpus: Scalar::from_units(1),
        executor_cpus: Scalar::default(),
        task_bytes: (1000, 10_000),
        executor_mem_mib: 1000,
    }
}

impl Env {
    fn new(options: FineOptions) -> Self {
        Self { policy: FinePolicy::new(options), now: Time::from_secs(1000), offers: 0 }
    }

    /// With tasks to run.
    fn busy(options: FineOptions) -> Self {
        let mut env = Self::new(options);
        assert_eq!(env.send(FineEvent::Revive(1)), [FineAction::Revive]);
        env
    }

    fn send(&mut self, event: FineEvent) -> Vec<FineAction> {
        let mut out = Vec::new();
        self.policy.handle(self.now, event, &mut out);
        self.policy.check_invariants().unwrap();
        out
    }

    fn offer(&mut self, agent: &str, cpus: f64, mem: f64) -> PolicyOffer {
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
    fn offers(&mut self, agents: &[(&str, f64)]) -> Vec<FineAction> {
        let offers = agents.iter().map(|(a, cpus)| self.offer(a, *cpus, 4000.0)).collect();
        self.send(FineEvent::Offers(offers))
    }

    /// Answers the last batch with tasks of one core, so many for each offer.
    fn answer(&mut self, first: u64, counts: &[u64], waiting: bool) -> Vec<FineAction> {
        let mut next = first;
        let mut launches = Vec::new();
        for (at, count) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            launches.push((at, (next..next + count).map(ask).collect()));
            next += count;
        }
        let (batch, seen) = (self.policy.last_batch, self.policy.revivals);
        self.send(FineEvent::Answer(Answer { batch, seen, waiting, launches }))
    }

    /// An executor on `a` that runs task 1.
    fn running() -> Self {
        let mut env = Self::busy(options());
        env.offers(&[("a", 2.0)]);
        env.answer(1, &[1], true);
        let running = || FineEvent::Running { task: TaskNo(1), on: (ExecutorNo(1), "a".into()) };
        assert_eq!(env.send(running()), [FineAction::Up(ExecutorNo(1))]);
        assert_eq!(env.send(running()), []);
        env
    }
}

fn ask(task: u64) -> TaskAsk {
    TaskAsk { task: TaskNo(task), cpus: Scalar::from_units(1), bytes: 100 }
}

fn shown(actions: &[FineAction]) -> Vec<(u32, String, f64)> {
    let show = actions.iter().filter_map(|a| match a {
        FineAction::Show { offers, .. } => Some(offers),
        _ => None,
    });
    show.flatten().map(|o| (o.executor.0, o.agent.to_string(), o.cpus.to_f64())).collect()
}

fn launched(actions: &[FineAction]) -> &FineLaunch {
    let launch = actions.iter().find_map(|a| match a {
        FineAction::Launch(launch) => Some(launch),
        _ => None,
    });
    launch.unwrap_or_else(|| panic!("no launch in {actions:?}"))
}

fn declined(actions: &[FineAction]) -> Vec<u64> {
    let declined = actions.iter().filter_map(|a| match a {
        FineAction::Decline { refuse, .. } => Some(refuse.as_secs()),
        _ => None,
    });
    declined.collect()
}

fn failed() -> Exit {
    Exit { kind: ExitKind::Failed, code: 1, by_app: true, reason: "exited with status 1".into() }
}

const LONG: u64 = LONG_REFUSAL.as_secs();

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

#[derive(Clone, Debug)]
enum Step {
    Offers(Vec<(u8, u32, u32)>),
    /// The batch by its age, and how many tasks each offer gets.
    Answer(u64, Vec<u64>, bool),
    Revive,
    Running(u64),
    Done(u64),
    Undone(u64),
    Lost(u64),
    Ended(u32),
    Kill(u32),
    AgentLost(u8),
    Present(u8, Option<u32>),
    Alive(u64, u32),
    Unknown(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let task = 1u64..60;
    prop_oneof![
        5 => prop::collection::vec((0u8..4, 0u32..8, 0u32..3000), 0..5).prop_map(Step::Offers),
        6 => (0u64..2, prop::collection::vec(0u64..9, 0..5), any::<bool>())
            .prop_map(|(age, counts, waiting)| Step::Answer(age, counts, waiting)),
        3 => Just(Step::Revive),
        3 => task.clone().prop_map(Step::Running),
        4 => task.clone().prop_map(Step::Done),
        1 => task.clone().prop_map(Step::Undone),
        1 => task.clone().prop_map(Step::Lost),
        1 => (task.clone(), 0u32..8).prop_map(|(task, no)| Step::Alive(task, no)),
        1 => task.prop_map(Step::Unknown),
        1 => (0u8..4, prop::option::of(0u32..8)).prop_map(|(a, no)| Step::Present(a, no)),
        1 => (0u32..8).prop_map(Step::Ended),
        1 => (0u32..8).prop_map(Step::Kill),
        1 => (0u8..4).prop_map(Step::AgentLost),
        2 => (0u64..20).prop_map(Step::Wait),
    ]
}

/// What becomes of everything that goes in.
#[derive(Default)]
struct Ledger {
    /// Offers that are not answered yet.
    open: BTreeMap<OfferId, Resources>,
    /// Tasks that were asked for and of which nothing is known.
    asked: BTreeSet<TaskNo>,
}

impl Ledger {
    fn follow(&mut self, out: &[FineAction]) {
        for action in out {
            match action {
                FineAction::Decline { offers, .. } => {
                    for offer in offers {
                        self.open.remove(offer).expect("answered once");
                    }
                }
                FineAction::Launch(launch) => {
                    let mut pool = Resources::new();
                    for offer in &launch.offers {
                        pool += &self.open.remove(offer).expect("answered once");
                    }
                    for (task, resources) in &launch.tasks {
                        pool.try_sub(resources).expect("no more than the offers hold");
                        assert!(self.asked.remove(task), "{task} was asked for");
                    }
                }
                FineAction::Undone { tasks, .. } => {
                    for task in tasks {
                        self.asked.remove(task);
                    }
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_offer_is_answered_once_and_no_task_is_forgotten(
        cores_max in prop::option::of(0u32..12),
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut env = Env::new(FineOptions { cores_max, ..options() });
        let mut ledger = Ledger::default();
        let (mut task, mut revivals) = (0, 0);
        // Batches whose offers were shown, with the cores of each.
        let mut batches: BTreeMap<u64, Vec<Scalar>> = BTreeMap::new();
        for step in &steps {
            let reason = || "why".to_owned();
            let event = match step {
                Step::Offers(all) => FineEvent::Offers(
                    all.iter()
                        .map(|(agent, cpus, mem)| {
                            env.offer(&format!("a{agent}"), f64::from(*cpus), f64::from(*mem))
                        })
                        .collect(),
                ),
                Step::Answer(age, counts, waiting) => {
                    let batch = env.policy.last_batch.saturating_sub(*age);
                    let cores = batches.remove(&batch).unwrap_or_default();
                    // As Spark does, no more tasks than there are cores.
                    let launches = cores.iter().zip(counts).enumerate().map(|(at, (cores, n))| {
                        let n = (*n).min(cores.millis() / 1000);
                        let asks: Vec<_> = (0..n).map(|_| { task += 1; ask(task) }).collect();
                        (at, asks)
                    });
                    let launches: Vec<_> = launches.filter(|(_, a)| !a.is_empty()).collect();
                    ledger.asked.extend(launches.iter().flat_map(|(_, a)| a).map(|a| a.task));
                    FineEvent::Answer(Answer { batch, seen: revivals, waiting: *waiting, launches })
                }
                Step::Revive => { revivals += 1; FineEvent::Revive(revivals) }
                Step::Running(t) => {
                    let place = env.policy.place_of(TaskNo(*t)).map(|(e, a)| (e, a.clone()));
                    let on = place.unwrap_or((ExecutorNo(99), "a0".into()));
                    FineEvent::Running { task: TaskNo(*t), on }
                }
                Step::Done(t) => FineEvent::Done(TaskNo(*t)),
                Step::Undone(t) => {
                    FineEvent::Undone { task: TaskNo(*t), by_app: false, reason: reason() }
                }
                Step::Lost(t) => FineEvent::LostWith { task: TaskNo(*t), exit: Exit::lost(reason()) },
                Step::Ended(n) => {
                    FineEvent::ExecutorEnded { executor: ExecutorNo(*n), exit: failed() }
                }
                Step::Kill(n) => FineEvent::Kill(vec![ExecutorNo(*n)]),
                Step::AgentLost(a) => FineEvent::AgentLost(AgentId::new(format!("a{a}"))),
                Step::Present(a, no) => FineEvent::Present {
                    agent: AgentId::new(format!("a{a}")),
                    executors: no.iter().copied().map(ExecutorNo).collect(),
                },
                Step::Alive(t, no) => {
                    FineEvent::Alive { task: TaskNo(*t), on: (ExecutorNo(*no), "a0".into()) }
                }
                Step::Unknown(t) => FineEvent::Unknown(TaskNo(*t)),
                Step::Wait(secs) => {
                    env.now = env.now + Duration::from_secs(*secs);
                    FineEvent::Tick
                }
            };
            if let FineEvent::Offers(offers) = &event {
                ledger.open.extend(offers.iter().map(|o| (o.id.clone(), o.resources.clone())));
            }
            let out = env.send(event);
            for action in &out {
                if let FineAction::Show { batch, offers } = action {
                    batches.insert(*batch, offers.iter().map(|o| o.cpus).collect());
                }
            }
            ledger.follow(&out);
            prop_assert!(ledger.asked.is_empty(), "{:?} are forgotten", ledger.asked);
        }
        env.now = env.now + ANSWER_TIMEOUT;
        ledger.follow(&env.send(FineEvent::Tick));
        prop_assert!(ledger.open.is_empty(), "unanswered: {:?}", ledger.open);
        prop_assert!(env.policy.batches.is_empty());
        // Nobody comes back: what is in doubt is given up, and only what may return to
        // an agent that is away is remembered.
        env.now = env.now + DOUBT;
        env.send(FineEvent::Tick);
        prop_assert!(env.policy.doubts.is_empty());
        let notice = env.policy.notice.next_deadline().is_some();
        let remembers = !env.policy.abandoned.is_empty() || notice;
        prop_assert_eq!(env.policy.next_deadline().is_some(), remembers);
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
    let out = env.send(FineEvent::ServiceEnded { service: no, exit: failed() });
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
