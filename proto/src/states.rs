//! What task states mean.

use crate::v1::TaskState;

impl TaskState {
    /// Whether a task in this state has ended for good (rule 34).
    ///
    /// UNREACHABLE and UNKNOWN are not the end: the agent may come back with the
    /// task. A framework that does not want to wait treats them as lost.
    pub fn is_terminal(self) -> bool {
        use TaskState::*;
        matches!(
            self,
            TaskFinished
                | TaskFailed
                | TaskKilled
                | TaskLost
                | TaskError
                | TaskDropped
                | TaskGone
                | TaskGoneByOperator
        )
    }
}
