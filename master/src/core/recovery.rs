//! The core's beginning: from what the registry holds.

use std::time::Duration;

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1 as mezz,
    resources::Resources,
    time::Time,
};

use super::{
    Change, Core,
    offers::AllocationClock,
    state::{
        Agent, AgentLink, CompletedFramework, Counters, Duty, FrameworkLink, Interner, Records,
        Removals, Slab, Timers,
    },
    validate::framework::Subscription,
};
use crate::{allocator::Allocator, options::CoreOptions, registry::RegistrySnapshot};

/// A framework that had left before has at least so long to return, or its failover
/// timeout if that is shorter.
const MIN_RETURN: Duration = Duration::from_secs(30);

impl Core {
    /// A core that knows what the registry holds: agents that have until
    /// `agent_reregister_timeout` to come back, frameworks that have until their
    /// failover deadline, and the weights.
    ///
    /// `allocator` must be new.
    pub fn new(
        options: CoreOptions,
        allocator: Box<dyn Allocator>,
        recovered: RegistrySnapshot,
        now: Time,
    ) -> Core {
        let removals = Removals::new(options.agent_removal_rate_limit);
        let mut core = Core {
            options,
            allocator,
            agents: Slab::default(),
            agent_ids: Default::default(),
            agent_links: Default::default(),
            agent_places: Default::default(),
            unreachable_since: Default::default(),
            removals,
            gone: Default::default(),
            kept_duties: Default::default(),
            perhaps_drained: Vec::new(),
            frameworks: Slab::default(),
            framework_ids: Default::default(),
            framework_links: Default::default(),
            completed: Default::default(),
            completed_order: Default::default(),
            tasks: Slab::default(),
            offers: Default::default(),
            timers: Timers::default(),
            allocation: AllocationClock::default(),
            interner: Interner::default(),
            records: Records::default(),
            counters: Counters::default(),
            weights: Default::default(),
            next_agent: 0,
            next_framework: 0,
            next_offer: 0,
            next_completed: 0,
        };
        // Rule 76: the registry's weights beat the configured ones.
        for (role, weight) in core.options.weights.iter().chain(&recovered.weights) {
            core.allocator.set_weight(&role.as_str().into(), *weight);
            core.weights.insert(role.clone(), *weight);
        }
        for record in recovered.agents {
            core.recover_agent(record, now);
        }
        let (ended, live): (Vec<_>, Vec<_>) =
            recovered.frameworks.into_iter().partition(|f| f.completed_time.is_some());
        core.recover_completed(ended);
        for record in live {
            core.recover_framework_record(record, now);
        }
        core
    }

    /// Every record that the registry brought, for the read model; made one by one, for all
    /// together would take more memory than the core.
    pub fn initial_changes(&self) -> impl Iterator<Item = Change> {
        let agents = self.agents.iter().map(|(_, a)| Change::Agent(Box::new(a.shown())));
        let framework = |state| Change::Framework(Box::new(state));
        let frameworks = self.frameworks.iter().map(move |(_, f)| framework(f.state()));
        let completed = self.completed.values().map(move |f| framework(f.state()));
        let weights = self.weights.iter().map(|(role, w)| Change::Weight(role.clone(), *w));
        agents.chain(frameworks).chain(completed).chain(weights)
    }

    fn recover_agent(&mut self, record: mezz::AgentRecord, now: Time) {
        let Some(id) = record.agent.id.as_ref().map(AgentId::from) else { return };
        if self.agent_ids.contains_key(&id) {
            return;
        }
        if let Some(at) = &record.gone_time {
            self.remember_gone(id, Time::from_proto(at));
            return;
        }
        let duty = Duty::from_record(&record);
        if let Some(at) = &record.given_up_time {
            self.keep_duty(id, Time::from_proto(at), duty);
            return;
        }
        let mut info = record.agent;
        // The agent tells its resources anew when it comes back.
        let total = Resources::from_proto(&info.resources).unwrap_or_default();
        // Not `clear`: the room for them would be kept for the agent's life.
        info.resources = Vec::new();
        let link = match &record.unreachable_time {
            Some(since) => AgentLink::Unreachable { since: Time::from_proto(since) },
            None => AgentLink::Recovering { until: now + self.options.agent_reregister_timeout },
        };
        self.insert_agent(Agent {
            id,
            info,
            total,
            version: String::new(),
            api_address: String::new(),
            registered: None,
            reregistered: None,
            link,
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
        });
    }

    fn recover_completed(&mut self, mut records: Vec<mezz::FrameworkRecord>) {
        records.sort_by_key(|r| r.completed_time.as_ref().map(|t| t.nanoseconds));
        for record in records {
            let Some(id) = record.framework.id.as_ref().map(FrameworkId::from) else { continue };
            let at = record.completed_time.as_ref().map_or(Time::ZERO, Time::from_proto);
            let ended = CompletedFramework {
                info: record.framework,
                at,
                recovered: true,
                tasks: Default::default(),
            };
            if self.completed.insert(id.clone(), ended).is_none() {
                self.completed_order.push_back(id);
            }
        }
    }

    fn recover_framework_record(&mut self, record: mezz::FrameworkRecord, now: Time) {
        let Some(id) = record.framework.id.as_ref().map(FrameworkId::from) else { return };
        if self.framework_ids.contains_key(&id) || self.completed.contains_key(&id) {
            return;
        }
        let subscription = Subscription::recovered(record.framework);
        let link = match &record.failover_deadline {
            Some(at) => {
                // It could not come while no master led; and the deadline is by the clock of
                // another machine, which may be wrong.
                let longest = now + subscription.failover_timeout;
                let soonest = longest.min(now + MIN_RETURN);
                let until = Time::from_proto(at).clamp(soonest, longest);
                FrameworkLink::Recovered { until, was_away: true }
            }
            None => self.recovered_link(&subscription, now),
        };
        self.insert_framework(id, subscription, link, None);
    }

    /// A framework that did not leave by itself gets as long as an agent does,
    /// for it lost its connection only because the master ended.
    pub(in crate::core) fn recovered_link(
        &self,
        subscription: &Subscription,
        now: Time,
    ) -> FrameworkLink {
        let grace = subscription.failover_timeout.max(self.options.agent_reregister_timeout);
        FrameworkLink::Recovered { until: now + grace, was_away: false }
    }
}
