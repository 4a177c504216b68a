//! `MesosExecutorDriver`: an executor's driver, made of the SDK's.

mod callbacks;
mod entries;
mod environment;

use std::{
    future::Future,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use mezz_sdk::{
    executor::{Closed, Events, Executor, ExecutorOptions, UpdateError, connect},
    v1,
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{runtime::Handle, time::sleep};
use tracing::warn;

use crate::{
    convert,
    error::Error,
    life::{Callback, Life, Status},
    runtime,
};

/// Pause before an update is offered again to a driver that holds as many as it can.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// Not by its number: in a container that may be 1, by which every process is meant.
const OWN_GROUP: Pid = Pid::from_raw(0);

/// One driver. References to the JVM's objects are held only by the callbacks' thread.
struct Driver {
    life: Life,
    link: OnceLock<Link>,
    /// It was told to shut down, which nothing can follow.
    shut_down: AtomicBool,
}

/// To the SDK's driver, once it is started.
struct Link {
    runtime: Handle,
    calls: Executor,
    /// Between `shutdown` and the end of the process.
    grace: Duration,
}

impl Driver {
    fn new() -> Self {
        Self { life: Life::new(), link: OnceLock::new(), shut_down: AtomicBool::new(false) }
    }

    /// Starts the SDK's driver with what the agent put into the environment.
    fn connect(&self) -> Result<Events, Error> {
        let runtime = runtime::handle()?;
        let options = environment::options(|name| std::env::var(name).ok())?;
        let ExecutorOptions { shutdown_grace_period: grace, .. } = options;
        let (calls, events) = {
            let _entered = runtime.enter();
            connect(options)
        };
        // Only the first start comes here.
        let _ = self.link.set(Link { runtime, calls, grace });
        Ok(events)
    }

    /// Makes a call, if the driver runs, and says whether it does.
    fn call<F: Future>(&self, call: impl FnOnce(Executor) -> F) -> Status {
        if self.life.is_running()
            && let Some(link) = self.link.get()
        {
            // Of a driver that is ending nothing is heard any more.
            let _ = link.runtime.block_on(call(link.calls.clone()));
        }
        self.life.status()
    }

    /// Reports a task's state. While the agent is away for so long that no more updates can be
    /// kept, the caller waits.
    fn update(&self, status: v1::TaskStatus) -> Status {
        self.call(|calls| async move {
            let (mut status, mut short) = (status, false);
            loop {
                match calls.update(status.clone()).await {
                    // A driver that another thread aborts meanwhile reports nothing more.
                    Err(UpdateError::TooMany { .. }) if self.life.is_running() => {
                        sleep(FULL_PAUSE).await;
                    }
                    Err(error @ UpdateError::TooLarge { .. }) if !short => {
                        short = true;
                        warn!(task = status.task_id.value, %error, "a state is reported in short");
                        status = convert::shortened(&status, error.to_string());
                    }
                    Ok(()) | Err(_) => break,
                }
            }
        })
    }

    fn message(&self, data: Vec<u8>) -> Status {
        self.call(|calls| async move { calls.message(data).await })
    }

    /// Ends the driver, when the agent has acknowledged every update or 5 s have passed.
    fn stop(&self) -> Status {
        let (answer, ends) = self.life.stop();
        if ends {
            self.end();
            self.life.stopped();
        }
        answer
    }

    /// After the start: a `stop` of another thread may have found nothing to end.
    fn settle(&self) {
        if self.life.status() == Status::Stopped {
            self.end();
        }
    }

    fn end(&self) {
        if let Some(link) = self.link.get() {
            // Fails when it has ended already.
            let _: Result<(), Closed> = link.runtime.block_on(link.calls.stop());
        }
    }

    fn abort(&self) -> Status {
        self.life.abort().0
    }

    /// No callback can follow: a driver that still runs is aborted, unless it was told to shut
    /// down. Says whether it was.
    fn callbacks_ended(&self) -> bool {
        !self.shut_down.load(Ordering::Acquire) && self.life.abort().1
    }

    /// The program may be called.
    fn callback(&self) -> Option<Callback<'_>> {
        if self.shut_down.load(Ordering::Acquire) { None } else { self.life.callback() }
    }

    /// The process ends after the grace period, as with libmesos: many executors do nothing
    /// when they are told to shut down. The agent kills it, too, if it is there.
    fn shut_down(&self) {
        let Some(link) = self.link.get() else { return };
        if self.shut_down.swap(true, Ordering::AcqRel) {
            return;
        }
        let grace = link.grace;
        let started = thread::Builder::new().name("mezz-shutdown".to_owned()).spawn(move || {
            thread::sleep(grace);
            warn!("the executor did not end within {grace:?} of being told to; it is killed now");
            // What it started is in its process group, which the agent made for it.
            let _ = killpg(OWN_GROUP, Signal::SIGKILL);
            // As the first process of a container it is not ended by a signal of its own.
            // SAFETY: ends the process at once; nothing of it runs after this.
            unsafe { nix::libc::_exit(1) };
        });
        if let Err(error) = started {
            warn!(%error, "cannot start a thread that would end this process; the agent must");
        }
    }
}
