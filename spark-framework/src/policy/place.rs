//! Choosing among offers.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Amount, Resource, Resources, Scalar},
    time::Time,
};

use super::{
    Action, ExecutorNo, LONG_REFUSAL, LaunchSpec, Placement, PolicyOffer, PolicyOptions,
    ProfileTarget, custom, custom::CustomNeeds, shuffle::Services,
};

/// The cluster's name of a resource that agents are sought out for.
pub(super) const GPUS: &str = "gpus";

/// Said of an agent with other attributes than those that are asked for.
pub(super) const UNMET: &str = "does not meet spark.mezz.constraints";

/// Said of an agent without a place for a shuffle service beside an executor.
pub(super) const NO_SERVICE: &str = "has no cores, memory or port for a shuffle service";

/// Said of an agent with too little of these.
pub(crate) fn has_only(lacking: &[String]) -> String {
    format!("has only {}", lacking.join(", "))
}

/// The offers of one agent and role, which may be used together (rule 23).
struct Candidate {
    agent: AgentId,
    hostname: String,
    role: Option<String>,
    offers: Vec<OfferId>,
    attributes: Vec<(String, super::AttributeValue)>,
    /// What is left of them.
    free: Resources,
    executors: Vec<LaunchSpec>,
    refuse: Duration,
    open: bool,
    /// To be used only where no other will do.
    shunned: bool,
    /// Why it will not do, whatever it offers.
    unsuited: Option<String>,
}

/// Where an executor went.
pub(super) struct Place {
    pub(super) agent: AgentId,
    pub(super) hostname: String,
}

/// All offers of one event, and what has been taken of them.
pub(super) struct Candidates {
    all: Vec<Candidate>,
    /// Executors on each agent, those just placed included.
    ours: BTreeMap<AgentId, u32>,
    /// Executors' shuffle services, those just placed included.
    pub(super) services: Services,
}

impl Candidates {
    /// `ours` tells how many executors an agent has.
    pub(super) fn new(offers: Vec<PolicyOffer>, ours: impl Fn(&AgentId) -> u32) -> Self {
        let mut grouped: BTreeMap<(AgentId, Option<String>), Candidate> = BTreeMap::new();
        for offer in offers {
            let key = (offer.agent.clone(), offer.role.clone());
            let usable = offer.resources.filter(usable);
            match grouped.entry(key) {
                std::collections::btree_map::Entry::Occupied(mut same) => {
                    let same = same.get_mut();
                    // The same offer twice must not count twice.
                    if !same.offers.contains(&offer.id) {
                        same.offers.push(offer.id);
                        same.free += &usable;
                    }
                }
                std::collections::btree_map::Entry::Vacant(v) => {
                    v.insert(Candidate {
                        agent: offer.agent,
                        hostname: offer.hostname,
                        role: offer.role,
                        offers: vec![offer.id],
                        attributes: offer.attributes,
                        free: usable,
                        executors: Vec::new(),
                        refuse: LONG_REFUSAL,
                        open: true,
                        shunned: false,
                        unsuited: None,
                    });
                }
            }
        }
        let all: Vec<Candidate> = grouped.into_values().collect();
        let ours = all.iter().map(|c| (c.agent.clone(), ours(&c.agent))).collect();
        Self { all, ours, services: Services::default() }
    }

    /// Closes those that must not be used, whatever is wanted. Agents that fail
    /// executors are closed while others prove that it is not the application's
    /// fault (`proven`), and only shunned otherwise.
    pub(super) fn judge(
        &mut self,
        options: &PolicyOptions,
        avoided_until: impl Fn(&AgentId) -> Time,
        proven: bool,
        now: Time,
    ) {
        for c in &mut self.all {
            let avoided = avoided_until(&c.agent);
            c.shunned = avoided > now;
            if !options.constraints.met_by(&c.attributes) {
                c.open = false;
                c.unsuited = Some(UNMET.to_owned());
            } else if c.shunned && proven {
                c.open = false;
                c.refuse = avoided.since(now).min(LONG_REFUSAL);
            }
        }
    }

    /// Closes agents that cannot run such executors: why, and for how long to refuse them.
    pub(super) fn rule_out<'a>(
        &mut self,
        unable: impl Fn(&AgentId) -> Option<(&'a str, Duration)>,
    ) {
        for c in &mut self.all {
            if let Some((why, refuse)) = unable(&c.agent) {
                (c.open, c.refuse, c.unsuited) = (false, refuse, Some(why.to_owned()));
            }
        }
    }

    /// The best place for an executor of this profile: what is reserved to the role
    /// first, for nobody else can use it; agents with GPUs last, if it needs none;
    /// then where its data is, then by the placement rule, then by the agent's id.
    pub(super) fn best(
        &self,
        options: &PolicyOptions,
        target: &ProfileTarget,
        uncovered: &BTreeMap<&str, u32>,
    ) -> Option<usize> {
        let fits = |c: &Candidate| {
            let left = self.services.leaves(&c.agent, &c.free);
            c.open
                && left.is_some_and(|left| holds(&left, target))
                && options.max_per_agent.is_none_or(|max| self.on(&c.agent) < max)
        };
        let rank = |c: &Candidate| {
            let local = uncovered.get(c.hostname.as_str()).copied().unwrap_or(0);
            let unreserved = !reserved_holds(&c.free, target);
            let wasted = !c.free.scalar(GPUS).is_zero() && !target.custom.contains_key(GPUS);
            let (ours, free) =
                (i64::from(self.on(&c.agent)), c.free.scalar("cpus").millis() as i64);
            let (ours, free) = match options.placement {
                Placement::Spread => (ours, -free),
                Placement::Consolidate => (-ours, free),
            };
            (c.shunned, unreserved, wasted, Reverse(local), ours, free)
        };
        (0..self.all.len()).filter(|i| fits(&self.all[*i])).min_by_key(|i| rank(&self.all[*i]))
    }

    /// Puts an executor there; `None`, with nothing changed, when it does not fit.
    pub(super) fn take(
        &mut self,
        index: usize,
        executor: ExecutorNo,
        target: &ProfileTarget,
    ) -> Option<Place> {
        let c = self.all.get_mut(index)?;
        let (cpus, mem) = size(target);
        let mut free = c.free.clone();
        let mut resources = carve(&mut free, "cpus", cpus)?;
        resources += &carve(&mut free, "mem", mem)?;
        let (more, addresses) = custom::carve(&mut free, &target.custom)?;
        resources += &more;
        let served = self.services.serve(&c.agent, &c.hostname, &mut free)?;
        c.free = free;
        c.executors.push(LaunchSpec {
            executor,
            served,
            profile: target.id,
            hostname: c.hostname.clone(),
            cores: target.cores,
            resources,
            addresses,
        });
        *self.ours.entry(c.agent.clone()).or_default() += 1;
        Some(Place { agent: c.agent.clone(), hostname: c.hostname.clone() })
    }

    /// Whether some executor was put somewhere.
    pub(super) fn any_taken(&self) -> bool {
        self.all.iter().any(|c| !c.executors.is_empty())
    }

    /// What keeps an executor of this profile from every one of them: agent, host and what
    /// it lacks, for people; `None` if it would fit, or if nothing but its failures there
    /// does.
    pub(super) fn obstacles(
        &self,
        options: &PolicyOptions,
        target: &ProfileTarget,
    ) -> Option<Vec<(&AgentId, &str, String)>> {
        let reason = |c: &Candidate| {
            if let Some(why) = &c.unsuited {
                return Some(why.clone());
            }
            let Some(left) = self.services.leaves(&c.agent, &c.free) else {
                return Some(NO_SERVICE.to_owned());
            };
            let lacking = lacking(&left, size(target), &target.custom);
            if !lacking.is_empty() {
                return Some(has_only(&lacking));
            }
            let full = options.max_per_agent.is_some_and(|max| self.on(&c.agent) >= max);
            full.then(|| "has as many as spark.mezz.executor.maxPerAgent allows".to_owned())
        };
        self.all.iter().map(|c| Some((&c.agent, c.hostname.as_str(), reason(c)?))).collect()
    }

    /// One answer to every offer.
    pub(super) fn answer(self, out: &mut Vec<Action>) {
        for c in self.all {
            out.push(if c.executors.is_empty() {
                Action::Decline { offers: c.offers, refuse: c.refuse }
            } else {
                Action::Launch {
                    offers: c.offers,
                    agent: c.agent,
                    role: c.role,
                    executors: c.executors,
                    refuse: c.refuse,
                }
            });
        }
    }

    fn on(&self, agent: &AgentId) -> u32 {
        self.ours.get(agent).copied().unwrap_or(0)
    }
}

fn size(target: &ProfileTarget) -> (Scalar, Scalar) {
    (Scalar::from_units(u64::from(target.cores)), Scalar::from_units(target.mem_mib))
}

/// Whether an executor of this profile fits into it.
fn holds(free: &Resources, target: &ProfileTarget) -> bool {
    let (cpus, mem) = size(target);
    free.scalar("cpus") >= cpus && free.scalar("mem") >= mem && custom::has(free, &target.custom)
}

/// Whether one fits into what is reserved alone.
fn reserved_holds(free: &Resources, target: &ProfileTarget) -> bool {
    let reserved = |r: &Resource| !r.identity.reservations().is_empty();
    free.iter().any(reserved) && holds(&free.filter(reserved), target)
}

/// What there is of each thing that is too little for cores and memory of this size and
/// these other resources.
pub(crate) fn lacking(
    free: &Resources,
    (cpus, mem): (Scalar, Scalar),
    needs: &CustomNeeds,
) -> Vec<String> {
    let scalars = too_little(free, [("cpus", cpus), ("mem", mem)]);
    let custom = needs
        .iter()
        .map(|(name, wanted)| (name, custom::units(free, name), *wanted))
        .filter(|(_, there, wanted)| there < wanted)
        .map(|(name, there, _)| format!("{name}:{there}"));
    scalars.chain(custom).collect()
}

/// What there is of each of these scalars that is less than wanted.
pub(super) fn too_little<'a>(
    free: &'a Resources,
    wanted: impl IntoIterator<Item = (&'a str, Scalar)> + 'a,
) -> impl Iterator<Item = String> + 'a {
    wanted
        .into_iter()
        .map(move |(name, wanted)| (name, free.scalar(name), wanted))
        .filter(|(_, there, wanted)| there < wanted)
        .map(|(name, there, _)| format!("{name}:{there}"))
}

/// Nothing that may be taken back, shared, or is more than plain cpus and memory
/// of the agent itself.
pub(super) fn usable(r: &Resource) -> bool {
    let id = &r.identity;
    !id.is_revocable() && !id.is_shared() && id.disk().is_none() && id.provider().is_none()
}

/// Those of this name, reserved ones first: nobody else can use those.
pub(super) fn reserved_first(free: &Resources, name: &str) -> Vec<Resource> {
    let mut sources: Vec<Resource> = free.named(name).cloned().collect();
    sources.sort_by_key(|r| r.identity.reservations().is_empty());
    sources
}

/// Takes `amount` of a scalar out of `free`, reserved ones first.
pub(super) fn carve(free: &mut Resources, name: &str, amount: Scalar) -> Option<Resources> {
    let mut left = amount;
    let mut taken = Resources::new();
    for source in reserved_first(free, name) {
        let Amount::Scalar(there) = source.amount else { continue };
        let part = there.min(left);
        left = left.saturating_sub(part);
        taken.insert(Resource { identity: source.identity, amount: Amount::Scalar(part) });
    }
    if !left.is_zero() {
        return None;
    }
    free.saturating_sub(&taken);
    Some(taken)
}
