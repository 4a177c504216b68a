//! The same Spark jobs on Spark's own Standalone manager and on Mezz, with the
//! same cores and memory, alternating.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cluster::{Process, mezz_program},
    report::{Measurement, Report},
};

/// Options of `spark`.
#[derive(Debug, Args)]
pub struct SparkArgs {
    /// Spark's folder
    #[arg(long, env = "SPARK_HOME")]
    spark_home: PathBuf,
    /// The Python that runs the jobs
    #[arg(long, env = "PYSPARK_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// How often each job runs on each manager
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Cores of the cluster, in executors of one core each
    #[arg(long, default_value_t = 2)]
    cores: usize,
    /// Size of the text whose words are counted, in MB
    #[arg(long, default_value_t = 200)]
    text_mb: usize,
    /// Folder with pi.py and wordcount.py
    #[arg(long, default_value = "spark-framework/examples")]
    examples: PathBuf,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

/// A Spark daemon that is killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SparkArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let text = folder.path().join("text.txt");
        write_text(&text, self.text_mb)?;
        let mezz = mezz_program(self.mezz.as_deref())?;
        let resources = format!("cpus:{};mem:{}", self.cores, self.cores * 2048);
        let work_dir = folder.path().join("agent").to_string_lossy().into_owned();
        let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
        let agent_args = [
            "--resources",
            &resources,
            "--work-dir",
            &work_dir,
            "--cgroup-root",
            "mezz-bench-spark",
        ];
        let _agent = Process::agent(&mezz, &master.address, &agent_args).await?;
        let (standalone, _daemons) = self.standalone(folder.path())?;

        let text = text.to_string_lossy().into_owned();
        let jobs = [("pi_20", "pi.py", "20".to_owned()), ("wordcount", "wordcount.py", text)];
        let mut times: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for _ in 0..self.rounds {
            for (name, program, argument) in &jobs {
                let program = self.examples.join(program);
                let mut on_mezz = Command::new(&mezz);
                on_mezz.args(["spark", "submit"]).env("MEZZ_MASTER", &master.address);
                let mut on_standalone = Command::new(self.spark_home.join("bin/spark-submit"));
                on_standalone.args(["--master", &standalone]);
                for (manager, mut command) in [("standalone", on_standalone), ("mezz", on_mezz)] {
                    let took = self.job(&mut command, &program, argument)?;
                    times.entry((name, manager)).or_default().push(took);
                }
            }
        }
        for (name, _, _) in &jobs {
            let own = times.get(&(*name, "mezz")).cloned().unwrap_or_default();
            let other = times.get(&(*name, "standalone")).cloned().unwrap_or_default();
            let ratios = own.iter().zip(&other).map(|(a, b)| a / b).collect();
            for (what, unit, values) in [
                ("mezz", "s", own.clone()),
                ("standalone", "s", other.clone()),
                ("ratio", "", ratios),
            ] {
                report.add(
                    Measurement::new(&format!("spark.{name}.{what}"), unit, values)
                        .with("cores", self.cores)
                        .with("text_mb", self.text_mb),
                );
            }
        }
        Ok(())
    }

    fn job(&self, command: &mut Command, program: &Path, argument: &str) -> Result<f64> {
        let cores = self.cores.to_string();
        let start = Instant::now();
        let output = command
            .env("SPARK_HOME", &self.spark_home)
            .env("PYSPARK_PYTHON", &self.python)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .args(["--conf", &format!("spark.cores.max={cores}")])
            .args(["--conf", "spark.executor.cores=1", "--conf", "spark.executor.memory=1g"])
            .args(["--conf", "spark.ui.enabled=false"])
            .arg(program)
            .arg(argument)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        let took = start.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!(
                "{}: {}\n{}",
                program.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(took)
    }

    /// Spark's own master and one worker.
    fn standalone(&self, folder: &Path) -> Result<(String, Vec<Daemon>)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("spark://127.0.0.1:{port}");
        let start = |class: &str, args: &[&str]| -> Result<Daemon> {
            let log =
                std::fs::File::create(folder.join(class.rsplit('.').next().unwrap_or(class)))?;
            let child = Command::new(self.spark_home.join("bin/spark-class"))
                .arg(class)
                .args(args)
                .env("SPARK_HOME", &self.spark_home)
                .env("SPARK_LOCAL_IP", "127.0.0.1")
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            Ok(Daemon(child))
        };
        let port = port.to_string();
        let master = start(
            "org.apache.spark.deploy.master.Master",
            &["--host", "127.0.0.1", "--port", &port, "--webui-port", "0"],
        )?;
        let (cores, memory) = (self.cores.to_string(), format!("{}m", self.cores * 2048));
        let work_dir = folder.join("standalone").to_string_lossy().into_owned();
        let worker = start(
            "org.apache.spark.deploy.worker.Worker",
            &[
                "--cores",
                &cores,
                "--memory",
                &memory,
                "--work-dir",
                &work_dir,
                "--webui-port",
                "0",
                &url,
            ],
        )?;
        wait_for_log(&folder.join("Worker"), "Successfully registered with master")?;
        Ok((url, vec![master, worker]))
    }
}

fn wait_for_log(log: &Path, text: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if std::fs::read_to_string(log).unwrap_or_default().contains(text) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("`{text}` is not in {} after 60 s", log.display())
}

/// Words of a small vocabulary, the same every time.
fn write_text(path: &Path, megabytes: usize) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let (mut written, mut state) = (0, 1u64);
    while written < megabytes * 1_000_000 {
        let mut line = String::with_capacity(80);
        for _ in 0..10 {
            // Numerical Recipes' linear congruential generator: cheap and repeatable.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & 0xffff_ffff;
            line.push_str(&format!("w{} ", state % 5000));
        }
        line.push('\n');
        written += line.len();
        out.write_all(line.as_bytes())?;
    }
    Ok(out.flush()?)
}
