//! Tasks in Docker containers, run by a whole agent.

use std::{process::Command, time::Duration};

use mezz_agent::containerizer::EngineAddress;
use mezz_proto::{
    resources::{Dialect, Resources},
    v1::{
        self, TaskState,
        container_info::docker_info::{Network, PortMapping},
        task_status::Reason,
    },
};

use crate::{
    cluster::{FakeMaster, TestAgent, task},
    fixture::{SOCKET, docker_at, image, info, label},
};

fn docker_task(id: &str, line: &str) -> v1::TaskInfo {
    v1::TaskInfo { container: Some(info(&image())), ..task(id, line) }
}

/// Gone with all of its containers.
struct Whole(Option<TestAgent>);

impl Whole {
    fn new(master: &FakeMaster) -> Self {
        let mut agent = TestAgent::new(master);
        agent.options.docker.engine = Some(EngineAddress::parse(SOCKET).unwrap());
        Self(Some(agent))
    }

    async fn joined(master: &mut FakeMaster) -> Self {
        let mut whole = Self::new(master);
        whole.agent().start().await;
        master.welcome().await;
        whole
    }

    fn agent(&mut self) -> &mut TestAgent {
        self.0.as_mut().unwrap()
    }

    fn containers(&mut self) -> String {
        // Without a panic: this also runs in a test that failed.
        let Some(label) = label(&self.agent().options.work_dir) else { return String::new() };
        let label = format!("label={label}");
        let output = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output();
        output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }

    async fn finish(mut self) {
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while !self.containers().is_empty() {
            assert!(tokio::time::Instant::now() < end, "containers are left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.0.take().unwrap().finish().await;
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.0.is_some() {
            for id in self.containers().split_whitespace() {
                let _ = Command::new("docker").args(["rm", "-fv", id]).output();
            }
        }
    }
}

#[test_log::test(tokio::test)]
async fn a_task_runs_is_read_and_ends() {
    let mut master = FakeMaster::start().await;
    let mut whole = Whole::joined(&mut master).await;
    master.run(vec![docker_task("t", "echo out $FROM_IMAGE $MESOS_TASK_ID; exit 3")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let failed = master.expect("t", TaskState::TaskFailed).await;
    assert_eq!(failed.message.as_deref(), Some("exited with status 3"));
    assert_eq!(whole.agent().read("t", "stdout").await.unwrap(), "out yes t\n");
    master.run(vec![docker_task("memory", "tail /dev/zero")]).await;
    master.expect("memory", TaskState::TaskRunning).await;
    let failed = master.expect("memory", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLimitationMemory, "{failed:?}");
    let mut nothing = docker_task("image", "");
    nothing.command = Some(v1::CommandInfo { shell: Some(false), ..Default::default() });
    master.run(vec![nothing]).await;
    master.expect("image", TaskState::TaskRunning).await;
    master.expect("image", TaskState::TaskFinished).await;
    let said = whole.agent().read("image", "stdout").await.unwrap();
    assert_eq!(said, "entrypoint of the image\n");
    whole.finish().await;
}

#[test_log::test(tokio::test)]
async fn what_cannot_be_started_is_a_failure_with_a_reason() {
    let mut master = FakeMaster::start().await;
    let whole = Whole::joined(&mut master).await;
    let mut missing = docker_task("image", "true");
    let nowhere = "127.0.0.1:1/no/image:1";
    missing.container.as_mut().unwrap().docker.as_mut().unwrap().image = nowhere.into();
    master.run(vec![missing]).await;
    let failed = master.expect("image", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    let message = failed.message.unwrap();
    assert!(message.contains(&format!("cannot pull image `{nowhere}`")), "{message}");
    let mut named = docker_task("name", "true");
    let parameter = v1::Parameter { key: "name".into(), value: "x".into() };
    named.container.as_mut().unwrap().docker.as_mut().unwrap().parameters.push(parameter);
    master.run(vec![named]).await;
    let failed = master.expect("name", TaskState::TaskFailed).await;
    let message = failed.message.unwrap();
    assert!(message.contains("container.docker.parameters[0] `name`"), "{message}");
    whole.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_restarted_agent_goes_on_with_its_task_and_kills_it() {
    let mut master = FakeMaster::start().await;
    let mut whole = Whole::joined(&mut master).await;
    let line = "trap 'echo bye; exit 0' TERM; echo one; while :; do sleep 0.05; done";
    master.run(vec![docker_task("t", line)]).await;
    master.expect("t", TaskState::TaskRunning).await;
    whole.agent().stop().await;
    whole.agent().start().await;
    master.welcome().await;
    master.kill("t", Some(Duration::from_secs(20))).await;
    master.expect("t", TaskState::TaskKilled).await;
    assert_eq!(whole.agent().read("t", "stdout").await.unwrap(), "one\nbye\n");
    whole.finish().await;
}

#[test_log::test(tokio::test)]
async fn an_agent_without_docker_refuses_with_a_reason() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![docker_task("t", "true")]).await;
    let failed = master.expect("t", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    let message = failed.message.unwrap();
    assert!(message.contains("docker"), "{message}");
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn an_executor_in_docker_has_the_ports_of_its_first_tasks() {
    let mut master = FakeMaster::start().await;
    let mut whole = Whole::new(&master);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = Resources::parse(&format!("ports:[{port}-{port}]")).unwrap();
    let ports = ports.to_proto(Dialect::Refined, None);
    whole.agent().options.resources =
        Resources::parse(&format!("cpus:4;mem:4096;ports:[{port}-{port}]")).unwrap();
    whole.agent().start().await;
    master.welcome().await;
    let mut container = info(&image());
    let docker = container.docker.as_mut().unwrap();
    docker.network = Some(Network::Bridge as i32);
    docker.port_mappings.push(PortMapping {
        host_port: port.into(),
        container_port: 80,
        protocol: None,
    });
    let mut of_task = task("t", "");
    let command = of_task.command.take().unwrap();
    of_task.executor = Some(v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: "E".into() },
        command: Some(v1::CommandInfo { value: Some("echo ready; sleep 1000".into()), ..command }),
        container: Some(container),
        ..Default::default()
    });
    of_task.resources.extend(ports);
    master.run(vec![of_task]).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let ports = loop {
        let ids = whole.containers();
        let format = "{{.State.Status}} {{json .HostConfig.PortBindings}}";
        let of = |id| docker_at(SOCKET, &["inspect", "-f", format, id]);
        if let Some(said) = ids.split_whitespace().next().map(of)
            && let Some(ports) = said.strip_prefix("running ")
        {
            break ports.to_owned();
        }
        assert!(tokio::time::Instant::now() < end, "it does not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(ports.contains("80/tcp") && ports.contains(&format!("\"{port}\"")), "{ports}");
    master.kill("t", None).await;
}
