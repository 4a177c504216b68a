//! Real Spark against the local sidecar (`examples/local_sidecar.rs`).

// Clippy takes only functions marked as tests for tests.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Nothing here takes longer, even where all cores are busy with something else.
const PATIENCE: Duration = Duration::from_secs(240);

/// Where the Spark is that the tests use.
pub fn spark_home() -> PathBuf {
    let home = env::var_os("MEZZ_TEST_SPARK_HOME").map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "set MEZZ_TEST_SPARK_HOME to a Spark 3.5 or 4.x, for example: python3 -m venv v && \
             v/bin/pip install pyspark==4.3.0, then v/lib/python3*/site-packages/pyspark"
        )
    });
    assert!(home.join("bin/spark-submit").is_file(), "no bin/spark-submit in {}", home.display());
    home
}

/// The plugin, built once for all tests of the process.
fn bridge() -> &'static Path {
    static JAR: OnceLock<PathBuf> = OnceLock::new();
    JAR.get_or_init(|| {
        let name = format!("mezz-spark-bridge-{}.jar", std::process::id());
        let jar = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bridge/build.sh");
        let built = Command::new(script).arg(spark_home()).arg(&jar).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "bridge/build.sh failed: {said}");
        jar
    })
}

/// `cargo test` and `cargo nextest` build examples beside the tests.
fn sidecar() -> PathBuf {
    let exe = env::current_exe().unwrap();
    let path = exe.parent().unwrap().parent().unwrap().join("examples/local_sidecar");
    assert!(
        path.is_file(),
        "{} is missing: run without --test, or build --examples",
        path.display()
    );
    path
}

/// A job of Spark's. Its processes do not outlive the test.
pub struct Job {
    pub folder: tempfile::TempDir,
    driver: Child,
    finished: bool,
}

impl Job {
    /// Starts `spark-submit` with these settings for `app` in `folder`; `@` in
    /// the application's arguments is the job's own folder.
    pub fn start(settings: &[(&str, &str)], app: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = spark_home();
        let log = File::create(folder.path().join("log")).unwrap();
        let conf: BTreeMap<&str, &str> = [
            ("spark.executor.memory", "512m"),
            ("spark.ui.enabled", "false"),
            ("spark.driver.host", "127.0.0.1"),
        ]
        .into_iter()
        .chain(settings.iter().copied())
        .collect();
        let mut command = Command::new(home.join("bin/spark-submit"));
        command
            .args(["--master", "spark-mezz://127.0.0.1:5050", "--driver-class-path"])
            .arg(bridge())
            .args(["--driver-memory", "512m"]);
        for (key, value) in conf {
            command.args(["--conf", &format!("{key}={value}")]);
        }
        let folder_name = folder.path().display().to_string();
        let driver = command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(app))
            .args(args.iter().map(|a| a.replace('@', &folder_name)))
            .env("SPARK_HOME", &home)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .env("MEZZ_BIN", sidecar())
            .env("MEZZ_LOCAL_DIR", folder.path())
            .env("MEZZ_LOCAL_CPUS", "4")
            .env_remove("SPARK_CONF_DIR")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, driver, finished: false }
    }

    /// What a file of the job's folder holds; nothing when it is not there yet.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    pub fn touch(&self, file: &str) {
        fs::write(self.folder.path().join(file), "").unwrap();
    }

    /// What the local sidecar wrote about things of this kind.
    pub fn events(&self, kind: &str) -> Vec<String> {
        let prefix = format!("{kind} ");
        self.read("events").lines().filter(|l| l.starts_with(&prefix)).map(str::to_owned).collect()
    }

    /// Waits until `done` says so; fails when the driver ends before.
    pub fn wait_for(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let over = !self.finished && self.driver.try_wait().unwrap().is_some();
            assert!(!over, "the driver ended; waited in vain for {what}\n{}", self.all());
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}\n{}", self.all());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the driver's end.
    pub fn finish(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.driver.try_wait().unwrap() {
                self.finished = true;
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the driver does not end\n{}", self.all());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The pids of the executors that were ever started, by their number.
    pub fn executors(&self) -> BTreeMap<u32, u32> {
        let launched = self.events("launch");
        launched
            .iter()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.nth(1)?.parse().ok()?, words.nth(1)?.parse().ok()?))
            })
            .collect()
    }

    pub fn sidecar_pid(&self) -> u32 {
        self.events("sidecar")[0].split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// `spark-submit` becomes the driver's JVM by exec.
    pub fn driver_pid(&self) -> u32 {
        self.driver.id()
    }

    /// Everything there is to know, for a failed test's message.
    pub fn all(&self) -> String {
        format!("--- events\n{}--- log\n{}", self.read("events"), self.read("log"))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The sidecar and the executors end with the driver.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

pub fn kill_9(pid: u32) {
    let done = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

/// Whether a process runs; one that has ended and was not waited for does not.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}
