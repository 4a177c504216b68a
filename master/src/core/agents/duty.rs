//! What operators want of an agent: to be offered, or not, or to be emptied (rule
//! 50).

use mezz_proto::{
    ids::AgentId,
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
    v1::{DrainConfig, DrainInfo, DrainState},
};

use crate::{
    allocator::AgentKey,
    core::{Core, Effects, OperatorError, state::Duty},
    registry::RegistryOp,
};

/// Ids of agents that operators gave up and that are remembered, and again as many of
/// agents that were away too long while one wanted something of them; of more, the
/// oldest are forgotten.
pub(in crate::core) const MAX_GONE: usize = 10_000;

impl Core {
    /// The agent gets no more offers, and kills its tasks. Asked again, the new
    /// wishes replace the former ones. It holds for an agent that is away, too:
    /// that is told when it comes back.
    pub(in crate::core) fn drain_agent(
        &mut self,
        now: Time,
        request: mezz::DrainAgentRequest,
        out: &mut Effects,
    ) -> Result<(), OperatorError> {
        let key = self.known_agent(&request.agent_id)?;
        if let Some(grace) = request.max_grace_period.filter(|grace| grace.nanoseconds < 0) {
            return Err(OperatorError::Invalid(format!(
                "max_grace_period: {} ns is below 0; leave it out for the tasks' own",
                grace.nanoseconds
            )));
        }
        let config = DrainConfig {
            max_grace_period: request.max_grace_period,
            mark_gone: request.mark_gone,
        };
        let drain = Duty::Draining(DrainInfo { state: DrainState::Draining as i32, config });
        let agent = &mut self.agents[key];
        agent.drain_started = agent.connection().map(|_| now);
        self.set_duty(now, key, drain, out);
        // One that is away gets a new order when it comes back.
        if let Some(order) = self.agents[key].order_drain() {
            self.order_after_persist(key, Message::Drain(order), out);
        }
        Ok(())
    }

    /// The agent has said that nothing is left on it. What it says of an order
    /// that another one has followed does not count: it may have got tasks between
    /// the two.
    pub(super) fn agent_emptied(&mut self, key: AgentKey, number: u64) {
        let agent = &mut self.agents[key];
        if number == agent.drain_order {
            agent.emptied = true;
            self.perhaps_drained.push(key);
        }
    }

    /// The agent gets no more offers; what runs there goes on. One that drains or
    /// is drained gets none already.
    pub(in crate::core) fn deactivate_agent(
        &mut self,
        now: Time,
        request: &mezz::DeactivateAgentRequest,
        out: &mut Effects,
    ) -> Result<(), OperatorError> {
        let key = self.known_agent(&request.agent_id)?;
        if self.agents[key].duty == Duty::Active {
            self.set_duty(now, key, Duty::Deactivated, out);
        }
        Ok(())
    }

    /// The only end of a drain.
    pub(in crate::core) fn reactivate_agent(
        &mut self,
        now: Time,
        request: &mezz::ReactivateAgentRequest,
        out: &mut Effects,
    ) -> Result<(), OperatorError> {
        let key = self.known_agent(&request.agent_id)?;
        let agent = &self.agents[key];
        match &agent.duty {
            Duty::Active => return Ok(()),
            Duty::Deactivated => {}
            Duty::Draining(_) if agent.duty.is_drained() => {}
            Duty::Draining(_) => {
                return Err(OperatorError::NotAllowed(format!(
                    "agent `{}` is still draining ({}); wait until `mezz agents` shows it as drained",
                    agent.id,
                    if agent.connection().is_none() {
                        "it is away".to_owned()
                    } else if agent.tasks.is_empty() {
                        "what ran there is still ending".to_owned()
                    } else {
                        format!("tasks left: {}", agent.tasks.len())
                    }
                )));
            }
        }
        self.set_duty(now, key, Duty::Active, out);
        self.order_after_persist(key, Message::Reactivate(mezz::Reactivate {}), out);
        Ok(())
    }

    /// An operator gives the agent up, whatever runs there (rule 47): its tasks are gone, its
    /// id is burnt, and it is told to stop when it is there or comes back. Asked again, it
    /// is done already. Who has tasks there hears of their end, and the operator of the
    /// agent's, when it is written.
    pub(in crate::core) fn mark_agent_gone(
        &mut self,
        now: Time,
        id: &str,
        out: &mut Effects,
    ) -> Result<(), OperatorError> {
        if self.gone.contains_key(id) {
            // The write of the first time may be under way.
            out.confirm_all();
            return Ok(());
        }
        if self.kept_duties.contains_key(id) {
            return Err(OperatorError::NotFound(format!(
                "agent `{id}` was away too long and is forgotten, and so are its tasks; it can \
                 be marked gone if it comes back"
            )));
        }
        let key = self.known_agent(id)?;
        self.mark_gone(now, key, out);
        Ok(())
    }

    /// What every call ends with: the agents that may have become empty in it. That
    /// takes both sides: tasks whose end no framework has acknowledged are known
    /// here, and containers of removed frameworks only there.
    pub(in crate::core) fn finish_drains(&mut self, now: Time, out: &mut Effects) {
        for key in std::mem::take(&mut self.perhaps_drained) {
            if self.agents.get(key).is_none() {
                continue;
            }
            let agent = &mut self.agents[key];
            // One that is away may bring tasks that nobody here knows of.
            let empty = agent.emptied && agent.tasks.is_empty();
            if agent.connection().is_none() || !empty || agent.duty.is_drained() {
                continue;
            }
            let Duty::Draining(drain) = &mut agent.duty else { continue };
            drain.set_state(DrainState::Drained);
            if drain.config.mark_gone() {
                self.mark_gone(now, key, out);
            } else {
                out.persist.push(RegistryOp::PutAgent(self.agents[key].record()));
                self.publish_agent(key, out);
            }
        }
    }

    /// An agent that was drained comes back with a task or an executor after all: a
    /// task whose last update it could not yet forget, or those of a restored work
    /// directory.
    pub(super) fn drain_anew(&mut self, key: AgentKey, out: &mut Effects) {
        let agent = &mut self.agents[key];
        let empty = agent.tasks.is_empty() && agent.executors.is_empty();
        if empty || !agent.duty.is_drained() {
            return;
        }
        if let Duty::Draining(drain) = &mut agent.duty {
            drain.set_state(DrainState::Draining);
            out.persist.push(RegistryOp::PutAgent(self.agents[key].record()));
        }
    }

    /// Whether an operator has given it up: then it may not come back.
    pub(in crate::core) fn is_gone(&self, id: &AgentId) -> bool {
        self.gone.contains_key(id)
    }

    /// Burns the id of an agent that was given up.
    pub(in crate::core) fn remember_gone(&mut self, id: AgentId, at: Time) -> Option<AgentId> {
        self.gone.insert(id, at);
        if self.gone.len() <= MAX_GONE {
            return None;
        }
        let oldest = self.gone.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone())?;
        self.gone.remove(&oldest);
        Some(oldest)
    }

    /// Keeps what an operator wants of an agent that is forgotten. Returns the one
    /// that makes room for it, if any.
    pub(in crate::core) fn keep_duty(
        &mut self,
        id: AgentId,
        since: Time,
        duty: Duty,
    ) -> Option<AgentId> {
        self.kept_duties.insert(id, (since, duty));
        if self.kept_duties.len() <= MAX_GONE {
            return None;
        }
        let oldest = self.kept_duties.iter().min_by_key(|(_, (since, _))| *since);
        let oldest = oldest.map(|(id, _)| id.clone())?;
        self.kept_duties.remove(&oldest);
        Some(oldest)
    }

    /// An agent by its id, connected or not.
    fn known_agent(&self, id: &str) -> Result<AgentKey, OperatorError> {
        if id.is_empty() {
            return Err(OperatorError::Invalid("agent_id: must not be empty".to_owned()));
        }
        if let Some(key) = self.agent_ids.get(id) {
            return Ok(*key);
        }
        if self.gone.contains_key(id) {
            return Err(OperatorError::NotAllowed(format!(
                "agent `{id}` was marked gone and cannot come back; `mezz agents` lists others"
            )));
        }
        Err(OperatorError::NotFound(if self.kept_duties.contains_key(id) {
            format!(
                "agent `{id}` was away too long and is forgotten; that it is drained or \
                 deactivated holds if it comes back, and can be changed then"
            )
        } else {
            format!("there is no agent `{id}`; `mezz agents` lists them")
        }))
    }

    fn set_duty(&mut self, now: Time, key: AgentKey, duty: Duty, out: &mut Effects) {
        self.agents[key].duty = duty;
        if self.agents[key].is_allocated() {
            let agent = &self.agents[key];
            let active = agent.connection().is_some() && agent.duty == Duty::Active;
            self.allocator.set_agent_active(key, active);
            self.rescind_agent_offers(now, key, out);
        }
        out.persist.push(RegistryOp::PutAgent(self.agents[key].record()));
        self.publish_agent(key, out);
        self.wake_allocator(now);
    }

    fn order_after_persist(&self, key: AgentKey, order: Message, out: &mut Effects) {
        if let Some(connection) = self.agents[key].connection() {
            out.after_persist_on(connection);
            out.agent(connection, order);
        }
    }
}
