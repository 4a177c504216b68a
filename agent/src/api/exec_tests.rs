use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mezz_proto::resources::Resources;
use tokio::{io::AsyncReadExt, sync::oneshot, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::*;
use crate::{
    api::Index,
    containerizer::{
        Ability, Addressee, BoxFuture, ContainerSpec, Containerizer, Recovery, Statistics,
        Termination,
    },
    core::{Change, SandboxRecord},
    metrics::Metrics,
};

/// Everything that is waited for comes within this, or the test fails.
const DEADLINE: Duration = Duration::from_secs(10);

/// The program's side of an [`Exec`].
struct Side {
    spec: ExecSpec,
    stdin: Option<tokio::io::DuplexStream>,
    output: mpsc::Sender<(containerizer::Stream, Bytes)>,
    resize: mpsc::Receiver<WindowSize>,
    end: oneshot::Sender<i32>,
}

/// A containerizer whose programs are played by the test.
#[derive(Default)]
struct Stage {
    sides: Mutex<Vec<Side>>,
}

impl Stage {
    fn side(&self) -> Side {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap()
    }
}

fn none<T: 'static>() -> BoxFuture<'static, T> {
    Box::pin(std::future::pending())
}

impl Containerizer for Stage {
    fn name(&self) -> &'static str {
        "none"
    }
    fn launch(&self, _: ContainerSpec) -> BoxFuture<'_, Result<u32, ContainerError>> {
        none()
    }
    fn wait(&self, _: &ContainerId) -> BoxFuture<'_, Result<Termination, ContainerError>> {
        none()
    }
    fn signal(
        &self,
        _: &ContainerId,
        _: i32,
        _: Addressee,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        none()
    }
    fn destroy(&self, _: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        none()
    }
    fn update(
        &self,
        _: &ContainerId,
        _: Resources,
        _: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        none()
    }
    fn statistics(&self, _: &ContainerId) -> BoxFuture<'_, Result<Statistics, ContainerError>> {
        none()
    }
    fn processes(&self, _: &ContainerId) -> BoxFuture<'_, Result<Vec<i32>, ContainerError>> {
        none()
    }
    fn network(&self, _: &ContainerId) -> BoxFuture<'_, Result<Option<PathBuf>, ContainerError>> {
        none()
    }
    fn exec(
        &self,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Exec, ContainerError>> {
        let id = id.clone();
        Box::pin(async move {
            if spec.program == (Program::Exec { path: "no".into(), argv: vec!["no".into()] }) {
                return Err(ContainerError::Unknown(id));
            }
            let (output, received) = mpsc::channel(2);
            let (resize, sizes) = mpsc::channel(1);
            let (end, ended) = oneshot::channel();
            let (near, far) = tokio::io::duplex(64);
            let stdin = spec.stdin.then(|| Box::new(near) as Box<dyn AsyncWrite + Send + Unpin>);
            let far = spec.stdin.then_some(far);
            let side = Side { spec, stdin: far, output, resize: sizes, end };
            self.sides.lock().unwrap_or_else(PoisonError::into_inner).push(side);
            let ended = Box::pin(async move { Ok(ended.await.unwrap_or(9)) });
            Ok(Exec { stdin, output: received, resize, ended })
        })
    }
    fn abilities(&self) -> Vec<Ability> {
        Vec::new()
    }
    fn recover(&self, _: Vec<ContainerId>) -> BoxFuture<'_, Result<Recovery, ContainerError>> {
        none()
    }
    fn remove(&self, _: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        none()
    }
}

struct Agent {
    served: Arc<Served>,
    stage: Arc<Stage>,
}

/// An agent with the task `t` of the framework `f`, in the container `c`.
fn agent() -> Agent {
    let stage = Arc::new(Stage::default());
    let record = SandboxRecord {
        container_id: "c".into(),
        framework_id: "f".into(),
        executor_id: "t".into(),
        path: "/c".into(),
        ended_at: None,
    };
    let index = Index::new(None, vec![record], Vec::new());
    let task = TaskKey { framework: "f".into(), task: "t".into() };
    index.apply(Change::TaskAdded { task, container: "c".into(), passing: false });
    let (inputs, _) = mpsc::channel(1);
    let served = Served {
        index: Arc::new(index),
        executors: Arc::default(),
        roster: Arc::default(),
        about: Default::default(),
        pages: Default::default(),
        containerizer: Arc::clone(&stage) as Arc<dyn Containerizer>,
        metrics: Arc::new(Metrics::new()),
        work_dir: PathBuf::new(),
        inputs,
        executor_queue: 1,
        authenticate_executors: false,
        rooms: Default::default(),
        stop: CancellationToken::new(),
    };
    Agent { served: Arc::new(served), stage }
}

fn start(argv: &[&str], stdin: bool, terminal: Option<(u32, u32)>) -> wire::ExecStart {
    wire::ExecStart {
        framework_id: "f".into(),
        task_id: "t".into(),
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        stdin: Some(stdin),
        terminal: terminal.map(|(rows, columns)| wire::WindowSize { rows, columns }),
        environment: BTreeMap::from([("TERM".to_owned(), "xterm".to_owned())]),
    }
}

type Inputs = mpsc::Sender<Result<wire::ExecInput, Status>>;
type Outputs = mpsc::Receiver<Result<wire::ExecOutput, Status>>;

async fn call(agent: &Agent, first: Input) -> Result<(Inputs, Outputs), Status> {
    let (sender, inputs) = mpsc::channel(1);
    sender.send(Ok(wire::ExecInput { input: Some(first) })).await.unwrap();
    let outputs = exec(&agent.served, ReceiverStream::new(inputs)).await?;
    Ok((sender, outputs))
}

async fn say(inputs: &Inputs, input: Input) {
    let said = inputs.send(Ok(wire::ExecInput { input: Some(input) }));
    timeout(DEADLINE, said).await.unwrap().unwrap();
}

async fn next(outputs: &mut Outputs) -> Option<Result<Output, Status>> {
    let output = timeout(DEADLINE, outputs.recv()).await.unwrap()?;
    Some(output.map(|output| output.output.unwrap()))
}

#[tokio::test]
async fn input_output_sizes_and_the_end_are_passed_on() {
    let agent = agent();
    let first = Input::Start(start(&["sh", "-i"], true, Some((24, 80))));
    let (inputs, mut outputs) = call(&agent, first).await.unwrap();
    let mut side = agent.stage.side();
    assert_eq!(
        side.spec,
        ExecSpec {
            program: Program::Exec { path: "sh".into(), argv: vec!["sh".into(), "-i".into()] },
            environment: BTreeMap::from([("TERM".into(), "xterm".into())]),
            stdin: true,
            terminal: Some(WindowSize { rows: 24, columns: 80 }),
        }
    );
    say(&inputs, Input::Stdin(b"ls\n".to_vec())).await;
    let mut read = [0; 3];
    timeout(DEADLINE, side.stdin.as_mut().unwrap().read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"ls\n");
    say(&inputs, Input::Resize(wire::WindowSize { rows: 50, columns: 132 })).await;
    let size = timeout(DEADLINE, side.resize.recv()).await.unwrap();
    assert_eq!(size, Some(WindowSize { rows: 50, columns: 132 }));
    side.output.send((containerizer::Stream::Stdout, "a".into())).await.unwrap();
    side.output.send((containerizer::Stream::Stderr, "b".into())).await.unwrap();
    assert_eq!(next(&mut outputs).await.unwrap().unwrap(), Output::Stdout(b"a".to_vec()));
    assert_eq!(next(&mut outputs).await.unwrap().unwrap(), Output::Stderr(b"b".to_vec()));
    say(&inputs, Input::CloseStdin(wire::CloseStdin {})).await;
    let mut rest = Vec::new();
    let stdin = side.stdin.as_mut().unwrap();
    timeout(DEADLINE, stdin.read_to_end(&mut rest)).await.unwrap().unwrap();
    drop(side.output);
    side.end.send(7 << 8).unwrap();
    assert_eq!(next(&mut outputs).await.unwrap().unwrap(), Output::WaitStatus(7 << 8));
    assert!(next(&mut outputs).await.is_none());
}

/// Nobody's half-closing ends the program; going does.
#[tokio::test]
async fn a_caller_that_goes_kills_the_program() {
    let agent = agent();
    let (inputs, outputs) = call(&agent, Input::Start(start(&["x"], true, None))).await.unwrap();
    let mut side = agent.stage.side();
    drop(inputs);
    let mut rest = Vec::new();
    let stdin = side.stdin.as_mut().unwrap();
    timeout(DEADLINE, stdin.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(!side.output.is_closed(), "its input has ended, and it goes on");
    drop(outputs);
    timeout(DEADLINE, side.output.closed()).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_stops_kills_the_program_and_says_so() {
    let agent = agent();
    let (_inputs, mut outputs) =
        call(&agent, Input::Start(start(&["x"], false, None))).await.unwrap();
    let side = agent.stage.side();
    agent.served.stop.cancel();
    let status = next(&mut outputs).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    timeout(DEADLINE, side.output.closed()).await.unwrap();
}

/// A caller that does not read holds the program up, and nothing grows.
#[tokio::test]
async fn queues_are_bounded_both_ways() {
    let agent = agent();
    let (inputs, outputs) = call(&agent, Input::Start(start(&["x"], true, None))).await.unwrap();
    let side = agent.stage.side();
    let part = || (containerizer::Stream::Stdout, Bytes::from_static(&[0; 100]));
    let mut sent = 0;
    while timeout(Duration::from_millis(100), side.output.send(part())).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "it is not held up");
    }
    let mut said = 0;
    let input = || Ok(wire::ExecInput { input: Some(Input::Stdin(vec![0; 100])) });
    while timeout(Duration::from_millis(100), inputs.send(input())).await.is_ok() {
        said += 1;
        assert!(said < 100, "it is not held up");
    }
    drop(outputs);
    timeout(DEADLINE, side.output.closed()).await.unwrap();
}

#[tokio::test]
async fn a_program_that_closes_its_input_goes_on() {
    let agent = agent();
    let (inputs, mut outputs) =
        call(&agent, Input::Start(start(&["head"], true, None))).await.unwrap();
    let mut side = agent.stage.side();
    side.stdin = None;
    for _ in 0..10 {
        say(&inputs, Input::Stdin(vec![0; 100])).await;
    }
    side.output.send((containerizer::Stream::Stdout, "a".into())).await.unwrap();
    assert_eq!(next(&mut outputs).await.unwrap().unwrap(), Output::Stdout(b"a".to_vec()));
}

#[tokio::test]
async fn mistakes_are_named() {
    let agent = agent();
    let refused = async |first: Input| match call(&agent, first).await {
        Ok(_) => panic!("not refused"),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    let close = Input::CloseStdin(wire::CloseStdin {});
    let (code, text) = refused(close).await;
    assert!(code == Code::InvalidArgument && text.contains("`start`"), "{text}");
    let unknown = wire::ExecStart { task_id: "u".into(), ..start(&["x"], false, None) };
    let (code, text) = refused(Input::Start(unknown)).await;
    assert!(code == Code::NotFound && text.contains("task u of framework f"), "{text}");
    let (code, text) = refused(Input::Start(start(&["no"], false, None))).await;
    assert!(code == Code::FailedPrecondition && text.contains("has not started"), "{text}");
    let long = "x".repeat(MAX_ARGV);
    let environment = BTreeMap::from([("A=B".to_owned(), String::new())]);
    for (start, tells) in [
        (start(&[], false, None), "start.argv: must name"),
        (start(&[""], false, None), "start.argv: must name"),
        (start(&["a\0"], false, None), "start.argv: \"a\\0\""),
        (start(&["a", &long], false, None), "start.argv: is 131075 bytes"),
        (start(&["a"], false, Some((70_000, 1))), "start.terminal.rows: 70000"),
        (
            wire::ExecStart { environment, ..start(&["a"], false, None) },
            "start.environment: \"A=B\"",
        ),
    ] {
        let (code, text) = refused(Input::Start(start)).await;
        assert!(code == Code::InvalidArgument && text.contains(tells), "{tells}: {text}");
    }
    // And in the midst of it.
    let late = Input::Start(start(&["x"], false, None));
    let (inputs, mut outputs) = call(&agent, late.clone()).await.unwrap();
    let side = agent.stage.side();
    say(&inputs, late).await;
    let status = next(&mut outputs).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    timeout(DEADLINE, side.output.closed()).await.unwrap();
}
