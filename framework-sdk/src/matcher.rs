//! Which tasks fit on which offers.
//!
//! [`place`] is a tool, not a policy: a framework may use it, or its own.

mod constraint;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mezz_proto::{
    ids::AgentId,
    resources::{ResourceError, Resources},
    v1,
};

pub use constraint::Constraint;
use pool::Pool;

/// How the tasks of one [`Want`] are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// As many on one agent as fit before the next is used.
    #[default]
    Pack,
    /// Evenly over the agents.
    Spread,
}

/// A number of equal tasks that want to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Want {
    /// What each needs. Scalars are taken by name, reserved ones first; ranges
    /// and sets are wanted exactly as written.
    pub resources: Resources,
    /// So many ports for each, whichever are free, besides those in `resources`.
    pub ports: usize,
    /// Where they may run: on agents that meet all of these.
    pub constraints: Vec<Constraint>,
    /// How many tasks.
    pub count: usize,
    /// How they are laid out.
    pub layout: Layout,
    /// At most so many on one agent; no limit when absent.
    pub max_per_agent: Option<usize>,
    /// Tasks of this kind that run already. They count for `Spread` and for
    /// `max_per_agent`.
    pub running: BTreeMap<AgentId, usize>,
}

/// One task's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Index of its [`Want`].
    pub want: usize,
    /// The agent.
    pub agent_id: v1::AgentId,
    /// What it gets of the offers; ready for `TaskInfo.resources`.
    pub resources: Vec<v1::Resource>,
    /// The ports among them that [`Want::ports`] asked for, ascending.
    pub ports: Vec<u64>,
}

/// Tasks for one agent, to be launched with one accept.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The agent.
    pub agent_id: v1::AgentId,
    /// Its host.
    pub hostname: String,
    /// All offers of the agent for the role; what is left of them goes back.
    pub offers: Vec<v1::OfferId>,
    /// The tasks.
    pub tasks: Vec<Placed>,
}

/// The result of [`place`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matched {
    /// At most one for each agent and role.
    pub launches: Vec<Launch>,
    /// Offers that nothing was placed on.
    pub unused: Vec<v1::OfferId>,
    /// For each want, how many of its tasks found no place.
    pub missing: Vec<usize>,
}

/// Places tasks on offers, wants in their order. Offers of one agent and role are
/// used together. Never uses more than is offered, and no port twice. Revocable,
/// shared and special disk resources are left alone.
///
/// # Errors
/// [`ResourceError`] when an offer's resources make no sense.
pub fn place(offers: &[v1::Offer], wants: &[Want]) -> Result<Matched, ResourceError> {
    let mut pools = Pool::of(offers)?;
    let mut missing = Vec::with_capacity(wants.len());
    for (index, want) in wants.iter().enumerate() {
        missing.push(place_one(&mut pools, index, want));
    }
    let mut matched = Matched { missing, ..Default::default() };
    for pool in pools {
        match pool.into_launch() {
            Ok(launch) => matched.launches.push(launch),
            Err(unused) => matched.unused.extend(unused),
        }
    }
    Ok(matched)
}

/// Returns how many found no place.
fn place_one(pools: &mut [Pool<'_>], index: usize, want: &Want) -> usize {
    let mut here: BTreeMap<AgentId, usize> = want.running.clone();
    // A pool that lacks room for one task lacks it for all the others of the want.
    let mut open: Vec<usize> =
        (0..pools.len()).filter(|&i| pools[i].meets(&want.constraints)).collect();
    for placed in 0..want.count {
        loop {
            let count = |i: usize| here.get(&pools[i].agent).copied().unwrap_or(0);
            open.retain(|&i| want.max_per_agent.is_none_or(|max| count(i) < max));
            let best = match want.layout {
                // The first stays first as long as it has room.
                Layout::Pack => open.iter().copied().max_by_key(|&i| (count(i), usize::MAX - i)),
                Layout::Spread => open.iter().copied().min_by_key(|&i| (count(i), i)),
            };
            let Some(best) = best else { return want.count - placed };
            if pools[best].place(index, want) {
                *here.entry(pools[best].agent.clone()).or_default() += 1;
                break;
            }
            open.retain(|&i| i != best);
        }
    }
    0
}
