//! The executor driver's decisions, pure. It owns the tasks and updates that the
//! agent has not acknowledged.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use mezz_proto::{
    MAX_EXECUTOR_CALL_BYTES,
    ids::{AgentId, TaskId},
    time::Time,
    v1::{
        self,
        executor::{
            Call,
            call::{self, Type},
        },
        task_status::Source,
    },
};
use prost::Message as _;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Closed, Event, ExecutorOptions, UpdateError};
use crate::drive::{self, Action, LinkEnd};

/// From the start of a connection to SUBSCRIBED.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause between two attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Whatever the agent's settings say, the pause is no longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the first subscription may take: the agent gives up on an executor
/// after this (behaviour rule 53).
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stopping driver waits for acknowledgements.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Updates that the agent has not acknowledged.
pub(super) const MAX_UPDATES: usize = 10_000;
/// Bytes that they have, encoded; one more is taken below that.
pub(super) const MAX_UPDATES_BYTES: usize = 256 << 20;
/// Updates are told with SUBSCRIBE up to so many bytes. It has to stay below what an agent
/// takes in one message; the rest follows in messages of their own.
const SUBSCRIBE_BYTES: usize = MAX_EXECUTOR_CALL_BYTES / 2;
/// How long the agent may take to read the last calls.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the application asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Update {
        status: Box<v1::TaskStatus>,
        /// Told whether the update is kept.
        taken: oneshot::Sender<Result<(), UpdateError>>,
    },
    Message(Vec<u8>),
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until the next attempt.
    Waiting {
        until: Time,
    },
    /// A link was asked for and SUBSCRIBED has not come.
    Connecting {
        until: Time,
    },
    Subscribed,
    /// Everything is sent; waiting for the agent to end the stream.
    Closing {
        until: Time,
    },
    Ended,
}

type Actions = Vec<Action<Driver>>;

#[derive(Debug)]
pub(super) struct Driver {
    options: ExecutorOptions,
    phase: Phase,
    pause: Duration,
    rng: StdRng,
    /// Without a subscription after this, the executor must end.
    patience: Option<Time>,
    /// Set by `stop`: until then acknowledgements are waited for.
    stop_by: Option<Time>,
    /// The agent, or its absence, told us to end.
    shutting_down: bool,
    agent: Option<AgentId>,
    /// Launched, and none of its updates acknowledged yet.
    tasks: BTreeMap<TaskId, v1::TaskInfo>,
    /// Not acknowledged, in the order in which they were made.
    updates: VecDeque<v1::TaskStatus>,
    /// What they have, encoded.
    held: usize,
    /// So many of the first updates were told with the last SUBSCRIBE.
    told: usize,
}

impl Driver {
    pub fn new(now: Time, options: ExecutorOptions, seed: u64) -> Self {
        Self {
            options,
            phase: Phase::Waiting { until: now },
            pause: FIRST_PAUSE,
            rng: StdRng::seed_from_u64(seed),
            patience: Some(now + REGISTRATION_TIMEOUT),
            stop_by: None,
            shutting_down: false,
            agent: None,
            tasks: BTreeMap::new(),
            updates: VecDeque::new(),
            held: 0,
            told: 0,
        }
    }
}

impl drive::Driver for Driver {
    type Call = Call;
    type Wire = v1::executor::Event;
    type Command = Command;
    type Delivery = Event;

    fn next_deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting { until } | Phase::Connecting { until } => {
                [Some(until), self.patience, self.stop_by].into_iter().flatten().min()
            }
            Phase::Subscribed => self.stop_by,
            Phase::Closing { until } => Some(until),
            Phase::Ended => None,
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Actions) {
        let due = |time: Option<Time>| time.is_some_and(|t| t <= now);
        match self.phase {
            Phase::Subscribed if due(self.stop_by) => self.close(now, out),
            Phase::Waiting { .. } | Phase::Connecting { .. } if due(self.stop_by) => {
                self.end(out);
            }
            Phase::Waiting { .. } | Phase::Connecting { .. } if due(self.patience) => {
                self.shut_down(out);
                self.end(out);
            }
            Phase::Waiting { until } if until <= now => self.connect(now, out),
            Phase::Connecting { until } if until <= now => {
                out.push(Action::Abandon);
                let reason = format!("{} did not answer in time", self.options.agent);
                self.on_link_end(now, LinkEnd::Lost(reason), out);
            }
            Phase::Closing { until } if until <= now => self.end(out),
            _ => {}
        }
    }

    fn on_link_end(&mut self, now: Time, end: LinkEnd, out: &mut Actions) {
        let was_subscribed = self.phase == Phase::Subscribed;
        if self.shutting_down || matches!(self.phase, Phase::Closing { .. }) {
            return self.end(out);
        }
        let reason = match end {
            LinkEnd::Refused(reason) => {
                deliver(out, Event::Error(reason));
                return self.end(out);
            }
            // Agents do not redirect.
            LinkEnd::NotLeading { .. } | LinkEnd::Closed => {
                "the agent ended the subscription".to_owned()
            }
            LinkEnd::Lost(reason) => reason,
        };
        info!(%reason, "disconnected from the agent");
        deliver(out, Event::Disconnected { reason });
        if was_subscribed {
            match self.options.recovery_timeout {
                Some(timeout) => self.patience = Some(now + timeout),
                None => {
                    self.shut_down(out);
                    return self.end(out);
                }
            }
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause.mul_f64(self.rng.random_range(0.5..=1.0));
        self.pause =
            (self.pause * 2).min(self.options.backoff_max.clamp(FIRST_PAUSE, LONGEST_PAUSE));
        self.phase = Phase::Waiting { until: now + pause };
    }

    fn on_event(&mut self, now: Time, event: v1::executor::Event, out: &mut Actions) {
        use v1::executor::event::Type;
        match event.r#type() {
            Type::Subscribed => {
                if let Some(subscribed) = event.subscribed {
                    self.on_subscribed(now, subscribed, out);
                }
            }
            Type::Launch => {
                if let Some(launch) = event.launch
                    && self.is_new(&launch.task)
                {
                    deliver(out, Event::Launch(Box::new(launch.task)));
                }
            }
            Type::LaunchGroup => {
                let mut tasks = event.launch_group.map(|g| g.task_group.tasks).unwrap_or_default();
                tasks.retain(|t| self.is_new(t));
                if !tasks.is_empty() {
                    deliver(out, Event::LaunchGroup(tasks));
                }
            }
            Type::Kill => {
                if let Some(v1::executor::event::Kill { task_id, kill_policy }) = event.kill {
                    deliver(out, Event::Kill { task_id, kill_policy });
                }
            }
            Type::Acknowledged => {
                if let Some(acknowledged) = event.acknowledged {
                    let is_it = |u: &v1::TaskStatus| u.uuid.as_ref() == Some(&acknowledged.uuid);
                    let found = self.updates.iter().position(is_it);
                    if let Some(update) = found.and_then(|i| self.updates.remove(i)) {
                        self.held -= update.encoded_len();
                    }
                    self.tasks.remove(acknowledged.task_id.value.as_str());
                    self.close_if_drained(now, out);
                }
            }
            Type::Message => {
                if let Some(message) = event.message {
                    deliver(out, Event::Message(message.data));
                }
            }
            Type::Error => {
                let message = event.error.map(|e| e.message).unwrap_or_default();
                deliver(out, Event::Error(message));
                out.push(Action::Abandon);
                self.end(out);
            }
            Type::Shutdown => self.shut_down(out),
            Type::Heartbeat | Type::Unknown => {}
        }
    }

    fn on_command(&mut self, now: Time, command: Command, out: &mut Actions) {
        match command {
            Command::Update { status, taken } => {
                let result = self.update(now, *status, out);
                // The caller may have lost interest.
                let _ = taken.send(result);
            }
            Command::Message(data) => {
                let message = Some(call::Message { data });
                self.send(Call { message, ..self.call(Type::Message) }, out);
            }
            Command::Stop => self.stop(now, out),
        }
    }

    fn is_ending(&self) -> bool {
        self.stop_by.is_some()
    }

    fn calls_off(&self, _: &Command) -> bool {
        false
    }

    fn on_unheard(&mut self, now: Time, out: &mut Actions) {
        self.stop(now, out);
    }

    fn not_reading(&mut self, _: Time) {
        // Agents are silent for long; HTTP/2 notices a dead one.
    }

    fn call_bytes(call: &Call) -> usize {
        call.encoded_len()
    }

    fn delivery_bytes(event: &Event) -> usize {
        match event {
            Event::Launch(task) => task.encoded_len(),
            Event::LaunchGroup(tasks) => tasks.iter().map(v1::TaskInfo::encoded_len).sum(),
            Event::Message(data) => data.len(),
            _ => 0,
        }
    }

    fn replaces(last: &Event, next: &Event) -> bool {
        matches!((last, next), (Event::Disconnected { .. }, Event::Disconnected { .. }))
    }
}

impl Driver {
    fn connect(&mut self, now: Time, out: &mut Actions) {
        self.phase = Phase::Connecting { until: now + SUBSCRIBE_TIMEOUT };
        let mut room = SUBSCRIBE_BYTES;
        let fits = |status: &&v1::TaskStatus| {
            let left = room.checked_sub(status.encoded_len());
            room = left.unwrap_or_default();
            left.is_some()
        };
        let unacknowledged_updates: Vec<_> = self
            .updates
            .iter()
            .take_while(fits)
            .map(|status| call::Update { status: status.clone() })
            .collect();
        self.told = unacknowledged_updates.len();
        let subscribe = call::Subscribe {
            unacknowledged_tasks: self.tasks.values().cloned().collect(),
            unacknowledged_updates,
        };
        let first = Call { subscribe: Some(subscribe), ..self.call(Type::Subscribe) };
        let target = self.options.agent.clone();
        out.push(Action::Connect { target, tried: None, first: Box::new(first) });
    }

    fn on_subscribed(
        &mut self,
        now: Time,
        subscribed: v1::executor::event::Subscribed,
        out: &mut Actions,
    ) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        self.pause = FIRST_PAUSE;
        let agent = &subscribed.agent_info;
        self.agent = agent.id.as_ref().map(AgentId::from);
        self.phase = Phase::Subscribed;
        self.patience = None;
        info!(agent = ?self.agent, "subscribed");
        for status in self.updates.iter().skip(self.told) {
            let update = Some(call::Update { status: status.clone() });
            self.send(Call { update, ..self.call(Type::Update) }, out);
        }
        let v1::executor::event::Subscribed { executor_info, framework_info, agent_info, .. } =
            subscribed;
        deliver(
            out,
            Event::Subscribed {
                executor: Box::new(executor_info),
                framework: Box::new(framework_info),
                agent: Box::new(agent_info),
            },
        );
        self.close_if_drained(now, out);
    }

    fn update(
        &mut self,
        now: Time,
        status: v1::TaskStatus,
        out: &mut Actions,
    ) -> Result<(), UpdateError> {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Ended) {
            return Err(Closed.into());
        }
        if self.updates.len() >= MAX_UPDATES || self.held >= MAX_UPDATES_BYTES {
            return Err(UpdateError::TooMany { limit: MAX_UPDATES, bytes: MAX_UPDATES_BYTES });
        }
        let status = self.complete(now, status);
        let update = Some(call::Update { status: status.clone() });
        let call = Call { update, ..self.call(Type::Update) };
        let bytes = call.encoded_len();
        if bytes > MAX_EXECUTOR_CALL_BYTES {
            // Kept, it would end every subscription.
            return Err(UpdateError::TooLarge { bytes, limit: MAX_EXECUTOR_CALL_BYTES });
        }
        self.held += status.encoded_len();
        self.updates.push_back(status);
        self.send(call, out);
        Ok(())
    }

    /// Fills in what every update needs (behaviour rule 37).
    fn complete(&mut self, now: Time, status: v1::TaskStatus) -> v1::TaskStatus {
        let uuid = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid();
        v1::TaskStatus {
            uuid: Some(uuid.as_bytes().to_vec()),
            timestamp: status.timestamp.or(Some(now.as_secs_f64())),
            source: Some(Source::Executor as i32),
            agent_id: status.agent_id.or_else(|| self.agent.as_ref().map(Into::into)),
            executor_id: Some((&self.options.executor_id).into()),
            ..status
        }
    }

    fn is_new(&mut self, task: &v1::TaskInfo) -> bool {
        // The agent is told again which tasks these are, not what they are: some hundred with
        // large environments would be more than it takes in one call.
        let told = v1::TaskInfo {
            name: task.name.clone(),
            task_id: task.task_id.clone(),
            agent_id: task.agent_id.clone(),
            ..Default::default()
        };
        self.tasks.insert(TaskId::from(&task.task_id), told).is_none()
    }

    fn stop(&mut self, now: Time, out: &mut Actions) {
        match self.phase {
            Phase::Waiting { .. } | Phase::Connecting { .. } if self.updates.is_empty() => {
                out.push(Action::Abandon);
                self.end(out);
            }
            Phase::Ended | Phase::Closing { .. } => {}
            _ => {
                self.stop_by.get_or_insert(now + DRAIN_TIMEOUT);
                self.close_if_drained(now, out);
            }
        }
    }

    fn close_if_drained(&mut self, now: Time, out: &mut Actions) {
        if self.stop_by.is_some() && self.updates.is_empty() && self.phase == Phase::Subscribed {
            self.close(now, out);
        }
    }

    fn close(&mut self, now: Time, out: &mut Actions) {
        out.push(Action::HalfClose);
        self.phase = Phase::Closing { until: now + CLOSE_TIMEOUT };
    }

    fn shut_down(&mut self, out: &mut Actions) {
        if !self.shutting_down {
            self.shutting_down = true;
            deliver(out, Event::Shutdown);
        }
    }

    fn end(&mut self, out: &mut Actions) {
        self.phase = Phase::Ended;
        out.push(Action::End);
    }

    fn call(&self, kind: Type) -> Call {
        Call {
            executor_id: (&self.options.executor_id).into(),
            framework_id: (&self.options.framework_id).into(),
            r#type: Some(kind as i32),
            ..Default::default()
        }
    }

    /// Sends now, or never. What is too large is dropped, for the agent would end the
    /// subscription for it.
    fn send(&self, call: Call, out: &mut Actions) {
        if self.phase != Phase::Subscribed {
            return;
        }
        let bytes = call.encoded_len();
        if bytes > MAX_EXECUTOR_CALL_BYTES {
            let kind = call.r#type().as_str_name();
            warn!(kind, bytes, limit = MAX_EXECUTOR_CALL_BYTES, "a call is too large; dropped");
            return;
        }
        out.push(Action::Send(Box::new(call)));
    }
}

fn deliver(out: &mut Actions, event: Event) {
    out.push(Action::Deliver(Box::new(event)));
}
