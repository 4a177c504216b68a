//! Keeping what is remembered small: a framework may write any length into its labels.

use mezz_proto::v1;
use prost::Message as _;

/// Of one task, the newest.
const MAX_STATUSES: usize = 16;

/// One that is longer is kept without what can be long, in bytes.
const MAX_STATUS: usize = 2 << 10;

/// As [`MAX_STATUS`], of a task that has ended and of an executor.
const MAX_REMEMBERED: usize = 4 << 10;

/// As Mesos: the newest status takes the place of one of the same state before it.
pub(super) fn add_status(task: &mut v1::Task, status: &v1::TaskStatus) {
    let mut status = status.clone();
    if status.encoded_len() > MAX_STATUS {
        status.message = None;
        status.labels = None;
        status.check_status = None;
        status.limitation = None;
        if let Some(container) = &mut status.container_status {
            *container = v1::ContainerStatus {
                container_id: container.container_id.take(),
                ..Default::default()
            };
        }
    }
    task.state = status.state;
    task.status_update_state = Some(status.state);
    task.status_update_uuid.clone_from(&status.uuid);
    if task.statuses.last().is_some_and(|last| last.state == status.state) {
        task.statuses.pop();
    }
    if task.statuses.len() == MAX_STATUSES {
        task.statuses.remove(0);
    }
    task.statuses.push(status);
}

/// One that has ended.
pub(super) fn task(mut task: v1::Task) -> v1::Task {
    if task.encoded_len() > MAX_REMEMBERED {
        task.labels = None;
        task.discovery = None;
        task.container = None;
        task.health_check = None;
        for status in &mut task.statuses {
            status.message = None;
            status.labels = None;
        }
    }
    task
}

pub(super) fn executor(info: &v1::ExecutorInfo) -> v1::ExecutorInfo {
    // Not shown, and perhaps large.
    let mut shown = v1::ExecutorInfo { data: None, ..info.clone() };
    if shown.encoded_len() > MAX_REMEMBERED {
        shown.command = None;
        shown.container = None;
        shown.labels = None;
        shown.discovery = None;
    }
    shown
}
