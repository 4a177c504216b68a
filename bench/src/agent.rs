//! One real agent: no-op command tasks per second, and from accept to
//! TASK_RUNNING.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use mezz_proto::{resources::Resources, v1};
use mezz_sdk::scheduler::Event;

use crate::{
    cluster::{Process, mezz_program},
    containment::Containment,
    framework::{Framework, unless_broken_off},
    report::{Measurement, Report},
};

/// Options of `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Tasks in each round
    #[arg(long, default_value_t = 1000)]
    tasks: usize,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Tasks one after the other, for the time from accept to TASK_RUNNING
    #[arg(long, default_value_t = 300)]
    samples: usize,
    /// What holds the tasks
    #[arg(long, value_delimiter = ',', value_enum, default_value = "none,cgroup,namespaces")]
    containment: Vec<Containment>,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

/// Who works for tasks.
struct Processes {
    master: Process,
    agent: Process,
}

impl Processes {
    /// Processor time so far. Launchers bring that of their programs along, and are counted
    /// when they have ended.
    fn cpu(&self) -> Result<[(&'static str, Duration); 3]> {
        Ok([
            ("master", self.master.cpu()?),
            ("agent", self.agent.cpu()?),
            ("launchers_and_tasks", self.agent.cpu_of_ended()?),
        ])
    }
}

impl AgentArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        for containment in &self.containment {
            self.one(*containment, report).await?;
        }
        Ok(())
    }

    async fn one(&self, containment: Containment, report: &mut Report) -> Result<()> {
        let mezz = mezz_program(self.mezz.as_deref())?;
        let folder = tempfile::tempdir()?;
        let work_dir = folder.path().to_string_lossy().into_owned();
        let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
        let args = [
            "--resources",
            "cpus:64;mem:65536",
            "--containment",
            containment.of_agent(),
            "--work-dir",
            &work_dir,
            "--cgroup-root",
            "mezz-bench",
        ];
        let agent = Process::agent(&mezz, &master.address, &args).await?;
        let task = Resources::parse("cpus:1;mem:64")?;
        let mut framework =
            Framework::connect(&master.address, "bench", task)?.container(containment.container());
        let processes = Processes { master, agent };
        let measured = self.measure(containment, &mut framework, &processes, report);
        let measured = unless_broken_off(measured).await;
        let ended = framework.end(&work_dir).await;
        measured.and(ended)
    }

    async fn measure(
        &self,
        containment: Containment,
        framework: &mut Framework,
        processes: &Processes,
        report: &mut Report,
    ) -> Result<()> {
        let mut rates = Vec::new();
        let mut costs = BTreeMap::<_, Vec<f64>>::new();
        for _ in 0..self.rounds {
            let before = processes.cpu()?;
            framework.scheduler.revive(&[]).await?;
            let took = framework.run_tasks(self.tasks, v1::TaskState::TaskFinished).await?;
            rates.push(self.tasks as f64 / took.as_secs_f64());
            for ((whose, before), (_, after)) in before.into_iter().zip(processes.cpu()?) {
                let each = (after - before).as_secs_f64() * 1e3 / self.tasks as f64;
                costs.entry(whose).or_default().push(each);
            }
        }
        report.add(
            Measurement::new("agent.rate", "tasks/s", rates)
                .with("containment", containment.name())
                .with("tasks", self.tasks),
        );
        // Less disturbed by what else runs on the machine than rates are.
        for (whose, each) in costs {
            report.add(
                Measurement::new(&format!("agent.cpu.{whose}"), "ms/task", each)
                    .with("containment", containment.name())
                    .with("tasks", self.tasks),
            );
        }

        let mut millis = Vec::new();
        let mut accepted = None;
        framework.scheduler.revive(&[]).await?;
        while millis.len() < self.samples {
            match framework.next().await? {
                Event::Offers(offers) => {
                    let wanted = usize::from(accepted.is_none());
                    let now = Instant::now();
                    if framework.fill(offers, wanted).await? == 1 {
                        accepted = Some(now);
                    }
                }
                Event::Update(status) => match status.state() {
                    v1::TaskState::TaskRunning => {
                        if let Some(at) = accepted {
                            millis.push(at.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    state if state.is_terminal() => {
                        accepted = None;
                        framework.scheduler.revive(&[]).await?;
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        report.add(
            Measurement::new("agent.accept_to_running", "ms", millis)
                .with("containment", containment.name()),
        );
        Ok(())
    }
}
