//! Task states.

use mezz_proto::v1;

/// Whether a task in this state has ended for good (behaviour rule 34).
///
/// `TASK_UNREACHABLE` and `TASK_UNKNOWN` are not terminal: the agent may come
/// back with the task. A framework that does not want to wait treats them as
/// lost.
pub fn is_terminal(state: v1::TaskState) -> bool {
    use v1::TaskState::*;
    match state {
        TaskFinished | TaskFailed | TaskKilled | TaskLost | TaskError | TaskDropped | TaskGone
        | TaskGoneByOperator => true,
        TaskStaging | TaskStarting | TaskRunning | TaskKilling | TaskUnreachable | TaskUnknown => {
            false
        }
    }
}
