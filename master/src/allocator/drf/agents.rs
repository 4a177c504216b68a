//! What each agent has, what is left of it, and who holds the rest.

use std::sync::{Arc, LazyLock};

use mezz_proto::resources::Resources;
use smallvec::SmallVec;

use super::{
    bits::BitSet,
    clients::ClientId,
    filters::AgentFilters,
    quantities::{Names, Quantities},
};
use crate::allocator::AgentSpec;

/// Pieces that one client may hold on one agent before they are merged.
const MAX_PIECES: usize = 4;

static NOTHING: LazyLock<Arc<Resources>> = LazyLock::new(Arc::default);

/// Resources and their scalars, measured once.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) resources: Arc<Resources>,
    pub(super) quantities: Quantities,
}

impl Default for Piece {
    fn default() -> Self {
        Self { resources: NOTHING.clone(), quantities: Quantities::default() }
    }
}

impl Piece {
    pub(super) fn new(resources: impl Into<Arc<Resources>>, names: &mut Names) -> Self {
        let resources = resources.into();
        let quantities = names.measure(&resources);
        Self { resources, quantities }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    fn add(&mut self, other: &Piece) {
        if self.is_empty() {
            *self = other.clone();
        } else {
            *Arc::make_mut(&mut self.resources) += &other.resources;
            self.quantities.add(&other.quantities);
        }
    }

    fn subtract(&mut self, other: &Piece) {
        if Arc::ptr_eq(&self.resources, &other.resources) {
            *self = Piece::default();
        } else {
            Arc::make_mut(&mut self.resources).saturating_sub(&other.resources);
            self.quantities.sub(&other.quantities);
        }
    }
}

/// A part of an agent in somebody's hands.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) client: ClientId,
    pub(super) piece: Piece,
}

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) spec: AgentSpec,
    pub(super) active: bool,
    pub(super) total: Quantities,
    /// Nothing of it is reserved, revocable or shared: everybody may use all.
    pub(super) plain: bool,
    pub(super) has_gpus: bool,
    pub(super) available: Piece,
    pub(super) holdings: Vec<Holding>,
    /// More is held than there is: tasks that the agent brought, or a total that
    /// shrank. Then `available` is computed anew at each change.
    pub(super) overcommitted: bool,
    pub(super) filters: AgentFilters,
    /// Clients that this agent is not for, whatever it has left.
    pub(super) excluded: BitSet,
    /// Clients that get nothing of what is left now; they need not be looked at
    /// again until more is left or they change.
    pub(super) settled: BitSet,
    /// More may be left than when `settled` was computed.
    pub(super) grown: bool,
}

impl Agent {
    pub(super) fn new(spec: AgentSpec, names: &mut Names) -> Self {
        let available = Piece::new(spec.total.clone(), names);
        let mut agent = Self {
            active: true,
            total: available.quantities.clone(),
            plain: true,
            has_gpus: false,
            available,
            holdings: Vec::new(),
            overcommitted: false,
            filters: AgentFilters::default(),
            excluded: BitSet::default(),
            settled: BitSet::default(),
            grown: true,
            spec,
        };
        agent.describe();
        agent
    }

    fn describe(&mut self) {
        self.plain = self.spec.total.iter().all(|r| {
            let i = &r.identity;
            i.reservations().is_empty() && !i.is_revocable() && !i.is_shared()
        });
        self.has_gpus = !self.spec.total.scalar("gpus").is_zero();
    }

    /// Takes the new description; what is held stays.
    pub(super) fn update(&mut self, spec: AgentSpec, names: &mut Names) {
        self.spec = spec;
        self.total = names.measure(&self.spec.total);
        self.describe();
        self.excluded.clear();
        self.settled.clear();
        self.recount(names);
    }

    /// Whether something of it can be offered.
    pub(super) fn is_open(&self) -> bool {
        self.active && !self.available.is_empty()
    }

    /// The roles that all that is left is reserved for, when nothing of it is
    /// unreserved.
    pub(super) fn only_reserved_for(&self) -> Option<SmallVec<[&str; 4]>> {
        if self.plain {
            return None;
        }
        let mut roles = SmallVec::new();
        for r in &*self.available.resources {
            let role = r.identity.reserved_for()?;
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        Some(roles)
    }

    /// Computes what is left from the total and the holdings.
    fn recount(&mut self, names: &mut Names) {
        let mut left = self.spec.total.clone();
        self.overcommitted = false;
        for h in &self.holdings {
            if left.try_sub(&h.piece.resources).is_err() {
                self.overcommitted = true;
                left.saturating_sub(&h.piece.resources);
            }
        }
        self.available = Piece::new(left, names);
        self.grown = true;
    }

    /// Hands `piece`, a part of what is left, to `client`.
    pub(super) fn grant(&mut self, client: ClientId, piece: Piece) {
        self.available.subtract(&piece);
        self.keep(client, piece);
    }

    /// `client` has `piece` already, whether it is left or not.
    pub(super) fn hold(&mut self, client: ClientId, piece: Piece, names: &mut Names) {
        if !self.overcommitted && self.available.resources.contains(&piece.resources) {
            self.available.subtract(&piece);
            self.keep(client, piece);
        } else {
            self.keep(client, piece);
            self.recount(names);
        }
    }

    fn keep(&mut self, client: ClientId, piece: Piece) {
        if self.holdings.len() >= MAX_PIECES
            && self.holdings.iter().filter(|h| h.client == client).count() >= MAX_PIECES
            && let Some(first) = self.holdings.iter_mut().find(|h| h.client == client)
        {
            first.piece.add(&piece);
            return;
        }
        self.holdings.push(Holding { client, piece });
    }

    /// Takes `resources` from `client`; what was really there of them.
    pub(super) fn give_back(
        &mut self,
        client: ClientId,
        resources: &Resources,
        names: &mut Names,
    ) -> Piece {
        let piece = self.release(client, resources, names);
        self.restore(&piece, names);
        piece
    }

    /// Takes everything from `client`.
    pub(super) fn give_back_all(&mut self, client: ClientId, names: &mut Names) -> Quantities {
        let mut all = Quantities::default();
        while let Some(i) = self.holdings.iter().position(|h| h.client == client) {
            let piece = self.holdings.swap_remove(i).piece;
            all.add(&piece.quantities);
            self.restore(&piece, names);
        }
        all
    }

    fn restore(&mut self, piece: &Piece, names: &mut Names) {
        if self.overcommitted {
            self.recount(names);
        } else if !piece.is_empty() {
            self.available.add(piece);
            self.grown = true;
        }
    }

    fn release(&mut self, client: ClientId, resources: &Resources, names: &mut Names) -> Piece {
        // Declined offers come back whole, and usually as the very value that
        // was granted; the newest is the likeliest.
        let mine = |h: &Holding| h.client == client;
        let same = |h: &Holding| {
            std::ptr::eq(Arc::as_ptr(&h.piece.resources), resources)
                || *h.piece.resources == *resources
        };
        if let Some(i) = self.holdings.iter().rposition(|h| mine(h) && same(h)) {
            return self.holdings.swap_remove(i).piece;
        }
        let piece = Piece::new(resources.clone(), names);
        if let Some(i) =
            self.holdings.iter().position(|h| mine(h) && h.piece.resources.contains(resources))
        {
            self.holdings[i].piece.subtract(&piece);
            return piece;
        }
        let mut all = Piece::default();
        while let Some(i) = self.holdings.iter().position(mine) {
            all.add(&self.holdings.swap_remove(i).piece);
        }
        let mut rest = (*all.resources).clone();
        rest.saturating_sub(resources);
        let mut released = (*all.resources).clone();
        released.saturating_sub(&rest);
        if !rest.is_empty() {
            self.holdings.push(Holding { client, piece: Piece::new(rest, names) });
        }
        Piece::new(released, names)
    }

    /// Brings `settled` up to date after something came back: those that the
    /// agent is not for, and those that refused all that is left.
    pub(super) fn resettle(&mut self) {
        self.settled.copy_from(&self.excluded);
        self.filters.add_blocked(&self.available.resources, &mut self.settled);
        self.grown = false;
    }
}
