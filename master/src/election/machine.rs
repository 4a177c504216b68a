//! The deciding part of the election: no clock, no socket. Why it is safe stands
//! in `docs/adr/0014-leader-lease.md`.

use std::time::Duration;

use mezz_proto::time::Time;
use thiserror::Error;

/// How often a standby looks whether there is a leader. A watch would tell at
/// once, but can be lost silently; this costs etcd four small reads a second.
pub const POLL: Duration = Duration::from_millis(250);

/// After a question that failed.
const RETRY: Duration = Duration::from_millis(250);

/// The same while there is a leadership to lose: the next member of etcd may answer.
const RENEW_RETRY: Duration = Duration::from_millis(100);

/// The longest wait for one answer while there is no leadership to lose.
const PATIENCE: Duration = Duration::from_secs(3);

/// While a standby names a leader it waits for this part of the lease at most: with one
/// member of etcd that stands still it hears from another one before it names nobody.
const LOOK_PATIENCE: u32 = 4;

/// A lease is renewed when this part of it has passed, and an answer is waited for as
/// long as the second part. That is enough for four attempts: of three members of
/// etcd one may stand still, and the others need a part of that time to agree on a new
/// leader of theirs.
const RENEW_AFTER: u32 = 5;
const RENEW_PATIENCE: u32 = 8;

/// So many attempts are short. If all members are merely slow, none of those is answered in
/// time: the next one waits for all but what one more needs.
const SHORT_RENEWALS: u32 = 2;

/// One in so many of the lease's seconds is not used: what this machine's clock
/// and etcd's may differ by over one lease, and what it takes to stop.
const MARGIN: u32 = 8;

/// The master that leads, as etcd names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// host:port that peers are told.
    pub address: String,
}

/// A question for etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who leads?
    Look,
    /// A lease, and with it the leader's key, if nobody has it.
    Campaign,
    /// Renew the lease, and tell whether the key is still ours.
    Renew,
}

/// etcd's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Look`], and to a campaign that another master has won.
    Leads(Leader),
    /// To [`Ask::Look`]: nobody leads.
    Vacant,
    /// To [`Ask::Campaign`]: the key is ours, with a lease of this length.
    Won(Duration),
    /// To [`Ask::Renew`]: the lease has its full length again, and the key is ours.
    Renewed,
    /// To [`Ask::Renew`]: the lease has ended, or the key is not ours.
    Deposed,
    /// No answer in time, or an error. Whatever was asked may have been done.
    Failed,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask etcd, and call [`Election::answer`] with the answer, or with
    /// [`Answer::Failed`] after this long.
    Ask(Ask, Duration),
    /// Nothing before this time.
    Sleep(Time),
    /// The leadership is lost: nothing may be decided any more.
    Lost(Lost),
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    Same,
    /// Another master leads, or, without an address, nobody does that is known.
    Standby(Option<Leader>),
    /// This master leads until this time, unless it hears more.
    Leading(Time),
    /// The campaign was won, but too late: the lease has to be given back.
    TooLate,
    /// The leadership is lost.
    Lost(Lost),
}

/// Why a master leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Lost {
    /// etcd did not renew the lease in time.
    #[error("the lease could not be renewed in time")]
    Expired,
    /// The lease has ended, or another master has the key.
    #[error("the lease has ended, or the leader's key was taken away")]
    Deposed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Standby {
        ask: Ask,
        at: Time,
        /// Somebody leads, as far as is known, and that may be told until then.
        known: Option<Time>,
    },
    Leading {
        until: Time,
        renew_at: Time,
        /// Renewals since the last that was answered.
        failed: u32,
    },
}

/// One master's part in the election. It leads from [`News::Leading`] until the time
/// that was told last, or [`News::Lost`] or [`Next::Lost`].
#[derive(Clone, Debug)]
pub struct Election {
    lease: Duration,
    state: State,
}

impl Election {
    /// A standby, with a lease of this length to ask for.
    pub fn new(lease: Duration) -> Self {
        Self { lease, state: State::Standby { ask: Ask::Look, at: Time::ZERO, known: None } }
    }

    /// What to do at `now`. One question at a time.
    pub fn next(&mut self, now: Time) -> Next {
        match self.state {
            State::Standby { ask, at, known } if at <= now => {
                let left = known.map(|until| until.since(now)).filter(|left| !left.is_zero());
                let patience = left.map_or(self.lease, |left| left.min(self.lease / LOOK_PATIENCE));
                Next::Ask(ask, patience.min(PATIENCE))
            }
            State::Standby { at, .. } => Next::Sleep(at),
            State::Leading { until, .. } if until <= now => {
                self.stand_by(now);
                Next::Lost(Lost::Expired)
            }
            State::Leading { until, renew_at, failed } if renew_at <= now => {
                let (left, short) = (until.since(now), self.lease / RENEW_PATIENCE);
                let patience = match failed {
                    ..SHORT_RENEWALS => short,
                    _ => left.saturating_sub(short + RENEW_RETRY).max(short),
                };
                Next::Ask(Ask::Renew, patience.min(PATIENCE).min(left))
            }
            State::Leading { until, renew_at, .. } => Next::Sleep(renew_at.min(until)),
        }
    }

    /// The answer to the last question, which was begun at `sent` and heard at `now`.
    /// `sent` must have been read before the first byte went out.
    pub fn answer(&mut self, sent: Time, now: Time, answer: Answer) -> News {
        match (self.state, answer) {
            (State::Standby { .. }, Answer::Leads(leader)) => {
                let known = Some(sent + self.lease);
                self.state = State::Standby { ask: Ask::Look, at: now + POLL, known };
                News::Standby(Some(leader))
            }
            (State::Standby { .. }, Answer::Vacant) => {
                self.state = State::Standby { ask: Ask::Campaign, at: now, known: None };
                News::Standby(None)
            }
            (State::Standby { .. }, Answer::Won(lease)) => {
                let until = self.until(sent, lease.min(self.lease));
                if until <= now {
                    self.state = State::Standby { ask: Ask::Look, at: now + RETRY, known: None };
                    return News::TooLate;
                }
                self.state = State::Leading { until, renew_at: self.renew_at(sent), failed: 0 };
                News::Leading(until)
            }
            // An answer that comes when the time is over changes nothing: others
            // were told already that this master leads no more.
            (State::Leading { until, .. }, _) if until <= now => {
                self.stand_by(now);
                News::Lost(Lost::Expired)
            }
            (State::Leading { until, .. }, Answer::Renewed) => {
                let until = until.max(self.until(sent, self.lease));
                self.state = State::Leading { until, renew_at: self.renew_at(sent), failed: 0 };
                News::Leading(until)
            }
            (State::Leading { until, failed, .. }, Answer::Failed) => {
                let failed = failed.saturating_add(1);
                self.state = State::Leading { until, renew_at: now + RENEW_RETRY, failed };
                News::Same
            }
            (State::Leading { .. }, _) => {
                self.stand_by(now);
                News::Lost(Lost::Deposed)
            }
            // A campaign that failed may have been won: a look will tell. A leader that was
            // not heard of for a lease may have lost it.
            (State::Standby { known, .. }, _) => {
                let known_still = known.filter(|until| now < *until);
                let at = now + RETRY;
                self.state = State::Standby { ask: Ask::Look, at, known: known_still };
                if known == known_still { News::Same } else { News::Standby(None) }
            }
        }
    }

    /// Whether this master may decide at `now`; the rest of the master asks its
    /// [`Tenure`](super::Tenure), which follows.
    #[cfg(test)]
    pub fn leads(&self, now: Time) -> bool {
        matches!(self.state, State::Leading { until, .. } if now < until)
    }

    /// The leadership is given up; the next question is whether somebody else has it.
    pub fn stand_by(&mut self, now: Time) {
        self.state = State::Standby { ask: Ask::Look, at: now, known: None };
    }

    /// The lease cannot end before `sent + lease` by etcd's clock, for etcd began to
    /// count after `sent`; the margin is for the clocks' difference in speed.
    fn until(&self, sent: Time, lease: Duration) -> Time {
        sent + (lease - lease / MARGIN)
    }

    fn renew_at(&self, sent: Time) -> Time {
        sent + self.lease / RENEW_AFTER
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
