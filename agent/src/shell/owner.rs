//! The task that owns the core.

use std::{collections::HashMap, sync::Arc};

use mezz_proto::{
    mezz::v1::{AgentMessage, agent_message},
    time::Time,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{AgentError, Input, collect::Collector, container::Runner, now, outgoing::Outgoing};
use crate::{
    api::{Executors, Index, Peer, Roster},
    core::{CallError, Change, ConnectionId, Core, Effect, Effects, Event, LinkId, TaskKey},
    metrics::Metrics,
    store::{Progress, Writer},
};

/// Events that are taken in one go before anything else gets a turn.
const BURST: usize = 256;

/// A connection to a master.
struct Master {
    link: LinkId,
    sender: mpsc::Sender<AgentMessage>,
    close: CancellationToken,
}

pub(super) struct Owner {
    core: Core,
    writer: Writer,
    written: u64,
    outgoing: Outgoing,
    master: Option<Master>,
    executors: HashMap<ConnectionId, Peer>,
    containers: Runner,
    index: Arc<Index>,
    known: Arc<Executors>,
    roster: Arc<Roster>,
    metrics: Arc<Metrics>,
    /// Set when the master has ended the agent's life.
    over: Option<AgentError>,
    effects: Effects,
}

impl Owner {
    pub(super) fn new(
        core: Core,
        writer: Writer,
        containers: Runner,
        index: Arc<Index>,
        known: Arc<Executors>,
        roster: Arc<Roster>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            core,
            writer,
            written: 0,
            outgoing: Outgoing::default(),
            master: None,
            executors: HashMap::new(),
            containers,
            index,
            known,
            roster,
            metrics,
            over: None,
            effects: Effects::default(),
        }
    }

    /// Until `stop`, or until something fails for good. What was decided by then
    /// is on the disk.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<Input>,
        collector: Collector,
        stop: &CancellationToken,
    ) -> Result<(), AgentError> {
        let progress = self.writer.progress();
        let ended = self.decide(&mut events, progress, collector, stop).await;
        self.writer.close().await;
        ended
    }

    async fn decide(
        &mut self,
        events: &mut mpsc::Receiver<Input>,
        mut progress: watch::Receiver<Progress>,
        collector: Collector,
        stop: &CancellationToken,
    ) -> Result<(), AgentError> {
        let mut collected = collector.start(stop.clone());
        let mut batch = Vec::with_capacity(BURST);
        self.take(Event::Started).await;
        loop {
            if let Err(error) = self.release(&mut progress).await {
                break Err(error);
            }
            // It may have been set by what was released.
            if let Some(error) = self.over.take() {
                break Err(error);
            }
            let deadline = self.core.next_deadline().map(instant);
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                // The thread ends in order only after `close`.
                changed = progress.changed() => if changed.is_err() {
                    break Err(AgentError::StoreThread);
                },
                () = sleep_until(deadline) => {
                    self.core.on_deadline(now(), &mut self.effects);
                    self.carry_out().await;
                }
                _ = events.recv_many(&mut batch, BURST) => {
                    self.metrics.event_queue.set(events.len() as f64);
                    for input in batch.drain(..) {
                        self.input(input).await;
                    }
                }
                Some(ops) = collected.recv() => {
                    self.writer.put(ops, false).await;
                }
            }
        }
    }

    async fn input(&mut self, input: Input) {
        match input {
            Input::Core(event) => {
                match &event {
                    Event::LaunchFailed { container, .. }
                    | Event::ContainerEnded { container, .. } => self.containers.ended(container),
                    Event::ExecutorDisconnected { connection } => {
                        self.executors.remove(connection);
                    }
                    Event::LinkDown { link } => {
                        self.master.take_if(|master| master.link == *link);
                    }
                    _ => {}
                }
                self.take(event).await;
            }
            Input::Call { event, room, turn } => {
                self.take(event).await;
                drop((room, turn));
            }
            Input::LinkUp { link, master, sender, close } => {
                tracing::debug!(%master, "linked");
                self.master = Some(Master { link, sender, close });
                self.take(Event::LinkUp { link, master: master.to_string() }).await;
            }
            Input::ExecutorOpened { connection, peer } => {
                self.executors.insert(connection, peer);
            }
        }
    }

    async fn take(&mut self, event: Event) {
        let begun = Instant::now();
        self.core.handle(now(), event, &mut self.effects);
        self.metrics.event_seconds.record(begun.elapsed());
        self.carry_out().await;
    }

    async fn carry_out(&mut self) {
        // Carrying out may find a peer gone, which makes more to carry out.
        loop {
            let Effects { now, persist, after_persist } = std::mem::take(&mut self.effects);
            if now.is_empty() && persist.is_empty() && after_persist.is_empty() {
                break;
            }
            let number = if persist.is_empty() {
                self.writer.last()
            } else {
                self.writer.put(persist, !after_persist.is_empty()).await
            };
            for effect in now {
                if let Some(effect) = self.outgoing.pass(effect) {
                    self.act(effect);
                }
            }
            for effect in after_persist {
                self.outgoing.hold(number, effect);
            }
        }
        self.metrics.live_tasks(self.core.live_tasks());
    }

    /// Lets out what the store has written by now.
    async fn release(
        &mut self,
        progress: &mut watch::Receiver<Progress>,
    ) -> Result<(), AgentError> {
        match &*progress.borrow_and_update() {
            Progress::Written(number) => self.written = *number,
            Progress::Failed(error) => return Err(AgentError::Store(Arc::clone(error))),
        }
        self.metrics.store_waiting.set((self.writer.last() - self.written) as f64);
        while let Some(first) = self.outgoing.pop(self.written) {
            self.act(first);
            while let Some(effect) = self.outgoing.pop(self.written) {
                self.act(effect);
            }
            // What this holds back may rest on nothing unwritten either.
            self.carry_out().await;
        }
        Ok(())
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::SendMaster { link, message } => self.send_master(link, *message),
            Effect::CloseLink { link } => self.close_link(link),
            Effect::Refused { reason } => self.over = Some(AgentError::Refused(reason)),
            Effect::Gone { reason, left } => self.over = Some(AgentError::Gone { reason, left }),
            Effect::Alarm { message } => tracing::error!("{message}"),
            Effect::SendExecutor { connection, event } => {
                let full =
                    self.executors.get(&connection).is_some_and(|peer| !peer.send(Ok(*event)));
                if full {
                    tracing::warn!(?connection, "an executor reads too slowly, or is gone");
                    self.executors.remove(&connection);
                    self.feed_back(Event::ExecutorDisconnected { connection });
                }
            }
            Effect::CloseExecutor { connection, error } => {
                if let Some(peer) = self.executors.remove(&connection)
                    && let Some(error) = error
                {
                    peer.send(Err(status(&error)));
                }
            }
            Effect::Launch(launch) => self.containers.launch(*launch),
            Effect::Watch { container, sandbox, resources } => {
                self.containers.watch(container, sandbox, resources);
            }
            Effect::Signal { container, signal, to } => {
                self.containers.signal(container, signal, to);
            }
            Effect::Destroy { container } => self.containers.destroy(&container),
            Effect::Update { container, resources, limits } => {
                self.containers.update(&container, resources, limits);
            }
            Effect::Probe { container, probe, what, timeout } => {
                self.containers.probe(container, probe, *what, timeout);
            }
            Effect::Remove { container } => self.containers.remove(container),
            Effect::Change(change) => {
                log(&change);
                self.metrics.count(&change);
                self.roster.apply(&change);
                self.known.apply(&change);
                self.index.apply(change);
            }
        }
    }

    fn send_master(&mut self, link: LinkId, message: AgentMessage) {
        let Some(master) = self.master.as_ref().filter(|master| master.link == link) else {
            return;
        };
        if matches!(message.message, Some(agent_message::Message::StatusUpdate(_))) {
            self.metrics.updates_sent.increment(1);
        }
        if master.sender.try_send(message).is_err() {
            tracing::warn!("the master reads too slowly, or is gone");
            self.close_link(link);
            self.feed_back(Event::LinkDown { link });
        }
    }

    fn close_link(&mut self, link: LinkId) {
        if let Some(master) = self.master.take_if(|master| master.link == link) {
            master.close.cancel();
        }
    }

    /// For what is noticed in the middle of carrying something out.
    fn feed_back(&mut self, event: Event) {
        self.core.handle(now(), event, &mut self.effects);
    }
}

/// What an operator wants to read.
fn log(change: &Change) {
    match change {
        Change::Registered { agent_id, master } => {
            tracing::info!(%agent_id, %master, "registered");
        }
        Change::TaskUpdated { task, state, .. } => {
            let TaskKey { framework, task } = task;
            tracing::info!(%framework, %task, state = state.as_str_name(), "task update");
        }
        _ => {}
    }
}

fn status(error: &CallError) -> Status {
    let text = error.to_string();
    match error {
        CallError::Invalid(_) => Status::invalid_argument(text),
        CallError::Unauthenticated | CallError::NoToken(_) => Status::unauthenticated(text),
        CallError::Unknown(_) => Status::not_found(text),
        CallError::NotAllowed(_) => Status::failed_precondition(text),
    }
}

fn instant(deadline: Time) -> Instant {
    Instant::now() + deadline.since(now())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mezz_proto::resources::Resources;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        options::{AgentOptions, Containment, FetcherOptions, LauncherCommand, MonitorOptions},
        shell::start,
    };

    fn options(work_dir: std::path::PathBuf) -> AgentOptions {
        let second = Duration::from_secs(1);
        AgentOptions {
            masters: vec!["127.0.0.1:1".into()],
            advertise: None,
            hostname: "test".into(),
            work_dir,
            resources: Resources::new(),
            attributes: vec![],
            domain: None,
            containment: Containment::None,
            cgroup_root: "mezz".into(),
            cgroup_cpu_quota: false,
            launcher: LauncherCommand { program: "/no/launcher".into(), args: vec![] },
            native_library: None,
            kill_grace: second,
            executor_registration_timeout: second,
            executor_reregistration_timeout: second,
            executor_shutdown_grace: second,
            authenticate_http_executors: false,
            update_retry: (second, second),
            sandbox_retention: second,
            register_backoff: (second, second),
            max_tasks: 1,
            max_fetch_bytes: 1,
            docker: Default::default(),
            isolation: Default::default(),
            fetcher: FetcherOptions::default(),
            monitor: MonitorOptions::default(),
        }
    }

    #[tokio::test]
    async fn an_agent_whose_store_thread_is_gone_ends_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path().join("work"));
        let started = start::start(&options, ([127, 0, 0, 1], 1).into()).await.unwrap();
        let stop = CancellationToken::new();
        let (inputs, mut events) = mpsc::channel(1);
        let metrics = Arc::new(Metrics::new());
        let containers = Runner::new(
            started.containerizer,
            started.fetcher,
            Arc::default(),
            Arc::clone(&metrics),
            inputs.clone(),
            TaskTracker::new(),
            stop.clone(),
        );
        let index = Arc::new(Index::new(None, vec![], vec![]));
        let collector = Collector {
            index: Arc::clone(&index),
            registry: Arc::default(),
            metrics: Arc::clone(&metrics),
            work_dir: folder.path().to_owned(),
            retention: Duration::from_secs(60),
            interval: Duration::from_secs(60),
            orphans: vec![],
        };
        let mut owner = Owner::new(
            started.core,
            started.writer,
            containers,
            index,
            Arc::default(),
            Arc::default(),
            metrics,
        );
        // As a thread that panics leaves it.
        let (report, progress) = watch::channel(Progress::Written(0));
        drop(report);
        let ended = owner.decide(&mut events, progress, collector, &stop);
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends");
        assert!(matches!(ended, Err(AgentError::StoreThread)), "{ended:?}");
    }
}
