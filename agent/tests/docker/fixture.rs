//! What all tests of Docker containers need.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
};

use mezz_agent::{
    containerizer::{
        self, Ability, ContainerError, ContainerSpec, EngineAddress, ExecSpec, Program, Stream,
        Termination,
    },
    options::{Containment, DockerOptions},
};
use mezz_proto::{
    error::chain,
    ids::ContainerId,
    v1::{self, container_info},
};

use crate::support::{self, Agent, PATIENCE};

pub const SOCKET: &str = "unix:///var/run/docker.sock";

/// The image, which has to be there.
pub fn image() -> String {
    std::env::var("MEZZ_TEST_DOCKER_IMAGE").unwrap_or_else(|_| {
        panic!(
            "these tests need a Docker engine and an image: run them by ./test.sh, or first \
             `. scripts/lib.sh; . scripts/docker.sh; ensure_docker; ensure_test_image` (as root)"
        )
    })
}

/// What the `docker` program says about an engine.
pub fn docker_at(address: &str, args: &[&str]) -> String {
    let output = Command::new("docker").arg("-H").arg(address).args(args).output();
    let output = output.expect("these tests need the program `docker`: see scripts/docker.sh");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the `docker` program says.
pub fn docker(args: &[&str]) -> String {
    docker_at(SOCKET, args)
}

/// The label of an agent's containers; none before it has a folder.
pub fn label(work_dir: &Path) -> Option<String> {
    let text = fs::read(work_dir.join("docker.json")).ok()?;
    let known: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Some(format!("dev.mezz.agent={}", known["agent"].as_str().unwrap()))
}

/// An agent with Docker only, and its containers, which are gone with it.
pub struct Docker {
    agent: Agent,
    address: String,
    label: String,
}

impl Docker {
    pub fn new() -> Self {
        Self::at(SOCKET)
    }

    pub fn at(address: &str) -> Self {
        Self::with(address, |_| {})
    }

    pub fn with(address: &str, set: impl FnOnce(&mut mezz_agent::options::AgentOptions)) -> Self {
        let (dir, mut options) = support::options(Containment::None);
        options.docker =
            DockerOptions { engine: Some(EngineAddress::parse(address).unwrap()), config: None };
        set(&mut options);
        let agent = Agent::with((dir, options));
        let label = format!("label={}", label(&agent.options.work_dir).unwrap());
        Self { agent, address: address.to_owned(), label }
    }

    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// With an address where nobody listens.
    pub fn without_engine(address: &str) -> Self {
        // Nothing to be looked for at the end.
        Self::through(address)
    }

    /// With an address that only the agent uses.
    pub fn through(address: &str) -> Self {
        let mut docker = Self::at(address);
        docker.address = SOCKET.to_owned();
        docker
    }

    /// What it says of Docker.
    pub fn ability(&self) -> Ability {
        self.agent.it.abilities().into_iter().find(|a| a.name == "docker").unwrap()
    }

    /// Ends the agent's part that deals with the engine.
    pub fn stop(&mut self) {
        let mut options = self.agent.options.clone();
        options.docker.engine = None;
        self.agent.it = containerizer::open(&options).unwrap();
    }

    /// As another process of the agent would find it.
    pub fn start(&mut self) {
        self.agent.it = containerizer::open(&self.agent.options).unwrap();
    }

    /// With another engine than before.
    pub fn start_at(&mut self, address: &str) {
        let mut options = self.agent.options.clone();
        options.docker.engine = Some(EngineAddress::parse(address).unwrap());
        self.agent.it = containerizer::open(&options).unwrap();
    }

    /// What an agent says that may not start like this.
    pub async fn refuses_to_start(&self, known: &[&ContainerId]) -> String {
        let known = known.iter().map(|id| (*id).clone()).collect();
        let found = tokio::time::timeout(PATIENCE, self.agent().it.recover(known)).await.unwrap();
        chain(&found.unwrap_err())
    }

    /// Both.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub async fn recover(&self, known: &[&ContainerId]) -> mezz_agent::containerizer::Recovery {
        let known = known.iter().map(|id| (*id).clone()).collect();
        tokio::time::timeout(PATIENCE, self.agent().it.recover(known)).await.unwrap().unwrap()
    }

    pub fn spec(&self, command: &str) -> ContainerSpec {
        let mut spec = self.agent().spec(command);
        // Tests that run at the same time share an engine.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        spec.id = ContainerId::new(format!("t{}-{n}", std::process::id()));
        spec.sandbox = self.agent().sandbox(&spec.id);
        fs::create_dir_all(&spec.sandbox).unwrap();
        spec.environment = BTreeMap::new();
        spec.info = Some(Box::new(info(&image())));
        spec
    }

    pub fn spec_with(
        &self,
        command: &str,
        set: impl FnOnce(&mut v1::ContainerInfo),
    ) -> ContainerSpec {
        let mut spec = self.spec(command);
        set(spec.info.as_mut().unwrap());
        spec
    }

    pub async fn run(&self, command: &str) -> ContainerId {
        self.agent().start(self.spec(command)).await
    }

    /// What a launch that must fail says.
    pub async fn refused(&self, spec: ContainerSpec) -> String {
        let id = spec.id.clone();
        let error = self.agent().it.launch(spec).await.unwrap_err();
        assert!(matches!(self.agent().it.wait(&id).await, Err(ContainerError::Unknown(_))));
        chain(&error)
    }

    /// Runs a command to its end and returns its standard output.
    pub async fn output_of(&self, spec: ContainerSpec) -> String {
        let id = self.agent().start(spec).await;
        let end = self.agent().wait(&id).await;
        let errors = self.agent().output(&id, "stderr");
        assert_eq!(status(&end).code(), Some(0), "{end:?} {errors}");
        self.agent().output(&id, "stdout")
    }

    /// Waits for output.
    pub async fn says(&self, id: &ContainerId, text: &str) {
        support::until(&format!("{text:?} is said"), || {
            fs::read(self.agent().sandbox(id).join("stdout"))
                .is_ok_and(|said| String::from_utf8_lossy(&said).contains(text))
        })
        .await;
    }

    /// What `docker inspect` finds with a template.
    pub fn inspect(&self, id: &ContainerId, template: &str) -> String {
        docker_at(&self.address, &["inspect", "-f", template, &name(id)])
    }

    /// The names of all containers of this agent.
    pub fn all(&self) -> String {
        let format = "{{.Names}}";
        docker_at(&self.address, &["ps", "-a", "--filter", &self.label, "--format", format])
    }

    pub async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> (ExitStatus, String, String) {
        let exec = self.agent().it.exec(id, spec).await.unwrap();
        drop(exec.stdin);
        collect(exec.output, exec.ended).await
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // First the agent: it would look for what is removed here.
        self.stop();
        let args = ["ps", "-aq", "--filter", &self.label];
        let output = Command::new("docker").args(["-H", &self.address]).args(args).output();
        for id in String::from_utf8_lossy(&output.unwrap().stdout).split_whitespace() {
            let _ = Command::new("docker").args(["-H", &self.address, "rm", "-fv", id]).output();
        }
    }
}

/// All output and the end of a program.
pub async fn collect(
    mut output: tokio::sync::mpsc::Receiver<(Stream, bytes::Bytes)>,
    ended: impl Future<Output = Result<i32, ContainerError>>,
) -> (ExitStatus, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    let all = async {
        while let Some((stream, bytes)) = output.recv().await {
            let text = String::from_utf8_lossy(&bytes);
            match stream {
                Stream::Stdout => out.push_str(&text),
                Stream::Stderr => err.push_str(&text),
            }
        }
    };
    let (end, ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(ended, all) }).await.expect("it ends");
    (ExitStatus::from_raw(end.unwrap()), out, err)
}

pub fn shell(command: &str) -> ExecSpec {
    ExecSpec {
        program: Program::Shell(command.into()),
        environment: BTreeMap::new(),
        stdin: false,
        terminal: None,
    }
}

/// The engine's name for a container.
pub fn name(id: &ContainerId) -> String {
    format!("mezz-{id}")
}

pub fn info(image: &str) -> v1::ContainerInfo {
    v1::ContainerInfo {
        r#type: container_info::Type::Docker as i32,
        docker: Some(container_info::DockerInfo {
            image: image.into(),
            ..container_info::DockerInfo::default()
        }),
        ..v1::ContainerInfo::default()
    }
}

pub fn status(termination: &Termination) -> ExitStatus {
    assert_eq!(termination.failure, None);
    ExitStatus::from_raw(termination.wait_status.expect("a status"))
}
