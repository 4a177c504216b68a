//! The same Spark jobs in the driver alone, on Spark's own Standalone manager and on Mezz in
//! both modes, with the same cores and memory, alternating.

mod breakdown;
mod cpu;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
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
    /// Tiny tasks of the job that measures nothing else
    #[arg(long, default_value_t = 10_000)]
    tiny_tasks: usize,
    /// Folder with pi.py and wordcount.py
    #[arg(long, default_value = "spark-framework/examples")]
    examples: PathBuf,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
    /// Only these jobs, by name
    #[arg(long, value_delimiter = ',')]
    jobs: Vec<String>,
    /// Only on these
    #[arg(long, value_delimiter = ',', value_enum)]
    managers: Vec<Manager>,
    /// When each step of a job's start was reached, in place of how long it took
    #[arg(long, conflicts_with = "cpu")]
    steps: bool,
    /// Also the processor time of each process while the job ran
    #[arg(long)]
    cpu: bool,
}

/// Runs another program in a session that is there already, and tells how long the
/// session and the program took.
const TIMED: &str = r#"
import runpy, sys, time
start = time.time()
from pyspark.sql import SparkSession
SparkSession.builder.getOrCreate()
ready = time.time()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("TIMES", ready - start, time.time() - ready, ready, flush=True)
"#;

/// The job of which the number of tasks is known.
const TINY_JOB: &str = "tiny";

/// Tasks that do nothing, in the JVM.
const TINY: &str = r#"
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
n = int(sys.argv[1])
assert spark.sparkContext._jsc.sc().range(0, n, 1, n).count() == n
"#;

/// Of each of the larger tasks; a quarter of a second of Python.
const LARGE_DARTS: &str = "1000000";

/// The word count as a query: lines are split, exploded and grouped.
const SQL: &str = r#"
import sys
from pyspark.sql import SparkSession, functions as f
spark = SparkSession.builder.getOrCreate()
words = spark.read.text(sys.argv[1]).select(f.explode(f.split("value", " ")).alias("word"))
counts = words.where("word != ''").groupBy("word").count()
assert counts.count() == 5000
"#;

/// Where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Manager {
    /// In the driver alone
    Local,
    /// Spark's own
    Standalone,
    /// Mezz in coarse-grained mode
    Coarse,
    /// Mezz in fine-grained mode
    Fine,
}

impl Manager {
    const ALL: [Self; 4] = [Self::Local, Self::Standalone, Self::Coarse, Self::Fine];

    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Standalone => "standalone",
            Self::Coarse => "coarse",
            Self::Fine => "fine",
        }
    }
}

struct Job {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

/// In seconds.
struct Times {
    /// All of it.
    wall: f64,
    /// Until the session was there.
    start_up: f64,
    /// The program in the session.
    job: f64,
    /// When the session was there, since the epoch.
    ready: f64,
    /// Of each process, while the program ran.
    cpu: cpu::Seconds,
}

/// Of each job on each manager.
type AllTimes = BTreeMap<(&'static str, Manager), Vec<Times>>;

/// One of them.
type Part = fn(&Times) -> f64;

const PARTS: [(&str, Part); 3] =
    [("wall", |t| t.wall), ("start_up", |t| t.start_up), ("job", |t| t.job)];

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
        let (standalone, _daemons) = match self.managers().any(|m| m == Manager::Standalone) {
            true => self.standalone(folder.path())?,
            false => Default::default(),
        };

        let timed = folder.path().join("timed.py");
        std::fs::write(&timed, TIMED)?;
        let tiny = folder.path().join("tiny.py");
        std::fs::write(&tiny, TINY)?;
        let sql = folder.path().join("sql.py");
        std::fs::write(&sql, SQL)?;
        let text = text.to_string_lossy().into_owned();
        let job = |name, program: &Path, arguments: &[&str]| Job {
            name,
            program: program.to_owned(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
        };
        let pi = self.examples.join("pi.py");
        let jobs = [
            job("pi_small", &pi, &["20"]),
            job("pi_large", &pi, &["20", LARGE_DARTS]),
            job("wordcount", &self.examples.join("wordcount.py"), &[&text]),
            job("wordcount_sql", &sql, &[&text]),
            job(TINY_JOB, &tiny, &[&self.tiny_tasks.to_string()]),
        ];
        if let Some(wrong) = self.jobs.iter().find(|name| jobs.iter().all(|j| j.name != **name)) {
            let names: Vec<_> = jobs.iter().map(|j| j.name).collect();
            bail!("--jobs: there is no `{wrong}`; there are {}", names.join(", "));
        }
        let jobs = Vec::from(jobs)
            .into_iter()
            .filter(|j| self.jobs.is_empty() || self.jobs.iter().any(|name| name == j.name));
        let jobs: Vec<Job> = jobs.collect();
        let logs = match self.steps {
            true => Some(breakdown::java_option(folder.path())?),
            false => None,
        };
        let mut all = AllTimes::new();
        let mut steps: BTreeMap<_, Vec<breakdown::Steps>> = BTreeMap::new();
        for round in 1..=self.rounds {
            for job in &jobs {
                // Nothing else here lets a signal be heard.
                tokio::task::yield_now().await;
                for manager in self.managers() {
                    let mut command = match manager {
                        Manager::Local | Manager::Standalone => {
                            let url = match manager {
                                Manager::Local => format!("local[{}]", self.cores),
                                _ => standalone.clone(),
                            };
                            let mut command =
                                Command::new(self.spark_home.join("bin/spark-submit"));
                            command.args(["--master", &url]);
                            command
                        }
                        Manager::Coarse | Manager::Fine => {
                            let mut command = Command::new(&mezz);
                            command.env("MEZZ_MASTER", &master.address);
                            command.args(["spark", "submit", "--mode", manager.name()]);
                            command
                        }
                    };
                    for part in ["driver", "executor"].iter().filter(|_| logs.is_some()) {
                        let option = logs.as_deref().unwrap_or_default();
                        let setting = format!("spark.{part}.extraJavaOptions={option}");
                        command.args(["--conf", &setting]);
                    }
                    let start = SystemTime::now();
                    let watch = self.cpu.then(cpu::Watch::start).transpose()?;
                    let (mut times, log) = self.job(&mut command, &timed, job)?;
                    // Runs of half an hour are broken off; what they had measured is still worth reading.
                    eprintln!(
                        "round {round}: {} {}: wall {:.1} s, start-up {:.1} s, job {:.1} s",
                        job.name,
                        manager.name(),
                        times.wall,
                        times.start_up,
                        times.job
                    );
                    if let Some(watch) = watch {
                        times.cpu = watch.end(&times)?;
                    }
                    if logs.is_some() {
                        let read = breakdown::read(start, &times, &log, folder.path())?;
                        steps.entry((job.name, manager)).or_default().push(read);
                    }
                    all.entry((job.name, manager)).or_default().push(times);
                }
            }
        }
        if self.steps {
            for ((job, manager), runs) in &steps {
                breakdown::report(job, manager.name(), runs, report);
            }
        } else {
            self.report(&jobs, &all, report);
        }
        Ok(())
    }

    fn managers(&self) -> impl Iterator<Item = Manager> {
        Manager::ALL
            .into_iter()
            .filter(|manager| self.managers.is_empty() || self.managers.contains(manager))
    }

    fn report(&self, jobs: &[Job], all: &AllTimes, report: &mut Report) {
        let mut add = |name: String, unit, values| {
            let measurement = Measurement::new(&format!("spark.{name}"), unit, values);
            report.add(measurement.with("cores", self.cores).with("text_mb", self.text_mb));
        };
        for job in jobs {
            let of = |manager| all.get(&(job.name, manager)).map(Vec::as_slice).unwrap_or_default();
            for manager in self.managers() {
                for (what, part) in PARTS {
                    let values = of(manager).iter().map(part).collect();
                    add(format!("{}.{}.{what}", job.name, manager.name()), "s", values);
                }
                let used: BTreeSet<_> = of(manager).iter().flat_map(|t| t.cpu.keys()).collect();
                let (each, unit) = match job.name {
                    TINY_JOB => (1e3 / self.tiny_tasks as f64, "ms/task"),
                    _ => (1.0, "s"),
                };
                for what in used {
                    let values = of(manager).iter().filter_map(|t| t.cpu.get(what));
                    let values = values.map(|seconds| seconds * each).collect();
                    add(format!("{}.{}.cpu.{what}", job.name, manager.name()), unit, values);
                }
                if job.name == TINY_JOB {
                    let rates = of(manager).iter().map(|t| self.tiny_tasks as f64 / t.job);
                    add(format!("tiny.{}.rate", manager.name()), "tasks/s", rates.collect());
                }
            }
            let ratios = |one, other, part: Part| {
                of(one).iter().zip(of(other)).map(|(a, b)| part(a) / part(b)).collect()
            };
            let wall: Vec<f64> = ratios(Manager::Coarse, Manager::Standalone, |t| t.wall);
            let own: Vec<f64> = ratios(Manager::Fine, Manager::Coarse, |t| t.job);
            for (what, values) in [("coarse_to_standalone.wall", wall), ("fine_to_coarse.job", own)]
            {
                if !values.is_empty() {
                    add(format!("{}.{what}", job.name), "", values);
                }
            }
        }
    }

    /// Runs it; returns how long it took, and what the driver logged.
    fn job(&self, command: &mut Command, timed: &Path, job: &Job) -> Result<(Times, String)> {
        let cores = self.cores.to_string();
        let start = Instant::now();
        let output = command
            .env("SPARK_HOME", &self.spark_home)
            .env("PYSPARK_PYTHON", &self.python)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .args(["--conf", &format!("spark.cores.max={cores}")])
            .args(["--conf", "spark.executor.cores=1", "--conf", "spark.executor.memory=1g"])
            .args(["--conf", "spark.ui.enabled=false"])
            .arg(timed)
            .arg(&job.program)
            .args(&job.arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        let wall = start.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stdout);
        let times = said.lines().find_map(|line| {
            let mut words = line.strip_prefix("TIMES ")?.split(' ').map(str::parse::<f64>);
            Some((words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?))
        });
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        match times {
            Some((start_up, own, ready)) if output.status.success() => {
                Ok((Times { wall, start_up, job: own, ready, cpu: Default::default() }, log))
            }
            _ => bail!("{}: {}\n{log}", job.program.display(), output.status),
        }
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
