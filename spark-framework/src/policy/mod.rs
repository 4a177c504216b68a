//! The offer policy: which executors to start on which offers, and when to ask
//! for more. Pure: time and everything else comes as an argument.
//!
//! The driver states how many executors it wants of each resource profile; the
//! policy keeps that many alive. It never holds an offer back: what it does not
//! use it declines with a long filter, and it suppresses offers altogether when
//! nothing is missing, so that an idle driver costs the cluster nothing.
//!
//! A running executor is ended only when the driver names it, because only the
//! driver knows which ones are idle or hold data; lowering a target ends those
//! that have not come up yet.

mod constraints;
pub(crate) mod custom;
mod doubt;
mod failures;
pub mod fine;
mod limit;
mod notice;
mod options;
mod place;
mod shuffle;
mod types;

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{ids::AgentId, time::Time};
use thiserror::Error;

pub use self::{
    constraints::{AttributeValue, ConstraintError, Constraints},
    custom::{Addresses, CustomNeeds},
    doubt::DOUBT,
    failures::Avoidance,
    limit::FailureLimit,
    notice::NOTICE_INTERVAL,
    options::{Placement, PolicyOptions},
    shuffle::{Served, ServiceNo, ServiceSize, ServiceSpec},
    types::{
        Action, Event, ExecutorNo, Exit, ExitKind, LaunchSpec, PolicyOffer, ProfileId,
        ProfileTarget,
    },
};
use self::{
    doubt::{Doubts, NOT_BACK},
    failures::{Ended, Failures},
    limit::Limit,
    place::Candidates,
    shuffle::Services,
};
pub(crate) use self::{
    notice::{Notice, Unable},
    place::{has_only, lacking},
};

/// How long an offer that is of no use stays refused. A revive lifts it, and so
/// does more room on the agent (rule 30).
pub const LONG_REFUSAL: Duration = Duration::from_secs(600);

/// An executor of which nothing is heard for so long after its launch counts as
/// lost.
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(120);

/// How far an executor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Asked for; no word from the agent yet.
    Launched,
    /// Its process runs.
    Running,
    /// The driver has it since then.
    Registered(Time),
    /// To be ended, on our word.
    Killing,
}

#[derive(Clone, Debug)]
struct Executor {
    profile: ProfileId,
    agent: AgentId,
    hostname: String,
    cores: u32,
    launched: Time,
    progress: Progress,
    /// Its agent is being drained: it holds what it has until it ends, but others
    /// take its place.
    leaving: bool,
}

impl Executor {
    /// Whether it counts for its profile's target.
    fn stays(&self) -> bool {
        self.progress != Progress::Killing && !self.leaving
    }
}

/// What the master has been told about our wish for offers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Interest {
    /// Offers come; this much was missing when they were last asked for.
    Open(BTreeMap<ProfileId, u32>),
    /// None come until a revive.
    Suppressed,
}

/// A broken promise of the policy; seeing one is a bug.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// More cores than `spark.cores.max`.
    #[error("executors hold {held} cores, spark.cores.max is {max}")]
    TooManyCores {
        /// Held by all executors.
        held: u64,
        /// Allowed.
        max: u32,
    },
    /// More executors than `spark.mezz.executor.maxPerAgent`.
    #[error("agent {agent} has {held} executors, spark.mezz.executor.maxPerAgent is {max}")]
    TooManyOnAgent {
        /// Which agent.
        agent: AgentId,
        /// Executors there.
        held: u32,
        /// Allowed.
        max: u32,
    },
}

/// The policy's whole state. See the [module](self).
#[derive(Clone, Debug)]
pub struct Policy {
    options: PolicyOptions,
    targets: BTreeMap<ProfileId, ProfileTarget>,
    executors: BTreeMap<ExecutorNo, Executor>,
    last: ExecutorNo,
    /// Executors that the master does not know.
    doubts: Doubts<ExecutorNo>,
    connected: bool,
    interest: Interest,
    failures: Failures,
    limit: Limit,
    services: Services,
    given_up: bool,
    unable: Unable,
    notice: Notice,
}

impl Policy {
    /// Wants nothing yet, and is not connected.
    pub fn new(options: PolicyOptions) -> Self {
        Self {
            services: Services::new(options.shuffle),
            limit: Limit::new(options.failures),
            options,
            targets: BTreeMap::new(),
            executors: BTreeMap::new(),
            last: ExecutorNo(0),
            doubts: Doubts::default(),
            connected: false,
            interest: Interest::Open(BTreeMap::new()),
            failures: Failures::default(),
            given_up: false,
            unable: Unable::default(),
            notice: Notice::default(),
        }
    }

    /// Takes in one event and appends what is to be done about it. An event that
    /// comes twice, or late, does no harm.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        let offered = matches!(event, Event::Offers(_));
        match event {
            Event::Targets(targets) => self.retarget(targets, out),
            Event::Kill(executors) => {
                for no in executors {
                    self.kill(no, out);
                }
            }
            Event::Registered(no) => self.registered(now, no),
            Event::Connected => self.reconnect(now, out),
            Event::Disconnected => {
                self.connected = false;
                self.doubts.clear();
                self.services.clear_doubts();
            }
            Event::Offers(offers) => self.offered(now, offers, out),
            Event::Unable { agent, why } => self.unable.learn(now, agent, why),
            Event::Running { executor, agent } => self.running(executor, &agent, out),
            Event::Known(no) => self.doubts.settle(&no),
            Event::Unknown(no) => {
                if self.executors.contains_key(&no) {
                    self.doubts.raise(now, no);
                }
            }
            Event::Leaving(no) => self.leaving(no),
            Event::Exited { executor, exit } => self.exited(now, executor, exit, out),
            Event::ServiceRunning { service, agent } => self.service_runs(now, service, agent, out),
            Event::ServiceUnknown(service) => self.services.doubt(now, service),
            Event::ServiceEnded { service, exit } => {
                self.service_ended(now, service, &exit, out);
            }
            Event::Tick => {}
        }
        self.failures.pass(now);
        self.time_out(now, out);
        self.say_avoided(out);
        self.settle(now, out);
        self.say_waiting(now, offered, out);
    }

    /// When to send [`Event::Tick`]; earlier ticks are harmless.
    pub fn next_deadline(&self) -> Option<Time> {
        let quiet = self
            .executors
            .values()
            .filter(|e| e.progress == Progress::Launched)
            .map(|e| e.launched + self.launch_timeout());
        let held = self.failures.held_until().filter(|_| !self.missing().is_empty());
        let notice = self.notice.next_deadline().filter(|_| self.stands_still());
        let doubts = self.doubts.next().into_iter().chain(self.services.next_doubt());
        quiet.chain(held).chain(doubts).chain(notice).min()
    }

    /// The executors that are alive or being started or ended.
    pub fn live(&self) -> usize {
        self.executors.len()
    }

    /// Checks what must always hold.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        let held = self.cores_held();
        if let Some(max) = self.options.cores_max
            && held > u64::from(max)
        {
            return Err(Violation::TooManyCores { held, max });
        }
        if let Some(max) = self.options.max_per_agent {
            for e in self.executors.values() {
                let held = self.on_agent(&e.agent);
                if held > max {
                    return Err(Violation::TooManyOnAgent { agent: e.agent.clone(), held, max });
                }
            }
        }
        Ok(())
    }

    fn retarget(&mut self, targets: Vec<ProfileTarget>, out: &mut Vec<Action>) {
        self.targets = targets.into_iter().map(|t| (t.id, t)).collect();
        let mut surplus: BTreeMap<ProfileId, u32> = BTreeMap::new();
        for e in self.executors.values().filter(|e| e.stays()) {
            *surplus.entry(e.profile).or_default() += 1;
        }
        for (id, count) in &mut surplus {
            *count = count.saturating_sub(self.targets.get(id).map_or(0, |t| t.count));
        }
        // The youngest first: the others are nearer to being of use.
        let doomed: Vec<ExecutorNo> = self
            .executors
            .iter()
            .rev()
            .filter(|(_, e)| e.progress == Progress::Launched && e.stays())
            .filter(|(_, e)| {
                let left = surplus.entry(e.profile).or_default();
                let take = *left > 0;
                *left = left.saturating_sub(1);
                take
            })
            .map(|(no, _)| *no)
            .collect();
        for no in doomed {
            self.kill(no, out);
        }
    }

    fn kill(&mut self, no: ExecutorNo, out: &mut Vec<Action>) {
        let Some(e) = self.executors.get_mut(&no) else { return };
        if matches!(e.progress, Progress::Registered(_)) {
            self.failures.proved();
        }
        if e.progress != Progress::Killing {
            e.progress = Progress::Killing;
            out.push(Action::Kill { executor: no, agent: e.agent.clone() });
        }
    }

    fn leaving(&mut self, no: ExecutorNo) {
        self.doubts.settle(&no);
        if let Some(e) = self.executors.get_mut(&no) {
            e.leaving = true;
        }
    }

    fn registered(&mut self, now: Time, no: ExecutorNo) {
        let Some(e) = self.executors.get_mut(&no) else { return };
        if matches!(e.progress, Progress::Launched | Progress::Running) {
            e.progress = Progress::Registered(now);
            self.failures.started();
        }
    }

    /// A new subscription has no filters (rule 15) but is still suppressed where
    /// the last one was, and what we asked before it may be lost.
    fn reconnect(&mut self, now: Time, out: &mut Vec<Action>) {
        self.connected = true;
        let wanted = self.wanted(now);
        if wanted.is_empty() || self.interest != Interest::Suppressed {
            self.interest = Interest::Open(wanted);
        }
        for (no, e) in &self.executors {
            if e.progress == Progress::Killing {
                out.push(Action::Kill { executor: *no, agent: e.agent.clone() });
            }
        }
    }

    fn running(&mut self, no: ExecutorNo, agent: &AgentId, out: &mut Vec<Action>) {
        self.doubts.settle(&no);
        match self.executors.get_mut(&no) {
            Some(e) => match e.progress {
                Progress::Launched => e.progress = Progress::Running,
                Progress::Running | Progress::Registered(_) => {}
                // The kill may have been lost with a link or a master.
                Progress::Killing => {
                    out.push(Action::Kill { executor: no, agent: e.agent.clone() });
                }
            },
            // Given up for lost before, and replaced since.
            None => out.push(Action::Kill { executor: no, agent: agent.clone() }),
        }
    }

    fn exited(&mut self, now: Time, no: ExecutorNo, exit: Exit, out: &mut Vec<Action>) {
        let Some(e) = self.executors.remove(&no) else { return };
        self.doubts.settle(&no);
        let asked = e.progress == Progress::Killing;
        let exit = if asked { exit.asked_for() } else { exit };
        let orphaned = self.services.orphan(no);
        let counted = orphaned.is_none();
        let exit = match orphaned {
            Some(reason) => Exit { reason, ..exit },
            None => exit,
        };
        let registered = match e.progress {
            Progress::Registered(since) => Some(since),
            _ => None,
        };
        // Only the driver knows of tasks; a run of some length is enough here.
        let (kind, last, done) = (exit.kind, self.last, false);
        let (agent, hostname) = (&e.agent, e.hostname.as_str());
        let ended = Ended { no, agent, hostname, registered, done, kind, last };
        if counted {
            self.failures.ended(now, &ended);
        }
        let works = self.any_works(now);
        if self.failures.hopeless(self.any_hope(), works) && !self.given_up {
            self.given_up = true;
            out.push(Action::GiveUp {
                message: format!(
                    "{} attempts in a row to start executors failed; the last was executor {no} \
                     on {} (agent {}): {}. Its standard error, in the agent's sandbox, says more",
                    failures::MAX_LAUNCH_FAILURES,
                    e.hostname,
                    e.agent,
                    exit.reason
                ),
            });
        }
        if counted
            && !self.given_up
            && let Some(message) = self.limit.ended(now, no, (&e.agent, &e.hostname), &exit)
        {
            self.given_up = true;
            out.push(Action::GiveUp { message });
        }
        out.push(Action::Ended { executor: no, exit });
    }

    fn launch_timeout(&self) -> Duration {
        self.options.launch_timeout.unwrap_or(LAUNCH_TIMEOUT)
    }

    fn time_out(&mut self, now: Time, out: &mut Vec<Action>) {
        let patience = self.launch_timeout();
        let silent: Vec<ExecutorNo> = self
            .executors
            .iter()
            .filter(|(_, e)| e.progress == Progress::Launched && e.launched + patience <= now)
            .map(|(no, _)| *no)
            .collect();
        let reason =
            format!("nothing was heard of it for {} s after its launch", patience.as_secs());
        for no in silent {
            self.give_up(now, no, reason.clone(), out);
        }
        while let Some(no) = self.doubts.take_due(now) {
            self.give_up(now, no, NOT_BACK.to_owned(), out);
        }
        while let Some(service) = self.services.take_doubted(now) {
            self.service_ended(now, service, &Exit::lost(NOT_BACK), out);
        }
    }

    /// Nothing is heard of it: should it live on, it is of no more use.
    fn give_up(&mut self, now: Time, no: ExecutorNo, reason: String, out: &mut Vec<Action>) {
        if let Some(e) = self.executors.get(&no) {
            out.push(Action::Kill { executor: no, agent: e.agent.clone() });
        }
        self.exited(now, no, Exit::lost(reason), out);
    }

    fn offered(&mut self, now: Time, offers: Vec<PolicyOffer>, out: &mut Vec<Action>) {
        let mut wanted = self.wanted(now);
        let mut candidates = Candidates::new(offers, |agent| self.on_agent(agent));
        let avoided = |agent: &AgentId| self.failures.avoided_until(agent);
        candidates.services = std::mem::take(&mut self.services);
        candidates.judge(&self.options, avoided, self.any_registered(), now);
        candidates.rule_out(|agent| self.unable.why(now, agent));
        while let Some((profile, pick)) = self.next_pick(&wanted, &candidates) {
            let no = ExecutorNo(self.last.0 + 1);
            let Some(target) = self.targets.get(&profile) else { break };
            let Some(place) = candidates.take(pick, no, target) else { break };
            self.last = no;
            let executor = Executor {
                profile,
                agent: place.agent,
                hostname: place.hostname,
                cores: target.cores,
                launched: now,
                progress: Progress::Launched,
                leaving: false,
            };
            self.executors.insert(no, executor);
            wanted = self.wanted(now);
        }
        self.note_lacking(now, &wanted, &candidates);
        self.services = std::mem::take(&mut candidates.services);
        candidates.answer(out);
    }

    /// Notes why executors that are wanted were not placed, if none was.
    fn note_lacking(
        &mut self,
        now: Time,
        wanted: &BTreeMap<ProfileId, u32>,
        candidates: &Candidates,
    ) {
        let target = wanted.keys().find_map(|id| self.targets.get(id));
        let obstacles = target.and_then(|t| candidates.obstacles(&self.options, t));
        match obstacles.filter(|_| !candidates.any_taken()) {
            Some(obstacles) => {
                for (agent, hostname, why) in obstacles {
                    self.notice.lacks(now, agent, hostname, why);
                }
            }
            None => self.notice.clear(),
        }
    }

    fn say_avoided(&mut self, out: &mut Vec<Action>) {
        let avoided = self.failures.take_avoided();
        if !self.given_up {
            out.extend(avoided.into_iter().map(Action::Avoid));
        }
    }

    /// Says why executors that are wanted are not there: when offers could not be used,
    /// and, without any executor, again and again.
    fn say_waiting(&mut self, now: Time, offered: bool, out: &mut Vec<Action>) {
        let wanted = self.wanted(now);
        let target = wanted.keys().find_map(|id| self.targets.get(id));
        let Some(target) = target.filter(|_| self.connected) else {
            return self.notice.clear();
        };
        if !offered && !self.stands_still() {
            return;
        }
        if let Some(lacking) = self.notice.due(now) {
            let message = format!(
                "no agent that is offered has room for an executor of resource profile {} \
                 ({target}): {lacking}",
                target.id.0
            );
            out.push(Action::Waiting { message });
        }
    }

    /// Whether nothing can go on without an executor.
    fn stands_still(&self) -> bool {
        self.connected && self.executors.is_empty()
    }

    /// The first profile that is missing executors and fits somewhere, and where.
    fn next_pick(
        &self,
        wanted: &BTreeMap<ProfileId, u32>,
        candidates: &Candidates,
    ) -> Option<(ProfileId, usize)> {
        wanted.keys().find_map(|id| {
            let target = self.targets.get(id)?;
            let uncovered = self.uncovered_locality(target);
            candidates.best(&self.options, target, &uncovered).map(|pick| (*id, pick))
        })
    }

    /// Of the tasks that would rather run on some host, those for which no
    /// executor is there yet.
    fn uncovered_locality<'a>(&self, target: &'a ProfileTarget) -> BTreeMap<&'a str, u32> {
        let mut left: BTreeMap<&str, u32> =
            target.locality.iter().map(|(h, n)| (h.as_str(), *n)).collect();
        if !left.is_empty() {
            for e in self.executors.values().filter(|e| e.profile == target.id) {
                if let Some(n) = left.get_mut(e.hostname.as_str()) {
                    *n = n.saturating_sub(e.cores);
                }
            }
        }
        left
    }

    /// Executors that the targets call for and `spark.cores.max` allows; only
    /// profiles that miss some.
    fn missing(&self) -> BTreeMap<ProfileId, u32> {
        if self.given_up {
            return BTreeMap::new();
        }
        let mut room =
            self.options.cores_max.map(|max| u64::from(max).saturating_sub(self.cores_held()));
        let mut missing = BTreeMap::new();
        for target in self.targets.values() {
            let alive =
                self.executors.values().filter(|e| e.profile == target.id && e.stays()).count();
            let mut n = u64::from(target.count).saturating_sub(alive as u64);
            if let Some(room) = &mut room {
                let cores = u64::from(target.cores.max(1));
                n = n.min(*room / cores);
                *room -= n * cores;
            }
            if n > 0 {
                missing.insert(target.id, u32::try_from(n).unwrap_or(u32::MAX));
            }
        }
        missing
    }

    /// What of the missing may be started now: after failures, one at a time and
    /// not at once.
    fn wanted(&self, now: Time) -> BTreeMap<ProfileId, u32> {
        let mut missing = self.missing();
        if missing.is_empty() {
            return missing;
        }
        let unproven = |after: ExecutorNo| {
            self.executors.iter().any(|(no, e)| {
                *no > after && matches!(e.progress, Progress::Launched | Progress::Running)
            })
        };
        let mut allowed = self.failures.allowance(now, unproven);
        missing.retain(|_, n| {
            *n = (*n).min(allowed);
            allowed -= *n;
            *n > 0
        });
        missing
    }

    fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        if !self.connected {
            return;
        }
        let wanted = self.wanted(now);
        if wanted.is_empty() {
            if self.interest != Interest::Suppressed {
                self.interest = Interest::Suppressed;
                out.push(Action::Suppress);
            }
            return;
        }
        let grew = match &self.interest {
            Interest::Suppressed => true,
            Interest::Open(asked) => {
                wanted.iter().any(|(id, n)| asked.get(id).is_none_or(|a| n > a))
            }
        };
        self.interest = Interest::Open(wanted);
        if grew {
            out.push(Action::Revive);
        }
    }

    fn cores_held(&self) -> u64 {
        self.executors.values().map(|e| u64::from(e.cores)).sum()
    }

    fn on_agent(&self, agent: &AgentId) -> u32 {
        let n = self.executors.values().filter(|e| &e.agent == agent).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    }

    fn any_registered(&self) -> bool {
        self.executors.values().any(|e| matches!(e.progress, Progress::Registered(_)))
    }

    /// Whether some executor is up, or may come up yet: one bad agent fails faster than a
    /// JVM starts on a good one.
    fn any_hope(&self) -> bool {
        self.executors.values().any(|e| e.progress != Progress::Killing)
    }

    /// Whether some executor does not just begin.
    fn any_works(&self, now: Time) -> bool {
        self.executors.values().any(
            |e| matches!(e.progress, Progress::Registered(since) if failures::worked(now, since)),
        )
    }
}
