//! One allocation: the agents that could yield something, each given away in
//! the order of shares (rule 67).

use std::ops::ControlFlow;

use mezz_proto::time::Time;
use smallvec::SmallVec;

use super::{
    DrfAllocator,
    agents::{Agent, Piece},
    bits::BitSet,
    clients::{ClientId, Clients},
    eligibility::Rules,
    roles::Roles,
};
use crate::allocator::{AgentKey, Grant, ReasonCode};

/// Memory that the visits of one cycle share.
#[derive(Default)]
struct Scratch {
    candidates: BitSet,
    /// Those in or below the roles that the rest of an agent is reserved for.
    reserved: BitSet,
    granted: Vec<(ClientId, Piece)>,
    considered: u64,
}

impl DrfAllocator {
    /// Offers everything that can be offered at `now`.
    pub(super) fn run_cycle(&mut self, now: Time) -> Vec<Grant> {
        self.expire_filters(now);
        let mut grants = Vec::new();
        if self.dirty.is_empty() {
            return grants;
        }
        if self.wanting.is_empty() {
            // Whoever wants something next makes all open agents dirty.
            self.dirty.clear();
            return grants;
        }
        self.roles.rebuild(&mut self.clients);
        let dirty: Vec<usize> = self.dirty.iter().collect();
        self.dirty.clear();
        let first = dirty.partition_point(|&i| i < self.cursor);
        let mut scratch = Scratch::default();
        for &i in dirty[first..].iter().chain(&dirty[..first]) {
            self.visit(i, &mut scratch, &mut grants);
        }
        self.considered += scratch.considered;
        // Mesos shuffles the agents; beginning one further each time is as fair
        // and repeatable.
        if let Some(first) = grants.first() {
            self.cursor = first.agent.0 as usize + 1;
        }
        grants
    }

    fn visit(&mut self, i: usize, scratch: &mut Scratch, grants: &mut Vec<Grant>) {
        let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) else { return };
        if !agent.is_open() {
            return;
        }
        if agent.grown {
            agent.resettle();
        }
        let round = Round {
            rules: Rules { options: &self.options, minimum: &self.minimum, names: &self.names },
            clients: &self.clients,
            roles: &self.roles,
            wanting: &self.wanting,
            wanting_count: self.wanting_count,
            own_minimum: &self.own_minimum,
        };
        while round.serve(agent, scratch) && agent.is_open() {}
        self.open.assign(i, agent.is_open());
        for (id, piece) in scratch.granted.drain(..) {
            self.charge(id, &piece.quantities);
            if let Some(client) = self.clients.get(id) {
                grants.push(Grant {
                    framework: client.framework,
                    role: client.path.clone(),
                    agent: AgentKey(i as u32),
                    resources: piece.resources,
                });
            }
        }
    }
}

/// What serving an agent reads.
struct Round<'a> {
    rules: Rules<'a>,
    clients: &'a Clients,
    roles: &'a Roles,
    wanting: &'a BitSet,
    wanting_count: usize,
    own_minimum: &'a BitSet,
}

impl Round<'_> {
    /// Grants the first in the order who may have something of `agent` all that
    /// it may have; whether there is one. Those before it are settled, so that
    /// the next call goes on behind it.
    fn serve(&self, agent: &mut Agent, scratch: &mut Scratch) -> bool {
        let count = self.find_candidates(agent, scratch);
        if count == 0 {
            return false;
        }
        // With few candidates among many it is cheaper to look at each of them
        // than to walk past all the others.
        let served = if count * count <= self.wanting_count {
            let mut few: SmallVec<[_; 8]> = SmallVec::new();
            let ids = scratch.candidates.iter().map(|i| ClientId(i as u32));
            few.extend(ids.filter_map(|id| Some((self.roles.chain(self.clients.get(id)?), id))));
            few.sort_unstable();
            few.into_iter().try_for_each(|(_, id)| self.consider(agent, id, scratch))
        } else {
            self.roles.walk(|id| {
                if scratch.candidates.contains(id.index()) {
                    self.consider(agent, id, scratch)
                } else {
                    ControlFlow::Continue(())
                }
            })
        };
        served.is_break()
    }

    /// Who might get something of what is left of `agent`, and how many they are.
    fn find_candidates(&self, agent: &Agent, scratch: &mut Scratch) -> usize {
        let candidates = &mut scratch.candidates;
        let mut count = candidates.set_difference(self.wanting, &agent.settled);
        if count > 0 && !self.rules.minimum.is_met(&agent.available.quantities) {
            // Only those with a smaller minimum of their own can use it.
            candidates.intersect_with(self.own_minimum);
            count = candidates.len();
        }
        if count > 0
            && let Some(roles) = agent.only_reserved_for()
        {
            scratch.reserved.clear();
            for role in roles {
                self.roles.for_clients_below(role, |id| {
                    scratch.reserved.insert(id.index());
                });
            }
            candidates.intersect_with(&scratch.reserved);
            count = candidates.len();
        }
        count
    }

    /// Grants `id` what it may have of `agent`; breaks when that is something.
    fn consider(&self, agent: &mut Agent, id: ClientId, scratch: &mut Scratch) -> ControlFlow<()> {
        let Some(client) = self.clients.get(id) else { return ControlFlow::Continue(()) };
        scratch.considered += 1;
        match self.rules.eligibility(id, client, agent) {
            Ok(piece) => {
                agent.grant(id, piece.clone());
                scratch.granted.push((id, piece));
                ControlFlow::Break(())
            }
            Err(reason) => {
                agent.settled.insert(id.index());
                if matches!(reason, ReasonCode::Capability | ReasonCode::Constraint)
                    && self.rules.suitable(client, agent).is_err()
                {
                    agent.excluded.insert(id.index());
                }
                ControlFlow::Continue(())
            }
        }
    }
}
