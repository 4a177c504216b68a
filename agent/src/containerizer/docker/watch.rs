//! From a container's start to its end, over restarts of the engine.

use std::{sync::Arc, time::Duration};

use bollard::{
    errors::Error,
    models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status},
    query_parameters::{
        InspectContainerOptions, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures_util::StreamExt as _;

use super::{
    Inner,
    container::{Container, State},
    engine::EngineError,
    logs::Sink,
    spec::LABEL_SANDBOX,
};
use crate::containerizer::{OutOfMemory, Termination};

/// The first and the longest wait before an engine that is away is asked again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Before output is asked for again that broke off.
const LOGS_AGAIN: Duration = Duration::from_millis(500);

/// The engine hears of a lack of memory apart from the end, and may do so a little later.
const OOM_PATIENCE: (u32, Duration) = (5, Duration::from_millis(40));

/// Of a signal's number, where a program's own status is less.
const SIGNALLED: i64 = 128;

/// The number of SIGKILL as an exit code.
const EXIT_KILLED: i64 = SIGNALLED + nix::libc::SIGKILL as i64;

/// Nobody knows how it ended: no failure of anybody.
pub(super) fn unknown_end() -> Termination {
    Termination { wait_status: None, out_of_memory: None, failure: None }
}

/// Follows a container until it has ended, or the agent does.
pub(super) fn watch(inner: Arc<Inner>, container: Arc<Container>) {
    tokio::spawn(async move {
        let stop = inner.stop.clone();
        if let Some(end) = stop.run_until_cancelled(inner.until_end(&container)).await {
            container.set(State::Ended(end));
        }
    });
}

impl Inner {
    async fn until_end(&self, container: &Container) -> Termination {
        let mut pause = AGAIN.0;
        loop {
            let mut error = match self.look(container).await {
                Ok(Some(end)) => return end,
                // It runs, or has just ended.
                Ok(None) => {
                    pause = AGAIN.0;
                    let ended = tokio::select! {
                        ended = self.stopped(container) => ended,
                        never = self.copy_output(container) => match never {},
                    };
                    match ended {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if error.is_not_found() {
                match self.engine.greet().await {
                    Ok(_) => {
                        let id = &container.id;
                        tracing::warn!(container = %id, "somebody else removed a container");
                        return unknown_end();
                    }
                    // It may be another engine that does not know it.
                    Err(other) => error = other,
                }
            }
            tracing::debug!(container = %container.id, %error, "asking again in {pause:?}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    pub(super) async fn inspect(
        &self,
        container: &Container,
    ) -> Result<ContainerInspectResponse, EngineError> {
        let name = &container.name;
        self.engine
            .call(|link| async move {
                link.inspect_container(name, None::<InspectContainerOptions>).await
            })
            .await
    }

    /// Its end, if that has come.
    async fn look(&self, container: &Container) -> Result<Option<Termination>, EngineError> {
        let mut now = self.inspect(container).await?;
        if container.sink.get().is_none()
            && let Some(sandbox) = label(&now, LABEL_SANDBOX)
        {
            match Sink::open(&self.record(&container.id), sandbox.as_ref()) {
                Ok(sink) => _ = container.sink.set(sink),
                Err(error) => {
                    tracing::warn!(container = %container.id, %error, "its output is not copied");
                }
            }
        }
        let state = now.state.take().unwrap_or_default();
        match state.status {
            Some(Status::CREATED) => {
                self.withdraw(&container.name).await?;
                let failure = "the agent restarted before the container was started";
                return Ok(Some(Termination { failure: Some(failure.into()), ..unknown_end() }));
            }
            Some(Status::EXITED | Status::DEAD) => {}
            _ => return Ok(None),
        }
        if let Some(sink) = container.sink.get()
            && let Err(error) = sink.fill(&self.engine, &container.name, false).await
        {
            if error.is_away() || error.is_not_found() {
                return Err(error);
            }
            tracing::warn!(container = %container.id, %error, "its output cannot be read");
        }
        let memory = now.host_config.as_ref().and_then(|host| host.memory).unwrap_or_default();
        let state = self.settled(container, state, memory).await?;
        Ok(Some(termination(&state, memory)))
    }

    /// Its state once what was said of its memory is sure.
    async fn settled(
        &self,
        container: &Container,
        mut state: ContainerState,
        memory: i64,
    ) -> Result<ContainerState, EngineError> {
        let (tries, pause) = OOM_PATIENCE;
        for _ in 0..tries {
            let by_whom = state.exit_code == Some(EXIT_KILLED)
                && state.oom_killed != Some(true)
                && memory > 0
                && !container.was_killed();
            if !by_whom {
                break;
            }
            tokio::time::sleep(pause).await;
            state = self.inspect(container).await?.state.unwrap_or_default();
        }
        Ok(state)
    }

    /// Waits until it does not run any more.
    async fn stopped(&self, container: &Container) -> Result<(), EngineError> {
        let link = self.engine.link().await?;
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut answers = link.wait_container(&container.name, Some(options));
        match answers.next().await {
            // The library takes every status but zero for an error.
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(self.engine.explain(error)),
            None => Err(self.engine.broken_off()),
        }
    }

    /// For as long as it is waited for.
    async fn copy_output(&self, container: &Container) -> std::convert::Infallible {
        let mut complained = false;
        loop {
            let Some(sink) = container.sink.get() else {
                return std::future::pending().await;
            };
            let ended = sink.fill(&self.engine, &container.name, true).await;
            if let Err(error) = ended
                && !error.is_away()
                && !std::mem::replace(&mut complained, true)
            {
                tracing::warn!(container = %container.id, %error, "its output cannot be followed");
            }
            tokio::time::sleep(LOGS_AGAIN).await;
        }
    }

    /// Removes one from the engine, by its name or the engine's id, whatever it does.
    pub(super) async fn withdraw(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self
            .engine
            .call(|link| async move { link.remove_container(name, Some(options)).await })
            .await;
        match removed {
            // Gone, or going.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }
}

/// The agent's own word on a container.
pub(super) fn label<'a>(container: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    container.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
}

/// What the engine says of an ended container.
fn termination(state: &ContainerState, memory: i64) -> Termination {
    let limit_bytes = u64::try_from(memory).unwrap_or_default();
    Termination {
        wait_status: state.exit_code.map(wait_status),
        // The kernel's own count is gone with the container; it was at its limit.
        out_of_memory: (state.oom_killed == Some(true))
            .then_some(OutOfMemory { limit_bytes, peak_bytes: limit_bytes }),
        failure: None,
    }
}

/// As `waitpid` tells it. The engine gives 128 and the signal's number for a signal, as a
/// shell does; a program that ends with such a status itself cannot be told apart.
pub(super) fn wait_status(code: i64) -> i32 {
    match code {
        129..=159 => (code - SIGNALLED) as i32,
        _ => ((code & 0xff) << 8) as i32,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::ExitStatus,
        sync::atomic::{AtomicBool, Ordering},
    };

    use mezz_proto::ids::ContainerId;

    use super::{
        super::fake::{Answer, Fake},
        *,
    };

    #[test]
    fn statuses_are_those_of_waitpid() {
        for code in [0, 1, 7, 125, 126, 127, 128, 160, 255] {
            assert_eq!(ExitStatus::from_raw(wait_status(code)).code(), Some(code as i32));
        }
        for signal in [1, 9, 15, 31] {
            assert_eq!(
                ExitStatus::from_raw(wait_status(128 + signal)).signal(),
                Some(signal as i32)
            );
        }
    }

    #[tokio::test]
    async fn output_that_does_not_end_holds_the_end_up_for_a_while_only() {
        let sandbox = tempfile::tempdir().unwrap();
        let label = sandbox.path().display().to_string();
        let fake = Fake::start(move |path| match path {
            "info" => Answer::Json(r#"{"ID": "A"}"#.to_owned()),
            "containers/mezz-c1/json" => Answer::Json(format!(
                r#"{{"State": {{"Status": "exited", "ExitCode": 3}},
                     "Config": {{"Labels": {{"{LABEL_SANDBOX}": "{label}"}}}}}}"#
            )),
            path if path.starts_with("containers/mezz-c1/logs") => {
                Answer::Output("2026-11-21T11:41:21Z said\n")
            }
            _ => Answer::Missing,
        });
        let inner = fake.inner(0);
        let container = Container::new(ContainerId::new("c1"), State::Running);
        let end = tokio::time::timeout(Duration::from_secs(20), inner.until_end(&container)).await;
        assert_eq!(end.expect("it is told").wait_status, Some(3 << 8));
        let said = std::fs::read_to_string(sandbox.path().join("stdout")).unwrap();
        assert_eq!(said, "said\n");
    }

    #[tokio::test]
    async fn another_engine_is_not_asked_about_containers() {
        let other = Arc::new(AtomicBool::new(false));
        let is_other = Arc::clone(&other);
        let fake = Fake::start(move |path| match path {
            "info" if is_other.load(Ordering::SeqCst) => Answer::Json(r#"{"ID": "B"}"#.into()),
            "info" => Answer::Json(r#"{"ID": "A"}"#.into()),
            _ => Answer::Missing,
        });
        let inner = fake.inner(0);
        let answers = async { while !inner.engine.probe().await {} };
        tokio::time::timeout(Duration::from_secs(30), answers).await.expect("it answers");
        std::fs::create_dir(fake.folder().join("docker")).unwrap();
        std::fs::write(fake.folder().join("docker/c1"), "").unwrap();
        other.store(true, Ordering::SeqCst);
        let container = Container::new(ContainerId::new("c1"), State::Running);
        let mut end = std::pin::pin!(inner.until_end(&container));
        let noticed = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                // A busy machine may have had none for a moment.
                match inner.engine.ability().problem {
                    Some(problem) if problem.contains("its id is B") => break problem,
                    _ => {}
                }
            }
        };
        let noticed = tokio::time::timeout(Duration::from_secs(30), noticed);
        let problem = tokio::select! {
            early = &mut end => panic!("{early:?}"),
            problem = noticed => problem.expect("the other one is noticed"),
        };
        assert!(problem.contains("its id is B ()") && problem.contains("the id A ()"), "{problem}");
        other.store(false, Ordering::SeqCst);
        let end = tokio::time::timeout(Duration::from_secs(30), end).await;
        assert_eq!(end.expect("it is gone from the right one"), unknown_end());
    }

    #[test]
    fn memory_is_told_with_its_limit() {
        let state = |oom_killed| ContainerState {
            exit_code: Some(137),
            oom_killed: Some(oom_killed),
            ..ContainerState::default()
        };
        let end = termination(&state(true), 64 << 20);
        let expected = OutOfMemory { limit_bytes: 64 << 20, peak_bytes: 64 << 20 };
        assert_eq!(end.out_of_memory, Some(expected));
        assert_eq!(termination(&state(false), 64 << 20).out_of_memory, None);
    }
}
