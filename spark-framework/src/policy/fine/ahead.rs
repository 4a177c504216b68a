//! Executors that are started while the driver still starts, before it has tasks: what
//! its first job would wait for.

use super::{FineAction, FinePolicy, Group, Progress, TaskAsk, TaskNo};
use crate::policy::LONG_REFUSAL;

impl FinePolicy {
    /// Starts an executor with a task of ours, which holds what one of Spark's would
    /// until it is up.
    pub(super) fn start_ahead(&mut self, group: Group, out: &mut Vec<FineAction>) {
        let fresh =
            self.executors.get(&group.agent).is_some_and(|e| e.progress == Progress::Proposed);
        // The agent may offer for several roles.
        if !fresh {
            return self.decline(group.offers, LONG_REFUSAL, out);
        }
        self.ahead = self.ahead.map(|left| left.saturating_sub(1));
        let task = TaskNo::start_of(group.executor);
        let ask = TaskAsk { task, cpus: self.options.task_cpus, bytes: 0 };
        self.launch(group, &[ask], LONG_REFUSAL, out);
    }

    /// The first offers are all that is looked at: a driver that stays idle is not to be
    /// offered more.
    pub(super) fn end_ahead(&mut self, out: &mut Vec<FineAction>) {
        if self.ahead.take().is_some() && self.suppressed {
            out.push(FineAction::Suppress);
        }
    }
}
