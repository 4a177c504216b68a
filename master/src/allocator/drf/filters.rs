//! Who refused what of an agent until when (rule 30).

use std::sync::Arc;

use mezz_proto::{resources::Resources, time::Time};

use super::{bits::BitSet, clients::ClientId};

/// More filters of one client on one agent push out the one that ends first.
const MAX_FILTERS: usize = 8;

/// One refusal.
#[derive(Clone, Copy, Debug)]
struct Filter {
    until: Time,
    client: ClientId,
    /// Index of the refused set.
    set: u32,
}

/// A refused set and those that refused it. Many frameworks refuse the same:
/// all that the agent had left.
#[derive(Debug, Default)]
struct RefusedSet {
    resources: Arc<Resources>,
    clients: BitSet,
    filters: u32,
}

/// The filters on one agent.
#[derive(Debug, Default)]
pub(super) struct AgentFilters {
    /// Sorted by client.
    filters: Vec<Filter>,
    /// Unused ones are empty and filled again.
    sets: Vec<RefusedSet>,
    /// The earliest end.
    next_end: Option<Time>,
}

/// The rule itself: a filter blocks only what is contained in what was refused.
fn blocks(refused: &Arc<Resources>, offer: &Arc<Resources>) -> bool {
    Arc::ptr_eq(refused, offer) || refused.contains(offer)
}

impl AgentFilters {
    /// The earliest end of a filter.
    pub(super) fn next_end(&self) -> Option<Time> {
        self.next_end
    }

    fn of(&self, client: ClientId) -> std::ops::Range<usize> {
        let from = self.filters.partition_point(|f| f.client < client);
        let count = self.filters[from..].iter().take_while(|f| f.client == client).count();
        from..from + count
    }

    /// Whether a filter keeps `offer` from `client`.
    pub(super) fn block(&self, client: ClientId, offer: &Arc<Resources>) -> bool {
        !self.filters.is_empty()
            && self.filters[self.of(client)]
                .iter()
                .any(|f| blocks(&self.sets[f.set as usize].resources, offer))
    }

    /// When the last filter of `client` ends.
    pub(super) fn last_end_of(&self, client: ClientId) -> Option<Time> {
        self.filters[self.of(client)].iter().map(|f| f.until).max()
    }

    /// Adds those that refused all of `left`, and so any part of it.
    pub(super) fn add_blocked(&self, left: &Arc<Resources>, clients: &mut BitSet) {
        for set in &self.sets {
            if set.filters > 0 && blocks(&set.resources, left) {
                clients.union_with(&set.clients);
            }
        }
    }

    pub(super) fn add(&mut self, client: ClientId, refused: Arc<Resources>, until: Time) {
        // Filters of this client that the new one makes pointless.
        let mut i = self.of(client).start;
        while let Some(f) = self.filters.get(i).filter(|f| f.client == client) {
            let set = &self.sets[f.set as usize].resources;
            if f.until <= until && blocks(&refused, set) {
                self.remove_at(i);
            } else if f.until >= until && blocks(set, &refused) {
                return;
            } else {
                i += 1;
            }
        }
        if self.of(client).len() >= MAX_FILTERS
            && let Some(first) = self.of(client).min_by_key(|&i| self.filters[i].until)
        {
            self.remove_at(first);
        }
        let set = self.set_of(refused);
        self.sets[set].filters += 1;
        self.sets[set].clients.insert(client.index());
        let at = self.of(client).end;
        self.filters.insert(at, Filter { until, client, set: set as u32 });
        self.next_end = Some(self.next_end.map_or(until, |t| t.min(until)));
    }

    fn set_of(&mut self, refused: Arc<Resources>) -> usize {
        let same = |s: &RefusedSet| {
            s.filters > 0 && (Arc::ptr_eq(&s.resources, &refused) || s.resources == refused)
        };
        if let Some(i) = self.sets.iter().position(same) {
            return i;
        }
        let new = RefusedSet { resources: refused, ..RefusedSet::default() };
        match self.sets.iter().position(|s| s.filters == 0) {
            Some(i) => {
                self.sets[i] = new;
                i
            }
            None => {
                self.sets.push(new);
                self.sets.len() - 1
            }
        }
    }

    fn remove_at(&mut self, i: usize) {
        let f = self.filters.remove(i);
        self.unlink(f);
        if self.next_end == Some(f.until) {
            self.find_next_end();
        }
    }

    /// Takes a filter that is out of the list out of its set.
    fn unlink(&mut self, f: Filter) {
        let set = &mut self.sets[f.set as usize];
        set.filters -= 1;
        // A client has at most one filter with the same set: `add` merges them.
        set.clients.remove(f.client.index());
        if set.filters == 0 {
            *set = RefusedSet::default();
        }
    }

    fn find_next_end(&mut self) {
        self.next_end = self.filters.iter().map(|f| f.until).min();
    }

    /// Drops all filters of a client; whether there were any.
    pub(super) fn remove_client(&mut self, client: ClientId) -> bool {
        let range = self.of(client);
        let any = !range.is_empty();
        for i in range.rev() {
            self.remove_at(i);
        }
        any
    }

    /// Drops what ended by `now`; `gone` hears of each client that has none left
    /// or fewer than before.
    pub(super) fn expire(&mut self, now: Time, mut gone: impl FnMut(ClientId, bool)) {
        let mut ended = Vec::new();
        self.filters.retain(|f| {
            if f.until <= now {
                ended.push(*f);
            }
            f.until > now
        });
        for f in ended {
            self.unlink(f);
            gone(f.client, self.of(f.client).is_empty());
        }
        self.find_next_end();
    }

    /// Those that have filters here, each once.
    pub(super) fn clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.filters.chunk_by(|a, b| a.client == b.client).map(|same| same[0].client)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sets against filters, and the order of the filters.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.filters.is_sorted_by_key(|f| f.client) {
            return Err("filters are not sorted by client".to_owned());
        }
        for (i, set) in self.sets.iter().enumerate() {
            let mut clients = BitSet::default();
            let mut filters = 0;
            for f in self.filters.iter().filter(|f| f.set as usize == i) {
                clients.insert(f.client.index());
                filters += 1;
            }
            if filters != set.filters || !clients.iter().eq(set.clients.iter()) {
                return Err(format!("refused set {i} does not match its filters"));
            }
        }
        if self.next_end != self.filters.iter().map(|f| f.until).min() {
            return Err("the earliest end of a filter is wrong".to_owned());
        }
        Ok(())
    }
}
