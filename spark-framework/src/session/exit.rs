//! What a task's status means for its executor.

use mezz_proto::v1::{self, TaskState, task_status::Reason};

use crate::{
    docker,
    last_words::LAST_WORDS,
    policy::{Exit, ExitKind},
};

/// What a status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It runs.
    Alive,
    /// It is gone, for us.
    Gone(Exit),
    /// The master does not know it, and may hear of it yet.
    Unknown,
    /// Nothing but that it is there.
    Nothing,
}

/// `mem_mib` is what the executor was given, when that is known.
pub(super) fn meaning(status: &v1::TaskStatus, mem_mib: Option<u64>) -> Meaning {
    let Ok(state) = TaskState::try_from(status.state) else { return Meaning::Nothing };
    let text = status.message.as_deref().unwrap_or("").trim();
    let reason = status.reason.and_then(|r| Reason::try_from(r).ok());
    match state {
        TaskState::TaskRunning => Meaning::Alive,
        TaskState::TaskKilling | TaskState::TaskStaging | TaskState::TaskStarting => {
            Meaning::Nothing
        }
        TaskState::TaskFinished => Meaning::Gone(Exit {
            kind: ExitKind::Finished,
            code: 0,
            by_app: false,
            reason: "it ended by itself with status 0".to_owned(),
        }),
        TaskState::TaskFailed => Meaning::Gone(failed(reason, text, mem_mib)),
        TaskState::TaskError => Meaning::Gone(Exit {
            kind: ExitKind::Failed,
            code: -1,
            by_app: false,
            reason: format!("the master refused it: {}", or(text, "no reason given")),
        }),
        TaskState::TaskKilled => Meaning::Gone(Exit::lost(or(text, "it was killed"))),
        TaskState::TaskUnknown => Meaning::Unknown,
        // An unreachable executor may still run and even come back, but nothing
        // can be done with it meanwhile; it is replaced, and ended if it returns.
        _ => Meaning::Gone(Exit::lost(format!(
            "it was lost with its agent or offer: {}",
            or(text, state.as_str_name())
        ))),
    }
}

/// Whether its agent has begun to end it because it is being drained.
pub(super) fn leaves(status: &v1::TaskStatus) -> bool {
    status.state() == TaskState::TaskKilling && status.reason() == Reason::AgentDraining
}

/// The end of a custom executor by its wait status, as `waitpid` tells it; -1 or
/// nothing when it is not known.
pub(super) fn of_wait_status(status: Option<i32>) -> Exit {
    match status {
        // One that ends by itself has failed: it was told to, as in a drain.
        Some(0) => Exit::lost("its agent ended it"),
        Some(status) if status > 0 => {
            let (code, signal) = ((status >> 8) & 0xff, status & 0x7f);
            let text = if signal != 0 {
                format!("killed by signal {signal}")
            } else {
                format!("exited with status {code}")
            };
            failed(None, &text, None)
        }
        _ => Exit::lost("nobody saw how it ended"),
    }
}

fn failed(reason: Option<Reason>, text: &str, mem_mib: Option<u64>) -> Exit {
    match reason {
        Some(Reason::ContainerLimitationMemory) => {
            let limit = mem_mib.map(|m| format!(" of {m} MiB")).unwrap_or_default();
            let detail = if text.is_empty() { String::new() } else { format!(" ({text})") };
            Exit {
                kind: ExitKind::OutOfMemory,
                code: 137,
                by_app: true,
                reason: format!(
                    "killed by the agent for exceeding its memory limit{limit}; \
                     raise spark.executor.memoryOverhead{detail}"
                ),
            }
        }
        Some(Reason::ContainerPreempted | Reason::AgentDraining) => {
            Exit::lost(or(text, "its agent takes its resources back"))
        }
        Some(Reason::ContainerLaunchFailed) if docker::lacks_engine(reason, text).is_some() => {
            Exit {
                kind: ExitKind::Unsuited,
                code: -1,
                by_app: false,
                reason: format!("its agent cannot run Docker containers: {text}"),
            }
        }
        // It never ran; numbers in the text, if any, are not its own.
        Some(Reason::ContainerLaunchFailed) => {
            not_seen(or(text, "its agent could not start it, and did not say why"))
        }
        _ => match (status_of(text), reason) {
            (Some((code, by_app)), _) => {
                Exit { kind: ExitKind::Failed, code, by_app, reason: text.to_owned() }
            }
            // Its launcher or the agent's record of it is lost.
            (None, Some(Reason::ExecutorTerminated | Reason::CommandExecutorFailed)) => {
                Exit::lost(or(text, "nobody saw how it ended"))
            }
            (None, _) => not_seen(or(text, "it failed, and the agent did not say how")),
        },
    }
}

/// A failure of the executor, but without its exit status the application is
/// not blamed for it.
fn not_seen(reason: &str) -> Exit {
    Exit { kind: ExitKind::Failed, code: -1, by_app: false, reason: reason.to_owned() }
}

/// Exit status and blame, if the agent's words have them: `… status N`,
/// `… signal N` or `… signal NAME`.
fn status_of(text: &str) -> Option<(i32, bool)> {
    // What follows are the executor's words, not the agent's.
    let text = text.split(LAST_WORDS).next().unwrap_or(text);
    let after = |word: &str| {
        let (_, rest) = text.rsplit_once(word)?;
        rest.trim_start().split(|c: char| !(c.is_alphanumeric() || c == '-')).next()
    };
    if let Some(code) = after("status ").and_then(|s| s.parse().ok()) {
        return Some((code, blamed(code)));
    }
    let signal = after("signal ").and_then(|s| match s.to_ascii_lowercase().as_str() {
        "killed" | "sigkill" => Some(9),
        "terminated" | "sigterm" => Some(15),
        "aborted" | "sigabrt" => Some(6),
        "segmentation" | "sigsegv" => Some(11),
        number => number.parse().ok().filter(|n| (1..=64).contains(n)),
    })?;
    let code = 128 + signal;
    Some((code, blamed(code)))
}

/// Whether an end of this status, which nobody asked for, counts against the tasks that
/// ran: as in Spark's Standalone, all do but two of the executor's own, for a broken disk
/// and for a driver that does not hear its heartbeats. SIGKILL counts: on a machine that
/// is short of memory the kernel sends it to whoever has most.
fn blamed(code: i32) -> bool {
    const NO_LOCAL_FOLDER: i32 = 53;
    const HEARTBEAT_FAILURE: i32 = 56;
    !matches!(code, NO_LOCAL_FOLDER | HEARTBEAT_FAILURE)
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: TaskState, reason: Option<Reason>, message: &str) -> v1::TaskStatus {
        v1::TaskStatus {
            state: state as i32,
            reason: reason.map(|r| r as i32),
            message: Some(message.to_owned()),
            ..Default::default()
        }
    }

    fn gone(state: TaskState, reason: Option<Reason>, message: &str) -> Exit {
        match meaning(&status(state, reason, message), Some(1408)) {
            Meaning::Gone(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn out_of_memory_says_what_to_do() {
        let exit = gone(TaskState::TaskFailed, Some(Reason::ContainerLimitationMemory), "");
        assert_eq!(
            exit.reason,
            "killed by the agent for exceeding its memory limit of 1408 MiB; \
             raise spark.executor.memoryOverhead"
        );
        assert_eq!((exit.kind, exit.by_app, exit.code), (ExitKind::OutOfMemory, true, 137));
    }

    #[test]
    fn statuses_and_signals_are_read_from_the_agents_words() {
        for (text, code, by_app) in [
            ("Command exited with status 50", 50, true),
            ("Command exited with status 53", 53, false),
            ("exited with status 56", 56, false),
            ("Command terminated with signal Killed", 137, true),
            ("Command terminated with signal Segmentation fault", 139, true),
            ("terminated by signal 15 (SIGTERM)", 143, true),
            ("exited with status 1 (agent S0); its last words: Error: status 404", 1, true),
            ("cannot start: no such file", -1, false),
        ] {
            let exit = gone(TaskState::TaskFailed, None, text);
            assert_eq!((exit.code, exit.by_app), (code, by_app), "{text}");
            assert_eq!(exit.reason, text);
        }
    }

    /// As the agent says it: with an exit status, or without one.
    #[test]
    fn without_an_exit_status_the_application_is_not_blamed() {
        use ExitKind::{Failed, Lost};
        let unseen = "its end was not seen: its launcher was killed, or its exit record is lost";
        let fetch = "cannot fetch http://h/app.jar: the server answers with status 404";
        for (reason, text, expected) in [
            (Reason::ExecutorTerminated, unseen, (Lost, -1, false)),
            (Reason::CommandExecutorFailed, unseen, (Lost, -1, false)),
            (Reason::ExecutorTerminated, "", (Lost, -1, false)),
            // Counts as a failed launch, or a bad command would be tried for ever.
            (Reason::ContainerLaunchFailed, "cannot run /jdk/bin/java", (Failed, -1, false)),
            (Reason::ContainerLaunchFailed, fetch, (Failed, -1, false)),
            (Reason::CommandExecutorFailed, "exited with status 3", (Failed, 3, true)),
            (Reason::ExecutorTerminated, "killed by signal SIGSEGV", (Failed, 139, true)),
        ] {
            let exit = gone(TaskState::TaskFailed, Some(reason), text);
            assert_eq!((exit.kind, exit.code, exit.by_app), expected, "{reason:?} {text}");
            assert!(!exit.reason.is_empty());
        }
    }

    #[test]
    fn loss_is_not_the_applications_fault() {
        for state in [
            TaskState::TaskLost,
            TaskState::TaskDropped,
            TaskState::TaskUnreachable,
            TaskState::TaskGone,
            TaskState::TaskGoneByOperator,
            TaskState::TaskKilled,
        ] {
            let exit = gone(state, None, "");
            assert_eq!((exit.kind, exit.by_app), (ExitKind::Lost, false), "{state:?}");
            assert!(!exit.reason.is_empty());
        }
        assert_eq!(meaning(&status(TaskState::TaskRunning, None, ""), None), Meaning::Alive);
        assert_eq!(meaning(&status(TaskState::TaskStarting, None, ""), None), Meaning::Nothing);
        assert_eq!(meaning(&status(TaskState::TaskUnknown, None, ""), None), Meaning::Unknown);
    }

    /// A fine-grained executor tells its JVM's end by its own status, a coarse-grained one
    /// is the JVM.
    #[test]
    fn a_killed_jvm_is_the_same_in_both_modes() {
        let coarse = gone(TaskState::TaskFailed, None, "killed by signal SIGKILL");
        let fine = of_wait_status(Some(137 << 8));
        assert_eq!((coarse.kind, coarse.code, coarse.by_app), (fine.kind, fine.code, fine.by_app));
    }

    #[test]
    fn an_executor_leaves_when_its_agent_is_drained_and_not_on_our_word() {
        let killing = |reason| status(TaskState::TaskKilling, reason, "");
        assert!(leaves(&killing(Some(Reason::AgentDraining))) && !leaves(&killing(None)));
        assert!(!leaves(&status(TaskState::TaskKilled, Some(Reason::AgentDraining), "")));
        assert_eq!(meaning(&killing(None), None), Meaning::Nothing);
        let exit = gone(TaskState::TaskKilled, Some(Reason::AgentDraining), "killed: drained");
        assert_eq!((exit.kind, exit.by_app), (ExitKind::Lost, false));
    }
}
