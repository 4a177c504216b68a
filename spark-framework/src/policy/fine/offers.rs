//! What the driver is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Resources, Scalar},
    time::Time,
};

use super::{
    ANSWER_TIMEOUT, Batch, Executor, FULL_REFUSAL, FineAction, FinePolicy, Group, Progress,
    SHORT_REFUSAL, Shown,
};
use crate::policy::{
    ExecutorNo, LONG_REFUSAL, PolicyOffer, custom,
    place::{GPUS, NO_SERVICE, UNMET, has_only, too_little, usable},
};

/// Why an offer is not shown.
struct Refusal {
    /// For how long it is refused.
    refuse: Duration,
    /// What its agent lacks, for people; absent where it would do at another time.
    lacks: Option<String>,
}

impl From<Duration> for Refusal {
    fn from(refuse: Duration) -> Self {
        Self { refuse, lacks: None }
    }
}

/// What the driver is to look at together.
#[derive(Default)]
struct Look {
    groups: Vec<Group>,
    shown: Vec<Shown>,
}

/// Of the offers of one agent and role: whether an executor would have to be started, and
/// GPUs would be wasted on it.
type Order = ((bool, bool), AgentId, Option<String>);

impl FinePolicy {
    pub(super) fn offered(
        &mut self,
        now: Time,
        offers: Vec<PolicyOffer>,
        out: &mut Vec<FineAction>,
    ) {
        // Agents that have an executor come first, those with GPUs last.
        let mut grouped: BTreeMap<Order, Vec<PolicyOffer>> = BTreeMap::new();
        for offer in offers {
            let none_there = self.has_none(&offer.agent);
            let wasted = none_there && custom::has_any(&offer.resources, GPUS);
            let key = ((none_there, wasted), offer.agent.clone(), offer.role.clone());
            grouped.entry(key).or_default().push(offer);
        }
        let any = !grouped.is_empty();
        let (mut first, mut later, mut last) = (Look::default(), Look::default(), Look::default());
        let mut agents = Vec::new();
        let mut room = self.room();
        let mut useless = true;
        for (((none_there, wasted), agent, role), offers) in grouped {
            self.turn_out_returned(&agent, out);
            let ids = offers.iter().map(|o| o.id.clone()).collect();
            let mut free = Resources::new();
            for offer in &offers {
                free += &offer.resources.filter(usable);
            }
            let Some(offer) = offers.first() else { continue };
            match self.judge(now, &agent, offer, &free, room, &agents) {
                Err(refusal) => {
                    match refusal.lacks {
                        Some(why) => self.notice.lacks(now, &agent, &offer.hostname, why),
                        None => useless = false,
                    }
                    self.decline(ids, refusal.refuse, out);
                }
                Ok(cpus) if self.suppressed => {
                    let executor = self.executor_for(&agent, &offer.hostname);
                    let group = Group { offers: ids, agent, role, executor, free, cpus };
                    self.start_ahead(group, out);
                    room = self.room();
                }
                Ok(cpus) => {
                    room = room.map(|r| r.saturating_sub(cpus));
                    let executor = self.executor_for(&agent, &offer.hostname);
                    let hostname = offer.hostname.clone();
                    agents.push(agent.clone());
                    let wait = none_there && !self.preferred.contains(&hostname);
                    let look = match (wait, wasted) {
                        (false, _) => &mut first,
                        (true, false) => &mut later,
                        (true, true) => &mut last,
                    };
                    look.shown.push(Shown { executor, agent: agent.clone(), hostname, cpus });
                    look.groups.push(Group { offers: ids, agent, role, executor, free, cpus });
                }
            }
        }
        if any {
            self.end_ahead(out);
        }
        if !useless {
            self.notice.clear();
        }
        self.show(now, first, out);
        self.show(now, later, out);
        self.show(now, last, out);
    }

    /// Spark takes offers that it sees together in any order: those on which tasks start at
    /// once, or where their data is, are shown before those that need a new executor, which
    /// are of use then for the tasks that are left.
    fn show(&mut self, now: Time, look: Look, out: &mut Vec<FineAction>) {
        if look.groups.is_empty() {
            return;
        }
        self.last_batch += 1;
        let batch = Batch { groups: look.groups, until: now + ANSWER_TIMEOUT };
        self.batches.insert(self.last_batch, batch);
        out.push(FineAction::Show { batch: self.last_batch, offers: look.shown });
    }

    /// Says why tasks wait, as long as none runs and no offer is looked at.
    pub(super) fn say_waiting(&mut self, now: Time, out: &mut Vec<FineAction>) {
        let waits = !self.suppressed && !self.given_up;
        if !waits || !self.tasks.is_empty() || !self.batches.is_empty() {
            return self.notice.clear();
        }
        if let Some(lacking) = self.notice.due(now) {
            let (own, task) = (self.options.executor_cpus, self.options.task_cpus);
            let message = format!(
                "no agent that is offered has room for an executor (cpus:{own}; mem:{}) and a \
                 task (cpus:{task}): {lacking}",
                self.options.executor_mem_mib
            );
            out.push(FineAction::Waiting { message });
        }
    }

    /// Whether an executor would have to be started there.
    fn has_none(&self, agent: &AgentId) -> bool {
        self.executors.get(agent).is_none_or(|e| e.progress == Progress::Proposed)
    }

    /// What tasks may hold of an offer, or for how long to refuse it. `before` are the
    /// agents of those that are to be shown with it.
    fn judge(
        &mut self,
        now: Time,
        agent: &AgentId,
        offer: &PolicyOffer,
        free: &Resources,
        room: Option<Scalar>,
        before: &[AgentId],
    ) -> Result<Scalar, Refusal> {
        let idle = self.suppressed && self.ahead.is_none_or(|left| left == 0);
        if idle || self.given_up {
            return Err(LONG_REFUSAL.into());
        }
        if !self.options.constraints.met_by(&offer.attributes) {
            return Err(Refusal { refuse: LONG_REFUSAL, lacks: Some(UNMET.to_owned()) });
        }
        if let Some((why, refuse)) = self.unable.why(now, agent) {
            return Err(Refusal { refuse, lacks: Some(why.to_owned()) });
        }
        let mut cpus = free.scalar("cpus");
        if self.has_none(agent) {
            let avoided = self.failures.avoided_until(agent);
            if avoided > now && self.any_up() {
                return Err(avoided.since(now).min(LONG_REFUSAL).into());
            }
            // Its shuffle service needs a place beside it.
            let left = self.services.leaves(agent, free);
            if let Some(lacks) = self.lacks(left.as_deref()) {
                self.unfit.insert(agent.clone());
                return Err(Refusal { refuse: LONG_REFUSAL, lacks: Some(lacks) });
            }
            let left = left.map(|left| left.scalar("cpus")).unwrap_or_default();
            cpus = left.saturating_sub(self.options.executor_cpus);
            if !self.may_start(now, agent, before) {
                let held = self.failures.held_until().map_or(Duration::ZERO, |t| t.since(now));
                return Err(held.max(SHORT_REFUSAL).into());
            }
        }
        match room {
            _ if cpus < self.options.task_cpus => {
                let lacking: Vec<_> =
                    too_little(free, [("cpus", self.options.task_cpus)]).collect();
                Err(Refusal { refuse: LONG_REFUSAL, lacks: Some(has_only(&lacking)) })
            }
            Some(room) if room < self.options.task_cpus => Err(FULL_REFUSAL.into()),
            Some(room) => Ok(cpus.min(room)),
            None => Ok(cpus),
        }
    }

    /// What an agent lacks for an executor and a task; `left` is what it has beside a
    /// shuffle service, if it has room for one.
    fn lacks(&self, left: Option<&Resources>) -> Option<String> {
        let Some(left) = left else { return Some(NO_SERVICE.to_owned()) };
        let cpus = self.options.executor_cpus.saturating_add(self.options.task_cpus);
        let mem = Scalar::from_units(self.options.executor_mem_mib);
        let lacking: Vec<String> = too_little(left, [("cpus", cpus), ("mem", mem)]).collect();
        (!lacking.is_empty()).then(|| has_only(&lacking))
    }

    /// Whether an executor may be started on this agent: after failures, one at a time
    /// and not at once. What is shown may be used.
    fn may_start(&self, now: Time, agent: &AgentId, before: &[AgentId]) -> bool {
        let unproven = |after: ExecutorNo| {
            self.executors.values().any(|e| e.launch > after && e.progress == Progress::Launched)
        };
        let proposed = |agent: &AgentId| {
            self.executors.get(agent).is_some_and(|e| e.progress == Progress::Proposed)
        };
        let shown = self.batches.values().flat_map(|b| &b.groups).map(|g| &g.agent);
        // One agent may be shown for several roles.
        let others: BTreeSet<&AgentId> =
            shown.chain(before).filter(|a| *a != agent && proposed(a)).collect();
        u64::from(self.failures.allowance(now, unproven)) > others.len() as u64
    }

    /// The cores that tasks may still take under `spark.cores.max`.
    fn room(&self) -> Option<Scalar> {
        let max = Scalar::from_units(u64::from(self.options.cores_max?));
        // What is shown may be taken, all of it.
        let shown = self.batches.values().flat_map(|b| &b.groups);
        let shown = shown.fold(Scalar::default(), |sum, g| sum.saturating_add(g.cpus));
        Some(max.saturating_sub(self.held).saturating_sub(shown))
    }

    fn executor_for(&mut self, agent: &AgentId, hostname: &str) -> ExecutorNo {
        if let Some(there) = self.executors.get(agent) {
            return there.no;
        }
        self.last = ExecutorNo(self.last.0 + 1);
        let executor = Executor {
            no: self.last,
            launch: ExecutorNo(0),
            hostname: hostname.to_owned(),
            progress: Progress::Proposed,
            done: false,
            resources: Resources::new(),
        };
        self.executors.insert(agent.clone(), executor);
        self.last
    }

    /// An agent that offers is back: what we gave up for lost there must go.
    fn turn_out_returned(&mut self, agent: &AgentId, out: &mut Vec<FineAction>) {
        self.abandoned.retain(|(there, executor), _| {
            let back = there == agent;
            if back {
                out.push(FineAction::ShutDown { executor: *executor, agent: agent.clone() });
            }
            !back
        });
    }

    pub(super) fn decline(
        &mut self,
        offers: Vec<OfferId>,
        refuse: Duration,
        out: &mut Vec<FineAction>,
    ) {
        self.refused = true;
        out.push(FineAction::Decline { offers, refuse });
    }
}
