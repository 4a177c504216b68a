//! A framework that keeps books: it runs a stream of short tasks and one long one on each
//! agent, whatever happens to the cluster, and at the end accounts for each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use mezz_sdk::{
    build::{FrameworkBuilder, TaskBuilder},
    matcher::{self, Want},
    resources::Resources,
    scheduler::{self, Event, Scheduler, SchedulerOptions},
    v1::{self, TaskState, framework_info::capability::Type as Capability, task_status::Reason},
};
use tokio::sync::mpsc;

use crate::{Network, PATIENCE, eventually};

/// Short tasks at once.
const PARALLEL: usize = 2;

/// A short task's seconds.
const SHORT: &str = "0.3";

/// Of every so many short tasks one ends with this exit status.
const FAILS: (usize, i32) = (5, 7);

/// What the framework under test is.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// Also the beginning of its tasks' names.
    pub name: String,
    /// host:port of each master.
    pub masters: Vec<String>,
    /// Whether it has the capability PARTITION_AWARE.
    pub partition_aware: bool,
    /// How long it and its tasks live without a subscription.
    pub failover_timeout: Duration,
    /// Its tasks write there that they run. It exists.
    pub folder: PathBuf,
    /// Where it runs, if not on loopback.
    pub node: Option<(Network, String)>,
}

/// The framework, and its books.
pub struct Ledger {
    options: LedgerOptions,
    book: Arc<Mutex<Book>>,
    running: Option<Running>,
}

struct Running {
    thread: JoinHandle<Result<()>>,
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    Reconcile(Vec<(String, Option<String>)>),
    Teardown,
    /// Without a word, as by `kill -9`.
    Die,
}

#[derive(Default)]
struct Book {
    framework: Option<v1::FrameworkId>,
    /// By name of the task.
    tasks: BTreeMap<String, Entry>,
    /// Of tasks that were never launched.
    invented: Vec<String>,
    /// Agents on which a long task was launched.
    held: BTreeSet<String>,
    numbers: usize,
    subscribed: usize,
    disconnected: usize,
    /// Why, the last time.
    reason: String,
    /// No more short tasks.
    closing: bool,
    /// What the master said for good.
    error: Option<String>,
}

struct Entry {
    agent: String,
    long: bool,
    exits: i32,
    told: Vec<v1::TaskStatus>,
}

/// What became of the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Ended by themselves, with the exit status that they should have.
    pub ended: usize,
    /// Never started, and it was told.
    pub dropped: usize,
    /// Lost with their machine.
    pub lost: usize,
}

impl Ledger {
    /// Starts it, and waits until a task runs.
    ///
    /// # Errors
    /// When none does.
    pub fn start(options: LedgerOptions) -> Result<Self> {
        let mut ledger = Self { options, book: Arc::default(), running: None };
        ledger.come_back()?;
        ledger.wait_for_progress()?;
        Ok(ledger)
    }

    /// Starts it again after [`die`](Self::die), as the framework that it was.
    ///
    /// # Errors
    /// When it runs.
    pub fn come_back(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} runs", self.options.name);
        let (orders, received) = mpsc::unbounded_channel();
        let (options, book) = (self.options.clone(), self.book.clone());
        let act = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let result = runtime.block_on(run(&options, &book, received));
            runtime.shutdown_background();
            result
        };
        let node = self.options.node.clone();
        let thread = std::thread::spawn(move || match node {
            Some((network, node)) => network.within(&node, act),
            None => act(),
        });
        self.running = Some(Running { thread, orders });
        Ok(())
    }

    /// Ends it without a word.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn die(&mut self) -> Result<()> {
        self.end(Order::Die)
    }

    /// Asks the master for these tasks, of which each may be on this agent.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reconcile(&self, tasks: Vec<(String, Option<String>)>) -> Result<()> {
        let running = self.running.as_ref().context("it is not running")?;
        running.orders.send(Order::Reconcile(tasks)).ok().context("it has ended")
    }

    /// Waits until two short tasks have ended that were launched after this.
    ///
    /// # Errors
    /// When they have not.
    pub fn wait_for_progress(&self) -> Result<()> {
        let from = self.book().numbers;
        let what = format!("{} goes on, and holds what runs", self.options.name);
        eventually(PATIENCE, &what, || {
            let book = self.book();
            let ended = |(name, entry): &(&String, &Entry)| {
                number(name).is_some_and(|n| n >= from)
                    && entry.told.last().is_some_and(|s| {
                        matches!(s.state(), TaskState::TaskFinished | TaskState::TaskFailed)
                    })
            };
            let count = book.tasks.iter().filter(ended).count();
            Ok(if count >= 2 { Ok(()) } else { Err(book.show()) })
        })
    }

    /// Waits until the last word of the long task on each of so many agents is this state.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait_for_long(&self, count: usize, state: TaskState) -> Result<()> {
        let what =
            format!("{count} long tasks of {} are {}", self.options.name, state.as_str_name());
        eventually(PATIENCE, &what, || {
            let book = self.book();
            let long = book.tasks.values().filter(|e| e.long);
            let are = long.filter(|e| e.told.last().is_some_and(|s| s.state() == state)).count();
            Ok(if are == count { Ok(()) } else { Err(book.show()) })
        })
    }

    /// The long tasks: name, agent, and what was told of them.
    pub fn long(&self) -> Vec<(String, String, Vec<v1::TaskStatus>)> {
        let book = self.book();
        let long = book.tasks.iter().filter(|(_, e)| e.long);
        long.map(|(name, e)| (name.clone(), e.agent.clone(), e.told.clone())).collect()
    }

    /// What was told of tasks that were never launched.
    pub fn invented(&self) -> Vec<String> {
        self.book().invented.clone()
    }

    /// How often it was subscribed.
    pub fn subscriptions(&self) -> usize {
        self.book().subscribed
    }

    /// How often it was not, or no longer.
    pub fn disconnections(&self) -> usize {
        self.book().disconnected
    }

    /// Why it was not subscribed, the last time.
    pub fn reason(&self) -> String {
        self.book().reason.clone()
    }

    /// Its id.
    ///
    /// # Errors
    /// When it was never subscribed.
    pub fn framework(&self) -> Result<v1::FrameworkId> {
        self.book().framework.clone().context("it was never subscribed")
    }

    /// What the master has said for good, once it has.
    pub fn error(&self) -> Option<String> {
        self.book().error.clone()
    }

    /// Lets all tasks end, waits for the last word on each, ends the framework, and compares
    /// what it was told with what the tasks have done. On these agents, whose machines were
    /// lost, tasks may be lost.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn settle(self, lost: &[String]) -> Result<Account> {
        self.settle_but(&[], lost)
    }

    /// The same, after these tasks were asked for that were never launched.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn settle_but(mut self, asked: &[&str], lost: &[String]) -> Result<Account> {
        self.book().closing = true;
        std::fs::write(self.go(), "")?;
        let what = format!("{} has heard of the end of all", self.options.name);
        eventually(PATIENCE, &what, || {
            let book = self.book();
            ensure!(book.error.is_none(), "the master has said: {:?}", book.error);
            let ran = self.ran()?;
            let open: Vec<_> =
                book.tasks.iter().filter(|(n, e)| !e.is_closed(ran.get(*n))).collect();
            let show = || open.iter().map(|(name, e)| e.show(name)).collect::<Vec<_>>().join("\n");
            Ok(if open.is_empty() { Ok(()) } else { Err(show()) })
        })?;
        self.end(Order::Teardown)?;
        let (book, ran) = (self.book(), self.ran()?);
        let asked = |told: &&String| asked.iter().any(|name| told.starts_with(name));
        let invented: Vec<_> = book.invented.iter().filter(|told| !asked(told)).collect();
        ensure!(invented.is_empty(), "never launched: {invented:?}");
        let mut account = Account::default();
        for (name, entry) in &book.tasks {
            let fits = entry.account(ran.get(name), lost, self.options.partition_aware);
            match fits.with_context(|| entry.show(name))? {
                Fate::Ended => account.ended += 1,
                Fate::Dropped => account.dropped += 1,
                Fate::Lost => account.lost += 1,
            }
        }
        for name in ran.keys() {
            ensure!(book.tasks.contains_key(name), "{name} ran and was not launched");
        }
        eprintln!("{}: {account:?}, subscribed {} times", self.options.name, book.subscribed);
        Ok(account)
    }

    /// How often each task was started, by its own word.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ran(&self) -> Result<BTreeMap<String, usize>> {
        let mut ran = BTreeMap::new();
        for name in std::fs::read_to_string(self.options.ran()).unwrap_or_default().lines() {
            *ran.entry(name.to_owned()).or_default() += 1;
        }
        Ok(ran)
    }

    fn go(&self) -> PathBuf {
        self.options.folder.join(format!("{}-go", self.options.name))
    }

    fn end(&mut self, order: Order) -> Result<()> {
        let Some(running) = self.running.take() else { bail!("it is not running") };
        // It may have ended by itself.
        let _ = running.orders.send(order);
        running.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.end(Order::Die);
        }
        if std::thread::panicking() {
            eprintln!("=== {}\n{}", self.options.name, self.book().show());
        }
    }
}

impl LedgerOptions {
    fn ran(&self) -> PathBuf {
        self.folder.join(format!("{}-ran", self.name))
    }

    fn short(&self, number: usize) -> (String, i32) {
        (
            format!("{}-{number}", self.name),
            if number.is_multiple_of(FAILS.0) { FAILS.1 } else { 0 },
        )
    }

    fn framework(&self, id: Option<v1::FrameworkId>) -> v1::FrameworkInfo {
        let builder = FrameworkBuilder::new(&self.name)
            .failover_timeout(self.failover_timeout)
            .checkpoint(true);
        let mut info = builder.build();
        info.id = id;
        if !self.partition_aware {
            info.capabilities.retain(|c| c.r#type() != Capability::PartitionAware);
        }
        info
    }
}

async fn run(
    options: &LedgerOptions,
    book: &Mutex<Book>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Result<()> {
    let framework = options.framework(lock(book).framework.clone());
    let connect = SchedulerOptions {
        reconnect_backoff: (Duration::from_millis(100), Duration::from_secs(1)),
        ..SchedulerOptions::new(options.masters.clone(), framework)
    };
    let (scheduler, mut events) = scheduler::connect(connect)?;
    let open = lock(book).open();
    if !open.is_empty() {
        // This process knows of them from its books, the driver does not.
        scheduler.reconcile(ids(open)).await?;
    }
    loop {
        let event = tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Reconcile(tasks)) => {
                    scheduler.reconcile(ids(tasks)).await?;
                    continue;
                }
                Some(Order::Teardown) => return Ok(scheduler.teardown().await?),
                Some(Order::Die) | None => return Ok(()),
            },
            event = events.next() => event,
        };
        match event {
            Some(Event::Subscribed { framework_id, .. }) => {
                let mut book = lock(book);
                book.framework = Some(framework_id);
                book.subscribed += 1;
            }
            Some(Event::Offers(offers)) => use_offers(options, book, &scheduler, &offers).await?,
            Some(Event::Update(status)) => lock(book).told(status),
            Some(Event::Disconnected { reason }) => {
                let mut book = lock(book);
                book.disconnected += 1;
                book.reason = reason;
            }
            Some(Event::Error(message)) => lock(book).error = Some(message),
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

/// Each task is in the books before it is launched.
async fn use_offers(
    options: &LedgerOptions,
    book: &Mutex<Book>,
    scheduler: &Scheduler,
    offers: &[v1::Offer],
) -> Result<()> {
    for offer in offers {
        let agent = &offer.agent_id.value;
        let (long, room) = {
            let book = lock(book);
            let room = if book.closing { 0 } else { PARALLEL.saturating_sub(book.short_running()) };
            (usize::from(!book.closing && !book.held.contains(agent)), room)
        };
        let want =
            |count| Want { resources: Resources::cpus_mem(0.1, 32.0), count, ..Want::default() };
        let matched = matcher::place(std::slice::from_ref(offer), &[want(long), want(room)])?;
        for launch in matched.launches {
            let mut tasks = Vec::new();
            for placed in &launch.tasks {
                let (name, line, exits, long) = lock(book).next(options, agent, placed.want == 0);
                let id = name.clone();
                tasks.push(TaskBuilder::new(name).shell(line).place(placed)?);
                let entry = Entry { agent: agent.clone(), long, exits, told: Vec::new() };
                lock(book).tasks.insert(id, entry);
            }
            scheduler.launch(launch.offers, tasks).await?;
        }
        if !matched.unused.is_empty() {
            scheduler.decline(matched.unused, Some(Duration::from_millis(200))).await?;
        }
    }
    Ok(())
}

impl Book {
    /// Name, line for the shell, exit status, and whether it is long.
    fn next(
        &mut self,
        options: &LedgerOptions,
        agent: &str,
        long: bool,
    ) -> (String, String, i32, bool) {
        let ran = options.ran();
        if long {
            self.held.insert(agent.to_owned());
            let name = format!("{}-long-{}", options.name, self.held.len());
            let go = options.folder.join(format!("{}-go", options.name));
            let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", go.display());
            return (name.clone(), format!("echo {name} >>{}; {wait}", ran.display()), 0, true);
        }
        let (name, exits) = options.short(self.numbers);
        self.numbers += 1;
        let line = format!("echo {name} >>{}; sleep {SHORT}; exit {exits}", ran.display());
        (name, line, exits, false)
    }

    fn told(&mut self, status: v1::TaskStatus) {
        let name = &status.task_id.value;
        match self.tasks.get_mut(name) {
            Some(entry) => entry.told.push(status),
            None => self.invented.push(format!("{name} {}", status.state().as_str_name())),
        }
    }

    /// What is not known to have ended, or to be away with its agent.
    fn short_running(&self) -> usize {
        let runs = |entry: &&Entry| {
            !entry.long
                && entry.told.last().is_none_or(|s| {
                    !s.state().is_terminal() && s.state() != TaskState::TaskUnreachable
                })
        };
        self.tasks.values().filter(runs).count()
    }

    fn open(&self) -> Vec<(String, Option<String>)> {
        let open = |e: &Entry| e.told.last().is_none_or(|s| !s.state().is_terminal());
        let open = self.tasks.iter().filter(|(_, e)| open(e));
        open.map(|(name, e)| (name.clone(), Some(e.agent.clone()))).collect()
    }

    /// The last tasks, and the long ones.
    fn show(&self) -> String {
        let last = self.numbers.saturating_sub(12);
        let shown =
            self.tasks.iter().filter(|(n, e)| e.long || number(n).is_some_and(|n| n >= last));
        let lines: Vec<_> = shown.map(|(name, entry)| entry.show(name)).collect();
        format!("subscribed {} times, {:?}\n{}", self.subscribed, self.error, lines.join("\n"))
    }
}

enum Fate {
    Ended,
    Dropped,
    Lost,
}

impl Entry {
    /// Whether nothing more is to be told of it.
    fn is_closed(&self, ran: Option<&usize>) -> bool {
        self.told.last().is_some_and(|last| match last.state() {
            // Its agent may come back with it, also for those that were told that it is lost.
            TaskState::TaskLost if ran.is_some() => !is_away(last),
            TaskState::TaskUnknown => ran.is_none(),
            state => state.is_terminal(),
        })
    }

    fn account(&self, ran: Option<&usize>, lost: &[String], aware: bool) -> Result<Fate> {
        let Some(last) = self.told.last() else { bail!("nothing was told") };
        let ran = ran.copied().unwrap_or(0);
        ensure!(ran <= 1, "it ran {ran} times");
        for (n, status) in self.told.iter().enumerate() {
            let (state, rest) = (status.state(), &self.told[n + 1..]);
            let away = is_away(status);
            let others = rest.iter().any(|later| later.state() != state);
            ensure!(!state.is_terminal() || !others || (away && !aware), "more than one end");
        }
        match last.state() {
            TaskState::TaskFinished | TaskState::TaskFailed => {
                let right = match self.exits {
                    0 => last.state() == TaskState::TaskFinished,
                    _ => last.state() == TaskState::TaskFailed,
                };
                ensure!(right && ran == 1, "not what it has done: it ran {ran} times");
                Ok(Fate::Ended)
            }
            _ if lost.contains(&self.agent) => Ok(Fate::Lost),
            _ if ran == 0 => Ok(Fate::Dropped),
            state => bail!("it ran, and is {}", state.as_str_name()),
        }
    }

    fn show(&self, name: &str) -> String {
        let told = self.told.iter().map(|s| {
            let source = if s.uuid().is_empty() { " (the master's word)" } else { "" };
            let reason = s.reason.map_or("", |_| s.reason().as_str_name());
            format!("{} {reason}{source}", s.state().as_str_name())
        });
        format!("{name} on {}: {}", self.agent, told.collect::<Vec<_>>().join(", "))
    }
}

/// Lost with its agent, which may come back.
fn is_away(status: &v1::TaskStatus) -> bool {
    let reasons = [Reason::AgentRemoved, Reason::Reconciliation];
    status.state() == TaskState::TaskLost && reasons.contains(&status.reason())
}

fn ids(
    tasks: Vec<(String, Option<String>)>,
) -> impl Iterator<Item = (v1::TaskId, Option<v1::AgentId>)> {
    let agent = |value| v1::AgentId { value };
    tasks.into_iter().map(move |(value, on)| (v1::TaskId { value }, on.map(agent)))
}

/// Of a short task.
fn number(name: &str) -> Option<usize> {
    let (rest, number) = name.rsplit_once('-')?;
    if rest.ends_with("-long") { None } else { number.parse().ok() }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
