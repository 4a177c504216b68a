//! `MesosSchedulerDriver`: a framework's driver, made of the SDK's.

mod callbacks;
mod entries;

use std::{
    future::Future,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mezz_sdk::{
    Credential,
    scheduler::{AcknowledgeMode, Closed, Events, Scheduler, SchedulerOptions, connect},
    v1,
};
use tokio::{runtime::Handle, time::timeout};
use tracing::warn;

use crate::{
    error::Error,
    life::{Life, Status},
    masters::{self, Masters, MastersError},
    runtime,
};

/// How long `stop` waits for the master to confirm that the framework is torn down.
const TEARDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// The same, while no master is connected: one may be about to take over.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);
/// How long `stop` waits for what was sent before.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What a driver was made with.
struct Settings {
    /// As the program gave it.
    master: String,
    framework: v1::FrameworkInfo,
    credential: Option<Credential>,
    /// Roles that want no offers at first.
    suppressed_roles: Vec<String>,
    /// Updates are acknowledged when the callback has returned.
    implicit: bool,
}

/// One driver. References to the JVM's objects are held only by the callbacks' thread, so that
/// a driver that has ended can be collected.
struct Driver {
    settings: Settings,
    life: Life,
    link: OnceLock<Link>,
    /// The program was told so, and not that it is not.
    connected: AtomicBool,
}

/// To the SDK's driver, once it is started.
struct Link {
    runtime: Handle,
    calls: Scheduler,
}

impl Driver {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            life: Life::new(),
            link: OnceLock::new(),
            connected: AtomicBool::new(false),
        }
    }

    /// Where the masters are, reading the file that may say so.
    fn masters(&self) -> Result<Vec<String>, MastersError> {
        match masters::parse(&self.settings.master)? {
            Masters::Listed(masters) => Ok(masters),
            Masters::In(file) => match std::fs::read_to_string(&file) {
                Ok(text) => masters::parse_file(&text),
                Err(error) => Err(MastersError::File { file, reason: error.to_string() }),
            },
        }
    }

    /// Starts the SDK's driver.
    fn connect(&self, masters: Vec<String>) -> Result<Events, Error> {
        let runtime = runtime::handle()?;
        let mut options = SchedulerOptions::new(masters, self.settings.framework.clone());
        options.credential.clone_from(&self.settings.credential);
        options.suppressed_roles.clone_from(&self.settings.suppressed_roles);
        // By us in either case: not after a callback that threw.
        options.acknowledge = AcknowledgeMode::Explicit;
        let (calls, events) = {
            let _entered = runtime.enter();
            connect(options)?
        };
        // Only the first start comes here.
        let _ = self.link.set(Link { runtime, calls });
        Ok(events)
    }

    /// Makes a call, if the driver runs, and says whether it does. Calls of a driver that has
    /// ended are dropped.
    fn call<F>(&self, call: impl FnOnce(Scheduler) -> F) -> Status
    where
        F: Future<Output = Result<(), Closed>>,
    {
        if self.life.is_running()
            && let Some(link) = self.link.get()
        {
            // Of a driver that is ending; its last callback tells why.
            let _ = link.runtime.block_on(call(link.calls.clone()));
        }
        self.life.status()
    }

    fn accept(
        &self,
        offers: Vec<v1::OfferId>,
        operations: Vec<v1::offer::Operation>,
        filters: Option<v1::Filters>,
    ) -> Status {
        self.call(|calls| async move { calls.accept(offers, operations, filters).await })
    }

    fn decline(&self, offer: v1::OfferId, filters: Option<v1::Filters>) -> Status {
        self.call(|calls| async move { calls.decline_with(vec![offer], filters).await })
    }

    /// How long a teardown may take. It is tried in any case: the master may have made the
    /// framework a moment ago, and the SDK knows when there can be none.
    fn teardown_patience(&self) -> Duration {
        if self.connected.load(Ordering::Relaxed) { TEARDOWN_PATIENCE } else { RETURN_PATIENCE }
    }

    /// Ends the driver. Without `failover` the framework and its tasks end, too, if a
    /// master can be told: while none is connected, one that returns is waited for.
    fn stop(&self, failover: bool) -> Status {
        let (answer, ends) = self.life.stop();
        if ends {
            if let Some(link) = self.link.get() {
                let patience = (!failover).then(|| self.teardown_patience());
                link.runtime.block_on(end(link.calls.clone(), patience));
            }
            self.life.stopped();
        }
        answer
    }

    /// After the start: a `stop` or `abort` of another thread may have found nothing to end.
    fn settle(&self) {
        let Some(link) = self.link.get() else { return };
        match self.life.status() {
            Status::Stopped => {
                link.runtime.block_on(end(link.calls.clone(), None));
            }
            Status::Aborted => self.hold_nothing(link),
            Status::NotStarted | Status::Running => {}
        }
    }

    /// No callback follows, and no offers are held any more; tasks go on. The link stays, so
    /// that the framework ends only with `stop`, or with the process and its failover timeout.
    fn abort(&self) -> Status {
        let (answer, aborted) = self.life.abort();
        if aborted && let Some(link) = self.link.get() {
            self.hold_nothing(link);
        }
        answer
    }

    fn hold_nothing(&self, link: &Link) {
        // One that has ended holds nothing.
        let _ = link.runtime.block_on(link.calls.withdraw());
    }
}

/// Tears the framework down first, if there is patience for it.
async fn end(calls: Scheduler, teardown: Option<Duration>) {
    if let Some(patience) = teardown {
        match timeout(patience, calls.teardown()).await {
            Ok(_) => return,
            Err(_) => warn!("the master did not confirm the teardown; the framework may live on"),
        }
    }
    // Fails when it has ended already.
    let _ = timeout(STOP_PATIENCE, calls.stop()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A master that fails over must not save a framework from its end, nor one that has just
    /// begun.
    #[test]
    fn frameworks_are_torn_down_also_while_no_master_is_connected() {
        let driver = Driver::new(Settings {
            master: "m:1".to_owned(),
            framework: v1::FrameworkInfo::default(),
            credential: None,
            suppressed_roles: Vec::new(),
            implicit: true,
        });
        assert_eq!(driver.teardown_patience(), RETURN_PATIENCE);
        driver.connected.store(true, Ordering::Relaxed);
        assert_eq!(driver.teardown_patience(), TEARDOWN_PATIENCE);
    }
}
