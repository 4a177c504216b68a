//! The driver's decisions, pure: no clock, no socket, no task. `link` has the life
//! of the subscription, `wants` what the application asks for.
//!
//! It owns what the application wants of the master and what the driver knows of
//! the subscription. The caller (`run`) tells it of commands, links and time and
//! carries out its [`Action`]s in order.

mod link;
mod wants;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::{
    MAX_SCHEDULER_CALL_BYTES,
    ids::{AgentId, ExecutorId, OfferId, TaskId},
    search::Search,
    time::Time,
    v1::{
        self,
        scheduler::{Call, call},
    },
};
use prost::Message as _;
use rand::{SeedableRng, rngs::StdRng};
use tracing::warn;

use super::{
    AcknowledgeMode, Event, SchedulerOptions, calls, command::Command, handle::Delivery,
    tasks::Tasks,
};
use crate::drive::{self, Action, LinkEnd};

/// Tasks in one RECONCILE call, to stay far below a peer's message limit.
const RECONCILE_CHUNK: usize = 1000;

/// What masters say of a framework that has ended (behaviour rule 13).
const REMOVED: &str = "Framework has been removed";

pub(in crate::scheduler) use link::SUBSCRIBE_TIMEOUT;

type Actions = Vec<Action<Driver>>;

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
    Subscribed {
        heard: Time,
        patience: Duration,
    },
    /// The last call is sent; waiting for the master to end the stream.
    Closing {
        until: Time,
    },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Stop,
    Teardown,
}

#[derive(Debug)]
pub(super) struct Driver {
    search: Search,
    /// Where the driver is connected, or connects next.
    target: String,
    /// Whoever has lost a leader comes back within this, spread by chance.
    spread: Duration,
    /// When this link was SUBSCRIBED.
    subscribed: Option<Time>,
    rng: StdRng,
    phase: Phase,
    ending: Option<Ending>,

    /// With the id, once it is known.
    info: v1::FrameworkInfo,
    constraints: Option<v1::scheduler::OfferConstraints>,
    acknowledge: AcknowledgeMode,
    /// Wanted; always a subset of the framework's roles.
    suppressed: BTreeSet<String>,
    /// `info` or `suppressed` changed since the last SUBSCRIBE was made.
    changed: bool,
    /// Wanted, until the task has ended.
    kills: BTreeMap<TaskId, call::Kill>,
    /// Wanted while disconnected.
    shutdowns: BTreeSet<(ExecutorId, AgentId)>,
    tasks: Tasks,
    /// Live offers of this subscription.
    offers: BTreeSet<OfferId>,
    /// The application wants none any more.
    withdrawn: bool,
}

impl Driver {
    /// `options` are valid. The first attempt is due at once.
    pub fn new(now: Time, options: SchedulerOptions, seed: u64) -> Self {
        let mut info = options.framework;
        info.id = info.id.filter(|id| !id.value.is_empty());
        if info.principal.is_none() {
            info.principal = options.credential.map(|known| known.principal().to_owned());
        }
        let spread = options.reconnect_backoff.0;
        let masters = options.masters.iter().map(|master| link::plain(master).to_owned()).collect();
        let mut search = Search::new(masters, options.reconnect_backoff).spread_over(spread);
        Self {
            target: search.target().unwrap_or_default(),
            search,
            spread,
            subscribed: None,
            rng: StdRng::seed_from_u64(seed),
            phase: Phase::Waiting { until: now },
            ending: None,
            info,
            constraints: options.offer_constraints,
            acknowledge: options.acknowledge,
            suppressed: options.suppressed_roles.into_iter().collect(),
            changed: false,
            kills: BTreeMap::new(),
            shutdowns: BTreeSet::new(),
            tasks: Tasks::default(),
            offers: BTreeSet::new(),
            withdrawn: false,
        }
    }
}

impl drive::Driver for Driver {
    type Call = Call;
    type Wire = v1::scheduler::Event;
    type Command = Command;
    type Delivery = Delivery;

    fn next_deadline(&self) -> Option<Time> {
        let phase = match self.phase {
            Phase::Waiting { until } | Phase::Connecting { until } | Phase::Closing { until } => {
                Some(until)
            }
            Phase::Subscribed { heard, patience } => Some(heard + patience),
            Phase::Ended => None,
        };
        let tasks = self.tasks.due().filter(|_| self.is_subscribed());
        [phase, tasks].into_iter().flatten().min()
    }

    fn not_reading(&mut self, now: Time) {
        if let Phase::Subscribed { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Actions) {
        match self.phase {
            Phase::Waiting { until } if until <= now => self.connect(now, out),
            Phase::Connecting { until } if until <= now => {
                let secs = SUBSCRIBE_TIMEOUT.as_secs();
                self.give_up(now, format!("{} did not answer within {secs} s", self.target), out);
            }
            Phase::Subscribed { heard, patience } if heard + patience <= now => {
                let secs = patience.as_secs_f64();
                self.give_up(now, format!("nothing heard from the master for {secs} s"), out);
            }
            Phase::Closing { until } if until <= now => {
                self.give_up(now, "the master did not confirm".to_owned(), out);
            }
            _ => {}
        }
        if self.is_subscribed() {
            self.send_reconcile(now, out);
        }
    }

    fn on_link_end(&mut self, now: Time, end: LinkEnd, out: &mut Actions) {
        self.link_ended(now, end, out);
    }

    fn on_event(&mut self, now: Time, event: v1::scheduler::Event, out: &mut Actions) {
        use v1::scheduler::event::Type;
        if let Phase::Subscribed { heard, .. } = &mut self.phase {
            *heard = now;
        }
        match event.r#type() {
            Type::Subscribed => {
                if let Some(subscribed) = event.subscribed {
                    self.on_subscribed(now, subscribed, out);
                }
            }
            Type::Offers => {
                let offers = event.offers.map(|o| o.offers).unwrap_or_default();
                if self.withdrawn {
                    return self.give_back(offers.into_iter().map(|offer| offer.id).collect(), out);
                }
                self.offers.extend(offers.iter().map(|o| OfferId::from(&o.id)));
                deliver(out, Event::Offers(offers));
            }
            Type::Rescind => {
                if let Some(rescind) = event.rescind {
                    self.offers.remove(rescind.offer_id.value.as_str());
                    deliver(out, Event::Rescind(rescind.offer_id));
                }
            }
            Type::Update => {
                if let Some(update) = event.update {
                    self.on_update(update.status, out);
                }
            }
            Type::Message => {
                if let Some(v1::scheduler::event::Message { agent_id, executor_id, data }) =
                    event.message
                {
                    deliver(out, Event::Message { agent_id, executor_id, data });
                }
            }
            Type::Failure => {
                if let Some(v1::scheduler::event::Failure { agent_id, executor_id, status }) =
                    event.failure
                {
                    deliver(out, Event::Failure { agent_id, executor_id, status });
                }
            }
            Type::Error => {
                let message = event.error.map(|e| e.message).unwrap_or_default();
                match self.ending {
                    Some(Ending::Stop) => self.end(out),
                    Some(Ending::Teardown) if message == REMOVED => self.end(out),
                    Some(Ending::Teardown) | None => self.fail(message, out),
                }
            }
            // Inverse offers and operation feedback are not part of this API;
            // heartbeats have done their work above.
            Type::Heartbeat
            | Type::InverseOffers
            | Type::RescindInverseOffer
            | Type::UpdateOperationStatus
            | Type::Unknown => {}
        }
    }

    fn on_command(&mut self, now: Time, command: Command, out: &mut Actions) {
        match command {
            Command::Accept { offers, operations, filters } => {
                self.accept(offers, operations, filters, out);
            }
            Command::Decline { offers, filters } => {
                let live = self.take_live(offers);
                if !live.is_empty() {
                    self.send(calls::decline(live, filters), out);
                }
            }
            Command::Suppress(roles) => {
                self.suppress(roles, out);
            }
            Command::Withdraw => self.withdraw(out),
            Command::Revive(roles) => {
                let roles = self.own_roles(roles);
                self.suppressed.retain(|r| !roles.contains(r));
                self.changed = true;
                if !roles.is_empty() {
                    self.send(calls::revive(roles), out);
                }
            }
            Command::Kill(kill) => {
                self.send(calls::kill(kill.clone()), out);
                let task = TaskId::from(&kill.task_id);
                // A master may be silent about a kill, as it is about a task whose
                // agent has not come back; the answer repeats the kill.
                if self.is_subscribed() {
                    let agent = kill.agent_id.as_ref().map(AgentId::from);
                    self.tasks.ask_unless_live(now, task.clone(), agent);
                }
                self.kills.insert(task, kill);
            }
            Command::ShutdownExecutor { executor, agent } => {
                if self.is_subscribed() {
                    self.send(calls::shutdown(&executor, &agent), out);
                } else {
                    self.shutdowns.insert((executor, agent));
                }
            }
            Command::Message(message) => self.send(calls::message(message), out),
            Command::Reconcile(tasks) if tasks.is_empty() => {
                // While disconnected there is nothing to keep: every
                // resubscription begins with it.
                self.send(calls::reconcile([]), out);
            }
            Command::Reconcile(tasks) => {
                self.tasks.ask(now, tasks);
                if self.is_subscribed() {
                    self.send_reconcile(now, out);
                } else {
                    self.tasks.disconnected();
                }
            }
            Command::Acknowledge(acknowledge) => self.send(calls::acknowledge(acknowledge), out),
            Command::UpdateFramework { info, suppressed, constraints } => {
                self.update_framework(*info, suppressed, constraints, out);
            }
            Command::Teardown => self.teardown(now, out),
            Command::Stop => self.stop(now, out),
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    fn calls_off(&self, command: &Command) -> bool {
        self.ending == Some(Ending::Teardown) && matches!(command, Command::Stop)
    }

    fn on_unheard(&mut self, now: Time, out: &mut Actions) {
        // The end that was asked for stands.
        if self.ending.is_none() {
            self.stop(now, out);
        }
    }

    fn call_bytes(call: &Call) -> usize {
        call.encoded_len()
    }

    fn delivery_bytes(delivery: &Delivery) -> usize {
        match &delivery.event {
            Event::Offers(offers) => offers.iter().map(v1::Offer::encoded_len).sum(),
            Event::Update(status) => status.encoded_len(),
            Event::Message { data, .. } => data.len(),
            _ => 0,
        }
    }

    fn replaces(last: &Delivery, next: &Delivery) -> bool {
        // An application that does not read needs only the newest.
        matches!(last.event, Event::Disconnected { .. })
            && matches!(next.event, Event::Disconnected { .. })
    }
}

impl Driver {
    fn on_update(&mut self, status: v1::TaskStatus, out: &mut Actions) {
        let task = TaskId::from(&status.task_id);
        let state = status.state();
        self.tasks.updated(&task, status.agent_id.as_ref().map(AgentId::from), state);
        use v1::TaskState::*;
        match state {
            // A master that restarted has forgotten the kill.
            TaskStaging | TaskStarting | TaskRunning => {
                if let Some(kill) = self.kills.get(&task) {
                    self.send(calls::kill(kill.clone()), out);
                }
            }
            TaskKilling | TaskUnreachable => {}
            _ => {
                self.kills.remove(&task);
            }
        }
        let acknowledge = match self.acknowledge {
            AcknowledgeMode::Automatic => acknowledgement(&status),
            AcknowledgeMode::Explicit => None,
        };
        let delivery = Delivery { event: Event::Update(status), acknowledge };
        out.push(Action::Deliver(Box::new(delivery)));
    }

    /// Sends now, or never: what must be sent later is kept by the caller. A call that is too
    /// large is dropped, for the master would end the subscription for it.
    fn send(&self, call: Call, out: &mut Actions) {
        if !self.is_subscribed() {
            return;
        }
        let call = self.stamped(call);
        let bytes = call.encoded_len();
        if bytes > MAX_SCHEDULER_CALL_BYTES {
            let kind = call.r#type().as_str_name();
            warn!(kind, bytes, limit = MAX_SCHEDULER_CALL_BYTES, "a call is too large; dropped");
            return;
        }
        out.push(Action::Send(Box::new(call)));
    }

    fn stamped(&self, call: Call) -> Call {
        Call { framework_id: self.info.id.clone(), ..call }
    }

    fn send_reconcile(&mut self, now: Time, out: &mut Actions) {
        for chunk in self.tasks.take_due(now).chunks(RECONCILE_CHUNK) {
            self.send(calls::reconcile(chunk.iter().map(|(t, a)| (t, a.as_ref()))), out);
        }
    }

    fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Subscribed { .. })
    }

    fn suppressed(&self) -> Vec<String> {
        self.suppressed.iter().cloned().collect()
    }
}

fn deliver(out: &mut Actions, event: Event) {
    out.push(Action::Deliver(Box::new(Delivery { event, acknowledge: None })));
}

/// What acknowledges this update; nothing where none is due (behaviour rule 35).
pub(super) fn acknowledgement(status: &v1::TaskStatus) -> Option<call::Acknowledge> {
    let uuid = status.uuid.clone().filter(|u| !u.is_empty())?;
    let agent_id = status.agent_id.clone()?;
    Some(call::Acknowledge { agent_id, task_id: status.task_id.clone(), uuid })
}
