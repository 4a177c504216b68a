use super::*;

const NOW: Time = Time::from_secs(5000);

fn register() -> Register {
    let FromDriver::Register(r) = FromDriver::parse(
        br#"{"t":"register","v":1,"mode":"coarse","masters":["m:5050"],"app_name":"words",
        "user":"ann","spark":"4.3.0","ui":"http://d:4040",
        "command":["/jdk/bin/java","-Xmx{{HEAP_MIB}}m","--executor-id","{{EXECUTOR_ID}}",
        "--hostname","{{HOSTNAME}}","--cores","{{CORES}}","--app-id","{{APP_ID}}",
        "--resourceProfileId","{{PROFILE_ID}}"],
        "env":{"SPARK_HOME":"/spark","DIR":"x-{{EXECUTOR_ID}}","_SPARK_AUTH_SECRET":"hush"},"role":"etl"}"#,
    )
    .unwrap() else {
        panic!("not a register")
    };
    *r
}

fn offer(id: &str) -> v1::Offer {
    v1::Offer {
        id: v1::OfferId { value: id.into() },
        framework_id: v1::FrameworkId { value: "fw-1".into() },
        agent_id: v1::AgentId { value: "a1".into() },
        hostname: "node1".into(),
        resources: Resources::cpus_mem(4.0, 4096.0)
            .to_proto(mezz_proto::resources::Dialect::Refined, Some("etl")),
        url: Some(v1::Url {
            scheme: "http".into(),
            address: v1::Address { hostname: Some("node1".into()), ip: None, port: 5051 },
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn target(n: u32) -> Input {
    let text = format!(
        r#"{{"t":"target","profiles":[{{"rp":0,"n":{n},"cores":2,"mem":1408,"heap":1024}}]}}"#
    );
    Input::Driver(FromDriver::parse(text.as_bytes()).unwrap())
}

struct Env(Session);

impl Env {
    fn started(n: u32) -> Self {
        let mut env = Self(Session::new(register(), "mezz").unwrap());
        env.send(target(n));
        env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
        env
    }

    fn send(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.0.handle(NOW, input, &mut out);
        out
    }

    fn update(&mut self, task: &str, state: v1::TaskState, message: &str) -> Vec<Output> {
        self.send(Input::Update(Box::new(v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state as i32,
            message: Some(message.into()),
            agent_id: Some(v1::AgentId { value: "a1".into() }),
            ..Default::default()
        })))
    }
}

fn to_driver(out: &[Output]) -> Vec<String> {
    out.iter()
        .filter_map(|o| match o {
            Output::Driver(m) => {
                Some(String::from_utf8(m.to_line()).unwrap().trim_end().to_owned())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn subscribes_as_the_application() {
    let f = Session::new(register(), "mezz").unwrap().framework();
    assert_eq!((f.user.as_str(), f.name.as_str()), ("ann", "words"));
    assert_eq!(f.roles, ["etl"]);
    assert_eq!(f.failover_timeout, Some(60.0));
    assert_eq!(f.checkpoint, Some(true));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    use std::error::Error;
    let bad = Register { constraints: Some("rack:".into()), ..register() };
    let e = Session::new(bad, "mezz").err().unwrap();
    assert_eq!(e.to_string(), "spark.mezz.constraints");
    assert!(e.source().unwrap().to_string().contains("`rack:`"));
    assert!(Session::new(Register { masters: vec![], ..register() }, "mezz").is_err());
    assert!(
        Session::new(Register { failover_timeout_s: Some(-1.0), ..register() }, "mezz").is_err()
    );
}

#[test]
fn an_offer_becomes_a_command_task_with_everything_filled_in() {
    let mut env = Env::started(1);
    let out = env.send(Input::Offers(vec![offer("o1")]));
    let Output::Launch { offers, tasks, .. } = &out[0] else { panic!("no launch") };
    assert_eq!(offers[0].value, "o1");
    let task = &tasks[0];
    assert_eq!((task.task_id.value.as_str(), task.name.as_str()), ("1", "words executor 1"));
    let command = task.command.as_ref().unwrap();
    assert_eq!(command.value.as_deref(), Some("/jdk/bin/java"));
    assert_eq!(
        command.arguments.join(" "),
        "/jdk/bin/java -Xmx1024m --executor-id 1 --hostname node1 --cores 2 --app-id fw-1 \
         --resourceProfileId 0"
    );
    let variables = &command.environment.as_ref().unwrap().variables;
    let secret = variables.iter().find(|v| v.name == "_SPARK_AUTH_SECRET").unwrap();
    assert_eq!((secret.r#type(), &secret.value), (v1::environment::variable::Type::Secret, &None));
    assert_eq!(secret.secret.as_ref().unwrap().value.as_ref().unwrap().data, b"hush");
    let env: Vec<String> = variables
        .iter()
        .filter(|v| v.secret.is_none())
        .map(|v| format!("{}={}", v.name, v.value()))
        .collect();
    assert_eq!(
        env,
        [
            "DIR=x-1",
            "SPARK_HOME=/spark",
            "SPARK_LOG_URL_STDOUT=http://node1:5051/files/download?framework=fw-1&task=1&path=stdout",
            "SPARK_LOG_URL_STDERR=http://node1:5051/files/download?framework=fw-1&task=1&path=stderr",
        ]
    );
    assert_eq!(Resources::from_proto(&task.resources).unwrap().to_string(), "cpus:2; mem:1408");
    assert_eq!(Resources::allocation_role(&task.resources).unwrap().as_deref(), Some("etl"));
    assert_eq!(
        to_driver(&out),
        [r#"{"t":"executor_launched","id":"1","rp":0,"agent":"a1","host":"node1"}"#]
    );
}

fn capabilities(framework: &v1::FrameworkInfo) -> Vec<Capability> {
    framework.capabilities.iter().map(|c| c.r#type()).collect()
}

#[test]
fn agents_with_gpus_are_seen_and_executors_told_which_they_have() {
    let mut env = Env(Session::new(register(), "mezz").unwrap());
    assert!(capabilities(&env.0.framework()).contains(&Capability::GpuResources));
    let text = r#"{"t":"target","profiles":[{"rp":3,"n":1,"cores":2,"mem":1408,"heap":1024,
        "resources":[{"name":"gpu","amount":1},{"name":"x","amount":1,"discovered":true}]}]}"#;
    env.send(Input::Driver(FromDriver::parse(text.as_bytes()).unwrap()));
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    let mut offer = offer("o1");
    let all = Resources::parse("cpus:4;mem:4096;gpus:2;x:1").unwrap();
    offer.resources = all.to_proto(mezz_proto::resources::Dialect::Refined, Some("etl"));
    let out = env.send(Input::Offers(vec![offer]));
    let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
    let command = tasks[0].command.as_ref().unwrap();
    assert_eq!(command.value.as_deref(), Some("/bin/sh"));
    assert!(
        command.arguments.ends_with(&["--resourcesFile", "spark-resources.json"].map(Into::into))
    );
    let variables = &command.environment.as_ref().unwrap().variables;
    let told = variables.iter().find(|v| v.name == "MEZZ_SPARK_RESOURCES").unwrap();
    assert_eq!(
        told.value(),
        r#"[{"id":{"componentName":"spark.executor","resourceName":"gpu"},"addresses":["0"]}]"#
    );
}

#[test]
fn the_driver_hears_why_no_offer_has_room() {
    let mut env = Env::started(1);
    let mut small = offer("o1");
    small.resources = Resources::cpus_mem(1.0, 4096.0)
        .to_proto(mezz_proto::resources::Dialect::Refined, Some("etl"));
    let said = to_driver(&env.send(Input::Offers(vec![small])));
    assert_eq!(
        said,
        [
            r#"{"t":"waiting","executors":0,"message":"no agent that is offered has room for an executor of resource profile 0 (cpus:2; mem:1408): node1 has only cpus:1"}"#
        ]
    );
}

#[test]
fn executors_that_move_their_blocks_away_have_time_for_it() {
    let grace = |kill_grace_s| {
        let mut env = Env(Session::new(Register { kill_grace_s, ..register() }, "mezz").unwrap());
        env.send(target(1));
        env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
        let out = env.send(Input::Offers(vec![offer("o1")]));
        let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
        tasks[0].kill_policy.unwrap().grace_period.unwrap().nanoseconds / 1_000_000_000
    };
    assert_eq!((grace(None), grace(Some(120))), (5, 120));
}

#[test]
fn the_executor_of_a_drained_agent_is_replaced_while_it_still_moves() {
    let mut env = Env::started(1);
    env.send(Input::Offers(vec![offer("o1")]));
    env.update("1", v1::TaskState::TaskRunning, "");
    let status = |state: v1::TaskState| {
        Input::Update(Box::new(v1::TaskStatus {
            task_id: v1::TaskId { value: "1".into() },
            state: state as i32,
            reason: Some(v1::task_status::Reason::AgentDraining as i32),
            agent_id: Some(v1::AgentId { value: "a1".into() }),
            ..Default::default()
        }))
    };
    let out = env.send(status(v1::TaskState::TaskKilling));
    assert!(out.contains(&Output::Revive) && to_driver(&out).is_empty());
    let out = env.send(status(v1::TaskState::TaskKilled));
    assert!(to_driver(&out)[0].contains(r#""by_app":false,"killed":false"#));
}

fn shuffling() -> Env {
    shuffling_with(None)
}

fn shuffling_with(kill_grace_s: Option<u32>) -> Env {
    let FromDriver::Register(settings) = FromDriver::parse(
        br#"{"t":"register","v":1,"mode":"coarse","masters":["m:5050"],"app_name":"words",
        "user":"ann","spark":"4.3.0","command":["java","-Dport={{SHUFFLE_PORT}}"],
        "shuffle":{"cpus":0.1,"mem":256,
        "command":["java","-Dport={{SHUFFLE_PORT}}"],
        "env":{"_SPARK_AUTH_SECRET":"hush"}}}"#,
    )
    .unwrap() else {
        panic!("not a register")
    };
    let settings = Register { kill_grace_s, ..*settings };
    let mut env = Env(Session::new(settings, "mezz").unwrap());
    env.send(target(1));
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    env
}

#[test]
fn a_shuffle_service_is_a_task_beside_the_first_executor() {
    let mut env = shuffling();
    // Of no use: it has no port.
    let out = env.send(Input::Offers(vec![offer("o1")]));
    assert!(out.iter().any(|o| matches!(o, Output::Decline { .. })));
    let said = to_driver(&out).join("\n");
    assert!(said.contains("has no cores, memory or port for a shuffle service"), "{said}");
    let mut with_ports = offer("o2");
    with_ports.resources = Resources::parse("cpus:4;mem:4096;ports:[31000-31009]")
        .unwrap()
        .to_proto(mezz_proto::resources::Dialect::Refined, None);
    let out = env.send(Input::Offers(vec![with_ports]));
    let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
    let ids: Vec<&str> = tasks.iter().map(|t| t.task_id.value.as_str()).collect();
    assert_eq!(ids, ["shuffle-1", "1"]);
    let command = tasks[0].command.as_ref().unwrap();
    assert_eq!(command.arguments[..2], ["/bin/sh", "-c"]);
    assert_eq!(command.arguments[3..], ["sh", "-Dport=31000", "java", "-Dport=31000"]);
    assert_eq!(grace_of(&tasks[0]), 1);
    let secret = &command.environment.as_ref().unwrap().variables[0];
    assert_eq!(secret.r#type(), v1::environment::variable::Type::Secret);
    let held = Resources::from_proto(&tasks[0].resources).unwrap().to_string();
    assert_eq!(held, "cpus:0.1; mem:256; ports:[31000-31000]");
    assert_eq!(tasks[1].command.as_ref().unwrap().arguments, ["java", "-Dport=31000"]);

    assert_eq!(env.update("shuffle-1", v1::TaskState::TaskRunning, "").len(), 0);
    assert_eq!(env.update("shuffle-1", v1::TaskState::TaskUnknown, "").len(), 0);
    let out = env.update("shuffle-1", v1::TaskState::TaskFailed, "exited with status 1");
    let lost =
        r#"{"t":"service_lost","agent":"a1","host":"node1","reason":"exited with status 1"}"#;
    assert_eq!(to_driver(&out)[0], lost);
    assert!(out.contains(&Output::Kill { task: "1".into(), agent: "a1".into() }));
    let out = env.update("1", v1::TaskState::TaskKilled, "");
    let said = to_driver(&out).join("\n");
    assert!(
        said.contains("the shuffle service of its agent is gone: exited with status 1"),
        "{said}"
    );
    // Back with its agent, it is of no more use.
    let out = env.update("shuffle-1", v1::TaskState::TaskRunning, "");
    assert!(out.contains(&Output::Kill { task: "shuffle-1".into(), agent: "a1".into() }));
}

fn grace_of(task: &v1::TaskInfo) -> i64 {
    task.kill_policy.unwrap().grace_period.unwrap().nanoseconds / 1_000_000_000
}

/// They move their shuffle files away meanwhile.
#[test]
fn a_shuffle_service_may_outlast_executors_of_a_drained_agent() {
    let mut env = shuffling_with(Some(120));
    let mut with_ports = offer("o1");
    with_ports.resources = Resources::parse("cpus:4;mem:4096;ports:[31000-31009]")
        .unwrap()
        .to_proto(mezz_proto::resources::Dialect::Refined, None);
    let out = env.send(Input::Offers(vec![with_ports]));
    let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
    assert_eq!((grace_of(&tasks[0]), grace_of(&tasks[1])), (130, 120));
}

#[test]
fn what_a_master_without_memory_does_not_know_is_waited_for() {
    let mut env = Env::started(1);
    env.send(Input::Offers(vec![offer("o1")]));
    env.update("1", v1::TaskState::TaskRunning, "");
    assert_eq!(env.update("1", v1::TaskState::TaskUnknown, "").len(), 0);
    assert!(env.0.next_deadline().is_some());
    assert_eq!(env.update("1", v1::TaskState::TaskStarting, "").len(), 0);
    assert!(env.0.next_deadline().is_none());
}

#[test]
fn a_shuffle_service_of_impossible_size_is_refused_by_its_settings_name() {
    let FromDriver::Register(mut bad) = FromDriver::parse(
        br#"{"t":"register","v":1,"mode":"coarse","masters":["m:5050"],"app_name":"w","user":"u",
        "spark":"4.3.0","command":["java"],"shuffle":{"cpus":-1,"mem":1,"command":[]}}"#,
    )
    .unwrap() else {
        panic!("not a register")
    };
    let e = Session::new(*bad.clone(), "mezz").err().unwrap().to_string();
    assert!(e.starts_with("spark.mezz.shuffle.service.cores: -1"), "{e}");
    bad.shuffle = None;
    assert!(Session::new(*bad, "mezz").is_ok());
}

#[test]
fn the_driver_hears_of_its_registration_once() {
    let mut env = Env(Session::new(register(), "mezz").unwrap());
    let id = v1::FrameworkId { value: "fw-1".into() };
    let first = env.send(Input::Subscribed(id.clone()));
    assert_eq!(to_driver(&first), [r#"{"t":"registered","v":1,"app_id":"fw-1"}"#]);
    assert_eq!(to_driver(&env.send(Input::Disconnected)), [""; 0]);
    assert_eq!(to_driver(&env.send(Input::Subscribed(id))), [""; 0]);
}

#[test]
fn the_end_of_an_executor_reaches_the_driver_with_its_reason() {
    let mut env = Env::started(1);
    env.send(Input::Offers(vec![offer("o1")]));
    env.update("1", v1::TaskState::TaskRunning, "");
    let out = env.update("1", v1::TaskState::TaskFailed, "Command exited with status 3");
    assert_eq!(
        to_driver(&out),
        [
            r#"{"t":"executor_exited","id":"1","code":3,"by_app":true,"killed":false,"reason":"Command exited with status 3"}"#
        ]
    );
    assert!(out.contains(&Output::Revive));
}

#[test]
fn the_drivers_words_are_followed() {
    let mut env = Env::started(1);
    env.send(Input::Offers(vec![offer("o1")]));
    let kill = FromDriver::KillExecutors { ids: vec!["1".into(), "nonsense".into()] };
    let out = env.send(Input::Driver(kill));
    assert!(out.contains(&Output::Kill { task: "1".into(), agent: "a1".into() }));
    let out = env.update("1", v1::TaskState::TaskKilled, "");
    assert!(to_driver(&out)[0].contains(r#""killed":true"#), "{:?}", to_driver(&out));
    let out = env.send(Input::Driver(FromDriver::Unregister { exit_code: 0 }));
    assert!(matches!(out[..], [Output::End(true)]));
    let again = FromDriver::Register(Box::new(register()));
    let out = env.send(Input::Driver(again));
    assert!(matches!(out[..], [Output::Driver(ToDriver::Error { .. }), Output::End(false)]));
}

#[test]
fn an_offer_that_makes_no_sense_is_declined_and_the_others_are_used() {
    let mut env = Env::started(1);
    let mut bad = offer("bad");
    bad.resources[0].name.clear();
    let out = env.send(Input::Offers(vec![bad, offer("good")]));
    assert!(matches!(&out[0], Output::Decline { offers, .. } if offers[0].value == "bad"));
    assert!(matches!(&out[1], Output::Launch { offers, .. } if offers[0].value == "good"));
}

/// `agent`'s words when it was started without an engine.
fn refusal(task: &str, agent: &str) -> Input {
    Input::Update(Box::new(v1::TaskStatus {
        task_id: v1::TaskId { value: task.into() },
        state: v1::TaskState::TaskFailed as i32,
        reason: Some(v1::task_status::Reason::ContainerLaunchFailed as i32),
        message: Some("container.type: DOCKER needs a Docker engine, and this agent…".into()),
        agent_id: Some(v1::AgentId { value: agent.into() }),
        ..Default::default()
    }))
}

fn in_docker() -> Register {
    let docker = [("image", "spark:4"), ("volumes", "/d:/d:ro"), ("user", "bob")];
    let docker = docker.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Register { docker, uris: Some("http://h/x.zip".into()), ..register() }
}

#[test]
fn an_executor_in_an_image_is_started_by_a_shell_there() {
    let mut env = Env(Session::new(in_docker(), "mezz").unwrap());
    env.send(target(1));
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    let out = env.send(Input::Offers(vec![offer("o1")]));
    let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
    let command = tasks[0].command.as_ref().unwrap();
    assert_eq!((command.shell(), command.user()), (true, "bob"));
    assert!(command.value().starts_with("cd \"$MESOS_SANDBOX\" && exec '/jdk/bin/java' "));
    assert_eq!(command.uris[0].value, "http://h/x.zip");
    let container = tasks[0].container.as_ref().unwrap();
    assert_eq!(container.docker.as_ref().unwrap().image, "spark:4");
    assert_eq!(container.volumes[0].container_path, "/d");
}

#[test]
fn the_driver_hears_that_no_agent_has_an_engine() {
    let mut env = Env(Session::new(in_docker(), "mezz").unwrap());
    env.send(target(1));
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    env.send(Input::Offers(vec![offer("o1")]));
    let agent = offer("o1").agent_id.value;
    env.send(refusal("1", &agent));
    let said = to_driver(&env.send(Input::Offers(vec![offer("o2")])));
    assert!(said.len() == 1 && said[0].contains("has no Docker engine"), "{said:?}");
}

/// However many there are: it is no failure of the executors that they are started on
/// the wrong agents first.
#[test]
fn agents_without_an_engine_are_left_alone_for_a_while() {
    let mut env = Env(Session::new(in_docker(), "mezz").unwrap());
    env.send(target(1));
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    let of = |agent: &str| v1::Offer {
        agent_id: v1::AgentId { value: agent.into() },
        ..offer(&format!("o-{agent}"))
    };
    for n in 1..=20 {
        let agent = format!("b{n}");
        let out = env.send(Input::Offers(vec![of(&agent)]));
        assert!(matches!(out[0], Output::Launch { .. }), "attempt {n}");
        let out = env.send(refusal(&n.to_string(), &agent));
        let said = to_driver(&out);
        assert!(said.len() == 1 && said[0].contains("cannot run Docker containers"), "{said:?}");
        assert!(out.contains(&Output::Revive));
    }
    let out = env.send(Input::Offers(vec![of("b1"), of("good"), of("b2")]));
    let long = std::time::Duration::from_secs(600);
    for (at, id) in ["o-b1", "o-b2"].iter().enumerate() {
        let offers = vec![v1::OfferId { value: (*id).into() }];
        assert!(out[at] == Output::Decline { offers, refuse: long }, "{id}");
    }
    assert!(matches!(&out[2], Output::Launch { offers, .. } if offers[0].value == "o-good"));
    // An engine may have been installed since.
    let mut out = Vec::new();
    env.send(Input::Driver(FromDriver::KillExecutors { ids: vec!["21".into()] }));
    env.update("21", v1::TaskState::TaskKilled, "");
    env.0.handle(NOW + long, Input::Offers(vec![of("b1")]), &mut out);
    assert!(matches!(out[0], Output::Launch { .. }));
}

#[test]
fn labels_are_on_every_task() {
    let register = Register { labels: Some("team:search,a:b".into()), ..register() };
    let mut env = Env(Session::new(register, "mezz").unwrap());
    env.send(target(2));
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    let out = env.send(Input::Offers(vec![offer("o1")]));
    let launched = out.iter().find_map(|o| match o {
        Output::Launch { tasks, .. } => Some(tasks),
        _ => None,
    });
    let tasks = launched.unwrap();
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let labels = &task.labels.as_ref().unwrap().labels;
        let pairs: Vec<_> = labels.iter().map(|l| (l.key.as_str(), l.value())).collect();
        let own = (mezz_proto::labels::KILL_SIGNAL, mezz_proto::labels::KILL_SIGNAL_FIRST_PROCESS);
        assert_eq!(pairs, [own, ("team", "search"), ("a", "b")]);
    }
    let bad = Register { labels: Some("team".into()), ..super::tests::register() };
    assert_eq!(Session::new(bad, "mezz").err().unwrap().to_string(), "spark.mezz.executor.labels");
}
