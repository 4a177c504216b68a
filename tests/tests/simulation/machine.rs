//! An agent's machine: its containers, which go on without the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_agent::{
    containerizer::Termination,
    core::{Event, Launch},
};
use mezz_proto::{
    ids::{ContainerId, FrameworkId, TaskId},
    resources::Resources,
};
use rand::RngExt as _;

use crate::{
    executor::{self, Executor},
    world::{Node, What, World},
};

/// Between what happens on the machine and the agent's hearing of it.
const NEWS: Duration = Duration::from_millis(1);

/// What is next for a container.
#[derive(Clone, Debug)]
pub enum Step {
    /// Its process starts, or does not.
    Begin,
    /// Its process ends, with this wait status.
    Exit(i32),
    /// Of an executor.
    Executor(executor::Step),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Running,
    /// With its wait status, if anybody saw it.
    Ended(Option<i32>),
}

#[derive(Clone, Debug)]
pub struct Container {
    pub framework: FrameworkId,
    /// Empty for an executor.
    pub task: TaskId,
    pub executor: Option<Executor>,
    /// What it is held to.
    pub resources: Resources,
    pub state: State,
    destroyed: bool,
}

impl Container {
    pub fn is_live(&self) -> bool {
        !matches!(self.state, State::Ended(_))
    }
}

#[derive(Debug, Default)]
pub struct Machine {
    boot: u64,
    /// Of executors, so far.
    pub connections: u64,
    pub containers: BTreeMap<ContainerId, Container>,
}

impl Machine {
    pub fn boot_id(&self) -> String {
        format!("boot{}", self.boot)
    }

    /// What was running is gone, and nobody saw how.
    pub fn reboot(&mut self) {
        self.boot += 1;
        self.containers.retain(|_, container| container.state != State::Starting);
        for container in self.containers.values_mut() {
            if container.state == State::Running {
                container.state = State::Ended(None);
            }
        }
    }

    /// A new agent takes up those that it knows and that were started; the others are
    /// ended.
    pub fn recover(&mut self, known: &[ContainerId]) -> BTreeSet<ContainerId> {
        self.containers
            .retain(|id, container| container.state != State::Starting && known.contains(id));
        self.containers.keys().cloned().collect()
    }
}

impl World {
    pub fn launch(&mut self, n: usize, launch: Launch) {
        let spec = launch.spec;
        let task = TaskId::new(spec.environment.get("MESOS_TASK_ID").map_or("", String::as_str));
        let container = Container {
            executor: Executor::of(&launch.framework, &spec.environment),
            framework: launch.framework,
            task,
            resources: spec.resources,
            state: State::Starting,
            destroyed: false,
        };
        self.check_launch(n, &container);
        self.agents[n].machine.containers.insert(spec.id.clone(), container);
        let most = if self.rng.random_ratio(1, 20) { 10_000 } else { 100 };
        let wait = Duration::from_millis(self.rng.random_range(2..most));
        self.machine_later(n, wait, &spec.id, Step::Begin);
    }

    /// What a container is held to changes, with the tasks of its executor.
    pub fn hold(&mut self, n: usize, id: &ContainerId, resources: Resources) {
        if let Some(container) = self.agents[n].machine.containers.get_mut(id) {
            container.resources = resources;
        }
    }

    pub fn signal(&mut self, n: usize, container: &ContainerId, signal: i32) {
        // Some programs do not care.
        if self.rng.random_ratio(4, 5) {
            let wait = Duration::from_millis(self.rng.random_range(1..3_000));
            self.machine_later(n, wait, container, Step::Exit(signal));
        }
    }

    pub fn destroy(&mut self, n: usize, id: &ContainerId) {
        let Some(container) = self.agents[n].machine.containers.get_mut(id) else { return };
        container.destroyed = true;
        let wait = Duration::from_millis(self.rng.random_range(1..50));
        self.machine_later(n, wait, id, Step::Exit(9));
    }

    /// A new agent waits for a container of an earlier one.
    pub fn watch(&mut self, n: usize, id: &ContainerId) {
        let container = self.agents[n].machine.containers.get(id);
        if let Some(State::Ended(status)) = container.map(|container| container.state) {
            self.container_ended(n, id, status);
        }
    }

    pub fn forget_container(&mut self, n: usize, id: &ContainerId) {
        self.agents[n].machine.containers.remove(id);
    }

    pub fn machine_later(&mut self, n: usize, after: Duration, id: &ContainerId, step: Step) {
        let boot = self.agents[n].machine.boot;
        let container = id.clone();
        self.later(after, None, What::Machine { agent: n, boot, container, step });
    }

    pub fn machine_step(&mut self, n: usize, boot: u64, id: &ContainerId, step: Step) {
        if self.agents[n].machine.boot != boot {
            return;
        }
        let fails = self.rng.random_ratio(1, 40);
        let Some(container) = self.agents[n].machine.containers.get_mut(id) else { return };
        match (step, container.state) {
            (Step::Begin, State::Starting) if container.destroyed || fails => {
                self.forget_container(n, id);
                let error = "it could not be started".to_owned();
                self.tell_agent(n, Event::LaunchFailed { container: id.clone(), error });
            }
            (Step::Begin, State::Starting) => {
                container.state = State::Running;
                let executor = container.executor.is_some();
                // A few run until all is wound up, and most executors.
                let (of, long) = if executor { (4, 120_000) } else { (1, 60_000) };
                if !self.books.launching || self.rng.random_ratio(3, 4 * of) {
                    self.exit_within(n, id, long);
                }
                if executor {
                    self.executor_begins(n, id);
                }
                self.tell_agent(n, Event::ContainerLaunched { container: id.clone(), pid: 1 });
            }
            (Step::Executor(step), State::Running) => self.executor_step(n, id, step),
            (Step::Exit(status), State::Running) => {
                container.state = State::Ended(Some(status));
                if let Some(executor) = container.executor.clone() {
                    self.executor_ended(n, &executor);
                }
                self.container_ended(n, id, Some(status));
            }
            _ => {}
        }
    }

    fn exit_within(&mut self, n: usize, id: &ContainerId, millis: u64) {
        let wait = Duration::from_millis(self.rng.random_range(5..millis));
        let failed = self.rng.random_ratio(1, 5);
        self.machine_later(n, wait, id, Step::Exit(if failed { 1 << 8 } else { 0 }));
    }

    /// All that runs ends by itself.
    pub fn end_containers(&mut self, n: usize) {
        let all: Vec<ContainerId> = self.agents[n].machine.containers.keys().cloned().collect();
        for id in all {
            self.exit_within(n, &id, 5_000);
        }
    }

    fn container_ended(&mut self, n: usize, id: &ContainerId, wait_status: Option<i32>) {
        let termination = Termination { wait_status, out_of_memory: None, failure: None };
        let container = id.clone();
        self.tell_agent(n, Event::ContainerEnded { container, termination, stderr_tail: None });
    }

    /// If there is an agent; the next one looks by itself.
    fn tell_agent(&mut self, n: usize, event: Event) {
        let node = Node::Agent(n);
        if self.status(node).up {
            self.later(NEWS, Some(node), What::Container(event));
        }
    }
}
