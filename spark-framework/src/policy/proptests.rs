//! Properties that must hold whatever happens, in whatever order.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Resource, Resources, Scalar},
    time::Time,
};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Targets(Vec<(u32, u32, u32)>),
    Offers(Vec<(u8, u32, u32, u8)>),
    Running(u32),
    Registered(u32),
    Leaving(u32),
    Known(u32),
    Unknown(u32),
    Exit(u32, u8),
    Kill(u32),
    Reconnect,
    Disconnect,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let no = 0u32..40;
    prop_oneof![
        2 => prop::collection::vec((0u32..3, 0u32..8, 1u32..5), 0..3).prop_map(Step::Targets),
        5 => prop::collection::vec((0u8..5, 0u32..16, 0u32..8192, 0u8..3), 0..5).prop_map(Step::Offers),
        3 => no.clone().prop_map(Step::Running),
        3 => no.clone().prop_map(Step::Registered),
        1 => no.clone().prop_map(Step::Leaving),
        1 => no.clone().prop_map(Step::Known),
        1 => no.clone().prop_map(Step::Unknown),
        3 => (no.clone(), 0u8..5).prop_map(|(n, k)| Step::Exit(n, k)),
        1 => no.prop_map(Step::Kill),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Disconnect),
        2 => (0u64..200).prop_map(Step::Wait),
    ]
}

/// Profile 1 needs a GPU for each executor.
fn needs(profile: u32) -> CustomNeeds {
    (profile == 1).then(|| ("gpus".to_owned(), 1)).into_iter().collect()
}

fn resources(cpus: u32, mem: u32, gpus: u8) -> Resources {
    let mut all = Resources::cpus_mem(f64::from(cpus), f64::from(mem));
    all.insert(Resource::scalar("gpus", Scalar::from_units(u64::from(gpus))));
    all
}

fn event(step: &Step, offers: &mut u32) -> Event {
    let exit = |kind| Exit { kind, code: 1, by_app: true, reason: "why".into() };
    match step {
        Step::Targets(all) => Event::Targets(
            all.iter()
                .map(|(id, count, cores)| ProfileTarget {
                    id: ProfileId(*id),
                    count: *count,
                    cores: *cores,
                    mem_mib: 1000,
                    locality: BTreeMap::from([("h1".to_owned(), 2)]),
                    custom: needs(*id),
                })
                .collect(),
        ),
        Step::Offers(all) => Event::Offers(
            all.iter()
                .map(|(agent, cpus, mem, gpus)| {
                    *offers += 1;
                    PolicyOffer {
                        id: OfferId::new(offers.to_string()),
                        agent: AgentId::new(format!("a{agent}")),
                        hostname: format!("h{agent}"),
                        role: None,
                        resources: resources(*cpus, *mem, *gpus),
                        attributes: Vec::new(),
                    }
                })
                .collect(),
        ),
        Step::Running(n) => Event::Running { executor: ExecutorNo(*n), agent: "a0".into() },
        Step::Registered(n) => Event::Registered(ExecutorNo(*n)),
        Step::Leaving(n) => Event::Leaving(ExecutorNo(*n)),
        Step::Known(n) => Event::Known(ExecutorNo(*n)),
        Step::Unknown(n) => Event::Unknown(ExecutorNo(*n)),
        Step::Exit(n, kind) => Event::Exited {
            executor: ExecutorNo(*n),
            exit: exit(match kind {
                0 => ExitKind::Finished,
                1 => ExitKind::Failed,
                2 => ExitKind::OutOfMemory,
                3 => ExitKind::Killed,
                _ => ExitKind::Lost,
            }),
        },
        Step::Kill(n) => Event::Kill(vec![ExecutorNo(*n)]),
        Step::Reconnect => Event::Connected,
        Step::Disconnect => Event::Disconnected,
        Step::Wait(_) => Event::Tick,
    }
}

fn options() -> impl Strategy<Value = PolicyOptions> {
    (prop::option::of(0u32..20), prop::option::of(1u32..4), any::<bool>()).prop_map(
        |(cores_max, max_per_agent, spread)| PolicyOptions {
            cores_max,
            max_per_agent,
            placement: if spread { Placement::Spread } else { Placement::Consolidate },
            ..PolicyOptions::default()
        },
    )
}

/// Runs the steps and checks every answer; returns all actions.
fn run(options: PolicyOptions, steps: &[Step], twice: bool) -> Vec<Action> {
    let mut policy = Policy::new(options);
    let (mut now, mut ids, mut log) = (Time::from_secs(1), 0, Vec::new());
    for step in steps {
        if let Step::Wait(secs) = step {
            now = now + Duration::from_secs(*secs);
        }
        let event = event(step, &mut ids);
        let mut out = Vec::new();
        policy.handle(now, event.clone(), &mut out);
        policy.check_invariants().unwrap();
        if let Event::Offers(offers) = &event {
            check_answers(offers, &out);
        } else if twice {
            let (before, live) = (out.len(), policy.live());
            policy.handle(now, event.clone(), &mut out);
            assert_eq!(policy.live(), live, "{event:?} came twice");
            if !matches!(event, Event::Connected | Event::Running { .. }) {
                assert_eq!(out[before..], [], "{event:?} came twice");
            }
        }
        log.extend(out);
    }
    log
}

/// Each offer is answered once, and none is used beyond what it holds.
fn check_answers(offers: &[PolicyOffer], out: &[Action]) {
    let mut left: BTreeMap<&OfferId, &Resources> =
        offers.iter().map(|o| (&o.id, &o.resources)).collect();
    for action in out {
        let (ids, executors) = match action {
            Action::Launch { offers, executors, .. } => (offers, executors.as_slice()),
            Action::Decline { offers, .. } => (offers, [].as_slice()),
            _ => continue,
        };
        let mut pool = Resources::new();
        for id in ids {
            pool += left.remove(id).expect("answered once");
        }
        for e in executors {
            pool.try_sub(&e.resources).expect("no more than the offers hold");
        }
    }
    assert!(left.is_empty(), "unanswered: {left:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn limits_hold_and_every_offer_is_answered(
        options in options(),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        run(options, &steps, false);
    }

    #[test]
    fn what_comes_twice_counts_once(
        options in options(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        run(options, &steps, true);
    }

    #[test]
    fn the_same_events_give_the_same_actions(
        options in options(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        prop_assert_eq!(run(options.clone(), &steps, false), run(options, &steps, false));
    }

    #[test]
    fn enough_offers_meet_the_target_whatever_came_before(
        steps in prop::collection::vec(step(), 0..60),
        count in 0u32..10,
    ) {
        let mut policy = Policy::new(PolicyOptions::default());
        let (mut now, mut ids, mut out) = (Time::from_secs(1), 0, Vec::new());
        for step in &steps {
            let event = event(step, &mut ids);
            policy.handle(now, event, &mut out);
        }
        prop_assume!(!out.iter().any(|a| matches!(a, Action::GiveUp { .. })));
        policy.handle(now, Event::Connected, &mut out);
        let target = Step::Targets(vec![(0, count, 2)]);
        let wanted = event(&target, &mut ids);
        policy.handle(now, wanted, &mut out);
        // What is to be killed ends, what is started comes up.
        for _ in 0..40 {
            now = now + Duration::from_secs(1000);
            let offers = event(&Step::Offers((0..5).map(|a| (a, 99, 99_999, 9)).collect()), &mut ids);
            policy.handle(now, offers, &mut out);
            for n in 0..200 {
                policy.handle(now, Event::Registered(ExecutorNo(n)), &mut out);
            }
        }
        let doomed: Vec<ExecutorNo> = policy
            .executors
            .iter()
            .filter(|(_, e)| e.progress == Progress::Killing || e.profile != ProfileId(0))
            .map(|(n, _)| *n)
            .collect();
        for no in doomed {
            policy.handle(now, Event::Exited { executor: no, exit: Exit::lost("told") }, &mut out);
        }
        let alive = policy.executors.len();
        let before = out.len();
        policy.handle(now, event(&target, &mut ids), &mut out);
        prop_assert!(alive >= count as usize, "{alive} of {count}");
        prop_assert_eq!(&out[before..], &[][..]);
        prop_assert_eq!(&policy.interest, &Interest::Suppressed);
    }
}
