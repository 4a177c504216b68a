//! Operators that listen to what changes (rule 81).

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use mezz_proto::{
    ids::AgentId,
    mezz::v1 as mezz,
    v1::{
        self,
        master::{Event, event},
    },
};
use tokio::sync::mpsc;

pub use super::view::is_partition_aware;
use super::{
    limits::{MAX_SUBSCRIBERS, SUBSCRIBER_EVENTS},
    read_state::{AgentEntry, Sums},
    view,
};

/// What one batch of changes tells.
pub type News = Vec<Event>;

/// The end of a stream that its operator reads.
#[derive(Debug)]
pub struct Subscription {
    /// Ends when the master stops, when a thousand others have come since, or when too
    /// many events waited: rather cut off than kept waiting with a gap.
    pub events: mpsc::Receiver<Arc<Event>>,
    count: Arc<AtomicUsize>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Queue {
    events: mpsc::Sender<Arc<Event>>,
    /// The last batch that its snapshot has.
    joined: u64,
}

/// All who listen.
#[derive(Debug, Default)]
pub struct Subscribers {
    queues: Mutex<Vec<Queue>>,
    count: Arc<AtomicUsize>,
}

impl Subscribers {
    /// One more, who knows what was applied up to batch `joined`; of more than
    /// [`MAX_SUBSCRIBERS`] the oldest is cut.
    pub fn join(&self, joined: u64) -> Subscription {
        let (queue, events) = mpsc::channel(SUBSCRIBER_EVENTS);
        let mut queues = self.queues();
        queues.retain(|queue| !queue.events.is_closed());
        if queues.len() >= MAX_SUBSCRIBERS {
            queues.remove(0);
        }
        queues.push(Queue { events: queue, joined });
        self.count.fetch_add(1, Ordering::Relaxed);
        Subscription { events, count: self.count.clone() }
    }

    /// Nothing changes any more: all streams end.
    pub fn end(&self) {
        self.queues().clear();
    }

    /// Whether there is any. Who joins does so under the read model's lock.
    pub fn is_wanted(&self) -> bool {
        !self.queues().is_empty()
    }

    /// How many streams are open.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells all who do not know it of what batch `number` changed. Who does not keep up is
    /// cut.
    pub fn tell(&self, number: u64, news: News) {
        let mut queues = self.queues();
        for event in news {
            let event = Arc::new(event);
            queues.retain(|queue| {
                queue.joined >= number || queue.events.try_send(event.clone()).is_ok()
            });
        }
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Queue>> {
        // Nothing panics while it is held.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
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
            let is_news = old.is_none_or(|old| {
                old.status != new.status
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

/// A task is new, or in another state.
pub fn task(is_new: bool, mut task: v1::Task, partition_aware: bool) -> Event {
    view::show_task(&mut task, partition_aware);
    if is_new {
        return Event {
            task_added: Some(event::TaskAdded { task }),
            ..event(event::Type::TaskAdded)
        };
    }
    let state = task.state;
    let status = task.statuses.pop().unwrap_or_else(|| v1::TaskStatus {
        task_id: task.task_id.clone(),
        state,
        agent_id: Some(task.agent_id.clone()),
        ..Default::default()
    });
    Event {
        task_updated: Some(event::TaskUpdated { framework_id: task.framework_id, status, state }),
        ..event(event::Type::TaskUpdated)
    }
}
