//! The states of a driver, as libmesos has them, and who waits for its end.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

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
    /// The thread that is in a callback.
    calling: Option<ThreadId>,
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
        let state = State { status: Status::NotStarted, stopping: false, calling: None };
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

    /// A callback may be made: the driver runs. It lasts until the answer is dropped.
    pub fn callback(&self) -> Option<Callback<'_>> {
        let mut state = self.lock();
        (state.status == Status::Running).then(|| {
            state.calling = Some(thread::current().id());
            Callback { life: self }
        })
    }

    /// Waits until the driver does not run, until it is known to the master that it was
    /// stopped, and until a callback that was under way has returned: the program may exit
    /// right after. As with libmesos, the callback of a driver that had ended before is not
    /// waited for, nor one that asks itself.
    pub fn join(&self) -> Status {
        let state = self.lock();
        let ran = state.status == Status::Running;
        let asks = Some(thread::current().id());
        let busy = |state: &mut State| {
            let calling = ran && state.calling.is_some() && state.calling != asks;
            state.status == Status::Running || state.stopping || calling
        };
        let state = self.changed.wait_while(state, busy);
        state.unwrap_or_else(PoisonError::into_inner).status
    }
}

/// A callback is under way.
#[derive(Debug)]
pub(crate) struct Callback<'a> {
    life: &'a Life,
}

impl Drop for Callback<'_> {
    fn drop(&mut self) {
        self.life.lock().calling = None;
        self.life.changed.notify_all();
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

    /// The main thread of most programs exits as soon as `run()` returns: it must not cut off
    /// the callback that tells why.
    #[test]
    fn join_waits_until_the_callback_has_returned() {
        let life = Arc::new(Life::new());
        assert!(life.callback().is_none());
        life.start();
        let (returns, told) = std::sync::mpsc::channel();
        let waiting = thread::spawn({
            let life = life.clone();
            move || {
                let _ = returns.send(life.status());
                returns.send(life.join())
            }
        });
        let callback = life.callback().expect("the driver runs");
        let soon = std::time::Duration::from_millis(500);
        assert_eq!(told.recv(), Ok(Status::Running), "it is about to join");
        assert!(told.recv_timeout(soon).is_err(), "it runs");
        life.abort();
        assert!(told.recv_timeout(soon).is_err(), "the callback is under way");
        assert_eq!(life.join(), Status::Aborted, "asked by the callback itself");
        drop(callback);
        assert_eq!(told.recv_timeout(soon * 50), Ok(Status::Aborted));
        waiting.join().unwrap().unwrap();
        assert!(life.callback().is_none());
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
