//! Drivers by number. The Java object keeps the number in its field `__driver`, where
//! libmesos keeps a pointer: a stale number is an error, not a crash.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

pub(crate) struct Handles<T>(Mutex<Entries<T>>);

struct Entries<T> {
    /// 0 is what a field holds that was never set.
    last: i64,
    live: BTreeMap<i64, Arc<T>>,
}

impl<T> Handles<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Entries { last: 0, live: BTreeMap::new() }))
    }

    pub fn add(&self, value: T) -> i64 {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.last += 1;
        let handle = entries.last;
        entries.live.insert(handle, Arc::new(value));
        handle
    }

    pub fn get(&self, handle: i64) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).live.get(&handle).cloned()
    }

    pub fn remove(&self, handle: i64) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).live.remove(&handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_used_twice() {
        let handles = Handles::new();
        assert!(handles.get(0).is_none());
        let first = handles.add('a');
        assert_eq!(handles.remove(first).as_deref(), Some(&'a'));
        let second = handles.add('b');
        assert!(handles.get(first).is_none() && handles.remove(first).is_none());
        assert_eq!(handles.get(second).as_deref(), Some(&'b'));
    }
}
