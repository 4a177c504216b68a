//! The allocator against itself.

use mezz_proto::resources::Resources;

use super::{DrfAllocator, agents::Agent, clients::ClientId, quantities::Quantities};
use crate::allocator::AgentKey;

impl DrfAllocator {
    pub(super) fn check(&self) -> Result<(), String> {
        let mut total = Quantities::default();
        let mut timers = 0;
        for (i, agent) in self.agents.iter().enumerate() {
            let Some(agent) = agent else { continue };
            total.add(&agent.total);
            let at = |text: String| format!("agent {}: {text}", agent.spec.id);
            self.check_sum(agent).map_err(at)?;
            agent.filters.check().map_err(at)?;
            if let Some(end) = agent.filters.next_end() {
                timers += 1;
                if !self.timers.contains(&(end, AgentKey(i as u32))) {
                    return Err(at("no timer for its filters".to_owned()));
                }
            }
            if self.open.contains(i) != agent.is_open() {
                return Err(at("is open and not listed so, or the reverse".to_owned()));
            }
            self.check_settled(i, agent).map_err(at)?;
        }
        if total != self.total {
            return Err("the cluster's total is not the sum of the agents'".to_owned());
        }
        if timers != self.timers.len() {
            return Err("there are timers without filters".to_owned());
        }
        self.check_clients()?;
        self.roles.check(&self.clients)
    }

    /// total = available + held, exactly, unless more is held than there is.
    fn check_sum(&self, agent: &Agent) -> Result<(), String> {
        let mut left = agent.spec.total.clone();
        for h in &agent.holdings {
            if self.clients.get(h.client).is_none() {
                return Err("something is held by nobody".to_owned());
            }
            if h.piece.is_empty()
                || h.piece.quantities != self.names.measure_known(&h.piece.resources)
            {
                return Err(format!("{} is held but measured wrongly", h.piece.resources));
            }
            match left.try_sub(&h.piece.resources) {
                Ok(()) => {}
                Err(_) if agent.overcommitted => left.saturating_sub(&h.piece.resources),
                Err(e) => return Err(format!("held twice: {e}")),
            }
        }
        if left != *agent.available.resources {
            return Err(format!("{left} should be available, not {}", agent.available.resources));
        }
        let sum = |pieces: &mut dyn Iterator<Item = &Resources>| {
            pieces.fold(Resources::new(), |sum, r| sum + r)
        };
        let held = sum(&mut agent.holdings.iter().map(|h| &*h.piece.resources));
        if !agent.overcommitted && held + &left != agent.spec.total {
            return Err("available and held do not add up to the total".to_owned());
        }
        if agent.available.quantities != self.names.measure_known(&left) {
            return Err("what is available is measured wrongly".to_owned());
        }
        Ok(())
    }

    /// Nobody is passed over: who is settled gets nothing, and on agents that
    /// need not be looked at nobody gets anything.
    fn check_settled(&self, i: usize, agent: &Agent) -> Result<(), String> {
        if !agent.is_open() {
            return Ok(());
        }
        let clean = !self.dirty.contains(i);
        for (id, client) in self.clients.iter() {
            let settled = !agent.grown && agent.settled.contains(id.index());
            if (settled || clean && client.wanting)
                && self.rules().eligibility(id, client, agent).is_ok()
            {
                return Err(format!(
                    "{} in role {} could be offered something but is passed over",
                    client.framework_id, client.path
                ));
            }
            if agent.excluded.contains(id.index()) && self.rules().suitable(client, agent).is_ok() {
                return Err(format!("{} is excluded without reason", client.framework_id));
            }
        }
        Ok(())
    }

    fn check_clients(&self) -> Result<(), String> {
        let mut wanting = 0;
        for (id, client) in self.clients.iter() {
            let name = || format!("{} in role {}", client.framework_id, client.path);
            let framework = self.framework(client.framework);
            if !framework.is_some_and(|f| f.clients.contains(&id)) {
                return Err(format!("{} is not a client of its framework", name()));
            }
            let wants =
                client.subscribed && !client.suppressed && framework.is_some_and(|f| f.active);
            wanting += usize::from(wants);
            if wants != client.wanting || wants != self.wanting.contains(id.index()) {
                return Err(format!(
                    "{} wants offers and is not listed so, or the reverse",
                    name()
                ));
            }
            if self.held_by(id) != client.held {
                return Err(format!("{} does not hold the sum of its pieces", name()));
            }
            for (i, agent) in self.agents.iter().enumerate() {
                let here = agent.as_ref().is_some_and(|a| a.filters.clients().any(|c| c == id));
                if here != client.filtered.contains(i) {
                    return Err(format!("{}: its list of filtered agents is wrong", name()));
                }
            }
        }
        if wanting != self.wanting_count || wanting != self.wanting.len() {
            return Err("those that want offers are miscounted".to_owned());
        }
        Ok(())
    }

    fn held_by(&self, id: ClientId) -> Quantities {
        let mut held = Quantities::default();
        for agent in self.agents.iter().flatten() {
            for h in agent.holdings.iter().filter(|h| h.client == id) {
                held.add(&h.piece.quantities);
            }
        }
        held
    }
}
