//! What holds between any two events.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{
    Core,
    link::Link,
    state::{Home, Owner, Stage},
    timers::Timer,
};

/// A rule that the core's own tables break: a bug.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Violation(String);

impl Core {
    /// Looks at everything; for tests and simulation.
    ///
    /// # Errors
    /// [`Violation`] names the first rule that is broken, and by what.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        self.check_tasks()?;
        self.check_executors()?;
        self.check_containers()?;
        self.check_timers()?;
        let live = self.tasks.values().filter(|task| task.is_live()).count();
        ensure(live == self.live_tasks, || {
            format!("{live} tasks live, {} counted", self.live_tasks)
        })?;
        ensure(self.backlog == self.count_backlog(), || {
            format!("{:?} is charged for updates, {:?} waits", self.backlog, self.count_backlog())
        })?;
        for framework in self.frameworks.keys() {
            let used = self.tasks.keys().any(|key| key.framework == *framework)
                || self.executors.keys().any(|key| key.framework == *framework);
            ensure(used, || format!("framework {framework} is kept for nothing"))?;
        }
        Ok(())
    }

    fn check_tasks(&self) -> Result<(), Violation> {
        let registered = matches!(self.link, Link::Registered { .. });
        for (key, task) in &self.tasks {
            let at = |rule: &str| format!("task {key:?}: {rule}");
            ensure(self.frameworks.contains_key(&key.framework), || at("no framework"))?;
            ensure(task.latest.is_terminal() != task.is_live(), || at("ended, or not?"))?;
            ensure(task.is_live() || !task.updates.is_empty(), || at("kept, though all told"))?;
            let early = task.updates.iter().rev().skip(1);
            ensure(early.clone().all(|update| !update.state().is_terminal()), || {
                at("an update after the last")
            })?;
            let uuids: BTreeSet<_> = task.updates.iter().map(|update| &update.uuid).collect();
            ensure(uuids.len() == task.updates.len(), || at("a uuid twice, or none"))?;
            ensure(task.retry.is_some() == (registered && !task.updates.is_empty()), || {
                at("the oldest update is in flight exactly while a master is there")
            })?;
            let retry = self.timers.get(&Timer::Retry(key.clone())).is_some();
            ensure(retry == task.retry.is_some(), || at("in flight without a timer"))?;
            let killed = task.kill.is_some() && task.home.container().is_some();
            ensure(task.kill_at.is_some() == killed, || at("killed without a deadline, or not?"))?;
            match &task.home {
                Home::Command(id) if task.is_live() => ensure(
                    self.containers
                        .get(id)
                        .is_some_and(|found| found.owner == Owner::Task(key.clone())),
                    || at("its container is not its own"),
                )?,
                Home::Member { container, .. } if task.is_live() && task.stage != Stage::Queued => {
                    let own = self.containers.get(container);
                    ensure(
                        own.is_some_and(|found| found.owner == Owner::Task(key.clone())),
                        || at("its container is not its own"),
                    )?;
                }
                _ => {}
            }
            match &task.home {
                Home::Member { executor: id, .. } | Home::Executor(id) => {
                    let executor = self.executors.get(&key.executor(id));
                    let listed =
                        executor.is_some_and(|executor| executor.tasks.contains(&key.task));
                    ensure(listed == task.is_live(), || at("its executor does not know it"))?;
                    let pending = executor.is_some_and(|executor| {
                        executor.pending.iter().any(|entry| entry.tasks.contains(&key.task))
                    });
                    ensure(pending == (task.stage == Stage::Queued), || at("queued, or not?"))?;
                }
                Home::Command(_) | Home::None => {}
            }
        }
        Ok(())
    }

    fn check_executors(&self) -> Result<(), Violation> {
        for (key, executor) in &self.executors {
            let at = |rule: &str| format!("executor {key:?}: {rule}");
            ensure(self.frameworks.contains_key(&key.framework), || at("no framework"))?;
            let own = self
                .containers
                .get(&executor.container)
                .is_some_and(|found| found.owner == Owner::Executor(key.clone()));
            let members = executor.is_pod() && !executor.tasks.is_empty();
            ensure(own || (executor.gone.is_some() && members && executor.doom.is_some()), || {
                at("its container is not its own")
            })?;
            if executor.is_pod() {
                ensure(executor.connection.is_none(), || at("there is nobody who could connect"))?;
                ensure(members || executor.doom.is_some(), || at("a pod without members stays"))?;
                let there = self.containers.get(&executor.container).is_some_and(|c| c.running);
                ensure(executor.pending.is_empty() || !there || executor.doom.is_some(), || {
                    at("its pod is there, and members wait")
                })?;
            }
            for task in &executor.tasks {
                let live = self.tasks.get(&key.task(task)).is_some_and(|task| task.is_live());
                ensure(live, || at("lists a task that does not live"))?;
            }
            if let Some(connection) = executor.connection {
                ensure(self.connections.get(&connection) == Some(key), || {
                    at("its connection is another's")
                })?;
                ensure(executor.pending.is_empty(), || at("it is there, and tasks wait"))?;
            }
            let awaited = [Timer::Registration, Timer::Reregistration, Timer::Disconnected]
                .into_iter()
                .filter(|timer| self.timers.get(&timer(key.clone())).is_some())
                .count();
            let here =
                executor.connection.is_some() || executor.doom.is_some() || executor.is_pod();
            // Nobody waits for one that is not there yet.
            let started = executor.subscribed_once
                || self.containers.get(&executor.container).is_some_and(|c| c.running);
            let due = started && !here;
            ensure(awaited == usize::from(due), || at("it is away without one deadline"))?;
        }
        for (connection, key) in &self.connections {
            let bound = self.executors.get(key).and_then(|executor| executor.connection);
            ensure(bound == Some(*connection), || {
                format!("connection {connection:?} is nobody's")
            })?;
        }
        Ok(())
    }

    fn check_containers(&self) -> Result<(), Violation> {
        for (id, container) in &self.containers {
            let owned = match &container.owner {
                Owner::Task(key) => self
                    .tasks
                    .get(key)
                    .is_some_and(|task| task.is_live() && task.home.container() == Some(id)),
                Owner::Executor(key) => {
                    self.executors.get(key).is_some_and(|executor| executor.container == *id)
                }
            };
            ensure(owned, || format!("container {id} is nobody's"))?;
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), Violation> {
        for timer in self.timers.iter() {
            let held = match timer {
                Timer::Ping => self.link != Link::Down,
                Timer::Leave => self.leaving.is_some(),
                Timer::Retry(key) => self.tasks.contains_key(key),
                Timer::Kill(key) | Timer::Completion(key) => {
                    self.tasks.get(key).is_some_and(|task| task.is_live())
                }
                Timer::Probe(key, _) => self.tasks.get(key).is_some_and(|task| {
                    task.stage == Stage::Running && task.kill.is_none() && task.checks.is_some()
                }),
                Timer::Registration(key)
                | Timer::Reregistration(key)
                | Timer::Disconnected(key)
                | Timer::Shutdown(key) => self.executors.contains_key(key),
            };
            ensure(held, || format!("{timer:?} is of nobody"))?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(text())) }
}
