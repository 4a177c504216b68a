//! The one place that says what a client may be offered of an agent.

use std::sync::Arc;

use mezz_proto::resources::Identity;

use super::{
    agents::{Agent, Piece},
    clients::{Client, ClientId},
    quantities::{Minimum, Names},
};
use crate::allocator::{AllocatorOptions, ReasonCode};

/// What the rules look at beside the client and the agent.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) options: &'a AllocatorOptions,
    pub(super) minimum: &'a Minimum,
    pub(super) names: &'a Names,
}

impl Rules<'_> {
    /// What `client`, which wants offers, would be offered of `agent` now.
    pub(super) fn eligibility(
        &self,
        id: ClientId,
        client: &Client,
        agent: &Agent,
    ) -> Result<Piece, ReasonCode> {
        if !agent.active {
            return Err(ReasonCode::InactiveAgent);
        }
        if agent.available.is_empty() {
            return Err(ReasonCode::Held);
        }
        self.suitable(client, agent)?;
        let offer = self.usable(client, agent)?;
        if !client.minimum.as_ref().unwrap_or(self.minimum).is_met(&offer.quantities) {
            return Err(ReasonCode::BelowMinimum);
        }
        if agent.filters.block(id, &offer.resources) {
            return Err(ReasonCode::Filtered);
        }
        Ok(offer)
    }

    /// What does not depend on how much the agent has left.
    pub(super) fn suitable(&self, client: &Client, agent: &Agent) -> Result<(), ReasonCode> {
        if self.options.filter_gpu_resources && agent.has_gpus && !client.capabilities.gpu_resources
        {
            return Err(ReasonCode::Capability);
        }
        if !client.capabilities.region_aware
            && let Some(ours) = &self.options.region
            && let Some(place) = agent.spec.domain.as_ref().and_then(|d| d.fault_domain.as_ref())
            && place.region.name != *ours
        {
            return Err(ReasonCode::Capability);
        }
        if client.constraints.as_ref().is_some_and(|c| !c.admit(&agent.spec)) {
            return Err(ReasonCode::Constraint);
        }
        Ok(())
    }

    /// The part of what is left that the client may use.
    fn usable(&self, client: &Client, agent: &Agent) -> Result<Piece, ReasonCode> {
        if agent.plain {
            return Ok(agent.available.clone());
        }
        let left = &agent.available.resources;
        let may = |i: &Identity| is_reserved_for(i, &client.path) && is_shown(i, client);
        let count = left.iter().filter(|r| may(&r.identity)).count();
        if count == left.len() {
            return Ok(agent.available.clone());
        }
        if count == 0 {
            let reserved = left.iter().any(|r| !is_reserved_for(&r.identity, &client.path));
            return Err(if reserved { ReasonCode::Reserved } else { ReasonCode::Capability });
        }
        let part = left.filter(|r| may(&r.identity));
        let quantities = self.names.measure_known(&part);
        Ok(Piece { resources: Arc::new(part), quantities })
    }
}

/// Whether a role may use it: it is unreserved, or reserved for the role or one
/// above it.
fn is_reserved_for(identity: &Identity, role: &str) -> bool {
    identity.reserved_for().is_none_or(|reserved| {
        role.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether the framework understands it (rule 21).
fn is_shown(identity: &Identity, client: &Client) -> bool {
    let can = client.capabilities;
    (can.revocable_resources || !identity.is_revocable())
        && (can.shared_resources || !identity.is_shared())
        && (can.reservation_refinement || identity.reservations().len() <= 1)
}
