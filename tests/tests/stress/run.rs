//! The framework: launches the tasks, kills some, and keeps the books.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mezz_sdk::{
    build::FrameworkBuilder,
    resources::{Dialect, Resources},
    scheduler::{Event, Events, Scheduler, SchedulerOptions, connect},
    v1::{self, TaskState, task_status::Reason},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::kinds::Kind;

/// Tasks under way at once.
const UNDER_WAY: usize = 50;

/// No news for so long means that a task was lost without a word.
const SILENCE: Duration = Duration::from_secs(120);

/// One in so many tasks is killed right after its launch, whatever its kind.
const KILLED_EARLY: u32 = 15;

/// A task's page.
#[derive(Debug)]
struct Page {
    kind: Kind,
    member: usize,
    agent: v1::AgentId,
    asked_to_die: bool,
    ran: bool,
    end: Option<v1::TaskStatus>,
}

/// A run under way, in a thread of its own.
pub struct Run {
    thread: JoinHandle<Result<String>>,
    done: mpsc::Receiver<()>,
}

impl Run {
    /// Connects and starts.
    pub fn start(master: &str, seed: u64, tasks: usize, image: String) -> Result<Self> {
        let (tell, done) = mpsc::channel::<()>();
        let master = master.to_owned();
        let thread = std::thread::Builder::new().name("framework".into()).spawn(move || {
            // Told by being dropped, however this ends.
            let _tell = tell;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let framework = FrameworkBuilder::new("stress")
                    .user("root")
                    .failover_timeout(Duration::from_secs(600))
                    .checkpoint(true)
                    .build();
                let (scheduler, events) = connect(SchedulerOptions::new(vec![master], framework))?;
                let mut books = Books {
                    scheduler,
                    events,
                    random: StdRng::seed_from_u64(seed),
                    wanted: tasks,
                    image,
                    pages: BTreeMap::new(),
                    open: 0,
                    groups: 0,
                    to_kill: VecDeque::new(),
                };
                books.run().await
            })
        })?;
        Ok(Self { thread, done })
    }

    /// Waits at most so long. Whether it is over.
    pub fn wait(&self, at_most: Duration) -> Result<bool> {
        match self.done.recv_timeout(at_most) {
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(false),
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(true),
        }
    }

    /// What it came to, once it is over.
    pub fn finish(self) -> Result<String> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the framework panicked"))?
    }
}

struct Books {
    scheduler: Scheduler,
    events: Events,
    random: StdRng,
    wanted: usize,
    image: String,
    pages: BTreeMap<String, Page>,
    /// Tasks that have not ended.
    open: usize,
    groups: usize,
    /// Killed when their time has come.
    to_kill: VecDeque<(Instant, String)>,
}

impl Books {
    async fn run(&mut self) -> Result<String> {
        while self.pages.len() < self.wanted || self.open > 0 {
            let next = tokio::time::timeout(SILENCE, self.events.next());
            let until_kill = self.to_kill.front().map(|(at, _)| *at);
            let kill = async {
                match until_kill {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = next => {
                    let event = event.map_err(|_| anyhow::anyhow!("silence; {}", self.still_open()))?;
                    self.on_event(event.context("the driver has ended")?).await?;
                }
                () = kill => self.kill_next().await?,
            }
        }
        let report = self.report()?;
        self.scheduler.teardown().await?;
        Ok(report)
    }

    async fn on_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Offers(offers) => {
                for offer in offers {
                    self.use_offer(offer).await?;
                }
            }
            Event::Update(status) => self.on_update(status).await?,
            Event::Error(error) => bail!("the master ended the framework: {error}"),
            _ => {}
        }
        Ok(())
    }

    async fn use_offer(&mut self, offer: v1::Offer) -> Result<()> {
        let role = offer.allocation_info.as_ref().and_then(|a| a.role.clone());
        let mut left = Resources::from_proto(&offer.resources)?;
        let one = Kind::resources();
        let asked = one.to_proto(Dialect::Refined, role.as_deref());
        let mut operations = Vec::new();
        while self.pages.len() < self.wanted && self.open < UNDER_WAY {
            let kind = Kind::of(self.random.random());
            // A pod's own container takes a share as well.
            let shares = if kind.in_pod() { kind.tasks() + 1 } else { 1 };
            let mut rest = left.clone();
            if !(0..shares).all(|_| rest.contains(&one) && rest.try_sub(&one).is_ok()) {
                break;
            }
            left = rest;
            self.groups += 1;
            let id = format!("{:05}", self.groups);
            let tasks = kind.build(&id, &offer.agent_id, &asked, &self.image)?;
            for (member, task) in tasks.iter().enumerate() {
                let id = task.task_id.value.clone();
                let early = self.random.random_ratio(1, KILLED_EARLY);
                if early || kind.wants_kill() {
                    let most = if early { 100 } else { 1500 };
                    let after = Duration::from_millis(self.random.random_range(0..most));
                    self.to_kill.push_back((Instant::now() + after, id.clone()));
                }
                let agent = offer.agent_id.clone();
                let page = Page { kind, member, agent, asked_to_die: false, ran: false, end: None };
                self.pages.insert(id, page);
                self.open += 1;
            }
            operations.push(if kind.in_pod() { group(&id, &asked, tasks) } else { launch(tasks) });
        }
        self.to_kill.make_contiguous().sort();
        if operations.is_empty() {
            self.scheduler.decline(vec![offer.id], Some(Duration::from_millis(200))).await?;
        } else {
            let filters = v1::Filters { refuse_seconds: Some(0.0) };
            self.scheduler.accept(vec![offer.id], operations, Some(filters)).await?;
        }
        Ok(())
    }

    async fn kill_next(&mut self) -> Result<()> {
        let Some((_, id)) = self.to_kill.pop_front() else { return Ok(()) };
        let page = self.pages.get_mut(&id).context("a task without a page")?;
        if page.end.is_none() {
            page.asked_to_die = true;
            let agent = page.agent.clone();
            self.scheduler.kill(v1::TaskId { value: id }, Some(agent), None).await?;
        }
        Ok(())
    }

    async fn on_update(&mut self, status: v1::TaskStatus) -> Result<()> {
        let id = status.task_id.value.clone();
        let page = self.pages.get_mut(&id).with_context(|| format!("unknown task: {status:?}"))?;
        page.ran |= status.state() == TaskState::TaskRunning;
        if !status.state().is_terminal() {
            return Ok(());
        }
        // The answer to a kill that crossed the end. It does not tell why; the update itself,
        // which does, has yet to come.
        if page.end.is_none() && foretold(&status) {
            return Ok(());
        }
        match &page.end {
            // The answer to a kill that came too late: nobody knows the task any more.
            Some(_) if status.reason() == Reason::Reconciliation && status.uuid.is_none() => {}
            // Told again: the same end.
            Some(end) => ensure!(end.state() == status.state(), "two ends: {end:?}, {status:?}"),
            None => {
                page.end = Some(status);
                self.open -= 1;
                if self.pages.len() < self.wanted && self.open + 10 < UNDER_WAY {
                    self.scheduler.revive(&[]).await?;
                }
            }
        }
        Ok(())
    }

    fn still_open(&self) -> String {
        let open: Vec<_> = self.pages.iter().filter(|(_, page)| page.end.is_none()).collect();
        format!("{} tasks have not ended, the first: {:?}", open.len(), open.first())
    }

    /// Compares each end with what its kind allows.
    fn report(&self) -> Result<String> {
        let mut counts: BTreeMap<(Kind, String), usize> = BTreeMap::new();
        let (mut wrong, mut lost) = (Vec::new(), 0);
        for (id, page) in &self.pages {
            let end = page.end.as_ref().with_context(|| format!("{id} has no end"))?;
            *counts.entry((page.kind, end.state().as_str_name().to_owned())).or_default() += 1;
            let group_ended = page.kind.in_pod() && self.group_was_ended(id);
            let fine = match end.state() {
                TaskState::TaskKilled if page.asked_to_die || group_ended => true,
                _ if page.never_started() => {
                    lost += 1;
                    true
                }
                state => page.kind.may_end(page.member, state),
            };
            if !fine {
                wrong.push(format!("{id} {:?} {end:?}", page.kind));
            }
        }
        let mut text = format!("{} tasks, {lost} never started\n", self.pages.len());
        for ((kind, state), count) in counts {
            writeln!(text, "{kind:?} {state} {count}")?;
        }
        ensure!(wrong.is_empty(), "{} wrong ends:\n{}\n{text}", wrong.len(), wrong.join("\n"));
        ensure!(lost * 10 <= self.pages.len(), "too many never started:\n{text}");
        Ok(text)
    }

    /// Whether one task of a pod took the others with it.
    fn group_was_ended(&self, id: &str) -> bool {
        let group = id.split('.').next().unwrap_or_default();
        self.pages
            .range(group.to_owned()..)
            .take_while(|(other, _)| other.starts_with(group))
            .any(|(_, page)| page.asked_to_die || page.never_started())
    }
}

impl Page {
    /// Its launch was on a link that broke or with a master that died, or its agent died
    /// before it started it.
    fn never_started(&self) -> bool {
        self.end.as_ref().is_some_and(|end| match end.state() {
            TaskState::TaskDropped | TaskState::TaskLost | TaskState::TaskGone => !self.ran,
            TaskState::TaskFailed => !self.ran && end.reason() == Reason::ExecutorTerminated,
            _ => false,
        })
    }
}

/// Whether it is the master's word on an end that the agent reports in an update of its own.
fn foretold(status: &v1::TaskStatus) -> bool {
    use TaskState::{TaskFailed, TaskFinished, TaskKilled};
    status.reason() == Reason::Reconciliation
        && matches!(status.state(), TaskFailed | TaskFinished | TaskKilled)
}

fn launch(task_infos: Vec<v1::TaskInfo>) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos }),
        ..Default::default()
    }
}

fn group(id: &str, resources: &[v1::Resource], tasks: Vec<v1::TaskInfo>) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::LaunchGroup as i32),
        launch_group: Some(Box::new(v1::offer::operation::LaunchGroup {
            executor: v1::ExecutorInfo {
                r#type: Some(v1::executor_info::Type::Default as i32),
                executor_id: v1::ExecutorId { value: format!("pod-{id}") },
                resources: resources.to_vec(),
                ..Default::default()
            },
            task_group: v1::TaskGroupInfo { tasks },
        })),
        ..Default::default()
    }
}
