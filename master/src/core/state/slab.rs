//! Dense storage with small keys that are reused.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

use crate::allocator::{AgentKey, FrameworkKey};

/// A key that is a slot's number.
pub(in crate::core) trait SlotKey: Copy {
    /// The key of this slot.
    fn from_slot(slot: u32) -> Self;
    /// Its slot.
    fn slot(self) -> u32;
}

impl SlotKey for AgentKey {
    fn from_slot(slot: u32) -> Self {
        Self(slot)
    }
    fn slot(self) -> u32 {
        self.0
    }
}

impl SlotKey for FrameworkKey {
    fn from_slot(slot: u32) -> Self {
        Self(slot)
    }
    fn slot(self) -> u32 {
        self.0
    }
}

/// Values in numbered slots. The order of iteration is that of the slots, so it
/// depends on nothing but the history of insertions and removals.
#[derive(Debug)]
pub(in crate::core) struct Slab<K, T> {
    /// Each but the last has [`PART`] slots. One large vector would be copied whenever it
    /// grows, and have room for up to twice as many as there are.
    parts: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

/// Slots that are made room for together.
const PART: usize = 256;

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Self { parts: Vec::new(), free: Vec::new(), key: PhantomData }
    }
}

impl<K: SlotKey, T> Slab<K, T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots() - self.free.len()
    }

    fn slots(&self) -> usize {
        self.parts.split_last().map_or(0, |(last, full)| full.len() * PART + last.len())
    }

    fn slot(&self, slot: u32) -> Option<&Option<T>> {
        self.parts.get(slot as usize / PART)?.get(slot as usize % PART)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Option<T>> {
        self.parts.get_mut(slot as usize / PART)?.get_mut(slot as usize % PART)
    }

    fn push(&mut self, value: Option<T>) {
        match self.parts.last_mut() {
            Some(last) if last.len() < PART => last.push(value),
            _ => {
                // The first grows as it must: a small cluster has one, with few.
                let room = if self.parts.is_empty() { 0 } else { PART };
                let mut part = Vec::with_capacity(room);
                part.push(value);
                self.parts.push(part);
            }
        }
    }

    /// Puts the value that `make` makes of its key into a free slot.
    pub fn insert_with(&mut self, make: impl FnOnce(K) -> T) -> K {
        if let Some(free) = self.free.pop() {
            let key = K::from_slot(free);
            if let Some(slot) = self.slot_mut(free) {
                *slot = Some(make(key));
            }
            return key;
        }
        // Limits on agents, frameworks and tasks keep this far below 2^32.
        let key = K::from_slot(self.slots() as u32);
        self.push(Some(make(key)));
        key
    }

    /// Takes the value out.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let value = self.slot_mut(key.slot())?.take();
        if value.is_some() {
            self.free.push(key.slot());
        }
        value
    }

    /// The value, if the slot is in use.
    pub fn get(&self, key: K) -> Option<&T> {
        self.slot(key.slot())?.as_ref()
    }

    /// Keys and values, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.parts
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(i, v)| Some((K::from_slot(i as u32), v.as_ref()?)))
    }
}

/// Keys are made by the slab alone and are held only while the value is there,
/// so a missing one is a bug of the core and no input can cause it.
impl<K: SlotKey, T> Index<K> for Slab<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        match self.get(key) {
            Some(value) => value,
            None => unreachable!("slot {} is empty", key.slot()),
        }
    }
}

impl<K: SlotKey, T> IndexMut<K> for Slab<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        match self.slot_mut(key.slot()).and_then(Option::as_mut) {
            Some(value) => value,
            None => unreachable!("slot {} is empty", key.slot()),
        }
    }
}
