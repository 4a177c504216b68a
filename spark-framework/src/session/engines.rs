//! Agents that cannot run an application's containers. Offers do not say so: it is
//! learned from the first refusal, and remembered.

use std::collections::BTreeMap;

use mezz_proto::{
    ids::AgentId,
    time::Time,
    v1::{self, task_status::Reason},
};
use tracing::info;

use super::Output;
use crate::{docker, policy::LONG_REFUSAL};

/// What is known of agents' engines.
#[derive(Debug, Default)]
pub(super) struct Engines {
    /// Agents without one, and until when that is believed: one may be installed.
    without: BTreeMap<AgentId, Time>,
}

impl Engines {
    /// Takes note of a refusal.
    pub(super) fn heard(&mut self, now: Time, status: &v1::TaskStatus) {
        let reason = status.reason.and_then(|r| Reason::try_from(r).ok());
        let text = status.message.as_deref().unwrap_or_default();
        let refused =
            docker::has_no_engine(reason, text) || docker::cannot_reach_engine(reason, text);
        if let Some(agent) = status.agent_id.as_ref().filter(|_| refused) {
            info!(
                agent = agent.value,
                reason = text,
                "not used for this application for {} s, which needs Docker",
                LONG_REFUSAL.as_secs()
            );
            self.without.insert(agent.into(), now + LONG_REFUSAL);
        }
    }

    /// The offers that may be used; declines the others.
    pub(super) fn usable(
        &mut self,
        now: Time,
        offers: Vec<v1::Offer>,
        out: &mut Vec<Output>,
    ) -> Vec<v1::Offer> {
        self.without.retain(|_, until| *until > now);
        offers
            .into_iter()
            .filter(|offer| match self.without.get(&AgentId::from(&offer.agent_id)) {
                Some(until) => {
                    let offers = vec![offer.id.clone()];
                    out.push(Output::Decline { offers, refuse: until.since(now) });
                    false
                }
                None => true,
            })
            .collect()
    }
}
