//! What is left of the offers of one agent and role.

use mezz_proto::{
    ids::AgentId,
    resources::{Amount, Dialect, Range, Ranges, Resource, ResourceError, Resources},
    v1,
};

use super::{Constraint, Launch, Placed, Want};

pub(super) struct Pool<'a> {
    pub agent: AgentId,
    role: Option<&'a str>,
    offers: Vec<&'a v1::Offer>,
    left: Resources,
    tasks: Vec<Placed>,
}

impl<'a> Pool<'a> {
    /// One for each agent and role, in the order in which they come up.
    pub fn of(offers: &'a [v1::Offer]) -> Result<Vec<Self>, ResourceError> {
        let mut pools: Vec<Self> = Vec::new();
        let mut index = std::collections::BTreeMap::new();
        for offer in offers {
            let role = offer.allocation_info.as_ref().and_then(|a| a.role.as_deref());
            let resources = Resources::from_proto(&offer.resources)?.filter(is_plain);
            let i = *index.entry((&offer.agent_id.value, role)).or_insert(pools.len());
            if i == pools.len() {
                let (agent, left) = (AgentId::from(&offer.agent_id), Resources::new());
                pools.push(Self { agent, role, offers: Vec::new(), left, tasks: Vec::new() });
            }
            pools[i].offers.push(offer);
            pools[i].left += &resources;
        }
        Ok(pools)
    }

    pub fn meets(&self, constraints: &[Constraint]) -> bool {
        constraints.iter().all(|c| c.is_met_by(self.offers[0]))
    }

    /// Whether there was room.
    pub fn place(&mut self, index: usize, want: &Want) -> bool {
        let Some((taken, ports)) = take(&self.left, want) else { return false };
        if self.left.try_sub(&taken).is_err() {
            return false;
        }
        self.tasks.push(Placed {
            want: index,
            agent_id: (&self.agent).into(),
            resources: taken.to_proto(Dialect::Refined, self.role),
            ports,
        });
        true
    }

    /// The launch, or the offers if nothing was placed.
    pub fn into_launch(self) -> Result<Launch, Vec<v1::OfferId>> {
        let offers: Vec<_> = self.offers.iter().map(|o| o.id.clone()).collect();
        if self.tasks.is_empty() {
            return Err(offers);
        }
        let hostname = self.offers[0].hostname.clone();
        Ok(Launch { agent_id: (&self.agent).into(), hostname, offers, tasks: self.tasks })
    }
}

/// Resources that any task may use without asking for their kind.
fn is_plain(r: &Resource) -> bool {
    !r.identity.is_revocable() && !r.identity.is_shared() && r.identity.disk().is_none()
}

/// The part of `left` that one task gets, and the ports picked for it.
fn take(left: &Resources, want: &Want) -> Option<(Resources, Vec<u64>)> {
    let mut taken = Resources::new();
    for r in &want.resources {
        take_named(left, r.identity.name(), &r.amount, &mut taken)?;
    }
    let ports = pick_ports(left, want.ports, &mut taken)?;
    Some((taken, ports))
}

/// Takes the amount of whichever identities have it, reserved ones first.
fn take_named(left: &Resources, name: &str, wanted: &Amount, taken: &mut Resources) -> Option<()> {
    let mut wanted = wanted.clone();
    for r in reserved_first(left, name) {
        if wanted.is_empty() {
            break;
        }
        let part = match (&mut wanted, &r.amount) {
            (Amount::Scalar(w), Amount::Scalar(have)) => {
                let part = (*w).min(*have);
                *w = w.saturating_sub(part);
                Amount::Scalar(part)
            }
            (Amount::Ranges(w), Amount::Ranges(have)) => {
                let rest = w.difference(have);
                let part = w.difference(&rest);
                *w = rest;
                Amount::Ranges(part)
            }
            (Amount::Set(w), Amount::Set(have)) => {
                let rest = w.difference(have);
                let part = w.difference(&rest);
                *w = rest;
                Amount::Set(part)
            }
            _ => return None,
        };
        taken.insert(Resource { identity: r.identity.clone(), amount: part });
    }
    wanted.is_empty().then_some(())
}

/// The lowest free ports, reserved ones first.
fn pick_ports(left: &Resources, count: usize, taken: &mut Resources) -> Option<Vec<u64>> {
    let mut picked = Vec::with_capacity(count);
    for r in reserved_first(left, "ports") {
        let Amount::Ranges(have) = &r.amount else { return None };
        let free = match taken.get(&r.identity) {
            Some(Amount::Ranges(used)) => have.difference(used),
            _ => have.clone(),
        };
        let from = picked.len();
        picked.extend(free.numbers().take(count - from));
        for &port in &picked[from..] {
            let one = Ranges::new([Range { begin: port, end: port }]);
            taken.insert(Resource { identity: r.identity.clone(), amount: Amount::Ranges(one) });
        }
    }
    picked.sort_unstable();
    (picked.len() == count).then_some(picked)
}

fn reserved_first<'a>(left: &'a Resources, name: &str) -> Vec<&'a Resource> {
    let mut all: Vec<_> = left.named(name).collect();
    all.sort_by_key(|r| r.identity.reservations().is_empty());
    all
}
