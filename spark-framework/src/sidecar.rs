//! `mezz spark-sidecar`: the process beside a driver that is its framework.
//!
//! The driver's plugin starts it and talks to it over standard input and output
//! (see [`protocol`](crate::protocol)); what it logs goes to standard error and
//! from there to the driver's log. It lives as long as its standard input: when
//! the driver ends, however that comes, the framework is torn down.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mezz_proto::{time::Time, v1};
use mezz_sdk::{
    Credential,
    scheduler::{
        self, Closed, CredentialFileError, OptionsError, Scheduler, SchedulerOptions,
        credential_from_file,
    },
};
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{self, error::SendTimeoutError},
        oneshot,
    },
};
use tracing::{info, warn};

use crate::{
    last_words::LastWords,
    migration,
    protocol::{FromDriver, ProtocolError, Register, ToDriver, read_message},
    session::{Input, Output, RegisterError, Session, kill_policy},
};

/// Messages of the driver that wait to be handled; more stay in the pipe.
const MAX_INCOMING: usize = 64;
/// Messages that wait for the driver to read them; beyond that the master waits.
const MAX_OUTGOING: usize = 1024;
/// A driver that reads nothing for so long is not coming back.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes that are written to the driver at once, about.
const MAX_PIECE: usize = 64 << 10;
/// How long the master may take to take the framework down. After that, it does
/// so by itself when the failover timeout is over.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the driver may take to read the last messages.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the sidecar ended otherwise than by the application's end.
#[derive(Debug, Error)]
pub enum SidecarError {
    /// Standard input ended before it began.
    #[error(
        "mezz spark-sidecar is started by Spark's driver, which talks to it over standard input"
    )]
    NoDriver,
    /// The first message was another one.
    #[error("the Spark plugin's first message must be `register`")]
    NotRegistered,
    /// A message makes no sense.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A setting makes no sense.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// There is only one of two.
    #[error(
        "{missing} is not set, nor {variable}: a principal and the file with its secret go together"
    )]
    HalfCredential {
        /// The setting.
        missing: &'static str,
        /// The variable that does as well.
        variable: &'static str,
    },
    /// The secret cannot be read, or cannot be one.
    #[error("spark.mezz.principal, spark.mezz.secret.file")]
    Credential(#[from] CredentialFileError),
    /// The master URL makes no sense.
    #[error("the master URL")]
    Options(#[from] OptionsError),
    /// The driver does not read what it is told.
    #[error("the driver has read no message for {} s", DRIVER_TIMEOUT.as_secs())]
    SlowDriver,
    /// The application cannot go on; the driver has been told why.
    #[error("the application cannot go on")]
    Failed,
    /// The machine refuses something.
    #[error("cannot {doing}")]
    System {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves the driver at standard input and output until the application is over.
///
/// # Errors
/// [`SidecarError`]; where the driver can still be told, it has been.
pub async fn run_sidecar() -> Result<(), SidecarError> {
    let stop = termination()?;
    serve(BufReader::new(io::stdin()), io::stdout(), stop).await
}

/// What proves to masters who the application is: the driver's settings, else variables of its
/// process, which is ours.
fn credential(
    register: &Register,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Credential>, SidecarError> {
    const PRINCIPAL: &str = "MEZZ_PRINCIPAL";
    const FILE: &str = "MEZZ_SECRET_FILE";
    let given = |setting: &Option<String>, name| {
        let given = setting.clone().or_else(|| variable(name));
        given.filter(|text| !text.is_empty())
    };
    match (given(&register.principal, PRINCIPAL), given(&register.secret_file, FILE)) {
        (None, None) => Ok(None),
        (Some(principal), Some(file)) => {
            Ok(Some(credential_from_file(&principal, Path::new(&file))?))
        }
        (None, Some(_)) => Err(SidecarError::HalfCredential {
            missing: "spark.mezz.principal",
            variable: PRINCIPAL,
        }),
        (Some(_), None) => {
            Err(SidecarError::HalfCredential { missing: "spark.mezz.secret.file", variable: FILE })
        }
    }
}

/// This program's path, which agents that are installed alike have, too.
fn own_path() -> Result<String, SidecarError> {
    let path = std::env::current_exe()
        .map_err(|source| SidecarError::System { doing: "find this program's path", source })?;
    Ok(path.to_string_lossy().into_owned())
}

/// Resolves when this process is told to end. Ctrl-C in a terminal is meant for
/// the driver, which then ends in its own way and closes our input.
fn termination() -> Result<impl Future<Output = ()>, SidecarError> {
    let listen = |kind| {
        signal(kind).map_err(|source| SidecarError::System { doing: "handle signals", source })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let ignored = [listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?];
    Ok(async move {
        // A signal is ignored while its stream lives and is not read.
        let _ignored = ignored;
        terminate.recv().await;
    })
}

/// Serves a driver at these ends until `input` ends, the application is over, or
/// `stop` resolves.
///
/// # Errors
/// [`SidecarError`]; where the driver can still be told, it has been.
pub async fn serve(
    input: impl BufRead + Send + 'static,
    output: impl Write + Send + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(), SidecarError> {
    let mut incoming = read(input)?;
    let outgoing = Outgoing::new(output)?;
    let result = converse(&mut incoming, &outgoing, stop).await;
    if let Err(error) = &result
        && !matches!(error, SidecarError::Failed)
    {
        // The driver may be gone or deaf; then there is nobody to tell.
        let _ = outgoing.send(&ToDriver::Error { message: with_causes(error) }).await;
    }
    outgoing.flush().await;
    result
}

async fn converse(
    incoming: &mut mpsc::Receiver<Result<FromDriver, ProtocolError>>,
    outgoing: &Outgoing,
    stop: impl Future<Output = ()>,
) -> Result<(), SidecarError> {
    let register = match incoming.recv().await {
        Some(Ok(FromDriver::Register(register))) => register,
        Some(Ok(_)) => return Err(SidecarError::NotRegistered),
        Some(Err(error)) => return Err(error.into()),
        None => return Err(SidecarError::NoDriver),
    };
    info!(
        app = register.app_name,
        spark = register.spark,
        masters = register.masters.join(","),
        "a driver has registered"
    );
    for message in migration::warnings(&register.settings) {
        outgoing.send(&ToDriver::Warning { message }).await?;
    }
    let credential = credential(&register, |name| std::env::var(name).ok())?;
    let mut session = Session::new(*register, &own_path()?)?;
    let framework = session.framework();
    let roles = framework.roles.clone();
    let mut options = SchedulerOptions::new(session.masters(), framework);
    options.credential = credential;
    if !session.wants_offers() {
        options.suppressed_roles.clone_from(&roles);
    }
    let (scheduler, mut events) = scheduler::connect(options)?;
    let result = {
        let calls = Calls { scheduler: &scheduler, roles: &roles, outgoing };
        follow(&mut session, incoming, &mut events, &calls, stop).await
    };
    let teardown = async {
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(scheduler.teardown(), drain).0
    };
    match tokio::time::timeout(TEARDOWN_TIMEOUT, teardown).await {
        Ok(Ok(()) | Err(Closed)) => info!("the framework is torn down"),
        Err(_) => warn!(
            "the master did not confirm the teardown; it ends the framework after \
             spark.mezz.failoverTimeout"
        ),
    }
    result
}

/// The main loop: one input at a time, until the end.
async fn follow(
    session: &mut Session,
    incoming: &mut mpsc::Receiver<Result<FromDriver, ProtocolError>>,
    events: &mut scheduler::Events,
    calls: &Calls<'_>,
    stop: impl Future<Output = ()>,
) -> Result<(), SidecarError> {
    let clock = Clock::new();
    let mut words = LastWords::new();
    tokio::pin!(stop);
    loop {
        let deadline = session.next_deadline().map(|at| at.since(clock.now()));
        let input = tokio::select! {
            biased;
            () = &mut stop => {
                info!("told to end");
                return Ok(());
            }
            message = incoming.recv() => match message {
                Some(Ok(message)) => Input::Driver(message),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    info!("the driver is gone");
                    return Ok(());
                }
            },
            event = events.next() => match event {
                Some(event) => match input_of(event, &mut words).await {
                    Some(input) => input,
                    None => continue,
                },
                None => Input::Error("the scheduler driver has ended".to_owned()),
            },
            () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() => {
                Input::Tick
            }
        };
        let mut outputs = Vec::new();
        session.handle(clock.now(), input, &mut outputs);
        for output in outputs {
            if let Some(well) = calls.follow(output).await? {
                return if well { Ok(()) } else { Err(SidecarError::Failed) };
            }
        }
    }
}

async fn input_of(event: scheduler::Event, words: &mut LastWords) -> Option<Input> {
    match event {
        scheduler::Event::Subscribed { framework_id, .. } => {
            info!(framework = framework_id.value, "subscribed");
            words.subscribed(&framework_id.value);
            Some(Input::Subscribed(framework_id))
        }
        scheduler::Event::Offers(offers) => {
            words.offered(&offers);
            Some(Input::Offers(offers))
        }
        scheduler::Event::Update(mut status) => {
            words.add_to(&mut status).await;
            Some(Input::Update(Box::new(status)))
        }
        scheduler::Event::Disconnected { reason } => {
            warn!(reason, "no master; going on trying");
            Some(Input::Disconnected)
        }
        scheduler::Event::Error(message) => Some(Input::Error(message)),
        scheduler::Event::Failure { agent_id, executor_id, status } => Some(Input::Failure {
            agent: agent_id.map(Into::into),
            executor: executor_id.map(|e| e.value),
            status,
        }),
        // What is launched on a dead offer comes back as dropped, and executors
        // send no messages.
        scheduler::Event::Rescind(_) | scheduler::Event::Message { .. } => None,
    }
}

/// What the session's outputs act on.
struct Calls<'a> {
    scheduler: &'a Scheduler,
    roles: &'a [String],
    outgoing: &'a Outgoing,
}

impl Calls<'_> {
    /// Acts; returns whether all was well when that was the last thing to do.
    async fn follow(&self, output: Output) -> Result<Option<bool>, SidecarError> {
        let s = self.scheduler;
        let done = match output {
            Output::Driver(message) => {
                self.outgoing.send(&message).await?;
                Ok(())
            }
            Output::Launch { offers, tasks, refuse } => {
                let launch = v1::offer::Operation {
                    r#type: Some(v1::offer::operation::Type::Launch as i32),
                    launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
                    ..Default::default()
                };
                let filters = v1::Filters { refuse_seconds: Some(refuse.as_secs_f64()) };
                s.accept(offers, vec![launch], Some(filters)).await
            }
            Output::Decline { offers, refuse } => s.decline(offers, Some(refuse)).await,
            Output::Suppress => s.suppress(self.roles).await,
            Output::Revive => s.revive(self.roles).await,
            Output::Kill { task, agent } => {
                s.kill(task.into(), Some(agent.into()), Some(kill_policy())).await
            }
            Output::ShutDown { executor, agent } => {
                s.shutdown_executor(v1::ExecutorId { value: executor }, agent.into()).await
            }
            Output::Message { agent, executor, data } => {
                s.message(agent.into(), v1::ExecutorId { value: executor }, data).await
            }
            Output::End(well) => return Ok(Some(well)),
        };
        // When the driver of the SDK has ended, its last event says why.
        Ok(done.map_or(None, |()| None))
    }
}

/// Reads messages on a thread of its own: standard input cannot be read in a way
/// that could be given up.
fn read(
    mut input: impl BufRead + Send + 'static,
) -> Result<mpsc::Receiver<Result<FromDriver, ProtocolError>>, SidecarError> {
    let (sender, receiver) = mpsc::channel(MAX_INCOMING);
    let work = move || {
        while let Some(message) = read_message(&mut input).transpose() {
            let last = message.is_err();
            if sender.blocking_send(message).is_err() || last {
                return;
            }
        }
    };
    spawn("driver-reader", work)?;
    Ok(receiver)
}

/// Messages on their way to the driver, written by a thread of their own, so that
/// a driver that does not read holds nothing up.
struct Outgoing {
    queue: mpsc::Sender<Vec<u8>>,
    written: oneshot::Receiver<()>,
}

impl Outgoing {
    fn new(mut output: impl Write + Send + 'static) -> Result<Self, SidecarError> {
        let (queue, mut lines) = mpsc::channel::<Vec<u8>>(MAX_OUTGOING);
        let (done, written) = oneshot::channel();
        let work = move || {
            // Whatever waits goes out in one piece.
            while let Some(mut text) = lines.blocking_recv() {
                while text.len() < MAX_PIECE
                    && let Ok(line) = lines.try_recv()
                {
                    text.extend(line);
                }
                if output.write_all(&text).and_then(|()| output.flush()).is_err() {
                    // The driver is gone; the reader notices that too.
                    break;
                }
            }
            let _ = done.send(());
        };
        spawn("driver-writer", work)?;
        Ok(Self { queue, written })
    }

    /// A driver that is gone is noticed by its reader.
    async fn send(&self, message: &ToDriver) -> Result<(), SidecarError> {
        match self.queue.send_timeout(message.to_line(), DRIVER_TIMEOUT).await {
            Ok(()) | Err(SendTimeoutError::Closed(_)) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => Err(SidecarError::SlowDriver),
        }
    }

    async fn flush(self) {
        drop(self.queue);
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.written).await;
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), SidecarError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|source| SidecarError::System { doing: "start a thread", source })
}

/// Time that does not go back.
struct Clock {
    wall: Time,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Time::ZERO + wall, start: Instant::now() }
    }

    fn now(&self) -> Time {
        self.wall + self.start.elapsed()
    }
}

/// The error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const REGISTER: &str = r#"{"t":"register","v":1,"mode":"coarse","masters":["127.0.0.1:1"],
        "app_name":"pi","user":"u","spark":"4.3.0","command":["java"]"#;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the driver is told, and how it ends.
    async fn talk(input: String) -> (String, Result<(), SidecarError>) {
        let sink = Sink::default();
        let served = serve(io::Cursor::new(input), sink.clone(), std::future::pending());
        let result = tokio::time::timeout(Duration::from_secs(20), served).await.unwrap();
        let said = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        (said, result)
    }

    fn line(text: &str) -> String {
        text.replace('\n', " ") + "\n"
    }

    #[tokio::test]
    async fn ends_with_its_input_though_no_master_answers() {
        let (said, result) = talk(line(&format!("{REGISTER}}}"))).await;
        result.unwrap();
        assert_eq!(said, "");
    }

    #[test]
    fn settings_win_over_variables_in_who_an_application_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, secret: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, secret).unwrap();
            path.display().to_string()
        };
        let (set, variable) = (file("set", "hush\n"), file("variable", "other\n"));
        let of = |more: &str, variables: &[(&str, &str)]| {
            let read = FromDriver::parse(format!("{REGISTER}{more}}}").as_bytes()).unwrap();
            let FromDriver::Register(register) = read else { panic!("{read:?}") };
            let found = |name: &str| variables.iter().find(|(n, _)| *n == name);
            credential(&register, |name| found(name).map(|(_, value)| (*value).to_owned()))
        };
        let settings = format!(r#","principal":"p","secret_file":"{set}""#);
        let variables = [("MEZZ_PRINCIPAL", "q"), ("MEZZ_SECRET_FILE", variable.as_str())];
        let known = |principal, secret| Some(Credential::new(principal, secret).unwrap());
        assert_eq!(of("", &[]).unwrap(), None);
        assert_eq!(of(&settings, &variables).unwrap(), known("p", "hush"));
        assert_eq!(of("", &variables).unwrap(), known("q", "other"));
        assert_eq!(of(r#","principal":"p""#, &variables).unwrap(), known("p", "other"));
        let half = of("", &variables[1..]).unwrap_err().to_string();
        assert!(half.contains("spark.mezz.principal is not set, nor MEZZ_PRINCIPAL"), "{half}");
        let missing = [("MEZZ_PRINCIPAL", "q"), ("MEZZ_SECRET_FILE", "/none/there")];
        let missing = with_causes(&of("", &missing).unwrap_err());
        assert!(missing.contains("/none/there"), "{missing}");
    }

    #[tokio::test]
    async fn tells_the_driver_what_is_wrong() {
        for (input, wanted) in [
            (String::new(), "started by Spark's driver"),
            (line(r#"{"t":"unregister"}"#), "first message must be `register`"),
            (line(r#"{"t":"register","v":9}"#), "speaks version 9"),
            (line(r#"{"t":"hello"}"#), "`hello`"),
            (line("nonsense"), "is not understood"),
            (line(&format!("{REGISTER},\"constraints\":\"a:\"}}")), "constraint `a:`"),
            (
                line(&format!("{REGISTER},\"principal\":\"p\"}}")),
                "spark.mezz.secret.file is not set",
            ),
            (line(&format!("{REGISTER}}}").replace(":1\"", "\"")), "is no address"),
            (line(&format!("{REGISTER}}}")) + &line(r#"{"t":"dance"}"#), "`dance`"),
        ] {
            let (said, result) = talk(input.clone()).await;
            assert!(result.is_err(), "{input}");
            assert!(said.starts_with(r#"{"t":"error","message":""#), "{input}: {said}");
            assert!(said.contains(wanted), "{input}: {said}");
        }
    }
}
