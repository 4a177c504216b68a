use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Reservation, ReservationKind, Resource, Resources, Scalar},
    time::Time,
};

use super::*;

/// A policy and what it did last.
struct Env {
    policy: Policy,
    now: Time,
    offers: u32,
}

impl Env {
    fn new(options: PolicyOptions) -> Self {
        Self { policy: Policy::new(options), now: Time::from_secs(1000), offers: 0 }
    }

    /// Connected and wanting `count` executors of 2 cores and 1024 MiB.
    fn wanting(count: u32, options: PolicyOptions) -> Self {
        let mut env = Self::new(options);
        env.send(Event::Connected);
        env.send(Event::Targets(vec![target(0, count)]));
        env
    }

    fn send(&mut self, event: Event) -> Vec<Action> {
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

    /// Offers of agents named by one letter, each with these cpus and lots of
    /// memory; returns which agent each new executor went to.
    fn offers(&mut self, agents: &[(&str, f64)]) -> Vec<(u32, String)> {
        let offers = agents.iter().map(|(a, cpus)| self.offer(a, *cpus, 1e5)).collect();
        placed(&self.send(Event::Offers(offers)))
    }

    fn fail(&mut self, no: u32) -> Vec<Action> {
        let exit = Exit {
            kind: ExitKind::Failed,
            code: 1,
            by_app: true,
            reason: "exited with status 1".into(),
        };
        self.send(Event::Exited { executor: ExecutorNo(no), exit })
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
    }
}

fn target(id: u32, count: u32) -> ProfileTarget {
    ProfileTarget {
        id: ProfileId(id),
        count,
        cores: 2,
        mem_mib: 1024,
        locality: BTreeMap::new(),
        custom: BTreeMap::new(),
    }
}

fn placed(actions: &[Action]) -> Vec<(u32, String)> {
    let mut all = Vec::new();
    for a in actions {
        if let Action::Launch { agent, executors, .. } = a {
            all.extend(executors.iter().map(|e| (e.executor.0, agent.to_string())));
        }
    }
    all.sort();
    all
}

fn on(pairs: &[(u32, &str)]) -> Vec<(u32, String)> {
    pairs.iter().map(|(n, a)| (*n, (*a).to_owned())).collect()
}

#[test]
fn an_application_that_wants_nothing_suppresses_offers_and_revives_when_it_does() {
    let mut env = Env::new(PolicyOptions::default());
    assert_eq!(env.send(Event::Connected), [Action::Suppress]);
    assert_eq!(env.send(Event::Targets(vec![target(0, 1)])), [Action::Revive]);
    assert_eq!(env.send(Event::Targets(vec![target(0, 1)])), []);
    assert_eq!(env.offers(&[("a", 8.0)]), on(&[(1, "a")]));
    // Satisfied: a late offer is refused for long.
    let late = env.offer("b", 8.0, 1e5);
    let id = late.id.clone();
    assert_eq!(
        env.send(Event::Offers(vec![late])),
        [Action::Decline { offers: vec![id], refuse: LONG_REFUSAL }]
    );
}

#[test]
fn the_last_executor_launched_ends_the_wish_for_offers() {
    let mut env = Env::wanting(2, PolicyOptions::default());
    let offer = env.offer("a", 4.0, 4096.0);
    let out = env.send(Event::Offers(vec![offer]));
    assert_eq!(placed(&out).len(), 2);
    assert_eq!(out.last(), Some(&Action::Suppress));
}

#[test]
fn spreads_by_default_and_consolidates_when_told() {
    let agents = [("a", 8.0), ("b", 8.0), ("c", 1.0)];
    let mut env = Env::wanting(3, PolicyOptions::default());
    assert_eq!(env.offers(&agents), on(&[(1, "a"), (2, "b"), (3, "a")]));
    let options = PolicyOptions { placement: Placement::Consolidate, ..Default::default() };
    let mut env = Env::wanting(3, options);
    assert_eq!(env.offers(&agents), on(&[(1, "a"), (2, "a"), (3, "a")]));
}

#[test]
fn goes_where_the_data_is_as_far_as_tasks_want_it() {
    let mut env = Env::new(PolicyOptions::default());
    env.send(Event::Connected);
    let locality = BTreeMap::from([("b.host".to_owned(), 3)]);
    env.send(Event::Targets(vec![ProfileTarget { locality, ..target(0, 3) }]));
    assert_eq!(env.offers(&[("a", 8.0), ("b", 8.0)]), on(&[(1, "b"), (2, "b"), (3, "a")]));
}

#[test]
fn cores_max_and_max_per_agent_bound_what_is_started() {
    let options = PolicyOptions { cores_max: Some(5), ..Default::default() };
    let mut env = Env::wanting(9, options);
    assert_eq!(env.offers(&[("a", 8.0), ("b", 8.0)]).len(), 2);
    let options = PolicyOptions { max_per_agent: Some(1), ..Default::default() };
    let mut env = Env::wanting(9, options);
    assert_eq!(env.offers(&[("a", 8.0), ("b", 8.0)]), on(&[(1, "a"), (2, "b")]));
    assert_eq!(env.offers(&[("a", 8.0)]), []);
}

#[test]
fn offers_of_one_agent_are_used_together_and_reserved_resources_first() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    let mut plain = env.offer("a", 1.0, 4096.0);
    plain.resources += &reserved(1.0);
    let more = env.offer("a", 1.0, 0.0);
    let out = env.send(Event::Offers(vec![plain, more]));
    let Action::Launch { offers, executors, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(offers.len(), 2);
    assert_eq!(executors[0].resources.to_string(), "cpus:1; cpus(spark):1; mem:1024");
}

#[test]
fn agents_with_what_is_reserved_come_first() {
    let mut env = Env::wanting(2, PolicyOptions::default());
    let plain = env.offer("a", 8.0, 4096.0);
    let mut partly = env.offer("b", 8.0, 4096.0);
    partly.resources += &reserved(2.0);
    let mut wholly = env.offer("c", 2.0, 0.0);
    wholly.resources = reserved(2.0);
    wholly.resources += &reserved_mem(1024.0);
    let out = env.send(Event::Offers(vec![plain, partly, wholly]));
    // Where all of it is reserved, and then by the placement rule.
    assert_eq!(placed(&out), on(&[(1, "c"), (2, "b")]));
    let used = |agent: &str| {
        out.iter().find_map(|a| match a {
            Action::Launch { agent: a, executors, .. } if a.as_str() == agent => {
                Some(executors[0].resources.to_string())
            }
            _ => None,
        })
    };
    assert_eq!(used("c").as_deref(), Some("cpus(spark):2; mem(spark):1024"));
    assert_eq!(used("b").as_deref(), Some("cpus(spark):2; mem:1024"));
}

fn reserved_mem(mem: f64) -> Resources {
    reserve(&Resources::cpus_mem(0.0, mem))
}

fn reserved(cpus: f64) -> Resources {
    reserve(&Resources::cpus_mem(cpus, 0.0))
}

fn reserve(all: &Resources) -> Resources {
    let reservation = Reservation {
        kind: ReservationKind::Static,
        role: "spark".into(),
        principal: None,
        labels: None,
    };
    let reserve = |r: &Resource| Resource {
        identity: r.identity.clone().with_reservations(vec![reservation.clone()]),
        amount: r.amount.clone(),
    };
    all.iter().map(reserve).collect()
}

#[test]
fn agents_that_do_not_meet_the_constraints_are_refused() {
    let options =
        PolicyOptions { constraints: Constraints::parse("rack:a").unwrap(), ..Default::default() };
    let mut env = Env::wanting(1, options);
    assert_eq!(env.offers(&[("a", 8.0)]), []);
    let mut offer = env.offer("b", 8.0, 4096.0);
    offer.attributes = vec![("rack".into(), AttributeValue::Text("a".into()))];
    assert_eq!(placed(&env.send(Event::Offers(vec![offer]))), on(&[(1, "b")]));
}

#[test]
fn a_lost_executor_is_replaced_under_a_new_number_and_reported_once() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    env.offers(&[("a", 8.0)]);
    env.send(Event::Running { executor: ExecutorNo(1), agent: "a".into() });
    env.send(Event::Registered(ExecutorNo(1)));
    let exit = Exit::lost("agent a is gone");
    let gone = Event::Exited { executor: ExecutorNo(1), exit: exit.clone() };
    assert_eq!(
        env.send(gone.clone()),
        [Action::Ended { executor: ExecutorNo(1), exit }, Action::Revive]
    );
    assert_eq!(env.send(gone), []);
    assert_eq!(env.offers(&[("b", 8.0)]), on(&[(2, "b")]));
}

#[test]
fn an_executor_given_up_for_lost_is_killed_when_it_turns_up_again() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    let back = Event::Running { executor: ExecutorNo(7), agent: "a".into() };
    assert_eq!(env.send(back), [Action::Kill { executor: ExecutorNo(7), agent: "a".into() }]);
}

#[test]
fn the_driver_names_those_to_end_and_only_unstarted_ones_go_when_the_target_falls() {
    let mut env = Env::wanting(3, PolicyOptions::default());
    env.offers(&[("a", 8.0)]);
    env.send(Event::Running { executor: ExecutorNo(1), agent: "a".into() });
    let out = env.send(Event::Targets(vec![target(0, 1)]));
    let kill = |n| Action::Kill { executor: ExecutorNo(n), agent: "a".into() };
    assert_eq!(out, [kill(3), kill(2)]);
    assert_eq!(env.send(Event::Targets(vec![target(0, 0)])), []);
    assert_eq!(
        env.send(Event::Kill(vec![ExecutorNo(1), ExecutorNo(1), ExecutorNo(99)])),
        [kill(1)]
    );
    // Its end is what was asked for, whatever the status says.
    let out = env.fail(1);
    let Action::Ended { exit, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!((exit.kind, exit.by_app), (ExitKind::Killed, false));
}

#[test]
fn a_killed_executor_that_still_runs_is_killed_again() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    env.offers(&[("a", 8.0)]);
    let running = Event::Running { executor: ExecutorNo(1), agent: "a".into() };
    let kill = Action::Kill { executor: ExecutorNo(1), agent: "a".into() };
    assert_eq!(env.send(running.clone()), []);
    assert_eq!(env.send(running.clone()), []);
    env.send(Event::Targets(vec![target(0, 0)]));
    for event in [Event::Kill(vec![ExecutorNo(1)]), running.clone(), running] {
        assert_eq!(env.send(event), std::slice::from_ref(&kill));
    }
}

#[test]
fn a_killed_executor_counts_for_cores_max_until_it_is_gone() {
    let mut env = Env::wanting(1, PolicyOptions { cores_max: Some(2), ..Default::default() });
    env.offers(&[("a", 8.0)]);
    env.send(Event::Kill(vec![ExecutorNo(1)]));
    assert_eq!(env.offers(&[("b", 8.0)]), []);
    let out = env.fail(1);
    assert_eq!(out.last(), Some(&Action::Revive));
    assert_eq!(env.offers(&[("b", 8.0)]), on(&[(2, "b")]));
}

#[test]
fn executors_that_never_come_up_are_tried_less_and_less_often_and_then_given_up() {
    let mut env = Env::wanting(4, PolicyOptions::default());
    let mut launched = 0;
    let mut delays = Vec::new();
    loop {
        // A new agent each time, so that none is avoided.
        let name = format!("agent{launched}");
        let new = env.offers(&[(&name, 99.0)]);
        launched += new.len();
        let mut last = Vec::new();
        for (no, _) in &new {
            last.extend(env.fail(*no));
        }
        if let Some(Action::GiveUp { message }) =
            last.iter().find(|a| matches!(a, Action::GiveUp { .. }))
        {
            assert!(message.contains("exited with status 1"), "{message}");
            break;
        }
        let before = env.now;
        if let Some(at) = env.policy.next_deadline() {
            env.now = at;
            assert_eq!(env.send(Event::Tick), [Action::Revive]);
        }
        delays.push(env.now.since(before).as_secs());
        assert!(delays.len() < 20, "never gives up");
    }
    assert_eq!(delays, [0, 1, 2, 4]);
    // Four at first, then one at a time.
    assert_eq!(launched, 8);
    assert_eq!(env.offers(&[("z", 99.0)]), []);
    assert_eq!(env.policy.next_deadline(), None);
}

/// Where everything fails at once, attempts are over before a JVM elsewhere has come up.
#[test]
fn a_bad_agent_does_not_end_an_application_that_starts_an_executor_elsewhere() {
    let mut env = Env::wanting(2, PolicyOptions::default());
    assert_eq!(env.offers(&[("good", 2.0), ("bad", 2.0)]).len(), 2);
    let gives_up = |out: &[Action]| out.iter().any(|a| matches!(a, Action::GiveUp { .. }));
    // The first was put on `bad`, by its name.
    env.send(Event::Running { executor: ExecutorNo(2), agent: "good".into() });
    let mut next = 1;
    for _ in 0..10 {
        let out = env.fail(next);
        assert!(!gives_up(&out), "{next}: {out:?}");
        env.wait(60);
        env.send(Event::Tick);
        let new = env.offers(&[("bad", 2.0)]);
        next = new[0].0;
    }
    // Unless that one does not come up either.
    env.fail(next);
    let out = env.fail(2);
    assert!(gives_up(&out), "{out:?}");
}

#[test]
fn one_that_comes_up_clears_the_record() {
    let mut env = Env::wanting(3, PolicyOptions::default());
    for (no, _) in env.offers(&[("a", 99.0)]) {
        env.fail(no);
    }
    assert_eq!(env.offers(&[("b", 99.0)]), on(&[(4, "b")]));
    assert_eq!(env.offers(&[("b", 99.0)]), []);
    let out = env.send(Event::Registered(ExecutorNo(4)));
    assert_eq!(out, [Action::Revive]);
    assert_eq!(env.offers(&[("b", 99.0)]).len(), 2);
}

#[test]
fn an_agent_that_fails_executors_is_avoided_for_a_while() {
    let mut env = Env::wanting(3, PolicyOptions::default());
    env.offers(&[("good", 2.0)]);
    env.send(Event::Registered(ExecutorNo(1)));
    env.offers(&[("bad", 99.0)]);
    let named = |out: &[Action]| out.iter().any(|a| matches!(a, Action::Avoid(_)));
    assert!(!named(&env.fail(2)));
    let out = env.fail(3);
    let avoidance = Avoidance {
        agent: "bad".into(),
        hostname: "bad.host".to_owned(),
        failures: 2,
        pause: Duration::from_secs(60),
    };
    assert!(out.contains(&Action::Avoid(avoidance)), "{out:?}");
    let offer = env.offer("bad", 99.0, 1e5);
    let out = env.send(Event::Offers(vec![offer]));
    let [Action::Decline { refuse, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(*refuse, Duration::from_secs(60));
    env.wait(61);
    assert_eq!(env.offers(&[("bad", 99.0)]), on(&[(4, "bad")]));
}

#[test]
fn agents_that_all_fail_executors_are_used_still_but_others_first() {
    let mut env = Env::wanting(2, PolicyOptions::default());
    env.offers(&[("bad", 99.0)]);
    env.fail(1);
    env.fail(2);
    assert_eq!(env.offers(&[("bad", 99.0), ("new", 4.0)]), on(&[(3, "new")]));
    env.fail(3);
    env.wait(30);
    assert_eq!(env.offers(&[("bad", 99.0)]), on(&[(4, "bad")]));
}

#[test]
fn silence_after_a_launch_is_loss() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    env.offers(&[("a", 8.0)]);
    env.now = env.policy.next_deadline().unwrap();
    let out = env.send(Event::Tick);
    assert_eq!(out[0], Action::Kill { executor: ExecutorNo(1), agent: "a".into() });
    assert!(
        matches!(&out[1], Action::Ended { exit, .. } if exit.kind == ExitKind::Lost),
        "{out:?}"
    );
    assert_eq!(out[2], Action::Revive);
}

/// A master without a registry, started again: it knows nothing until agents are back.
#[test]
fn an_executor_that_the_master_does_not_know_may_turn_up() {
    let unknown = || Event::Unknown(ExecutorNo(1));
    for back in [
        Event::Running { executor: ExecutorNo(1), agent: "a".into() },
        Event::Known(ExecutorNo(1)),
        Event::Leaving(ExecutorNo(1)),
    ] {
        let mut env = Env::wanting(1, PolicyOptions::default());
        env.offers(&[("a", 8.0)]);
        env.send(Event::Registered(ExecutorNo(1)));
        assert_eq!(env.send(unknown()), []);
        assert_eq!(env.policy.next_deadline(), Some(env.now + DOUBT));
        env.now = env.now + DOUBT / 2;
        // Asked twice, it is waited for no longer.
        assert_eq!(env.send(unknown()), []);
        env.send(back);
        env.now = env.now + DOUBT;
        assert_eq!(env.send(Event::Tick), []);
        assert_eq!(env.policy.next_deadline(), None);
    }
}

#[test]
fn an_executor_that_does_not_turn_up_is_replaced_and_blamed_on_nobody() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    env.offers(&[("a", 8.0)]);
    env.send(Event::Registered(ExecutorNo(1)));
    env.send(Event::Unknown(ExecutorNo(1)));
    env.now = env.policy.next_deadline().unwrap();
    let out = env.send(Event::Tick);
    assert_eq!(out[0], Action::Kill { executor: ExecutorNo(1), agent: "a".into() });
    let Action::Ended { exit, .. } = &out[1] else { panic!("{out:?}") };
    assert_eq!((exit.kind, exit.by_app), (ExitKind::Lost, false));
    assert_eq!(out[2], Action::Revive);
    assert_eq!(env.offers(&[("a", 8.0)]), on(&[(2, "a")]));
    // One that is not there is waited for by nobody.
    assert_eq!(env.send(Event::Unknown(ExecutorNo(1))), []);
    assert!(env.policy.doubts.is_empty());
}

/// The driver has them, and they fail before they can have done anything.
#[test]
fn executors_that_come_up_and_fail_at_once_are_tried_less_and_less_often_and_then_given_up() {
    let mut env = Env::wanting(2, PolicyOptions::default());
    let mut delays = Vec::new();
    loop {
        let agent = format!("a{}", delays.len());
        let new = env.offers(&[(&agent, 99.0)]);
        assert_eq!(new.len(), 2, "one failure does not make the other one wait");
        for (no, _) in &new {
            env.send(Event::Registered(ExecutorNo(*no)));
        }
        env.wait(2);
        let out: Vec<Action> = new.iter().flat_map(|(no, _)| env.fail(*no)).collect();
        if out.iter().any(|a| matches!(a, Action::GiveUp { .. })) {
            break;
        }
        let before = env.now;
        if let Some(at) = env.policy.next_deadline() {
            env.now = at;
            env.send(Event::Tick);
        }
        delays.push(env.now.since(before).as_secs());
        assert!(delays.len() < 20, "never gives up");
    }
    assert_eq!(delays, [0, 1, 2, 4]);
}

/// Dynamic allocation gives back what works.
#[test]
fn one_that_the_driver_gives_back_did_not_fail() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    for n in 1..=20 {
        if let Some(at) = env.policy.next_deadline() {
            env.now = at;
        }
        assert_eq!(env.offers(&[(&format!("a{n}"), 2.0)]).len(), 1);
        env.send(Event::Registered(ExecutorNo(n)));
        if n % 4 == 0 {
            env.send(Event::Kill(vec![ExecutorNo(n)]));
        }
        let out = env.fail(n);
        assert!(!out.iter().any(|a| matches!(a, Action::GiveUp { .. })), "{n}: {out:?}");
    }
}

#[test]
fn one_that_works_for_a_moment_is_no_failed_attempt() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    for n in 1..=20 {
        if let Some(at) = env.policy.next_deadline() {
            env.now = at;
        }
        assert_eq!(env.offers(&[(&format!("a{n}"), 2.0)]).len(), 1);
        env.send(Event::Registered(ExecutorNo(n)));
        // Not every time.
        env.wait(if n % 4 == 0 { 10 } else { 9 });
        let out = env.fail(n);
        assert!(!out.iter().any(|a| matches!(a, Action::GiveUp { .. })), "{n}: {out:?}");
    }
}

#[test]
fn a_new_subscription_is_told_again_what_is_not_wanted_and_who_must_end() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    env.offers(&[("a", 8.0)]);
    env.send(Event::Registered(ExecutorNo(1)));
    env.send(Event::Targets(vec![target(0, 0)]));
    env.send(Event::Kill(vec![ExecutorNo(1)]));
    assert_eq!(env.send(Event::Disconnected), []);
    assert_eq!(
        env.send(Event::Connected),
        [Action::Kill { executor: ExecutorNo(1), agent: "a".into() }, Action::Suppress]
    );
}

#[test]
fn profiles_are_served_side_by_side() {
    let mut env = Env::new(PolicyOptions::default());
    env.send(Event::Connected);
    let big = ProfileTarget { cores: 16, ..target(1, 1) };
    env.send(Event::Targets(vec![big, target(2, 1)]));
    // The first does not fit; the second must not wait for it.
    assert_eq!(env.offers(&[("a", 4.0)]), on(&[(1, "a")]));
    assert_eq!(env.offers(&[("b", 16.0)]), on(&[(2, "b")]));
}

#[test]
fn what_came_to_be_missing_while_there_was_no_master_is_asked_for_afterwards() {
    let mut env = Env::wanting(0, PolicyOptions::default());
    env.send(Event::Disconnected);
    assert_eq!(env.send(Event::Targets(vec![target(0, 1)])), []);
    assert_eq!(env.send(Event::Connected), [Action::Revive]);
}

/// Wanting executors of profile 1 with a GPU and two licences each.
fn special(count: u32) -> ProfileTarget {
    let custom = [("gpus", 1), ("licenses", 2)].map(|(name, n)| (name.to_owned(), n)).into();
    ProfileTarget { custom, ..target(1, count) }
}

#[test]
fn custom_resources_are_part_of_the_fit_and_of_the_launch() {
    let mut env = Env::new(PolicyOptions::default());
    env.send(Event::Connected);
    env.send(Event::Targets(vec![special(3)]));
    let mut offer = env.offer("a", 8.0, 1e5);
    offer.resources += &Resources::parse("gpus:4;licenses:5").unwrap();
    let out = env.send(Event::Offers(vec![offer]));
    assert_eq!(placed(&out), on(&[(1, "a"), (2, "a")]));
    let Action::Launch { executors, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(executors[0].resources.to_string(), "cpus:2; gpus:1; licenses:2; mem:1024");
    assert_eq!(executors[0].addresses["licenses"], ["0", "1"]);
    assert_eq!(env.offers(&[("b", 8.0)]), []);
}

#[test]
fn executors_without_gpus_leave_agents_with_some_to_others() {
    let mut env = Env::wanting(2, PolicyOptions::default());
    let mut with = env.offer("a", 8.0, 1e5);
    with.resources.insert(Resource::scalar("gpus", Scalar::from_units(2)));
    let without = env.offer("b", 2.0, 1e5);
    let out = env.send(Event::Offers(vec![with, without]));
    assert_eq!(placed(&out), on(&[(1, "b"), (2, "a")]));
}

#[test]
fn it_is_said_now_and_then_why_no_offer_has_room() {
    let options =
        PolicyOptions { constraints: Constraints::parse("rack:a").unwrap(), ..Default::default() };
    let mut env = Env::new(options);
    env.send(Event::Connected);
    env.send(Event::Targets(vec![special(1)]));
    let rack = |mut offer: PolicyOffer| {
        offer.attributes = vec![("rack".into(), AttributeValue::Text("a".into()))];
        offer
    };
    let said = |out: &[Action]| {
        out.iter().find_map(|a| match a {
            Action::Waiting { message } => Some(message.clone()),
            _ => None,
        })
    };
    let (small, elsewhere) = (env.offer("a", 1.0, 1e5), env.offer("b", 8.0, 1e5));
    let out = env.send(Event::Offers(vec![rack(small), elsewhere]));
    assert_eq!(
        said(&out).as_deref(),
        Some(
            "no agent that is offered has room for an executor of resource profile 1 (cpus:2; \
             mem:1024; gpus:1; licenses:2): a.host has only cpus:1, gpus:0, licenses:0; b.host \
             does not meet spark.mezz.constraints"
        )
    );
    let again = env.offer("b", 8.0, 1e5);
    assert_eq!(said(&env.send(Event::Offers(vec![again.clone()]))), None);
    env.now = env.now + NOTICE_INTERVAL;
    assert!(said(&env.send(Event::Offers(vec![again]))).is_some());
}

#[test]
fn an_application_without_executors_says_again_what_they_lack() {
    let mut env = Env::wanting(1, PolicyOptions::default());
    let said = |out: &[Action]| {
        out.iter().find_map(|a| match a {
            Action::Waiting { message } => Some(message.clone()),
            _ => None,
        })
    };
    let why = "has no Docker engine".to_owned();
    assert_eq!(env.send(Event::Unable { agent: "a".into(), why }), []);
    let offer = env.offer("a", 8.0, 1e5);
    let out = env.send(Event::Offers(vec![offer]));
    assert!(matches!(&out[0], Action::Decline { refuse, .. } if *refuse == LONG_REFUSAL));
    assert!(said(&out).unwrap().ends_with("): a.host has no Docker engine"), "{out:?}");
    let next = env.now + NOTICE_INTERVAL;
    assert_eq!(env.policy.next_deadline(), Some(next));
    env.now = next;
    assert!(said(&env.send(Event::Tick)).is_some());
    env.send(Event::Disconnected);
    assert_eq!(env.policy.next_deadline(), None);
    env.send(Event::Connected);
    assert_eq!(env.offers(&[("b", 8.0)]), on(&[(1, "b")]));
    let offer = env.offer("a", 8.0, 1e5);
    assert_eq!(said(&env.send(Event::Offers(vec![offer]))), None, "it has what it wanted");
    // Ten minutes later it may have been installed.
    env.send(Event::Targets(vec![target(0, 2)]));
    env.now = env.now + LONG_REFUSAL;
    assert_eq!(env.offers(&[("a", 8.0)]), on(&[(2, "a")]));
}

/// What cannot be used is refused for long, and nothing but new needs brings it back:
/// time alone, other offers and ends of others' executors do not.
#[test]
fn what_cannot_be_used_is_left_to_others_for_long() {
    let options = PolicyOptions { cores_max: Some(3), ..Default::default() };
    let mut env = Env::wanting(9, options);
    let (big, small) = (env.offer("a", 8.0, 1e5), env.offer("b", 1.0, 1e5));
    let out = env.send(Event::Offers(vec![big, small]));
    // One core of spark.cores.max is left, which is no executor.
    let Action::Launch { refuse, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(*refuse, LONG_REFUSAL);
    assert!(matches!(&out[1], Action::Decline { refuse, .. } if *refuse == LONG_REFUSAL));
    assert_eq!(out[2..], [Action::Suppress]);

    let mut env = Env::wanting(1, PolicyOptions::default());
    for _ in 0..20 {
        env.wait(30);
        let useless = env.offer("a", 1.0, 1e5);
        let out = env.send(Event::Offers(vec![useless]));
        let declined =
            |a: &Action| matches!(a, Action::Decline { refuse, .. } if *refuse == LONG_REFUSAL);
        assert!(out.iter().any(declined), "{out:?}");
        assert!(!out.contains(&Action::Revive), "{out:?}");
        assert_eq!(env.send(Event::Tick), []);
        assert_eq!(env.send(Event::Targets(vec![target(0, 1)])), []);
    }
}

#[test]
fn a_leaving_executor_is_replaced_at_once_but_holds_its_cores() {
    let mut env = Env::wanting(2, PolicyOptions { cores_max: Some(4), ..Default::default() });
    env.offers(&[("a", 2.0), ("b", 2.0)]);
    for n in 1..=2 {
        env.send(Event::Registered(ExecutorNo(n)));
    }
    // spark.cores.max has no room for another until it is gone.
    assert_eq!(env.send(Event::Leaving(ExecutorNo(1))), []);
    let exit = Exit::lost("killed: the agent is being drained");
    let out = env.send(Event::Exited { executor: ExecutorNo(1), exit });
    assert_eq!(out.last(), Some(&Action::Revive));

    let mut env = Env::wanting(2, PolicyOptions::default());
    env.offers(&[("a", 2.0), ("b", 2.0)]);
    for n in 1..=2 {
        env.send(Event::Registered(ExecutorNo(n)));
    }
    assert_eq!(env.send(Event::Leaving(ExecutorNo(1))), [Action::Revive]);
    assert_eq!(env.offers(&[("c", 2.0)]), on(&[(3, "c")]));
    assert_eq!(env.send(Event::Leaving(ExecutorNo(1))), []);
    // Nor does a lower target end another instead of it.
    env.send(Event::Targets(vec![target(0, 2)]));
    assert_eq!(env.policy.live(), 3);
}

/// Though others work: the application has said so.
#[test]
fn more_failed_executors_than_allowed_end_the_application() {
    let failures = FailureLimit { max: Some(1), within: None };
    let mut env = Env::wanting(3, PolicyOptions { failures, ..Default::default() });
    assert_eq!(env.offers(&[("a", 8.0)]).len(), 3);
    env.send(Event::Registered(ExecutorNo(1)));
    let given_up = |out: &[Action]| out.iter().any(|a| matches!(a, Action::GiveUp { .. }));
    assert!(!given_up(&env.fail(2)));
    assert!(given_up(&env.fail(3)));
    // It is said once.
    assert!(!given_up(&env.fail(1)));
}
