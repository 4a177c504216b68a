//! Clients of Mesos' v1 API in Python (`tests/mesos/`), which know nothing of Mezz.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{Cluster, Etcd, PATIENCE, Process, eventually, process::clean_command};

/// The folder of the scripts.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mesos")
}

/// Arguments of masters that ask frameworks who they are: those of `tests/mesos/credentials.json`.
pub fn asking_frameworks() -> [String; 3] {
    let file = scripts().join("credentials.json").display().to_string();
    ["--credentials".to_owned(), file, "--authenticate-frameworks".to_owned()]
}

/// Runs a script against the cluster, and does the steps that it asks for. `etcd` is for
/// scripts that stop that, too.
///
/// # Errors
/// When it fails or does not end in time: what it wrote.
pub fn run_mesos_client(
    cluster: &mut Cluster,
    etcd: Option<&Etcd>,
    script: &str,
    args: &[&str],
    patience: Duration,
) -> Result<String> {
    let agents: Vec<&str> = cluster.agent_addresses().iter().map(String::as_str).collect();
    let mut command = clean_command("python3");
    command
        // The tree may belong to somebody else.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(scripts().join(script))
        .args(["--master", cluster.master_address(), "--agents", &agents.join(",")])
        .args(args)
        .current_dir(cluster.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(cluster.folder().join("client.err"))?);
    let mut script = Script::start(command.spawn().context("python3")?)?;
    let result = script.play(cluster, etcd, Instant::now() + patience);
    result.with_context(|| {
        let errors = std::fs::read_to_string(cluster.folder().join("client.err"));
        format!("{}\n--- stderr\n{}", script.said, errors.unwrap_or_default())
    })?;
    Ok(std::mem::take(&mut script.said))
}

struct Script {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    said: String,
    /// What the steps have started beside the cluster.
    others: Vec<Process>,
}

impl Script {
    fn start(mut child: Child) -> Result<Self> {
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, lines, said: String::new(), others: Vec::new() })
    }

    fn play(&mut self, cluster: &mut Cluster, etcd: Option<&Etcd>, end: Instant) -> Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("it has not ended in time"),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            let Some(words) = line.strip_prefix("STEP ") else {
                self.said.push_str(&line);
                self.said.push('\n');
                continue;
            };
            let words: Vec<&str> = words.split(' ').collect();
            let answer = match step(cluster, etcd, &mut self.others, &words) {
                Ok(value) => json!({ "value": value }),
                Err(error) => json!({ "error": format!("{error:#}") }),
            };
            writeln!(self.stdin, "{answer}")?;
        }
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("it ended with {status}") }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `tests/mesos/steps.py` asks for.
fn step(
    cluster: &mut Cluster,
    etcd: Option<&Etcd>,
    others: &mut Vec<Process>,
    words: &[&str],
) -> Result<Value> {
    let number = |n: &str| n.parse::<usize>().with_context(|| format!("{n} is no number"));
    let etcd = || etcd.context("there is no etcd");
    match *words {
        ["kill_master"] => cluster.master()?.kill_9()?,
        ["start_master"] => cluster.start_master()?,
        // Of several; nobody waits for it.
        ["kill_master", n] => cluster.master_of(number(n)?)?.kill_9()?,
        ["spawn_master", n] => cluster.spawn_master(number(n)?)?,
        ["stop_etcd"] => etcd()?.pause()?,
        ["continue_etcd"] => etcd()?.go_on()?,
        ["kill_agent", n] => cluster.agent(number(n)?)?.kill_9()?,
        // With all that runs there.
        ["lose_agent", n] => cluster.lose_agent(number(n)?)?,
        ["start_agent", n] => cluster.start_agent(number(n)?)?,
        // By itself.
        ["ended_agent", n] => {
            return Ok(json!(cluster.wait_for_end_of_agent(number(n)?)?.code));
        }
        // A framework of our own API, until it is torn down: its id.
        ["run_native", ref options @ ..] => {
            let command = ["--", "sleep", "1000"];
            let words = [["run", "--name=native"].as_slice(), options, &command].concat();
            others.push(cluster.spawn("native", words)?);
            return eventually(PATIENCE, "the framework is there", || {
                let all = cluster.list("frameworks", &[])?;
                let native = all.iter().find(|f| f["name"] == "native");
                Ok(native.map(|f| f["id"].clone()).ok_or_else(|| format!("{all:?}")))
            });
        }
        // What the agent is started with from now on.
        ["agent_args", n, ref args @ ..] => cluster.set_args_of_agent(number(n)?, args),
        ["restart_machine", n] => cluster.start_agent_on_a_restarted_machine(number(n)?)?,
        ["stop_agent", n] => cluster.agent(number(n)?)?.signal(Signal::STOP)?,
        ["continue_agent", n] => cluster.agent(number(n)?)?.signal(Signal::CONT)?,
        ["active_agents", n] => cluster.wait_for_agents(number(n)?)?,
        ["folder"] => return Ok(json!(cluster.folder())),
        _ => bail!("no such step"),
    }
    Ok(Value::Null)
}
