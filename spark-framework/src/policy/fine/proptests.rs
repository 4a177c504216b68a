//! Properties that must hold whatever happens, in whatever order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    tests::{Env, ask, failed, options},
    *,
};
use crate::policy::DOUBT;

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
    Prefer(Option<u8>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let start = |no| TaskNo::start_of(ExecutorNo(no)).0;
    let task = prop_oneof![9 => 1u64..60, 1 => (1u32..4).prop_map(start)];
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
        1 => prop::option::of(0u8..4).prop_map(Step::Prefer),
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
                        let own = !task.is_sparks() && !launch.up;
                        assert!(own || self.asked.remove(task), "{task} was asked for");
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
        ahead in 0usize..4,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut env = Env::new(FineOptions { cores_max, ahead, ..options() });
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
                Step::Prefer(a) => {
                    FineEvent::Prefer(a.iter().map(|a| format!("a{a}.host")).collect())
                }
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
