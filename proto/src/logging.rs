//! How much a server logs, as operators change it for a while (behaviour rule 80,
//! SET_LOGGING_LEVEL).
//!
//! The program that installs the log's filter says here how it is changed; master and
//! agent only ask for it. There is one log in a process, so there is one of these.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Changes what is logged.
pub trait LogControl: Send + Sync {
    /// 0: what the program was started with; 1: details of Mezz, too; from 2 on:
    /// everything of it.
    fn set(&self, verbosity: u32);
}

static CONTROL: OnceLock<Box<dyn LogControl>> = OnceLock::new();
static STATE: Mutex<State> = Mutex::new(State { verbosity: 0, changes: 0 });

struct State {
    verbosity: u32,
    changes: u64,
}

fn state() -> MutexGuard<'static, State> {
    // Nothing panics while it is held but a control, and then the numbers are right.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says how it is done. Once in a process; later calls change nothing.
pub fn install(control: Box<dyn LogControl>) {
    drop(CONTROL.set(control));
}

/// What is set now; 0 is what the program was started with.
pub fn verbosity() -> u32 {
    state().verbosity
}

/// A change that is to end.
#[derive(Debug)]
#[must_use = "a change that nobody reverts lasts"]
pub struct Change(u64);

/// Sets it. `None`: this program cannot.
pub fn set(verbosity: u32) -> Option<Change> {
    let control = CONTROL.get()?;
    let mut state = state();
    control.set(verbosity);
    state.verbosity = verbosity;
    state.changes += 1;
    Some(Change(state.changes))
}

impl Change {
    /// Back to what the program was started with, unless another change has followed.
    pub fn revert(self) {
        let mut state = state();
        if let Some(control) = CONTROL.get()
            && state.changes == self.0
        {
            control.set(0);
            state.verbosity = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Told(Arc<Mutex<Vec<u32>>>);

    impl LogControl for Told {
        fn set(&self, verbosity: u32) {
            self.0.lock().unwrap().push(verbosity);
        }
    }

    #[test]
    fn the_last_change_holds_until_its_own_end() {
        assert!(set(1).is_none(), "nobody has said how");
        let told = Arc::new(Mutex::new(Vec::new()));
        install(Box::new(Told(told.clone())));
        let first = set(1).unwrap();
        let second = set(2).unwrap();
        first.revert();
        assert_eq!(verbosity(), 2);
        second.revert();
        assert_eq!((verbosity(), told.lock().unwrap().clone()), (0, vec![1, 2, 0]));
    }
}
