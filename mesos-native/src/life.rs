//! The states of a driver, as libmesos has them, and who waits for its end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// `org.apache.mesos.Protos.Status`, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    NotStarted = 1,
    Running = 2,
    Aborted = 3,
    Stopped = 4,
}

/// What a call may do, decided by the state before it. Pure.
#[derive(Debug)]
struct State {
    status: Status,
    /// A call to `stop` has not done yet what it must.
    stopping: bool,
}

impl State {
    fn start(&mut self) -> bool {
        let first = self.status == Status::NotStarted;
        if first {
            self.status = Status::Running;
        }
        first
    }

    /// An aborted driver answers that it was aborted once more, and is stopped then.
    fn stop(&mut self) -> (Status, bool) {
        match self.status {
            Status::Running | Status::Aborted => {
                let aborted = self.status == Status::Aborted;
                self.status = Status::Stopped;
                self.stopping = true;
                (if aborted { Status::Aborted } else { Status::Stopped }, true)
            }
            Status::NotStarted | Status::Stopped => (self.status, false),
        }
    }

    fn abort(&mut self) -> (Status, bool) {
        let running = self.status == Status::Running;
        if running {
            self.status = Status::Aborted;
        }
        (self.status, running)
    }
}

/// A driver's state, shared by the threads that call it.
#[derive(Debug)]
pub(crate) struct Life {
    state: Mutex<State>,
    changed: Condvar,
}

impl Life {
    pub fn new() -> Self {
        let state = State { status: Status::NotStarted, stopping: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> Status {
        self.lock().status
    }

    pub fn is_running(&self) -> bool {
        self.status() == Status::Running
    }

    /// Whether this is the first start: otherwise nothing is to be done.
    pub fn start(&self) -> bool {
        self.lock().start()
    }

    /// What to answer, and whether to end the driver; then [`stopped`](Self::stopped) must
    /// follow.
    pub fn stop(&self) -> (Status, bool) {
        let answer = self.lock().stop();
        self.changed.notify_all();
        answer
    }

    /// What `stop` had to do is done.
    pub fn stopped(&self) {
        self.lock().stopping = false;
        self.changed.notify_all();
    }

    /// What to answer, and whether it was this call that aborted a running driver.
    pub fn abort(&self) -> (Status, bool) {
        let answer = self.lock().abort();
        self.changed.notify_all();
        answer
    }

    /// Waits until the driver does not run, and until it is known to the master that it was
    /// stopped: the program may exit right after.
    pub fn join(&self) -> Status {
        let busy = |state: &mut State| state.status == Status::Running || state.stopping;
        let state = self.changed.wait_while(self.lock(), busy);
        state.unwrap_or_else(PoisonError::into_inner).status
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn starts_once_and_not_after_the_end() {
        let life = Life::new();
        assert_eq!(life.stop(), (Status::NotStarted, false));
        assert_eq!(life.abort(), (Status::NotStarted, false));
        assert_eq!(life.join(), Status::NotStarted);
        assert!(life.start() && !life.start() && life.is_running());
        assert_eq!(life.stop(), (Status::Stopped, true));
        life.stopped();
        assert!(!life.start());
        assert_eq!(life.stop(), (Status::Stopped, false));
        assert_eq!(life.abort(), (Status::Stopped, false));
    }

    /// Programs end with `run()` and `stop()`, whatever `run()` says.
    #[test]
    fn an_aborted_driver_can_be_stopped_once_and_says_that_it_was_aborted() {
        let life = Life::new();
        life.start();
        assert_eq!(life.abort(), (Status::Aborted, true));
        assert_eq!(life.abort(), (Status::Aborted, false));
        assert_eq!(life.join(), Status::Aborted);
        assert_eq!(life.stop(), (Status::Aborted, true));
        life.stopped();
        assert_eq!(life.join(), Status::Stopped);
    }

    #[test]
    fn join_waits_until_stop_is_done() {
        let life = Arc::new(Life::new());
        life.start();
        let waiting = thread::spawn({
            let life = life.clone();
            move || life.join()
        });
        life.stop();
        assert!(!waiting.is_finished());
        life.stopped();
        assert_eq!(waiting.join().unwrap(), Status::Stopped);
    }
}
