//! Where agents stand: the one place that changes it, so that indexes, timers
//! and gauges follow.

use mezz_proto::time::Time;

use crate::{
    allocator::AgentKey,
    core::{
        Change, ConnectionId, Core, Effects,
        state::{Agent, AgentLink, Ping, Timer},
        validate::agent::Described,
    },
};

impl Core {
    /// Takes a new agent in. The allocator is the caller's business.
    pub(in crate::core) fn insert_agent(&mut self, agent: Agent) -> AgentKey {
        let id = agent.id.clone();
        let key = self.agents.insert_with(|_| agent);
        self.agent_ids.insert(id, key);
        self.agent_places.extend(self.agents[key].place(key));
        self.enter_agent_link(key);
        key
    }

    /// Forgets an agent that has no tasks, executors or offers left; `gone` if an operator
    /// has given it up.
    pub(super) fn forget_agent(&mut self, key: AgentKey, gone: bool, out: &mut Effects) {
        self.leave_agent_link(key);
        self.leave_place(key);
        if let Some(agent) = self.agents.remove(key) {
            self.agent_ids.remove(&agent.id);
            let told = if gone { Change::AgentGone } else { Change::AgentRemoved };
            out.change(told(agent.id));
        }
    }

    /// Takes a known agent's new description.
    pub(super) fn describe_agent(&mut self, key: AgentKey, described: Described) {
        let info = &self.agents[key].info;
        let moved = info.hostname != described.info.hostname || info.port != described.info.port;
        if moved {
            self.leave_place(key);
        }
        let agent = &mut self.agents[key];
        agent.info = described.info;
        agent.info.id = Some((&agent.id).into());
        agent.total = described.total;
        agent.version = described.version;
        agent.api_address = described.api_address;
        if moved {
            self.agent_places.extend(self.agents[key].place(key));
        }
    }

    fn leave_place(&mut self, key: AgentKey) {
        if let Some(place) = self.agents[key].place(key) {
            self.agent_places.remove(&place);
        }
    }

    /// Moves an agent from where it stood to `link`.
    pub(super) fn set_agent_link(&mut self, key: AgentKey, link: AgentLink) {
        self.leave_agent_link(key);
        self.agents[key].link = link;
        self.enter_agent_link(key);
    }

    /// A fresh link. First pings are spread over the interval, so that agents
    /// that came together are not pinged together.
    pub(super) fn new_agent_link(
        &self,
        now: Time,
        key: AgentKey,
        connection: ConnectionId,
    ) -> AgentLink {
        const STEPS: u32 = 1024;
        // Multiplying by an odd number spreads neighbouring slots.
        let step = key.0.wrapping_mul(2_654_435_761) >> 22;
        let offset = self.options.ping_interval * (step + 1) / STEPS;
        let ping = Ping { number: 0, missed: 0, waiting: false, next: now + offset };
        AgentLink::Connected { connection, ping }
    }

    pub(super) fn publish_agent(&self, key: AgentKey, out: &mut Effects) {
        out.change(Change::Agent(Box::new(self.agents[key].shown())));
    }

    fn enter_agent_link(&mut self, key: AgentKey) {
        match &self.agents[key].link {
            AgentLink::Connected { connection, ping } => {
                self.agent_links.insert(*connection, key);
                self.timers.set(ping.next, Timer::Ping(key));
                self.counters.agents_active += 1;
            }
            AgentLink::Disconnected { until } => {
                self.timers.set(*until, Timer::AgentAway(key));
                self.counters.agents_disconnected += 1;
            }
            AgentLink::Recovering { until } => {
                self.timers.set(*until, Timer::AgentAway(key));
                self.counters.agents_recovering += 1;
            }
            AgentLink::Unreachable { since } => {
                self.timers.set(*since + self.options.unreachable_retention, Timer::AgentAway(key));
                self.unreachable_since.insert((*since, key));
                self.counters.agents_unreachable += 1;
            }
        }
    }

    fn leave_agent_link(&mut self, key: AgentKey) {
        match &self.agents[key].link {
            AgentLink::Connected { connection, ping } => {
                self.agent_links.remove(connection);
                self.timers.clear(ping.next, Timer::Ping(key));
                self.counters.agents_active -= 1;
            }
            AgentLink::Disconnected { until } => {
                let until = *until;
                self.counters.agents_disconnected -= 1;
                self.is_not_lost(until, key);
            }
            AgentLink::Recovering { until } => {
                let until = *until;
                self.counters.agents_recovering -= 1;
                self.is_not_lost(until, key);
            }
            AgentLink::Unreachable { since } => {
                let until = *since + self.options.unreachable_retention;
                self.timers.clear(until, Timer::AgentAway(key));
                self.unreachable_since.remove(&(*since, key));
                self.counters.agents_unreachable -= 1;
            }
        }
    }

    /// Neither is its time up, nor does it wait for its turn.
    fn is_not_lost(&mut self, until: Time, key: AgentKey) {
        let turn = self.removals.due();
        if !self.removals.cancel(until, key) {
            self.timers.clear(until, Timer::AgentAway(key));
            return;
        }
        self.counters.agent_losses_waiting -= 1;
        self.counters.agent_losses_cancelled += 1;
        if let (Some(turn), None) = (turn, self.removals.due()) {
            self.timers.clear(turn, Timer::Removal);
        }
    }
}
