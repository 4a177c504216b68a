//! Frameworks, and clients: a framework in one of its roles, which is what
//! stands in the order, refuses and holds.

use std::sync::Arc;

use mezz_proto::ids::FrameworkId;

use super::{
    bits::BitSet,
    order::Key,
    quantities::{Minimum, Quantities},
    roles::RoleId,
};
use crate::allocator::{
    FrameworkCapabilities, FrameworkKey, FrameworkSpec, constraints::Constraints,
};

/// A client's slot; reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(pub(super) u32);

impl ClientId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A framework.
#[derive(Debug)]
pub(super) struct Framework {
    pub(super) spec: FrameworkSpec,
    pub(super) active: bool,
    /// Stands for its id in the order.
    pub(super) rank: u64,
    /// One for each of its roles, and for roles that it left but holds
    /// something in.
    pub(super) clients: Vec<ClientId>,
}

/// A framework in one role.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) framework: FrameworkKey,
    pub(super) framework_id: FrameworkId,
    pub(super) rank: u64,
    pub(super) role: RoleId,
    pub(super) path: Arc<str>,
    /// The framework has this role; false while it only holds something in it.
    pub(super) subscribed: bool,
    pub(super) suppressed: bool,
    /// Subscribed, not suppressed, and the framework is active.
    pub(super) wanting: bool,
    pub(super) capabilities: FrameworkCapabilities,
    /// In place of the cluster's smallest offer.
    pub(super) minimum: Option<Minimum>,
    pub(super) constraints: Option<Constraints>,
    pub(super) held: Quantities,
    pub(super) allocations: u64,
    /// Its place among the wanting clients of its role.
    pub(super) key: Option<Key>,
    /// Agents on which it has filters.
    pub(super) filtered: BitSet,
}

/// All clients by slot.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    free: Vec<u32>,
}

impl Clients {
    pub(super) fn add(&mut self, client: Client) -> ClientId {
        match self.free.pop() {
            Some(i) => {
                self.slots[i as usize] = Some(client);
                ClientId(i)
            }
            None => {
                self.slots.push(Some(client));
                ClientId(self.slots.len() as u32 - 1)
            }
        }
    }

    pub(super) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let gone = self.slots.get_mut(id.index())?.take();
        if gone.is_some() {
            self.free.push(id.0);
        }
        gone
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.slots.get(id.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.slots.iter().enumerate().filter_map(|(i, c)| Some((ClientId(i as u32), c.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ClientId, &mut Client)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(i, c)| Some((ClientId(i as u32), c.as_mut()?)))
    }
}
