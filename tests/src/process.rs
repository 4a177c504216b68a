//! One process, its log, and its end.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{eventually, signal};

/// In the environment of whatever tests start: the folder of its logs.
pub(crate) const MARK: &str = "MEZZ_TEST_FOLDER";

/// A child process whose output goes to files; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// All that it wrote.
    pub stdout: String,
    /// All that it wrote.
    pub stderr: String,
}

impl Finished {
    /// This, if the exit code is 0.
    ///
    /// # Errors
    /// Otherwise, with what it wrote.
    pub fn success(self) -> Result<Self> {
        if self.code == Some(0) { Ok(self) } else { bail!("exit code {:?}\n{self}", self.code) }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--- stdout\n{}\n--- stderr\n{}", tail(&self.stdout), tail(&self.stderr))
    }
}

impl Process {
    /// Starts `command`; `name` is for messages and file names, `logs` an existing
    /// folder. Output is appended, so a restarted process continues its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, logs: &Path, command: Command) -> Result<Self> {
        Self::spawn(name, logs, command, Stdio::null())
    }

    /// The same, with this as its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with_input(
        name: &str,
        logs: &Path,
        command: Command,
        input: &str,
    ) -> Result<Self> {
        let path = logs.join(format!("{name}.in"));
        std::fs::write(&path, input)?;
        Self::spawn(name, logs, command, Stdio::from(File::open(path)?))
    }

    fn spawn(name: &str, logs: &Path, mut command: Command, stdin: Stdio) -> Result<Self> {
        let open = |path: &Path| File::options().create(true).append(true).open(path);
        let (stdout, stderr) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        // Of a group of its own, as a terminal would start it.
        let child = command
            .process_group(0)
            .env(MARK, logs)
            .stdin(stdin)
            .stdout(open(&stdout)?)
            .stderr(open(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr, ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Shows the end of what it wrote to whoever reads the output of a failed test.
    pub(crate) fn show(&self) {
        eprintln!("=== {} ({:?})\n{}", self.name, self.ended, self.finished());
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Waits until it has written this to its output or its log.
    ///
    /// # Errors
    /// When it has not after `patience`, or has ended without it.
    pub fn wait_for_output(&mut self, text: &str, patience: Duration) -> Result<()> {
        let what = format!("{} writes `{text}`", self.name);
        eventually(patience, &what, || {
            let running = self.running();
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return Ok(Ok(()));
            }
            if !running {
                bail!("{} has ended: {:?}\n{}", self.name, self.ended, self.finished());
            }
            Ok(Err(tail(&self.stderr())))
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `patience`; it is left running.
    pub fn wait(&mut self, patience: Duration) -> Result<Finished> {
        let what = format!("{} ends", self.name);
        eventually(patience, &what, || {
            Ok(if self.running() { Err(tail(&self.stderr())) } else { Ok(self.finished()) })
        })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, what: Signal) -> Result<()> {
        signal(self.pid(), what)
    }

    /// Sends a signal to it and to its children, as a terminal does on Ctrl-C. No
    /// error when none is left.
    ///
    /// # Errors
    /// When this is not allowed.
    pub fn signal_group(&self, what: Signal) -> Result<()> {
        let group = rustix::process::Pid::from_raw(self.pid()).context("pid 0")?;
        match rustix::process::kill_process_group(group, what) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("signalling the group of {}", self.name))
            }
        }
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill_9(&mut self) -> Result<()> {
        self.child.kill()?;
        self.ended = Some(self.child.wait()?);
        Ok(())
    }

    fn finished(&self) -> Finished {
        Finished {
            code: self.ended.and_then(|s| s.code()),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running() {
            let _ = self.signal_group(Signal::KILL);
            let _ = self.kill_9();
        }
        if std::thread::panicking() {
            self.show();
        }
    }
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The `mezz` program under test.
///
/// # Errors
/// When it was not built.
pub fn mezz_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MEZZ_BIN") {
        return Ok(path.into());
    }
    // target/<profile>/deps/<test> -> target/<profile>/mezz
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("test program without a folder")?;
    let path = profile.join("mezz");
    if !path.exists() {
        bail!("{} is missing: run ./test.sh, or `cargo build -p mezz`", path.display());
    }
    Ok(path)
}

/// An example of the SDK that cargo built beside the `mezz` program.
///
/// # Errors
/// When it was not built.
pub fn example_program(name: &str) -> Result<PathBuf> {
    let mezz = mezz_program()?;
    let path = mezz.with_file_name("examples").join(name);
    if !path.exists() {
        bail!("{} is missing: run ./test.sh, or `cargo build --examples`", path.display());
    }
    Ok(path)
}

/// A command with an environment of its own: nothing of the caller's `MEZZ_*` or
/// `SPARK_*` variables.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("MEZZ_") || name.starts_with("SPARK_") || name.starts_with("PYSPARK_") {
            command.env_remove(name);
        }
    }
    command
}
