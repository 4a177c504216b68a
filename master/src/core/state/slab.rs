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
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), key: PhantomData }
    }
}

impl<K: SlotKey, T> Slab<K, T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts the value that `make` makes of its key into a free slot.
    pub fn insert_with(&mut self, make: impl FnOnce(K) -> T) -> K {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Limits on agents, frameworks and tasks keep this far below 2^32.
            (self.slots.len() - 1) as u32
        });
        let key = K::from_slot(slot);
        self.slots[slot as usize] = Some(make(key));
        key
    }

    /// Takes the value out.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let value = self.slots.get_mut(key.slot() as usize)?.take();
        if value.is_some() {
            self.free.push(key.slot());
        }
        value
    }

    /// The value, if the slot is in use.
    pub fn get(&self, key: K) -> Option<&T> {
        self.slots.get(key.slot() as usize)?.as_ref()
    }

    /// Keys and values, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((K::from_slot(i as u32), v.as_ref()?)))
    }
}

/// Keys are made by the slab alone and are held only while the value is there,
/// so a missing one is a bug of the core and no input can cause it.
impl<K: SlotKey, T> Index<K> for Slab<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        match self.slots[key.slot() as usize].as_ref() {
            Some(value) => value,
            None => unreachable!("slot {} is empty", key.slot()),
        }
    }
}

impl<K: SlotKey, T> IndexMut<K> for Slab<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        match self.slots[key.slot() as usize].as_mut() {
            Some(value) => value,
            None => unreachable!("slot {} is empty", key.slot()),
        }
    }
}
