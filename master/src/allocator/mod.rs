//! Who is offered what next. Pure: no clock, no randomness, no I/O.
//!
//! The allocator owns three facts: what each agent has left, what each
//! framework holds (offered or allocated) in each role, and who refused what
//! until when. The core tells it of every change and asks it to
//! [`allocate`](Allocator::allocate); it never calls back.
//!
//! Every policy (DRF here; FIFO, capacity) is an implementation of
//! [`Allocator`].

pub mod constraints;
mod drf;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    resources::{Resources, Scalar},
    time::Time,
    v1,
};

pub use self::{
    constraints::{ConstraintError, validate_constraints},
    drf::DrfAllocator,
};

/// An agent's slot: small, dense, given by the core, reused after removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AgentKey(pub u32);

/// A framework's slot: small, dense, given by the core, reused after removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameworkKey(pub u32);

/// What the allocator needs to know of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSpec {
    /// Names it in explanations.
    pub id: AgentId,
    /// For HOSTNAME constraints.
    pub hostname: String,
    /// For attribute constraints, in the agent's order.
    pub attributes: Vec<v1::Attribute>,
    /// Region and zone, for constraints and REGION_AWARE.
    pub domain: Option<v1::DomainInfo>,
    /// All that it has.
    pub total: Resources,
}

/// What the allocator needs to know of a framework.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameworkSpec {
    /// Names it in explanations, and breaks ties.
    pub id: FrameworkId,
    /// The roles that it is subscribed to; sorted, each once.
    pub roles: Vec<Arc<str>>,
    /// Those of them that it wants no offers for.
    pub suppressed: Vec<Arc<str>>,
    /// What it understands; decides which resources it is shown (rule 21).
    pub capabilities: FrameworkCapabilities,
    /// Its own smallest offer for a role, in place of the cluster's (rule 31).
    /// An offer must contain all quantities of at least one of the entries; no
    /// entry means that anything goes.
    pub min_allocatable: BTreeMap<Arc<str>, Vec<MinAllocatable>>,
    /// Per role: which agents may be offered (rule 32).
    pub constraints: BTreeMap<Arc<str>, v1::scheduler::offer_constraints::RoleConstraints>,
}

/// A framework's capabilities that decide what it may be offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameworkCapabilities {
    /// Sees revocable resources.
    pub revocable_resources: bool,
    /// Sees shared resources.
    pub shared_resources: bool,
    /// Sees agents that have GPUs.
    pub gpu_resources: bool,
    /// Sees refined reservations.
    pub reservation_refinement: bool,
    /// Sees agents of other regions than the master's.
    pub region_aware: bool,
}

/// Quantities that an offer must contain: scalar names with their least amount.
pub type MinAllocatable = BTreeMap<Arc<str>, Scalar>;

/// Settings of the whole cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocatorOptions {
    /// Smallest offer, where a framework sets none (rule 31): any entry suffices.
    pub min_allocatable: Vec<MinAllocatable>,
    /// Names that do not count in shares.
    pub fair_sharing_excluded: Vec<String>,
    /// Hide agents with GPUs from frameworks without GPU_RESOURCES (rule 21).
    pub filter_gpu_resources: bool,
    /// The master's own region, for REGION_AWARE.
    pub region: Option<String>,
}

impl Default for AllocatorOptions {
    /// Rule 31: 0.01 cpus or 32 MiB of memory.
    fn default() -> Self {
        let only = |name: &str, amount| MinAllocatable::from([(Arc::from(name), amount)]);
        Self {
            min_allocatable: vec![
                only("cpus", Scalar::from_millis(10)),
                only("mem", Scalar::from_units(32)),
            ],
            fair_sharing_excluded: Vec::new(),
            filter_gpu_resources: true,
            region: None,
        }
    }
}

/// One decision: an offer to be made. The resources count as held by the
/// framework until [`Allocator::recover`] gives them back.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// To whom.
    pub framework: FrameworkKey,
    /// In which role.
    pub role: Arc<str>,
    /// On which agent.
    pub agent: AgentKey,
    /// How much. Shared, for it is often all that the agent has left.
    pub resources: Arc<Resources>,
}

/// A counted reason why something was not offered; see
/// [`Allocator::explain_framework`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable, snake_case.
    pub code: ReasonCode,
    /// How many agents (or frameworks, for a role) it counts.
    pub count: u64,
    /// A sentence.
    pub text: String,
    /// A few ids that it counts.
    pub examples: Vec<String>,
}

/// Why a (framework, role, agent) gets no offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// The framework is disconnected.
    Disconnected,
    /// It suppressed the role.
    Suppressed,
    /// It refused this agent's resources and the filter still holds.
    Filtered,
    /// The agent has less left than the smallest offer.
    BelowMinimum,
    /// What is left is reserved for another role.
    Reserved,
    /// The framework lacks a capability that the agent's resources need.
    Capability,
    /// Its offer constraints exclude the agent.
    Constraint,
    /// Everything is held (offered or allocated) by frameworks.
    Held,
    /// The agent is not active.
    InactiveAgent,
    /// The role is at its limit.
    RoleLimit,
    /// The pair could be offered at once; only just freed, or others are first.
    Eligible,
    /// There is no agent at all.
    NoAgents,
    /// The framework has no role.
    NoRoles,
}

impl ReasonCode {
    /// As programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Suppressed => "suppressed",
            Self::Filtered => "filtered",
            Self::BelowMinimum => "below_minimum",
            Self::Reserved => "reserved",
            Self::Capability => "capability",
            Self::Constraint => "constraint",
            Self::Held => "held",
            Self::InactiveAgent => "inactive_agent",
            Self::RoleLimit => "role_limit",
            Self::Eligible => "eligible",
            Self::NoAgents => "no_agents",
            Self::NoRoles => "no_roles",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of a role listing.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleShare {
    /// The role's path.
    pub role: Arc<str>,
    /// Its weight; 1 unless set.
    pub weight: f64,
    /// Frameworks subscribed to it.
    pub frameworks: Vec<FrameworkKey>,
    /// Held by it: offered and allocated.
    pub held: Resources,
    /// Its largest share of any counted resource, before the weight, 0 to 1.
    pub dominant_share: f64,
}

/// The allocation policy behind the master's core.
///
/// Keys that the allocator does not know are ignored: the core is the one that
/// keeps both in step, and [`check_invariants`](Allocator::check_invariants)
/// finds where it did not.
pub trait Allocator: fmt::Debug + Send {
    /// A new agent, active, of which nothing is held.
    fn add_agent(&mut self, key: AgentKey, spec: AgentSpec);

    /// The agent's description changed. When its attributes changed, the filters
    /// on it are dropped (rule 30).
    fn update_agent(&mut self, key: AgentKey, spec: AgentSpec);

    /// The agent is gone for good, and whatever was held on it with it.
    fn remove_agent(&mut self, key: AgentKey);

    /// Inactive agents get no offers but keep what is held on them charged.
    fn set_agent_active(&mut self, key: AgentKey, active: bool);

    /// A new framework, active, that holds nothing.
    fn add_framework(&mut self, key: FrameworkKey, spec: FrameworkSpec);

    /// Roles, suppression, capabilities, minimum or constraints changed. What it
    /// holds in a role that it left stays charged there (rule 69). Un-suppressing
    /// a role clears its filters (rule 19).
    fn update_framework(&mut self, key: FrameworkKey, spec: FrameworkSpec);

    /// The framework is gone for good; whatever it held is free again.
    fn remove_framework(&mut self, key: FrameworkKey);

    /// Inactive frameworks get no offers but stay charged. Deactivation drops
    /// the framework's filters (rule 15).
    fn set_framework_active(&mut self, key: FrameworkKey, active: bool);

    /// No more offers for these roles (all of its roles when empty).
    fn suppress(&mut self, key: FrameworkKey, roles: &[Arc<str>]);

    /// Drops the filters of these roles (all when empty) and un-suppresses them.
    fn revive(&mut self, key: FrameworkKey, roles: &[Arc<str>]);

    /// The framework holds these already: tasks of a returning agent. They are kept, not
    /// copied, for many tasks share them.
    fn hold(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        role: &Arc<str>,
        resources: &Arc<Resources>,
    );

    /// Gives back what was granted or held.
    fn recover(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        role: &Arc<str>,
        resources: &Resources,
    );

    /// Until `until`, do not offer this framework a part of `refused` of this
    /// agent in this role (rule 30). Call it after [`recover`](Allocator::recover).
    fn refuse(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        role: &Arc<str>,
        refused: Arc<Resources>,
        until: Time,
    );

    /// Greater than 0; 1 unless set. The core has validated it.
    fn set_weight(&mut self, role: &Arc<str>, weight: f64);

    /// Offers everything that can be offered now. At most one grant for each
    /// (framework, role, agent). Costs nothing when nothing changed.
    fn allocate(&mut self, now: Time) -> Vec<Grant>;

    /// When `allocate` should next be called although nothing else happens: the
    /// earliest end of a filter.
    fn next_deadline(&self) -> Option<Time>;

    /// Why this framework has no more offers, most telling first.
    fn explain_framework(&self, key: FrameworkKey, now: Time) -> Vec<Reason>;

    /// Why frameworks of this role have no more offers.
    fn explain_role(&self, role: &str, now: Time) -> Vec<Reason>;

    /// Every role that has frameworks, a weight or something held.
    fn roles(&self) -> Vec<RoleShare>;

    /// Largest share of any counted resource that the framework holds, 0 to 1.
    fn framework_share(&self, key: FrameworkKey) -> f64;

    /// What is neither offered nor allocated on the agent.
    fn available(&self, key: AgentKey) -> Option<&Resources>;

    /// Whole-state check, for tests and simulation.
    ///
    /// # Errors
    /// The first violation, as a sentence.
    fn check_invariants(&self) -> Result<(), String>;
}

/// Longest filter: rule 30.
pub const MAX_REFUSE: Duration = Duration::from_secs(365 * 24 * 3600);
