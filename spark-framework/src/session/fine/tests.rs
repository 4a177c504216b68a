use mezz_proto::{
    resources::{Dialect, Resources},
    v1::{
        TaskState,
        task_status::{Reason, Source},
    },
};

use super::*;
use crate::executor::read_task_data;

const NOW: Time = Time::from_secs(5000);

const REGISTER: &str = r#"{"t":"register","v":1,"mode":"fine","masters":["m:5050"],
    "app_name":"words","user":"ann","spark":"4.3.0",
    "command":["/jdk/bin/java","-Xmx{{HEAP_MIB}}m","Main"],
    "env":{"SPARK_HOME":"/spark","DIR":"x-{{EXECUTOR_ID}}","_SPARK_AUTH_SECRET":"hush"},"role":"etl",
    "fine":{"task_cpus":1.0,"executor_cpus":0.0,"mem":1408,"heap":1024,
            "props":{"spark.app.name":"words"},"secret_props":{"spark.x.password":"hush {{}}"}}}"#;

fn register() -> Register {
    let FromDriver::Register(r) = FromDriver::parse(REGISTER.as_bytes()).unwrap() else {
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
        resources: Resources::cpus_mem(4.0, 4096.0).to_proto(Dialect::Refined, Some("etl")),
        url: Some(v1::Url {
            scheme: "http".into(),
            address: v1::Address { hostname: Some("node1".into()), ip: None, port: 5051 },
            ..Default::default()
        }),
        ..Default::default()
    }
}

struct Env(FineSession);

impl Env {
    /// Subscribed, with tasks to run.
    fn started() -> Self {
        let mut env = Self(FineSession::new(register(), "/bin/mezz").unwrap());
        let out = env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
        assert_eq!(to_driver(&out), [r#"{"t":"registered","v":1,"app_id":"fw-1"}"#]);
        assert!(env.driver(r#"{"t":"revive","n":1}"#).contains(&Output::Revive));
        env
    }

    /// With two tasks on an executor.
    fn running() -> (Self, Vec<v1::TaskInfo>) {
        let mut env = Self::started();
        env.send(Input::Offers(vec![offer("o1")]));
        let out = env.driver(ANSWER);
        let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
        let tasks = tasks.clone();
        (env, tasks)
    }

    fn send(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.0.handle(NOW, input, &mut out);
        out
    }

    fn driver(&mut self, line: &str) -> Vec<Output> {
        self.send(Input::Driver(FromDriver::parse(line.as_bytes()).unwrap()))
    }

    fn update(&mut self, task: &str, state: TaskState, source: Source, data: &[u8]) -> Vec<Output> {
        self.send(Input::Update(Box::new(v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state as i32,
            source: Some(source as i32),
            message: Some("why".into()),
            data: Some(data.to_vec()),
            executor_id: Some(v1::ExecutorId { value: "1".into() }),
            agent_id: Some(v1::AgentId { value: "a1".into() }),
            ..Default::default()
        })))
    }
}

/// `dGFzaw==` is `task`.
const ANSWER: &str = r#"{"t":"answer","batch":1,"seen":1,"waiting":true,"launches":[{"offer":0,
    "tasks":[{"tid":7,"name":"task 0.0 in stage 0.0","cpus":1.0,"data":"dGFzaw=="},
             {"tid":8,"name":"task 1.0 in stage 0.0","cpus":1.0,"data":"dGFzaw=="}]}]}"#;

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
fn the_driver_is_shown_what_it_may_use() {
    let out = Env::started().send(Input::Offers(vec![offer("o1")]));
    assert_eq!(
        to_driver(&out),
        [
            r#"{"t":"offers","batch":1,"offers":[{"exec":"1","agent":"a1","host":"node1","cpus":4.0,"logs":"http://node1:5051/files/download?framework=fw-1"}]}"#
        ]
    );
}

#[test]
fn tasks_share_an_executor_that_is_told_once_how_to_begin() {
    let (mut env, tasks) = Env::running();
    assert_eq!(tasks[0].task_id.value, "7");
    assert_eq!(tasks[0].name, "task 0.0 in stage 0.0");
    assert_eq!(Resources::from_proto(&tasks[0].resources).unwrap().to_string(), "cpus:1");
    assert_eq!(Resources::allocation_role(&tasks[0].resources).unwrap().as_deref(), Some("etl"));
    assert_eq!(tasks[0].executor, tasks[1].executor, "the master asks for this");
    let executor = tasks[0].executor.as_ref().unwrap();
    assert_eq!(executor.executor_id.value, "1");
    assert_eq!(Resources::from_proto(&executor.resources).unwrap().to_string(), "mem:1408");
    let command = executor.command.as_ref().unwrap();
    assert_eq!(command.arguments, ["/bin/mezz", "spark-executor"]);
    let variables = &command.environment.as_ref().unwrap().variables;
    assert!(variables.iter().any(|v| v.name == "DIR" && v.value() == "x-1"));
    let secret = variables.iter().find(|v| v.name == "_SPARK_AUTH_SECRET").unwrap();
    assert!(secret.value.is_none() && secret.secret.is_some());
    let settings = variables.iter().find(|v| v.name == "MEZZ_SPARK_SECRET_SETTINGS").unwrap();
    let data = settings.secret.as_ref().unwrap().value.as_ref().unwrap().data.clone();
    assert_eq!(String::from_utf8(data).unwrap(), r#"{"spark.x.password":"hush {{}}"}"#);
    assert!(settings.value.is_none());

    for task in &tasks {
        let (begin, data) = read_task_data(task.data()).unwrap();
        let begin = begin.unwrap();
        assert_eq!(data, b"task");
        assert_eq!(begin.command, ["/jdk/bin/java", "-Xmx1024m", "Main"]);
        assert_eq!((begin.executor.as_str(), begin.host.as_str()), ("1", "node1"));
        assert_eq!(begin.props["spark.app.name"], "words");
        assert_eq!(begin.props.len(), 1, "no secret");
    }
    // It has been heard of: no need to say it again.
    env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    let executor_ids = vec![v1::ExecutorId { value: "1".into() }];
    env.send(Input::Offers(vec![v1::Offer { executor_ids, ..offer("o2") }]));
    let answer = ANSWER.replace("\"batch\":1", "\"batch\":2").replace("\"tid\":", "\"tid\":1");
    let out = env.driver(&answer);
    let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
    assert!(matches!(read_task_data(tasks[0].data()), Ok((None, b"task"))));
}

/// The driver hears of the executor, and nothing of the task.
#[test]
fn an_executor_is_started_ahead_of_tasks() {
    let mut register = register();
    register.fine.as_mut().unwrap().ahead = 2;
    let mut env = Env(FineSession::new(register, "/bin/mezz").unwrap());
    assert!(env.0.wants_offers());
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    let out = env.send(Input::Offers(vec![offer("o1")]));
    assert_eq!(
        to_driver(&out),
        [
            r#"{"t":"executor_ahead","exec":"1","agent":"a1","host":"node1","cpus":4.0,"logs":"http://node1:5051/files/download?framework=fw-1","task":"start-1"}"#
        ]
    );
    let tasks = out.iter().find_map(|o| match o {
        Output::Launch { tasks, .. } => Some(tasks),
        _ => None,
    });
    let [task] = &tasks.unwrap()[..] else { panic!("{} tasks", tasks.unwrap().len()) };
    assert_eq!(
        (task.task_id.value.as_str(), task.name.as_str()),
        ("start-1", "start of executor 1")
    );
    let (begin, data) = read_task_data(task.data()).unwrap();
    assert!(begin.is_some() && data.is_empty());
    assert!(out.last() == Some(&Output::Suppress));
    let running = env.update("start-1", TaskState::TaskRunning, Source::Executor, b"");
    assert_eq!(to_driver(&running), [r#"{"t":"executor_up","id":"1"}"#]);
    let out = env.update("start-1", TaskState::TaskFinished, Source::Executor, b"");
    assert_eq!(to_driver(&out), [""; 0]);
}

#[test]
fn in_an_image_both_processes_are_started_by_a_shell() {
    let docker = [("image".to_owned(), "spark:4".to_owned())].into();
    let command = vec!["{{JAVA}}".to_owned(), "{{SPARK_HOME}}/jars/*".to_owned()];
    let register = Register { docker, command, ..register() };
    let mut env = Env(FineSession::new(register, "/bin/mezz").unwrap());
    env.send(Input::Subscribed(v1::FrameworkId { value: "fw-1".into() }));
    env.driver(r#"{"t":"revive","n":1}"#);
    env.send(Input::Offers(vec![offer("o1")]));
    let out = env.driver(ANSWER);
    let Output::Launch { tasks, .. } = &out[0] else { panic!("no launch") };
    let executor = tasks[0].executor.as_ref().unwrap();
    let container = executor.container.as_ref().unwrap();
    assert_eq!(container.docker.as_ref().unwrap().image, "spark:4");
    let command = executor.command.as_ref().unwrap();
    let script = "cd \"$MESOS_SANDBOX\" && exec '/bin/mezz' 'spark-executor'";
    assert_eq!((command.shell(), command.value()), (true, script));
    let begin = read_task_data(tasks[0].data()).unwrap().0.unwrap();
    assert_eq!(begin.command[..2], ["/bin/sh", "-c"]);
    assert!(begin.command[2].contains("\"$SPARK_HOME\"'/jars/*'"), "{}", begin.command[2]);
}

#[test]
fn results_reach_the_driver_as_they_are() {
    let (mut env, _) = Env::running();
    let out = env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    let running = r#"{"t":"status","tid":7,"state":"RUNNING","data":""}"#;
    assert_eq!(to_driver(&out), [running, r#"{"t":"executor_up","id":"1"}"#]);
    let out = env.update("7", TaskState::TaskFinished, Source::Executor, b"task");
    assert_eq!(to_driver(&out), [r#"{"t":"status","tid":7,"state":"FINISHED","data":"dGFzaw=="}"#]);
    // Updates may come twice.
    let again = env.update("7", TaskState::TaskFinished, Source::Executor, b"task");
    assert_eq!(to_driver(&again), [""; 0]);
    let out = env.update("8", TaskState::TaskFailed, Source::Executor, b"task");
    assert_eq!(to_driver(&out), [r#"{"t":"status","tid":8,"state":"FAILED","data":"dGFzaw=="}"#]);
}

#[test]
fn an_end_of_which_only_the_master_knows_is_no_end_of_the_executor() {
    for state in [TaskState::TaskFinished, TaskState::TaskFailed] {
        let (mut env, _) = Env::running();
        env.update("7", TaskState::TaskRunning, Source::Executor, b"");
        let told = v1::TaskStatus {
            task_id: v1::TaskId { value: "8".into() },
            agent_id: Some(v1::AgentId { value: "a1".into() }),
            executor_id: Some(v1::ExecutorId { value: "1".into() }),
            state: state as i32,
            source: Some(Source::Master as i32),
            reason: Some(Reason::Reconciliation as i32),
            ..Default::default()
        };
        let out = env.send(Input::Update(Box::new(told)));
        let said = to_driver(&out);
        assert!(said.len() == 1 && said[0].contains(r#""t":"undone","tids":[8]"#), "{said:?}");
        // The update itself, when it comes: Spark runs the task anew by now.
        let late = env.update("8", TaskState::TaskFinished, Source::Executor, b"task");
        assert_eq!(to_driver(&late), [""; 0]);
    }
}

#[test]
fn a_lost_task_means_a_lost_executor_and_a_dropped_one_does_not() {
    let (mut env, _) = Env::running();
    env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    let out = env.update("8", TaskState::TaskDropped, Source::Master, b"");
    assert_eq!(
        to_driver(&out),
        [r#"{"t":"undone","tids":[8],"exec":"1","by_app":false,"reason":"why"}"#]
    );
    let out = env.update("7", TaskState::TaskUnreachable, Source::Master, b"");
    let said = to_driver(&out);
    assert!(said[0].starts_with(r#"{"t":"executor_exited","id":"1","code":-1,"by_app":false"#));
    let shut = Output::ShutDown { executor: "1".into(), agent: "a1".into() };
    assert!(out.contains(&shut));
    // Its agent comes back with it.
    let out = env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    assert_eq!(out.len(), 1);
    assert!(out.contains(&shut));
}

#[test]
fn an_idle_executor_is_missed_too() {
    let (mut env, _) = Env::running();
    for task in ["7", "8"] {
        env.update(task, TaskState::TaskFinished, Source::Executor, b"");
    }
    let out = env.send(Input::Failure {
        agent: Some("a1".into()),
        executor: Some("1".into()),
        status: Some(52 << 8),
    });
    assert_eq!(
        to_driver(&out),
        [
            r#"{"t":"executor_exited","id":"1","code":52,"by_app":true,"killed":false,"reason":"exited with status 52"}"#
        ]
    );
}

/// Its end was told while we were away from the master.
#[test]
fn an_executor_that_an_offer_does_not_list_is_gone() {
    let (mut env, _) = Env::running();
    for task in ["7", "8"] {
        env.update(task, TaskState::TaskFinished, Source::Executor, b"");
    }
    let said = to_driver(&env.send(Input::Offers(vec![offer("o2")])));
    assert!(said[0].contains(r#""t":"executor_exited","id":"1","code":-1,"by_app":false"#));
    assert!(said[1].contains(r#""offers":[{"exec":"2","#), "{said:?}");
}

#[test]
fn what_a_master_without_memory_does_not_know_is_waited_for() {
    let (mut env, _) = Env::running();
    env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    for task in ["7", "8"] {
        assert!(env.update(task, TaskState::TaskUnknown, Source::Master, b"").is_empty());
    }
    let out = env.update("7", TaskState::TaskRunning, Source::Master, b"");
    assert_eq!(to_driver(&out), [r#"{"t":"status","tid":7,"state":"RUNNING","data":""}"#]);
    let out = env.update("8", TaskState::TaskFinished, Source::Executor, b"task");
    assert_eq!(to_driver(&out), [r#"{"t":"status","tid":8,"state":"FINISHED","data":"dGFzaw=="}"#]);
    assert!(env.0.next_deadline().is_none());
}

/// The agent of an idle application's executor comes back, with a task that ended.
#[test]
fn the_word_of_an_executor_that_was_given_up_ends_it() {
    let (mut env, _) = Env::running();
    env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    let agent = || Some(AgentId::new("a1"));
    env.send(Input::Failure { agent: agent(), executor: None, status: None });
    let shut = Output::ShutDown { executor: "1".into(), agent: AgentId::new("a1") };
    for (state, source) in [
        (TaskState::TaskRunning, Source::Master),
        (TaskState::TaskStaging, Source::Master),
        (TaskState::TaskFinished, Source::Executor),
    ] {
        let out = env.update("7", state, source, b"task");
        assert!(out.contains(&shut) && out.len() == 1, "{state:?}");
    }
}

/// Spark blames only tasks that ran, and of short ones it has not heard that.
#[test]
fn a_crash_is_blamed_on_what_ran() {
    let (mut env, _) = Env::running();
    env.update("7", TaskState::TaskRunning, Source::Executor, b"");
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: "8".into() },
        state: TaskState::TaskFailed as i32,
        source: Some(Source::Agent as i32),
        reason: Some(v1::task_status::Reason::ExecutorTerminated as i32),
        message: Some("exited with status 50".into()),
        ..Default::default()
    };
    let out = env.send(Input::Update(Box::new(status)));
    let running = |tid| format!(r#"{{"t":"status","tid":{tid},"state":"RUNNING","data":""}}"#);
    let said = to_driver(&out);
    assert_eq!(said[..2], [running(7), running(8)]);
    assert!(said[2].contains(r#""code":50,"by_app":true"#), "{said:?}");
}

#[test]
fn a_kill_says_how_before_it_says_that() {
    let (mut env, _) = Env::running();
    let out = env.driver(r#"{"t":"kill_task","tid":7,"interrupt":true,"reason":"enough"}"#);
    let [Output::Message { executor, data, .. }, Output::Kill { task, agent }] = &out[..] else {
        panic!("{} outputs", out.len())
    };
    let order: KillOrder = serde_json::from_slice(data).unwrap();
    assert_eq!(order, KillOrder { tid: 7, interrupt: true, reason: "enough".into() });
    assert_eq!((executor.as_str(), task.as_str(), agent.as_str()), ("1", "7", "a1"));
    assert!(env.driver(r#"{"t":"kill_task","tid":9,"interrupt":true,"reason":""}"#).is_empty());
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let e = FineSession::new(Register { fine: None, ..register() }, "m").err().unwrap();
    assert!(matches!(e, RegisterError::NoFineSettings));
    let mut bad = register();
    bad.fine.as_mut().unwrap().executor_cpus = -1.0;
    let e = FineSession::new(bad, "m").err().unwrap().to_string();
    assert!(e.starts_with("spark.mezz.executor.cores: -1 is no number of cores"), "{e}");
    let mut env = Env::started();
    let out = env.driver(r#"{"t":"target","profiles":[]}"#);
    assert!(matches!(&out[..], [Output::Driver(ToDriver::Error { .. }), Output::End(false)]));
}

#[test]
fn more_secret_settings_than_a_variable_holds_are_refused() {
    let mut register = register();
    let fine = register.fine.as_mut().unwrap();
    fine.secret_props.insert("spark.y.token".into(), "x".repeat(112 << 10));
    let error = FineSession::new(register, "/bin/mezz").err().unwrap().to_string();
    assert!(
        error.contains("secret settings") && error.contains("spark.redaction.regex"),
        "{error}"
    );
}
