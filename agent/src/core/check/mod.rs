//! Checks and health checks of the tasks that the agent runs itself (behaviour
//! rule 61): command tasks and members of pods. Custom executors do their own.

mod parse;
mod run;

use std::time::Duration;

use mezz_proto::{
    time::Time,
    v1::{CheckStatusInfo, check_info, check_status_info},
};

pub(super) use self::parse::parse;
use crate::containerizer::ExecSpec;

/// One attempt of a check. Numbered by the core, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProbeId(pub u64);

/// What an attempt does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Runs a program in the container; answered by [`Answer::Exit`].
    Command(ExecSpec),
    /// Gets `path` from the container's own loopback address; answered by
    /// [`Answer::Http`]. Redirections are not followed, certificates not looked at.
    Http {
        /// The port.
        port: u16,
        /// Starts with `/`.
        path: String,
        /// Whether to speak TLS.
        tls: bool,
        /// `::1` in place of `127.0.0.1`.
        ipv6: bool,
    },
    /// Connects to the container's own loopback address; answered by
    /// [`Answer::Tcp`].
    Tcp {
        /// The port.
        port: u16,
        /// `::1` in place of `127.0.0.1`.
        ipv6: bool,
    },
}

/// What an attempt found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The program's exit status; 128 and the signal's number if one killed it.
    Exit(i32),
    /// The response's status code.
    Http(u16),
    /// Whether somebody listens.
    Tcp(bool),
}

/// Why an attempt found nothing: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The task did not answer, or not in time: as bad as a bad answer.
    Failed(String),
    /// It was not asked, for what is short or broken on the agent's side. Says nothing
    /// of the task, and is tried again after the interval.
    NotMade(String),
}

/// Which of a task's two checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckKind {
    /// `TaskInfo.check`.
    Check,
    /// `TaskInfo.health_check`.
    Health,
}

/// When an attempt is made, and what it does.
#[derive(Debug)]
pub(super) struct Prober {
    probe: Probe,
    delay: Duration,
    interval: Duration,
    /// `None` waits for ever.
    timeout: Option<Duration>,
    /// The attempt that is under way.
    running: Option<ProbeId>,
}

#[derive(Debug)]
pub(super) struct Check {
    prober: Prober,
    kind: check_info::Type,
    /// As last told.
    status: CheckStatusInfo,
}

impl Check {
    fn new(prober: Prober, kind: check_info::Type) -> Self {
        Self { prober, kind, status: found(kind, None) }
    }

    /// Whether there is something to tell (rule 61: on change).
    fn take(&mut self, answer: Option<Answer>) -> bool {
        let status = found(self.kind, answer);
        let changed = self.status != status;
        self.status = status;
        changed
    }
}

/// Without an answer, only the kind is said: the check could not be done.
fn found(kind: check_info::Type, answer: Option<Answer>) -> CheckStatusInfo {
    use check_status_info::{Command, Http, Tcp};
    let mut info = CheckStatusInfo { r#type: Some(kind.into()), ..Default::default() };
    match kind {
        check_info::Type::Command => {
            let exit_code = answer.and_then(|answer| match answer {
                Answer::Exit(code) => Some(code),
                _ => None,
            });
            info.command = Some(Command { exit_code });
        }
        check_info::Type::Http => {
            let status_code = answer.and_then(|answer| match answer {
                Answer::Http(code) => Some(code.into()),
                _ => None,
            });
            info.http = Some(Http { status_code });
        }
        check_info::Type::Tcp => {
            let succeeded = answer.and_then(|answer| match answer {
                Answer::Tcp(succeeded) => Some(succeeded),
                _ => None,
            });
            info.tcp = Some(Tcp { succeeded });
        }
        check_info::Type::Unknown => {}
    }
    info
}

#[derive(Debug)]
pub(super) struct Health {
    prober: Prober,
    /// So many failures in a row end the task.
    limit: u32,
    /// Failures in this time after the start do not count, until the first success.
    grace: Duration,
    failures: u32,
    healthy: Option<bool>,
}

/// What an attempt means for the task.
#[derive(Debug, PartialEq, Eq)]
enum HealthChange {
    Nothing,
    Tell,
    /// To be told as well.
    Kill,
}

impl Health {
    fn take(&mut self, now: Time, since: Time, good: bool) -> HealthChange {
        if good {
            let tell = self.healthy != Some(true);
            self.failures = 0;
            self.healthy = Some(true);
            return if tell { HealthChange::Tell } else { HealthChange::Nothing };
        }
        let masked = !self.grace.is_zero() && now.since(since) <= self.grace;
        if self.healthy.is_none() && masked {
            return HealthChange::Nothing;
        }
        self.failures = self.failures.saturating_add(1);
        self.healthy = Some(false);
        if self.failures >= self.limit { HealthChange::Kill } else { HealthChange::Tell }
    }
}

/// A task's checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    check: Option<Check>,
    health: Option<Health>,
}

impl Checks {
    fn prober(&mut self, kind: CheckKind) -> Option<&mut Prober> {
        match kind {
            CheckKind::Check => self.check.as_mut().map(|check| &mut check.prober),
            CheckKind::Health => self.health.as_mut().map(|health| &mut health.prober),
        }
    }

    /// As the last attempt left it; what every status of the task says.
    pub(super) fn status(&self) -> Option<&CheckStatusInfo> {
        self.check.as_ref().map(|check| &check.status)
    }

    /// As the attempts so far left it.
    pub(super) fn healthy(&self) -> Option<bool> {
        self.health.as_ref()?.healthy
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> Option<u32> {
        self.health.as_ref().map(|health| health.failures)
    }

    /// As it stood when the agent stopped: no restart makes a task healthier.
    pub(super) fn restore(
        &mut self,
        status: Option<CheckStatusInfo>,
        healthy: Option<bool>,
        failures: Option<u32>,
    ) {
        if let (Some(check), Some(status)) = (&mut self.check, status) {
            check.status = status;
        }
        if let Some(health) = &mut self.health {
            health.healthy = healthy;
            health.failures = failures.unwrap_or(0);
        }
    }
}
