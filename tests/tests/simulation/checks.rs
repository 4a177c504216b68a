//! What must hold at any moment, whatever happens.

use mezz_proto::{
    ids::{ContainerId, FrameworkId, TaskId},
    mezz::v1::{AgentMessage, agent_message, master_message},
    resources::Resources,
    v1,
};

use crate::{
    agent::RESOURCES,
    books::Job,
    framework::EXECUTOR,
    machine::Container,
    master::{LEADER, agents_key, frameworks_key},
    net::Packet,
    world::World,
};

impl World {
    /// Only the leader that etcd names has written, and nothing twice.
    pub fn check_written(&mut self, n: usize, fence: i64, number: u64) {
        let leader = self.etcd.keys.get(LEADER).map(|kv| kv.created);
        if leader != Some(fence) {
            return self.broken_rule(format!(
                "master{n} has written the registry with fence {fence}, but the leader's is \
                 {leader:?}"
            ));
        }
        let before = std::mem::replace(&mut self.books.written, (fence, number));
        let next = (before.0, before.1 + 1);
        let begins = before.0 < fence && number == 0;
        if !begins && next != (fence, number) {
            self.broken_rule(format!("write {fence}:{number} follows {before:?}"));
        }
    }

    /// Who decides has the leader's key.
    pub fn check_holder(&mut self, n: usize, fence: i64) {
        self.etcd.expire(self.now);
        let leader = self.etcd.keys.get(LEADER).map(|kv| kv.created);
        if leader != Some(fence) {
            self.broken_rule(format!(
                "master{n} decides with fence {fence}, but the leader's is {leader:?}"
            ));
        }
    }

    /// What a master of this id says is in the registry first, and what it starts was
    /// asked for with an offer of its own.
    pub fn check_sent(&mut self, n: usize, id: &str, packet: &Packet) {
        match packet {
            Packet::ToFramework(event) => {
                if let Some(subscribed) = &event.subscribed {
                    self.check_promise(n, &frameworks_key(&subscribed.framework_id.value));
                }
                if let Some(update) = &event.update {
                    self.check_lost(n, &update.status);
                }
            }
            Packet::ToAgent(message) => match &message.message {
                Some(master_message::Message::Registered(registered)) => {
                    self.check_promise(n, &agents_key(&registered.agent_id.value));
                    for framework in &registered.completed_frameworks {
                        self.check_over(n, &framework.value);
                    }
                }
                Some(master_message::Message::ShutdownFramework(shutdown)) => {
                    self.check_over(n, &shutdown.framework_id.value);
                }
                Some(master_message::Message::RunTasks(run)) => {
                    let framework = run.framework.id.clone().unwrap_or_default().value;
                    for task in &run.tasks {
                        let own = format!("{id}-O");
                        let task = &task.task_id.value;
                        let job = self.books.job(&framework, task);
                        if !job.is_some_and(|job| job.offer.starts_with(&own)) {
                            let rule = format!("master{n}, {id}, starts {task} by no offer of its");
                            return self.broken_rule(rule);
                        }
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Nobody hears of an unreachable agent that the next leader does not know to be one.
    fn check_lost(&mut self, n: usize, status: &v1::TaskStatus) {
        let agent = status.agent_id.as_ref().filter(|_| status.unreachable_time.is_some());
        if let Some(agent) = agent
            && !self.books.lost_agents.contains(&agent.value)
        {
            let (task, agent) = (&status.task_id.value, &agent.value);
            self.broken_rule(format!(
                "master{n} tells that {task} is unreachable, but not the registry that {agent} is"
            ));
        }
    }

    fn check_over(&mut self, n: usize, framework: &str) {
        if !self.books.is_removed(framework) {
            self.broken_rule(format!(
                "master{n} has tasks of {framework} ended, which lives on in the registry"
            ));
        }
    }

    fn check_promise(&mut self, n: usize, key: &str) {
        if !self.etcd.ever.contains(key) {
            self.broken_rule(format!("master{n} has promised {key}, which is not in the registry"));
        }
    }

    /// A task is told one end.
    pub fn check_report(&mut self, n: usize, message: &AgentMessage) {
        let Some(agent_message::Message::StatusUpdate(update)) = &message.message else { return };
        let state = update.status.state();
        if !state.is_terminal() {
            return;
        }
        let (framework, task) = (&update.framework_id.value, &update.status.task_id.value);
        if let Err(rule) = self.books.reported(framework, task, state) {
            self.broken_rule(format!("agent{n}: {rule}"));
        }
    }

    /// A container starts.
    pub fn check_launch(&mut self, n: usize, container: &Container) {
        if container.executor.is_none() {
            self.check_start(n, &container.framework, &container.task);
        }
        self.check_room(n, container);
    }

    /// A task starts: somebody asked for it, here, and it was never started before.
    pub fn check_start(&mut self, n: usize, framework: &FrameworkId, task: &TaskId) {
        let agent = self.agents[n].core_id().unwrap_or_default();
        let Some(job) = self.books.job(framework.as_str(), task.as_str()) else {
            return self.broken_rule(format!("agent{n} starts {task}, which nobody asked for"));
        };
        job.started += 1;
        let (started, on) = (job.started, job.agent.clone());
        if on != agent {
            return self.broken_rule(format!("agent{n}, {agent}, starts {task} of {on}"));
        }
        if started > 1 {
            self.broken_rule(format!("agent{n} starts {task} again"));
        }
    }

    /// What a container uses. An executor may yet run tasks that its agent has forgotten
    /// and that were told to be lost: they end when it comes back.
    fn uses(&self, container: &Container) -> Resources {
        let Some(executor) = &container.executor else { return container.resources.clone() };
        let mut uses = Resources::cpus_mem(EXECUTOR.0, EXECUTOR.1);
        for (task, of_task) in &executor.live {
            let job = self.books.known_job(container.framework.as_str(), task.as_str());
            if job.is_some_and(Job::may_run) {
                uses += of_task;
            }
        }
        uses
    }

    /// There is room for a container, beside the others.
    fn check_room(&mut self, n: usize, container: &Container) {
        let mut left = Resources::parse(RESOURCES).unwrap_or_default();
        let live = self.agents[n].machine.containers.values().filter(|c| c.is_live());
        // What a removed framework had is free for the masters at once.
        let counted = live.filter(|c| !self.books.is_ending(c.framework.as_str()));
        let counted: Vec<_> = counted.chain([container]).map(|c| (c, self.uses(c))).collect();
        let fits = counted.iter().all(|(_, uses)| left.try_sub(uses).is_ok());
        if !fits && !self.books.is_ending(container.framework.as_str()) {
            let what = match &container.executor {
                Some(executor) => format!("an executor with {:?}", executor.live),
                None => container.task.to_string(),
            };
            let each = counted.iter().map(|(c, uses)| {
                let executor = c.executor.as_ref().map(|executor| &executor.live);
                format!("{} {} {executor:?}: {uses}", c.framework.as_str(), c.task.as_str())
            });
            let each = each.collect::<Vec<_>>().join("; ");
            self.broken_rule(format!("agent{n} has no room for {what}: {each}"));
        }
    }

    /// An executor that has got another task has room for all that it runs, and is held to
    /// no less than that.
    pub fn check_held(&mut self, n: usize, id: &ContainerId) {
        let Some(container) = self.agents[n].machine.containers.remove(id) else { return };
        self.check_room(n, &container);
        if !container.resources.contains(&self.uses(&container)) {
            let (held, live) = (&container.resources, container.executor.as_ref().map(|e| &e.live));
            self.broken_rule(format!("agent{n} holds an executor with {live:?} to {held}"));
        }
        self.agents[n].machine.containers.insert(id.clone(), container);
    }
}
