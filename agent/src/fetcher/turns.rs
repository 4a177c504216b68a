//! Turns: how many things of a kind go on at one time, fairly between frameworks.
//!
//! A slow server keeps the turns of those that fetch from it, so no framework can have
//! them all: each may always have one, and more while there are some left for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use mezz_proto::ids::FrameworkId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Of one framework; at least 1.
    pub(super) each: usize,
    /// Of all, beside the first of each framework.
    pub(super) all: usize,
}

/// Hands out turns.
#[derive(Debug)]
pub(super) struct Turns {
    each: usize,
    all: Arc<Semaphore>,
    frameworks: Mutex<HashMap<FrameworkId, Weak<Own>>>,
}

/// What is left to one framework.
#[derive(Debug)]
struct Own {
    first: Arc<Semaphore>,
    more: Arc<Semaphore>,
}

/// Over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    /// Kept in the map by those that have a turn or wait for one.
    _own: Arc<Own>,
}

impl Turns {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            each: bounds.each,
            all: Arc::new(Semaphore::new(bounds.all)),
            frameworks: Mutex::default(),
        }
    }

    /// Waits for one. May be dropped at any time.
    pub(super) async fn take(&self, framework: &FrameworkId) -> Turn {
        let own = self.own(framework);
        // Semaphores are closed by nobody.
        let first = Arc::clone(&own.first).acquire_owned();
        let more = async {
            let own = Arc::clone(&own.more).acquire_owned().await.ok();
            (own, Arc::clone(&self.all).acquire_owned().await.ok())
        };
        let permits = tokio::select! {
            biased;
            first = first => [first.ok(), None],
            (own, all) = more => [own, all],
        };
        Turn { _permits: permits, _own: own }
    }

    fn own(&self, framework: &FrameworkId) -> Arc<Own> {
        // Nothing panics while it is held.
        let mut frameworks = self.frameworks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = frameworks.get(framework).and_then(Weak::upgrade) {
            return own;
        }
        frameworks.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Own {
            first: Arc::new(Semaphore::new(1)),
            more: Arc::new(Semaphore::new(self.each.saturating_sub(1))),
        });
        frameworks.insert(framework.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn each_framework_has_one_and_none_has_all() {
        let turns = Turns::new(Bounds { each: 3, all: 3 });
        let take = |framework: &str| turns.take(&framework.into()).now_or_never();
        let mut of_a: Vec<_> = (0..3).map(|_| take("a").unwrap()).collect();
        assert!(take("a").is_none(), "its own are all taken");
        let of_b = [take("b").unwrap(), take("b").unwrap()];
        assert!(take("b").is_none(), "those of all are taken");
        let _of_c = take("c").unwrap();
        assert!(take("c").is_none());
        drop(of_b);
        assert!(take("b").is_some() && take("c").is_some());
        of_a.pop();
        assert!(take("a").is_some());
        drop(of_a);
        assert_eq!(turns.frameworks.lock().unwrap().len(), 3);
        let _of_d = take("d").unwrap();
        assert_eq!(turns.frameworks.lock().unwrap().len(), 2, "only who has a turn is known");
    }
}
