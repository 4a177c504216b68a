//! Failed executors: how fast to try again, which agents to avoid, when to give
//! up.
//!
//! What counts is attempts, not executors: when fifty of them die of one bad
//! class path, that is one failed attempt, and only one is started to see
//! whether things have changed.

use std::{collections::BTreeMap, fmt, time::Duration};

use mezz_proto::{ids::AgentId, time::Time};

use super::{ExecutorNo, ExitKind};

/// After so many attempts in a row with no executor coming up, the driver is
/// told to stop.
pub const MAX_LAUNCH_FAILURES: u32 = 5;
/// Before the third attempt; doubled each time. The second comes at once.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest wait before an attempt.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// An agent is avoided from this many failures in a row on.
const AGENT_FAILURES: u32 = 2;
/// For how long at first; doubled each time.
const FIRST_AVOIDANCE: Duration = Duration::from_secs(60);
/// The longest avoidance.
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(900);
/// An executor that worked for so long was all right when it failed.
const STABLE: Duration = Duration::from_secs(60);
/// One that fails before has not even begun to work, unless it has ended a task.
const MOMENT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
struct AgentRecord {
    in_a_row: u32,
    avoid_until: Time,
    /// How long that was when it began.
    pause: Duration,
}

/// An agent on which executors fail, and which is avoided from now on. In words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoidance {
    /// The agent.
    pub agent: AgentId,
    /// Its host.
    pub hostname: String,
    /// How many have failed there in a row.
    pub failures: u32,
    /// For how long it gets none, as long as some are up elsewhere.
    pub pause: Duration,
}

impl fmt::Display for Avoidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, hostname, failures, pause } = self;
        write!(
            f,
            "{failures} executors in a row failed on {hostname} (agent {agent}): none is started \
             there for {} s while any are up elsewhere",
            pause.as_secs()
        )
    }
}

/// What has failed so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// Attempts in a row in which an executor failed before the driver had it.
    launches: u32,
    /// Attempts in a row in which an executor failed as soon as the driver had it.
    early: u32,
    /// Both, with those that failed soon after and those that were lost.
    delays: u32,
    /// The last executor that had been launched when the latest of these came;
    /// those up to it belong to the same attempt.
    attempt: ExecutorNo,
    /// No launch before.
    hold_until: Time,
    agents: BTreeMap<AgentId, AgentRecord>,
    /// Not told yet.
    avoided: Vec<Avoidance>,
    /// Shuffle services in a row that failed before they had worked for a while.
    services: u32,
}

/// An executor that ended, as far as it matters here.
pub(super) struct Ended<'a> {
    pub(super) no: ExecutorNo,
    pub(super) agent: &'a AgentId,
    pub(super) hostname: &'a str,
    /// Since when the driver had it, if ever.
    pub(super) registered: Option<Time>,
    /// Whether it was heard to end a task.
    pub(super) done: bool,
    pub(super) kind: ExitKind,
    /// The last executor launched so far.
    pub(super) last: ExecutorNo,
}

impl Failures {
    /// An executor came up.
    pub(super) fn started(&mut self) {
        self.launches = 0;
    }

    /// An executor is to end that came up and did not fail.
    pub(super) fn proved(&mut self) {
        self.early = 0;
    }

    /// An executor ended.
    pub(super) fn ended(&mut self, now: Time, ended: &Ended<'_>) {
        let Ended { no, agent, hostname, registered, done, kind, last } = *ended;
        let worked = done || registered.is_some_and(|since| worked(now, since));
        let stable = registered.is_some_and(|since| now.since(since) >= STABLE);
        let failed = match kind {
            ExitKind::Failed | ExitKind::OutOfMemory | ExitKind::Silent => true,
            ExitKind::Finished => registered.is_none(),
            ExitKind::Killed | ExitKind::Lost | ExitKind::Unsuited => false,
        };
        if stable {
            self.delays = 0;
        }
        if worked || (registered.is_some() && !failed) {
            self.proved();
        }
        if failed {
            self.blame(now, (agent, hostname), stable);
        } else if registered.is_some() {
            self.agents.remove(agent);
        }
        let lost_early = kind == ExitKind::Lost && registered.is_none();
        if stable || !(failed || lost_early) || no <= self.attempt {
            return;
        }
        if failed && registered.is_none() {
            self.launches += 1;
        } else if failed && !worked {
            self.early += 1;
        }
        self.attempt = last;
        if self.delays > 0 {
            self.hold_until = now + doubled(FIRST_DELAY, self.delays - 1, LONGEST_DELAY);
        }
        self.delays += 1;
    }

    /// A shuffle service failed, and its executors with it; `since` when it ran, if it did.
    pub(super) fn service_ended(
        &mut self,
        now: Time,
        place: (&AgentId, &str),
        since: Option<Time>,
    ) {
        let stable = since.is_some_and(|since| now.since(since) >= STABLE);
        self.blame(now, place, stable);
        if stable {
            self.services = 0;
            return;
        }
        if self.services > 0 {
            self.hold_until = now + doubled(FIRST_DELAY, self.services - 1, LONGEST_DELAY);
        }
        self.services += 1;
    }

    fn blame(&mut self, now: Time, (agent, hostname): (&AgentId, &str), stable: bool) {
        let record = self.agents.entry(agent.clone()).or_default();
        record.in_a_row = if stable { 1 } else { record.in_a_row + 1 };
        if record.in_a_row >= AGENT_FAILURES {
            let times = record.in_a_row - AGENT_FAILURES;
            let pause = doubled(FIRST_AVOIDANCE, times, LONGEST_AVOIDANCE);
            // Of many that fail there together, not every one is news.
            let news = record.avoid_until <= now || pause > record.pause;
            (record.avoid_until, record.pause) = (now + pause, pause);
            if news {
                self.avoided.push(Avoidance {
                    agent: agent.clone(),
                    hostname: hostname.to_owned(),
                    failures: record.in_a_row,
                    pause,
                });
            }
        }
    }

    /// Agents that are avoided since this was asked last.
    pub(super) fn take_avoided(&mut self) -> Vec<Avoidance> {
        std::mem::take(&mut self.avoided)
    }

    /// Whether it makes no sense to go on, with an executor that came up, or may come up
    /// yet, or without; and with one that works or without.
    pub(super) fn hopeless(&self, any_up: bool, any_works: bool) -> bool {
        let none_comes_up = self.launches.max(self.services) >= MAX_LAUNCH_FAILURES;
        let none_works = self.early >= MAX_LAUNCH_FAILURES;
        (none_comes_up && !any_up) || (none_works && !any_works)
    }

    /// How many executors may be started now. `unproven` tells whether one
    /// launched after this one has neither come up nor ended.
    pub(super) fn allowance(&self, now: Time, unproven: impl Fn(ExecutorNo) -> bool) -> u32 {
        if now < self.hold_until {
            0
        } else if self.launches == 0 {
            u32::MAX
        } else {
            u32::from(!unproven(self.attempt))
        }
    }

    /// Forgets a hold that is over.
    pub(super) fn pass(&mut self, now: Time) {
        if self.hold_until <= now {
            self.hold_until = Time::ZERO;
        }
    }

    /// When launches may go on, if they are held back at all.
    pub(super) fn held_until(&self) -> Option<Time> {
        (self.hold_until > Time::ZERO).then_some(self.hold_until)
    }

    /// Until when this agent gets nothing to do; in the past when it may.
    pub(super) fn avoided_until(&self, agent: &AgentId) -> Time {
        self.agents.get(agent).map_or(Time::ZERO, |r| r.avoid_until)
    }
}

/// Whether an executor that came up then has worked by now.
pub(super) fn worked(now: Time, since: Time) -> bool {
    now.since(since) >= MOMENT
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
