//! What an executor that failed wrote last: read from its agent and put into its
//! status, so that a failed job's message says where it was and what it said.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mezz_proto::v1::{
    self, TaskState,
    task_status::{Reason, Source},
};
use tracing::debug;

use crate::session::log_base;

/// Between a status' own text and what the executor wrote.
pub(crate) const LAST_WORDS: &str = "; its last words: ";

/// An agent that has just told of an executor's end answers at once; the application
/// waits for it no longer than this.
const TIMEOUT: Duration = Duration::from_secs(2);

/// After an agent that could not be asked no log is read for so long: the application's
/// other news waits meanwhile, and a hundred executors may end at once.
const PAUSE: Duration = Duration::from_secs(60);

/// How much of the log's end is looked at, in bytes.
const LOOKED_AT: u32 = 16 << 10;

/// Longest line that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// Reads the logs of executors that failed.
pub(crate) struct LastWords {
    http: Option<reqwest::Client>,
    framework: String,
    /// Where each agent that has offered something serves files.
    agents: BTreeMap<String, String>,
    /// The last custom executor that was looked at: all its tasks end with it.
    seen: Option<String>,
    /// No log is read before.
    silent_until: Option<Instant>,
}

impl LastWords {
    pub(crate) fn new() -> Self {
        // Fails where the process has one already, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Without a client there are no last words, and all else is as before.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            // Plain HTTP: no certificates are needed, and none are looked for.
            .tls_certs_only([])
            .build()
            .inspect_err(|error| debug!(%error, "logs of executors cannot be read"))
            .ok();
        Self {
            http,
            framework: String::new(),
            agents: BTreeMap::new(),
            seen: None,
            silent_until: None,
        }
    }

    pub(crate) fn subscribed(&mut self, framework: &str) {
        framework.clone_into(&mut self.framework);
    }

    /// Offers tell where their agents are.
    pub(crate) fn offered(&mut self, offers: &[v1::Offer]) {
        for offer in offers {
            if let Some(base) = log_base(offer) {
                self.agents.insert(offer.agent_id.value.clone(), base);
            }
        }
    }

    /// Adds the agent and the last words to the status of an executor that failed, and
    /// leaves others as they are. Takes at most two seconds.
    pub(crate) async fn add_to(&mut self, status: &mut v1::TaskStatus) {
        let Some(agent) = status.agent_id.as_ref().map(|agent| agent.value.clone()) else { return };
        // A custom executor reports its tasks' failures itself, by what it says there.
        if status.state() != TaskState::TaskFailed || status.source() == Source::Executor {
            return;
        }
        let executor = status.executor_id.as_ref().map(|executor| executor.value.clone());
        if executor.is_some() && executor == self.seen {
            return;
        }
        let message = status.message.clone().unwrap_or_default();
        let words = match status.reason() {
            Reason::CommandExecutorFailed | Reason::ExecutorTerminated
                if message.contains("status ") =>
            {
                self.read(&agent, &status.task_id.value).await
            }
            _ => None,
        };
        self.seen = executor;
        status.message = Some(explained(&message, status.reason(), &agent, words.as_deref()));
    }

    async fn read(&mut self, agent: &str, task: &str) -> Option<String> {
        let base = self.agents.get(agent)?;
        if self.silent_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let url = format!(
            "{base}/files/download?framework={}&task={task}&path=stderr&offset=-{LOOKED_AT}",
            self.framework
        );
        let read = async {
            let answer = self.http.as_ref()?.get(url).send().await;
            Some(match answer {
                Ok(answer) if !answer.status().is_success() => return None,
                Ok(answer) => answer.bytes().await,
                Err(error) => Err(error),
            })
        };
        let log = match read.await? {
            Ok(log) => log,
            Err(error) => {
                debug!(agent, %error, "its log cannot be read");
                self.silent_until = Some(Instant::now() + PAUSE);
                return None;
            }
        };
        telling_line(&String::from_utf8_lossy(&log))
    }
}

/// The status' text with where it was and what it said. What is out of memory has the
/// end of its log already.
fn explained(message: &str, reason: Reason, agent: &str, words: Option<&str>) -> String {
    let words = words.map(|words| format!("{LAST_WORDS}{words}")).unwrap_or_default();
    match reason {
        Reason::ContainerLimitationMemory => format!("agent {agent}: {message}"),
        _ => format!("{message} (agent {agent}){words}"),
    }
}

/// The last line that speaks of an error, or else the last of all.
fn telling_line(log: &str) -> Option<String> {
    let lines = || log.lines().rev().map(str::trim_end).filter(|line| !line.is_empty());
    let telling = |line: &&str| {
        !line.starts_with(char::is_whitespace)
            && ["Error", "ERROR", "Exception", "Caused by:", "FATAL", "rror:"]
                .iter()
                .any(|word| line.contains(word))
    };
    let line = lines().find(telling).or_else(|| lines().next())?.trim();
    Some(line.chars().take(MAX_SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_most_is_the_last_error() {
        let log = "26/01/31 INFO Executor: started\n\
                   Exception in thread \"main\" java.lang.IllegalStateException: no port\n\
                   \tat a.B.c(B.java:1)\n\
                   Caused by: java.net.BindException: taken\n\
                   \tat a.Error.d(Error.java:2)\n\
                   26/01/31 INFO ShutdownHookManager: Deleting directory\n\n";
        assert_eq!(telling_line(log).as_deref(), Some("Caused by: java.net.BindException: taken"));
        assert_eq!(telling_line("one\ntwo\n").as_deref(), Some("two"));
        assert_eq!(telling_line("\n"), None);
        assert_eq!(telling_line(&"x".repeat(1000)).map(|line| line.len()), Some(MAX_SHOWN));
    }

    #[test]
    fn a_status_keeps_its_text_in_front() {
        let of = |reason, words| explained("exited with status 1", reason, "S0", words);
        assert_eq!(
            of(Reason::CommandExecutorFailed, Some("Error: no status 3")),
            "exited with status 1 (agent S0); its last words: Error: no status 3"
        );
        assert_eq!(of(Reason::ContainerLaunchFailed, None), "exited with status 1 (agent S0)");
        assert_eq!(of(Reason::ContainerLimitationMemory, None), "agent S0: exited with status 1");
    }

    /// As one behind a wall: it takes connections, and says nothing.
    #[tokio::test]
    async fn one_agent_that_does_not_answer_is_waited_for_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut words = LastWords::new();
        let base = format!("http://{}", listener.local_addr().unwrap());
        words.agents.insert("S0".into(), base);
        assert_eq!(words.read("S0", "1").await, None);
        drop(listener.accept().await.unwrap());
        for task in ["2", "3"] {
            assert_eq!(words.read("S0", task).await, None);
        }
        let another = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(another.is_err(), "it was asked again");
    }

    #[tokio::test]
    async fn only_failures_are_explained_and_an_executor_once() {
        let mut words = LastWords::new();
        let status = |state: TaskState, source: Source| v1::TaskStatus {
            task_id: v1::TaskId { value: "1".into() },
            state: state as i32,
            source: Some(source as i32),
            message: Some("exited with status 1".into()),
            agent_id: Some(v1::AgentId { value: "S0".into() }),
            executor_id: Some(v1::ExecutorId { value: "4".into() }),
            ..Default::default()
        };
        for mut other in [
            status(TaskState::TaskKilled, Source::Agent),
            status(TaskState::TaskFailed, Source::Executor),
        ] {
            words.add_to(&mut other).await;
            assert_eq!(other.message(), "exited with status 1");
        }
        let mut first = status(TaskState::TaskFailed, Source::Agent);
        words.add_to(&mut first).await;
        assert_eq!(first.message(), "exited with status 1 (agent S0)");
        let mut second = status(TaskState::TaskFailed, Source::Agent);
        words.add_to(&mut second).await;
        assert_eq!(second.message(), "exited with status 1");
    }
}
