//! Random histories: whatever peers do, in whatever order, the invariants hold.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message},
    v1::{self, TaskState, scheduler::call},
};

use super::env::{Env, command_task, executor, executor_task, launch};
use crate::{core::OperatorCommand, options::RemovalRate};

const AGENTS: [&str; 3] = ["a1", "a2", "a3"];
const FRAMEWORKS: [&str; 3] = ["f1", "f2", "f3"];
const STATES: [TaskState; 6] = [
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskRunning,
    TaskState::TaskFinished,
    TaskState::TaskFailed,
    TaskState::TaskKilled,
];

/// SplitMix64: the same numbers everywhere for a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    fn roll(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let i = self.roll(items.len() as u64) as usize;
        &items[i]
    }
}

struct History {
    env: Env,
    dice: Dice,
    tasks: u64,
    /// Offers that frameworks have seen, whether they still hold or not.
    offers: Vec<(String, v1::Offer)>,
    /// Updates that frameworks have seen, likewise.
    updates: Vec<(String, v1::TaskStatus)>,
    /// Drains and the like that were done, that were refused, and agents that were
    /// given up.
    orders: u64,
    refusals: u64,
    gone: u64,
}

impl History {
    fn new(seed: u64, keep_log: bool) -> Self {
        let mut dice = Dice(seed);
        let mut env = Env::with(|options| {
            options.offer_timeout = (dice.roll(3) == 0).then_some(Duration::from_secs(30));
            // Few pings and heartbeats, for each is a step that is checked.
            options.ping_interval = Duration::from_secs(40);
            options.max_missed_pings = 2;
            options.heartbeat_interval = Duration::from_secs(60);
            options.agent_reregister_timeout = Duration::from_secs(100);
            options.agent_removal_rate_limit = match seed % 3 {
                0 => None,
                n => Some(RemovalRate { agents: 1, per: Duration::from_secs(n * 40) }),
            };
            options.unreachable_retention = Duration::from_secs(300);
            options.max_completed_frameworks = dice.roll(3) as usize;
            options.max_completed_tasks = dice.roll(4) as usize;
            options.max_agents = 2 + dice.roll(3) as usize;
            options.max_tasks = 3 + dice.roll(20) as usize;
            options.max_frameworks = 2 + dice.roll(3) as usize;
        });
        env.log = keep_log.then(String::new);
        for agent in AGENTS {
            env.describe_agent(agent, "cpus:4;mem:1024;ports:[31000-31009]");
        }
        for (i, framework) in FRAMEWORKS.iter().enumerate() {
            env.describe_framework(
                framework,
                [["ads", "web"], ["web", "eng/ml"], ["*", "ads"]][i].as_slice(),
            );
            let info = &mut env.frameworks.get_mut(*framework).unwrap().info;
            if dice.roll(3) == 0 {
                // Not partition aware.
                info.capabilities.truncate(1);
            }
            info.failover_timeout = Some([0.0, 60.0, 3600.0][dice.roll(3) as usize]);
        }
        let mut history = Self {
            env,
            dice,
            tasks: 0,
            offers: Vec::new(),
            updates: Vec::new(),
            orders: 0,
            refusals: 0,
            gone: 0,
        };
        // Most histories begin in the midst of things.
        for (agent, framework) in AGENTS.into_iter().zip(FRAMEWORKS) {
            if history.dice.roll(4) > 0 {
                history.env.register(agent);
            }
            if history.dice.roll(4) > 0 {
                history.env.subscribe(framework);
            }
        }
        history.look();
        history
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
            self.look();
        }
    }

    /// Frameworks read what they got.
    fn look(&mut self) {
        for framework in FRAMEWORKS {
            for event in self.env.inbox(framework) {
                if let Some(offers) = event.offers {
                    self.offers.extend(offers.offers.into_iter().map(|o| (framework.into(), o)));
                }
                if let Some(update) = event.update {
                    self.updates.push((framework.into(), update.status));
                }
            }
        }
        for agent in AGENTS {
            // One that is given up begins anew.
            if std::mem::take(&mut self.env.agents.get_mut(agent).unwrap().refused) {
                self.gone += 1;
                self.lose(agent);
            }
        }
        let keep = self.offers.len().saturating_sub(8);
        self.offers.drain(..keep);
        let keep = self.updates.len().saturating_sub(8);
        self.updates.drain(..keep);
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..25 => self.accept(),
            25..30 => self.decline(),
            30..45 => self.report(),
            45..57 => self.acknowledge(),
            57..65 => self.agent_comes_or_goes(),
            65..72 => self.framework_comes_or_goes(),
            72..82 => self.time_passes(),
            82..93 => self.other_call(),
            93..98 => self.operator(),
            _ => self.restart(),
        }
    }

    fn accept(&mut self) {
        let Some((framework, offer)) = self.some_offer() else { return };
        let mut infos = Vec::new();
        for _ in 0..=self.dice.roll(2) {
            self.tasks += 1;
            // Ids are used again now and then.
            let id =
                format!("t{}", if self.dice.roll(4) == 0 { self.dice.roll(4) } else { self.tasks });
            let sizes = [
                "cpus:1;mem:64",
                "cpus:0.5;mem:200",
                "cpus:1;mem:9999",
                "mem:10;ports:[31001-31002]",
            ];
            let size = *self.dice.pick(&sizes);
            infos.push(match self.dice.roll(3) {
                0 => {
                    let name = *self.dice.pick(&["e1", "e2"]);
                    let own = *self.dice.pick(&["cpus:0.1;mem:32", "cpus:0.2;mem:32"]);
                    let executor = executor(name, own);
                    executor_task(&id, &offer, size, &executor)
                }
                _ => command_task(&id, &offer, size),
            });
        }
        let mut named = vec![offer];
        while self.dice.roll(4) == 0 {
            if let Some((_, other)) = self.some_offer() {
                named.push(other);
            }
        }
        let named: Vec<_> = named.iter().collect();
        let operations = if self.dice.roll(8) == 0 { Vec::new() } else { vec![launch(infos)] };
        self.env.accept(&framework, &named, operations);
    }

    fn some_offer(&mut self) -> Option<(String, v1::Offer)> {
        if self.offers.is_empty() {
            return None;
        }
        // Mostly one that still holds.
        if self.dice.roll(8) > 0 {
            self.offers.pop()
        } else {
            Some(self.dice.pick(&self.offers).clone())
        }
    }

    fn decline(&mut self) {
        let Some((framework, offer)) = self.some_offer() else { return };
        let refuse = *self.dice.pick(&[None, Some(0.0), Some(100.0), Some(f64::NAN)]);
        self.env.decline(&framework, &[offer], refuse);
    }

    fn report(&mut self) {
        let agent = *self.dice.pick(&AGENTS);
        let tasks: Vec<_> = self.env.agents[agent].tasks.keys().cloned().collect();
        if tasks.is_empty() || self.env.agents[agent].id.is_none() {
            return;
        }
        let (framework_id, task) = self.dice.pick(&tasks).clone();
        let framework = FRAMEWORKS.iter().find(|f| {
            self.env.frameworks[**f].info.id.as_ref().is_some_and(|id| id.value == framework_id)
        });
        let Some(framework) = framework else { return };
        let state = *self.dice.pick(&STATES);
        let latest = if self.dice.roll(4) == 0 { *self.dice.pick(&STATES) } else { state };
        self.env.report_late(agent, framework, &task, state, latest);
    }

    fn acknowledge(&mut self) {
        if self.updates.is_empty() {
            return;
        }
        let old = self.dice.pick(&self.updates).clone();
        let (framework, update) =
            if self.dice.roll(8) > 0 { self.updates.pop().unwrap_or(old) } else { old };
        if update.uuid.is_some() {
            self.env.acknowledge(&framework, &update);
        }
    }

    fn agent_comes_or_goes(&mut self) {
        let agent = *self.dice.pick(&AGENTS);
        let linked = self.env.agents[agent].connection.is_some();
        match self.dice.roll(8) {
            0 => {
                // It stops answering.
                self.env.agents.get_mut(agent).unwrap().answers_pings ^= true;
            }
            1 if linked => {
                let bye = mezz::Unregister::default();
                self.env.agent_says(agent, agent_message::Message::Unregister(bye));
                self.lose(agent);
            }
            2 => self.lose_some_task(agent),
            3 if self.dice.roll(2) == 0 => {
                self.env.agents.get_mut(agent).unwrap().lingers ^= true;
                self.env.confirm_drains();
            }
            3 if linked && self.dice.roll(2) == 0 => {
                let executors: Vec<_> = self.env.agents[agent].executors.keys().cloned().collect();
                if !executors.is_empty() {
                    let (framework, id) = self.dice.pick(&executors).clone();
                    self.env
                        .agents
                        .get_mut(agent)
                        .unwrap()
                        .executors
                        .remove(&(framework.clone(), id.clone()));
                    let message = mezz::ExecutorTerminated {
                        framework_id: v1::FrameworkId { value: framework },
                        executor_id: v1::ExecutorId { value: id },
                        status: 9,
                    };
                    self.env.agent_says(agent, agent_message::Message::ExecutorTerminated(message));
                }
            }
            4 | 5 if linked => self.env.agent_link_breaks(agent),
            _ if self.env.agents[agent].id.is_some() => self.env.reregister(agent),
            _ if !linked => self.env.register(agent),
            _ => {}
        }
    }

    /// The agent begins anew.
    fn lose(&mut self, agent: &str) {
        let side = self.env.agents.get_mut(agent).unwrap();
        side.id = None;
        side.connection = None;
        side.tasks.clear();
        side.executors.clear();
        side.frameworks.clear();
    }

    /// As if its store had been damaged.
    fn lose_some_task(&mut self, agent: &str) {
        let keys: Vec<_> = self.env.agents[agent].tasks.keys().cloned().collect();
        if !keys.is_empty() {
            let key = self.dice.pick(&keys).clone();
            self.env.agents.get_mut(agent).unwrap().tasks.remove(&key);
        }
    }

    fn framework_comes_or_goes(&mut self) {
        let framework = *self.dice.pick(&FRAMEWORKS);
        match self.dice.roll(5) {
            0 => self.env.framework_leaves(framework),
            1 if self.dice.roll(3) == 0 => self.env.call(framework, call::Type::Teardown, |_| {}),
            _ => {
                let removed = |e: &v1::scheduler::Event| {
                    e.error.as_ref().is_some_and(|e| e.message == "Framework has been removed")
                };
                self.env.subscribe(framework);
                let side = self.env.frameworks.get_mut(framework).unwrap();
                if side.inbox.iter().any(removed) {
                    side.info.id = None;
                }
            }
        }
    }

    fn time_passes(&mut self) {
        let millis = *self.dice.pick(&[1, 3, 3, 1000, 6000, 50_000, 150_000]);
        self.env.pass(Duration::from_millis(millis));
    }

    fn other_call(&mut self) {
        let framework = *self.dice.pick(&FRAMEWORKS);
        match self.dice.roll(6) {
            0 => self.env.call(framework, call::Type::Revive, |_| {}),
            1 => {
                let roles = self.dice.pick(&[vec![], vec!["web".to_owned()]]).clone();
                self.env.call(framework, call::Type::Suppress, |c| {
                    c.suppress = Some(call::Suppress { roles });
                });
            }
            2 => {
                let task = format!("t{}", self.dice.roll(self.tasks.max(1) + 1));
                self.env.kill(framework, &task);
            }
            3 => self.env.reconcile(framework, &[]),
            4 => {
                let task = format!("t{}", self.dice.roll(self.tasks.max(1) + 1));
                let agent = self.env.agents["a1"].id.clone();
                self.env.reconcile(framework, &[(&task, agent.as_deref())]);
            }
            _ => {
                let side = self.env.frameworks.get_mut(framework).unwrap();
                side.info.roles = match self.dice.roll(3) {
                    0 => vec!["web".to_owned()],
                    1 => vec!["ads".to_owned(), "web".to_owned()],
                    _ => Vec::new(),
                };
                let framework_info = side.info.clone();
                self.env.call(framework, call::Type::UpdateFramework, |c| {
                    c.update_framework =
                        Some(call::UpdateFramework { framework_info, ..Default::default() });
                });
            }
        }
    }

    fn operator(&mut self) {
        let framework = *self.dice.pick(&FRAMEWORKS);
        let id =
            self.env.frameworks[framework].info.id.clone().map_or_else(String::new, |i| i.value);
        let task_id = format!("t{}", self.dice.roll(self.tasks.max(1) + 1));
        let command = match self.dice.roll(9) {
            0 => OperatorCommand::ListRoles,
            5..9 => return self.duty(),
            1 => OperatorCommand::KillTask(mezz::OperatorKillTaskRequest {
                task_id,
                framework_id: None,
            }),
            2 => OperatorCommand::Explain(mezz::ExplainRequest {
                subject: Some(mezz::explain_request::Subject::Task(mezz::TaskSubject {
                    task_id,
                    framework_id: None,
                })),
            }),
            3 => OperatorCommand::Explain(mezz::ExplainRequest {
                subject: Some(mezz::explain_request::Subject::FrameworkId(id)),
            }),
            _ => OperatorCommand::UpdateWeights(mezz::UpdateWeightsRequest {
                weights: vec![mezz::RoleWeight {
                    role: "ads".to_owned(),
                    weight: 1.0 + self.dice.roll(3) as f64,
                }],
            }),
        };
        // Whatever the answer, there is one.
        drop(self.env.operator(command));
    }

    fn duty(&mut self) {
        let agent = *self.dice.pick(&AGENTS);
        let agent_id = self.env.agents[agent].id.clone().unwrap_or_default();
        let command = match self.dice.roll(24) {
            0..12 => {
                let nanoseconds = *self.dice.pick(&[-1, 0, 5_000_000_000]);
                OperatorCommand::DrainAgent(mezz::DrainAgentRequest {
                    agent_id,
                    max_grace_period: Some(v1::DurationInfo { nanoseconds }),
                    mark_gone: Some(self.dice.roll(4) == 0),
                })
            }
            12..16 => OperatorCommand::DeactivateAgent(mezz::DeactivateAgentRequest { agent_id }),
            16 => OperatorCommand::MarkAgentGone(agent_id),
            _ => OperatorCommand::ReactivateAgent(mezz::ReactivateAgentRequest { agent_id }),
        };
        match self.env.operator(command) {
            Ok(_) => self.orders += 1,
            Err(_) => self.refusals += 1,
        }
    }

    /// With the registry, or with an empty one (registry `memory`).
    fn restart(&mut self) {
        match self.dice.roll(3) {
            0 => self.env.restart_from(Default::default()),
            1 => self.env.restart_master(),
            _ => {}
        }
    }
}

/// 10,000 histories; the environment checks the invariants after every event.
#[test]
fn invariants_hold_over_random_histories() {
    // In four threads, for a machine has at least two cores.
    let threads: Vec<_> = (0..4u64)
        .map(|part| {
            std::thread::spawn(move || {
                for seed in 0..2500 {
                    let seed = part * 2500 + seed;
                    let mut history = History::new(seed, false);
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        history.run(25);
                    }));
                    if let Err(panic) = result {
                        eprintln!("the history of seed {seed} fails");
                        std::panic::resume_unwind(panic);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Long ones reach states that short ones do not.
#[test]
fn invariants_hold_over_long_histories() {
    for seed in 0..20 {
        History::new(1_000_000 + seed, false).run(600);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..20 {
        let log = || {
            let mut history = History::new(seed, true);
            history.run(200);
            history.env.log.unwrap()
        };
        let (first, second) = (log(), log());
        assert!(first.len() > 10_000);
        assert!(first == second, "seed {seed} gives two different logs");
    }
}

/// The histories reach what they are meant to reach.
#[test]
fn random_histories_are_varied() {
    let mut seen = crate::core::Counters::default();
    let (mut orders, mut refusals, mut gone) = (0, 0, 0);
    for seed in 0..300 {
        let mut history = History::new(seed, false);
        history.run(30);
        orders += history.orders;
        refusals += history.refusals;
        gone += history.gone;
        let c = history.env.core.counters();
        seen.tasks_launched += c.tasks_launched;
        seen.tasks_recovered += c.tasks_recovered;
        seen.tasks_refused += c.tasks_refused;
        seen.agents_marked_unreachable += c.agents_marked_unreachable;
        seen.agent_losses_delayed += c.agent_losses_delayed;
        seen.agent_losses_cancelled += c.agent_losses_cancelled;
        seen.agents_removed += c.agents_removed;
        seen.frameworks_completed += c.frameworks_completed;
        seen.offers_rescinded += c.offers_rescinded;
        seen.accepts_invalid += c.accepts_invalid;
        seen.tasks_live += c.tasks_ended.total();
    }
    let all = [
        seen.tasks_launched,
        seen.tasks_recovered,
        seen.tasks_refused,
        seen.agents_marked_unreachable,
        seen.agent_losses_delayed,
        seen.agent_losses_cancelled,
        seen.agents_removed,
        seen.frameworks_completed,
        seen.offers_rescinded,
        seen.accepts_invalid,
        seen.tasks_live,
        orders,
        refusals,
        gone,
    ];
    assert!(all.iter().all(|n| *n > 0), "{seen:?}");
}
