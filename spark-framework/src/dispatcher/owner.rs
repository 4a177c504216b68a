//! The task that owns the core: one input at a time, stored before it is followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mezz_proto::{
    time::Time,
    v1::{self, framework_info::capability::Type as Capability},
};
use mezz_sdk::{
    build::FrameworkBuilder,
    scheduler::{self, Closed, Events, Scheduler, SchedulerOptions},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    DispatcherError, DispatcherOptions, DriverView,
    core::{Core, Event, KillAnswer, Output, QueueFull, Submission},
    files::Files,
    job::Job,
    store::{Snapshot, StoreOp, SubmissionStore},
};

/// How long drivers outlive their dispatcher.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How the master says that it has ended a framework, or forgotten it.
const FORGOTTEN: &str = "Framework has been removed";

/// How the master says that another process has subscribed as this framework.
const TAKEN_OVER: &str = "Framework failed over";

/// Before a leader that was pushed aside by a former one subscribes again: the other
/// notices meanwhile that it leads no more.
const PUSHED_ASIDE: Duration = Duration::from_millis(500);

/// How long the last calls may take on their way to the master.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often files that nobody uses are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// What clients want.
pub(super) enum Request {
    Create(Box<Job>, oneshot::Sender<Result<String, QueueFull>>),
    Kill(String, oneshot::Sender<KillAnswer>),
    KillAll(oneshot::Sender<usize>),
    Clear(oneshot::Sender<usize>),
    Get(String, oneshot::Sender<Option<DriverView>>),
    List(oneshot::Sender<Vec<DriverView>>),
    Ready(oneshot::Sender<bool>),
}

/// How following the master ended.
enum End {
    /// On request.
    Told,
    /// The master has ended the framework; there is to be a new one.
    Forgotten,
    /// Another process has subscribed in this one's place.
    PushedAside,
}

pub(super) struct Owner<S> {
    options: DispatcherOptions,
    core: Core,
    store: S,
    files: Files,
    framework: Option<String>,
    clock: Clock,
    subscribed: bool,
}

impl<S: SubmissionStore> Owner<S> {
    pub(super) fn new(
        options: DispatcherOptions,
        store: S,
        files: Files,
        snapshot: Snapshot,
    ) -> io::Result<Self> {
        let clock = Clock::new();
        let stored = snapshot.submissions;
        info!(submissions = stored.len(), framework = snapshot.framework, "read what was stored");
        let mut core = Core::new(options.core.clone(), stored, snapshot.next, clock.now());
        let wanted = core.uploads();
        let held = files.held(wanted.clone())?;
        let lost: BTreeSet<String> = wanted.difference(&held).cloned().collect();
        if !lost.is_empty() {
            warn!(
                files = lost.len(),
                folder = %files.folder().display(),
                "uploaded files are not in the folder; drivers that wait for them end"
            );
            core.lose(lost);
        }
        let framework = snapshot.framework;
        Ok(Self { options, core, store, files, framework, clock, subscribed: false })
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Request>,
        shutdown: CancellationToken,
    ) -> Result<(), DispatcherError> {
        loop {
            let (scheduler, mut events) = scheduler::connect(self.scheduler_options())?;
            let end = self.follow(&scheduler, &mut events, &mut inbox, &shutdown).await?;
            self.subscribed = false;
            match end {
                End::Told => {
                    // Drivers go on; the framework is taken over by the next run.
                    let _ = tokio::time::timeout(STOP_TIMEOUT, scheduler.stop()).await;
                    return Ok(());
                }
                End::Forgotten => {
                    warn!("the master has ended this framework and its drivers; beginning anew");
                    self.framework = None;
                    let mut out = Vec::new();
                    self.core.handle(self.clock.now(), Event::Forgotten, &mut out);
                    let mut ops = vec![StoreOp::Framework(None)];
                    ops.extend(out.iter().filter_map(to_store));
                    self.store.apply(ops).await?;
                }
                End::PushedAside => {
                    warn!("another process has subscribed as this framework; subscribing again");
                    tokio::time::sleep(PUSHED_ASIDE).await;
                    self.store.check()?;
                }
            }
        }
    }

    fn scheduler_options(&self) -> SchedulerOptions {
        let o = &self.options;
        let mut framework = FrameworkBuilder::new(&o.name)
            .user(&o.user)
            .roles([&o.core.role])
            .failover_timeout(FAILOVER_TIMEOUT)
            .checkpoint(true)
            // For drivers that need some; others go there only where no other place is.
            .capability(Capability::GpuResources)
            .webui_url(format!("http://{}/mezz/v1/submissions", o.core.address));
        if let Some(id) = &self.framework {
            framework = framework.id(v1::FrameworkId { value: id.clone() });
        }
        let mut options = SchedulerOptions::new(&o.core.masters, framework.build());
        options.credential.clone_from(&o.credential);
        if !self.core.wants_offers() {
            options.suppressed_roles = vec![o.core.role.clone()];
        }
        options
    }

    async fn follow(
        &mut self,
        scheduler: &Scheduler,
        events: &mut Events,
        inbox: &mut mpsc::Receiver<Request>,
        shutdown: &CancellationToken,
    ) -> Result<End, DispatcherError> {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            let deadline = self.core.next_deadline().map(|at| at.since(self.clock.now()));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(End::Told),
                event = events.next() => match event {
                    Some(event) => {
                        self.store.check()?;
                        if let Some(end) = self.event(event, scheduler).await? {
                            return Ok(end);
                        }
                    }
                    None => {
                        let message = "the scheduler driver has ended".to_owned();
                        return Err(DispatcherError::Refused(message));
                    }
                },
                Some(request) = inbox.recv() => {
                    self.store.check()?;
                    self.request(request, scheduler).await?;
                }
                _ = sweep.tick() => {
                    self.store.check()?;
                    self.sweep(&BTreeMap::new()).await;
                }
                () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() => {
                    self.store.check()?;
                    let mut out = Vec::new();
                    self.core.on_deadline(self.clock.now(), &mut out);
                    self.settle(out, scheduler).await?;
                }
            }
        }
    }

    async fn event(
        &mut self,
        event: scheduler::Event,
        scheduler: &Scheduler,
    ) -> Result<Option<End>, DispatcherError> {
        let event = match event {
            scheduler::Event::Subscribed { framework_id, .. } => {
                let id = framework_id.value;
                info!(framework = id, "subscribed");
                if self.framework.as_ref() != Some(&id) {
                    self.store.apply(vec![StoreOp::Framework(Some(id.clone()))]).await?;
                    self.framework = Some(id);
                }
                self.subscribed = true;
                Event::Subscribed
            }
            scheduler::Event::Offers(offers) => Event::Offers(offers),
            scheduler::Event::Update(status) => Event::Update(Box::new(status)),
            scheduler::Event::Disconnected { reason } => {
                self.subscribed = false;
                warn!(reason, "no master; going on trying");
                return Ok(None);
            }
            scheduler::Event::Error(message) if message.contains(FORGOTTEN) => {
                return Ok(Some(End::Forgotten));
            }
            scheduler::Event::Error(message)
                if self.store.is_shared() && message.contains(TAKEN_OVER) =>
            {
                return Ok(Some(End::PushedAside));
            }
            scheduler::Event::Error(message) => return Err(DispatcherError::Refused(message)),
            // Launching on a dead offer comes back as a dropped task.
            scheduler::Event::Rescind(_)
            | scheduler::Event::Failure { .. }
            | scheduler::Event::Message { .. } => return Ok(None),
        };
        let mut out = Vec::new();
        self.core.handle(self.clock.now(), event, &mut out);
        self.settle(out, scheduler).await?;
        Ok(None)
    }

    async fn request(
        &mut self,
        request: Request,
        scheduler: &Scheduler,
    ) -> Result<(), DispatcherError> {
        let now = self.clock.now();
        let mut out = Vec::new();
        // An answer to one who has gone is nobody's loss.
        match request {
            Request::Create(job, reply) => {
                let answer = self.core.submit(now, *job, &mut out);
                self.settle(out, scheduler).await?;
                let _ = reply.send(answer);
            }
            Request::Kill(id, reply) => {
                let answer = self.core.kill(now, &id, &mut out);
                self.settle(out, scheduler).await?;
                let _ = reply.send(answer);
            }
            Request::KillAll(reply) => {
                let answer = self.core.kill_all(now, &mut out);
                self.settle(out, scheduler).await?;
                let _ = reply.send(answer);
            }
            Request::Clear(reply) => {
                let answer = self.core.clear(&mut out);
                self.settle(out, scheduler).await?;
                let _ = reply.send(answer);
            }
            Request::Get(id, reply) => {
                let _ = reply.send(self.core.get(&id).map(|s| self.view(s)));
            }
            Request::List(reply) => {
                let _ = reply.send(self.core.list().into_iter().map(|s| self.view(s)).collect());
            }
            Request::Ready(reply) => {
                let _ = reply.send(self.subscribed);
            }
        }
        Ok(())
    }

    fn view(&self, submission: &Submission) -> DriverView {
        DriverView::of(submission, self.framework.as_deref())
    }

    /// Stores what is to be stored, then does the rest.
    async fn settle(
        &mut self,
        out: Vec<Output>,
        scheduler: &Scheduler,
    ) -> Result<(), DispatcherError> {
        let ops: Vec<StoreOp> = out.iter().filter_map(to_store).collect();
        if !ops.is_empty() {
            self.store.apply(ops).await?;
            // It may have taken long.
            self.store.check()?;
        }
        let roles = std::slice::from_ref(&self.options.core.role);
        let mut forgotten = BTreeMap::new();
        for output in out {
            let done = match output {
                Output::Put(submission) => {
                    tell(&submission);
                    Ok(())
                }
                Output::Remove(submission) => {
                    let submitted = UNIX_EPOCH + Duration::from_nanos(submission.submitted);
                    for token in submission.job.tokens() {
                        let last = forgotten.entry(token).or_insert(submitted);
                        *last = submitted.max(*last);
                    }
                    Ok(())
                }
                Output::Launch { offers, task } => scheduler.launch(offers, vec![*task]).await,
                Output::Decline { offers, refuse } => scheduler.decline(offers, Some(refuse)).await,
                Output::Suppress => scheduler.suppress(roles).await,
                Output::Revive => scheduler.revive(roles).await,
                Output::Kill { task, agent } => {
                    let agent = agent.map(|value| v1::AgentId { value });
                    scheduler.kill(v1::TaskId { value: task }, agent, None).await
                }
                Output::Reconcile(tasks) => {
                    let tasks = tasks.into_iter().map(|(task, agent)| {
                        (v1::TaskId { value: task }, Some(v1::AgentId { value: agent }))
                    });
                    scheduler.reconcile(tasks).await
                }
            };
            // When the driver of the SDK has ended, its last event says why.
            let (Ok(()) | Err(Closed)) = done;
        }
        if !forgotten.is_empty() {
            self.sweep(&forgotten).await;
        }
        Ok(())
    }

    /// Removes files that no driver names any more.
    async fn sweep(&self, forgotten: &BTreeMap<String, SystemTime>) {
        let used = self.core.list().into_iter().flat_map(|s| s.job.tokens()).collect();
        if let Err(error) = self.files.sweep(&used, forgotten).await {
            warn!(%error, "files that nobody uses any more cannot be removed");
        }
    }
}

fn tell(submission: &Submission) {
    let host = submission.live().map(|a| a.host.as_str());
    let state = submission.state.name();
    info!(driver = submission.id, state, host, message = submission.message, "driver");
}

fn to_store(output: &Output) -> Option<StoreOp> {
    match output {
        Output::Put(submission) => Some(StoreOp::Put(submission.clone())),
        Output::Remove(submission) => Some(StoreOp::Remove(submission.id.clone())),
        _ => None,
    }
}

/// Time that does not go back.
struct Clock {
    wall: Time,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Time::ZERO + wall, start: Instant::now() }
    }

    fn now(&self) -> Time {
        self.wall + self.start.elapsed()
    }
}
