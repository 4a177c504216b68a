//! Operators that listen to what changes (rule 81).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use mezz_proto::{
    ids::AgentId,
    media::Format,
    mezz::v1 as mezz,
    recordio,
    v1::{
        self,
        master::{Event, event},
    },
};
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use super::view::is_partition_aware;
use super::{
    limits::{MAX_SUBSCRIBERS, TOLD_BYTES},
    read_state::{AgentEntry, Sums},
    view,
};
use crate::core::ShownTask;

/// What one batch of changes tells. Encoded at once: decoded an event takes kilobytes, however
/// little it says, and an agent that comes back may bring a hundred thousand.
#[derive(Debug, Default)]
pub struct News(Vec<Record>);

impl News {
    /// One more event.
    pub fn push(&mut self, event: &Event) {
        self.0.push(Record::of(event));
    }
}

/// An event in protobuf, with its frame.
#[derive(Debug)]
struct Record {
    framed: Bytes,
    /// Where the event begins.
    begin: usize,
}

impl Record {
    fn of(event: &Event) -> Self {
        let event = event.encode_to_vec();
        let framed = recordio::encode(&event);
        Self { begin: framed.len() - event.len(), framed }
    }

    fn event(&self) -> Event {
        // The bytes are our own.
        Event::decode(self.framed.slice(self.begin..)).unwrap_or_default()
    }
}

/// An event as all are told of it: encoded once for all who read the same form.
#[derive(Debug)]
pub struct Told {
    /// Of changes.
    batch: u64,
    protobuf: Record,
    json: OnceLock<Bytes>,
}

impl Told {
    fn new(batch: u64, protobuf: Record) -> Self {
        Self { batch, protobuf, json: OnceLock::new() }
    }

    #[cfg(test)]
    pub fn event(&self) -> Event {
        self.protobuf.event()
    }

    /// The record of a stream of this form.
    pub fn record(&self, form: Format) -> &Bytes {
        match form {
            Format::Json => {
                let made = || recordio::encode(&form.encode(&self.protobuf.event()));
                self.json.get_or_init(made)
            }
            Format::Protobuf => &self.protobuf.framed,
        }
    }

    /// What it takes in memory, in bytes, about: its JSON is several times as long as its
    /// protobuf.
    fn weight(&self) -> usize {
        256 + 8 * self.protobuf.framed.len()
    }
}

/// What is told, kept once for all who listen.
#[derive(Debug, Default)]
struct Log {
    /// How many were told before the first that is kept.
    before: u64,
    told: VecDeque<Arc<Told>>,
    weight: usize,
    /// Who listens, the oldest first; a token cuts one.
    listeners: VecDeque<(u64, CancellationToken)>,
    /// Listeners that there were.
    last: u64,
    /// Nothing is told any more.
    ended: bool,
}

impl Log {
    fn end(&self) -> u64 {
        self.before + self.told.len() as u64
    }

    fn push(&mut self, told: Told, most: usize) {
        self.weight += told.weight();
        self.told.push_back(Arc::new(told));
        while self.weight > most && self.told.len() > 1 {
            let Some(oldest) = self.told.pop_front() else { break };
            self.weight = self.weight.saturating_sub(oldest.weight());
            self.before += 1;
        }
    }

    fn forget_all(&mut self) {
        self.before = self.end();
        self.told.clear();
        self.weight = 0;
    }
}

/// The end of a stream that its operator reads.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Mutex<Log>>,
    news: watch::Receiver<()>,
    number: u64,
    cut: CancellationToken,
    /// Where it is in the log.
    next: u64,
    /// The last batch that its snapshot has.
    joined: u64,
}

impl Subscription {
    /// What comes next, `most` of it at most. `None`: it ends, for the master stops, a
    /// thousand others have come since, or it is too far behind: rather cut off than told
    /// with a gap. Nothing is lost if it is dropped while it waits.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Arc<Told>>> {
        while !self.cut.is_cancelled() {
            self.news.mark_unchanged();
            let (told, ended) = {
                let log = locked(&self.log);
                // What is not kept any more it would have missed.
                let skip = usize::try_from(self.next.checked_sub(log.before)?).ok()?;
                let told: Vec<_> = log.told.iter().skip(skip).take(most).cloned().collect();
                (told, log.ended)
            };
            self.next += told.len() as u64;
            let is_end = told.is_empty();
            let news: Vec<_> = told.into_iter().filter(|told| told.batch > self.joined).collect();
            if !news.is_empty() {
                return Some(news);
            }
            if is_end {
                if ended {
                    return None;
                }
                tokio::select! {
                    changed = self.news.changed() => changed.ok()?,
                    () = self.cut.cancelled() => return None,
                }
            }
        }
        None
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut log = locked(&self.log);
        log.listeners.retain(|(number, _)| *number != self.number);
        if log.listeners.is_empty() {
            log.forget_all();
        }
    }
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    // Nothing panics while it is held.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All who listen.
#[derive(Debug)]
pub struct Subscribers {
    log: Arc<Mutex<Log>>,
    news: watch::Sender<()>,
    /// What the log may weigh, in bytes.
    most: usize,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self { log: Arc::default(), news: watch::Sender::new(()), most: TOLD_BYTES }
    }
}

impl Subscribers {
    /// One more, who knows what was applied up to batch `joined`; of more than
    /// [`MAX_SUBSCRIBERS`] the oldest is cut.
    pub fn join(&self, joined: u64) -> Subscription {
        let cut = CancellationToken::new();
        let mut log = locked(&self.log);
        if log.listeners.len() >= MAX_SUBSCRIBERS
            && let Some((_, oldest)) = log.listeners.pop_front()
        {
            oldest.cancel();
        }
        log.last += 1;
        let (number, next) = (log.last, log.end());
        log.listeners.push_back((number, cut.clone()));
        drop(log);
        let news = self.news.subscribe();
        Subscription { log: self.log.clone(), news, number, cut, next, joined }
    }

    /// Nothing changes any more: all streams end, those that join later, too.
    pub fn end(&self) {
        locked(&self.log).ended = true;
        self.news.send_replace(());
    }

    /// Whether there is any. Who joins does so under the read model's lock.
    pub fn is_wanted(&self) -> bool {
        !locked(&self.log).listeners.is_empty()
    }

    /// How many streams are open.
    pub fn count(&self) -> usize {
        locked(&self.log).listeners.len()
    }

    /// Tells all who do not know it of what batch `number` changed. Takes as long for a
    /// thousand as for one.
    pub fn tell(&self, number: u64, news: News) {
        if news.0.is_empty() {
            return;
        }
        let mut log = locked(&self.log);
        if log.listeners.is_empty() {
            return;
        }
        for event in news.0 {
            log.push(Told::new(number, event), self.most);
        }
        drop(log);
        self.news.send_replace(());
    }
}

fn event(kind: event::Type) -> Event {
    Event { r#type: Some(kind as i32), ..Default::default() }
}

/// To show that the stream lives.
pub fn heartbeat() -> Event {
    event(event::Type::Heartbeat)
}

/// An agent registered, or is back.
pub fn agent_added(entry: &AgentEntry, sums: &Sums) -> Event {
    let agent = view::agent(entry, sums);
    Event { agent_added: Some(event::AgentAdded { agent }), ..event(event::Type::AgentAdded) }
}

/// An agent has left.
pub fn agent_removed(id: &AgentId) -> Event {
    let agent_id = v1::AgentId { value: id.to_string() };
    Event {
        agent_removed: Some(event::AgentRemoved { agent_id }),
        ..event(event::Type::AgentRemoved)
    }
}

/// A framework is new, changed or ended.
pub fn framework(
    old: Option<&mezz::FrameworkState>,
    new: &mezz::FrameworkState,
    sums: &Sums,
) -> Option<Event> {
    let was_live = old.is_some_and(view::is_live);
    match (was_live, view::is_live(new)) {
        (false, false) => None,
        (true, false) => {
            let framework_info = new.framework.clone();
            Some(Event {
                framework_removed: Some(event::FrameworkRemoved { framework_info }),
                ..event(event::Type::FrameworkRemoved)
            })
        }
        (false, true) => Some(Event {
            framework_added: Some(event::FrameworkAdded {
                framework: view::framework(new, sums, []),
            }),
            ..event(event::Type::FrameworkAdded)
        }),
        (true, true) => {
            // As in Mesos that it is away is not told of.
            let is_back = |old: &mezz::FrameworkState| {
                old.status != new.status && new.status() == mezz::framework_state::Status::Active
            };
            let is_news = old.is_none_or(|old| {
                is_back(old)
                    || old.reregistered_time != new.reregistered_time
                    || old.offer_constraints != new.offer_constraints
                    || old.framework != new.framework
            });
            is_news.then(|| Event {
                framework_updated: Some(event::FrameworkUpdated {
                    framework: view::framework(new, sums, []),
                }),
                ..event(event::Type::FrameworkUpdated)
            })
        }
    }
}

/// A task is new, in another state, or has news of its check. `old` is its state and its
/// record from before.
pub fn task(
    old: Option<(v1::TaskState, &[u8])>,
    new: &ShownTask,
    partition_aware: bool,
) -> Option<Event> {
    // While it was unreachable a Mesos did not know of it; and to who is not aware of
    // partitions it had ended.
    let is_back = |state| {
        state == v1::TaskState::TaskUnreachable && new.state != state && !new.state.is_terminal()
    };
    let mut task = match old {
        Some((state, record)) if state == new.state => {
            if *record == *new.record {
                return None;
            }
            let task = new.decode();
            let former = v1::Task::decode(record).unwrap_or_default();
            if !is_news(former.statuses.last(), task.statuses.last()) {
                return None;
            }
            task
        }
        _ => new.decode(),
    };
    view::show_task(&mut task, partition_aware);
    if old.is_none_or(|(state, _)| is_back(state)) {
        return Some(Event {
            task_added: Some(event::TaskAdded { task }),
            ..event(event::Type::TaskAdded)
        });
    }
    let state = task.state;
    let status = task.statuses.pop().unwrap_or_else(|| v1::TaskStatus {
        task_id: task.task_id.clone(),
        state,
        agent_id: Some(task.agent_id.clone()),
        ..Default::default()
    });
    Some(Event {
        task_updated: Some(event::TaskUpdated { framework_id: task.framework_id, status, state }),
        ..event(event::Type::TaskUpdated)
    })
}

/// Whether streams tell of a status of a task whose state is the same: as in Mesos'
/// `Master::updateTask` of one with another state than the one before, as when the task is
/// further than its framework knows, and of each result of a check.
fn is_news(old: Option<&v1::TaskStatus>, new: Option<&v1::TaskStatus>) -> bool {
    use v1::task_status::Reason;
    let Some(new) = new else { return false };
    let is_check = || {
        matches!(
            new.reason(),
            Reason::TaskCheckStatusUpdated | Reason::TaskHealthCheckStatusUpdated
        )
    };
    old.is_none_or(|old| old.state != new.state || (old != new && is_check()))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
