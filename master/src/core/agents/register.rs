//! A new agent.

use mezz_proto::{
    ids::AgentId,
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
};

use crate::{
    allocator::AgentKey,
    core::{
        ConnectionId, Core, Effect, Effects,
        effect::master,
        state::{Agent, AgentLink, Duty},
        validate::agent::{Described, Refusal, described},
    },
    registry::RegistryOp,
};

/// Agents that lose their links together come back at this rate, or all within …
const RETURNS_PER_MS: u32 = 40;

/// … so many milliseconds, whichever is sooner.
const LONGEST_SPREAD_MS: u32 = 5_000;

impl Core {
    pub(super) fn register(
        &mut self,
        now: Time,
        connection: ConnectionId,
        message: mezz::Register,
        out: &mut Effects,
    ) {
        let admitted = described(message.description).and_then(|description| {
            self.room_for_agent(now, out)?;
            Ok(description)
        });
        let described = match admitted {
            Ok(described) => described,
            Err(refusal) => return self.refuse_agent(connection, refusal, out),
        };
        self.remove_former(now, &described, out);
        let id = self.new_agent_id();
        let key = self.insert_described(id, described);
        let link = self.new_agent_link(now, key, connection);
        self.set_agent_link(key, link);
        let agent = &mut self.agents[key];
        agent.registered = Some(now);
        self.allocator.add_agent(key, agent.spec());
        self.wake_allocator(now);
        self.counters.agent_registrations += 1;

        let put = RegistryOp::PutAgent(self.agents[key].record());
        let registered = self.registered(now, key, Vec::new());
        let message = Box::new(master(Message::Registered(registered)));
        out.admit(connection, Some(put), vec![Effect::SendAgent { connection, message }]);
        self.publish_agent(key, out);
    }

    /// Rule 47: an agent that is away and whose address a new one has will not
    /// come back; its state was wiped. Its tasks are lost.
    ///
    /// Or it never had a state: it was admitted, and the answer was lost with its link or
    /// with its master. Its link may still look whole, but nothing was said on it.
    fn remove_former(&mut self, now: Time, described: &Described, out: &mut Effects) {
        let Described { info, api_address, .. } = described;
        let Some(port) = info.port else { return };
        let place = |key| (info.hostname.clone(), port, AgentKey(key));
        let there = self.agent_places.range(place(0)..=place(u32::MAX));
        let former = there.map(|(_, _, key)| *key).filter(|key| {
            let agent = &self.agents[*key];
            // The registry does not know it.
            let there = agent.api_address.is_empty() || agent.api_address == *api_address;
            there && (agent.connection().is_none() || !agent.heard)
        });
        for key in former.collect::<Vec<_>>() {
            if let Some(connection) = self.agents[key].connection() {
                out.close_agent(connection);
            }
            self.remove_agent(now, key, out);
        }
    }

    pub(super) fn registered(
        &mut self,
        now: Time,
        key: AgentKey,
        completed_frameworks: Vec<mezz_proto::v1::FrameworkId>,
    ) -> mezz::Registered {
        let drain = self.agents[key].order_drain();
        if drain.is_some() {
            // One that is back goes on with what it began.
            self.agents[key].drain_started.get_or_insert(now);
        }
        let interval = self.options.ping_interval.as_millis();
        mezz::Registered {
            agent_id: (&self.agents[key].id).into(),
            master_id: self.options.master_id.clone(),
            ping_interval_ms: u64::try_from(interval).unwrap_or(u64::MAX),
            completed_frameworks,
            drain,
            return_spread_ms: Some(self.return_spread()),
        }
    }

    /// Milliseconds over which the agents of a cluster of this size are to return.
    fn return_spread(&self) -> u32 {
        let agents = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        (agents / RETURNS_PER_MS).min(LONGEST_SPREAD_MS)
    }

    pub(super) fn refuse_agent(
        &mut self,
        connection: ConnectionId,
        refusal: Refusal,
        out: &mut Effects,
    ) {
        self.counters.agent_refusals += 1;
        let Refusal { reason, permanent, gone, newer_start } = refusal;
        let gone = gone.then_some(true);
        let refused = mezz::Refused { reason, permanent, gone, newer_start };
        out.agent(connection, Message::Refused(refused));
        out.close_agent(connection);
    }

    /// An agent that is in no list yet; its link is a placeholder that the caller
    /// replaces at once.
    pub(super) fn insert_described(&mut self, id: AgentId, described: Described) -> AgentKey {
        let mut info = described.info;
        info.id = Some((&id).into());
        let duty = self.kept_duties.remove(&id).map_or(Duty::Active, |(_, duty)| duty);
        self.insert_agent(Agent {
            id,
            info,
            total: described.total,
            version: described.version,
            api_address: described.api_address,
            registered: None,
            reregistered: None,
            link: AgentLink::Unreachable { since: Time::ZERO },
            duty,
            drain_order: 0,
            drain_started: None,
            emptied: false,
            heard: false,
            attempt: None,
            overcommitted: false,
            tasks: Default::default(),
            executors: Default::default(),
            offers: Default::default(),
        })
    }

    /// When all places are taken, the agent that has been unreachable longest is
    /// given up.
    pub(super) fn room_for_agent(&mut self, now: Time, out: &mut Effects) -> Result<(), Refusal> {
        if self.agents.len() < self.options.max_agents {
            return Ok(());
        }
        match self.unreachable_since.first() {
            Some(&(_, key)) => {
                self.give_up_agent(now, key, out);
                Ok(())
            }
            None => Err(Refusal {
                reason: format!(
                    "this master has {} agents and takes no more (option max_agents)",
                    self.agents.len()
                ),
                ..Refusal::default()
            }),
        }
    }

    fn new_agent_id(&mut self) -> AgentId {
        loop {
            // Rule 12.
            let id = AgentId::from(format!("{}-S{}", self.options.master_id, self.next_agent));
            self.next_agent += 1;
            if !self.agent_ids.contains_key(&id) && !self.is_gone(&id) {
                return id;
            }
        }
    }
}
