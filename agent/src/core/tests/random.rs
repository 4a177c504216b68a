//! Random sequences: the invariants hold after each event, every task is told
//! one end, and one seed gives one history.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{ids::ContainerId, mezz::v1 as mezz, mezz::v1::master_message, v1, v1::TaskState};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::env::*;
use crate::core::{ConnectionId, Effect, Event};

/// Sequences in a normal run; `MEZZ_SEQUENCES` asks for more.
const SEQUENCES: u64 = 400;
const STEPS: usize = 120;

struct World {
    env: TestEnv,
    random: StdRng,
    next_task: u32,
    /// Launched and not ended; whether the agent knows that it runs.
    containers: BTreeMap<ContainerId, bool>,
    tokens: BTreeMap<ContainerId, String>,
    /// Updates that the master has and has not acknowledged.
    unacknowledged: Vec<v1::TaskStatus>,
    ends: BTreeMap<String, TaskState>,
    linked: bool,
    connection: u64,
    history: String,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            env: TestEnv::new(),
            random: StdRng::seed_from_u64(seed),
            next_task: 0,
            containers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            unacknowledged: Vec::new(),
            ends: BTreeMap::new(),
            linked: true,
            connection: 0,
            history: String::new(),
        }
    }

    fn look(&mut self) {
        for update in self.env.updates() {
            let status = update.status;
            let task = status.task_id.value.clone();
            if status.state().is_terminal() {
                let end = *self.ends.entry(task.clone()).or_insert(status.state());
                assert_eq!(end, status.state(), "{task} ended twice");
            } else {
                assert!(!self.ends.contains_key(&task), "{task} goes on after its end");
            }
            self.unacknowledged.push(status);
        }
        for effect in self.env.take() {
            self.history.push_str(&format!("{:?} {effect:?}\n", self.env.now));
            if let Effect::Launch(launch) = effect {
                let id = launch.spec.id.clone();
                if let Some(token) = launch.spec.environment.get("MEZZ_EXECUTOR_TOKEN") {
                    self.tokens.insert(id.clone(), token.clone());
                }
                self.containers.insert(id, false);
            }
        }
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        Some(from[self.random.random_range(0..from.len())].clone())
    }

    fn any_container(&mut self) -> Option<ContainerId> {
        let all: Vec<_> = self.containers.keys().cloned().collect();
        self.pick(&all)
    }

    fn launch(&mut self) {
        let n = self.next_task;
        self.next_task += 1;
        let id = format!("t{n}");
        match self.random.random_range(0..4) {
            0 => self.env.run(vec![executor_task(&id)]),
            1 => {
                let group = vec![task(&id), task(&format!("{id}-b"))];
                self.env.run_for(framework("F", &[]), group, Some(executor("E")));
            }
            _ => self.env.run(vec![task(&id)]),
        }
    }

    fn container_event(&mut self) {
        let Some(id) = self.any_container() else { return };
        if self.containers[&id] {
            self.containers.remove(&id);
            let status = self.random.random_range(0..3) << 8;
            self.env.ended(&id, status);
        } else if self.random.random_range(0..5) == 0 {
            self.containers.remove(&id);
            self.env.handle(Event::LaunchFailed { container: id, error: "no".into() });
        } else {
            self.containers.insert(id.clone(), true);
            self.env.launched(&id);
        }
    }

    fn executor_event(&mut self) {
        let tokens: Vec<_> = self
            .tokens
            .iter()
            .filter(|(id, _)| self.containers.get(*id) == Some(&true))
            .map(|(_, token)| token.clone())
            .collect();
        let token = self.pick(&tokens).unwrap_or_default();
        match self.random.random_range(0..6) {
            0 => {
                self.connection += 1;
                self.env.call(self.connection, &token, subscribe());
            }
            1 => self
                .env
                .handle(Event::ExecutorDisconnected { connection: ConnectionId(self.connection) }),
            _ => {
                let task = format!("t{}", self.random.random_range(0..self.next_task.max(1)));
                let states = [
                    TaskState::TaskRunning,
                    TaskState::TaskFinished,
                    TaskState::TaskFailed,
                    TaskState::TaskStaging,
                ];
                let state = self.pick(&states).unwrap();
                let mut status = status(&task, state, 0);
                // A few come twice.
                let mut uuid = [0; 16];
                self.random.fill_bytes(&mut uuid[..1]);
                status.uuid = Some(uuid.to_vec());
                self.env.call(self.connection, &token, update(status));
            }
        }
    }

    fn restart(&mut self) {
        let mut gone = Vec::new();
        for id in self.containers.keys().cloned().collect::<Vec<_>>() {
            // Only what was not seen running can have failed to start.
            if !self.containers[&id] && self.random.random_bool(0.5) {
                gone.push(id);
            }
        }
        self.containers.retain(|id, _| !gone.contains(id));
        for running in self.containers.values_mut() {
            *running = true;
        }
        self.env.restart(|id| !gone.contains(id), false);
        self.unacknowledged.clear();
        self.connection += 1;
        self.linked = false;
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..20 => self.launch(),
            20..45 => self.container_event(),
            45..60 => self.executor_event(),
            60..75 => {
                let all = self.unacknowledged.clone();
                if let Some(status) = self.pick(&all) {
                    self.unacknowledged.retain(|other| other.uuid != status.uuid);
                    self.env.ack(&status);
                }
            }
            75..83 => {
                let task = format!("t{}", self.random.random_range(0..self.next_task.max(1)));
                let grace = self.random.random_range(0..5);
                self.env.kill(&task, Some(Duration::from_secs(grace)));
            }
            83..92 => {
                let ms = self.random.random_range(0..20_000);
                self.env.advance(Duration::from_millis(ms));
            }
            92..94 => self.env.link_down(),
            94..97 => self.env.register(),
            97..98 => {
                let framework_id = v1::FrameworkId { value: "F".into() };
                let shutdown = mezz::ShutdownFramework { framework_id };
                self.env.master(master_message::Message::ShutdownFramework(shutdown));
            }
            _ => self.restart(),
        }
        self.look();
    }

    /// Everything ends and is acknowledged: nothing may be left.
    fn wind_up(&mut self) {
        self.env.register();
        self.look();
        for _ in 0..20 {
            while let Some((id, running)) = self.containers.pop_first() {
                if !running {
                    self.env.launched(&id);
                }
                self.env.ended(&id, 0);
                self.look();
            }
            while let Some(status) = self.unacknowledged.pop() {
                self.env.ack(&status);
                self.look();
            }
        }
        assert!(self.env.store.tasks.is_empty(), "{:?}", self.env.store.tasks);
        assert!(self.env.store.executors.is_empty());
        assert!(self.env.store.frameworks.is_empty());
        assert_eq!(self.env.core.live_tasks(), 0);
    }
}

fn play(seed: u64) -> String {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.wind_up();
    world.history
}

#[test]
fn nothing_breaks_and_nothing_is_left() {
    let asked = std::env::var("MEZZ_SEQUENCES").ok();
    let sequences = asked.map_or(SEQUENCES, |asked| asked.parse().unwrap());
    for seed in 0..sequences {
        let played = std::panic::catch_unwind(|| play(seed));
        assert!(played.is_ok(), "seed {seed}");
    }
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(play(42), play(42));
}
