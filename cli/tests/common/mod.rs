//! Runs the real program.

// Each test binary uses a part; and these are tests, though not in functions that
// clippy knows as such.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Everything that is waited for comes within this, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The program, with none of this shell's settings.
pub fn mezz() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mezz"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEZZ_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    mezz().args(args).stdin(Stdio::null()).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// With line breaks as spaces, for texts that are wrapped.
pub fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits until `condition` holds.
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A program that is going on. Killed when dropped.
pub struct Running {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
    /// Lines of either that were read.
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr, out: Vec::new(), err: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of stdout that holds `part`.
    pub fn wait_out(&mut self, part: &str) -> String {
        wait_line(&self.stdout, &mut self.out, part)
    }

    /// Whether such a line of stdout has come.
    pub fn has_out(&mut self, part: &str) -> bool {
        self.out.extend(self.stdout.try_iter());
        self.out.iter().any(|line| line.contains(part))
    }

    /// Waits for a line of stderr that holds `part`.
    pub fn wait_err(&mut self, part: &str) -> String {
        wait_line(&self.stderr, &mut self.err, part)
    }

    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end and reads the rest.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_until("the end of the program", || self.child.try_wait().unwrap());
        self.out.extend(self.stdout.iter());
        self.err.extend(self.stderr.iter());
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Ended as a user would, so that nothing of it stays behind.
            self.interrupt();
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < DEADLINE {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            self.out.extend(self.stdout.try_iter());
            self.err.extend(self.stderr.try_iter());
            eprintln!("stdout:\n{}\nstderr:\n{}", self.out.join("\n"), self.err.join("\n"));
        }
    }
}

fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn wait_line(from: &mpsc::Receiver<String>, seen: &mut Vec<String>, part: &str) -> String {
    if let Some(line) = seen.iter().find(|line| line.contains(part)) {
        return line.clone();
    }
    let start = Instant::now();
    loop {
        let left = DEADLINE.saturating_sub(start.elapsed());
        let line = from.recv_timeout(left).unwrap_or_else(|error| {
            panic!("no line with `{part}` ({error}); there were:\n{}", seen.join("\n"))
        });
        seen.push(line.clone());
        if line.contains(part) {
            return line;
        }
    }
}

/// A cluster of `mezz local`.
pub struct Cluster {
    pub process: Running,
    pub address: String,
}

impl Cluster {
    /// Agents of 2 cpus and 512 MiB, without cgroups: the tests need no rights.
    /// Temporary files go below `tmp`.
    pub fn start(agents: usize, tmp: &Path) -> Self {
        let mut command = mezz();
        command
            .env("TMPDIR", tmp)
            .args(["local", "--agents", &agents.to_string(), "--port", "0"])
            .args(["--resources", "cpus:2;mem:512;disk:100", "--containment", "none"]);
        let mut process = Running::start(command);
        let line = process.wait_out("The cluster is up: master at ");
        let address = line.split("master at ").nth(1).unwrap().split(',').next().unwrap();
        Self { address: address.to_owned(), process }
    }

    /// The program, asking this cluster.
    pub fn mezz(&self, args: &[&str]) -> Command {
        let mut command = mezz();
        command.env("MEZZ_MASTER", &self.address).args(args);
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.mezz(args).stdin(Stdio::null()).output().unwrap()
    }

    /// A list, as programs see it.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.mezz(args).args(["--output", "json"]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The ids of all tasks in this state.
    pub fn tasks(&self, state: &str) -> Vec<String> {
        let tasks = self.json(&["tasks", "--completed"]);
        let tasks = tasks.as_array().unwrap().iter().filter(|t| t["state"] == state);
        tasks.map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    }
}
