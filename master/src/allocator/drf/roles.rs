//! The tree of roles, in DRF order at every level (rule 68).

mod check;

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use smallvec::SmallVec;

use super::{
    clients::{Client, ClientId, Clients},
    order::{Key, OWN, Order, rank_between, spread_ranks},
    quantities::Quantities,
};

/// A role's slot; reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoleId(pub(super) u32);

/// Parent of the top-level roles; has no name and no frameworks.
pub(super) const ROOT: RoleId = RoleId(0);

/// One role.
#[derive(Debug, Default)]
pub(super) struct Role {
    pub(super) path: Arc<str>,
    parent: Option<RoleId>,
    /// `None` when nobody set it: 1.
    pub(super) weight: Option<f64>,
    rank: u64,
    /// By it and the roles below it.
    pub(super) held: Quantities,
    allocations: u64,
    /// By its own frameworks.
    own_held: Quantities,
    own_allocations: u64,
    /// Child roles with somebody who wants offers, and [`OWN`] when its own
    /// frameworks do.
    members: Order,
    /// Its own clients that want offers.
    pub(super) clients: Order,
    /// Its place among the parent's members.
    key: Option<Key>,
    /// Its own frameworks' place among its members: the virtual leaf.
    own_key: Option<Key>,
    /// Child roles.
    children: u32,
    /// Its own clients, whether they want offers or not.
    users: u32,
}

/// All roles.
#[derive(Debug)]
pub(super) struct Roles {
    slots: Vec<Role>,
    free: Vec<u32>,
    by_path: BTreeMap<Arc<str>, RoleId>,
    /// What shares are parts of.
    total: Quantities,
    /// The total or the ranks changed: all keys are wrong, until
    /// [`rebuild`](Self::rebuild).
    stale: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            slots: vec![Role::default()],
            free: Vec::new(),
            by_path: BTreeMap::new(),
            total: Quantities::default(),
            stale: false,
        }
    }
}

impl Roles {
    pub(super) fn get(&self, id: RoleId) -> &Role {
        &self.slots[id.0 as usize]
    }

    fn get_mut(&mut self, id: RoleId) -> &mut Role {
        &mut self.slots[id.0 as usize]
    }

    pub(super) fn find(&self, path: &str) -> Option<RoleId> {
        self.by_path.get(path).copied()
    }

    /// By path.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RoleId, &Role)> {
        self.by_path.values().map(|&id| (id, self.get(id)))
    }

    pub(super) fn total(&self) -> &Quantities {
        &self.total
    }

    pub(super) fn set_total(&mut self, total: Quantities) {
        if self.total != total {
            self.total = total;
            self.stale = true;
        }
    }

    pub(super) fn set_stale(&mut self) {
        self.stale = true;
    }

    /// The role of this path, made with its ancestors where it is new. Whoever
    /// needs it to stay calls [`join`](Self::join).
    pub(super) fn ensure(&mut self, path: &Arc<str>) -> RoleId {
        if let Some(id) = self.find(path) {
            return id;
        }
        let parent = match path.rfind('/') {
            Some(i) => self.ensure(&Arc::from(&path[..i])),
            None => ROOT,
        };
        self.get_mut(parent).children += 1;
        let before = self.by_path.range(..path.clone()).next_back();
        let before = before.map(|(_, &id)| self.get(id).rank);
        let after = self.by_path.range(path.clone()..).next();
        let after = after.map(|(_, &id)| self.get(id).rank);
        let rank = rank_between(before, after);
        let role = Role {
            path: path.clone(),
            parent: Some(parent),
            rank: rank.unwrap_or(0),
            ..Role::default()
        };
        let id = match self.free.pop() {
            Some(i) => {
                self.slots[i as usize] = role;
                RoleId(i)
            }
            None => {
                self.slots.push(role);
                RoleId(self.slots.len() as u32 - 1)
            }
        };
        self.by_path.insert(path.clone(), id);
        if rank.is_none() {
            for (id, rank) in self.by_path.values().zip(spread_ranks(self.by_path.len())) {
                self.slots[id.0 as usize].rank = rank;
            }
            self.stale = true;
        }
        id
    }

    pub(super) fn join(&mut self, id: RoleId) {
        self.get_mut(id).users += 1;
    }

    pub(super) fn leave(&mut self, id: RoleId) {
        self.get_mut(id).users -= 1;
        self.forget_if_unused(id);
    }

    /// Forgets a role, and its ancestors, of which nothing is left to know.
    fn forget_if_unused(&mut self, mut id: RoleId) {
        loop {
            let role = self.get(id);
            let Some(parent) = role.parent else { return };
            if role.users > 0 || role.children > 0 || role.weight.is_some() {
                return;
            }
            let gone = std::mem::take(self.get_mut(id));
            self.by_path.remove(&gone.path);
            self.free.push(id.0);
            self.get_mut(parent).children -= 1;
            id = parent;
        }
    }

    pub(super) fn set_weight(&mut self, id: RoleId, weight: f64) {
        self.get_mut(id).weight = Some(weight);
        self.rekey(id);
    }

    fn key_of(&self, id: RoleId) -> Key {
        let r = self.get(id);
        let share = r.held.share_of(&self.total) / r.weight.unwrap_or(1.0);
        Key::new(share, r.allocations, r.rank, id.0)
    }

    fn own_key_of(&self, id: RoleId) -> Key {
        let r = self.get(id);
        Key::new(r.own_held.share_of(&self.total), r.own_allocations, 0, OWN)
    }

    /// The place that a client should have among those of its role.
    pub(super) fn client_key(&self, id: ClientId, client: &Client) -> Key {
        Key::new(client.held.share_of(&self.total), client.allocations, client.rank, id.0)
    }

    /// Puts a role in its right place among its siblings, if it stands there.
    fn rekey(&mut self, id: RoleId) {
        if self.stale || self.get(id).key.is_none() {
            return;
        }
        let new = self.key_of(id);
        self.put(id, Some(new));
    }

    fn put(&mut self, id: RoleId, to: Option<Key>) {
        let role = self.get_mut(id);
        let mut key = role.key;
        if let Some(parent) = role.parent {
            self.get_mut(parent).members.place(&mut key, to);
        }
        self.get_mut(id).key = key;
    }

    fn put_own(&mut self, id: RoleId, to: Option<Key>) {
        let role = self.get_mut(id);
        role.members.place(&mut role.own_key, to);
    }

    /// A client of `id` holds `more`, and that is one more allocation, or it
    /// holds so much less.
    pub(super) fn charge(&mut self, id: RoleId, quantities: &Quantities, more: bool) {
        let change = |held: &mut Quantities, allocations: &mut u64| {
            if more {
                held.add(quantities);
                *allocations += 1;
            } else {
                held.sub(quantities);
            }
        };
        let role = self.get_mut(id);
        change(&mut role.own_held, &mut role.own_allocations);
        if !self.stale && self.get(id).own_key.is_some() {
            let new = self.own_key_of(id);
            self.put_own(id, Some(new));
        }
        let mut at = id;
        while let Some(parent) = self.get(at).parent {
            let role = self.get_mut(at);
            change(&mut role.held, &mut role.allocations);
            self.rekey(at);
            at = parent;
        }
    }

    /// Gives a client its place, or takes it away when it wants no offers.
    pub(super) fn place_client(&mut self, id: ClientId, client: &mut Client) {
        if self.stale && client.wanting && client.key.is_some() {
            return;
        }
        let to = client.wanting.then(|| self.client_key(id, client));
        let role = client.role;
        self.get_mut(role).clients.place(&mut client.key, to);
        self.show(role);
    }

    /// Makes a role and its ancestors stand among their siblings exactly when
    /// somebody in them wants offers.
    fn show(&mut self, role: RoleId) {
        let wants = !self.get(role).clients.is_empty();
        if wants == self.get(role).own_key.is_some() {
            return;
        }
        let own = wants.then(|| self.own_key_of(role));
        self.put_own(role, own);
        let mut at = role;
        while at != ROOT {
            let wants = !self.get(at).members.is_empty();
            if wants == self.get(at).key.is_some() {
                return;
            }
            let key = wants.then(|| self.key_of(at));
            self.put(at, key);
            let Some(parent) = self.get(at).parent else { return };
            at = parent;
        }
    }

    /// Computes all keys anew when the total or the ranks changed.
    pub(super) fn rebuild(&mut self, clients: &mut Clients) {
        if !self.stale {
            return;
        }
        self.stale = false;
        let ids: Vec<RoleId> = self.by_path.values().copied().collect();
        for &id in &ids {
            if self.get(id).own_key.is_some() {
                let new = self.own_key_of(id);
                self.put_own(id, Some(new));
            }
            self.rekey(id);
        }
        for (id, client) in clients.iter_mut() {
            self.place_client(id, client);
        }
    }

    /// All that want offers, those that are to be served first, first.
    pub(super) fn walk(
        &self,
        mut visit: impl FnMut(ClientId) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut stack: SmallVec<[_; 4]> = SmallVec::new();
        stack.push((ROOT, self.get(ROOT).members.iter()));
        while let Some((role, members)) = stack.last_mut() {
            match members.next() {
                None => {
                    stack.pop();
                }
                Some(key) if key.id == OWN => {
                    for key in self.get(*role).clients.iter() {
                        visit(ClientId(key.id))?;
                    }
                }
                Some(key) => {
                    let id = RoleId(key.id);
                    stack.push((id, self.get(id).members.iter()));
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// All that want offers in the role of this path and below it, in no
    /// particular order.
    pub(super) fn for_clients_below(&self, path: &str, mut visit: impl FnMut(ClientId)) {
        let mut stack: SmallVec<[RoleId; 8]> = self.find(path).into_iter().collect();
        while let Some(id) = stack.pop() {
            let role = self.get(id);
            role.clients.iter().for_each(|key| visit(ClientId(key.id)));
            let below = role.members.iter().filter(|key| key.id != OWN);
            stack.extend(below.map(|key| RoleId(key.id)));
        }
    }

    /// The keys from the top down to a client; they order clients of different
    /// roles.
    pub(super) fn chain(&self, client: &Client) -> SmallVec<[Key; 4]> {
        let mut chain = SmallVec::new();
        chain.extend(client.key);
        chain.extend(self.get(client.role).own_key);
        let mut at = client.role;
        while let Some(parent) = self.get(at).parent {
            chain.extend(self.get(at).key);
            at = parent;
        }
        chain.reverse();
        chain
    }
}
