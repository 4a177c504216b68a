//! The life of the subscription: attempts, its beginning, its end.

use std::time::Duration;

use mezz_proto::{
    MAX_SCHEDULER_CALL_BYTES,
    ids::{AgentId, TaskId},
    time::Time,
    v1,
};
use prost::Message as _;
use rand::RngExt;
use tracing::info;

use super::{Actions, Driver, Ending, Phase, deliver};
use crate::{
    drive::{Action, LinkEnd},
    scheduler::{Event, calls},
};

/// From the start of a connection to SUBSCRIBED.
pub(in crate::scheduler) const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// A master is dead when it misses so many heartbeats.
const HEARTBEATS_TO_MISS: u32 = 3;
/// What a master that does not say is taken to send (behaviour rule 11).
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
/// No master sends more often; a smaller number is a mistake.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);
/// How long the master may take to confirm a teardown before it is repeated.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the master may take to read the last calls when the driver stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
impl Driver {
    pub(super) fn connect(&mut self, now: Time, out: &mut Actions) {
        let id = self.info.id.clone();
        let (info, constraints) = (self.info.clone(), self.constraints.clone());
        let subscribe = Box::new(calls::subscribe(id, info, self.suppressed(), constraints));
        let bytes = subscribe.encoded_len();
        if bytes > MAX_SCHEDULER_CALL_BYTES {
            // Every master would end the attempt, again and again.
            let text = format!(
                "the call to subscribe has {bytes} bytes, and {MAX_SCHEDULER_CALL_BYTES} are \
                 allowed; make the FrameworkInfo smaller"
            );
            return self.fail(text, out);
        }
        self.changed = false;
        self.phase = Phase::Connecting { until: now + SUBSCRIBE_TIMEOUT };
        self.subscribed = None;
        let (target, tried) = (self.target.clone(), self.search.tried.clone());
        out.push(Action::Connect { target, tried, first: subscribe });
    }

    pub(super) fn on_subscribed(
        &mut self,
        now: Time,
        subscribed: v1::scheduler::event::Subscribed,
        out: &mut Actions,
    ) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        let heartbeat = subscribed
            .heartbeat_interval_seconds
            .and_then(|s| Duration::try_from_secs_f64(s).ok())
            .unwrap_or(DEFAULT_HEARTBEAT)
            .max(SHORTEST_HEARTBEAT);
        let patience = heartbeat.saturating_mul(HEARTBEATS_TO_MISS);
        self.phase = Phase::Subscribed { heard: now, patience };
        self.subscribed = Some(now);
        self.search.joined(self.spread);
        let again = self.info.id.replace(subscribed.framework_id.clone()).is_some();
        let v1::scheduler::event::Subscribed { framework_id, master_info: master, .. } = subscribed;
        info!(framework_id = %framework_id.value, "subscribed");
        deliver(out, Event::Subscribed { framework_id, master });
        if self.ending == Some(Ending::Teardown) {
            return self.teardown(now, out);
        }
        if self.changed {
            self.send_framework(out);
        }
        for (executor, agent) in std::mem::take(&mut self.shutdowns) {
            self.send(calls::shutdown(&executor, &agent), out);
        }
        for kill in self.kills.values() {
            out.push(Action::Send(Box::new(self.stamped(calls::kill(kill.clone())))));
        }
        if again {
            self.send(calls::reconcile([]), out);
        }
        let killed: Vec<_> = self
            .kills
            .values()
            .map(|k| (TaskId::from(&k.task_id), k.agent_id.as_ref().map(AgentId::from)))
            .collect();
        self.tasks.ask(now, killed);
        self.tasks.ask_all(now);
        self.send_reconcile(now, out);
    }

    pub(super) fn link_ended(&mut self, now: Time, end: LinkEnd, out: &mut Actions) {
        let closing = matches!(self.phase, Phase::Closing { .. });
        let was_subscribed = self.is_subscribed();
        let connecting = matches!(self.phase, Phase::Connecting { .. });
        self.offers.clear();
        self.tasks.disconnected();
        match (self.ending, &end) {
            (Some(Ending::Stop), _) => return self.end(out),
            (Some(Ending::Teardown), _) if self.info.id.is_none() => return self.end(out),
            // Without that confirmation the driver subscribes again: either the
            // framework is gone, or the call is repeated.
            (Some(Ending::Teardown), LinkEnd::Closed) if closing => return self.end(out),
            _ => {}
        }
        let reason = match end {
            LinkEnd::Refused(reason) => return self.fail(reason, out),
            LinkEnd::NotLeading { leader, after } => {
                let after = if connecting { after } else { Duration::ZERO };
                let leader = leader.unwrap_or_default();
                if self.search.not_leading(&leader, after) {
                    if was_subscribed || closing {
                        deliver(out, Event::Disconnected { reason: format!("{leader} leads now") });
                    }
                    self.wait_for_next(now, Duration::ZERO);
                    return;
                }
                match &*leader {
                    "" => format!("{} does not lead and knows no leader", self.target),
                    leader => {
                        format!("redirected again and again, last to {leader}; no master leads")
                    }
                }
            }
            LinkEnd::Closed => self.lost(now, "the master ended the subscription".to_owned()),
            LinkEnd::Lost(reason) => self.lost(now, reason),
        };
        let spread = if was_subscribed || closing { self.spread } else { Duration::ZERO };
        self.wait_for_next(now, spread);
        info!(%reason, "disconnected");
        deliver(out, Event::Disconnected { reason });
    }

    /// There is no link to the target (any more).
    fn lost(&mut self, now: Time, reason: String) -> String {
        match self.subscribed {
            Some(since) => self.search.lost(self.target.clone(), now.since(since)),
            None => self.search.failed(self.target.clone()),
        }
        reason
    }

    /// Goes on with the search: within `spread` to the next master, or after a round's pause.
    fn wait_for_next(&mut self, now: Time, spread: Duration) {
        let (target, longest) = match self.search.target() {
            Some(target) => (Some(target), self.search.crowd().max(spread)),
            None => {
                let pause = self.search.pause();
                (self.search.target(), pause)
            }
        };
        if let Some(target) = target {
            self.target = target;
        }
        // A random part of it, so that the frameworks of a failed master do not come
        // back as one.
        let wait = longest.mul_f64(self.rng.random_range(0.0..=1.0));
        self.phase = Phase::Waiting { until: now + wait };
    }

    pub(super) fn teardown(&mut self, now: Time, out: &mut Actions) {
        let before = self.ending.replace(Ending::Teardown);
        match self.phase {
            Phase::Subscribed { .. } => {
                self.send(calls::teardown(), out);
                self.phase = Phase::Closing { until: now + TEARDOWN_TIMEOUT };
            }
            // The master may have made the framework already, so the id is
            // waited for.
            Phase::Connecting { .. } => {}
            Phase::Waiting { .. } if self.info.id.is_none() => self.end(out),
            // Our side of the link has ended already: it takes another one.
            Phase::Closing { .. } if before == Some(Ending::Stop) => {
                out.push(Action::Abandon);
                self.offers.clear();
                self.tasks.disconnected();
                self.phase = Phase::Waiting { until: now };
            }
            Phase::Waiting { .. } | Phase::Closing { .. } | Phase::Ended => {}
        }
    }

    pub(super) fn stop(&mut self, now: Time, out: &mut Actions) {
        let before = self.ending.replace(Ending::Stop);
        match self.phase {
            // What was sent before is still on its way.
            Phase::Closing { .. } if before == Some(Ending::Stop) => {}
            Phase::Subscribed { .. } | Phase::Closing { .. } => {
                out.push(Action::HalfClose);
                self.phase = Phase::Closing { until: now + STOP_TIMEOUT };
            }
            Phase::Waiting { .. } | Phase::Connecting { .. } | Phase::Ended => {
                out.push(Action::Abandon);
                self.end(out);
            }
        }
    }

    pub(super) fn give_up(&mut self, now: Time, reason: String, out: &mut Actions) {
        out.push(Action::Abandon);
        self.link_ended(now, LinkEnd::Lost(reason), out);
    }

    pub(super) fn fail(&mut self, message: String, out: &mut Actions) {
        out.push(Action::Abandon);
        if self.ending == Some(Ending::Teardown) {
            out.push(Action::CallOff);
        }
        deliver(out, Event::Error(message));
        self.end(out);
    }

    pub(super) fn end(&mut self, out: &mut Actions) {
        self.phase = Phase::Ended;
        self.tasks.disconnected();
        out.push(Action::End);
    }
}

/// As masters name each other.
pub(super) fn plain(address: &str) -> &str {
    address.trim_start_matches("http://")
}
