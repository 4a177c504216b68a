//! Where sandboxes are (behaviour rule 56).

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use mezz_proto::ids::{AgentId, ContainerId, FrameworkId, TaskId};

/// A name for one folder that stands for `id` and for nothing else: letters,
/// digits, `-`, `_`, `:`, `@` and `.` stay (but not a leading `.`), each other
/// byte becomes `%XX`. So no id can leave its folder.
#[must_use]
pub fn escape(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for (at, byte) in id.bytes().enumerate() {
        match byte {
            b'.' if at > 0 => name.push('.'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':' | b'@' => {
                name.push(char::from(byte));
            }
            _ => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    name
}

/// `work_dir/slaves/S/frameworks/F/executors/E/runs/C`.
pub(super) fn path(
    work_dir: &Path,
    agent: &AgentId,
    framework: &FrameworkId,
    executor: &str,
    container: &ContainerId,
) -> PathBuf {
    let mut path = work_dir.join("slaves");
    path.push(escape(agent.as_str()));
    path.push("frameworks");
    path.push(escape(framework.as_str()));
    path.push("executors");
    path.push(escape(executor));
    path.push("runs");
    path.push(escape(container.as_str()));
    path
}

/// A member's, inside of its pod's.
pub(super) fn member(pod: &Path, container: &ContainerId) -> PathBuf {
    pod.join("containers").join(escape(container.as_str()))
}

/// Where a member's sandbox is found by the task's id.
pub(super) fn member_link(pod: &Path, task: &TaskId) -> PathBuf {
    pod.join("tasks").join(escape(task.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_leave_the_folder() {
        assert_eq!(escape("task-1.2_a"), "task-1.2_a");
        assert_eq!(escape(".."), "%2E.");
        assert_eq!(escape("."), "%2E");
        assert_eq!(escape("a/../b"), "a%2F..%2Fb");
        assert_eq!(escape("a%2Fb"), "a%252Fb");
        assert_eq!(escape("é\0"), "%C3%A9%00");
    }

    #[test]
    fn lays_out_as_mesos_does() {
        let path = path(
            Path::new("/w"),
            &AgentId::new("S0"),
            &FrameworkId::new("F/1"),
            "e",
            &ContainerId::new("c"),
        );
        assert_eq!(path, Path::new("/w/slaves/S0/frameworks/F%2F1/executors/e/runs/c"));
    }
}
