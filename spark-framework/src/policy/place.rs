//! Choosing among offers.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Amount, Resource, Resources, Scalar},
    time::Time,
};

use super::{
    Action, ExecutorNo, LONG_REFUSAL, LaunchSpec, Placement, PolicyOffer, PolicyOptions,
    ProfileTarget, custom, shuffle::Services,
};

/// The cluster's name of a resource that agents are sought out for.
const GPUS: &str = "gpus";

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
    /// Its attributes are not those that are asked for.
    unsuited: bool,
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
                        unsuited: false,
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
                c.unsuited = true;
            } else if c.shunned && proven {
                c.open = false;
                c.refuse = avoided.since(now).min(LONG_REFUSAL);
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

    /// What keeps an executor of this profile from every one of them, for people;
    /// `None` if it would fit, or if nothing but its failures there does.
    pub(super) fn obstacle(
        &self,
        options: &PolicyOptions,
        target: &ProfileTarget,
    ) -> Option<String> {
        let reason = |c: &Candidate| {
            if c.unsuited {
                return Some("does not meet spark.mezz.constraints".to_owned());
            }
            let Some(left) = self.services.leaves(&c.agent, &c.free) else {
                return Some("has no cores, memory or port for a shuffle service".to_owned());
            };
            let lacking = lacking(&left, target);
            if !lacking.is_empty() {
                return Some(format!("has only {}", lacking.join(", ")));
            }
            let full = options.max_per_agent.is_some_and(|max| self.on(&c.agent) >= max);
            full.then(|| "has as many as spark.mezz.executor.maxPerAgent allows".to_owned())
        };
        let all = self.all.iter().map(|c| Some((c, reason(c)?))).collect::<Option<Vec<_>>>()?;
        let shown: Vec<String> =
            all.iter().take(3).map(|(c, why)| format!("{} {why}", c.hostname)).collect();
        let more = all.len().saturating_sub(shown.len());
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        (!all.is_empty()).then(|| format!("{}{rest}", shown.join("; ")))
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

/// What there is of each thing that is too little for an executor of this profile.
fn lacking(free: &Resources, target: &ProfileTarget) -> Vec<String> {
    let (cpus, mem) = size(target);
    let scalars = [("cpus", cpus), ("mem", mem)]
        .into_iter()
        .map(|(name, wanted)| (name, free.scalar(name), wanted))
        .filter(|(_, there, wanted)| there < wanted)
        .map(|(name, there, _)| format!("{name}:{there}"));
    let custom = target
        .custom
        .iter()
        .map(|(name, wanted)| (name, custom::units(free, name), *wanted))
        .filter(|(_, there, wanted)| there < wanted)
        .map(|(name, there, _)| format!("{name}:{there}"));
    scalars.chain(custom).collect()
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
