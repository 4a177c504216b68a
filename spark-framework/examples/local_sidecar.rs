//! A sidecar without a cluster: the real session and policy, with two made-up
//! agents whose executors are child processes on this machine. The tests of the
//! Spark plugin run real Spark against it.
//!
//! As `spark.mezz.bin` it is started by the driver. In the folder that
//! `MEZZ_LOCAL_DIR` names it writes `events`, a line for each thing that happens,
//! and a sandbox per executor. `MEZZ_LOCAL_CPUS` is the cpus of each agent (2).

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use mezz_proto::{
    resources::{Dialect, Resources},
    time::Time,
    v1::{self, TaskState},
};
use mezz_spark::{
    protocol::{FromDriver, ProtocolError, ToDriver, read_message},
    session::{Input, Output, Session},
};

const AGENTS: [&str; 2] = ["agent-1", "agent-2"];

enum Happened {
    Driver(Result<FromDriver, ProtocolError>),
    DriverGone,
    Ended(String, ExitStatus),
}

struct Task {
    pid: u32,
    agent: usize,
    resources: Resources,
    killed: bool,
}

struct Cluster {
    dir: PathBuf,
    events: File,
    free: [Resources; 2],
    /// What was last offered and refused: it is not offered again.
    refused: [Option<Resources>; 2],
    suppressed: bool,
    offers: BTreeMap<String, (usize, Resources)>,
    offered: u32,
    tasks: BTreeMap<String, Task>,
    happened: mpsc::Sender<Happened>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::var("MEZZ_LOCAL_DIR")?);
    let cpus = env::var("MEZZ_LOCAL_CPUS").unwrap_or_else(|_| "2".into()).parse()?;
    let events = OpenOptions::new().create(true).append(true).open(dir.join("events"))?;
    let (happened, queue) = mpsc::channel();
    let sender = happened.clone();
    thread::spawn(move || {
        let mut input = BufReader::new(io::stdin());
        while let Some(message) = read_message(&mut input).transpose() {
            if sender.send(Happened::Driver(message)).is_err() {
                return;
            }
        }
        let _ = sender.send(Happened::DriverGone);
    });
    let whole = Resources::cpus_mem(cpus, 65536.0);
    let mut cluster = Cluster {
        dir,
        events,
        free: [whole.clone(), whole],
        refused: [None, None],
        suppressed: false,
        offers: BTreeMap::new(),
        offered: 0,
        tasks: BTreeMap::new(),
        happened,
    };
    let result = cluster.run(&queue);
    for task in cluster.tasks.values() {
        signal(task.pid, "KILL");
    }
    cluster.note(&format!("over {}", if result.is_ok() { "well" } else { "badly" }))?;
    result
}

impl Cluster {
    fn run(&mut self, queue: &mpsc::Receiver<Happened>) -> Result<(), Box<dyn Error>> {
        let Happened::Driver(first) = queue.recv()? else { return Err("no driver".into()) };
        let FromDriver::Register(register) = first? else { return Err("not registered".into()) };
        self.note(&format!("sidecar {}", std::process::id()))?;
        let mut session = match Session::new(*register, "mezz") {
            Ok(session) => session,
            Err(e) => {
                let why = e.source().map(|s| format!(": {s}")).unwrap_or_default();
                self.follow(Output::Driver(ToDriver::Error { message: format!("{e}{why}") }))?;
                return Err(e.into());
            }
        };
        let start = Instant::now();
        let id = v1::FrameworkId { value: format!("local-{}", std::process::id()) };
        let mut input = Some(Input::Subscribed(id));
        loop {
            let now = Time::from_secs(1) + start.elapsed();
            let mut out = Vec::new();
            if let Some(input) = input.take() {
                session.handle(now, input, &mut out);
            }
            for output in out {
                if let Some(well) = self.follow(output)? {
                    return if well { Ok(()) } else { Err("failed".into()) };
                }
            }
            let offers = self.offer();
            if !offers.is_empty() {
                input = Some(Input::Offers(offers));
                continue;
            }
            let wait = session.next_deadline().map_or(Duration::from_secs(3600), |d| d.since(now));
            input = match queue.recv_timeout(wait) {
                Ok(Happened::Driver(message)) => {
                    let message = message?;
                    if let FromDriver::ExecutorRegistered { id } = &message {
                        self.note(&format!("registered {id}"))?;
                    }
                    Some(Input::Driver(message))
                }
                Ok(Happened::DriverGone) => {
                    self.note("eof")?;
                    return Ok(());
                }
                Ok(Happened::Ended(id, status)) => self.ended(&id, status)?,
                Err(_) => Some(Input::Tick),
            };
        }
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.events, "{text}")
    }

    /// At most one offer per agent, of all that is free.
    fn offer(&mut self) -> Vec<v1::Offer> {
        let mut offers = Vec::new();
        for (i, agent) in AGENTS.iter().enumerate() {
            let free = self.free[i].clone();
            let known = self.refused[i].as_ref() == Some(&free);
            if self.suppressed || free.is_empty() || known {
                continue;
            }
            self.offered += 1;
            let id = format!("offer-{}", self.offered);
            self.free[i] = Resources::new();
            self.offers.insert(id.clone(), (i, free.clone()));
            offers.push(v1::Offer {
                id: v1::OfferId { value: id },
                agent_id: v1::AgentId { value: (*agent).into() },
                hostname: "127.0.0.1".into(),
                resources: free.to_proto(Dialect::Refined, Some("*")),
                url: Some(v1::Url {
                    scheme: "http".into(),
                    address: v1::Address {
                        hostname: Some("127.0.0.1".into()),
                        ip: None,
                        port: 5051,
                    },
                    ..Default::default()
                }),
                ..Default::default()
            });
        }
        offers
    }

    fn follow(&mut self, output: Output) -> Result<Option<bool>, Box<dyn Error>> {
        match output {
            Output::Driver(message) => {
                io::stdout().write_all(&message.to_line())?;
                io::stdout().flush()?;
            }
            Output::Launch { offers, tasks, .. } => {
                let agent = self.give_back(&offers);
                for task in tasks {
                    self.launch(agent, task)?;
                }
                self.refused[agent] = Some(self.free[agent].clone());
            }
            Output::Decline { offers, .. } => {
                let agent = self.give_back(&offers);
                self.refused[agent] = Some(self.free[agent].clone());
            }
            Output::Suppress => {
                self.suppressed = true;
                self.note("suppress")?;
            }
            Output::Revive => {
                self.suppressed = false;
                self.refused = [None, None];
            }
            // There are no GPUs to be told about.
            Output::Update { .. } => {}
            Output::Kill { task, .. } => {
                if let Some(task) = self.tasks.get_mut(task.as_str()) {
                    task.killed = true;
                    signal(task.pid, "TERM");
                }
                self.note(&format!("kill {task}"))?;
            }
            Output::ShutDown { .. } | Output::Message { .. } => {
                return Err("custom executors need a real cluster".into());
            }
            Output::End(well) => return Ok(Some(well)),
        }
        Ok(None)
    }

    fn give_back(&mut self, offers: &[v1::OfferId]) -> usize {
        let mut agent = 0;
        for id in offers {
            if let Some((i, resources)) = self.offers.remove(&id.value) {
                self.free[i] += &resources;
                agent = i;
            }
        }
        agent
    }

    fn launch(&mut self, agent: usize, task: v1::TaskInfo) -> Result<(), Box<dyn Error>> {
        let resources = Resources::from_proto(&task.resources)?;
        self.free[agent].try_sub(&resources)?;
        let command = task.command.ok_or("no command")?;
        let id = task.task_id.value;
        let sandbox = self.dir.join(format!("sandbox-{id}"));
        fs::create_dir_all(&sandbox)?;
        let mut child = Command::new(&command.arguments[0]);
        child.args(&command.arguments[1..]).current_dir(&sandbox).env_clear();
        for v in command.environment.unwrap_or_default().variables {
            let secret = v
                .secret
                .and_then(|s| s.value)
                .map(|s| String::from_utf8_lossy(&s.data).into_owned());
            child.env(&v.name, secret.or(v.value).unwrap_or_default());
        }
        let mut child = child
            .stdin(Stdio::null())
            .stdout(File::create(sandbox.join("stdout"))?)
            .stderr(File::create(sandbox.join("stderr"))?)
            .spawn()?;
        let pid = child.id();
        self.note(&format!("launch {id} pid {pid} on {} with {resources}", AGENTS[agent]))?;
        self.tasks.insert(id.clone(), Task { pid, agent, resources, killed: false });
        let happened = self.happened.clone();
        thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _ = happened.send(Happened::Ended(id, status));
            }
        });
        Ok(())
    }

    fn ended(&mut self, id: &str, status: ExitStatus) -> Result<Option<Input>, Box<dyn Error>> {
        let Some(task) = self.tasks.remove(id) else { return Ok(None) };
        self.note(&format!("end {id} {status}"))?;
        self.free[task.agent] += &task.resources;
        let (state, message) = match (task.killed, status.code(), status.signal()) {
            (true, ..) => (TaskState::TaskKilled, "killed".to_owned()),
            (_, Some(0), _) => (TaskState::TaskFinished, String::new()),
            (_, Some(code), _) => (TaskState::TaskFailed, format!("exited with status {code}")),
            (.., signal) => {
                (TaskState::TaskFailed, format!("killed by signal {}", signal.unwrap_or(0)))
            }
        };
        Ok(Some(Input::Update(Box::new(v1::TaskStatus {
            task_id: v1::TaskId { value: id.to_owned() },
            agent_id: Some(v1::AgentId { value: AGENTS[task.agent].into() }),
            state: state as i32,
            message: Some(message),
            ..Default::default()
        }))))
    }
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
}
