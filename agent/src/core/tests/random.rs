//! Random sequences: the invariants hold after each event, every task is told
//! exactly one end, who was told to end does, the master knows of the end of each
//! executor, and one seed gives one history.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::{
    ids::{ContainerId, FrameworkId},
    mezz::v1::{self as mezz, agent_message, master_message},
    v1::{self, TaskState, executor::event, task_status::Reason},
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{checks::health, env::*, pods::default_executor};
use crate::{
    containerizer::{Limitation, LimitationKind, Program},
    core::{Answer, Change, ConnectionId, Effect, Event, NoAnswer, ProbeId},
};

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
    /// The uuid of each task's last update, and its state.
    ends: BTreeMap<String, (Vec<u8>, TaskState)>,
    /// Tasks that the agent has taken in, and whose end must be told.
    taken: BTreeSet<String>,
    /// Command tasks of which the container was signalled or destroyed.
    killed: BTreeSet<String>,
    /// Whose a container is, for command tasks.
    tasks: BTreeMap<ContainerId, String>,
    /// Executors that the master thinks alive.
    known_executors: BTreeSet<String>,
    registered: bool,
    connection: u64,
    /// Of whom the newest connections are.
    peers: BTreeMap<u64, String>,
    /// Attempts of checks that have no answer yet.
    probes: Vec<(ContainerId, ProbeId)>,
    /// Pods and their members.
    pods: BTreeMap<ContainerId, BTreeSet<ContainerId>>,
    /// Tokens of executors that were told to shut down.
    shut: BTreeSet<String>,
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
            taken: BTreeSet::new(),
            killed: BTreeSet::new(),
            tasks: BTreeMap::new(),
            known_executors: BTreeSet::new(),
            registered: true,
            connection: 0,
            peers: BTreeMap::new(),
            probes: Vec::new(),
            pods: BTreeMap::new(),
            shut: BTreeSet::new(),
            history: String::new(),
        }
    }

    fn look(&mut self) {
        for update in self.env.updates() {
            let status = update.status;
            let task = status.task_id.value.clone();
            if status.state().is_terminal() {
                let this = (status.uuid.clone().unwrap(), status.state());
                let end = self.ends.entry(task.clone()).or_insert_with(|| this.clone());
                assert_eq!(*end, this, "{task} ended twice");
                // The end of its pod is what a member is told of, and what it took.
                let other = matches!(
                    status.reason(),
                    Reason::ExecutorTerminated | Reason::ContainerLimitationDisk
                );
                if self.killed.contains(&task) && !other {
                    assert_eq!(status.state(), TaskState::TaskKilled, "{task}: {status:?}");
                }
            } else {
                assert!(!self.ends.contains_key(&task), "{task} goes on after its end");
            }
            self.unacknowledged.push(status);
        }
        for effect in &self.env.log {
            match effect {
                Effect::Change(Change::Registered { .. }) => self.registered = true,
                Effect::Change(Change::Disconnected) => self.registered = false,
                _ => {}
            }
        }
        for effect in self.env.take() {
            self.history.push_str(&format!("{:?} {effect:?}\n", self.env.now));
            self.see(effect);
        }
        if self.registered {
            let alive: BTreeSet<_> =
                self.env.store.executors.keys().map(|key| key.executor.to_string()).collect();
            let known = &self.known_executors;
            assert!(known.is_subset(&alive), "the master knows {known:?}, alive are {alive:?}");
        }
    }

    fn see(&mut self, effect: Effect) {
        match effect {
            Effect::Launch(launch) => {
                let id = launch.spec.id.clone();
                let environment = &launch.spec.environment;
                if launch.spec.program == Program::Hold {
                    self.pods.insert(id.clone(), BTreeSet::new());
                } else if let Some(token) = environment.get("MEZZ_EXECUTOR_TOKEN") {
                    self.tokens.insert(id.clone(), token.clone());
                } else {
                    if let Some(pod) = &launch.spec.pod {
                        // It is there, and stays as long as its members.
                        assert_eq!(self.containers.get(pod), Some(&true), "{pod} is not there");
                        self.pods.get_mut(pod).expect("a pod").insert(id.clone());
                    }
                    self.tasks.insert(id.clone(), environment["MESOS_TASK_ID"].clone());
                }
                self.containers.insert(id, false);
            }
            Effect::Probe { container, probe, .. } => self.probes.push((container, probe)),
            Effect::Signal { container, .. } | Effect::Destroy { container } => {
                let members = self.pods.get(&container).into_iter().flatten();
                let left: Vec<_> =
                    members.filter(|member| self.containers.contains_key(*member)).collect();
                assert!(left.is_empty(), "{container} ends before its members {left:?}");
                self.killed.extend(self.tasks.get(&container).cloned());
            }
            Effect::SendMaster { message, .. } => match message.message {
                Some(agent_message::Message::Reregister(again)) => {
                    let listed = again.executors.into_iter().map(|info| info.executor_id.value);
                    self.known_executors = listed.collect();
                }
                Some(agent_message::Message::ExecutorTerminated(terminated)) => {
                    let id = &terminated.executor_id.value;
                    assert!(self.known_executors.remove(id), "{id} ended twice");
                }
                Some(agent_message::Message::Drained(_)) => {
                    assert!(self.containers.is_empty(), "left: {:?}", self.containers);
                }
                _ => {}
            },
            Effect::SendExecutor { connection, event } => {
                let Some(token) = self.peers.get(&connection.0).cloned() else { return };
                match event.r#type() {
                    event::Type::Shutdown => {
                        self.shut.insert(token);
                    }
                    event::Type::Subscribed => {
                        assert!(!self.shut.contains(&token), "it was shut down and lives on");
                    }
                    _ => {}
                }
            }
            _ => {}
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
        let ids = [id.clone(), format!("{id}-b")];
        match self.random.random_range(0..6) {
            0 => self.run("E", vec![executor_task(&id)], None),
            4 => self.env.run(vec![checked(&id)]),
            5 => {
                let name = if n.is_multiple_of(3) { "P" } else { "Q" };
                let group = vec![task(&id), checked(&ids[1])];
                self.run(name, group, Some(default_executor(name)));
            }
            1 => {
                let group = vec![task(&id), task(&ids[1])];
                self.run("E", group, Some(executor("E")));
            }
            _ => self.env.run(vec![task(&id)]),
        }
        let taken = ids.into_iter().filter(|id| self.env.store.tasks.contains_key(&key(id)));
        self.taken.extend(taken);
    }

    /// As the master sends tasks of an executor; no master that the agent is not registered
    /// with sends any.
    fn run(&mut self, id: &str, tasks: Vec<v1::TaskInfo>, group: Option<v1::ExecutorInfo>) {
        if !self.registered {
            return;
        }
        // A master counts nothing for a framework that it has removed.
        let counts = !self.env.core.is_shutting_down(&FrameworkId::new("F"));
        let new = counts && self.known_executors.insert(id.to_owned());
        let running = (!new).then(|| v1::ExecutorId { value: id.to_owned() });
        self.env.master(master_message::Message::RunTasks(mezz::RunTasks {
            framework: framework("F", &[]),
            tasks,
            group_executor: group,
            running_executors: running.into_iter().collect(),
        }));
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

    fn probed(&mut self) {
        let all = self.probes.clone();
        let Some((container, probe)) = self.pick(&all) else { return };
        self.probes.retain(|(_, other)| *other != probe);
        let outcome = match self.random.random_range(0..4) {
            0 => Ok(Answer::Tcp(true)),
            1 => Ok(Answer::Tcp(false)),
            2 => Err(NoAnswer::Failed("no answer".to_owned())),
            _ => Err(NoAnswer::NotMade("too many open files".to_owned())),
        };
        self.env.handle(Event::Probed { container, probe, outcome });
    }

    fn limited(&mut self) {
        let running: Vec<_> = self
            .containers
            .iter()
            .filter(|(id, running)| **running && !self.pods.contains_key(*id))
            .map(|(id, _)| id.clone())
            .collect();
        let Some(container) = self.pick(&running) else { return };
        let limitation = Limitation { kind: LimitationKind::Disk, message: "much".into() };
        self.env.handle(Event::ContainerLimited { container, limitation });
    }

    fn drain(&mut self) {
        self.env.register();
        let max_grace_period = Some(v1::DurationInfo { nanoseconds: 1_000_000_000 });
        let drain = mezz::Drain { max_grace_period, mark_gone: None, number: 1 };
        self.env.master(master_message::Message::Drain(drain));
        self.look();
        if self.random.random_bool(0.5) {
            self.env.master(master_message::Message::Reactivate(mezz::Reactivate {}));
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
                self.peers.insert(self.connection, token.clone());
                let mut call = subscribe();
                if self.random.random_bool(0.3) {
                    let task = format!("t{}", self.random.random_range(0..self.next_task.max(1)));
                    let states = [TaskState::TaskFinished, TaskState::TaskStaging];
                    let mut status = status(&task, self.pick(&states).unwrap(), 0);
                    status.uuid = Some(self.random.random::<[u8; 16]>().to_vec());
                    call.subscribe.as_mut().unwrap().unacknowledged_updates =
                        vec![v1::executor::call::Update { status }];
                }
                self.env.call(self.connection, &token, call);
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

    /// The agent dies in the middle of something, before it is on the disk.
    fn die(&mut self) {
        self.env.dies = true;
        match self.random.random_range(0..5) {
            0 | 1 => self.kill(),
            2 => self.env.shutdown_executor(),
            3 => {
                // Its end is on record: the next agent finds it.
                let running = self.containers.iter().filter(|(_, running)| **running);
                let running: Vec<_> = running.map(|(id, _)| id.clone()).collect();
                if let Some(id) = self.pick(&running) {
                    self.env.ended(&id, 0);
                }
            }
            _ => {
                if let Some(at) = self.env.core.next_deadline() {
                    // Whatever is due, and no more: the agent is dead then.
                    self.env.advance(at.since(self.env.now));
                }
            }
        }
        self.look();
        self.restart();
    }

    fn kill(&mut self) {
        let task = format!("t{}", self.random.random_range(0..self.next_task.max(1)));
        let grace = self.random.random_range(0..5);
        self.env.kill(&task, Some(Duration::from_secs(grace)));
    }

    fn restart(&mut self) {
        let mut gone = Vec::new();
        // They have lost who asked.
        self.probes.clear();
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
        let there: BTreeSet<_> = self.containers.keys().cloned().collect();
        self.env.restart(|id| there.contains(id), false);
        self.registered = false;
        self.unacknowledged.clear();
        self.connection += 1;
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
            75..80 => self.kill(),
            80..84 => self.probed(),
            84..85 => self.limited(),
            85..86 if self.random.random_bool(0.2) => self.drain(),
            85..89 => {
                let ms = self.random.random_range(0..20_000);
                self.env.advance(Duration::from_millis(ms));
            }
            // Longer than a disconnected executor has.
            89..90 => self.env.advance(Duration::from_secs(1_000)),
            90..91 => self.env.link_down(),
            // The master's answer may take its time.
            91..93 => self.env.link_up(),
            93..95 => self.env.registered(Vec::new()),
            95..96 => self.env.register(),
            96..97 => self.env.shutdown_executor(),
            97..98 => self.die(),
            98..99 if self.random.random_bool(0.5) => {
                // An agent that is not registered would not obey.
                self.env.register();
                let framework_id = v1::FrameworkId { value: "F".into() };
                let shutdown = mezz::ShutdownFramework { framework_id };
                self.env.master(master_message::Message::ShutdownFramework(shutdown));
                // Nobody wants to hear of them any more.
                self.look();
                self.taken.clear();
                self.known_executors.clear();
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
            while let Some((id, running)) = self.containers.first_key_value() {
                let (id, running) = (id.clone(), *running);
                if !running {
                    self.containers.insert(id.clone(), true);
                    self.env.launched(&id);
                    self.look();
                }
                self.containers.remove(&id);
                self.env.ended(&id, 0);
                self.look();
            }
            while let Some(status) = self.unacknowledged.pop() {
                self.env.ack(&status);
                self.look();
            }
        }
        assert!(self.env.store.tasks.is_empty(), "{:?}", self.env.store.states);
        assert!(self.env.store.executors.is_empty());
        assert!(self.env.store.frameworks.is_empty());
        assert_eq!(self.env.core.live_tasks(), 0);
        for task in &self.taken {
            assert!(self.ends.contains_key(task), "the end of {task} was never told");
        }
        assert!(self.known_executors.is_empty(), "{:?} live on", self.known_executors);
    }
}

/// Whose health check kills it after the second failure.
fn checked(id: &str) -> v1::TaskInfo {
    v1::TaskInfo { health_check: Some(health(2)), ..task(id) }
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
