//! How many executors may fail before the application does, where it says so. The
//! pauses between attempts, and giving up what never comes up, are in
//! [`failures`](super::failures).
//!
//! What counts is what counts on YARN, in both modes: executors that crashed, were killed
//! for their memory or could not be started. Those that the driver had ended do not, also
//! when that was because their heartbeats had stopped; nor do those that were lost with an
//! agent or an offer.

use std::{collections::VecDeque, time::Duration};

use mezz_proto::{ids::AgentId, time::Time};

use super::{ExecutorNo, Exit, ExitKind};

/// What the application says of failed executors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureLimit {
    /// `spark.executor.maxNumFailures`: one more ends the application; no bound when
    /// absent.
    pub max: Option<u32>,
    /// `spark.executor.failuresValidityInterval`: older failures count no more; all
    /// count when absent.
    pub within: Option<Duration>,
}

/// The failures that count.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    limit: FailureLimit,
    times: VecDeque<Time>,
}

impl Limit {
    pub(super) fn new(limit: FailureLimit) -> Self {
        Self { limit, times: VecDeque::new() }
    }

    /// An executor ended; says why the application has to, if it has to.
    pub(super) fn ended(
        &mut self,
        now: Time,
        executor: ExecutorNo,
        (agent, hostname): (&AgentId, &str),
        exit: &Exit,
    ) -> Option<String> {
        let FailureLimit { max, within } = self.limit;
        let max = max?;
        if !matches!(exit.kind, ExitKind::Failed | ExitKind::OutOfMemory) {
            return None;
        }
        let old = |at: &Time| within.is_some_and(|within| now.since(*at) >= within);
        while self.times.front().is_some_and(old) {
            self.times.pop_front();
        }
        self.times.push_back(now);
        if self.times.len() as u64 <= u64::from(max) {
            return None;
        }
        let during = within.map(|w| format!(" within {} s", w.as_secs_f64())).unwrap_or_default();
        Some(format!(
            "{} executors failed{during}, and spark.executor.maxNumFailures is {max}; the last was \
             executor {executor} on {hostname} (agent {agent}): {}",
            self.times.len(),
            exit.reason
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(limit: &mut Limit, secs: u64, kind: ExitKind) -> Option<String> {
        let exit = Exit { kind, code: 1, by_app: true, reason: "exited with status 1".into() };
        limit.ended(Time::from_secs(secs), ExecutorNo(7), (&AgentId::new("a1"), "node1"), &exit)
    }

    #[test]
    fn one_more_than_allowed_ends_the_application() {
        let mut limit = Limit::new(FailureLimit { max: Some(2), within: None });
        assert_eq!(failed(&mut limit, 1, ExitKind::Failed), None);
        for harmless in [
            ExitKind::Lost,
            ExitKind::Killed,
            ExitKind::Silent,
            ExitKind::Finished,
            ExitKind::Unsuited,
        ] {
            assert_eq!(failed(&mut limit, 1, harmless), None);
        }
        assert_eq!(failed(&mut limit, 90_000, ExitKind::OutOfMemory), None);
        let said = failed(&mut limit, 90_001, ExitKind::Failed).unwrap();
        assert_eq!(
            said,
            "3 executors failed, and spark.executor.maxNumFailures is 2; the last was executor 7 \
             on node1 (agent a1): exited with status 1"
        );
    }

    #[test]
    fn old_failures_count_no_more() {
        let within = Some(Duration::from_secs(10));
        let mut limit = Limit::new(FailureLimit { max: Some(1), within });
        for secs in [0, 10, 20] {
            assert_eq!(failed(&mut limit, secs, ExitKind::Failed), None);
        }
        let said = failed(&mut limit, 29, ExitKind::Failed).unwrap();
        assert!(said.starts_with("2 executors failed within 10 s"), "{said}");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut limit = Limit::new(FailureLimit { max: None, within: None });
        for secs in 0..100 {
            assert_eq!(failed(&mut limit, secs, ExitKind::Failed), None);
        }
        assert!(limit.times.is_empty());
        let mut none = Limit::new(FailureLimit { max: Some(0), within: None });
        assert!(failed(&mut none, 0, ExitKind::Failed).is_some());
    }
}
