//! What task states mean.

use crate::v1::TaskState;

impl TaskState {
    /// Whether a task in this state has ended for good (rule 34).
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
