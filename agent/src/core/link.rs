//! The link to the master (behaviour rule 45).

use std::time::Duration;

use mezz_proto::{
    LINK_PROTOCOL,
    ids::{AgentId, FrameworkId},
    mezz::v1::{self as mezz, agent_message, master_message},
    pages::AGENT_CAPABILITIES,
    time::Time,
    v1,
};

use super::{Change, Core, Effect, Effects, LinkId, StoreOp, timers::Timer};

/// So many silent ping intervals mean that the master is lost (rule 45).
const MISSED_PINGS: u32 = 5;

/// A master that has not answered for so long is given up (rule 45: 75 s).
const GREETING_TIMEOUT: Duration = Duration::from_secs(75);

/// Where the agent stands with a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// No connection.
    Down,
    /// Introduced, not answered.
    Greeting {
        link: LinkId,
        master: String,
        /// Executors that the introduction named and that ended since. No new ones
        /// come meanwhile, so there are no more of these than there were of those.
        ended: Vec<mezz::ExecutorTerminated>,
    },
    /// Taken in.
    Registered { link: LinkId, silence: Duration },
}

impl Link {
    pub(super) fn id(&self) -> Option<LinkId> {
        match self {
            Link::Down => None,
            Link::Greeting { link, .. } | Link::Registered { link, .. } => Some(*link),
        }
    }
}

impl Core {
    /// A message for the master, if the agent is registered with one.
    pub(super) fn to_master(&self, message: agent_message::Message) -> Option<Effect> {
        match self.link {
            Link::Registered { link, .. } => Some(send(link, message)),
            Link::Down | Link::Greeting { .. } => None,
        }
    }

    /// Tells that an executor ended, as soon as there is a master that knows of it:
    /// one to which the agent introduced itself before hears it with its answer.
    pub(super) fn tell_executor_terminated(
        &mut self,
        terminated: mezz::ExecutorTerminated,
        out: &mut Effects,
    ) {
        match &mut self.link {
            // The next introduction does not name it.
            Link::Down => {}
            Link::Greeting { ended, .. } => ended.push(terminated),
            Link::Registered { link, .. } => {
                let message = agent_message::Message::ExecutorTerminated(terminated);
                out.after_persist.push(send(*link, message));
            }
        }
    }

    pub(super) fn on_link_up(
        &mut self,
        now: Time,
        link: LinkId,
        master: String,
        out: &mut Effects,
    ) {
        self.lose_master(out);
        // Nobody is to take it in any more.
        if self.leaving.is_some() {
            out.now.push(Effect::CloseLink { link });
            return;
        }
        let description = self.description();
        let message = if self.agent_id.is_some() {
            agent_message::Message::Reregister(self.reregister(link, description))
        } else {
            agent_message::Message::Register(mezz::Register { description })
        };
        self.link = Link::Greeting { link, master, ended: Vec::new() };
        // A master that takes the link and never answers must not hold the agent.
        self.timers.set(Timer::Ping, now + GREETING_TIMEOUT);
        // It may name tasks that the store does not have yet. A master that heard of them
        // would take their silent absence later for an end that was acknowledged.
        out.after_persist.push(send(link, message));
    }

    pub(super) fn on_link_down(&mut self, link: LinkId, out: &mut Effects) {
        if self.link.id() == Some(link) {
            self.lose_master(out);
        }
    }

    pub(super) fn on_ping_timeout(&mut self, out: &mut Effects) {
        if let Some(link) = self.link.id() {
            out.now.push(Effect::CloseLink { link });
            self.lose_master(out);
        }
    }

    pub(super) fn on_master_message(
        &mut self,
        now: Time,
        link: LinkId,
        message: mezz::MasterMessage,
        out: &mut Effects,
    ) {
        use master_message::Message;
        let Some(message) = message.message else { return };
        match (&mut self.link, message) {
            (Link::Greeting { link: current, master, ended }, Message::Registered(registered))
                if *current == link =>
            {
                let (master, ended) = (std::mem::take(master), std::mem::take(ended));
                self.on_registered(now, link, master, ended, &registered, out);
            }
            (current, Message::Refused(refused)) if current.id() == Some(link) => {
                self.lose_master(out);
                out.now.push(Effect::CloseLink { link });
                if let Some(start) = refused.newer_start {
                    self.count_start(start, out);
                }
                if refused.gone() {
                    self.leave(now, refused.reason, out);
                } else if refused.permanent {
                    out.now.push(Effect::Refused { reason: refused.reason });
                }
            }
            (Link::Registered { link: current, .. }, message) if *current == link => {
                self.on_command(now, link, message, out);
            }
            // Of an older link, or before `registered`: not legal, and nothing to obey.
            _ => {}
        }
    }

    fn on_command(
        &mut self,
        now: Time,
        link: LinkId,
        message: master_message::Message,
        out: &mut Effects,
    ) {
        use master_message::Message;
        match message {
            Message::Ping(ping) => {
                self.expect_ping(now);
                let pong = mezz::Pong { number: ping.number };
                out.now.push(send(link, agent_message::Message::Pong(pong)));
            }
            Message::RunTasks(run) => self.on_run_tasks(now, run, out),
            Message::KillTask(kill) => self.on_kill_task(now, &kill, out),
            Message::Acknowledgement(ack) => self.on_acknowledgement(now, &ack, out),
            Message::ExecutorMessage(message) => self.on_framework_message(message, out),
            Message::ShutdownExecutor(shutdown) => self.on_shutdown_executor(now, &shutdown, out),
            Message::ShutdownFramework(shutdown) => {
                self.shutdown_framework(now, &FrameworkId::from(shutdown.framework_id), out);
            }
            Message::UpdateFramework(update) => {
                self.on_update_framework(now, update.framework, out);
            }
            Message::Drain(drain) => self.on_drain(now, now, &drain, out),
            Message::Reactivate(_) => {
                if self.draining.take().is_some() {
                    out.now.push(Effect::Change(Change::Drain(None)));
                }
            }
            Message::Registered(_) | Message::Refused(_) => {}
        }
    }

    fn on_registered(
        &mut self,
        now: Time,
        link: LinkId,
        master: String,
        ended: Vec<mezz::ExecutorTerminated>,
        registered: &mezz::Registered,
        out: &mut Effects,
    ) {
        let id = AgentId::from(&registered.agent_id);
        if let Some(known) = self.agent_id.as_ref().filter(|known| **known != id) {
            // Containers and sandboxes belong to the old id; under another one the
            // master would think them gone.
            out.now.push(Effect::Alarm {
                message: format!(
                    "the master {master} calls this agent {id}, but what it has belongs to \
                     {known}: it does not join this master, and tries again; look whether \
                     `masters` names the masters of one cluster, or, to join as a new agent \
                     without the tasks of {known}, stop it and remove `meta` in its --work-dir"
                ),
            });
            out.now.push(Effect::CloseLink { link });
            self.lose_master(out);
            return;
        }
        self.agent_id = Some(id.clone());
        let drained = self.draining.take();
        out.persist.push(StoreOp::PutAgent(Box::new(self.agent_info())));
        let silence =
            Duration::from_millis(registered.ping_interval_ms).saturating_mul(MISSED_PINGS);
        self.link = Link::Registered { link, silence };
        self.timers.cancel(&Timer::Ping);
        self.expect_ping(now);
        out.now.push(Effect::Change(Change::Registered { agent_id: id, master }));
        for framework in &registered.completed_frameworks {
            self.shutdown_framework(now, &FrameworkId::from(framework), out);
        }
        match &registered.drain {
            Some(drain) => {
                let since = drained.map_or(now, |drained| drained.since);
                self.on_drain(now, since, drain, out);
            }
            None if drained.is_some() => out.now.push(Effect::Change(Change::Drain(None))),
            None => {}
        }
        self.send_all(now, out);
        // Behind the updates of their tasks, as ever.
        for terminated in ended {
            let removed = registered.completed_frameworks.contains(&terminated.framework_id);
            if !removed {
                self.tell_executor_terminated(terminated, out);
            }
        }
    }

    fn expect_ping(&mut self, now: Time) {
        if let Link::Registered { silence, .. } = self.link
            && !silence.is_zero()
        {
            self.timers.set(Timer::Ping, now + silence);
        }
    }

    fn lose_master(&mut self, out: &mut Effects) {
        if self.link == Link::Down {
            return;
        }
        self.link = Link::Down;
        self.timers.cancel(&Timer::Ping);
        self.pause_updates();
        out.now.push(Effect::Change(Change::Disconnected));
    }

    /// The process counts as one that was started after this one. Told to nobody before
    /// it is stored: a master orders by it what it hears.
    pub(super) fn count_start(&mut self, after: u64, out: &mut Effects) {
        self.starts = self.starts.max(after).saturating_add(1);
        out.persist.push(StoreOp::PutStarts(self.starts));
    }

    /// What the agent is, with its id once it has one.
    pub(super) fn agent_info(&self) -> v1::AgentInfo {
        v1::AgentInfo { id: self.agent_id.as_ref().map(Into::into), ..self.options.agent.clone() }
    }

    fn description(&self) -> mezz::AgentDescription {
        let capability = |one: v1::agent_info::capability::Type| v1::agent_info::Capability {
            r#type: Some(one.into()),
        };
        mezz::AgentDescription {
            agent: self.agent_info(),
            version: self.options.version.clone(),
            protocol: LINK_PROTOCOL,
            boot_id: self.options.boot_id.clone(),
            capabilities: AGENT_CAPABILITIES.map(capability).to_vec(),
            api_address: self.options.api_address.clone(),
        }
    }

    fn reregister(&self, link: LinkId, description: mezz::AgentDescription) -> mezz::Reregister {
        let shutting_down = |framework: &FrameworkId| {
            self.frameworks.get(framework).is_some_and(|framework| framework.shutting_down)
        };
        let mut tasks = Vec::new();
        for (key, task) in &self.tasks {
            if shutting_down(&key.framework) {
                continue;
            }
            tasks.push(self.describe_task(key, task));
        }
        let mut executors = Vec::new();
        for (key, executor) in &self.executors {
            if shutting_down(&key.framework) {
                continue;
            }
            let mut info = executor.info.clone();
            info.framework_id = Some((&key.framework).into());
            executors.push(info);
        }
        let frameworks = self
            .frameworks
            .values()
            .filter(|framework| !framework.shutting_down)
            .map(|framework| framework.info.clone())
            .collect();
        let attempt = Some(mezz::Attempt { start: self.starts, link: link.0 });
        mezz::Reregister { description, tasks, frameworks, executors, attempt }
    }
}

fn send(link: LinkId, message: agent_message::Message) -> Effect {
    Effect::SendMaster { link, message: Box::new(mezz::AgentMessage { message: Some(message) }) }
}
