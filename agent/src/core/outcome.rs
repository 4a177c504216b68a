//! What a container's end means for its task (behaviour rules 59, 63, 64).

use mezz_proto::v1::{TaskState, task_status::Reason};

use super::update::Verdict;
use crate::containerizer::{Limitation, LimitationKind, OutOfMemory, Termination};

/// How a container ended, as far as the shell knows.
pub(super) struct End {
    pub(super) termination: Termination,
    pub(super) stderr_tail: Option<String>,
}

/// How a process ended, from what `waitpid` tells.
enum Exit {
    Status(i32),
    Signal(i32),
}

fn exit(wait_status: i32) -> Exit {
    match wait_status & 0x7f {
        0 => Exit::Status((wait_status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

/// There was a program, and nobody saw its end.
const UNSEEN: &str = "its exit status is unknown: its launcher was killed, or the record of its \
                      end is lost";

/// For a command task that nobody asked to end.
pub(super) fn command(end: &End) -> Verdict {
    let termination = &end.termination;
    if let Some(verdict) = out_of_memory(end) {
        return verdict;
    }
    if let Some(failure) = &termination.failure {
        return Verdict::new(TaskState::TaskFailed, Reason::ContainerLaunchFailed, failure);
    }
    match termination.wait_status.map(exit) {
        Some(Exit::Status(0)) => Verdict {
            state: TaskState::TaskFinished,
            reason: None,
            message: "exited with status 0".to_owned(),
        },
        Some(exit) => {
            Verdict::new(TaskState::TaskFailed, Reason::CommandExecutorFailed, text(&exit))
        }
        // What a lost executor is to Mesos (rule 40), our launcher being it.
        None => Verdict::new(TaskState::TaskFailed, Reason::ExecutorTerminated, UNSEEN),
    }
}

/// For the tasks that an executor leaves behind (rule 40).
pub(super) fn executor(end: &End) -> Verdict {
    let termination = &end.termination;
    if let Some(verdict) = out_of_memory(end) {
        return verdict;
    }
    let message = match (&termination.failure, termination.wait_status.map(exit)) {
        (Some(failure), _) => format!("the executor did not start: {failure}"),
        (None, Some(exit)) => format!("the executor ended: {}", text(&exit)),
        (None, None) => format!("the executor ended: {UNSEEN}"),
    };
    Verdict::new(TaskState::TaskFailed, Reason::ExecutorTerminated, message)
}

/// For what the agent ended for what it had taken.
pub(super) fn limited(limitation: &Limitation) -> Verdict {
    let reason = match limitation.kind {
        LimitationKind::Disk => Reason::ContainerLimitationDisk,
        LimitationKind::Ports => Reason::ContainerLimitation,
    };
    Verdict::new(TaskState::TaskFailed, reason, &limitation.message)
}

/// Whether it ended for what it had taken, which is told whatever else is known.
pub(super) fn is_limitation(reason: Option<Reason>) -> bool {
    matches!(
        reason,
        Some(
            Reason::ContainerLimitation
                | Reason::ContainerLimitationDisk
                | Reason::ContainerLimitationMemory
        )
    )
}

fn out_of_memory(end: &End) -> Option<Verdict> {
    let OutOfMemory { limit_bytes, peak_bytes } = end.termination.out_of_memory?;
    let mut message = format!(
        "out of memory: the limit is {}, the peak was {}",
        mebibytes(limit_bytes),
        mebibytes(peak_bytes)
    );
    if let Some(tail) = end.stderr_tail.as_deref().filter(|tail| !tail.is_empty()) {
        message.push_str("; the end of stderr:\n");
        message.push_str(tail);
    }
    Some(Verdict::new(TaskState::TaskFailed, Reason::ContainerLimitationMemory, message))
}

fn mebibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn text(exit: &Exit) -> String {
    match exit {
        Exit::Status(status) => format!("exited with status {status}"),
        Exit::Signal(signal) => match name(*signal) {
            Some(name) => format!("killed by signal {name}"),
            None => format!("killed by signal {signal}"),
        },
    }
}

/// Linux' numbers on every machine that we run on.
fn name(signal: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let at = usize::try_from(signal).ok()?.checked_sub(1)?;
    NAMES.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(termination: Termination, tail: Option<&str>) -> End {
        End { termination, stderr_tail: tail.map(Into::into) }
    }

    fn ended(wait_status: i32) -> End {
        let wait_status = Some(wait_status);
        of(Termination { wait_status, out_of_memory: None, failure: None }, None)
    }

    #[test]
    fn exit_status_decides() {
        assert_eq!(command(&ended(0)).state, TaskState::TaskFinished);
        let failed = command(&ended(3 << 8));
        assert_eq!(failed.state, TaskState::TaskFailed);
        assert_eq!(failed.message, "exited with status 3");
        assert!(command(&ended(9)).message.contains("killed by signal SIGKILL"));
        assert!(command(&ended(64)).message.contains("killed by signal 64"));
    }

    #[test]
    fn out_of_memory_tells_limit_peak_and_stderr() {
        let termination = Termination {
            wait_status: Some(9),
            out_of_memory: Some(OutOfMemory { limit_bytes: 64 << 20, peak_bytes: 65 << 20 }),
            failure: None,
        };
        let verdict = command(&of(termination.clone(), Some("boom")));
        assert_eq!(verdict.reason, Some(Reason::ContainerLimitationMemory));
        let exited = Termination { wait_status: Some(0), ..termination };
        assert_eq!(command(&of(exited, Some("boom"))).state, TaskState::TaskFailed);
        assert_eq!(
            verdict.message,
            "out of memory: the limit is 64.0 MiB, the peak was 65.0 MiB; the end of stderr:\nboom"
        );
    }

    #[test]
    fn a_limitation_is_told_by_its_kind() {
        for (kind, reason) in [
            (LimitationKind::Disk, Reason::ContainerLimitationDisk),
            (LimitationKind::Ports, Reason::ContainerLimitation),
        ] {
            let verdict = limited(&Limitation { kind, message: "too much".into() });
            assert_eq!(verdict.state, TaskState::TaskFailed);
            assert_eq!(verdict.reason, Some(reason));
            assert_eq!(verdict.message, "too much");
            assert!(is_limitation(verdict.reason));
        }
    }

    #[test]
    fn an_unseen_end_is_a_failure() {
        let termination = Termination { wait_status: None, out_of_memory: None, failure: None };
        let verdict = command(&of(termination.clone(), None));
        assert_eq!(verdict.state, TaskState::TaskFailed);
        assert_eq!(verdict.reason, Some(Reason::ExecutorTerminated));
        assert!(verdict.message.contains("exit status is unknown"), "{}", verdict.message);
        let never = Termination { failure: Some("no such file".into()), ..termination.clone() };
        assert_eq!(command(&of(never, None)).reason, Some(Reason::ContainerLaunchFailed));
        assert!(executor(&of(termination, None)).message.contains("exit status is unknown"));
    }
}
