//! One copy of what many tasks share.

use std::{collections::BTreeSet, sync::Arc};

use mezz_proto::resources::Resources;

/// Different resource sets that are remembered. A cluster's tasks come in few
/// sizes; where they do not (a port each), sharing does not help anyway.
const CAPACITY: usize = 1024;

/// Shares equal resource sets.
#[derive(Debug, Default)]
pub(in crate::core) struct Interner(BTreeSet<Arc<Resources>>);

impl Interner {
    /// The shared copy of `resources`.
    pub fn resources(&mut self, resources: impl Into<Arc<Resources>>) -> Arc<Resources> {
        let resources = resources.into();
        if let Some(known) = self.0.get(&resources) {
            return Arc::clone(known);
        }
        if self.0.len() >= CAPACITY {
            self.0.clear();
        }
        self.0.insert(Arc::clone(&resources));
        resources
    }
}
